"""The route that tells the page who asks, and what it may offer."""

from starlette.requests import Request
from starlette.responses import Response

from slipway.answer import Current
from slipway.login import Person
from slipway.providers import encode_json
from slipway.web.routes import ApiRoute


class SessionRoutes:
    def __init__(self, current: Current) -> None:
        self.current = current

    async def session(self, request: Request) -> Response:
        person: Person | None = request.scope.get("slipway.person")
        settings = self.current.settings
        body = {
            "person": person.name if person else None,
            "logout": person is not None and person.issuer != "proxy",
            "conversations": settings.conversations,
            "attach": None,
        }
        return Response(encode_json(body), media_type="application/json")

    def paths(self) -> list[ApiRoute]:
        return [ApiRoute("/v1/session", self.session, methods=["GET"])]
