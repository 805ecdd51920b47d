"""Test incidents from end to end: a mock provider misbehaves by script, an alert fires in time, a
webhook hears of it once, and of its end once. Hours pass in seconds: the test sets the clock of the
history, and everything else is real.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from processes import mocking
from receivers import Receiver, receiving
from slipway.app.building import Assembly
from slipway.app.sampling import Sampling
from slipway.app.stores import LazyStore
from slipway.providers.mock import MockServer
from slipway.settings import Listen, Settings
from slipway.settings.live import LiveSettings
from slipway.settings.loading import Loaded
from slipway.web.server import Server, bind
from waiting import PATIENCE_S, until_async

SAMPLE_S, MINUTE, HOUR = 10, 60, 3600
WITHIN_S = 60  # from the moment in which the condition of an alert holds


class SamplingByHand(Sampling):
    """Samples only when the test says so."""

    def start(self) -> None:
        self._tasks = [asyncio.get_running_loop().create_task(self._load())]


class Replay:
    """A server whose history runs on the clock of the test, and its client."""

    def __init__(self, settings: Settings, receiver: Receiver, *mocks: MockServer) -> None:
        self.receiver, self.mocks, self.now = receiver, mocks, float(int(time.time()))
        clock = lambda: self.now  # noqa: E731

        class ReplayedAssembly(Assembly):
            def sample_metrics(self) -> Sampling:
                return SamplingByHand(self.telemetry, self.records, clock=clock)

        found = Loaded(settings=settings, file=None)
        self.assembly = ReplayedAssembly(LazyStore(settings), LiveSettings(found))
        self.asks = "main"
        self.asked: list[tuple[float, httpx.Response]] = []
        self.client = httpx.AsyncClient(timeout=30, trust_env=False)
        assert self.assembly.sampling is not None
        assert self.assembly.alerting is not None
        self.sampling, self.alerting = self.assembly.sampling, self.assembly.alerting

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["Replay"]:
        server, listening = Server(self.assembly.asgi, self.assembly.current), bind(Listen(port=0))
        self.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        task = asyncio.create_task(server.serve(sockets=[listening]))
        await until_async(lambda: server.started and self.sampling.is_loaded)
        try:
            yield self
        finally:
            await self.client.aclose()
            server.should_exit = True
            await task

    async def script(self, *faults: str) -> None:
        for mock in self.mocks[:1]:
            await self.client.put(f"{mock.url.removesuffix('/v1')}/script", json=list(faults))

    async def ask(self, text: str = "Hello") -> httpx.Response:
        body = {"model": self.asks, "stream": True, "messages": [{"role": "user", "content": text}]}
        reply = await self.client.post(f"{self.url}/v1/chat/completions", json=body)
        self.asked.append((self.now, reply))
        return reply

    async def run(
        self,
        seconds: float,
        text: str = "Hello",
        until: Callable[[], object] = lambda: False,
        every: int = 1,
    ) -> None:
        """Let time pass, with a question before each sample, or every few, until something is true."""
        end = self.now + seconds
        while self.now < end and not until():
            self.now += SAMPLE_S
            if self.now // SAMPLE_S % every == 0:
                await self.ask(text)
            await self.sampling.sample()
            await self.alerting.notifying.settle()

    async def recover(self) -> None:
        """Ask until the first model is used again, in the time of the real clock."""
        async with asyncio.timeout(PATIENCE_S):
            while self.assembly.healths()["m0"].report().state != "closed":
                await self.ask()
                await asyncio.sleep(0.2)

    def state(self, name: str) -> Any:
        states = self.alerting.evaluator.states.values()
        return next((state for state in states if state.name == name), None)

    def is_sent(self, name: str, status: str = "firing") -> bool:
        return (name, status) in self.receiver.alerts

    def share(self, window_s: float, at: float, is_bad: Callable[[httpx.Response], bool]) -> float:
        """Return the share of bad replies in a window, as the client has seen them."""
        seen = [is_bad(reply) for when, reply in self.asked if at - window_s < when <= at]
        return sum(seen) / len(seen) if seen else 0.0

    def burns_since(self, limit: float, long_s: float, short_s: float, bad: Any) -> float:
        """Return when both windows began to burn, as the client has seen it."""
        return next(
            at
            for at, _ in self.asked
            if self.share(long_s, at, bad) > limit and self.share(short_s, at, bad) > limit
        )

    def heard_once(self, name: str) -> None:
        """Check that the webhook heard of an alert and of its end, once each."""
        heard = [status for alert, status in self.receiver.alerts if alert == name]
        assert heard == ["firing", "resolved"]


def settings_of(folder: Path, receiver: Receiver, *mocks: MockServer) -> Settings:
    price = {"input": 1.0, "output": 1.0}
    names = [f"m{number}" for number in range(len(mocks))]
    return msgspec.convert(
        {
            "store": f"sqlite:///{folder}/store.db",
            "models": {
                name: {"base_url": mock.url, "name": "mock-model", "zone": name, "price": price}
                for name, mock in zip(names, mocks, strict=True)
            },
            "routes": {
                "main": [
                    {"model": name, "role": role}
                    for name, role in zip(names, ("primary", "twin"), strict=False)
                ]
            },
            "apps": {"help": {"route": "main"}},
            "slo": {"availability": "99.9%", "ttft_p95": 0.25},
            "alerts": {
                "minimum": 30,
                "spend": {"floor": 0.001},
                "notify": {"team": {"kind": "webhook", "url": receiver.url}},
            },
        },
        Settings,
        strict=False,
    )


@contextmanager
def parts(folder: Path, mocks: int = 1) -> Iterator[Replay]:
    with receiving() as receiver, mocking(tokens=4) as first, mocking(tokens=4) as second:
        used = (first, second)[:mocks]
        yield Replay(settings_of(folder, receiver, *used), receiver, *used)


def test_an_error_burst_pages_within_a_minute(tmp_path: Path) -> None:
    async def story(replay: Replay) -> None:
        async with replay.serving():
            await replay.run(HOUR, every=3)
            assert replay.receiver.alerts == []
            await replay.script("status-503")
            await replay.run(20 * MINUTE, until=lambda: replay.is_sent("AvailabilityBurnFast"))
            fired_at = replay.state("AvailabilityBurnFast").fired_at
            since = replay.burns_since(
                0.0144, HOUR, 5 * MINUTE, lambda reply: reply.status_code >= 500
            )
            assert 0 <= fired_at - since <= WITHIN_S
            await replay.script()
            await replay.recover()
            await replay.run(
                20 * MINUTE, until=lambda: replay.is_sent("AvailabilityBurnFast", "resolved")
            )
            replay.heard_once("AvailabilityBurnFast")

    with parts(tmp_path) as replay:
        asyncio.run(story(replay))


def test_slow_first_tokens_page_within_a_minute(tmp_path: Path) -> None:
    async def story(replay: Replay) -> None:
        async with replay.serving():
            await replay.run(6 * MINUTE)
            assert replay.receiver.alerts == []
            await replay.script("slow-0.3")
            await replay.run(20 * MINUTE, until=lambda: replay.is_sent("FirstTokenBurn"))
            since = replay.burns_since(
                0.3, 6 * HOUR, 30 * MINUTE, lambda reply: reply.elapsed.total_seconds() > 0.25
            )
            assert 0 <= replay.state("FirstTokenBurn").fired_at - since <= WITHIN_S
            await replay.script()
            await replay.run(2 * HOUR, until=lambda: replay.is_sent("FirstTokenBurn", "resolved"))
            replay.heard_once("FirstTokenBurn")

    with parts(tmp_path) as replay:
        asyncio.run(story(replay))


def test_wrong_answers_with_thumbs_down_are_noticed_within_a_minute(tmp_path: Path) -> None:
    async def story(replay: Replay) -> None:
        async with replay.serving():
            replay.asks, voted_at = "help", 0.0
            for number in range(60):
                await replay.run(SAMPLE_S)
                answer = replay.asked[-1][1].headers["x-slipway-answer-id"]
                vote = {"answer": answer, "helpful": False, "comment": "This is wrong."}
                reply = await replay.client.post(f"{replay.url}/v1/feedback", json=vote)
                assert reply.status_code == 200, reply.text
                voted_at = replay.now if number == 49 else voted_at  # the fiftieth vote
            await replay.run(MINUTE)
            assert replay.is_sent("ThumbsDown")
            assert 0 <= replay.state("ThumbsDown").fired_at - voted_at <= WITHIN_S
            replay.now += 24 * HOUR  # the votes are of the day before
            await replay.run(3 * MINUTE)
            replay.heard_once("ThumbsDown")

    with parts(tmp_path) as replay:
        asyncio.run(story(replay))


def test_a_spend_spike_is_noticed_within_a_minute(tmp_path: Path) -> None:
    async def story(replay: Replay) -> None:
        async with replay.serving():
            for _ in range(150):  # two and a half hours
                await replay.run(SAMPLE_S)
                replay.now += 50
            assert replay.receiver.alerts == []
            began_at = replay.now
            await replay.run(MINUTE, text="words " * 20_000)
            await replay.run(MINUTE)
            assert replay.is_sent("SpendSpike")
            assert 0 <= replay.state("SpendSpike").fired_at - began_at <= WITHIN_S
            replay.now += HOUR
            await replay.run(3 * MINUTE)
            replay.heard_once("SpendSpike")

    with parts(tmp_path) as replay:
        asyncio.run(story(replay))


def test_a_dead_zone_pages_once_while_another_zone_answers_also_over_a_restart(
    tmp_path: Path,
) -> None:
    async def outage(replay: Replay) -> None:
        async with replay.serving():
            await replay.run(5 * MINUTE)
            await replay.script("down")
            await replay.run(
                10 * MINUTE,
                until=lambda: replay.assembly.healths()["m0"].report().state != "closed",
            )
            since = replay.now
            await replay.run(10 * MINUTE, until=lambda: replay.is_sent("ZoneDown"))
            assert replay.state("ZoneDown").labels == {"zone": "m0"}
            assert replay.state("ZoneDown").fired_at - since <= MINUTE + WITHIN_S
            await replay.run(5 * MINUTE)
            assert {reply.status_code for _, reply in replay.asked} == {200}, "the twin answers"

    async def recovery(replay: Replay, now: float) -> None:
        replay.now = now
        async with replay.serving():
            for _ in range(20):  # until the breaker knows it again
                await replay.run(SAMPLE_S)
            await replay.run(5 * MINUTE)
            await replay.script()
            await replay.recover()
            await replay.run(10 * MINUTE, until=lambda: replay.is_sent("ZoneDown", "resolved"))
            heard = [alert for alert in replay.receiver.alerts if alert[0] == "ModelDown"]
            assert heard == [], "the zone explains it"
            replay.heard_once("ZoneDown")

    with parts(tmp_path, mocks=2) as replay:
        asyncio.run(outage(replay))
        assert replay.receiver.alerts == [("ZoneDown", "firing")]
        again = Replay(
            settings_of(tmp_path, replay.receiver, *replay.mocks), replay.receiver, *replay.mocks
        )
        asyncio.run(recovery(again, replay.now))


@pytest.mark.parametrize("hours", [2])
def test_healthy_hours_raise_no_alert(tmp_path: Path, hours: int) -> None:
    async def story(replay: Replay) -> None:
        async with replay.serving():
            await replay.run(hours * HOUR, every=3)
            states = replay.alerting.evaluator.states.values()
            assert [state.name for state in states] == ["Watchdog"]
            assert replay.receiver.got == []

    with parts(tmp_path) as replay:
        asyncio.run(story(replay))
