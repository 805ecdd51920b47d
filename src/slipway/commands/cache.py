"""`slipway cache`: what kept answers saved, and how to remove them."""

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from slipway.commands.cache_explain import explained_lines, only_app
from slipway.commands.options import CONFIG, JSON
from slipway.commands.server_calls import ServerPlace, call_server
from slipway.settings import Flags

URL = click.option("--url", help="Ask this server instead, such as http://127.0.0.1:8080.")
KEY = click.option(
    "--key", envvar="SLIPWAY_KEY", help="Key that may manage documents; SLIPWAY_KEY is read too."
)


@click.group("cache")
def command() -> None:
    """Show what kept answers saved, explain and remove them."""


@command.command("report")
@CONFIG
@URL
@KEY
@JSON
def report(config: Path | None, url: str | None, key: str | None, as_json: bool) -> None:
    """Show the calls, tokens and money that were saved since the server started.

    \b
    slipway cache report
    """
    found = call_server(ServerPlace(Flags(config=config), url, key), "GET", "/v1/cache/report")
    click.echo(json.dumps(found, indent=2) if as_json else "\n".join(lines(found)))


@command.command("invalidate")
@CONFIG
@URL
@KEY
@click.option("--app", help="Answers of this app, route or model.")
@click.option("--tag", help="Answers with this tag.")
@click.option("--document", help="Answers that were written from this document.")
@click.option("--answer", help="The one answer of this key, as `x-slipway-cache-key` names it.")
def invalidate(
    config: Path | None,
    url: str | None,
    key: str | None,
    app: str | None,
    tag: str | None,
    document: str | None,
    answer: str | None,
) -> None:
    """Remove kept answers: those that match every option.

    \b
    slipway cache invalidate --app support --tag prices
    """
    wanted = {"app": app, "tag": tag, "document": document, "key": answer}
    body = {name: value for name, value in wanted.items() if value}
    place = ServerPlace(Flags(config=config), url, key)
    found = call_server(place, "POST", "/v1/cache/invalidate", body=body)
    click.echo(found.get("note") or f"{found['invalidated']} kept answers removed.")


@command.command("explain")
@click.argument("question")
@CONFIG
@URL
@KEY
@click.option("--app", help="The app; needed if several serve similar questions.")
@click.option("--tenant", help="For a question of this tenant; only on the server's machine.")
@click.option("--group", "groups", multiple=True, help="With this group; may be repeated.")
@JSON
def explain(
    question: str,
    config: Path | None,
    url: str | None,
    key: str | None,
    app: str | None,
    tenant: str | None,
    groups: tuple[str, ...],
    as_json: bool,
) -> None:
    """Show whether QUESTION would get the answer of a similar question, and why.

    It shows the nearest kept questions, the guards that refuse some, the score, and the bound on
    the error. Nothing is counted, and no model is asked.

    \b
    slipway cache explain "how do i reset my password"
    """
    flags = Flags(config=config)
    wanted: dict[str, Any] = {"app": app or only_app(flags), "question": question}
    wanted |= {"tenant": tenant} if tenant is not None else {}
    wanted |= {"groups": list(groups)} if groups else {}
    place = ServerPlace(flags, url, key)
    found = call_server(place, "POST", "/v1/cache/explain", body=wanted)
    shown = json.dumps(found, indent=2, ensure_ascii=False)
    click.echo(shown if as_json else "\n".join(explained_lines(found)))


def lines(report: dict[str, Any]) -> Iterator[str]:
    """Yield the report for a person to read."""
    began = datetime.fromtimestamp(report["since"]).astimezone().strftime("%Y-%m-%d %H:%M")
    yield f"Saved since {began}:"
    if not report["saved"]:
        yield "  nothing yet"
    else:
        yield f"  {'app':24} {'by':9} {'answers':>9} {'share':>7} {'tokens':>12} {'USD':>12}"
    for row in report["saved"]:
        share = f"{100 * row['answers'] / row['of']:.1f} %" if row["of"] else ""
        tokens = row["input_tokens"] + row["output_tokens"]
        usd = "unknown" if row["usd"] is None else row["usd"]
        usd += "+" if row["unpriced"] and row["usd"] is not None else ""
        yield (
            f"  {row['app']:24} {row['by']:9} {row['answers']:9,} {share:>7} {tokens:12,} {usd:>12}"
        )
    kept = report["kept"]
    yield (
        f"Kept: {kept['entries']:,} answers, {kept['bytes'] / 2**20:.1f} of "
        f"{kept['budget'] / 2**20:g} MiB"
    )
    causes = ", ".join(f"{cause} {count:,}" for cause, count in sorted(kept["removed"].items()))
    yield f"Removed: {causes or 'none'}"
    if kept["shared"] != "off":
        yield f"Redis: {kept['shared']}"
