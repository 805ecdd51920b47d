"""One HTTP/1.1 connection of the mock: requests parsed from bytes, replies written to the byte and
to the millisecond.

A raw asyncio protocol, because an ASGI server decides by itself how to write and when to close.
Pipelined requests are answered in order. asyncio and uvloop both set TCP_NODELAY.
"""

import asyncio
import socket
import struct
import time
from collections import deque
from collections.abc import Callable
from http import HTTPStatus
from typing import NamedTuple, cast

import httptools

from slipway.providers.mock.invoice import CallBill
from slipway.providers.mock.refusals import refusal
from slipway.providers.mock.reply import MockReply
from slipway.providers.mock.settings import RecordedRequest

BODY_LIMIT = 64 * 1024 * 1024
# uvloop's timers count in milliseconds; without this, a timer that fires early would spin
SLACK_S = 0.0005
LINGER_NONE = struct.pack("ii", 1, 0)  # SO_LINGER on, 0 s: closing sends RST

Answer = Callable[[RecordedRequest, bytes], MockReply]
Charge = Callable[[CallBill, int], None]  # what a call costs, and how many tokens were sent


class Request(NamedTuple):
    """A request in the queue. `refused` is the reply to one that cannot be understood; nothing
    follows it.
    """

    seen: RecordedRequest
    body: bytes
    keep_alive: bool
    chunked: bool  # the client understands chunked bodies: it speaks HTTP/1.1
    refused: MockReply | None = None


class MockConnection(asyncio.Protocol):
    """One client's connection, with its queue of requests."""

    def __init__(
        self, answer: Answer, connections: "set[MockConnection]", charge: Charge | None = None
    ) -> None:
        self._answer, self.charge = answer, charge
        self._connections = connections
        self._loop = asyncio.get_running_loop()
        self.lost = self._loop.create_future()
        self._parser = httptools.HttpRequestParser(self)
        self._waiting: deque[Request] = deque()
        self._sending: Sending | None = None
        self._begin()

    def _begin(self) -> None:
        self._url = b""
        self._headers: dict[str, str] = {}
        self._body = bytearray()

    # asyncio calls these

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self._connections.add(self)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if self._parser.get_method() == b"CONNECT":
                self._refuse(refusal(400, "This is not a proxy."))
            else:
                self._decline_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            self._refuse(refusal(400, f"The request is not HTTP: {error}."))
        self._advance()

    def connection_lost(self, exc: Exception | None) -> None:
        now = time.monotonic()
        if self._sending:
            self._sending.request.seen.closed_at = now
        for request in self._waiting:
            request.seen.closed_at = now
        self._stop()
        self._connections.discard(self)
        self.lost.set_result(None)

    def pause_writing(self) -> None:
        if self._sending:
            self._sending.pause()

    def resume_writing(self) -> None:
        if self._sending:
            self._sending.resume()

    # httptools calls these

    def on_message_begin(self) -> None:
        self._begin()

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        self._headers[key] = f"{self._headers[key]}, {text}" if key in self._headers else text

    def on_headers_complete(self) -> None:
        if int(self._headers.get("content-length", "0")) > BODY_LIMIT:
            self._too_large()
        elif (
            self._headers.get("expect", "").lower() == "100-continue"
            and not self._sending
            and not self._waiting
        ):
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, data: bytes) -> None:
        self._body += data
        if len(self._body) > BODY_LIMIT:
            self._too_large()

    def on_message_complete(self) -> None:
        if self._parser.should_upgrade():
            return  # HttpParserUpgrade follows
        chunked = self._parser.get_http_version() != "1.0"
        self._waiting.append(
            Request(self._seen(), bytes(self._body), self._parser.should_keep_alive(), chunked)
        )
        self._body = bytearray()

    # our own

    def _seen(self) -> RecordedRequest:
        method = self._parser.get_method().decode("latin-1")
        return RecordedRequest(
            method=method,
            path=self._url.decode("latin-1"),
            headers=self._headers,
            arrived_at=time.monotonic(),
        )

    def _decline_upgrade(self, rest: bytes) -> None:
        """Parse the request again without its Upgrade (h2c, say), as RFC 9110 7.8 allows: with it,
        the parser reads no body.
        """
        lines = [f"{self._parser.get_method().decode()} {self._url.decode('latin-1')} HTTP/1.1"]
        lines += [
            f"{name}: {value}"
            for name, value in self._headers.items()
            if name not in {"upgrade", "connection"}
        ]
        self._parser = httptools.HttpRequestParser(self)
        self.data_received("\r\n".join([*lines, "", ""]).encode("latin-1") + rest)

    def _too_large(self) -> None:
        self._refuse(refusal(413, f"The body is over {BODY_LIMIT >> 20} MiB."))

    def _refuse(self, reply: MockReply) -> None:
        """Answer a request that cannot be read, then close; what follows it is discarded."""
        if not self.transport.is_closing() and not (self._waiting and self._waiting[-1].refused):
            self.transport.pause_reading()
            self._waiting.append(
                Request(self._seen(), b"", keep_alive=False, chunked=True, refused=reply)
            )

    def _advance(self) -> None:
        """Begin the next reply, unless one is in progress."""
        while self._waiting and not self._sending and not self.transport.is_closing():
            request = self._waiting.popleft()
            reply = request.refused or self._answer(request.seen, request.body)
            self._sending = Sending(self, request, reply, self.charge)
            self._sending.start()

    def is_writing_for(self, tail: str) -> bool:
        """Return whether a reply to a path that ends so is in progress."""
        return self._sending is not None and self._sending.request.seen.path.endswith(tail)

    def drop(self) -> None:
        """End the connection at once, with any reply in progress."""
        self._stop()
        self.transport.abort()

    def hang_up(self) -> None:
        """End the connection at once; a reply that was written in full still arrives."""
        if self._sending:
            self.drop()
        else:
            self.transport.close()

    def ended(self, reply: MockReply, request: Request) -> None:
        """Record that a reply's last byte is written, or never will be."""
        if reply.ending == "keep" and request.keep_alive:
            self._sending = None
            self._loop.call_soon(self._advance)
            return
        if reply.ending != "hold":
            self._stop()
            self._close(reset=reply.ending == "reset")

    def _close(self, *, reset: bool) -> None:
        if not reset:
            self.transport.close()
            return
        self.transport.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NONE
        )
        self.transport.abort()

    def _stop(self) -> None:
        if self._sending:
            self._sending.stop()
        self._sending = None
        self._waiting.clear()


