"""Wait for an event, with a limit that only a broken program reaches, however slow the machine."""

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")
PATIENCE_S = 45.0


def until(condition: Callable[[], Result], within_s: float = PATIENCE_S) -> Result:
    """Return what `condition` returns once that is true. Fail if that takes too long."""
    end = time.monotonic() + within_s
    while not (found := condition()):
        assert time.monotonic() < end, f"it did not happen within {within_s:g} s"
        time.sleep(0.01)
    return found


def seconds_until(condition: Callable[[], object]) -> float:
    """Wait for `condition`, and return how long that took."""
    began_at = time.monotonic()
    until(condition)
    return time.monotonic() - began_at


async def until_async(condition: Callable[[], object]) -> None:
    """Wait for `condition` on the event loop, as `until` does in a thread."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - conditions of a test have no event to wait for
            await asyncio.sleep(0.01)


def comes_below(limit: float, measure: Callable[[], float]) -> bool:
    """Return whether one of ten measurements is below `limit`.

    Load only ever makes a measurement larger, so that one is enough to show what the code can do,
    and code that is too slow exceeds the limit each time.
    """
    return any(measure() < limit for _ in range(10))
