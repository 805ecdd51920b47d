"""Test how sections are written: failures, turns, cost, and what is counted."""

import asyncio
import json
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import plain_http
from processes import Serving, mocking, serving
from slipway.admission import Admission
from slipway.answer import App, Pipeline, answer
from slipway.answer.draft import Draft
from slipway.answer.pace import Pace, Writing
from slipway.errors import InternalError
from slipway.knowledge import OFF, Knowledge, opened
from slipway.providers import Call, Completion, Reachable
from slipway.routing import Candidate, Health, ModelSlots, Route
from slipway.settings import Price
from slipway.store import Store
from slipway.types import (
    AnswerDone,
    Asker,
    Delta,
    Event,
    Message,
    Piece,
    PipelineRecord,
    Progress,
    Question,
    SectionState,
)

PAGES = {
    "leave.md": "# Leave\n\n## How many days of leave are there?\n\nEveryone has 30 days of leave a year.\n",
    "parking.md": "# Parking\n\n## Where may I park?\n\nCars may park in garage 4, behind the bakery.\n",
}
TWO = "How many days of leave are there? Where may I park my car?"


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    folder.mkdir()
    for name, text in PAGES.items():
        (folder / name).write_text(text)
    return folder


# Through the pipeline itself, with models that do what a script says


class Scripted:
    """A model whose replies are as given, one for each call."""

    name, kind, zone = "scripted", "mock", "here"
    price: Price | None = None
    state: str | None = None

    def __init__(self, say: Callable[[], list[Piece]], parallel: int | None = None) -> None:
        self.say, self.parallel = say, parallel
        self.calls = 0

    async def chat(self, call: Call) -> "Saying":
        self.calls += 1
        return Saying(self.say)

    def start(self) -> None: ...

    async def probe(self) -> Reachable:
        return "well"

    def retire(self) -> None: ...

    async def close(self) -> None: ...


class Saying:
    def __init__(self, say: Callable[[], list[Piece]]) -> None:
        self.left: list[Piece] | None = None
        self.say = say

    async def pieces(self) -> list[Piece]:
        self.left = self.say() if self.left is None else self.left
        return [self.left.pop(0)] if self.left else []

    def push_usual(self, take: Callable[[bytes, list[str]], bool]) -> None: ...

    async def whole(self) -> Completion:
        raise NotImplementedError

    def rate_limits(self) -> Sequence[tuple[bytes, bytes]]:
        return ()

    def close(self) -> None: ...


def compile_pipeline(
    docs: Path, model: Scripted, records: list[PipelineRecord], pace: Pace | None = None
) -> Pipeline:
    knowledge = Knowledge(opened(Store.temporary(), [docs], embedding=OFF))
    knowledge.build()
    health = Health(
        slots=ModelSlots("scripted", model.parallel, 60.0) if model.parallel is not None else None
    )
    app = App(
        name="handbook",
        knowledge=knowledge,
        route=Route(name="m", candidates=(Candidate(model=model, health=health),)),
    )
    return Pipeline(
        admission=Admission([], 10),
        apps={"handbook": app},
        routes={},
        emit=records.append,
        pace=pace or Pace(),
    )


async def ask(pipeline: Pipeline, draft: Draft) -> list[Event]:
    events: list[Event] = []
    message = Message(role="user", content=TWO)
    question = Question(
        id="ans-1",
        app="handbook",
        text=TWO,
        messages=(message,),
        asker=Asker(owner="x"),
        asked_at=0.0,
    )
    await answer(pipeline, pipeline.apps["handbook"], question, draft, "test", events.append)
    return events


