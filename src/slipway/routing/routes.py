"""Routes: which models may answer, in which order, and what is known about each."""

from collections.abc import Iterable

import msgspec

from slipway.prices import Rates
from slipway.providers import Provider
from slipway.routing.attempts import ModelTraits
from slipway.routing.health import Health
from slipway.types import Record, Role, ServedBy

PARALLEL_CALLS = 8
USUAL_MAX_OUTPUT = 8192  # tokens of the longest answer of a model whose limit is unknown


class Candidate(Record, frozen=True, kw_only=True):
    """A model of a route, with its role, its traits and its health."""

    model: Provider
    role: Role = "primary"
    traits: ModelTraits = ModelTraits()
    health: Health = msgspec.field(default_factory=Health)
    canary: float | None = None  # the share of questions that it answers first
    rates: Rates | None = None  # what it costs; None if that is unknown

    @property
    def served_by(self) -> ServedBy:
        return "smaller" if self.role == "smaller" else "model"

    def deadlines(self, now: float, until: float, *, others: bool) -> tuple[float, float]:
        """Return when the first words of a call that begins now must be here, and when its last."""
        ends_by = min(now + self.traits.total_s, until)
        first_s = self.traits.first_token_s or (self.health.first_words.limit_s if others else None)
        return (ends_by if first_s is None else min(now + first_s, ends_by)), ends_by

    def most_output(self, input_tokens: int) -> int:
        """Return how many tokens the model writes at most after a prompt of this length."""
        most, context = self.traits.max_output, self.traits.context
        if most is None:
            most = USUAL_MAX_OUTPUT
        return most if context is None else max(1, min(most, context - input_tokens))

    def most_input(self, input_tokens: int) -> int:
        """Return how many of so many tokens the model reads: it refuses what it has no space for."""
        context = self.traits.context
        return input_tokens if context is None else min(input_tokens, context)

    @property
    def late_after_s(self) -> float:
        """After how many seconds an answer that is not streamed is late, if another model can be
        asked as well.
        """
        return max(self.health.whole_answers.limit_s, self.traits.first_token_s or 0.0)


class Route(Record, frozen=True, kw_only=True):
    """A named list of candidates in order of preference."""

    name: str
    candidates: tuple[Candidate, ...]
    traits: tuple[ModelTraits, ...] = ()  # of the candidates, with their roles
    has_canary: bool = False

    def __post_init__(self) -> None:
        """Derive the last two fields once, as each question reads them."""
        traits = [msgspec.structs.replace(each.traits, role=each.role) for each in self.candidates]
        msgspec.structs.force_setattr(self, "traits", tuple(traits))
        has_canary = any(each.canary is not None for each in self.candidates)
        msgspec.structs.force_setattr(self, "has_canary", has_canary)

    def drawn(self, chance: float) -> "Route":
        """Return the route for one question: a canary comes first if `chance` (0 to 1) is within
        its share, and last otherwise.
        """
        if not self.has_canary:
            return self
        first, last = list[Candidate](), list[Candidate]()
        for each in self.candidates:
            if each.canary is not None:
                (first if 0 <= chance < each.canary else last).append(each)
                chance -= each.canary
        others = [each for each in self.candidates if each.canary is None]
        return msgspec.structs.replace(self, candidates=(*first, *others, *last))

    @property
    def at_once(self) -> int:
        """Return how many calls its narrowest model takes at once; PARALLEL_CALLS if none has a
        limit.
        """
        return min(
            (each.health.slots.most for each in self.candidates if each.health.slots is not None),
            default=PARALLEL_CALLS,
        )


def healths_of(routes: Iterable[Route]) -> dict[str, Health]:
    """Return each model's health by the model's name."""
    return {c.model.name: c.health for route in routes for c in route.candidates}


def models_of(routes: Iterable[Route]) -> list[Provider]:
    """Return each model once."""
    return list({id(c.model): c.model for route in routes for c in route.candidates}.values())
