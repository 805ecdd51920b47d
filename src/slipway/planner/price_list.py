"""Read the price list of LiteLLM (MIT) as models of the catalogue.

A price of 0 in the list means that it is unknown, so it becomes None.
"""

import gzip
import re
from collections.abc import Mapping, Sequence

import msgspec

from slipway.planner.models import TEXT_TASKS, CatalogueModel, FactSource, Tier

SNAPSHOT = "2026-11-22"  # the day of the list
PRICE_LIST = "LiteLLM 1.109.1, model_prices_and_context_window.json"


class Family(msgspec.Struct, forbid_unknown_fields=True):
    match: str
    family: str
    source: str
    as_of: str
    vendor: str = ""
    languages: tuple[str, ...] = ()
    licence: str = ""
    open_weights: bool | None = None
    specialities: tuple[str, ...] = ()


class ProviderFacts(msgspec.Struct, forbid_unknown_fields=True):
    source: str
    as_of: str
    regions: tuple[str, ...] = ()
    endpoint: str = ""


class _Range(msgspec.Struct):
    range: list[float] = []
    input_cost_per_token: float | None = None
    output_cost_per_token: float | None = None


class _Entry(msgspec.Struct):
    """The fields of LiteLLM that are used; numbers are sometimes texts there."""

    mode: str | None = None
    litellm_provider: str | None = None
    input_cost_per_token: float | None = None
    output_cost_per_token: float | None = None
    input_cost_per_token_above_128k_tokens: float | None = None
    output_cost_per_token_above_128k_tokens: float | None = None
    input_cost_per_token_above_200k_tokens: float | None = None
    output_cost_per_token_above_200k_tokens: float | None = None
    input_cost_per_token_above_272k_tokens: float | None = None
    output_cost_per_token_above_272k_tokens: float | None = None
    tiered_pricing: list[_Range] | None = None
    output_cost_per_image: float | None = None
    input_cost_per_image: float | None = None
    input_cost_per_character: float | None = None
    input_cost_per_second: float | None = None
    output_cost_per_second: float | None = None
    max_input_tokens: int | float | str | None = None
    max_output_tokens: int | float | str | None = None
    max_tokens: int | float | str | None = None
    deprecation_date: str | None = None
    source: str | None = None
    supports_vision: bool | None = None
    supports_audio_input: bool | None = None
    supports_audio_output: bool | None = None
    supports_video_input: bool | None = None


_MODES: dict[
    str, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]
] = {  # mode -> tasks, input, output
    "chat": (TEXT_TASKS, ("text",), ("text",)),
    "responses": (TEXT_TASKS, ("text",), ("text",)),
    "completion": (("qa", "code"), ("text",), ("text",)),
    "image_generation": (("image_generation",), ("text",), ("image",)),
    "audio_transcription": (("transcription",), ("audio",), ("text",)),
    "audio_speech": (("speech",), ("text",), ("audio",)),
}


def from_prices(
    data: bytes,
    families: Sequence[tuple[re.Pattern[str], Family]],
    providers: Mapping[str, ProviderFacts],
) -> dict[str, CatalogueModel]:
    raw = msgspec.json.decode(gzip.decompress(data), type=dict[str, msgspec.Raw])
    raw.pop("sample_spec", None)
    decode = msgspec.json.Decoder(_Entry, strict=False).decode
    found = {}
    for id_, line in raw.items():
        entry = decode(line)
        if entry.mode in _MODES:
            found[id_] = _model(id_, entry, families, providers)
    return found


def _model(
    id_: str,
    entry: _Entry,
    families: Sequence[tuple[re.Pattern[str], Family]],
    providers: Mapping[str, ProviderFacts],
) -> CatalogueModel:
    tasks, input_, output = _MODES[entry.mode or ""]
    extra = [
        (entry.supports_vision, "image", ("vision",)),
        (entry.supports_audio_input, "audio", ("audio",)),
        (entry.supports_video_input, "video", ()),
    ]
    if entry.mode in ("chat", "responses"):
        input_ = (*input_, *(modality for has, modality, _ in extra if has))
        tasks = (*tasks, *(task for has, _, more in extra if has for task in more))
        output = (*output, "audio") if entry.supports_audio_output else output
    provider = entry.litellm_provider or "unknown"
    family = next((f for pattern, f in families if pattern.search(id_)), None)
    at = providers.get(provider)
    price_source = FactSource(says=entry.source or PRICE_LIST, as_of=SNAPSHOT)
    sources = {"": price_source}
    if family is not None:
        said = FactSource(says=family.source, as_of=family.as_of)
        sources |= dict.fromkeys(
            ("languages", "licence", "open_weights", "specialities", "vendor", "family"), said
        )
    if at is not None:
        sources["regions"] = FactSource(says=at.source, as_of=at.as_of)
    seconds = entry.input_cost_per_second or entry.output_cost_per_second
    return CatalogueModel(
        id=id_,
        name=id_.rsplit("/", 1)[-1],
        provider=provider,
        vendor=family.vendor if family else "",
        family=family.family if family else "",
        tasks=tasks,
        specialities=family.specialities if family else (),
        input=input_,
        output=output,
        languages=family.languages if family else (),
        context=_count(entry.max_input_tokens),
        max_output=_count(entry.max_output_tokens) or _count(entry.max_tokens),
        tiers=_tiers(entry),
        image_usd=(entry.output_cost_per_image or entry.input_cost_per_image or None)
        if "image" in output
        else None,
        million_characters_usd=1e6 * entry.input_cost_per_character
        if entry.input_cost_per_character
        else None,
        second_usd=seconds or None,
        licence=family.licence if family else "",
        open_weights=family.open_weights if family else None,
        regions=at.regions if at else (),
        endpoint=at.endpoint if at else "",
        retired=entry.deprecation_date if _is_date(entry.deprecation_date) else None,
        sources=sources,
    )


def _count(value: float | str | None) -> int | None:
    try:
        return int(float(value)) or None if value is not None else None
    except ValueError:
        return None


def _is_date(text: str | None) -> bool:
    return text is not None and re.fullmatch(r"\d{4}-\d\d-\d\d", text) is not None


def _tiers(entry: _Entry) -> tuple[Tier, ...]:
    """Prices by the length of the prompt, the lowest first; a price of 0 is none."""
    found = [
        Tier(
            above=0,
            input=1e6 * (entry.input_cost_per_token or 0),
            output=1e6 * (entry.output_cost_per_token or 0),
        )
    ]
    if entry.tiered_pricing:
        found = [
            Tier(
                above=int(r.range[0]),
                input=1e6 * (r.input_cost_per_token or 0),
                output=1e6 * (r.output_cost_per_token or 0),
            )
            for r in entry.tiered_pricing
            if r.range
        ]
    for thousand in (128, 200, 272):
        up = getattr(entry, f"input_cost_per_token_above_{thousand}k_tokens")
        if up:
            out = (
                getattr(entry, f"output_cost_per_token_above_{thousand}k_tokens")
                or entry.output_cost_per_token
            )
            found.append(Tier(above=thousand * 1000, input=1e6 * up, output=1e6 * (out or 0)))
    known = [
        tier
        for tier in found
        if tier.input > 0 and (tier.output > 0 or entry.mode not in ("chat", "responses"))
    ]
    return tuple(sorted(known, key=lambda tier: tier.above)) if len(known) == len(found) else ()
