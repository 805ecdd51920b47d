"""Settings -> models, routes, apps: the pipeline that questions meet."""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import msgspec

from slipway import answer, providers
from slipway.admission import Admission, InFlight, Meters, SharedLimits, owner_of
from slipway.admission.limits import Scope
from slipway.answer.pace import Pace
from slipway.answer.settlement import NO_BOOKS, Bookkeeper
from slipway.app.caching import app_policy, policies_of
from slipway.app.reloading import ModelHandle
from slipway.app.rulebooks import ready_rulebook
from slipway.cache import AnswerCache
from slipway.errors import SettingsError
from slipway.keys import KeyTable
from slipway.knowledge import Knowledge, Rerank
from slipway.knowledge.access import Access
from slipway.knowledge.sync import Synchronizer
from slipway.prices import Rates, rates_of
from slipway.prices.catalogue import SOURCE, CatalogueEntry, entry_for
from slipway.prompt import DEFAULT_INSTRUCTIONS, SMALL_MODEL_INSTRUCTIONS, Prompt
from slipway.providers.endpoints import PREFILLS
from slipway.routing import Candidate, Health, ModelSlots, ModelTraits, Prefill, Route
from slipway.settings import Allowance, AppSettings, ModelSettings, Settings, share
from slipway.settings.live import LiveSettings
from slipway.types import Emit, Record

if TYPE_CHECKING:
    from slipway.rules import RuleBook

PASSAGES = 5
# for apps whose models all run here: they read slowly, and some do not stop by themselves.
# Measured by bench/local.py
SMALL_PASSAGES = 3
SMALL_DEFAULTS: dict[str, Any] = {"temperature": 0, "max_tokens": 400}


def models_for(settings: Settings, before: Mapping[str, ModelHandle]) -> dict[str, ModelHandle]:
    """Return each model's handle.

    A model whose settings equal those in `before` keeps its handle, with its connections or its
    process.
    """
    kept = {
        name: handle
        for name, handle in before.items()
        if settings.models.get(name) == handle.settings
    }
    return {
        name: kept.get(name) or make_handle(name, model, before.get(name))
        for name, model in settings.models.items()
    }


def make_handle(name: str, settings: ModelSettings, before: ModelHandle | None) -> ModelHandle:
    """Create the provider; its health is taken over if the endpoint is still the same."""
    provider = providers.create(name, settings, settings.provider)
    at_once = settings.at_once or provider.parallel
    slots = ModelSlots(name, at_once, settings.wait) if at_once is not None else None
    is_same = before is not None and endpoint_of(settings) == endpoint_of(before.settings)
    return ModelHandle(
        settings,
        provider,
        Health(name, provider.probe, slots, before.health if before and is_same else None),
    )


def endpoint_of(settings: ModelSettings) -> tuple[object, ...]:
    """Return what identifies a model and our account there; headers may hold a key as well."""
    return (
        settings.provider,
        settings.base_url,
        settings.name,
        settings.api_key,
        settings.headers,
        settings.query,
        settings.weights,
    )


class Carried(Record, frozen=True, kw_only=True):
    """What outlives a pipeline: it is carried over to the next one."""

    emit: Emit
    live: LiveSettings
    cache: AnswerCache
    books: Bookkeeper = NO_BOOKS
    meters: Meters = msgspec.field(default_factory=Meters)
    shared: SharedLimits | None = None  # if limits hold for several servers
    pace: Pace = msgspec.field(default_factory=Pace)
    keys: KeyTable = msgspec.field(default_factory=KeyTable)
    in_flight_total: InFlight = msgspec.field(default_factory=InFlight)
    rulebooks: "dict[str, RuleBook]" = msgspec.field(default_factory=dict)  # by app


def admission_of(settings: Settings, carried: Carried, operator: str | None) -> Admission:
    """Compile the keys and limits; `operator` is the key of commands on this machine."""
    return Admission(
        settings.keys,
        settings.limits.answers,
        operator,
        carried.in_flight_total,
        login=settings.login is not None,
        limits=limits_of(settings),
        meters=carried.meters,
        table=carried.keys,
        key_required=settings.key_required,
        shared=carried.shared,
    )


def compile_pipeline(
    settings: Settings,
    models: Mapping[str, ModelHandle],
    synchronizers: dict[str, Synchronizer],
    carried: Carried,
    operator: str | None = None,
) -> answer.Pipeline:
    """Compile everything that questions meet; a bare model becomes a route of one.

    `operator` is the key of the operator's commands on this machine, if there is one.
    """
    candidates = {name: candidate_of(handle) for name, handle in models.items()}
    routes = {
        name: Route(name=name, candidates=(candidate,)) for name, candidate in candidates.items()
    }
    for name, entries in settings.routes.items():
        routes[name] = Route(
            name=name,
            candidates=tuple(
                msgspec.structs.replace(
                    candidates[e.model], role=e.role, canary=share(e.canary) if e.canary else None
                )
                for e in entries
            ),
        )
    apps = {
        name: with_policy(
            settings,
            app,
            app_of(
                name,
                app,
                synchronizers.get(name),
                routes,
                access_of(name, app, carried.live),
                ready_rulebook(name, app, carried.rulebooks),
            ),
        )
        for name, app in settings.apps.items()
    }
    return answer.Pipeline(
        admission=admission_of(settings, carried, operator),
        apps=apps,
        routes=routes,
        emit=carried.emit,
        books=carried.books,
        answer_s=settings.limits.answer_time,
        patience_s=settings.limits.patience,
        pace=carried.pace,
        cache=carried.cache,
        policies=policies_of(settings),
    )


