"""The route that tells the page who asks, and what it may offer."""

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from slipway.answer import Current
from slipway.knowledge.readers import READERS
from slipway.login import Person
from slipway.providers import encode_json
from slipway.web.descriptions import OBJECT, TEXT, YES_NO, Operation, fields, or_null
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
            "attach": self.attach(),
        }
        return Response(encode_json(body), media_type="application/json")

    def attach(self) -> dict[str, Any] | None:
        """Say which files may be attached; None if no app has documents."""
        if not any(app.knowledge for app in self.current.settings.apps.values()):
            return None
        return {
            "kinds": list(READERS),
            "largest_mb": self.current.settings.limits.document_mb,
            "apps": [name for name, app in self.current.settings.apps.items() if app.knowledge],
        }

    def paths(self) -> list[ApiRoute]:
        return [
            ApiRoute(
                "/v1/session",
                self.session,
                methods=["GET"],
                does=Operation(
                    about="who asks, and what the page may offer",
                    returns=fields(
                        person=or_null(TEXT),
                        logout=YES_NO,
                        conversations=TEXT,
                        attach=or_null(OBJECT),
                    ),
                ),
            )
        ]
