"""Check the hard constraints in order. The first that a model violates is the reason to reject it,
reported with the smallest change of the requirements that would let it pass.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date

from slipway.planner.costs import Option, memory_gb
from slipway.planner.models import CatalogueModel, Machine
from slipway.planner.requirements import Requirements
from slipway.types import Record

_TASK_INPUT = {"vision": "image", "audio": "audio", "transcription": "audio", "detection": "image"}
_TASK_OUTPUT = {"image_generation": "image", "speech": "audio", "detection": "boxes"}


class Evidence(Record, frozen=True, kw_only=True):
    """What was measured of a model on the operator's own set."""

    set: str
    n: int
    score: float
    low: float
    high: float
    ttft_p95_s: float | None = None
    tpot_p95_s: float | None = None
    request_usd: float | None = None
    log: str = ""
    beaten_by: tuple[str, ...] = ()


class ModelFacts(Record, frozen=True, kw_only=True):
    """What a constraint may look at. `options` are ways to run the model, the cheapest first."""

    model: CatalogueModel
    requirements: Requirements
    today: date
    evidence: Evidence | None
    options: Callable[[], Sequence[Option]]
    machines: tuple[Machine, ...] = ()


class Violation(Record, frozen=True, kw_only=True):
    """What a model has, what was needed, and the nearest relaxation; "" if there is none."""

    constraint: str
    has: str
    needs: str
    relaxation: str

    @property
    def sentence(self) -> str:
        change = f"; it would pass there with `{self.relaxation}`" if self.relaxation else ""
        return f"{self.constraint}: it has {self.has}, needed is {self.needs}{change}"


Check = Callable[[ModelFacts], Violation | None]


def _joined(values: Sequence[str]) -> str:
    return ", ".join(values) or "none"


def needed_input(requirements: Requirements) -> tuple[str, ...]:
    """Return what a model must accept besides text: what people send and what the tasks need."""
    found = [
        *requirements.input,
        *(_TASK_INPUT[task] for task in requirements.tasks if task in _TASK_INPUT),
    ]
    return tuple(dict.fromkeys(each for each in found if each != "text"))


def needed_output(requirements: Requirements) -> tuple[str, ...]:
    found = [*requirements.output, *(_TASK_OUTPUT.get(task, "text") for task in requirements.tasks)]
    return tuple(dict.fromkeys(found))


def _candidates(f: ModelFacts) -> Violation | None:
    wanted = f.requirements.candidates
    if wanted and f.model.id not in wanted:
        return Violation(
            constraint="candidates",
            has=f.model.id,
            needs="one of `candidates`",
            relaxation=f"candidates: [{f.model.id}]",
        )
    if f.model.id in f.requirements.exclude:
        return Violation(
            constraint="exclude",
            has=f.model.id,
            needs="none of `exclude`",
            relaxation="exclude: []",
        )
    return None


def _retired(f: ModelFacts) -> Violation | None:
    if not f.model.is_retired(f.today):
        return None
    return Violation(
        constraint="retired",
        has=f"ended on {f.model.retired}",
        needs="a model that is offered",
        relaxation="",
    )


def _task(f: ModelFacts) -> Violation | None:
    lacking = [task for task in f.requirements.tasks if task not in f.model.tasks]
    if not lacking:
        return None
    rest = [task for task in f.requirements.tasks if task in f.model.tasks]
    change = (
        f"task: [{', '.join(rest)}]"
        if rest
        else f"task: {f.model.tasks[0]}"
        if f.model.tasks
        else ""
    )
    return Violation(
        constraint="task", has=_joined(f.model.tasks), needs=_joined(lacking), relaxation=change
    )


def _modalities(f: ModelFacts) -> Violation | None:
    for field, needed, has in (
        ("input", needed_input(f.requirements), f.model.input),
        ("output", needed_output(f.requirements), f.model.output),
    ):
        lacking = [each for each in needed if each not in has]
        if lacking:
            rest = [each for each in getattr(f.requirements, field) if each in has]
            change = (
                f"{field}: [{', '.join(rest)}]"
                if set(lacking) <= set(getattr(f.requirements, field))
                else ""
            )
            return Violation(
                constraint=field, has=_joined(has), needs=_joined(lacking), relaxation=change
            )
    return None


