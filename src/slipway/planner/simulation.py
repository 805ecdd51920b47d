"""Compute the bill of a trace, request by request, to check the formulas of `costs`."""

import heapq
import math
from collections.abc import Sequence

from slipway.planner.costs import Option, Service, request_usd
from slipway.planner.demand import MONTH_S, TraceRequest
from slipway.planner.models import CatalogueModel, Machine
from slipway.types import Record


class Bill(Record, frozen=True, kw_only=True):
    """A month, as if the trace came again and again."""

    month_usd: float
    requests: int
    overflowed: int
    replica_hours: float


def simulated(
    trace: Sequence[TraceRequest],
    option: Option,
    model: CatalogueModel,
    machine: Machine | None = None,
    other: CatalogueModel | None = None,
) -> Bill:
    """Follow each request: it starts on arrival, holds a place as long as its own tokens take, and
    is billed as this option bills it.
    """
    span = trace[-1].at
    months = MONTH_S / span
    if option.kind == "api":
        usd = sum(request_usd(model, request.input, request.output) or 0.0 for request in trace)
        return Bill(month_usd=usd * months, requests=len(trace), overflowed=0, replica_hours=0.0)
    if machine is None or option.service is None or machine.hour_usd is None:
        raise ValueError("a machine with a price is needed")
    hour = machine.hour_usd
    if option.kind == "serverless":
        held = _held(trace, option.service) / 3600
        return Bill(
            month_usd=held * hour * months,
            requests=len(trace),
            overflowed=0,
            replica_hours=held * months,
        )
    lost = _lost(trace, option.service, option.replicas) if option.kind == "overflow" else []
    extra = (
        sum(request_usd(other, each.input, each.output) or 0.0 for each in lost)
        if other is not None
        else 0.0
    )
    hours = option.replicas * 730
    return Bill(
        month_usd=hours * hour + extra * months,
        requests=len(trace),
        overflowed=len(lost),
        replica_hours=hours,
    )


def _duration(request: TraceRequest, service: Service, mean: TraceRequest) -> float:
    """Compute how long a request takes by its own tokens, so that the mean is the plan's service
    time.
    """
    decoding = service.tpot_s * mean.output
    reading = max(0.0, service.service_s - decoding)
    return reading * request.input / max(1, mean.input) + service.tpot_s * request.output


def _mean(trace: Sequence[TraceRequest]) -> TraceRequest:
    n = len(trace)
    return TraceRequest(
        0.0, round(sum(r.input for r in trace) / n), round(sum(r.output for r in trace) / n)
    )


class _Replica:
    """One machine that answers: the ends of what it is answering, and since when it is billed."""

    def __init__(self, since: float) -> None:
        self.since, self.ends = since, list[float]()
        self.until = since

    def take(self, end: float) -> None:
        heapq.heappush(self.ends, end)
        self.until = max(self.until, end)

    def now(self, at: float) -> int:
        while self.ends and self.ends[0] <= at:
            heapq.heappop(self.ends)
        return len(self.ends)


def _held(trace: Sequence[TraceRequest], service: Service) -> float:
    """Replica-seconds, if each replica is a machine of its own: a request goes to the fullest that
    has a place, or starts another; one that has nothing to answer ends. What it answers is not
    moved, so that this is an upper bound of what the plan reckons with. Started seconds are billed.
    """
    mean, replicas, total = _mean(trace), list[_Replica](), 0
    for request in trace:
        for replica in replicas[:]:
            if not replica.now(request.at):
                total += math.ceil(replica.until - replica.since)
                replicas.remove(replica)
        free = [each for each in replicas if len(each.ends) < service.at_once]
        chosen = max(free, key=lambda each: len(each.ends), default=None)
        if chosen is None:
            chosen = _Replica(request.at)
            replicas.append(chosen)
        chosen.take(request.at + _duration(request, service, mean))
    return float(total + sum(math.ceil(each.until - each.since) for each in replicas))


def _lost(trace: Sequence[TraceRequest], service: Service, replicas: int) -> list[TraceRequest]:
    """Return the requests that find all places taken."""
    mean, ends, lost = _mean(trace), list[float](), list[TraceRequest]()
    for request in trace:
        while ends and ends[0] <= request.at:
            heapq.heappop(ends)
        if len(ends) >= replicas * service.at_once:
            lost.append(request)
        else:
            heapq.heappush(ends, request.at + _duration(request, service, mean))
    return lost
