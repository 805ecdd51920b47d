"""What answer() and proxy() share: enter, measure, settle, and emit once, whatever happens."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Literal

from slipway.answer.pipeline import Pipeline
from slipway.answer.settlement import Tally
from slipway.errors import InternalError, SlipwayError


async def run_settled(
    pipeline: Pipeline,
    tally: Tally,
    stages: Callable[[], Awaitable[None]],
    *,
    if_cancelled: Literal["cancelled", "client_gone"],
) -> None:
    """Run the stages of one answer inside admission, and emit its AnswerDone record exactly once.

    The record carries the error's code if the stages raise: that of a SlipwayError,
    `if_cancelled` for a cancelled task, and `internal_error` for any other exception. The
    exception itself is raised again for the caller, who tells the client.
    """
    try:
        with pipeline.admission.enter(tally.asker, tally.app) as tally.grant:
            await stages()
    except SlipwayError as error:
        tally.error = error.code
        raise
    except asyncio.CancelledError:
        tally.error = if_cancelled
        raise
    except BaseException:  # a defect, whatever its class, must not be counted as a success
        tally.error = InternalError.code
        raise
    finally:
        pipeline.emit(tally.done())
