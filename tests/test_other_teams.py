"""Test that a key which may call one team's app learns nothing of another team's, and changes none of
its answers.
"""

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Semaphore
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import Response

from processes import Serving, serving
from slipway.admission import Admission
from slipway.commands.cache_explain import explained_lines
from slipway.knowledge.attachments import Attachment
from slipway.settings import Settings
from slipway.types import Asker
from slipway.web.attachments import READ_AT_ONCE, AttachmentRoutes
from slipway.web.conversations import SharedSource, SharedTurn, unreadable
from waiting import PATIENCE_S, until

PAGE = Path(__file__).parent.parent / "src" / "slipway" / "web" / "static"
KEYS: dict[str, dict[str, Any]] = {
    "sales": {"apps": ["handbook"], "documents": True},
    "admin": {"apps": ["handbook"], "admin": True},
    "board": {"documents": True},
}
QUESTION = "What is the plan of the merger?"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    folder = tmp_path_factory.mktemp("teams")
    for app, text in {"handbook": "# Office\n\nIt opens at nine.\n", "merger": MERGER}.items():
        (folder / app).mkdir()
        (folder / app / f"{app}.md").write_text(text)
    apps = {name: {"knowledge": [f"./{name}"], "cache": "1h"} for name in ("handbook", "merger")}
    keys = [{"key": secret(name), **fields} for name, fields in KEYS.items()]
    settings = {"embedding": "none", "apps": apps, "keys": keys}
    with serving(folder, settings=settings) as server:
        until(lambda: all(app["ready"] for app in states(server)))
        yield server


def states(server: Serving) -> list[dict[str, Any]]:
    return list(get(server, "board", "/readyz").json()["knowledge"].values())


MERGER = "# Merger\n\n## Plan of the merger\n\nThe plan of the merger is to buy the rival in May.\n"


def secret(name: str) -> str:
    return f"sw-the-key-of-{name}"


def get(server: Serving, who: str, path: str) -> httpx.Response:
    return server.get(path, headers={"authorization": f"Bearer {secret(who)}"})


def post(server: Serving, who: str, path: str, body: Any) -> httpx.Response:
    return server.post(path, body, headers={"authorization": f"Bearer {secret(who)}"})


def test_the_page_of_a_key_knows_its_own_apps_only(server: Serving) -> None:
    assert get(server, "sales", "/v1/session").json()["attach"]["apps"] == ["handbook"]
    assert get(server, "board", "/v1/session").json()["attach"]["apps"] == ["handbook", "merger"]


def test_kept_answers_of_other_apps_are_neither_found_nor_removed(server: Serving) -> None:
    ask = {"question": QUESTION, "app": "merger"}
    first = post(server, "board", "/v1/answers", ask).json()
    assert [source["path"] for source in first["sources"]] == ["merger.md"]
    documents = get(server, "board", "/v1/documents?app=merger").json()["data"]
    for what in (
        {"document": "merger.md"},
        {"document": documents[0]["id"]},
        {"key": first["cache"]["key"]},
    ):
        reply = post(server, "sales", "/v1/cache/invalidate", what).json()
        assert reply["invalidated"] == 0
        assert documents[0]["path"] not in reply["note"] or "merger.md" in what.values()
    assert post(server, "board", "/v1/answers", ask).json()["cache"]["state"] == "hit"
    assert post(server, "board", "/v1/cache/invalidate", what).json()["invalidated"] == 1


def test_the_operations_page_lists_documents_of_apps_that_the_key_may_call(
    server: Serving,
) -> None:
    found = get(server, "admin", "/v1/operations").json()["documents"]
    assert [row["app"] for row in found["apps"]] == ["handbook"]
    assert [row["path"] for row in found["data"]] == ["handbook.md"]


def test_a_conversation_too_large_to_be_kept_is_not_shared(server: Serving) -> None:
    turn = {"question": "q" * 4_500_000, "app": "handbook", "sources": []}
    reply = post(server, "sales", "/v1/shares", {"turns": [turn]})
    assert reply.status_code == 400
    assert "4 MiB" in reply.json()["error"]["message"]


