"""Rank the models that pass all constraints by what is known of their quality."""

from collections.abc import Sequence

import msgspec

from slipway.planner import pareto
from slipway.planner.constraints import Evidence
from slipway.planner.costs import Option
from slipway.planner.models import CatalogueModel, FactSource
from slipway.types import Record

# Public scores that differ by less count as equal, since this share of the labels is wrong
NOISE = 0.03
LEVELS = (  # how much is known of a model's quality for a task
    "measured on your set",
    "made for this task",
    "a public score on this task",
    "a general public score",
    "nothing is known of its quality",
)
_GENERAL = ("mmlu_pro", "mmlu", "bbh_normalised")
_BENCHMARKS: dict[
    str, tuple[str, ...]
] = {  # the public scores that say most about a task, the best first
    "maths": ("math_lvl5", "math_500"),
    "vision": ("mmmu",),
    "image_generation": ("geneval",),
    "detection": ("coco_map",),
    "medicine": ("medqa",),
    "speech": ("cer_zh",),
    "audio": (),
    "transcription": (),
}
_LESS_IS_BETTER = ("cer_zh",)


class Prior(Record, frozen=True, kw_only=True):
    """A public score: a first guess, no proof."""

    benchmark: str
    value: float
    source: FactSource
    general: bool


class Candidacy(Record, frozen=True, kw_only=True):
    """A model that passes all constraints."""

    model: CatalogueModel
    options: Sequence[Option]
    evidence: Evidence | None
    prior: Prior | None
    special: bool
    ttft_s: float | None
    tpot_s: float | None
    on_front: bool = False
    rank: int = 0

    @property
    def best(self) -> Option | None:
        return self.options[0] if self.options else None

    @property
    def level(self) -> int:
        """Return how much is known of its quality for this task: 0 measured, 1 made for the task, 2
        a score on the task, 3 a general score, 4 nothing.
        """
        if self.evidence is not None:
            return 0
        if self.special:
            return 1
        return len(LEVELS) - 1 if self.prior is None else 3 if self.prior.general else 2

    @property
    def quality(self) -> float | None:
        """Return the lower end if it was measured, else the public score."""
        if self.evidence is not None:
            return self.evidence.low
        return self.prior.value if self.prior is not None else None


def prior_of(model: CatalogueModel, task: str) -> Prior | None:
    """Return the best public score for this task. MMLU-Pro has two scales, which are made one."""
    own = _BENCHMARKS.get(task, ())
    priors = dict(model.priors)
    if "mmlu_pro_normalised" in priors and "mmlu_pro" not in priors:
        priors["mmlu_pro"] = (
            priors["mmlu_pro_normalised"] * 0.9 + 0.1
        )  # guessing one of ten scores 0 there
    text = task not in _BENCHMARKS or task in ("maths", "medicine")
    for benchmark in (*own, *(_GENERAL if text else ())):
        if benchmark in priors:
            value = priors[benchmark]
            source = model.source(f"priors.{benchmark}")
            if benchmark == "mmlu_pro" and "mmlu_pro" not in model.priors:
                source = model.source("priors.mmlu_pro_normalised")
            return Prior(
                benchmark=benchmark,
                value=1 - value if benchmark in _LESS_IS_BETTER else value,
                source=source,
                general=benchmark not in own,
            )
    return None


def comparable(accepted: Sequence[Candidacy]) -> list[Candidacy]:
    """Scores on the benchmark that most of them have; those on others cannot be set beside them."""
    counts: dict[tuple[bool, str], int] = {}
    for each in accepted:
        if each.prior is not None:
            key = (each.prior.general, each.prior.benchmark)
            counts[key] = counts.get(key, 0) + 1
    best = {
        general: max((k for k in counts if k[0] == general), key=counts.__getitem__, default=None)
        for general in (False, True)
    }
    return [
        each
        if each.prior is None
        or best[each.prior.general] == (each.prior.general, each.prior.benchmark)
        else msgspec.structs.replace(each, prior=None)
        for each in accepted
    ]


# Ranking


def in_order(accepted: Sequence[Candidacy]) -> list[Candidacy]:
    """Rank by how much is known; then the cheapest of those that are as good as the best comes
    first. The front is of those of whose quality something is known, or of all if nothing is known
    of any.
    """
    levels: dict[int, list[Candidacy]] = {}
    for each in accepted:
        levels.setdefault(each.level, []).append(each)
    ordered: list[Candidacy] = []
    for level in sorted(levels):
        priced = [each for each in levels[level] if each.options or level == 0]
        ordered += _within(priced, level)
        ordered += _within([each for each in levels[level] if each not in priced], level)
    known = [each for each in ordered if each.quality is not None] or ordered
    names = set(pareto.front([_point(each) for each in known]))
    return [
        msgspec.structs.replace(each, rank=rank, on_front=each.model.id in names)
        for rank, each in enumerate(ordered, 1)
    ]


def _point(each: Candidacy) -> pareto.Point:
    cost = each.best.month_usd if each.best is not None else None
    return pareto.Point(name=each.model.id, quality=each.quality, cost=cost, latency=each.ttft_s)


def _within(level: Sequence[Candidacy], number: int) -> list[Candidacy]:
    """Order candidates of one level: the cheapest among those as good as the best, then the others
    in the same way.
    """
    left = sorted(level, key=_price_order)
    found: list[Candidacy] = []
    while left:
        best = max((each.quality for each in left if each.quality is not None), default=None)
        if best is None:
            return [*found, *left]
        alike = [
            each for each in left if each.quality is not None and _as_good(each, best, left, number)
        ]
        found += alike
        left = [each for each in left if each not in alike]
    return found


def _as_good(each: Candidacy, best: float, among: Sequence[Candidacy], level: int) -> bool:
    if level == 0:  # measured: nobody among them is surely better
        evidence = each.evidence
        ids = {other.model.id for other in among}
        return evidence is not None and not ids & set(evidence.beaten_by) and evidence.high >= best
    return each.quality is not None and each.quality >= best - NOISE


def _price_order(each: Candidacy) -> tuple[float, str]:
    return (each.best.month_usd if each.best is not None else float("inf"), each.model.id)
