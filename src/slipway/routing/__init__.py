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
from slipway.providers import Call, encode_json
from slipway.routing.attempt import AttemptUsage, CallContext, Charge
from slipway.routing.attempts import ModelTraits, Prefill
from slipway.routing.calling import RoutedAnswer
from slipway.routing.health import Health
from slipway.routing.routes import Candidate, Route, healths_of, models_of
from slipway.routing.slots import ModelSlots
from slipway.routing.token_counts import RequestSize

__all__ = [
    "AttemptUsage",
    "CallContext",
    "Candidate",
    "Charge",
    "Health",
    "ModelSlots",
    "ModelTraits",
    "Prefill",
    "RequestSize",
    "Route",
    "RoutedAnswer",
    "ask_briefly",
    "healths_of",
    "models_of",
]

GRACE_S = 0.2  # extra time after a deadline, so that the call can report that it is late


async def ask_briefly(
    route: Route,
    messages: list[dict[str, Any]],
    context: CallContext,
    *,
    max_tokens: int,
    deadline_s: float = 2.0,
) -> str | None:
    """Ask a small model a short question on the way to an answer, such as what a follow-up means.

    Returns None if no model of the route answered in time.
    """
    body = encode_json(
        {"model": "", "messages": messages, "max_tokens": max_tokens, "temperature": 0}
    )
    asked = msgspec.structs.replace(
        context, owner="", until=time.monotonic() + deadline_s, retry_until=0.0
    )
    answering = RoutedAnswer(route, Call(body=body, name_at=(9, 11), stream=False), asked)
    try:
        async with asyncio.timeout(deadline_s + GRACE_S):  # a model may still be loading
            await answering.open()
    except (ProviderError, TimeoutError):
        return None
    finally:
        answering.close()
    return answering.whole.text if answering.whole is not None else None
