"""Limits that hold for several servers together, through Redis.

Each server publishes absolute numbers of what it uses, so that a message that is lost does no harm,
and one script (`shared.lua`) decides: one message at a time, with all questions and calls that wait
for a decision, and with what was settled since. With each reply a server hears how much more it may
use if it cannot ask (its share); Redis gives that to nobody else until the server has heard
otherwise. So servers that lose Redis keep to the limits together, and none of them waits for it.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import Sequence
from importlib.resources import files
from typing import Any, Literal

import msgspec

from slipway.admission.budgets import Periods
from slipway.admission.limits import (
    BUSY_S,
    WAIT_S,
    Hold,
    Meter,
    Meters,
    Need,
    OthersUse,
    periods_now,
)
from slipway.admission.windows import MINUTE_S, UsedAmount
from slipway.errors import BudgetSpent, LimitReached
from slipway.store.redis import SharedRedis

log = logging.getLogger("slipway")
PREFIX = "slipway:limits"
SCRIPT = files("slipway.admission").joinpath("shared.lua")
BEAT_S = 0.25  # between two messages if nobody asks: what others use is known so far back
IDLE_BEATS = 4  # so many times longer if no limit is in use
ACTIVE_S = 900.0  # after so long without use a server gives its share of a limit back
AWAY_S = 1.0  # without a reply for so long, nobody waits for Redis any more
ENTER_S = 3.0  # the longest wait for what is held back for other servers
AGAIN_S = 0.05  # between two questions about the same call, if nothing is heard meanwhile
BACK_S = 5.0  # when to come back if the share is used up
EXACT = 2**53
NO_LIMIT = -1
Result = Literal["granted", "full", "held_back", "unknown"]
REFUSALS: tuple[Result, ...] = ("full", "held_back", "unknown")
REQUESTS, TOKENS, ANSWERS, DAY, MONTH = range(5)  # the limits of a meter
encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder().decode
Numbers = list[int]  # requests, tokens, answers, USD of the day, USD of the month


class Undecided:
    """A question or a call that waits for a decision. It is counted here already."""

    __slots__ = ("answer", "limit", "meter", "need", "of")

    def __init__(self, of: "Sequence[SharedMeter]", need: Numbers) -> None:
        """`need` has requests, tokens, answers, money."""
        self.of, self.need = of, need
        self.answer: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self.meter, self.limit = of[0].meter, 0  # which is full, and which of its limits

    def decide(self, result: Result) -> None:
        if not self.answer.done():
            self.answer.set_result(result)


class SharedMeter:
    """What this server knows of a meter that others count, too."""

    def __init__(self, meter: Meter) -> None:
        self.meter = meter
        self.key = f"{PREFIX}:{meter.scope}:{meter.name}"
        self.used_at = time.monotonic()
        self.is_joined = False  # whether Redis has our numbers
        self.allowed: Numbers | None = None  # how much we may use without asking
        self.records: dict[str, list[int]] = {}  # of the others, as last heard
        self.base: list[int] | None = None  # what was spent before any of the servers here
        self.ledger: Numbers | None = None  # what the ledger has, until Redis knows it
        self._others = [0, 0]  # what of the budgets' `spent` is not ours: day, month
        self._ends = (0.0, 0.0)
        self._has_money = False

    def limits(self) -> Numbers:
        meter = self.meter
        caps = (meter.rpm, meter.tpm, meter.most_answers, meter.day.cap, meter.month.cap)
        return [NO_LIMIT if cap is None else cap for cap in caps]

    def begin_money(self) -> None:
        """Take what the budgets were loaded with for what was spent before."""
        meter = self.meter
        if not self._has_money and meter.limits_money and meter.is_loaded:
            self._has_money = True
            self._others = [meter.day.spent, meter.month.spent]
            self.ledger = list(self._others)
            self._ends = (meter.day.ends, meter.month.ends)

    def own(self, now: float, periods: Periods) -> Numbers:
        """Return what this server uses: requests, tokens, answers, held, spent in day and month."""
        meter = self.meter
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

    def levels(self, now: float, periods: Periods) -> Numbers:
        """Return what this server uses of each limit."""
        return levels(self.own(now, periods))

    def share(self, servers: int) -> Numbers:
        """Return what this server may use if it never heard of the others."""
        before = [0, 0, 0, *self._others]
        return [max(0, c - b) // servers for c, b in zip(self.limits(), before, strict=True)]


def levels(own: Numbers) -> Numbers:
    """Return what is used of each limit: what is held counts for the day and the month."""
    return [*own[:3], own[3] + own[4], own[3] + own[5]]


class SharedLimits:
    """Decides with Redis what this server lets through; call `start` on the loop."""

    def __init__(self, redis: SharedRedis, meters: Meters) -> None:
        self.redis, self._meters = redis, meters
        self.servers = 1  # that were alive when Redis last answered
        self.is_together: bool | None = None  # whether Redis answers; None until the start
        self._me = secrets.token_hex(6)
        self._text = SCRIPT.read_text(encoding="utf-8")
        self._sha = ""
        self._seq = 0
        self._known: dict[Meter, SharedMeter] = {}
        self._changed = set[SharedMeter]()
        self._waiting = list[Undecided]()
        self._open = set[Undecided]()  # counted here, and not decided yet
        self._sender: asyncio.Task[None] | None = None
        self._beater: asyncio.Task[None] | None = None
        self._in_doubt = False  # the last message was not answered in time
        self._heard_at = time.monotonic()
        redis.on_up.append(self._on_up)

    # asked

    async def enter(self, meters: Sequence[Meter], entries: Sequence[UsedAmount | None]) -> None:
        """Let an answer begin that is counted here already. Raises RateLimited."""
        of = [self._meter(meter) for meter in meters if limits_entry(meter)]
        if not of:
            return
        asked = Undecided(of, [1, 0, 1, 0])
        self._open.add(asked)
        try:
            await self._enter(asked)
        except BaseException:
            now = time.monotonic()
            for meter, entry in zip(meters, entries, strict=True):
                if entry is not None:
                    meter.requests.correct(entry, -1, now)
            raise
        finally:
            self._open.discard(asked)

    async def _enter(self, asked: Undecided) -> None:
        until = time.monotonic() + ENTER_S
        while True:
            result = await self._ask(asked)
            if result == "granted":
                return
            now = time.monotonic()
            if result == "full":
                raise full(asked, now)
            if now >= until or (result == "unknown" and self.is_away):
                raise share_used(asked.meter, asked.limit)
            await self._meters.settled(AGAIN_S)
            asked.answer = asyncio.get_running_loop().create_future()

    async def hold(self, meters: Sequence[Meter], need: Need, within_s: float) -> Hold:
        """Reserve what a call may take. Raises LimitReached.

        As without Redis, a call that fits only if others take less than they reserved waits.
        """
        of = [self._meter(meter) for meter in meters if meter.limits_calls]
        until = time.monotonic() + min(within_s, WAIT_S)
        while True:
            result, asked, hold = await self._try_hold(meters, of, need)
            if hold is not None:
                return hold
            now, periods = time.monotonic(), periods_now()
            for meter in meters:
                meter.check(need, now)
            if asked is not None:
                self._check_result(result, asked, need, now)
            if now >= until:
                meter = next((m for m in meters if not m.fits(need, now, periods)), meters[0])
                raise meter.spent(meter.full(need.amount or 0), need.amount or 0)
            pause_s = 10 * AGAIN_S if result == "full" else AGAIN_S
            await self._meters.settled(min(until - now, pause_s))

    def _check_result(self, result: Result, asked: Undecided, need: Need, now: float) -> None:
        """Raise LimitReached if waiting does not help. Tokens are not waited for."""
        meter = asked.meter
        if result == "full" and asked.limit == TOKENS:
            raise meter.too_many_tokens(need, free_in(meter, now, need.tokens))
        if result == "unknown" and self.is_away and not self._fits_after_others(asked):
            raise share_used(meter, asked.limit)

    async def _try_hold(
        self, meters: Sequence[Meter], of: "Sequence[SharedMeter]", need: Need
    ) -> tuple[Result, Undecided | None, Hold | None]:
        def settled() -> None:
            self._changed.update(of)
            self._meters.wake()
            self._send_soon()

        if self.is_together and not all(may_fit(each.meter, need) for each in of):
            return "full", None, None
        hold = self._meters.try_hold(meters, need, settled)
        if hold is None:
            return "full", None, None
        asked = Undecided(of, [0, need.tokens, 0, need.amount or 0])
        self._open.add(asked)
        result: Result = "unknown"
        try:
            result = await self._ask(asked)
        finally:
            self._open.discard(asked)
            if result != "granted":
                hold.undo()
        return result, asked, hold if result == "granted" else None

    async def _ask(self, asked: Undecided) -> Result:
        """Return what Redis decides; if it does not answer in time, what our share allows."""
        result: Result = "unknown"
        if self._may_ask():
            self._waiting.append(asked)
            self._send_soon()
            result = await asked.answer
        if result == "unknown" and self._share_allows(asked):
            result = "granted"
        return result

    def _may_ask(self) -> bool:
        return self.redis.state == "up" and not self._in_doubt and not self.redis.is_full

    def _share_allows(self, asked: Undecided) -> bool:
        """Return whether something that is counted already is within this server's share."""
        now, periods = time.monotonic(), periods_now()
        for each in asked.of:
            caps, own = each.limits(), each.levels(now, periods)
            own[1] -= max(0, asked.need[1] - caps[1])  # a call of any size fits into a whole minute
            allowed = each.allowed or each.share(max(2, self.servers))
            for limit, cap in enumerate(caps):
                wanted = asked.need[min(limit, 3)]
                if cap != NO_LIMIT and wanted and own[limit] > allowed[limit]:
                    asked.meter, asked.limit = each.meter, limit
                    return False
        return True

    def _fits_after_others(self, asked: Undecided) -> bool:
        """Return whether a call fits into the share once the calls that run here are settled."""
        each = self._meter(asked.meter)
        if asked.limit <= TOKENS or not each.meter.held:
            return False
        own = each.own(time.monotonic(), periods_now())
        allowed = each.allowed or each.share(max(2, self.servers))
        return own[asked.limit + 1] + asked.need[3] <= allowed[asked.limit]

    def touch(self, meters: Sequence[Meter]) -> None:
        """Tell the others soon that something has changed."""
        self._changed.update(self._known[meter] for meter in meters if meter in self._known)
        self._send_soon()

    @property
    def is_away(self) -> bool:
        """Return whether Redis has not answered for so long that nobody should wait for it."""
        return time.monotonic() - self._heard_at > AWAY_S

    def _meter(self, meter: Meter) -> SharedMeter:
        found = self._known.get(meter)
        if found is None:
            found = self._known[meter] = SharedMeter(meter)
        found.begin_money()
        found.used_at = time.monotonic()
        return found

    # sending

    def _send_soon(self) -> None:
        if (self._sender is None or self._sender.done()) and self.redis.state == "up":
            self._sender = asyncio.get_running_loop().create_task(self._send_all())

    async def _send_all(self) -> None:
        """Send until nothing waits; nobody waits longer for an answer than one message takes."""
        try:
            while self._waiting or self._changed:
                if not await self._send():
                    break
        finally:
            for asked in self._waiting:
                asked.decide("unknown")
            self._waiting.clear()

    async def _send(self, *, full_reply: bool = False) -> bool:
        """Send what changed and what waits; return whether Redis has answered."""
        waiting = [asked for asked in self._waiting if not asked.answer.done()]
        self._waiting = []
        concerned = dict.fromkeys(each for asked in waiting for each in asked.of)
        meters = list(concerned | dict.fromkeys(self._changed))
        self._changed.clear()
        sent = self._message(meters, waiting, full_reply)
        keys = [PREFIX, *(each.key for each in meters)]
        results = None
        try:
            results = await self.redis.run(
                ("EVALSHA", self._sha, len(keys), *keys, encode(sent)), writes=True
            )
        finally:
            is_answered = bool(results) and isinstance(results[0], bytes)  # type: ignore[index]
            if not is_answered:
                self._changed.update(meters)
                for asked in waiting:
                    asked.decide("unknown")
        if not is_answered or results is None:
            self._note_error(results)
            self._in_doubt = True
            return False
        self._take(decode(results[0]), meters, waiting, sent)
        return True

    def _message(
        self, meters: Sequence[SharedMeter], waiting: Sequence[Undecided], full_reply: bool
    ) -> dict[str, Any]:
        now, periods = time.monotonic(), periods_now()
        self._seq += 1
        numbers = {each: number for number, each in enumerate(meters, 1)}
        return {
            "me": self._me,
            "seq": self._seq,
            "day": int(periods.day),
            "month": int(periods.month),
            "full": full_reply,
            "meters": [self._entry(each, now, periods) for each in meters],
            "asked": [
                [[numbers[each] for each in asked.of], rounded(asked.need)] for asked in waiting
            ],
        }

    def _entry(self, each: SharedMeter, now: float, periods: Periods) -> dict[str, Any]:
        """Return our numbers of a meter, without what is not decided yet."""
        own = each.own(now, periods)
        counted = (each.meter.rpm is not None, each.meter.tpm is not None, True, True)
        for asked in self._open:
            if each in asked.of:
                for i, amount in enumerate(asked.need):
                    own[i] -= amount * counted[i]
        entry: dict[str, Any] = {
            "caps": rounded(each.limits()),
            "own": rounded(own),
            "joined": each.is_joined,
            "share": now - each.used_at < ACTIVE_S,
        }
        if each.ledger is not None:
            entry["ledger"] = rounded(each.ledger)
        if not each.is_joined and each.records:
            entry["claims"] = {n: rounded(record) for n, record in each.records.items()}
        if not each.is_joined and each.base is not None:
            entry["base"] = rounded(each.base)
        return entry

    def _take(
        self,
        reply: dict[str, Any],
        meters: Sequence[SharedMeter],
        waiting: Sequence[Undecided],
        sent: dict[str, Any],
    ) -> None:
        """Use what Redis has answered."""
        if reply.get("old"):  # of a connection that was lost: a later message was there before
            for asked in waiting:
                asked.decide("unknown")
            return
        self.servers, self._in_doubt, self._heard_at = reply["servers"], False, time.monotonic()
        if not self.is_together:
            if self.is_together is not None:
                log.info("limits are shared among %d servers again", self.servers)
            self.is_together = True
        is_today = sent["day"] == int(periods_now().day)
        news = [
            self._heard(each, part, is_today=is_today)
            for each, part in zip(meters, as_list(reply["meters"]), strict=True)
        ]
        for asked, result in zip(waiting, as_list(reply["asked"]), strict=True):
            self._decided(asked, result, meters)
        if any(news):
            self._meters.wake()

    def _heard(self, each: SharedMeter, part: dict[str, Any], *, is_today: bool) -> bool:
        """Take over what Redis says of a meter; return whether there may be more left now."""
        if part.get("lost"):  # Redis has lost its data: it hears what we know
            each.is_joined = False
            self._changed.add(each)
            return False
        each.is_joined, each.ledger = True, None
        own, spare = levels(whole(part["own"])), whole(part["spare"])
        each.allowed = [used + more for used, more in zip(own, spare, strict=True)]
        if "base" in part:
            each.base = whole(part["base"])
            each.records = {text(name): whole(record) for name, record in as_list(part["records"])}
        return is_today and each.heard(whole(part["others"]))

    def _decided(self, asked: Undecided, result: Any, meters: Sequence[SharedMeter]) -> None:
        if result == 0:
            self._open.discard(asked)  # it is in the numbers of the next message
            asked.decide("granted")
            return
        kind, number, limit = whole(result)
        asked.meter, asked.limit = meters[number - 1].meter, max(0, limit - 1)
        asked.decide(REFUSALS[kind - 1])

    def _note_error(self, results: Sequence[Any] | None) -> None:
        error = results[0] if results else None
        if error is None or "OOM" in f"{type(error).__name__}{error}".upper():
            return
        if "NOSCRIPT" in f"{type(error).__name__}{error}".upper():
            self._sha = ""
        else:
            log.warning("the limits in Redis cannot be used: %s", error)

    # the background

    def start(self) -> None:
        self._heard_at = time.monotonic()
        self._beater = asyncio.get_running_loop().create_task(self._beat())

    async def _on_up(self) -> None:
        (sha,) = await self.redis.ask_now(("SCRIPT", "LOAD", self._text))
        if isinstance(sha, Exception):
            raise sha
        self._sha = text(sha)
        self._in_doubt = False

    async def _beat(self) -> None:
        """Tell and hear what is used, so that what is known is never older than a beat or two."""
        number = 0
        while True:
            await asyncio.sleep(BEAT_S)
            number += 1
            try:
                await self._beat_once(number)
            except Exception:  # the task must go on: the next beat may succeed
                log.exception("the limits could not be shared")

    async def _beat_once(self, number: int) -> None:
        if not self._meters.all:  # nothing is limited
            return
        if self.is_away and self.is_together is not False:
            self.is_together = False
            log.warning(
                "limits are not shared: Redis does not answer, so each of %d servers keeps to its "
                "share",
                self.servers,
            )
        if self.redis.state != "up":
            return
        if not self._sha:
            results = await self.redis.run(("SCRIPT", "LOAD", self._text), writes=True)
            if not results or isinstance(results[0], Exception):
                return
            self._sha = text(results[0])
        active = [each for each in self._known.values() if self._is_active(each)]
        if not active and number % IDLE_BEATS:
            return
        self._changed.update(active)
        if self._sender is None or self._sender.done():
            self._sender = asyncio.get_running_loop().create_task(self._full_beat())

    async def _full_beat(self) -> None:
        if await self._send(full_reply=True):
            await self._send_all()

    def _is_active(self, each: SharedMeter) -> bool:
        """Return whether the others should hear of a meter now; one more time after its end."""
        if time.monotonic() - each.used_at < ACTIVE_S + 4 * BEAT_S:
            return True
        meter = each.meter
        return bool(meter.answers or meter.held)

    async def close(self) -> None:
        """Give our shares back, and stop."""
        for task in (self._beater, self._sender):
            if task is not None:
                task.cancel()
                await asyncio.wait([task])
        for each in self._known.values():
            each.used_at = -ACTIVE_S
        self._changed.update(self._known.values())
        if self.redis.state == "up":
            await self._send()


def limits_entry(meter: Meter) -> bool:
    return meter.rpm is not None or meter.most_answers is not None


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


def free_in(meter: Meter, now: float, tokens: int) -> float:
    return meter.tokens.free_in(now, meter.tpm or 1, tokens) or MINUTE_S


def share_used(meter: Meter, limit: int) -> LimitReached:
    """Return the refusal while Redis is away and this server's share is used up."""
    why = "The servers cannot ask each other now, and this one has used its share of the"
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
