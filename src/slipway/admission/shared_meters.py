"""What a server knows of the limits that it shares with others, as numbers for Redis."""

import asyncio
import time
from collections.abc import Sequence
from typing import Any, Literal

from slipway.admission.budgets import Periods
from slipway.admission.limits import BUSY_S, Meter, Need, OthersUse
from slipway.admission.windows import MINUTE_S
from slipway.errors import BudgetSpent, LimitReached

PREFIX = "slipway:limits"
ACTIVE_S = 900.0  # after so long without use a server gives its share of a limit back
BACK_S = 5.0  # when to come back if the share is used up
ALONE = "The servers cannot ask each other now, and this one"
EXACT = 2**53
NO_LIMIT = -1
Result = Literal["granted", "full", "held_back", "unknown"]
REFUSALS: tuple[Result, ...] = ("full", "held_back", "unknown")
REQUESTS, TOKENS, ANSWERS, DAY, MONTH = range(5)  # the limits of a meter
Numbers = list[int]  # requests, tokens, answers, USD of the day, USD of the month


class Undecided:
    """A question or a call that waits for a decision. It is counted here already."""

    __slots__ = ("answer", "limit", "meter", "need", "of")

    def __init__(self, of: "Sequence[SharedMeter]", need: Numbers) -> None:
        """`need` has requests, tokens, answers, money."""
        self.of, self.need = of, need
        self.answer: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        # which is full, and which of its limits
        self.meter, self.limit = of[0].meter, of[0].first_limit(need)

    def decide(self, result: Result) -> None:
        if not self.answer.done():
            self.answer.set_result(result)


