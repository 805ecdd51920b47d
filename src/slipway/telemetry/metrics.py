"""Records -> metrics. Counting costs a dictionary look-up and a few additions; text is made only
when somebody scrapes.

Names and buckets of the `gen_ai.*` metrics follow OpenTelemetry's semantic conventions for
generative AI; dots become underscores and the unit a suffix, as Prometheus wants it.
"""

import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from itertools import accumulate
from typing import Any

import msgspec

from slipway.routing import Health
from slipway.routing.breaker import STATES
from slipway.types import AnswerDone, AttemptDone, FeedbackGiven

SECONDS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
FIRST = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
PER_TOKEN = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
TOKENS = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864)
Labels = tuple[str, ...]


class Metric(msgspec.Struct, frozen=True):
    """One row of the table: `labels` are read from the record in this order; docs/metrics.md is
    printed from here.
    """

    name: str
    help: str
    labels: Labels
    buckets: tuple[float, ...] = ()


ANSWER_LABELS = ("gen_ai_request_model", "gen_ai_response_model", "gen_ai_provider_name")
METRICS = {
    "answers": Metric(
        "slipway_answers",
        "Answers finished, by what answered and how it ended.",
        ("app", "model", "served_by", "error"),
    ),
    "attempts": Metric(
        "slipway_attempts",
        "Calls to models, by how they ended.",
        ("model", "provider", "zone", "error"),
    ),
    "left_out": Metric(
        "slipway_left_out",
        "Fields of providers' replies that could not be read, such as a token count that is text; "
        "the answer is passed on without them.",
        ("model", "provider"),
    ),
    "citations": Metric(
        "slipway_citations",
        "Citations by outcome: kept, flagged (its source lacks words of the sentence), dropped (it named no source).",
        ("app", "model", "outcome"),
    ),
    "feedback": Metric(
        "slipway_feedback",
        "Votes and reports that were kept; one that replaces another is not counted again. `helpful` is yes, no, or report.",
        ("app", "helpful"),
    ),
    "reloads": Metric(
        "slipway_settings_reloads",
        "Settings that were read again, by what came of it: applied, or refused because they do not stand.",
        ("outcome",),
    ),
    "model_state": Metric(
        "slipway_model_state",
        "Whether a model is asked: 1 for the state that it is in, 0 for the others.",
        ("model", "state"),
    ),
    "model_calls": Metric(
        "slipway_model_calls",
        "Calls of a model with a limit: `running`, or `waiting` for their turn.",
        ("model", "state"),
    ),
    "in_flight": Metric("slipway_answers_in_flight", "Answers being written now.", ()),
    "duration": Metric(
        "gen_ai_server_request_duration_seconds",
        "Time from the question to the end of its answer.",
        (*ANSWER_LABELS, "error_type"),
        SECONDS,
    ),
    "ttft": Metric(
        "gen_ai_server_time_to_first_token_seconds",
        "Time from the question to the first words.",
        ANSWER_LABELS,
        FIRST,
    ),
    "tpot": Metric(
        "gen_ai_server_time_per_output_token_seconds",
        "Time per output token after the first.",
        ANSWER_LABELS,
        PER_TOKEN,
    ),
    "tokens": Metric(
        "gen_ai_client_token_usage",
        "Tokens of an answer, as the provider counted them.",
        (*ANSWER_LABELS, "gen_ai_token_type"),
        TOKENS,
    ),
}


