"""Write tests/data/price_cases.jsonl: what providers report of a call, and what they charge for it.

    python tests/price_cases.py

The prices are facts of the providers' pages, as two price lists have them that agree (LiteLLM
1.109.1 and genai-prices 0.2.3, both MIT, read on 22 November 2026; `one` marks those that only one
list has). The amounts are computed here with integers from the counts that a case is made of, and
from nothing of Slipway: each count times its price, in units of 10^-12 USD.
"""

import json
import random
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("data") / "price_cases.jsonl"
OPENAI = "https://developers.openai.com/api/docs/pricing"
CLAUDE = "https://platform.claude.com/docs/en/about-claude/pricing"
GEMINI = "https://ai.google.dev/gemini-api/docs/pricing"
QWEN = "https://www.alibabacloud.com/help/en/model-studio/models"
# model -> address, dialect, USD per million tokens, tiers {above: prices}, page
Facts = dict[str, Any]


def fact(at: str, says: str, page: str, tiers: Any = (), **prices: str) -> Facts:
    return {"at": at, "says": says, "page": page, "tiers": dict(tiers), "prices": prices}


def openai(**prices: str) -> Facts:
    return fact("https://api.openai.com/v1", "openai", OPENAI, batch="0.5", **prices)


MODELS: dict[str, Facts] = {
    "gpt-4o": openai(input="2.5", cached_input="1.25", output="10"),
    "gpt-4o-mini": openai(input="0.15", cached_input="0.075", output="0.6"),
    "gpt-4.1": openai(input="2", cached_input="0.5", output="8"),
    "gpt-5": openai(input="1.25", cached_input="0.125", output="10"),
    "gpt-5-mini": openai(input="0.25", cached_input="0.025", output="2"),
    "gpt-5-nano": openai(input="0.05", cached_input="0.005", output="0.4"),
    "o3": openai(input="2", cached_input="0.5", output="8"),
    "o4-mini": openai(input="1.1", cached_input="0.275", output="4.4"),
    "gpt-5.4": fact(
        *("https://api.openai.com/v1", "openai", OPENAI),
        {272_000: {"input": "5", "cached_input": "0.5", "output": "22.5"}},
        input="2.5",
        cached_input="0.25",
        output="15",
    ),
    "gpt-5.5": fact(
        *("https://api.openai.com/v1", "openai", OPENAI),
        {272_000: {"input": "10", "cached_input": "1", "output": "45"}},
        input="5",
        cached_input="0.5",
        output="30",
    ),
    "gpt-audio": fact(
        *("https://api.openai.com/v1", "audio", OPENAI),
        input="2.5",
        output="10",
        audio_input="32",
        audio_output="64",
    ),
    "gpt-image-1": fact(
        *("https://api.openai.com/v1", "image", OPENAI),
        input="5",
        cached_input="1.25",
        image_input="10",
        output="40",
        image_output="40",
    ),
    "claude-haiku-4-5": fact(
        *("https://api.anthropic.com/v1", "anthropic", CLAUDE),
        input="1",
        cached_input="0.1",
        cache_write="1.25",
        cache_write_1h="2",
        output="5",
        batch="0.5",
    ),
    "claude-opus-4-6": fact(
        *("https://api.anthropic.com/v1", "anthropic", CLAUDE),
        input="5",
        cached_input="0.5",
        cache_write="6.25",
        cache_write_1h="10",
        output="25",
        batch="0.5",
    ),
    "claude-haiku-5-5": fact(
        *("https://api.anthropic.com/v1", "anthropic", CLAUDE),
        {
            100_000: {
                "input": "0.5",
                "cached_input": "0.05",
                "cache_write": "0.625",
                "cache_write_1h": "1",
                "output": "2.5",
            }
        },
        input="0.1",
        cached_input="0.01",
        cache_write="0.125",
        cache_write_1h="0.2",
        output="0.5",
        batch="0.5",
    ),
    "gemini-2.5-pro": fact(
        *("https://generativelanguage.googleapis.com/v1beta/openai", "gemini", GEMINI),
        {200_000: {"input": "2.5", "cached_input": "0.25", "output": "15"}},
        input="1.25",
        cached_input="0.125",
        output="10",
    ),
    "gemini-2.5-flash": fact(
        *("https://generativelanguage.googleapis.com/v1beta/openai", "gemini", GEMINI),
        input="0.3",
        cached_input="0.03",
        output="2.5",
        audio_input="1",
    ),
    "gemini-2.5-flash-lite": fact(
        *("https://generativelanguage.googleapis.com/v1beta/openai", "gemini", GEMINI),
        input="0.1",
        cached_input="0.01",
        output="0.4",
        audio_input="0.3",
    ),
    "deepseek-chat": fact(  # one
        *("https://api.deepseek.com/v1", "deepseek"),
        "https://api-docs.deepseek.com/quick_start/pricing",
        input="0.28",
        cached_input="0.028",
        output="0.42",
    ),
    "deepseek-reasoner": fact(  # one
        *("https://api.deepseek.com/v1", "deepseek"),
        "https://api-docs.deepseek.com/quick_start/pricing",
        input="0.28",
        cached_input="0.028",
        output="0.42",
    ),
    "mistral-small-latest": fact(
        *("https://api.mistral.ai/v1", "openai"),
        "https://docs.mistral.ai/models/model-cards/mistral-small-4-0-26-03",
        input="0.15",
        cached_input="0.015",
        output="0.6",
    ),
    "mistral-large-latest": fact(  # one
        *("https://api.mistral.ai/v1", "openai"),
        "https://docs.mistral.ai/models/mistral-large-3-25-12",
        input="0.5",
        cached_input="0.05",
        output="1.5",
    ),
    "grok-3-mini": fact(  # one; not in the catalogue any more
        *("", "xai", "https://docs.x.ai/docs/models"),
        input="0.3",
        cached_input="0.075",
        output="0.5",
    ),
    "llama-3.3-70b-versatile": fact(  # one; not in the catalogue any more
        *("", "plain", "https://groq.com/pricing"), input="0.59", output="0.79"
    ),
    "kimi-k2-0905-preview": fact(  # one; not in the catalogue any more
        *("", "moonshot", "https://platform.moonshot.ai/docs/pricing/chat"),
        input="0.6",
        cached_input="0.15",
        output="2.5",
    ),
    "qwen-turbo": fact(  # one
        *("https://dashscope-intl.aliyuncs.com/compatible-mode/v1", "dashscope", QWEN),
        input="0.05",
        output="0.2",
        reasoning="0.5",
    ),
    "qwen-plus-latest": fact(  # one
        *("https://dashscope-intl.aliyuncs.com/compatible-mode/v1", "dashscope", QWEN),
        {256_000: {"input": "1.2", "output": "3.6", "reasoning": "12"}},
        input="0.4",
        output="1.2",
        reasoning="4",
    ),
    "qwen3-max": fact(  # one
        *("https://dashscope-intl.aliyuncs.com/compatible-mode/v1", "dashscope", QWEN),
        {32_000: {"input": "2.4", "output": "12"}, 128_000: {"input": "3", "output": "15"}},
        input="1.2",
        output="6",
    ),
    "qwen-flash": fact(  # one
        *("https://dashscope-intl.aliyuncs.com/compatible-mode/v1", "dashscope", QWEN),
        {256_000: {"input": "0.25", "output": "2"}},
        input="0.05",
        output="0.4",
    ),
    "sonar": fact(  # the fee for each request depends on the search; one of the three is set here
        *("", "plain", "https://docs.perplexity.ai/getting-started/pricing"),
        input="1",
        output="1",
        request="0.005",
    ),
}
DEFAULTS = {"cached_input": "input", "cache_write": "input", "image_input": "input"}
DEFAULTS["reasoning"] = "output"
# what a case counts -> its price
PRICED = {
    "fresh": "input",
    "cached": "cached_input",
    "written": "cache_write",
    "written_1h": "cache_write_1h",
    "audio_in": "audio_input",
    "image_in": "image_input",
    "text": "output",
    "thoughts": "reasoning",
    "audio_out": "audio_output",
    "image_out": "image_output",
}
INPUTS = ("fresh", "cached", "written", "written_1h", "audio_in", "image_in")
CAN = {  # which counts a dialect can tell apart
    "openai": ("fresh", "cached", "text", "thoughts"),
    "audio": ("fresh", "audio_in", "text", "audio_out"),
    "image": ("fresh", "image_in", "image_out"),
    "anthropic": ("fresh", "cached", "written", "written_1h", "text"),
    "gemini": ("fresh", "cached", "text", "thoughts"),
    "deepseek": ("fresh", "cached", "text", "thoughts"),
    "xai": ("fresh", "cached", "text", "thoughts"),
    "moonshot": ("fresh", "cached", "text"),
    "dashscope": ("fresh", "text", "thoughts"),
    "plain": ("fresh", "text"),
}