def test_a_defect_in_one_section_costs_no_other(docs: Path) -> None:
    def say() -> list[Piece]:
        if model.calls == 1:
            raise ZeroDivisionError
        return [Piece(raw=b"", text="It is so. [1]", spoke=True)]

    model, records = Scripted(say), list[PipelineRecord]()
    model.calls = 0
    pipeline, draft = compile_pipeline(docs, model, records), Draft()
    with pytest.raises(InternalError, match="ZeroDivisionError"):
        asyncio.run(ask(pipeline, draft))
    assert [section.state for section in draft.sections].count("done") == 1
    assert [record.error for record in records if isinstance(record, AnswerDone)] == [
        "internal_error"
    ]
    events = asyncio.run(ask(pipeline, draft))
    states = [event.state for event in events if isinstance(event, SectionState)]
    assert states == ["started", "done"]
    assert len({event.section for event in events if isinstance(event, Delta)}) == 1
    assert [record.error for record in records if isinstance(record, AnswerDone)] == [
        "internal_error",
        None,
    ]


def time_left(docs: Path, parallel: int) -> tuple[float, float]:
    """Return the first time left of two sections, by a model that took ten seconds for each so far."""
    pace = Pace()
    for _ in range(40):
        took = Writing("scripted", 1500)
        took.began_at, took.first_at, took.ended_at, took.chars = 0.0, 0.5, 10.0, 400
        pace.learn(took)
    model = Scripted(lambda: [Piece(raw=b"", text="It is so. [1]", spoke=True)], parallel)
    events = asyncio.run(ask(compile_pipeline(docs, model, [], pace), Draft()))
    return next(
        event.eta_s for event in events if isinstance(event, Progress) and event.eta_s is not None
    )


def test_the_time_left_counts_sections_that_wait_for_their_turn(docs: Path) -> None:
    one_by_one, at_once = time_left(docs, 1), time_left(docs, 2)
    assert one_by_one[0] > 1.5 * at_once[1]


# Through a server


@contextmanager
def handbook(docs: Path, tmp_path: Path, *models: str, **more: Any) -> Iterator[Serving]:
    """Served by a route of models at these addresses, called a, b and so on, which cost a dollar a
    token.
    """
    price = {"input": 1_000_000, "output": 1_000_000}
    named = {
        name: {"base_url": url, "price": price} for name, url in zip("abc", models, strict=False)
    }
    app = {"knowledge": str(docs), "route": "main"}
    with serving(
        tmp_path,
        settings={
            "models": named,
            "routes": {"main": list(named)},
            "apps": {"handbook": app},
            **more,
        },
    ) as server:
        yield server


def in_usd(usage: dict[str, Any]) -> int:
    """What the tokens cost at a dollar each."""
    return int(usage["input_tokens"] + usage["output_tokens"])


def tokens(server: Serving, model: str) -> float:
    """Written by a model, as metrics count them."""
    start = "gen_ai_client_token_usage_sum{"
    lines = [line for line in server.get("/metrics").text.splitlines() if line.startswith(start)]
    return sum(
        float(line.split()[-1])
        for line in lines
        if f'response_model="{model}"' in line and 'token_type="output"' in line
    )


def test_tokens_are_counted_for_the_model_that_took_them(docs: Path, tmp_path: Path) -> None:
    with (
        mocking(script=("status-503@2",), tokens=20) as a,
        mocking(tokens=30) as b,
        handbook(docs, tmp_path, a.url, b.url) as server,
    ):
        whole = server.post("/v1/answers", {"question": TWO}).json()
        assert sorted(section["model"] for section in whole["sections"]) == ["a", "b"]
        assert (tokens(server, "a"), tokens(server, "b")) == (20, 30)
    assert whole["usage"]["output_tokens"] == 50


def test_a_section_stopped_before_its_first_words_is_not_free(docs: Path, tmp_path: Path) -> None:
    with mocking(script=("slow-20@1",)) as mock, handbook(docs, tmp_path, mock.url) as server:
        with plain_http.stream(
            "POST",
            f"{server.url}/v1/answers",
            json={"question": "Where may I park?", "stream": True},
            timeout=20,
        ) as r:
            answer_id = r.headers["x-slipway-answer-id"]
            for _ in r.iter_lines():
                if mock.requests:
                    server.post(f"/v1/answers/{answer_id}/cancel", {})
        whole = server.post(f"/v1/answers/{answer_id}/retry", {}).json()
    assert whole["usage"]["estimated"]  # what the stopped one read is counted
    assert Decimal(whole["cost_usd"]) == in_usd(whole["usage"])


