"""The catalogue of models and machines: what is known of each, who says so, and as of when.

Three layers, the later ones count: the price list of LiteLLM (MIT), our own `data/catalogue.yaml`, and
files of the operator in the same form. A price of 0 in the price list means that nobody knows it, so
it is None here; a model past the end that its provider has announced is retired.
"""

import gzip
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import msgspec

from slipway.errors import SettingsError
from slipway.types import Record

SNAPSHOT = "2026-11-22"  # of the price list
PRICE_LIST = "LiteLLM 1.109.1, model_prices_and_context_window.json"
TEXT_TASKS = (
    "qa",
    "rag",
    "chat",
    "summarise",
    "translate",
    "sentiment",
    "code",
    "maths",
    "law",
    "medicine",
)
TASKS: dict[str, str] = {
    "qa": "answer questions",
    "rag": "answer questions over documents",
    "chat": "talk",
    "summarise": "shorten texts",
    "translate": "translate texts",
    "sentiment": "say how a text feels",
    "code": "write programs",
    "maths": "solve mathematical problems",
    "law": "answer legal questions",
    "medicine": "answer medical questions",
    "vision": "understand images",
    "audio": "understand sounds and speech",
    "image_generation": "make images from words",
    "detection": "find and name objects in images",
    "transcription": "write down speech",
    "speech": "speak a text",
}
MODALITIES = ("text", "image", "audio", "video", "boxes")


class Tier(Record, frozen=True, kw_only=True):
    """USD per million tokens for prompts of more than `above` tokens."""

    above: int
    input: float
    output: float


class Source(Record, frozen=True, kw_only=True):
    says: str
    as_of: str


class CatalogueModel(Record, frozen=True, kw_only=True):
    """One model at one provider. What nobody knows is None, or an empty tuple. `sources` has the
    source of a fact by its name; "" is that of all others.
    """

    id: str
    name: str
    provider: str
    vendor: str = ""
    family: str = ""
    tasks: tuple[str, ...] = ()
    specialities: tuple[str, ...] = ()
    input: tuple[str, ...] = ()
    output: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()
    context: int | None = None
    max_output: int | None = None
    tiers: tuple[Tier, ...] = ()
    image_usd: float | None = None
    million_characters_usd: float | None = None
    second_usd: float | None = None
    licence: str = ""
    open_weights: bool | None = None
    commercial: bool | None = None
    regions: tuple[str, ...] = ()
    endpoint: str = ""
    size_b: float | None = None
    active_b: float | None = None
    retired: str | None = None
    ttft_p95_s: float | None = None
    tpot_p95_s: float | None = None
    priors: Mapping[str, float] = {}
    sources: Mapping[str, Source] = {}

    @property
    def own(self) -> bool:
        """Whether it runs on machines of the operator."""
        return self.provider == "own"

    @property
    def priced(self) -> bool:
        return bool(self.tiers) or any(
            each is not None
            for each in (self.image_usd, self.million_characters_usd, self.second_usd)
        )

    def source(self, fact: str) -> Source:
        return (
            self.sources.get(fact)
            or self.sources.get("")
            or Source(says="unknown", as_of="unknown")
        )

    def price(self, input_tokens: float) -> Tier | None:
        """The tier of a prompt of this length."""
        return next(
            (tier for tier in reversed(self.tiers) if input_tokens > tier.above),
            self.tiers[0] if self.tiers else None,
        )

    def is_retired(self, today: date) -> bool:
        return self.retired is not None and self.retired <= today.isoformat()


class Machine(Record, frozen=True, kw_only=True):
    """A machine that can be had by the hour. `spot_usd` is what it costs if it may be taken away;
    `serverless`: it can also be had by the second, for the time that it answers.
    """

    id: str
    gpu: str
    memory_gb: float
    source: str
    as_of: str
    gpus: int = 1
    bandwidth_gbs: float | None = None
    regions: tuple[str, ...] = ()
    hour_usd: float | None = None
    spot_usd: float | None = None
    serverless: bool = False


class Catalogue(Record, frozen=True, kw_only=True):
    """All of it. `digest` is another one for each other content, so that a decision can be replayed."""

    models: Mapping[str, CatalogueModel]
    machines: Mapping[str, Machine]
    digest: str


# The price list


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


class _Family(msgspec.Struct, forbid_unknown_fields=True):
    match: str
    family: str
    source: str
    as_of: str
    vendor: str = ""
    languages: tuple[str, ...] = ()
    licence: str = ""
    open_weights: bool | None = None
    specialities: tuple[str, ...] = ()


class _Provider(msgspec.Struct, forbid_unknown_fields=True):
    source: str
    as_of: str
    regions: tuple[str, ...] = ()
    endpoint: str = ""


