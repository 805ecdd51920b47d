"""A small HTTP/1.1 client for one upstream origin: asyncio and httptools, a keep-alive pool, and
three timeouts.

It is for calls to language models: a reply is one JSON body or one long stream, and the client
takes most of a gateway's CPU time. Proxies are left to `proxied.py`. It refuses redirects and
compressed replies (it asks for `identity`).

A call on a kept connection that the peer had already closed is sent again, once and on a new
connection, provided that not one byte came back and the close was seen within STALE_S of sending:
then the peer cannot have answered it. The caller may forbid that, since a request that makes the
peer close the connection looks the same.
"""

import asyncio
import math
import ssl
from collections import deque
from typing import cast
from urllib.parse import urlsplit

import httptools

from slipway.errors import (
    ModelBusy,
    ProviderCut,
    ProviderDown,
    ProviderNonsense,
    ProviderSlow,
)
from slipway.providers.client import (
    LARGEST_REPLY,
    HttpReply,
    MayResend,
    Sink,
    Timeouts,
    always,
    unsent,
)
from slipway.providers.dialing import dial
from slipway.providers.tls import os_error_text, tls_context

# A close later than this after sending is a failure of the call, not of an old connection
STALE_S = 1.0
DRAIN_S = 1.0  # how long the end of a reply may take after its last event
TICK_S = 0.05  # how often deadlines are checked
HIGH_WATER = 256 * 1024  # unread bytes of a stream at which we stop reading
LARGEST_HEAD = 64 * 1024
SIZES = frozenset({b"content-length", b"transfer-encoding"})  # how a head says where a body ends


class StaleConnection(Exception):
    """A kept connection turned out to be closed already."""


