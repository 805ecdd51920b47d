"""`slipway check`."""

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from slipway.app.serving import check_shared, startable
from slipway.commands.options import JSON, PORT, settings_options
from slipway.errors import SettingsError
from slipway.ledger import format_usd
from slipway.settings import Flags, json_schema
from slipway.settings.values import seconds
from slipway.types import Record

if TYPE_CHECKING:
    from slipway.readiness.rows import Readiness

SHORT_S = 3.0  # a shorter stream has more events a second, so that there are enough to judge
# parameter -> its option, for those that need settings and those that need --url
INSIDE = {name: f"--{name}" for name in ("config", "docs", "host", "port", "offline", "paid")}
OUTSIDE = {"ca": "--ca", "app": "--app", "length": "--seconds", "silence": "--silence"}


class OutsideOptions(Record, frozen=True, kw_only=True):
    """The options that --url needs, as they were typed."""

    key: str | None
    ca: str | None
    app: str | None
    length: str
    silence: str


@click.command("check")
@settings_options
@click.option("--host", help="Address that a server would listen on.")
@click.option("--port", type=PORT, help="Port that a server would listen on.")
@click.option("--schema", is_flag=True, help="Print the JSON Schema of the settings file.")
@click.option("--offline", is_flag=True, help="Connect to no model and no Redis.")
@click.option("--paid", is_flag=True, help="Call each model once, which costs a little.")
@click.option("--url", help="Look at a running server from outside, through its proxy.")
@click.option("--key", envvar="SLIPWAY_KEY", help="Key for --url; SLIPWAY_KEY is read too.")
@click.option("--ca", metavar="FILE", help="With --url: PEM file of the authorities to trust.")
@click.option("--app", help="With --url: app to ask one question, which is paid for.")
@click.option("--seconds", "length", default="4s", help="With --url: length of the test stream.")
@click.option("--silence", default="12s", help="With --url: how long a proxy must wait in silence.")
@click.option("--strict", is_flag=True, help="End with 1 for amber, too.")
@click.option("--html", metavar="FILE", type=Path, help="Also write a page to hand on.")
@JSON
def command(
    config: Path | None,
    docs: tuple[Path, ...],
    models: tuple[str, ...],
    host: str | None,
    port: int | None,
    schema: bool,
    offline: bool,
    paid: bool,
    url: str | None,
    strict: bool,
    html: Path | None,
    as_json: bool,
    **outside: str | None,
) -> None:
    """Say whether this deployment is ready, or with --url, whether a running server is.

    Settings, keys, models, documents, the store and its backups, and this machine are looked at; no
    model is called without --paid. The exit code is 2 if a server could not start with the
    settings, 1 if something is red, else 0.

    \b
    slipway check --config slipway.yaml
    slipway check --url https://answers.example.com --key KEY
    """
    if schema:
        click.echo(json.dumps(json_schema(), indent=2))
        return
    refuse_mixed(has_url=url is not None)
    if html is not None and not html.absolute().parent.is_dir():
        raise SettingsError([f"--html: there is no folder {html.absolute().parent}; create it"])
    if url is not None:
        options = OutsideOptions(**outside)  # type: ignore[arg-type]
        found = check_outside(url, models, options)
    else:
        flags = Flags(config=config, docs=docs, models=models, host=host, port=port)
        found = check_inside(flags, offline=offline, paid=paid)
    show(found, html, as_json=as_json)
    raise SystemExit(exit_code(found.state, strict=strict))


def refuse_mixed(*, has_url: bool) -> None:
    """Raise SettingsError for options that have no effect with or without --url."""
    source = click.get_current_context().get_parameter_source
    names = INSIDE if has_url else OUTSIDE
    for name, option in names.items():
        if source(name) is click.core.ParameterSource.COMMANDLINE:
            said = "looks at a running server" if has_url else "is missing"
            raise SettingsError([f"{option} has no effect here, since --url {said}; leave it out"])


def check_inside(flags: Flags, *, offline: bool, paid: bool) -> "Readiness":
    """Look at settings and what they need. Raises SettingsError if a server could not start."""
    from slipway.readiness.deployment import DeploymentToCheck
    from slipway.readiness.inside import check_deployment
    from slipway.readiness.model_rows import most_paid

    if offline and paid:
        raise SettingsError(["--paid calls models, and --offline forbids that; leave one out"])
    loaded, is_served = startable(flags)
    if not offline:
        check_shared(loaded.settings)
    if paid:
        calls, most, unknown = most_paid(loaded.settings)
        said = f"--paid: {calls} calls, which cost at most {format_usd(most)} USD"
        said += f"; the price of {', '.join(unknown)} is unknown" if unknown else ""
        click.echo(f"{said}.", err=True)
    deployment = DeploymentToCheck(found=loaded, is_served=is_served, offline=offline, paid=paid)
    return asyncio.run(check_deployment(deployment))


def check_outside(url: str, models: tuple[str, ...], options: OutsideOptions) -> "Readiness":
    """Look at a running server through its proxy. Raises SettingsError for invalid options."""
    from slipway.readiness.outside import check_url
    from slipway.readiness.raw_http import address_in
    from slipway.readiness.site import Wish

    if len(models) > 1:
        raise SettingsError(["--model: with --url, name one model"])
    length_s = duration("--seconds", options.length, 1.0, 120.0)
    wish = Wish(
        seconds=length_s,
        every_ms=100.0 if length_s < SHORT_S else 250.0,
        silence_s=duration("--silence", options.silence, 1.0, 300.0),
        app=options.app,
        model=models[0] if models else None,
    )
    address = address_in(url, options.key, options.ca)
    if name := wish.app or wish.model:
        click.echo(f"`{name}` is asked one short question, which is paid for.", err=True)
    return asyncio.run(check_url(address, wish))


def show(found: "Readiness", html: Path | None, *, as_json: bool) -> None:
    """Print what was found, and write the page. Raises SettingsError if it cannot be written."""
    from slipway.readiness import showing

    if as_json:
        click.echo(json.dumps(showing.as_json(found), indent=2))
    else:
        for line in showing.lines(found):
            click.echo(line)
    if html is not None:
        from slipway.readiness.page import page

        try:
            html.write_text(page(found), encoding="utf-8")
        except OSError as error:
            raise SettingsError([f"--html: {html} cannot be written ({error.strerror})"]) from None
        click.echo(f"The page is in {html}.", err=True)


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
