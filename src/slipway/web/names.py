"""The names that a key may call: apps, routes and models."""

from slipway.answer import Pipeline
from slipway.errors import ModelNotFound
from slipway.settings.known_names import suggest
from slipway.types import Asker


def callable_names(pipeline: Pipeline, asker: Asker) -> list[str]:
    """Return the names that the asker may call."""
    return [name for name in pipeline.names if pipeline.admission.may_call(asker, name)]


def check_name(pipeline: Pipeline, name: str, asker: Asker) -> None:
    """Raise ModelNotFound unless the asker may call this name.

    A name that exists but belongs to others gets the same error as one that does not exist, so that
    nobody can find out the names of others.
    """
    known = name in pipeline.routes or name in pipeline.apps
    if not (known and (asker.apps is None or name in asker.apps)):
        raise unknown_name(pipeline, name, asker)


def unknown_name(pipeline: Pipeline, name: str, asker: Asker) -> ModelNotFound:
    """Return the error for a name that the asker may not call, with a suggestion."""
    hint = suggest(name, callable_names(pipeline, asker))
    return ModelNotFound(
        f"There is no model or app `{name[:200]}`.", hint[:500].capitalize(), param="model"
    )
