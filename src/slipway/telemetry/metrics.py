"""Turn records into Prometheus metrics.

Counting costs a dictionary look-up and a few additions; text is written only for a scrape. Names
and buckets of the `gen_ai_*` metrics follow OpenTelemetry's semantic conventions for generative AI,
with underscores for dots and the unit as a suffix.
"""

import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from itertools import accumulate
from operator import add
from typing import Any, Protocol, TypeVar

import msgspec

from slipway.cache import SemanticReport
from slipway.cache.semantic_bound import BoundState
from slipway.errors import ProviderRefused, SlipwayError
from slipway.ledger import LedgerRow
from slipway.prices import PICO
from slipway.routing import Health
from slipway.routing.breaker import STATES
from slipway.types import (
    AnswerDone,
    AttemptDone,
    CacheStats,
    FeedbackGiven,
    PipelineRecord,
    RuleUsed,
    SemanticLooked,
    StoreState,
    Usage,
)

SECONDS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
TTFT = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
PER_TOKEN = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
TOKENS = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864)
FALLBACKS = ("smaller", "stale")  # a quote is one only if a model failed
BAD = ("closed", "half-open", "open")  # the worst one comes last
REFRESH = "refresh"  # the endpoint of answers that are written again in the background
Labels = tuple[str, ...]
Row = TypeVar("Row")


class Numbers(Protocol):
    """The numbers of one row: a counter has one, a histogram one for each bucket and their sum."""

    def __getitem__(self, at: int) -> float: ...

    def __setitem__(self, at: int, value: float) -> None: ...

    def __iter__(self) -> Iterator[float]: ...


# (key in METRICS, labels, how many numbers) -> a row of zeros, or what was counted before
NewRow = Callable[[str, Labels, int], Numbers]
NumberedRow = tuple[str, Labels, Numbers]


def own_row(metric: str, labels: Labels, size: int) -> Numbers:
    """Return a row that ends with this process."""
    return [0.0] * size


class MetricDefinition(msgspec.Struct, frozen=True):
    """A metric; docs/metrics.md is printed from it.

    A metric with buckets is a histogram, one that `is_gauge` is read when it is scraped, and every
    other one is a counter, which `Telemetry.count` increases.
    """

    name: str
    help: str
    labels: Labels
    buckets: tuple[float, ...] = ()
    is_gauge: bool = False

    @property
    def kind(self) -> str:
        return "histogram" if self.buckets else "gauge" if self.is_gauge else "counter"


