"""Compute what a month costs: by the token, on machines by the hour, on interruptible machines, by
the second of use, or on machines with the overflow sent to a provider.

Replicas follow from measured service times by Little's law; how much overflows, from Erlang's loss
formula, which holds for any spread of service times. With a trace, its requests are followed one by
one instead, each as long as its own tokens take. Machines by the second are always followed so; for
want of a trace, through requests that come at random.
"""

import heapq
import math
import random
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Literal

import msgspec

from slipway.planner.demand import MONTH_S, Demand, TraceRequest
from slipway.planner.models import CatalogueModel, Machine
from slipway.planner.requirements import Assumptions, Requirements
from slipway.types import Record

Kind = Literal["api", "on-demand", "spot", "spot mix", "serverless", "overflow"]
KINDS: dict[Kind, str] = {
    "api": "by the token, at the provider",
    "on-demand": "machines by the hour, always on",
    "spot": "machines that may be taken away, with others as a reserve",
    "spot mix": "machines by the hour; what may wait runs on ones that may be taken away",
    "serverless": "machines by the second, while they answer",
    "overflow": "machines by the hour for the usual load, a provider for the rest",
}
_HOURS = 730
_BYTES = 2.0  # of a parameter, in 16 bits
_HEADROOM = 1.2  # memory for what the model remembers of requests, beside its weights
_DRAWN = 5000  # requests that are drawn for want of a trace
_SMALL_B = 7.0  # the size for which `prompt_tokens_a_second` is said


class Service(Record, frozen=True, kw_only=True):
    """How one replica answers. `measured`, or estimated from the memory's bandwidth."""

    machine: str
    ttft_s: float
    tpot_s: float
    service_s: float
    at_once: int
    measured: bool


class Option(Record, frozen=True, kw_only=True):
    """One way to run a model. `low` and `high` are for less and more traffic than planned."""

    kind: Kind
    month_usd: float
    low_usd: float
    high_usd: float
    thousand_usd: float
    machine: str = ""
    replicas: int = 0
    spot_replicas: int = 0
    service: Service | None = None
    other: str = ""  # who takes what overflows
    overflow: float = 0.0  # the share that does
    zones: int = 1


# One request


def request_usd(model: CatalogueModel, input_tokens: float, output_tokens: float) -> float | None:
    """Return what one request costs at the provider; None if nobody knows."""
    if model.image_usd is not None and "image" in model.output:
        return model.image_usd
    if model.million_characters_usd is not None:
        return (
            4 * input_tokens * model.million_characters_usd / 1e6
        )  # about four characters a token
    tier = model.price(input_tokens)
    return None if tier is None else (input_tokens * tier.input + output_tokens * tier.output) / 1e6


def mean_request_usd(model: CatalogueModel, demand: Demand) -> float | None:
    """Average over the requests of a trace, since prices may depend on the length of a prompt."""
    if not demand.trace or len(model.tiers) < 2:
        return request_usd(model, demand.input_tokens, demand.output_tokens)
    costs = [request_usd(model, request.input, request.output) for request in demand.trace]
    known = [cost for cost in costs if cost is not None]
    return sum(known) / len(known) if known else None


# One replica


def memory_gb(model: CatalogueModel) -> float | None:
    """Return the memory for a model's weights and requests in progress; None if its size is
    unknown.
    """
    return None if model.size_b is None else model.size_b * _BYTES * _HEADROOM


def service_of(
    model: CatalogueModel, machine: Machine, demand: Demand, requirements: Requirements
) -> Service | None:
    """Measured if the requirements say so, else estimated; None if the model does not fit, or if
    nothing is known to estimate from.
    """
    said = requirements.serving.get(model.id)
    if said is not None:
        if said.machine != machine.id:
            return None
        return Service(
            machine=machine.id,
            ttft_s=said.ttft_p95,
            tpot_s=said.tpot_p95,
            service_s=said.service,
            at_once=said.at_once,
            measured=True,
        )
    if model.size_b is None or machine.bandwidth_gbs is None or "text" not in model.output:
        return None
    if (memory_gb(model) or 0.0) > machine.memory_gb:
        return None
    active = model.active_b or model.size_b
    guess = requirements.assumptions
    tpot = active * _BYTES / machine.bandwidth_gbs + 0.003
    ttft = demand.input_tokens / (
        guess.prompt_tokens_a_second * max(0.05, min(20.0, _SMALL_B * machine.gpus / active))
    )
    return Service(
        machine=machine.id,
        ttft_s=ttft,
        tpot_s=tpot,
        service_s=ttft + demand.output_tokens * tpot,
        at_once=guess.at_once,
        measured=False,
    )


def replicas_for(rps: float, service: Service, utilisation: float) -> int:
    """So that at this rate no more than that share of the places is filled (Little's law)."""
    return max(1, math.ceil(rps * service.service_s / (service.at_once * utilisation) - 1e-9))


