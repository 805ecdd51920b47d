"""The names of vLLM and LiteLLM: a real Prometheus scrapes them, and their values are ours."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from processes import Serving, mocking, serving
from prometheus import Prometheus, needs_prometheus, scraping

KEY = "sw-operator-of-tests"
AS_OPERATOR = {"Authorization": f"Bearer {KEY}"}
VLLM = (
    *("num_requests_running", "num_requests_waiting", "time_to_first_token_seconds"),
    *("inter_token_latency_seconds", "time_per_output_token_seconds"),
    *("request_time_per_output_token_seconds", "e2e_request_latency_seconds"),
    *("prompt_tokens_total", "generation_tokens_total", "request_queue_time_seconds"),
    *("request_success_total", "request_prompt_tokens", "request_generation_tokens"),
)
# What not every model or server of a model says
SOMETIMES = (
    *("vllm:kv_cache_usage_perc", "vllm:prefix_cache_queries_total"),
    *("vllm:prefix_cache_hits_total", "vllm:num_preemptions_total"),
    *("litellm_input_cached_tokens_metric_total", "litellm_output_reasoning_tokens_metric_total"),
)
LITELLM = (
    *("proxy_total_requests_metric_total", "proxy_failed_requests_metric_total"),
    *("requests_metric_total", "request_total_latency_metric", "llm_api_latency_metric"),
    *("llm_api_time_to_first_token_metric", "deployment_latency_per_output_token"),
    *("spend_metric_total", "total_tokens_metric_total", "input_tokens_metric_total"),
    "output_tokens_metric_total",
    *("deployment_state", "deployment_cooled_down_total", "deployment_total_requests_total"),
    *("deployment_success_responses_total", "deployment_failure_responses_total"),
    *("cache_hits_metric_total", "cache_misses_metric_total", "cached_tokens_metric_total"),
    *("request_queue_time_seconds", "in_flight_requests"),
    *("remaining_team_budget_metric", "remaining_api_key_budget_metric"),
)
HISTOGRAMS = ("_seconds", "_latency_metric", "_token_metric", "_per_output_token", "_tokens")


def chat(server: Serving, model: str, **more: Any) -> None:
    body = {"messages": [{"role": "user", "content": "Hello"}], **more}
    server.post("/v1/chat/completions", {"model": model, **body}, headers=AS_OPERATOR)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """A server with both products' names, and with traffic behind it."""
    folder = tmp_path_factory.mktemp("compatible")
    with mocking(tokens=6, tpot_s=0.001) as mock:
        one = {"base_url": mock.url, "price": {"input": 1, "output": 2}}
        settings = {
            "models": {
                "m": {**one, "at_once": 4},
                "fault-status-500": one,
                "kept": {**one, "name": "m", "cache": "1h"},
            },
            "routes": {"main": ["fault-status-500", "m"]},
            "keys": [{"key": KEY, "admin": True, "limits": {"usd_per_day": 5, "usd_per_month": 9}}],
            "tenants": {"default": {"limits": {"usd_per_month": 70}}},
            "metrics": {"compatible": ["vllm", "litellm"]},
        }
        with serving(folder, settings=settings) as server:
            for _ in range(3):
                chat(server, "m", stream=True)
                chat(server, "kept")
                chat(server, "main")
                chat(server, "fault-status-500")
            yield server


