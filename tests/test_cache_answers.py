"""Test kept answers of apps: they serve until what they were written from changes."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from processes import Serving, mocking, serving
from slipway.providers.mock import MockServer
from waiting import until

SALARIES = "# Salaries\n\nThe salary of a captain is 9000 crowns a month.\n"
PARKING = "# Parking\n\nThe parking fee is 12 crowns a day.\n"
RULES = [{"path": "salaries.md", "groups": ["hr"]}]
HR, STAFF, OTHER = "sw-hr-key-1", "sw-staff-key", "sw-other-key"


class KeptApp:
    def __init__(self, server: Serving, mock: MockServer, folder: Path) -> None:
        self.server, self.mock, self.folder = server, mock, folder

    def post(self, path: str, body: Any, key: str, **headers: str) -> httpx.Response:
        return self.server.post(path, body, headers={"authorization": f"Bearer {key}", **headers})

    def ask(self, question: str, key: str = STAFF, app: str = "docs", **headers: str) -> Any:
        reply = self.post("/v1/answers", {"question": question, "app": app}, key, **headers)
        assert reply.status_code == 200, reply.text
        return reply.json()

    def state(self, question: str, key: str = STAFF, app: str = "docs") -> str | None:
        cache = self.ask(question, key, app)["cache"]
        return cache and str(cache["state"])

    def write(self, name: str, text: str) -> None:
        """Write a file, and return when its content is read."""
        beside = self.folder / f".{name}.new"
        beside.write_text(text)
        beside.replace(self.folder / name)
        self.scan()

    def remove(self, name: str) -> None:
        (self.folder / name).unlink()
        self.scan()

    def scan(self) -> None:
        self.post("/v1/documents/scan", {}, HR)
        until(lambda: not self.scanning())

    def scanning(self) -> bool:
        reply = self.server.get("/v1/documents/scan", headers={"authorization": f"Bearer {HR}"})
        return any(each["scanning"] for each in reply.json()["data"])


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KeptApp]:
    folder = tmp_path_factory.mktemp("documents")
    (folder / "parking.md").write_text(PARKING)
    (folder / "salaries.md").write_text(SALARIES)
    with mocking() as mock:
        app = {"knowledge": str(folder), "access": RULES, "cache": "1h"}
        settings = {
            "embedding": "none",
            "keys": [
                {"key": HR, "groups": ["hr", "people"], "documents": True},
                {"key": STAFF, "groups": ["people"]},
                {"key": OTHER, "tenant": "other"},
            ],
            "models": {"m": {"base_url": mock.url, "name": "mock-model", "retries": 0}},
            "apps": {
                "docs": {**app, "route": "m"},
                "quotes": app,
                "plain": {"route": "m", "cache": "1h"},
                "patient": {
                    "route": "m",
                    "cache": {"exact": "1ms", "stale_on_error": "1h"},
                },
            },
        }
        with serving(tmp_path_factory.mktemp("kept"), settings=settings) as server:
            kept = KeptApp(server, mock, folder)
            kept.scan()
            yield kept


def test_the_same_question_is_answered_once_through_both_endpoints(kept: KeptApp) -> None:
    first, calls = kept.ask("What is the parking fee?"), len(kept.mock.requests)
    second = kept.ask("What is the parking fee?")
    chat = kept.post(
        "/v1/chat/completions",
        {"model": "docs", "messages": [{"role": "user", "content": "What is the parking fee?"}]},
        STAFF,
    )
    streamed = kept.post(
        "/v1/answers",
        {"question": "What is the parking fee?", "app": "docs", "stream": True},
        STAFF,
    )
    assert len(kept.mock.requests) == calls
    assert first["cache"]["state"] == "miss"
    assert second["cache"]["state"] == "hit"
    assert second["served_by"] == "cache"
    assert second["cost_usd"] == "0"
    assert second["attempts"] == 0
    for field in ("text", "citations", "sources", "sections", "usage", "model", "prompt"):
        assert second[field] == first[field]
    assert second["id"] != first["id"]
    assert chat.headers["x-slipway-cache"] == "hit"
    assert chat.json()["choices"][0]["message"]["content"] == first["text"]
    done = json.loads(streamed.text.split("event: done\ndata: ")[1].split("\n")[0])
    assert done["cache"]["state"] == "hit"
    assert done["cache"]["saved"]["by"] == "cache"


def test_quotes_are_kept_as_well(kept: KeptApp) -> None:
    first = kept.ask("How much is the parking fee a day?", app="quotes")
    second = kept.ask("How much is the parking fee a day?", app="quotes")
    assert second["cache"]["state"] == "hit"
    assert (second["text"], second["citations"]) == (first["text"], first["citations"])


def test_an_answer_dies_with_a_document_that_it_was_written_from(kept: KeptApp) -> None:
    question = "What does mooring cost?"
    kept.write("mooring.md", "# Mooring\n\nMooring costs 30 crowns.\n")
    assert kept.state(question) == "miss"
    assert kept.state(question) == "hit"
    kept.write("mooring.md", "# Mooring\n\nMooring costs 31 crowns.\n")
    changed = kept.ask(question)
    assert changed["cache"]["state"] == "miss"
    assert any("31 crowns" in source["text"] for source in changed["sources"])
    assert kept.state(question) == "hit"
    kept.remove("mooring.md")
    gone = kept.ask(question)
    assert gone["cache"]["state"] == "miss"
    assert not any("crowns" in s["text"] for s in gone["sources"] if s["path"] == "mooring.md")


def test_a_file_that_changed_is_noticed_before_any_scan(kept: KeptApp) -> None:
    question = "What does anchoring cost?"
    kept.write("anchoring.md", "# Anchoring\n\nAnchoring costs 5 crowns.\n")
    kept.ask(question)
    assert kept.state(question) == "hit"
    (kept.folder / "anchoring.md").write_text("# Anchoring\n\nAnchoring costs 6 crowns now.\n")
    changed = kept.ask(question)
    assert changed["cache"]["state"] == "miss"
    assert any("6 crowns" in source["text"] for source in changed["sources"])


def test_an_answer_dies_when_a_new_document_ranks_among_its_sources(kept: KeptApp) -> None:
    question = "What does towing cost?"
    kept.write("towing.md", "# Towing\n\nTowing costs 40 crowns.\n")
    kept.ask(question)
    kept.write("weather.md", "# Weather\n\nFog is common in November.\n")
    assert kept.state(question) == "hit"
    kept.write("towing-2026.md", "# Towing cost\n\nSince 2026 towing costs 44 crowns.\n")
    outranked = kept.ask(question)
    assert outranked["cache"]["state"] == "miss"
    assert "towing-2026.md" in {source["path"] for source in outranked["sources"]}
    assert kept.state(question) == "hit"


def test_an_asker_gets_no_answer_from_documents_that_it_may_not_read(kept: KeptApp) -> None:
    question = "What is the salary of a captain?"
    first = kept.ask(question, HR)
    assert "salaries.md" in {source["path"] for source in first["sources"]}
    assert kept.state(question, HR) == "hit"
    other = kept.ask(question)
    assert other["cache"]["state"] == "miss"
    assert "salaries.md" not in {source["path"] for source in other["sources"]}
    assert kept.state(question, OTHER) == "miss"


def test_only_the_last_question_of_a_conversation_is_not_the_key(kept: KeptApp) -> None:
    def ask(about: str) -> Any:
        messages = [
            {"role": "user", "content": f"Tell me about {about}"},
            {"role": "assistant", "content": "Yes."},
            {"role": "user", "content": "How old is he?"},
        ]
        body = {"model": "plain", "messages": messages}
        return kept.post("/v1/chat/completions", body, STAFF).headers["x-slipway-cache"]

    assert [ask("OpenAI"), ask("Apple"), ask("Apple")] == ["miss", "miss", "hit"]


def test_a_kept_answer_is_served_if_no_model_answers(kept: KeptApp) -> None:
    first = kept.ask("Are ships heavy?", app="patient")
    assert kept.ask("Are ships heavy?", app="patient")["cache"]["state"] == "miss"
    kept.mock.script("status-503")
    try:
        stale = kept.ask("Are ships heavy?", app="patient")
        failed = kept.post("/v1/answers", {"question": "Unasked?", "app": "patient"}, STAFF)
    finally:
        kept.mock.script()
    assert failed.status_code >= 500
    assert (stale["served_by"], stale["cache"]["state"]) == ("stale", "stale")
    assert stale["text"] == first["text"]
    assert "stale" in {notice["code"] for notice in stale["notices"]}


def test_a_request_may_leave_the_cache_out(kept: KeptApp) -> None:
    missing = kept.post(
        "/v1/answers", {"question": "Off?", "app": "plain"}, STAFF, **{"x-slipway-cache": "only"}
    )
    assert missing.json()["error"]["code"] == "not_cached"
    off = {"x-slipway-cache": "off"}
    assert kept.ask("Off?", app="plain", **off)["cache"] is None
    assert kept.state("Off?", app="plain") == "miss"
    again = kept.ask("Off?", app="plain", **{"x-slipway-cache": "refresh"})
    assert again["cache"]["state"] == "refresh"
    assert kept.ask("Off?", app="plain", **{"x-slipway-cache": "only"})["cache"]["state"] == "hit"
