"""Leave a past in a store: a day of answers as a server would have counted, booked and kept them.

The records go through the same classes as a server's, with a clock that is a parameter, so that a
day takes seconds. A server that is started on the store afterwards shows it.
"""

import math
import random
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from slipway.ledger import LedgerRow
from slipway.settings import Settings
from slipway.store import FeedbackRow, RecordStore, file_of, open_records
from slipway.telemetry.history import History
from slipway.telemetry.metrics import Telemetry
from slipway.telemetry.trace_files import TimedRecord, TraceWriter
from slipway.telemetry.tracks import STEPS
from slipway.types import (
    AnswerDone,
    Answered,
    AttemptDone,
    FeedbackGiven,
    Saved,
    StageTaken,
    Usage,
    new_id,
)

DAY_S = 86_400
SAMPLE_S = STEPS[0].every_s
BATCH = 5000  # ledger rows that are booked together
SERIES = 20_000  # so that no name is counted under `other`
COMMENTS = (
    "The fee is wrong: it is 34 euro since March.",
    "Just what I needed, thank you!",
    "It did not say where to find the form.",
    "第二步看不懂，请写得更清楚。",
    "",
)


class PastModel(NamedTuple):
    name: str
    zone: str
    ttft_s: float
    tpot_s: float
    input_price: int  # picodollars a token
    output_price: int


MODELS = (
    PastModel("qwen-plus", "cn-beijing", 0.35, 0.018, 110_000, 280_000),
    PastModel("qwen-plus-sg", "ap-southeast", 0.55, 0.020, 110_000, 280_000),
    PastModel("qwen-flash", "cn-beijing", 0.18, 0.009, 20_000, 210_000),
)
APPS = ("support",) * 5 + ("docs",) * 3 + ("main",) * 2
OWNERS = (("acme", "key-acme"), ("globex", "key-globex"), ("default", "local"))


class PastAnswer(NamedTuple):
    at: float
    done: AnswerDone
    attempts: list[AttemptDone]
    rows: list[LedgerRow]


def moments(count: int, until: float, span_s: float, rng: random.Random) -> list[float]:
    """Return when questions ended: most in the middle of the working day, fewest at night."""

    def weight(at: float) -> float:
        return 1.15 - math.cos(2 * math.pi * (at - 3 * 3600) / DAY_S)

    found = list[float]()
    while len(found) < count:
        at = until - rng.random() * span_s
        if rng.random() * 2.15 < weight(at):
            found.append(at)
    return sorted(found)


def past_answers(count: int, until: float, span_s: float = DAY_S) -> Iterator[PastAnswer]:
    """Yield answers, oldest first. A model is down for half an hour at nine tenths of the time."""
    rng = random.Random(19)
    outage = until - span_s / 10
    for at in moments(count, until, span_s, rng):
        yield past_answer(at, rng, is_down=outage <= at < outage + 1800)


def past_answer(at: float, rng: random.Random, *, is_down: bool) -> PastAnswer:
    app = rng.choice(APPS)
    tenant, owner = rng.choice(OWNERS)
    luck = rng.random()
    if luck < 0.12:
        return kept_answer(at, app, tenant, owner, "rule" if luck < 0.04 else "cache")
    answer_id = new_id("ans")
    first = MODELS[0] if rng.random() < 0.85 else MODELS[2]
    fails = rng.random() < (0.7 if is_down and first is MODELS[0] else 0.002)
    chain = [first, MODELS[1]] if fails else [first]
    attempts, rows, passed_s = list[AttemptDone](), list[LedgerRow](), 0.0
    ttft_s = duration_s = 0.0
    usage = Usage(
        input_tokens=int(rng.lognormvariate(6.6, 0.7)),
        output_tokens=1 + int(rng.lognormvariate(4.6, 0.8)),
    )
    for number, model in enumerate(chain):
        is_bad = fails and (number == 0 or rng.random() < 0.02)
        ttft_s = model.ttft_s * rng.lognormvariate(0, 0.45)
        duration_s = ttft_s if is_bad else ttft_s + usage.output_tokens * model.tpot_s
        error = "provider_down" if is_bad else None
        rows.append(ledger_row(answer_id, at, model, error, usage, (app, tenant, owner)))
        attempts.append(attempt(rows[-1], model, ttft_s, duration_s, number))
        if not is_bad:
            break
        passed_s += duration_s
    last = attempts[-1]
    served = "smaller" if first is MODELS[2] and rng.random() < 0.2 else "model"
    done = AnswerDone(
        id=answer_id,
        endpoint="chat" if app == "main" else "answers",
        app=app,
        model=last.model,
        provider="openai",
        served_by=None if last.error else served,  # type: ignore[arg-type]
        streamed=True,
        error=last.error,
        duration_s=passed_s + duration_s,
        ttft_s=None if last.error else passed_s + ttft_s,
        usage=None if last.error else usage,
        tenant=tenant,
        owner=owner,
        cache="miss",
        cost=sum(row.cost or 0 for row in rows),
        admission_s=0.0001,
        stages=stages(rng) if app != "main" else (),
    )
    return PastAnswer(at, done, attempts, rows)


