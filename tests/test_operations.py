"""The numbers of the operations page: what is judged good or bad, and that it is computed once."""

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from past_traffic import past_answers
from slipway.errors import SlipwayError
from slipway.telemetry.history import History
from slipway.telemetry.metrics import CODES, Telemetry
from slipway.telemetry.service import ServiceReports, Verdict, blame
from slipway.types import AnswerDone
from slipway.web.operations import KeptParts, alerts_of

NOW = 1_700_000_000.0
DONE = AnswerDone(
    id="ans-1",
    endpoint="chat",
    app="support",
    model="m",
    provider="openai",
    served_by="model",
    streamed=True,
    error=None,
    duration_s=1.0,
    ttft_s=0.3,
    usage=None,
    tenant="default",
)


class PastMinutes:
    """Answers of the last minutes, and what is said of them."""

    def __init__(self) -> None:
        self.telemetry, self.now = Telemetry(lambda: 0), NOW
        self.history = History(self.telemetry.all_rows, clock=lambda: self.now)
        self.history.sample(self.now)
        self.reports = ServiceReports(self.history)

    def answers(self, count: int, **fields: Any) -> None:
        for _ in range(count):
            self.telemetry.emit(msgspec.structs.replace(DONE, **fields))
        self.now += 10
        self.history.sample(self.now)

    def failures(self, count: int, code: str) -> None:
        self.answers(count, error=code, served_by=None, ttft_s=None)

    def verdict(self, **dependencies: Any) -> Verdict:
        return self.reports.verdict(dependencies.pop("states", {"m": "closed"}), **dependencies)


@pytest.fixture
def past() -> PastMinutes:
    return PastMinutes()


def codes(verdict: Verdict) -> list[tuple[str, str]]:
    return [(each.code, each.level) for each in verdict.reasons]


def test_nobody_asks(past: PastMinutes) -> None:
    assert past.verdict().state == "quiet"


def test_users_are_well_served(past: PastMinutes) -> None:
    past.answers(3000)
    past.failures(1, "provider_down")
    verdict = past.verdict()
    assert (verdict.state, verdict.answers, verdict.reasons) == ("green", 3001, [])
    assert verdict.ttft_p95_s == pytest.approx(0.3, abs=0.2)


@pytest.mark.parametrize(("failed", "level"), [(2, "amber"), (15, "red")])
def test_failing_answers(past: PastMinutes, failed: int, level: str) -> None:
    past.answers(1000)
    past.failures(failed, "provider_slow")
    verdict = past.verdict()
    assert (verdict.state, codes(verdict)) == (level, [("errors", level)])
    assert verdict.reasons[0].count == failed


def test_what_clients_do_wrong_is_no_failure(past: PastMinutes) -> None:
    past.answers(100)
    for code in ("provider_refused", "rate_limit_exceeded", "budget_spent", "cancelled"):
        past.failures(50, code)
    assert past.verdict().state == "green"
    errors = past.reports.report("hour", {})["errors"]
    assert {each["code"]: each["blame"] for each in errors} == {
        "provider_refused": "client",
        "rate_limit_exceeded": "limit",
        "budget_spent": "limit",
        "cancelled": "left",
    }


@pytest.mark.parametrize(("ttft_s", "level"), [(2.4, "amber"), (7.0, "red")])
def test_slow_first_tokens(past: PastMinutes, ttft_s: float, level: str) -> None:
    past.answers(100, ttft_s=ttft_s, duration_s=9.0)
    assert codes(past.verdict()) == [("slow", level)]


def test_a_few_slow_answers_are_not_judged(past: PastMinutes) -> None:
    past.answers(5, ttft_s=8.0, duration_s=9.0)
    past.failures(1, "provider_down")
    assert past.verdict().state == "green"


def test_the_verdict_forgets_after_five_minutes(past: PastMinutes) -> None:
    past.failures(50, "provider_down")
    assert past.verdict().state == "red"
    past.now += 300
    past.answers(50)
    assert past.verdict().state == "green"


def test_models_that_are_not_called(past: PastMinutes) -> None:
    past.answers(50)
    one_of_two = past.verdict(states={"m": "open", "n": "closed"})
    assert codes(one_of_two) == [("models_down", "amber")]
    assert one_of_two.reasons[0].names == ("m",)
    assert codes(past.verdict(states={"m": "open", "n": "half-open"})) == [("no_model", "red")]


def test_fallback_answers(past: PastMinutes) -> None:
    past.answers(90)
    past.answers(10, served_by="quote")
    verdict = past.verdict()
    assert codes(verdict) == [("fallback", "amber")]
    assert verdict.reasons[0].share == pytest.approx(0.1)


def test_store_and_budgets(past: PastMinutes) -> None:
    past.answers(50)
    spent = {"app a (day)": 1.0, "app b (day)": 0.93, "app c (day)": 0.5}
    verdict = past.verdict(store="the disk is full", spent=spent)
    assert [(each.code, each.names) for each in verdict.reasons] == [
        ("store", ()),
        ("budget_spent", ("app a (day)",)),
        ("budget_near", ("app b (day)",)),
    ]
    lost = past.verdict(store="the disk is full", lost=3)
    assert (lost.state, codes(lost)) == ("red", [("lost", "red"), ("store", "amber")])


