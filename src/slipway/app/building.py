"""The ASGI app, and everything that lives as long as it does."""

import asyncio
import gc
import logging
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

from starlette.routing import Router

from slipway.admission import Admission
from slipway.admission.limits import Scope
from slipway.answer import Current
from slipway.answer.pace import Pace
from slipway.app.compiling import Carried, compile_pipeline, models_for
from slipway.app.reloading import Compiled, Reloading
from slipway.app.stores import LazyStore, has_knowledge, synchronizers_for
from slipway.errors import SettingsError
from slipway.feedback import Feedback
from slipway.knowledge.attachments import Attachments
from slipway.login.sessions import Sealer
from slipway.routing import healths_of
from slipway.settings import Settings
from slipway.settings.live import LiveSettings
from slipway.settings.loading import Loaded
from slipway.store import LedgerWriter, StoreError
from slipway.telemetry.metrics import Telemetry
from slipway.telemetry.traces import Traces
from slipway.types import AnswerDone, AttemptDone, FeedbackGiven
from slipway.web.answers import AnswerRoutes
from slipway.web.attachments import AttachmentRoutes
from slipway.web.chat import ChatRoutes
from slipway.web.conversations import ConversationRoutes
from slipway.web.documents import DocumentRoutes
from slipway.web.feedback import FeedbackRoutes
from slipway.web.guard import Guard
from slipway.web.health import HealthRoutes
from slipway.web.login import LoginRoutes
from slipway.web.models import ModelRoutes
from slipway.web.pages import page_paths
from slipway.web.passages import PassageRoutes
from slipway.web.routes import ApiRoute, not_found
from slipway.web.session import SessionRoutes
from slipway.web.spending import SpendingRoutes
from slipway.web.traces import TraceRoutes

log = logging.getLogger("slipway")
FLUSH_S = 5.0  # how long new budgets wait for rows that are not saved yet
UNLISTED = ("/favicon.ico", "/static/{name:path}")  # paths that a 404 does not suggest


def build(settings: Settings) -> Guard:
    """Return the ASGI app of settings that never change."""
    return Assembly(LazyStore(settings), LiveSettings(Loaded(settings=settings, file=None))).asgi


