"""Report how users are served, from what the metrics counted over a time: for the operations page.

An answer has failed if Slipway or a provider is to blame. A request that a client got wrong, a limit
of its key, and a client that left are counted apart.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any, Literal

import msgspec

from slipway.errors import LimitReached, SlipwayError
from slipway.settings.alerting import Slo
from slipway.telemetry.alerts.burning import FAILURES
from slipway.telemetry.history import History, Series

Blame = Literal["server", "limit", "client", "left"]
Level = Literal["amber", "red"]
WINDOWS = {"now": 300, "hour": 3600, "day": 86_400, "week": 604_800}  # seconds
POINTS = {"now": 30, "hour": 60, "day": 96, "week": 84}
LEFT = ("cancelled", "client_gone")
RECENT_S = 300.0  # what the verdict looks at, whatever the page shows
FEW = 20  # answers; below that, a share of them says little
BURN = 14.4  # times what the goal allows: a month's errors within two days (SRE workbook, ch. 5)
LATE = 3.0  # times the goal
SPENT = 0.9  # of a budget
FALLBACKS = ("smaller", "stale", "quote")
FALLBACK_SHARE = 0.05
QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
MODEL, ANSWERED_BY = "gen_ai_request_model", "gen_ai_response_model"


class Goals(msgspec.Struct, frozen=True, kw_only=True):
    """What users are promised: the share of answers that succeed, and the seconds to the first
    token within which 95 % of answers begin.
    """

    availability: float = 0.999
    ttft_p95_s: float = 2.0


def goals_of(slo: Slo) -> Goals:
    """Return the objectives of the settings; those that are not set are the defaults."""
    usual = Goals()
    return Goals(
        availability=slo.availability_share or usual.availability,
        ttft_p95_s=slo.ttft_p95 or usual.ttft_p95_s,
    )


class ServiceReason(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why users are not served as they should be. `text` says it; the rest is for other languages."""

    code: str
    level: Level
    text: str
    share: float | None = None
    seconds: float | None = None
    goal: float | None = None
    count: int | None = None
    names: tuple[str, ...] = ()


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """Whether users were well served in the last five minutes. `quiet`: nobody asked."""

    state: Literal["green", "amber", "red", "quiet"]
    answers: int
    error_share: float
    ttft_p95_s: float | None
    reasons: list[ServiceReason]


@cache
def blame(code: str) -> Blame | None:
    """Return who is to blame for an error of this code; None for no error. The server is, or the
    provider, for what the alerts count as failures.
    """
    if not code:
        return None
    if code in LEFT or code in FAILURES:
        return "left" if code in LEFT else "server"
    limits = {each.code for each in _classes(LimitReached)}
    return "limit" if code in limits else "client"


def _classes(base: type[SlipwayError]) -> Iterable[type[SlipwayError]]:
    yield base
    for each in base.__subclasses__():
        yield from _classes(each)


