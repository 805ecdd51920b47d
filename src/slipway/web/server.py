"""uvicorn, plus limits on request headers, connections and slow clients, and a clean shutdown.

Each connection is in the ASGI scope as `extensions["slipway"]`, so that the guard can be notified
when the client disconnects.
"""

import asyncio
import errno
import logging
import math
import signal
import socket
from collections.abc import Callable
from types import FrameType
from typing import Any, cast

import httptools
import uvicorn
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from slipway.answer import Current
from slipway.errors import BadRequest, HeadTooLarge, Overloaded, SettingsError, SlipwayError
from slipway.providers import encode_json
from slipway.settings import Limits, Listen
from slipway.types import new_id
from slipway.web.guard import CUT_S, Guard, cors_headers, language_of
from slipway.web.wire import envelope

log = logging.getLogger("slipway")
# idle connections stay open this long after SIGTERM, for requests already on their way
LINGER_S = 0.5
MAX_UPGRADES = 20  # requests with an Upgrade header that one connection may send at once
SPARE = 64  # connections above the limit that may still ask for a probe
PROBES = frozenset({b"/healthz", b"/readyz"})


class ClientConnection(HttpToolsProtocol):
    """The connection of one client. `connection_class` sets `current` on a subclass."""

    current: Current

    @property
    def limits(self) -> Limits:
        """Return the limits in force; a reload changes them for open connections too."""
        return self.current.settings.limits

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # called once if the client disconnects during a request
        self.gone: Callable[[], object] | None = None
        self.stopping = False  # no further request is read on this connection
        self.only_probes = False  # above the limit of connections
        self.lost = False  # the connection is closed, by either side
        self.reading_since: float | None = self.loop.time()
        self.unread_since: float | None = None
        self.head_bytes = 0
        self.head_complete = False
        self.rejection: SlipwayError = BadRequest(
            "This is not a valid HTTP request.", "Send HTTP/1.1."
        )

    # connection
    def connection_made(  # type: ignore[override]  # as in uvicorn
        self, transport: asyncio.Transport
    ) -> None:
        super().connection_made(transport)
        over = len(self.connections) - self.limits.connections
        self.only_probes = over > 0
        if over > SPARE:
            self.reject(self.too_many())

    def too_many(self) -> Overloaded:
        """Return the error for a connection above the limit."""
        what = f"The limit of {self.limits.connections} open connections is reached."
        return Overloaded(what, retry_after_s=1.0)

    def connection_lost(self, exc: Exception | None) -> None:
        gone, self.gone = self.gone, None
        self.lost = True
        super().connection_lost(exc)
        if gone is not None:
            gone()

    def shutdown(self) -> None:
        """Close the connection after its request; one that is already on its way is answered."""
        self.stopping = True
        if self.cycle is None or self.cycle.response_complete:
            self.loop.call_later(LINGER_S, self._close_if_idle)
        elif not self.cycle.response_started:
            self.cycle.keep_alive = False  # the response will say `connection: close`

    def _close_if_idle(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()

    # requests
    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.head_complete = False
        self.scope["extensions"] = {"slipway": self}  # type: ignore[dict-item]  # our own extension
        self.head_bytes = 0
        self.reading_since = self.loop.time()

    def on_url(self, url: bytes) -> None:
        self._head_grew(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_grew(len(name) + len(value))
        if not self.head_complete:  # fields after the body (trailers) never change the head
            super().on_header(name, value)

    def _head_grew(self, size: int) -> None:
        self.head_bytes += size
        if self.head_bytes > self.limits.header_kb * 1024:
            self.rejection = HeadTooLarge(
                f"The request's headers are larger than {self.limits.header_kb} KiB."
            )
            raise self.rejection  # httptools stops parsing, and data_received sends it

    def on_headers_complete(self) -> None:
        self.head_complete = True
        if self.only_probes:
            if self.url.partition(b"?")[0] not in PROBES:
                self.rejection = self.too_many()
                raise self.rejection
            self.stopping = True  # a probe gets its answer, then the connection closes
        if not self.parser.should_upgrade():
            super().on_headers_complete()
            if self.stopping:
                self.cycle.keep_alive = False

    def on_message_complete(self) -> None:
        if not self.parser.should_upgrade():
            self.reading_since = None
            super().on_message_complete()

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        for _ in range(MAX_UPGRADES):
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                data = self.without_upgrade(data[upgrade.args[0] :])
                if not data:
                    return
            except httptools.HttpParserError:
                self.reject(self.rejection)
                return
            else:
                return
        self.reject(BadRequest("Too many Upgrade requests in a row.", "Send them without Upgrade."))

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
        kept = [
            b"%b: %b\r\n" % h
            for h in self.headers
            if h[0] not in (b"upgrade", b"connection", b"http2-settings")
        ]
        self.parser = httptools.HttpRequestParser(self)
        return b"%b %b HTTP/1.1\r\n%b\r\n%b" % (method, url, b"".join(kept), rest)

    def on_response_complete(self) -> None:
        self.gone = None
        super().on_response_complete()
        if self.stopping:
            self.loop.call_later(LINGER_S, self._close_if_idle)

    def reject(self, error: SlipwayError) -> None:
        """Send an error for a request that could not be parsed, and close the connection."""
        ref = new_id("ref")
        log.info("%s: a connection was rejected: %d (%s)", ref, error.status, error.code)
        headers = dict(self.headers or ())
        body = encode_json(envelope(error, ref, language_of(headers)))
        origin = headers.get(b"origin", b"")
        allowed = {o.lower() for o in self.current.settings.listen.allowed_origins}
        cors = cors_headers(origin) if origin.decode("latin-1").lower() in allowed else []
        more = b"".join(b"%b: %b\r\n" % header for header in cors)
        head = (
            f"HTTP/1.1 {error.status} Rejected\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\nx-request-id: {ref}\r\n"
        )
        self.transport.write(head.encode() + more + b"connection: close\r\n\r\n" + body)
        self.transport.close()

    # slow clients
    def keep_reading(self) -> None:
        """Restart the timeout of a body that may take long, such as a slow upload."""
        if self.reading_since is not None:
            self.reading_since = self.loop.time()

    def pause_writing(self) -> None:
        self.unread_since = self.loop.time()
        super().pause_writing()

    def resume_writing(self) -> None:
        self.unread_since = None
        super().resume_writing()

    def close_if_slow(self, now: float) -> None:
        """Close the connection if the client is too slow to send its request or to read a response.

        Called once a second.
        """
        if self.unread_since is not None and now - self.unread_since > self.limits.slow_reader:
            log.warning(
                "a client did not read its answer for %g s and was disconnected",
                self.limits.slow_reader,
            )
            self.transport.abort()
        elif self.reading_since is not None and now - self.reading_since > self.limits.head_timeout:
            self.transport.close()


def write_whole(send: Any, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> bool:
    """Write a whole response with one system call, where ASGI's two messages need two.

    Return False and write nothing if `send` is not uvicorn's own; a wrapped one may add headers.
    """
    cycle = getattr(send, "__self__", None)
    if not isinstance(cycle, RequestResponseCycle) or cycle.response_started or cycle.disconnected:
        return False
    lines = [STATUS_LINE[status], *[b"%b: %b\r\n" % h for h in headers]]
    close = b"" if cycle.keep_alive else b"connection: close\r\n"
    cycle.response_started = cycle.response_complete = True
    cycle.transport.write(
        b"%bcontent-length: %d\r\n%b\r\n%b" % (b"".join(lines), len(body), close, body)
    )
    cycle.message_event.set()
    if not cycle.keep_alive:
        cycle.transport.close()
    cycle.on_response()
    return True


def connection_class(current: Current) -> type[ClientConnection]:
    """Return a subclass that knows the current settings, since uvicorn takes a class."""
    return type("ServedConnection", (ClientConnection,), {"current": current})


def bind(listen: Listen) -> socket.socket:
    """Return the listening socket. Raise SettingsError if the address cannot be used."""
    try:
        family, _, _, _, address = socket.getaddrinfo(
            listen.host, listen.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        return socket.create_server(
            cast("tuple[str, int]", address[:2]), family=family, backlog=2048
        )
    except socket.gaierror:
        raise SettingsError(
            [f"listen.host: `{listen.host}` is not an address of this machine; use 127.0.0.1"]
        ) from None
    except OverflowError:
        raise SettingsError([f"listen.port: {listen.port} is not a port; use 1 to 65535"]) from None
    except OSError as error:
        taken = error.errno == errno.EADDRINUSE
        fix = (
            "stop the other program, or choose another with --port"
            if taken
            else f"{error.strerror}; choose another"
        )
        what = "is in use" if taken else "cannot be used"
        raise SettingsError(
            [f"listen: port {listen.port} of {listen.host} {what}; {fix}"]
        ) from None


class Server(uvicorn.Server):
    """Runs until SIGTERM or SIGINT, then finishes within `listen.grace`; a second signal ends at
    once.
    """

    def __init__(self, app: Guard, current: Current) -> None:
        self.current, self.ending = current, app.shutdown
        super().__init__(
            uvicorn.Config(
                app,
                http=connection_class(current),
                loop="auto",
                ws="none",
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
                date_header=False,
                proxy_headers=False,
                timeout_keep_alive=75,
            )
        )

    @property
    def grace_s(self) -> float:
        """Return the seconds that running answers get to finish after SIGTERM."""
        return self.current.settings.listen.grace

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit:
            self.force_exit = True
        else:
            log.info(
                "%s: finishing %d answers within %g s",
                signal.Signals(sig).name,
                len(self.server_state.tasks),
                self.grace_s,
            )
        self.ending.begin()
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Finish running answers within the grace, and cut the others with a word to the client."""
        self.ending.begin()
        self.config.timeout_graceful_shutdown = math.ceil(self.ending.left_s() + 2 * CUT_S)
        cutting = asyncio.create_task(self.ending.cut_late(lambda: self.server_state.tasks))
        try:
            await super().shutdown(sockets)
        finally:
            cutting.cancel()
            await asyncio.gather(cutting, return_exceptions=True)

    async def on_tick(self, counter: int) -> bool:
        if counter % 10 == 0:
            now = asyncio.get_running_loop().time()
            for connection in list(self.server_state.connections):
                if isinstance(connection, ClientConnection):
                    connection.close_if_slow(now)
        return await super().on_tick(counter)