class Assembly:
    """Build the ASGI app from the settings, and own what lives as long as it does.

    `asgi` is the app, `current` holds the pipeline that it serves, and `reloading` replaces that
    pipeline when the settings file changes. Documents are read after the start, in a thread.
    """

    def __init__(self, store: LazyStore, live: LiveSettings) -> None:
        self.store, self.traces = store, Traces()
        self._sealer: Sealer | None = None
        self.ledger = LedgerWriter(store)
        self.carried = Carried(emit=self.emit, live=live, pace=Pace(store), books=self.ledger)
        self.feedback = Feedback(store, self.emit)
        settings = live.found.settings
        compiled = self.compile(settings, None)
        compiled.pipeline.admission.use_limits()
        self.current = Current(settings, compiled.pipeline)
        self.telemetry = Telemetry(
            lambda: self.carried.in_flight_total.count,
            lambda: healths_of(self.current.pipeline.routes.values()),
        )
        self.reloading = Reloading(live, compiled, self.compile, self.apply, self.count_reload)
        self.attachments = Attachments()
        self.answers = AnswerRoutes(
            self.current, lambda: self.asgi, self.feedback.note, self.attachments
        )
        self.asgi: Guard = self.route()

    def emit(self, record: AnswerDone | AttemptDone | FeedbackGiven) -> None:
        """Hand a record of the pipeline to those who watch it."""
        self.telemetry.emit(record)
        self.traces.emit(record)
        if isinstance(record, AttemptDone) and record.error is not None:
            log.warning("%s: model %s failed: %s", record.answer_id, record.model, record.error)

    def compile(self, settings: Settings, before: Compiled | None) -> Compiled:
        """Compile the settings, taking over from `before` what did not change."""
        models = models_for(settings, before.models if before else {})
        synchronizers = synchronizers_for(
            settings, self.store, before.synchronizers if before else {}
        )
        operator = self.store().token if synchronizers else None
        pipeline = compile_pipeline(settings, models, synchronizers, self.carried, operator)
        self.load_spent(pipeline.admission)
        return Compiled(
            settings=settings,
            pipeline=pipeline,
            models=models,
            synchronizers={
                settings.apps[name].knowledge: synchronizer
                for name, synchronizer in synchronizers.items()
            },
        )

    def load_spent(self, admission: Admission) -> None:
        """Begin new budgets with what the ledger has; only budgets open a store."""

        def spent(scope: Scope, since: float) -> dict[str, int]:
            self.ledger.flush(FLUSH_S)
            try:
                return self.ledger.ledger().spent(scope, since)
            except StoreError as error:
                what = f"the budgets cannot be loaded ({error})"
                raise SettingsError([f"store: {what}; mend the store, or try again"]) from None

        admission.load_spent(spent)

    def apply(self, compiled: Compiled) -> None:
        """Serve the next questions with these settings."""
        compiled.pipeline.admission.use_limits()
        self.current.replace(compiled.settings, compiled.pipeline)
        self.load_pace()

    def count_reload(self, outcome: str) -> None:
        self.telemetry.count("reloads", (outcome,))

    def load_pace(self) -> None:
        """Load what earlier answers taught of the models' pace; only documents open a store."""
        if has_knowledge(self.current.settings):
            self.carried.pace.keep()

    def route(self) -> Guard:
        """Return the ASGI app: the guard in front of the fast handlers and of all other routes."""
        chat = ChatRoutes(self.current, lambda: self.asgi, self.feedback.note)
        paths = [
            *ModelRoutes(self.current, self.telemetry.started_at).paths(),
            *self.answers.paths(),
            *HealthRoutes(self.current, self.telemetry, self.reloading.status).paths(),
            *FeedbackRoutes(self.feedback, self.answers.runs, lambda: self.asgi).paths(),
            *DocumentRoutes(self.current).paths(),
            *TraceRoutes(self.current, self.traces.find).paths(),
            *SpendingRoutes(self.current, self.ledger.ledger, self.ledger.flush).paths(),
            *PassageRoutes(self.current, self.attachments).paths(),
            *AttachmentRoutes(self.current, self.attachments).paths(),
            *SessionRoutes(self.current).paths(),
            *LoginRoutes(self.current, self.sealer).paths(),
            *ConversationRoutes(self.current, self.store, lambda: self.asgi).paths(),
            *page_paths(self.current),
        ]
        fast = {
            "/v1/chat/completions": chat.chat,
            "/v1/completions": chat.complete,
            "/v1/answers": self.answers.ask,
        }
        router = Router(
            paths,
            default=not_found([*(f"POST {path}" for path in fast), *listed(paths)]),
            lifespan=self.lifespan,
            redirect_slashes=False,
        )
        guard = Guard(self.current, fast, router, self.sealer)
        guard.shutdown.stop_answers = self.answers.runs.stop
        return guard

    def sealer(self) -> Sealer:
        """Return what signs cookies, with the store's secret."""
        self._sealer = self._sealer or Sealer(self.store().secret)
        return self._sealer

    @asynccontextmanager
    async def lifespan(self, _: Any) -> AsyncIterator[None]:
        """Start the background work, and end it in the order in which it depends on the rest."""
        self.reloading.start()
        self.load_pace()
        # a later full collection need not look through what exists now: that held the loop 20 ms
        gc.freeze()
        yield
        await self.reloading.stop()
        await self.answers.runs.close(self.asgi.shutdown.left_s())
        await self.carried.pace.close()
        await self.reloading.close()
        await self.feedback.close()
        await asyncio.to_thread(self.ledger.close)
        if self.store.store is not None:
            self.store.store.close()


def listed(paths: Iterable[ApiRoute]) -> list[str]:
    """Return `METHOD /path` of each route that a 404 should suggest."""
    return [
        f"{min(p.methods or {'GET'})} {p.path}".replace(":path", "")
        for p in paths
        if p.path not in UNLISTED
    ]
