"""`slipway alerts`: the rules for Prometheus, the alerts of these settings, and their state."""

import asyncio
import json
import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from slipway.app.loading import load_settings
from slipway.commands.options import CONFIG, JSON
from slipway.commands.server_calls import ServerPlace, call_server
from slipway.errors import BadRequest, SettingsError
from slipway.settings import AlertSettings, Flags, NotifierSettings
from slipway.telemetry.alerts.definitions import rules_of
from slipway.telemetry.alerts.messages import AlertMessage, AlertNotice, shown
from slipway.telemetry.alerts.notifiers import sender
from slipway.telemetry.alerts.notifying import send_patiently
from slipway.telemetry.alerts.posting import NotifyError

URL = click.option("--url", help="Ask this server instead, such as http://127.0.0.1:8080.")
KEY = click.option("--key", envvar="SLIPWAY_KEY", help="An admin key; SLIPWAY_KEY is read too.")


@click.group("alerts")
def command() -> None:
    """Show alerts, write them as rules for Prometheus, and test who is notified."""


@command.command("rules")
@CONFIG
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), help="Write into this file instead."
)
def rules(config: Path | None, out: Path | None) -> None:
    """Print the alerts of the settings as a file of rules for Prometheus.

    \b
    slipway alerts rules --out slipway-rules.yml && promtool check rules slipway-rules.yml
    """
    from slipway.telemetry.alerts.prometheus import rule_file  # loads YAML

    found = load_settings(Flags(config=config))
    text = rule_file(found.settings, str(found.file or "the default settings"))
    if out is None:
        click.echo(text, nl=False)
        return
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise SettingsError([f"--out: {out} cannot be written ({error.strerror})"]) from None
    click.echo(f"{len(rules_of(found.settings))} rules are in {out}.")


@command.command("list")
@CONFIG
@JSON
def list_(config: Path | None, as_json: bool) -> None:
    """List the alerts of the settings: when each fires, and its runbook.

    \b
    slipway alerts list
    """
    settings = load_settings(Flags(config=config)).settings
    rows = [
        {
            "name": rule.name,
            "severity": rule.definition.severity,
            "labels": dict(rule.variant.labels),
            "summary": rule.definition.summary,
            "threshold": rule.variant.threshold,
            "unit": rule.definition.unit,
            "for_s": rule.definition.for_s,
            "only_prometheus": rule.definition.only_prometheus,
            "runbook": f"{settings.alerts.runbooks}/{rule.definition.page}.md",
        }
        for rule in rules_of(settings)
    ]
    click.echo(json.dumps(rows, indent=2) if as_json else "\n".join(map(listed, rows)))


def listed(row: Mapping[str, Any]) -> str:
    limit = (
        "" if row["threshold"] is None else f" (more than {shown(row['threshold'], row['unit'])})"
    )
    labels = "".join(f" {name}={value}" for name, value in row["labels"].items())
    where = " [Prometheus only]" if row["only_prometheus"] else ""
    return f"{row['severity']:7} {row['name'] + labels:28} {row['summary']}{limit}{where}"


@command.command("test")
@click.argument("names", nargs=-1, metavar="[NOTIFIER]...")
@CONFIG
def test(names: tuple[str, ...], config: Path | None) -> None:
    """Send a test message to each notifier, or to those named, and say what happened.

    \b
    slipway alerts test
    """
    alerts = load_settings(Flags(config=config)).settings.alerts
    if not alerts.notify:
        raise BadRequest("There is no notifier.", "Name one under `alerts.notify` in the settings.")
    for name in names:
        if name not in alerts.notify:
            known = ", ".join(alerts.notify)
            raise BadRequest(f"There is no notifier `{name}`.", f"There are: {known}.")
    chosen = {name: alerts.notify[name] for name in names or alerts.notify}
    failed = asyncio.run(test_all(chosen, alerts))
    if failed:
        raise click.exceptions.Exit(1)


async def test_all(notifiers: Mapping[str, NotifierSettings], alerts: AlertSettings) -> int:
    """Send a test message to each notifier; return how many failed."""
    failed = 0
    for name, notifier in notifiers.items():
        began_at = time.monotonic()
        message = AlertMessage(alerts=(test_notice(alerts),), notifier=name)
        try:
            await send_patiently(sender(notifier.kind), notifier, message)
        except NotifyError as error:
            failed += 1
            click.echo(f"{name} ({notifier.kind}): failed: {error}")
        else:
            took_s = time.monotonic() - began_at
            click.echo(f"{name} ({notifier.kind}): sent in {took_s:.1f} s")
    return failed


def test_notice(alerts: AlertSettings) -> AlertNotice:
    return AlertNotice(
        id="test",
        name="Test",
        severity="page",
        status="firing",
        labels={},
        summary="This is a test of the notifiers; nothing is wrong.",
        action="Nothing.",
        runbook=f"{alerts.runbooks}/Test.md",
        since=time.time(),
    )


@command.command("status")
@CONFIG
@URL
@KEY
@JSON
def status(config: Path | None, url: str | None, key: str | None, as_json: bool) -> None:
    """Show which alerts fire on the running server, and how its notifiers do.

    \b
    slipway alerts status
    """
    found = call_server(ServerPlace(Flags(config=config), url, key), "GET", "/v1/alerts")
    click.echo(json.dumps(found, indent=2) if as_json else "\n".join(status_lines(found)))


def status_lines(report: Mapping[str, Any]) -> Iterator[str]:
    """Yield the report for a person to read."""
    if not report["evaluated"]:
        yield "Slipway evaluates no alerts (`alerts.evaluate: false`): ask Prometheus."
        return
    loud = [row for row in report["data"] if row["state"] != "ok" and row["name"] != "Watchdog"]
    for row in loud:
        labels = "".join(f" {name}={value}" for name, value in row["labels"].items())
        yield f"{row['state']:8} {row['severity']:7} {row['name']}{labels}: {row.get('summary', '')}"
        yield f"         {since_line(row)}"
        if row["state"] == "firing":
            yield f"         {row.get('action', '')} {row.get('runbook', '')}"
    if not loud:
        yield "No alert fires."
    for each in report["notifiers"]:
        how = f", {each['failed']} failed: {each['error']}" if each["failed"] else ""
        yield f"notifier {each['name']} ({each['kind']}): {each['sent']} sent{how}"


def since_line(row: Mapping[str, Any]) -> str:
    since = datetime.fromtimestamp(row["since"]).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    value = "" if row["value"] is None else f"; it is {shown(row['value'], row.get('unit', ''))}"
    limit = row["threshold"]
    value += "" if limit is None else f", the limit is {shown(limit, row.get('unit', ''))}"
    explained = f"; explained by {row['inhibited_by']}" if row["inhibited_by"] else ""
    return f"since {since}{value}{explained}"
