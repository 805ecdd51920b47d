"""Room 6, which model: the candidates of a route until one has answered, and whoever goes on where
one broke off.

A bare model is a route of one. `attempts` decides, `calling` does, `health` knows how each model
is.
"""

import asyncio
import time
from typing import Any

import msgspec

from slipway.errors import ProviderError
from slipway.providers import Call, Provider, encode_json
from slipway.routing.attempts import Prefill, Traits
from slipway.routing.calling import Answering, Asked, Took
from slipway.routing.health import Health
from slipway.routing.routes import Candidate, Route, healths_of, models_of
from slipway.routing.slots import ModelSlots
from slipway.types import Emit, Record, Usage

__all__ = [
    "Answering",
    "Asked",
    "Candidate",
    "Health",
    "ModelSlots",
    "Prefill",
    "Route",
    "Thought",
    "Took",
    "Traits",
    "healths_of",
    "models_of",
    "think",
]

GRACE_S = 0.2  # behind a deadline, for the call itself to say that it is late


class Thought(Record, frozen=True, kw_only=True):
    """What a model said in between: `text` is None where it was late or broke off, and `usage`
    where it did not tell what that took.
    """

    text: str | None
    model: Provider
    usage: Usage | None


async def think(
    route: Route,
    messages: list[dict[str, Any]],
    answer_id: str,
    emit: Emit,
    *,
    max_tokens: int,
    deadline_s: float = 2.0,
) -> Thought | None:
    """A short question to a small model, on the way to an answer; None where all of the route fail."""
    body = encode_json(
        {"model": "", "messages": messages, "max_tokens": max_tokens, "temperature": 0}
    )
    asked = Asked(
        answer_id=answer_id, emit=emit, until=time.monotonic() + deadline_s, patient_until=0.0
    )
    answering = Answering(route, Call(body=body, name_at=(9, 11), stream=False), asked)
    late = Thought(text=None, model=route.candidates[0].model, usage=None)
    try:
        async with asyncio.timeout(deadline_s + GRACE_S):  # a model that is being loaded, say
            await answering.open()
    except ProviderError:
        return (
            msgspec.structs.replace(late, model=answering.asking.model) if answering.took else None
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