ANSWER_LABELS = ("gen_ai_request_model", "gen_ai_response_model", "gen_ai_provider_name")
METRICS = {
    "answers": MetricDefinition(
        "slipway_answers",
        "Finished answers, by what answered and how it ended.",
        ("app", "model", "served_by", "error"),
    ),
    "attempts": MetricDefinition(
        "slipway_attempts",
        "Calls to models, by how they ended.",
        ("model", "provider", "zone", "error"),
    ),
    "left_out": MetricDefinition(
        "slipway_left_out",
        "Fields of providers' replies that could not be read, such as a token count that is text; "
        "the answer is passed on without them.",
        ("model", "provider"),
    ),
    "cache": MetricDefinition(
        "slipway_cache_answers",
        "Questions that asked the cache, by what it did: hit, semantic (the answer of a similar "
        "question), stale, flight (shared the call of an identical question), miss or refresh.",
        ("app", "state"),
    ),
    "saved_answers": MetricDefinition(
        "slipway_saved_answers",
        "Answers for which no model was called, by what saved the call.",
        ("app", "by"),
    ),
    "saved_tokens": MetricDefinition(
        "slipway_saved_tokens",
        "Tokens that these calls would have taken, as far as they are known.",
        ("app", "by", "gen_ai_token_type"),
    ),
    "saved_usd": MetricDefinition(
        "slipway_saved_usd",
        "USD that these calls would have cost, as far as prices are known.",
        ("app", "by"),
    ),
    "saved_unpriced": MetricDefinition(
        "slipway_saved_unpriced", "Calls among them whose price is unknown.", ("app", "by")
    ),
    "cache_removed": MetricDefinition(
        "slipway_cache_removed",
        "Kept answers that left memory, by cause: evicted (for lack of memory), expired, document "
        "(one that it was written from changed), outranked (a search finds others now), "
        "feedback (somebody found it wrong), request.",
        ("cause",),
    ),
    "cache_entries": MetricDefinition(
        "slipway_cache_entries",
        "Kept answers in the memory of the process that is asked.",
        (),
        is_gauge=True,
    ),
    "cache_bytes": MetricDefinition(
        "slipway_cache_bytes",
        "Memory of kept answers in the process that is asked.",
        (),
        is_gauge=True,
    ),
    "cost": MetricDefinition(
        "slipway_cost_usd",
        "USD that calls to models cost, rounded as every number here; the ledger is exact.",
        ("app", "model"),
    ),
    "unpriced": MetricDefinition(
        "slipway_unpriced_calls",
        "Calls to models whose cost is unknown: set the model's `price`.",
        ("app", "model"),
    ),
    "citations": MetricDefinition(
        "slipway_citations",
        "Citations by outcome: kept, flagged (the source lacks words of the sentence), "
        "dropped (it named no source).",
        ("app", "model", "outcome"),
    ),
    "sourced": MetricDefinition(
        "slipway_sourced_answers",
        "Answers of apps with documents, rules aside: sourced (they cite a passage), unsourced, or "
        "abstained (they say that the documents do not answer).",
        ("app", "outcome"),
    ),
    "fallbacks": MetricDefinition(
        "slipway_fallback_answers",
        "Answers that came from a smaller model, an old answer or a quote since a model failed.",
        ("app", "served_by"),
    ),
    "notifications": MetricDefinition(
        "slipway_notifications",
        "Messages about alerts, by the notifier of `alerts.notify` and outcome: sent or failed.",
        ("notifier", "outcome"),
    ),
    "spend_month": MetricDefinition(
        "slipway_spend_month_usd",
        "USD that the ledger has for this month (UTC), read once a minute.",
        (),
        is_gauge=True,
    ),
    "spend_forecast": MetricDefinition(
        "slipway_spend_forecast_usd",
        "USD that this month will cost if the rest of it costs as much as the last days did.",
        (),
        is_gauge=True,
    ),
    "sampled_at": MetricDefinition(
        "slipway_sampled_timestamp_seconds",
        "When the metrics were last sampled for alerts and plots, in seconds since the epoch.",
        (),
        is_gauge=True,
    ),
    "rules": MetricDefinition(
        "slipway_rule_hits",
        "Questions that a rule recognised, by how: a full question, a pattern or an intent. "
        "`outcome` is served, or shadow for a rule that only counts.",
        ("app", "kind", "outcome"),
    ),
    "feedback": MetricDefinition(
        "slipway_feedback",
        "Stored votes and reports; one that replaces another is not counted again. "
        "`helpful` is yes, no, or report.",
        ("app", "helpful"),
    ),
    "semantic": MetricDefinition(
        "slipway_semantic_lookups",
        "Look-ups of similar questions: `serve` (answered from there), `check` (asked a model all "
        "the same, to compare), `shadow` (a candidate that may not be served yet), `none`. And "
        "comparisons with a fresh answer: `same`, `different`, `unknown`.",
        ("app", "outcome"),
    ),
    "semantic_refused": MetricDefinition(
        "slipway_semantic_refused",
        "Near questions that a guard refused, such as `number` or `negation`.",
        ("app", "guard"),
    ),
    "reloads": MetricDefinition(
        "slipway_settings_reloads",
        "Reloads of the settings by outcome: applied, or refused because they are invalid.",
        ("outcome",),
    ),
    "store_lost": MetricDefinition(
        "slipway_store_lost_rows",
        "Rows that neither the store nor the journal could keep, or that the store refuses.",
        (),
    ),
    "store_up": MetricDefinition(
        "slipway_store_up", "1 if the store can be used, 0 while it cannot.", (), is_gauge=True
    ),
    "store_waiting": MetricDefinition(
        "slipway_store_waiting_rows",
        "Rows that are not in the store yet, and wait in the journal.",
        (),
        is_gauge=True,
    ),
    "model_state": MetricDefinition(
        "slipway_model_state",
        "State of a model's circuit breaker: 1 for the current state, 0 for the others.",
        ("model", "state"),
        is_gauge=True,
    ),
    "model_calls": MetricDefinition(
        "slipway_model_calls",
        "Calls to a model with a limit: `running`, or `waiting` in the queue.",
        ("model", "state"),
        is_gauge=True,
    ),
    "semantic_error": MetricDefinition(
        "slipway_semantic_error_bound",
        "Upper bound (95 %) of the error of answers to similar questions: of would-be hits (`hit`) "
        "and of requests (`request`); the largest of all tenants.",
        ("app", "per"),
        is_gauge=True,
    ),
    "semantic_serving": MetricDefinition(
        "slipway_semantic_serving",
        "Tenants for which answers of similar questions are served now; the others are in shadow.",
        ("app",),
        is_gauge=True,
    ),
    "worker_restarts": MetricDefinition(
        "slipway_worker_restarts",
        "How often a worker process was started in place of one that had ended.",
        (),
    ),
    "answers_lost": MetricDefinition(
        "slipway_answers_lost",
        "Answers that were in progress in a worker process that ended without finishing them; "
        "`slipway_answers` does not count them.",
        (),
    ),
    "in_flight": MetricDefinition(
        "slipway_answers_in_flight", "Answers in progress.", (), is_gauge=True
    ),
    "duration": MetricDefinition(
        "gen_ai_server_request_duration_seconds",
        "Time from the question to the end of its answer.",
        (*ANSWER_LABELS, "error_type"),
        SECONDS,
    ),
    "ttft": MetricDefinition(
        "gen_ai_server_time_to_first_token_seconds",
        "Time from the question to the first token.",
        ANSWER_LABELS,
        TTFT,
    ),
    "tpot": MetricDefinition(
        "gen_ai_server_time_per_output_token_seconds",
        "Time per output token after the first.",
        ANSWER_LABELS,
        PER_TOKEN,
    ),
    "tokens": MetricDefinition(
        "gen_ai_client_token_usage",
        "Tokens of an answer, as the provider reported them.",
        (*ANSWER_LABELS, "gen_ai_token_type"),
        TOKENS,
    ),
}


