"""Count records.

Counting costs a dictionary look-up and a few additions; text is written only for a scrape
(`exposition.py`).
"""

import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from operator import add

from slipway.cache import SemanticReport
from slipway.errors import ProviderRefused, SlipwayError
from slipway.ledger import LedgerRow
from slipway.prices import PICO
from slipway.routing import Health
from slipway.telemetry.definitions import METRICS, SECONDS, TOKENS, Labels
from slipway.telemetry.exposition import Scrape, written
from slipway.telemetry.model_states import ModelState
from slipway.telemetry.rows import (
    AnswerRows,
    Histogram,
    NewRow,
    NumberedRow,
    Numbers,
    TokenRows,
    own_row,
)
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

REFRESH = "refresh"  # the endpoint of answers that are written again in the background


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


class Telemetry:
    """The metrics of one server, counted from records (`emit`).

    `render` writes them in the formats of Prometheus.
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

    def render(
        self,
        accept: str,
        names: Set[str] | None = None,
        others: Sequence[Mapping[str, ModelState]] = (),
    ) -> tuple[bytes, str]:
        """Return the exposition text in the format that `accept` asks for, and its content type.

        `names` and `others` are those of `collect`.
        """
        return written(Scrape(self, names, others), accept)
