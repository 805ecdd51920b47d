"""Write a plan for the terminal, and the sentences that all its reports share."""

from collections.abc import Iterator, Sequence

from slipway.planner.candidacy import LEVELS, Candidacy
from slipway.planner.constraints import Violation, counted
from slipway.planner.costs import KINDS, Option
from slipway.planner.deciding import Decision
from slipway.planner.models import CatalogueModel, Tier

_NEAR = (
    "budget",
    "ttft",
    "tpot",
    "context",
    "quality",
    "machines",
    "regions",
    "price",
    "licence",
    "deployment",
    "languages",
    "output",
    "input",
)


def usd(value: float | None) -> str:
    if value is None:
        return "not known"
    return (
        f"${value:,.0f}"
        if value >= 100
        else f"${value:,.2f}"
        if value >= 0.01
        else f"${value:.6f}".rstrip("0").rstrip(".")
    )


def cost_range(option: Option) -> str:
    if round(option.low_usd) == round(option.high_usd):
        return usd(option.month_usd)
    return f"{usd(option.month_usd)} ({usd(option.low_usd)} to {usd(option.high_usd)})"


def machines(option: Option) -> str:
    """Describe the machines of an option, as in `2 x lambda/gpu_1x_a6000 in 2 zones`."""
    parts = []
    if option.replicas:
        parts.append(
            f"{option.replicas} x {option.machine}"
            + (f" in {option.zones} zones" if option.zones > 1 else "")
        )
    if option.spot_replicas:
        parts.append(f"{option.spot_replicas} x {option.machine} that may be taken away")
    if option.kind == "serverless":
        parts.append(option.machine)
    if option.other:
        parts.append(f"{option.overflow:.1%} of the requests go to {option.other}")
    return ", ".join(parts) or "none of yours"


def quality(each: Candidacy) -> str:
    if each.evidence is not None:
        found = each.evidence
        return (
            f"{found.score:.1%} [{100 * found.low:.1f}, {100 * found.high:.1f}] "
            f"on {found.n} items of {found.set}"
        )
    if each.prior is not None:
        return f"{each.prior.benchmark} {each.prior.value:.3f}, public"
    return "not known"


def headline(decision: Decision) -> str:
    """Sum up the plan in one sentence."""
    if decision.chosen is None:
        return "No model meets these requirements."
    option = decision.deployment.chosen if decision.deployment is not None else None
    cost = (
        f", for {cost_range(option)} a month"
        if option is not None
        else ", at a price that is not known"
    )
    name = decision.chosen.model.id
    if decision.conditions:
        count = len(decision.conditions)
        return (
            f"{name} fits best{cost}; {count} condition{'s' * (count > 1)} "
            "must be met before it goes live."
        )
    return f"Use {name}{cost}."


def reason(decision: Decision) -> str:
    """Say in a sentence why this model is chosen."""
    if decision.chosen is None:
        return ""
    chosen = decision.chosen
    alike = [each for each in decision.accepted[1:] if each.level == chosen.level]
    why = {
        0: "it is the cheapest of those that nobody is surely better than on your own items",
        1: "it is made for this task",
        2: "its public score on this task is the best, or as good as the best and cheaper",
        3: "its general public score is the best, or as good as the best and cheaper",
        4: "it is the cheapest of those that pass",
    }[chosen.level]
    if chosen.level == 1 and len(alike) and chosen.prior is not None:
        why += ", and the best of those by its public score, or as good and cheaper"
    passed, all_ = len(decision.accepted), len(decision.accepted) + len(decision.rejected)
    return (
        f"Of {all_:,} models, {passed:,} pass all constraints. {chosen.model.id} is chosen since "
        f"{why}."
    )


def nearest(decision: Decision, most: int = 8) -> list[tuple[str, Violation]]:
    """Rejected models that a small change would let in, those of the last constraints first: they
    have passed all before.
    """
    order = {name: number for number, name in enumerate(_NEAR)}
    rows = [
        (id_, v) for id_, v in decision.rejected.items() if v.relaxation and v.constraint in order
    ]
    found: list[tuple[str, Violation]] = []
    seen: dict[str, int] = {}
    for id_, violation in sorted(
        rows, key=lambda row: (order[row[1].constraint], _size(row[1]), row[0])
    ):
        if seen.get(violation.constraint, 0) < 3:
            seen[violation.constraint] = seen.get(violation.constraint, 0) + 1
            found.append((id_, violation))
    return found[:most]


def _size(violation: Violation) -> float:
    """Return how large a change is, if it is one of money."""
    if violation.constraint != "budget":
        return 0.0
    return float(violation.relaxation.rsplit(" ", 1)[1])


