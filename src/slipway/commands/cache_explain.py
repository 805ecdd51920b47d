"""`slipway cache explain`: whether a question would get the answer of a similar one, and why."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
import httpx

from slipway.app.loading import load_settings
from slipway.commands.options import CONFIG, JSON
from slipway.commands.trace import local_server
from slipway.errors import BadRequest, SettingsError
from slipway.settings import Flags

_TIMEOUT_S = 30


@click.command("explain")
@click.argument("question")
@CONFIG
@click.option("--app", help="The app; needed if several serve similar questions.")
@click.option("--tenant", help="For a question of this tenant; only on the server's machine.")
@click.option("--group", "groups", multiple=True, help="With this group; may be repeated.")
@click.option("--url", help="Ask this server instead, such as http://127.0.0.1:8080.")
@click.option("--key", envvar="SLIPWAY_KEY", help="Key to ask with; SLIPWAY_KEY is read too.")
@JSON
def command(
    question: str,
    config: Path | None,
    app: str | None,
    tenant: str | None,
    groups: tuple[str, ...],
    url: str | None,
    key: str | None,
    as_json: bool,
) -> None:
    """Show whether QUESTION would get the answer of a similar question, and why.

    It shows the nearest kept questions, the guards that refuse some, the score, and the bound on
    the error. Nothing is counted, and no model is asked.

    \b
    slipway cache explain "how do i reset my password"
    """
    flags = Flags(config=config)
    app = app or only_app(flags)
    url, key = (url, key) if url else local_server(flags, key)
    wanted: dict[str, Any] = {"app": app, "question": question}
    wanted |= {"tenant": tenant} if tenant is not None else {}
    wanted |= {"groups": list(groups)} if groups else {}
    found = fetch(url, key, wanted)
    click.echo(
        json.dumps(found, indent=2, ensure_ascii=False) if as_json else "\n".join(lines(found))
    )


def only_app(flags: Flags) -> str:
    """Return the one app of the settings that serves similar questions. Raises SettingsError."""
    apps = load_settings(flags).settings.apps
    names = [name for name, app in apps.items() if app.cache is not None and app.cache.semantic]
    if len(names) != 1:
        known = f"; these have it: {', '.join(names)}" if names else ""
        raise SettingsError(
            [f"name the app with --app; one with `cache: {{semantic: 1%}}` is needed{known}"]
        )
    return names[0]


def fetch(url: str, key: str | None, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Return what POST /v1/cache/explain says. Raises BadRequest if it cannot be had."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        reply = httpx.post(
            f"{url.rstrip('/')}/v1/cache/explain",
            json=wanted,
            headers=headers,
            timeout=_TIMEOUT_S,
            trust_env=False,
        )
        found: dict[str, Any] = reply.json()
        if reply.status_code != 200:
            raise BadRequest(found["error"]["message"], "")
    except (httpx.HTTPError, httpx.InvalidURL):
        raise BadRequest(f"No server answers at {url}.", "Name it with --url.") from None
    except (ValueError, KeyError, TypeError):
        raise BadRequest(f"{url} does not answer like Slipway.", "Check --url.") from None
    return found


def lines(found: Mapping[str, Any]) -> Iterator[str]:
    """Yield the explanation for a person to read."""
    yield f"{found['app']}: {found['outcome']}. {found['why']}"
    for near in found["near"]:
        refused = f"refused by the guard `{near['refused']}`" if near["refused"] else "allowed"
        yield f"  {near['similarity']:.3f}  {refused:32} {near['text']}"
    if found["score"] is not None:
        yield f"score {found['score']:.3f}: how probable it is that both have the same answer"
    if (bound := found["bound"]) is not None:
        yield from bound_lines(bound, found["questions"])


def bound_lines(bound: Mapping[str, Any], questions: int) -> Iterator[str]:
    state = "serving" if bound["serving"] else "in shadow"
    yield (
        f"{state}: {questions} questions kept; {bound['requests']} requests, {bound['served']} "
        f"answered from here, {bound['checked']} checked, {bound['reported']} reported as wrong"
    )
    yield (
        f"above the score {bound['threshold']:g}: {bound['wrong_above']} of {bound['above']} "
        f"checks were wrong; the error per hit is below {bound['per_hit']:.2%}"
    )
    yield (
        f"wrong answers served: at most {bound['wrong_served_at_most']:.0f}, "
        f"{bound['per_request']:.2%} of requests; allowed: {bound['max_error']:.2%} per "
        f"{bound['per']}"
    )
