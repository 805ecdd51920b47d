"""Time the stages of an app's answer, for its trace."""

import asyncio
import time
from collections.abc import Callable
from types import TracebackType

from slipway.errors import InternalError, SlipwayError
from slipway.types import StageTaken

Fact = str | int | float | bool | None


class StageTimer:
    """Times one stage: a context manager that hands a StageTaken to `keep`, whatever happens."""

    __slots__ = ("_began_at", "_facts", "_keep", "_name", "_start")

    def __init__(self, name: str, start: float, keep: Callable[[StageTaken], None]) -> None:
        """`start` is when the answer began, on the monotonic clock."""
        self._name, self._start, self._keep = name, start, keep
        self._facts: dict[str, Fact] = {}

    def note(self, **facts: Fact) -> None:
        """Add facts about the work: numbers and names, never text of a question or a document."""
        self._facts |= facts

    def __enter__(self) -> "StageTimer":
        self._began_at = time.monotonic()
        return self

    def __exit__(
        self,
        _: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._keep(
            StageTaken(
                name=self._name,
                began_s=self._began_at - self._start,
                duration_s=time.monotonic() - self._began_at,
                facts=tuple(self._facts.items()),
                error=None if error is None else code_of(error),
            )
        )


Clock = Callable[[str], StageTimer]  # the name of a stage -> what times it


def untimed(name: str) -> StageTimer:
    """Return a timer whose result nobody keeps, for work outside an answer."""
    return StageTimer(name, 0.0, lambda stage: None)


def code_of(error: BaseException) -> str:
    """Return the code under which a stage's error is known."""
    if isinstance(error, SlipwayError):
        return type(error).code
    return "cancelled" if isinstance(error, asyncio.CancelledError) else InternalError.code
