"""Run the least that a proxy in Python can be: uvicorn, one ASGI function, and a raw client.

    python bench/bare.py PORT UPSTREAM_PORT

It reads the model's name, puts the upstream's in its place, forwards the request over kept
connections, reads the usage, and passes streams on as they come. It checks nothing: no key, no limits, no timeouts, no retries, no metrics,
no broken replies, no clients that leave. So it is the ceiling that a gateway with all of these is
compared with, not a gateway to use.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import httptools
import msgspec
import uvicorn

STREAM_PATHS = {"mock-slow": b"/slow/v1/chat/completions"}  # as the settings of the others have it
UPSTREAM_NAME = b'"mock-model"'
HEAD = b"POST %b HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
HEAD += b"Authorization: Bearer sk-up\r\n"


class Asked(msgspec.Struct):
    model: str
    stream: bool = False


class Usage(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class Answered(msgspec.Struct):
    usage: Usage | None = None


decode_asked = msgspec.json.Decoder(Asked).decode
decode_answered = msgspec.json.Decoder(Answered).decode


def renamed(body: bytes, model: str) -> bytes:
    """Return the body with the upstream's name of the model."""
    start = body.index(b'"%b"' % model.encode(), body.index(b'"model"') + 7)
    return b"%b%b%b" % (body[:start], UPSTREAM_NAME, body[start + len(model) + 2 :])


class Upstream(asyncio.Protocol):
    """A kept connection; `chunks` is what came of the reply since it was last read."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop, self.parser = loop, httptools.HttpResponseParser(self)
        self.chunks: list[bytes] = []
        self.complete = False
        self.waiter: asyncio.Future[None] | None = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def send(self, head: bytes, body: bytes) -> None:
        self.chunks, self.complete = [], False
        self.transport.write(b"%bContent-Length: %d\r\n\r\n%b" % (head, len(body), body))

    def on_body(self, body: bytes) -> None:
        self.chunks.append(body)

    def on_message_complete(self) -> None:
        self.complete = True

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)

    async def wait(self) -> None:
        self.waiter = self.loop.create_future()
        await self.waiter


class Bare:
    def __init__(self, upstream: int) -> None:
        self.upstream = upstream
        self.idle: list[Upstream] = []

    async def connection(self) -> Upstream:
        if self.idle:
            return self.idle.pop()
        loop = asyncio.get_running_loop()
        _, found = await loop.create_connection(lambda: Upstream(loop), "127.0.0.1", self.upstream)
        return found

    async def __call__(
        self, scope: Any, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Any]
    ) -> None:
        message = await receive()
        body = message["body"]
        while message["more_body"]:
            message = await receive()
            body += message["body"]
        asked = decode_asked(body)
        connection = await self.connection()
        path = STREAM_PATHS.get(asked.model, b"/v1/chat/completions")
        connection.send(HEAD % path, renamed(body, asked.model))
        if asked.stream:
            await self.stream(connection, send)
        else:
            await self.whole(connection, send)
        self.idle.append(connection)

    async def whole(self, connection: Upstream, send: Callable[[Any], Any]) -> None:
        while not connection.complete:
            await connection.wait()
        body = b"".join(connection.chunks)
        decode_answered(body)
        kind, size = (b"content-type", b"application/json"), b"%d" % len(body)
        headers = [kind, (b"content-length", size)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def stream(self, connection: Upstream, send: Callable[[Any], Any]) -> None:
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        while True:
            if connection.chunks:
                data = b"".join(connection.chunks)
                connection.chunks.clear()
                await send({"type": "http.response.body", "body": data, "more_body": True})
            elif connection.complete:
                break
            else:
                await connection.wait()
        await send({"type": "http.response.body", "body": b""})


def main() -> None:
    port, upstream = map(int, sys.argv[1:])
    uvicorn.run(
        Bare(upstream),
        port=port,
        http="httptools",
        loop="uvloop",
        lifespan="off",
        log_level="error",
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
    )


if __name__ == "__main__":
    main()
