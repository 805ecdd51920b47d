"""`slipway trace`: what happened to an answer, as the server remembers it."""

import json
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import click
import httpx

from slipway.app.banner import address_of, local_address
from slipway.app.loading import load_settings
from slipway.commands.options import CONFIG, JSON
from slipway.errors import BadRequest
from slipway.settings import Flags
from slipway.store import file_of, holder_of

FIRST_LINE = ("ended_at", "error", "duration_s", "ttft_s")  # fields on a record's first line
USUAL = {"role": "primary", "kind": "first", "used": True}  # values that are not printed


@click.command("trace")
@click.argument("ref")
@CONFIG
@click.option("--url", help="Ask this server instead, such as http://127.0.0.1:8080.")
@click.option(
    "--key", envvar="SLIPWAY_KEY", help="Key that asked the question; SLIPWAY_KEY is read too."
)
@JSON
def command(ref: str, config: Path | None, url: str | None, key: str | None, as_json: bool) -> None:
    """Show which models were tried for the answer REF, when, and how each call ended.

    The server keeps the last 2,000 answers in memory.

    \b
    slipway trace ans-9fa37b23d3459b667ac4c5e7e6caa026
    """
    found = fetch_trace(ref, Flags(config=config), url, key)
    click.echo(
        json.dumps(found, indent=2, ensure_ascii=False) if as_json else "\n".join(lines(found))
    )


def fetch_trace(ref: str, flags: Flags, url: str | None, key: str | None) -> dict[str, Any]:
    """Return the trace as GET /v1/traces/{id} gives it.

    Raises BadRequest if the server has none or cannot be reached.
    """
    if not re.fullmatch(r"[\w-]+", ref, re.ASCII):
        raise BadRequest(f"`{ref}` is not a reference.", "References begin with `ans-` or `ref-`.")
    url, key = (url, key) if url else local_server(flags, key)
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        reply = httpx.get(
            f"{url.rstrip('/')}/v1/traces/{ref}", headers=headers, timeout=30, trust_env=False
        )
        found: dict[str, Any] = reply.json()
        if reply.status_code != 200:
            raise BadRequest(found["error"]["message"], "")
    except (httpx.HTTPError, httpx.InvalidURL):
        raise BadRequest(f"No server answers at {url}.", "Name it with --url.") from None
    except (ValueError, KeyError, TypeError):
        raise BadRequest(f"{url} does not answer like Slipway.", "Check --url.") from None
    return found


def local_server(flags: Flags, key: str | None) -> tuple[str, str | None]:
    """Return the address of the server of these settings, and the key to ask it with.

    If the server uses their store, the key is the operator's, which the store's lock holds.
    """
    settings = load_settings(flags).settings
    holder = holder_of(file_of(settings))
    if holder is not None and holder.url:
        return holder.url, key or holder.token
    return address_of(local_address((settings.listen.host, settings.listen.port))), key


def lines(trace: Mapping[str, Any]) -> Iterator[str]:
    """Yield each call to a model, then the outcome of the try, for a person to read."""
    yield trace["id"]
    for each in trace["tries"]:
        for rule in each.get("rules", ()):
            shadow = " (shadow: it did not answer)" if rule["shadow"] else ""
            yield f"  rule {rule['rule']} {rule['version']}, {rule['kind']}: {rule['reason']}{shadow}"
        for attempt in each["attempts"]:
            yield from record_lines(f"model {attempt['model']}", attempt, "model")
        if each["answer"] is not None:
            yield from record_lines(f"answer of {each['answer']['app']}", each["answer"], "app")
        else:
            yield "  in progress"


def record_lines(name: str, record: Mapping[str, Any], named: str) -> Iterator[str]:
    """Yield two lines: how it ended, and all other fields with a value worth reading."""
    clock = datetime.fromtimestamp(record["ended_at"]).astimezone().strftime("%H:%M:%S")
    first = f", first words after {record['ttft_s']:.2f} s" if record["ttft_s"] is not None else ""
    outcome = f"{record['error'] or 'done'} after {record['duration_s']:.2f} s"
    yield f"  {clock}  {name}: {outcome}{first}"
    rest = {
        field: value
        for field, value in record.items()
        if field not in (*FIRST_LINE, named) and is_worth_reading(field, value)
    }
    if rest:
        yield f"            {plain(rest)}"


def is_worth_reading(field: str, value: Any) -> bool:
    return value != USUAL[field] if field in USUAL else value not in (None, "", [], {}, 0, False)


def plain(value: Any) -> str:
    """Return a JSON value on one line."""
    if isinstance(value, dict):
        return ", ".join(
            f"{name} ({plain(each)})" if isinstance(each, dict | list) else f"{name} {each}"
            for name, each in value.items()
        )
    if isinstance(value, list):
        return "; ".join(
            ": ".join(map(plain, each)) if isinstance(each, list) else plain(each) for each in value
        )
    return str(value)
