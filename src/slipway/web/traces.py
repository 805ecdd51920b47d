"""The route of traces: what happened to an answer, by its id."""

from collections.abc import Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from slipway.answer import Current
from slipway.errors import NotFound
from slipway.providers import encode_json
from slipway.types import Asker
from slipway.web.routes import ApiRoute

Find = Callable[
    [str, str | None], dict[str, Any] | None
]  # the trace of an answer of this owner; of anybody's where that is None
ELSEWHERE = "The latest answers are found once they have ended, by the key that asked; look for others in the server's log."
REFUSED = "What begins with `ref-` was refused before an answer began: the server's log has a line with it."


class TraceRoutes:
    """Handle `GET /v1/traces/{id}`."""

    def __init__(self, current: Current, find: Find) -> None:
        self.current, self.find = current, find

    async def one(self, request: Request) -> Response:
        """An answer belongs to its key; the operator, and everybody where there are no keys, may
        see all.
        """
        asker: Asker = request.scope["slipway.asker"]
        all_of_them = asker.everything or self.current.pipeline.admission.open
        found = self.find(request.path_params["id"], None if all_of_them else asker.owner)
        if found is None:
            where = REFUSED if request.path_params["id"].startswith("ref-") else ELSEWHERE
            raise NotFound("There is no trace of that reference.", where, param="id")
        return Response(encode_json(found), media_type="application/json")

    def paths(self) -> list[ApiRoute]:
        return [ApiRoute("/v1/traces/{id}", self.one, methods=["GET"])]
