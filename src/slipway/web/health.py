"""The routes of health and metrics."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from slipway.answer import Current, Pipeline
from slipway.knowledge import Knowledge
from slipway.routing import healths_of, models_of
from slipway.routing.health import HealthReport
from slipway.telemetry.gauges import GaugeRow
from slipway.telemetry.metrics import Telemetry
from slipway.telemetry.model_states import BAD, ModelState
from slipway.types import Asker
from slipway.web.descriptions import OBJECT, TEXT, WHOLE, Operation, fields, one_of
from slipway.web.responses import reply
from slipway.web.routes import ApiRoute

READY = fields(
    status=one_of("ready", "starting"), state=one_of("ok", "degraded"), models=WHOLE, health=OBJECT
)


class Workers(Protocol):
    """What a worker knows of the others."""

    def counts(self) -> dict[str, int]:
        """Return how many workers there are (`configured`), how many run, and `restarts`."""
        ...

    async def model_states(self) -> Sequence[Mapping[str, ModelState]]:
        """Return the states of the models in the other workers."""
        ...

    async def gauges(self) -> Sequence[Sequence[GaugeRow]]:
        """Return what the other workers know beside what they counted."""
        ...


class Sharing(Protocol):
    """Whether limits hold for all servers together now; None until that is known."""

    is_together: bool | None
    servers: int


class HealthRoutes:
    """Handles `/healthz`, `/readyz` and `/metrics`."""

    def __init__(
        self,
        current: Current,
        telemetry: Telemetry,
        settings_state: Callable[[Asker], dict[str, Any]],
    ) -> None:
        """`settings_state` returns the state of the settings, empty if they never change."""
        self.current, self.telemetry, self.settings_state = current, telemetry, settings_state
        self.workers: Workers | None = None  # set if there are several
        self.sharing: Sharing | None = None  # set if servers share limits
        self.before_scrape: Callable[[], Awaitable[None]] = nothing

    async def healthz(self, request: Request) -> Response:
        """Return 200 while the process is alive; several workers are counted."""
        if self.workers is None:
            return reply({"status": "ok"})
        return reply({"status": "ok", "workers": self.workers.counts()})

    async def readyz(self, request: Request) -> Response:
        """Return 200 if anything can answer, else 503; the body says what is degraded.

        Without a known key, the body only says whether and how many models there are.
        """
        pipeline = self.current.pipeline
        asker: Asker | None = request.scope["slipway.asker"]
        known = {n: a.knowledge for n, a in pipeline.apps.items() if a.knowledge is not None}
        store = self.telemetry.store()
        ready = (
            bool(pipeline.routes)
            or any(knowledge.ready for knowledge in known.values())
            or any(app.rules and not app.knowledge for app in pipeline.apps.values())
        )
        body: dict[str, Any] = {
            "status": "ready" if ready else "starting",
            "state": "degraded" if store.reason is not None or self.is_alone() else "ok",
            "models": len(pipeline.routes),
            "knowledge": {},
            "health": {},
        }
        login = self.current.settings.login
        if login is not None and login.oidc is not None:
            body["login"] = True
        if asker is not None:
            body["knowledge"] = {
                name: readiness(knowledge, asker)
                for name, knowledge in known.items()
                if pipeline.admission.may_call(asker, name)
            }
            body["health"] = model_states(pipeline, asker)
            body["store"] = {"waiting": store.waiting}
            if store.reason is not None and (asker.everything or pipeline.admission.open):
                body["store"]["reason"] = store.reason  # it may name a host: for the operator
            if local := local_models(pipeline, asker):
                body["local"] = local
            if settings := self.settings_state(asker):
                body["settings"] = settings
        if self.sharing is not None:
            together = bool(self.sharing.is_together)
            body["limits"] = {"shared": together, "servers": self.sharing.servers}
        if self.workers is not None:
            body["workers"] = self.workers.counts()
            for states in await self.workers.model_states():
                note_worse(body["health"], states)
        return reply(body, 200 if ready else 503)

    def is_alone(self) -> bool:
        """Return whether limits should be shared, and cannot be now."""
        return self.sharing is not None and self.sharing.is_together is False

    async def metrics(self, request: Request) -> Response:
        """Return the metrics in the format that the scraper asks for.

        A key that is limited to some names sees only their metrics.
        """
        asker: Asker = request.scope["slipway.asker"]
        await self.before_scrape()
        others = () if self.workers is None else await self.workers.gauges()
        accept, settings = request.headers.get("accept", ""), self.current.settings.metrics
        text, kind = self.telemetry.render(accept, asker.apps, others, settings.compatible)
        return Response(text, media_type=kind)

    def paths(self) -> list[ApiRoute]:
        """Return the routes."""
        return [
            ApiRoute(
                "/healthz",
                self.healthz,
                methods=["GET"],
                does=Operation(
                    about="whether the process is alive", returns=fields(status=one_of("ok"))
                ),
            ),
            ApiRoute(
                "/readyz",
                self.readyz,
                methods=["GET"],
                does=Operation(
                    about="whether something can answer, and what is degraded",
                    returns=READY,
                    also={503: READY},
                ),
            ),
            ApiRoute(
                "/metrics",
                self.metrics,
                methods=["GET"],
                does=Operation(
                    about="metrics for Prometheus",
                    sends=("text/plain", "application/openmetrics-text"),
                    returns=TEXT,
                ),
            ),
        ]


async def nothing() -> None:
    """Do nothing before a scrape."""


def note_worse(health: dict[str, HealthReport], states: Mapping[str, ModelState]) -> None:
    """Add what another worker knows of the models in `health`: a worse state, and more calls."""
    for name, other in states.items():
        if (own := health.get(name)) is not None:
            health[name] = msgspec.structs.replace(
                own,
                state=max(own.state, other.state, key=BAD.index),
                busy=own.busy + (other.running or 0),
                waiting=own.waiting + (other.waiting or 0),
            )


def local_models(pipeline: Pipeline, asker: Asker) -> dict[str, str]:
    """Return the state of each local model that the asker may call."""
    return {
        model.name: model.state
        for model in models_of(pipeline.routes.values())
        if model.state is not None and pipeline.admission.may_call(asker, model.name)
    }


def model_states(pipeline: Pipeline, asker: Asker) -> dict[str, HealthReport]:
    """Return the breaker state and the calls of each model that the asker may call."""
    return {
        name: health.report()
        for name, health in healths_of(pipeline.routes.values()).items()
        if pipeline.admission.may_call(asker, name)
    }


def readiness(knowledge: Knowledge, asker: Asker) -> dict[str, Any]:
    """Return how far an app's documents are read; counts only what the asker may read."""
    counts = knowledge.counts(asker)
    return {
        "ready": knowledge.ready,
        "read": f"{int(100 * knowledge.read_share)} %",
        "documents": counts.documents,
        "failed": counts.failed,
        "passages": counts.passages,
        "dense": knowledge.dense_state(asker),
    }
