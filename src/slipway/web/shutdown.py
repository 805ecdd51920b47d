"""The end of the server: one grace for all that runs, and a word to every client that is cut."""

import asyncio
import time
from collections.abc import Awaitable, Callable

from slipway.answer import Current

LAST_EVENTS_S = 0.5  # time for streams to send their last event after their answer was stopped


class Shutdown:
    """When the server began to stop, and how long running answers may still take."""

    def __init__(self, current: Current) -> None:
        self.current = current
        self.began_at: float | None = None
        self.stop_answers: Callable[[], Awaitable[None]] | None = None

    def begin(self) -> None:
        """Start the grace; later calls change nothing."""
        if self.began_at is None:
            self.began_at = time.monotonic()

    def left_s(self) -> float:
        """Return how much of `listen.grace` is left, in seconds."""
        began_at = time.monotonic() if self.began_at is None else self.began_at
        return max(0.0, began_at + self.current.settings.listen.grace - time.monotonic())

    async def cut_late(self, tasks: Callable[[], set["asyncio.Task[None]"]]) -> None:
        """Wait for the end of the grace, then stop the answers and what else still runs."""
        await asyncio.sleep(self.left_s())
        if self.stop_answers is not None:
            await self.stop_answers()
        await asyncio.sleep(LAST_EVENTS_S)
        for task in tasks():
            task.cancel()
