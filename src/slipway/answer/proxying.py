"""Bare models and routes: the model's own bytes on their way to the client."""

import asyncio
from typing import Protocol

from slipway.answer.pipeline import Road
from slipway.answer.settlement import Facts, Tally
from slipway.errors import SlipwayError
from slipway.providers import Call
from slipway.routing import Answering, Asked, Route
from slipway.types import Asker


class Outlet(Protocol):
    """Where a proxied answer goes: the door's side of `proxy()`."""

    async def whole(self, body: bytes, facts: Facts) -> None: ...

    async def begin(self, facts: Facts) -> None: ...

    async def write(self, events: bytes) -> None: ...

    async def end(self) -> None: ...


async def proxy(
    road: Road, route: Route, call: Call, answer_id: str, asker: Asker, outlet: Outlet
) -> None:
    """A bare model or a route: the model's own bytes, checked event by event, on their way to the
    client.
    """
    tally = Tally(answer_id, "chat", route.name, asker, call.stream)
    began_at = tally.started_at
    asked = Asked(
        answer_id=answer_id,
        emit=road.emit,
        owner=asker.owner,
        until=began_at + road.answer_s,
        patient_until=began_at + road.patience_s,
    )
    answering = Answering(route, call, asked)
    try:
        with road.admission.enter():  # 1 admit
            with tally.along(answering):  # 6 route
                await answering.open()
                tally.written_by(answering)
                if answering.whole is None:
                    await outlet.begin(tally.facts(answering.attempts.count))
                    await relay(answering, tally, outlet)
            if answering.whole is not None:
                await outlet.whole(answering.whole.raw, tally.facts(tally.attempts))
    except SlipwayError as error:
        tally.error = error.code
        raise
    except asyncio.CancelledError:
        tally.error = "client_gone"
        raise
    finally:
        road.emit(tally.done())  # settle


async def relay(answering: Answering, tally: Tally, outlet: Outlet) -> None:
    tally.words()
    try:
        while pieces := await answering.pieces():
            await outlet.write(
                pieces[0].raw if len(pieces) == 1 else b"".join([p.raw for p in pieces])
            )
    finally:
        tally.written_by(answering)  # it may be another by now
    await outlet.end()
