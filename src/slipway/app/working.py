"""`slipway serve --workers N`: what each worker runs, and the one decision about new settings.

The first worker keeps the documents, the store, the models that run here, and the settings file.
The others answer for models and routes, and send every other request to the first.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from starlette.routing import Router

from slipway.admission import InFlight, Meters, SharedLimits
from slipway.answer import App
from slipway.app.building import FLUSH_S, Assembly
from slipway.app.compiling import compile_pipeline, models_for
from slipway.app.crew import Crew, pack, unpack
from slipway.app.reloading import Compiled
from slipway.app.sampling import Sampling
from slipway.app.stores import LazyStore
from slipway.cache import Selection
from slipway.ledger import LedgerRow
from slipway.routing import Route
from slipway.settings import Allowance, Settings
from slipway.settings.live import LiveSettings, problems_of
from slipway.settings.loading import Loaded
from slipway.store import Store, StoreError
from slipway.telemetry.metrics import Telemetry
from slipway.web.asgi import AsgiApp
from slipway.web.exchange import Exchange
from slipway.web.following import FollowerChatRoutes, FollowerGuard, FollowerHealthRoutes, pass_on
from slipway.web.guard import Guard, Handler
from slipway.web.health import HealthRoutes
from slipway.web.pages import page_paths
from slipway.web.relay import Relay, received
from slipway.web.traces import TraceRoutes
from slipway.workers import ChannelError
from slipway.workers.channel import Verb

log = logging.getLogger("slipway")
TELL_S = 0.5  # between two looks for calls of keys that have got limits
KNOWN_S = 5.0  # by then all workers know the limits of a key
PREPARE_S = 60.0  # how long the others may take to compile changed settings


class WorkerAssembly(Assembly):
    """The app of one worker; its counts are shared with the others."""

    def __init__(self, store: LazyStore, live: LiveSettings, crew: Crew) -> None:
        self.crew = crew
        super().__init__(store, live)
        self.share_memory(live.found.settings)
        self.carried.cache.others = crew.invalidate

    def apply(self, compiled: Compiled) -> None:
        super().apply(compiled)
        self.share_memory(compiled.settings)

    def share_memory(self, settings: Settings) -> None:
        """Keep answers in this worker's share of the memory that the settings give to them."""
        share_mb = settings.cache.memory_mb / self.crew.board.workers
        self.carried.cache.resize(share_mb, settings.cache.answer_kb)

    def in_flight(self) -> InFlight:
        return self.crew.in_flight()

    def count_answers(self) -> Telemetry:
        return Telemetry(
            lambda: self.carried.in_flight_total.count,
            self.healths,
            self.store_state,
            self.crew.new_row,
            self.crew.all_rows,
            self.carried.cache.stats,
            self.carried.cache.semantic.reports,
            read=self.reader.rows,
            edges=self.crew.edges,
            series=self.current.settings.metrics.series,
        )

    def workers(self) -> Crew:
        return self.crew

    def health_routes(self) -> HealthRoutes:
        routes = super().health_routes()
        routes.workers = self.crew
        return routes

    def trace_routes(self) -> TraceRoutes:
        return TraceRoutes(self.current, self.traces, self.crew.flush_traces)

    @property
    def verbs(self) -> dict[str, Verb]:
        """Return what other workers and the supervisor may call here."""
        return {
            "models": self.tell_models,
            "gauges": self.tell_gauges,
            "flush_traces": self.flush_traces,
            "flush_rows": self.flush_rows,
            "invalidate": self.invalidate,
        }

    async def tell_models(self, _: Any) -> Any:
        return msgspec.to_builtins(self.telemetry.model_states())

    async def tell_gauges(self, _: Any) -> Any:
        return self.telemetry.own_gauges()

    async def flush_traces(self, _: Any) -> None:
        """Write the traces that another worker is about to read."""
        await asyncio.to_thread(self.traces.flush)

    async def flush_rows(self, _: Any) -> bool:
        """Write the rows that another worker is about to read; return whether that is done."""
        return await asyncio.to_thread(self.ledger.flush, FLUSH_S)

    async def invalidate(self, body: Any) -> int:
        """Remove kept answers that another worker was asked to remove."""
        return self.carried.cache.invalidate_here(msgspec.convert(body, Selection))

    async def begin(self) -> None:
        """Do what is left once the loop and the channel run."""


