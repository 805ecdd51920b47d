"""The HTTP client that providers need: one origin, and replies that are read as they arrive."""

import math
from collections.abc import Callable
from typing import Protocol
from urllib.parse import urlsplit

import msgspec

from slipway.errors import ProviderError

LARGEST_REPLY = 64 * 1024 * 1024

MayResend = Callable[[], bool]
# Takes bytes of a body as they arrive; False leaves them to the reader, who is woken
Sink = Callable[[bytes], bool]


def always() -> bool:
    """Allow every resend."""
    return True


class Timeouts(msgspec.Struct, frozen=True):
    """Seconds to connect (with TLS), from sending to the first byte, and of silence
    inside a reply.
    """

    connect_s: float = 5.0
    first_byte_s: float = 60.0
    between_bytes_s: float = 30.0


class HttpReply(Protocol):
    """A reply whose head has arrived. Exactly one task reads it. `close` must be called in any
    case, and may be called twice.
    """

    status: int

    @property
    def is_complete(self) -> bool:
        """Return whether all that is still to be read has arrived."""
        ...

    def divert(self, sink: Sink | None) -> None:
        """Hand bytes that arrive while the reader waits in `chunk` to `sink` first. A client that
        cannot do so may ignore this.
        """
        ...

    def header(self, name: bytes) -> bytes | None:
        """Return the first value of a header; `name` in lower case."""
        ...

    def headers_with(self, prefix: bytes) -> list[tuple[bytes, bytes]]:
        """Return the headers whose names begin with `prefix`, in lower case."""
        ...

    async def read(self) -> bytes:
        """Return the whole body."""
        ...

    async def chunk(self) -> bytes:
        """Return the next bytes of the body as they arrive; b"" is its proper end. Raises
        ProviderCut if it was cut.
        """
        ...

    def limit(self, until: float) -> None:
        """Set the time after which the rest is too late and raises ProviderSlow."""
        ...

    def close(self, *, nearly_done: bool = False) -> None:
        """Keep the connection if the reply was read to its end; otherwise end it at once.

        With `nearly_done`, the reader needs nothing more, and the connection has DRAIN_S to reach
        the reply's end by itself.
        """
        ...


class Client(Protocol):
    """The interface to one origin. `head` is the request's head without Content-Length, as
    `head_of` makes it.
    """

    async def send(
        self, head: bytes, body: bytes, until: float = math.inf, *, may_resend: MayResend = always
    ) -> HttpReply:
        """Send a request and return the reply once its head is here. `until` as in
        `HttpReply.limit`. `may_resend` is called before the request is sent a second time, which
        happens if a kept connection turns out to be closed.
        """
        ...

    def retire(self) -> None:
        """Keep no connection from now on: idle ones end at once, the others with their reply.
        Requests can still be sent.
        """
        ...

    async def close(self) -> None: ...


def head_of(method: str, url: str, headers: dict[str, str]) -> bytes:
    """Return the fixed part of a request's head. Raises ValueError for a line break in it."""
    parts = urlsplit(url)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    lines = [
        f"{method} {target} HTTP/1.1",
        f"Host: {parts.netloc.rpartition('@')[2]}",
        *(f"{k}: {v}" for k, v in headers.items()),
    ]
    if any(c in line for line in lines for c in "\r\n\0"):
        raise ValueError("a line break in a URL or header")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n"


def unsent(error: ProviderError) -> ProviderError:
    """Mark an error that came before anything was sent."""
    error.before_sending = True
    return error
