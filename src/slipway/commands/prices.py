"""`slipway prices`: what models cost."""

import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import click
import msgspec

from slipway.app.loading import load_settings
from slipway.commands.options import CONFIG, JSON
from slipway.errors import SettingsError
from slipway.prices import SETTINGS
from slipway.prices.catalogue import NAME, SNAPSHOT, CatalogueEntry, entry_for, entry_of, similar
from slipway.settings import Flags, ModelSettings, Price

UNITS = {
    "request": "a call",
    "image": "an image",
    "audio_minute": "a minute of audio",
    "batch": "times, in batches",
}


@click.group("prices")
def command() -> None:
    """Show what models cost, and where the price is from."""


@command.command("show")
@click.argument("model")
@CONFIG
@JSON
def show(model: str, config: Path | None, as_json: bool) -> None:
    """Show the price of MODEL: a name of the settings file, or an id of the catalogue.

    \b
    slipway prices show openai/gpt-4o
    """
    found = price_of(model, config)
    click.echo(json.dumps(found, indent=2) if as_json else "\n".join(lines(found)))


def price_of(model: str, config: Path | None) -> dict[str, Any]:
    """Return the price of a model with its source. Raises SettingsError for an unknown name."""
    settings = known_settings(config)
    if (ours := settings.get(model)) is not None:
        entry = entry_for(ours.base_url, ours.name)
        if ours.price is not None:
            return described(model, ours.price, SETTINGS, entry, overrides=entry is not None)
        if entry is None or entry.price is None:
            return described(model, None, "", entry)
        return described(model, entry.price, f"catalogue {SNAPSHOT}", entry)
    entry = entry_of(model) or entry_of(model.removeprefix("openai/"))
    if entry is None:
        near = [*similar(model), *settings]
        known = f"; similar: {', '.join(near)}" if near else ""
        raise SettingsError(
            [f"there is no model `{model}` in the settings or the catalogue{known}"]
        )
    return described(model, entry.price, f"catalogue {SNAPSHOT}" if entry.price else "", entry)


def known_settings(config: Path | None) -> dict[str, ModelSettings]:
    """Return the models of the settings file, if there is one."""
    if config is None and not Path("slipway.yaml").exists():
        return {}
    return load_settings(Flags(config=config)).settings.models


def described(
    model: str,
    price: Price | None,
    source: str,
    entry: CatalogueEntry | None,
    *,
    overrides: bool = False,
) -> dict[str, Any]:
    """Return a price as JSON values."""
    found: dict[str, Any] = {"model": model, "known": price is not None, "source": source}
    if price is not None:
        found["price"] = {name: value for name, value in plain(price).items() if value}
    if entry is not None:
        found["catalogue"] = {
            "id": entry.id,
            "provider": entry.provider,
            "page": entry.page,
            "as_of": SNAPSHOT,
            "list": NAME,
            "overridden": overrides,
        }
    return found


def plain(branch: Price | Any) -> dict[str, Any]:
    values = msgspec.structs.asdict(branch)
    return {
        name: [plain(tier) for tier in value]
        if isinstance(value, tuple)
        else f"{value:f}"
        if isinstance(value, Decimal)
        else value
        for name, value in values.items()
        if value is not None
    }


def lines(found: dict[str, Any]) -> Iterator[str]:
    """Yield the lines that a person reads."""
    if not found["known"]:
        yield f"The price of {found['model']} is unknown: no budget can limit what it costs."
        yield f"Set it in the settings: `models.{found['model']}.price: {{input: …, output: …}}`."
        return
    yield f"{found['model']}, in USD per million tokens if nothing else is said:"
    for name, value in found["price"].items():
        if name != "tiers":
            yield f"  {name:13} {value:>12}{'  ' + UNITS[name] if name in UNITS else ''}"
    for tier in found["price"].get("tiers", ()):
        above = tier.pop("above")
        yield f"  with more than {above:,} input tokens:"
        yield from (f"    {name:11} {value:>12}" for name, value in tier.items())
    yield f"source: {found['source']}"
    if entry := found.get("catalogue"):
        says = "overridden: " if entry["overridden"] else ""
        yield f"{says}{entry['list']}, {entry['as_of']}, `{entry['id']}` {entry['page']}".rstrip()
