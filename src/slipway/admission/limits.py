"""Limits of keys, tenants and apps: answers and tokens a minute, answers at a time, and money.

A call of a model reserves what it may take at most, and is settled with what it took. So no two
calls can spend the same rest of a budget, and what is left over can be spent at once.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

from slipway.admission.budgets import MoneyLimit, Periods, periods_at, picodollars
from slipway.admission.windows import SlidingWindow, UsedAmount
from slipway.errors import (
    BudgetSpent,
    BudgetUnknown,
    LimitReached,
    NotPriced,
    RateLimited,
)
from slipway.ledger import format_usd, usd
from slipway.settings import Allowance
from slipway.types import Record

Scope = Literal["key", "tenant", "app"]
WAIT_S = 30.0  # the longest wait for running calls to settle, if a call may fit after them
BUSY_S = 1.0  # when to come back if all answers at a time are in progress
Headers = tuple[tuple[bytes, bytes], ...]


class Need(Record, frozen=True, kw_only=True):
    """What a call may take at most. `amount` is in picodollars; None if the price is unknown."""

    model: str
    tokens: int
    amount: int | None


class Meter:
    """What one key, tenant or app uses. It survives a reload of the settings."""

    __slots__ = (
        *("allowance", "answers", "day", "is_loaded", "month"),
        *("name", "requests", "scope", "tokens"),
    )

    def __init__(self, scope: Scope, name: str) -> None:
        self.scope: Scope = scope
        self.name = name
        self.allowance = Allowance()
        self.answers = 0
        self.requests, self.tokens = SlidingWindow(), SlidingWindow()
        self.day, self.month = MoneyLimit("day"), MoneyLimit("month")
        self.is_loaded = False  # whether the budgets know what was spent before

    def set_limits(self, allowance: Allowance) -> None:
        self.allowance = allowance
        self.day.cap = picodollars(allowance.usd_per_day)
        self.month.cap = picodollars(allowance.usd_per_month)

    @property
    def limits_money(self) -> bool:
        return self.day.cap is not None or self.month.cap is not None

    @property
    def limits_calls(self) -> bool:
        return self.limits_money or self.allowance.tpm is not None

    @property
    def who(self) -> str:
        return "this key" if self.scope == "key" else f"the {self.scope} `{self.name}`"

    def check_answer(self, now: float) -> None:
        """Raise RateLimited if no further answer may begin."""
        allowance = self.allowance
        if allowance.answers is not None and self.answers >= allowance.answers:
            raise self.refusal(
                f"{allowance.answers} answers of {self.who} are in progress, which is its limit.",
                BUSY_S,
            )
        if allowance.rpm is not None and self.requests.used(now) >= allowance.rpm:
            raise self.refusal(
                f"The limit of {allowance.rpm} answers a minute of {self.who} is reached.",
                self.requests.free_in(now, allowance.rpm, 1),
            )

    def check_tokens(self, need: Need, now: float) -> None:
        """Raise RateLimited if the call's tokens do not fit. One that never would fits alone."""
        tpm = self.allowance.tpm
        if tpm is not None and self.tokens.used(now) + min(need.tokens, tpm) > tpm:
            raise self.refusal(
                f"The limit of {tpm:,} tokens a minute of {self.who} is reached: "
                f"this call may take {need.tokens:,}.",
                self.tokens.free_in(now, tpm, need.tokens),
            )

    def check_money(self, need: Need, periods: Periods, now: float) -> bool:
        """Return whether the call fits into the budgets now, or False if it may after running
        calls. Raise BudgetSpent if it does not, NotPriced if nobody knows.
        """
        fits = True
        for budget in (self.day, self.month):
            budget.roll(periods)
            if budget.cap is None:
                continue
            if not self.is_loaded:
                raise self.marked(
                    BudgetUnknown(
                        f"What {self.who} has spent is not known yet: the store cannot be read.",
                        retry_after_s=BUSY_S,
                    )
                )
            if need.amount is None:
                raise self.marked(
                    NotPriced(
                        f"The price of `{need.model}` is unknown, so the budget of {self.who} "
                        "cannot limit it.",
                        model=need.model,
                    )
                )
            if not budget.may_fit(need.amount):
                raise self.spent(budget, need.amount, now)
            fits = fits and budget.fits(need.amount)
        return fits

    def spent(self, budget: MoneyLimit, amount: int, now: float) -> LimitReached:
        cap, spent, more = (format_usd(usd(a)) for a in (budget.cap, budget.spent, amount))
        return self.marked(
            BudgetSpent(
                f"The budget of {self.who} for this {budget.period} does not allow this call: "
                f"{spent} of {cap} USD are spent, and it may cost {more}.",
                retry_after_s=max(1.0, math.ceil(budget.ends - now)),
            )
        )

    def refusal(self, what: str, retry_after_s: float) -> LimitReached:
        after_s = max(1.0, math.ceil(retry_after_s))
        return self.marked(RateLimited(what, retry_after_s=after_s))

    def marked(self, error: LimitReached) -> LimitReached:
        """Add to an error what is done instead, and what is left."""
        error.another_may_help = self.allowance.at_limit == "cheaper"
        error.may_quote = self.allowance.at_limit != "refuse"
        error.headers = rate_headers((self,))
        return error