class FirstAssembly(WorkerAssembly):
    """The worker that keeps the documents and reads the settings file."""

    loop: asyncio.AbstractEventLoop | None = None  # once it runs

    def compile(self, settings: Settings, before: Compiled | None) -> Compiled:
        compiled = super().compile(self.crew.split(settings), before)
        return msgspec.structs.replace(compiled, settings=settings)

    def sample_metrics(self) -> Sampling:
        """A first worker that was started again goes on from the counts that all share."""
        baseline = self.crew.board.starts(1) > 1
        return Sampling(self.telemetry, self.records, self.crew.gauges, baseline=baseline)

    def guard(self, fast: Mapping[str, Handler], rest: AsgiApp) -> Guard:
        return FirstGuard(self.current, fast, rest, self.sealer, self.crew.secret)

    async def tell_gauges(self, _: Any) -> Any:
        await self.reader.refresh()
        return await super().tell_gauges(None)

    @property
    def verbs(self) -> dict[str, Verb]:
        return {**super().verbs, "spent": self.take_spent}

    def wait_for_rows(self) -> None:
        super().wait_for_rows()
        if self.loop is None or self.crew.channel is None:  # nobody else runs yet
            return
        asked = asyncio.run_coroutine_threadsafe(self.crew.flush_rows(), self.loop)
        if not asked.result(2 * FLUSH_S):
            raise StoreError("rows of another worker wait")

    async def take_spent(self, body: Any) -> None:
        """Count what others have spent for keys that have limits since then."""
        for owner, tenant, cost, at in body:
            self.current.pipeline.admission.spend_elsewhere(owner, tenant, cost, at)

    async def begin(self) -> None:
        """From now on, settings are in force in all workers or in none."""
        loop = self.loop = asyncio.get_running_loop()

        def agree(found: Loaded) -> tuple[str, ...]:
            return asyncio.run_coroutine_threadsafe(self.propose(found), loop).result()

        self.reloading.agree, self.reloading.committed = agree, self.commit

    async def propose(self, found: Loaded) -> tuple[str, ...]:
        """Let all others compile the settings; return the problems that they met."""
        try:
            problems = await self._call("propose", pack(found), PREPARE_S)
        except ChannelError as error:
            return (f"the other workers could not take the settings: {error}",)
        return tuple(dict.fromkeys(problems))

    async def commit(self) -> None:
        """Let the others serve the settings that they have compiled."""
        try:
            await self._call("commit", None, PREPARE_S)
        except ChannelError as error:
            log.warning("not all workers have the new settings yet: %s", error)

    async def _call(self, verb: str, body: Any, within_s: float) -> Any:
        channel = self.crew.channel
        if channel is None:
            raise ChannelError("the channel is closed")
        return await channel.call("supervisor", verb, body, within_s=within_s)


