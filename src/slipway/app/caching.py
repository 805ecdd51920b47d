"""Settings -> what is kept of each app, route and model."""

from collections.abc import Mapping, Sequence
from typing import Any

import slipway
from slipway.answer import App
from slipway.cache import CachePolicy, Lifetime, digest
from slipway.settings import AppSettings, CacheSettings, ModelSettings, RouteEntry, Settings


def policies_of(settings: Settings) -> dict[str, CachePolicy]:
    """Return the policies of the models and routes whose answers are kept or shared."""
    routes: dict[str, Sequence[RouteEntry]] = {
        name: (RouteEntry(model=name),) for name in settings.models
    }
    routes |= settings.routes
    found = {}
    for name, entries in routes.items():
        policy = policy_of_route(settings, entries)
        if policy is not None:
            found[name] = policy
    return found


def policy_of_route(settings: Settings, entries: Sequence[RouteEntry]) -> CachePolicy | None:
    """Return the policy of a route, which is that of its first model."""
    identity = route_identity(settings.models, entries)
    own = settings.models[entries[0].model].cache
    if own is not None:
        return policy(own, identity)
    if settings.cache.exact is None:
        return None
    lifetime = Lifetime(fresh=settings.cache.exact)
    return CachePolicy(identity=identity, lifetime=lifetime, only_at_zero=True)


def policy(cache: CacheSettings, identity: str) -> CachePolicy | None:
    """Return the policy of some settings; None if they turn everything off."""
    if cache.exact is None and not cache.flights:
        return None
    lifetime = (
        None
        if cache.exact is None
        else Lifetime(
            fresh=cache.exact, refresh=cache.stale_while_refresh, error=cache.stale_on_error
        )
    )
    return CachePolicy(identity=identity, lifetime=lifetime, flights=cache.flights, tags=cache.tags)


def route_identity(models: Mapping[str, ModelSettings], entries: Sequence[RouteEntry]) -> str:
    """Return a digest of what the models of a route resolve to."""
    return digest(
        slipway.__version__,
        [(entry.role, *model_identity(models[entry.model])) for entry in entries],
    )


def model_identity(model: ModelSettings) -> tuple[Any, ...]:
    """Return what identifies a model wherever a server runs; its key is no part of it."""
    return (model.provider, model.base_url, model.name, model.weights, model.query)


def app_policy(settings: Settings, app: AppSettings, compiled: App) -> CachePolicy | None:
    """Return the policy of an app: its identity covers all that shapes its answers."""
    if app.cache is None:
        return None
    identity = digest(
        slipway.__version__,
        compiled.name,
        [identity_of(settings, name) for name in (app.route, app.small)],
        [compiled.prompt.version(passages=passages) for passages in (True, False)],
        dict(compiled.defaults),
        (compiled.passages, compiled.sections, compiled.matches, app.rerank, settings.embedding),
    )
    return policy(app.cache, identity)


def identity_of(settings: Settings, name: str | None) -> str | None:
    """Return the identity of a route or model by its name."""
    if name is None:
        return None
    entries = settings.routes.get(name) or (RouteEntry(model=name),)
    return route_identity(settings.models, entries)
