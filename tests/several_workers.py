"""A server with several workers, and a client on a connection of each."""

import os
import re
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx

import plain_http
from processes import Serving, serving
from waiting import PATIENCE_S, until

ONE = httpx.Limits(max_connections=1, max_keepalive_connections=1)


class Workers:
    """The server, and what is sent to one of its workers."""

    def __init__(self, server: Serving, stack: ExitStack) -> None:
        self.server, self._stack = server, stack
        self._clients: dict[int, httpx.Client] = {}

    def to(self, worker: int) -> httpx.Client:
        """Return a client whose connection is to this worker."""
        client = self._clients.get(worker)
        if client is None or self.number_of(client) != worker:
            client = self._clients[worker] = self.fresh(worker)
        return client

    def fresh(self, worker: int) -> httpx.Client:
        """Return a client with a new connection to this worker."""
        found = until(lambda: self._try(worker))
        assert found is not None
        return found

    def _try(self, worker: int) -> httpx.Client | None:
        client = plain_http.Client(base_url=self.server.url, limits=ONE, timeout=PATIENCE_S)
        self._stack.callback(client.close)
        return client if self.number_of(client) == worker else None

    def number_of(self, client: httpx.Client) -> int | None:
        try:
            return int(client.get("/healthz").json()["workers"]["this"])
        except httpx.TransportError:  # that worker is gone
            return None

    def pid_of(self, worker: int) -> int:
        """Return the process that runs as this worker, as the log names it."""
        said = re.findall(rf"worker {worker} \(process (\d+)\) takes requests", self.server.log)
        return int(said[-1])

    def kill(self, worker: int) -> None:
        """Kill a worker, and wait until another process runs as this worker."""
        before = self.counts()["restarts"]
        os.kill(self.pid_of(worker), signal.SIGKILL)
        until(lambda: self.counts()["restarts"] > before and self.counts()["running"] == 2)

    def counts(self) -> dict[str, int]:
        return dict(self.server.get("/healthz").json()["workers"])

    def metric(self, start: str, **kwargs: Any) -> float:
        """Return the sum of all samples whose line starts so."""
        return total(self.server.get("/metrics", **kwargs).text, start)


def total(metrics: str, start: str) -> float:
    return sum(float(line.split()[-1]) for line in metrics.splitlines() if line.startswith(start))


@contextmanager
def several(tmp_path: Path, *args: str, workers: int = 2, **options: Any) -> Iterator[Workers]:
    """Run `slipway serve --workers N` with these settings."""
    with (
        serving(tmp_path, "--workers", str(workers), *args, **options) as server,
        ExitStack() as stack,
    ):
        yield Workers(server, stack)
        assert "Traceback" not in server.log, server.log
