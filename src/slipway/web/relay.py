"""Send a request to the worker that keeps the documents, and pass its response on.

Workers of one server share a port, so a request about documents, answers or conversations may reach
any of them. The first worker answers it; the others pass bytes on in both directions. The first
worker checks the key itself, since it also knows the operator's key and who is signed in.
"""

import asyncio
import hmac
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import httptools

from slipway.errors import Overloaded
from slipway.web.asgi import Receive, Scope, Send
from slipway.web.exchange import Exchange, Headers

WAIT_S = 15.0  # how long a request waits for a first worker that is being started
POLL_S = 0.05
READ_BYTES = 64 * 1024
SECRET = b"x-slipway-relay"  # proves that a request comes from another worker
CLIENT = b"x-slipway-client"  # where the client connected from, `host port`
OURS = frozenset({SECRET, CLIENT})
# headers of one connection, which are not passed on (RFC 9110, 7.6.1)
HOP_BY_HOP = frozenset(
    {b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"upgrade", *OURS}
)
UNREACHED = "The process that keeps the documents is not running at the moment."
ENDED = "The process that keeps the documents ended before this request was complete."


class RelayCut(Exception):
    """The first worker ended before its response was complete."""


class Relay:
    """Passes requests to the first worker, over its Unix socket at `path`."""

    def __init__(self, path: Path, secret: bytes, is_running: Callable[[], bool]) -> None:
        self.path, self.secret, self.is_running = path, secret, is_running

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on.

        A GET is sent again, once, if the first worker ended before it answered. Raise Overloaded if
        it does not run, or ended; once a response has begun, the connection is closed instead.
        """
        tries = 2 if scope["method"] == "GET" else 1
        for left in reversed(range(tries)):
            response = Response(scope, send)
            try:
                await self._pass_on(scope, receive, response)
            except (RelayCut, OSError):
                if response.begun or not left:
                    raise Overloaded(ENDED, retry_after_s=1.0) from None
            else:
                return

    async def _pass_on(self, scope: Scope, receive: Receive, response: "Response") -> None:
        await self._wait()
        reader, writer = await asyncio.open_unix_connection(str(self.path))
        sending = asyncio.create_task(self._send(scope, receive, writer))
        try:
            while not response.complete:
                if not (data := await reader.read(READ_BYTES)):
                    raise RelayCut
                await response.feed(data)
        finally:
            sending.cancel()
            with suppress(asyncio.CancelledError, OSError):
                await sending
            writer.transport.abort()

    async def _wait(self) -> None:
        """Wait for the first worker while it starts. Raise Overloaded if that takes too long."""
        until = asyncio.get_running_loop().time() + WAIT_S
        while not self.is_running():
            if asyncio.get_running_loop().time() > until:
                raise Overloaded(UNREACHED, retry_after_s=5.0)
            await asyncio.sleep(POLL_S)

    async def _send(self, scope: Scope, receive: Receive, writer: asyncio.StreamWriter) -> None:
        """Write the request; its body is passed on as it arrives."""
        headers: Headers = scope["headers"]
        is_chunked = any(name == b"transfer-encoding" for name, _ in headers)
        writer.write(self._head(scope))
        more = True
        while more:
            message = await receive()
            part, more = message.get("body", b""), message.get("more_body", False)
            if is_chunked and part:
                writer.write(b"%x\r\n%b\r\n" % (len(part), part))
            elif part:
                writer.write(part)
            await writer.drain()
        if is_chunked:
            writer.write(b"0\r\n\r\n")

    def _head(self, scope: Scope) -> bytes:
        target = quote(scope["path"]).encode()
        if scope["query_string"]:
            target += b"?" + scope["query_string"]
        kept = [header for header in scope["headers"] if header[0] not in HOP_BY_HOP]
        host, port = scope.get("client") or ("", 0)
        kept += [(SECRET, self.secret), (CLIENT, f"{host} {port}".encode())]
        lines = b"".join(b"%b: %b\r\n" % header for header in kept)
        return b"%b %b HTTP/1.1\r\n%b\r\n" % (scope["method"].encode(), target, lines)


class Response:
    """The first worker's response, passed on as it arrives."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self.scope, self.send = scope, send
        self.begun = self.complete = False
        self._headers: Headers = []
        self._parts: list[bytes] = []
        self._has_head = self._has_end = False
        self._parser = httptools.HttpResponseParser(self)

    async def feed(self, data: bytes) -> None:
        """Pass on what these bytes complete. Raise RelayCut if they are not HTTP."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            raise RelayCut from None
        if self._has_head and not self.begun:
            self.begun = True
            status = self._parser.get_status_code()
            await self.send(
                {"type": "http.response.start", "status": status, "headers": self._headers}
            )
            self._has_end = self._has_end or self.scope["method"] == "HEAD"
        if self.begun and (self._parts or self._has_end):
            body, self._parts = b"".join(self._parts), []
            more = not self._has_end
            await self.send({"type": "http.response.body", "body": body, "more_body": more})
            self.complete = self._has_end

    # called by the parser

    def on_header(self, name: bytes, value: bytes) -> None:
        if (lower := name.lower()) not in HOP_BY_HOP and lower != b"transfer-encoding":
            self._headers.append((lower, value))

    def on_headers_complete(self) -> None:
        self._has_head = True

    def on_body(self, body: bytes) -> None:
        self._parts.append(body)

    def on_message_complete(self) -> None:
        self._has_end = True


def received(exchange: Exchange, secret: bytes) -> bool:
    """Return whether another worker passed this request on, and make it the client's.

    The headers that workers add are removed in any case: a client's own are not believed.
    """
    headers = exchange.raw_headers
    added = {name: value for name, value in headers if name in OURS}
    if not added:
        return False
    exchange.raw_headers = [header for header in headers if header[0] not in OURS]
    exchange.headers = dict(exchange.raw_headers)
    if not hmac.compare_digest(added.get(SECRET, b""), secret):
        return False
    host, _, port = added.get(CLIENT, b"").decode("latin-1").rpartition(" ")
    if host and port.isdigit():
        exchange.client = (host, int(port))
    return True