class HttpConnection(asyncio.Protocol):
    """One connection, and the exchange in progress on it, if any."""

    __slots__ = (
        "any_byte",
        "busy",
        "chunks",
        "complete",
        "deadline",
        "draining",
        "error",
        "has_head",
        "headers",
        "idle_since",
        "keep_alive",
        "loop",
        "lost",
        "parser",
        "paused",
        "pool",
        "sent_at",
        "sink",
        "size",
        "spans",
        "status",
        "streaming",
        "transport",
        "until",
        "until_close",
        "waiter",
    )

    def __init__(self, pool: "Pool") -> None:
        self.pool = pool
        self.loop = pool.loop
        self.transport: asyncio.Transport | None = None
        self.parser = httptools.HttpResponseParser(self)
        self.idle_since = 0.0
        self.busy = self.lost = False
        self._begin()

    def _begin(self) -> None:
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.chunks: list[bytes] = []
        self.size = self.spans = 0
        self.sink: Sink | None = None
        self.has_head = self.complete = self.streaming = self.paused = self.keep_alive = (
            self.until_close
        ) = False
        self.any_byte = self.draining = False
        self.error: Exception | None = None
        self.waiter: asyncio.Future[None] | None = None
        self.deadline = self.until = math.inf
        self.sent_at = 0.0

    def send(self, head: bytes, body: bytes, until: float) -> None:
        self._begin()
        self.busy = True
        self.until = until
        self.sent_at = self.loop.time()
        self.deadline = self.sent_at + self.pool.timeouts.first_byte_s
        transport = cast("asyncio.Transport", self.transport)
        transport.write(b"%bContent-Length: %d\r\n\r\n%b" % (head, len(body), body))

    # asyncio's side
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if not self.busy:  # a reply to no request: this connection can't be used any more
            self.end()
            return
        self.any_byte = True
        if not self.draining:
            self.deadline = self.loop.time() + self.pool.timeouts.between_bytes_s
        self.spans += len(data)
        try:
            self.parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self.fail(ProviderNonsense(f"{self.pool.who} sent something that is not HTTP."))
            return
        if self.spans > LARGEST_HEAD:  # a field that has not ended yet is in no callback
            self.fail(ProviderNonsense(f"{self.pool.who} sent headers that are too large."))
            return
        if self.sink is not None and self._was_taken(self.sink):
            return
        self.wake()

    def _was_taken(self, sink: Sink) -> bool:
        """Return whether the sink has taken what has arrived, so that nobody need be woken."""
        waiter, chunks = self.waiter, self.chunks
        if waiter is None or waiter.done() or not chunks or self.complete:
            return False
        if not sink(chunks[0] if len(chunks) == 1 else b"".join(chunks)):
            return False
        chunks.clear()
        self.size = 0
        return True

    def eof_received(self) -> None:
        if self.busy and self.has_head and self.until_close:
            self.complete = True

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self.pool.forget(self)
        if not self.busy or self.complete:
            self.wake()
        elif self.any_byte:
            self.fail(
                ProviderCut(f"{self.pool.who} ended the connection in the middle of its answer.")
            )
        elif self.loop.time() - self.sent_at <= STALE_S:
            self.fail(StaleConnection())
        else:
            self.fail(ProviderDown(f"{self.pool.who} ended the connection without an answer."))

    # httptools' side
    def on_message_begin(self) -> None:
        if self.complete:  # it would overwrite the reply that is here already
            raise ValueError("a second response")

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self.status = self.parser.get_status_code()
        if self.status < 200:  # 100 Continue, 103 Early Hints: the real head follows
            self.headers.clear()
            return
        if self.spans > LARGEST_HEAD:
            size = sum(len(name) + len(value) for name, value in self.headers)
            if size > LARGEST_HEAD:
                raise ValueError("response head too large")
            self.spans = 0
        self.has_head = True
        self.keep_alive = self.parser.should_keep_alive()
        for name, _ in self.headers:
            if name in SIZES:
                return
        self.until_close = self.status not in (204, 304)

    def on_body(self, body: bytes) -> None:
        self.spans = 0
        self.chunks.append(body)
        self.size += len(body)
        if self.streaming:
            if self.size > HIGH_WATER and not self.paused:
                self.pause()
        elif self.size > LARGEST_REPLY:
            raise ValueError("response too large")

    def on_message_complete(self) -> None:
        if self.status >= 200:
            self.complete = True
            self.spans = 0

    # the reader's side
    def drain(self) -> None:
        """Let the connection reach the end of its reply by itself, within DRAIN_S."""
        self.draining, self.streaming, self.sink = True, False, None
        self.deadline = self.loop.time() + DRAIN_S
        if self.paused:
            self.paused = False
            cast("asyncio.Transport", self.transport).resume_reading()

    def wake(self) -> None:
        if self.draining:
            if self.complete or self.error is not None:
                self.pool.release(self)
            return
        waiter = self.waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def fail(self, error: Exception) -> None:
        if self.error is None and not self.complete:
            self.error = error
        self.end()
        self.wake()

    def raise_error(self) -> None:
        if self.error is not None:
            raise self.error

    def arrival(self) -> "asyncio.Future[None]":
        """Return a future that is done once something has arrived, or has gone wrong."""
        self.waiter = waiter = self.loop.create_future()
        return waiter

    def pause(self) -> None:
        """Stop reading, because our reader is slow. The silence that follows is not the upstream's
        fault.
        """
        if self.transport is not None and not self.transport.is_closing():
            self.paused = True
            self.transport.pause_reading()
            self.deadline = math.inf

    def resume(self) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.paused = False
            self.transport.resume_reading()
            self.deadline = self.loop.time() + self.pool.timeouts.between_bytes_s

    def end(self) -> None:
        self.keep_alive = False
        if self.transport is not None:
            self.transport.abort()

    def overdue(self, now: float) -> None:
        """Fail the exchange with the timeout that has passed."""
        timeouts = self.pool.timeouts
        if self.until <= now:
            self.fail(ProviderSlow(f"{self.pool.who} took too long: {now - self.sent_at:.1f} s."))
        elif self.any_byte:
            self.fail(
                ProviderSlow(
                    f"{self.pool.who} fell silent for {timeouts.between_bytes_s:g} s in the "
                    "middle of its answer."
                )
            )
        else:
            self.fail(
                ProviderSlow(
                    f"{self.pool.who} did not begin to answer within {timeouts.first_byte_s:g} s."
                )
            )


