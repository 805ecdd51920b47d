"""Measure whether the event loop stays free while many long streams are dropped: the longest CPU
time of any of its callbacks.

    python bench/drops.py    # 30 streams of 5 MiB, all dropped in the middle, five times

The server runs in this process, on asyncio's own loop, and the CPU time of each callback is
measured by its thread; the mock and the clients are processes of their own.
"""

import argparse
import asyncio
import multiprocessing
import statistics
import subprocess
import sys
import time

import httpx

from gateways import free_port
from slipway.app.building import build
from slipway.settings import AppSettings, Listen, ModelSettings, Settings
from slipway.web.server import Server, bind

COMMAND = [sys.executable, "-c", "from slipway.cli import main; main()"]
EVENT_BYTES = 220  # of one chunk of the mock, roughly
LIMIT_S = 0.005


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--streams", type=int, default=30)
    parser.add_argument("--mib", type=float, default=5.0, help="of each")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    tokens = int(options.mib * 1024 * 1024 / EVENT_BYTES)
    port = free_port()
    mock = subprocess.Popen(
        [
            *COMMAND,
            "mock",
            "--port",
            str(port),
            "--tokens",
            str(tokens),
            "--ttft",
            "0",
            "--tpot",
            "0",
        ],
        stdout=subprocess.DEVNULL,
    )
    try:
        wait_for(f"http://127.0.0.1:{port}/healthz")
        for name in ("m", "main", "app"):
            rounds = [round_of(options.streams, port, name) for _ in range(options.rounds)]
            longest = [1000 * max(took, default=0.0) for took in rounds]
            over = sum(used > LIMIT_S for took in rounds for used in took)
            print(
                f"{name:8} longest callback {statistics.median(longest):.1f} ms of CPU (median), "
                f"{max(longest):.1f} ms (worst); {over} over 5 ms"
            )
    finally:
        mock.terminate()
        mock.wait()


def round_of(streams: int, port: int, name: str) -> list[float]:
    """Return the CPU seconds of the longer callbacks. `m` is a bare model, `main` a route, `app` an
    app.
    """
    model = ModelSettings(base_url=f"http://127.0.0.1:{port}/v1", name="mock-model")
    settings = Settings(
        listen=Listen(port=0),
        models={"m": model, "n": model},
        routes={"main": entries("m", "n")},
        apps={"app": AppSettings(route="main")},
    )
    took: list[float] = []
    run = asyncio.Handle._run

    def measured(handle: asyncio.Handle) -> None:
        began = time.thread_time()
        run(handle)
        if (used := time.thread_time() - began) > LIMIT_S / 10:
            took.append(used)

    async def serve() -> None:
        socket = bind(settings.listen)
        guard = build(settings)
        server = Server(guard, guard.current)
        serving = asyncio.create_task(server.serve(sockets=[socket]))
        await asyncio.sleep(0.3)
        clients = multiprocessing.get_context("spawn").Process(
            target=drop, args=(socket.getsockname()[1], streams, name)
        )
        clients.start()
        took.clear()  # the start is not measured
        await asyncio.to_thread(clients.join)
        await asyncio.sleep(0.5)
        server.should_exit = True
        await serving

    setattr(asyncio.Handle, "_run", measured)  # noqa: B010 - the only way to see each callback
    try:
        asyncio.run(serve())
    finally:
        setattr(asyncio.Handle, "_run", run)  # noqa: B010
    return took


def entries(*names: str):  # type: ignore[no-untyped-def]
    from slipway.settings import RouteEntry

    return tuple(RouteEntry(model=name) for name in names)


def drop(port: int, streams: int, name: str) -> None:
    """Begin all streams, read a part of each, and drop them all at once."""

    async def one(client: httpx.AsyncClient, gate: asyncio.Event) -> None:
        body = {"model": name, "stream": True, "messages": [{"role": "user", "content": "Write."}]}
        async with client.stream(
            "POST", f"http://127.0.0.1:{port}/v1/chat/completions", json=body
        ) as reply:
            got = 0
            async for block in reply.aiter_raw():
                got += len(block)
                if got > 256 * 1024:
                    break
            await gate.wait()

    async def all_of_them() -> None:
        gate = asyncio.Event()
        async with httpx.AsyncClient(
            timeout=60, limits=httpx.Limits(max_connections=streams)
        ) as client:
            tasks = [asyncio.create_task(one(client, gate)) for _ in range(streams)]
            await asyncio.sleep(4)
            gate.set()
            await asyncio.gather(*tasks)

    asyncio.run(all_of_them())


def wait_for(url: str) -> None:
    end = time.monotonic() + 20
    while time.monotonic() < end:
        try:
            if httpx.get(url).status_code == 200:
                return
        except httpx.HTTPError:
            time.sleep(0.05)
    raise SystemExit(f"{url} did not get ready")


if __name__ == "__main__":
    main()
