"""The prices that are known without the settings: a snapshot of LiteLLM's price list (MIT), which
names the provider's own page for most prices.

A price of 0 there means that it is unknown. A model's price is used only if its address is the
provider's own: another host may charge something else for a model of the same name.
"""

import difflib
import gzip
import re
from collections.abc import Iterator
from decimal import ROUND_HALF_EVEN, Decimal
from functools import lru_cache
from importlib.resources import files
from typing import Any
from urllib.parse import urlsplit

import msgspec

from slipway.settings import Price, PriceTier
from slipway.types import Record

SNAPSHOT = "2026-11-22"  # the day of the list
NAME = "LiteLLM 1.109.1, model_prices_and_context_window.json (MIT)"
SOURCE = f"catalogue {SNAPSHOT}"
FILE = ("planner", "data", "prices.json.gz")  # `slipway plan` reads it too
# host of the model's address -> the provider as the list names it. An address in another country
# may have other prices, so only these are here
HOSTS = {
    "api.anthropic.com": "anthropic",
    "api.deepinfra.com": "deepinfra",
    "api.deepseek.com": "deepseek",
    "api.fireworks.ai": "fireworks_ai",
    "api.groq.com": "groq",
    "api.mistral.ai": "mistral",
    "api.moonshot.ai": "moonshot",
    "api.openai.com": "openai",
    "api.perplexity.ai": "perplexity",
    "api.together.xyz": "together_ai",
    "api.x.ai": "xai",
    "dashscope-intl.aliyuncs.com": "dashscope",
    "generativelanguage.googleapis.com": "gemini",
    "openrouter.ai": "openrouter",
}
MILLION = Decimal(1_000_000)
SIX = Decimal("0.000001")
# a field of `Price` -> the list's field, without its `cost_per_token` ending for tiers and batches
TOKENS = {
    "input": "input_cost_per_token",
    "output": "output_cost_per_token",
    "cached_input": "cache_read_input_token_cost",
    "cache_write": "cache_creation_input_token_cost",
    "cache_write_1h": "cache_creation_input_token_cost_above_1hr",
    "reasoning": "output_cost_per_reasoning_token",
    "audio_input": "input_cost_per_audio_token",
    "audio_output": "output_cost_per_audio_token",
    "image_input": "input_cost_per_image_token",
    "image_output": "output_cost_per_image_token",
}
TIER = re.compile(r"^input_cost_per_token_above_(\d+)k_tokens$")


class CatalogueEntry(Record, frozen=True, kw_only=True):
    """What the catalogue says of a model. `price` is None if its tokens have no price there."""

    id: str
    provider: str
    price: Price | None
    max_output: int | None = None
    page: str = ""  # the provider's page that the price is from


@lru_cache(maxsize=1)
def _raw() -> dict[str, msgspec.Raw]:
    data = files("slipway").joinpath(*FILE).read_bytes()
    raw = msgspec.json.decode(gzip.decompress(data), type=dict[str, msgspec.Raw])
    raw.pop("sample_spec", None)
    return raw


def entry_for(base_url: str, name: str) -> CatalogueEntry | None:
    """Return what the catalogue knows of the model that is called `name` at this address."""
    provider = HOSTS.get(urlsplit(base_url).hostname or "")
    if provider is None or not name:
        return None
    for id_ in (f"{provider}/{name}", name):
        if (found := entry_of(id_)) is not None and found.provider == provider:
            return found
    return None


def entry_of(id_: str) -> CatalogueEntry | None:
    """Return an entry by its id in the catalogue, such as `gpt-4o` or `dashscope/qwen-plus`."""
    raw = _raw().get(id_)
    if raw is None:
        return None
    fields: dict[str, Any] = msgspec.json.decode(raw)
    return CatalogueEntry(
        id=id_,
        provider=str(fields.get("litellm_provider", "")),
        price=price_in(fields),
        max_output=_count(fields.get("max_output_tokens") or fields.get("max_tokens")),
        page=str(fields.get("source") or ""),
    )


def similar(id_: str, most: int = 3) -> list[str]:
    """Return ids that resemble this one."""
    ids = list(_raw())
    tail = id_.rpartition("/")[2].lower()
    same = sorted((each for each in ids if each.rpartition("/")[2].lower() == tail), key=len)
    return (same or difflib.get_close_matches(id_, ids, most, 0.5))[:most]


def price_in(fields: dict[str, Any]) -> Price | None:
    """Return the price in an entry of the list; None if that of its tokens is unknown."""
    base = {name: usd(fields.get(theirs)) for name, theirs in TOKENS.items()}
    tiers = [*_tiers(fields)]
    ranges = fields.get("tiered_pricing")
    if isinstance(ranges, list):
        read = [tier for each in ranges if isinstance(each, dict) for tier in _range(each)]
        if len(read) != len(ranges) or not read or read[0][0] != 0:
            return None
        base, tiers = {**base, **read[0][1]}, read[1:]
    makes_text = fields.get("mode") in ("chat", "responses", "completion", None)
    if base["input"] is None or (base["output"] is None and makes_text):
        return None
    known = {name: value for name, value in base.items() if value is not None}
    return Price(
        **{"output": known.get("image_output", Decimal(0)), **known},
        request=usd(fields.get("input_cost_per_request"), Decimal(1)),
        image=usd(fields.get("output_cost_per_image"), Decimal(1)),
        audio_minute=usd(fields.get("input_cost_per_second"), Decimal(60)),
        batch=_batch(fields),
        tiers=tuple(
            PriceTier(above=above, **{n: v for n, v in prices.items() if v is not None})
            for above, prices in tiers
        ),
    )


def _tiers(fields: dict[str, Any]) -> Iterator[tuple[int, dict[str, Decimal | None]]]:
    for field in fields:
        if found := TIER.match(field):
            end = f"_above_{found[1]}k_tokens"
            prices = {name: usd(fields.get(theirs + end)) for name, theirs in TOKENS.items()}
            if prices["input"] is not None:
                yield int(found[1]) * 1000, prices


def _range(each: dict[str, Any]) -> Iterator[tuple[int, dict[str, Decimal | None]]]:
    prices = {name: usd(each.get(theirs)) for name, theirs in TOKENS.items()}
    bounds = each.get("range")
    if prices["input"] is not None and isinstance(bounds, list) and bounds:
        yield int(bounds[0]), prices


def _batch(fields: dict[str, Any]) -> Decimal | None:
    """Return the factor of batches, if it is the same for all tokens that the list names."""
    factors = set()
    for name in ("input", "output", "cached_input"):
        plain, batched = (usd(fields.get(f"{TOKENS[name]}{end}")) for end in ("", "_batches"))
        if plain and batched:
            factors.add(batched / plain)
        elif name != "cached_input" or plain:
            return None
    return factors.pop() if len(factors) == 1 else None


def usd(value: Any, times: Decimal = MILLION) -> Decimal | None:
    """Return a price in USD for a million tokens, rounded to six decimals, since the list holds
    binary fractions; None for 0, which means unknown there.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        amount = (Decimal(str(value)) * times).quantize(SIX, ROUND_HALF_EVEN)
    except ArithmeticError:
        return None
    return amount.normalize() if amount.is_finite() and amount > 0 else None


def _count(value: Any) -> int | None:
    try:
        return int(float(value)) or None if value is not None else None
    except (TypeError, ValueError):
        return None
