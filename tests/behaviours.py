"""Random upstream behaviours, composed from a grammar of statuses, headers, framing, chunks, ends,
delays and encodings; and a server that behaves so.

Each behaviour follows from a seed and a number, so that a failure can be repeated. It knows whether
it is a whole answer, and which text that has.
"""

import asyncio
import json
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

WORDS = (
    "Ships",
    "float",
    "because",
    "water",
    "é",
    "数据",
    "🚢",
    "naïve",
    "[1]",
    '"q"',
    "\\n",
    "end.",
)
STATUSES = (
    *(301, 307, 400, 401, 402, 403, 404, 405, 408, 409, 410, 413, 418, 421, 422, 423, 425, 429),
    *(431, 451, 498, 499, 500, 502, 503, 504, 520, 524, 529, 599),
)
WAITS: tuple[str, ...] = (
    "0",
    "1",
    "1.5",
    "-3",
    "nan",
    "inf",
    "1e400",
    "soon",
    "",
    "Thu, 99 Foo 2026",
    "6m0s",
    "20ms",
)
WAITS += ("Wed, 21 Oct 2015 07:28:00 GMT", "\xff\xfe", "9" * 400, "2026-01-01T00:00:00Z", "1,2")
SHORT_WAITS = (
    "0",
    "0.2",
    "-3",
    "nan",
    "soon",
    "",
    "20ms",
    "Wed, 21 Oct 2015 07:28:00 GMT",
    "\xff\xfe",
)
WAIT_NAMES = ("Retry-After", "retry-after-ms", "x-ratelimit-reset-requests", "x-ratelimit-reset")
ERRORS: tuple[bytes, ...] = (
    b'{"error":{"message":"no","type":"server_error","code":null,"param":null}}',
    b'{"error":"plain text"}',
    b'[{"error":{"code":429,"message":"quota","status":"RESOURCE_EXHAUSTED"}}]',
    '{"error":{"message":"模型过载"}}'.encode("gbk"),
    b"<html><body>Bad Gateway</body></html>",
    b"",
    b'{"detail":[{"loc":["body"],"msg":"field required"}]}',
    b'{"error":{"code":%b}}' % (b"9" * 5000),
    b'{"error":{"message":{"nested":[1,2]},"code":["a"]}}',
    b'{"message":"\\ud83d","code":-Infinity}',
    b"[" * 20_000,
)
IN_200 = (
    b'{"error":{"message":"Rate limit reached","type":"rate_limit_error","code":429}}',
    b'{"error":{"message":"flagged by moderation","code":403}}',
    b'{"error":"overloaded"}',
    b'{"object":"error","message":"maximum context length is 10","code":400}',
    b'{"detail":"not found"}',
)
JUNK = (
    b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnull",
    b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n[1,2,3]",
    b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 6\r\n\r\n<html>",
    b"HTTP/1.1 200 OK\r\nX-A: " + b"y" * 70_000 + b"\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\nContent-Type: text/event-stream\r\n\r\n: comment\n\n\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
)
GOOD_ENDS = ("done", "close", "done no blank line", "done two spaces", "done no space")
BAD_ENDS = (
    "no finish, done",
    "no finish, close",
    "empty finish, done",
    "cut",
    "reset",
    "stall",
    "stall with comments",
    "finish error",
    "error event",
    "half an event",
)
GOOD_WHOLE = ("whole",)
BAD_WHOLE = ("cut", "reset", "stall", "half", "no finish", "empty finish", "error", "no choices")
NOISE = (
    b": ping",
    b"data: null",
    b"data: ping",
    b"data:",
    b"id: 7\ndata:",
    b"retry: 3",
    b"data: []",
)
ODD_FIELDS: tuple[bytes, ...] = (
    b"",
    b"",
    b',"error":null',
    b',"error":""',
    b',"system_fingerprint":NaN',
    b',"created":' + b"7" * 5000,
    b',"x":-Infinity',
    b',"usage":null',
    b',"usage":"12"',
    b',"usage":3.5',
    b',"usage":[]',
    b',"usage":{"prompt_tokens":3.0,"completion_tokens":"7","prompt_tokens_details":[]}',
    b',"usage":{"prompt_tokens":-1,"completion_tokens":1e400}',
    b',"note":"\xc4\xe3\xff"',
    b',"note":"\\ud83d"',
)
NO_FINISH = (b"null", b'""', b'"null"')