class Hold:
    """What a call has reserved with its meters, until it is settled."""

    __slots__ = ("_amount", "_budgets", "_tokens", "_used", "_wake", "id")

    def __init__(
        self, id_: str, meters: Sequence[Meter], need: Need, wake: Callable[[], None]
    ) -> None:
        self.id, self._wake = id_, wake
        self._amount, self._tokens = need.amount or 0, need.tokens
        now = time.monotonic()
        self._used: list[tuple[SlidingWindow, UsedAmount]] = [
            (meter.tokens, meter.tokens.add(now, need.tokens))
            for meter in meters
            if meter.allowance.tpm is not None
        ]
        self._budgets = [b for m in meters if m.limits_money for b in (m.day, m.month)]
        for budget in self._budgets:
            budget.held += self._amount

    def settle(self, tokens: int, cost: int | None) -> None:
        """Replace what was reserved by what the call took; an unknown cost is what it may be at
        most.
        """
        now, periods = time.monotonic(), periods_now()
        for window, entry in self._used:
            window.correct(entry, tokens - self._tokens, now)
        for budget in self._budgets:
            budget.roll(periods)
            budget.held -= self._amount
            budget.spent += self._amount if cost is None else cost
        self._used, self._budgets = [], []
        self._wake()

    def release(self) -> None:
        """Give back all of it: the call was not made."""
        self.settle(0, 0)


_periods = Periods(day=0.0, day_ends=0.0, month=0.0, month_ends=0.0)


def periods_now() -> Periods:
    """Return the day and the month, computed once a day."""
    global _periods
    now = time.time()
    if not _periods.day <= now < _periods.day_ends:
        _periods = periods_at(now)
    return _periods


class Meters:
    """All meters, by scope and name, shared by all versions of the settings."""

    def __init__(self) -> None:
        self.all: dict[tuple[Scope, str], Meter] = {}
        self._waiting = deque[asyncio.Future[None]]()

    def meter(self, scope: Scope, name: str) -> Meter:
        return self.all.setdefault((scope, name), Meter(scope, name))

    async def hold(self, id_: str, meters: Sequence[Meter], need: Need, within_s: float) -> Hold:
        """Reserve what a call may take. Raises LimitReached.

        A call that fits only if others take less than they reserved waits until they have settled.
        """
        until = time.monotonic() + min(within_s, WAIT_S)
        while True:
            now, today, periods = time.monotonic(), time.time(), periods_now()
            for meter in meters:
                meter.check_tokens(need, now)
            waits_for = [m for m in meters if not m.check_money(need, periods, today)]
            if not waits_for:
                return Hold(id_, meters, need, self._wake)
            if now >= until:
                budgets = (waits_for[0].day, waits_for[0].month)
                full = next(b for b in budgets if not b.fits(need.amount or 0))
                raise waits_for[0].spent(full, need.amount or 0, today)
            await self._settled(until - now)

    async def _settled(self, within_s: float) -> None:
        """Wait until a call is settled."""
        waiting = asyncio.get_running_loop().create_future()
        self._waiting.append(waiting)
        await asyncio.wait([waiting], timeout=within_s)

    def _wake(self) -> None:
        while self._waiting:
            waiting = self._waiting.popleft()
            if not waiting.done():
                waiting.set_result(None)


def rate_headers(meters: Iterable[Meter]) -> Headers:
    """Return `x-ratelimit-*` headers as OpenAI sends them, of the meter with the least left."""
    now, found = time.monotonic(), list[tuple[bytes, bytes]]()
    for kind in ("requests", "tokens"):
        rows = []
        for meter in meters:
            window = meter.requests if kind == "requests" else meter.tokens
            limit = meter.allowance.rpm if kind == "requests" else meter.allowance.tpm
            if limit is not None:
                rows.append((max(0, limit - window.used(now)), limit, window.empty_in(now)))
        if rows:
            left, limit, reset_s = min(rows)
            found += [
                (f"x-ratelimit-limit-{kind}".encode(), b"%d" % limit),
                (f"x-ratelimit-remaining-{kind}".encode(), b"%d" % left),
                (f"x-ratelimit-reset-{kind}".encode(), duration(reset_s)),
            ]
    return tuple(found)


def duration(seconds: float) -> bytes:
    """Return a time as OpenAI writes it: `17ms`, `1.2s`, `6m0s`."""
    if seconds < 1:
        return b"%dms" % math.ceil(seconds * 1000)
    if seconds < 60:
        return f"{math.ceil(seconds * 10) / 10:g}s".encode()
    return b"%dm%ds" % divmod(math.ceil(seconds), 60)
