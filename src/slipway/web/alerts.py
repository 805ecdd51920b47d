"""The route of alerts: all of them with their states, for admin keys."""

from collections.abc import Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from slipway.answer import Current
from slipway.errors import Forbidden
from slipway.types import Asker
from slipway.web.descriptions import Operation
from slipway.web.responses import reply
from slipway.web.routes import ApiRoute


class AlertRoutes:
    """Handles `GET /v1/alerts`."""

    def __init__(self, current: Current, report: Callable[[], dict[str, Any]]) -> None:
        self.current, self.report = current, report

    async def all(self, request: Request) -> Response:
        """Return all alerts with their states. Raises Forbidden for a key that is no admin."""
        asker: Asker = request.scope["slipway.asker"]
        if not (asker.admin or asker.everything or self.current.pipeline.admission.open):
            raise Forbidden(
                "This key may not see the alerts.",
                "Use a key with `admin: true`, or ask its owner.",
            )
        return reply(self.report())

    def paths(self) -> list[ApiRoute]:
        about = "all alerts with their states, for an admin key"
        does = Operation(about=about, errors=(Forbidden,))
        return [ApiRoute("/v1/alerts", self.all, methods=["GET"], does=does)]
