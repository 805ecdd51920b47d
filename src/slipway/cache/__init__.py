"""The cache: complete answers by key, and calls in progress that identical questions share.

`keys` make the key of a question, `memory` holds entries within a budget of bytes, `shared` holds
them in Redis for several servers, and `flights` are the calls in progress. `semantic_cache` finds
the kept answer of a similar question. What an answer depends
on, and whether it is still true, is for `answer/` to say: this package knows no documents.
"""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from slipway.cache.entries import KeptAnswer, Lifetime, SearchedSection, Selection
from slipway.cache.flights import Flight, Flights
from slipway.cache.keys import digest
from slipway.cache.memory import MemoryEntries
from slipway.cache.semantic_cache import SemanticCache, SemanticPolicy, SemanticReport
from slipway.cache.shared import SharedEntries
from slipway.errors import SlipwayError
from slipway.store.redis import SharedRedis
from slipway.types import CacheStats, Record

__all__ = [
    "AnswerCache",
    "CachePolicy",
    "Flight",
    "Flights",
    "KeptAnswer",
    "Lifetime",
    "SearchedSection",
    "Selection",
    "SemanticCache",
    "SemanticPolicy",
    "SemanticReport",
    "digest",
]

MIB = 1024 * 1024
REMEMBERED = 10_000  # answers whose entry is removed by a vote against them
log = logging.getLogger("slipway")


class CachePolicy(Record, frozen=True, kw_only=True):
    """What is kept of one app, route or model.

    `identity` is the digest of all that its answers depend on beside the question: the models it
    resolves to, its prompt, its parameters. `lifetime` is None if nothing is kept and only calls in
    progress are shared. If `only_at_zero`, requests with another temperature are left alone.
    """

    identity: str
    lifetime: Lifetime | None
    flights: bool = True
    only_at_zero: bool = False
    tags: tuple[str, ...] = ()
    semantic: SemanticPolicy | None = None


class AnswerCache:
    """Kept answers and flights of this process. `now` is the clock, in seconds since the epoch."""

    def __init__(
        self,
        memory_mb: float = 64.0,
        answer_kb: float = 1024.0,
        now: Callable[[], float] = time.time,
        redis: SharedRedis | None = None,
    ) -> None:
        self.now = now
        # removes answers of the other workers of this server, and returns how many
        self.others: Callable[[Selection], Awaitable[int]] | None = None
        self.shared = SharedEntries(redis, self._invalidated) if redis is not None else None
        self.removed: Callable[[str], None] = lambda cause: None  # called for each that leaves
        self.memory = MemoryEntries(int(memory_mb * MIB), self._dropped)
        self.largest = int(answer_kb * 1024)
        self.flights = Flights()
        self.semantic = SemanticCache()
        self._invalidations = 0
        self._answers: OrderedDict[str, str] = OrderedDict()  # id of an answer -> key
        self._background: set[asyncio.Task[None]] = set()

    def stats(self) -> CacheStats:
        """Return what is kept now."""
        redis = self.shared.redis if self.shared is not None else None
        state = "off" if redis is None else "full" if redis.is_full else redis.state
        return CacheStats(
            entries=len(self.memory),
            bytes=self.memory.bytes,
            budget=self.memory.budget,
            flights=len(self.flights.all),
            shared=state,
        )

    def resize(self, memory_mb: float, answer_kb: float) -> None:
        """Apply changed limits."""
        self.memory.budget, self.largest = int(memory_mb * MIB), int(answer_kb * 1024)
        self.memory.shrink()

    def _dropped(self, entry: KeptAnswer, cause: str) -> None:
        self.removed(cause)

    async def get(self, key: str) -> KeptAnswer | None:
        """Return the entry with this key, unless it has expired for every use."""
        entry = self.memory.get(key)
        if entry is not None and entry.state(self.now()) == "expired":
            self.memory.drop(key, "expired")
            entry = None
        if entry is None and self.shared is not None:
            entry = await self._get_shared(key, self.shared)
        return entry

    async def _get_shared(self, key: str, shared: SharedEntries) -> KeptAnswer | None:
        invalidations = self._invalidations
        entry = await shared.get(key)
        if entry is None or entry.state(self.now()) == "expired":
            return None
        if invalidations != self._invalidations:  # it may have been read before it was removed
            return None
        self.memory.put(entry)
        return entry

    def put(self, entry: KeptAnswer) -> None:
        """Keep an answer, unless it is too large."""
        if len(entry.body) > self.largest:
            return
        self.memory.put(entry)
        if self.shared is not None:
            self.work_in_background(self.shared.put(entry, self.now()))

    def verified(self, entry: KeptAnswer) -> None:
        """Replace an entry by itself with what is now known about its documents."""
        self.memory.replace(entry)

    def drop(self, key: str, cause: str) -> None:
        """Remove an entry that is no longer true."""
        self.memory.drop(key, cause)
        if self.shared is not None:
            self.work_in_background(self.shared.drop(key))

    def note_answer(self, answer_id: str, key: str) -> None:
        """Remember which entry an answer came from or became."""
        self._answers[answer_id] = key
        if len(self._answers) > REMEMBERED:
            self._answers.popitem(last=False)

    def disliked(self, answer_id: str) -> None:
        """Remove the entry of an answer that somebody found wrong."""
        key = self._answers.pop(answer_id, None)
        if key is not None:
            self.work_in_background(self._forget(Selection(key=key), "feedback"))

    async def _forget(self, selection: Selection, cause: str) -> None:
        await self.invalidate(selection, cause)

    def work_in_background(self, work: Coroutine[Any, Any, None]) -> None:
        """Run work that nobody waits for; its failure is logged."""
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: "asyncio.Task[None]") -> None:
        self._background.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, SlipwayError):
            log.error("bug: an answer could not be written again", exc_info=error)

    def start(self) -> None:
        """Begin to follow what other servers invalidate."""
        if self.shared is not None:
            self.shared.start()

    async def close(self) -> None:
        """End the work in the background."""
        if self.shared is not None:
            await self.shared.close()
        for task in list(self._background):
            task.cancel()
        if self._background:
            await asyncio.wait(self._background)

    async def invalidate(self, selection: Selection, cause: str = "request") -> tuple[int, bool]:
        """Remove what a selection matches, also of answers that are being written now.

        Return how many entries were removed, and whether the other servers know. If they do not,
        since Redis does not answer, they will as soon as it does.
        """
        here = self.invalidate_here(selection, cause)
        if self.others is not None:
            here += await self.others(selection)
        if self.shared is None:
            return here, True
        there = await self.shared.invalidate(selection)
        return max(here, there or 0), there is not None

    def _invalidated(self, selection: Selection) -> None:
        """Remove what another server was asked to remove, also from Redis: an answer that was
        written here meanwhile may have come there since.
        """
        keys = [entry.key for entry in self.memory.select(selection)]
        self.invalidate_here(selection)
        for key in keys:
            self.drop(key, "request")

    def invalidate_here(self, selection: Selection, cause: str = "request") -> int:
        """Remove what a selection matches from this process; return how many entries."""
        self._invalidations += 1
        self.flights.invalidate(selection)
        found = self.memory.select(selection)
        for entry in found:
            self.memory.drop(entry.key, cause)
        return len(found)
