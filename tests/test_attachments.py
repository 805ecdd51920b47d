"""Test files attached to a conversation: used for it only, by its reader only, and deleted with it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, expect

import plain_http
from browsing import (
    DESK,
    PHONE,
    answer_text,
    ask,
    kept,
    looked_at,
    needs_chromium,
    opened,
    settled,
)
from browsing import serving as serving_page
from processes import Serving, serving
from slipway.errors import NotFound, TooLarge
from slipway.knowledge.attachments import Attachments

KEYS = {"ada": "sw-the-key-of-ada", "bob": "sw-the-key-of-bob"}
DOCUMENT = "# Office\n\n## Opening hours\n\nThe office opens at nine.\n"
ATTACHED = (
    "# Trip\n\n## Hotel\n\nThe hotel in Lisbon costs 120 euro a night.\n\n## Flights\n\nThe "
    "flight leaves at noon.\n"
)
QUESTION = "What does the hotel in Lisbon cost a night?"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("attachments")
    (folder / "docs").mkdir()
    (folder / "docs" / "office.md").write_text(DOCUMENT)
    (folder / "trip.md").write_text(ATTACHED)
    (folder / "a.exe").write_bytes(b"MZ")
    return folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Serving]:
    apps = {"docs": {"knowledge": [str(folder / "docs")]}, "plain": {"route": "m"}}
    settings = {
        "keys": list(KEYS.values()),
        "models": {"m": {"base_url": "http://127.0.0.1:9/v1"}},
        "apps": apps,
    }
    with serving(folder, settings=settings) as server:
        yield server


@pytest.fixture
def ada(server: Serving) -> Iterator[httpx.Client]:
    with client_of(server, "ada") as client:
        yield client


@pytest.fixture
def bob(server: Serving) -> Iterator[httpx.Client]:
    with client_of(server, "bob") as client:
        yield client


def client_of(server: Serving, name: str) -> httpx.Client:
    headers = {"authorization": f"Bearer {KEYS[name]}"}
    client: httpx.Client = plain_http.Client(base_url=server.url, headers=headers, timeout=30)
    return client


def attach(client: httpx.Client, name: str = "trip.md", data: bytes = b"") -> httpx.Response:
    return client.post("/v1/attachments", files={"file": (name, data or ATTACHED.encode())})


def answer(client: httpx.Client, *attachments: str, app: str = "docs") -> httpx.Response:
    body: dict[str, Any] = {"question": QUESTION, "app": app, "attachments": attachments}
    return client.post("/v1/answers", json=body)


def test_an_attached_file_answers_for_its_reader_alone(
    ada: httpx.Client, bob: httpx.Client
) -> None:
    file = attach(ada).json()
    assert (file["name"], file["passages"]) == ("trip.md", 2)
    found = answer(ada, file["id"]).json()
    assert "120 euro" in found["text"]
    assert found["sources"][0]["path"] == "trip.md"
    passage = ada.get(f"/v1/passages/{found['sources'][0]['id']}")
    assert passage.json()["heading"] == "Hotel"
    assert bob.get(f"/v1/passages/{found['sources'][0]['id']}").status_code == 404
    assert answer(bob, file["id"]).status_code == 404
    assert bob.delete(f"/v1/attachments/{file['id']}").status_code == 404
    for client in (ada, bob):
        assert "120 euro" not in answer(client).json()["text"]
        paths = [each["path"] for each in client.get("/v1/documents").json()["data"]]
        assert paths == ["office.md"]


def test_a_deleted_attachment_cannot_be_read(ada: httpx.Client) -> None:
    file = attach(ada).json()
    assert ada.delete(f"/v1/attachments/{file['id']}").status_code == 200
    refused = answer(ada, file["id"])
    assert refused.status_code == 404
    assert refused.json()["error"]["slipway"]["next"] == "Attach it again."
    assert ada.delete(f"/v1/attachments/{file['id']}").status_code == 404


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("virus.exe", b"MZ", "cannot be read"),
        ("empty.md", b" ", "empty"),
        ("broken.pdf", b"%PDF-1.4 nothing", "damaged"),
    ],
)
def test_a_file_that_cannot_be_read_says_why(
    ada: httpx.Client, name: str, data: bytes, said: str
) -> None:
    reply = attach(ada, name, data)
    assert reply.status_code == 400
    assert said in reply.json()["error"]["slipway"]["what"]


def test_an_app_without_documents_takes_no_files(ada: httpx.Client) -> None:
    reply = answer(ada, attach(ada).json()["id"], app="plain")
    assert reply.status_code == 400
    assert "has no documents" in reply.json()["error"]["slipway"]["what"]


@needs_chromium
def test_a_file_is_attached_on_the_page_and_forgotten_with_its_conversation(
    page: Page, folder: Path
) -> None:
    with serving_page(folder / "page.log", "--docs", "docs") as url:
        opened(page, url)
        page.locator("#attach-files").set_input_files([folder / "trip.md", folder / "a.exe"])
        chips = page.locator("#attachments li")
        expect(chips.first).to_have_text("trip.md")
        expect(chips.last).to_contain_text(".exe files are not supported.")
        looked_at(page, "attached", sizes=[DESK, PHONE])
        page.get_by_role("button", name="Remove a.exe").click()
        ask(page, QUESTION)
        settled(page)
        assert "120 euro" in answer_text(page)
        expect(page.locator(".turn .attached")).to_have_text("trip.md")
        expect(page.locator("#attachments")).to_be_hidden()
        page.locator(".answer .mark").first.click()
        expect(page.locator(".passage")).to_contain_text("Hotel")
        expect(page.locator(".passage .notice")).to_be_hidden()
        page.keyboard.press("Escape")
        ask(page, "And when does the flight leave?")
        settled(page)
        assert "noon" in answer_text(page)
        [file] = kept(page)[0]["files"]
        page.set_viewport_size({"width": DESK[0], "height": DESK[1]})
        row = page.locator("#side-list li")
        row.get_by_role("button", name="More about this conversation").click()
        with page.expect_response(f"**/v1/attachments/{file['id']}") as forgotten:
            page.get_by_role("menuitem", name="Delete").click()
        assert forgotten.value.status == 200


def test_one_reader_cannot_leave_others_without_space(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("slipway.knowledge.attachments.MOST_OWN_CHARS", 100)
    held = Attachments()
    first, second = (held.add("ada", name, b"word " * 12, 60.0) for name in ("1.txt", "2.txt"))
    assert held.get("ada", [second.id])
    with pytest.raises(NotFound):
        held.get("ada", [first.id])
    with pytest.raises(TooLarge, match="more than 100 characters"):
        held.add("ada", "3.txt", b"word " * 30, 60.0)
    assert held.get("ada", [second.id]), "what cannot be held takes nobody's place"
