"""Connect to the first address of a host that answers (Happy Eyeballs, RFC 8305).

Many names have addresses of IPv6 and IPv4, and on many networks those of IPv6 lead nowhere. uvloop,
which the server runs on, tries one address after the other, so the connect timeout would be over
before the second one is tried.
"""

import asyncio
import socket
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeVar

NEXT_ADDRESS_S = 0.25  # after which the next address is tried as well


class Connection(Protocol):
    """What is connected."""

    def end(self) -> None: ...


Connected = TypeVar("Connected", bound=Connection)


async def dial(
    host: str, port: int, connect: Callable[[str], Coroutine[Any, Any, Connected]]
) -> Connected:
    """Return what `connect` returns for the first address of the host that it can connect to.

    Raises OSError: of the first address, if it fails for all.
    """
    infos = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = deque(dict.fromkeys(str(info[4][0]) for info in infos))
    if len(addresses) == 1:
        return await connect(addresses[0])
    running = set[asyncio.Task[Connected]]()
    failure: BaseException | None = None
    try:
        while addresses or running:
            if addresses:
                running.add(asyncio.create_task(connect(addresses.popleft())))
            wait_s = NEXT_ADDRESS_S if addresses else None
            done, running = await asyncio.wait(
                running, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED
            )
            connected = [task.result() for task in done if task.exception() is None]
            for each in connected[1:]:
                each.end()
            if connected:
                return connected[0]
            error = next((task.exception() for task in done), None)
            failure = failure or error
    finally:
        for task in running:
            task.cancel()
    raise failure or OSError(f"{host} has no address")
