"""The HTTP server of one worker among several."""

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Sequence
from types import FrameType

from slipway.answer import Current
from slipway.web.guard import Guard
from slipway.web.server import Server

log = logging.getLogger("slipway")


class WorkerServer(Server):
    """Takes requests on its own socket, and on that of a worker that does not run at the moment.

    A stop comes from the supervisor and perhaps from others as well: a second one changes nothing.
    """

    def __init__(
        self,
        app: Guard,
        current: Current,
        sockets: Sequence[socket.socket],
        on_start: Callable[[], Awaitable[None]],
        on_stop: Callable[[], None],
    ) -> None:
        """`sockets` are those of all workers. `on_start` is awaited once requests are taken,
        `on_stop` is called when the server begins to stop.
        """
        super().__init__(app, current)
        self._all, self._on_start, self._on_stop = sockets, on_start, on_stop
        self._covered: dict[int, asyncio.Server] = {}

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        await self._on_start()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if not self.should_exit:
            super().handle_exit(sig, frame)
            self._on_stop()

    def end_now(self) -> None:
        """End without waiting for answers."""
        self.should_exit = self.force_exit = True

    async def listen(self, number: int) -> None:
        """Accept the connections of another worker, which is not running."""
        if number in self._covered or self.should_exit:
            return
        server = await asyncio.get_running_loop().create_server(
            lambda: self.config.http_protocol_class(  # type: ignore[call-arg]  # as uvicorn does
                config=self.config,
                server_state=self.server_state,
                app_state=self.lifespan.state,
            ),
            sock=self._all[number - 1].dup(),
            backlog=self.config.backlog,
        )
        self._covered[number] = server
        self.servers.append(server)

    async def leave(self, number: int) -> None:
        """Accept no more connections of a worker that runs again."""
        if (server := self._covered.pop(number, None)) is not None:
            self.servers.remove(server)
            server.close()
