"""What makes each alert fire, stay silent and end: series of metrics, and when the alert fires.

The cases are run twice: by promtool on the rules for Prometheus, and by Slipway's own evaluator. They
stand close to each threshold and to the edges of each window, on both sides, so that a threshold or
window that is a fifth larger or smaller fails one of them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from slipway.settings import (
    AlertSettings,
    AppSettings,
    Listen,
    ModelSettings,
    NotifierSettings,
    Settings,
    Slo,
    SpendAlerts,
)
from slipway.telemetry.definitions import METRICS

MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0
SETTINGS = Settings(
    listen=Listen(workers=2),
    models={
        "qwen": ModelSettings(base_url="http://127.0.0.1:9/v1", zone="a"),
        "qwen-sg": ModelSettings(base_url="http://127.0.0.1:9/v1", zone="b", at_once=4),
        "flash-sg": ModelSettings(base_url="http://127.0.0.1:9/v1", zone="b"),
    },
    apps={"docs": AppSettings(knowledge=("docs",), route="qwen")},
    slo=Slo(availability="99.9%", ttft_p95=2.0, tpot_p95=0.08, answered_with_source="90%"),
    alerts=AlertSettings(
        spend=SpendAlerts(month=500),  # type: ignore[arg-type]
        notify={"team": NotifierSettings(kind="webhook", url="http://127.0.0.1:9/")},
        runbooks="https://runbooks.example.com",
    ),
)
EDGES = {
    key: tuple(sorted({*metric.buckets, *filter(None, [SETTINGS.slo.edges.get(key)])}))
    for key, metric in METRICS.items()
    if metric.buckets
}
Labels = Mapping[str, str]
Amount = Callable[[int], float]  # what happens in a step, by its age: 1 is the latest


@dataclass(frozen=True)
class Counted:
    """A counter, or the observations of a histogram that are `observed` so."""

    metric: str
    labels: tuple[tuple[str, str], ...]
    totals: tuple[float, ...]
    observed: float | None = None


@dataclass(frozen=True)
class AlertCase:
    """Series with a value each `step_s` seconds, and whether the alert fires at given steps."""

    name: str
    says: str
    step_s: float
    series: tuple[Counted, ...]
    checks: tuple[tuple[int, bool], ...]
    labels: tuple[tuple[str, str], ...] = ()  # of the variant that is meant
    times: tuple[tuple[float, bool], ...] = ()  # checks between steps, in seconds

    @property
    def moments(self) -> list[tuple[float, bool]]:
        return [*((step * self.step_s, fires) for step, fires in self.checks), *self.times]


def counter(
    metric: str, steps: int, amount: Amount, *, observed: float | None = None, **labels: str
) -> Counted:
    """Return a counter that begins at 0 and grows by `amount` in each of so many steps."""
    totals = [0.0]
    for step in range(1, steps + 1):
        totals.append(totals[-1] + amount(steps - step + 1))
    known = {name: labels.get(name, "") for name in METRICS[metric].labels}
    return Counted(metric, tuple(known.items()), tuple(totals), observed)


def gauge(metric: str, values: Sequence[float], **labels: str) -> Counted:
    return Counted(metric, tuple(labels.items()), tuple(values))


def between(first: int, last: int, value: float, other: float = 0.0) -> Amount:
    """Return an amount for the steps of these ages, both included."""
    return lambda age: value if first <= age <= last else other


# Burn rates. The long window has 60 steps, the short one 5

Parts = Callable[[int, Amount, Amount], tuple[Counted, ...]]  # steps, good and bad ones


def answers(steps: int, good: Amount, bad: Amount) -> tuple[Counted, ...]:
    return (
        counter("answers", steps, good, app="docs", served_by="model"),
        counter("answers", steps, bad, app="docs", error="provider_down"),
        counter("answers", steps, lambda age: 50, app="docs", error="bad_request"),  # not ours
    )


def first_tokens(steps: int, good: Amount, bad: Amount) -> tuple[Counted, ...]:
    return (
        counter("ttft", steps, good, observed=1.9),
        counter("ttft", steps, bad, observed=2.1),
    )


def sourced(steps: int, good: Amount, bad: Amount) -> tuple[Counted, ...]:
    return (
        counter("sourced", steps, good, app="docs", outcome="sourced"),
        counter("sourced", steps, bad, app="docs", outcome="unsourced"),
    )


def burn_cases(name: str, step_s: float, limit: float, parts: Parts) -> list[AlertCase]:
    """Return the cases of one burn rate; `limit` is the share of bad ones that fires."""
    steps, many = 80, 1000.0

    def case(says: str, share: Amount, fires: bool, total: Amount = lambda age: many) -> AlertCase:
        series = parts(
            steps, lambda age: total(age) * (1 - share(age)), lambda age: total(age) * share(age)
        )
        return AlertCase(name, says, step_s, series, ((steps, fires),))

    recent = min(1.0, 1.3 * limit)  # in the short window
    lump = min(1.0, (1.08 * limit * 60 - recent * 5) / 10)  # ten steps that make up the long one
    width = 10 if lump < 1 else round((1.08 * limit * 60 - recent * 5) + 0.5)
    cases = [
        case("all of it is a little too much", lambda age: 1.1 * limit, True),
        case("all of it is a little below", lambda age: 0.9 * limit, False),
        case(
            "an old lump within the long window",
            lambda age: recent if age <= 5 else lump if 60 - width < age <= 60 else 0.0,
            True,
        ),
        case(
            "a lump before the long window",
            lambda age: recent if age <= 5 else 1.0 if 60 < age <= 72 else 0.0,
            limit < 1.3 * limit * 5 / 60,
        ),
        case(
            "only the oldest step of the short window",
            lambda age: between(5, 5, min(1.0, 6 * limit))(age) or between(10, 70, 0.99)(age),
            5 * limit < min(1.0, 6 * limit),
        ),
        case(
            "only the long window is a little below",
            lambda age: recent if age <= 5 else (0.9 * limit * 60 - recent * 5) / 55,
            False,
        ),
        case(
            "only the short window is a little below",
            lambda age: 0.9 * limit if age <= 5 else min(1.0, 1.5 * limit),
            False,
        ),
        *(
            case(
                f"the short window has {factor:g} of the limit",
                lambda age, factor=factor: (  # type: ignore[misc]
                    factor * limit if age <= 5 else min(1.0, 1.5 * limit)
                ),
                factor > 1,
            )
            for factor in (0.97, 1.03)
        ),
        case("bad ones before the short window", between(6, 70, 1.0), False),
        case("hardly enough of them", lambda age: 1.0, True, lambda age: 110 / 60),
        case("too few of them", lambda age: 1.0, False, lambda age: 92 / 60),
    ]
    if limit < 0.1:
        few = 150 / 60
        cases += [
            case("eleven bad ones", lambda age: 11 / 150, True, lambda age: few),
            case("nine bad ones", lambda age: 9 / 150, False, lambda age: few),
        ]
    ended = between(14, 200, 1.5 * limit if limit < 0.6 else 1.0)
    series = parts(steps, lambda age: many * (1 - ended(age)), lambda age: many * ended(age))
    cases.append(AlertCase(name, "it ends", step_s, series, ((66, True), (80, False))))
    return cases


def burns() -> list[AlertCase]:
    cases = []
    for prefix, budget, parts in (
        ("Availability", 0.001, answers),
        ("FirstToken", 0.05, first_tokens),
        ("Sources", 0.1, sourced),
    ):
        for suffix, factor, step_s in (
            ("BurnFast", 14.4, MINUTE),
            ("Burn", 6, 6 * MINUTE),
            ("BurnSlow", 1, 72 * MINUTE),
        ):
            cases += burn_cases(f"{prefix}{suffix}", step_s, min(0.8, factor * budget), parts)
    return cases


# All others


def tokens_slow() -> list[AlertCase]:
    def case(
        says: str, slow: Amount, checks: tuple[tuple[int, bool], ...], each: float = 10.0
    ) -> AlertCase:
        return AlertCase(
            "TimePerToken",
            says,
            MINUTE,
            (
                counter("tpot", 60, lambda age: each * (1 - slow(age)), observed=0.03),
                counter("tpot", 60, lambda age: each * slow(age), observed=0.09),
            ),
            checks,
        )

    return [
        case("six percent are slow", lambda age: 0.06, ((60, True),)),
        case("four percent are slow", lambda age: 0.04, ((60, False),)),
        # 0.08 to 0.1 is one bucket: a higher limit asks for more than the quantile can be
        AlertCase(
            "TimePerToken",
            "all are within a slightly lower limit",
            MINUTE,
            (counter("tpot", 60, lambda age: 10, observed=0.078),),
            ((60, False),),
        ),
        # the share in half an hour is above the limit two minutes later
        case(
            "slow for eight and for eleven minutes", between(1, 24, 1.0), ((46, False), (49, True))
        ),
        case("half an hour ago", between(25, 50, 1.0), ((60, True),)),
        case("over half an hour ago", between(31, 60, 1.0), ((60, False),)),
        case("over half an hour ago, it ends", between(32, 60, 1.0), ((40, True), (60, False))),
        case("few answers", lambda age: 0.5, ((60, True),), 110 / 30),
        case("too few answers", lambda age: 0.5, ((60, False),), 90 / 30),
    ]


def spike() -> list[AlertCase]:
    """Steps of ten minutes over eight days and a bit; the last hour is that of the question."""
    steps = 8 * 144 + 1

    def case(says: str, usd: Callable[[int], float], fires: bool) -> AlertCase:
        """`usd` is what an hour costs, by its age: 0 is the last one."""
        series = counter("cost", steps, lambda age: usd((age - 1) // 6) / 6, app="docs", model="m")
        return AlertCase("SpendSpike", says, 10 * MINUTE, (series,), ((steps, fires),))

    def hours(last: float, usual: float = 2.0, **others: float) -> Callable[[int], float]:
        at = {int(name[1:]): usd for name, usd in others.items()}
        return lambda hour: last if hour == 0 else at.get(hour, usual)

    def half(low: Sequence[int], high: float) -> Callable[[int], float]:
        return lambda hour: 20.0 if hour == 0 else 1.0 if hour in low or hour in (24, 168) else high

    return [
        case("a little over three times as much", hours(6.6), True),
        case("a little below three times as much", hours(5.4), False),
        case("small amounts", hours(1.1, 0.01), True),
        case("very small amounts", hours(0.9, 0.01), False),
        case("the same hour a day ago cost as much", hours(20, 2, h23=20, h24=20), False),
        case("another hour a day ago cost as much", hours(20, 2, h19=20, h20=20), True),
        case("a later hour did", hours(20, 2, h28=20, h29=20), True),
        case("the same hour a week ago cost as much", hours(20, 2, h167=20, h168=20), False),
        case("another hour a week ago cost as much", hours(20, 2, h134=20, h135=20), True),
        case("most of the last day was cheap", half(range(1, 15), 100.0), True),
        case("most of the last day was expensive", half(range(1, 12), 100.0), False),
    ]


def forecast() -> list[AlertCase]:
    def case(says: str, usd: float, checks: tuple[tuple[int, bool], ...]) -> AlertCase:
        values = [1.0, *[usd] * 19, *[1.0] * 6]
        return AlertCase(
            "SpendForecast", says, 5 * MINUTE, (gauge("spend_forecast", values),), checks
        )

    return [
        case("a little over, for fifty and for seventy minutes", 550, ((11, False), (15, True))),
        case("it ends", 550, ((19, True), (25, False))),
        case("a little below", 450, ((19, False),)),
    ]


def growing(
    name: str, metric: str, window: int, more: tuple[Counted, ...] = (), **labels: str
) -> list[AlertCase]:
    """Return the cases of an alert that fires if a counter grew in so many minutes."""
    inside, outside = round(window * 0.9), round(window * 1.1)
    steps = outside + 20

    def case(says: str, ages: range, checks: tuple[tuple[int, bool], ...]) -> AlertCase:
        series = counter(
            metric, steps, lambda age: 3.0 if age in ages else 0.0, observed=None, **labels
        )
        return AlertCase(name, says, MINUTE, (series, *more), checks)

    return [
        case("it grew in the window", range(inside, inside + 1), ((steps, True),)),
        case("it grew before the window", range(outside, outside + 1), ((steps, False),)),
        case("it does not grow", range(0), ((steps, False),)),
        case(
            "it ends",
            range(outside + 10, outside + 11),
            ((steps - outside + 5, True), (steps, False)),
        ),
    ]


def votes(no: Amount, yes: Amount, steps: int, **more: Amount) -> tuple[Counted, ...]:
    return (
        counter("feedback", steps, no, app="docs", helpful="no"),
        counter("feedback", steps, yes, app="docs", helpful="yes"),
        *(counter(metric, steps, amount, app="docs") for metric, amount in more.items()),
    )


def thumbs() -> list[AlertCase]:
    """Steps of an hour; the last day is compared with the six days before."""
    steps = 9 * 24

    def case(
        says: str, no: Amount, fires: bool, total: Amount = lambda age: 100.0, ends: int = steps
    ) -> AlertCase:
        series = votes(
            lambda age: total(age) * no(age), lambda age: total(age) * (1 - no(age)), steps
        )
        return AlertCase("ThumbsDown", says, HOUR, series, ((ends, fires),))

    def share(today: float, before: float) -> Amount:
        return lambda age: today if age <= 24 else before

    # with 2,400 votes a day, the lower end is 2 points below the share
    return [
        case("the share rose by enough", share(0.276, 0.2), True),
        case("it rose a little less", share(0.264, 0.2), False),
        case("few votes, all of them down", share(1.0, 0.2), True, lambda age: 55 / 24),
        case("too few votes", share(1.0, 0.2), False, lambda age: 45 / 24),
        case("chance explains it", share(0.33, 0.2), False, lambda age: 55 / 24),
        case(
            "no votes before, and more than usual",
            lambda age: 0.33,
            True,
            lambda age: 100.0 if age <= 24 else 0.0,
        ),
        case(
            "no votes before, and as many as usual",
            lambda age: 0.27,
            False,
            lambda age: 100.0 if age <= 24 else 0.0,
        ),
        case("the day's beginning makes it", lambda age: between(20, 24, 0.45, 0.2)(age), False),
        case("the day's beginning makes it now", lambda age: between(20, 24, 0.6, 0.2)(age), True),
        case("it was the day before", between(25, 29, 1.0, 0.2), False),
        # the baseline covers six days, from a day ago on
        case("the oldest day of the week", lambda age: baseline(age, 145, 168), False),
        case("the day before that week", lambda age: baseline(age, 169, 192), True),
        case(
            "the first hours of the baseline",
            lambda age: 1.0 if 25 <= age <= 29 else 0.3 if age <= 24 else 0.212,
            False,
        ),
        case(
            "the votes of the day came early",
            lambda age: 0.27 if age <= 24 else 0.2,
            True,
            lambda age: 0.0 if age < 20 else 1000.0 if age <= 24 else 100.0,
        ),
        case("it ends", lambda age: between(49, 72, 0.5, 0.2)(age), False),
        case("it fired before it ended", between(49, 72, 0.5, 0.2), True, ends=steps - 48),
    ]


def baseline(age: int, first: int, last: int, then: float = 0.9) -> float:
    """Return a share that is 0.3 today, 0.2 before, and higher in some hours before."""
    return then if first <= age <= last else 0.3 if age <= 24 else 0.2


def collapse() -> list[AlertCase]:
    steps = 9 * 24

    def case(
        says: str,
        now: float,
        fires: bool,
        answered: float = 100.0,
        usual: Amount = lambda age: 4.0,
        quiet: int = 27,
        ends: int = steps,
    ) -> AlertCase:
        """Votes an hour: `now` since `quiet` hours, `usual` before; answers: `answered`, 100."""
        series = votes(
            lambda age: 0.0,
            lambda age: now if age <= quiet else usual(age),
            steps,
            answers=lambda age: answered if age <= quiet else 100.0,
        )
        return AlertCase("FeedbackCollapse", says, HOUR, series, ((ends, fires),))

    return [
        case("fewer than a fifth", 0.72, True),
        case("more than a fifth", 0.87, False),
        case("half the answers", 0.1, True, answered=55.0),
        case("fewer than half the answers", 0.1, False, answered=45.0),
        case("hardly enough votes before", 0.0, True, usual=lambda age: 0.98),
        case("too few votes before", 0.0, False, usual=lambda age: 0.75),
    ]


def collapse_windows() -> list[AlertCase]:
    """The windows and the time that it must last, in steps of twelve minutes: an hour has five."""
    steps = 8 * 120

    def case(says: str, amount: Amount, checks: tuple[tuple[int, bool], ...]) -> AlertCase:
        series = votes(lambda age: 0.0, amount, steps, answers=lambda age: 10.0)
        return AlertCase("FeedbackCollapse", says, 12 * MINUTE, series, checks)

    day = 120
    return [
        # none for a day: that is less than a fifth of a day once four fifths of it are over
        case(
            "it lasts for less and for more than an hour",
            lambda age: 0.0 if age <= day else 1.0,
            ((steps - 24 + 5, False), (steps - 24 + 6, True), (steps, True)),
        ),
        case("it ends", between(41, 170, 0.0, 1.0), ((steps - 41, True), (steps, False))),
        case(
            "votes early in the last day",
            lambda age: 1.0 if age > day - 12 else 0.0,
            ((steps, True),),
        ),
        case(
            "many votes early in the last day",
            lambda age: 5.0 if day - 20 < age <= day - 6 else 1.0 if age > day else 0.0,
            ((steps, False),),
        ),
    ]


def fallback() -> list[AlertCase]:
    def case(
        says: str, second: Amount, fires: bool, total: float = 10.0, at: int = 90
    ) -> AlertCase:
        return AlertCase(
            "FallbackShare",
            says,
            MINUTE,
            (
                counter("answers", 90, lambda age: total, app="docs", served_by="model"),
                counter("answers", 90, lambda age: total, app="docs", error="provider_down"),
                counter(
                    "fallbacks",
                    90,
                    lambda age: total * second(age),
                    app="docs",
                    served_by="smaller",
                ),
            ),
            ((at, fires),),
        )

    return [
        case("a little over", lambda age: 0.055, True),
        case("a little below", lambda age: 0.045, False),
        case("in the first minutes of the hour", between(54, 60, 0.9), True),
        case("before the hour", between(61, 80, 1.0), False),
        case("hardly enough answers", lambda age: 0.5, True, total=110 / 60),
        case("too few answers", lambda age: 0.5, False, total=90 / 60),
        case("it fires", between(70, 90, 0.9), True, at=30),
        case("it ends", between(70, 90, 0.9), False),
    ]


def level(name: str, metric: str, limit: float, for_s: float, **labels: str) -> list[AlertCase]:
    """Return the cases of an alert on a gauge that exceeds a limit for a time."""
    step_s = for_s / 10
    found = tuple(labels.items())

    def case(says: str, values: Sequence[float], checks: tuple[tuple[int, bool], ...]) -> AlertCase:
        series = (gauge(metric, values, **labels),)
        return AlertCase(name, says, step_s, series, checks, labels=found)

    above, below = [1.1 * limit], [0.9 * limit]
    after = max(3, round(90 / step_s) + 1)  # it is kept for a minute
    return [
        case("above", below * 2 + above * 20, ((11, False), (13, True), (21, True))),
        case("below", below * 25, ((24, False),)),
        case("it ends", above * 16 + below * (after + 3), ((15, True), (15 + after, False))),
    ]


def states(closed: Mapping[str, Sequence[int]]) -> tuple[Counted, ...]:
    """Return the states of models over time: 1 is closed, 0 is open."""
    return tuple(
        gauge(
            "model_state",
            [v if state == "closed" else 1 - v for v in values]
            if state != "half-open"
            else [0] * len(values),
            model=model,
            state=state,
        )
        for model, values in closed.items()
        for state in ("closed", "open", "half-open")
    )


def models_down() -> list[AlertCase]:
    up, down = [1] * 50, [1] + [0] * 24 + [1] * 25
    one = {"qwen": up, "qwen-sg": down, "flash-sg": up}
    zone = {"qwen": up, "qwen-sg": down, "flash-sg": down}
    b = (("zone", "b"),)
    model = (("zone", "b"), ("model", "qwen-sg"))
    ends = ((6, False), (7, True), (24, True), (38, False))

    def case(
        name: str,
        says: str,
        which: Mapping[str, Sequence[int]],
        checks: tuple[tuple[int, bool], ...],
        labels: tuple[tuple[str, str], ...],
    ) -> AlertCase:
        step_s = 10.0 if name == "ZoneDown" else 20.0
        return AlertCase(name, says, step_s, states(which), checks, labels=labels)

    return [
        case(
            "ZoneDown",
            "both models of zone b",
            zone,
            ((6, False), (8, True), (24, True), (38, False)),
            b,
        ),
        case("ZoneDown", "one of two models", one, ((24, False),), b),
        case("ModelDown", "one model", one, ends, model),
    ]


def stuck() -> list[AlertCase]:
    def case(
        says: str, answered: Amount, checks: tuple[tuple[int, bool], ...], running: float = 3
    ) -> AlertCase:
        return AlertCase(
            "AnswersStuck",
            says,
            MINUTE,
            (
                counter("answers", 60, answered, app="docs", served_by="model"),
                gauge("in_flight", [running] * 61),
            ),
            checks,
        )

    return [
        # the last answer was in minute 20: none for 15 minutes since 35, and that for 5 since 40
        case(
            "no answer for twenty minutes",
            between(41, 60, 5.0),
            ((39, False), (40, True), (60, True)),
        ),
        case("nothing runs", between(41, 60, 5.0), ((60, False),), running=0),
        case(
            "one answer in ten minutes", lambda age: 1.0 if age % 10 == 0 else 0.0, ((60, False),)
        ),
        case(
            "one answer in seventeen minutes",
            lambda age: 1.0 if age in (58, 41, 24) else 0.0,
            ((60, True), (36, False)),
        ),
        case("it ends", lambda age: 5.0 if age > 40 or age < 4 else 0.0, ((50, True), (60, False))),
    ]


def store_down() -> list[AlertCase]:
    values = [1] * 3 + [0] * 30 + [1] * 20
    return [
        AlertCase(
            "StoreDown",
            "down for five minutes",
            30.0,
            (gauge("store_up", values),),
            ((2, False), (12, False), (14, True), (32, True)),
            times=((32 * 30.0 + 54, True), (32 * 30.0 + 100, False)),
        ),
    ]


def prometheus_only() -> list[AlertCase]:
    """`up` is absent while nothing is scraped."""
    present = gauge("in_flight", [1.0] * 21)
    return [
        AlertCase("ScrapeMissing", "it is there", 30.0, (present,), ((20, False),)),
        AlertCase(
            "ScrapeMissing",
            "it was never there",
            30.0,
            (gauge("store_up", [1.0] * 21),),
            ((9, False), (11, True)),
        ),
        AlertCase(
            "MetricsFrozen",
            "frozen for over five minutes",
            15.0,
            (gauge("sampled_at", [0.0] * 40),),
            ((18, False), (23, False), (26, True), (39, True)),
        ),
        AlertCase(
            "MetricsFrozen",
            "sampled each ten seconds",
            10.0,
            (gauge("sampled_at", [10.0 * n for n in range(60)]),),
            ((59, False),),
        ),
        AlertCase(
            "MetricsFrozen",
            "it ends",
            10.0,
            (gauge("sampled_at", [0.0] * 50 + [10.0 * n for n in range(50, 70)]),),
            ((48, True), (69, False)),
        ),
    ]


def all_cases() -> list[AlertCase]:
    """Return the cases of all alerts."""
    return [
        *burns(),
        *tokens_slow(),
        *spike(),
        *forecast(),
        *growing("UnpricedTraffic", "unpriced", 60, app="docs", model="m"),
        *thumbs(),
        *collapse(),
        *collapse_windows(),
        *fallback(),
        *level("StaleKnowledge", "checked_age", DAY, 5 * MINUTE, app="docs"),
        *store_down(),
        *level("LedgerBacklog", "store_waiting", 1000, 10 * MINUTE),
        *growing("RowsLost", "store_lost", 15),
        *models_down(),
        *level("QueueAge", "queue_oldest", 10, 2 * MINUTE, model="qwen-sg"),
        *growing("AnswersLost", "answers_lost", 15),
        *stuck(),
        *growing("NotifierFailing", "notifications", 30, notifier="team", outcome="failed"),
        AlertCase(
            "Watchdog", "always", MINUTE, (gauge("in_flight", [0.0] * 3),), ((0, True), (2, True))
        ),
        *prometheus_only(),
    ]
