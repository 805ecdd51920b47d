"""Bound how many series the metrics have: what goes beyond is counted under `other`.

Names of apps, routes, models and providers come from the settings, so a server may have any number
of them, and each combination of labels costs memory here and in Prometheus. Each metric has a share
of the series that all may have together. The first combinations keep their labels. When three
quarters of a share are used, names become `other` and error codes and the like stay, so that sums by
error are right in any case; when all of it is used, everything becomes `other`.
"""

from collections.abc import Callable, Collection, Iterable

from slipway.telemetry.definitions import METRICS, NAMES, Labels, MetricDefinition
from slipway.telemetry.rows import NumberedRow

SERIES = 10_000
OTHER = "other"
NAMED = NAMES | {"gen_ai_operation_name"}  # names, and what is the same everywhere
LINES = 4  # of a histogram beside its buckets: the last bucket, sum, count, and an edge of the SLO


class SeriesBound:
    """Decide under which labels something is counted. All workers decide alike: each looks at what
    all of them have counted.
    """

    def __init__(self, series: int, all_rows: Callable[[], Iterable[NumberedRow]]) -> None:
        self.series, self._all_rows = series, all_rows
        # metric -> the combinations in use when one was last counted under other labels
        self._known: dict[str, set[Labels]] = {}

    def place(self, metric: str, labels: Labels) -> Labels:
        """Return the labels to count under, for a combination that is counted for the first time
        here.
        """
        definition = METRICS[metric]
        if definition.share is None:
            return labels
        if (known := self._known.get(metric)) is not None:
            place = placed(definition, labels, known, self.series)
            if place in known:
                return place
        known = {each for name, each, _ in self._all_rows() if name == metric}
        place = placed(definition, labels, known, self.series)
        if place != labels:
            self._known[metric] = known | {place}
        return place


def most_of(metric: MetricDefinition, series: int) -> int:
    """Return how many combinations of labels a metric may have."""
    lines = len(metric.buckets) + LINES if metric.buckets else 1
    return max(4, series * (metric.share or 0) // 1000 // lines)


def placed(
    metric: MetricDefinition, labels: Labels, known: Collection[Labels], series: int
) -> Labels:
    """Return the labels to use, if those in `known` are used already."""
    most = most_of(metric, series)
    has_names_only = NAMED.issuperset(metric.labels)
    if labels in known or len(known) < (most - 1 if has_names_only else most * 3 // 4):
        return labels
    folded = tuple(
        OTHER if name in NAMES else value for name, value in zip(metric.labels, labels, strict=True)
    )
    if folded in known or len(known) < most or (not metric.is_counted and not metric.buckets):
        return folded  # what is read has few values beside names
    return tuple(value and OTHER for value in folded)