def _languages(f: ModelFacts) -> Violation | None:
    has, needed = f.model.languages, f.requirements.languages
    if "*" in has:
        return None
    if not has:
        return _unknown(f, "languages", "languages", _joined(needed))
    lacking = [each for each in needed if each not in has]
    if not lacking:
        return None
    rest = [each for each in needed if each in has]
    change = f"languages: [{', '.join(rest)}]" if rest else f"languages: [{has[0]}]"
    return Violation(
        constraint="languages", has=_joined(has), needs=_joined(lacking), relaxation=change
    )


def _unknown(f: ModelFacts, constraint: str, fact: str, needs: str) -> Violation | None:
    """Reject a fact that nobody knows, unless the requirements allow it."""
    if fact in f.requirements.allow_unknown:
        return None
    allowed = ", ".join([*f.requirements.allow_unknown, fact])
    return Violation(
        constraint=constraint,
        has="nothing that is known",
        needs=needs,
        relaxation=f"allow_unknown: [{allowed}]",
    )


def _context(f: ModelFacts) -> Violation | None:
    if "text" not in needed_output(f.requirements) or set(f.requirements.tasks) <= {
        "transcription"
    }:
        return None  # what is not written has no tokens, and recordings are cut into pieces
    wanted = f.requirements.context
    if f.model.max_output is not None and f.model.max_output < wanted.output_p95:
        return Violation(
            constraint="context",
            has=f"answers of {f.model.max_output:,} tokens",
            needs=f"{wanted.output_p95:,}",
            relaxation=f"context.output_p95: {f.model.max_output}",
        )
    if f.model.context is None:
        return _unknown(f, "context", "context", f"{wanted.input_p95 + wanted.output_p95:,} tokens")
    if f.model.context >= wanted.input_p95 + wanted.output_p95:
        return None
    left = f.model.context - wanted.output_p95
    change = f"context.input_p95: {left}" if left > 0 else ""
    needs = f"{wanted.input_p95 + wanted.output_p95:,}"
    return Violation(
        constraint="context", has=f"{f.model.context:,} tokens", needs=needs, relaxation=change
    )


def _licence(f: ModelFacts) -> Violation | None:
    wanted, model = f.requirements.licence, f.model
    if wanted.open_weights and model.open_weights is not True:
        if model.open_weights is None and not model.own:
            return _unknown(f, "licence", "licence", "open weights")
        return Violation(
            constraint="licence",
            has=model.licence or "closed weights",
            needs="open weights",
            relaxation="licence.open_weights: false",
        )
    if wanted.commercial and model.commercial is False:
        return Violation(
            constraint="licence",
            has=f"{model.licence}, not for business",
            needs="a licence for business",
            relaxation="licence.commercial: false",
        )
    return None


def _deployment(f: ModelFacts) -> Violation | None:
    wanted = f.requirements.privacy.deployment
    if wanted == "own" and not f.model.own:
        return Violation(
            constraint="deployment",
            has=f"requests that go to {f.model.provider}",
            needs="your own machines",
            relaxation="privacy.deployment: any",
        )
    if wanted == "api" and f.model.own:
        return Violation(
            constraint="deployment",
            has="machines of yours",
            needs="a provider",
            relaxation="privacy.deployment: any",
        )
    return None


def _regions(f: ModelFacts) -> Violation | None:
    wanted = f.requirements.privacy.regions
    if not wanted or f.model.own:  # where your own machines are is chosen with them
        return None
    if not f.model.regions:
        return _unknown(f, "regions", "regions", _joined(wanted))
    if set(wanted) & set(f.model.regions):
        return None
    more = ", ".join([*wanted, f.model.regions[0]])
    return Violation(
        constraint="regions",
        has=_joined(f.model.regions),
        needs=f"one of {_joined(wanted)}",
        relaxation=f"privacy.regions: [{more}]",
    )


def _machines(f: ModelFacts) -> Violation | None:
    """Open weights must fit on a machine that the catalogue has, in a region that is allowed."""
    needs = memory_gb(f.model)
    if not f.model.own or needs is None:
        return None
    wanted = f.requirements.privacy.regions
    there = [m for m in f.machines if not wanted or set(wanted) & set(m.regions)]
    if any(machine.memory_gb >= needs for machine in there):
        return None
    most = max((machine.memory_gb for machine in there), default=0.0)
    elsewhere = next((m for m in f.machines if m.memory_gb >= needs and m.regions), None)
    change = (
        f"privacy.regions: [{', '.join([*wanted, elsewhere.regions[0]])}]"
        if elsewhere and wanted
        else ""
    )
    return Violation(
        constraint="machines",
        has=f"no machine of more than {most:,.0f} GB",
        needs=f"{needs:,.0f} GB for its weights",
        relaxation=change,
    )


