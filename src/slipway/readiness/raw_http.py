"""An HTTP/1.1 client that hides nothing: when each piece of a response arrived, how the connection
ended, and what TLS agreed on. It follows no redirects, decodes no content, and uses no proxy.
"""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

import httptools
import msgspec

from slipway.errors import SettingsError
from slipway.providers.tls import os_error_text, tls_context
from slipway.types import Record

CONNECT_S = 5.0
READ = 64 * 1024
LARGEST = 4 * 1024 * 1024  # bytes of a response that are kept


class Address(Record, frozen=True, kw_only=True):
    """Where to send requests, and with which key; `base` is what comes before `/v1`."""

    scheme: str
    host: str
    port: int
    netloc: str
    base: str = ""
    key: str | None = None
    ca_file: str | None = None

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.netloc}{self.base}"


class NoConnection(Exception):
    """No connection could be made; the message says why."""

    def __init__(self, says: str, *, untrusted: bool = False) -> None:
        super().__init__(says)
        self.untrusted = untrusted


class BodyPiece(msgspec.Struct, frozen=True):
    """Bytes of a body, and the monotonic time at which they arrived."""

    at: float
    data: bytes


class RawResponse(msgspec.Struct, kw_only=True):
    """What came back. `ended` says how: by a complete response, a connection that was closed, or
    because the reader had enough.
    """

    sent_at: float
    status: int = 0
    headers: list[tuple[str, str]] = []
    pieces: list[BodyPiece] = []
    head_at: float | None = None
    ended_at: float = 0.0
    ended: str = "cut"
    keeps: bool = False

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key == name), None)

    @property
    def body(self) -> bytes:
        return b"".join(piece.data for piece in self.pieces)

    def json(self) -> dict[str, object] | None:
        """Return the body as a JSON object, or None if it is none."""
        try:
            found = msgspec.json.decode(self.body)
        except msgspec.DecodeError:
            return None
        return found if isinstance(found, dict) else None


def address_in(url: str, key: str | None, ca_file: str | None) -> Address:
    """Return the parts of an address. Raises SettingsError that says what is wrong with it."""
    if not url.isascii() or not url.isprintable() or " " in url:
        raise SettingsError(
            [f"--url: `{url}` holds spaces or other letters; write its ASCII form (xn--…)"]
        )
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        raise SettingsError([f"--url: `{url}` has no valid port; use 1 to 65535"]) from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise SettingsError(
            [f"--url: `{url}` is not an address; write https://HOST or http://HOST:PORT"]
        )
    if parts.username or parts.query or parts.fragment:
        raise SettingsError(
            ["--url: write only the address, without user, `?` and `#`; the key is for --key"]
        )
    if key is not None and (not key.strip() or not key.isascii() or not key.isprintable()):
        raise SettingsError(["--key: it is empty or holds characters that no key has"])
    if ca_file is not None:
        _check_authorities(ca_file)
    return Address(
        scheme=parts.scheme,
        host=parts.hostname,
        port=port or (443 if parts.scheme == "https" else 80),
        netloc=parts.netloc,
        base=parts.path.rstrip("/").removesuffix("/v1"),
        key=key,
        ca_file=ca_file,
    )


def _check_authorities(ca_file: str) -> None:
    try:
        ssl.create_default_context(cafile=ca_file)
    except FileNotFoundError:
        raise SettingsError([f"--ca: {ca_file}: there is no such file"]) from None
    except (OSError, ssl.SSLError):
        raise SettingsError([f"--ca: {ca_file}: this is no PEM file of certificates"]) from None


class _Reader:
    """Collects what the parser finds."""

    def __init__(self, response: RawResponse) -> None:
        self.response, self.complete = response, False
        self.parser = httptools.HttpResponseParser(self)

    def on_header(self, name: bytes, value: bytes) -> None:
        self.response.headers.append((name.decode("latin-1").lower(), value.decode("latin-1")))

    def on_headers_complete(self) -> None:
        self.response.status = self.parser.get_status_code()
        if self.response.status < 200:
            self.response.headers.clear()
        else:
            self.response.head_at = time.monotonic()
            self.response.keeps = self.parser.should_keep_alive()

    def on_body(self, data: bytes) -> None:
        self.response.pieces.append(BodyPiece(time.monotonic(), data))

    def on_message_complete(self) -> None:
        self.complete = self.response.status >= 200


Enough = Callable[[RawResponse], bool]
Part = bytes | float  # bytes to send, or seconds to wait before the next ones