@pytest.mark.parametrize("number", ["1e309", "9" * 5000])
def test_a_number_that_no_app_can_use_is_no_bug(server: Serving, number: str) -> None:
    body = '{"model": "handbook", "messages": [{"role": "user", "content": "a"}], "seed": %s}'
    reply = httpx.post(
        f"{server.url}/v1/chat/completions",
        content=body % number,
        headers={"authorization": f"Bearer {secret('sales')}", "content-type": "application/json"},
        trust_env=False,
    )
    assert reply.status_code == 400, reply.text
    assert "out of range" in reply.json()["error"]["message"]


def test_no_path_that_the_page_calls_holds_a_value_as_it_is() -> None:
    """An id may come from a shared conversation and hold `../`."""
    calls = re.compile(
        r"\b(?:call|get|send|fetch)\(`[^`]*\$\{(?!encodeURIComponent\(|page\.window)"
    )
    for file in [*PAGE.glob("*.js"), *PAGE.glob("ops/*.js")]:
        assert not calls.search(file.read_text()), f"{file.name}: write at`…` or encodeURIComponent"


def test_a_question_of_somebody_else_cannot_steer_the_terminal() -> None:
    near = {"similarity": 0.9, "refused": None, "text": "hours\x1b]0;owned\x07\n\u202e?"}
    found = {"app": "a", "outcome": "none", "why": "", "near": [near], "score": None, "bound": None}
    assert all(line.isprintable() for line in explained_lines(found))


FORM = (
    b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\n'
    b"words\r\n--x--\r\n"
)


def attaching() -> Request:
    """Return a request that attaches a small file."""

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": FORM, "more_body": False}

    scope = {
        "type": "http",
        "headers": [(b"content-type", b"multipart/form-data; boundary=x")],
        "extensions": {"slipway": SimpleNamespace(keep_reading=lambda: None)},
        "slipway.asker": Asker(owner="a"),
    }
    return Request(scope, receive)


def test_files_that_wait_to_be_read_are_not_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each may have 50 MB, and everybody may attach many at once."""
    begun, go_on, in_memory = Semaphore(0), Event(), list[bytes]()

    def add(owner: str, name: str, data: bytes, deadline_s: float) -> Attachment:
        begun.release()
        assert go_on.wait(PATIENCE_S)
        return Attachment(id="att-1", owner=owner, name=name, passages=())

    async def read(upload: UploadFile, size: int = -1) -> bytes:
        in_memory.append(b"words")
        return in_memory[-1]

    async def attach_many() -> list[Response]:
        current: Any = SimpleNamespace(settings=Settings())
        routes = AttachmentRoutes(current, SimpleNamespace(add=add))  # type: ignore[arg-type]
        tasks = [asyncio.create_task(routes.add(attaching())) for _ in range(10)]
        for _ in range(READ_AT_ONCE):
            assert await asyncio.to_thread(begun.acquire, timeout=PATIENCE_S)
        for _ in range(100):  # the others have come as far as they can
            await asyncio.sleep(0)
        assert len(in_memory) == READ_AT_ONCE
        go_on.set()
        return await asyncio.gather(*tasks)

    monkeypatch.setattr(UploadFile, "read", read)
    assert [reply.status_code for reply in asyncio.run(attach_many())] == [200] * 10


def test_the_documents_of_an_app_are_listed_once_for_a_shared_conversation() -> None:
    """There may be many of both: 200 turns, and a hundred thousand documents."""
    listed = list[Asker]()

    def documents(asker: Asker) -> list[Any]:
        listed.append(asker)
        return [SimpleNamespace(path="a.md")]

    app = SimpleNamespace(knowledge=SimpleNamespace(documents=documents))
    pipeline: Any = SimpleNamespace(admission=Admission([], 1), apps={"a": app}, routes={"m": None})
    turn = SharedTurn(question="q", app="a", sources=[SharedSource(path="a.md")])
    other = SharedTurn(question="q", app="m", sources=[])
    asker = Asker(owner="x")
    assert unreadable(pipeline, [turn, other] * 100, asker) is None
    assert len(listed) == 1
    for wrong in (
        SharedTurn(question="q", app="a", sources=[SharedSource(path="b.md")]),
        SharedTurn(question="q", app="m", sources=[SharedSource(path="a.md")]),
        SharedTurn(question="q", app="none", sources=[]),
    ):
        assert unreadable(pipeline, [turn, wrong], asker) == 1
    assert unreadable(pipeline, [other, turn], Asker(owner="x", apps=frozenset(["m"]))) == 1
