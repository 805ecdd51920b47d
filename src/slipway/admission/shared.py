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
from collections.abc import Callable, Sequence
from importlib.resources import files
from itertools import islice
from operator import lt
from typing import Any

import msgspec

from slipway.admission.limits import (
    WAIT_S,
    Hold,
    Meter,
    Meters,
    Need,
    periods_now,
)
from slipway.admission.shared_meters import (
    ACTIVE_S,
    NO_LIMIT,
    PREFIX,
    REFUSALS,
    TOKENS,
    Result,
    SharedMeter,
    Undecided,
    as_list,
    entry_of,
    free_in,
    full,
    gave_up,
    levels,
    may_fit,
    rounded,
    share_used,
    text,
    whole,
)
from slipway.admission.windows import UsedAmount
from slipway.store.redis import SharedRedis

log = logging.getLogger("slipway")
SCRIPT = files("slipway.admission").joinpath("shared.lua")
BEAT_S = 0.25  # between two messages if nobody asks: what others use is known so far back
IDLE_BEATS = 2  # so many times longer if no limit is in use; must end well within AWAY_S
MOST_IDLE = 100  # limits in a beat that are new or not used just now; the others follow in the next
HOT_S = 2.0  # so long after its last use a limit is part of every beat
AWAY_S = 1.0  # without a reply for so long, nobody waits for Redis any more
ENTER_S = 3.0  # the longest wait for what is held back for other servers
AGAIN_S = 0.05  # between two questions about the same call, if nothing is heard meanwhile
encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder().decode


