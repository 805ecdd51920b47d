"""Test kept answers of apps: they serve until what they were written from changes."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest

import plain_http
from processes import Serving, mocking, run, serving
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
            "models": {
                "m": {
                    "base_url": mock.url,
                    "name": "mock-model",
                    "retries": 0,
                    "price": {"input": 1, "output": 2},
                }
            },
            "apps": {
                "docs": {**app, "route": "m"},
                "quotes": app,
                "plain": {"route": "m", "cache": "1h"},
                "tagged": {"route": "m", "cache": {"exact": "1h", "tags": ["prices"]}},
                "refreshing": {
                    "route": "m",
                    "cache": {"exact": "1ms", "stale_while_refresh": "1h"},
                },
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


def invalidate(kept: KeptApp, by: str = HR, **what: Any) -> httpx.Response:
    return kept.post("/v1/cache/invalidate", what, by)


def test_answers_are_removed_by_app_tag_document_and_key(kept: KeptApp) -> None:
    def fill() -> str:
        for text in ("First?", "Second?"):
            kept.ask(text, app="tagged")
        return str(kept.ask("What is the parking fee?")["cache"]["key"])

    fill()
    assert invalidate(kept, app="tagged", tag="prices").json()["invalidated"] == 2
    assert kept.state("First?", app="tagged") == "miss"
    fill()
    assert invalidate(kept, tag="prices").json()["invalidated"] == 2
    fill()
    assert invalidate(kept, app="plain", tag="prices").json()["invalidated"] == 0
    assert kept.state("Second?", app="tagged") == "hit"
    assert invalidate(kept, document="parking.md").json()["invalidated"] > 0
    assert kept.state("What is the parking fee?") == "miss"
    assert invalidate(kept, key=fill()).json()["invalidated"] == 1
    assert kept.state("What is the parking fee?") == "miss"


def test_a_document_may_be_named_by_its_id(kept: KeptApp) -> None:
    kept.ask("What is the parking fee?")
    listed = kept.server.get("/v1/documents", headers={"authorization": f"Bearer {HR}"}).json()
    parking = next(each for each in listed["data"] if each["path"] == "parking.md")
    assert invalidate(kept, document=parking["id"]).json()["invalidated"] > 0


@pytest.mark.parametrize(
    ("what", "status", "says"),
    [
        ({}, 400, "Send `app`, `tag`, `document` or `key`."),
        ({"app": "tagd"}, 404, "Did you mean `tagged`?"),
        ({"apps": "tagged"}, 400, "There is no field `apps`."),
        ({"tag": "unknown"}, 200, "No kept answer matches tag `unknown`, so nothing was removed."),
    ],
)
def test_an_invalidation_that_matches_nothing_says_so(
    kept: KeptApp, what: dict[str, str], status: int, says: str
) -> None:
    reply = invalidate(kept, **what)
    assert reply.status_code == status
    assert says in reply.text


def test_only_those_who_manage_documents_manage_their_own_cache(kept: KeptApp) -> None:
    assert invalidate(kept, STAFF, tag="prices").status_code == 403
    kept.ask("Whose?", OTHER, app="tagged")
    assert invalidate(kept, app="tagged", tag="prices").status_code == 200
    assert kept.state("Whose?", OTHER, app="tagged") == "hit"


def test_an_answer_that_was_invalidated_while_it_was_written_is_not_kept(kept: KeptApp) -> None:
    kept.mock.script("slow-0.1")
    try:
        with ThreadPoolExecutor(1) as pool:
            before = len(kept.mock.requests)
            asked = pool.submit(kept.ask, "In progress?", app="tagged")
            until(lambda: len(kept.mock.requests) > before)
            invalidate(kept, tag="prices")
            assert asked.result()["cache"]["state"] == "miss"
    finally:
        kept.mock.script()
    assert kept.state("In progress?", app="tagged") == "miss"


def test_what_was_saved_is_reported(kept: KeptApp) -> None:
    headers = {"authorization": f"Bearer {HR}"}
    kept.ask("How much is saved?", app="tagged")
    invalidate(kept, app="tagged")
    before = row_of(kept.server.get("/v1/cache/report", headers=headers).json())
    first = kept.ask("How much is saved?", app="tagged")
    assert kept.state("How much is saved?", app="tagged") == "hit"
    report = kept.server.get("/v1/cache/report", headers=headers).json()
    after = row_of(report)
    assert after["answers"] - before["answers"] == 1
    assert after["input_tokens"] - before["input_tokens"] == first["usage"]["input_tokens"]
    assert after["output_tokens"] - before["output_tokens"] == first["usage"]["output_tokens"]
    spent = Decimal(first["cost_usd"])
    assert abs(Decimal(after["usd"]) - Decimal(before["usd"]) - spent) <= Decimal("0.000002")
    assert report["kept"]["entries"] > 0
    assert report["kept"]["removed"]["request"] > 0
    metrics = kept.server.get("/metrics", headers=headers).text
    assert f'slipway_saved_answers_total{{app="tagged",by="cache"}} {after["answers"]}' in metrics
    assert 'slipway_cache_answers_total{app="tagged",state="miss"}' in metrics
    assert 'slipway_cache_removed_total{cause="request"}' in metrics
    said = run("cache", "report", "--url", kept.server.url, "--key", HR).stdout
    assert "tagged" in said
    assert "Kept:" in said
    done = run("cache", "invalidate", "--app", "tagged", "--url", kept.server.url, "--key", HR)
    assert "kept answers removed" in done.stdout


def row_of(report: Any) -> Any:
    return next(
        (row for row in report["saved"] if (row["app"], row["by"]) == ("tagged", "cache")),
        {"answers": 0, "input_tokens": 0, "output_tokens": 0, "usd": "0"},
    )


def test_a_stale_answer_is_served_while_a_new_one_is_written(kept: KeptApp) -> None:
    first = kept.ask("Refresh?", app="refreshing")
    calls = len(kept.mock.requests)
    stale = kept.ask("Refresh?", app="refreshing")
    assert (stale["served_by"], stale["cache"]["state"]) == ("cache", "stale")
    assert stale["text"] == first["text"]
    until(lambda: len(kept.mock.requests) == calls + 1)


def test_a_vote_against_an_answer_removes_it(kept: KeptApp) -> None:
    kept.ask("Wrong?", app="tagged")
    second = kept.ask("Wrong?", app="tagged")
    assert second["cache"]["state"] == "hit"
    vote = kept.post("/v1/feedback", {"answer": second["id"], "helpful": False}, STAFF)
    assert vote.status_code == 200, vote.text
    assert kept.state("Wrong?", app="tagged") == "miss"


def test_an_answer_that_is_less_than_it_should_be_is_not_kept(kept: KeptApp) -> None:
    kept.mock.script("status-503")
    try:
        degraded = kept.ask("What is the daily parking fee?")
    finally:
        kept.mock.script()
    assert "degraded" in {notice["code"] for notice in degraded["notices"]}
    assert kept.state("What is the daily parking fee?") == "miss"
    messages = [{"role": "user", "content": "Cut?"}]
    for _ in range(2):
        body = {"model": "plain", "messages": messages, "max_tokens": 2}
        short = kept.post("/v1/chat/completions", body, STAFF)
        assert short.json()["choices"][0]["finish_reason"] == "length"
        assert short.headers["x-slipway-cache"] == "miss"


def test_a_conversation_with_a_file_of_its_own_is_left_alone(kept: KeptApp) -> None:
    file = {"file": ("own.md", b"# Own\n\nThe secret of this file is 42.\n")}
    headers = {"authorization": f"Bearer {STAFF}"}
    sent = plain_http.post(f"{kept.server.url}/v1/attachments", files=file, headers=headers)
    attachment = sent.json()["id"]
    body = {"question": "What is the secret?", "app": "docs", "attachments": [attachment]}
    for _ in range(2):
        reply = kept.post("/v1/answers", body, STAFF)
        assert reply.json()["cache"] is None
    assert kept.state("What is the secret?") == "miss"
