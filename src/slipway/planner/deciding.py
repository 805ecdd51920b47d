"""Decide which models fit, which is best, how it is run, and what must be done before it goes live.

Everything follows from the requirements, the catalogue, the evidence and the day; the same four
give the same decision.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path

import msgspec

from slipway.planner.candidacy import LEVELS, Candidacy, comparable, in_order, prior_of
from slipway.planner.constraints import (
    Evidence,
    ModelFacts,
    Violation,
    first_violation,
    latency_of,
    needed_input,
    needed_output,
)
from slipway.planner.costs import BreakEven, Option, break_even, options_for, zones_for
from slipway.planner.demand import Demand, demand_of
from slipway.planner.models import Catalogue, CatalogueModel, Machine
from slipway.planner.requirements import RISKY, Requirements
from slipway.types import Record

SHORTLIST = 8  # models that are measured at most
_CHAIN_WORDS = 200  # tokens in which one model of a chain tells the next what it has seen or heard
_CHAIN_TTFT, _CHAIN_TPOT = 0.8, 0.025  # of a model of which nothing is known


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
    """How the chosen model is run: the cheapest option, the others, and what takes over if it
    fails.
    """

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
    ranked = in_order(comparable(accepted))
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
) -> ModelFacts:
    made: list[list[Option]] = []

    def options() -> Sequence[Option]:
        if not made:
            machines = list(catalogue.machines.values()) if model.own else []
            made.append(
                options_for(model, demand, requirements, [_without_seconds(m) for m in machines])
            )
        return made[0]

    return ModelFacts(
        model=model,
        requirements=requirements,
        today=today,
        evidence=evidence,
        options=options,
        machines=tuple(catalogue.machines.values()),
    )


def _without_seconds(machine: Machine) -> Machine:
    return msgspec.structs.replace(machine, serverless=False)


def _candidacy(facts: ModelFacts) -> Candidacy:
    tasks = facts.requirements.tasks
    return Candidacy(
        model=facts.model,
        options=facts.options(),
        evidence=facts.evidence,
        prior=prior_of(facts.model, tasks[0]),
        special=tasks[0] in facts.model.specialities,
        ttft_s=latency_of(facts, "ttft"),
        tpot_s=latency_of(facts, "tpot"),
    )


# Deployment


def _all_options(
    model: CatalogueModel,
    requirements: Requirements,
    catalogue: Catalogue,
    demand: Demand,
    ranked: Sequence[Candidacy],
) -> list[Option]:
    """List all ways to run the model; the same weights at a provider can take what overflows."""
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
    """Compare a model at a provider with the best one on machines of your own."""
    for each in ranked:
        option = next((o for o in each.options if o.kind == "on-demand"), None)
        if option is not None:
            return break_even(chosen.options[0], option, demand, requirements)
    return None


def _chain(chosen: Candidacy, ranked: Sequence[Candidacy], requirements: Requirements) -> list[str]:
    """Return who takes over: the same model elsewhere, then others, each of another provider, as
    many as the availability needs, and one at least.
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
    """Describe, for a task of several senses, the chain of models for one sense each, with its
    latency.
    """
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
    found += _over_budget(requirements, deployment)
    if chosen is not None:
        found += [*_unproven(requirements, chosen), *_unmeasured(requirements, chosen)]
        if deployment is None:
            found.append(
                f"price: what {chosen.model.id} costs is not known, and is not 0: say it in a "
                "file for --catalogue"
            )
    if deployment is not None and deployment.availability < requirements.availability:
        found.append(
            f"availability: the chain answers {deployment.availability:.4%} of the time, needed is "
            f"{requirements.availability:.4%}: no further model of another provider passes the "
            "constraints"
        )
    return found


def _over_budget(requirements: Requirements, deployment: Deployment | None) -> Iterator[str]:
    """List budgets that the requests of a trace would pass, though their averages keep to them."""
    if deployment is None:
        return
    option, budget = deployment.chosen, requirements.budget
    if budget.month_usd is not None and option.month_usd > budget.month_usd:
        yield (
            f"budget: by the trace, a month costs ${option.month_usd:,.2f}, more than "
            f"${budget.month_usd:,.2f}"
        )
    if budget.thousand_usd is not None and option.thousand_usd > budget.thousand_usd:
        yield (
            f"budget: by the trace, a thousand requests cost ${option.thousand_usd:,.4f}, more "
            "than "
            f"${budget.thousand_usd:,.4f}"
        )


def _risks(requirements: Requirements) -> Iterator[str]:
    """List what is missing for a task in which a wrong answer does harm."""
    if not requirements.risky:
        return
    why = next((task for task in requirements.tasks if task in RISKY), "a wrong answer does harm")
    if not requirements.knowledge:
        yield f"knowledge: {why}: answers must come from documents; name them under `knowledge`"
    if requirements.rules is None:
        yield (
            f"rules: {why}: some questions need a fixed answer, or none; name the file under "
            "`rules`"
        )


def _unproven(requirements: Requirements, chosen: Candidacy) -> Iterator[str]:
    least, evidence = requirements.quality.least, chosen.evidence
    if least is None:
        if chosen.level == len(LEVELS) - 1:
            yield (
                f"quality: nothing is known of how good {chosen.model.id} is; measure it on your "
                "own questions, under `quality.set`"
            )
        return
    if evidence is None:
        yield (
            f"quality: nobody has measured {chosen.model.id} on `{requirements.quality.set}`: "
            "slipway plan FILE --evaluate"
        )
    elif evidence.low < least:
        yield (
            f"quality: {chosen.model.id} scores {evidence.score:.1%}, surely only "
            f"{evidence.low:.1%}; needed is {least:.1%}: measure more items"
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
            "A person looks at answers before they are acted upon, and the reader sees what the "
            "answer rests on."
        )
    if requirements.quality.set is None:
        found.append(
            "Nothing was measured on your own questions: write fifty or more, and name the file "
            "under `quality.set`."
        )
    budget = requirements.budget.month_usd
    if (
        deployment is not None
        and budget is not None
        and deployment.chosen.high_usd > budget >= deployment.chosen.month_usd
    ):
        found.append(
            f"With {requirements.assumptions.traffic_error:.0%} more traffic, a month would cost "
            f"${deployment.chosen.high_usd:,.0f}, more than the budget."
        )
    unknown = sum(each.level == 4 for each in ranked)
    if unknown and ranked and ranked[0].level < 4:
        found.append(
            f"{unknown:,} more models pass all constraints, but nothing public is known of their "
            "quality: name some under `candidates` to have them measured."
        )
    if (
        deployment is not None
        and deployment.chosen.service is not None
        and not deployment.chosen.service.measured
    ):
        found.append(
            "How fast the machine answers is estimated from its memory; measure it, and say it "
            "under `serving`."
        )
    return found