def kept_answer(at: float, app: str, tenant: str, owner: str, by: str) -> PastAnswer:
    """Return an answer for which no model was called."""
    done = AnswerDone(
        id=new_id("ans"),
        endpoint="answers",
        app=app,
        model=None,
        provider="",
        served_by=by,  # type: ignore[arg-type]
        streamed=True,
        error=None,
        duration_s=0.004,
        ttft_s=0.003,
        usage=None,
        tenant=tenant,
        owner=owner,
        saved=Saved(by=by, usd="0.00019"),  # type: ignore[arg-type]
        cache="hit" if by == "cache" else None,
    )
    return PastAnswer(at, done, [], [])


def stages(rng: random.Random) -> tuple[StageTaken, ...]:
    found_s = rng.lognormvariate(-4.5, 0.4)
    return (
        StageTaken(name="cache", began_s=0.0002, duration_s=0.0003),
        StageTaken(name="knowledge", began_s=0.0006, duration_s=found_s, facts=(("passages", 6),)),
    )


def attempt(
    row: LedgerRow, model: PastModel, ttft_s: float, duration_s: float, number: int
) -> AttemptDone:
    """Return the record of the call that a row of the ledger is for."""
    error = row.error
    return AttemptDone(
        answer_id=row.answer,
        model=model.name,
        provider="openai",
        zone=model.zone,
        status=502 if error else 200,
        error=error,
        duration_s=duration_s,
        ttft_s=None if error else ttft_s,
        role="primary" if number == 0 else "twin",
        kind="first" if number == 0 else "retry",
        why="connection refused" if error else None,
        usage=None if error else row.usage,
        cost=row.cost,
    )


def ledger_row(
    answer_id: str,
    at: float,
    model: PastModel,
    error: str | None,
    usage: Usage,
    who: tuple[str, str, str],
) -> LedgerRow:
    app, tenant, owner = who
    usage = Usage() if error else usage
    cost = usage.input_tokens * model.input_price + usage.output_tokens * model.output_price
    return LedgerRow(
        id=new_id("call"),
        answer=answer_id,
        at=at,
        owner=owner,
        tenant=tenant,
        app=app,
        model=model.name,
        provider="openai",
        zone=model.zone,
        kind="first",
        error=error,
        usage=usage,
        cost=cost,
        price_source="settings",
    )


class Past:
    """Writes past answers into a store, as a server that was there would have done."""

    def __init__(self, records: RecordStore, folder: Path) -> None:
        self.records = records
        self.traces = TraceWriter(folder / "traces", 2 * DAY_S, 512 * 1024 * 1024)
        self.traced = list[TimedRecord]()
        self.telemetry = Telemetry(lambda: 0, series=SERIES)
        self.now = 0.0
        self.history = History(self.telemetry.all_rows, clock=lambda: self.now)
        self.rows = list[LedgerRow]()
        self.last = list[PastAnswer]()

    def add(self, past: PastAnswer) -> None:
        self.pass_time(past.at)
        for record in past.attempts:
            self.telemetry.emit(record)
        self.telemetry.emit(past.done)
        for row in past.rows:
            self.telemetry.emit(row)
        self.rows += past.rows
        ends_at = past.at - 1e-4
        for attempt in reversed(past.attempts):  # one after the other
            self.traced.append((ends_at, attempt))
            ends_at -= attempt.duration_s
        self.traced.append((past.at, past.done))
        self.last = [*self.last[-500:], past] if len(self.last) > 1000 else [*self.last, past]
        if len(self.rows) >= BATCH:
            self.book()

    def pass_time(self, until: float) -> None:
        """Sample every ten seconds until then."""
        self.now = self.now or until // SAMPLE_S * SAMPLE_S
        while self.now <= until:
            self.history.sample(self.now)
            self.now += SAMPLE_S

    def book(self) -> None:
        self.records.ledger.book(self.rows)
        self.traces.write(sorted(self.traced, key=lambda each: each[0]))
        self.rows, self.traced = [], []

    def vote(self, count: int) -> None:
        """Vote on some of the latest answers."""
        for number, past in enumerate(self.last[-count:]):
            helpful = number % 4 != 0
            about = Answered(
                id=past.done.id,
                at=past.at,
                tenant=past.done.tenant,
                owner=past.done.owner,
                app=past.done.app,
                model=past.done.model,
                served_by=past.done.served_by,
                prompt=None,
                question="What is the fee for a boat of 12 metres?",
                text="It is 18 euro a night.",
            )
            self.records.records.save_feedback(
                FeedbackRow(
                    kind="vote",
                    section=None,
                    helpful=helpful,
                    reasons=() if helpful else ("wrong",),
                    comment=COMMENTS[number % len(COMMENTS)],
                    about=about,
                    at=past.at + 1,
                )
            )
            given = FeedbackGiven(app=past.done.app, kind="vote", helpful=helpful)
            self.telemetry.emit(given)

    def close(self, until: float) -> None:
        """Save what is not saved yet."""
        self.pass_time(until)
        self.history.close(until)
        self.book()
        self.traces.close()
        self.records.history.save("", self.history.take_unsaved(), drop_before={})


def leave_past(
    settings: Settings, count: int, until: float, span_s: float = DAY_S
) -> list[PastAnswer]:
    """Write a past of `count` answers that ends at `until` into the store of the settings, and
    return them.
    """
    answers = list(past_answers(count, until, span_s))
    records = open_records(settings, patient=True)
    try:
        past = Past(records, file_of(settings).parent)
        for each in answers:
            past.add(each)
        past.vote(40)
        past.close(until)
    finally:
        records.close()
    return answers