class FollowerAssembly(WorkerAssembly):
    """A worker without documents: it answers for models and routes."""

    def __init__(self, live: LiveSettings, crew: Crew, version: int) -> None:
        self.relay = Relay(crew.path, crew.secret, lambda: crew.board.is_running(1))
        self.version = version
        self.prepared: tuple[int, Compiled] | None = None
        self.latest = deque[LedgerRow]()  # calls whose keys may have got limits meanwhile
        super().__init__(NoStore(live.found.settings), live, crew)
        self.ledger.watch = self.note_call
        self.teller: asyncio.Task[None] | None = None

    def note_call(self, row: LedgerRow) -> None:
        self.telemetry.emit(row)
        if row.cost:
            self.latest.append(row)

    async def begin(self) -> None:
        self.teller = asyncio.get_running_loop().create_task(self.tell_spent())

    async def tell_spent(self) -> None:
        """Tell the first worker what keys have spent here that it answers now."""
        untold = list[LedgerRow]()
        while True:
            await asyncio.sleep(TELL_S)
            admission, old = self.current.pipeline.admission, time.time() - KNOWN_S
            if admission.has_limits:
                rows, self.latest = self.latest, deque[LedgerRow]()
                for row in rows:
                    is_known = admission.limits_owner(row.owner, row.tenant)
                    (untold if is_known else self.latest).append(row)
            while self.latest and self.latest[0].at <= old:
                self.latest.popleft()
            if untold:
                body = [[row.owner, row.tenant, row.cost, row.at] for row in untold]
                try:
                    if self.crew.channel is None:
                        raise ChannelError("it is closed")  # noqa: TRY301
                    await self.crew.channel.call("first", "spent", body)
                    untold = []
                except ChannelError as error:
                    log.warning("the first worker does not know what was spent yet: %s", error)

    @property
    def verbs(self) -> dict[str, Verb]:
        return {**super().verbs, "prepare": self.prepare, "apply": self.take_settings}

    def compile(self, settings: Settings, before: Compiled | None) -> Compiled:
        """Compile what is answered here; a name that is answered by the first worker becomes an
        app.
        """
        split = self.crew.split(settings)
        models = models_for(split, before.models if before else {})
        pipeline = compile_pipeline(split, models, {}, self.carried)
        here = {name for name, model in split.models.items() if self.crew.is_split(model)}
        routes = {n: route for n, route in pipeline.routes.items() if names_of(route) <= here}
        elsewhere = {name: App(name=name) for name in pipeline.routes if name not in routes}
        return Compiled(
            settings=settings,
            pipeline=msgspec.structs.replace(
                pipeline, routes=routes, apps={**elsewhere, **pipeline.apps}
            ),
            models={name: handle for name, handle in models.items() if name in here},
            synchronizers={},
        )

    def check_edges(self, settings: Settings) -> None:
        """Say nothing: the first worker does."""

    def share_limits(self, meters: Meters) -> SharedLimits | None:
        """Share nothing: the first worker answers keys with limits."""
        return None

    def watch_engines(self, settings: Settings) -> None:
        """Watch nothing, like `read_metrics`."""

    async def read_metrics(self) -> None:
        """Read nothing: the first worker does, and says it when the metrics are scraped."""

    def load_key_budgets(self, limits: Mapping[str, Allowance]) -> None:
        """Load nothing, like `load_budgets`."""

    def load_pace(self) -> None:
        """Load nothing: sections are written by the first worker."""

    async def load_budgets(self) -> None:
        """Load nothing: the first worker answers keys with limits."""

    def sample_metrics(self) -> None:
        """Keep nothing: the first worker samples the counts of all."""

    def count_reload(self, outcome: str) -> None:
        """Count nothing: the first worker counts reloads of the whole server."""

    def route(self) -> Guard:
        chat = FollowerChatRoutes(self.current, lambda: self.asgi, self.note)
        health = FollowerHealthRoutes(self.current, self.telemetry, self.reloading.status)
        health.workers, health.is_first_running = self.crew, self.relay.is_running
        paths = [*health.paths(), *self.trace_routes().paths(), *page_paths(self.current)]
        fast = {"/v1/chat/completions": chat.chat, "/v1/completions": chat.complete}
        router = Router(paths, default=pass_on, lifespan=self.lifespan, redirect_slashes=False)
        guard = FollowerGuard(self.current, fast, router, self.relay)
        self.log_requests(guard)
        return guard

    # settings

    async def prepare(self, body: Any) -> list[str]:
        """Compile settings beside those in force; return the problems."""
        self.prepared = None
        version, found = body["version"], unpack(body["settings"])
        try:
            compiled = await asyncio.to_thread(
                self.compile, found.settings, self.reloading.compiled
            )
        except Exception as error:  # noqa: BLE001 - whatever it is, the previous settings stay
            return list(problems_of(error))
        self.prepared = version, compiled
        return []

    async def take_settings(self, body: Any) -> None:
        """Serve the next questions with these settings."""
        version = body["version"]
        if self.prepared is None or self.prepared[0] != version:
            problems = await self.prepare(body)
            if self.prepared is None:
                raise ChannelError("; ".join(problems))
        (_, compiled), self.prepared = self.prepared, None
        await self.reloading.put(compiled)
        self.version = version


class FirstGuard(Guard):
    """Also takes requests that other workers pass on, as if they came from their client."""

    def __init__(
        self,
        current: Any,
        fast: Mapping[str, Handler],
        rest: AsgiApp,
        sealer: Callable[[], Any],
        secret: bytes,
    ) -> None:
        super().__init__(current, fast, rest, sealer)
        self.secret = secret

    async def serve(self, exchange: Exchange) -> None:
        received(exchange, self.secret)
        await super().serve(exchange)


class NoStore(LazyStore):
    """The store of a worker that has none."""

    def __call__(self) -> Store:
        raise RuntimeError("only the first worker opens the store")


def names_of(route: Route) -> set[str]:
    """Return the names in the settings of the models that may answer on this route."""
    return {candidate.model.name for candidate in route.candidates}
