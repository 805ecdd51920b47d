"""What answer() and proxy() share: enter, measure, settle, and emit once, whatever happens."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Literal

from slipway.answer.pipeline import Pipeline
from slipway.answer.settlement import Tally
from slipway.errors import InternalError, SlipwayError

IfCancelled = Literal["cancelled", "client_gone"]


class Settled:
    """Holds one answer inside admission, and emits its AnswerDone record exactly once.

    The record carries the error's code if the block raises: that of a SlipwayError, `if_cancelled`
    for a cancelled task, and `internal_error` for any other exception. The exception itself goes on
    to the caller, who tells the client.
    """

    __slots__ = ("if_cancelled", "pipeline", "tally")

    def __init__(self, pipeline: Pipeline, tally: Tally, *, if_cancelled: IfCancelled) -> None:
        self.pipeline, self.tally, self.if_cancelled = pipeline, tally, if_cancelled

    def __enter__(self) -> None:
        tally = self.tally
        try:
            tally.grant = self.pipeline.admission.enter(tally.asker, tally.app)
            tally.entered_at = time.monotonic()
        except SlipwayError as error:
            self._emit(error)
            raise

    def __exit__(
        self,
        _: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.tally.grant is not None:
            self.tally.grant.leave()
        self._emit(error)

    def _emit(self, error: BaseException | None) -> None:
        if isinstance(error, SlipwayError):
            self.tally.error = type(error).code  # a provider's own code could be anything
        elif isinstance(error, asyncio.CancelledError):
            self.tally.error = self.if_cancelled
        elif error is not None:  # a defect, whatever its class, must not be counted as a success
            self.tally.error = InternalError.code
        self.pipeline.emit(self.tally.done())


async def run_settled(
    pipeline: Pipeline,
    tally: Tally,
    stages: Callable[[], Awaitable[None]],
    *,
    if_cancelled: IfCancelled,
) -> None:
    """Run the stages of one answer as `Settled` does."""
    with Settled(pipeline, tally, if_cancelled=if_cancelled):
        if tally.grant is not None and tally.grant.is_asked:
            await tally.grant.agree()
        await stages()
