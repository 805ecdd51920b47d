"""Assembly: settings -> objects -> the ASGI app. The only place that builds."""

import asyncio
import gc
import logging
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from importlib import import_module
from pathlib import Path
from threading import Lock
from typing import Any, cast

import msgspec
from starlette.routing import Router

import slipway
from slipway import answer, knowledge, providers, weights
from slipway.admission import Admission, Places
from slipway.answer.abstention import SENTINEL
from slipway.answer.pace import Pace
from slipway.app.reloading import Compiled, Folders, ModelHandle, Reloading
from slipway.errors import ProviderError, SettingsError
from slipway.feedback import Feedback
from slipway.knowledge import Knowledge, Rerank
from slipway.knowledge.access import Access
from slipway.knowledge.sync import Synchronizer
from slipway.prompt import MATCHED, WITH_PASSAGES, Prompt
from slipway.providers.endpoints import ENDPOINTS, PREFILLS
from slipway.routing import Candidate, Health, ModelSlots, Prefill, Route, Traits, healths_of
from slipway.settings import App, Flags, Known, Model, Settings, load
from slipway.settings.live import Live, Rules
from slipway.settings.loading import Loaded
from slipway.settings.tree import DEFAULT_STORE, SQLITE
from slipway.store import InUse, Store, file_of
from slipway.telemetry.metrics import Telemetry
from slipway.telemetry.traces import Traces
from slipway.types import AnswerDone, AttemptDone, FeedbackGiven, Record
from slipway.web.api import Api
from slipway.web.documents import DocumentRoutes
from slipway.web.feedback import FeedbackRoutes
from slipway.web.guard import Guard
from slipway.web.pages import page_paths
from slipway.web.passages import PassageRoutes
from slipway.web.routes import nothing_there
from slipway.web.server import Server, bind
from slipway.web.session import SessionRoutes
from slipway.web.traces import TraceRoutes
from slipway.weights import fetching

log = logging.getLogger("slipway")
PASSAGES = 5
# Where only models that run here write: they read slowly, and some find no end. Measured by
# bench/local.py
SMALL_PASSAGES = 3
SMALL_DEFAULTS: dict[str, Any] = {"temperature": 0, "max_tokens": 400}


def addressed(flags: Flags) -> Flags:
    """Flags whose models all have names: an address without one is asked for its models."""
    return msgspec.structs.replace(
        flags, models=tuple(named(m) if "://" in m and "#" not in m else m for m in flags.models)
    )


def loaded(flags: Flags, running: Settings | None = None) -> Loaded:
    """The settings, checked against the providers that there are."""
    found = load(addressed(flags), known(), running=running)
    mute = [
        name
        for name, app in found.settings.apps.items()
        if app.prompt is not None and SENTINEL not in prompt_of(app).standing
    ]
    said = (
        f"apps.{name}.prompt: without the words `{SENTINEL}` in it, a model cannot say that the passages do not answer"
        for name in mute
    )
    return msgspec.structs.replace(found, warnings=(*found.warnings, *said))


def known() -> Known:
    return Known(kinds=providers.NEEDS, endpoints=ENDPOINTS, weights=weights.runnable())


def named(url: str) -> str:
    """`URL` -> `URL#MODEL`, the first that the endpoint lists. SettingsError where it lists none."""
    from slipway.providers.openai import models_at  # only such an address is asked before the start

    model = load(Flags(models=(f"{url}#unknown",)), known()).settings.models["unknown"]
    try:
        found = asyncio.run(models_at(model))
    except ProviderError as error:
        raise SettingsError(
            [f"--model {url}: {error.what} Start that server, or name the model: {url}#NAME"]
        ) from None
    if not found:
        raise SettingsError([f"--model {url}: no models are listed there; name one: {url}#NAME"])
    if len(found) > 1:
        log.warning(
            "%s lists %d models; `%s` is used. Others: %s#NAME", url, len(found), found[0], url
        )
    return f"{url}#{found[0]}"


