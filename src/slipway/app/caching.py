"""Settings -> what is kept of each app, route and model."""

import logging
import time
from collections.abc import Mapping, Sequence
from functools import cache as once
from importlib.util import find_spec
from threading import Lock
from typing import TYPE_CHECKING, Any

import msgspec

import slipway
from slipway.answer import App
from slipway.cache import CachePolicy, Lifetime, SemanticPolicy, digest
from slipway.errors import SettingsError, SlipwayError
from slipway.settings import AppSettings, CacheSettings, ModelSettings, RouteEntry, Settings, share

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from slipway.knowledge.embedding import Embedder

EXTRA = "slipway[vectors]"
NEEDED = ("numpy", "onnxruntime", "tokenizers")  # what it installs; imported when it is used
RETRY_S = 60.0
log = logging.getLogger("slipway")


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
    """Return what identifies a model wherever a server runs; its key is no part of it. Its headers
    are: gateways choose the model by them.
    """
    headers = {name.lower(): value for name, value in model.headers.items()}
    return (model.provider, model.base_url, model.name, model.weights, model.query, headers)


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
    found = policy(app.cache, identity)
    if found is None or found.lifetime is None or app.stakes == "high":
        return found
    return msgspec.structs.replace(found, semantic=semantic_policy(settings, app.cache))


def semantic_policy(settings: Settings, cache: CacheSettings) -> SemanticPolicy | None:
    """Return how similar questions are answered. Raises SettingsError if the extra is missing."""
    if cache.semantic is None:
        return None
    if missing := ", ".join(name for name in NEEDED if find_spec(name) is None):
        problem = f"cache.semantic needs the extra: pip install '{EXTRA}' (missing: {missing})."
        raise SettingsError([problem])
    return SemanticPolicy(
        max_error=share(cache.semantic.max_error),
        per=cache.semantic.per,
        compare=cache.semantic.compare,
        entries=cache.semantic.entries,
        embed=embedding_of(settings.embedding),
        judge=cache.semantic.judge,
    )


@once
def embedding_of(named: str) -> "QuestionEmbedding":
    """Return the embedding of questions that the settings name; it is opened when it is used."""
    return QuestionEmbedding(named)


class QuestionEmbedding:
    """Embed questions. If the model cannot be opened, the log says why, nothing is embedded, and it
    is tried again after a minute: its weights may be fetched meanwhile.
    """

    def __init__(self, named: str) -> None:
        self._named, self._lock = named, Lock()
        self._opened: Embedder | None = None
        self._problem, self._next_try_at = "", 0.0

    def __call__(self, text: str) -> "NDArray[np.float32] | None":
        """Return the vector; None if there is no model, or it does not know the text's script."""
        with self._lock:
            if self._opened is None and time.monotonic() >= self._next_try_at:
                self._open()
        embedder = self._opened
        if embedder is None or not embedder.understands(text):
            return None
        return embedder.embed_query(text)

    def _open(self) -> None:
        try:
            from slipway.knowledge.embedding import opened  # heavy, and not always used

            self._opened = opened(self._named)
        except SlipwayError as error:
            self._next_try_at = time.monotonic() + RETRY_S
            problem = f"{error.what} {error.next}"
            if problem != self._problem:
                log.warning("answers of similar questions are not served: %s", problem)
            self._problem = problem


def identity_of(settings: Settings, name: str | None) -> str | None:
    """Return the identity of a route or model by its name."""
    if name is None:
        return None
    entries = settings.routes.get(name) or (RouteEntry(model=name),)
    return route_identity(settings.models, entries)
