"""The headers of the cache: what a request wants of it, and what it did for the reply."""

from collections.abc import Mapping
from urllib.parse import quote

from slipway.errors import BadRequest
from slipway.types import CacheFacts, CacheWish
from slipway.web.exchange import Headers

NAME = b"x-slipway-cache"
WISHES: dict[bytes, CacheWish] = {
    b"off": "off",
    b"refresh": "refresh",
    b"only": "only",
    b"use": "use",
}


def wish_of(headers: Mapping[bytes, bytes]) -> CacheWish:
    """Return what the request wants of the cache. Raise BadRequest for an unknown word."""
    sent = headers.get(NAME)
    if sent is None:
        return "use"
    wish = WISHES.get(sent.strip().lower())
    if wish is None:
        raise BadRequest(
            f"`x-slipway-cache: {sent[:50].decode('latin-1')}` is unknown.",
            "Send `off`, `refresh` or `only`, or leave it out.",
            param="x-slipway-cache",
        )
    return wish


def cache_headers(facts: CacheFacts) -> Headers:
    """Return the headers that say what the cache did."""
    found = [(NAME, facts.state.encode())]
    if facts.key is not None:
        found.append((b"x-slipway-cache-key", facts.key.encode()))
    if facts.age_s is not None:
        found.append((b"age", b"%d" % facts.age_s))
    if facts.similarity is not None:
        found.append((b"x-slipway-cache-similarity", f"{facts.similarity:.4f}".encode()))
    if facts.question is not None:
        found.append((b"x-slipway-cache-question", quote(facts.question).encode()))
    if facts.saved is not None and facts.saved.usd is not None:
        found.append((b"x-slipway-saved-usd", facts.saved.usd.encode()))
    if facts.saved is not None and facts.saved.usage is not None:
        usage = facts.saved.usage
        found.append(
            (b"x-slipway-saved-tokens", b"%d" % (usage.input_tokens + usage.output_tokens))
        )
    return found
