"""Send raw HTTP to the mock provider, and keep each byte of the reply and how it ended."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, TypeVar

from slipway.providers.mock import MockServer, MockSettings
from waiting import PATIENCE_S

Result = TypeVar("Result")
CHAT = "/v1/chat/completions"


class RawReply(NamedTuple):
    """What came over the wire. `end` is how: `end` of the body, connection `closed` before it,
    `reset`, or still `open` after a while.
    """

    status: int
    headers: dict[str, str]
    pieces: list[bytes]
    end: str
    first_s: float | None

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)

    @property
    def events(self) -> list[Any]:
        """Return the stream's events; `DONE` for [DONE] and `BROKEN` for invalid JSON."""
        return [
            event(line.removeprefix("data: ")) for line in self.body.decode().split("\n\n") if line
        ]

    @property
    def texts(self) -> list[str]:
        return [
            text for event in self.events if isinstance(event, dict) and (text := _delta(event))
        ]

    @property
    def finishes(self) -> list[str]:
        choices = [
            choice
            for event in self.events
            if isinstance(event, dict)
            for choice in event.get("choices", [])
        ]
        return [choice["finish_reason"] for choice in choices if choice["finish_reason"]]


def event(data: str) -> Any:
    if data == "[DONE]":
        return "DONE"
    try:
        return json.loads(data)
    except ValueError:
        return "BROKEN"


def _delta(event: dict[str, Any]) -> str:
    return "".join(choice["delta"].get("content", "") for choice in event.get("choices", []))


def chat(model: str = "m", content: Any = "hello", **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": content}], **more}


def wire(
    body: Any, *, path: str = CHAT, method: str = "POST", version: str = "1.1", headers: str = ""
) -> bytes:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return (
        f"{method} {path} HTTP/{version}\r\nHost: mock\r\nContent-Length: {len(data)}\r\n{headers}\r\n".encode()
        + data
    )


async def ask(port: int, request: bytes, *, patience_s: float = PATIENCE_S) -> RawReply:
    """Sends bytes as they are and reads one reply. An HTTP chunk of the reply is a piece: what the
    mock wrote at once.
    """
    started = time.monotonic()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    try:
        return await read(reader, started, patience_s)
    finally:
        writer.transport.abort()


async def read(
    reader: asyncio.StreamReader, started: float, patience_s: float = PATIENCE_S
) -> RawReply:
    status, headers, pieces, end, first_s = 0, dict[str, str](), list[bytes](), "end", None
    try:
        async with asyncio.timeout(patience_s):
            line, *rest = (await reader.readuntil(b"\r\n\r\n")).decode().rstrip().split("\r\n")
        first_s = time.monotonic() - started
        status = int(line.split(" ")[1])
        headers = {name.lower(): value for name, value in (field.split(": ", 1) for field in rest)}
        await _body(reader, headers, pieces, patience_s)
    except TimeoutError:
        end = "open"
    except asyncio.IncompleteReadError as error:
        pieces += [error.partial] if error.partial else []
        end = "closed"
    except ConnectionResetError:
        end = "reset"
    return RawReply(status, headers, pieces, end, first_s)


async def _body(
    reader: asyncio.StreamReader, headers: dict[str, str], pieces: list[bytes], patience_s: float
) -> None:
    if "content-length" in headers:
        left = int(headers["content-length"])
        while left:
            async with asyncio.timeout(patience_s):
                pieces.append(await reader.read(left))
            if not pieces[-1]:
                raise asyncio.IncompleteReadError(b"", left)
            left -= len(pieces[-1])
        return
    if "transfer-encoding" not in headers:
        pieces.append(await reader.read())
        return
    while True:
        async with asyncio.timeout(patience_s):
            size = int((await reader.readuntil(b"\r\n"))[:-2], 16)
            data = (await reader.readexactly(size + 2))[:-2]
        if not size:
            return
        pieces.append(data)


def settings(**more: Any) -> MockSettings:
    return MockSettings(**{"port": 0, "ttft_s": 0.01, "tpot_s": 0.001, "tokens": 12, **more})


def with_mock(use: Callable[[MockServer], Awaitable[Result]], **more: Any) -> Result:
    async def run() -> Result:
        async with MockServer(settings(**more)) as mock:
            return await use(mock)

    return asyncio.run(run())


def get(request: Any, *, patience_s: float = PATIENCE_S, **more: Any) -> RawReply:
    """Send one request to a fresh mock."""
    data = request if isinstance(request, bytes) else wire(request)
    return with_mock(lambda mock: ask(mock.port, data, patience_s=patience_s), **more)


def json_of(got: RawReply) -> Any:
    return json.loads(got.body)


def code_of(got: RawReply) -> Any:
    return json_of(got)["error"]["code"]
