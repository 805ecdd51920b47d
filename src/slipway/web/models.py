"""The routes of models and passages."""

import asyncio
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from slipway.answer import Current, Pipeline
from slipway.errors import ModelNotFound
from slipway.types import Asker
from slipway.web.descriptions import OBJECT, TEXT, WHOLE, Operation, fields, list_of, one_of
from slipway.web.names import callable_names, check_name
from slipway.web.responses import reply
from slipway.web.routes import ApiRoute

MODEL = fields(
    id=TEXT, object=one_of("model"), created=WHOLE, owned_by=TEXT, slipway=OBJECT
)  # as OpenAI describes a model, and our own field


class ModelRoutes:
    """Handles `/v1/models` and `/v1/passages`."""

    def __init__(self, current: Current, started_at: int) -> None:
        """`started_at` is in seconds since 1970; OpenAI's model objects have a creation time."""
        self.current, self.started_at = current, started_at

    async def models(self, request: Request) -> Response:
        """List the names that the asker may call."""
        pipeline, asker = self.current.pipeline, request.scope["slipway.asker"]
        names = callable_names(pipeline, asker)
        rows = await asyncio.to_thread(lambda: [self.row(pipeline, n, asker) for n in names])
        return reply({"object": "list", "data": rows})

    async def model(self, request: Request) -> Response:
        """Return one name."""
        pipeline, asker = self.current.pipeline, request.scope["slipway.asker"]
        name = request.path_params["name"]
        check_name(pipeline, name, asker)
        return reply(await asyncio.to_thread(self.row, pipeline, name, asker))

    def row(self, pipeline: Pipeline, name: str, asker: Asker) -> dict[str, Any]:
        """Return a name as OpenAI's model object. Slow: an app's example questions may be read."""
        app = pipeline.apps.get(name)
        if app is None:
            candidates = pipeline.routes[name].candidates
            kind = "route" if len(candidates) > 1 else "model"
            owner, about, examples = candidates[0].model.kind, "", list[str]()
        else:
            settings = self.current.settings.apps[name]
            kind, owner, about = "app", "slipway", settings.about
            examples = list(settings.examples)
            if not examples and app.knowledge is not None:
                examples = app.knowledge.examples(asker)
        return {
            "id": name,
            "object": "model",
            "created": self.started_at,
            "owned_by": owner,
            "slipway": {"kind": kind, "about": about, "examples": examples},
        }

    def paths(self) -> list[ApiRoute]:
        """Return the routes."""
        return [
            ApiRoute(
                "/v1/models",
                self.models,
                methods=["GET"],
                does=Operation(
                    about="the names that this key may call",
                    returns=fields(object=one_of("list"), data=list_of(MODEL)),
                ),
            ),
            ApiRoute(
                "/v1/models/{name:path}",
                self.model,
                methods=["GET"],
                does=Operation(about="one of them", returns=MODEL, errors=(ModelNotFound,)),
            ),
        ]
