"""The names of vLLM's metrics, and which of ours they are computed from."""

from slipway.telemetry.aliases import Alias, Amount, Kind, Named, Pick, in_state, with_type
from slipway.telemetry.definitions import Labels

ABORTED = frozenset({"cancelled", "client_gone"})
BY_MODEL = frozenset({"model", "smaller"})  # what answered, if it was a model


def of_model(row: Named) -> Labels | None:
    """Return vLLM's labels for an answer: the model that answered, and the engine."""
    name = row.get("gen_ai_response_model") or row.get("model") or ""
    return (name, "0") if name and not row.get("error_type") else None


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
