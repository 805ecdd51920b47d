"""The mock provider: its routes, the requests it remembers, its start and end."""

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

from slipway.providers.mock.chat_request import ChatBody
from slipway.providers.mock.connection import MockConnection
from slipway.providers.mock.continuing import CONTINUES
from slipway.providers.mock.engine_metrics import ENGINES, EngineCounts
from slipway.providers.mock.fault_names import fault_of_model
from slipway.providers.mock.faults import Fault, FaultContext, change_draft, change_reply
from slipway.providers.mock.invoice import CallBill, Invoice, as_csv
from slipway.providers.mock.listening import Listener, tls_context
from slipway.providers.mock.refusals import failed, refusal
from slipway.providers.mock.reply import (
    MockReply,
    bill_of,
    draft_of,
    encode,
    render,
    truth,
    whole,
)
from slipway.providers.mock.script import Script
from slipway.providers.mock.settings import MockSettings, RecordedRequest

REMEMBERED = 10_000
DIMENSIONS = 8
Body = TypeVar("Body")
SECRET_HEADERS = frozenset({"authorization", "api-key", "x-api-key"})


class EmbeddingsBody(msgspec.Struct):
    """`input` is one text, several texts, or the same as token ids."""

    model: str
    input: str | list[str | int | list[int]]
    encoding_format: str | None = None


class Refused(Exception):
    """Carries the reply that refuses the request."""

    def __init__(self, reply: MockReply) -> None:
        self.reply = reply


class _Route(NamedTuple):
    method: str
    tail: str
    handler: "Callable[[MockServer, RecordedRequest, bytes], MockReply]"
    remembered: bool = True
    open: bool = False  # needs no key
    steers: bool = False  # for tests, which must see and control a mock that is down


def body_of(reply: MockReply) -> bytes:
    return b"".join(write.data for write in reply.writes)


