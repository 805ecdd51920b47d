"""Metrics as a scraper reads them: what they count, how many series there are, what is read of
documents, budgets, GPUs and the servers of models.
"""

import re
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from processes import Serving, free_port, mocking, models, serving
from several_workers import total
from slipway import __version__
from slipway.providers.mock import MockServer
from waiting import until

TEA = "# Tea\n\n## Green tea\n\nGreen tea is brewed at 80 degrees for two minutes.\n"
KEY, APP_KEY, SPENDER = "the-operator-key", "the-key-of-an-app", "the-key-that-spends"
AUTH = {"authorization": f"Bearer {KEY}"}
APPS = 60


@dataclass
class Site:
    """A server with a key, documents, budgets and models whose servers publish metrics."""

    server: Serving
    mocks: dict[str, MockServer]

    def metrics(self, key: str = KEY) -> str:
        return self.server.get("/metrics", headers={"authorization": f"Bearer {key}"}).text

    def value(self, start: str) -> float:
        """Return the sum of all samples whose line starts so; there must be one."""
        text = self.metrics()
        assert f"\n{start}" in text, (start, text)
        return total(text, start)


def chat(site: Site, model: str, key: str = KEY, **more: Any) -> int:
    body = {"model": model, "messages": [{"role": "user", "content": "Hello"}], **more}
    headers = {"authorization": f"Bearer {key}"}
    return site.server.post("/v1/chat/completions", body, headers=headers).status_code


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("metrics")
    documents = folder / "tea"
    documents.mkdir()
    (documents / "tea.md").write_text(TEA)
    (documents / "broken.pdf").write_bytes(b"%PDF-1.4 nothing")
    with ExitStack() as stack:
        mocks = {
            "vllm": stack.enter_context(mocking(metrics="vllm")),
            "llama": stack.enter_context(mocking(metrics="llama.cpp", api_key="llama-key")),
            "plain": stack.enter_context(mocking(tokens=10)),
            "slow": stack.enter_context(mocking(ttft_s=0.3)),
        }
        plain, price = mocks["plain"].url, {"input": 1, "output": 1}
        dead = f"http://127.0.0.1:{free_port()}"
        settings = {
            "models": {
                "on-vllm": {"base_url": mocks["vllm"].url, "metrics": True, "price": price},
                "on-llama": {
                    "base_url": mocks["llama"].url,
                    "api_key": "llama-key",
                    "metrics": mocks["llama"].url.replace("/v1", "/metrics"),
                },
                "on-dead": {"base_url": plain, "metrics": f"{dead}/metrics"},
                "on-html": {"base_url": plain, "metrics": f"{plain}/models"},
                "plain": {"base_url": plain, "price": price},
                "narrow": {"base_url": mocks["slow"].url, "at_once": 1, "price": price},
                "broken": {"extends": "plain", "name": "fault-status-500", "retries": 1},
                "again": {"extends": "broken", "name": "fault-status-500"},
                "spare": {"extends": "plain", "name": "mock-model"},
                **{f"model-{i}": {"extends": "plain", "name": "mock-model"} for i in range(APPS)},
            },
            "routes": {
                "main": ["broken", {"model": "spare", "role": "twin"}],
                "weaker": ["again", {"model": "spare", "role": "smaller"}],
            },
            "tenants": {
                f"tenant-{i}": {"limits": {"usd_per_day": 5, "usd_per_month": 50}}
                for i in range(1000)
            },
            "keys": [
                {"key": KEY, "tenant": "tenant-0", "admin": True},
                {"key": APP_KEY, "tenant": "tenant-1", "apps": ["plain"]},
                {
                    "key": SPENDER,
                    "tenant": "tenant-2",
                    "limits": {"usd_per_day": "0.0001", "at_limit": "refuse"},
                },
            ],
            "apps": {"tea": {"knowledge": str(documents)}},
            "metrics": {"series": 2000},
            "embedding": "none",
            "slo": {"ttft_p95": "3s", "tpot_p95": "120ms"},
        }
        server = stack.enter_context(serving(folder, settings=settings))
        until(lambda: server.get("/readyz", headers=AUTH).json()["knowledge"]["tea"]["ready"])
        yield Site(server, mocks)


def test_a_call_counts_once_with_the_attributes_of_opentelemetry(site: Site) -> None:
    assert chat(site, "spare", stream=True) == 200
    text = site.metrics()
    call = (
        'gen_ai_client_operation_duration_seconds_count{error_type="",gen_ai_operation_name="chat",'
        'gen_ai_provider_name="openai",gen_ai_request_model="spare"} 1.0'
    )
    assert call in text
    for kind, tokens in (("input", 2), ("output", 10)):
        assert total(text, token_line("spare", kind)) == tokens
    edges = re.findall(r'time_to_first_token_seconds_bucket\{[^}]*le="([^"]+)"', text)
    assert {"3.0", "20.0", "40.0", "80.0"} <= set(edges)
    assert "time_per_output_token_seconds_bucket" in text
    assert ',le="0.12"}' in text
    assert f'slipway_build_info{{version="{__version__}"}} 1.0' in text
    assert site.value("process_start_time_seconds ") > 1.7e9


