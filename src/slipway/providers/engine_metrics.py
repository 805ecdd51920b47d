"""Read the metrics that a model's server publishes about itself: vLLM's and llama.cpp's.

Only the numbers of the table below are used, and no label: what a server writes beside them is its
own business. Names are those of vLLM 0.6 to 0.10 and of llama.cpp's server with `--metrics`.
"""

import asyncio
import math
import time
from typing import Literal
from urllib.parse import urlsplit

import msgspec

import slipway
from slipway.errors import ProviderError, ProviderSlow
from slipway.providers.client import Client, head_of
from slipway.providers.openai import connect
from slipway.settings import ModelSettings

WITHIN_S = 5.0  # a whole read
MOST_BYTES = 4 * 1024 * 1024  # vLLM publishes about 100 KiB
Outcome = Literal["ok", "unreachable", "slow", "refused", "too_large", "unreadable"]
Key = tuple[str, tuple[str, ...]]  # a metric of ours, and its labels after the model
RUNNING, WAITING = ("engine_requests", ("running",)), ("engine_requests", ("waiting",))
KV_CACHE = ("engine_kv_cache", ())
QUERIED, HIT = ("engine_prefix_tokens", ("queried",)), ("engine_prefix_tokens", ("hit",))
PREEMPTIONS = ("engine_preemptions", ())
INPUT, OUTPUT = ("engine_tokens", ("input",)), ("engine_tokens", ("output",))
KNOWN: dict[str, Key] = {
    "vllm:num_requests_running": RUNNING,
    "vllm:num_requests_waiting": WAITING,
    "vllm:kv_cache_usage_perc": KV_CACHE,
    "vllm:gpu_cache_usage_perc": KV_CACHE,
    "vllm:prefix_cache_queries_total": QUERIED,
    "vllm:prefix_cache_hits_total": HIT,
    "vllm:gpu_prefix_cache_queries_total": QUERIED,
    "vllm:gpu_prefix_cache_hits_total": HIT,
    "vllm:num_preemptions_total": PREEMPTIONS,
    "vllm:prompt_tokens_total": INPUT,
    "vllm:generation_tokens_total": OUTPUT,
    "llamacpp:requests_processing": RUNNING,
    "llamacpp:requests_deferred": WAITING,
    "llamacpp:kv_cache_usage_ratio": KV_CACHE,
    "llamacpp:prompt_tokens_total": INPUT,
    "llamacpp:tokens_predicted_total": OUTPUT,
}
PREFIXES = ("vllm:", "llamacpp:")
SHARES = frozenset({KV_CACHE})  # of several engines in one server, the fullest counts
Numbers = dict[Key, float]


class EngineAnswer(msgspec.Struct, frozen=True):
    """What a server said of itself; no numbers unless the outcome is `ok`."""

    outcome: Outcome
    numbers: Numbers = {}


class EngineReader:
    """Reads the metrics of one model's server, again and again."""

    def __init__(self, model: ModelSettings) -> None:
        """Prepare the request. The model's key is sent only to the server that has it already."""
        url = metrics_url(model)
        own = urlsplit(model.base_url)[:2] == urlsplit(url)[:2]
        headers = {
            "User-Agent": f"slipway/{slipway.__version__}",
            "Accept": "text/plain",
            "Accept-Encoding": "identity",
        }
        if own and model.api_key:
            headers["Authorization"] = f"Bearer {model.api_key}"
        self.head = head_of("GET", url, {**headers, **(model.headers if own else {})})
        self._model = msgspec.structs.replace(model, base_url=url)
        self._client: Client | None = None

    async def read(self) -> EngineAnswer:
        """Return what the server says now; takes at most WITHIN_S."""
        if self._client is None:
            self._client = connect(self._model, "The model's server")
        try:
            async with asyncio.timeout(WITHIN_S):
                return await self._read(self._client)
        except (TimeoutError, ProviderSlow):
            return EngineAnswer("slow")
        except ProviderError:
            return EngineAnswer("unreachable")

    async def _read(self, client: Client) -> EngineAnswer:
        reply = await client.send(self.head, b"", time.monotonic() + WITHIN_S)
        try:
            if reply.status != 200:
                return EngineAnswer("refused")
            body = bytearray()
            while chunk := await reply.chunk():
                body += chunk
                if len(body) > MOST_BYTES:
                    return EngineAnswer("too_large")
        finally:
            reply.close()
        numbers = await asyncio.to_thread(numbers_in, bytes(body))
        return EngineAnswer("ok", numbers) if numbers else EngineAnswer("unreadable")

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()


def metrics_url(model: ModelSettings) -> str:
    """Return where the model's server publishes its metrics."""
    if isinstance(model.metrics, str):
        return model.metrics
    scheme, place = urlsplit(model.base_url)[:2]
    return f"{scheme}://{place}/metrics"


def numbers_in(body: bytes) -> Numbers:
    """Return the numbers that are known, added up over all labels; none if the text is no
    exposition of metrics.
    """
    from prometheus_client.parser import text_string_to_metric_families

    lines = body.decode("utf-8", "replace").splitlines(keepends=True)
    text = "".join(line for line in lines if line.startswith(PREFIXES))
    found: Numbers = {}
    try:
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                key = KNOWN.get(sample.name)
                if key is None or not math.isfinite(sample.value) or sample.value < 0:
                    continue
                before = found.get(key, 0.0)
                value = float(sample.value)
                found[key] = max(before, value) if key in SHARES else before + value
    except (ValueError, KeyError, IndexError, AttributeError):  # the parser's ways to say no
        return {}
    return found
