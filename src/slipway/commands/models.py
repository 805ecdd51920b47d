"""`slipway models`: what is known of models, with who says so."""

import json
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import msgspec

from slipway.commands.options import JSON, NonEmptyPath, counted
from slipway.errors import SettingsError
from slipway.planner import reports
from slipway.planner.catalogue import load
from slipway.planner.models import TASKS, CatalogueModel

_CATALOGUE = click.option(
    "--catalogue",
    "catalogues",
    type=NonEmptyPath(),
    multiple=True,
    help="Facts of your own, which count before ours. Repeatable.",
)


@click.group("models")
def command() -> None:
    """Look into the catalogue of models: tasks, languages, context, prices, licences, zones."""


@command.command("search")
@click.argument("words", nargs=-1)
@click.option("--task", help="Only models for this task.")
@click.option(
    "--language",
    "languages",
    multiple=True,
    help="Only models that speak this language. Repeatable.",
)
@click.option("--region", help="Only models that answer from this region.")
@click.option(
    "--input", "input_", help="Only models that take this beside text: image, audio, video."
)
@click.option("--open", "open_", is_flag=True, help="Only open weights.")
@click.option("--own", is_flag=True, help="Only models to run on machines of your own.")
@click.option("--retired", is_flag=True, help="Retired ones too.")
@click.option(
    "--limit", type=click.IntRange(min=1), default=30, show_default=True, help="So many at most."
)
@_CATALOGUE
@JSON
def search(as_json: bool, limit: int, **o: Any) -> None:
    """List models whose id, name, vendor or family has all WORDS, the cheapest first.

    \b
    slipway models search qwen --task vision
    slipway models search --task law --language zh
    """
    if o["task"] and o["task"] not in TASKS:
        raise SettingsError([f"--task: there is no `{o['task']}`; known: {', '.join(TASKS)}"])
    found = sorted(_found(load(o["catalogues"]).models.values(), o), key=_order)
    if as_json:
        click.echo(
            json.dumps(
                [msgspec.to_builtins(each) for each in found[:limit]], indent=2, ensure_ascii=False
            )
        )
        return
    for each in found[:limit]:
        about = ", ".join([*each.specialities, *(each.input if len(each.input) > 1 else ())])
        context = f"{each.context:,}" if each.context else "-"
        regions = ",".join(each.regions) or "-"
        click.echo(
            f"{each.id:52} {reports.price(each):34} {context:>10}  {regions:9} {about}".rstrip()
        )
    more = f"; {len(found) - limit:,} more: --limit {len(found)}" if len(found) > limit else ""
    click.echo(
        f"{counted(len(found), 'model')}{more}. Prices are USD for a million tokens; what is not "
        "known is not 0.",
        err=True,
    )


def _found(models: Iterable[CatalogueModel], o: dict[str, Any]) -> Iterator[CatalogueModel]:
    today = datetime.now(UTC).date()
    words = [word.lower() for word in o["words"]]
    for each in models:
        text = f"{each.id} {each.name} {each.vendor} {each.family}".lower()
        fits = (
            all(word in text for word in words),
            o["task"] is None or o["task"] in each.tasks,
            all("*" in each.languages or language in each.languages for language in o["languages"]),
            o["region"] is None or o["region"] in each.regions,
            o["input_"] is None or o["input_"] in each.input,
            not o["open_"] or each.open_weights is True,
            not o["own"] or each.own,
            o["retired"] or not each.is_retired(today),
        )
        if all(fits):
            yield each


def _order(each: CatalogueModel) -> tuple[bool, float, str]:
    tier = each.price(1000)
    return (tier is None, tier.input + tier.output if tier is not None else 0.0, each.id)


@command.command("show")
@click.argument("model_id", metavar="MODEL")
@_CATALOGUE
@JSON
def show(model_id: str, catalogues: tuple[Path, ...], as_json: bool) -> None:
    """Print all that is known of MODEL, each fact with its source and date.

    \b
    slipway models show dashscope/qwen-plus
    """
    catalogue = load(catalogues)
    model = catalogue.models.get(model_id)
    if model is None:
        near = [id_ for id_ in catalogue.models if model_id.lower() in id_.lower()][:5]
        hint = f"; perhaps {', '.join(near)}" if near else "; look for it: slipway models search"
        raise SettingsError([f"MODEL: there is no `{model_id}`{hint}"])
    if as_json:
        click.echo(json.dumps(msgspec.to_builtins(model), indent=2, ensure_ascii=False))
        return
    click.echo("\n".join(reports.model_lines(model, model.is_retired(datetime.now(UTC).date()))))
