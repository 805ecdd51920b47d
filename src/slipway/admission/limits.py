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
from slipway.admission.windows import MINUTE_S, SlidingWindow, UsedAmount
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


class Need(Record, frozen=True, kw_only=True, gc=False):
    """What a call may take at most. `amount` is in picodollars; None if the price is unknown,
    perhaps only that of a `part`, such as `audio of `.
    """

    model: str
    tokens: int
    amount: int | None
    part: str = ""


class OthersUse(Record, frozen=True, kw_only=True):
    """What other servers use of the same limits; what they have spent is in the budgets."""

    requests: int = 0
    tokens: int = 0
    answers: int = 0
    held: int = 0


NOTHING = OthersUse()


class Meter:
    """What one key, tenant or app uses. It survives a reload of the settings.

    `held` is what running calls may cost at most, in picodollars; what is held when a day or month
    ends is settled in the next one, as the ledger books it.
    """

    __slots__ = (
        *("_periods", "allowance", "answers", "day", "held", "is_loaded", "limits_calls"),
        *("limits_money", "month", "most_answers", "name", "others", "requests", "rpm", "scope"),
        *("tokens", "tpm"),
    )

    def __init__(self, scope: Scope, name: str) -> None:
        self.scope: Scope = scope
        self.name = name
        self.answers = self.held = 0
        self.requests, self.tokens = SlidingWindow(), SlidingWindow()
        self.day, self.month = MoneyLimit("day"), MoneyLimit("month")
        self.is_loaded = False  # whether the budgets know what was spent before
        self.others = NOTHING  # what other servers use, as last heard
        self._periods: Periods | None = None  # of the budgets
        self.set_limits(Allowance())

    def set_limits(self, allowance: Allowance) -> None:
        self.allowance = allowance
        self.rpm, self.tpm, self.most_answers = allowance.rpm, allowance.tpm, allowance.answers
        self.day.cap = picodollars(allowance.usd_per_day)
        self.month.cap = picodollars(allowance.usd_per_month)
        self.limits_money = self.day.cap is not None or self.month.cap is not None
        self.limits_calls = self.limits_money or self.tpm is not None

    @property
    def who(self) -> str:
        return "this key" if self.scope == "key" else f"the {self.scope} `{self.name}`"

    def check_answer(self, now: float) -> None:
        """Raise RateLimited if no further answer may begin."""
        if self.most_answers is not None and self.answers >= self.most_answers:
            raise self.too_many_answers()
        if self.rpm is not None and self.requests.used(now) >= self.rpm:
            raise self.too_many_requests(self.requests.free_in(now, self.rpm, 1))

    def too_many_answers(self) -> LimitReached:
        what = f"{self.most_answers} answers of {self.who} are in progress, which is its limit."
        return self.refusal(what, BUSY_S)

    def too_many_requests(self, free_in_s: float) -> LimitReached:
        what = f"The limit of {self.rpm} answers a minute of {self.who} is reached."
        return self.refusal(what, free_in_s)

    def too_many_tokens(self, need: Need, free_in_s: float) -> LimitReached:
        return self.refusal(
            f"The limit of {self.tpm or 0:,} tokens a minute of {self.who} is reached: "
            f"this call may take {need.tokens:,}.",
            free_in_s,
        )

    def fits(self, need: Need, now: float, periods: Periods) -> bool:
        """Return whether a call fits now, whatever the calls take that are running."""
        tpm = self.tpm
        if (
            tpm is not None
            and self.tokens.used(now) + need.tokens > tpm
            and (need.tokens <= tpm or self.tokens.total)  # a call of any size fits a whole minute
        ):
            return False
        if not self.limits_money:
            return True
        if not self.is_loaded or need.amount is None:
            return False
        if periods is not self._periods:
            self.roll(periods)
        day, month = self.day, self.month
        after = self.held + need.amount
        return (day.cap is None or day.spent + after <= day.cap) and (
            month.cap is None or month.spent + after <= month.cap
        )

    def settle(self, held: int, cost: int, periods: Periods) -> None:
        """Replace an amount that is held by what the call cost."""
        if periods is not self._periods:
            self.roll(periods)
        self.held -= held
        self.day.spent += cost
        self.month.spent += cost

    def roll(self, periods: Periods) -> None:
        """Begin a new day and a new month if the last ones are over."""
        self.day.roll(periods)
        self.month.roll(periods)
        self._periods = periods

    def check(self, need: Need, now: float) -> None:
        """Raise LimitReached if a call does not fit, and would not fit either if all running calls
        took nothing. Tokens are not waited for.
        """
        tpm = self.tpm
        if tpm is not None and self.tokens.used(now) + min(need.tokens, tpm) > tpm:
            raise self.too_many_tokens(need, self.tokens.free_in(now, tpm, need.tokens))
        if not self.limits_money:
            return
        if not self.is_loaded:
            what = f"What {self.who} has spent is not known yet: the store cannot be read."
            raise self.marked(BudgetUnknown(what, retry_after_s=BUSY_S))
        if need.amount is None:
            what = f"The price of {need.part}`{need.model}` is unknown, so the budget of {self.who}"
            raise self.marked(NotPriced(f"{what} cannot limit it.", model=need.model))
        for budget in (self.day, self.month):
            left = budget.left()
            if left is not None and need.amount > left:
                raise self.spent(budget, need.amount)

    def full(self, amount: int) -> MoneyLimit:
        """Return the budget that a call does not fit into beside those that are running."""
        left = self.day.left()
        return self.day if left is not None and self.held + amount > left else self.month

    def spent(self, budget: MoneyLimit, amount: int) -> LimitReached:
        cap, spent, more = (format_usd(usd(a)) for a in (budget.cap, budget.spent, amount))
        return self.marked(
            BudgetSpent(
                f"The budget of {self.who} for this {budget.period} does not allow this call: "
                f"{spent} of {cap} USD are spent, and it may cost {more}.",
                retry_after_s=max(1.0, math.ceil(budget.ends - time.time())),
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

    __slots__ = ("_amount", "_entries", "_tokens", "_wake")

    def __init__(
        self, meters: Sequence[Meter], need: Need, now: float, wake: Callable[[], None]
    ) -> None:
        self._wake = wake
        self._amount, self._tokens = amount, tokens = need.amount or 0, need.tokens
        self._entries: list[tuple[Meter, UsedAmount | None]] = []
        for meter in meters:
            meter.held += amount
            entry = meter.tokens.add(now, tokens) if meter.tpm is not None else None
            self._entries.append((meter, entry))

    def settle(self, tokens: int, cost: int | None) -> None:
        """Replace what was reserved by what the call took; an unknown cost is what it may be at
        most.
        """
        self._replace(tokens, cost)
        self._wake()

    def release(self) -> None:
        """Give back all of it: the call was not made."""
        self.settle(0, 0)

    def undo(self) -> None:
        """Give back all of it before anybody knew of it: nobody who waits is woken."""
        self._replace(0, 0)

    def _replace(self, tokens: int, cost: int | None) -> None:
        periods, amount, more = periods_now(), self._amount, tokens - self._tokens
        cost = amount if cost is None else cost
        for meter, entry in self._entries:
            if entry is not None:
                meter.tokens.correct(entry, more)
            meter.settle(amount, cost, periods)
        self._entries = []


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
        # those whose limits have changed meanwhile: calls that began before them count, too
        self.late: dict[tuple[Scope, str], Meter] = {}
        self.read_until: dict[tuple[Scope, str], float] = {}  # what of the ledger they begin with
        self._waiting = deque[asyncio.Future[None]]()

    def meter(self, scope: Scope, name: str) -> Meter:
        return self.all.setdefault((scope, name), Meter(scope, name))

    def try_hold(
        self, meters: Sequence[Meter], need: Need, wake: Callable[[], None] | None = None
    ) -> Hold | None:
        """Reserve what a call may take; None if it does not fit now. `wake` is called when it is
        settled; if it is None, those who wait here are woken.
        """
        now, periods = time.monotonic(), periods_now()
        for meter in meters:
            if not meter.fits(need, now, periods):
                return None
        return Hold(meters, need, now, wake or self.wake)

    async def hold(self, meters: Sequence[Meter], need: Need, within_s: float) -> Hold:
        """Reserve what a call may take. Raises LimitReached.

        A call that fits only if others take less than they reserved waits until they have settled.
        """
        until = time.monotonic() + min(within_s, WAIT_S)
        while (hold := self.try_hold(meters, need)) is None:
            now, periods = time.monotonic(), periods_now()
            for meter in meters:
                meter.check(need, now)
            if now >= until:
                meter = next(each for each in meters if not each.fits(need, now, periods))
                raise meter.spent(meter.full(need.amount or 0), need.amount or 0)
            await self.settled(until - now)
        return hold

    async def settled(self, within_s: float) -> None:
        """Wait until a call is settled, or something else changes."""
        waiting = asyncio.get_running_loop().create_future()
        self._waiting.append(waiting)
        await asyncio.wait([waiting], timeout=within_s)

    def wake(self) -> None:
        """Let all calls that wait look again whether they fit."""
        while self._waiting:
            waiting = self._waiting.popleft()
            if not waiting.done():
                waiting.set_result(None)


REQUESTS, TOKENS = (
    b"x-ratelimit-limit-%b: %%d\r\nx-ratelimit-remaining-%b: %%d\r\nx-ratelimit-reset-%b: %%b\r\n"
    % (unit, unit, unit)
    for unit in (b"requests", b"tokens")
)


def rate_headers(meters: Iterable[Meter]) -> Headers:
    """Return what `rate_lines` does as (name, value) pairs."""
    lines = rate_lines(meters).split(b"\r\n")[:-1]
    return tuple((name, value) for name, _, value in (line.partition(b": ") for line in lines))


def rate_lines(meters: Iterable[Meter]) -> bytes:
    """Return the lines of the `x-ratelimit-*` headers as OpenAI sends them, of the meter with the
    least left; empty if neither answers nor tokens are limited.
    """
    now, lines = time.monotonic(), b""
    least_requests = least_tokens = 0
    requests: Meter | None = None
    tokens: Meter | None = None
    for meter in meters:
        if meter.rpm is not None:
            left = meter.rpm - meter.requests.used(now) - meter.others.requests
            if requests is None or left < least_requests:
                least_requests, requests = left, meter
        if meter.tpm is not None:
            left = meter.tpm - meter.tokens.used(now) - meter.others.tokens
            if tokens is None or left < least_tokens:
                least_tokens, tokens = left, meter
    if requests is not None:
        reset = duration(requests.requests.empty_in(now))
        lines = REQUESTS % (requests.rpm, max(0, least_requests), reset)
    if tokens is not None:
        reset = duration(tokens.tokens.empty_in(now))
        lines += TOKENS % (tokens.tpm, max(0, least_tokens), reset)
    return lines


def duration(seconds: float) -> bytes:
    """Return a time as OpenAI writes it: `17ms`, `1.2s`, `6m0s`."""
    if MINUTE_S < seconds <= MINUTE_S + 1:  # as always if something was used just now
        return b"1m1s"
    if seconds < 1:
        return b"%dms" % math.ceil(seconds * 1000)
    if seconds < 60:
        whole, tenth = divmod(math.ceil(seconds * 10), 10)
        return b"%d.%ds" % (whole, tenth) if tenth else b"%ds" % whole
    return b"%dm%ds" % divmod(math.ceil(seconds), 60)