class Behaviour(NamedTuple):
    """`writes` are sent with a pause in seconds before each; `end` is what happens then."""

    name: str
    text: str | None  # of a whole answer; None if it is not one
    writes: tuple[tuple[float, bytes], ...]
    end: str = "close"  # or keep, hold, hold with comments, reset


def behaviour(seed: str, number: int, *, streamed: bool) -> Behaviour:
    rng = random.Random(f"{seed}:{number}:{streamed}")
    kinds: dict[Callable[[random.Random, bool], Behaviour], int] = {
        _answer: 74,
        _status: 14,
        _junk: 6,
        _error_in_200: 3,
        _nothing: 3,
    }
    return rng.choices(list(kinds), list(kinds.values()))[0](rng, streamed)


def good(text: str, *, streamed: bool) -> Behaviour:
    """The plain answer that a healthy provider gives."""
    if streamed:
        body = _chunk(text, b"null") + b"\n\n" + _chunk("", b'"stop"') + b"\n\ndata: [DONE]\n\n"
        kind = "text/event-stream"
    else:
        body, kind = _completion(text, b'"stop"', b""), "application/json"
    head = head_of(200, [("Content-Type", kind), ("Content-Length", str(len(body)))])
    return Behaviour("good", text, ((0.0, head + body),), "keep")


def _status(rng: random.Random, _: bool) -> Behaviour:
    status, body = rng.choice(STATUSES), rng.choice(ERRORS)
    headers = [("Content-Length", str(len(body)))]
    if rng.random() < 0.5:
        waits = SHORT_WAITS if status == 429 else WAITS  # a limit of a day would end the test
        headers.append((rng.choice(WAIT_NAMES), rng.choice(waits)))
    if 300 <= status < 400:
        headers.append(("Location", "http://evil.invalid/"))
    return Behaviour(f"status {status}", None, ((0.0, head_of(status, headers) + body),), "keep")


def _junk(rng: random.Random, _: bool) -> Behaviour:
    number = rng.randrange(len(JUNK))
    return Behaviour(f"junk {number}", None, ((0.0, JUNK[number]),))


def _error_in_200(rng: random.Random, _: bool) -> Behaviour:
    body = rng.choice(IN_200)
    if rng.random() < 0.5:
        body = b"data: " + body + b"\n\n"
    head = head_of(200, [("Content-Length", str(len(body)))])
    return Behaviour("error in a 200", None, ((0.0, head + body),))


def _nothing(rng: random.Random, _: bool) -> Behaviour:
    end = rng.choice(("hold", "reset", "close"))
    return Behaviour(f"nothing, {end}", None, (), end)


def _answer(rng: random.Random, streamed: bool) -> Behaviour:
    as_stream = rng.random() < (0.92 if streamed else 0.1)
    is_good = rng.random() < 0.6
    if as_stream:
        end = rng.choice(GOOD_ENDS if is_good else BAD_ENDS)
        body, text = _stream(rng, end)
    else:
        end = rng.choice(GOOD_WHOLE if is_good else BAD_WHOLE)
        body, text = _whole(rng, end)
    form = "stream" if as_stream else "whole"
    name = f"{form}, {end}, asked {'streamed' if streamed else 'whole'}"
    return _sent(rng, name, body, text if is_good else None, end, as_stream)