class ServiceReports:
    """Answers what the operations page asks about a time that ends with the latest sample."""

    def __init__(self, history: History, goals: Callable[[], Goals] = Goals) -> None:
        self.history, self.goals = history, goals

    @property
    def version(self) -> float:
        """Return what changes with the numbers: when the metrics were sampled."""
        return self.history.sampled_at

    def report(self, window: str, zones: Mapping[str, str]) -> dict[str, Any]:
        """Return all numbers of a window. `zones` is each model's zone."""
        now, span_s = self.version, WINDOWS[window]
        counted = Counted(self.history, span_s, now)
        return {
            "window": window,
            "window_s": span_s,
            "sampled_at": now,
            "goals": self.goals(),
            "totals": counted.totals(),
            "series": self.series(window, now),
            "served_by": counted.served_by(),
            "errors": counted.errors(),
            "cache": counted.by("cache", "state"),
            "saved": counted.saved(),
            "models": counted.models(zones),
            "zones": counted.zones(zones),
            "apps": counted.apps(),
            "votes": counted.by("feedback", "helpful"),
        }

    def series(self, window: str, now: float) -> dict[str, Any]:
        """Return the lines of the charts, of the same times."""

        def line(metric: str, q: float | None = None, **more: Any) -> Series:
            return self.history.series(
                metric, WINDOWS[window], POINTS[window], q=q, now=now, **more
            )

        answers = line("answers", by=("error",))
        step_s, points = answers.step_s, POINTS[window]
        cost = added(line("cost").values.values(), points)
        failed = [v for (code,), v in answers.values.items() if blame(code) == "server"]
        return {
            "times": answers.times,
            "step_s": step_s,
            "answers": [n / step_s for n in added(answers.values.values(), points)],
            "failed": [n / step_s for n in added(failed, points)],
            "cost": [usd / step_s * 3600 for usd in cost],
            **{
                metric: {
                    name: line(metric, QUANTILES[name]).values.get((), [None] * points)
                    for name in ("p50", "p95")
                }
                for metric in ("ttft", "tpot")
            },
        }

    def verdict(
        self,
        states: Mapping[str, str],
        store: str | None = None,
        lost: int = 0,
        spent: Mapping[str, float] | None = None,
        firing: Iterable[tuple[str, Level]] = (),
    ) -> Verdict:
        """Say whether users are well served.

        `states` are the breakers of the models, `store` says why the store is down, `lost` counts
        rows that it lost, `spent` is the used share of each budget, `firing` names the alerts.
        """
        counted = Counted(self.history, RECENT_S, self.version)
        totals = counted.totals()
        p95 = totals["ttft"]["p95"]
        reasons = [
            *self._slo_reasons(totals, counted.count("ttft")),
            *model_reasons(states),
            *fallback_reasons(counted.served_by()),
            *dependency_reasons(store, lost, spent or {}),
            *(
                ServiceReason(code="alert", level=level, text=f"Alert: {name}.", names=(name,))
                for name, level in firing
            ),
        ]
        reasons.sort(key=lambda each: each.level != "red")
        worst = reasons[0].level if reasons else None
        return Verdict(
            state=worst or ("green" if totals["answers"] else "quiet"),
            answers=totals["answers"],
            error_share=totals["error_share"],
            ttft_p95_s=p95,
            reasons=reasons,
        )

    def _slo_reasons(self, totals: dict[str, Any], streamed: float) -> Iterable[ServiceReason]:
        goals, failed, share = self.goals(), totals["failed"], totals["error_share"]
        allowed = 1 - goals.availability
        if failed >= 2 and share > allowed:
            is_red = failed >= 5 and share > min(0.5, BURN * allowed)
            yield ServiceReason(
                code="errors",
                level="red" if is_red else "amber",
                text=f"{failed} of {totals['judged']} answers failed; the goal is {allowed:.2%}.",
                share=share,
                goal=allowed,
                count=failed,
            )
        p95, goal = totals["ttft"]["p95"], goals.ttft_p95_s
        if p95 is not None and streamed >= FEW and p95 > goal:
            yield ServiceReason(
                code="slow",
                level="red" if p95 > LATE * goal else "amber",
                text=f"The first token of 5 % of answers took over {p95:.1f} s; the goal is {goal:g} s.",
                seconds=p95,
                goal=goal,
            )


def model_reasons(states: Mapping[str, str]) -> Iterable[ServiceReason]:
    """Yield what broken models mean for users."""
    broken = tuple(sorted(name for name, state in states.items() if state != "closed"))
    if not broken:
        return
    if len(broken) == len(states):
        yield ServiceReason(
            code="no_model", level="red", text="No model takes calls now.", names=broken
        )
    else:
        text = f"These models take no calls now: {', '.join(broken)}."
        yield ServiceReason(code="models_down", level="amber", text=text, names=broken)


def fallback_reasons(served_by: list[dict[str, Any]]) -> Iterable[ServiceReason]:
    """Yield that many answers are not from the models that should give them."""
    answered = sum(row["answers"] for row in served_by)
    fallback = sum(row["answers"] for row in served_by if row["served_by"] in FALLBACKS)
    if answered >= FEW and fallback > FALLBACK_SHARE * answered:
        share = fallback / answered
        text = f"{share:.0%} of answers came from a smaller model, an old answer or quotes."
        yield ServiceReason(code="fallback", level="amber", text=text, share=share)


def dependency_reasons(
    store: str | None, lost: int, spent: Mapping[str, float]
) -> Iterable[ServiceReason]:
    """Yield what the store and the budgets mean for users."""
    if store is not None:
        text = f"The store cannot be used ({store}); answers go on, rows wait in the journal."
        yield ServiceReason(code="store", level="amber", text=text)
    if lost:
        text = f"{lost} rows of the ledger or of feedback were lost."
        yield ServiceReason(code="lost", level="red", text=text, count=lost)
    if full := tuple(sorted(name for name, share in spent.items() if share >= 1)):
        text = f"These budgets are spent: {', '.join(full)}."
        yield ServiceReason(code="budget_spent", level="amber", text=text, names=full)
    if near := tuple(sorted(name for name, share in spent.items() if SPENT <= share < 1)):
        text = f"These budgets are spent to {SPENT:.0%} or more: {', '.join(near)}."
        yield ServiceReason(code="budget_near", level="amber", text=text, names=near)


