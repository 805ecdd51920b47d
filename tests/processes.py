"""Start what tests talk to: `slipway serve` in a process, and the mock provider in a thread."""

import asyncio
import contextlib
import itertools
import json
import random
import re
import signal
import socket
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import httpx

import plain_http
import warm
from slipway.providers.mock import MockServer, MockSettings
from waiting import PATIENCE_S, until
from warm import COMMAND as COMMAND
from warm import Process

ROOT = Path(__file__).resolve().parent.parent
COMMAND_S = 200.0  # the longest that a command may take, below the limit of a test
START_S = 150.0  # the longest that a server may take to start
READY = re.compile(r"^(?:  page   |mock provider at )http://[^/\s]+:(\d+)", re.MULTILINE)
_counter = itertools.count(1)


def free_port() -> int:
    """Return a port that is free, below those that the system gives to outgoing connections."""
    while True:
        port = random.randrange(15_000, 32_000)
        with contextlib.suppress(OSError), socket.socket() as s:
            s.bind(("127.0.0.1", port))
            return port


def run(
    *args: str, cwd: Path | None = None, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = warm.start([*args], out, err, cwd or Path.cwd(), env or {})
        try:
            process.wait(COMMAND_S)
        finally:
            process.kill()
        texts = [written(file) for file in (out, err)]
    return subprocess.CompletedProcess([*COMMAND, *args], process.wait(), *texts)


def written(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode().replace("\r\n", "\n").replace("\r", "\n")


class Serving:
    """A `slipway serve` that runs."""

    def __init__(self, process: Process, port: int, log: Path) -> None:
        self.process, self.port, self.log_file = process, port, log
        self.url = f"http://127.0.0.1:{port}"

    @property
    def log(self) -> str:
        return self.log_file.read_text()

    def post(self, path: str, body: Any, **kwargs: Any) -> httpx.Response:
        return plain_http.post(self.url + path, json=body, timeout=PATIENCE_S, **kwargs)

    def get(self, path: str, **kwargs: Any) -> httpx.Response:
        return plain_http.get(self.url + path, timeout=PATIENCE_S, **kwargs)

    def chat(self, model: str, **more: Any) -> httpx.Response:
        return self.post(
            "/v1/chat/completions",
            {"model": model, "messages": [{"role": "user", "content": "Hello"}], **more},
        )

    def at_once_s(self) -> float:
        """Return how long something may take that the server does at once.

        That is 0.1 s on an idle machine, and more if plain requests take long at the moment.
        """
        took = list[float]()
        for _ in range(5):
            began_at = time.monotonic()
            self.get("/healthz")
            took.append(time.monotonic() - began_at)
        return 0.1 + 10 * statistics.median(took)

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)


@contextmanager
def serving(
    tmp_path: Path, *args: str, settings: Any = None, env: dict[str, str] | None = None
) -> Iterator[Serving]:
    """Run `slipway serve` with these arguments, and end it at the end.

    `settings` is written to the settings file, as JSON, which is YAML.
    """
    number = next(_counter)
    if settings is not None:
        file = tmp_path / f"settings-{number}.yaml"
        file.write_text(json.dumps(settings))
        args = ("--config", str(file), *args)
    log = tmp_path / f"serve-{number}.log"
    with started(log, "serve", "--port", "0", *args, cwd=tmp_path, env=env) as (process, port):
        server = Serving(process, port, log)
        until(lambda: is_ready(server), START_S)
        yield server


@contextmanager
def started(
    log: Path, *args: str, cwd: Path, env: dict[str, str] | None = None
) -> Iterator[tuple[Process, int]]:
    """Run `slipway ARGS`, and give the process and the port that its log names."""
    with log.open("w") as out:
        process = warm.start([*args], out, out, cwd, env or {})
    try:
        yield process, until(lambda: port_in(log, process), START_S) or 0
    finally:
        end(process)


def port_in(log: Path, process: Process) -> int | None:
    found = READY.search(log.read_text())
    assert found or process.poll() is None, log.read_text()
    return int(found[1]) if found else None


def is_ready(server: Serving) -> bool:
    assert server.process.poll() is None, server.log
    with contextlib.suppress(httpx.TransportError):
        return server.get("/readyz").status_code == 200
    return False


def end(process: Process) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def mocking(**settings: Any) -> Iterator[MockServer]:
    """Run the mock provider in a thread of its own."""
    loop = asyncio.new_event_loop()
    server = MockServer(MockSettings(**{"port": 0, "ttft_s": 0.0, "tpot_s": 0.0, **settings}))
    loop.run_until_complete(server.start())
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        asyncio.run_coroutine_threadsafe(server.close(), loop).result(PATIENCE_S)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(PATIENCE_S)
        loop.close()


@contextmanager
def mock_process(*args: str) -> Iterator[str]:
    """Run `slipway mock` with these arguments in a process of its own, and give its address.

    Its work delays nobody else's then.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with started(folder / "log", "mock", "--port", "0", *args, cwd=folder) as (_, port):
            yield f"http://127.0.0.1:{port}/v1"


def models(url: str, *names: str, **fields: Any) -> dict[str, Any]:
    """Settings of models at one endpoint, called by the same names there."""
    return {"models": {name: {"base_url": url, **fields} for name in names}}
