"""The route of traces: what happened to an answer, by its id."""

from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from slipway.answer import Current
from slipway.errors import NotFound
from slipway.types import Asker
from slipway.web.descriptions import Operation
from slipway.web.responses import reply
from slipway.web.routes import ApiRoute

# (answer's id, owner or None for all owners) -> the trace
Find = Callable[[str, str | None], dict[str, Any] | None]
FindElsewhere = Callable[[str, str | None], Awaitable[dict[str, Any] | None]]
NOT_KEPT = (
    "Traces cover the last 2,000 finished answers, and only the key that asked can see one; "
    "the server's log may say more."
)
REJECTED = (
    "A reference that begins with `ref-` belongs to a request that was rejected before an answer "
    "began; search for it in the server's log."
)


class TraceRoutes:
    """Handles `GET /v1/traces/{id}`."""

    def __init__(
        self, current: Current, find: Find, find_elsewhere: FindElsewhere | None = None
    ) -> None:
        """`find_elsewhere` looks in the other workers, if there are any."""
        self.current, self.find, self.find_elsewhere = current, find, find_elsewhere

    async def one(self, request: Request) -> Response:
        """Return the trace of an answer that the asker owns.

        The operator sees all traces, and so does everybody if there are no keys.
        """
        asker: Asker = request.scope["slipway.asker"]
        all_of_them = asker.everything or self.current.pipeline.admission.open
        wanted, owner = request.path_params["id"], None if all_of_them else asker.owner
        found = self.find(wanted, owner)
        if found is None and self.find_elsewhere is not None:
            found = await self.find_elsewhere(wanted, owner)
        if found is None:
            where = REJECTED if request.path_params["id"].startswith("ref-") else NOT_KEPT
            raise NotFound("There is no trace of this reference.", where, param="id")
        return reply(found)

    def paths(self) -> list[ApiRoute]:
        return [
            ApiRoute(
                "/v1/traces/{id}",
                self.one,
                methods=["GET"],
                does=Operation(
                    about="what happened to an answer, by its reference", errors=(NotFound,)
                ),
            )
        ]