def _stream(rng: random.Random, end: str) -> tuple[bytes, str]:
    line = rng.choice((b"\n", b"\n", b"\r\n", b"\r"))
    space = rng.choice((b" ", b" ", b"", b"  "))
    no_finish = rng.choice(NO_FINISH)
    pieces = _pieces(rng)
    events = [_chunk("", no_finish, role=True)] if rng.random() < 0.7 else []
    if rng.random() < 0.2:
        events.append(_reasoning(rng, no_finish))
    events += [_chunk(each, no_finish, rng.choice(ODD_FIELDS), rng=rng) for each in pieces]
    split = _split_pair(rng) if rng.random() < 0.1 else []
    events += [each for each, _ in split]
    text = "".join(pieces) + "".join(said for _, said in split)
    finish = {"finish error": b'"error"', "empty finish, done": b'""'}.get(end, b'"stop"')
    has_finish = end in GOOD_ENDS or end in ("finish error", "empty finish, done")
    if has_finish:
        events.append(_chunk("", finish, rng.choice(ODD_FIELDS)))
    if has_finish and rng.random() < 0.3:
        events.append(b'data: {"choices":[]' + rng.choice(ODD_FIELDS) + b"}")
    events = [noisy for event in events for noisy in _noise(rng, event)]
    body = b"".join(
        e.replace(b"data: ", b"data:" + space, 1).replace(b"\n", line) + line * 2 for e in events
    )
    body += {
        "done": b"data: [DONE]" + line * 2,
        "done no blank line": b"data: [DONE]",
        "done two spaces": b"data:  [DONE]" + line * 2,
        "done no space": b"data:[DONE]" + line * 2,
        "no finish, done": b"data: [DONE]" + line * 2,
        "empty finish, done": b"data: [DONE]" + line * 2,
        "finish error": b"data: [DONE]" + line * 2,
        "error event": b'data: {"error":{"message":"no"}}' + line * 2,
        "half an event": b'data: {"choices":[{"index":0,"del',
    }.get(end, b"")
    if end in ("cut", "reset"):
        body = body[: rng.randrange(len(body) + 1)]
    bom = b"\xef\xbb\xbf" if rng.random() < 0.05 else b""
    return bom + body, text


