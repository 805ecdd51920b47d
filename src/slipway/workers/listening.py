"""The sockets of workers: one per worker, all of the same port, made before the workers start.

The supervisor keeps every socket open. Connections that wait in the queue of a worker that died are
not lost: the worker that is started in its place accepts them, or another one until then.
"""

import socket
import sys
from pathlib import Path

BACKLOG = 2048


def bind_all(first: socket.socket, workers: int) -> list[socket.socket]:
    """Return a listening socket for each worker at the address of `first`, which is closed.

    Linux spreads connections evenly over sockets of one port (SO_REUSEPORT). Other systems don't:
    there, all workers share one socket.
    """
    address = first.getsockname()[:2]
    if not sys.platform.startswith("linux"):
        return [first] * workers
    # The port was free for `first`, which does not share it: no other server is there
    family = first.family
    first.close()
    return [
        socket.create_server(address, family=family, backlog=BACKLOG, reuse_port=True)
        for _ in range(workers)
    ]


def bind_inner(path: Path) -> socket.socket:
    """Return a listening Unix socket: where the first worker takes requests from the others."""
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listening.bind(str(path))
    listening.listen(BACKLOG)
    listening.setblocking(False)
    return listening