@pytest.fixture(scope="module")
def prometheus(server: Serving, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    with scraping(tmp_path_factory.mktemp("prometheus"), server, KEY) as prometheus:
        prometheus.wait_for_scrapes(2)
        yield prometheus


def queries(name: str) -> list[str]:
    """Return what dashboards ask of a metric, by its kind."""
    if name.endswith("_total"):
        return [f"sum(rate({name}[1m])) >= 0", f"sum by (model_name, model) ({name})"]
    if name.endswith(HISTOGRAMS):
        return [
            f"histogram_quantile(0.95, sum by (le) ({name}_bucket))",
            f"sum({name}_sum) / sum({name}_count)",
        ]
    return [f"sum({name})"]


def names() -> list[str]:
    return [f"vllm:{name}" for name in VLLM] + [f"litellm_{name}" for name in LITELLM]


@needs_prometheus
def test_each_name_has_data_in_prometheus(prometheus: Prometheus) -> None:
    empty = [each for name in names() for each in queries(name) if not prometheus.query(each)]
    assert empty == []


def samples(server: Serving) -> dict[str, float]:
    """Return the sum over all labels of each sample's name."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(server.get("/metrics", headers=AS_OPERATOR).text):
        for sample in family.samples:
            found[sample.name] = found.get(sample.name, 0.0) + sample.value
    return found


def test_the_names_count_what_ours_count(server: Serving) -> None:
    found = samples(server)
    ttft = "gen_ai_server_time_to_first_token_seconds"
    for ours, theirs in (
        (f"{ttft}_count", "vllm:time_to_first_token_seconds_count"),
        (f"{ttft}_sum", "vllm:time_to_first_token_seconds_sum"),
        (f"{ttft}_bucket", "litellm_llm_api_time_to_first_token_metric_bucket"),
        ("slipway_answers_total", "litellm_proxy_total_requests_metric_total"),
        ("slipway_attempts_total", "litellm_deployment_total_requests_total"),
        ("slipway_cost_usd_total", "litellm_spend_metric_total"),
        ("gen_ai_client_token_usage_sum", "litellm_total_tokens_metric_total"),
    ):
        assert found[theirs] == pytest.approx(found[ours]), theirs
    assert found["litellm_cache_hits_metric_total"] == 2
    assert found["litellm_cache_misses_metric_total"] == 1
    assert found["vllm:request_success_total"] == 7  # of `m`, `main` and the first of `kept`
    assert found["litellm_proxy_failed_requests_metric_total"] == 3


def labels_of(server: Serving, name: str) -> list[dict[str, str]]:
    text = server.get("/metrics", headers=AS_OPERATOR).text
    return [
        sample.labels
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name
    ]


def test_the_labels_are_those_of_the_products(server: Serving) -> None:
    assert {"model_name": "m", "engine": "0", "finished_reason": "stop"} in labels_of(
        server, "vllm:request_success_total"
    )
    failed = labels_of(server, "litellm_proxy_failed_requests_metric_total")
    assert failed == [
        {
            "requested_model": "fault-status-500",
            "model_id": "",  # no model answered
            "exception_status": "502",
            "exception_class": "ProviderDown",
        }
    ]
    assert {"litellm_model_name": "m", "model_id": "m"} in labels_of(
        server, "litellm_deployment_state"
    )


def test_what_is_left_of_a_budget_is_the_smaller_of_day_and_month(server: Serving) -> None:
    found = samples(server)
    assert 4.9 < found["litellm_remaining_api_key_budget_metric"] < 5
    assert 69.9 < found["litellm_remaining_team_budget_metric"] < 70


def test_names_that_only_some_models_report_are_announced(server: Serving) -> None:
    text = server.get("/metrics", headers=AS_OPERATOR).text
    assert [name for name in SOMETIMES if f"# TYPE {name} " not in text] == []


def test_without_the_setting_no_such_name_is_written(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("plain")
    with mocking() as mock:
        settings = {"models": {"m": {"base_url": mock.url}}}
        with serving(folder, settings=settings) as server:
            server.chat("m")
            text = server.get("/metrics").text
    assert "slipway_answers_total" in text
    assert "vllm:" not in text
    assert "litellm_" not in text


def test_a_key_sees_the_names_of_its_own_models(server: Serving) -> None:
    made = server.post("/v1/keys", {"name": "k", "models": ["kept"]}, headers=AS_OPERATOR)
    headers = {"Authorization": f"Bearer {json.loads(made.text)['key']}"}
    text = server.get("/metrics", headers=headers).text
    assert 'vllm:e2e_request_latency_seconds_count{engine="0",model_name="kept"}' in text
    assert 'model_name="m"' not in text