class SharedMeter:
    """What this server knows of a meter that others count, too."""

    def __init__(self, meter: Meter) -> None:
        self.meter = meter
        self.key = f"{PREFIX}:{meter.scope}:{meter.name}"
        self.used_at = time.monotonic()
        self.has_share = False  # whether something is set aside for us, or may be soon
        self.is_joined = False  # whether Redis has our numbers
        self.allowed: Numbers | None = None  # how much we may use without asking
        self.caps: Numbers = self.limits()  # that `allowed` was given for
        self.records: dict[str, list[int]] = {}  # of the others, as last heard
        self.base: dict[str, list[int]] = {}  # by store: what its ledger has beside the servers'
        self.ledger: Numbers | None = None  # what the ledger has, until Redis knows it
        self._others = [0, 0]  # what of the budgets' `spent` is not ours: day, month
        self._ends = (0.0, 0.0)
        self._has_money = False

    def limits(self) -> Numbers:
        meter = self.meter
        caps = (meter.rpm, meter.tpm, meter.most_answers, meter.day.cap, meter.month.cap)
        return [NO_LIMIT if cap is None else cap for cap in caps]

    def first_limit(self, need: Numbers) -> int:
        """Return which limit something meets first."""
        caps = enumerate(self.limits())
        return next((i for i, cap in caps if cap != NO_LIMIT and need[min(i, 3)]), 0)

    def begin_money(self) -> None:
        """Take what the budgets were loaded with for what was spent before."""
        meter = self.meter
        if self._has_money and not meter.is_loaded:
            self._has_money = False  # its budget was removed; another one begins with the ledger
        if not self._has_money and meter.is_loaded:
            self._has_money = True
            self.allowed = None  # it did not count this
            self._others = [meter.day.spent, meter.month.spent]
            self.ledger = list(self._others)
            self._ends = (meter.day.ends, meter.month.ends)

    def own(self, now: float, periods: Periods) -> Numbers:
        """Return what this server uses: requests, tokens, answers, held, spent in day and month."""
        meter = self.meter
        self.begin_money()
        meter.day.roll(periods)
        meter.month.roll(periods)
        for i, budget in enumerate((meter.day, meter.month)):
            if budget.ends != self._ends[i]:
                self._others[i] = 0
        self._ends = (meter.day.ends, meter.month.ends)
        return [
            meter.requests.used(now),
            meter.tokens.used(now),
            meter.answers,
            meter.held,
            meter.day.spent - self._others[0],
            meter.month.spent - self._others[1],
        ]

    def heard(self, others: Numbers) -> bool:
        """Take over what the others use; return whether there may be more left than before."""
        requests, tokens, answers, held, day, month = others
        meter, before = self.meter, self.meter.others
        meter.others = OthersUse(requests=requests, tokens=tokens, answers=answers, held=held)
        if self._has_money and self._ends == (meter.day.ends, meter.month.ends):
            meter.day.spent += day - self._others[0]
            meter.month.spent += month - self._others[1]
            self._others = [day, month]
        return held < before.held or answers < before.answers or tokens < before.tokens

    def uses_any(self) -> bool:
        """Return whether something is used of this meter here, beside money that is spent."""
        meter = self.meter
        return bool(meter.answers or meter.held or meter.requests.total or meter.tokens.total)

    def levels(self, now: float, periods: Periods) -> Numbers:
        """Return what this server uses of each limit."""
        return levels(self.own(now, periods))

    def usable(self, servers: int) -> Numbers:
        """Return what this server may use without asking.

        If it has not heard what others use, no money: they may have spent all of it. What a limit
        was lowered by, each server takes from its share: the others may use all of theirs.
        """
        if self.allowed is not None:
            return [
                allowed if NO_LIMIT in (before, cap) else allowed - max(0, before - cap)
                for allowed, before, cap in zip(self.allowed, self.caps, self.limits(), strict=True)
            ]
        return [max(0, cap) // servers for cap in self.limits()[:3]] + [0, 0]


def levels(own: Numbers) -> Numbers:
    """Return what is used of each limit: what is held counts for the day and the month."""
    return [*own[:3], own[3] + own[4], own[3] + own[5]]


def entry_of(
    each: SharedMeter, undecided: Sequence[Undecided], now: float, periods: Periods
) -> dict[str, Any]:
    """Return our numbers of a meter, without what is not decided yet."""
    own = each.own(now, periods)
    counted = (each.meter.rpm is not None, each.meter.tpm is not None, True, True)
    for asked in undecided:
        for i, amount in enumerate(asked.need):
            own[i] -= amount * counted[i]
    entry: dict[str, Any] = {
        "caps": rounded(each.limits()),
        "own": rounded(own),
        "joined": each.is_joined,
        "share": now - each.used_at < ACTIVE_S,
    }
    if each.allowed is not None:
        entry["allowed"] = rounded(each.usable(1))
    if each.ledger is not None:
        entry["ledger"] = rounded(each.ledger)
    if not each.is_joined and each.records:
        entry["claims"] = {name: rounded(record) for name, record in each.records.items()}
    if not each.is_joined and each.base:
        entry["base"] = {name: rounded(base) for name, base in each.base.items()}
    return entry


def may_fit(meter: Meter, need: Need) -> bool:
    """Return whether a call may fit beside what others held when they were last heard."""
    after = meter.held + meter.others.held + (need.amount or 0)
    lefts = (meter.day.left(), meter.month.left())
    return all(left is None or after <= left for left in lefts)


def full(asked: Undecided, now: float) -> LimitReached:
    """Return the refusal of an answer that may not begin."""
    meter = asked.meter
    if asked.limit == ANSWERS:
        return meter.too_many_answers()
    return meter.too_many_requests(meter.requests.free_in(now, meter.rpm or 1, 1) or MINUTE_S)


def gave_up(
    meters: Sequence[Meter], asked: Undecided | None, need: Need, now: float
) -> LimitReached:
    """Return the refusal of a call that has waited long enough."""
    if asked is not None and asked.limit <= TOKENS:
        return asked.meter.too_many_tokens(need, free_in(asked.meter, now, need.tokens))
    if asked is not None:
        budget = asked.meter.day if asked.limit == DAY else asked.meter.month
        return asked.meter.spent(budget, need.amount or 0)
    limited = [meter for meter in meters if meter.limits_money]
    meter = next((each for each in limited if not may_fit(each, need)), limited[0])
    return meter.spent(meter.full(need.amount or 0), need.amount or 0)


def free_in(meter: Meter, now: float, tokens: int) -> float:
    return meter.tokens.free_in(now, meter.tpm or 1, tokens) or MINUTE_S


def share_used(each: SharedMeter, limit: int) -> LimitReached:
    """Return the refusal while Redis is away and this server's share is used up."""
    meter = each.meter
    if each.allowed is None and limit > ANSWERS:
        what = f"{ALONE} does not know yet what the others have spent of the budget of {meter.who}."
        return meter.marked(BudgetSpent(what, retry_after_s=BACK_S))
    why = f"{ALONE} has used its share of the"
    if limit == ANSWERS:
        return meter.refusal(f"{why} answers at a time of {meter.who}.", BUSY_S)
    if limit <= TOKENS:
        unit = ("answers", "tokens")[limit]
        return meter.refusal(f"{why} {unit} a minute of {meter.who}.", BACK_S)
    period = "day" if limit == DAY else "month"
    what = f"{why} budget of {meter.who} for this {period}."
    return meter.marked(BudgetSpent(what, retry_after_s=BACK_S))


def rounded(numbers: Sequence[int]) -> list[int | float]:
    """Return numbers as MessagePack can hold them."""
    return [number if abs(number) < EXACT else float(number) for number in numbers]


def whole(numbers: Any) -> list[int]:
    return [int(number) for number in as_list(numbers)]


def as_list(value: Any) -> list[Any]:
    """Return a table of Lua as a list: an empty one may come as a map."""
    return list(value) if value else []


def text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