def checked(flags: Flags, running: Settings | None = None) -> Loaded:
    """Settings that can be compiled, apart from what the store may say. SettingsError where they do
    not stand.
    """
    found = loaded(flags, running)
    settings = found.settings
    for name, app in settings.apps.items():
        if app.knowledge:
            knowledge.check([Path(k) for k in app.knowledge], settings.embedding)
        reranker(name, app)
    for name, model in settings.models.items():
        providers.create(name, model, model.provider)
    return found


def check(flags: Flags) -> list[str]:
    """What these settings come to, line by line. SettingsError where they do not stand."""
    found = checked(flags)
    settings = found.settings
    lines = [f"warning: {w}" for w in found.warnings]
    for kind, names in (
        ("model", settings.models),
        ("route", settings.routes),
        ("app", settings.apps),
    ):
        lines += [f"{kind:6} {name}" for name in names]
    return [
        *lines,
        f"{len(settings.keys)} keys; would listen on {settings.listen.host}:{settings.listen.port}",
        "The settings are fine.",
    ]


def serve(flags: Flags, *, quiet: bool = False) -> None:
    """Serves until SIGTERM. SettingsError for settings or an address that do not stand."""
    logging.basicConfig(
        format="%(asctime)s %(levelname).1s %(message)s",
        datefmt="%H:%M:%S",
        level=logging.WARNING if quiet else logging.INFO,
    )
    logging.getLogger("uvicorn").setLevel(logging.ERROR)
    flags = addressed(flags)
    found = loaded(flags)
    flags = msgspec.structs.replace(
        flags, config=found.file
    )  # the same one, also where it is gone for a moment
    store = Opened(found.settings)
    guard, reloading = build_app(store, Live(found, partial(checked, flags)))
    socket = bind(found.settings.listen)
    server = Server(guard, found.settings)

    def announce(settings: Settings, pipeline: answer.Pipeline) -> None:
        if knows(settings):
            store().announce(address_of(reached(socket.getsockname())))

    announce(found.settings, reloading.made.pipeline)
    reloading.subscribers += [server.take, announce]
    for line in [
        *(f"warning: {w}" for w in found.warnings),
        *([] if quiet else banner(found, socket.getsockname())),
    ]:
        print(line, file=sys.stderr)  # noqa: T201 - what a person who starts a server wants to see
    with fetching.beside(flags.models, shown=not quiet):
        server.run(sockets=[socket])


def address_of(name: tuple[str, int]) -> str:
    host = f"[{name[0]}]" if ":" in name[0] else name[0]
    return f"http://{host}:{name[1]}"


