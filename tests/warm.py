"""Start commands from a process that has imported Slipway already: importing costs 0.3 s of CPU,
and the tests start about a thousand commands.

One such process belongs to each test worker. For each command it forks, and the child is then what
`python -c "from slipway.cli import main; main()" ARGS` is after its imports. Commands start cold
where forking is not available, with COLD_STARTS=1 (as `make cover` does), and if their environment
has variables that only a new interpreter reads.
"""

import atexit
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from functools import cache
from pathlib import Path
from typing import IO, Any

COMMAND = [sys.executable, "-c", "from slipway.cli import main; main()"]
FORKER = Path(__file__).with_name("forker.py")
READ_AT_START = ("PYTHON", "LC_", "LANG", "COLUMNS", "OMP_", "SSL_")
_starting = threading.Lock()


class WarmProcess:
    """A command that a forker runs. It has the methods of `subprocess.Popen` that tests call."""

    def __init__(self, args: list[str], line: socket.socket, pid: int) -> None:
        self.args, self.pid = args, pid
        self.returncode: int | None = None
        self._line = line

    def poll(self) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            self._line.settimeout(timeout if timeout is None else max(timeout, 1e-6))
            try:
                said = self._line.recv(16)
            except (TimeoutError, BlockingIOError):
                raise subprocess.TimeoutExpired(self.args, timeout or 0) from None
            self.returncode = os.waitstatus_to_exitcode(int(said))
            self._line.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


Process = subprocess.Popen[str] | WarmProcess


def start(args: list[str], out: IO[Any], err: IO[Any], cwd: Path, env: dict[str, str]) -> Process:
    """Start `slipway ARGS`, with what it writes going to the files `out` and `err`."""
    if not is_possible() or any(name.startswith(READ_AT_START) for name in env):
        return subprocess.Popen(
            [*COMMAND, *args], stdout=out, stderr=err, text=True, cwd=cwd, env={**os.environ, **env}
        )
    request = json.dumps({"args": args, "cwd": str(cwd), "env": {**os.environ, **env}}).encode()
    ours, theirs = socket.socketpair()
    with theirs, _starting:
        handles = [theirs.fileno(), out.fileno(), err.fileno()]
        socket.send_fds(_forker(), [len(request).to_bytes(4, "big") + request], handles)
    return WarmProcess(args, ours, int.from_bytes(ours.recv(4), "big"))


def is_possible() -> bool:
    return hasattr(os, "pidfd_open") and not os.environ.get("COLD_STARTS")


@cache
def _forker() -> socket.socket:
    """Start this worker's forker, which ends when our end of the line closes."""
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen([sys.executable, str(FORKER)], stdin=theirs.fileno())
    atexit.register(process.wait)
    atexit.register(ours.close)  # before the wait: the last that was registered is called first
    return ours
