"""Test connections byte by byte: heads that never end, in both directions, and how the bytes of a
model's stream reach a client that reads, reads slowly, or has gone.
"""

import asyncio
import inspect
import json
import logging
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from provider_faults import full
from slipway.app.building import build
from slipway.providers.client import Timeouts
from slipway.providers.http import Pool
from slipway.settings import Limits, ModelSettings, RouteEntry, Settings
from slipway.web.connection import ClientConnection, connection_class
from waiting import PATIENCE_S

MIB = 1024 * 1024
HEADER_KB = 8
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
LAST = b"0\r\n\r\n"
TEXT = re.compile(rb'"content":"([^"]*)"')
Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def event(text: str, finish: str | None = None) -> bytes:
    """Return an event of a stream as one HTTP chunk."""
    delta = {"content": text} if text else {}
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return chunk(
        b"data: %b\n\n" % json.dumps({"choices": [choice]}, separators=(",", ":")).encode()
    )


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


END = event("", "stop") + chunk(b"data: [DONE]\n\n") + LAST


class Upstream:
    """A provider that does what each script says, one for each call; `bodies` are the requests."""

    def __init__(self, scripts: tuple[Script, ...]) -> None:
        self.scripts, self.bodies = list(scripts), list[bytes]()
        self.taken = 0  # bytes that were written and taken from us
        self.closed = asyncio.Event()  # the gateway has closed the connection
        self.running: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.running.add(task)
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(re.findall(rb"(?i)content-length: (\d+)", head)[0])
        self.bodies.append(await reader.readexactly(length))
        try:
            if self.scripts:
                await self.scripts.pop(0)(reader, writer)
        except ConnectionError:
            pass
        finally:
            self.closed.set()
            writer.transport.abort()
            self.running.discard(task)


