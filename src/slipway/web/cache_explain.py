"""The route that explains whether a question would get the answer of a similar one."""

import time
from collections.abc import Callable

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from slipway.answer import Current
from slipway.answer.kept_answers import KeptAsk
from slipway.answer.similar import explain
from slipway.errors import BadRequest, Forbidden, ModelNotFound
from slipway.types import Asker, Message, Question, new_answer_id
from slipway.web.descriptions import Operation
from slipway.web.guard import Guard
from slipway.web.names import check_name
from slipway.web.request_json import parse_json
from slipway.web.responses import reply
from slipway.web.routes import ApiRoute

_MAX_KB = 64.0


class ExplainRequest(msgspec.Struct, forbid_unknown_fields=True):
    """`tenant` and `groups` say for whom; only the operator may name others than the key's own."""

    app: str
    question: str
    tenant: str | None = None
    groups: tuple[str, ...] | None = None


decode = msgspec.json.Decoder(ExplainRequest).decode


class CacheExplainRoutes:
    """Handles `POST /v1/cache/explain`."""

    def __init__(self, current: Current, guard: Callable[[], Guard]) -> None:
        self.current, self.guard = current, guard

    async def explain(self, request: Request) -> Response:
        """Return the near questions, the guards that refuse them, the score and the bound."""
        body = await self.guard().body(request.scope, request.receive, _MAX_KB)
        wanted: ExplainRequest = parse_json(body, decode)
        asker = self.asker_for(wanted, request.scope["slipway.asker"])
        pipeline = self.current.pipeline
        check_name(pipeline, wanted.app, request.scope["slipway.asker"])
        app = pipeline.apps.get(wanted.app)
        if app is None or app.cache is None:
            raise BadRequest(
                f"`{wanted.app[:200]}` keeps no answers of an app.",
                "Name an app with `cache: {exact: 1h, semantic: 1%}`.",
                param="app",
            )
        if not wanted.question.strip():
            raise BadRequest("`question` is empty.", "Send a question.", param="question")
        question = Question(
            id=new_answer_id(),
            app=app.name,
            text=wanted.question,
            messages=(Message(role="user", content=wanted.question),),
            asker=asker,
            asked_at=time.monotonic(),
        )
        return reply(await explain(KeptAsk(pipeline, app, app.cache, question, "explain")))

    def asker_for(self, wanted: ExplainRequest, asker: Asker) -> Asker:
        """Return for whom it is explained. The questions of others are shown, so an ordinary key
        may not ask.
        """
        may_choose = asker.everything or self.current.pipeline.admission.open
        if not may_choose and not asker.documents:
            raise Forbidden(
                "This key may not see what others asked.",
                "Use a key with `documents: true`, or the command on the server's machine.",
            )
        if not may_choose and (wanted.tenant is not None or wanted.groups is not None):
            raise Forbidden(
                "This key may explain for its own tenant and groups only.",
                "Leave `tenant` and `groups` out, or use the command on the server's machine.",
            )
        return msgspec.structs.replace(
            asker,
            tenant=wanted.tenant or asker.tenant,
            groups=asker.groups if wanted.groups is None else frozenset(wanted.groups),
            everything=False,
        )

    def paths(self) -> list[ApiRoute]:
        return [
            ApiRoute(
                "/v1/cache/explain",
                self.explain,
                methods=["POST"],
                does=Operation(
                    about="whether a question would get the answer of a similar one, and why",
                    body=ExplainRequest,
                    errors=(Forbidden, ModelNotFound),
                ),
            )
        ]
