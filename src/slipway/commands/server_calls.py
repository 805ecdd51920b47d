"""Call a running server for a command: the one that `--url` names, or that of the settings."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import httpx

from slipway.app.banner import address_of, local_address
from slipway.app.loading import load_settings
from slipway.errors import BadRequest
from slipway.settings import Flags, Settings
from slipway.store import file_of, holder_of

TIMEOUT_S = 30


class ServerPlace(NamedTuple):
    """Where a server is: at `url`, else where the settings say."""

    flags: Flags
    url: str | None
    key: str | None


class NoServer(BadRequest):
    """No server answers at an address."""


def call_server(
    place: ServerPlace,
    method: str,
    path: str,
    *,
    body: Any = None,
    query: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Return what the server answers. Raise NoServer if there is none, else BadRequest."""
    url, key = (place.url, place.key) if place.url else local_server(place.flags, place.key)
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        reply = httpx.request(
            method,
            f"{url.rstrip('/')}{path}",
            params=query,
            json=body,
            headers=headers,
            timeout=TIMEOUT_S,
            trust_env=False,
        )
        found: dict[str, Any] = reply.json()
        if reply.status_code != 200:
            raise BadRequest(found["error"]["message"], "")
    except (httpx.HTTPError, httpx.InvalidURL):
        raise NoServer(f"No server answers at {url}.", "Name it with --url.") from None
    except (ValueError, KeyError, TypeError):
        raise BadRequest(f"{url} does not answer like Slipway.", "Check --url.") from None
    return found


def local_server(flags: Flags, key: str | None) -> tuple[str, str | None]:
    """Return the address of the server of these settings, and the key to ask it with.

    If the server uses their store, the key is the operator's, which the store's lock holds.
    """
    settings: Settings = load_settings(flags).settings
    holder = holder_of(file_of(settings))
    if holder is not None and holder.url:
        return holder.url, key or holder.token
    return address_of(local_address((settings.listen.host, settings.listen.port))), key
