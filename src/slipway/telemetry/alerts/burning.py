"""Burn rates of service level objectives, over two windows each.

An objective of 99.9 % leaves an error budget of 0.1 % a month. What burns 14.4 times as fast uses 2 %
of it in an hour; both a long and a short window must burn, so that an alert also ends soon (Google,
The Site Reliability Workbook, chapter 5). With few answers, one failure would look like a fire: the
long window needs a minimum of answers, and of bad ones.
"""

from collections.abc import Iterator, Sequence

from slipway.errors import ProviderLimit, SlipwayError
from slipway.settings import Settings
from slipway.settings.alerting import P95
from slipway.telemetry.alerts.alert import Severity, Variant
from slipway.telemetry.alerts.expressions import (
    DAY,
    HOUR,
    MINUTE,
    AllOf,
    Arithmetic,
    Compared,
    Expression,
    Increase,
    Number,
    Otherwise,
    Where,
    shared_part,
)
from slipway.types import Record

MOST = 0.8  # of a lax objective: a share of bad answers that always burns too fast
FEWEST_BAD = 0.1  # of the minimum of answers


class Burn(Record, frozen=True, kw_only=True):
    """How fast an error budget burns, and the windows in which it must."""

    name: str
    severity: Severity
    factor: float
    long_s: float
    short_s: float

    @property
    def says(self) -> str:
        if self.factor == 1:
            return "the error budget will not last as long as it should"
        return f"the error budget burns {self.factor:g} times too fast"


BURNS = (
    Burn(name="BurnFast", severity="page", factor=14.4, long_s=HOUR, short_s=5 * MINUTE),
    Burn(name="Burn", severity="page", factor=6, long_s=6 * HOUR, short_s=30 * MINUTE),
    Burn(name="BurnSlow", severity="ticket", factor=1, long_s=3 * DAY, short_s=6 * HOUR),
)


def failures(base: type[SlipwayError] = SlipwayError) -> set[str]:
    """Return the codes of errors that are the service's fault: those of a 5xx, and a provider's 429.

    What the client did wrong, such as too many requests, counts neither as good nor as bad.
    """
    own = {base.code} if base.status >= 500 or issubclass(base, ProviderLimit) else set[str]()
    return own.union(*(failures(each) for each in base.__subclasses__()))


FAILURES = tuple(sorted(failures()))


def availability_burn(burn: Burn, settings: Settings) -> Iterator[Variant]:
    objective = settings.slo.availability_share
    if objective is not None:
        bad: Where = {"error": FAILURES}
        valid: Where = {"error": ("", *FAILURES)}

        windows = []
        for window_s in (burn.long_s, burn.short_s):
            part = Increase(metric="answers", window_s=window_s, where=bad)
            whole = Increase(metric="answers", window_s=window_s, where=valid)
            windows.append((part, whole, shared_part(part, whole)))
        yield burning(burn, 1 - objective, windows, settings.alerts.minimum)


def ttft_burn(burn: Burn, settings: Settings) -> Iterator[Variant]:
    limit = settings.slo.ttft_p95
    if limit is not None:
        windows = []
        for window_s in (burn.long_s, burn.short_s):
            within = Increase(metric="ttft", window_s=window_s, at_most=limit)
            windows.append(without(within, Increase(metric="ttft", window_s=window_s)))
        yield burning(burn, 1 - P95, windows, settings.alerts.minimum)


def sourced_burn(burn: Burn, settings: Settings) -> Iterator[Variant]:
    objective = settings.slo.sourced_share
    if objective is not None:
        windows = []
        for window_s in (burn.long_s, burn.short_s):
            good = Increase(metric="sourced", window_s=window_s, where={"outcome": ("sourced",)})
            windows.append(without(good, Increase(metric="sourced", window_s=window_s)))
        yield burning(burn, 1 - objective, windows, settings.alerts.minimum)


Window = tuple[
    Expression, Expression, Expression
]  # bad answers, all answers, the share of bad ones


def without(good: Increase, whole: Increase) -> Window:
    """Return the window of an objective that counts the good ones."""
    counted = Otherwise(inner=good, number=0)
    bad = Arithmetic(left=whole, operator="-", right=counted)
    rest = Arithmetic(left=Number(number=1), operator="-", right=shared_part(good, whole))
    return bad, whole, rest


def burning(burn: Burn, budget: float, windows: Sequence[Window], minimum: int) -> Variant:
    """Return the condition that both windows burn, and that the long one has answers enough."""
    limit = round(min(burn.factor * budget, MOST), 9)
    bad, whole, _ = windows[0]
    conditions = [
        *(Compared(left=part, comparison=">", number=limit) for _, _, part in windows),
        Compared(left=whole, comparison=">=", number=minimum),
    ]
    if limit < FEWEST_BAD:  # else the conditions above ask for as many bad ones
        conditions.append(Compared(left=bad, comparison=">=", number=minimum * FEWEST_BAD))
    return Variant(when=AllOf(conditions=tuple(conditions)), threshold=limit)