class _Own(msgspec.Struct, forbid_unknown_fields=True):
    """A model of a catalogue file. What it leaves out is taken from the same model of an earlier layer."""

    id: str
    source: str
    as_of: Any
    name: str | None = None
    provider: str | None = None
    vendor: str | None = None
    family: str | None = None
    tasks: tuple[str, ...] | None = None
    specialities: tuple[str, ...] | None = None
    input: tuple[str, ...] | None = None
    output: tuple[str, ...] | None = None
    languages: tuple[str, ...] | None = None
    context: int | None = None
    max_output: int | None = None
    price: dict[str, float] | None = None
    tiers: tuple[Tier, ...] | None = None
    image_usd: float | None = None
    million_characters_usd: float | None = None
    second_usd: float | None = None
    licence: str | None = None
    open_weights: bool | None = None
    commercial: bool | None = None
    regions: tuple[str, ...] | None = None
    endpoint: str | None = None
    size_b: float | None = None
    active_b: float | None = None
    retired: Any = None
    ttft_p95_s: float | None = None
    tpot_p95_s: float | None = None
    priors: dict[str, float] | None = None
    sources: dict[str, str] = {}


class _Scores(msgspec.Struct, forbid_unknown_fields=True):
    source: str
    as_of: Any
    benchmarks: list[str]
    models: dict[str, list[float]]


class _OwnMachine(msgspec.Struct, forbid_unknown_fields=True):
    """A machine of a catalogue file; what it leaves out is taken from an earlier layer."""

    id: str
    source: str
    as_of: Any
    gpu: str | None = None
    memory_gb: float | None = None
    gpus: int | None = None
    bandwidth_gbs: float | None = None
    regions: tuple[str, ...] | None = None
    hour_usd: float | None = None
    spot_usd: float | None = None
    serverless: bool | None = None


class _File(msgspec.Struct, forbid_unknown_fields=True):
    families: list[_Family] = []
    providers: dict[str, _Provider] = {}
    models: list[_Own] = []
    scores: list[_Scores] = []
    machines: list[_OwnMachine] = []


def load(own: Sequence[Path] = ()) -> Catalogue:
    """The catalogue, with files of the operator on top. Raises SettingsError that names the file and field."""
    return _loaded(tuple(own), tuple(_stamp(file) for file in own))


def _stamp(file: Path) -> tuple[int, int]:
    try:
        stat = file.stat()
    except OSError as error:
        raise SettingsError(
            [f"--catalogue: {file} cannot be read: {(error.strerror or str(error)).lower()}"]
        ) from None
    return stat.st_mtime_ns, stat.st_size


@lru_cache(maxsize=4)
def _loaded(own: tuple[Path, ...], stamps: tuple[tuple[int, int], ...]) -> Catalogue:
    prices = (files("slipway.planner") / "data" / "prices.json.gz").read_bytes()
    ours = (files("slipway.planner") / "data" / "catalogue.yaml").read_bytes()
    layers = [
        _parsed(ours, "catalogue.yaml"),
        *(_parsed(file.read_bytes(), str(file)) for file in own),
    ]
    families = [
        (re.compile(f.match, re.IGNORECASE), f)
        for layer in reversed(layers)
        for f in layer.families
    ]
    providers = {name: p for layer in layers for name, p in layer.providers.items()}
    scores = _scores(layers)
    models = _from_prices(prices, families, providers)
    for layer in layers:
        for entry in layer.models:
            models[entry.id] = _laid_over(models.get(entry.id), entry, providers)
    models = {id_: _scored(model, scores) for id_, model in models.items()}
    machines: dict[str, Machine] = {}
    for layer in layers:
        for row in layer.machines:
            machines[row.id] = _machine(machines.get(row.id), row)
    return Catalogue(
        models=models,
        machines=machines,
        digest=_digest([prices, ours, *(file.read_bytes() for file in own)]),
    )


def _digest(parts: Iterable[bytes]) -> str:
    from hashlib import blake2b

    found = blake2b(digest_size=16)
    for part in parts:
        found.update(len(part).to_bytes(8, "big") + part)
    return found.hexdigest()


def _parsed(data: bytes, name: str) -> _File:
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the same, several times faster
    try:
        return msgspec.convert(yaml.load(data, loader) or {}, _File)  # noqa: S506 - both are safe
    except yaml.YAMLError as error:
        raise SettingsError(
            [f"--catalogue: {name} is no YAML: {' '.join(str(error).split())}"]
        ) from None
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at `$.")
        raise SettingsError(
            [f"--catalogue: {name}: {where.rstrip('`') or 'file'}: {what[:1].lower()}{what[1:]}"]
        ) from None