class Histogram:
    """Observations in buckets, one set for each combination of labels."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.rows: dict[
            Labels, list[float]
        ] = {}  # count per bucket and past the last, then the sum

    def observe(self, labels: Labels, value: float) -> None:
        row = self.rows.get(labels)
        if row is None:
            row = self.rows[labels] = [0.0] * (len(self.bounds) + 2)
        row[bisect_left(self.bounds, value)] += 1
        row[-1] += value


class Telemetry:
    """Subscribes to records (`emit`), and is a collector of Prometheus' client library, which
    writes the exposition formats.
    """

    def __init__(
        self, in_flight: Callable[[], int], healths: Callable[[], Mapping[str, Health]] = dict
    ) -> None:
        self.started_at = int(time.time())
        self.in_flight, self.healths = in_flight, healths
        self.counts: dict[str, dict[Labels, int]] = {
            "answers": {},
            "attempts": {},
            "left_out": {},
            "citations": {},
            "feedback": {},
        }
        self.counts["reloads"] = {("applied",): 0, ("refused",): 0}
        self.histograms = {name: Histogram(m.buckets) for name, m in METRICS.items() if m.buckets}

    def emit(self, record: AnswerDone | AttemptDone | FeedbackGiven) -> None:
        if isinstance(record, AnswerDone):
            self.answer(record)
        elif isinstance(record, FeedbackGiven):
            self.count(
                "feedback",
                (
                    record.app,
                    "report" if record.kind == "report" else "yes" if record.helpful else "no",
                ),
            )
        else:
            self.count("attempts", (record.model, record.provider, record.zone, record.error or ""))
            if record.left_out:
                self.count("left_out", (record.model, record.provider), record.left_out)

    def count(self, metric: str, labels: Labels, by: int = 1) -> None:
        counts = self.counts[metric]
        counts[labels] = counts.get(labels, 0) + by

    def answer(self, a: AnswerDone) -> None:
        model, error = a.model or "", a.error or ""
        self.count("answers", (a.app, model, a.served_by or "", error))
        for outcome, count in (
            ("kept", a.citations_kept),
            ("flagged", a.citations_flagged),
            ("dropped", a.citations_dropped),
        ):
            if count:
                self.count("citations", (a.app, model, outcome), count)
        labels = (a.app, model, a.provider)
        h = self.histograms
        h["duration"].observe((*labels, error), a.duration_s)
        if a.streamed and a.ttft_s is not None:
            h["ttft"].observe(labels, a.ttft_s)
            if a.usage is not None and a.usage.output_tokens > 1:
                h["tpot"].observe(labels, (a.duration_s - a.ttft_s) / (a.usage.output_tokens - 1))
        written = ((*labels, a.usage),) if a.usage is not None else ()
        for app, name, provider, usage in (
            *written,
            *((a.app, each.model, each.provider, each.usage) for each in a.beside),
        ):
            h["tokens"].observe((app, name, provider, "input"), usage.input_tokens)
            h["tokens"].observe((app, name, provider, "output"), usage.output_tokens)

    def collect(self) -> Iterator[Any]:
        from prometheus_client.core import (
            CounterMetricFamily,
            GaugeMetricFamily,
            HistogramMetricFamily,
        )  # imported by the first scrape

        for name, rows in self.counts.items():
            m = METRICS[name]
            counter = CounterMetricFamily(m.name, m.help, labels=m.labels)
            for labels, value in rows.items():
                counter.add_metric(labels, value)
            yield counter
        yield from self.models()
        gauge = METRICS["in_flight"]
        yield GaugeMetricFamily(gauge.name, gauge.help, value=self.in_flight())
        for name, histogram in self.histograms.items():
            m = METRICS[name]
            family = HistogramMetricFamily(m.name, m.help, labels=m.labels)
            for labels, row in histogram.rows.items():
                bounds = [*map(str, m.buckets), "+Inf"]
                family.add_metric(
                    labels, list(zip(bounds, accumulate(row[:-1]), strict=True)), row[-1]
                )
            yield family

    def models(self) -> Iterator[Any]:
        from prometheus_client.core import GaugeMetricFamily

        states, calls = (
            GaugeMetricFamily(m.name, m.help, labels=m.labels)
            for m in (METRICS["model_state"], METRICS["model_calls"])
        )
        for name, health in self.healths().items():
            shown = health.report()
            for state in STATES:
                states.add_metric((name, state), int(shown.state == state))
            if health.slots is not None:
                calls.add_metric((name, "running"), shown.busy)
                calls.add_metric((name, "waiting"), shown.waiting)
        yield from (states, calls)

    def render(self, accept: str) -> tuple[bytes, str]:
        """The exposition that a scraper asks for, and its content type."""
        from prometheus_client import CollectorRegistry
        from prometheus_client.exposition import choose_encoder

        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)
        encode, kind = choose_encoder(accept)
        return encode(registry), kind