class MockServer:
    """Use it as `async with MockServer(settings) as mock:`, or call start and close. Raises
    ValueError if settings or script are wrong.

    `port` is the bound port after the start. `requests` holds the last 10,000 requests, without
    those to /healthz and those that control the mock.
    """

    def __init__(self, settings: MockSettings) -> None:
        if settings.continues not in CONTINUES:
            raise ValueError(
                f"continues: there is no {settings.continues!r}. Known: {', '.join(CONTINUES)}."
            )
        if settings.metrics is not None and settings.metrics not in ENGINES:
            raise ValueError(
                f"metrics: there is no {settings.metrics!r}. Known: {', '.join(ENGINES)}."
            )
        self.settings = settings
        self.port = settings.port
        self.requests: list[RecordedRequest] = []
        self._script = Script(settings.script, settings.seed)
        self._calls = 0
        self._started_at = 0.0
        self._connections: set[MockConnection] = set()
        self.invoice = Invoice(settings.prices) if settings.prices is not None else None
        self._engine = EngineCounts() if settings.metrics is not None else None
        charge = self._charge if self.invoice or self._engine else None
        self._listener = Listener(
            lambda: MockConnection(self._answer, self._connections, charge),
            tls_context(settings.tls_cert, settings.tls_key),
        )
        self._loop: asyncio.AbstractEventLoop | None = None
        self._next_change: asyncio.TimerHandle | None = None

    @property
    def url(self) -> str:
        host = f"[{self.settings.host}]" if ":" in self.settings.host else self.settings.host
        return f"http{'s' if self.settings.tls_cert else ''}://{host}:{self.port}/v1"

    async def start(self) -> None:
        """Listen. Raises OSError if the address is in use or not ours."""
        self.port = await self._listener.start(self.settings.host, self.settings.port)
        self._loop = asyncio.get_running_loop()
        self._started_at = time.monotonic()
        self._script.start()
        self._apply_refusals()

    async def close(self) -> None:
        """Stop listening and drop every connection, with any reply in progress."""
        if self._loop is None:
            return
        self._loop = None
        if self._next_change:
            self._next_change.cancel()
        open_now = list(self._connections)
        for connection in open_now:
            connection.drop()
        await asyncio.gather(*(connection.lost for connection in open_now))
        await self._listener.close()

    def script(self, *entries: str) -> None:
        """Replace the whole script, from any thread; calls and seconds are counted again. It
        applies when this returns.

        Raises ValueError if an entry cannot be understood; the old script stays then.
        """
        script = Script(entries, self.settings.seed)
        if self._loop is None or self._loop is _running_loop():
            self._use_script(script)
        else:
            asyncio.run_coroutine_threadsafe(self._use_script_soon(script), self._loop).result()

    async def _use_script_soon(self, script: Script) -> None:
        self._use_script(script)

    def _use_script(self, script: Script) -> None:
        self._script = script
        self._apply_refusals()

    def _apply_refusals(self) -> None:
        """Refuse or accept connections as the script says for now, and come back when it says
        otherwise.
        """
        if self._next_change:
            self._next_change.cancel()
        if self._loop is None:
            return
        refusing = self._script.refuses()
        self._listener.set_refusing(refusing=refusing)
        for connection in list(self._connections) if refusing else ():
            connection.hang_up()
        after_s = self._script.next_change_s()
        self._next_change = (
            None if after_s is None else self._loop.call_later(after_s, self._apply_refusals)
        )

    async def __aenter__(self) -> "MockServer":
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    def _answer(self, seen: RecordedRequest, body: bytes) -> MockReply:
        path = seen.path.partition("?")[0]
        method = "GET" if seen.method == "HEAD" else seen.method
        route = next(
            (route for route in ROUTES if route.method == method and path.endswith(route.tail)),
            UNKNOWN_ROUTE,
        )
        if route.remembered:
            self.requests.append(seen)
            del self.requests[:-REMEMBERED]
        try:
            if not route.open:
                self._check_key(seen)
            reply = route.handler(self, seen, body)
        except Refused as refused:
            reply = refused.reply
        return failed(503) if not route.steers and self._script.is_down() else reply

    def _check_key(self, seen: RecordedRequest) -> None:
        key, bad_keys = self.settings.api_key, self.settings.bad_keys
        given = seen.headers.get("authorization", "").removeprefix("Bearer ") or seen.headers.get(
            "api-key", ""
        )
        if given in bad_keys or (
            key is not None and not secrets.compare_digest(given.encode(), key.encode())
        ):
            raise Refused(refusal(401, f"Incorrect API key provided: {_redacted(given)}."))

    def _chat(self, seen: RecordedRequest, body: bytes) -> MockReply:
        self._calls += 1
        given, faults = self._script.call()
        request = _parse(seen, body, ChatBody)
        faults += _own_faults(request.model)
        draft = draft_of(request, self.settings, self._calls)
        given = msgspec.structs.replace(given, seed=draft.seed)
        draft = change_draft(draft, faults, given)
        rendered = render(draft)
        reply = change_reply(rendered, faults, given)
        if self._engine is not None and reply.status == 200:
            self._engine.asked(draft.seed, draft.prompt_tokens)
        if self.invoice is not None or self._engine is not None:
            bill = bill_of(draft)
            if not draft.stream and body_of(reply) != body_of(rendered):  # however late it comes
                bill = msgspec.structs.replace(bill, output_tokens=0)
            reply = msgspec.structs.replace(reply, bill=bill)
        return reply

    def _charge(self, bill: CallBill, output_tokens: int) -> None:
        """Count a call whose reply has ended after so many tokens."""
        if self.invoice is not None:
            self.invoice.add(bill, output_tokens)
        if self._engine is not None:
            self._engine.wrote(bill, output_tokens)

    def _metrics(self, seen: RecordedRequest, _: bytes) -> MockReply:
        if self._engine is None or self.settings.metrics is None:
            return self._unknown_route(seen, b"")
        busy = sum(each.is_writing_for("/chat/completions") for each in self._connections)
        text = ENGINES[self.settings.metrics](self._engine, busy, self.settings.models[0])
        kind = ("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
        return whole(text.encode(), headers=(kind,))

    def _embeddings(self, seen: RecordedRequest, body: bytes) -> MockReply:
        self._calls += 1
        given, faults = self._script.call()
        request = _parse(seen, body, EmbeddingsBody)
        faults += _own_faults(request.model)
        return change_reply(
            whole(encode(_embedded(request)), at_s=self.settings.ttft_s), faults, given
        )

    def _truth(self, seen: RecordedRequest, body: bytes) -> MockReply:
        request = _parse(seen, body, ChatBody)
        draft = draft_of(request, self.settings, 0)
        faults = [*self._script.always_active(), *_own_faults(request.model)]
        return whole(encode({"text": truth(change_draft(draft, faults, FaultContext(draft.seed)))}))

    def _put_script(self, seen: RecordedRequest, body: bytes) -> MockReply:
        entries = _parse(seen, body, list[str])
        try:
            self._script = Script(entries, self.settings.seed)
        except ValueError as error:
            raise Refused(refusal(400, str(error))) from None
        asyncio.get_running_loop().call_soon(
            self._apply_refusals
        )  # after this reply, which would be dropped with its connection
        return whole(encode(entries))

    def _models(self, _: RecordedRequest, __: bytes) -> MockReply:
        models = [
            {"id": name, "object": "model", "created": 0, "owned_by": "slipway-mock"}
            for name in self.settings.models
        ]
        return whole(encode({"object": "list", "data": models}))

    def _healthz(self, _: RecordedRequest, __: bytes) -> MockReply:
        return whole(
            encode(
                {
                    "status": "ok",
                    "uptime_s": round(time.monotonic() - self._started_at, 3),
                    "calls": self._calls,
                }
            )
        )

    def _unknown_route(self, seen: RecordedRequest, _: bytes) -> MockReply:
        return refusal(404, f"There is no {seen.method} {seen.path} here.")

    def _get_invoice(self, _: RecordedRequest, __: bytes) -> MockReply:
        if self.invoice is None:
            return refusal(404, "This mock has no prices; start it with `--price INPUT OUTPUT`.")
        return whole(as_csv(self.invoice.lines), headers=(("Content-Type", "text/csv"),))

    def _list_requests(self, _: RecordedRequest, __: bytes) -> MockReply:
        now = time.monotonic()
        return whole(encode([_shown(seen, now) for seen in self.requests]))


ROUTES = (
    _Route("POST", "/chat/completions", MockServer._chat),
    _Route("POST", "/embeddings", MockServer._embeddings),
    _Route("GET", "/models", MockServer._models),
    _Route("GET", "/healthz", MockServer._healthz, remembered=False, open=True, steers=True),
    _Route("GET", "/metrics", MockServer._metrics, remembered=False),
    _Route("GET", "/invoice", MockServer._get_invoice, remembered=False, steers=True),
    _Route("GET", "/requests", MockServer._list_requests, remembered=False, steers=True),
    _Route("PUT", "/script", MockServer._put_script, remembered=False, steers=True),
    _Route("POST", "/truth", MockServer._truth, remembered=False, steers=True),
)
UNKNOWN_ROUTE = _Route("", "", MockServer._unknown_route)


async def serve(settings: MockSettings, ready: Callable[[MockServer], None] | None = None) -> None:
    """Run until cancelled or SIGTERM. `ready` is called once the server listens. Raises OSError if
    it cannot.
    """
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    async with MockServer(settings) as server:
        with contextlib.suppress(
            NotImplementedError, RuntimeError, ValueError
        ):  # Windows, or not the main thread
            loop.add_signal_handler(signal.SIGTERM, stopped.set)
        try:
            if ready:
                ready(server)
            await stopped.wait()
        finally:
            with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
                loop.remove_signal_handler(signal.SIGTERM)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _own_faults(model: str) -> list[Fault]:
    """Return what the model's name asks for. Raises Refused with a 404 if there is no
    such fault.
    """
    try:
        own = fault_of_model(model)
    except ValueError as error:
        raise Refused(refusal(404, str(error), code="model_not_found", param="model")) from None
    return [own] if own else []


def _parse(seen: RecordedRequest, body: bytes, kind: type[Body]) -> Body:
    """Decode the body into `seen.body` and `kind`. Raises Refused with a 400 that names
    the field.
    """
    try:
        seen.body = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Refused(
            refusal(400, f"We could not parse the JSON body of your request: {error}.")
        ) from None
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
        {
            "object": "embedding",
            "index": index,
            "embedding": _coded(_vector(encode(item)), request.encoding_format),
        }
        for index, item in enumerate(inputs)
    ]
    tokens = sum(-(-len(item) // 4) if isinstance(item, str) else len(item) for item in inputs)
    return {
        "object": "list",
        "data": data,
        "model": request.model,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }


def _vector(data: bytes) -> list[float]:
    """Return a vector of length 1 that depends on `data` alone."""
    numbers = [
        number / 2**31 - 1
        for number in struct.unpack(f"<{DIMENSIONS}I", hashlib.sha256(data).digest())
    ]
    length = math.hypot(*numbers)
    return [number / length for number in numbers]


def _coded(vector: list[float], encoding: str | None) -> list[float] | str:
    return (
        base64.b64encode(struct.pack(f"<{DIMENSIONS}f", *vector)).decode()
        if encoding == "base64"
        else vector
    )


def _shown(seen: RecordedRequest, now: float) -> dict[str, Any]:
    return {
        "method": seen.method,
        "path": seen.path,
        "headers": {
            name: _redacted(value) if name in SECRET_HEADERS else value
            for name, value in seen.headers.items()
        },
        "body": seen.body,
        "age_s": round(now - seen.arrived_at, 6),
        "chunks": len(seen.sent),
        "closed_early": seen.closed_at is not None,
        "closed_after_s": None
        if seen.closed_at is None
        else round(seen.closed_at - seen.arrived_at, 6),
    }


def _redacted(secret: str) -> str:
    return f"…{secret[-4:]}" if len(secret) > 4 else "…"
