"""What questions meet: apps, routes, and the snapshot that holds them."""

from collections.abc import Mapping
from typing import Any

import msgspec

from slipway.admission import Admission
from slipway.answer.pace import Pace
from slipway.knowledge import Knowledge
from slipway.prompt import OURS, Prompt
from slipway.routing import Route
from slipway.types import (
    Emit,
    Record,
)


class App(Record, frozen=True, kw_only=True):
    """A named profile, compiled at load time: a room that is None is not visited."""

    name: str
    knowledge: Knowledge | None = None
    route: Route | None = None
    small: Route | None = None
    prompt: Prompt = OURS
    defaults: Mapping[str, Any] = msgspec.field(default_factory=dict)
    passages: int = 5
    sections: int = 4
    matches: bool = (
        False  # sources are matched to sentences by their words, for models that do not name them
    )


class Pipeline(Record, frozen=True, kw_only=True):
    """One immutable snapshot of everything that questions meet. Apps and routes (a bare model is a
    route of one) by their names.
    """

    admission: Admission
    apps: dict[str, App]
    routes: dict[str, Route]
    emit: Emit
    answer_s: float = 600.0  # how long an answer may take as a whole
    patience_s: float = 20.0  # how long a model that failed is waited for
    pace: Pace = msgspec.field(default_factory=Pace)

    def app(self, name: str) -> App | None:
        """The app of that name; a route or model may be asked like an app without rooms."""
        if found := self.apps.get(name):
            return found
        return App(name=name, route=self.routes[name]) if name in self.routes else None

    @property
    def names(self) -> list[str]:
        return [*self.apps, *self.routes]