def token_line(app: str, kind: str) -> str:
    return (
        'gen_ai_client_token_usage_sum{gen_ai_operation_name="chat",gen_ai_provider_name="openai",'
        f'gen_ai_request_model="{app}",gen_ai_response_model="{app}",gen_ai_token_type="{kind}"}}'
    )


def test_retries_failovers_and_opened_breakers_are_counted(site: Site) -> None:
    for _ in range(3):
        assert chat(site, "main") == 200
    text = site.metrics()
    assert total(text, 'slipway_attempts_total{error="provider_down",model="broken"') == 3
    assert total(text, 'slipway_breaker_openings_total{model="broken"}') == 1
    assert 'slipway_failovers_total{how="whole",model="spare",role="twin"} 3.0' in text
    assert 'slipway_model_state{model="broken",state="open"} 1.0' in text
    assert 'slipway_model_state{model="broken",state="closed"} 0.0' in text
    assert chat(site, "weaker") == 200
    text = site.metrics()
    assert 'slipway_retries_total{model="again"} 1.0' in text
    assert 'slipway_failovers_total{how="whole",model="spare",role="smaller"} 1.0' in text


def test_calls_that_wait_in_a_queue_show_their_number_and_the_age_of_the_oldest(site: Site) -> None:
    with ThreadPoolExecutor(3) as pool:
        asked = [pool.submit(chat, site, "narrow") for _ in range(3)]
        until(lambda: site.value('slipway_queue_oldest_seconds{model="narrow"}') > 0)
        assert [each.result() for each in asked] == [200] * 3
    text = site.metrics()
    assert total(text, 'slipway_queue_oldest_seconds{model="narrow"}') == 0
    assert total(text, 'slipway_queue_wait_seconds_count{model="narrow"}') == 3
    assert total(text, 'slipway_queue_wait_seconds_sum{model="narrow"}') >= 0.3
    assert total(text, 'slipway_queue_wait_seconds_bucket{le="0.01",model="narrow"}') == 1


def test_documents_are_counted_with_their_age(site: Site) -> None:
    text = site.metrics()
    assert 'slipway_knowledge_documents{app="tea",state="read"} 1.0' in text
    assert 'slipway_knowledge_documents{app="tea",state="failed"} 1.0' in text
    assert total(text, 'slipway_knowledge_passages{app="tea"}') >= 1
    for age in ("check", "change"):
        assert 0 <= site.value(f'slipway_knowledge_{age}_age_seconds{{app="tea"}}') < 120


def test_budgets_show_the_share_that_is_spent(site: Site) -> None:
    until(lambda: chat(site, "plain", SPENDER, max_tokens=10) == 402)
    until(lambda: 'used="over_80"' in site.metrics() or 'used="spent"' in site.metrics())
    text = site.metrics()
    line = re.search(
        r'slipway_budget_used_ratio\{name="(\w+)",period="day",scope="key"\} (.+)', text
    )
    assert line is not None, text
    assert float(line[2]) > 0.5
    assert SPENDER not in text
    budgets = total(text, "slipway_budgets{")
    assert budgets == 2001


def test_a_limited_key_sees_no_budgets_and_no_counts_of_documents(site: Site) -> None:
    assert chat(site, "plain", APP_KEY) == 200
    text = site.metrics(APP_KEY)
    assert 'model="plain"' in text
    for hidden in ("slipway_budget", "slipway_knowledge", "slipway_cache_entries", 'model="spare"'):
        assert not re.search(rf"^{hidden}.*[^#]", text, re.MULTILINE) or hidden not in values(text)


def values(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if not line.startswith("#"))


def test_the_servers_of_models_show_their_own_numbers(site: Site) -> None:
    until(lambda: "slipway_engine_tokens_total{" in site.metrics())
    text = site.metrics()
    for model in ("on-vllm", "on-llama"):
        assert f'slipway_engine_requests{{model="{model}",state="running"}} 0.0' in text
        assert f'slipway_engine_scrapes_total{{model="{model}",outcome="ok"}}' in text
        assert 0 <= total(text, f'slipway_engine_scrape_age_seconds{{model="{model}"}}') < 60
    assert 'slipway_engine_preemptions_total{model="on-vllm"} 0.0' in text
    assert 'slipway_engine_scrapes_total{model="on-dead",outcome="unreachable"}' in text
    assert 'slipway_engine_scrapes_total{model="on-html",outcome="unreadable"}' in text
    before = site.value('slipway_engine_scrape_age_seconds{model="on-dead"}')
    until(lambda: site.value('slipway_engine_scrape_age_seconds{model="on-dead"}') > before)
    assert 'slipway_engine_requests{model="on-dead"' not in text


