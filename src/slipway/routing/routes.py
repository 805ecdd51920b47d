"""Routes: which models may answer, in which order, and what is known of each."""

from collections.abc import Iterable

import msgspec

from slipway.providers import Provider
from slipway.routing.attempts import Traits
from slipway.routing.health import Health
from slipway.types import Record, Role, ServedBy

AT_ONCE = 8
FIRST_TOKEN_S = (
    20.0  # how long a model may take for its first words, where another may be asked instead
)


class Candidate(Record, frozen=True, kw_only=True):
    model: Provider
    role: Role = "primary"
    traits: Traits = Traits()
    health: Health = msgspec.field(default_factory=Health)

    @property
    def served_by(self) -> ServedBy:
        return "smaller" if self.role == "smaller" else "model"

    def deadlines(self, now: float, until: float, *, others: bool) -> tuple[float, float]:
        """When the first words of a call that begins now must be here, and when its last."""
        ends_by = min(now + self.traits.total_s, until)
        first_s = self.traits.first_token_s or (FIRST_TOKEN_S if others else None)
        return (ends_by if first_s is None else min(now + first_s, ends_by)), ends_by


class Route(Record, frozen=True, kw_only=True):
    name: str
    candidates: tuple[Candidate, ...]

    @property
    def traits(self) -> list[Traits]:
        return [each.traits for each in self.candidates]

    @property
    def at_once(self) -> int:
        """How many calls its narrowest model takes side by side; AT_ONCE where none of them says."""
        return min(
            (each.health.turns.most for each in self.candidates if each.health.turns is not None),
            default=AT_ONCE,
        )


def healths_of(routes: Iterable[Route]) -> dict[str, Health]:
    """How each model is, by its name."""
    return {c.model.name: c.health for route in routes for c in route.candidates}


def models_of(routes: Iterable[Route]) -> list[Provider]:
    """Each model once."""
    return list({id(c.model): c.model for route in routes for c in route.candidates}.values())
