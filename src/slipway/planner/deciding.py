"""A decision: who fits, who is best, how it is run, and what must be so before it goes live.

Everything follows from the requirements, the catalogue, the evidence and the day; the same four give
the same decision.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path

import msgspec

from slipway.planner import pareto
from slipway.planner.constraints import (
    Evidence,
    Facts,
    Violation,
    first_violation,
    latency_of,
    needed_input,
    needed_output,
)
from slipway.planner.costs import BreakEven, Option, break_even, options_for, zones_for
from slipway.planner.demand import Demand, demand_of
from slipway.planner.models import Catalogue, CatalogueModel, Machine, Source
from slipway.planner.requirements import RISKY, Requirements
from slipway.types import Record

NOISE = 0.03  # public scores nearer than this to each other are taken as equal: that many labels are wrong
SHORTLIST = 8
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
_CHAIN_WORDS = 200  # tokens in which one model of a chain tells the next what it has seen or heard
_CHAIN_TTFT, _CHAIN_TPOT = 0.8, 0.025  # of a model of which nothing is known


class Prior(Record, frozen=True, kw_only=True):
    """A public score: a first guess, no proof."""

    benchmark: str
    value: float
    source: Source
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
        """How much is known of its quality for this task: 0 measured, 1 made for the task, 2 a score
        on the task, 3 a general score, 4 nothing.
        """
        if self.evidence is not None:
            return 0
        if self.special:
            return 1
        return len(LEVELS) - 1 if self.prior is None else 3 if self.prior.general else 2

    @property
    def quality(self) -> float | None:
        """The lower end if it was measured, else the public score."""
        if self.evidence is not None:
            return self.evidence.low
        return self.prior.value if self.prior is not None else None


class RejectedChain(Record, frozen=True, kw_only=True):
    """Several models one after another in the place of one that understands everything."""

    models: tuple[str, ...]
    ttft_s: float
    single: str
    single_ttft_s: float
    assumed: bool

    @property
    def sentence(self) -> str:
        guess = " (assumed, where nobody has measured)" if self.assumed else ""
        return (
            f"{' then '.join(self.models)}: the first token would come after {self.ttft_s:.2f} s, "
            f"since their times add up; {self.single} alone takes {self.single_ttft_s:.2f} s{guess}"
        )


class Deployment(Record, frozen=True, kw_only=True):
    """How the chosen model is run: the cheapest option, the others, and who takes over if it fails."""

    chosen: Option
    options: Sequence[Option]
    break_even: BreakEven | None
    chain: Sequence[str]
    zones: int
    availability: float


class Decision(Record, frozen=True, kw_only=True):
    """`conditions` must be met before it may go live; while there is one, it is not ready."""

    name: str
    today: date
    catalogue: str
    demand: Demand
    requirements: Requirements
    accepted: Sequence[Candidacy]
    rejected: Mapping[str, Violation]
    chosen: Candidacy | None
    deployment: Deployment | None
    chains: Sequence[RejectedChain]
    conditions: Sequence[str]
    advice: Sequence[str]

    @property
    def ready(self) -> bool:
        return self.chosen is not None and not self.conditions

    @property
    def front(self) -> list[Candidacy]:
        return [each for each in self.accepted if each.on_front]


def decide(
    requirements: Requirements,
    catalogue: Catalogue,
    today: date,
    evidence: Mapping[str, Evidence] | None = None,
    folder: Path = Path(),
    demand: Demand | None = None,
) -> Decision:
    """Raises SettingsError for a trace that cannot be read."""
    demand = demand or demand_of(requirements, folder)
    known = evidence or {}
    quick = msgspec.structs.replace(demand, trace=()) if demand.trace else demand
    accepted, rejected = list[Candidacy](), dict[str, Violation]()
    for model in catalogue.models.values():
        facts = _facts(model, requirements, catalogue, today, known.get(model.id), quick)
        violation = first_violation(facts)
        if violation is not None:
            rejected[model.id] = violation
        else:
            accepted.append(_candidacy(facts))
    ranked = _ranked(_comparable(accepted))
    chosen = ranked[0] if ranked else None
    deployment = None
    if chosen is not None:
        options = _all_options(chosen.model, requirements, catalogue, demand, ranked)
        chosen = msgspec.structs.replace(chosen, options=options)
        ranked[0] = chosen
        deployment = _deployment(chosen, ranked, demand, requirements) if options else None
    return Decision(
        name=requirements.name,
        today=today,
        catalogue=catalogue.digest,
        demand=demand,
        requirements=requirements,
        accepted=ranked,
        rejected=rejected,
        chosen=chosen,
        deployment=deployment,
        chains=_chains(requirements, chosen, catalogue, today),
        conditions=_conditions(requirements, chosen, deployment),
        advice=_advice(requirements, ranked, deployment),
    )


def _facts(
    model: CatalogueModel,
    requirements: Requirements,
    catalogue: Catalogue,
    today: date,
    evidence: Evidence | None,
    demand: Demand,
) -> Facts:
    made: list[list[Option]] = []

    def options() -> Sequence[Option]:
        if not made:
            machines = list(catalogue.machines.values()) if model.own else []
            made.append(
                options_for(model, demand, requirements, [_without_seconds(m) for m in machines])
            )
        return made[0]

    return Facts(
        model=model,
        requirements=requirements,
        today=today,
        evidence=evidence,
        options=options,
        machines=tuple(catalogue.machines.values()),
    )


def _without_seconds(machine: Machine) -> Machine:
    return msgspec.structs.replace(machine, serverless=False)


def _candidacy(facts: Facts) -> Candidacy:
    tasks = facts.requirements.tasks
    return Candidacy(
        model=facts.model,
        options=facts.options(),
        evidence=facts.evidence,
        prior=_prior(facts.model, tasks[0]),
        special=tasks[0] in facts.model.specialities,
        ttft_s=latency_of(facts, "ttft"),
        tpot_s=latency_of(facts, "tpot"),
    )


def _prior(model: CatalogueModel, task: str) -> Prior | None:
    """The best public score for this task. MMLU-Pro has two scales, which are made one."""
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


def _comparable(accepted: Sequence[Candidacy]) -> list[Candidacy]:
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


def _ranked(accepted: Sequence[Candidacy]) -> list[Candidacy]:
    """By how much is known; then the cheapest of those that are as good as the best. The front is of
    those of whose quality something is known, or of all if nothing is known of any.
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
    """The cheapest among those as good as the best, then again among the others."""
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


