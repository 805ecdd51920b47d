"""Stage 1, admission: check the key and what it may call, and limit what it may use.

`enter` lets an answer in and returns its grant; the grant reserves what each call of a model may
take, and gives back what the call did not take.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from slipway.admission.budgets import Period
from slipway.admission.keys import (
    ANYBODY,
    OPERATOR,
    KnownKeys,
    check_call,
    may_call,
    owner_of,
)
from slipway.admission.limits import (
    Headers,
    Hold,
    Meter,
    Meters,
    Need,
    Scope,
    periods_now,
    rate_headers,
    rate_lines,
)
from slipway.admission.shared import SharedLimits
from slipway.admission.windows import UsedAmount
from slipway.errors import Overloaded
from slipway.keys import KeyTable
from slipway.settings import Allowance, KeySettings
from slipway.types import Asker, Record

__all__ = [
    "ANYBODY",
    "OPERATOR",
    "Admission",
    "BudgetState",
    "Grant",
    "Hold",
    "InFlight",
    "LimitState",
    "Meters",
    "Need",
    "SharedLimits",
    "load_spent",
    "owner_of",
]
KEPT = 10_000  # askers whose meters are remembered; people who sign in may be many


class InFlight:
    """The number of answers in progress, shared by all versions of the settings; `began` counts
    all that came, also those that were refused.
    """

    def __init__(self) -> None:
        self.count = self.began = 0


class BudgetState(Record, frozen=True, kw_only=True):
    """How a budget is now; amounts are in picodollars, `ends` in seconds since the epoch."""

    who: Scope
    period: Period
    cap: int
    spent: int
    held: int
    ends: float


class LimitState(Record, frozen=True, kw_only=True):
    """What a key, tenant or app has used of its limits now; a limit that is not set is None.

    `requests` and `tokens` are those of the last minute, `answers` those in progress.
    """

    scope: Scope
    name: str
    answers: int
    most_answers: int | None
    requests: int
    rpm: int | None
    tokens: int
    tpm: int | None
    budgets: tuple[BudgetState, ...]


class Grant:
    """An answer that was let in, until it ends; `meters` count what it uses.

    If `is_asked`, other servers have to agree before the answer begins.
    """

    __slots__ = ("_admission", "_entries", "_shared", "limits_calls", "limits_money", "meters")

    def __init__(
        self, admission: "Admission", meters: Sequence[Meter], entries: Sequence[UsedAmount | None]
    ) -> None:
        self._admission, self.meters, self._entries = admission, meters, entries
        self._shared = admission.shared if meters else None
        self.limits_calls = self.limits_money = False
        for meter in meters:
            if meter.limits_calls:
                self.limits_calls = True
                self.limits_money = self.limits_money or meter.limits_money

    def try_hold(self, need: Need) -> Hold | None:
        """Reserve what a call may take; None if it does not fit now, or others have to agree."""
        if self._shared is not None:
            return None
        return self._admission.meters.try_hold(self.meters, need)

    async def hold(self, need: Need, within_s: float) -> Hold:
        """Reserve what a call may take, perhaps after waiting. Raises LimitReached."""
        if self._shared is not None:
            return await self._shared.hold(self.meters, need, within_s)
        return await self._admission.meters.hold(self.meters, need, within_s)

    @property
    def is_asked(self) -> bool:
        return self._shared is not None

    async def agree(self) -> None:
        """Let the other servers agree that the answer begins. Raises RateLimited."""
        if self._shared is not None:
            await self._shared.enter(self.meters, self._entries)

    def spend_late(self, asker: Asker, app: str, cost: int, *, is_settled: bool) -> None:
        """Count the cost of a call in the budgets that were made or changed while it ran.

        If `is_settled`, the meters of this grant have it already.
        """
        admission, found = self._admission, list[Meter]()
        scopes: tuple[tuple[Scope, str], ...] = (
            *(("key", asker.owner), ("tenant", asker.tenant), ("app", app)),
        )
        for scope in scopes:
            meter = admission.meters.late.get(scope)
            if meter is not None and not (is_settled and meter in self.meters):
                meter.settle(0, cost, periods_now())
                found.append(meter)
        if found and admission.shared is not None:
            admission.shared.touch(found)

    @property
    def has_late(self) -> bool:
        """Return whether limits have changed since the start."""
        return bool(self._admission.meters.late)

    def rate_lines(self) -> bytes:
        """Return the lines of the `x-ratelimit-*` headers; empty if no limit of them is set."""
        return rate_lines(self.meters) if self.meters else b""

    def leave(self) -> None:
        """Count an answer that has ended."""
        self._admission.in_flight -= 1
        self._admission.in_flight_total.count -= 1
        for meter in self.meters:
            meter.answers -= 1
        if self._shared is not None:
            self._shared.touch(self.meters)


class Admission(KnownKeys):
    """The keys and limits of one version of the settings."""

    def __init__(
        self,
        keys: Iterable[KeySettings],
        limit: int,
        operator: str | None = None,
        in_flight_total: InFlight | None = None,
        *,
        login: bool = False,
        table: KeyTable | None = None,
        key_required: bool = False,
        limits: Mapping[tuple[Scope, str], Allowance] | None = None,
        meters: Meters | None = None,
        shared: SharedLimits | None = None,
    ) -> None:
        """Prepare the look-up tables.

        `limit` is the largest number of answers in progress, `limits` are those of keys (by owner),
        tenants and apps. Pass `in_flight_total` and `meters` of the previous settings to keep
        counting. With `shared`, limits hold for several servers. The rest is explained in
        `KnownKeys`.
        """
        self.meters = meters or Meters()
        self._limits_of_settings = dict(limits or {})
        self._limited = self._limits_of_settings
        self._found: dict[tuple[str, str, str], tuple[Meter, ...]] = {}
        self._in_force = False
        super().__init__(keys, operator, login=login, table=table, key_required=key_required)
        self.limit = limit
        self.in_flight_total = in_flight_total or InFlight()
        self.in_flight = 0  # answers in progress that began with these settings
        self.shared = shared

    def _merge(self) -> None:
        """Take over the keys made at run time and their limits; those of the settings come first."""
        super()._merge()
        before = self._limited
        of_keys = {("key", owner): limits for owner, limits in self.table.limits.items()}
        self._limited = {**of_keys, **self._limits_of_settings}  # type: ignore[dict-item]
        if self._limited == before:
            return
        self._found = {}
        for scope in {*before, *self._limited} if self._in_force else ():
            limits = self._limited.get(scope, Allowance())
            if limits != before.get(scope):
                self._change(self.meters.meter(*scope), limits)

    def _change(self, meter: Meter, limits: Allowance) -> None:
        """Change the limits of a meter, which counts from now on whatever is spent here."""
        if limits != meter.allowance:
            self.meters.late[meter.scope, meter.name] = meter
            if meter.limits_money and not limits.has_money:
                meter.is_loaded = False  # other workers may answer this key now
            meter.set_limits(limits)
            self.meters.wake()  # calls that wait may fit now

    def use_limits(self) -> None:
        """Set the limits of the meters; call it when these settings come into force."""
        self._in_force = True
        for scope in {*self.meters.all, *self._limited}:
            self._change(self.meters.meter(*scope), self._limited.get(scope, Allowance()))

    may_call = staticmethod(may_call)
    check_call = staticmethod(check_call)

    def enter(self, asker: Asker, app: str) -> Grant:
        """Let an answer in. Raises Overloaded or RateLimited."""
        self.in_flight_total.began += 1
        if self.in_flight_total.count >= self.limit:
            raise Overloaded(
                f"The limit of {self.limit} answers at a time is reached.", retry_after_s=1.0
            )
        meters = self.meters_of(asker, app) if self._limited else ()
        entries: list[UsedAmount | None] = []
        if meters:
            now = time.monotonic()
            for meter in meters:
                meter.check_answer(now)
            for meter in meters:
                meter.answers += 1
                entries.append(meter.requests.add(now, 1) if meter.rpm is not None else None)
        self.in_flight_total.count += 1
        self.in_flight += 1
        return Grant(self, meters, entries)

    def for_calls(self, asker: Asker, app: str) -> Grant:
        """Return a grant for calls in the background, which are no answer; nobody leaves it."""
        return Grant(self, self.meters_of(asker, app) if self._limited else (), ())

    def limits_asker(self, asker: Asker) -> bool:
        """Return whether the asker's key or tenant has limits."""
        return not asker.everything and self.limits_owner(asker.owner, asker.tenant)

    @property
    def has_limits(self) -> bool:
        """Return whether any key, tenant or app has limits."""
        return bool(self._limited)

    def limits_owner(self, owner: str, tenant: str) -> bool:
        """Return whether a key or its tenant has limits."""
        return ("key", owner) in self._limited or ("tenant", tenant) in self._limited

    def spend_elsewhere(self, owner: str, tenant: str, cost: int, at: float) -> None:
        """Count what a call cost that ended in another worker, after the ledger was read."""
        scopes: tuple[tuple[Scope, str], ...] = (("key", owner), ("tenant", tenant))
        for scope in scopes:
            if at >= self.meters.read_until.get(scope, math.inf):
                self.meters.meter(*scope).settle(0, cost, periods_now())

    def meters_of(self, asker: Asker, app: str) -> tuple[Meter, ...]:
        """Return the meters of those limits that apply to this question."""
        key = (asker.owner, asker.tenant, app)
        found = self._found.get(key)
        if found is None:
            scopes: tuple[tuple[Scope, str], ...] = (
                *(("key", asker.owner), ("tenant", asker.tenant), ("app", app)),
            )
            found = tuple(
                self.meters.meter(*scope)
                for scope in scopes
                if scope in self._limited and not asker.everything
            )
            if len(self._found) >= KEPT:
                self._found.clear()
            self._found[key] = found
        return found

    def headers(self, asker: Asker, app: str) -> Headers:
        """Return the `x-ratelimit-*` headers of a question; none if no limit of it is set."""
        return rate_headers(self.meters_of(asker, app)) if self._limited else ()

    async def hear(self, asker: Asker) -> None:
        """Hear what other servers use of the limits of a key and its tenant."""
        if self.shared is not None and self.limits_asker(asker):
            meters = [meter for meter in self.meters_of(asker, "") if meter.scope != "app"]
            await self.shared.refresh(meters)

    def budgets(self, asker: Asker) -> list[BudgetState]:
        """Return the budgets of a key and its tenant."""
        scopes: tuple[tuple[Scope, str], ...] = (("key", asker.owner), ("tenant", asker.tenant))
        meters = [self.meters.meter(*scope) for scope in scopes if scope in self._limited]
        return [budget for meter in meters for budget in budgets_of(meter)]

    def limits(self) -> list[LimitState]:
        """Return the limits of all keys, tenants and apps that have any."""
        now, found = time.monotonic(), list[LimitState]()
        for scope, name in self._limited:
            meter = self.meters.meter(scope, name)
            found.append(
                LimitState(
                    scope=scope,
                    name=name,
                    answers=meter.answers + meter.others.answers,
                    most_answers=meter.most_answers,
                    requests=meter.requests.used(now) + meter.others.requests,
                    rpm=meter.rpm,
                    tokens=meter.tokens.used(now) + meter.others.tokens,
                    tpm=meter.tpm,
                    budgets=tuple(budgets_of(meter)),
                )
            )
        return found

    def used_shares(self) -> list[tuple[Scope, str, Period, float, int]]:
        """Return (scope, name, period, share that is spent, what is left) of all budgets that are
        loaded, the largest share first.
        """
        periods, found = periods_now(), list[tuple[Scope, str, Period, float, int]]()
        for scope in self._limited:
            meter = self.meters.meter(*scope)
            for budget in (meter.day, meter.month):
                if budget.cap is not None and meter.is_loaded:
                    budget.roll(periods)
                    share = budget.spent / budget.cap if budget.cap else 1.0
                    left = max(0, budget.cap - budget.spent)
                    found.append((*scope, budget.period, share, left))
        return sorted(found, key=lambda each: -each[3])

    @property
    def is_loaded(self) -> bool:
        """Return whether all budgets know what was spent before."""
        return not self.unloaded()

    def unloaded(self) -> list[Meter]:
        """Return the meters with a budget that does not know yet what was spent before."""
        found = [self.meters.meter(*s) for s, each in self._limited.items() if each.has_money]
        return [meter for meter in found if not meter.is_loaded]


