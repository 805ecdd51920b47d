"""The names of LiteLLM's metrics, and which of ours they are computed from."""

from collections.abc import Set
from typing import Any

from slipway.errors import SlipwayError, all_errors
from slipway.telemetry.aliases import Alias, Amount, Kind, Named, Pick, in_state, with_type
from slipway.telemetry.definitions import Labels

ERRORS: dict[str, type[SlipwayError]] = {error.code: error for error in all_errors()}
CLIENT_GONE = 499  # as nginx says it
HITS = frozenset({"hit", "semantic", "stale", "flight"})
SEVERITY = {"closed": 0, "half-open": 1, "open": 2}


def status_of(code: str) -> str:
    if not code:
        return "200"
    return str(ERRORS[code].status if code in ERRORS else CLIENT_GONE)


def class_of(code: str) -> str:
    return ERRORS[code].__name__ if code in ERRORS else "ClientGone"


def request_of(row: Named) -> Labels:
    return (row["app"], row["model"], status_of(row["error"]))


def failure_of(row: Named) -> Labels | None:
    code = row["error"]
    return (row["app"], row["model"], status_of(code), class_of(code)) if code else None


def answer_of(row: Named) -> Labels | None:
    """Return requested model, model, model group and provider of a successful answer."""
    if row.get("error_type"):
        return None
    asked, model = row["gen_ai_request_model"], row["gen_ai_response_model"]
    return (asked, model, asked, row["gen_ai_provider_name"])


def call_of(row: Named) -> Labels | None:
    """Return the model and the provider of a successful call."""
    if row["error_type"]:
        return None
    return (row["gen_ai_request_model"], row["gen_ai_provider_name"])


def deployment_of(row: Named) -> Labels:
    return (row["model"], row["model"], row["provider"])


def failed_deployment_of(row: Named) -> Labels | None:
    code = row["error"]
    if not code or code == "cancelled":  # given up by us: nobody's failure
        return None
    return (*deployment_of(row), status_of(code), class_of(code))


def spent_of(row: Named) -> Labels:
    return (row["app"], row["model"])


def model_id_of(row: Named) -> Labels:
    return (row["model"], row["model"])


def state_of(row: Named, value: float) -> float:
    """Return LiteLLM's number of a breaker's state, from its row of 1 or 0."""
    return SEVERITY[row["state"]] * value


def named_of(row: Named) -> Labels:
    return (row["name"], row["name"])


def cached(states: Set[str]) -> Pick:
    return lambda row: (row["app"],) if row["state"] in states else None


def litellm(
    name: str,
    about: str,
    kind: Kind,
    source: str,
    labels: Labels,
    pick: Pick,
    amount: Amount | None = None,
    **more: Any,
) -> Alias:
    return Alias(
        name=f"litellm_{name}",
        about=about,
        kind=kind,
        source=source,
        labels=labels,
        pick=pick,
        amount=amount or ("row" if kind == "histogram" else "value"),
        **more,
    )


ANSWERED = ("requested_model", "model", "model_group", "api_provider")
DEPLOYMENT = ("litellm_model_name", "model_id")
FAILED = ("exception_status", "exception_class")

