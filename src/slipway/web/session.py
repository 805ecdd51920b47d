"""The route that tells the page who asks, and what it may offer."""

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from slipway.answer import Current
from slipway.knowledge.readers import READERS
from slipway.login import Person
from slipway.providers import encode_json
from slipway.types import Asker
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
            "attach": self.attach(request.scope["slipway.asker"]),
        }
        return Response(encode_json(body), media_type="application/json")

    def attach(self, asker: Asker) -> dict[str, Any] | None:
        """Say which files may be attached, and to which apps; None if none has documents. Apps that
        the asker may not call do not exist for it.
        """
        settings, admission = self.current.settings, self.current.pipeline.admission
        apps = [
            name
            for name, app in settings.apps.items()
            if app.knowledge and admission.may_call(asker, name)
        ]
        if not apps:
            return None
        return {
            "kinds": list(READERS),
            "largest_mb": settings.limits.document_mb,
            "apps": apps,
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
