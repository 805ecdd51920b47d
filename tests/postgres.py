"""A real PostgreSQL for the tests, started once for each worker that needs it.

It listens on a free port of loopback, keeps its data in a temporary folder, and is fast rather than
safe. It runs as an unprivileged user, since it refuses to run as root.
"""

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

from processes import free_port
from waiting import PATIENCE_S, until

USER = "slipway"
_numbers = count(1)


def program(name: str) -> str | None:
    """Return the path of a program of PostgreSQL; Debian puts them beside the path."""
    beside = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return str(beside[-1]) if beside else shutil.which(name)


class Postgres:
    """A server of PostgreSQL; `database()` makes an empty database."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.port = folder, port
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        settings = {
            "port": self.port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "fsync": "off",
            "full_page_writes": "off",
            "max_connections": 60,
            "shared_buffers": "16MB",
            "autovacuum": "off",
        }
        args = [arg for name, value in settings.items() for arg in ("-c", f"{name}={value}")]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [program("postgres") or "", "-D", str(self.folder / "data"), *args],
                stdout=log,
                stderr=log,
                **unprivileged(),
            )
        until(self.answers)

    def answers(self) -> bool:
        import psycopg

        with contextlib.suppress(psycopg.Error):
            psycopg.connect(self.url("postgres"), connect_timeout=2).close()
            return True
        return False

    def url(self, database: str, password: str = "") -> str:
        secret = f":{password}" if password else ""
        return f"postgresql://{USER}{secret}@127.0.0.1:{self.port}/{database}"

    def database(self) -> str:
        """Make an empty database, and return its address."""
        name = f"test_{next(_numbers)}"
        self.run("postgres", f"CREATE DATABASE {name}")
        return self.url(name)

    def run(self, database: str, *statements: str) -> list[tuple[object, ...]]:
        """Run statements, and return the rows of the last one."""
        import psycopg

        with psycopg.connect(self.url(database), autocommit=True) as connection:
            for statement in statements:
                done = connection.execute(statement.encode())
            return done.fetchall() if done.description else []

    def pids(self) -> list[int]:
        """Return the processes of the server: the first, and one for each connection and task."""
        assert self.process is not None
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [self.process.pid, *map(int, children.split())]

    def signal(self, number: int) -> None:
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Stop all its processes for a while: connections stay open, and nothing answers."""
        self.signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.signal(signal.SIGCONT)

    def kill(self) -> None:
        """Kill all its processes at once, as a power cut would."""
        assert self.process is not None
        self.signal(signal.SIGKILL)
        self.process.wait(PATIENCE_S)

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(PATIENCE_S)


def unprivileged() -> dict[str, Any]:
    """Return the arguments that run a program as another user if we are root."""
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


@contextlib.contextmanager
def running_postgres() -> Iterator[Postgres]:
    """Run a server, and delete its data at the end."""
    folder = Path(tempfile.mkdtemp(prefix="slipway-postgres-"))
    try:
        if os.geteuid() == 0:
            shutil.chown(folder, "nobody")
        folder.chmod(0o700)
        options = ["-U", USER, "--auth=trust", "-E", "UTF8", "--no-sync", "--locale=C.UTF-8"]
        subprocess.run(
            [program("initdb") or "", "-D", str(folder / "data"), *options],
            check=True,
            capture_output=True,
            **unprivileged(),
        )
        server = Postgres(folder, free_port())
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