# Deployment


def _all_options(
    model: CatalogueModel,
    requirements: Requirements,
    catalogue: Catalogue,
    demand: Demand,
    ranked: Sequence[Candidacy],
) -> list[Option]:
    """With a trace, and with who could take what overflows: the same weights at a provider."""
    other = None
    if model.own and requirements.privacy.deployment != "own":
        twins = [
            each
            for each in ranked
            if not each.model.own and _plain(each.model.name) == _plain(model.name) and each.options
        ]
        other = twins[0].model if twins else None
    return options_for(model, demand, requirements, list(catalogue.machines.values()), other)


def _plain(name: str) -> str:
    return re.sub(r"-(fp8|awq|turbo|gptq)$", "", name.lower().rsplit("/", 1)[-1])


def _deployment(
    chosen: Candidacy, ranked: Sequence[Candidacy], demand: Demand, requirements: Requirements
) -> Deployment:
    option = chosen.options[0]
    chain = _chain(chosen, ranked, requirements)
    guess = requirements.assumptions.zone_availability
    zones = max(option.zones, 1)
    down = (1 - guess) ** (zones + len(chain))
    apis = [each for each in ranked if not each.model.own and each.options]
    other = next(
        (each for each in apis if _plain(each.model.name) == _plain(chosen.model.name)),
        apis[0] if apis else None,
    )
    own = next((each for each in chosen.options if each.kind == "on-demand"), None)
    even = (
        break_even(other.options[0], own, demand, requirements)
        if own is not None and other is not None
        else None
    )
    if own is None:
        even = _own_break_even(chosen, ranked, demand, requirements)
    return Deployment(
        chosen=option,
        options=chosen.options,
        break_even=even,
        chain=chain,
        zones=zones,
        availability=1 - down,
    )


def _own_break_even(
    chosen: Candidacy, ranked: Sequence[Candidacy], demand: Demand, requirements: Requirements
) -> BreakEven | None:
    """For a model at a provider: against the best one on machines of one's own."""
    for each in ranked:
        option = next((o for o in each.options if o.kind == "on-demand"), None)
        if option is not None:
            return break_even(chosen.options[0], option, demand, requirements)
    return None


def _chain(chosen: Candidacy, ranked: Sequence[Candidacy], requirements: Requirements) -> list[str]:
    """Who takes over: the same model elsewhere, then others, each of another provider, as many as
    the availability needs, and one at least.
    """
    wanted = max(1, zones_for(requirements) - 1)
    taken, found = {chosen.model.provider}, list[str]()
    others = sorted(ranked[1:], key=lambda each: not each.options)  # those with a known price first
    twins = [each for each in others if _plain(each.model.name) == _plain(chosen.model.name)]
    for each in [*twins, *others]:
        fresh = each.model.provider not in taken or (each.model.own and not found)
        if fresh and each.model.id not in found:
            found.append(each.model.id)
            taken.add(each.model.provider)
        if len(found) >= wanted:
            break
    return found


