"""Answer a request by an ASGI application: the adapter between it and an exchange."""

import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import unquote

import httptools

from slipway.web.exchange import CLOSE, STATUS_LINES, Exchange, header_lines

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]

BAD_NAME = re.compile(b'[\x00-\x1f\x7f()<>@,;:\\[\\]={} \t\\\\"]')
BAD_VALUE = re.compile(b"[\x00-\x08\x0a-\x1f\x7f]")
NO_BODY = (204, 304)  # statuses whose responses have none


def path_and_query(url: bytes) -> tuple[bytes, bytes]:
    """Return both parts of a request's target, as they were sent."""
    parsed = httptools.parse_url(url)
    return parsed.path or b"/", parsed.query or b""


def decoded_path(raw: bytes) -> str:
    path = raw.decode("ascii", "replace")
    return unquote(path) if "%" in path else path


def through_asgi(app: AsgiApp) -> Callable[[Exchange], Awaitable[None]]:
    """Return a handler of exchanges that calls an ASGI application."""

    async def handle(exchange: Exchange) -> None:
        call = AsgiCall(exchange)
        await app(call.scope, call.receive, call.send)

    return handle


def scope_of(exchange: Exchange) -> Scope:
    """Return the exchange's ASGI scope (HTTP spec 2.3), made when it is first needed.

    What the guard found out is in it under `slipway.`, and the exchange under `extensions`.
    """
    if exchange.scope is None:
        raw_path, query = path_and_query(exchange.url)
        name = exchange.transport.get_extra_info
        exchange.scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": exchange.version,
            "server": address_of(name("sockname")),
            "client": exchange.client or address_of(name("peername")),
            "scheme": "http",
            "method": exchange.method,
            "root_path": "",
            "path": exchange.path,
            "raw_path": raw_path,
            "query_string": query,
            "headers": exchange.raw_headers,
            "state": {},
            "extensions": {"slipway": exchange},
            "slipway.headers": exchange.headers,
        }
    return exchange.scope


def address_of(address: Any) -> tuple[str, int] | None:
    """Return host and port of a socket's address; None for a socket that has none."""
    return (str(address[0]), int(address[1])) if isinstance(address, tuple) else None


class AsgiCall:
    """One call to an ASGI application: its scope, `receive` and `send`."""

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self.scope = scope_of(exchange)
        self.scope["path"] = exchange.path
        self.scope["slipway.asker"] = exchange.asker
        if exchange.person is not None:
            self.scope["slipway.person"] = exchange.person
        self.all_received = False
        self.left: int | None = None  # bytes of the body that are still to come; None if chunked
        self.sends_body = exchange.method != "HEAD"

    async def receive(self) -> Message:
        """Return the next part of the body; after its end, wait until the exchange has ended."""
        exchange = self.exchange
        while self.all_received and not (exchange.disconnected or exchange.over):
            await exchange.wait()
        data = b"" if self.all_received else await exchange.part()
        if exchange.disconnected or exchange.over:
            return {"type": "http.disconnect"}
        self.all_received = exchange.complete and not exchange.parts
        return {"type": "http.request", "body": data, "more_body": not self.all_received}

    async def send(self, message: Message) -> None:
        exchange = self.exchange
        await exchange.drain()
        if exchange.disconnected:
            return
        if message["type"] == "http.response.start" and not exchange.begun:
            self.start(message["status"], message.get("headers", ()))
        elif message["type"] == "http.response.body" and exchange.begun and not exchange.over:
            self.body(message.get("body", b""), more=message.get("more_body", False))
        else:
            raise RuntimeError(f"`{message['type']}` was sent at the wrong time")

    def start(self, status: int, headers: Any) -> None:
        exchange = self.exchange
        lines, is_chunked = [], True
        for name, value in headers:
            if BAD_NAME.search(name) or BAD_VALUE.search(value):
                raise RuntimeError(f"the response's header {name!r} is invalid")
            lowered = name.lower()
            if lowered == b"content-length":
                self.left, is_chunked = int(value), False
            elif lowered == b"connection":
                if b"close" in value.lower():
                    exchange.keep_alive = False
                continue
            lines.append((lowered, value))
        if status in NO_BODY or not self.sends_body:
            self.sends_body, is_chunked = False, False
        head = STATUS_LINES[status] + header_lines(lines)
        if is_chunked:
            exchange.begin(head)
            return
        exchange.begun, exchange.head = True, head
        close = b"" if exchange.keep_alive else CLOSE
        exchange.transport.write(b"%b%b%b\r\n" % (head, exchange.cors, close))

    def body(self, data: bytes, *, more: bool) -> None:
        exchange = self.exchange
        if self.sends_body and self.left is None:
            if data:
                exchange.write(data)
            if not more:
                exchange.end()
            return
        if self.sends_body and self.left is not None:
            self.left -= len(data)
            if self.left < 0 or (self.left and not more):
                raise RuntimeError("the response's body is not as long as its Content-Length")
            if exchange.said is not None:
                exchange.said.append(data)
            exchange.transport.write(data)
        if not more:
            exchange.finish()
