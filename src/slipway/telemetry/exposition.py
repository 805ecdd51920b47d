"""Write the metrics in the exposition formats of Prometheus, when they are scraped."""

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from itertools import accumulate
from typing import Any, TypeVar

from slipway.telemetry.definitions import METRICS, Labels, MetricDefinition

Row = TypeVar("Row")
Sums = Mapping[str, Mapping[Labels, Sequence[float]]]
NAMED = ("app", "gen_ai_request_model", "model")


class Scrape:
    """The collector of one scrape: metric families, as Prometheus' client library expects them.

    `edges` are the edges of the buckets, `sums` what was counted and `gauges` what was read, all by
    metric. With `names`, only rows of these apps, routes and models are written. `also` is written
    behind them.
    """

    def __init__(
        self,
        edges: Mapping[str, Sequence[float]],
        sums: Sums,
        gauges: Mapping[str, Mapping[Labels, float]],
        names: Set[str] | None,
        also: Iterable[Any] = (),
    ) -> None:
        self.edges, self.sums, self.gauges, self.names = edges, sums, gauges, names
        self.also = also

    def collect(self) -> Iterator[Any]:
        """Yield the metric families."""
        for key, metric in METRICS.items():
            if metric.buckets:
                yield self.histogram(key, metric)
            elif metric.is_counted:
                values = {labels: value for labels, (value,) in self.sums[key].items()}
                yield self.family(metric, values)
            elif values := self.read(key):
                yield self.family(metric, values)
        yield from self.also

    def read(self, key: str) -> dict[Labels, float]:
        """Return the values of a metric that is read."""
        if key == "store_up":  # any process that cannot use the store makes it 0
            return {(): int(not self.sums[key][()][0])}
        if key == "store_waiting":
            return {(): self.sums[key][()][0]}
        return dict(self.gauges.get(key, {}))

    def family(self, metric: MetricDefinition, values: Mapping[Labels, float]) -> Any:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        kind = GaugeMetricFamily if metric.is_gauge else CounterMetricFamily
        family = kind(metric.name, metric.help, labels=metric.labels)
        for labels, value in visible(metric, values, self.names):
            family.add_metric(labels, value)
        return family

    def histogram(self, key: str, metric: MetricDefinition) -> Any:
        from prometheus_client.core import HistogramMetricFamily

        bounds = [*map(str, self.edges[key]), "+Inf"]
        family = HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)
        for labels, row in visible(metric, self.sums[key], self.names):
            counts = zip(bounds, accumulate(row[:-1]), strict=True)
            family.add_metric(labels, list(counts), row[-1])
        return family


def visible(
    metric: MetricDefinition, rows: Mapping[Labels, Row], names: Set[str] | None
) -> Iterator[tuple[Labels, Row]]:
    """Yield the rows whose app, or else model, is in `names`; all rows if that is None."""
    named = next((name for name in NAMED if name in metric.labels), None)
    for labels, row in rows.items():
        if names is None or (named and labels[metric.labels.index(named)] in names):
            yield labels, row


def written(scrape: Scrape, accept: str) -> tuple[bytes, str]:
    """Return the exposition text in the format that `accept` asks for, and its content type."""
    from prometheus_client import CollectorRegistry  # imported by the first scrape: it is heavy
    from prometheus_client.exposition import choose_encoder
    from prometheus_client.openmetrics.exposition import ALLOWUTF8

    registry = CollectorRegistry(auto_describe=False)
    registry.register(scrape)
    found = choose_encoder(accept)
    encode: Any = found[0]
    # All our names are valid as they are; the client library would replace the colon of `vllm:…`
    return encode(registry, escaping=ALLOWUTF8), found[1]
