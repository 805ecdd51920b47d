"""Assembly: settings -> objects -> the ASGI app. The only place that builds."""

import asyncio
import logging
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import msgspec
from starlette.routing import Router

import slipway
from slipway import answer, fetching, knowledge, providers, weights
from slipway.abstention import SENTINEL
from slipway.admission import Admission
from slipway.errors import ProviderError, SettingsError
from slipway.feedback import Feedback
from slipway.knowledge import Knowledge, Rerank
from slipway.knowledge.access import Access
from slipway.knowledge.keeper import Keeper
from slipway.pace import Pace
from slipway.prompt import MATCHED, WITH_PASSAGES, Prompt
from slipway.providers import Provider
from slipway.providers.known import ENDPOINTS, PREFILLS
from slipway.routing import Candidate, Health, Prefill, Route, Traits, Turns, healths_of, models_of
from slipway.settings import App, Flags, Known, Model, Settings, load
from slipway.settings.live import LiveAccess, Rules
from slipway.settings.loading import Loaded
from slipway.settings.tree import DEFAULT_STORE, SQLITE
from slipway.store import InUse, Store, file_of
from slipway.telemetry import Telemetry
from slipway.types import AnswerDone, AttemptDone, FeedbackGiven
from slipway.web.api import Api
from slipway.web.documents import Documents
from slipway.web.door import Door
from slipway.web.feedback import Opinions
from slipway.web.pages import page_paths
from slipway.web.paths import nothing_there
from slipway.web.server import Server, bind

log = logging.getLogger("slipway")
PASSAGES = 5
# Where only models that run here write: they read slowly, and some find no end. Measured by bench/local.py
SMALL_PASSAGES = 3
SMALL_DEFAULTS: dict[str, Any] = {"temperature": 0, "max_tokens": 400}


