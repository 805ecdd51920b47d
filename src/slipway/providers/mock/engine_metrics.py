"""The metrics that a model server publishes about itself, as vLLM and llama.cpp write them.

The mock answers any number of requests at a time. What it publishes is that of a server with PLACES:
further requests count as waiting. A prompt that was asked before is found in the prefix cache.
"""

from collections.abc import Callable

from slipway.providers.mock.invoice import CallBill

PLACES = 8
REMEMBERED = 1000  # prompts in the prefix cache


class EngineCounts:
    """What was read and written until now."""

    def __init__(self) -> None:
        self.prompt_tokens = self.output_tokens = self.hits = 0
        self._prompts: dict[str, None] = {}

    def asked(self, prompt: str, tokens: int) -> None:
        """Count a request; `prompt` identifies what was asked."""
        self.prompt_tokens += tokens
        if prompt in self._prompts:
            self.hits += tokens
        self._prompts[prompt] = None
        if len(self._prompts) > REMEMBERED:
            del self._prompts[next(iter(self._prompts))]

    def wrote(self, _: CallBill, tokens: int) -> None:
        """Count the tokens that were sent for a request."""
        self.output_tokens += tokens


def vllm(counts: EngineCounts, busy: int, model: str) -> str:
    """Write what vLLM does; names as in its documentation of version 0.10."""
    of = f'{{engine="0",model_name="{model}"}}'
    running = min(busy, PLACES)
    rows = (
        ("vllm:num_requests_running", "gauge", running),
        ("vllm:num_requests_waiting", "gauge", busy - running),
        ("vllm:kv_cache_usage_perc", "gauge", running / PLACES),
        ("vllm:prefix_cache_queries_total", "counter", counts.prompt_tokens),
        ("vllm:prefix_cache_hits_total", "counter", counts.hits),
        ("vllm:num_preemptions_total", "counter", 0),
        ("vllm:prompt_tokens_total", "counter", counts.prompt_tokens),
        ("vllm:generation_tokens_total", "counter", counts.output_tokens),
    )
    return "".join(
        f"# HELP {name} {name}\n# TYPE {name.removesuffix('_total')} {kind}\n{name}{of} {value}\n"
        for name, kind, value in rows
    )


def llama_cpp(counts: EngineCounts, busy: int, _: str) -> str:
    """Write what llama.cpp's server does with `--metrics`. It has no count of preemptions."""
    running = min(busy, PLACES)
    rows = (
        ("llamacpp:prompt_tokens_total", "counter", counts.prompt_tokens - counts.hits),
        ("llamacpp:tokens_predicted_total", "counter", counts.output_tokens),
        ("llamacpp:kv_cache_usage_ratio", "gauge", running / PLACES),
        ("llamacpp:requests_processing", "gauge", running),
        ("llamacpp:requests_deferred", "gauge", busy - running),
    )
    return "".join(
        f"# HELP {name} {name}\n# TYPE {name} {kind}\n{name} {value}\n"
        for name, kind, value in rows
    )


ENGINES: dict[str, Callable[[EngineCounts, int, str], str]] = {
    "vllm": vllm,
    "llama.cpp": llama_cpp,
}
