"""Save a decision with everything it depends on, so that it can be made again and compared."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import msgspec

import slipway
from slipway.errors import SettingsError
from slipway.planner.candidacy import Candidacy
from slipway.planner.constraints import Evidence
from slipway.planner.deciding import Decision, decide
from slipway.planner.demand import Demand
from slipway.planner.models import Catalogue
from slipway.planner.requirements import parsed


class RejectedModel(msgspec.Struct, frozen=True):
    """Why a model was rejected, and the nearest change that would let it pass there."""

    constraint: str
    has: str
    needs: str
    relaxation: str


class CandidateLine(msgspec.Struct, frozen=True):
    id: str
    level: int
    on_front: bool
    quality: float | None
    benchmark: str | None
    month_usd: float | None
    kind: str | None


class DecisionFile(msgspec.Struct, frozen=True):
    """`requirements` as they were written; `demand` as it was reckoned with, trace and all."""

    slipway: str
    today: str
    catalogue: str
    requirements: dict[str, Any]
    demand: Demand
    evidence: dict[str, Evidence]
    chosen: str | None
    kind: str | None
    month_usd: float | None
    low_usd: float | None
    high_usd: float | None
    replicas: int
    chain: list[str]
    conditions: list[str]
    accepted: list[CandidateLine]
    rejected: dict[str, RejectedModel]


def recorded(
    decision: Decision, raw: Mapping[str, Any], evidence: Mapping[str, Evidence]
) -> DecisionFile:
    option = decision.deployment.chosen if decision.deployment is not None else None
    return DecisionFile(
        slipway=slipway.__version__,
        today=decision.today.isoformat(),
        catalogue=decision.catalogue,
        requirements=dict(raw),
        demand=decision.demand,
        evidence=dict(evidence),
        chosen=decision.chosen.model.id if decision.chosen is not None else None,
        kind=option.kind if option is not None else None,
        month_usd=_cents(option.month_usd if option is not None else None),
        low_usd=_cents(option.low_usd if option is not None else None),
        high_usd=_cents(option.high_usd if option is not None else None),
        replicas=option.replicas if option is not None else 0,
        chain=list(decision.deployment.chain) if decision.deployment is not None else [],
        conditions=list(decision.conditions),
        accepted=[_line(each) for each in decision.accepted],
        rejected={
            id_: RejectedModel(each.constraint, each.has, each.needs, each.relaxation)
            for id_, each in decision.rejected.items()
        },
    )


def _cents(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _line(each: Candidacy) -> CandidateLine:
    best = each.best
    return CandidateLine(
        id=each.model.id,
        level=each.level,
        on_front=each.on_front,
        quality=each.quality,
        benchmark=each.prior.benchmark if each.prior is not None else None,
        month_usd=_cents(best.month_usd if best is not None else None),
        kind=best.kind if best is not None else None,
    )


def written(file: DecisionFile) -> bytes:
    return msgspec.json.format(msgspec.json.encode(file, order="deterministic"), indent=1) + b"\n"


def read(file: Path) -> DecisionFile:
    """Raises SettingsError."""
    try:
        return msgspec.json.decode(file.read_bytes(), type=DecisionFile)
    except OSError as error:
        raise SettingsError(
            [f"{file} cannot be read: {(error.strerror or str(error)).lower()}"]
        ) from None
    except msgspec.MsgspecError as error:
        raise SettingsError([f"{file} is no decision of `slipway plan`: {error}"]) from None


def replayed(file: DecisionFile, catalogue: Catalogue) -> tuple[DecisionFile, list[str]]:
    """Return the decision made again from the file alone, and in what it differs."""
    requirements = parsed(file.requirements, "the decision's requirements")
    decision = decide(
        requirements,
        catalogue,
        date.fromisoformat(file.today),
        file.evidence,
        demand=file.demand,
    )
    again = recorded(decision, file.requirements, file.evidence)
    return again, list(_differences(file, again))


def _differences(before: DecisionFile, now: DecisionFile) -> Iterator[str]:
    if before.catalogue != now.catalogue:
        yield f"the catalogue is another one: {before.catalogue} then, {now.catalogue} now"
    if before.slipway != now.slipway:
        yield f"Slipway is another one: {before.slipway} then, {now.slipway} now"
    for field in (
        "chosen",
        "kind",
        "month_usd",
        "low_usd",
        "high_usd",
        "replicas",
        "chain",
        "conditions",
    ):
        then, again = getattr(before, field), getattr(now, field)
        if then != again:
            yield f"{field}: {_shown(then)} then, {_shown(again)} now"
    yield from _moved(before, now)


def _moved(before: DecisionFile, now: DecisionFile) -> Iterator[str]:
    """Models whose verdict has changed, the first of them by name."""
    then, again = {each.id for each in before.accepted}, {each.id for each in now.accepted}
    for what, ids in (("no longer accepted", then - again), ("newly accepted", again - then)):
        if ids:
            yield f"{what}: {_first(sorted(ids))}"
    other = [
        id_
        for id_, each in before.rejected.items()
        if id_ in now.rejected and now.rejected[id_] != each
    ]
    if other:
        yield f"rejected for another reason: {_first(other)}"


def _first(ids: Sequence[str]) -> str:
    """Name the first five, and count the others."""
    more = f" and {len(ids) - 5} more" if len(ids) > 5 else ""
    return ", ".join(ids[:5]) + more


def _shown(value: object) -> str:
    return (
        ", ".join(map(str, value)) or "none"
        if isinstance(value, Sequence) and not isinstance(value, str)
        else str(value)
    )
