"""The ASGI app, and everything that lives as long as it does."""

import asyncio
import gc
import hashlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from starlette.routing import Router

from slipway.admission import Admission, InFlight, Meters, SharedLimits, load_spent
from slipway.admission.limits import Meter, Scope
from slipway.answer import Current
from slipway.answer.pace import Pace
from slipway.app.alerting import Alerting
from slipway.app.compiling import Carried, compile_pipeline, models_for
from slipway.app.gauges import MetricReader, edges_of
from slipway.app.key_watch import KeyWatch
from slipway.app.observing import Observing
from slipway.app.reloading import Compiled, Reloading
from slipway.app.rulebooks import collected_from
from slipway.app.sampling import Sampling
from slipway.app.stores import LazyRecords, LazyStore, has_knowledge, synchronizers_for
from slipway.cache import AnswerCache
from slipway.feedback import Feedback
from slipway.keys import KeyDesk
from slipway.knowledge.attachments import Attachments
from slipway.login.sessions import Sealer
from slipway.routing import Health, healths_of
from slipway.settings import Allowance, Settings
from slipway.settings.live import LiveSettings
from slipway.settings.loading import Loaded
from slipway.store import LedgerWriter, RowWriter, StoreError
from slipway.store.redis import SharedRedis
from slipway.telemetry.metrics import Telemetry
from slipway.telemetry.service import ServiceReports, goals_of
from slipway.types import (
    AnswerDone,
    Answered,
    AttemptDone,
    FeedbackGiven,
    PipelineRecord,
    RuleUsed,
    SemanticLooked,
    StoreState,
)
from slipway.web.access_notes import AccessNotes
from slipway.web.alerts import AlertRoutes
from slipway.web.answers import ASK, AnswerRoutes
from slipway.web.asgi import AsgiApp, through_asgi
from slipway.web.attachments import AttachmentRoutes
from slipway.web.cache import CacheRoutes
from slipway.web.cache_explain import CacheExplainRoutes
from slipway.web.chat import CHAT, COMPLETION, ChatRoutes
from slipway.web.checking import CheckRoutes
from slipway.web.conversations import ConversationRoutes
from slipway.web.documents import DocumentRoutes
from slipway.web.feedback import FeedbackRoutes
from slipway.web.guard import Guard, Handler
from slipway.web.health import HealthRoutes, Workers
from slipway.web.keys import KeyRoutes
from slipway.web.login import LoginRoutes
from slipway.web.models import ModelRoutes
from slipway.web.openapi import OpenApiRoutes, described
from slipway.web.operations import OperationsRoutes
from slipway.web.pages import page_paths
from slipway.web.passages import PassageRoutes
from slipway.web.routes import ApiRoute, not_found
from slipway.web.session import SessionRoutes
from slipway.web.spending import SpendingRoutes
from slipway.web.traces import TraceRoutes

log = logging.getLogger("slipway")
FLUSH_S = 5.0  # how long budgets wait for rows of before that are not saved yet
LOAD_S = 1.0  # between two tries to load budgets while the store is down
# Objects until a collection of each generation. Python's own (700, 10, 10) look through the latest
# traces and open answers so often that a sixth of a request's time goes into it
GC_THRESHOLDS = (20_000, 20, 50)
FAST = {"/v1/chat/completions": CHAT, "/v1/completions": COMPLETION, "/v1/answers": ASK}
# kind of record -> what keeps records with their time, and who watches them
Watch = Callable[[Any], object]
Watching = Mapping[type, tuple[Sequence[Watch], Sequence[Watch]]]
UNLISTED = ("/favicon.ico", "/static/{name:path}")  # paths that a 404 does not suggest


def build(settings: Settings) -> Guard:
    """Return the ASGI app of settings that never change."""
    return Assembly(LazyStore(settings), LiveSettings(Loaded(settings=settings, file=None))).asgi