class Counted:
    """What was counted in the `span_s` seconds before `now`."""

    def __init__(self, history: History, span_s: float, now: float) -> None:
        self.history, self.span_s, self.now = history, span_s, now

    def increase(self, metric: str, *by: str) -> dict[tuple[str, ...], float]:
        return self.history.increase(metric, self.span_s, by=by, now=self.now)

    def count(self, metric: str) -> float:
        return self.increase(metric).get((), 0.0)

    def quantile(self, metric: str, q: float, *by: str, **where: Any) -> dict[Any, float]:
        return self.history.quantile(metric, q, self.span_s, by=by, where=where or {}, now=self.now)

    def by(self, metric: str, label: str) -> list[dict[str, Any]]:
        """Return a counter for each value of a label, the largest first."""
        found = self.increase(metric, label)
        rows = [{label: name, "answers": round(n)} for (name,), n in found.items() if n >= 0.5]
        return sorted(rows, key=lambda row: -row["answers"])

    def totals(self) -> dict[str, Any]:
        codes = self.increase("answers", "error")
        answers = round(sum(codes.values()))
        failed = round(sum(n for (code,), n in codes.items() if blame(code) == "server"))
        judged = failed + round(codes.get(("",), 0.0))
        return {
            "answers": answers,
            "per_s": answers / self.span_s,
            "failed": failed,
            "judged": judged,
            "error_share": failed / judged if judged else 0.0,
            "cost_usd": self.count("cost"),
            "unpriced": round(self.count("unpriced")),
            **{
                metric: {name: self.quantile(metric, q).get(()) for name, q in QUANTILES.items()}
                for metric in ("ttft", "tpot", "duration")
            },
        }

    def served_by(self) -> list[dict[str, Any]]:
        """Return how many answers each kind of answerer gave; those that failed are not among them."""
        found = self.increase("answers", "served_by", "error")
        sums: dict[str, float] = {}
        for (name, error), n in found.items():
            if name and not error:
                sums[name] = sums.get(name, 0) + n
        rows = [{"served_by": name, "answers": round(n)} for name, n in sums.items()]
        return sorted(rows, key=lambda row: -int(row["answers"]))

    def errors(self) -> list[dict[str, Any]]:
        rows = self.by("answers", "error")
        return [
            {"code": row["error"], "answers": row["answers"], "blame": blame(row["error"])}
            for row in rows
            if row["error"]
        ]

    def saved(self) -> dict[str, Any]:
        answers, usd = self.increase("saved_answers", "by"), self.increase("saved_usd", "by")
        rows = [
            {"by": by, "answers": round(n), "usd": usd.get((by,))}
            for (by,), n in answers.items()
            if n >= 0.5
        ]
        return {
            "answers": sum(int(row["answers"] or 0) for row in rows),
            "usd": sum(usd.values()) if usd else None,
            "data": sorted(rows, key=lambda row: -int(row["answers"] or 0)),
        }

    def models(self, zones: Mapping[str, str]) -> list[dict[str, Any]]:
        """Return the calls of each model, also of those without any."""
        found = self.increase("attempts", "model", "error")
        p50, p95 = (self.quantile("ttft", q, ANSWERED_BY) for q in (0.5, 0.95))
        cost = self.increase("cost", "model")
        names = dict.fromkeys([*zones, *(model for model, _ in found)])
        return [
            {
                "model": name,
                "zone": zones.get(name, ""),
                **calls_of({error: n for (model, error), n in found.items() if model == name}),
                "ttft": {"p50": p50.get((name,)), "p95": p95.get((name,))},
                "cost_usd": cost.get((name,)),
            }
            for name in names
        ]

    def zones(self, zones: Mapping[str, str]) -> list[dict[str, Any]]:
        found = self.increase("attempts", "zone", "error")
        rows = []
        for zone in dict.fromkeys([*zones.values(), *(name for name, _ in found)]):
            models = [model for model, name in zones.items() if name == zone]
            p50, p95 = (
                self.quantile("ttft", q, **{ANSWERED_BY: models}).get(()) for q in (0.5, 0.95)
            )
            errors = {error: n for (name, error), n in found.items() if name == zone}
            rows.append({"zone": zone, **calls_of(errors), "ttft": {"p50": p50, "p95": p95}})
        return rows

    def apps(self) -> list[dict[str, Any]]:
        found = self.increase("answers", "app", "error")
        p50, p95 = (self.quantile("ttft", q, MODEL) for q in (0.5, 0.95))
        rows = []
        for app in dict.fromkeys(app for app, _ in found):
            codes = {error: n for (name, error), n in found.items() if name == app}
            answers = round(sum(codes.values()))
            failed = round(sum(n for code, n in codes.items() if blame(code) == "server"))
            ttft = {"p50": p50.get((app,)), "p95": p95.get((app,))}
            rows.append({"app": app, "answers": answers, "failed": failed, "ttft": ttft})
        return sorted((r for r in rows if r["answers"]), key=lambda row: -row["answers"])


def calls_of(errors: Mapping[str, float]) -> dict[str, Any]:
    """Return how many calls there were, and how many the model failed."""
    calls = round(sum(errors.values()))
    failed = round(sum(n for code, n in errors.items() if blame(code) == "server"))
    return {"calls": calls, "failed": failed, "error_share": failed / calls if calls else None}


def added(lists: Iterable[list[float | None]], points: int) -> list[float]:
    """Return the sum of lines, point by point; what is unknown is 0."""
    sums = [0.0] * points
    for each in lists:
        sums = [total + (value or 0.0) for total, value in zip(sums, each, strict=True)]
    return sums
