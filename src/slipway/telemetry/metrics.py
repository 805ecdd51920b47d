"""Count records.

Counting costs a dictionary look-up and a few additions. Rows of this process alone are counted in
a hundred records later, or when they are read: code and rows that were used a moment ago are in the
CPU's caches, and so a record takes a third of the time. Rows that outlive this process are counted
in at once, so that a worker that is killed loses nothing. Text is written only for a scrape
(`exposition.py`).
"""

import logging
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from operator import add
from typing import Any

from slipway.cache import SemanticReport
from slipway.errors import ProviderRefused, SlipwayError
from slipway.ledger import LedgerRow
from slipway.prices import PICO
from slipway.routing import Health
from slipway.telemetry.bounds import SERIES, SeriesBound
from slipway.telemetry.compatible import families
from slipway.telemetry.definitions import METRICS, TOKENS, Labels
from slipway.telemetry.exposition import Scrape, written
from slipway.telemetry.gauges import GaugeRow, GaugeSums, joined_gauges, own_gauges
from slipway.telemetry.model_states import ModelState
from slipway.telemetry.rows import (
    AnswerRows,
    AttemptRows,
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
    Saved,
    SemanticLooked,
    StoreState,
    Usage,
)

log = logging.getLogger("slipway")
FALLBACKS = ("smaller", "stale")  # a quote is one only if a model failed
REFRESH = "refresh"  # the endpoint of answers that are written again in the background
OPERATION = "chat"  # what all calls are, in OpenTelemetry's words
KINDS = 5000  # of answers and calls whose rows are remembered: changed settings bring new names
AT_ONCE = 100  # records that are counted together
CountedRecord = PipelineRecord | FeedbackGiven | LedgerRow
NO_EDGES: Mapping[str, Sequence[float]] = {}


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
        *,
        read: Callable[[], Iterable[GaugeRow]] = tuple,
        edges: Mapping[str, Sequence[float]] = NO_EDGES,
        series: int = SERIES,
    ) -> None:
        """Count in rows that `new_row` makes.

        `all_rows` yields what all processes of the server counted; by default, this is the only
        one. `read` yields what is read when the metrics are scraped. `edges` are further edges of
        buckets, by metric: all processes of a server need the same. `series` is how many series
        there may be.
        """
        self.started_at = int(time.time())
        self.store, self._lost = store, 0
        self.in_flight, self.healths, self.new_row = in_flight, healths, new_row
        self.all_rows, self.cache = all_rows or self.own_rows, cache
        self.semantic, self.read = semantic, read
        self._is_shared = new_row is not own_row
        self._uncounted = list[CountedRecord]()
        self.bound = SeriesBound(series, lambda: self.all_rows())
        self.edges = {
            key: tuple(sorted({*metric.buckets, *edges.get(key, ())}))
            for key, metric in METRICS.items()
            if metric.buckets
        }
        self.rows: dict[str, dict[Labels, Numbers]] = {
            key: {} for key, metric in METRICS.items() if metric.is_counted or metric.buckets
        }
        # (metric, labels) that are counted under other labels -> the row of those
        self._others: dict[tuple[str, Labels], Numbers] = {}
        self._down, self._waiting = (new_row(key, (), 1) for key in ("store_up", "store_waiting"))
        for outcome in ("applied", "refused"):
            self.count("reloads", (outcome,), 0)
        self.count("store_lost", (), 0)
        self._answers: dict[tuple[object, ...], AnswerRows] = {}
        self._attempts: dict[tuple[object, ...], AttemptRows] = {}
        self._tokens: dict[Labels, TokenRows] = {}
        self._durations, self._call_durations = self.edges["duration"], self.edges["call_duration"]
        self._ttfts, self._tpots = self.edges["ttft"], self.edges["tpot"]
        self.counting: Mapping[type, Callable[[Any], None]] = {
            AnswerDone: self.answer,
            AttemptDone: self.attempt,
            RuleUsed: self.rule,
            SemanticLooked: self.looked,
            FeedbackGiven: self.feedback,
            LedgerRow: self.spend,
        }

    def emit(self, record: CountedRecord) -> None:
        """Count a record: at once in rows that outlive this process, else before they are read."""
        if self._is_shared:
            self.counting[type(record)](record)
            return
        self._uncounted.append(record)
        if len(self._uncounted) >= AT_ONCE:
            self.count_waiting()

    def count_waiting(self) -> None:
        """Count the records that wait."""
        waiting, self._uncounted = self._uncounted, []
        for record in waiting:
            self.counting[type(record)](record)

    def count(self, metric: str, labels: Labels, by: float = 1) -> None:
        """Increase a counter."""
        self.row(metric, labels)[0] += by

    def observe(self, metric: str, labels: Labels, value: float) -> None:
        """Add a value to a histogram."""
        row = self.row(metric, labels)
        row[bisect_left(self.edges[metric], value)] += 1
        row[-1] += value

    def row(self, metric: str, labels: Labels) -> Numbers:
        """Return the row in which these labels are counted: a counter's has one number, a
        histogram's one for each bucket and for what is past the last, and then the sum.
        """
        found = self.rows[metric].get(labels)
        if found is None:
            found = self._others.get((metric, labels)) or self._new_row(metric, labels)
        return found

    def _new_row(self, metric: str, labels: Labels) -> Numbers:
        rows, place = self.rows[metric], self.bound.place(metric, labels)
        row = rows.get(place)
        if row is None:
            edges = self.edges.get(metric)
            row = rows[place] = self.new_row(metric, place, 1 if edges is None else len(edges) + 2)
        if place != labels:
            if len(self._others) >= KINDS:
                self._others.clear()
            self._others[metric, labels] = row
            if ("series_other", (metric,)) not in self._others:
                self._warn_of_other(metric)
            self.count("series_other", (metric,))
        return row

    def _warn_of_other(self, metric: str) -> None:
        """Say once that a metric has used its share of the series."""
        if (metric,) not in self.rows["series_other"]:
            log.warning(
                "metric %s has its share of the %d series: new names are counted as `other`; "
                "raise `metrics.series` to see them",
                METRICS[metric].name,
                self.bound.series,
            )

    # records

    def attempt(self, a: AttemptDone) -> None:
        kind = (a.model, a.provider, a.zone, a.error, a.kind, a.role, a.place, a.used)
        rows = self._attempts.get(kind) or self._attempt_rows(a, kind)
        for row in rows.ones:
            row[0] += 1
        duration, duration_s = rows.duration, a.duration_s
        duration[bisect_left(self._call_durations, duration_s)] += 1
        duration[-1] += duration_s
        if a.waited_s is not None:
            self.observe("queue_wait", (a.model,), a.waited_s)
        if a.opened_breaker:
            self.count("breaker_openings", (a.model,))
        if a.left_out:
            self.count("left_out", (a.model, a.provider), a.left_out)

    def _attempt_rows(self, a: AttemptDone, kind: tuple[object, ...]) -> AttemptRows:
        """Find the rows that calls of this kind are counted in, once."""
        error = known_code(a.error)
        ones = [self.row("attempts", (a.model, a.provider, a.zone, error))]
        if a.kind == "retry":
            ones.append(self.row("retries", (a.model,)))
        elif a.kind == "trial":
            outcome = "failed" if error else "used" if a.used else "unused"
            ones.append(self.row("trials", (a.model, outcome)))
        if a.kind == "continue" or (a.place > 0 and a.kind == "first"):
            how = "continued" if a.kind == "continue" else "whole"
            ones.append(self.row("failovers", (a.model, a.role, how)))
        if len(self._attempts) >= KINDS:
            self._attempts.clear()
        rows = self._attempts[kind] = AttemptRows(
            duration=self.row("call_duration", (OPERATION, a.model, a.provider, error)),
            ones=tuple(ones),
        )
        return rows

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

    def answer(self, a: AnswerDone) -> None:
        kind = (
            *(a.endpoint, a.app, a.model, a.provider, a.served_by, a.error),
            *(a.cache, a.sourced, a.degraded),
        )
        rows = self._answers.get(kind) or self._answer_rows(a, kind)
        for row in rows.ones:
            row[0] += 1
        duration, duration_s, usage = rows.duration, a.duration_s, a.usage
        duration[bisect_left(self._durations, duration_s)] += 1
        duration[-1] += duration_s
        if usage is not None:
            self._observe_tokens(rows.tokens, usage)
        if a.streamed and a.ttft_s is not None:
            self._observe_times(rows, a.ttft_s, duration_s, usage)
        for each in a.other_usage:
            self._observe_tokens(self._token_rows((a.app, each.model, each.provider)), each.usage)
        if a.saved is not None and a.error is None and a.endpoint != REFRESH:
            self._count_saved(a.app, a.saved)
        if a.citations_kept or a.citations_flagged or a.citations_dropped:
            self._count_citations(a)

    def _answer_rows(self, a: AnswerDone, kind: tuple[object, ...]) -> AnswerRows:
        """Find the rows that answers of this kind are counted in, once."""
        error = known_code(a.error)
        labels = (a.app, a.model or "", a.provider)
        if len(self._answers) >= KINDS:
            self._answers.clear()
        rows = self._answers[kind] = AnswerRows(
            labels=(OPERATION, *labels),
            ones=tuple(self._ones_of(a, error)) if a.endpoint != REFRESH else (),
            duration=self.row("duration", (OPERATION, *labels, error)),
            tokens=self._token_rows(labels),
        )
        return rows

    def _ones_of(self, a: AnswerDone, error: str) -> Iterator[Numbers]:
        """Yield the rows to which answers of this kind add 1 each. Nobody waits for one that is
        written again, but its tokens are paid for.
        """
        app, served_by = a.app, a.served_by or ""
        yield self.row("answers", (app, a.model or "", served_by, error))
        if a.cache is not None:
            yield self.row("cache", (app, a.cache))
        if a.error is None and (served_by in FALLBACKS or a.degraded):
            yield self.row("fallbacks", (app, served_by))
        if a.error is None and a.sourced is not None:
            yield self.row("sourced", (app, a.sourced))

    def _observe_times(
        self, rows: AnswerRows, ttft_s: float, duration_s: float, usage: Usage | None
    ) -> None:
        ttft = rows.ttft
        if ttft is None:  # a row is shown from its first value on
            ttft = rows.ttft = self.row("ttft", rows.labels)
        ttft[bisect_left(self._ttfts, ttft_s)] += 1
        ttft[-1] += ttft_s
        if usage is not None and usage.output_tokens > 1:
            tpot = rows.tpot
            if tpot is None:
                tpot = rows.tpot = self.row("tpot", rows.labels)
            per_token_s = (duration_s - ttft_s) / (usage.output_tokens - 1)
            tpot[bisect_left(self._tpots, per_token_s)] += 1
            tpot[-1] += per_token_s

    def _token_rows(self, labels: Labels) -> TokenRows:
        rows = self._tokens.get(labels)
        if rows is None:
            if len(self._tokens) >= KINDS:
                self._tokens.clear()
            rows = self._tokens[labels] = TokenRows(labels=(OPERATION, *labels))
        return rows

    def _observe_tokens(self, rows: TokenRows, usage: Usage) -> None:
        if rows.input is None:  # a row is shown from its first value on
            rows.input = self.row("tokens", (*rows.labels, "input"))
            rows.output = self.row("tokens", (*rows.labels, "output"))
        row, tokens = rows.input, usage.input_tokens
        row[bisect_left(TOKENS, tokens)] += 1
        row[-1] += tokens
        row, tokens = rows.output, usage.output_tokens
        row[bisect_left(TOKENS, tokens)] += 1
        row[-1] += tokens
        if usage.cached_tokens:
            if rows.cached is None:
                rows.cached = self.row("tokens", (*rows.labels, "cached"))
            rows.cached[bisect_left(TOKENS, usage.cached_tokens)] += 1
            rows.cached[-1] += usage.cached_tokens
        if usage.reasoning_tokens:
            if rows.reasoning is None:
                rows.reasoning = self.row("tokens", (*rows.labels, "reasoning"))
            rows.reasoning[bisect_left(TOKENS, usage.reasoning_tokens)] += 1
            rows.reasoning[-1] += usage.reasoning_tokens

    def _count_citations(self, a: AnswerDone) -> None:
        for outcome, count in (
            ("kept", a.citations_kept),
            ("flagged", a.citations_flagged),
            ("dropped", a.citations_dropped),
        ):
            if count:
                self.count("citations", (a.app, a.model or "", outcome), count)

    def _count_saved(self, app: str, saved: Saved) -> None:
        """Count what an answer did not cost."""
        labels = (app, saved.by)
        self.count("saved_answers", labels)
        if (usage := saved.usage) is not None:
            self.count("saved_tokens", (*labels, "input"), usage.input_tokens)
            self.count("saved_tokens", (*labels, "output"), usage.output_tokens)
        if saved.usd is not None:
            self.count("saved_usd", labels, float(saved.usd))
        else:
            self.count("saved_unpriced", labels)

    # what was counted

    def own_rows(self) -> Iterator[NumberedRow]:
        """Yield what this process counted."""
        self.count_waiting()
        for name, rows in self.rows.items():
            for labels, row in rows.items():
                yield name, labels, row
        yield "store_up", (), self._down
        yield "store_waiting", (), self._waiting

    def sums(self) -> dict[str, dict[Labels, list[float]]]:
        """Return the sum of all processes' rows with the same labels, by metric."""
        self.note_store()
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

    # what is read

    def own_gauges(self) -> list[GaugeRow]:
        """Return what this process knows beside what it counted."""
        return own_gauges(
            self.model_states(), self.cache(), self.semantic(), self.started_at, self.read()
        )

    def gauges(self, others: Iterable[Sequence[GaugeRow]] = ()) -> GaugeSums:
        """Return what is read rather than counted, by metric and labels. `others` is what the other
        processes of the server know (their `own_gauges`).
        """
        whole: list[GaugeRow] = [("in_flight", (), self.in_flight())]
        return joined_gauges([self.own_gauges(), *others, whole], self.bound.series)

    def model_states(self) -> dict[str, ModelState]:
        """Return the state of each model, as this process knows it."""
        states = {}
        for name, health in self.healths().items():
            shown, limited = health.report(), health.slots is not None
            states[name] = ModelState(
                state=shown.state,
                running=shown.busy,
                waiting=shown.waiting if limited else None,
                oldest_s=shown.oldest_s if limited else None,
            )
        return states

    def render(
        self,
        accept: str,
        names: Set[str] | None = None,
        others: Iterable[Sequence[GaugeRow]] = (),
        compatible: Sequence[str] = (),
    ) -> tuple[bytes, str]:
        """Return the exposition text in the format that `accept` asks for, and its content type.

        With `names`, only rows of these apps, routes and models are written. `others` is that of
        `gauges`. `compatible` names the products under whose names they are written, too.
        """
        sums, gauges = self.sums(), self.gauges(others)
        also = families(compatible, self.edges, sums, gauges, names)
        return written(Scrape(self.edges, sums, gauges, names, also), accept)
