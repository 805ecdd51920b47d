"""Bare models and routes: the model's own bytes on their way to the client."""

import asyncio
from typing import Protocol

from slipway.answer.pipeline import Pipeline
from slipway.answer.settlement import Facts, Tally
from slipway.errors import SlipwayError
from slipway.providers import Call
from slipway.routing import Answering, Asked, Route
from slipway.types import Asker


class ResponseWriter(Protocol):
    """Where a proxied answer goes: the guard's side of `proxy()`."""

    async def whole(self, body: bytes, facts: Facts) -> None: ...

    async def begin(self, facts: Facts) -> None: ...

    async def write(self, events: bytes) -> None: ...

    async def end(self) -> None: ...


async def proxy(
    pipeline: Pipeline,
    route: Route,
    call: Call,
    answer_id: str,
    asker: Asker,
    writer: ResponseWriter,
) -> None:
    """A bare model or a route: the model's own bytes, checked event by event, on their way to the
    client.
    """
    tally = Tally(answer_id, "chat", route.name, asker, call.stream)
    began_at = tally.started_at
    asked = Asked(
        answer_id=answer_id,
        emit=pipeline.emit,
        owner=asker.owner,
        until=began_at + pipeline.answer_s,
        patient_until=began_at + pipeline.patience_s,
    )
    answering = Answering(route, call, asked)
    try:
        with pipeline.admission.enter():  # 1 admit
            with tally.along(answering):  # 6 route
                await answering.open()
                tally.written_by(answering)
                if answering.whole is None:
                    await writer.begin(tally.facts(answering.attempts.count))
                    await relay(answering, tally, writer)
            if answering.whole is not None:
                await writer.whole(answering.whole.raw, tally.facts(tally.attempts))
    except SlipwayError as error:
        tally.error = error.code
        raise
    except asyncio.CancelledError:
        tally.error = "client_gone"
        raise
    finally:
        pipeline.emit(tally.done())  # settle


async def relay(answering: Answering, tally: Tally, writer: ResponseWriter) -> None:
    tally.words()
    try:
        while pieces := await answering.pieces():
            await writer.write(
                pieces[0].raw if len(pieces) == 1 else b"".join([p.raw for p in pieces])
            )
    finally:
        tally.written_by(answering)  # it may be another by now
    await writer.end()
