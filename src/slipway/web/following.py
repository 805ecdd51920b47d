"""The HTTP side of a worker that keeps no documents: chat with models is answered here, and
everything else is sent to the first worker.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NoReturn

from starlette.requests import Request
from starlette.responses import Response

from slipway.answer import Current
from slipway.errors import Unauthorized
from slipway.web.asgi import AsgiApp, AsgiCall, Receive, Scope, Send
from slipway.web.chat import ChatRoutes
from slipway.web.exchange import Exchange
from slipway.web.guard import Guard, Handler
from slipway.web.health import HealthRoutes
from slipway.web.relay import Relay


class PassOn(Exception):
    """The first worker has to answer this request."""


class FollowerGuard(Guard):
    """Checks requests as every guard does, and passes on what it cannot decide: a key that it does
    not know may be the operator's, or its sender may be signed in. Requests of keys with limits are
    passed on as well, so that one process counts what they use.
    """

    def __init__(
        self, current: Current, fast: Mapping[str, Handler], rest: AsgiApp, relay: Relay
    ) -> None:
        super().__init__(current, fast, rest, no_sealer)
        self.relay = relay

    def check(self, exchange: Exchange) -> Handler | None:
        try:
            handler = super().check(exchange)
        except PassOn:
            return self.pass_on
        return None if handler is None else partial(self.handle_or_pass_on, handler)

    async def handle_or_pass_on(self, handler: Handler, exchange: Exchange) -> None:
        try:
            await handler(exchange)
        except PassOn:
            await self.pass_on(exchange)

    async def pass_on(self, exchange: Exchange) -> None:
        """Send the request to the first worker, and its response to the client."""
        exchange.passed_on = True
        exchange.writer = None  # nothing was written with it, and nothing will be
        call = AsgiCall(exchange)
        await self.relay(call.scope, call.receive, call.send)

    def check_key(self, exchange: Exchange) -> None:
        try:
            super().check_key(exchange)
        except Unauthorized:
            raise PassOn from None
        asker = exchange.asker
        if asker is not None and self.admission.limits_asker(asker):
            raise PassOn

    async def read(self, exchange: Exchange, most_kb: float | None = None) -> bytes:
        """Return the request's body, and keep it: the request may still be passed on."""
        body = await super().read(exchange, most_kb)
        exchange.parts = [body] if body else []
        return body


class FollowerChatRoutes(ChatRoutes):
    """Answers for models and routes; passes questions to apps on."""

    async def answer_by_app(self, *_: Any) -> NoReturn:
        raise PassOn


class FollowerHealthRoutes(HealthRoutes):
    """The whole server's readiness is the first worker's, as long as that runs."""

    is_first_running: Callable[[], bool]

    async def readyz(self, request: Request) -> Response:
        if self.is_first_running():
            raise PassOn
        return await super().readyz(request)


def no_sealer() -> NoReturn:
    """Pass on a request whose sender may be signed in: the first worker has the cookies' key."""
    raise PassOn


async def pass_on(scope: Scope, receive: Receive, send: Send) -> None:
    """Handle every request that no other handler takes."""
    if scope["type"] == "http":
        raise PassOn
