"""The client's side of a proxied answer: head, events and heartbeats."""

import asyncio
import logging
import time

from slipway.answer import Facts
from slipway.errors import SlipwayError
from slipway.types import Language
from slipway.web.guard import JSON, STREAM, Send, respond
from slipway.web.runs import HEARTBEAT_S
from slipway.web.server import at_once
from slipway.web.wire import envelope, sse

log = logging.getLogger("slipway")
HEARTBEAT = b": still here\n\n"


class HttpResponseWriter:
    """The client's side of a proxied answer."""

    __slots__ = ("begun", "headers", "last_write", "send", "streams")

    def __init__(self, send: Send, answer_id: str, streams: "Streams") -> None:
        ref = answer_id.encode()
        self.send = send
        self.headers = [(b"x-slipway-answer-id", ref), (b"x-request-id", ref)]
        self.streams = streams
        self.begun = False
        self.last_write = 0.0

    def facts(self, facts: Facts) -> list[tuple[bytes, bytes]]:
        found = [
            *self.headers,
            (b"x-slipway-served-by", facts.served_by.encode()),
            (b"x-slipway-model", facts.model.encode("latin-1", "replace")),
        ]
        found.append((b"x-slipway-attempts", b"%d" % facts.attempts))
        if facts.cost_usd is not None:
            found.append((b"x-slipway-cost-usd", facts.cost_usd.encode()))
        return found

    async def whole(self, body: bytes, facts: Facts) -> None:
        self.begun = True
        headers = JSON + self.facts(facts)
        if not at_once(self.send, 200, headers, body):
            await respond(self.send, 200, headers, body)

    async def begin(self, facts: Facts | None = None) -> None:
        """The head; without the facts where the first words take so long that a heartbeat goes
        before them.
        """
        if not self.begun:
            self.begun = True
            headers = self.headers if facts is None else self.facts(facts)
            await self.send(
                {"type": "http.response.start", "status": 200, "headers": STREAM + headers}
            )

    async def beat(self) -> None:
        await self.begin()
        await self.write(HEARTBEAT)

    async def write(self, events: bytes) -> None:
        if events:
            self.last_write = time.monotonic()
            await self.send({"type": "http.response.body", "body": events, "more_body": True})

    async def fail(self, error: SlipwayError, ref: str, language: Language) -> None:
        """An error after the headers: an event of its own, and no [DONE]."""
        log.warning("%s: %s (%s)", ref, error.what, error.code)
        await self.write(sse(envelope(error, ref, language)))
        await self.end()

    async def end(self) -> None:
        self.streams.discard(self)
        await self.send({"type": "http.response.body", "body": b"", "more_body": False})


class Streams:
    """The streams under way, also those that wait for their first words: one that has been silent
    for HEARTBEAT_S gets a comment, which clients ignore and proxies count as life.
    """

    def __init__(self) -> None:
        self.open: set[HttpResponseWriter] = set()
        self.timer: asyncio.TimerHandle | None = None
        self.beating: set[asyncio.Task[None]] = set()

    def add(self, writer: HttpResponseWriter) -> None:
        writer.last_write = time.monotonic()
        self.open.add(writer)
        if self.timer is None:
            self.timer = asyncio.get_running_loop().call_later(1.0, self._tick)

    def discard(self, writer: HttpResponseWriter) -> None:
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