def as_text(decision: Decision, assumed: Sequence[str]) -> Iterator[str]:
    yield headline(decision)
    yield reason(decision)
    if decision.conditions:
        yield "\nBefore it goes live"
        yield from (f"  - {each}" for each in decision.conditions)
    if decision.deployment is not None:
        yield "\nHow it is run"
        for option in decision.deployment.options[:6]:
            mark = "*" if option is decision.deployment.chosen else " "
            yield (
                f" {mark} {option.kind:10} {cost_range(option):34} "
                f"{usd(option.thousand_usd)} for 1,000   {machines(option)}"
            )
        chain = " then ".join(decision.deployment.chain) or "nobody"
        availability = decision.deployment.availability
        yield f"   if it fails: {chain}; together {availability:.4%} of the time"
        yield f"   {break_even(decision)}"
    if decision.accepted:
        yield "\nWho passes"
        for each in decision.accepted[:8]:
            cost = usd(each.best.month_usd if each.best is not None else None)
            yield (
                f"   {each.rank:2}. {each.model.id:44} {cost:>12} a month   "
                f"{quality(each)} ({LEVELS[each.level]})"
            )
    yield "\nWho does not"
    counts = [f"{count:,} by {name}" for name, count in counted(decision.rejected).items()]
    yield f"   {', '.join(counts) or 'nobody'}"
    yield from (f"   {id_}: {violation.sentence}" for id_, violation in nearest(decision))
    yield from (f"   chain {each.sentence}" for each in decision.chains)
    if decision.advice:
        yield "\nWorth knowing"
        yield from (f"  - {each}" for each in decision.advice)
    if assumed:
        yield f"\nAssumed, since nobody said: {'; '.join(assumed)}"


def break_even(decision: Decision) -> str:
    if decision.deployment is None:
        return ""
    even = decision.deployment.break_even
    if even is None:
        kinds = {option.kind == "api" for each in decision.accepted for option in each.options}
        if kinds == {True}:
            return "only providers pass, so that there is no break-even with machines of your own"
        if kinds == {False}:
            return "only machines of your own pass, so that there is no break-even with a provider"
        return "at these prices, the way that is chosen stays the cheaper one at any traffic"
    return (
        f"machines of your own are the cheaper ones from {even.rps:.2f} requests a second on "
        f"({even.replicas} of them); planned are {decision.demand.mean_rps:.2f}"
    )


# The catalogue


def price(model: CatalogueModel) -> str:
    if model.own:
        return "your machines"
    if model.tiers:
        return (
            f"{_tier(model.tiers[0])}{' and more for long prompts' if len(model.tiers) > 1 else ''}"
        )
    if model.image_usd is not None:
        return f"{usd(model.image_usd)} an image"
    if model.million_characters_usd is not None:
        return f"{usd(model.million_characters_usd)} a million characters"
    return f"{usd(model.second_usd)} a second" if model.second_usd is not None else "not known"


def _tier(tier: Tier) -> str:
    return f"{usd(tier.input)} in, {usd(tier.output)} out"


def model_lines(model: CatalogueModel, retired: bool) -> Iterator[str]:
    """Return all that is known of a model, each fact with who says so and as of when."""
    yield f"{model.id}{f' - retired on {model.retired}' if retired else ''}"
    facts = {
        "name": model.name,
        "vendor": model.vendor,
        "tasks": ", ".join(model.tasks),
        "specialities": ", ".join(model.specialities),
        "takes": ", ".join(model.input),
        "gives": ", ".join(model.output),
        "languages": ", ".join(model.languages),
        "context": f"{model.context:,} tokens" if model.context else "",
        "max_output": f"{model.max_output:,} tokens" if model.max_output else "",
        "price": price(model),
        "licence": model.licence,
        "open_weights": "" if model.open_weights is None else "yes" if model.open_weights else "no",
        "regions": ", ".join(model.regions),
        "size_b": f"{model.size_b:g} billion parameters" if model.size_b else "",
        "retired": model.retired or "",
    }
    names = {"takes": "input", "gives": "output", "price": "tiers"}
    for name, value in facts.items():
        source = model.source(names.get(name, name))
        behind = f"   [{source.says}, {source.as_of}]" if value and value != "not known" else ""
        yield f"  {name:13} {value or 'not known'}{behind}"
    for benchmark, score in model.priors.items():
        source = model.source(f"priors.{benchmark}")
        yield (
            f"  {benchmark:13} {score:.4g}   [{source.says}, {source.as_of}; public, perhaps in "
            "the training data]"
        )


def kind_meaning(option: Option) -> str:
    return KINDS[option.kind]
