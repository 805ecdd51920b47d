"""Write our metrics under the names of vLLM and LiteLLM as well, so that dashboards and alerts made
for those products work here. `metrics: {compatible: [vllm, litellm]}` switches it on.

Nothing is counted for it: each name is computed from our own rows when it is scraped. Labels have
the names that those products give them; a label that needs something which Slipway does not put
into metrics, such as a user or a key, is left out, which PromQL treats as an empty value. The edges
of buckets are ours: `histogram_quantile` works with any. docs/metrics.md lists what is left out.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from itertools import accumulate
from operator import add
from typing import Any, Literal

from slipway.errors import SlipwayError, all_errors
from slipway.telemetry.definitions import METRICS, Labels
from slipway.telemetry.exposition import Sums, visible
from slipway.types import Record

Product = Literal["vllm", "litellm"]
Named = Mapping[str, str]  # the labels of one of our rows, by name
Pick = Callable[[Named], Labels | None]  # the values of the labels there; None leaves the row out
Amount = Literal["row", "sum", "value"]
Kind = Literal["counter", "gauge", "histogram"]

ERRORS: dict[str, type[SlipwayError]] = {error.code: error for error in all_errors()}
CLIENT_GONE = 499  # as nginx says it
ABORTED = frozenset({"cancelled", "client_gone"})
BY_MODEL = frozenset({"model", "smaller"})  # what answered, if it was a model
HITS = frozenset({"hit", "semantic", "stale", "flight"})
SEVERITY = {"closed": 0, "half-open": 1, "open": 2}


class Alias(Record, frozen=True, kw_only=True):
    """A metric under a name of another product.

    `source` is a key of METRICS. `amount` is what is written of a row: the whole histogram, or a
    counter or gauge from the `sum` of a histogram or from the `value` of a row. `scaled` replaces
    the value of a row by one that depends on its labels, too.
    """

    name: str
    about: str
    kind: Kind
    source: str
    labels: Labels
    pick: Pick
    amount: Amount = "value"
    scaled: Callable[[Named, float], float] | None = None


# vLLM


def of_model(row: Named) -> Labels | None:
    """Return vLLM's labels for an answer: the model that answered, and the engine."""
    name = row.get("gen_ai_response_model") or row.get("model") or ""
    return (name, "0") if name and not row.get("error_type") else None


def with_type(kind: str, pick: Pick) -> Pick:
    """Return a pick of the rows about one type of tokens."""
    return lambda row: pick(row) if row["gen_ai_token_type"] == kind else None


def in_state(label: str, value: str, pick: Pick) -> Pick:
    """Return a pick of the rows with this value of a label."""
    return lambda row: pick(row) if row[label] == value else None


def success_of(row: Named) -> Labels | None:
    """Return the labels of a finished request. Why a model stopped is not counted by us: `stop` is
    any whole answer, `abort` one that the client did not wait for.
    """
    if row["error"] in ABORTED and row["model"]:
        return (row["model"], "0", "abort")
    if row["error"] or row["served_by"] not in BY_MODEL:
        return None
    return (row["model"], "0", "stop")


ENGINE = ("model_name", "engine")


def vllm(
    name: str,
    about: str,
    kind: Kind,
    source: str,
    pick: Pick = of_model,
    amount: Amount | None = None,
    labels: Labels = ENGINE,
) -> Alias:
    return Alias(
        name=f"vllm:{name}",
        about=about,
        kind=kind,
        source=source,
        labels=labels,
        pick=pick,
        amount=amount or ("row" if kind == "histogram" else "value"),
    )


VLLM = (
    vllm(
        "num_requests_running",
        "Calls that a model works on.",
        "gauge",
        "model_calls",
        in_state("state", "running", of_model),
    ),
    vllm(
        "num_requests_waiting",
        "Calls that wait for a model.",
        "gauge",
        "model_calls",
        in_state("state", "waiting", of_model),
    ),
    vllm(
        "kv_cache_usage_perc",
        "Share of the memory for keys and values in use, if the model's server says it.",
        "gauge",
        "engine_kv_cache",
    ),
    vllm(
        "num_preemptions", "Requests that were stopped for memory.", "counter", "engine_preemptions"
    ),
    vllm(
        "prefix_cache_queries",
        "Prompt tokens looked up in the prefix cache.",
        "counter",
        "engine_prefix_tokens",
        in_state("outcome", "queried", of_model),
    ),
    vllm(
        "prefix_cache_hits",
        "Prompt tokens found in the prefix cache.",
        "counter",
        "engine_prefix_tokens",
        in_state("outcome", "hit", of_model),
    ),
    vllm("time_to_first_token_seconds", "Time to the first token.", "histogram", "ttft"),
    *(
        vllm(name, "Time per output token after the first, mean of an answer.", "histogram", "tpot")
        for name in (
            "inter_token_latency_seconds",
            "time_per_output_token_seconds",
            "request_time_per_output_token_seconds",
        )
    ),
    vllm("e2e_request_latency_seconds", "Time of whole answers.", "histogram", "duration"),
    vllm("request_queue_time_seconds", "Time in the queue of a model.", "histogram", "queue_wait"),
    *(
        vllm(name, about, "counter", "tokens", with_type(token, of_model), "sum")
        for name, about, token in (
            ("prompt_tokens", "Tokens read.", "input"),
            ("generation_tokens", "Tokens written.", "output"),
        )
    ),
    *(
        vllm(name, about, "histogram", "tokens", with_type(token, of_model))
        for name, about, token in (
            ("request_prompt_tokens", "Tokens read, by answer.", "input"),
            ("request_generation_tokens", "Tokens written, by answer.", "output"),
        )
    ),
    vllm(
        "request_success",
        "Finished requests.",
        "counter",
        "answers",
        success_of,
        labels=(*ENGINE, "finished_reason"),
    ),
)


# LiteLLM


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
    litellm("in_flight_requests", "Answers in progress.", "gauge", "in_flight", (), lambda _: ()),
)
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
        found[there] = numbers if known is None else list(map(add, known, numbers))
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
