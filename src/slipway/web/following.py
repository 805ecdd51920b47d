"""The HTTP side of a worker that keeps no documents: chat with models is answered here, and
everything else is sent to the first worker.
"""

from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from starlette.requests import Request
from starlette.responses import Response

from slipway.answer import Current
from slipway.errors import Unauthorized
from slipway.types import Asker
from slipway.web.chat import ChatRoutes
from slipway.web.guard import Guard, Handler, Receive, Scope, Send
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
        self, current: Current, fast: Mapping[str, Handler], rest: Handler, relay: Relay
    ) -> None:
        super().__init__(current, fast, rest, no_sealer)
        self.relay = relay

    async def dispatch(self, scope: Scope, receive: Receive, send: Send, *, allowed: bool) -> None:
        try:
            await super().dispatch(scope, receive, send, allowed=allowed)
        except PassOn:
            await self.relay(scope, receive, send, scope.get("slipway.body"))

    def check_key(self, scope: Scope, headers: dict[bytes, bytes]) -> None:
        try:
            super().check_key(scope, headers)
        except Unauthorized:
            raise PassOn from None
        asker: Asker | None = scope.get("slipway.asker")
        if asker is not None and self.admission.limits_asker(asker):
            raise PassOn

    async def body(self, scope: Scope, receive: Receive, most_kb: float | None = None) -> bytes:
        """Return the request's body, and keep it: the request may still be passed on."""
        body = await super().body(scope, receive, most_kb)
        scope["slipway.body"] = body
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
