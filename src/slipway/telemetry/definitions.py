"""The metrics: their names, labels and buckets; docs/metrics.md is printed from them.

Names and buckets of the `gen_ai_*` metrics follow OpenTelemetry's semantic conventions for
generative AI, with underscores for dots and the unit as a suffix.
"""

import msgspec

SECONDS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
TTFT = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
PER_TOKEN = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
TOKENS = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864)
Labels = tuple[str, ...]


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
