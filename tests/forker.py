"""Import Slipway once, then fork a process for each command that tests/warm.py asks for.

A request comes on standard input: its length, its JSON, and three handles: where to report the
process id and then the wait status, the command's output, and its errors.
"""

import contextlib
import gc
import importlib
import io
import json
import os
import select
import socket
import sys
from typing import Any

from slipway.cli import main

IMPORTED = (
    *(
        f"slipway.{name}"
        for name in ("app.serving", "commands.check", "commands.ingest", "commands.ask")
    ),
    *(f"slipway.{name}" for name in ("commands.eval", "commands.plan_making", "providers.mock")),
    *("sqlite3", "tantivy"),
)
Line = socket.socket


def forked(requests: Line) -> dict[str, Any]:
    """Serve requests. Return one, in a new process, each time; in this process, never."""
    running: dict[int, tuple[int, Line]] = {}  # by the handle of the process: its id and its line
    poll = select.poll()
    poll.register(requests, select.POLLIN)
    while True:
        for handle, _ in poll.poll():
            if handle != requests.fileno():
                poll.unregister(handle)
                report(handle, *running.pop(handle))
            elif (request := received(requests)) is None:
                sys.exit()
            else:
                body, (line, *outputs) = request
                if pid := os.fork():
                    watched = os.pidfd_open(pid)
                    running[watched] = (pid, Line(fileno=line))
                    poll.register(watched, select.POLLIN)
                    running[watched][1].send(pid.to_bytes(4, "big"))
                    for output in outputs:
                        os.close(output)
                else:
                    requests.close()
                    for other, (_, its_line) in running.items():
                        os.close(other)
                        its_line.close()
                    os.close(line)
                    return {**body, "outputs": outputs}


def received(requests: Line) -> tuple[dict[str, Any], list[int]] | None:
    data, handles, _, _ = socket.recv_fds(requests, 4, 3)
    if not data:
        return None
    length, body = int.from_bytes(data, "big"), b""
    while len(body) < length:
        body += requests.recv(length - len(body))
    return json.loads(body), handles


def report(handle: int, pid: int, line: Line) -> None:
    """Say how a process ended, to whoever still listens."""
    os.close(handle)
    status = os.waitpid(pid, 0)[1]
    with contextlib.suppress(OSError):  # the test that started it may have ended
        line.send(str(status).encode())
    line.close()


def become(args: list[str], cwd: str, env: dict[str, str], outputs: list[int]) -> None:
    """Turn this process into one that was started for this command."""
    null = os.open(os.devnull, os.O_RDONLY)
    for handle, number in ((null, 0), (outputs[0], 1), (outputs[1], 2)):
        os.dup2(handle, number)
    for handle in {null, *outputs}:
        os.close(handle)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 - they stay open to the end
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = io.TextIOWrapper(
        io.FileIO(2, "w", closefd=False), errors="backslashreplace", write_through=True
    )
    sys.argv, sys.path[0] = ["-c", *args], ""
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)


for name in IMPORTED:
    importlib.import_module(name)
gc.freeze()
become(**forked(Line(fileno=os.dup(0))))
main()