def picos(usd: str, shift: int) -> int:
    """Return a decimal text times 10^shift, which must be a whole number."""
    units, _, decimals = usd.partition(".")
    assert len(decimals) <= shift
    return int((units + decimals).ljust(len(units) + shift, "0"))


def price_of(prices: dict[str, str], name: str) -> str:
    return prices.get(name) or prices[DEFAULTS[name]]


def cost(facts: Facts, counts: dict[str, int], *, batch: bool) -> str:
    """Return what the provider charges, in USD."""
    sent = sum(counts[name] for name in INPUTS)
    prices = facts["prices"]
    for above, higher in sorted(facts["tiers"].items()):
        if sent > above:
            prices = {**facts["prices"], **higher}
    units = sum(
        count * picos(price_of(prices, PRICED[name]), 6) for name, count in counts.items() if count
    )
    units += picos(prices.get("request", "0"), 12)
    if batch:
        units, rest = divmod(units * picos(prices["batch"], 1), 10)
        assert not rest
    whole, part = divmod(units, 10**12)
    return f"{whole}.{part:012d}".rstrip("0").rstrip(".")


def reported(says: str, counts: dict[str, int]) -> dict[str, Any]:
    """Return the usage of a call as the provider reports it."""
    sent = sum(counts[name] for name in INPUTS)
    made = counts["text"] + counts["thoughts"] + counts["audio_out"] + counts["image_out"]
    usual: dict[str, Any] = {
        "prompt_tokens": sent,
        "completion_tokens": made,
        "total_tokens": sent + made,
    }
    if says in ("openai", "deepseek"):
        usual["prompt_tokens_details"] = {"cached_tokens": counts["cached"], "audio_tokens": 0}
        usual["completion_tokens_details"] = {"reasoning_tokens": counts["thoughts"]}
    if says == "deepseek":
        del usual["prompt_tokens_details"]
        usual["prompt_cache_hit_tokens"] = counts["cached"]
        usual["prompt_cache_miss_tokens"] = counts["fresh"]
    if says == "audio":
        usual["prompt_tokens_details"] = {"cached_tokens": 0, "audio_tokens": counts["audio_in"]}
        usual["completion_tokens_details"] = {"audio_tokens": counts["audio_out"]}
    if says == "image":
        return {
            "input_tokens": sent,
            "output_tokens": made,
            "total_tokens": sent + made,
            "input_tokens_details": {
                "text_tokens": counts["fresh"],
                "image_tokens": counts["image_in"],
            },
            "output_tokens_details": {"image_tokens": counts["image_out"]},
        }
    if says == "anthropic":  # the input excludes what the cache was used for
        return {
            "input_tokens": counts["fresh"],
            "output_tokens": made,
            "cache_read_input_tokens": counts["cached"],
            "cache_creation_input_tokens": counts["written"] + counts["written_1h"],
            "cache_creation": {
                "ephemeral_5m_input_tokens": counts["written"],
                "ephemeral_1h_input_tokens": counts["written_1h"],
            },
        }
    if says in ("gemini", "xai"):  # only the total includes thoughts
        usual["completion_tokens"] = counts["text"]
        usual["prompt_tokens_details"] = {"cached_tokens": counts["cached"]}
    if says == "xai":
        usual["completion_tokens_details"] = {"reasoning_tokens": counts["thoughts"]}
    if says == "moonshot":
        usual["cached_tokens"] = counts["cached"]
    if says == "dashscope":
        usual["completion_tokens_details"] = {"reasoning_tokens": counts["thoughts"]}
        usual["prompt_tokens_details"] = {"cached_tokens": 0}
    return usual


