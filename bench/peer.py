"""Run one of the two ends of a measurement in its own process: a cheap upstream, or a closed-loop
load. Loopback only.

    python bench/peer.py upstream PORT
    python bench/peer.py hold '{"port": …, "path": …, "connections": …, "bodies": [FILE], "key": …}'
    python bench/peer.py load '{"port": …, "path": …, "connections": …, "seconds": …,
                                "bodies": [FILE, …], "key": …}'

The upstream answers any POST with a fixed completion or, if the body asks for a stream, with 64
chunks, 10 ms apart if the path begins with /slow, and with one chunk and no end below /idle. Each chunk carries the time when it was sent, so
that the load can compute its delay. The load sends the bodies in turn and prints one JSON object.
"""

import asyncio
import json
import re
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import uvloop

CHUNKS, GAP_S = 64, 0.01
WORDS = (
    "The quick brown fox jumps over the lazy dog while the gateway forwards this answer to its "
    "client."
)
USAGE = {"prompt_tokens": 24, "completion_tokens": 20, "total_tokens": 44}
WHOLE = json.dumps(
    {
        "id": "chatcmpl-bench",
        "object": "chat.completion",
        "created": 1,
        "model": "mock-model",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": WORDS},
                "finish_reason": "stop",
            }
        ],
        "usage": USAGE,
    }
).encode()
JSON_REPLY = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
    % (len(WHOLE), WHOLE)
)
STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
)
CHUNK = (
    b'{"id":"chatcmpl-bench","object":"chat.completion.chunk","created":1,"model":"mock-model",'
    b'"choices":[{"index":0,"delta":%b,"finish_reason":%b}]}'
)
LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
SENT = re.compile(rb"@T(\d{19})@")


def event(data: bytes) -> bytes:
    return b"%x\r\ndata: %b\n\n\r\n" % (len(data) + 8, data)