def test_the_cost_of_a_failed_answer_is_reported_and_counted_once(
    docs: Path, tmp_path: Path
) -> None:
    with (
        mocking(script=("cut-5@2",), tokens=20) as mock,
        handbook(docs, tmp_path, mock.url) as server,
    ):
        failed = server.post("/v1/answers", {"question": TWO})
        assert failed.status_code == 502
        answer_id = failed.json()["error"]["slipway"]["ref"]
        before = server.get(f"/v1/answers/{answer_id}").json()
        assert before["usage"]["output_tokens"] == tokens(server, "a") == 25
        assert before["usage"]["estimated"]  # five words of the cut section are counted
        assert Decimal(before["cost_usd"]) == in_usd(before["usage"])
        after = server.post(f"/v1/answers/{answer_id}/retry", {}).json()
        assert after["usage"]["output_tokens"] == tokens(server, "a") == 45
        assert after["usage"]["estimated"]
        assert Decimal(after["cost_usd"]) == in_usd(after["usage"])


@pytest.mark.parametrize(
    ("script", "more", "why"),
    [
        ((), {"max_tokens": 5}, "length"),
        (("filter",), {}, "content_filter"),
        ((), {"max_tokens": 500}, "stop"),
    ],
)
def test_the_reason_why_a_text_ended_is_reported(
    docs: Path, tmp_path: Path, script: tuple[str, ...], more: dict[str, Any], why: str
) -> None:
    body = {"messages": [{"role": "user", "content": "Where may I park?"}], **more}
    with (
        mocking(script=script, text="In garage 4, behind the bakery. [2]") as mock,
        handbook(docs, tmp_path, mock.url) as server,
    ):
        whole = server.chat("handbook", **body).json()
        lines = server.chat("handbook", **body, stream=True).text.splitlines()
    chunks = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    for said in (whole, chunks[-1]):
        assert said["choices"][0]["finish_reason"] == why
        assert [
            notice["code"]
            for notice in said["slipway"]["notices"]
            if notice["code"] in (why, "length")
        ] == [why] * (why != "stop")


def test_a_model_cut_before_its_first_words_is_counted_as_often_as_it_was_tried(
    docs: Path, tmp_path: Path
) -> None:
    with mocking(script=("cut-0",)) as mock, handbook(docs, tmp_path, mock.url) as server:
        reply = server.chat("handbook", messages=[{"role": "user", "content": "Where may I park?"}])
        assert reply.json()["slipway"]["served_by"] == "quote"
        assert reply.headers["x-slipway-attempts"] == str(len(mock.requests)) == "3"


def test_a_broken_store_ends_no_answer(docs: Path, tmp_path: Path) -> None:
    file = {"store": f"sqlite:///{tmp_path}/s.db"}
    with mocking() as mock:
        with handbook(docs, tmp_path, mock.url, **file) as server:
            server.post("/v1/answers", {"question": TWO})
        odd = [
            ("a", time.time(), *row)
            for row in (
                (100, -1.0, 50, 1.0),
                (100, 1.0, 0, 1.0),
                (100, "x", 5, 0.0),
                (None, 1, 1, 1),
                (-5, 1, 9, 9),
            )
        ]
        with sqlite3.connect(f"{tmp_path}/s.db") as db:
            db.executemany("INSERT INTO pace VALUES (?, ?, ?, ?, ?, ?)", odd * 10)
            db.execute("INSERT OR REPLACE INTO pace_misses VALUES ('a', 'much')")
        with handbook(docs, tmp_path, mock.url, **file) as server:
            whole = server.post("/v1/answers", {"question": TWO}).json()
    assert [section["state"] for section in whole["sections"]] == ["done", "done"]
