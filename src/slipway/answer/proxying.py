"""Bare models and routes: the model's own bytes on their way to the client."""

import asyncio
from typing import Protocol

from slipway.answer.apps import Road
from slipway.answer.tally import Facts, Tally
from slipway.errors import ProviderError, SlipwayError
from slipway.providers import Call
from slipway.routing import Opened, Route, attempt_done, open_route
from slipway.types import Asker, Usage


class Outlet(Protocol):
    """Where a proxied answer goes: the door's side of `proxy()`."""

    async def whole(self, body: bytes, facts: Facts) -> None: ...

    async def begin(self, facts: Facts) -> None: ...

    async def write(self, events: bytes) -> None: ...

    async def end(self) -> None: ...


async def proxy(road: Road, route: Route, call: Call, answer_id: str, asker: Asker, outlet: Outlet) -> None:
    """A bare model or a route: the model's own bytes, checked event by event, on their way to the client."""
    tally = Tally(answer_id, "chat", route.name, asker, call.stream)
    try:
        with road.admission.enter():  # 1 admit
            opened = await open_route(route, call, answer_id, road.emit)  # 6 route
            tally.opened(opened)
            try:
                if opened.whole is not None:
                    tally.book(opened.model, opened.whole.usage)
                    await outlet.whole(opened.whole.raw, tally.facts())
                else:
                    await outlet.begin(tally.facts())
                    await relay(opened, tally, outlet)
            except ProviderError as error:
                road.emit(attempt_done(answer_id, opened.model, opened.started_at, error=error))
                raise
            else:
                road.emit(attempt_done(answer_id, opened.model, opened.started_at, ttft_s=tally.ttft_s))
            finally:
                opened.reply.close()
    except SlipwayError as error:
        tally.error = error.code
        raise
    except asyncio.CancelledError:
        tally.error = "client_gone"
        raise
    finally:
        road.emit(tally.done())  # settle


async def relay(opened: Opened, tally: Tally, outlet: Outlet) -> None:
    usage: Usage | None = None
    pieces = opened.first
    try:
        while pieces:
            for piece in pieces:
                if piece.spoke and tally.first_at is None:
                    tally.words()
                if piece.usage is not None:
                    usage = piece.usage
            await outlet.write(pieces[0].raw if len(pieces) == 1 else b"".join([p.raw for p in pieces]))
            pieces = await opened.reply.pieces()
        await outlet.end()
    finally:
        tally.book(opened.model, usage)