class Gateway:
    """A guard that listens in this process, in front of an upstream."""

    def __init__(self, port: int, upstream: Upstream, connections: set[ClientConnection]) -> None:
        self.port, self.upstream, self.connections = port, upstream, connections
        self.clients: list[asyncio.StreamWriter] = []

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=64 * MIB)
        self.clients.append(writer)
        return reader, writer

    async def close(self) -> None:
        for client in self.clients:
            client.transport.abort()
        if self.upstream.running:
            await asyncio.wait(self.upstream.running, timeout=PATIENCE_S)
        await asyncio.sleep(0.01)  # the server's side of the connections ends

    async def stream(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Ask for a stream, and return the connection."""
        reader, writer = await self.connect()
        writer.write(request("r"))
        return reader, writer


def request(model: str, *, stream: bool = True) -> bytes:
    body = {"model": model, "stream": stream, "messages": [{"role": "user", "content": "Hello"}]}
    return post(json.dumps(body).encode())


def post(body: bytes) -> bytes:
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
    kind = b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
    return head + kind + body


@asynccontextmanager
async def gateway(folder: Path, *scripts: Script) -> AsyncIterator[Gateway]:
    upstream = Upstream(scripts)
    server = await asyncio.start_server(upstream.serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    model = ModelSettings(base_url=url, retries=0)
    settings = Settings(
        models={"m": model, "n": model},
        routes={"r": (RouteEntry(model="m"), RouteEntry(model="n"))},
        limits=Limits(header_kb=HEADER_KB),
        store=f"sqlite:///{folder}/slipway.db",
    )
    guard = build(settings)
    connections, state = connection_class(guard.current, guard), ServerState()
    loop = asyncio.get_running_loop()
    listening = await loop.create_server(lambda: connections(None, state, {}), "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    running = Gateway(port, upstream, state.connections)  # type: ignore[arg-type]
    try:
        yield running
    finally:
        await running.close()
        listening.close()
        server.close()
        for model_ in guard.current.pipeline.routes["r"].candidates:
            await model_.model.close()


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def timed() -> None:
        async with asyncio.timeout(PATIENCE_S):
            await test()

    asyncio.run(timed())


async def endless(writer: asyncio.StreamWriter, part: bytes) -> int:
    """Write a part again and again until the other side closes; return how many bytes it took."""
    sent = 0
    try:
        while not writer.transport.is_closing() and sent < 64 * MIB:
            writer.write(part)
            await writer.drain()
            sent += len(part)
            await asyncio.sleep(0)
    except ConnectionError:
        pass
    return sent


HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
CHUNKED = HEAD + b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"


# Heads


@pytest.mark.parametrize(
    ("begin", "part"),
    [
        (HEAD + b"X-Endless: ", b"x" * 4096),
        (HEAD + b"x", b"x" * 4096),
        (b"GET /", b"x" * 4096),
        (HEAD, b"X-Field: 1\r\n" * 300),
        (CHUNKED + b"2\r\n{}\r\n0\r\nX-Trailer: ", b"x" * 4096),
        (CHUNKED + b"2\r\n{}\r\n0\r\n", b"X-Trailer: 1\r\n" * 300),
        (CHUNKED + b"2;extension=", b"x" * 4096),
    ],
    ids=["value", "name", "target", "fields", "trailer", "trailers", "chunk extension"],
)
def test_a_client_that_never_ends_its_head_is_refused(
    tmp_path: Path, begin: bytes, part: bytes
) -> None:
    async def test() -> None:
        async with gateway(tmp_path) as server:
            reader, writer = await server.connect()
            writer.write(begin)
            receiving = asyncio.ensure_future(reader.read())
            sent = await endless(writer, part)
            assert sent < 4 * MIB  # what the sockets hold, and the limit
            with_end = await asyncio.gather(receiving, return_exceptions=True)
            if isinstance(with_end[0], bytes):  # or it was reset while it still sent
                assert b"HTTP/1.1 431 " in with_end[0]
            assert not server.connections

    run(test)


def test_a_head_in_many_packets_is_counted_once(tmp_path: Path) -> None:
    async def test() -> None:
        async with gateway(tmp_path) as server:
            reader, writer = await server.connect()
            head = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Long: %b\r\n\r\n"
            asked = head % (b"x" * (HEADER_KB * 1024 - 100))
            for start in range(0, len(asked), 1000):
                writer.write(asked[start : start + 1000])
                await asyncio.sleep(0)
            assert b" 200 " in await reader.readuntil(b"\r\n\r\n")

    run(test)


def test_a_body_that_precedes_a_head_is_no_part_of_it(tmp_path: Path) -> None:
    async def test() -> None:
        async with gateway(tmp_path) as server:
            reader, writer = await server.connect()
            second = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Long: %b\r\n\r\n" % (
                b"x" * 2000
            )
            data = post(b'{"model": "none", "messages": "%b"}' % (b"x" * 40_000)) + second
            writer.write(data[:-1000])
            await asyncio.sleep(0.01)
            writer.write(data[-1000:])
            assert b" 400 " in await reader.readuntil(b"\r\n\r\n")
            rest = await reader.readuntil(b'{"status":"ok"}')
            assert rest.count(b"HTTP/1.1 200 ") == 1

    run(test)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/answers", "/v1/feedback"])
def test_a_body_that_comes_after_its_head_is_answered_once(tmp_path: Path, path: str) -> None:
    async def test() -> None:
        async with gateway(tmp_path) as server:
            reader, writer = await server.connect()
            head, _, _ = (
                post(b"[1]").replace(b"/v1/chat/completions", path.encode()).partition(b"[")
            )
            for part in (head[:-20], head[-20:], b"[", b"1]"):
                writer.write(part)
                await asyncio.sleep(0.02)
            last = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
            assert b"must be an object" in await until_end(reader)
            writer.write(last)
            rest = await reader.read()
            assert rest.count(b"HTTP/1.1 ") == 1
            assert rest.startswith(b"HTTP/1.1 200 ")

    run(test)


@pytest.mark.parametrize(
    ("begin", "part"),
    [
        (b"HTTP/1.1 200 OK\r\nX-Endless: ", b"x" * 65536),
        (b"HTTP/1.1 200 OK\r\n", b"X-Field: 1\r\n" * 5000),
        (b"", b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" * 2000),
        (STREAM + event("Hi") + b"5;extension=", b"x" * 65536),
    ],
    ids=["value", "fields", "hints", "chunk extension"],
)
def test_a_provider_that_never_ends_its_head_is_left(
    tmp_path: Path, begin: bytes, part: bytes
) -> None:
    async def test() -> None:
        sent = 0

        async def script(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal sent
            writer.write(begin)
            sent = await endless(writer, part)

        async with gateway(tmp_path, script) as server:
            reader, writer = await server.connect()
            writer.write(request("m"))
            received = await until_end(reader)
            assert b"headers that are too large" in received or b"not HTTP" in received
            await server.upstream.closed.wait()
            assert sent < 16 * MIB  # 64 MiB would be sent, were it not for the limit
            writer.close()

    run(test)


async def until_end(reader: asyncio.StreamReader) -> bytes:
    """Return a response: a whole one, or a stream."""
    head = await reader.readuntil(b"\r\n\r\n")
    if found := re.search(rb"content-length: (\d+)", head):
        return head + await reader.readexactly(int(found[1]))
    return head + await reader.readuntil(b"\r\n" + LAST)


def texts(received: bytes) -> list[bytes]:
    """Return the texts of a stream's events, in order."""
    return TEXT.findall(received)


# Streams


@pytest.mark.parametrize("count", [1, 2, 16, 17, 40])
def test_all_events_of_a_block_arrive_in_order(tmp_path: Path, count: int) -> None:
    """Blocks come while the answer's task waits: it reads 16 events at a time."""
    names = [f"t{n}" for n in range(count)]

    async def test() -> None:
        async def script(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(STREAM + event("first"))
            await seen.wait()
            writer.write(b"".join(map(event, names)))
            await all_seen.wait()
            writer.write(END)
            await writer.drain()

        seen, all_seen = asyncio.Event(), asyncio.Event()
        async with gateway(tmp_path, script) as server:
            reader, _ = await server.stream()
            received = await reader.readuntil(b"first")
            seen.set()
            received += await reader.readuntil(names[-1].encode() + b'"')
            all_seen.set()
            received += await reader.readuntil(b"[DONE]\n\n\r\n" + LAST)
            assert texts(received) == [b"first", *[name.encode() for name in names]]

    run(test)


@pytest.mark.parametrize(
    "odd",
    [
        chunk(b": a comment\n\n"),
        chunk(b'data: {"choices":[{"delta":{"tool_calls":[{"index":0}]}}]}\n\n'),
        chunk(b'data: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}\n\n'),
        chunk(b'data: {"choices":[{"delta":{"content":"half"}}]}') + chunk(b"\n\n"),
        chunk(b"event: message\r\ndata: {}\r\n\r\n"),
    ],
    ids=["comment", "tool call", "usage", "in two parts", "other line ends"],
)
def test_unusual_events_keep_their_place_among_usual_ones(tmp_path: Path, odd: bytes) -> None:
    async def test() -> None:
        async def script(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(STREAM + event("a"))
            await seen.wait()
            for part in (event("b"), odd[:-9], odd[-9:], event("c") + odd + event("d"), END):
                writer.write(part)
                await asyncio.sleep(0.01)

        seen = asyncio.Event()
        async with gateway(tmp_path, script) as server:
            reader, _ = await server.stream()
            received = await reader.readuntil(b'"a"')
            seen.set()
            received += await reader.readuntil(b"[DONE]\n\n\r\n" + LAST)
            found = [text for text in texts(received) if text != b"half"]
            assert found == [b"a", b"b", b"c", b"d"]

    run(test)


def test_an_end_in_the_same_packet_as_the_last_words_ends_the_stream(tmp_path: Path) -> None:
    async def test() -> None:
        async def script(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(STREAM + event("a"))
            await seen.wait()
            writer.write(event("b") + event("c") + END)
            await writer.drain()
            await asyncio.sleep(0.05)  # the connection stays open: the end is in the bytes

        seen = asyncio.Event()
        async with gateway(tmp_path, script) as server:
            reader, _ = await server.stream()
            received = await reader.readuntil(b'"a"')
            seen.set()
            received += await reader.readuntil(b"\r\n" + LAST)
            assert texts(received) == [b"a", b"b", b"c"]
            assert received.count(b"[DONE]") == 1

    run(test)


def test_a_client_that_stops_reading_stops_the_provider_and_loses_nothing(tmp_path: Path) -> None:
    size, count = 8192, 4000
    names = [f"{n}-".ljust(size, "x") for n in range(count)]  # 32 MiB

    async def test() -> None:
        async def script(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(STREAM + event("first"))
            await seen.wait()
            for name in names:
                writer.write(event(name))
                await writer.drain()
                server.upstream.taken += size
            writer.write(END)
            await writer.drain()

        seen = asyncio.Event()
        async with gateway(tmp_path, script) as server:
            reader, writer = await server.stream()
            received = await reader.readuntil(b"first")
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            seen.set()
            await settled(lambda: server.upstream.taken)
            held = server.upstream.taken
            assert held < size * count - 4 * MIB, "the provider must wait for the client"
            writer.transport.resume_reading()  # type: ignore[attr-defined]
            received += await reader.readuntil(b"[DONE]\n\n\r\n" + LAST)
            assert [text.decode() for text in texts(received)[1:]] == names

    run(test)


async def settled(value: Callable[[], int]) -> None:
    """Return once a growing number has stopped to grow."""
    before, still = -1, 0
    while still < 10:
        await asyncio.sleep(0.02)
        still = still + 1 if value() == before else 0
        before = value()


@pytest.mark.parametrize("is_full", [True, False], ids=["its buffer full", "its buffer empty"])
def test_a_client_that_goes_while_it_is_written_to_ends_the_call(
    tmp_path: Path, is_full: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def test() -> None:
        async def script(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(STREAM + event("first"))
            await seen.wait()
            while not writer.transport.is_closing():
                writer.write(event("x" * 8192))
                await writer.drain()
                server.upstream.taken += 8192
                await asyncio.sleep(0)

        seen = asyncio.Event()
        async with gateway(tmp_path, script) as server:
            reader, writer = await server.stream()
            await reader.readuntil(b"first")
            if is_full:
                writer.transport.pause_reading()  # type: ignore[attr-defined]
            seen.set()
            if is_full:
                await settled(lambda: server.upstream.taken)
            else:
                await reader.read(65536)
            writer.transport.abort()
            await server.upstream.closed.wait()

    with caplog.at_level(logging.WARNING):
        run(test)
    assert "bug" not in caplog.text
    assert "Exception" not in caplog.text


def test_words_that_were_passed_on_at_once_are_known_to_the_model_that_continues(
    tmp_path: Path,
) -> None:
    async def test() -> None:
        async def breaks(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(STREAM + event("Once "))
            for number, text in enumerate(("upon ", "a ", "time ")):
                await seen[number].wait()
                writer.write(event(text))
            await seen[3].wait()

        async def goes_on(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(STREAM + event("Once upon a time there was.") + END)
            await writer.drain()
            await asyncio.sleep(0.05)

        seen = [asyncio.Event() for _ in range(4)]
        async with gateway(tmp_path, breaks, goes_on) as server:
            reader, _ = await server.stream()
            received = b""
            for number, text in enumerate((b"Once ", b"upon ", b"a ", b"time ")):
                received += await reader.readuntil(text + b'"')
                seen[number].set()
            received += await reader.readuntil(b"\r\n" + LAST)
            assert b"Once upon a time " in server.upstream.bodies[1]
            assert b"".join(texts(received)) == b"Once upon a time there was."

    run(test)


# What is used of uvicorn


def test_uvicorn_calls_connections_as_they_expect() -> None:
    """Names of uvicorn that are not in its documentation: a release that changes one fails here."""
    assert "http_protocol_class(" in inspect.getsource(uvicorn.Server.startup)
    made = inspect.getsource(uvicorn.Server.startup)
    for argument in (
        "config=config",
        "server_state=self.server_state",
        "app_state=",
        "_loop=_loop",
    ):
        assert argument in made
    ends = inspect.getsource(uvicorn.Server.shutdown)
    assert "connection.shutdown()" in ends
    assert "timeout_graceful_shutdown" in ends
    state = ServerState()
    assert state.connections == set()
    assert state.tasks == set()
    config = uvicorn.Config(lambda: None, http=ClientConnection)
    config.load()
    assert config.http_protocol_class is ClientConnection
    server = uvicorn.Server(config)
    assert (server.should_exit, server.force_exit, server.started) == (False, False, False)
    assert list(inspect.signature(uvicorn.Server.on_tick).parameters) == ["self", "counter"]


def test_an_address_that_leads_nowhere_costs_no_time() -> None:
    """The name of a provider has two addresses, and nothing answers at the first one."""

    async def status(nowhere: int) -> int:
        loop = asyncio.get_running_loop()
        good = socket.create_server(("127.0.0.2", nowhere))
        good.settimeout(30)

        async def getaddrinfo(host: str, port: int, **_: Any) -> Any:
            hosts = ("127.0.0.1", "127.0.0.2") if host == "provider.test" else (host,)
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port)) for each in hosts]

        loop.getaddrinfo = getaddrinfo  # type: ignore[method-assign, assignment]
        pool = Pool(f"http://provider.test:{nowhere}", "The provider", Timeouts(connect_s=5.0))

        def answer() -> None:
            with good.accept()[0] as connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")

        with good:
            answering = loop.run_in_executor(None, answer)
            reply = await pool.send(b"GET / HTTP/1.1\r\nHost: provider.test\r\n", b"")
            await answering
        await pool.close()
        return reply.status

    with full() as port:
        assert asyncio.run(status(port)) == 204