def _ms(value: float) -> str:
    return f"{value:g}s" if value >= 1 else f"{1000 * value:.4g}ms"


def latency_of(f: ModelFacts, what: str) -> float | None:
    """Return the measured time, else the one that the catalogue knows."""
    measured = getattr(f.evidence, f"{what}_p95_s") if f.evidence is not None else None
    serving = f.requirements.serving.get(f.model.id)
    said = getattr(serving, f"{what}_p95") if serving is not None else None
    known: float | None = getattr(f.model, f"{what}_p95_s")
    return measured if measured is not None else said if said is not None else known


def _latency(f: ModelFacts) -> Violation | None:
    for what in ("ttft", "tpot"):
        most: float | None = getattr(f.requirements.latency, f"{what}_p95")
        if most is None:
            continue
        has = latency_of(f, what)
        if has is None:
            if (violation := _unknown(f, what, "latency", _ms(most))) is not None:
                return violation
        elif has > most:
            return Violation(
                constraint=what,
                has=_ms(has),
                needs=f"{_ms(most)} or less",
                relaxation=f"latency.{what}_p95: {_ms(has)}",
            )
    return None


def _price(f: ModelFacts) -> Violation | None:
    budget = f.requirements.budget
    if budget.month_usd is None and budget.thousand_usd is None:
        return None
    options = f.options()
    if not options:
        return _unknown(f, "price", "price", "a known price, since there is a budget")
    least = options[0]
    if budget.month_usd is not None and least.month_usd > budget.month_usd:
        return Violation(
            constraint="budget",
            has=f"${least.month_usd:,.2f} a month ({least.kind})",
            needs=f"${budget.month_usd:,.2f} or less",
            relaxation=f"budget.month_usd: {_up(least.month_usd)}",
        )
    if budget.thousand_usd is not None and least.thousand_usd > budget.thousand_usd:
        return Violation(
            constraint="budget",
            has=f"${least.thousand_usd:,.4f} for a thousand requests ({least.kind})",
            needs=f"${budget.thousand_usd:,.4f} or less",
            relaxation=f"budget.thousand_usd: {_up(least.thousand_usd)}",
        )
    return None


def _up(value: float) -> str:
    """Rounded up, so that it is enough."""
    from decimal import ROUND_CEILING, Decimal

    places = Decimal("0.01") if value >= 1 else Decimal("0.000001")
    return str(Decimal(str(value)).quantize(places, rounding=ROUND_CEILING))


def _quality(f: ModelFacts) -> Violation | None:
    least = f.requirements.quality.least
    if least is None:
        return None
    if f.evidence is None:
        return _unknown(f, "quality", "quality", f"{least:.0%} on your set")
    if f.evidence.high >= least:
        return None
    has = f"{f.evidence.score:.1%}, at most {f.evidence.high:.1%}"
    return Violation(
        constraint="quality",
        has=has,
        needs=f"{least:.1%}",
        relaxation=f"quality.least: {f.evidence.high:.4f}",
    )


CHECKS: tuple[Check, ...] = (
    _candidates,
    _retired,
    _task,
    _modalities,
    _languages,
    _context,
    _licence,
    _deployment,
    _regions,
    _machines,
    _latency,
    _price,
    _quality,
)


def violations(facts: ModelFacts) -> Iterator[Violation]:
    """Return all constraints that are violated, in their order."""
    return (found for check in CHECKS if (found := check(facts)) is not None)


def first_violation(facts: ModelFacts) -> Violation | None:
    return next(violations(facts), None)


def counted(rejected: Mapping[str, Violation]) -> dict[str, int]:
    """Return how many models each constraint rejects, the most first."""
    found: dict[str, int] = {}
    for violation in rejected.values():
        found[violation.constraint] = found.get(violation.constraint, 0) + 1
    return dict(sorted(found.items(), key=lambda row: -row[1]))
