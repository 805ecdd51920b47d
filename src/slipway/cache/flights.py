"""Identical questions in progress share one call to the model.

A flight is that call. It belongs to no question: whoever asks joins it, and gets what it has
brought so far and then the rest. It ends early only if the last question leaves it. A flight that
fails gives its error to all who wait, and nothing of it is kept.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable
from typing import Any, Generic, TypeVar

from slipway.cache.entries import Selection

Item = TypeVar("Item")
AHEAD = 4 * 1024 * 1024  # bytes that a flight brings before somebody has taken them
LARGEST = 32 * 1024 * 1024  # bytes of a flight that others may still join


class Flight(Generic[Item]):
    """One call, and what it has brought so far. `keep` is false once its answer must not be kept,
    since it was invalidated while it was written.
    """

    def __init__(self, key: str, app: str, tenant: str, tags: tuple[str, ...] = ()) -> None:
        self.key, self.app, self.tenant, self.tags = key, app, tenant, tags
        self.keep = True
        self.items: list[Item] = []
        self.waiters = 0
        self.joined = 0  # how many questions joined it in all
        self.ended = False
        self.error: BaseException | None = None
        self.bytes, self.joinable = 0, True
        self.task: asyncio.Task[None] | None = None
        self._waiter = 0  # number of the latest waiter
        self._first = 0  # number of the first item that is still here
        self._taken: dict[int, int] = {}  # waiter -> number of the next item that it takes
        self._more, self._room = asyncio.Event(), asyncio.Event()

    async def bring(self, item: Item, size: int) -> None:
        """Add an item of so many bytes, and wait if all who take them are far behind."""
        self.add(item, size)
        if size and self.bytes > AHEAD:
            await self._wait_for_takers(size)

    def add(self, item: Item, size: int) -> None:
        """Add an item of so many bytes."""
        self.items.append(item)
        self.bytes += size
        self.wake()
        if self.bytes > LARGEST:
            self.joinable = False
            self._forget_taken()

    def wake(self) -> None:
        """Let all who wait look again."""
        self._more.set()
        self._more = asyncio.Event()

    async def _wait_for_takers(self, size: int) -> None:
        behind = max(1, AHEAD // max(1, size))  # items of about this size
        while self._taken and self._first + len(self.items) - max(self._taken.values()) > behind:
            self._room.clear()
            await self._room.wait()

    def _forget_taken(self) -> None:
        """Drop what everybody has taken: nobody can join any more."""
        taken = min(self._taken.values(), default=self._first) - self._first
        if taken > 0:
            del self.items[:taken]
            self._first += taken

    async def follow(self) -> AsyncIterator[list[Item]]:
        """Yield the items from the first one on, as they come. Raises the flight's error at its
        end.
        """
        self._waiter += 1
        me = self._waiter
        self._taken[me] = 0
        try:
            while True:
                start = self._taken[me] - self._first
                if start < len(self.items):
                    some = self.items[start:]
                    self._taken[me] += len(some)
                    self._room.set()
                    yield some
                elif self.ended:
                    break
                else:
                    await self._more.wait()
        finally:
            del self._taken[me]
            self._room.set()
        if self.error is not None:
            raise self.error.with_traceback(None)

    def is_selected(self, selection: Selection) -> bool:
        """Return whether the answer may belong to a selection; its documents are not known yet."""
        return (
            selection.may_change(self.app, self.tenant)
            and selection.app in (None, self.app)
            and selection.key in (None, self.key)
            and (selection.tag is None or not self.tags or selection.tag in self.tags)
        )

    async def end(self) -> None:
        """Wait until the flight has ended, however that was."""
        if self.task is not None:
            await asyncio.wait([self.task])


class Flights:
    """The flights in progress by key."""

    def __init__(self) -> None:
        self.by_key: dict[Hashable, Flight[Any]] = {}
        self.all: set[Flight[Any]] = set()

    def joinable(self, key: Hashable) -> Flight[Any] | None:
        """Return the flight with this key that one may still join."""
        flight = self.by_key.get(key)
        return flight if flight is not None and flight.joinable and not flight.ended else None

    def start(
        self, key: Hashable, flight: Flight[Any], work: Callable[[], Awaitable[None]]
    ) -> None:
        """Begin the work of a flight that questions with this key join from now on."""
        self.by_key[key] = flight
        self.all.add(flight)

        async def run() -> None:
            try:
                await work()
            except asyncio.CancelledError as error:
                flight.error = error
                raise
            except BaseException as error:  # noqa: BLE001 - those who wait raise it
                flight.error = error
            finally:
                flight.ended = True
                self.forget(key, flight)
                self.all.discard(flight)
                flight.wake()

        flight.task = asyncio.get_running_loop().create_task(run())

    def forget(self, key: Hashable, flight: Flight[Any]) -> None:
        """Let nobody join this flight any more."""
        flight.joinable = False
        if self.by_key.get(key) is flight:
            del self.by_key[key]

    def invalidate(self, selection: Selection) -> None:
        """Let nobody join the flights of a selection, and keep nothing of them."""
        for flight in list(self.all):
            if flight.is_selected(selection):
                flight.keep = flight.joinable = False

    @staticmethod
    def enter(flight: Flight[Any]) -> None:
        """Note that one more question waits for this flight."""
        flight.waiters += 1
        flight.joined += 1

    @staticmethod
    async def leave(flight: Flight[Any]) -> None:
        """Note that a question has left; the last one to leave ends the flight."""
        flight.waiters -= 1
        if flight.waiters == 0 and not flight.ended and flight.task is not None:
            flight.joinable = False
            flight.task.cancel()
            await flight.end()
