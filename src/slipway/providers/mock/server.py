"""The mock provider: its routes, what it remembers, its start and end."""

import asyncio
import base64
import contextlib
import hashlib
import math
import secrets
import signal
import struct
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, NamedTuple, TypeVar

import msgspec

from slipway.providers.mock.connection import Connection
from slipway.providers.mock.faults import Fault, bend, fault_of_model, parse_script, refusal, shape
from slipway.providers.mock.reply import ChatBody, Reply, draft_of, encode, render, whole
from slipway.providers.mock.settings import MockSettings, Seen

REMEMBERED = 10_000
DIMENSIONS = 8
Body = TypeVar("Body")
SECRET_HEADERS = frozenset({"authorization", "api-key", "x-api-key"})


class EmbeddingsBody(msgspec.Struct):
    """`input` is a text, several texts, or the same as token ids."""

    model: str
    input: str | list[str | int | list[int]]
    encoding_format: str | None = None


class Refused(Exception):
    """Carries the reply that says why."""

    def __init__(self, reply: Reply) -> None:
        self.reply = reply


class _Route(NamedTuple):
    method: str
    tail: str
    handler: "Callable[[MockServer, Seen, bytes], Reply]"
    remembered: bool = True
    open: bool = False  # needs no key


class MockServer:
    """Use it as `async with MockServer(settings) as mock:`, or start and close it. Raises ValueError where the script is wrong.

    `port` is the bound one after the start. `requests` holds the last 10,000 requests, without those to /healthz and /requests.
    """

    def __init__(self, settings: MockSettings) -> None:
        self.settings = settings
        self.port = settings.port
        self.requests: list[Seen] = []
        self._script = parse_script(settings.script)
        self._calls = 0
        self._started_at = 0.0
        self._connections: set[Connection] = set()
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        host = f"[{self.settings.host}]" if ":" in self.settings.host else self.settings.host
        return f"http://{host}:{self.port}/v1"

    async def start(self) -> None:
        """Raises OSError where the address is in use or not ours."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: Connection(self._answer, self._connections), self.settings.host, self.settings.port, backlog=2048
        )
        self.port = self._server.sockets[0].getsockname()[1]
        self._started_at = time.monotonic()

    async def close(self) -> None:
        """Stops listening and drops every connection, whatever is under way."""
        if self._server is None:
            return
        self._server.close()
        open_now = list(self._connections)
        for connection in open_now:
            connection.drop()
        await asyncio.gather(*(connection.lost for connection in open_now))
        await self._server.wait_closed()
        self._server = None

    async def __aenter__(self) -> "MockServer":
        await self.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    def _answer(self, seen: Seen, body: bytes) -> Reply:
        path = seen.path.partition("?")[0]
        method = "GET" if seen.method == "HEAD" else seen.method
        route = next((route for route in ROUTES if route.method == method and path.endswith(route.tail)), NOWHERE)
        if route.remembered:
            self.requests.append(seen)
            del self.requests[:-REMEMBERED]
        try:
            if not route.open:
                self._check_key(seen)
            return route.handler(self, seen, body)
        except Refused as refused:
            return refused.reply

    def _check_key(self, seen: Seen) -> None:
        if self.settings.api_key is None:
            return
        given = seen.headers.get("authorization", "").removeprefix("Bearer ") or seen.headers.get("api-key", "")
        if not secrets.compare_digest(given.encode(), self.settings.api_key.encode()):
            raise Refused(refusal(401, f"Incorrect API key provided: {_redacted(given)}."))

    def _faults(self, model: str) -> list[Fault]:
        """The script's faults for this call, then the model's own."""
        faults = [entry.fault for entry in self._script if entry.first <= self._calls <= entry.last]
        try:
            own = fault_of_model(model)
        except ValueError as error:
            raise Refused(refusal(404, str(error), code="model_not_found", param="model")) from None
        return [*faults, own] if own else faults

    def _uptime_s(self) -> float:
        return time.monotonic() - self._started_at

    def _chat(self, seen: Seen, body: bytes) -> Reply:
        self._calls += 1
        request = _parse(seen, body, ChatBody)
        faults, uptime_s = self._faults(request.model), self._uptime_s()
        draft = shape(draft_of(request, self.settings, self._calls), faults, uptime_s)
        return bend(render(draft), faults, uptime_s, draft.seed)

    def _embeddings(self, seen: Seen, body: bytes) -> Reply:
        self._calls += 1
        request = _parse(seen, body, EmbeddingsBody)
        reply = whole(encode(_embedded(request)), at_s=self.settings.ttft_s)
        return bend(reply, self._faults(request.model), self._uptime_s(), seed=f"{self.settings.seed}")

    def _models(self, _: Seen, __: bytes) -> Reply:
        models = [{"id": name, "object": "model", "created": 0, "owned_by": "slipway-mock"} for name in self.settings.models]
        return whole(encode({"object": "list", "data": models}))

    def _healthz(self, _: Seen, __: bytes) -> Reply:
        return whole(encode({"status": "ok", "uptime_s": round(self._uptime_s(), 3), "calls": self._calls}))

    def _nowhere(self, seen: Seen, _: bytes) -> Reply:
        return refusal(404, f"There is no {seen.method} {seen.path} here.")

    def _list_requests(self, _: Seen, __: bytes) -> Reply:
        now = time.monotonic()
        return whole(encode([_shown(seen, now) for seen in self.requests]))


ROUTES = (
    _Route("POST", "/chat/completions", MockServer._chat),
    _Route("POST", "/embeddings", MockServer._embeddings),
    _Route("GET", "/models", MockServer._models),
    _Route("GET", "/healthz", MockServer._healthz, remembered=False, open=True),
    _Route("GET", "/requests", MockServer._list_requests, remembered=False),
)
NOWHERE = _Route("", "", MockServer._nowhere)


async def serve(settings: MockSettings, ready: Callable[[MockServer], None] | None = None) -> None:
    """Runs until cancelled or SIGTERM. `ready` is called once the server listens; OSError is raised where it cannot."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    async with MockServer(settings) as server:
        with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):  # Windows, or not the main thread
            loop.add_signal_handler(signal.SIGTERM, stopped.set)
        try:
            if ready:
                ready(server)
            await stopped.wait()
        finally:
            with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
                loop.remove_signal_handler(signal.SIGTERM)


