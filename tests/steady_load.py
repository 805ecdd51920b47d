"""Send requests at a steady rate, and remember which were answered to their end."""

import asyncio
import itertools
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

import plain_http
from waiting import PATIENCE_S

STREAM_EVERY = 2  # every second request is a stream


class SteadyLoad:
    """Requests to one server; `acknowledged` holds the ids of the answers that ended properly."""

    def __init__(self, url: str, model: str, per_s: float, headers: dict[str, str]) -> None:
        self.url, self.model, self.per_s, self.headers = url, model, per_s, headers
        self.acknowledged: list[str] = []
        self.failed: list[str] = []
        self.sent = 0
        self.times = list[tuple[float, float]]()  # when each answered one began, how long it took
        self.stopping = threading.Event()
        self.refused_is_fine = False  # while the server is down on purpose

    async def run(self) -> None:
        limits = httpx.Limits(max_connections=200, max_keepalive_connections=50)
        async with plain_http.AsyncClient(
            timeout=PATIENCE_S, limits=limits, headers=self.headers
        ) as client:
            began_at, tasks = time.monotonic(), set[asyncio.Task[None]]()
            for number in itertools.count():
                if self.stopping.is_set():
                    break
                await asyncio.sleep(max(0.0, began_at + number / self.per_s - time.monotonic()))
                task = asyncio.create_task(self.ask(client, stream=number % STREAM_EVERY == 0))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
            await asyncio.gather(*tasks)

    @property
    def longest_s(self) -> float:
        return max((took for _, took in self.times), default=0.0)

    async def ask(self, client: httpx.AsyncClient, *, stream: bool) -> None:
        self.sent += 1
        began_at = time.monotonic()
        body = {"model": self.model, "stream": stream, "max_tokens": 3}
        messages = [{"role": "user", "content": "Hello"}]
        try:
            response = await client.post(
                f"{self.url}/v1/chat/completions", json={**body, "messages": messages}
            )
        except httpx.TransportError as error:
            if not self.refused_is_fine:
                self.failed.append(repr(error))
            return
        text = response.text
        if response.status_code != 200 or (stream and "data: [DONE]" not in text):
            self.failed.append(f"{response.status_code}: {text[-300:]}")
            return
        self.times.append((began_at, time.monotonic() - began_at))
        self.acknowledged.append(response.headers["x-slipway-answer-id"])


@contextmanager
def steady_load(
    url: str, model: str, *, per_s: float = 100, **headers: Any
) -> Iterator[SteadyLoad]:
    """Send requests in a thread until the block ends, and wait for the last answers."""
    load = SteadyLoad(url, model, per_s, headers)
    thread = threading.Thread(target=lambda: asyncio.run(load.run()), daemon=True)
    thread.start()
    try:
        yield load
    finally:
        load.stopping.set()
        thread.join(2 * PATIENCE_S)