class PooledReply:
    """The reply on an HttpConnection; `close` returns the connection to its pool."""

    __slots__ = ("connection", "status")

    def __init__(self, connection: HttpConnection) -> None:
        self.connection: HttpConnection | None = connection
        self.status = connection.status

    def header(self, name: bytes) -> bytes | None:
        return next((v for k, v in self._open().headers if k == name), None)

    def headers_with(self, prefix: bytes) -> list[tuple[bytes, bytes]]:
        return [header for header in self._open().headers if header[0].startswith(prefix)]

    @property
    def is_complete(self) -> bool:
        connection = self.connection
        return connection is not None and connection.complete and not connection.chunks

    def divert(self, sink: Sink | None) -> None:
        self._open().sink = sink

    def _open(self) -> HttpConnection:
        if self.connection is None:
            raise RuntimeError("this reply is closed")
        return self.connection

    async def read(self) -> bytes:
        c = self._open()
        while not c.complete:
            c.raise_error()
            await c.arrival()
        return c.chunks[0] if len(c.chunks) == 1 else b"".join(c.chunks)

    async def chunk(self) -> bytes:
        c = self._open()
        c.streaming = True
        while not c.chunks:
            if c.complete:
                return b""
            if c.error is not None:
                c.raise_error()
            await c.arrival()
        data = c.chunks[0] if len(c.chunks) == 1 else b"".join(c.chunks)
        c.chunks.clear()
        c.size = 0
        if c.paused:
            c.resume()
        return data

    def limit(self, until: float) -> None:
        self._open().until = until

    def close(self, *, nearly_done: bool = False) -> None:
        connection, self.connection = self.connection, None
        if connection is None:
            return
        if nearly_done and not connection.complete and not connection.lost:
            connection.drain()
        else:
            connection.pool.release(connection)


