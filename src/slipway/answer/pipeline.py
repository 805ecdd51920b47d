"""Apps, routes, and the compiled snapshot that holds them."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from slipway.admission import Admission
from slipway.answer.pace import Pace
from slipway.answer.settlement import NO_BOOKS, Bookkeeper
from slipway.cache import AnswerCache, CachePolicy
from slipway.knowledge import Knowledge
from slipway.prompt import DEFAULT_PROMPT, Prompt
from slipway.routing import Route
from slipway.types import (
    Emit,
    Record,
)

if TYPE_CHECKING:
    from slipway.rules import RuleBook  # imported by the first app that has rules


class App(Record, frozen=True, kw_only=True):
    """A named profile, compiled at load time; a stage that is None is skipped."""

    name: str
    rules: "RuleBook | None" = None
    knowledge: Knowledge | None = None
    route: Route | None = None
    small: Route | None = None
    prompt: Prompt = DEFAULT_PROMPT
    defaults: Mapping[str, Any] = msgspec.field(default_factory=dict)
    passages: int = 5
    sections: int = 4
    cache: CachePolicy | None = None
    matches: bool = False  # match sources to sentences by words, for models that name none


class Pipeline(Record, frozen=True, kw_only=True):
    """An immutable snapshot of everything that a question meets.

    A bare model is a route of one.
    """

    admission: Admission
    apps: dict[str, App]
    routes: dict[str, Route]
    emit: Emit
    books: Bookkeeper = NO_BOOKS
    answer_s: float = 600.0  # time limit of a whole answer
    patience_s: float = 20.0  # how long a failed model may be retried
    pace: Pace = msgspec.field(default_factory=Pace)
    cache: AnswerCache = msgspec.field(default_factory=AnswerCache)
    policies: dict[str, CachePolicy] = msgspec.field(
        default_factory=dict
    )  # of routes and models whose answers are kept

    def app(self, name: str) -> App | None:
        """Return the app of that name; a route or model is an app without documents."""
        if found := self.apps.get(name):
            return found
        return App(name=name, route=self.routes[name]) if name in self.routes else None

    @property
    def names(self) -> list[str]:
        return [*self.apps, *self.routes]