def _from_prices(
    data: bytes,
    families: Sequence[tuple[re.Pattern[str], _Family]],
    providers: Mapping[str, _Provider],
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
    families: Sequence[tuple[re.Pattern[str], _Family]],
    providers: Mapping[str, _Provider],
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
    price_source = Source(says=entry.source or PRICE_LIST, as_of=SNAPSHOT)
    sources = {"": price_source}
    if family is not None:
        said = Source(says=family.source, as_of=family.as_of)
        sources |= dict.fromkeys(
            ("languages", "licence", "open_weights", "specialities", "vendor", "family"), said
        )
    if at is not None:
        sources["regions"] = Source(says=at.source, as_of=at.as_of)
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


# Other layers

_DEFAULTS: dict[str, Callable[[], Any]] = {
    "tasks": lambda: TEXT_TASKS,
    "input": lambda: ("text",),
    "output": lambda: ("text",),
}


def _laid_over(
    below: CatalogueModel | None, entry: _Own, providers: Mapping[str, _Provider]
) -> CatalogueModel:
    as_of = str(entry.as_of)
    said = Source(says=entry.source, as_of=as_of)
    given = {
        name: getattr(entry, name)
        for name in CatalogueModel.__struct_fields__
        if name not in ("id", "sources", "tiers", "retired")
        and getattr(entry, name, None) is not None
    }
    if entry.retired is not None:
        given["retired"] = str(entry.retired)
    if entry.tiers is not None:
        given["tiers"] = entry.tiers
    elif entry.price is not None:
        if not {"input", "output"} <= set(entry.price):
            raise SettingsError(
                [
                    f"--catalogue: models.{entry.id}.price: it needs `input` and `output`, USD per million tokens"
                ]
            )
        given["tiers"] = (Tier(above=0, input=entry.price["input"], output=entry.price["output"]),)
    for name, known, values in (
        ("tasks", TASKS, entry.tasks),
        ("input", MODALITIES, entry.input),
        ("output", MODALITIES, entry.output),
    ):
        if bad := [each for each in values or () if each not in known]:
            raise SettingsError(
                [
                    f"--catalogue: models.{entry.id}.{name}: `{bad[0]}` is not known; known: {', '.join(known)}"
                ]
            )
    own_sources = {name: Source(says=text, as_of=as_of) for name, text in entry.sources.items()}
    if below is not None:
        return msgspec.structs.replace(
            below, **given, sources={**below.sources, **dict.fromkeys(given, said), **own_sources}
        )
    provider = given.get("provider", "unknown")
    at = providers.get(provider)
    if at is not None:
        given.setdefault("regions", at.regions)
        given.setdefault("endpoint", at.endpoint)
    for name, make in _DEFAULTS.items():
        given.setdefault(name, make())
    given = {"name": entry.id.rsplit("/", 1)[-1], "provider": provider, **given}
    return CatalogueModel(id=entry.id, sources={"": said, **own_sources}, **given)


def _machine(below: Machine | None, row: _OwnMachine) -> Machine:
    given = {
        name: value for name in row.__struct_fields__ if (value := getattr(row, name)) is not None
    }
    given["as_of"] = str(row.as_of)
    if below is not None:
        return msgspec.structs.replace(below, **given)
    if row.gpu is None or row.memory_gb is None:
        raise SettingsError(
            [f"--catalogue: machines.{row.id}: a new machine needs `gpu` and `memory_gb`"]
        )
    return Machine(**given)


def _scores(layers: Sequence[_File]) -> dict[str, tuple[dict[str, float], Source]]:
    found: dict[str, tuple[dict[str, float], Source]] = {}
    for layer in layers:
        for table in layer.scores:
            for name, values in table.models.items():
                row = dict(zip(table.benchmarks, values, strict=False))
                before = found.get(_plain(name), ({}, None))[0]
                found[_plain(name)] = (
                    {**before, **row},
                    Source(says=table.source, as_of=str(table.as_of)),
                )
    return found


def _scored(
    model: CatalogueModel, scores: Mapping[str, tuple[dict[str, float], Source]]
) -> CatalogueModel:
    """With the public scores of its name, beside those of its own entry."""
    row = scores.get(_plain(model.name))
    if row is None:
        return model
    own = model.source("priors") if model.priors else None
    sources = {
        **model.sources,
        **{f"priors.{name}": row[1] for name in row[0] if name not in model.priors},
    }
    if own is not None:
        sources |= {f"priors.{name}": own for name in model.priors}
    return msgspec.structs.replace(model, priors={**row[0], **model.priors}, sources=sources)


_NOISE = re.compile(r"(-fp8|-awq|-gptq|-turbo|-fast|-int4|-bf16|:free)$")


def _plain(name: str) -> str:
    """A model's name without who serves it and in which format."""
    name = _NOISE.sub(
        "", name.rsplit("/", 1)[-1].lower().replace("meta-llama-", "llama-").replace("_", "-")
    )
    return re.sub(r"-v1:0$", "", name)
