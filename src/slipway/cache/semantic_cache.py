"""The semantic indexes of a server, one for each tenant and app, and the votes on what they served.

What a tenant's questions teach serves that tenant only. Everything here is in memory and begins
afresh, in shadow, after a restart.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from typing import Any, Literal

from slipway.cache.semantic import LookUp, SemanticIndex
from slipway.cache.semantic_bound import BoundState, ErrorBound, Per
from slipway.types import Record

Comparison = Literal["facts", "exact", "passages", "judge"]
Embed = Callable[[str], Any]  # text -> float32 [n] of length 1, or None if it cannot be embedded
LONGEST = 600  # characters of a question that is compared with others
_MOST_INDEXES = 200
_MOST_NOTED = 20_000  # answers on which a vote is heard


class SemanticPolicy(Record, frozen=True, kw_only=True):
    """How answers to similar questions are served for an app.

    `judge` is the route that compares answers if `compare` is `judge`.
    """

    max_error: float
    per: Per
    compare: Comparison
    entries: int
    embed: Embed
    judge: str | None = None


class SemanticReport(Record, frozen=True, kw_only=True):
    """What is known of one index."""

    tenant: str
    app: str
    questions: int
    bound: BoundState


class ServedAnswer(Record, frozen=True, kw_only=True):
    """The question whose answer somebody got, in its index; `score` is None if it was written for
    this question.
    """

    index: SemanticIndex
    key: Hashable
    score: float | None


class SemanticCache:
    """The indexes of all tenants and apps."""

    def __init__(self) -> None:
        self.indexes: OrderedDict[tuple[str, str], SemanticIndex] = OrderedDict()
        self._noted: OrderedDict[str, ServedAnswer] = OrderedDict()

    def index(self, tenant: str, app: str, policy: SemanticPolicy) -> SemanticIndex:
        """Return the index of a tenant and app; a changed `max_error` is measured afresh."""
        key = (tenant, app)
        found = self.indexes.get(key)
        if found is None:
            found = self.indexes[key] = SemanticIndex(ErrorBound(policy.max_error, policy.per))
            if len(self.indexes) > _MOST_INDEXES:
                self.indexes.popitem(last=False)
        elif (found.bound.max_error, found.bound.per) != (policy.max_error, policy.per):
            found.bound = ErrorBound(policy.max_error, policy.per)
        self.indexes.move_to_end(key)
        self._shrink(app, policy.entries)
        return found

    def _shrink(self, app: str, entries: int) -> None:
        """Drop questions of the app until so many are left: first of the tenant that asked least
        recently, and there the least recently used.
        """
        indexes = [index for (_, name), index in self.indexes.items() if name == app]
        over = sum(map(len, indexes)) - entries
        for index in indexes:
            if over <= 0:
                return
            over -= index.drop_oldest(over)

    def note(self, answer_id: str, index: SemanticIndex, key: Hashable, found: LookUp) -> None:
        """Remember which kept question an answer belongs to, so that a vote on it is heard."""
        score = found.score if found.verdict == "serve" else None
        self._noted[answer_id] = ServedAnswer(index=index, key=key, score=score)
        if len(self._noted) > _MOST_NOTED:
            self._noted.popitem(last=False)

    def hear(self, answer_id: str) -> None:
        """Remove the question of an answer that a reader called wrong; it counts as an error if it
        was served from here.
        """
        noted = self._noted.pop(answer_id, None)
        if noted is None:
            return
        if noted.score is None:
            noted.index.remove(noted.key)
        else:
            noted.index.report(noted.key, noted.score)

    def reports(self) -> Iterator[SemanticReport]:
        """Yield what each index has done."""
        for (tenant, app), index in list(self.indexes.items()):
            yield SemanticReport(
                tenant=tenant,
                app=app,
                questions=len(index),
                bound=index.bound.state(),
            )
