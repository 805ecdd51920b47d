"""Room 6, which model: the candidates of a route in their order, until one begins to answer.

A bare model is a route of one. A candidate is passed over only before its first words: what has been shown is never said twice.
"""

import asyncio
import time
from collections.abc import Iterable
from typing import Any

import msgspec

from slipway.errors import ProviderError, ProviderSlow
from slipway.providers import Call, ModelReply, Provider, Whole, encode_json
from slipway.types import AnswerDone, AttemptDone, Emit, Piece, Record, Role, Rung, Usage

AT_ONCE = 8


class Candidate(Record, frozen=True, kw_only=True):
    model: Provider
    role: Role = "primary"

    @property
    def rung(self) -> Rung:
        return "smaller" if self.role == "smaller" else "model"


class Route(Record, frozen=True, kw_only=True):
    name: str
    candidates: tuple[Candidate, ...]

    @property
    def at_once(self) -> int:
        """How many calls its narrowest model takes side by side; AT_ONCE where none of them says."""
        return min((each.model.parallel for each in self.candidates if each.model.parallel is not None), default=AT_ONCE)


def models_of(routes: Iterable[Route]) -> list[Provider]:
    """Each model once."""
    return list({id(c.model): c.model for route in routes for c in route.candidates}.values())


class Opened(Record, frozen=True, kw_only=True):
    """An answer that has begun: the first pieces of a stream, or the whole. Whoever holds it closes `reply`."""

    model: Provider
    rung: Rung
    reply: ModelReply
    attempts: int
    first: list[Piece]
    whole: Whole | None
    started_at: float


async def open_route(route: Route, call: Call, answer_id: str, emit: Emit) -> Opened:
    """Raises the ProviderError of the last candidate tried. Only the last is waited for where it is still being loaded."""
    hasty = msgspec.structs.replace(call, patient=False) if len(route.candidates) > 1 else call
    for n, candidate in enumerate(route.candidates, 1):
        model = candidate.model
        started_at = time.monotonic()
        try:
            reply = await model.chat(call if n == len(route.candidates) else hasty)
            try:
                first = await reply.pieces() if call.stream else []
                whole = None if call.stream else await reply.whole()
            except BaseException:
                reply.close()
                raise
        except ProviderError as error:
            emit(attempt_done(answer_id, model, started_at, error=error))
            if n == len(route.candidates) or not error.another_may_help:
                raise
        else:
            return Opened(model=model, rung=candidate.rung, reply=reply, attempts=n, first=first, whole=whole, started_at=started_at)
    raise AssertionError("a route has at least one model")


class Thought(Record, frozen=True, kw_only=True):
    """What a model said in between: `text` is None where it was late, and `usage` where it did not tell what that took."""

    text: str | None
    model: Provider
    usage: Usage | None


async def think(
    route: Route, messages: list[dict[str, Any]], answer_id: str, emit: Emit, *, max_tokens: int, deadline_s: float = 2.0
) -> Thought | None:
    """A short question to a small model, on the way to an answer; None where all of the route fail. A record of each attempt tells."""
    body = encode_json({"model": "", "messages": messages, "max_tokens": max_tokens, "temperature": 0})
    failed = list[AttemptDone]()

    def told(record: AnswerDone | AttemptDone) -> None:
        emit(record)
        if isinstance(record, AttemptDone):
            failed.append(record)

    started_at = time.monotonic()
    try:
        async with asyncio.timeout(deadline_s):
            opened = await open_route(route, Call(body=body, name_at=(9, 11), stream=False), answer_id, told)
    except ProviderError:
        return None
    except TimeoutError:
        model = route.candidates[len(failed)].model
        late = ProviderSlow(f"{model.name} did not answer within {deadline_s:g} s.", model=model.name)
        emit(attempt_done(answer_id, model, started_at, error=late))
        return Thought(text=None, model=model, usage=None)
    opened.reply.close()
    emit(attempt_done(answer_id, opened.model, opened.started_at))
    return Thought(text=opened.whole.text, model=opened.model, usage=opened.whole.usage) if opened.whole is not None else None


def attempt_done(
    answer_id: str, model: Provider, started_at: float, *, error: ProviderError | None = None, ttft_s: float | None = None
) -> AttemptDone:
    return AttemptDone(
        answer_id=answer_id,
        model=model.name,
        provider=model.kind,
        zone=model.zone,
        status=200 if error is None else error.upstream_status,
        error=None if error is None else error.code,
        duration_s=time.monotonic() - started_at,
        ttft_s=ttft_s,
    )