def _whole(rng: random.Random, end: str) -> tuple[bytes, str]:
    text = "".join(_pieces(rng))
    finish = {"no finish": b"null", "empty finish": b'""'}.get(end, b'"stop"')
    body = _completion(text, finish, rng.choice(ODD_FIELDS))
    if end == "error":
        body = rng.choice(IN_200)
    elif end == "no choices":
        body = rng.choice((b'{"choices":[]}', b'{"choices":null}', b'{"choices":"none"}', b"{}"))
    elif end == "half":
        body = body[: len(body) // 2]
    return body, text


def _sent(
    rng: random.Random, name: str, body: bytes, text: str | None, end: str, as_stream: bool
) -> Behaviour:
    transport = rng.choice(("length", "chunked", "close"))
    if not as_stream and end in ("cut", "reset"):
        transport = "length"
    kind = "text/event-stream" if as_stream else "application/json"
    kind = rng.choice((kind, kind, kind, "text/plain", f"{kind}; charset=utf-8"))
    headers = [("Content-Type", kind)]
    cut_whole = not as_stream and end in ("cut", "stall", "reset")
    breaks = end in ("cut", "reset", "stall", "stall with comments")
    if transport == "length":
        headers.append(("Content-Length", str(len(body) + (100 if breaks else 0))))
    elif transport == "chunked":
        headers.append(("Transfer-Encoding", "chunked"))
    if cut_whole:
        body = body[: rng.randrange(len(body))]
    parts = _parts(rng, body)
    if transport == "chunked":
        parts = [b"%x\r\n%b\r\n" % (len(part), part) for part in parts]
        if not breaks:
            parts.append(b"0\r\n\r\n")
    pause_s = rng.choice((0.0, 0.0, 0.001)) if len(parts) < 30 else 0.0
    writes = [(0.0, head_of(200, headers)), *((pause_s, part) for part in parts)]
    last = {"reset": "reset", "stall": "hold", "stall with comments": "hold with comments"}.get(end)
    if last == "hold with comments" and transport == "chunked":
        last = "hold with comment chunks"
    keeps = "keep" if transport != "close" and rng.random() < 0.5 and not breaks else "close"
    return Behaviour(f"{name}, {transport}", text, tuple(writes), last or keeps)


def _parts(rng: random.Random, body: bytes) -> list[bytes]:
    how = rng.random()
    if how < 0.4 or not body:
        return [body] if body else []
    size = 1 if how < 0.5 and len(body) < 600 else rng.randint(2, 200)
    return [body[at : at + size] for at in range(0, len(body), size)]


def _pieces(rng: random.Random) -> list[str]:
    return [rng.choice(WORDS) + " " for _ in range(rng.randint(1, 7))]


def _noise(rng: random.Random, event: bytes) -> list[bytes]:
    noise = [rng.choice(NOISE)] if rng.random() < 0.15 else []
    if rng.random() < 0.1:
        event = b"event: message\n" + event
    return [*noise, event]


def _chunk(
    text: str,
    finish: bytes,
    odd: bytes = b"",
    *,
    role: bool = False,
    rng: random.Random | None = None,
) -> bytes:
    delta: dict[str, Any] = {"role": "assistant"} if role else {}
    if text or role:
        delta["content"] = text
    is_ascii = rng is None or rng.random() < 0.5
    data = json.dumps(delta, ensure_ascii=is_ascii).encode()
    choice = b'{"index":0,"delta":%b,"finish_reason":%b}' % (data, finish)
    return b'data: {"id":"x","object":"chat.completion.chunk","choices":[%b]%b}' % (choice, odd)


def _reasoning(rng: random.Random, finish: bytes) -> bytes:
    name = rng.choice((b"reasoning", b"reasoning_content"))
    delta = b'{"%b":"Hm."}' % name
    return b'data: {"choices":[{"index":0,"delta":%b,"finish_reason":%b}]}' % (delta, finish)


def _split_pair(rng: random.Random) -> list[tuple[bytes, str]]:
    """A character whose two halves come in two chunks; or a half alone, and then a word."""
    first = b'data: {"choices":[{"index":0,"delta":{"content":"\\ud83d"}}]}'
    if rng.random() < 0.5:
        second = b'data: {"choices":[{"index":0,"delta":{"content":"\\udea2!"}}]}'
        return [(first, ""), (second, "🚢!")]
    second = b'data: {"choices":[{"index":0,"delta":{"content":"alone"}}]}'
    return [(first, ""), (second, "\ufffdalone")]


def _completion(text: str, finish: bytes, odd: bytes) -> bytes:
    said = json.dumps(text, ensure_ascii=len(text) % 2 == 0).encode()
    message = b'{"role":"assistant","content":%b}' % said
    choice = b'{"index":0,"message":%b,"finish_reason":%b}' % (message, finish)
    return b'{"id":"x","object":"chat.completion","choices":[%b]%b}' % (choice, odd)


def head_of(status: int, headers: list[tuple[str, str]]) -> bytes:
    lines = [f"HTTP/1.1 {status} X", *(f"{name}: {value}" for name, value in headers)]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


@contextmanager
def running(server: "Upstream") -> Iterator[str]:
    """Run a server in a thread, and give its URL."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(server.__aenter__(), loop).result(10)
        yield server.url
    finally:
        asyncio.run_coroutine_threadsafe(server.__aexit__(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


class Upstream:
    """A server that answers `b N` with behaviour N and anything else with a plain answer."""

    GOOD = "All is well."

    def __init__(self, seed: str) -> None:
        self.seed = seed
        self.url = ""
        self._server: asyncio.Server | None = None
        self._tasks = set[asyncio.Task[None]]()

    async def __aenter__(self) -> "Upstream":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=2048)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        try:
            while await self._answer(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(
            (
                int(line[15:])
                for line in head.split(b"\r\n")
                if line.lower().startswith(b"content-length:")
            ),
            0,
        )
        body = await reader.readexactly(length)
        path = head.split(b" ")[1].decode()
        behaves = (
            self.listing(path)
            if head.startswith(b"GET")
            else self.behaviour(json.loads(body), path)
        )
        for pause_s, data in behaves.writes:
            if pause_s:
                await asyncio.sleep(pause_s)
            writer.write(data)
            await writer.drain()
        return await self._end(behaves.end, reader, writer)

    def listing(self, path: str) -> Behaviour:
        """What `GET /models` gets: an empty list."""
        head = head_of(200, [("Content-Length", "11")])
        return Behaviour("models", None, ((0.0, head + b'{"data":[]}'),), "keep")

    def behaviour(self, request: dict[str, Any], path: str) -> Behaviour:
        """What a chat completion gets."""
        asked, streamed = str(request["messages"][0]["content"]), bool(request.get("stream"))
        if asked.startswith("b "):
            return behaviour(self.seed, int(asked[2:]), streamed=streamed)
        return good(self.GOOD, streamed=streamed)

    async def _end(
        self, end: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        if end == "keep":
            return True
        if end == "reset":
            writer.transport.abort()
        while end.startswith("hold") and not reader.at_eof():
            if "comment" in end:
                writer.write(b"5\r\n: c\n\n\r\n" if "chunks" in end else b": c\n\n")
                await writer.drain()
            try:
                async with asyncio.timeout(0.1):
                    await reader.read(1)
            except TimeoutError:
                continue
        return False
