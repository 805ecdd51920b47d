"""`slipway trace`: what happened to an answer, as the server that gave it remembers."""

import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

import httpx

from slipway.errors import BadRequest
from slipway.settings import Flags
from slipway.store import file_of, holder_of

LEAD = (
    "ended_at",
    "error",
    "duration_s",
    "ttft_s",
)  # what the first line of a record says, beside its name
USUAL = {"role": "primary", "kind": "first", "used": True}  # not worth a word


def traced(ref: str, flags: Flags, url: str | None, key: str | None) -> dict[str, Any]:
    """The trace that the server has, as GET /v1/traces/{id} gives it. Raises BadRequest where it
    has none, or cannot be asked.
    """
    if not re.fullmatch(r"[\w-]+", ref, re.ASCII):
        raise BadRequest(f"`{ref}` is no reference.", "References begin with `ans-` or `ref-`.")
    url, key = (url, key) if url else here(flags, key)
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


def here(flags: Flags, key: str | None) -> tuple[str, str | None]:
    """The address of the server of these settings, and the key to ask it with: the operator's,
    where it uses their store.
    """
    from slipway.app import address_of, loaded, reached

    settings = loaded(flags).settings
    holder = holder_of(file_of(settings.store))
    if holder is not None and holder.url:
        return holder.url, key or holder.token
    return address_of(reached((settings.listen.host, settings.listen.port))), key


def lines(trace: Mapping[str, Any]) -> Iterator[str]:
    """What a person reads: each call to a model, and below them what came of the try."""
    yield trace["id"]
    for each in trace["tries"]:
        for attempt in each["attempts"]:
            yield from record_lines(f"model {attempt['model']}", attempt, "model")
        if each["answer"] is not None:
            yield from record_lines(f"answer of {each['answer']['app']}", each["answer"], "app")
        else:
            yield "  under way"


def record_lines(name: str, record: Mapping[str, Any], named: str) -> Iterator[str]:
    """Two lines: how it ended, and the rest of its fields that say anything, whatever they are."""
    clock = datetime.fromtimestamp(record["ended_at"]).astimezone().strftime("%H:%M:%S")
    first = f", first words after {record['ttft_s']:.2f} s" if record["ttft_s"] is not None else ""
    yield f"  {clock}  {name}: {record['error'] or 'done'} after {record['duration_s']:.2f} s{first}"
    rest = {
        field: value
        for field, value in record.items()
        if field not in (*LEAD, named) and says_anything(field, value)
    }
    if rest:
        yield f"            {plain(rest)}"


def says_anything(field: str, value: Any) -> bool:
    return value != USUAL[field] if field in USUAL else value not in (None, "", [], {}, 0, False)


def plain(value: Any) -> str:
    """A value of JSON on one line."""
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