def loaded(flags: Flags) -> Loaded:
    """The settings, checked against the providers that there are. An address without a model's name is asked for its models."""
    models = tuple(named(m) if "://" in m and "#" not in m else m for m in flags.models)
    found = load(msgspec.structs.replace(flags, models=models), known())
    mute = [name for name, app in found.settings.apps.items() if app.prompt is not None and SENTINEL not in prompt_of(app).standing]
    said = (
        f"apps.{name}.prompt: without the words `{SENTINEL}` in it, a model cannot say that the passages do not answer" for name in mute
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
        raise SettingsError([f"--model {url}: {error.what} Start that server, or name the model: {url}#NAME"]) from None
    if not found:
        raise SettingsError([f"--model {url}: no models are listed there; name one: {url}#NAME"])
    if len(found) > 1:
        log.warning("%s lists %d models; `%s` is used. Others: %s#NAME", url, len(found), found[0], url)
    return f"{url}#{found[0]}"


def check(flags: Flags) -> list[str]:
    """What these settings come to, line by line. SettingsError where they do not stand."""
    found = loaded(flags)
    settings = found.settings
    for app in settings.apps.values():
        if app.knowledge:
            knowledge.check([Path(k) for k in app.knowledge], settings.embedding)
    for name, model in settings.models.items():
        providers.create(name, model, model.provider)
    lines = [f"warning: {w}" for w in found.warnings]
    for kind, names in (("model", settings.models), ("route", settings.routes), ("app", settings.apps)):
        lines += [f"{kind:6} {name}" for name in names]
    return [*lines, f"{len(settings.keys)} keys; would listen on {settings.listen.host}:{settings.listen.port}", "The settings are fine."]


def serve(flags: Flags, *, quiet: bool = False) -> None:
    """Serves until SIGTERM. SettingsError for settings or an address that do not stand."""
    logging.basicConfig(
        format="%(asctime)s %(levelname).1s %(message)s", datefmt="%H:%M:%S", level=logging.WARNING if quiet else logging.INFO
    )
    logging.getLogger("uvicorn").setLevel(logging.ERROR)
    found = loaded(flags)
    store = cache(lambda: store_of(found.settings))
    live = LiveAccess(found.settings, found.file, lambda: loaded(flags).settings)
    door = build(found.settings, store, live)
    socket = bind(found.settings.listen)
    if any(app.knowledge for app in found.settings.apps.values()):
        store().announce(address_of(reached(socket.getsockname())))
    for line in [*(f"warning: {w}" for w in found.warnings), *([] if quiet else banner(found, socket.getsockname()))]:
        print(line, file=sys.stderr)  # noqa: T201 - what a person who starts a server wants to see
    with fetching.beside(flags.models, shown=not quiet):
        Server(door, found.settings.listen, found.settings.limits).run(sockets=[socket])


def address_of(name: tuple[str, int]) -> str:
    host = f"[{name[0]}]" if ":" in name[0] else name[0]
    return f"http://{host}:{name[1]}"


def reached(name: tuple[str, int]) -> tuple[str, int]:
    """Where a server is reached from this machine that listens on all of its addresses."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(name[0], name[0]), name[1]


def banner(found: Loaded, address: tuple[str, int]) -> list[str]:
    settings = found.settings
    url = address_of(address)
    lines = [f"Slipway {slipway.__version__}" + (f", settings from {found.file}" if found.file else "")]
    for name, app in settings.apps.items():
        parts = [f"answers from {', '.join(app.knowledge)}"] if app.knowledge else []
        lines.append(f"  app    {name}: {', '.join([*parts, app.route or 'no model'])}")
    lines += [f"  route  {name}: {' > '.join(e.model for e in route)}" for name, route in settings.routes.items()]
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
    """The store, or, where it cannot be had and was not asked for by name, one that ends with this process. Raises SettingsError."""
    file = file_of(settings.store)
    try:
        return Store(file)
    except InUse as error:
        where = f" at {error.holder.url}" if error.holder and error.holder.url else ""
        log.warning("the store %s is %s%s: documents are kept in a temporary one, and read anew; no feedback is kept", file, error, where)
    except SettingsError as error:
        if not settings.store.endswith(DEFAULT_STORE.removeprefix(SQLITE)) or file.exists():
            raise
        log.warning(
            "%s; until then documents are kept in a temporary one, and read anew at each start; no feedback is kept", error.problems[0]
        )
    return Store.temporary()


def keepers_of(settings: Settings, store: Callable[[], Store]) -> dict[str, Keeper]:
    """For each app that has knowledge: who keeps its documents; apps over the same folders share one."""
    limits = settings.limits
    by_folders: dict[tuple[str, ...], Keeper] = {}
    for app in settings.apps.values():
        if app.knowledge and app.knowledge not in by_folders:
            knowledge.check([Path(k) for k in app.knowledge], settings.embedding)  # before a store is made
            by_folders[app.knowledge] = knowledge.opened(
                store(),
                [Path(k) for k in app.knowledge],
                embedding=settings.embedding,
                largest_mb=limits.document_mb,
                deadline_s=limits.document_time,
            )
    return {name: by_folders[app.knowledge] for name, app in settings.apps.items() if app.knowledge}


def distinct(keepers: dict[str, Keeper]) -> list[Keeper]:
    return list({id(keeper): keeper for keeper in keepers.values()}.values())


def road_of(
    settings: Settings,
    keepers: dict[str, Keeper],
    emit: Callable[[AnswerDone | AttemptDone], None],
    live: LiveAccess,
    operator: str | None = None,
    pace: Pace | None = None,
) -> answer.Road:
    """Everything that questions meet, compiled once. A bare model becomes a route of one."""
    models = {name: providers.create(name, model, model.provider) for name, model in settings.models.items()}
    candidates = {name: candidate_of(model, settings.models[name]) for name, model in models.items()}
    routes = {name: Route(name=name, candidates=(candidate,)) for name, candidate in candidates.items()}
    for name, entries in settings.routes.items():
        routes[name] = Route(name=name, candidates=tuple(msgspec.structs.replace(candidates[e.model], role=e.role) for e in entries))
    apps = {name: app_of(name, app, keepers.get(name), routes, live.of(name)) for name, app in settings.apps.items()}
    admission = Admission(settings.keys, settings.limits.answers, operator)
    return answer.Road(
        admission=admission, apps=apps, routes=routes, emit=emit, answer_s=settings.limits.answer_time, pace=pace or Pace()
    )  # fmt: skip


def candidate_of(model: Provider, settings: Model) -> Candidate:
    """What a route needs to know of a model beside how to call it."""
    runs_here = model.parallel is not None
    continuation = settings.continuation or ("prefill" if runs_here else "prompt")
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
    turns = Turns(model.name, settings.at_once, settings.wait) if settings.at_once is not None else None
    return Candidate(model=model, traits=traits, health=Health(model.name, model.probe, turns))


def app_of(name: str, app: App, keeper: Keeper | None, routes: dict[str, Route], rules: Rules) -> answer.App:
    route = routes[app.route] if app.route is not None else None
    small = is_local(route)
    matches = app.cite == "match" or (app.cite is None and small)
    return answer.App(
        name=name,
        knowledge=Knowledge(keeper, Access(rules), reranker(name, app)) if keeper is not None else None,
        route=route,
        small=routes[app.small] if app.small is not None else None,
        prompt=prompt_of(app, matches=matches),
        matches=matches,
        defaults={**SMALL_DEFAULTS, **app.defaults} if small else app.defaults,
        passages=app.passages or (SMALL_PASSAGES if small else PASSAGES),
        sections=app.sections,
    )


def is_local(route: Route | None) -> bool:
    """Whether all its models run here: they are small, read slowly, seldom name their sources, and may not find an end."""
    return route is not None and all(candidate.model.kind == "local" for candidate in route.candidates)


def prompt_of(app: App, *, matches: bool = False) -> Prompt:
    """The file was read when the settings were checked; as it is at the start, it counts until the end."""
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
    except (ImportError, AttributeError, ValueError) as error:
        raise SettingsError([f"apps.{name}.rerank: `{app.rerank}` cannot be had ({error}); write `module:function`"]) from None
    if not callable(found):
        raise SettingsError([f"apps.{name}.rerank: `{app.rerank}` is not a function"])
    return cast(Rerank, found)


def local_road(flags: Flags) -> answer.Road:
    """The road of `slipway ask`: its knowledge is read before it is handed out, and nobody counts."""
    return read_road(loaded(flags).settings, remembered)


def remembered(keeper: Keeper) -> None:
    """Reads the documents; vectors are used where there are some, and none are made."""
    keeper.build()
    keeper.remember()


def read_road(
    settings: Settings,
    read: Callable[[Keeper], object],
    emit: Callable[[AnswerDone | AttemptDone], None] = lambda record: None,
) -> answer.Road:
    """A road in this process, without a server; `read` is called for each set of documents before it is handed out."""
    keepers = keepers_of(settings, cache(lambda: store_of(settings)))
    for keeper in distinct(keepers):
        read(keeper)
    return road_of(settings, keepers, emit, LiveAccess(settings))


def build(settings: Settings, store: Callable[[], Store] | None = None, live: LiveAccess | None = None) -> Door:
    """The ASGI app of these settings; access rules are `live` where that is given. Knowledge is read after the start, in a thread."""
    store = store or cache(lambda: store_of(settings))
    keepers = keepers_of(settings, store)
    telemetry = Telemetry(lambda: road.admission.in_flight, lambda: healths_of(road.routes.values()))

    def emit(record: AnswerDone | AttemptDone | FeedbackGiven) -> None:
        telemetry.emit(record)
        if isinstance(record, AttemptDone) and record.error is not None:
            log.warning("%s: model %s failed: %s", record.answer_id, record.model, record.error)

    pace = Pace(store if keepers else None)
    road = road_of(settings, keepers, emit, live or LiveAccess(settings), store().token if keepers else None, pace)
    feedback = Feedback(store, emit)
    api = Api(road, telemetry, feedback.note)

    @asynccontextmanager
    async def lifespan(_: object) -> AsyncIterator[None]:
        for keeper in distinct(keepers):
            keeper.start()
        for model in models_of(road.routes.values()):
            model.start()
        saving = asyncio.get_running_loop().create_task(pace.keep())
        yield
        await api.runs.close(settings.listen.grace)
        saving.cancel()
        await asyncio.to_thread(pace.save)
        for health in healths_of(road.routes.values()).values():
            await health.close()
        for model in models_of(road.routes.values()):
            await model.close()
        for keeper in distinct(keepers):
            await asyncio.to_thread(keeper.close)
        await feedback.close()
        if keepers or feedback.opened:
            store().close()

    paths = [
        *api.paths(),
        *Opinions(feedback, api.runs, lambda: api.door).paths(),
        *Documents(road, settings.limits).paths(),
        *page_paths(),
    ]
    shown = [p for p in paths if p.path not in ("/preflight", "/favicon.ico", "/static/{name}")]
    here = ["POST /v1/chat/completions", "POST /v1/answers", *(f"{min(p.methods or {'GET'})} {p.path}".replace(":path", "") for p in shown)]
    router = Router(paths, default=nothing_there(here), lifespan=lifespan, redirect_slashes=False)
    api.door = Door(settings, road.admission, {"/v1/chat/completions": api.chat, "/v1/answers": api.answers}, router)
    return api.door