class Sending:
    """One reply being sent. Each piece is due at a time counted from the start, so that a late one
    delays no other.
    """

    def __init__(
        self,
        connection: MockConnection,
        request: Request,
        reply: MockReply,
        charge: Charge | None,
    ) -> None:
        self.request = request
        answers = reply.status == 200 and (reply.head or reply.ending == "hold")
        self._charge = charge if answers and reply.ending != "reset" else None
        self._connection = connection
        self._write = connection.transport.write
        self._reply = reply
        self._framed = reply.length is None and request.chunked
        self._loop = asyncio.get_running_loop()
        self._started_at = self._loop.time()
        self._next = -1  # the head, then the writes
        self._paused = False
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        if self._reply.head:
            self._tick()
        else:
            self._connection.ended(self._reply, self.request)

    def stop(self) -> None:
        if self._timer:
            self._timer.cancel()
        self._bill()

    def _bill(self) -> None:
        """Charge for what was sent, once."""
        charge, bill, writes = self._charge, self._reply.bill, self._reply.writes
        self._charge = None
        if charge is None or bill is None:
            return
        if self._reply.length is None:  # a stream
            charge(bill, sum(write.content for write in writes[: max(0, self._next)]))
        else:
            is_whole = self._next >= len(writes) and self._reply.ending == "keep"
            charge(bill, bill.output_tokens if is_whole else 0)

    def pause(self) -> None:
        self._paused = True

    def resume(self) -> None:
        self._paused = False
        if self._timer is None:
            self._tick()

    def _tick(self) -> None:
        self._timer = None
        now = self._loop.time() + SLACK_S
        writes = self._reply.writes
        while self._next < len(writes):
            if self._paused:
                return
            due = self._started_at + (
                self._reply.at_s if self._next < 0 else writes[self._next].at_s
            )
            if due > now:
                self._timer = self._loop.call_at(due, self._tick)
                return
            self._send(self._next)
            self._next += 1
        self._end()

    def _send(self, index: int) -> None:
        if index < 0:
            self._write(head(self._reply, self.request))
            return
        data = self._reply.writes[index].data
        if self.request.seen.method != "HEAD":
            self._write(b"%x\r\n%b\r\n" % (len(data), data) if self._framed else data)
        self.request.seen.sent.append(time.monotonic())

    def _end(self) -> None:
        if self._reply.ending != "hold":
            self._bill()
        if self._framed and self._reply.ending == "keep":
            self._write(b"0\r\n\r\n")
        self._connection.ended(self._reply, self.request)


def head(reply: MockReply, request: Request) -> bytes:
    """Return the status line and headers. Without a length, HTTP/1.0 sees the end of the body by
    the end of the connection.
    """
    lines = [
        f"HTTP/1.1 {reply.status} {_phrase(reply.status)}",
        *(f"{name}: {value}" for name, value in reply.headers),
    ]
    if reply.length is not None:
        lines.append(f"Content-Length: {reply.length}")
    elif request.chunked:
        lines.append("Transfer-Encoding: chunked")
    if not request.keep_alive or (reply.length is None and not request.chunked):
        lines.append("Connection: close")
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"
