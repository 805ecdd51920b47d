"""What is said of a metric in the table of `definitions.py`."""

from typing import Literal

import msgspec

Labels = tuple[str, ...]


class MetricDefinition(msgspec.Struct, frozen=True):
    """A metric; docs/metrics.md is printed from it.

    A metric with buckets is a histogram, one that `is_gauge` is read when it is scraped, and every
    other one is a counter. `Telemetry.count` increases counters, except those that `is_read` when
    they are scraped, since another program counts them.

    What is read is `joined` from the values of all workers. `share` is how much of the series that
    all metrics may have together (`metrics.series`) is for this one, in thousandths; None for a
    metric whose labels have few values in any case.
    """

    name: str
    help: str
    labels: Labels
    buckets: tuple[float, ...] = ()
    is_gauge: bool = False
    is_read: bool = False
    joined: Literal["sum", "max", "min"] = "sum"
    share: int | None = None

    @property
    def kind(self) -> str:
        return "histogram" if self.buckets else "gauge" if self.is_gauge else "counter"

    @property
    def is_counted(self) -> bool:
        """Return whether `Telemetry.count` increases it."""
        return self.kind == "counter" and not self.is_read


# Labels whose values are names that people choose. The values of all others are known here
NAMES = frozenset(
    {
        *("app", "model", "provider", "zone", "name", "gpu"),
        *("gen_ai_request_model", "gen_ai_response_model", "gen_ai_provider_name"),
    }
)
