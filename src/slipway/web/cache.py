"""The routes of the cache: remove kept answers, and report what the cache saved."""

from collections.abc import Callable, Iterable
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from slipway.answer import Current
from slipway.cache import AnswerCache, Selection
from slipway.errors import BadRequest, Forbidden, NotFound
from slipway.settings.known_names import suggest
from slipway.telemetry.metrics import Telemetry
from slipway.telemetry.savings import savings_report
from slipway.types import Asker
from slipway.web.descriptions import ANYTHING, OBJECT, WHOLE, YES_NO, Operation, fields
from slipway.web.guard import Guard
from slipway.web.request_json import parse_json
from slipway.web.responses import reply
from slipway.web.routes import ApiRoute

MAX_KB = 64.0
FIELDS = "`app`, `tag`, `document` or `key`"


class InvalidateRequest(msgspec.Struct, forbid_unknown_fields=True):
    app: str | None = None
    tag: str | None = None
    document: str | None = None
    key: str | None = None


decode = msgspec.json.Decoder(InvalidateRequest).decode


def did_you_mean(word: str, names: Iterable[str]) -> str:
    """Return a sentence that names what may be meant."""
    hint = suggest(word, names)
    return f"{hint[:1].upper()}{hint[1:]}" + ("" if hint.endswith("?") else ".")


class CacheRoutes:
    """The handlers. `guard` reads request bodies."""

    def __init__(
        self,
        current: Current,
        cache: AnswerCache,
        telemetry: Telemetry,
        guard: Callable[[], Guard],
    ) -> None:
        self.current, self.cache, self.telemetry, self.guard = current, cache, telemetry, guard

    async def invalidate(self, request: Request) -> Response:
        """Remove the kept answers that match every field of the request."""
        asker = self.manager(request)
        body = await self.guard().body(request.scope, request.receive, MAX_KB)
        selection = self.selection(parse_json(body, decode), asker)
        removed, everywhere = await self.cache.invalidate(selection)
        said: dict[str, Any] = {"invalidated": removed, "everywhere": everywhere}
        if not removed:
            named = " and ".join(f"{name} `{value}`" for name, value in selection.names())
            said["note"] = f"No kept answer matches {named}, so nothing was removed."
        if not everywhere:
            said["note"] = (
                "Redis does not answer now. The answers that other servers share are removed as "
                "soon as it does."
            )
        return reply(said)

    def selection(self, sent: InvalidateRequest, asker: Asker) -> Selection:
        """Return what to remove. Raise BadRequest or NotFound for what cannot match anything."""
        fields = {name: value for name, value in msgspec.structs.asdict(sent).items() if value}
        if not fields:
            raise BadRequest("It is not said what to remove.", f"Send {FIELDS}.")
        pipeline = self.current.pipeline
        names = [n for n in pipeline.names if pipeline.admission.may_call(asker, n)]
        if sent.app and sent.app not in names:
            raise NotFound(
                f"There is no app, route or model `{sent.app[:100]}`.",
                did_you_mean(sent.app, names),
                param="app",
            )
        if sent.document:
            fields["document"] = self.path_of(sent.document, asker)
        mine = None if self.is_operator(asker) else asker.tenant
        return Selection(tenant=mine, apps=asker.apps, **fields)

    def path_of(self, document: str, asker: Asker) -> str:
        """Return a document's path; it may be named by its id."""
        if document.startswith("doc-"):
            pipeline = self.current.pipeline
            for name, app in pipeline.apps.items():
                if app.knowledge is None or not pipeline.admission.may_call(asker, name):
                    continue
                if found := app.knowledge.document(document, asker):
                    return found.path
        return document

    async def report(self, request: Request) -> Response:
        """Return what was saved, and what is kept, since the server started."""
        asker = self.manager(request)
        sums = self.telemetry.sums()
        removed = {cause: int(count) for (cause,), (count,) in sums["cache_removed"].items()}
        return reply(
            {
                "since": self.telemetry.started_at,
                "saved": savings_report(sums, asker.apps),
                "kept": {**msgspec.structs.asdict(self.cache.stats()), "removed": removed},
            }
        )

    def manager(self, request: Request) -> Asker:
        """Return the asker. Raise Forbidden if it may not manage the cache."""
        asker: Asker = request.scope["slipway.asker"]
        if not (asker.documents or self.is_operator(asker)):
            raise Forbidden(
                "This key may not manage the cache.", "Use a key with `documents: true`."
            )
        return asker

    def is_operator(self, asker: Asker) -> bool:
        return asker.everything or self.current.pipeline.admission.open

    def paths(self) -> list[ApiRoute]:
        return [
            ApiRoute(
                "/v1/cache/invalidate",
                self.invalidate,
                methods=["POST"],
                does=Operation(
                    about="removes kept answers by `app`, `tag`, `document` or `key`",
                    body=InvalidateRequest,
                    returns=fields(invalidated=WHOLE, everywhere=YES_NO),
                    errors=(Forbidden, NotFound),
                ),
            ),
            ApiRoute(
                "/v1/cache/report",
                self.report,
                methods=["GET"],
                does=Operation(
                    about="what kept answers saved, and what is kept",
                    returns=fields(since=WHOLE, saved=ANYTHING, kept=OBJECT),
                    errors=(Forbidden,),
                ),
            ),
        ]
