"""Write our metrics under the names of vLLM and LiteLLM as well, so that dashboards and alerts made
for those products work here. `metrics: {compatible: [vllm, litellm]}` switches it on.

Nothing is counted for it: each name is computed from our own rows when it is scraped. Labels have
the names that those products give them; a label that needs something which Slipway does not put
into metrics, such as a user or a key, is left out, which PromQL treats as an empty value. The edges
of buckets are ours: `histogram_quantile` works with any. docs/metrics.md lists what is left out.
"""

from collections.abc import Iterator, Mapping, Sequence, Set
from itertools import accumulate
from typing import Any

from slipway.telemetry.aliases import Alias
from slipway.telemetry.definitions import METRICS, Labels
from slipway.telemetry.exposition import Sums, visible
from slipway.telemetry.litellm_names import LITELLM
from slipway.telemetry.vllm_names import VLLM

PRODUCTS: Mapping[str, tuple[Alias, ...]] = {"vllm": VLLM, "litellm": LITELLM}


def families(
    products: Sequence[str],
    edges: Mapping[str, Sequence[float]],
    sums: Sums,
    gauges: Mapping[str, Mapping[Labels, float]],
    names: Set[str] | None,
) -> Iterator[Any]:
    """Yield the metric families of these products, as Prometheus' client library expects them. The
    other parameters are those of a `Scrape`.
    """
    for product in products:
        for alias in PRODUCTS[product]:
            yield family(alias, edges, rows_of(alias, sums, gauges, names))


def rows_of(
    alias: Alias,
    sums: Sums,
    gauges: Mapping[str, Mapping[Labels, float]],
    names: Set[str] | None,
) -> dict[Labels, list[float]]:
    """Return the rows of an alias: ours with the same labels there are added."""
    metric = METRICS[alias.source]
    ours: Mapping[Labels, Sequence[float]] = sums.get(alias.source, {})
    if not ours:
        ours = {labels: [value] for labels, value in gauges.get(alias.source, {}).items()}
    found: dict[Labels, list[float]] = {}
    for labels, row in visible(metric, ours, names):
        named = dict(zip(metric.labels, labels, strict=True))
        there = alias.pick(named)
        if there is None:
            continue
        numbers = [*row] if alias.amount == "row" else [row[-1]]
        if alias.scaled is not None:
            numbers = [alias.scaled(named, numbers[0])]
        known = found.get(there)
        found[there] = numbers if known is None else list(map(alias.joined, known, numbers))
    return found


def family(
    alias: Alias, edges: Mapping[str, Sequence[float]], rows: Mapping[Labels, Sequence[float]]
) -> Any:
    from prometheus_client.core import (
        CounterMetricFamily,
        GaugeMetricFamily,
        HistogramMetricFamily,
    )  # by the first scrape: it is heavy

    if alias.kind == "histogram":
        histogram = HistogramMetricFamily(alias.name, alias.about, labels=alias.labels)
        bounds = [*map(str, edges[alias.source]), "+Inf"]
        for labels, row in rows.items():
            counts = zip(bounds, accumulate(row[:-1]), strict=True)
            histogram.add_metric(labels, list(counts), row[-1])
        return histogram
    kind = GaugeMetricFamily if alias.kind == "gauge" else CounterMetricFamily
    single = kind(alias.name, alias.about, labels=alias.labels)
    for labels, (value,) in rows.items():
        single.add_metric(labels, value)
    return single
