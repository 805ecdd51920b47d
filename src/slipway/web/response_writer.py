"""Write the HTTP response of a proxied answer: headers, events and heartbeats."""

import asyncio
import logging
import time

from slipway.answer import Facts
from slipway.errors import SlipwayError, log_text
from slipway.types import Language
from slipway.web.cache_headers import cache_headers
from slipway.web.error_forms import envelope
from slipway.web.event_stream import sse
from slipway.web.exchange import STATUS_LINES, Exchange, header_lines
from slipway.web.guard import JSON, STREAM
from slipway.web.runs import HEARTBEAT_S

log = logging.getLogger("slipway")
HEARTBEAT = b": still here\n\n"


JSON_HEAD = STATUS_LINES[200] + header_lines(JSON)
STREAM_HEAD = STATUS_LINES[200] + header_lines(STREAM)


class HttpResponseWriter:
    """The response of one proxied answer. `begun` is true once its headers were sent."""

    __slots__ = ("begun", "exchange", "last_write", "limits", "link", "ref", "streamed", "streams")

    def __init__(self, exchange: Exchange, answer_id: str, streams: "Heartbeats") -> None:
        self.exchange, self.link = exchange, exchange.link
        self.ref = answer_id
        self.streams = streams
        self.begun = self.streamed = False
        self.last_write = 0.0
        self.limits = b""  # header lines of the asker's limits, if an app answers

    def whole_body(self, body: bytes) -> bytes:
        """Return the body to send for a whole chat completion; other forms translate it."""
        return body

    def head(self, start: bytes, facts: Facts | None) -> bytes:
        """Return the response's head: `start`, the ids, and what describes the answer."""
        ref = self.ref.encode()
        ids = b"%b%bx-slipway-answer-id: %b\r\nx-request-id: %b\r\n" % (
            *(start, self.limits),
            *(ref, ref),
        )
        if facts is None:
            return ids
        head = (
            b"%b%bx-slipway-served-by: %b\r\nx-slipway-model: %b\r\nx-slipway-attempts: %d\r\n"
            % (
                ids,
                facts.own_limits or header_lines(facts.rate_limits),
                facts.served_by.encode(),
                facts.model.encode("latin-1", "replace"),
                facts.attempts,
            )
        )
        if facts.cost_usd is not None:
            head = b"%bx-slipway-cost-usd: %b\r\n" % (head, facts.cost_usd.encode())
        if facts.cache is not None:
            head += header_lines(cache_headers(facts.cache))
        return head

    def whole(self, body: bytes, facts: Facts) -> None:
        """Send a whole JSON response."""
        self.begun = True
        self.exchange.respond(self.head(JSON_HEAD, facts), body)

    def begin(self, facts: Facts | None = None) -> None:
        """Send the headers of a stream, once.

        A heartbeat before the first token sends them without `facts`, which are not known yet.
        """
        if not self.begun:
            self.begun = self.streamed = True
            self.exchange.begin(self.head(STREAM_HEAD, facts))

    async def beat(self) -> None:
        """Send a heartbeat."""
        self.begin()
        await self.write(HEARTBEAT)

    def take(self, events: bytes) -> bool:
        """Send encoded events at once, unless the client is slow: then return False."""
        if self.link.write_paused:
            return False
        if events:
            self.last_write = time.monotonic()
            self.exchange.write(events)
        return True

    async def write(self, events: bytes) -> None:
        """Send encoded events, and wait while the client reads too slowly."""
        while not self.take(events):
            await self.exchange.drain()
        if self.link.write_paused:
            await self.exchange.drain()

    async def fail(self, error: SlipwayError, language: Language) -> None:
        """End the stream with an error event and no `[DONE]`: the headers were already sent."""
        log.warning("%s: %s", self.ref, log_text(error))
        await self.write(sse(envelope(error, self.ref, language)))
        self.end()

    def end(self) -> None:
        """End the response."""
        self.streams.discard(self)
        self.exchange.end()


class Heartbeats:
    """Sends a comment line into each open stream that was silent for HEARTBEAT_S.

    Clients ignore the comments, and proxies keep the connection open. Streams that wait for their
    first token get them too.
    """

    def __init__(self) -> None:
        self.open: set[HttpResponseWriter] = set()
        self.timer: asyncio.TimerHandle | None = None
        self.beating: set[asyncio.Task[None]] = set()

    def add(self, writer: HttpResponseWriter) -> None:
        """Begin to send heartbeats to this stream."""
        writer.last_write = time.monotonic()
        self.open.add(writer)
        if self.timer is None:
            self.timer = asyncio.get_running_loop().call_later(1.0, self._tick)

    def discard(self, writer: HttpResponseWriter) -> None:
        """Stop the heartbeats of this stream."""
        self.open.discard(writer)

    def _tick(self) -> None:
        now = time.monotonic()
        loop = asyncio.get_running_loop()
        for writer in self.open:
            if now - writer.last_write >= HEARTBEAT_S:
                task = loop.create_task(writer.beat())
                self.beating.add(task)
                task.add_done_callback(self.beating.discard)
        self.timer = loop.call_later(1.0, self._tick) if self.open else None
