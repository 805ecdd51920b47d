"""Real processes for tests through the front guard: `slipway serve`, and the mock provider in a
thread of the test.
"""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from slipway.providers.mock import MockServer, MockSettings

ROOT = Path(__file__).resolve().parent.parent
COMMAND = [sys.executable, "-c", "from slipway.cli import main; main()"]


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def run(
    *args: str, cwd: Path | None = None, env: dict[str, str] | None = None, timeout_s: float = 30
) -> subprocess.CompletedProcess[str]:
    """A command to its end."""
    return subprocess.run(
        [*COMMAND, *args],
        cwd=cwd,
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


class Serving:
    """A `slipway serve` under way."""

    def __init__(self, process: subprocess.Popen[str], port: int, log: Path) -> None:
        self.process, self.port, self.log_file = process, port, log
        self.url = f"http://127.0.0.1:{port}"

    @property
    def log(self) -> str:
        return self.log_file.read_text()

    def wait_ready(self, within_s: float = 20) -> None:
        end = time.monotonic() + within_s
        while time.monotonic() < end:
            assert self.process.poll() is None, self.log
            try:
                if httpx.get(f"{self.url}/readyz").status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.03)
        raise AssertionError(f"not ready: {self.log}")

    def post(self, path: str, body: Any, **kwargs: Any) -> httpx.Response:
        return httpx.post(self.url + path, json=body, timeout=30, **kwargs)

    def get(self, path: str, **kwargs: Any) -> httpx.Response:
        return httpx.get(self.url + path, timeout=30, **kwargs)

    def chat(self, model: str, **more: Any) -> httpx.Response:
        return self.post(
            "/v1/chat/completions",
            {"model": model, "messages": [{"role": "user", "content": "Hello"}], **more},
        )

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)


@contextmanager
def serving(
    tmp_path: Path, *args: str, settings: Any = None, env: dict[str, str] | None = None
) -> Iterator[Serving]:
    """`slipway serve` with these arguments; `settings` is written as the file (JSON is YAML). Ended
    at the end.
    """
    port = free_port()
    if settings is not None:
        file = tmp_path / f"settings-{port}.yaml"
        file.write_text(json.dumps(settings))
        args = ("--config", str(file), *args)
    log = tmp_path / f"serve-{port}.log"
    with log.open("w") as out:
        process = subprocess.Popen(
            [*COMMAND, "serve", "--port", str(port), *args],
            stdout=out,
            stderr=out,
            text=True,
            env={**os.environ, **(env or {})},
            cwd=tmp_path,
        )
    server = Serving(process, port, log)
    try:
        server.wait_ready()
        yield server
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextmanager
def mocking(**settings: Any) -> Iterator[MockServer]:
    """The mock provider, on a loop of its own thread."""
    loop = asyncio.new_event_loop()
    server = MockServer(MockSettings(**{"port": 0, "ttft_s": 0.0, "tpot_s": 0.0, **settings}))
    loop.run_until_complete(server.start())
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        asyncio.run_coroutine_threadsafe(server.close(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


@contextmanager
def mock_process(*args: str) -> Iterator[str]:
    """`slipway mock` with these arguments, in a process of its own, so that its work is nobody
    else's delay. Gives its address.
    """
    port = free_port()
    process = subprocess.Popen(
        [*COMMAND, "mock", "--port", str(port), *args], stdout=subprocess.DEVNULL
    )
    try:
        end = time.monotonic() + 20
        while True:
            try:
                httpx.get(f"http://127.0.0.1:{port}/healthz")
                break
            except httpx.TransportError:
                assert time.monotonic() < end
                time.sleep(0.05)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait(10)


def models(url: str, *names: str, **fields: Any) -> dict[str, Any]:
    """Settings of models at one endpoint, called by the same names there."""
    return {"models": {name: {"base_url": url, **fields} for name in names}}
