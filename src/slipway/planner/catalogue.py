"""Load the catalogue: three layers, of which the later ones count.

They are the price list, our own `data/catalogue.yaml`, and files of the operator in the same form.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import msgspec

from slipway.errors import SettingsError
from slipway.planner.models import (
    MODALITIES,
    TASKS,
    TEXT_TASKS,
    Catalogue,
    CatalogueModel,
    FactSource,
    Machine,
    Tier,
)
from slipway.planner.price_list import Family, ProviderFacts, from_prices


class _Own(msgspec.Struct, forbid_unknown_fields=True):
    """A model of a catalogue file. What it leaves out is taken from the same model of an earlier
    layer.
    """

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


class _CatalogueFile(msgspec.Struct, forbid_unknown_fields=True):
    families: list[Family] = []
    providers: dict[str, ProviderFacts] = {}
    models: list[_Own] = []
    scores: list[_Scores] = []
    machines: list[_OwnMachine] = []


def load(own: Sequence[Path] = ()) -> Catalogue:
    """Return the catalogue, with files of the operator on top. Raises SettingsError that names the
    file and field.
    """
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
    models = from_prices(prices, families, providers)
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


def _parsed(data: bytes, name: str) -> _CatalogueFile:
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the same, several times faster
    try:
        # Both are safe
        return msgspec.convert(yaml.load(data, loader) or {}, _CatalogueFile)  # noqa: S506
    except yaml.YAMLError as error:
        raise SettingsError(
            [f"--catalogue: {name} is no YAML: {' '.join(str(error).split())}"]
        ) from None
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at `$.")
        raise SettingsError(
            [f"--catalogue: {name}: {where.rstrip('`') or 'file'}: {what[:1].lower()}{what[1:]}"]
        ) from None


# Other layers

_DEFAULTS: dict[str, Callable[[], Any]] = {
    "tasks": lambda: TEXT_TASKS,
    "input": lambda: ("text",),
    "output": lambda: ("text",),
}


def _laid_over(
    below: CatalogueModel | None, entry: _Own, providers: Mapping[str, ProviderFacts]
) -> CatalogueModel:
    as_of = str(entry.as_of)
    said = FactSource(says=entry.source, as_of=as_of)
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
                    (
                        f"--catalogue: models.{entry.id}.price: it needs `input` and `output`, "
                        "USD per million tokens"
                    )
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
                    (
                        f"--catalogue: models.{entry.id}.{name}: `{bad[0]}` is not known; known: "
                        f"{', '.join(known)}"
                    )
                ]
            )
    own_sources = {name: FactSource(says=text, as_of=as_of) for name, text in entry.sources.items()}
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


def _scores(layers: Sequence[_CatalogueFile]) -> dict[str, tuple[dict[str, float], FactSource]]:
    found: dict[str, tuple[dict[str, float], FactSource]] = {}
    for layer in layers:
        for table in layer.scores:
            for name, values in table.models.items():
                row = dict(zip(table.benchmarks, values, strict=False))
                before = found.get(_plain(name), ({}, None))[0]
                found[_plain(name)] = (
                    {**before, **row},
                    FactSource(says=table.source, as_of=str(table.as_of)),
                )
    return found


def _scored(
    model: CatalogueModel, scores: Mapping[str, tuple[dict[str, float], FactSource]]
) -> CatalogueModel:
    """Add the public scores of its name to those of its own entry."""
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
    """Return a model's name without who serves it and in which format."""
    name = _NOISE.sub(
        "", name.rsplit("/", 1)[-1].lower().replace("meta-llama-", "llama-").replace("_", "-")
    )
    return re.sub(r"-v1:0$", "", name)
