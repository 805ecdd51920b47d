"""What a run is asked to do, and what it needs done for it."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from slipway.compress import measuring
from slipway.compress.gate import Targets
from slipway.compress.results import Registered
from slipway.types import Record

Scores = tuple[Sequence[float], Sequence[float]]  # of the original and the result, item by item


class Job(Record, frozen=True, kw_only=True):
    """What was asked for. `model` is a path; `minutes` of processor time for distilling."""

    model: Path
    out: Path
    name: str
    command: str = ""
    targets: Targets = Targets()
    quant: str | None = None
    prune: str | None = None
    distil: Path | None = None
    calibrate: Path | None = None
    test: Path | None = None
    other: Path | None = None
    questions: Path | None = None
    question_texts: tuple[str, ...] = ()
    docs: tuple[Path, ...] = ()
    minutes: float = 25.0
    samples: int = 24
    rounds: int = measuring.ROUNDS
    price_hour: float | None = None


class Hands(Protocol):
    """What a command does for the pipeline."""

    def progress(self, label: str) -> Callable[[int, int], None]:
        """A bar with this label: (done, total)."""

    def say(self, line: str) -> None:
        """Tell the person who waits."""

    def answers(self, models: Mapping[str, Path]) -> Scores | None:
        """Score both models on the operator's questions; None if there are none."""

    def register(self, job: Job, result: Path) -> Registered:
        """Make the result a model of its own."""
