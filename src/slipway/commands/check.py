"""`slipway check`."""

import asyncio
import json
from pathlib import Path
from typing import Any

import click

from slipway.app.serving import check
from slipway.commands.options import JSON, PORT, settings_options
from slipway.errors import SettingsError
from slipway.settings import Flags, json_schema
from slipway.settings.values import seconds


@click.command("check")
@settings_options
@click.option("--host", help="Address that a server would listen on.")
@click.option("--port", type=PORT, help="Port that a server would listen on.")
@click.option("--schema", is_flag=True, help="Print the JSON Schema of the settings file.")
@click.option("--url", help="Look at a running server from outside, through its proxy.")
@click.option("--key", envvar="SLIPWAY_KEY", help="Key for --url; SLIPWAY_KEY is read too.")
@click.option("--ca", help="With --url: PEM file of the authorities to trust.")
@click.option("--app", help="With --url: app to ask one question, which is paid for.")
@click.option("--seconds", "length", default="4s", help="With --url: length of the test stream.")
@click.option("--silence", default="12s", help="With --url: how long the proxy must be patient.")
@click.option("--strict", is_flag=True, help="End with 1 for amber, too.")
@JSON
def command(
    config: Path | None,
    docs: tuple[Path, ...],
    models: tuple[str, ...],
    host: str | None,
    port: int | None,
    schema: bool,
    url: str | None,
    as_json: bool,
    strict: bool,
    **outside: Any,
) -> None:
    """Check the settings, the port and the store without starting.

    The exit code is 2 if a server could not start with them.
    """
    if schema:
        click.echo(json.dumps(json_schema(), indent=2))
        return
    if url is not None:
        raise SystemExit(check_outside(url, models, as_json=as_json, strict=strict, **outside))
    for line in check(Flags(config=config, docs=docs, models=models, host=host, port=port)):
        click.echo(line)


def check_outside(
    url: str,
    models: tuple[str, ...],
    *,
    key: str | None,
    ca: str | None,
    app: str | None,
    length: str,
    silence: str,
    as_json: bool,
    strict: bool,
) -> int:
    """Look at a running server, print what was found, and return the exit code."""
    from slipway.readiness import showing
    from slipway.readiness.outside import check_url
    from slipway.readiness.raw_http import address_in
    from slipway.readiness.site import Wish

    if len(models) > 1:
        raise SettingsError(["--model: with --url, name one model"])
    wish = Wish(
        seconds=duration("--seconds", length, 1.0, 120.0),
        silence_s=duration("--silence", silence, 1.0, 300.0),
        every_ms=100.0 if duration("--seconds", length, 1.0, 120.0) < 3 else 250.0,
        app=app,
        model=models[0] if models else None,
    )
    found = asyncio.run(check_url(address_in(url, key, ca), wish))
    if as_json:
        click.echo(json.dumps(showing.as_json(found), indent=2))
    else:
        for line in showing.lines(found):
            click.echo(line)
    return exit_code(found.state, strict=strict)


def duration(name: str, text: str, least: float, most: float) -> float:
    """Parse a duration of an option. Raises SettingsError."""
    try:
        value = seconds(text)
    except ValueError as error:
        raise SettingsError([f"{name}: {error}"]) from None
    if not least <= value <= most:
        raise SettingsError([f"{name}: write a time from {least:g}s to {most:g}s"])
    return value


def exit_code(state: str, *, strict: bool) -> int:
    """Return 1 for red, and for amber if it is `strict`; else 0."""
    return 1 if state == "red" or (strict and state == "amber") else 0