def reached(name: tuple[str, int]) -> tuple[str, int]:
    """Where a server is reached from this machine that listens on all of its addresses."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(name[0], name[0]), name[1]


def banner(found: Loaded, address: tuple[str, int]) -> list[str]:
    settings = found.settings
    url = address_of(address)
    lines = [
        f"Slipway {slipway.__version__}" + (f", settings from {found.file}" if found.file else "")
    ]
    for name, app in settings.apps.items():
        parts = [f"answers from {', '.join(app.knowledge)}"] if app.knowledge else []
        lines.append(f"  app    {name}: {', '.join([*parts, app.route or 'no model'])}")
    lines += [
        f"  route  {name}: {' > '.join(e.model for e in route)}"
        for name, route in settings.routes.items()
    ]
    lines += [f"  model  {name}: {whereabouts(model)}" for name, model in settings.models.items()]
    if not settings.models:
        lines.append(
            "  No model is set up: answers are quoted from the documents. Add one with --model, such as --model dashscope/qwen-plus"
        )
    if not settings.models and not settings.apps:
        lines.append("  Nothing to serve yet: add --docs FOLDER, --model MODEL, or a settings file")
    return [*lines, f"  page   {url}/", f"  API    {url}/v1   (OPENAI_BASE_URL)"]


def whereabouts(model: Model) -> str:
    return f"{model.weights}, run here" if model.weights else f"{model.name} at {model.base_url}"


def store_of(settings: Settings) -> Store:
    """The store, or, where it cannot be had and was not asked for by name, one that ends with this
    process. Raises SettingsError.
    """
    file = file_of(settings.store)
    try:
        return Store(file)
    except InUse as error:
        where = f" at {error.holder.url}" if error.holder and error.holder.url else ""
        log.warning(
            "the store %s is %s%s: documents are kept in a temporary one, and read again; no feedback is kept",
            file,
            error,
            where,
        )
    except SettingsError as error:
        if not settings.store.endswith(DEFAULT_STORE.removeprefix(SQLITE)) or file.exists():
            raise
        log.warning(
            "%s; until then documents are kept in a temporary one, and read again at each start; no feedback is kept",
            error.problems[0],
        )
    return Store.temporary()


class Opened:
    """The store, opened by the first who asks for it, in whichever thread."""

    def __init__(self, settings: Settings) -> None:
        self.store: Store | None = None
        self._settings, self._lock = settings, Lock()

    def __call__(self) -> Store:
        with self._lock:
            self.store = self.store or store_of(self._settings)
            return self.store


def knows(settings: Settings) -> bool:
    return any(app.knowledge for app in settings.apps.values())


def synchronizers_for(
    settings: Settings, store: Callable[[], Store], before: Mapping[Folders, Synchronizer]
) -> dict[str, Synchronizer]:
    """For each app that has knowledge: who keeps its documents; apps over the same folders share
    one, which may be from `before`.
    """
    limits, by_folders = settings.limits, dict[Folders, Synchronizer]()
    wanted = {name: app.knowledge for name, app in settings.apps.items() if app.knowledge}
    for folders in wanted.values():
        knowledge.check([Path(k) for k in folders], settings.embedding)  # before a store is made
    for folders in wanted.values():
        by_folders[folders] = (
            by_folders.get(folders)
            or before.get(folders)
            or knowledge.opened(
                store(),
                [Path(k) for k in folders],
                embedding=settings.embedding,
                largest_mb=limits.document_mb,
                deadline_s=limits.document_time,
            )
        )
    return {name: by_folders[folders] for name, folders in wanted.items()}


def distinct(synchronizers: dict[str, Synchronizer]) -> list[Synchronizer]:
    return list(
        {id(synchronizer): synchronizer for synchronizer in synchronizers.values()}.values()
    )


def models_for(settings: Settings, before: Mapping[str, ModelHandle]) -> dict[str, ModelHandle]:
    """Each model with its settings. One whose settings are those of `before` stays the same, with
    its connections or its process.
    """
    kept = {
        name: handle
        for name, handle in before.items()
        if settings.models.get(name) == handle.settings
    }
    return {
        name: kept.get(name) or fitted_out(name, model, before.get(name))
        for name, model in settings.models.items()
    }


def fitted_out(name: str, settings: Model, before: ModelHandle | None) -> ModelHandle:
    """Where it is still the same endpoint, what was learnt of it counts on."""
    provider = providers.create(name, settings, settings.provider)
    at_once = settings.at_once or provider.parallel
    turns = ModelSlots(name, at_once, settings.wait) if at_once is not None else None
    is_same = before is not None and endpoint_of(settings) == endpoint_of(before.settings)
    return ModelHandle(
        settings,
        provider,
        Health(name, provider.probe, turns, before.health if before and is_same else None),
    )


def endpoint_of(settings: Model) -> tuple[object, ...]:
    """Where a model is and who we are there: a key may stand in the headers as well."""
    return (
        settings.provider,
        settings.base_url,
        settings.name,
        settings.api_key,
        settings.headers,
        settings.query,
        settings.weights,
    )


class Shared(Record, frozen=True, kw_only=True):
    """What one pipeline hands on to the next."""

    emit: Callable[[AnswerDone | AttemptDone], None]
    live: Live
    pace: Pace = msgspec.field(default_factory=Pace)
    places: Places = msgspec.field(default_factory=Places)


def compile_pipeline(
    settings: Settings,
    models: Mapping[str, ModelHandle],
    synchronizers: dict[str, Synchronizer],
    shared: Shared,
    operator: str | None = None,
) -> answer.Pipeline:
    """Everything that questions meet, compiled once. A bare model becomes a route of one."""
    candidates = {name: candidate_of(handle) for name, handle in models.items()}
    routes = {
        name: Route(name=name, candidates=(candidate,)) for name, candidate in candidates.items()
    }
    for name, entries in settings.routes.items():
        routes[name] = Route(
            name=name,
            candidates=tuple(
                msgspec.structs.replace(candidates[e.model], role=e.role) for e in entries
            ),
        )
    apps = {
        name: app_of(name, app, synchronizers.get(name), routes, shared.live.of(name, app))
        for name, app in settings.apps.items()
    }
    return answer.Pipeline(
        admission=Admission(settings.keys, settings.limits.answers, operator, shared.places),
        apps=apps,
        routes=routes,
        emit=shared.emit,
        answer_s=settings.limits.answer_time,
        patience_s=settings.limits.patience,
        pace=shared.pace,
    )


def candidate_of(handle: ModelHandle) -> Candidate:
    """What a route needs to know of a model beside how to call it."""
    settings, model = handle.settings, handle.provider
    continuation = settings.continuation or ("prefill" if model.parallel is not None else "prompt")
    message, request = PREFILLS.get(settings.provider, ({}, {}))
    traits = Traits(
        name=model.name,
        retries=settings.retries,
        context=settings.context,
        goes_on=continuation != "none",
        prefill=Prefill(message=message, request=request) if continuation == "prefill" else None,
        first_token_s=settings.connection.first_token,
        total_s=settings.connection.total,
    )
    return Candidate(model=model, traits=traits, health=handle.health)


def app_of(
    name: str, app: App, synchronizer: Synchronizer | None, routes: dict[str, Route], rules: Rules
) -> answer.App:
    route = routes[app.route] if app.route is not None else None
    small = is_local(route)
    matches = app.cite == "match" or (app.cite is None and small)
    return answer.App(
        name=name,
        knowledge=Knowledge(synchronizer, Access(rules), reranker(name, app))
        if synchronizer is not None
        else None,
        route=route,
        small=routes[app.small] if app.small is not None else None,
        prompt=prompt_of(app, matches=matches),
        matches=matches,
        defaults={**SMALL_DEFAULTS, **app.defaults} if small else app.defaults,
        passages=app.passages or (SMALL_PASSAGES if small else PASSAGES),
        sections=app.sections,
    )


def is_local(route: Route | None) -> bool:
    """Whether all its models run here: they are small, read slowly, seldom name their sources, and
    may not find an end.
    """
    return route is not None and all(
        candidate.model.kind == "local" for candidate in route.candidates
    )


def prompt_of(app: App, *, matches: bool = False) -> Prompt:
    """The file was read when the settings were checked; as it is now, it counts until the settings
    are read again.
    """
    ours = MATCHED if matches else WITH_PASSAGES
    standing = Path(app.prompt).read_text(encoding="utf-8") if app.prompt is not None else ours
    return Prompt(standing, app.instructions)


def reranker(name: str, app: App) -> Rerank | None:
    """The function that `rerank` names. Raises SettingsError where there is none."""
    if app.rerank is None:
        return None
    module, _, function = app.rerank.partition(":")
    try:
        found = getattr(import_module(module), function)
    except Exception as error:  # noqa: BLE001 - it is somebody else's code
        raise SettingsError(
            [
                f"apps.{name}.rerank: `{app.rerank}` cannot be had ({type(error).__name__}: {error}); write `module:function`"
            ]
        ) from None
    if not callable(found):
        raise SettingsError([f"apps.{name}.rerank: `{app.rerank}` is not a function"])
    return cast(Rerank, found)


def local_pipeline(flags: Flags) -> answer.Pipeline:
    """The pipeline of `slipway ask`: its knowledge is read before it is handed out, and nobody counts."""
    return offline_pipeline(loaded(flags).settings, remembered)


def remembered(synchronizer: Synchronizer) -> None:
    """Reads the documents; vectors are used where there are some, and none are made."""
    synchronizer.build()
    synchronizer.remember()


def offline_pipeline(
    settings: Settings,
    read: Callable[[Synchronizer], object],
    emit: Callable[[AnswerDone | AttemptDone], None] = lambda record: None,
) -> answer.Pipeline:
    """A pipeline in this process, without a server; `read` is called for each set of documents before
    it is handed out.
    """
    synchronizers = synchronizers_for(settings, Opened(settings), {})
    for synchronizer in distinct(synchronizers):
        read(synchronizer)
    return compile_pipeline(
        settings,
        models_for(settings, {}),
        synchronizers,
        Shared(emit=emit, live=Live(Loaded(settings=settings, file=None))),
    )


def build(settings: Settings) -> Guard:
    """The ASGI app of these settings, which never change."""
    return build_app(Opened(settings), Live(Loaded(settings=settings, file=None)))[0]


def build_app(store: Opened, live: Live) -> tuple[Guard, Reloading]:
    """The ASGI app of the settings as they are read now, and who changes them under it. Knowledge
    is read after the start, in a thread.
    """
    settings = live.found.settings
    traces = Traces()

    def emit(record: AnswerDone | AttemptDone | FeedbackGiven) -> None:
        telemetry.emit(record)
        traces.emit(record)
        if isinstance(record, AttemptDone) and record.error is not None:
            log.warning("%s: model %s failed: %s", record.answer_id, record.model, record.error)

    shared = Shared(emit=emit, live=live, pace=Pace(store))
    telemetry = Telemetry(
        lambda: shared.places.taken, lambda: healths_of(reloading.made.pipeline.routes.values())
    )

    def made(settings: Settings, before: Compiled | None) -> Compiled:
        models = models_for(settings, before.models if before else {})
        synchronizers = synchronizers_for(settings, store, before.synchronizers if before else {})
        pipeline = compile_pipeline(
            settings, models, synchronizers, shared, store().token if synchronizers else None
        )
        by_folders = {
            settings.apps[name].knowledge: synchronizer
            for name, synchronizer in synchronizers.items()
        }
        return Compiled(
            settings=settings, pipeline=pipeline, models=models, synchronizers=by_folders
        )

    reloading = Reloading(
        live, made(settings, None), made, lambda outcome: telemetry.count("reloads", (outcome,))
    )
    pipeline = reloading.made.pipeline
    feedback = Feedback(store, emit)
    api = Api(pipeline, telemetry, feedback.note, reloading.status)
    documents, tracks = DocumentRoutes(settings, pipeline), TraceRoutes(pipeline, traces.find)
    session, passages = SessionRoutes(settings, pipeline), PassageRoutes(settings, pipeline)

    def remember(settings: Settings, pipeline: answer.Pipeline) -> None:
        if knows(settings):
            shared.pace.keep()

    @asynccontextmanager
    async def lifespan(_: object) -> AsyncIterator[None]:
        reloading.start()
        remember(settings, pipeline)
        # what there is now stays: a full collection need not look through it, which holds the loop
        # up for 20 ms
        gc.freeze()
        yield
        await reloading.stop()
        await api.runs.close(reloading.made.settings.listen.grace)
        await shared.pace.close()
        await reloading.close()
        await feedback.close()
        if store.store is not None:
            store.store.close()

    paths = [
        *api.paths(),
        *FeedbackRoutes(feedback, api.runs, lambda: api.guard).paths(),
        *documents.paths(),
        *tracks.paths(),
        *session.paths(),
        *passages.paths(),
        *page_paths(),
    ]
    shown = [
        p for p in paths if p.path not in ("/preflight", "/favicon.ico", "/static/{name:path}")
    ]
    here = [
        "POST /v1/chat/completions",
        "POST /v1/answers",
        *(f"{min(p.methods or {'GET'})} {p.path}".replace(":path", "") for p in shown),
    ]
    router = Router(paths, default=nothing_there(here), lifespan=lifespan, redirect_slashes=False)
    api.guard = Guard(
        settings, pipeline, {"/v1/chat/completions": api.chat, "/v1/answers": api.answers}, router
    )
    reloading.subscribers += [
        api.take,
        documents.take,
        tracks.take,
        session.take,
        passages.take,
        api.guard.take,
        remember,
    ]
    return api.guard, reloading