class Pool:
    """The connections to one origin. Raises ProviderError for every failure, never an OSError. Its
    sentences begin with `who`, since clients read them and need not know our addresses.
    """

    def __init__(
        self,
        url: str,
        who: str,
        timeouts: Timeouts,
        *,
        keep_alive_s: float = 30.0,
        most: int = 512,
        ca_file: str | None = None,
    ) -> None:
        parts = urlsplit(url)
        self.host = parts.hostname or ""
        self.tls = parts.scheme == "https"
        self.port = parts.port or (443 if self.tls else 80)
        self.who = who
        self.timeouts, self.keep_alive_s, self.most, self.ca_file = (
            timeouts,
            keep_alive_s,
            most,
            ca_file,
        )
        self.loop = asyncio.get_running_loop()
        self.context: ssl.SSLContext | None = None
        self.idle: list[HttpConnection] = []
        self.active: set[HttpConnection] = set()
        self.connecting = 0
        self.queue: deque[asyncio.Future[None]] = deque()
        self.ticker: asyncio.TimerHandle | None = None
        self.keeps = True

    async def send(
        self, head: bytes, body: bytes, until: float = math.inf, *, may_resend: MayResend = always
    ) -> HttpReply:
        may_reuse = True
        while True:
            connection = self._kept() if may_reuse else None
            reused = True
            if connection is None:
                connection, reused = await self._free(until, may_reuse=may_reuse)
            try:
                connection.send(head, body, until)
                while not connection.has_head:
                    if connection.error is not None:
                        connection.raise_error()
                    await connection.arrival()
            except StaleConnection:
                self.release(connection)
                if reused and may_resend():
                    may_reuse = False  # whatever closed one kept connection may close the others
                    continue
                raise ProviderDown(f"{self.who} ended the connection without an answer.") from None
            except BaseException:
                self.release(connection)
                raise
            return PooledReply(connection)

    def _kept(self) -> HttpConnection | None:
        """Return a connection that has been used before, if there is one."""
        while self.idle:
            connection = self.idle.pop()
            idle_s = self.loop.time() - connection.idle_since
            if not connection.lost and idle_s < self.keep_alive_s:
                self._activate(connection)
                return connection
            connection.end()
        return None

    async def _free(self, until: float, *, may_reuse: bool) -> tuple[HttpConnection, bool]:
        """Return a new connection or, if all are in use, one that becomes free; and whether it has
        been used before.
        """
        while True:
            if self.idle and len(self.idle) + len(self.active) + self.connecting >= self.most:
                self.idle.pop(0).end()
            if len(self.active) + self.connecting < self.most:
                return await self._connect(until), False
            await self._wait_for_connection(until)
            if may_reuse and (connection := self._kept()) is not None:
                return connection, True

    async def _wait_for_connection(self, until: float) -> None:
        """Wait until a connection may be free, in order of arrival."""
        turn = self.loop.create_future()
        self.queue.append(turn)
        try:
            async with asyncio.timeout(
                min(self.timeouts.connect_s, max(0.0, until - self.loop.time()))
            ):
                await turn
        except (TimeoutError, asyncio.CancelledError) as error:
            if turn in self.queue:
                self.queue.remove(turn)
            else:  # it was woken, but leaves: wake the next one instead
                self._wake_next()
            if isinstance(error, asyncio.CancelledError):
                raise
            raise ModelBusy(
                f"{self.who} has no connection free: all {self.most} are in use.", retry_after_s=1.0
            ) from None

    async def _connect(self, until: float) -> HttpConnection:
        self.connecting += 1
        within_s = min(self.timeouts.connect_s, max(0.0, until - self.loop.time()))
        try:
            if self.tls and self.context is None:
                self.context = tls_context(self.ca_file)
            async with asyncio.timeout(within_s):
                connection = await dial(self.host, self.port, self._connect_to)
            self._activate(connection)
        except TimeoutError:
            what = f"{self.who} could not be reached within {within_s:.3g} s."
            raise unsent(ProviderSlow(what)) from None
        except OSError as error:
            what = f"{self.who} cannot be reached: {os_error_text(error)}."
            raise unsent(ProviderDown(what)) from None
        except UnicodeError:  # a name that cannot be encoded for a name server
            what = f"{self.who} cannot be reached: its name cannot be resolved."
            raise unsent(ProviderDown(what)) from None
        finally:
            self.connecting -= 1
            self._wake_next()
        return connection

    async def _connect_to(self, address: str) -> HttpConnection:
        _, connection = await self.loop.create_connection(
            lambda: HttpConnection(self),
            address,
            self.port,
            ssl=self.context,
            server_hostname=self.host if self.tls else None,
        )
        return connection

    def _activate(self, connection: HttpConnection) -> None:
        self.active.add(connection)
        if self.ticker is None:
            self.ticker = self.loop.call_later(TICK_S, self._tick)

    def _tick(self) -> None:
        now = self.loop.time()
        for connection in [c for c in self.active if c.deadline <= now or c.until <= now]:
            connection.overdue(now)
        for connection in [c for c in self.idle if now - c.idle_since >= self.keep_alive_s]:
            connection.end()
        self.ticker = (
            self.loop.call_later(TICK_S if self.active else 1.0, self._tick)
            if self.active or self.idle
            else None
        )

    def release(self, connection: HttpConnection) -> None:
        """Take a connection back: keep it if its exchange is over and the peer keeps it too;
        otherwise end it.
        """
        self.active.discard(connection)
        connection.sink = None
        if (
            connection.complete
            and connection.keep_alive
            and not connection.until_close
            and not connection.lost
            and self.keeps
        ):
            connection.busy = False
            connection.idle_since = self.loop.time()
            self.idle.append(connection)
        else:
            connection.busy = False
            connection.end()
        if self.queue:
            self._wake_next()

    def _wake_next(self) -> None:
        while self.queue and (self.idle or len(self.active) + self.connecting < self.most):
            turn = self.queue.popleft()
            if not turn.done():
                turn.set_result(None)
                return

    def forget(self, connection: HttpConnection) -> None:
        if connection in self.idle:
            self.idle.remove(connection)

    def retire(self) -> None:
        self.keeps = False
        for connection in self.idle:
            connection.end()
        self.idle.clear()

    async def close(self) -> None:
        self.retire()
        for connection in [*self.active]:
            connection.end()
        if self.ticker is not None:
            self.ticker.cancel()
            self.ticker = None
