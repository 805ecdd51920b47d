"""A server in this process, each callback of whose event loop is measured in CPU time.

CPU time of the loop's own thread does not depend on what else the machine does.
"""

import asyncio
import contextlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from slipway.app.building import build
from slipway.settings import Settings
from slipway.web.server import Server, bind
from waiting import PATIENCE_S, until


class Watched:
    """The server's address, and the CPU seconds of its longest callback since `clear`."""

    def __init__(self, url: str) -> None:
        self.url, self.longest_s = url, 0.0

    def clear(self) -> None:
        self.longest_s = 0.0


@contextmanager
def watched(settings: Settings) -> Iterator[Watched]:
    """Serve these settings on an event loop of asyncio, in a thread of its own."""
    listening = bind(settings.listen)
    seen = Watched(f"http://127.0.0.1:{listening.getsockname()[1]}")
    guard = build(settings)
    server = Server(guard, guard.current)
    run = asyncio.Handle._run

    def serve() -> None:
        asyncio.run(server.serve(sockets=[listening]))

    thread = threading.Thread(target=serve, daemon=True)

    def measured(handle: asyncio.Handle) -> None:
        if threading.current_thread() is not thread:
            run(handle)
            return
        began_at = time.thread_time()
        run(handle)
        seen.longest_s = max(seen.longest_s, time.thread_time() - began_at)

    setattr(asyncio.Handle, "_run", measured)  # noqa: B010 - the only way to see each callback
    try:
        thread.start()
        until(lambda: server.started)
        yield seen
    finally:
        server.should_exit = True
        thread.join(PATIENCE_S)
        setattr(asyncio.Handle, "_run", run)  # noqa: B010


@contextmanager
def replying(
    body: bytes, kind: str = "application/json", *, status: int = 200, method: str = "POST"
) -> Iterator[str]:
    """A provider that answers every call with this body."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            length = int(self.headers["content-length"] or 0)
            while length > 0:
                length -= len(self.rfile.read(min(length, 1 << 20)))
            self.send_response(status)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            with contextlib.suppress(OSError):  # the client may leave early
                self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Stay silent."""

    setattr(Handler, f"do_{method}", Handler.answer)
    upstream = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    upstream.daemon_threads = True
    thread = threading.Thread(target=upstream.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{upstream.server_address[1]}/v1"
    finally:
        upstream.shutdown()
        upstream.server_close()
        thread.join(PATIENCE_S)
