"""What the metrics read when they are scraped, and how the values of several processes are joined."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from operator import add

from slipway import __version__
from slipway.cache import SemanticReport
from slipway.cache.semantic_bound import BoundState
from slipway.routing.breaker import STATES
from slipway.telemetry.bounds import placed
from slipway.telemetry.definitions import METRICS, Labels
from slipway.telemetry.model_states import BAD, ModelState
from slipway.types import CacheStats

GaugeRow = tuple[str, Labels, float]  # (key in METRICS, labels, value)
GaugeSums = Mapping[str, Mapping[Labels, float]]
JOINS: Mapping[str, Callable[[float, float], float]] = {"sum": add, "max": max, "min": min}


def own_gauges(
    models: Mapping[str, ModelState],
    cache: CacheStats,
    semantic: Iterable[SemanticReport],
    started_at: float,
    read: Iterable[GaugeRow],
) -> list[GaugeRow]:
    """Return what a process knows, the most important first: only so many of each are shown."""
    return [
        *model_gauges(models),
        ("cache_entries", (), cache.entries),
        ("cache_bytes", (), cache.bytes),
        *semantic_gauges(semantic),
        ("start_time", (), started_at),
        ("build", (__version__,), 1),
        *read,
    ]


def model_gauges(models: Mapping[str, ModelState]) -> Iterator[GaugeRow]:
    """Yield the states and the queues of models, those that are not called first."""
    worst_first = sorted(models.items(), key=lambda item: -BAD.index(item[1].state))
    for name, model in worst_first:
        for state in STATES:
            yield "model_state", (name, state), int(model.state == state)
        yield "model_calls", (name, "running"), model.running
        if model.waiting is not None:
            yield "model_calls", (name, "waiting"), model.waiting
            yield "queue_oldest", (name,), model.oldest_s or 0.0


def semantic_gauges(reports: Iterable[SemanticReport]) -> Iterator[GaugeRow]:
    """Yield how far the answers of similar questions may be wrong."""
    of_app: dict[str, list[BoundState]] = {}
    for report in reports:
        of_app.setdefault(report.app, []).append(report.bound)
    for app, states in of_app.items():
        yield "semantic_error", (app, "hit"), max(state.per_hit for state in states)
        yield "semantic_error", (app, "request"), max(state.per_request for state in states)
        yield "semantic_serving", (app,), sum(state.serving for state in states)


def joined_gauges(
    processes: Iterable[Sequence[GaugeRow]], series: int
) -> dict[str, dict[Labels, float]]:
    """Join what several processes know, within the share of each metric of so many series."""
    found: dict[str, dict[Labels, float]] = {
        key: {} for key, metric in METRICS.items() if metric.is_gauge or metric.is_read
    }
    for key, labels, value in (row for rows in processes for row in rows):
        metric, rows = METRICS[key], found[key]
        place = labels if metric.share is None else placed(metric, labels, rows, series)
        rows[place] = value if place not in rows else JOINS[metric.joined](rows[place], value)
    _keep_worst(found["model_state"])
    return found


def _keep_worst(states: dict[Labels, float]) -> None:
    """Leave each model only the worst state that a process knows."""
    worst: dict[str, int] = {}
    for (name, state), value in states.items():
        if value:
            worst[name] = max(worst.get(name, 0), BAD.index(state))
    for name, state in states:
        states[name, state] = int(BAD[worst.get(name, 0)] == state)
