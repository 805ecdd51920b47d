"""uvicorn's server with our own connections, and a clean shutdown.

uvicorn listens, handles signals and runs the lifespan; HTTP is read in `connection.py`.
"""

import asyncio
import errno
import logging
import math
import signal
import socket
from types import FrameType
from typing import cast

import uvicorn

from slipway.answer import Current
from slipway.errors import SettingsError
from slipway.settings import Listen
from slipway.web.connection import ClientConnection, connection_class
from slipway.web.guard import CUT_S, Guard

log = logging.getLogger("slipway")


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
                http=connection_class(current, app),
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
