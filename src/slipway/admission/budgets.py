"""Money: what was spent in a day and a month, and what running calls may still cost.

Amounts are picodollars. Days and months are those of UTC.
"""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Literal

from slipway.prices import PICO, whole
from slipway.types import Record

Period = Literal["day", "month"]
DAY_S = 86_400


class Periods(Record, frozen=True, kw_only=True):
    """The day and the month of a moment: when they began and when they end (epoch seconds)."""

    day: float
    day_ends: float
    month: float
    month_ends: float


def periods_at(now: float) -> Periods:
    """Return the day and the month of a moment."""
    day = datetime.fromtimestamp(now, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    month = day.replace(day=1)
    following = (month + timedelta(days=32)).replace(day=1)
    return Periods(
        day=day.timestamp(),
        day_ends=day.timestamp() + DAY_S,
        month=month.timestamp(),
        month_ends=following.timestamp(),
    )


def picodollars(usd: Decimal | None) -> int | None:
    """Return a budget of the settings in picodollars, rounded down."""
    return None if usd is None else whole((usd * PICO).to_integral_value(rounding="ROUND_FLOOR"))


class MoneyLimit:
    """The money of one period. `spent` is settled; what running calls may cost is the meter's."""

    __slots__ = ("_periods", "cap", "ends", "period", "spent")

    def __init__(self, period: Period) -> None:
        self.period: Period = period
        self.cap: int | None = None
        self.spent = 0
        self.ends = 0.0
        self._periods: Periods | None = None

    def roll(self, periods: Periods) -> None:
        """Begin a new period if the last one is over; `periods` is the same object all day."""
        if periods is self._periods:
            return
        ends = periods.day_ends if self.period == "day" else periods.month_ends
        if ends > self.ends:
            self.spent = 0
        self.ends = max(ends, self.ends)
        self._periods = periods

    def left(self) -> int | None:
        """Return what is not spent; None if there is no limit."""
        return None if self.cap is None else self.cap - self.spent