class RawConnection:
    """One connection, for one request after the other."""

    def __init__(
        self, address: Address, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.address, self.reader, self.writer = address, reader, writer

    @property
    def tls(self) -> ssl.SSLObject | None:
        found: ssl.SSLObject | None = self.writer.get_extra_info("ssl_object")
        return found

    async def send(
        self,
        path: str,
        *,
        method: str = "GET",
        headers: dict[str, str] | None = None,
        parts: Sequence[Part] = (),
        keyed: bool = True,
        enough: Enough = lambda response: False,
    ) -> RawResponse:
        """Send a request and read its response to the end, or until the reader has `enough`."""
        address = self.address
        sent = {
            "Host": address.netloc,
            "User-Agent": "slipway-check",
            "Accept-Encoding": "identity",
            **({"Authorization": f"Bearer {address.key}"} if address.key and keyed else {}),
            **(headers or {}),
        }
        size = sum(len(part) for part in parts if isinstance(part, bytes))
        if parts or method == "POST":
            sent["Content-Length"] = str(size)
        lines = [f"{method} {address.base}{path} HTTP/1.1", *(f"{k}: {v}" for k, v in sent.items())]
        self.writer.write(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
        response = RawResponse(sent_at=time.monotonic())
        sending = asyncio.create_task(self._send_body(parts))
        try:
            await self._read(response, enough)
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
        return response

    async def _send_body(self, parts: Sequence[Part]) -> None:
        with suppress(OSError):  # a server that refuses a body may close before it is sent
            await self.writer.drain()
            for part in parts:
                if isinstance(part, bytes):
                    self.writer.write(part)
                    await self.writer.drain()
                else:
                    await asyncio.sleep(part)

    async def _read(self, response: RawResponse, enough: Enough) -> None:
        reader = _Reader(response)
        size = 0
        try:
            while not reader.complete:
                data = await self.reader.read(READ)
                if not data:
                    break
                size += len(data)
                reader.parser.feed_data(data)
                if enough(response) or size > LARGEST:
                    response.ended = "enough"
                    break
        except OSError:
            pass  # the peer reset the connection: `ended` says that it was cut
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            response.ended = "not HTTP"
        response.ended_at = time.monotonic()
        if reader.complete or (self.reader.at_eof() and _may_end_at_close(response)):
            response.ended = "complete"

    def close(self) -> None:
        """End the connection at once."""
        self.writer.transport.abort()


def _may_end_at_close(response: RawResponse) -> bool:
    sized = response.header("content-length") or response.header("transfer-encoding")
    return response.status >= 200 and sized is None


@asynccontextmanager
async def connected(
    address: Address, alpn: Sequence[str] = ("http/1.1",)
) -> AsyncIterator[RawConnection]:
    """Give a new connection. Raises NoConnection."""
    context = None
    if address.scheme == "https":
        context = tls_context(address.ca_file)
        context.set_alpn_protocols(list(alpn))
    try:
        async with asyncio.timeout(CONNECT_S):
            reader, writer = await asyncio.open_connection(
                address.host, address.port, ssl=context, limit=READ
            )
    except TimeoutError:
        raise NoConnection(f"it does not answer within {CONNECT_S:g} s") from None
    except OSError as error:
        untrusted = isinstance(error, ssl.SSLCertVerificationError)
        raise NoConnection(os_error_text(error), untrusted=untrusted) from None
    connection = RawConnection(address, reader, writer)
    try:
        yield connection
    finally:
        connection.close()


async def malformed(address: Address) -> RawResponse:
    """Send a request that every proxy rejects by itself, with a page that shows which one it is."""
    async with connected(address) as connection:
        return await connection.send("/\x01")


async def ask(
    address: Address,
    path: str,
    *,
    method: str = "GET",
    headers: dict[str, str] | None = None,
    parts: Sequence[Part] = (),
    keyed: bool = True,
    enough: Enough = lambda response: False,
) -> RawResponse:
    """Send one request on a connection of its own. Raises NoConnection."""
    async with connected(address) as connection:
        return await connection.send(
            path, method=method, headers=headers, parts=parts, keyed=keyed, enough=enough
        )


def error_in(response: RawResponse) -> dict[str, Any]:
    """Return the error of one of our own responses; empty if it is none."""
    found = (response.json() or {}).get("error")
    return found if isinstance(found, dict) and "slipway" in found else {}