def test_firing_alerts(past: PastMinutes) -> None:
    past.answers(50)
    verdict = past.verdict(firing=[("Spend", "amber"), ("Availability", "red")])
    assert [each.names for each in verdict.reasons] == [("Availability",), ("Spend",)]
    assert verdict.state == "red"


def test_alerts_that_another_one_explains_are_not_shown() -> None:
    def alert(name: str, state: str, severity: str, by: str | None = None) -> dict[str, Any]:
        return {"name": name, "state": state, "severity": severity, "inhibited_by": by}

    report = {
        "data": [
            alert("BurnFast", "firing", "page"),
            alert("Burn", "firing", "page", "BurnFast"),
            alert("Watchdog", "firing", "none"),
            alert("ModelDown", "pending", "ticket"),
            alert("Spend", "ok", "ticket"),
            alert("FirstToken", "resolved", "page"),
        ]
    }
    assert [each["name"] for each in alerts_of(report)] == ["BurnFast", "ModelDown"]


def test_every_code_of_an_error_has_somebody_to_blame() -> None:
    assert {blame(code) for code in CODES} == {"server", "limit", "client", "left"}
    assert blame("") is None
    assert blame(SlipwayError.code) == "server"


def test_a_report_counts_every_answer_once() -> None:
    telemetry, until = Telemetry(lambda: 0, series=20_000), NOW
    history = History(telemetry.all_rows, clock=lambda: until)
    at = until - 3600
    answers = list(past_answers(400, until, 3600))
    for each in answers:
        while at < each.at:
            history.sample(at)
            at += 10
        telemetry.emit(each.done)
        for attempt in each.attempts:
            telemetry.emit(attempt)
        for row in each.rows:
            telemetry.emit(row)
    history.sample(until)
    zones = {"qwen-plus": "cn-beijing", "idle": "nowhere"}
    report = ServiceReports(history).report("hour", zones)
    failed = sum(each.done.error is not None for each in answers)
    assert report["totals"]["answers"] == 400
    assert report["totals"]["failed"] == failed
    assert sum(row["answers"] for row in report["served_by"]) == 400 - failed
    assert sum(row["answers"] for row in report["apps"]) == 400
    assert report["saved"]["answers"] == sum(each.done.saved is not None for each in answers)
    cost = sum(row.cost or 0 for each in answers for row in each.rows) / 1e12
    assert report["totals"]["cost_usd"] == pytest.approx(cost)
    series = report["series"]
    assert len(series["times"]) == len(series["answers"]) == len(series["ttft"]["p95"]) == 60
    assert sum(series["answers"]) * series["step_s"] == pytest.approx(400)
    assert sum(series["cost"]) * series["step_s"] / 3600 == pytest.approx(cost)
    calls = {row["model"]: row["calls"] for row in report["models"]}
    assert calls["idle"] == 0
    assert sum(calls.values()) == sum(len(each.attempts) for each in answers)
    assert {row["zone"] for row in report["zones"]} >= {"cn-beijing", "nowhere"}


def test_pages_that_ask_together_are_answered_from_one_computation() -> None:
    computed, release = list[int](), threading.Event()

    def compute() -> int:
        computed.append(1)
        assert release.wait(30)
        return 7

    async def ask() -> list[int]:
        kept = KeptParts()
        asked = [asyncio.create_task(kept.get("numbers", 60.0, compute)) for _ in range(10)]
        await asyncio.sleep(0)
        asked[0].cancel()  # one page leaves
        release.set()
        found = await asyncio.gather(*asked[1:])
        return [*found, await kept.get("numbers", 60.0, compute)]

    assert asyncio.run(ask()) == [7] * 10
    assert len(computed) == 1


def test_a_part_of_an_older_version_is_computed_again() -> None:
    results = iter((1, 2, 3))

    async def ask() -> list[int]:
        kept = KeptParts()
        return [
            await kept.get("numbers", 60.0, lambda: next(results), version)
            for version in (1.0, 1.0, 2.0)
        ]

    assert asyncio.run(ask()) == [1, 1, 2]


def test_an_older_part_is_shown_while_the_store_does_not_answer() -> None:
    hangs = threading.Event()

    def compute() -> int:
        computed.append(1)
        if len(computed) > 1:
            assert hangs.wait(30)
        return len(computed)

    async def ask() -> list[int]:
        kept = KeptParts(patience_s=0.01)
        found = [await kept.get("money", 60.0, compute, version) for version in (1.0, 2.0, 2.0)]
        hangs.set()
        while (latest := await kept.get("money", 60.0, compute, 2.0)) == 1:  # noqa: ASYNC110 - until then
            await asyncio.sleep(0)
        return [*found, latest]

    computed = list[int]()
    assert asyncio.run(ask()) == [1, 1, 1, 2]


def test_a_part_that_failed_is_computed_again() -> None:
    def results() -> Iterator[int]:
        yield 1
        yield 2

    each = results()

    def compute() -> int:
        if (found := next(each)) == 1:
            raise OSError("the first try")
        return found

    async def ask() -> int:
        kept = KeptParts()
        with pytest.raises(OSError, match="the first try"):
            await kept.get("numbers", 60.0, compute)
        return await kept.get("numbers", 60.0, compute)

    assert asyncio.run(ask()) == 2