class Assembly:
    """Build the ASGI app from the settings, and own what lives as long as it does.

    `asgi` is the app, `current` holds the pipeline that it serves, and `reloading` replaces that
    pipeline when the settings file changes. Documents are read after the start, in a thread.
    """

    def __init__(
        self, store: LazyStore, live: LiveSettings, records: LazyRecords | None = None
    ) -> None:
        self.store = store
        self._sealer: Sealer | None = None
        settings = live.found.settings
        self.records = records or LazyRecords(settings)
        self.observing = Observing(self.records.folder / "traces", settings, self.count)
        self.traces = self.observing.traces
        self.writer = RowWriter(self.records, self.records.folder / "journal")
        holds = self.records.folder / "holds"
        self.ledger = LedgerWriter(self.writer, holds, lambda: self.records().ledger)
        self.redis = SharedRedis(settings.shared) if settings.shared is not None else None
        meters = Meters()
        self.shared_limits = self.share_limits(meters)
        self.carried = Carried(
            emit=self.emit,
            meters=meters,
            shared=self.shared_limits,
            live=live,
            pace=Pace(self.records),
            books=self.ledger,
            in_flight_total=self.in_flight(),
            cache=AnswerCache(settings.cache.memory_mb, settings.cache.answer_kb, redis=self.redis),
        )
        self.key_watch = KeyWatch(self.records, self.carried.keys)
        self.key_watch.look()
        self.feedback = Feedback(
            self.records, self.writer, self.emit, self.carried.cache.semantic.hear
        )
        self.reader = MetricReader(lambda: self.current.pipeline, settings.metrics)
        compiled = self.compile(settings, None)
        compiled.pipeline.admission.use_limits()
        meters.late.clear()  # no call began before these limits
        self.current = Current(settings, compiled.pipeline)
        self.key_watch.before_use = self.load_key_budgets
        self.telemetry = self.count_answers()
        self.watching = self.watch_records()
        self.watch_engines(settings)
        self.sampling = self.sample_metrics()
        self.alerting = (
            Alerting(self.sampling, lambda: self.current.settings)
            if self.sampling is not None
            else None
        )
        self.carried.cache.removed = lambda cause: self.telemetry.count("cache_removed", (cause,))
        self.writer.on_change = self.telemetry.note_store
        self.ledger.watch = self.telemetry.emit
        self.reloading = Reloading(live, compiled, self.compile, self.apply, self.count_reload)
        self.attachments = Attachments()
        self.answers = AnswerRoutes(self.current, lambda: self.asgi, self.note, self.attachments)
        self.asgi: Guard = self.route()

    def in_flight(self) -> InFlight:
        """Return what counts the answers in progress."""
        return InFlight()

    def share_limits(self, meters: Meters) -> SharedLimits | None:
        """Return what shares limits with other servers."""
        return None if self.redis is None else SharedLimits(self.redis, meters, self.store_id)

    def store_id(self) -> str:
        """Return what identifies the store, and reveals nothing of its secret."""
        secret = self.records.secret() or str(self.records.folder).encode()
        return hashlib.sha256(b"slipway store " + secret).hexdigest()[:12]

    def count_answers(self) -> Telemetry:
        """Return the metrics."""
        return Telemetry(
            lambda: self.carried.in_flight_total.count,
            self.healths,
            self.store_state,
            cache=self.carried.cache.stats,
            semantic=self.carried.cache.semantic.reports,
            read=self.reader.rows,
            edges=edges_of(self.current.settings),
            series=self.current.settings.metrics.series,
        )

    def sample_metrics(self) -> Sampling | None:
        """Return what keeps the metrics over time; None in workers other than the first."""
        return Sampling(self.telemetry, self.records)

    def healths(self) -> dict[str, Health]:
        """Return what is known of each model that questions may meet."""
        return healths_of(self.current.pipeline.routes.values())

    def emit(self, record: PipelineRecord | FeedbackGiven) -> None:
        """Hand a record of the pipeline to those who watch its kind."""
        queues, watchers = self.watching[type(record)]
        if queues:
            timed = (time.time(), record)
            for keep in queues:
                keep(timed)
        for watch in watchers:
            watch(record)
        if type(record) is AttemptDone and record.error is not None:
            log.warning("%s: model %s failed: %s", record.answer_id, record.model, record.error)

    def watch_records(self) -> Watching:
        """Return what keeps each kind of record until a thread writes it, and who watches it now."""
        count, queues = self.telemetry.emit, self.observing.queues
        return {
            AnswerDone: (queues(AnswerDone), [count]),
            AttemptDone: (queues(AttemptDone), [count]),
            RuleUsed: (queues(RuleUsed), [count, self.writer.add]),
            SemanticLooked: ((), [count]),
            FeedbackGiven: ((), [count, self.hear]),
        }

    def hear(self, given: FeedbackGiven) -> None:
        """Keep an answer that somebody disliked from others."""
        if given.helpful is False:
            self.carried.cache.disliked(given.answer)

    def note(self, answered: Answered) -> None:
        """Remember an answer for votes, and its texts if rules are to be found from them."""
        self.feedback.note(answered)
        collected = collected_from(answered, self.current.settings)
        if collected is not None:
            self.writer.add(collected)

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

    def load_spent(self, admission: Admission) -> bool:
        """Begin new budgets with what the ledger has; False if it cannot be read now."""
        return self._load(admission.unloaded())

    def load_key_budgets(self, limits: Mapping[str, Allowance]) -> None:
        """Begin the budgets of keys made at run time, before their limits are in force."""
        meters = self.carried.meters
        found = [meters.meter("key", owner) for owner, each in limits.items() if each.has_money]
        self._load([meter for meter in found if not meter.is_loaded])

    def _load(self, meters: Sequence[Meter]) -> bool:
        def spent(scope: Scope, since: float, until: float | None) -> dict[str, int]:
            self.wait_for_rows()
            return self.records().ledger.spent(scope, since, until)

        is_running = self.carried.in_flight_total.began > 0
        try:
            load_spent(self.carried.meters, meters, spent, is_running=is_running)
        except StoreError as error:
            log.warning("the budgets cannot be loaded (%s): their keys wait for the store", error)
            return False
        return True

    def wait_for_rows(self) -> None:
        """Wait until the ledger has all calls that have ended. Raises StoreError."""
        self.ledger.recover(FLUSH_S)

    async def load_budgets(self) -> None:
        """Load the budgets that could not be loaded before, once the store is back."""
        while True:
            await asyncio.sleep(LOAD_S)
            admission = self.current.pipeline.admission
            if not admission.is_loaded:
                await asyncio.to_thread(self.load_spent, admission)

    def apply(self, compiled: Compiled) -> None:
        """Serve the next questions with these settings."""
        compiled.pipeline.admission.use_limits()
        self.current.replace(compiled.settings, compiled.pipeline)
        self.observing.apply(compiled.settings)
        self.telemetry.bound.series = compiled.settings.metrics.series
        self.check_edges(compiled.settings)
        self.watch_engines(compiled.settings)
        cache = compiled.settings.cache
        self.carried.cache.resize(cache.memory_mb, cache.answer_kb)
        self.load_pace()

    def count(self, metric: str, labels: tuple[str, ...], by: int) -> None:
        self.telemetry.count(metric, labels, by)

    def count_reload(self, outcome: str) -> None:
        self.telemetry.count("reloads", (outcome,))

    def load_pace(self) -> None:
        """Load what earlier answers taught of the models' pace; only documents open a store."""
        if has_knowledge(self.current.settings):
            self.carried.pace.keep()

    def check_edges(self, settings: Settings) -> None:
        """Say if the buckets of the metrics have no edge at the objectives: buckets stay as they
        are.
        """
        for metric, edges in edges_of(settings).items():
            if not set(edges) <= set(self.telemetry.edges[metric]):
                log.info(
                    "slo.%s_p95: from the next start on, the metrics have an edge at %g s; until "
                    "then the share of answers within it is estimated",
                    *(metric, edges[0]),
                )

    def watch_engines(self, settings: Settings) -> None:
        """Read the metrics of the servers of these models from now on."""
        self.reader.engines.use(settings)

    async def read_metrics(self) -> None:
        """Read what other programs say for our metrics, again and again."""
        await self.reader.run(self.telemetry.count)

    def route(self) -> Guard:
        """Return the ASGI app: the guard in front of the fast handlers and of all other routes."""
        desk = KeyDesk(lambda: self.records().keys, lambda: self.current.settings)
        chat = ChatRoutes(self.current, lambda: self.asgi, self.note)
        paths = [
            *ModelRoutes(self.current, self.telemetry.started_at).paths(),
            *self.answers.paths(),
            *self.health_routes().paths(),
            *CheckRoutes(self.current).paths(),
            *FeedbackRoutes(self.feedback, self.answers.runs, lambda: self.asgi).paths(),
            *DocumentRoutes(self.current).paths(),
            *SpendingRoutes(self.current, self.ledger.ledger, self.ledger.flush).paths(),
            *CacheExplainRoutes(self.current, lambda: self.asgi).paths(),
            *CacheRoutes(
                self.current, self.carried.cache, self.telemetry, lambda: self.asgi
            ).paths(),
            *self.trace_routes().paths(),
            *self.operations_routes(),
            *self.alert_paths(),
            *PassageRoutes(self.current, self.attachments).paths(),
            *AttachmentRoutes(self.current, self.attachments).paths(),
            *SessionRoutes(self.current).paths(),
            *LoginRoutes(self.current, self.sealer, self.records).paths(),
            *ConversationRoutes(self.current, self.records, lambda: self.asgi).paths(),
            *KeyRoutes(desk, self.key_watch.look, lambda: self.asgi).paths(),
            *page_paths(self.current),
        ]
        fast = {
            "/v1/chat/completions": chat.chat,
            "/v1/completions": chat.complete,
            "/v1/answers": through_asgi(self.answers.ask),
        }
        paths += OpenApiRoutes(lambda: described(FAST, paths)).paths()
        router = Router(
            paths,
            default=not_found([*(f"POST {path}" for path in fast), *listed(paths)]),
            lifespan=self.lifespan,
            redirect_slashes=False,
        )
        guard = self.guard(fast, router)
        guard.shutdown.stop_answers = self.answers.runs.stop
        self.log_requests(guard)
        return guard

    def log_requests(self, guard: Guard) -> None:
        """Log each request, if the settings want it."""
        if self.observing.access is not None:
            guard.access = AccessNotes(self.observing.access)

    def store_state(self) -> StoreState:
        """Return how the store is, as rows and keys find it."""
        return StoreState(
            waiting=self.writer.waiting,
            lost=self.writer.lost,
            reason=self.writer.trouble or self.key_watch.why_down,
        )

    def guard(self, fast: Mapping[str, Handler], rest: AsgiApp) -> Guard:
        return Guard(self.current, fast, rest, self.sealer)

    def health_routes(self) -> HealthRoutes:
        routes = HealthRoutes(self.current, self.telemetry, self.reloading.status)
        routes.sharing = self.shared_limits
        routes.before_scrape = self.reader.refresh
        return routes

    def alert_paths(self) -> list[ApiRoute]:
        alerting = self.alerting
        return [] if alerting is None else AlertRoutes(self.current, alerting.report).paths()

    def trace_routes(self) -> TraceRoutes:
        return TraceRoutes(self.current, self.traces)

    def operations_routes(self) -> list[ApiRoute]:
        """Return the routes of the operations page; none if this process keeps no history."""
        if self.sampling is None or self.alerting is None:
            return []
        routes = OperationsRoutes(
            self.current,
            self.telemetry,
            ServiceReports(self.sampling.history, lambda: goals_of(self.current.settings.slo)),
            self.records,
            self.traces,
            self.alerting.report,
        )
        routes.workers = self.workers()
        return routes.paths()

    def workers(self) -> Workers | None:
        """Return what this process knows of other workers, if there are any."""
        return None

    def sealer(self) -> Sealer:
        """Return what signs cookies, with the store's secret."""
        if self._sealer is None:
            secret = self.records.secret()
            if secret is None:  # it is looked for again at the next request
                return Sealer(self.store().secret, self.records.ended)
            self._sealer = Sealer(secret, self.records.ended)
        return self._sealer

    @asynccontextmanager
    async def lifespan(self, _: Any) -> AsyncIterator[None]:
        """Start the background work, and end it in the order in which it depends on the rest."""
        self.reloading.start()
        self.key_watch.start()
        self.writer.start()
        self.observing.start()
        self.load_pace()
        if self.redis is not None:
            self.redis.start()
        if self.shared_limits is not None:
            self.shared_limits.start()
        self.carried.cache.start()
        if self.sampling is not None:
            self.sampling.start()
        loading = asyncio.get_running_loop().create_task(self.load_budgets())
        reading = asyncio.get_running_loop().create_task(self.read_metrics())
        # a later full collection need not look through what exists now: that held the loop 20 ms
        gc.freeze()
        usual = gc.get_threshold()
        gc.set_threshold(*GC_THRESHOLDS)
        yield
        loading.cancel()
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        await self.reader.close()
        gc.set_threshold(*usual)
        await self.reloading.stop()
        await asyncio.to_thread(self.key_watch.stop)
        await self.answers.runs.close(self.asgi.shutdown.left_s())
        await self.carried.cache.close()
        if self.shared_limits is not None:
            await self.shared_limits.close()
        if self.redis is not None:
            await self.redis.close()
        await self.carried.pace.close()
        await self.reloading.close()
        await self.feedback.close()
        await asyncio.to_thread(self.observing.close)
        await asyncio.to_thread(self.writer.close)
        if self.sampling is not None:
            await self.sampling.stop()
        if self.alerting is not None:
            await self.alerting.close()
        self.ledger.close()
        self.records.close()
        if self.store.store is not None:
            self.store.store.close()


def listed(paths: Iterable[ApiRoute]) -> list[str]:
    """Return `METHOD /path` of each route that a 404 should suggest."""
    return [
        f"{min(p.methods or {'GET'})} {p.path}".replace(":path", "")
        for p in paths
        if p.path not in UNLISTED
    ]
