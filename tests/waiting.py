"""Wait for an event, with a limit that only a broken program reaches, however slow the machine."""

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