def _parse(seen: Seen, body: bytes, kind: type[Body]) -> Body:
    """Fills `seen.body`. Raises Refused with a 400 that names the field."""
    try:
        seen.body = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Refused(refusal(400, f"We could not parse the JSON body of your request: {error}.")) from None
    try:
        return msgspec.convert(seen.body, kind)
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at `$.")
        raise Refused(refusal(400, f"{what}.", param=where.rstrip("`") or None)) from None


def _embedded(request: EmbeddingsBody) -> dict[str, Any]:
    inputs: Sequence[Any] = request.input if isinstance(request.input, list) else [request.input]
    if inputs and isinstance(inputs[0], int):
        inputs = [inputs]
    data = [
        {"object": "embedding", "index": index, "embedding": _coded(_vector(encode(item)), request.encoding_format)}
        for index, item in enumerate(inputs)
    ]
    tokens = sum(-(-len(item) // 4) if isinstance(item, str) else len(item) for item in inputs)
    return {"object": "list", "data": data, "model": request.model, "usage": {"prompt_tokens": tokens, "total_tokens": tokens}}


def _vector(data: bytes) -> list[float]:
    """A vector of length 1 that depends on `data` alone."""
    numbers = [number / 2**31 - 1 for number in struct.unpack(f"<{DIMENSIONS}I", hashlib.sha256(data).digest())]
    length = math.hypot(*numbers)
    return [number / length for number in numbers]


def _coded(vector: list[float], encoding: str | None) -> list[float] | str:
    return base64.b64encode(struct.pack(f"<{DIMENSIONS}f", *vector)).decode() if encoding == "base64" else vector


def _shown(seen: Seen, now: float) -> dict[str, Any]:
    return {
        "method": seen.method,
        "path": seen.path,
        "headers": {name: _redacted(value) if name in SECRET_HEADERS else value for name, value in seen.headers.items()},
        "body": seen.body,
        "age_s": round(now - seen.arrived_at, 6),
        "chunks": len(seen.sent),
        "closed_early": seen.closed_at is not None,
        "closed_after_s": None if seen.closed_at is None else round(seen.closed_at - seen.arrived_at, 6),
    }


def _redacted(secret: str) -> str:
    return f"…{secret[-4:]}" if len(secret) > 4 else "…"