# Options


def options_for(
    model: CatalogueModel,
    demand: Demand,
    requirements: Requirements,
    machines: Sequence[Machine],
    other: CatalogueModel | None = None,
) -> list[Option]:
    """Return all ways to run this model whose price is known, the cheapest first. `other` is a
    model of the same weights at a provider, which can take what overflows.
    """
    found = [*_by_token(model, demand, requirements.assumptions)]
    if model.own:
        for machine in machines:
            if _in_regions(machine, requirements) and (
                service := service_of(model, machine, demand, requirements)
            ):
                found += _on_machine(machine, service, demand, requirements, other)
    return sorted(found, key=lambda option: (option.month_usd, option.kind, option.machine))


def _in_regions(machine: Machine, requirements: Requirements) -> bool:
    wanted = requirements.privacy.regions
    return not wanted or bool(set(wanted) & set(machine.regions))


def _by_token(model: CatalogueModel, demand: Demand, guess: Assumptions) -> Iterator[Option]:
    each = None if model.own else mean_request_usd(model, demand)
    if each is not None:
        yield _option("api", demand, guess, lambda d: each * d.month)


def _on_machine(
    machine: Machine,
    service: Service,
    demand: Demand,
    requirements: Requirements,
    other: CatalogueModel | None,
) -> Iterator[Option]:
    guess = requirements.assumptions
    if machine.hour_usd is None:
        return
    hour, zones = machine.hour_usd, zones_for(requirements)
    spot = machine.spot_usd if machine.spot_usd is not None else hour * (1 - guess.spot_discount)
    reserve = spot * guess.spot_availability + hour * (1 - guess.spot_availability)
    share = requirements.traffic.interruptible

    def always(d: Demand) -> int:
        return max(zones, replicas_for(d.peak_rps, service, guess.utilisation))

    def firm(d: Demand) -> int:
        return max(zones, replicas_for(d.peak_rps * (1 - share), service, guess.utilisation))

    def patient(d: Demand) -> int:
        return replicas_for(d.mean_rps * share, service, guess.utilisation) if share else 0

    def own(
        kind: Kind, month: Callable[[Demand], float], replicas: int, spot_replicas: int = 0
    ) -> Option:
        return _option(
            kind,
            demand,
            guess,
            month,
            machine=machine.id,
            service=service,
            replicas=replicas,
            spot_replicas=spot_replicas,
            zones=zones,
        )

    yield own("on-demand", lambda d: always(d) * hour * _HOURS, always(demand))
    if share == 1:
        yield own("spot", lambda d: patient(d) * reserve * _HOURS, 0, patient(demand))
    elif share:
        mixed = lambda d: (firm(d) * hour + patient(d) * reserve) * _HOURS  # noqa: E731
        yield own("spot mix", mixed, firm(demand), patient(demand))
    if machine.serverless:
        yield own("serverless", lambda d: busy_replicas(d, service) * hour * _HOURS, 0)
    each = mean_request_usd(other, demand) if other is not None else None
    if other is not None and each is not None:
        yield from _overflowing(machine, service, demand, requirements, other, each)


def _overflowing(
    machine: Machine,
    service: Service,
    demand: Demand,
    requirements: Requirements,
    other: CatalogueModel,
    each: float,
) -> Iterator[Option]:
    """Choose the number of machines for which the whole is cheapest, if it is less than the peak
    needs.
    """
    hour, most = (
        machine.hour_usd or 0.0,
        replicas_for(demand.peak_rps, service, requirements.assumptions.utilisation),
    )

    def month(d: Demand, replicas: int) -> float:
        return replicas * hour * _HOURS + overflow_share(d, service, replicas) * each * d.month

    best = min(range(1, most + 1), key=lambda n: month(demand, n))
    share = overflow_share(demand, service, best)
    if best < most and share > 0:
        yield _option(
            "overflow",
            demand,
            requirements.assumptions,
            lambda d: month(d, best),
            machine=machine.id,
            service=service,
            replicas=best,
            zones=1,
            other=other.id,
            overflow=share,
        )


def _option(
    kind: Kind,
    demand: Demand,
    guess: Assumptions,
    month: Callable[[Demand], float],
    *,
    machine: str = "",
    service: Service | None = None,
    replicas: int = 0,
    spot_replicas: int = 0,
    zones: int = 1,
    other: str = "",
    overflow: float = 0.0,
) -> Option:
    usd = month(demand)
    return Option(
        kind=kind,
        month_usd=usd,
        low_usd=month(demand.scaled(1 - guess.traffic_error)),
        high_usd=month(demand.scaled(1 + guess.traffic_error)),
        thousand_usd=1000 * usd / demand.month,
        machine=machine,
        service=service,
        replicas=replicas,
        spot_replicas=spot_replicas,
        zones=zones,
        other=other,
        overflow=overflow,
    )