class ModelState(msgspec.Struct, frozen=True):
    """The state of a model's breaker, and its calls if they are limited."""

    state: str
    running: int | None = None
    waiting: int | None = None


def joined(states: Iterable[Mapping[str, ModelState]]) -> dict[str, ModelState]:
    """Join what several processes know of the models: the worst state, and the sums of calls."""
    found: dict[str, ModelState] = {}
    for name, model in (item for each in states for item in each.items()):
        known = found.setdefault(name, model)
        if known is not model:
            found[name] = ModelState(
                state=max(known.state, model.state, key=BAD.index),
                running=None if known.running is None else known.running + (model.running or 0),
                waiting=None if known.waiting is None else known.waiting + (model.waiting or 0),
            )
    return found


class Histogram:
    """Observations in buckets, one row for each combination of labels."""

    def __init__(self, key: str, bounds: tuple[float, ...], new_row: NewRow) -> None:
        self.key, self.bounds, self.new_row = key, bounds, new_row
        self.rows: dict[Labels, Numbers] = {}  # count per bucket and past the last, then the sum

    def row(self, labels: Labels) -> Numbers:
        """Return the row of these labels; observing is adding to it."""
        row = self.rows.get(labels)
        if row is None:
            row = self.rows[labels] = self.new_row(self.key, labels, len(self.bounds) + 2)
        return row

    def observe(self, labels: Labels, value: float) -> None:
        row = self.row(labels)
        row[bisect_left(self.bounds, value)] += 1
        row[-1] += value


def visible(
    metric: MetricDefinition, rows: Mapping[Labels, Row], names: Set[str] | None
) -> Iterator[tuple[Labels, Row]]:
    """Yield the rows whose app, or else model, is in `names`; all rows if that is None."""
    named = next((n for n in ("app", "gen_ai_request_model", "model") if n in metric.labels), None)
    for labels, row in rows.items():
        if names is None or (named and labels[metric.labels.index(named)] in names):
            yield labels, row


def known_code(code: str | None) -> str:
    """Return an error's code as a label: a provider's own code becomes `provider_refused`.

    Labels must not hold what a provider sends: it could be anything, and of any number.
    """
    if not code or code in CODES:
        return code or ""
    return ProviderRefused.code