def test_there_are_at_most_2000_series_whatever_clients_and_settings_name(site: Site) -> None:
    names = [f"model-{i}" for i in range(APPS)]
    with ThreadPoolExecutor(8) as pool:
        answered = list(pool.map(lambda name: chat(site, name, stream=True), names))
        assert answered == [200] * APPS
        unknown = pool.map(lambda i: chat(site, f"sent-by-a-client-{i}"), range(1000))
        assert set(unknown) == {404}
    text = site.metrics()
    series = values(text).splitlines()
    assert len(series) <= 2000, len(series)
    assert "sent-by-a-client" not in text
    assert 'gen_ai_request_model="other"' in text
    assert total(text, "slipway_series_other_total{") > 0
    assert "metrics.series" in site.server.log
    # whatever is counted as `other`, the sums stay right
    asked = total(text, "slipway_answers_total{")
    assert total(text, "gen_ai_server_request_duration_seconds_count{") == asked
    assert total(text, "slipway_attempts_total{") == total(
        text, "gen_ai_client_operation_duration_seconds_count{"
    )


GPU = '''
"""Answers like NVIDIA's module on a machine with two GPUs, of which the second is divided."""
from types import SimpleNamespace

class NVMLError(Exception):
    pass

def nvmlInit():
    print("nvml opened", flush=True)

def nvmlShutdown():
    print("nvml closed", flush=True)

def nvmlDeviceGetCount():
    return 2

def nvmlDeviceGetHandleByIndex(index):
    return index

def nvmlDeviceGetUtilizationRates(handle):
    if handle == 1:
        raise NVMLError("Not Supported")
    return SimpleNamespace(gpu=37, memory=12)

def nvmlDeviceGetMemoryInfo(handle):
    return SimpleNamespace(total=80 * 2**30, used=(handle + 1) * 2**30, free=0)
'''


BODY = b'{"model": "m", "messages": [{"role": "user", "content": "Hello"}]}'
ASKED = b"POST /v1/chat/completions HTTP/1.1\r\nHost: mock\r\nContent-Length: %d\r\n\r\n%b" % (
    len(BODY),
    BODY,
)


def test_gpus_are_read_through_nvml_and_a_full_server_of_a_model_shows_its_queue(
    tmp_path: Path,
) -> None:
    (tmp_path / "with").mkdir()
    (tmp_path / "with" / "pynvml.py").write_text(GPU)
    (tmp_path / "without").mkdir()
    (tmp_path / "without" / "pynvml.py").write_text("raise ImportError('not installed')")
    found = {}
    with mocking(metrics="vllm", ttft_s=60) as mock, ExitStack() as stack:
        for _ in range(10):  # two more than the mock has places
            line = stack.enter_context(socket.create_connection(("127.0.0.1", mock.port)))
            line.sendall(ASKED)
        until(lambda: len(mock.requests) == 10)
        settings = {**models(mock.url, "m", metrics=True), "metrics": {"gpu": True}}
        for name in ("with", "without"):
            env = {"PYTHONPATH": str(tmp_path / name)}
            with serving(tmp_path, settings=settings, env=env) as server:
                until(partial(shows, server, "slipway_engine_requests{"))
                found[name] = server.get("/metrics").text, server.log
    text, _ = found["with"]
    assert 'slipway_gpu_use_ratio{gpu="0"} 0.37' in text
    assert 'slipway_gpu_use_ratio{gpu="1"}' not in text
    assert total(text, 'slipway_gpu_memory_used_bytes{gpu="1"}') == 2 * 2**30
    assert total(text, 'slipway_gpu_memory_bytes{gpu="0"}') == 80 * 2**30
    assert 'slipway_engine_requests{model="m",state="running"} 8.0' in text
    assert 'slipway_engine_requests{model="m",state="waiting"} 2.0' in text
    assert 'slipway_engine_kv_cache_use_ratio{model="m"} 1.0' in text
    for outcome, tokens in (("queried", 20), ("hit", 18)):
        of = f'slipway_engine_prefix_cache_tokens_total{{model="m",outcome="{outcome}"}}'
        assert total(text, of) == tokens
    text, log = found["without"]
    assert "slipway_gpu" not in text
    assert log.count("pip install 'slipway[gpu]'") == 1


def shows(server: Serving, start: str) -> bool:
    return start in server.get("/metrics").text
