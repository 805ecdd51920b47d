"""What each stage found, as it is kept in `state.json` and shown in the report."""

from collections.abc import Mapping
from pathlib import Path

from slipway.compress.gate import Check, Paired, Verdict
from slipway.compress.measuring import Paces, Reading
from slipway.types import Record

ORIGINAL, PRUNED, DISTILLED, RESULT = "original", "pruned", "distilled", "result"
DOMAIN, OTHER = "in the domain", "out of the domain"
ORIGINAL_FILE, PRUNED_FILE, DISTILLED_FILE = FILES = (
    "original.f16.gguf",
    "pruned.f16.gguf",
    "distilled.f16.gguf",
)  # of a run's folder, beside the result


class Ingested(Record, frozen=True, kw_only=True):
    """`kinds` counts the source's tensors by their types; it is lossy if any is quantised. `twice`:
    the vocabulary's vectors were stored twice."""

    source: str
    sha256: str
    bytes: int
    name: str
    licence: str
    architecture: str
    parameters: int
    layers: int
    kinds: Mapping[str, int]
    twice: bool = False

    @property
    def lossy(self) -> bool:
        return any(kind not in ("f32", "f16", "bf16") for kind in self.kinds)


class ResultFile(Record, frozen=True, kw_only=True):
    """A model as a stage left it. `readings` by the text's name."""

    path: str
    form: str
    bytes: int
    bits: float  # of the file, for each weight
    parameters: int
    readings: Mapping[str, Reading]
    kinds: Mapping[str, int] = {}


class Texts(Record, frozen=True, kw_only=True):
    """How much text there is, in windows of so many tokens."""

    length: int
    training: int
    test: int
    other: int
    split: str


class Planned(Record, frozen=True, kw_only=True):
    """What will be done, and why; `sizes` in bytes of what was considered."""

    form: str
    cut: str | None
    distils: bool
    why: str
    sizes: Mapping[str, int]


class Pruned(Record, frozen=True, kw_only=True):
    cut: str
    influence: tuple[float, ...]
    layers: tuple[int, ...]  # that went, of the original's
    file: ResultFile


class Distilled(Record, frozen=True, kw_only=True):
    """`recovered`: the share of the log-perplexity lost by pruning that came back, by text."""

    steps: int
    cpu_s: float
    loss: float
    sampled: int
    losses: tuple[tuple[int, float], ...]
    recovered: Mapping[str, float]
    file: ResultFile


class Gated(Record, frozen=True, kw_only=True):
    paces: Paces | None
    answers: Paired | None
    checks: tuple[Check, ...]
    verdict: Verdict
    advice: str = ""


class Registered(Record, frozen=True, kw_only=True):
    """`name` is empty if it was not registered, and `why` says why."""

    name: str = ""
    settings: str = ""
    route: str = ""
    canary: str = ""
    why: str = ""


class Outcome(Record, frozen=True, kw_only=True):
    """All of it. What was not asked for is None."""

    command: str
    ingested: Ingested
    texts: Texts
    original: ResultFile
    planned: Planned
    result: ResultFile
    gated: Gated
    registered: Registered
    pruned: Pruned | None = None
    distilled: Distilled | None = None
    price_hour: float | None = None
    seconds: Mapping[str, float] = {}  # by stage
    memory: int = 0  # the most that this process and its children had, in bytes

    @property
    def files(self) -> dict[str, ResultFile]:
        found = {ORIGINAL: self.original}
        if self.pruned:
            found[PRUNED] = self.pruned.file
        if self.distilled:
            found[DISTILLED] = self.distilled.file
        return {**found, RESULT: self.result}

    @property
    def folder(self) -> Path:
        return Path(self.result.path).parent