class Upstream(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport
        self.held = b""

    def data_received(self, data: bytes) -> None:
        self.held += data
        while (end := self.held.find(b"\r\n\r\n")) >= 0:
            length = LENGTH.search(self.held, 0, end)
            whole = end + 4 + (int(length[1]) if length else 0)
            if len(self.held) < whole:
                return
            request, self.held = self.held[:whole], self.held[whole:]
            if request.startswith(b"POST /idle"):
                self.transport.write(STREAM_HEAD + self.chunk(0))  # and nothing more
            elif b'"stream":true' in request or b'"stream": true' in request:
                self.stream(GAP_S if request.startswith(b"POST /slow") else 0.0)
            else:
                self.transport.write(JSON_REPLY)

    def stream(self, gap_s: float) -> None:
        self.transport.write(STREAM_HEAD)
        loop = asyncio.get_running_loop()
        if gap_s:
            self.step(loop, loop.time(), gap_s, 0)
        else:
            self.transport.write(b"".join([self.chunk(i) for i in range(CHUNKS)]))
            self.finish()

    def step(self, loop: asyncio.AbstractEventLoop, due: float, gap_s: float, i: int) -> None:
        if self.transport.is_closing():
            return
        if i == CHUNKS:
            self.finish()
            return
        self.transport.write(self.chunk(i))
        loop.call_at(due + gap_s, self.step, loop, due + gap_s, gap_s, i + 1)

    def chunk(self, i: int) -> bytes:
        return event(CHUNK % (b'{"content":"@T%019d@ "}' % time.monotonic_ns(), b"null"))

    def finish(self) -> None:
        last = CHUNK[:-1] % (b"{}", b'"stop"') + b',"usage":%b}' % json.dumps(USAGE).encode()
        self.transport.write(event(last) + event(b"[DONE]") + b"0\r\n\r\n")


class Load(asyncio.Protocol):
    """A connection that asks, waits for the whole answer, and asks again."""

    def __init__(self, run: "Run", first: int) -> None:
        self.run, self.turn = run, first

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport
        self.ask()

    def ask(self) -> None:
        self.held, self.length, self.head, self.seen, self.words = b"", -1, 0, 0, False
        self.sent_at = time.monotonic_ns()
        self.transport.write(self.run.requests[self.turn % len(self.run.requests)])
        self.turn += 1

    def data_received(self, data: bytes) -> None:
        now = time.monotonic_ns()
        self.held += data
        if not self.head:
            end = self.held.find(b"\r\n\r\n")
            if end < 0:
                return
            self.head = self.seen = end + 4
            found = LENGTH.search(self.held, 0, end)
            self.length = int(found[1]) if found else -1
        if self.length < 0:
            self.chunks(now)
            if not self.held.endswith(b"0\r\n\r\n"):
                return
        elif len(self.held) < self.head + self.length:
            return
        self.done(now)

    def chunks(self, now: int) -> None:
        for found in SENT.finditer(self.held, self.seen):
            self.run.delays.append(now - int(found[1]))
            if not self.words:
                self.words = True
                self.run.firsts.append(now - self.sent_at)
            self.seen = found.end()

    def done(self, now: int) -> None:
        if self.held.startswith(b"HTTP/1.1 200") and (self.length >= 0 or b"[DONE]" in self.held):
            self.run.latencies.append(now - self.sent_at)
        else:
            self.run.errors += 1
        if now < self.run.end:
            self.ask()
        else:
            self.run.left(self)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.run.over.done() and self in self.run.open:
            self.run.errors += 1
            self.run.left(self)


class Run:
    def __init__(self, plan: dict[str, Any]) -> None:
        self.plan = plan
        self.requests = [self.request(Path(b).read_bytes()) for b in plan["bodies"]]
        self.latencies, self.delays, self.firsts = list[int](), list[int](), list[int]()
        self.errors = 0
        self.open: set[Load] = set()

    def request(self, body: bytes) -> bytes:
        p = self.plan
        head = f"POST {p['path']} HTTP/1.1\r\nHost: 127.0.0.1:{p['port']}\r\n"
        head += f"Content-Type: application/json\r\nAuthorization: Bearer {p['key']}\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in p.get("headers", {}).items())
        return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body

    def left(self, load: Load) -> None:
        self.open.discard(load)
        if not self.open and not self.over.done():
            self.over.set_result(None)

    async def run(self) -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        self.over: asyncio.Future[None] = loop.create_future()
        began = time.monotonic_ns()
        self.end = began + int(self.plan["seconds"] * 1e9)
        for i in range(self.plan["connections"]):
            _, load = await loop.create_connection(
                lambda i=i: Load(self, i),  # type: ignore[misc]
                "127.0.0.1",
                self.plan["port"],
            )
            self.open.add(load)
        await asyncio.wait_for(self.over, self.plan["seconds"] + 30)
        seconds = (time.monotonic_ns() - began) / 1e9
        return {
            "requests": len(self.latencies),
            "errors": self.errors,
            "seconds": seconds,
            "chunks": len(self.delays),
            "p50_us": middle(self.latencies),
            "p99_us": high(self.latencies),
            "max_us": max(self.latencies, default=0) / 1000,
            "ttft_p50_us": middle(self.firsts),
            "chunk_p50_us": middle(self.delays),
        }


def middle(values: list[int]) -> float:
    return statistics.median(values) / 1000 if values else 0.0


def high(values: list[int]) -> float:
    """Return the 99th percentile in microseconds."""
    return sorted(values)[int(0.99 * (len(values) - 1))] / 1000 if values else 0.0


class Hold(asyncio.Protocol):
    """A connection that asks for a stream and stays open."""

    def __init__(self, request: bytes, began: Callable[[], None]) -> None:
        self.request, self.began, self.held = request, began, b""

    def connection_made(self, transport: Any) -> None:
        transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        if b"@T" not in self.held:
            self.held += data
            if b"@T" in self.held:
                self.began()


async def hold(plan: dict[str, Any]) -> None:
    """Open streams, print a line once all have begun, and keep them until stdin ends."""
    loop, left = asyncio.get_running_loop(), plan["connections"]
    all_begun = asyncio.Event()

    def began() -> None:
        nonlocal left
        left -= 1
        if not left:
            all_begun.set()

    request = Run(plan).requests[0]

    def connection() -> Hold:
        return Hold(request, began)

    held = [
        await loop.create_connection(connection, "127.0.0.1", plan["port"])
        for _ in range(plan["connections"])
    ]
    await asyncio.wait_for(all_begun.wait(), 60)
    print("open", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    for transport, _ in held:
        transport.close()


async def upstream(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(
        Upstream, "127.0.0.1", port, backlog=4096
    )
    await server.serve_forever()


if __name__ == "__main__":
    if sys.argv[1] == "upstream":
        uvloop.run(upstream(int(sys.argv[2])))
    elif sys.argv[1] == "hold":
        uvloop.run(hold(json.loads(sys.argv[2])))
    else:
        print(json.dumps(uvloop.run(Run(json.loads(sys.argv[2])).run())))
