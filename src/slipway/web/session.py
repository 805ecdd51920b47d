"""The route that tells the page who asks, and what it may offer."""

from starlette.requests import Request
from starlette.responses import Response

from slipway.answer import Pipeline
from slipway.providers import encode_json
from slipway.settings import Settings
from slipway.web.routes import ApiRoute


class SessionRoutes:
    def __init__(self, settings: Settings, pipeline: Pipeline) -> None:
        self.take(settings, pipeline)

    def take(self, settings: Settings, pipeline: Pipeline) -> None:
        self.settings = settings

    async def session(self, request: Request) -> Response:
        body = {"person": None, "logout": False, "conversations": "browser", "attach": None}
        return Response(encode_json(body), media_type="application/json")

    def paths(self) -> list[ApiRoute]:
        return [ApiRoute("/v1/session", self.session, methods=["GET"])]
