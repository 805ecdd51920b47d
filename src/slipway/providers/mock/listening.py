"""The mock's address, where connections are accepted or, for a while, refused."""

import asyncio
import socket
import ssl
from collections.abc import Callable
from pathlib import Path

BACKLOG = 2048
TLS_GOODBYE_S = 0.2  # a client that has gone must not delay the end


class Listener:
    """A listening address. Raises OSError at its start if the address is in use or not ours.

    While it refuses, the port stays ours: its sockets are bound but do not listen, so the kernel
    refuses connections.
    """

    def __init__(
        self, protocol: Callable[[], asyncio.Protocol], tls: ssl.SSLContext | None
    ) -> None:
        self._protocol = protocol
        self._tls = tls
        self._servers: list[asyncio.Server] = []
        self._held: list[socket.socket] = []
        self._opening: asyncio.Task[None] | None = None
        self._refusing = False

    async def start(self, host: str, port: int) -> int:
        """Bind and return the port."""
        loop = asyncio.get_running_loop()
        server = await loop.create_server(
            self._protocol,
            host,
            port,
            backlog=BACKLOG,
            ssl=self._tls,
            ssl_shutdown_timeout=self._goodbye_s,
        )
        self._servers = [server]
        return int(server.sockets[0].getsockname()[1])

    def set_refusing(self, *, refusing: bool) -> None:
        """Refuse or accept connections: at once or, if it has just begun to accept, when that is
        done.
        """
        self._refusing = refusing
        if self._opening is None and refusing != bool(self._held):
            (self._refuse if refusing else self._accept)()

    async def close(self) -> None:
        self._refusing = False
        if self._opening:
            await self._opening
        for server in self._servers:
            server.close()
        for sock in self._held:
            sock.close()
        await asyncio.gather(*(server.wait_closed() for server in self._servers))
        self._servers, self._held = [], []

    @property
    def _goodbye_s(self) -> float | None:
        return TLS_GOODBYE_S if self._tls else None

    def _refuse(self) -> None:
        addresses = [
            (sock.family, sock.getsockname()) for server in self._servers for sock in server.sockets
        ]
        for server in self._servers:
            server.close()
        self._servers = []
        self._held = [_bound(family, address) for family, address in addresses]

    def _accept(self) -> None:
        for sock in self._held:
            sock.listen(BACKLOG)
        self._opening = asyncio.get_running_loop().create_task(self._serve())

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        for sock in self._held:
            self._servers.append(
                await loop.create_server(
                    self._protocol,
                    sock=sock,
                    backlog=BACKLOG,
                    ssl=self._tls,
                    ssl_shutdown_timeout=self._goodbye_s,
                )
            )
        self._held, self._opening = [], None
        self.set_refusing(refusing=self._refusing)


def _bound(family: int, address: tuple[str, int]) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setblocking(False)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    sock.bind(address)
    return sock


def tls_context(cert: Path | None, key: Path | None) -> ssl.SSLContext | None:
    """Return the TLS context, None for no TLS. Raises ValueError if one of both files is missing or
    unusable.
    """
    if cert is None and key is None:
        return None
    if cert is None or key is None:
        raise ValueError("TLS needs both a certificate (tls_cert) and its key (tls_key).")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(cert, key)
    except OSError as error:  # ssl.SSLError too
        raise ValueError(
            f"{cert} and {key} are no certificate (tls_cert) with its key (tls_key): "
            f"{error.strerror or error}."
        ) from None
    return context
