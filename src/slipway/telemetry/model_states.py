"""The state of models as metrics show it, joined from several processes."""

from collections.abc import Iterable, Mapping

import msgspec

BAD = ("closed", "half-open", "open")  # the worst one comes last


class ModelState(msgspec.Struct, frozen=True):
    """The state of a model's breaker, and its calls if they are limited."""

    state: str
    running: int | None = None
    waiting: int | None = None


def joined(states: Iterable[Mapping[str, ModelState]]) -> dict[str, ModelState]:
    """Join what several processes know of the models: the worst state, and the sums of calls."""
    found: dict[str, ModelState] = {}
    for name, model in (item for each in states for item in each.items()):
        known = found.setdefault(name, model)
        if known is not model:
            found[name] = ModelState(
                state=max(known.state, model.state, key=BAD.index),
                running=None if known.running is None else known.running + (model.running or 0),
                waiting=None if known.waiting is None else known.waiting + (model.waiting or 0),
            )
    return found