def _chains(
    requirements: Requirements, chosen: Candidacy | None, catalogue: Catalogue, today: date
) -> list[RejectedChain]:
    """For tasks of several senses: what a chain of models for one sense each would take."""
    senses = [each for each in needed_input(requirements) if each in ("image", "audio")]
    if not senses or chosen is None or "text" not in needed_output(requirements):
        return []
    if "detection" in requirements.tasks or "transcription" in requirements.tasks:
        return []
    by_id = catalogue.models.values()
    parts = []
    for sense in senses:
        task = {"image": "vision", "audio": "audio"}[sense]
        found = [
            m
            for m in by_id
            if task in m.specialities and not m.is_retired(today) and m.id != chosen.model.id
        ]
        parts += found[:1]
    writer = next((m for m in by_id if m.id == "dashscope/qwen-plus"), None)
    models = [*parts, *([writer] if writer is not None else [])]
    if len(models) < 2:
        return []
    times = [(m.ttft_p95_s or _CHAIN_TTFT, m.tpot_p95_s or _CHAIN_TPOT) for m in models]
    ttft = sum(first + _CHAIN_WORDS * each for first, each in times[:-1]) + times[-1][0]
    assumed = (
        any(m.ttft_p95_s is None or m.tpot_p95_s is None for m in models) or chosen.ttft_s is None
    )
    return [
        RejectedChain(
            models=tuple(m.id for m in models),
            ttft_s=ttft,
            single=chosen.model.id,
            single_ttft_s=chosen.ttft_s or _CHAIN_TTFT,
            assumed=assumed,
        )
    ]


# Conditions and advice


def _conditions(
    requirements: Requirements, chosen: Candidacy | None, deployment: Deployment | None
) -> list[str]:
    found = (
        [] if chosen else ["no model passes all constraints: relax one that the rejections name"]
    )
    found += _risks(requirements)
    if chosen is not None:
        found += [*_unproven(requirements, chosen), *_unmeasured(requirements, chosen)]
        if deployment is None:
            found.append(
                f"price: what {chosen.model.id} costs is not known, and is not 0: say it in a file for --catalogue"
            )
    if deployment is not None and deployment.availability < requirements.availability:
        found.append(
            f"availability: the chain answers {deployment.availability:.4%} of the time, needed is "
            f"{requirements.availability:.4%}: no further model of another provider passes the constraints"
        )
    return found


def _risks(requirements: Requirements) -> Iterator[str]:
    """What tasks must not do without in which a wrong answer does harm."""
    if not requirements.risky:
        return
    why = next((task for task in requirements.tasks if task in RISKY), "a wrong answer does harm")
    if not requirements.knowledge:
        yield f"knowledge: {why}: answers must come from documents; name them under `knowledge`"
    if requirements.rules is None:
        yield f"rules: {why}: some questions need a fixed answer, or none; name the file under `rules`"


def _unproven(requirements: Requirements, chosen: Candidacy) -> Iterator[str]:
    least, evidence = requirements.quality.least, chosen.evidence
    if least is None:
        if chosen.level == len(LEVELS) - 1:
            yield (
                f"quality: nothing is known of how good {chosen.model.id} is; measure it on your own "
                "questions, under `quality.set`"
            )
        return
    if evidence is None:
        yield f"quality: nobody has measured {chosen.model.id} on `{requirements.quality.set}`: slipway plan FILE --evaluate"
    elif evidence.low < least:
        yield (
            f"quality: {chosen.model.id} scores {evidence.score:.1%}, surely only {evidence.low:.1%}; needed is "
            f"{least:.1%}: measure more items"
        )


def _unmeasured(requirements: Requirements, chosen: Candidacy) -> Iterator[str]:
    latency = requirements.latency
    for what, most, has in (
        ("ttft", latency.ttft_p95, chosen.ttft_s),
        ("tpot", latency.tpot_p95, chosen.tpot_s),
    ):
        if most is not None and has is None:
            yield f"{what}: nobody has measured {chosen.model.id}: slipway plan FILE --evaluate"


def _advice(
    requirements: Requirements, ranked: Sequence[Candidacy], deployment: Deployment | None
) -> list[str]:
    found = []
    if requirements.stakes == "high" or requirements.risky:
        found.append(
            "A person looks at answers before they are acted upon, and the reader is told what the answer rests on."
        )
    if requirements.quality.set is None:
        found.append(
            "Nothing was measured on your own questions: write fifty or more, and name the file under `quality.set`."
        )
    unknown = sum(each.level == 4 for each in ranked)
    if unknown and ranked and ranked[0].level < 4:
        found.append(
            f"{unknown:,} more models pass all constraints, but nothing public is known of their quality: "
            "name some under `candidates` to have them measured."
        )
    if (
        deployment is not None
        and deployment.chosen.service is not None
        and not deployment.chosen.service.measured
    ):
        found.append(
            "How fast the machine answers is estimated from its memory; measure it, and say it under `serving`."
        )
    return found