def codes_of(base: type[SlipwayError]) -> set[str]:
    """Return the codes of all errors below `base`."""
    return {base.code}.union(*(codes_of(each) for each in base.__subclasses__()))


CODES = codes_of(SlipwayError) | {"cancelled", "client_gone"}


class _Visible:
    """The collector of one scrape."""

    def __init__(
        self,
        telemetry: "Telemetry",
        names: Set[str] | None,
        others: Sequence[Mapping[str, ModelState]],
    ) -> None:
        self.telemetry, self.names, self.others = telemetry, names, others

    def collect(self) -> Iterator[Any]:
        return self.telemetry.collect(self.names, self.others)


class TokenRows(msgspec.Struct):
    """The rows of a model's input and output tokens; None until the first value."""

    labels: Labels
    input: Any = None
    output: Any = None


class AnswerRows(msgspec.Struct, frozen=True):
    """The rows that one kind of answer is counted in: to find them again takes as long as to count
    in them.
    """

    labels: Labels
    answers: Any
    duration: Any
    tokens: TokenRows


class Telemetry:
    """The metrics of one server, counted from records (`emit`).

    It is also a collector of Prometheus' client library, which writes the exposition formats.
    """

    def __init__(
        self,
        in_flight: Callable[[], int],
        healths: Callable[[], Mapping[str, Health]] = dict,
        store: Callable[[], StoreState] = StoreState,
        new_row: NewRow = own_row,
        all_rows: Callable[[], Iterable[NumberedRow]] | None = None,
        cache: Callable[[], CacheStats] = CacheStats,
        semantic: Callable[[], Iterable[SemanticReport]] = tuple,
    ) -> None:
        """Count in rows that `new_row` makes.

        `all_rows` yields what all processes of the server counted; by default, this is the only
        one.
        """
        self.started_at = int(time.time())
        self.store, self._lost = store, 0
        self.in_flight, self.healths, self.new_row = in_flight, healths, new_row
        self.all_rows, self.cache = all_rows or self.own_rows, cache
        self.semantic = semantic
        self.counts: dict[str, dict[Labels, Numbers]] = {
            key: {} for key, metric in METRICS.items() if metric.kind == "counter"
        }
        for outcome in ("applied", "refused"):
            self.count("reloads", (outcome,), 0)
        self._down, self._waiting = (new_row(key, (), 1) for key in ("store_up", "store_waiting"))
        self.count("store_lost", (), 0)
        self.histograms = {
            name: Histogram(name, m.buckets, new_row) for name, m in METRICS.items() if m.buckets
        }
        self._rows: dict[Labels, AnswerRows] = {}
        self._tokens: dict[Labels, TokenRows] = {}

    def emit(self, record: PipelineRecord | FeedbackGiven) -> None:
        """Count a record."""
        if type(record) is AttemptDone:
            self.attempt(record)
        elif type(record) is AnswerDone:
            self.answer(record)
        elif type(record) is RuleUsed:
            self.rule(record)
        elif type(record) is SemanticLooked:
            self.looked(record)
        elif type(record) is FeedbackGiven:
            self.feedback(record)

    def attempt(self, a: AttemptDone) -> None:
        labels = (a.model, a.provider, a.zone, "" if a.error is None else known_code(a.error))
        row = self.counts["attempts"].get(labels) or self._counter("attempts", labels)
        row[0] += 1
        if a.left_out:
            self.count("left_out", (a.model, a.provider), a.left_out)

    def rule(self, used: RuleUsed) -> None:
        outcome = "shadow" if used.shadow else "served"
        self.count("rules", (used.app, used.kind, outcome))

    def looked(self, looked: SemanticLooked) -> None:
        self.count("semantic", (looked.app, looked.outcome))
        for guard in looked.refused:
            self.count("semantic_refused", (looked.app, guard))

    def feedback(self, given: FeedbackGiven) -> None:
        helpful = "report" if given.kind == "report" else "yes" if given.helpful else "no"
        self.count("feedback", (given.app, helpful))

    def spend(self, row: LedgerRow) -> None:
        """Count what a call cost."""
        if row.cost is None:
            self.count("unpriced", (row.app, row.model))
        elif row.cost:
            self.count("cost", (row.app, row.model), row.cost / PICO)

    def count(self, metric: str, labels: Labels, by: float = 1) -> None:
        self._counter(metric, labels)[0] += by

    def _counter(self, metric: str, labels: Labels) -> Numbers:
        """Return the row of a counter, of one number."""
        counts = self.counts[metric]
        row = counts.get(labels)
        if row is None:
            row = counts[labels] = self.new_row(metric, labels, 1)
        return row

    def answer(self, a: AnswerDone) -> None:
        error = "" if a.error is None else known_code(a.error)
        kind = (a.app, a.model or "", a.provider, a.served_by or "", error)
        rows = self._rows.get(kind) or self._rows_of(kind)
        if a.endpoint != REFRESH:  # nobody waits for that, but its tokens are paid for
            rows.answers[0] += 1
            if a.cache is not None or a.saved is not None:
                self.count_cache(a)
            if a.error is None and (a.served_by in FALLBACKS or a.degraded):
                self.count("fallbacks", (a.app, a.served_by or ""))
            if a.sourced is not None and a.error is None:
                self.count("sourced", (a.app, a.sourced))
        rows.duration[bisect_left(SECONDS, a.duration_s)] += 1
        rows.duration[-1] += a.duration_s
        usage = a.usage
        if usage is not None:
            self._observe_tokens(rows.tokens, usage)
        if a.streamed and a.ttft_s is not None:
            self.histograms["ttft"].observe(rows.labels, a.ttft_s)
            if usage is not None and usage.output_tokens > 1:
                per_token_s = (a.duration_s - a.ttft_s) / (usage.output_tokens - 1)
                self.histograms["tpot"].observe(rows.labels, per_token_s)
        for each in a.other_usage:
            self._observe_tokens(self._token_rows((a.app, each.model, each.provider)), each.usage)
        if a.citations_kept or a.citations_flagged or a.citations_dropped:
            self._count_citations(a)

    def _rows_of(self, kind: Labels) -> "AnswerRows":
        """Find the rows that answers of this kind are counted in, once."""
        app, model, provider, served_by, error = kind
        labels = (app, model, provider)
        rows = self._rows[kind] = AnswerRows(
            labels=labels,
            answers=self._counter("answers", (app, model, served_by, error)),
            duration=self.histograms["duration"].row((*labels, error)),
            tokens=self._token_rows(labels),
        )
        return rows

    def _token_rows(self, labels: Labels) -> "TokenRows":
        rows = self._tokens.get(labels)
        if rows is None:
            rows = self._tokens[labels] = TokenRows(labels=labels)
        return rows

    def _observe_tokens(self, rows: "TokenRows", usage: Usage) -> None:
        if rows.input is None:  # a row is shown from its first value on
            row = self.histograms["tokens"].row
            rows.input, rows.output = row((*rows.labels, "input")), row((*rows.labels, "output"))
        for row_, value in ((rows.input, usage.input_tokens), (rows.output, usage.output_tokens)):
            row_[bisect_left(TOKENS, value)] += 1
            row_[-1] += value

    def _count_citations(self, a: AnswerDone) -> None:
        for outcome, count in (
            ("kept", a.citations_kept),
            ("flagged", a.citations_flagged),
            ("dropped", a.citations_dropped),
        ):
            if count:
                self.count("citations", (a.app, a.model or "", outcome), count)

    def count_cache(self, a: AnswerDone) -> None:
        """Count what the cache did for an answer, and what the answer saved."""
        if a.cache is not None:
            self.count("cache", (a.app, a.cache))
        if a.saved is None or a.error is not None:
            return
        labels = (a.app, a.saved.by)
        self.count("saved_answers", labels)
        if (usage := a.saved.usage) is not None:
            self.count("saved_tokens", (*labels, "input"), usage.input_tokens)
            self.count("saved_tokens", (*labels, "output"), usage.output_tokens)
        if a.saved.usd is not None:
            self.count("saved_usd", labels, float(a.saved.usd))
        else:
            self.count("saved_unpriced", labels)

    def own_rows(self) -> Iterator[NumberedRow]:
        """Yield what this process counted."""
        for name, counts in self.counts.items():
            for labels, row in counts.items():
                yield name, labels, row
        for name, histogram in self.histograms.items():
            for labels, row in histogram.rows.items():
                yield name, labels, row
        yield "store_up", (), self._down
        yield "store_waiting", (), self._waiting

    def sums(self) -> dict[str, dict[Labels, list[float]]]:
        """Return the sum of all processes' rows with the same labels, by metric."""
        sums: dict[str, dict[Labels, list[float]]] = {name: {} for name in METRICS}
        for name, labels, row in self.all_rows():
            rows = sums[name]
            known = rows.get(labels)
            rows[labels] = list(row) if known is None else list(map(add, known, row))
        return sums

    def note_store(self) -> None:
        """Write how this process finds the store into its rows: whether it is down, and how many
        rows wait.
        """
        state = self.store()
        self._down[0], self._waiting[0] = int(state.reason is not None), state.waiting
        self.count("store_lost", (), state.lost - self._lost)
        self._lost = state.lost

    def model_states(self) -> dict[str, ModelState]:
        """Return the state of each model, as this process knows it."""
        states = {}
        for name, health in self.healths().items():
            shown, limited = health.report(), health.slots is not None
            states[name] = ModelState(
                state=shown.state,
                running=shown.busy if limited else None,
                waiting=shown.waiting if limited else None,
            )
        return states

    def collect(
        self, names: Set[str] | None = None, others: Sequence[Mapping[str, ModelState]] = ()
    ) -> Iterator[Any]:
        """Yield the metric families, as Prometheus' client library expects of a collector.

        With `names`, only rows of these apps, routes and models are yielded. `others` are the
        states of the models in other processes.
        """
        from prometheus_client.core import (
            CounterMetricFamily,
            GaugeMetricFamily,
            HistogramMetricFamily,
        )  # imported by the first scrape: it is heavy

        self.note_store()
        sums = self.sums()
        for name in self.counts:
            m = METRICS[name]
            counter = CounterMetricFamily(m.name, m.help, labels=m.labels)
            for labels, (value,) in visible(m, sums[name], names):
                counter.add_metric(labels, value)
            yield counter
        yield from self.models(names, others)
        yield from semantic_gauges(list(self.semantic()), names)
        if names is None:
            kept = self.cache()
            for name, amount in (("cache_entries", kept.entries), ("cache_bytes", kept.bytes)):
                yield GaugeMetricFamily(METRICS[name].name, METRICS[name].help, value=amount)
            for key, value in (
                ("in_flight", self.in_flight()),
                ("store_up", int(not sums["store_up"][()][0])),
                ("store_waiting", sums["store_waiting"][()][0]),
            ):
                gauge = METRICS[key]
                yield GaugeMetricFamily(gauge.name, gauge.help, value=value)
        for name in self.histograms:
            m = METRICS[name]
            family = HistogramMetricFamily(m.name, m.help, labels=m.labels)
            for labels, row in visible(m, sums[name], names):
                bounds = [*map(str, m.buckets), "+Inf"]
                family.add_metric(
                    labels, list(zip(bounds, accumulate(row[:-1]), strict=True)), row[-1]
                )
            yield family

    def models(
        self, names: Set[str] | None, others: Sequence[Mapping[str, ModelState]]
    ) -> Iterator[Any]:
        """Yield the gauges of the models: breaker state and calls."""
        from prometheus_client.core import GaugeMetricFamily

        states, calls = (
            GaugeMetricFamily(m.name, m.help, labels=m.labels)
            for m in (METRICS["model_state"], METRICS["model_calls"])
        )
        for name, model in joined([self.model_states(), *others]).items():
            if names is not None and name not in names:
                continue
            for state in STATES:
                states.add_metric((name, state), int(model.state == state))
            if model.running is not None:
                calls.add_metric((name, "running"), model.running)
                calls.add_metric((name, "waiting"), model.waiting or 0)
        yield from (states, calls)

    def render(
        self,
        accept: str,
        names: Set[str] | None = None,
        others: Sequence[Mapping[str, ModelState]] = (),
    ) -> tuple[bytes, str]:
        """Return the exposition text in the format that `accept` asks for, and its content type.

        `names` and `others` are those of `collect`.
        """
        from prometheus_client import CollectorRegistry
        from prometheus_client.exposition import choose_encoder

        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Visible(self, names, others))
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
