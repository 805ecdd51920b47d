"""The metrics keep to their number of series, and to their sums, whatever names there are."""

import random
from typing import Any

import pytest

from slipway.telemetry.definitions import METRICS, NAMES
from slipway.telemetry.gauges import GaugeRow
from slipway.telemetry.metrics import CODES, Telemetry
from slipway.types import AnswerDone, AttemptDone, FeedbackGiven, RuleUsed, Saved, Usage

NAMES_THERE, RECORDS = 300, 1500
STATES = ("closed", "open", "half-open")
USAGE = Usage(input_tokens=100, output_tokens=50, cached_tokens=3, reasoning_tokens=4)


ANSWER: dict[str, Any] = {
    "endpoint": "chat",
    "app": "main",
    "model": "m",
    "provider": "openai",
    "served_by": "model",
    "streamed": True,
    "error": None,
    "duration_s": 0.5,
    "ttft_s": 0.1,
    "usage": USAGE,
}


def many_gauges() -> list[GaugeRow]:
    """Return values of every metric that is read, for many names."""
    return [
        (key, tuple(f"n-{n}" if name in NAMES else state for name in metric.labels), 1.0)
        for n in range(NAMES_THERE)
        for key, metric in METRICS.items()
        if (metric.is_gauge or metric.is_read) and metric.share is not None
        for state in STATES
    ]


def emit_any(telemetry: Telemetry, chance: random.Random) -> None:
    """Emit records with names, outcomes and errors of all kinds."""
    app, model = (f"{kind}-{chance.randrange(NAMES_THERE)}" for kind in ("app", "model"))
    error = chance.choice([None, *CODES, "a word of a provider"])
    telemetry.emit(
        AttemptDone(
            answer_id="ans-1",
            model=model,
            provider=f"provider-{chance.randrange(9)}",
            zone=f"zone-{chance.randrange(50)}",
            status=None,
            error=error,
            duration_s=0.5,
            ttft_s=0.1,
            kind=chance.choice(("first", "retry", "trial", "continue")),
            role=chance.choice(("primary", "twin", "smaller", "local")),
            place=chance.randrange(3),
            used=chance.random() < 0.5,
            waited_s=0.1,
            opened_breaker=True,
            left_out=1,
        )
    )
    telemetry.emit(
        AnswerDone(
            id="ans-1",
            endpoint="chat",
            app=app,
            model=model,
            provider="openai",
            served_by=chance.choice(("rule", "cache", "semantic", "model", "smaller", "quote")),
            streamed=True,
            error=error,
            duration_s=0.5,
            ttft_s=0.1,
            usage=USAGE,
            tenant=f"tenant-{chance.randrange(10_000)}",
            citations_kept=1,
            citations_flagged=1,
            citations_dropped=1,
            saved=Saved(by=chance.choice(("rule", "cache", "flight")), usage=USAGE, usd="0.1"),
            cache=chance.choice(("hit", "stale", "flight", "miss", "refresh")),
        )
    )
    telemetry.emit(
        RuleUsed(
            answer_id="ans-1",
            app=app,
            rule="r",
            version="1",
            kind=chance.choice(("question", "pattern", "intent")),
            reason="",
            shadow=False,
        )
    )
    telemetry.emit(FeedbackGiven(app=app, kind="vote", helpful=chance.random() < 0.5))
    for key, labels in (
        ("cost", (app, model)),
        ("unpriced", (app, model)),
        ("semantic", (app, "serve")),
        ("semantic_refused", (app, "number")),
        ("engine_scrapes", (model, "ok")),
    ):
        telemetry.count(key, labels)


@pytest.mark.parametrize("series", [1500, 2000])
def test_all_names_together_stay_within_the_number_of_series(series: int) -> None:
    gauges = many_gauges()
    telemetry = Telemetry(
        lambda: 0, read=lambda: gauges, edges={"ttft": (2.0,), "tpot": (0.1,)}, series=series
    )
    chance = random.Random(series)
    for _ in range(RECORDS):
        emit_any(telemetry, chance)
    text = telemetry.render("")[0].decode()
    assert series / 2 < sum(not line.startswith("#") for line in text.splitlines()) <= series
    assert "a word of a provider" not in text
    sums = telemetry.sums()
    for key in ("answers", "attempts", "feedback", "cost"):
        assert sum(row[0] for row in sums[key].values()) == RECORDS, key
    for key in ("duration", "call_duration", "queue_wait", "ttft"):
        assert sum(sum(row[:-1]) for row in sums[key].values()) == RECORDS, key
    assert sum(row[0] for row in sums["series_other"].values()) > 0


def test_a_thousand_tenants_with_budgets_need_no_more_than_2000_series() -> None:
    budgets = [
        (key, ("tenant", f"tenant-{n}", period), 0.5)
        for key in ("budget_used", "budget_left")
        for n in range(1000)
        for period in ("day", "month")
    ]
    telemetry = Telemetry(lambda: 0, read=lambda: budgets)
    for n in range(1000):
        telemetry.emit(
            AnswerDone(**{**ANSWER, "id": f"ans-{n}", "tenant": f"tenant-{n}", "owner": f"key-{n}"})
        )
    text = telemetry.render("")[0].decode()
    assert sum(not line.startswith("#") for line in text.splitlines()) <= 2000


def test_the_shares_of_all_metrics_leave_some_series_for_those_without_a_share() -> None:
    assert sum(metric.share or 0 for metric in METRICS.values()) <= 980
