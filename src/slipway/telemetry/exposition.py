"""Write the metrics in the exposition formats of Prometheus, when they are scraped."""

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from itertools import accumulate
from typing import TYPE_CHECKING, Any, TypeVar

from slipway.cache import SemanticReport
from slipway.cache.semantic_bound import BoundState
from slipway.routing.breaker import STATES
from slipway.telemetry.definitions import METRICS, Labels, MetricDefinition
from slipway.telemetry.model_states import ModelState, joined

if TYPE_CHECKING:
    from slipway.telemetry.metrics import Telemetry

Row = TypeVar("Row")
Sums = Mapping[str, Mapping[Labels, Sequence[float]]]


def visible(
    metric: MetricDefinition, rows: Mapping[Labels, Row], names: Set[str] | None
) -> Iterator[tuple[Labels, Row]]:
    """Yield the rows whose app, or else model, is in `names`; all rows if that is None."""
    named = next((n for n in ("app", "gen_ai_request_model", "model") if n in metric.labels), None)
    for labels, row in rows.items():
        if names is None or (named and labels[metric.labels.index(named)] in names):
            yield labels, row


class Scrape:
    """The collector of one scrape: metric families, as Prometheus' client library expects them.

    With `names`, only rows of these apps, routes and models are yielded. `others` are the states of
    the models in other processes.
    """

    def __init__(
        self,
        telemetry: "Telemetry",
        names: Set[str] | None,
        others: Sequence[Mapping[str, ModelState]],
    ) -> None:
        self.telemetry, self.names, self.others = telemetry, names, others

    def collect(self) -> Iterator[Any]:
        """Yield the metric families."""
        telemetry, names = self.telemetry, self.names
        telemetry.note_store()
        sums = telemetry.sums()
        yield from self.counters(sums)
        yield from self.models()
        yield from semantic_gauges(telemetry.semantic(), names)
        if names is None:
            yield from self.whole(sums)
        yield from self.histograms(sums)

    def counters(self, sums: Sums) -> Iterator[Any]:
        from prometheus_client.core import CounterMetricFamily

        for name in self.telemetry.counts:
            m = METRICS[name]
            counter = CounterMetricFamily(m.name, m.help, labels=m.labels)
            for labels, (value,) in visible(m, sums[name], self.names):
                counter.add_metric(labels, value)
            yield counter

    def histograms(self, sums: Sums) -> Iterator[Any]:
        from prometheus_client.core import HistogramMetricFamily

        for name, histogram in self.telemetry.histograms.items():
            m = METRICS[name]
            bounds = [*map(str, histogram.bounds), "+Inf"]
            family = HistogramMetricFamily(m.name, m.help, labels=m.labels)
            for labels, row in visible(m, sums[name], self.names):
                family.add_metric(
                    labels, list(zip(bounds, accumulate(row[:-1]), strict=True)), row[-1]
                )
            yield family

    def whole(self, sums: Sums) -> Iterator[Any]:
        """Yield the gauges of the whole server."""
        from prometheus_client.core import GaugeMetricFamily

        kept = self.telemetry.cache()
        for key, value in (
            ("cache_entries", kept.entries),
            ("cache_bytes", kept.bytes),
            ("in_flight", self.telemetry.in_flight()),
            ("store_up", int(not sums["store_up"][()][0])),
            ("store_waiting", sums["store_waiting"][()][0]),
        ):
            yield GaugeMetricFamily(METRICS[key].name, METRICS[key].help, value=value)

    def models(self) -> Iterator[Any]:
        """Yield the gauges of the models: breaker state and calls."""
        from prometheus_client.core import GaugeMetricFamily

        states, calls = (
            GaugeMetricFamily(m.name, m.help, labels=m.labels)
            for m in (METRICS["model_state"], METRICS["model_calls"])
        )
        for name, model in joined([self.telemetry.model_states(), *self.others]).items():
            if self.names is not None and name not in self.names:
                continue
            for state in STATES:
                states.add_metric((name, state), int(model.state == state))
            if model.running is not None:
                calls.add_metric((name, "running"), model.running)
                calls.add_metric((name, "waiting"), model.waiting or 0)
        yield from (states, calls)


def written(scrape: Scrape, accept: str) -> tuple[bytes, str]:
    """Return the exposition text in the format that `accept` asks for, and its content type."""
    from prometheus_client import CollectorRegistry  # imported by the first scrape: it is heavy
    from prometheus_client.exposition import choose_encoder

    registry = CollectorRegistry(auto_describe=False)
    registry.register(scrape)
    encode, kind = choose_encoder(accept)
    return encode(registry), kind


def semantic_gauges(reports: Iterable[SemanticReport], names: Set[str] | None) -> Iterator[Any]:
    """Yield the gauges of the semantic cache."""
    from prometheus_client.core import GaugeMetricFamily

    errors, serving = (
        GaugeMetricFamily(m.name, m.help, labels=m.labels)
        for m in (METRICS["semantic_error"], METRICS["semantic_serving"])
    )
    of_app: dict[str, list[BoundState]] = {}
    for report in reports:
        if names is None or report.app in names:
            of_app.setdefault(report.app, []).append(report.bound)
    for app, states in of_app.items():
        errors.add_metric((app, "hit"), max(state.per_hit for state in states))
        errors.add_metric((app, "request"), max(state.per_request for state in states))
        serving.add_metric((app,), sum(state.serving for state in states))
    yield from (errors, serving)