def zones_for(requirements: Requirements) -> int:
    """Return how many zones together answer as often as they must, if zones fail by themselves."""
    down = 1 - requirements.assumptions.zone_availability
    return max(1, math.ceil(math.log(1 - requirements.availability) / math.log(down) - 1e-9))


# Requests at once


def durations(demand: Demand, service: Service) -> list[float]:
    """Return how long each request of a trace holds its place, by its own tokens; on average
    `service_s`.
    """
    writing = service.tpot_s * demand.output_tokens
    reading = max(0.0, service.service_s - writing) / max(1.0, demand.input_tokens)
    return [reading * each.input + service.tpot_s * each.output for each in demand.trace]


def busy_replicas(demand: Demand, service: Service) -> float:
    """Return how many replicas are paid for at the same time on average, if each ends once it has
    nothing left to answer. A request goes to the fullest that has a place: what is under way is not
    moved.
    """
    demand = demand if demand.trace else at_random(demand)
    held, counts, ends = 0.0, dict[int, int](), list[tuple[float, int]]()
    started: dict[int, float] = {}
    for request, duration in zip(demand.trace, durations(demand, service), strict=True):
        at = request.at / demand.pace
        while ends and ends[0][0] <= at:
            held += _leave(*heapq.heappop(ends), counts, started)
        open_ = [replica for replica, count in counts.items() if count < service.at_once]
        replica = max(open_, key=counts.__getitem__) if open_ else max(counts, default=0) + 1
        if replica not in counts:
            counts[replica], started[replica] = 0, at
        counts[replica] += 1
        heapq.heappush(ends, (at + duration, replica))
    while ends:
        held += _leave(*heapq.heappop(ends), counts, started)
    return held * demand.pace / demand.trace[-1].at


def _leave(at: float, replica: int, counts: dict[int, int], started: dict[int, float]) -> float:
    """Take one request off; return how long the replica was paid for, if that was its last."""
    counts[replica] -= 1
    if counts[replica]:
        return 0.0
    del counts[replica]
    return math.ceil(at - started.pop(replica))  # started seconds are billed


@lru_cache(maxsize=8)
def at_random(demand: Demand) -> Demand:
    """Draw random requests (Poisson) with exponential lengths; always the same ones."""
    chance = random.Random(0)  # noqa: S311 - drawn again in the same way
    at, found = 0.0, []
    for _ in range(_DRAWN):
        found.append(
            TraceRequest(
                at,
                round(chance.expovariate(1 / demand.input_tokens)),
                round(chance.expovariate(1 / demand.output_tokens)),
            )
        )
        at += chance.expovariate(demand.mean_rps)
    return msgspec.structs.replace(demand, trace=tuple(found), pace=1.0)


def overflow_share(demand: Demand, service: Service, replicas: int) -> float:
    """Return the share of the requests that find all places taken."""
    places = replicas * service.at_once
    if not demand.trace:
        return erlang_b(demand.mean_rps * service.service_s, places)
    ends: list[float] = []
    lost = 0
    for request, duration in zip(demand.trace, durations(demand, service), strict=True):
        at = request.at / demand.pace
        while ends and ends[0] <= at:
            heapq.heappop(ends)
        if len(ends) < places:
            heapq.heappush(ends, at + duration)
        else:
            lost += 1
    return lost / len(demand.trace)


def erlang_b(load: float, places: int) -> float:
    """Return how often a request finds all places taken (Erlang 1917)."""
    if load <= 0:
        return 0.0
    inverse = 1.0
    for n in range(1, places + 1):
        inverse = 1 + inverse * n / load
        if inverse > 1e12:
            return 0.0
    return 1 / inverse


# Break-even


class BreakEven(Record, frozen=True, kw_only=True):
    """From this many requests a second on, machines cost less than the provider."""

    rps: float
    replicas: int


def break_even(
    api: Option, own: Option, demand: Demand, requirements: Requirements
) -> BreakEven | None:
    """Return the least mean rate from which the option on machines is the cheaper one; None if it
    never is.
    """
    service = own.service
    if service is None or not own.replicas or api.thousand_usd <= 0:
        return None
    guess, ratio = requirements.assumptions, demand.peak_rps / demand.mean_rps
    each, machine = api.thousand_usd / 1000, own.month_usd / own.replicas
    least = max(1, own.zones)
    for replicas in range(least, least + 10_000):
        rps = replicas * machine / (each * MONTH_S)
        most = replicas * service.at_once * guess.utilisation / (service.service_s * ratio)
        if rps <= most + 1e-12:
            return BreakEven(rps=rps, replicas=replicas)
        if replicas > least and machine / (each * MONTH_S) > service.at_once / (
            service.service_s * ratio
        ):
            return None  # not even a full machine is cheaper
    return None