LITELLM = (
    litellm(
        "proxy_total_requests_metric",
        "Requests of clients.",
        "counter",
        "answers",
        ("requested_model", "model_id", "status_code"),
        request_of,
    ),
    litellm(
        "proxy_failed_requests_metric",
        "Requests of clients that ended with an error.",
        "counter",
        "answers",
        ("requested_model", "model_id", *FAILED),
        failure_of,
    ),
    litellm(
        "requests_metric",
        "Requests of clients.",
        "counter",
        "answers",
        ("requested_model", "model"),
        spent_of,
    ),
    litellm(
        "request_total_latency_metric",
        "Time of successful answers.",
        "histogram",
        "duration",
        ANSWERED,
        answer_of,
    ),
    litellm(
        "llm_api_latency_metric",
        "Time of successful calls to models.",
        "histogram",
        "call_duration",
        ("model", "api_provider"),
        call_of,
    ),
    litellm(
        "llm_api_time_to_first_token_metric",
        "Time from the question to the first token.",
        "histogram",
        "ttft",
        ANSWERED,
        answer_of,
    ),
    litellm(
        "deployment_latency_per_output_token",
        "Time per output token after the first.",
        "histogram",
        "tpot",
        ("model_group", "litellm_model_name", "model_id", "api_provider"),
        lambda row: (
            row["gen_ai_request_model"],
            row["gen_ai_response_model"],
            row["gen_ai_response_model"],
            row["gen_ai_provider_name"],
        ),
    ),
    litellm(
        "spend_metric",
        "USD spent on calls to models.",
        "counter",
        "cost",
        ("requested_model", "model"),
        spent_of,
    ),
    *(
        litellm(name, about, "counter", "tokens", ANSWERED, with_type(kind, answer_of), "sum")
        for name, about, kind in (
            ("input_tokens_metric", "Tokens read.", "input"),
            ("output_tokens_metric", "Tokens written.", "output"),
            ("input_cached_tokens_metric", "Tokens read from the provider's cache.", "cached"),
            ("output_reasoning_tokens_metric", "Tokens written to reason.", "reasoning"),
        )
    ),
    litellm(
        "total_tokens_metric",
        "Tokens read and written.",
        "counter",
        "tokens",
        ANSWERED,
        lambda row: answer_of(row) if row["gen_ai_token_type"] in ("input", "output") else None,
        "sum",
    ),
    litellm(
        "deployment_state",
        "State of a model: 0 healthy, 1 tried again, 2 not called.",
        "gauge",
        "model_state",
        DEPLOYMENT,
        model_id_of,
        scaled=state_of,
    ),
    litellm(
        "deployment_cooled_down",
        "How often a model was taken out of use.",
        "counter",
        "breaker_openings",
        DEPLOYMENT,
        model_id_of,
    ),
    litellm(
        "deployment_total_requests",
        "Calls to models.",
        "counter",
        "attempts",
        (*DEPLOYMENT, "api_provider"),
        deployment_of,
    ),
    litellm(
        "deployment_success_responses",
        "Calls to models that succeeded.",
        "counter",
        "attempts",
        (*DEPLOYMENT, "api_provider"),
        lambda row: None if row["error"] else deployment_of(row),
    ),
    litellm(
        "deployment_failure_responses",
        "Calls to models that failed.",
        "counter",
        "attempts",
        (*DEPLOYMENT, "api_provider", *FAILED),
        failed_deployment_of,
    ),
    litellm(
        "cache_hits_metric",
        "Answers from the cache.",
        "counter",
        "cache",
        ("model",),
        cached(HITS),
    ),
    litellm(
        "cache_misses_metric",
        "Questions for which the cache had no answer.",
        "counter",
        "cache",
        ("model",),
        cached({"miss"}),
    ),
    litellm(
        "cached_tokens_metric",
        "Tokens that kept answers saved.",
        "counter",
        "saved_tokens",
        ("model",),
        lambda row: (row["app"],),
    ),
    litellm(
        "request_queue_time_seconds",
        "Time in the queue of a model.",
        "histogram",
        "queue_wait",
        ("model",),
        lambda row: (row["model"],),
    ),
    litellm(
        "remaining_team_budget_metric",
        "USD left of the budget of a tenant: of its day and its month, the smaller one.",
        "gauge",
        "budget_left",
        ("team", "team_alias"),
        in_state("scope", "tenant", named_of),
        joined=min,
    ),
    litellm(
        "remaining_api_key_budget_metric",
        "The same of a key; both labels have its id.",
        "gauge",
        "budget_left",
        ("hashed_api_key", "api_key_alias"),
        in_state("scope", "key", named_of),
        joined=min,
    ),
    litellm("in_flight_requests", "Answers in progress.", "gauge", "in_flight", (), lambda _: ()),
)
