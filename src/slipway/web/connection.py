"""The connection of one client: requests parsed from bytes, with limits on what a client may send
and on how slow it may be.

A chat request is handed over once its body is here; every other one once its head is, and its body
follows as it is read.
"""

import asyncio
import logging
from collections import deque
from typing import Any, cast

import httptools

from slipway.answer import Current
from slipway.errors import BadRequest, HeadTooLarge, Overloaded, SlipwayError
from slipway.providers import encode_json
from slipway.settings import Limits
from slipway.types import new_id
from slipway.web.error_forms import envelope
from slipway.web.exchange import Exchange, Headers, OldExchange, header_lines
from slipway.web.guard import Guard, cors_headers, language_of

log = logging.getLogger("slipway")
# idle connections stay open this long after SIGTERM, for requests already on their way
LINGER_S = 0.5
KEEP_ALIVE_S = 75.0
MAX_UPGRADES = 20  # requests with an Upgrade header that one connection may send at once
SPARE = 64  # connections above the limit that may still ask for a probe
PROBES = frozenset({b"/healthz", b"/readyz"})
# A chat request with a smaller body is handed over at once, when all of it is here
SMALL_BODY = 1024 * 1024
LENGTH_DIGITS = len(str(SMALL_BODY)) - 1


class ClientConnection(asyncio.Protocol):
    """One client's connection. `connection_class` sets `current` and `guard` on a subclass."""

    current: Current
    guard: Guard

    __slots__ = (
        "answering",
        "block",
        "connections",
        "idle_since",
        "in_head",
        "loop",
        "lost",
        "only_probes",
        "parser",
        "queue",
        "raw_headers",
        "read_paused",
        "reading",
        "reading_since",
        "rejected",
        "rejection",
        "spans",
        "stopping",
        "tasks",
        "trailers",
        "transport",
        "unread_since",
        "url",
        "writable",
        "write_paused",
    )

    def __init__(
        self,
        config: Any,
        server_state: Any,
        app_state: Any,
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        """Take the arguments that uvicorn calls a protocol with."""
        self.loop = _loop or asyncio.get_event_loop()
        self.connections: set[ClientConnection] = server_state.connections
        self.tasks: set[asyncio.Task[None]] = server_state.tasks
        self.transport = cast("asyncio.Transport", None)
        self.parser = new_parser(self)
        self.url = b""
        self.raw_headers: Headers = []
        self.reading: Exchange | None = None  # its request is being received
        self.answering: Exchange | None = None  # its response is not complete
        self.queue: deque[Exchange] | None = None  # requests that came before their turn
        self.stopping = False  # no further request is read on this connection
        self.only_probes = False  # above the limit of connections
        self.lost = self.rejected = False
        self.in_head = self.read_paused = self.write_paused = False
        self.block = self.spans = self.trailers = 0
        self.reading_since: float | None = self.loop.time()
        self.idle_since: float | None = None
        self.unread_since: float | None = None
        self.writable: asyncio.Future[None] | None = None
        self.rejection: SlipwayError | None = None

    @property
    def limits(self) -> Limits:
        """Return the limits in force; a reload changes them for open connections too."""
        return self.current.settings.limits

    # The connection
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.connections.add(self)
        over = len(self.connections) - self.limits.connections
        self.only_probes = over > 0
        if over > SPARE:
            self.reject(self.too_many())

    def too_many(self) -> Overloaded:
        """Return the error for a connection above the limit."""
        what = f"The limit of {self.limits.connections} open connections is reached."
        return Overloaded(what, retry_after_s=1.0)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self.connections.discard(self)
        self.resume_writing()
        self.queue = None
        exchange = self.answering
        if exchange is not None:
            if exchange.task is not None:  # it may be cancelled before it has begun
                exchange.task.add_done_callback(self.tasks.discard)
            exchange.left()

    def eof_received(self) -> None:
        """Close the connection, as a client that sends no more has left."""

    def shutdown(self) -> None:
        """Close the connection after its request; one that is already on its way is answered."""
        self.stopping = True
        if self.answering is None:
            self.loop.call_later(LINGER_S, self._close_if_idle)
        elif not self.answering.begun:
            self.answering.keep_alive = False  # the response will say `connection: close`

    def _close_if_idle(self) -> None:
        if self.answering is None:
            self.transport.close()

    # The parser's callbacks
    def on_message_begin(self) -> None:
        self.url = b""
        self.raw_headers = []
        self.in_head = True
        self.spans = 0
        self.idle_since = None
        self.reading_since = self.loop.time()

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.in_head:
            self.raw_headers.append((name.lower(), value))
        else:  # fields after the body (trailers) never change the head
            self.trailers += len(name) + len(value)
            self._check_head(self.trailers)

    def _check_head(self, size: int) -> None:
        if size > self.limits.header_kb * 1024:
            self.rejection = HeadTooLarge(
                f"The request's headers are larger than {self.limits.header_kb} KiB."
            )
            raise self.rejection  # httptools stops parsing, and data_received sends it

    def on_headers_complete(self) -> None:
        self.in_head = False
        if self.spans or self.block > self.limits.header_kb * 1024:
            self._check_head(len(self.url) + sum(len(n) + len(v) for n, v in self.raw_headers))
        if self.only_probes:
            if self.url.partition(b"?")[0] not in PROBES:
                self.rejection = self.too_many()
                raise self.rejection
            self.stopping = True  # a probe gets its answer, then the connection closes
        parser = self.parser
        if not parser.should_upgrade():
            self._begin(parser)

    def _begin(self, parser: Any) -> None:
        """Make the exchange of the request whose head is here, and start it if it is its turn."""
        method, version = parser.get_method(), parser.get_http_version()
        keep_alive = version != "1.0" and not self.stopping and parser.should_keep_alive()
        kind = Exchange if version != "1.0" else OldExchange
        self.reading = exchange = kind(
            self,
            self.transport,
            method.decode("ascii"),
            self.url,
            self.raw_headers,
            keep_alive=keep_alive,
        )
        self.trailers = 0
        path = self.guard.direct.get(self.url) if method == b"POST" else None
        if path is not None and is_small(exchange.headers):
            exchange.path = path
            return  # `on_message_complete` starts it
        exchange.version = version
        exchange.awaits_continue = exchange.headers.get(b"expect", b"").lower() == b"100-continue"
        self._start_or_queue(exchange)

    def on_body(self, body: bytes) -> None:
        self.spans = 0
        if self.reading is not None:
            self.reading.body_arrived(body)

    def on_message_complete(self) -> None:
        exchange, self.reading = self.reading, None
        if exchange is None:
            return  # its Upgrade header is taken away first
        self.spans = 0
        self.reading_since = None
        exchange.complete = True
        if exchange.path and exchange.task is None:  # the guard sets the path of one that runs
            if self.answering is None:
                self._start(exchange)
            else:
                self._start_or_queue(exchange)
        else:
            exchange.wake()

    def _start_or_queue(self, exchange: Exchange) -> None:
        if self.answering is None:
            self._start(exchange)
            return
        if self.queue is None:
            self.queue = deque()
        self.queue.append(exchange)
        self.pause_reading()

    def _start(self, exchange: Exchange) -> None:
        self.answering = exchange
        exchange.task = task = self.loop.create_task(self.guard.serve(exchange))
        self.tasks.add(task)

    def exchange_ended(self) -> None:
        """Begin the next request that is already here."""
        self.answering = None
        if self.stopping:
            self.loop.call_later(LINGER_S, self._close_if_idle)
        if self.transport.is_closing():
            return
        if self.read_paused:
            self.resume_reading()
        if self.queue:
            self._start(self.queue.popleft())
        else:
            self.idle_since = self.loop.time()

    def task_ended(self, task: "asyncio.Task[None]") -> None:
        self.tasks.discard(task)

    # Bytes
    def data_received(self, data: bytes) -> None:
        self.block = len(data)
        self.spans += self.block
        for _ in range(MAX_UPGRADES):
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                data = self.without_upgrade(data[upgrade.args[0] :])
                if not data:
                    return
            except httptools.HttpParserError:
                self.reject(
                    self.rejection
                    or BadRequest("This is not a valid HTTP request.", "Send HTTP/1.1.")
                )
                return
            else:
                # a field that has not ended yet is in no callback, but it counts
                if self.spans and self.spans > self.limits.header_kb * 1024 and not self.rejected:
                    self._reject_endless()
                return
        self.reject(BadRequest("Too many Upgrade requests in a row.", "Send them without Upgrade."))

    def _reject_endless(self) -> None:
        try:
            self._check_head(self.spans)
        except HeadTooLarge as error:
            self.reject(error)

    def without_upgrade(self, rest: bytes) -> bytes:
        """Return the request without its Upgrade header and what follows it, to be parsed again.

        RFC 9110, 7.8 allows this. Empty after a CONNECT request, which is rejected.
        Java clients send `Upgrade: h2c`, and with it the parser would not read the body.
        """
        method, url = self.parser.get_method(), self.url
        if method == b"CONNECT":
            self.reject(
                BadRequest("This server is not a proxy.", "Send the request to its own server.")
            )
            return b""
        kept = header_lines(
            h
            for h in self.raw_headers
            if h[0] not in (b"upgrade", b"connection", b"http2-settings")
        )
        self.parser = new_parser(self)
        return b"%b %b HTTP/1.1\r\n%b\r\n%b" % (method, url, kept, rest)

    def reject(self, error: SlipwayError) -> None:
        """Send an error for a request that could not be parsed, and close the connection."""
        self.rejected = True
        ref = new_id("ref")
        log.info("%s: a connection was rejected: %d (%s)", ref, error.status, error.code)
        headers = dict(self.raw_headers)
        body = encode_json(envelope(error, ref, language_of(headers)))
        origin = headers.get(b"origin", b"")
        more = cors_headers(origin) if self.guard.is_allowed(origin) else []
        head = (
            f"HTTP/1.1 {error.status} Rejected\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\nx-request-id: {ref}\r\n"
        )
        self.transport.write(
            head.encode() + header_lines(more) + b"connection: close\r\n\r\n" + body
        )
        self.transport.close()

    # Flow control
    def pause_reading(self) -> None:
        if not self.read_paused:
            self.read_paused = True
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()

    def pause_writing(self) -> None:
        self.write_paused = True
        self.unread_since = self.loop.time()

    def resume_writing(self) -> None:
        self.write_paused = False
        self.unread_since = None
        if self.writable is not None and not self.writable.done():
            self.writable.set_result(None)
        self.writable = None

    async def drain(self) -> None:
        while self.write_paused:
            if self.writable is None:
                self.writable = self.loop.create_future()
            await asyncio.shield(self.writable)

    # Slow clients
    def keep_reading(self) -> None:
        """Restart the timeout of a body that may take long, such as a slow upload."""
        if self.reading_since is not None:
            self.reading_since = self.loop.time()

    def close_if_slow(self, now: float) -> None:
        """Close the connection if the client is too slow to send its request or to read a response,
        or has not used it for KEEP_ALIVE_S. Called once a second.
        """
        if self.unread_since is not None and now - self.unread_since > self.limits.slow_reader:
            log.warning(
                "a client did not read its answer for %g s and was disconnected",
                self.limits.slow_reader,
            )
            self.transport.abort()
            return
        begun, idle = self.reading_since, self.idle_since
        is_slow = begun is not None and now - begun > self.limits.head_timeout
        if is_slow or (idle is not None and now - idle > KEEP_ALIVE_S):
            self.transport.close()


def new_parser(connection: ClientConnection) -> Any:
    """Return a parser that answers a request also if bytes follow one that says `close`."""
    parser = httptools.HttpRequestParser(connection)
    parser.set_dangerous_leniencies(lenient_data_after_close=True)
    return parser


def is_small(headers: dict[bytes, bytes]) -> bool:
    """Return whether the body has a length, a small one, and comes without being asked for."""
    length = headers.get(b"content-length", b"")
    return len(length) <= LENGTH_DIGITS and length.isdigit() and b"expect" not in headers


def connection_class(current: Current, guard: Guard) -> type[ClientConnection]:
    """Return a subclass that knows the server's settings and guard, as uvicorn takes a class."""
    return type(
        "ServedConnection",
        (ClientConnection,),
        {"current": current, "guard": guard, "__slots__": ()},
    )