Spent = Callable[[Scope, float, float | None], Mapping[str, int]]


def load_spent(
    meters: Meters, new: Iterable[Meter], spent: Spent, *, is_running: bool = True
) -> None:
    """Begin budgets with what the ledger has: `spent(scope, since, until)` gives it by name.

    If answers are in progress (`is_running`), what they spend meanwhile is counted in memory, and
    what was spent before is read.
    """
    new = list(new)
    if is_running:
        meters.late |= {(meter.scope, meter.name): meter for meter in new}
    while True:
        periods = periods_now()
        for meter in new:
            meter.roll(periods)
        counted = [(meter.day.spent, meter.month.spent) for meter in new]
        until = time.time() if is_running else None
        of_days, of_months = (
            {scope: spent(scope, since, until) for scope in {meter.scope for meter in new}}
            for since in (periods.day, periods.month)
        )
        if periods_now() is periods:
            break
    if until is not None:
        meters.read_until |= {(meter.scope, meter.name): until for meter in new}
    for meter, (in_day, in_month) in zip(new, counted, strict=True):
        meter.day.spent += of_days[meter.scope].get(meter.name, 0) - in_day
        meter.month.spent += of_months[meter.scope].get(meter.name, 0) - in_month
        meter.is_loaded = True


def budgets_of(meter: Meter) -> Iterator[BudgetState]:
    """Yield the budgets of a meter that are limited."""
    periods = periods_now()
    for budget in (meter.day, meter.month):
        if budget.cap is not None:
            budget.roll(periods)
            yield BudgetState(
                who=meter.scope,
                period=budget.period,
                cap=budget.cap,
                spent=budget.spent,
                held=meter.held + meter.others.held,
                ends=budget.ends,
            )