def limits_of(settings: Settings) -> dict[tuple[Scope, str], Allowance]:
    """Return the limits that are set, by what they limit."""
    found: dict[tuple[Scope, str], Allowance | None] = {
        **{("key", owner_of(key.key)): key.limits for key in settings.keys},
        **{("tenant", name): tenant.limits for name, tenant in settings.tenants.items()},
        **{("app", name): app.limits for name, app in settings.apps.items()},
    }
    return {scope: limits for scope, limits in found.items() if limits not in (None, Allowance())}


def with_policy(settings: Settings, app: AppSettings, compiled: answer.App) -> answer.App:
    """Return the compiled app with what is kept of its answers."""
    return msgspec.structs.replace(compiled, cache=app_policy(settings, app, compiled))


def candidate_of(handle: ModelHandle) -> Candidate:
    """Return what a route needs to know of a model, beside how to call it."""
    settings, model = handle.settings, handle.provider
    continuation = settings.continuation or ("prefill" if model.parallel is not None else "prompt")
    message, request = PREFILLS.get(settings.provider, ({}, {}))
    entry = entry_for(settings.base_url, settings.name)
    traits = ModelTraits(
        name=model.name,
        retries=settings.retries,
        context=settings.context,
        max_output=settings.max_output or (entry.max_output if entry is not None else None),
        can_continue=continuation != "none",
        prefill=Prefill(message=message, request=request) if continuation == "prefill" else None,
        first_token_s=settings.connection.first_token,
        total_s=settings.connection.total,
    )
    return Candidate(
        model=model, traits=traits, health=handle.health, rates=rates_for(settings, entry)
    )


def rates_for(settings: ModelSettings, entry: CatalogueEntry | None) -> Rates | None:
    """Return what a model costs: as the settings say, else as the catalogue does."""
    if settings.price is not None:
        return rates_of(settings.price)
    return rates_of(entry.price, SOURCE) if entry is not None else None


def access_of(name: str, app: AppSettings, live: LiveSettings) -> Access:
    """Return the app's rules, as the settings file has them whenever they are applied."""
    return Access(live.of(name, app), [Path(k) for k in app.knowledge], live.found.folder)


def app_of(
    name: str,
    app: AppSettings,
    synchronizer: Synchronizer | None,
    routes: dict[str, Route],
    access: Access,
    rules: "RuleBook | None",
) -> answer.App:
    route = routes[app.route] if app.route is not None else None
    small = is_local(route)
    matches = app.cite == "match" or (app.cite is None and small)
    return answer.App(
        name=name,
        knowledge=Knowledge(synchronizer, access, load_reranker(name, app))
        if synchronizer is not None
        else None,
        rules=rules,
        route=route,
        small=routes[app.small] if app.small is not None else None,
        prompt=prompt_of(app, matches=matches),
        matches=matches,
        defaults={**SMALL_DEFAULTS, **app.defaults} if small else app.defaults,
        passages=app.passages or (SMALL_PASSAGES if small else PASSAGES),
        sections=app.sections,
    )


def is_local(route: Route | None) -> bool:
    """Return True if all models of the route run here.

    They are small: they read slowly, seldom name their sources, and may not stop by themselves.
    """
    return route is not None and all(
        candidate.model.kind == "local" for candidate in route.candidates
    )


def prompt_of(app: AppSettings, *, matches: bool = False) -> Prompt:
    """Return the app's prompt; its file is read now, and not again until the next reload."""
    ours = SMALL_MODEL_INSTRUCTIONS if matches else DEFAULT_INSTRUCTIONS
    standing = Path(app.prompt).read_text(encoding="utf-8") if app.prompt is not None else ours
    return Prompt(standing, app.instructions)


def load_reranker(name: str, app: AppSettings) -> Rerank | None:
    """Return the function that `rerank` names. Raises SettingsError if it cannot be loaded."""
    if app.rerank is None:
        return None
    module, _, function = app.rerank.partition(":")
    try:
        found = getattr(import_module(module), function)
    except Exception as error:  # noqa: BLE001 - importing it runs the operator's own code
        raise SettingsError(
            [
                (
                    f"apps.{name}.rerank: `{app.rerank}` cannot be loaded "
                    f"({type(error).__name__}: {error}); write `module:function`"
                )
            ]
        ) from None
    if not callable(found):
        raise SettingsError([f"apps.{name}.rerank: `{app.rerank}` is not a function"])
    return cast(Rerank, found)