class SharedLimits:
    """Decides with Redis what this server lets through; call `start` on the loop."""

    def __init__(self, redis: SharedRedis, meters: Meters, store: Callable[[], str]) -> None:
        """`store` returns what identifies the store whose ledger budgets begin with."""
        self.redis, self._meters = redis, meters
        self.servers = 1  # that were alive when Redis last answered
        self.is_together: bool | None = None  # whether Redis answers; None until the start
        self._find_store, self._store = store, ""
        self._me = secrets.token_hex(6)
        self._text = SCRIPT.read_text(encoding="utf-8")
        self._sha = ""
        self._seq = 0
        self._known: dict[Meter, SharedMeter] = {}
        self._changed = set[SharedMeter]()
        self._waiting = list[Undecided]()  # to be sent with the next message
        self._open = set[Undecided]()  # counted here, and not decided yet
        self._sender: asyncio.Task[None] | None = None
        self._beater: asyncio.Task[None] | None = None
        self._in_doubt = False  # the last message was not answered in time
        self._is_late = False  # and the next one may be
        self._heard_at = time.monotonic()
        self._trouble = ""
        self._wants_all = False  # whether the next reply should have the numbers of each server
        self._turn = 0  # which of the limits that are not in use is next
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
            for meter, entry in zip(meters, entries, strict=True):
                if entry is not None:
                    meter.requests.correct(entry, -1)
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
                raise share_used(self._meter(asked.meter), asked.limit)
            await self._meters.settled(AGAIN_S)
            asked.answer = asyncio.get_running_loop().create_future()

    async def hold(self, meters: Sequence[Meter], need: Need, within_s: float) -> Hold:
        """Reserve what a call may take. Raises LimitReached.

        As without Redis, a call that fits only if others take less than they reserved waits.
        """
        until = time.monotonic() + min(within_s, WAIT_S)
        while True:
            of = [self._meter(meter) for meter in meters if meter.limits_calls]
            if not of:  # the limits were removed meanwhile
                return await self._meters.hold(meters, need, within_s)
            result, asked, hold = await self._try_hold(meters, of, need)
            if hold is not None:
                return hold
            now = time.monotonic()
            for meter in meters:
                meter.check(need, now)
            if asked is not None:
                self._check_result(result, asked, need, now)
            if now >= until:
                raise gave_up(meters, asked, need, now)
            pause_s = 10 * AGAIN_S if result == "full" else AGAIN_S
            await self._meters.settled(min(until - now, pause_s))

    def _check_result(self, result: Result, asked: Undecided, need: Need, now: float) -> None:
        """Raise LimitReached if waiting does not help. Tokens are not waited for."""
        meter = asked.meter
        if result == "full" and asked.limit == TOKENS:
            raise meter.too_many_tokens(need, free_in(meter, now, need.tokens))
        if result == "unknown" and self.is_away and not self._fits_after_others(asked):
            raise share_used(self._meter(meter), asked.limit)

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
            if each.allowed is None and not self.is_away:
                return False  # Redis knows it in a moment
            caps, own = each.limits(), each.levels(now, periods)
            own[1] -= max(0, asked.need[1] - caps[1])  # a call of any size fits into a whole minute
            allowed = each.usable(max(2, self.servers))
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
        allowed = each.usable(max(2, self.servers))
        return own[asked.limit + 1] + asked.need[3] <= allowed[asked.limit]

    async def refresh(self, meters: Sequence[Meter]) -> None:
        """Hear what the others use of these limits, if Redis answers in time."""
        if meters and self._may_ask():
            asked = Undecided([self._meter(meter) for meter in meters], [0, 0, 0, 0])
            self._waiting.append(asked)
            self._send_soon()
            await asked.answer

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
                    self._let_go()
                    if not self._is_late:
                        break
        finally:
            self._let_go()

    def _let_go(self) -> None:
        """Let all who wait go on without Redis."""
        for asked in self._waiting:
            asked.decide("unknown")
        self._waiting.clear()

    async def _send(self) -> bool:
        """Send what changed and what waits; return whether Redis has answered."""
        if not self._sha:
            self._is_late = False
            return False
        waiting = [asked for asked in self._waiting if not asked.answer.done()]
        self._waiting = []
        concerned = dict.fromkeys(each for asked in waiting for each in asked.of)
        meters = list(concerned | dict.fromkeys(self._changed))
        self._changed.clear()
        sent = self._message(meters, waiting)
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
            self._is_late = not results and self.redis.state == "up" and not self.redis.is_full
            return False
        self._take(decode(results[0]), meters, waiting, sent)
        return True

    def _message(
        self, meters: Sequence[SharedMeter], waiting: Sequence[Undecided]
    ) -> dict[str, Any]:
        now, periods = time.monotonic(), periods_now()
        self._seq += 1
        self._store = self._store or self._find_store()
        numbers = {each: number for number, each in enumerate(meters, 1)}
        undecided = {each: list[Undecided]() for each in meters}
        for asked in self._open:
            for each in asked.of:
                if each in undecided:
                    undecided[each].append(asked)
        return {
            "me": f"{self._store}:{self._me}",
            "store": self._store,
            "seq": self._seq,
            "day": int(periods.day),
            "month": int(periods.month),
            "full": self._wants_all,
            "meters": [entry_of(each, some, now, periods) for each, some in undecided.items()],
            "asked": [
                [[numbers[each] for each in asked.of], rounded(asked.need)] for asked in waiting
            ],
        }

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
        self._wants_all = self._wants_all and not sent["full"]
        self.servers, self._in_doubt, self._heard_at = reply["servers"], False, time.monotonic()
        if not self.is_together:
            if self.is_together is not None:
                log.info("limits are shared among %d servers again", self.servers)
            self.is_together = True
        is_today = sent["day"] == int(periods_now().day)
        news = [
            self._heard(each, part, entry["caps"], is_today=is_today)
            for each, part, entry in zip(
                meters, as_list(reply["meters"]), sent["meters"], strict=True
            )
        ]
        for asked, result in zip(waiting, as_list(reply["asked"]), strict=True):
            self._decided(asked, result, meters)
        if any(news):
            self._meters.wake()

    def _heard(self, each: SharedMeter, part: dict[str, Any], caps: Any, *, is_today: bool) -> bool:
        """Take over what Redis says of a meter; return whether there may be more left now."""
        if part.get("lost"):  # Redis has lost its data: it hears what we know
            each.is_joined = False
            self._changed.add(each)
            return False
        each.is_joined, each.ledger = True, None
        own, spare = levels(whole(part["own"])), whole(part["spare"])
        allowed = [used + more for used, more in zip(own, spare, strict=True)]
        if each.allowed is not None and any(map(lt, allowed, each.allowed)):
            self._changed.add(each)  # the others get it when we have said that we know
        each.allowed, each.has_share = allowed, any(spare) or bool(part.get("unsure"))
        each.caps = whole(caps)
        if "base" in part:
            each.base = {text(name): whole(base) for name, base in as_list(part["base"])}
            each.records = {text(name): whole(record) for name, record in as_list(part["records"])}
        return is_today and each.heard(whole(part["others"]))

    def _decided(self, asked: Undecided, result: Any, meters: Sequence[SharedMeter]) -> None:
        if result == 0:
            self._open.discard(asked)  # it is in the numbers of the next message
            asked.decide("granted")
            return
        kind, number, limit = whole(result)
        if limit:
            asked.meter, asked.limit = meters[number - 1].meter, limit - 1
        asked.decide(REFUSALS[kind - 1])

    def _note_error(self, results: Sequence[Any] | None) -> None:
        error = results[0] if results else None
        if error is None or "OOM" in f"{type(error).__name__}{error}".upper():
            return
        if "NOSCRIPT" in f"{type(error).__name__}{error}".upper():
            self._sha = ""
        elif str(error) != self._trouble:
            self._trouble = str(error)
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
            slept_at = time.monotonic()
            await asyncio.sleep(BEAT_S)
            # if this process itself stood still, Redis had no chance to answer: it is asked first
            number, is_late = number + 1, time.monotonic() - slept_at > 2 * BEAT_S
            try:
                await self._beat_once(0 if is_late else number, is_late=is_late)
            except Exception:  # the task must go on: the next beat may succeed
                log.exception("the limits could not be shared")

    async def _beat_once(self, number: int, *, is_late: bool = False) -> None:
        if not self._meters.all:  # nothing is limited
            return
        if self.is_away and self.is_together is not False and not is_late:
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
        active = self._active()
        if not active and number % IDLE_BEATS:
            return
        self._changed.update(active)
        self._wants_all = True
        if self._changed:
            self._send_soon()
        elif self._sender is None or self._sender.done():  # to be seen, though nothing is in use
            self._sender = asyncio.get_running_loop().create_task(self._send_once())

    async def _send_once(self) -> None:
        await self._send()

    def _active(self) -> list[SharedMeter]:
        """Return the limits of this beat: all that are in use, and some of those that were or that
        are new: what others use of them is to be known before Redis goes away.
        """
        now = time.monotonic()
        if len(self._known) < len(self._meters.all):
            new = (meter for meter in self._meters.all.values() if meter not in self._known)
            for meter in islice(filter(is_ready, new), MOST_IDLE):
                self._meter(meter).used_at = now - HOT_S
        hot, idle = list[SharedMeter](), list[SharedMeter]()
        for each in self._known.values():
            if now - each.used_at < HOT_S:
                hot.append(each)
            elif each.has_share or each.allowed is None or each.uses_any():
                idle.append(each)
        self._turn = 0 if self._turn >= len(idle) else self._turn
        some = idle[self._turn : self._turn + MOST_IDLE]
        self._turn += MOST_IDLE
        return hot + some

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


def is_ready(meter: Meter) -> bool:
    """Return whether what this server has used of a meter is known."""
    return meter.is_loaded or not meter.limits_money


def limits_entry(meter: Meter) -> bool:
    return meter.rpm is not None or meter.most_answers is not None
