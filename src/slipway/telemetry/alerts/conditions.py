"""When each alert fires, for the settings in force; `burning` has those of objectives."""

from collections.abc import Iterator

from slipway.settings import Settings, share
from slipway.telemetry.alerts.alert import Variant
from slipway.telemetry.alerts.expressions import (
    DAY,
    HOUR,
    MINUTE,
    AllOf,
    Always,
    Arithmetic,
    Compared,
    ComparedTo,
    Expression,
    GaugeMaximum,
    GaugeTotal,
    Increase,
    InPrometheus,
    Number,
    Otherwise,
    Percentile,
    Root,
    UsualHour,
    shared_part,
)

Z = 1.96  # of a 95 % interval
NO_BASELINE = 0.25  # the share of thumbs-down that is taken as usual while nothing else is known
THUMBS_DOWN = {"helpful": ("no",)}
VOTES = {"helpful": ("yes", "no")}
NOT_CLOSED = ("open", "half-open")


def time_per_token(settings: Settings) -> Iterator[Variant]:
    limit = settings.slo.tpot_p95
    if limit is not None:
        slow = Percentile(metric="tpot", q=0.95, window_s=30 * MINUTE)
        enough = Compared(
            left=Increase(metric="tpot", window_s=30 * MINUTE),
            comparison=">=",
            number=settings.alerts.minimum,
        )
        when = AllOf(conditions=(Compared(left=slow, comparison=">", number=limit), enough))
        yield Variant(when=when, threshold=limit)


def spend_spike(settings: Settings) -> Iterator[Variant]:
    """An hour is compared with the median of the last day, and with the same hour a day and a week
    ago, so that neither a morning nor a Monday is a spike.
    """
    spend = settings.alerts.spend
    hour = Increase(metric="cost", window_s=HOUR)

    def exceeds(usual: Expression) -> Expression:
        times = Arithmetic(left=usual, operator="*", right=Number(number=spend.spike))
        return ComparedTo(left=hour, comparison=">", right=times)

    def ago(days: int) -> Expression:
        same = Increase(metric="cost", window_s=HOUR, offset_s=days * DAY)
        return exceeds(Otherwise(inner=same, number=0))

    conditions = (
        exceeds(UsualHour(metric="cost", hours=24)),
        ago(1),
        ago(7),
        Compared(left=hour, comparison=">", number=float(spend.floor)),
    )
    yield Variant(when=AllOf(conditions=conditions))


def spend_forecast(settings: Settings) -> Iterator[Variant]:
    month = settings.alerts.spend.month
    if month is not None:
        forecast = GaugeMaximum(metric="spend_forecast")
        yield Variant(
            when=Compared(left=forecast, comparison=">", number=float(month)),
            threshold=float(month),
        )


def unpriced_traffic(_: Settings) -> Iterator[Variant]:
    calls = Increase(metric="unpriced", window_s=HOUR)
    yield Variant(when=Compared(left=calls, comparison=">", number=0), threshold=0)


def wilson_lower(part: Expression, whole: Expression) -> Expression:
    """Return the lower end of Wilson's interval for a share: what it is at least, with 97.5 %
    certainty (Wilson 1927, in Brown, Cai and DasGupta 2001).
    """

    def of(left: Expression, sign: str, right: Expression) -> Expression:
        return Arithmetic(left=left, operator=sign, right=right)

    p, z2 = of(part, "/", whole), Number(number=Z * Z)
    spread = Root(
        inner=of(
            of(of(p, "*", of(Number(number=1), "-", p)), "/", whole),
            "+",
            of(Number(number=Z * Z / 4), "/", of(whole, "*", whole)),
        )
    )
    centre = of(p, "+", of(Number(number=Z * Z / 2), "/", whole))
    return of(
        of(centre, "-", of(Number(number=Z), "*", spread)),
        "/",
        of(Number(number=1), "+", of(z2, "/", whole)),
    )


def thumbs_down(_: Settings) -> Iterator[Variant]:
    """The baseline is the week before the last day."""
    down = Increase(metric="feedback", window_s=DAY, where=THUMBS_DOWN)
    votes = Increase(metric="feedback", window_s=DAY, where=VOTES)
    before = shared_part(
        Increase(metric="feedback", window_s=6 * DAY, offset_s=DAY, where=THUMBS_DOWN),
        Increase(metric="feedback", window_s=6 * DAY, offset_s=DAY, where=VOTES),
    )
    limit = Arithmetic(
        left=Otherwise(inner=before, number=NO_BASELINE), operator="+", right=Number(number=0.05)
    )
    when = ComparedTo(left=wilson_lower(down, votes), comparison=">", right=limit)
    enough = Compared(left=votes, comparison=">=", number=50)
    yield Variant(when=AllOf(conditions=(when, enough)))


