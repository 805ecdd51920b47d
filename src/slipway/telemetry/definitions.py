"""The metrics: their names, labels and buckets; docs/metrics.md is printed from them.

Names and buckets of the `gen_ai_*` metrics follow OpenTelemetry's semantic conventions for
generative AI, with underscores for dots and the unit as a suffix.
"""

from slipway.telemetry.definition import NAMES, Labels, MetricDefinition
from slipway.telemetry.readings import READ

__all__ = ["METRICS", "NAMES", "TOKENS", "Labels", "MetricDefinition"]

SECONDS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
# The conventions end at 10 s and 2.5 s: models on CPUs, and those that are started first, take longer
TTFT = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
    *(20.0, 40.0, 80.0),
)
PER_TOKEN = (
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5),
    *(5.0, 10.0),
)
QUEUE = (0.01, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
TOKENS = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864)
ANSWER_LABELS = (
    *("gen_ai_operation_name", "gen_ai_request_model"),
    *("gen_ai_response_model", "gen_ai_provider_name"),
)
COUNTED = {
    "answers": MetricDefinition(
        "slipway_answers",
        "Finished answers, by what answered and how it ended.",
        ("app", "model", "served_by", "error"),
        share=50,
    ),
    "attempts": MetricDefinition(
        "slipway_attempts",
        "Calls to models, by how they ended.",
        ("model", "provider", "zone", "error"),
        share=40,
    ),
    "retries": MetricDefinition(
        "slipway_retries",
        "Calls that ask the same model again after a failure.",
        ("model",),
        share=6,
    ),
    "trials": MetricDefinition(
        "slipway_trials",
        "Calls that test whether a model whose breaker was open has recovered, by outcome: used "
        "(it answered the question), unused (it recovered, while another model answered), failed.",
        ("model", "outcome"),
        share=6,
    ),
    "failovers": MetricDefinition(
        "slipway_failovers",
        "Calls to a model in place of the first one of its route. `how` is whole (it was asked the "
        "question) or continued (it went on where another model broke off).",
        ("model", "role", "how"),
        share=6,
    ),
    "breaker_openings": MetricDefinition(
        "slipway_breaker_openings",
        "How often a model's circuit breaker opened: it is not called then.",
        ("model",),
        share=6,
    ),
    "left_out": MetricDefinition(
        "slipway_left_out",
        "Fields of providers' replies that could not be read, such as a token count that is text; "
        "the answer is passed on without them.",
        ("model", "provider"),
        share=4,
    ),
    "cache": MetricDefinition(
        "slipway_cache_answers",
        "Questions that asked the cache, by what it did: hit, semantic (the answer of a similar "
        "question), stale, flight (shared the call of an identical question), miss or refresh.",
        ("app", "state"),
        share=12,
    ),
    "saved_answers": MetricDefinition(
        "slipway_saved_answers",
        "Answers for which no model was called, by what saved the call.",
        ("app", "by"),
        share=6,
    ),
    "saved_tokens": MetricDefinition(
        "slipway_saved_tokens",
        "Tokens that these calls would have taken, as far as they are known.",
        ("app", "by", "gen_ai_token_type"),
        share=10,
    ),
    "saved_usd": MetricDefinition(
        "slipway_saved_usd",
        "USD that these calls would have cost, as far as prices are known.",
        ("app", "by"),
        share=6,
    ),
    "saved_unpriced": MetricDefinition(
        "slipway_saved_unpriced",
        "Calls among them whose price is unknown.",
        ("app", "by"),
        share=6,
    ),
    "traces_lost": MetricDefinition(
        "slipway_trace_lost_records",
        "Records of answers and calls that are in no trace, because the disk could not be written.",
        (),
    ),
    "log_lost": MetricDefinition(
        "slipway_log_lost_lines",
        "Requests that are missing in the access log, because the standard output was not read.",
        (),
    ),
    "otlp_dropped": MetricDefinition(
        "slipway_otlp_dropped_records",
        "Records of answers and calls that the collector of `otlp` did not take in time.",
        (),
    ),
    "cache_removed": MetricDefinition(
        "slipway_cache_removed",
        "Kept answers that left memory, by cause: evicted (for lack of memory), expired, document "
        "(one that it was written from changed), outranked (a search finds others now), "
        "feedback (somebody found it wrong), request.",
        ("cause",),
    ),
    "cost": MetricDefinition(
        "slipway_cost_usd",
        "USD that calls to models cost, rounded as every number here; the ledger is exact.",
        ("app", "model"),
        share=12,
    ),
    "unpriced": MetricDefinition(
        "slipway_unpriced_calls",
        "Calls to models whose cost is unknown: set the model's `price`.",
        ("app", "model"),
        share=6,
    ),
    "citations": MetricDefinition(
        "slipway_citations",
        "Citations by outcome: kept, flagged (the source lacks words of the sentence), "
        "dropped (it named no source).",
        ("app", "model", "outcome"),
        share=12,
    ),
    "sourced": MetricDefinition(
        "slipway_sourced_answers",
        "Answers of apps with documents, rules aside: sourced (they cite a passage), unsourced, or "
        "abstained (they say that the documents do not answer).",
        ("app", "outcome"),
        share=10,
    ),
    "fallbacks": MetricDefinition(
        "slipway_fallback_answers",
        "Answers that came from a smaller model, an old answer or a quote since a model failed.",
        ("app", "served_by"),
        share=10,
    ),
    "notifications": MetricDefinition(
        "slipway_notifications",
        "Messages about alerts, by the notifier of `alerts.notify` and outcome: sent or failed.",
        ("notifier", "outcome"),
    ),
    "rules": MetricDefinition(
        "slipway_rule_hits",
        "Questions that a rule recognised, by how: a full question, a pattern or an intent. "
        "`outcome` is served, or shadow for a rule that only counts.",
        ("app", "kind", "outcome"),
        share=8,
    ),
    "feedback": MetricDefinition(
        "slipway_feedback",
        "Stored votes and reports; one that replaces another is not counted again. "
        "`helpful` is yes, no, or report.",
        ("app", "helpful"),
        share=8,
    ),
    "semantic": MetricDefinition(
        "slipway_semantic_lookups",
        "Look-ups of similar questions: `serve` (answered from there), `check` (asked a model all "
        "the same, to compare), `shadow` (a candidate that may not be served yet), `none`. And "
        "comparisons with a fresh answer: `same`, `different`, `unknown`.",
        ("app", "outcome"),
        share=8,
    ),
    "semantic_refused": MetricDefinition(
        "slipway_semantic_refused",
        "Near questions that a guard refused, such as `number` or `negation`.",
        ("app", "guard"),
        share=8,
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
    "engine_scrapes": MetricDefinition(
        "slipway_engine_scrapes",
        "Tries to read the metrics of a model's server, by outcome: ok, unreachable, slow, refused "
        "(a status other than 200), too_large, or unreadable.",
        ("model", "outcome"),
        share=8,
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
    "series_other": MetricDefinition(
        "slipway_series_other",
        "Combinations of labels that are counted as `other`, as the metric has its share of "
        "`metrics.series` already.",
        ("metric",),
    ),
    "duration": MetricDefinition(
        "gen_ai_server_request_duration_seconds",
        "Time from the question to the end of its answer.",
        (*ANSWER_LABELS, "error_type"),
        SECONDS,
        share=120,
    ),
    "call_duration": MetricDefinition(
        "gen_ai_client_operation_duration_seconds",
        "Time of a call to a model, from the request to its end, without the wait in a queue.",
        (
            *("gen_ai_operation_name", "gen_ai_request_model"),
            *("gen_ai_provider_name", "error_type"),
        ),
        SECONDS,
        share=90,
    ),
    "queue_wait": MetricDefinition(
        "slipway_queue_wait_seconds",
        "Time that a call waited in the queue of a model with a limit; calls that need not wait "
        "count as 0.",
        ("model",),
        QUEUE,
        share=30,
    ),
    "ttft": MetricDefinition(
        "gen_ai_server_time_to_first_token_seconds",
        "Time from the question to the first token.",
        ANSWER_LABELS,
        TTFT,
        share=115,
    ),
    "tpot": MetricDefinition(
        "gen_ai_server_time_per_output_token_seconds",
        "Time per output token after the first.",
        ANSWER_LABELS,
        PER_TOKEN,
        share=90,
    ),
    "tokens": MetricDefinition(
        "gen_ai_client_token_usage",
        "Tokens of an answer, as the provider reported them. `cached` (read from the provider's cache) "
        "are part of `input`, and `reasoning` of `output`: do not add them.",
        (*ANSWER_LABELS, "gen_ai_token_type"),
        TOKENS,
        share=130,
    ),
}
METRICS = {**COUNTED, **READ}
