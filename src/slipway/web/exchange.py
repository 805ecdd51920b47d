"""One request and its response, on the wire: the body as it arrives, and bytes to the client.

Chat requests are answered through this alone; all others through ASGI, by the adapter in
`asgi.py`.
"""

import asyncio
from collections.abc import Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Protocol

from slipway.types import Asker

if TYPE_CHECKING:
    from slipway.errors import SlipwayError
    from slipway.types import Language

Headers = list[tuple[bytes, bytes]]
HIGH_WATER = 64 * 1024  # bytes of a body that wait for their reader; then the client waits
CLOSE = b"connection: close\r\n"
CHUNKED = b"transfer-encoding: chunked\r\n"
LAST_CHUNK = b"0\r\n\r\n"


def status_line(status: int) -> bytes:
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = ""
    return f"HTTP/1.1 {status} {phrase}\r\n".encode()


STATUS_LINES = {status: status_line(status) for status in range(100, 600)}


def header_lines(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return headers as they are sent."""
    return b"".join([b"%b: %b\r\n" % header for header in headers])


class Link(Protocol):
    """What an exchange needs of its connection."""

    loop: asyncio.AbstractEventLoop
    write_paused: bool

    def resume_reading(self) -> None: ...

    def pause_reading(self) -> None: ...

    def keep_reading(self) -> None: ...

    def exchange_ended(self) -> None: ...

    def task_ended(self, task: "asyncio.Task[None]") -> None: ...

    async def drain(self) -> None: ...


class StreamWriter(Protocol):
    """A response in OpenAI's form: whether it has begun, and whether it is a stream."""

    begun: bool
    streamed: bool

    async def fail(self, error: "SlipwayError", language: "Language") -> None:
        """End the stream with an error event."""
        ...


class Exchange:
    """One request, and the response to it: either `respond`, or `begin`, `write`... and `end`.

    `asker`, `person`, `ref`, `writer` and `scope` are set on the way. Bytes for a client that has
    gone are dropped.
    """

    __slots__ = (
        "asker",
        "awaits_continue",
        "began_at",
        "begun",
        "client",
        "complete",
        "cors",
        "disconnected",
        "error",
        "head",
        "headers",
        "keep_alive",
        "link",
        "method",
        "over",
        "parts",
        "passed_on",
        "path",
        "person",
        "raw_headers",
        "ref",
        "said",
        "scope",
        "sent_body",
        "size",
        "task",
        "transport",
        "url",
        "version",
        "waiter",
        "writer",
    )

    def __init__(
        self,
        link: Link,
        transport: asyncio.Transport,
        method: str,
        url: bytes,
        raw_headers: Headers,
        *,
        keep_alive: bool,
    ) -> None:
        self.link, self.transport = link, transport
        self.method, self.url, self.raw_headers = method, url, raw_headers
        self.headers = dict(raw_headers)
        self.keep_alive = keep_alive
        self.version = "1.1"
        self.head = b""  # of the response, once it has begun
        self.passed_on = False  # to another process, which logs it
        # what was sent in both directions, if the log has content
        self.sent_body: bytes | None = None
        self.said: list[bytes] | None = None
        self.client: tuple[str, int] | None = None  # if another process passed the request on
        self.path = ""
        self.error: str | None = None  # the code of the error that was sent
        self.began_at = 0.0  # set if requests are logged
        self.cors = b""
        self.parts: list[bytes] = []
        self.size = 0  # bytes in `parts`
        self.complete = False  # the whole body is here
        self.begun = self.over = self.disconnected = self.awaits_continue = False  # the response
        self.asker: Asker | None = None
        self.person: Any = None
        self.ref: str | None = None
        self.writer: StreamWriter | None = None
        self.scope: dict[str, Any] | None = None
        self.task: asyncio.Task[None] | None = None
        self.waiter: asyncio.Future[None] | None = None

    # The request's body
    def body_arrived(self, data: bytes) -> None:
        if self.over:
            return
        self.parts.append(data)
        if self.task is None:  # nobody waits for it yet
            return
        self.size += len(data)
        if self.size > HIGH_WATER:
            self.link.pause_reading()
        self.wake()

    def body_ended(self) -> None:
        self.complete = True
        self.wake()

    def wake(self) -> None:
        """Continue whoever waits for the body or for the end of the exchange."""
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)

    async def wait(self) -> None:
        """Wait until something has changed: the body, the connection, or the response."""
        self.waiter = self.link.loop.create_future()
        try:
            await self.waiter
        finally:
            self.waiter = None

    async def part(self) -> bytes:
        """Return the next bytes of the body; b"" at its end, or if the client has gone."""
        if self.awaits_continue and not self.begun:
            self.awaits_continue = False
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        while not self.parts:
            if self.complete or self.disconnected or self.over:
                return b""
            self.link.resume_reading()
            await self.wait()
        data = self.parts[0] if len(self.parts) == 1 else b"".join(self.parts)
        self.parts, self.size = [], 0
        return data

    def keep_reading(self) -> None:
        """Restart the timeout of a body that may take long, such as a slow upload."""
        self.link.keep_reading()

    # The response. `head` is the status line and the headers, without the blank line after them
    def respond(self, head: bytes, body: bytes) -> None:
        """Send a whole response with one write."""
        if self.disconnected or self.over:
            return
        self.begun, self.head = True, head
        if self.said is not None:
            self.said.append(body)
        close = b"" if self.keep_alive else CLOSE
        self.transport.write(
            b"%b%bcontent-length: %d\r\n%b\r\n%b" % (head, self.cors, len(body), close, body)
        )
        self.finish()

    def begin(self, head: bytes) -> None:
        """Send the head of a response whose length is not known. A heartbeat may come too late."""
        if self.over:
            return
        self.begun, self.head = True, head
        if not self.disconnected:
            close = b"" if self.keep_alive else CLOSE
            self.transport.write(b"%b%b%b%b\r\n" % (head, self.cors, close, CHUNKED))

    def write(self, data: bytes) -> None:
        """Send a part of the body. If `link.write_paused` is true afterwards, await `drain`."""
        if not (self.disconnected or self.over):
            if self.said is not None:
                self.said.append(data)
            self.transport.write(b"%x\r\n%b\r\n" % (len(data), data))

    async def drain(self) -> None:
        """Wait until the client has read enough for more to be written."""
        if self.link.write_paused and not self.disconnected:
            await self.link.drain()

    def end(self) -> None:
        """End a response that `begin` began."""
        if not (self.disconnected or self.over):
            self.transport.write(LAST_CHUNK)
            self.finish()

    def finish(self) -> None:
        """Record that the response is complete."""
        self.over = True
        if self.waiter is not None:
            self.wake()
        if not self.keep_alive:
            self.transport.close()
        self.link.exchange_ended()

    def close(self) -> None:
        """End the work on this exchange. A response that is incomplete is cut with its
        connection.
        """
        if self.task is not None:
            self.link.task_ended(self.task)
        if not (self.over or self.disconnected):
            self.transport.close()

    def left(self) -> None:
        """Record that the client has gone; the work for it is cancelled if it is not over."""
        self.disconnected = True
        self.wake()
        if not self.over and self.task is not None:
            self.task.cancel()


class OldExchange(Exchange):
    """An exchange with a client of HTTP/1.0, which knows no chunks (RFC 9112, 6.1): a response whose
    length is not known ends with its connection.
    """

    __slots__ = ()

    def begin(self, head: bytes) -> None:
        if self.over:
            return
        self.begun, self.head = True, head
        if not self.disconnected:
            self.transport.write(b"%b%b%b\r\n" % (head, self.cors, CLOSE))

    def write(self, data: bytes) -> None:
        if not (self.disconnected or self.over):
            if self.said is not None:
                self.said.append(data)
            self.transport.write(data)

    def end(self) -> None:
        if not (self.disconnected or self.over):
            self.finish()