def feedback_collapse(_: Settings) -> Iterator[Variant]:
    """Votes fell to a fifth of those of a usual day, and answers did not."""

    def days(metric: str, window_s: float, offset_s: float) -> Expression:
        where = VOTES if metric == "feedback" else {}
        return Increase(metric=metric, window_s=window_s, offset_s=offset_s, where=where)

    def usual(metric: str, share_of: float) -> Expression:
        factor = Number(number=share_of / 6)
        return Arithmetic(left=days(metric, 6 * DAY, DAY), operator="*", right=factor)

    votes = ComparedTo(left=days("feedback", DAY, 0), comparison="<", right=usual("feedback", 0.2))
    answers = ComparedTo(left=days("answers", DAY, 0), comparison=">", right=usual("answers", 0.5))
    enough = Compared(left=days("feedback", 6 * DAY, DAY), comparison=">=", number=120)
    yield Variant(when=AllOf(conditions=(votes, answers, enough)))


def fallback_share(settings: Settings) -> Iterator[Variant]:
    limit = share(settings.alerts.fallback)
    answers = Increase(metric="answers", window_s=HOUR, where={"error": ("",)})
    part = shared_part(Increase(metric="fallbacks", window_s=HOUR), answers)
    conditions = (
        Compared(left=part, comparison=">", number=limit),
        Compared(left=answers, comparison=">=", number=settings.alerts.minimum),
    )
    yield Variant(when=AllOf(conditions=conditions), threshold=limit)


def stale_knowledge(settings: Settings) -> Iterator[Variant]:
    limit = settings.alerts.stale_knowledge
    if limit is not None and any(app.knowledge for app in settings.apps.values()):
        age = GaugeMaximum(metric="checked_age", by=("app",))
        yield Variant(when=Compared(left=age, comparison=">", number=limit), threshold=limit)


def store_down(_: Settings) -> Iterator[Variant]:
    up = GaugeMaximum(metric="store_up")
    yield Variant(when=Compared(left=up, comparison="==", number=0))


def ledger_backlog(_: Settings) -> Iterator[Variant]:
    waiting = GaugeMaximum(metric="store_waiting")
    yield Variant(when=Compared(left=waiting, comparison=">", number=1000), threshold=1000)


def rows_lost(_: Settings) -> Iterator[Variant]:
    lost = Increase(metric="store_lost", window_s=15 * MINUTE)
    yield Variant(when=Compared(left=lost, comparison=">", number=0), threshold=0)


def zones(settings: Settings) -> dict[str, tuple[str, ...]]:
    """Return the models of each zone; those without one share no failure that is known."""
    found: dict[str, tuple[str, ...]] = {}
    for name, model in settings.models.items():
        found[model.zone] = (*found.get(model.zone, ()), name)
    return found


def model_down(settings: Settings) -> Iterator[Variant]:
    for zone, models in zones(settings).items():
        broken = GaugeMaximum(
            metric="model_state", where={"model": models, "state": NOT_CLOSED}, by=("model",)
        )
        labels = (("zone", zone),) if zone else ()
        yield Variant(when=Compared(left=broken, comparison="==", number=1), labels=labels)


def zone_down(settings: Settings) -> Iterator[Variant]:
    """All models of a zone are down. One model alone says nothing of its zone, unless it is all
    that there is in it.
    """
    for zone, models in zones(settings).items():
        if zone:
            usable = GaugeTotal(metric="model_state", where={"model": models, "state": ("closed",)})
            when = Compared(left=usable, comparison="==", number=0)
            yield Variant(when=when, labels=(("zone", zone),))


def queue_age(settings: Settings) -> Iterator[Variant]:
    if any(model.at_once is not None for model in settings.models.values()):
        oldest = GaugeMaximum(metric="queue_oldest", by=("model",))
        yield Variant(when=Compared(left=oldest, comparison=">", number=10), threshold=10)


def answers_lost(settings: Settings) -> Iterator[Variant]:
    if settings.listen.workers > 1:
        lost = Increase(metric="answers_lost", window_s=15 * MINUTE)
        yield Variant(when=Compared(left=lost, comparison=">", number=0), threshold=0)


def answers_stuck(_: Settings) -> Iterator[Variant]:
    running = Compared(left=GaugeMaximum(metric="in_flight"), comparison=">", number=0)
    none = Compared(
        left=Increase(metric="answers", window_s=15 * MINUTE), comparison="==", number=0
    )
    yield Variant(when=AllOf(conditions=(running, none)))


def notifier_failing(settings: Settings) -> Iterator[Variant]:
    if settings.alerts.notify:
        where = {"outcome": ("failed",)}
        failed = Increase(metric="notifications", window_s=30 * MINUTE, where=where)
        yield Variant(when=Compared(left=failed, comparison=">", number=0), threshold=0)


def watchdog(_: Settings) -> Iterator[Variant]:
    yield Variant(when=Always())


def scrape_missing(_: Settings) -> Iterator[Variant]:
    yield Variant(when=InPrometheus(text="absent(slipway_answers_in_flight)"))


def metrics_frozen(_: Settings) -> Iterator[Variant]:
    frozen = "time() - max(slipway_sampled_timestamp_seconds) > 300"
    yield Variant(when=InPrometheus(text=frozen), threshold=300)
