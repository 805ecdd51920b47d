"""Choose the model that answers: try a route's candidates in order, and continue with another one
if a stream breaks off.

A bare model is a route of one. `attempts` decides what to do next, `calling` does it, `health`
knows which models may be asked.
"""

import asyncio
import time
from typing import Any

import msgspec

from slipway.errors import ProviderError
from slipway.providers import Call, Provider, encode_json
from slipway.routing.attempt import AttemptUsage, CallContext
from slipway.routing.attempts import ModelTraits, Prefill
from slipway.routing.calling import RoutedAnswer
from slipway.routing.health import Health
from slipway.routing.routes import Candidate, Route, healths_of, models_of
from slipway.routing.slots import ModelSlots
from slipway.types import Emit, Record, Usage

__all__ = [
    "AttemptUsage",
    "CallContext",
    "Candidate",
    "Health",
    "ModelSlots",
    "ModelTraits",
    "Prefill",
    "QuickReply",
    "Route",
    "RoutedAnswer",
    "ask_briefly",
    "healths_of",
    "models_of",
]

GRACE_S = 0.2  # extra time after a deadline, so that the call can report that it is late


class QuickReply(Record, frozen=True, kw_only=True):
    """The reply to a short internal question. `text` is None if the model was too late or broke
    off, `usage` is None if the provider did not report any.
    """

    text: str | None
    model: Provider
    usage: Usage | None


async def ask_briefly(
    route: Route,
    messages: list[dict[str, Any]],
    answer_id: str,
    emit: Emit,
    *,
    max_tokens: int,
    deadline_s: float = 2.0,
) -> QuickReply | None:
    """Ask a small model a short question on the way to an answer, such as what a follow-up means.

    Returns None if every candidate of the route failed before it was called.
    """
    body = encode_json(
        {"model": "", "messages": messages, "max_tokens": max_tokens, "temperature": 0}
    )
    asked = CallContext(
        answer_id=answer_id, emit=emit, until=time.monotonic() + deadline_s, retry_until=0.0
    )
    answering = RoutedAnswer(route, Call(body=body, name_at=(9, 11), stream=False), asked)
    late = QuickReply(text=None, model=route.candidates[0].model, usage=None)
    try:
        async with asyncio.timeout(deadline_s + GRACE_S):  # a model may still be loading
            await answering.open()
    except ProviderError:
        return (
            msgspec.structs.replace(late, model=answering.asking.model)
            if answering.usages
            else None
        )
    except TimeoutError:
        return msgspec.structs.replace(late, model=answering.asking.model)
    finally:
        answering.close()
    whole = answering.whole
    return (
        msgspec.structs.replace(
            late, text=whole.text, model=answering.candidate.model, usage=whole.usage
        )
        if whole is not None
        else None
    )