def cases(model: str, facts: Facts) -> list[dict[str, Any]]:
    """Return the cases of one model: small, large, each kind of token, both sides of each tier."""
    draw = random.Random(model)
    can = CAN[facts["says"]]
    sizes = [dict.fromkeys(can, 1), dict.fromkeys(can, 0)]
    sizes += [
        {name: draw.choice((0, draw.randint(1, 900), draw.randint(900, 40_000))) for name in can}
        for _ in range(14)
    ]
    sizes += [{name: draw.randint(1, 7_777)} for name in can]
    for above in facts["tiers"]:
        for sent in (above - 1, above, above + 1, above + 12_345):
            inputs = [name for name in can if name in ("fresh", "cached", "written", "written_1h")]
            size = {name: draw.randint(1, 5_000) for name in can}
            size |= {name: draw.randint(0, sent // 4) for name in inputs[1:]}
            sizes.append({**size, "fresh": sent - sum(size[name] for name in inputs[1:])})
    return [
        {
            "model": model,
            "usage": reported(facts["says"], counts),
            "batch": batch,
            "cost_usd": cost(facts, counts, batch=batch),
        }
        for number, size in enumerate(sizes)
        for counts in [dict.fromkeys(PRICED, 0) | size | ({} if any_input(size) else {"fresh": 1})]
        for batch in ([False, True] if "batch" in facts["prices"] and number % 3 == 0 else [False])
    ]


def any_input(size: dict[str, int]) -> bool:
    """Return whether a call has a prompt, as every call has."""
    return any(size.get(name) for name in INPUTS)


def written(facts: Facts) -> dict[str, Any]:
    """Return a model's price as the settings file has it, with its address and page."""
    tiers = [{"above": above, **prices} for above, prices in facts["tiers"].items()]
    return {"at": facts["at"], "page": facts["page"], "price": {**facts["prices"], "tiers": tiers}}


if __name__ == "__main__":
    rows = [case for model, facts in MODELS.items() for case in cases(model, facts)]
    models = [{"name": name, **written(facts)} for name, facts in MODELS.items()]
    FILE.write_text("".join(json.dumps(row) + "\n" for row in [*models, *rows]))
    print(len(rows), "cases of", len(MODELS), "models")  # noqa: T201
