"""Write the HTTP response of a proxied answer: headers, events and heartbeats."""

import asyncio
import logging
import time

from slipway.answer import Facts
from slipway.errors import SlipwayError
from slipway.types import Language
from slipway.web.cache_headers import cache_headers
from slipway.web.guard import JSON, STREAM, Send, respond
from slipway.web.runs import HEARTBEAT_S
from slipway.web.server import write_whole
from slipway.web.wire import envelope, sse

log = logging.getLogger("slipway")
HEARTBEAT = b": still here\n\n"


class HttpResponseWriter:
    """The response of one proxied answer. `begun` is true once its headers were sent."""

    __slots__ = ("begun", "headers", "last_write", "ref", "send", "streamed", "streams")

    def __init__(self, send: Send, answer_id: str, streams: "Heartbeats") -> None:
        self.ref = answer_id
        ref = answer_id.encode()
        self.send = send
        self.headers = [(b"x-slipway-answer-id", ref), (b"x-request-id", ref)]
        self.streams = streams
        self.begun = self.streamed = False
        self.last_write = 0.0

    def whole_body(self, body: bytes) -> bytes:
        """Return the body to send for a whole chat completion; other forms translate it."""
        return body

    def facts(self, facts: Facts) -> list[tuple[bytes, bytes]]:
        """Return the response headers that describe the answer."""
        found = [
            *self.headers,
            *facts.rate_limits,
            (b"x-slipway-served-by", facts.served_by.encode()),
            (b"x-slipway-model", facts.model.encode("latin-1", "replace")),
        ]
        found.append((b"x-slipway-attempts", b"%d" % facts.attempts))
        if facts.cost_usd is not None:
            found.append((b"x-slipway-cost-usd", facts.cost_usd.encode()))
        if facts.cache is not None:
            found += cache_headers(facts.cache)
        return found

    async def whole(self, body: bytes, facts: Facts) -> None:
        """Send a whole JSON response."""
        self.begun = True
        headers = JSON + self.facts(facts)
        if not write_whole(self.send, 200, headers, body):
            await respond(self.send, 200, headers, body)

    async def begin(self, facts: Facts | None = None) -> None:
        """Send the headers of a stream, once.

        A heartbeat before the first token sends them without `facts`, which are not known yet.
        """
        if not self.begun:
            self.begun = self.streamed = True
            headers = self.headers if facts is None else self.facts(facts)
            await self.send(
                {"type": "http.response.start", "status": 200, "headers": STREAM + headers}
            )

    async def beat(self) -> None:
        """Send a heartbeat."""
        await self.begin()
        await self.write(HEARTBEAT)

    async def write(self, events: bytes) -> None:
        """Send encoded events."""
        if events:
            self.last_write = time.monotonic()
            await self.send({"type": "http.response.body", "body": events, "more_body": True})

    async def fail(self, error: SlipwayError, language: Language) -> None:
        """End the stream with an error event and no `[DONE]`: the headers were already sent."""
        log.warning("%s: %s (%s)", self.ref, error.what, error.code)
        await self.write(sse(envelope(error, self.ref, language)))
        await self.end()

    async def end(self) -> None:
        """End the response."""
        self.streams.discard(self)
        await self.send({"type": "http.response.body", "body": b"", "more_body": False})


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
