"""Starlette's routes, with our errors for unknown paths and methods."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from slipway.errors import MethodNotAllowed, NotFound
from slipway.web.descriptions import Operation


class ApiRoute(Route):
    """A route that raises MethodNotAllowed for a wrong method.

    `does` describes it for /openapi.json and docs/api.md; a path that a browser loads by itself has
    none, and is in neither.
    """

    def __init__(
        self,
        path: str,
        endpoint: Callable[..., Any],
        *,
        methods: Sequence[str],
        does: Operation | None = None,
    ) -> None:
        super().__init__(path, endpoint, methods=[*methods])
        self.does = does

    @property
    def method(self) -> str:
        """Return its one method; GET answers HEAD as well."""
        (method,) = (self.methods or set()) - {"HEAD"}
        return method

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.methods and scope["method"] not in self.methods:
            here = [
                route
                for route in scope["router"].routes
                if isinstance(route, ApiRoute) and route.path_regex.match(scope["path"])
            ]
            known = sorted({method for route in here for method in route.methods or ()})
            what = f"`{scope['path'][:200]}` does not support {scope['method']}."
            usual = " or ".join(method for method in known if method != "HEAD")
            raise MethodNotAllowed(what, f"Use {usual}.", allow=tuple(known))
        await self.app(scope, receive, send)


class AsgiHandler:
    """Wraps a handler in ASGI's own form, for a route that either streams or not."""

    def __init__(self, handler: ASGIApp) -> None:
        self.handler = handler

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.handler(scope, receive, send)


def not_found(known: Iterable[str]) -> ASGIApp:
    """Return the handler of unknown paths: it raises NotFound, which lists the known ones."""
    there = ", ".join(known)

    async def handler(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            raise NotFound(
                f"There is no `{scope['method']} {scope['path'][:200]}` here.",
                f"There are: {there}.",
            )

    return handler
