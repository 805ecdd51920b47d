"""Test how servers with one store begin to share a budget, in an order that the test decides."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from decimal import Decimal
from typing import Any

import pytest

from redis_server import RedisServer, redis_server
from slipway.admission import Meters, Need, SharedLimits, load_spent
from slipway.admission.limits import Meter
from slipway.admission.shared import BEAT_S
from slipway.errors import LimitReached
from slipway.settings import Allowance
from slipway.store.redis import SharedRedis
from waiting import PATIENCE_S, until_async

pytestmark = pytest.mark.skipif(
    shutil.which("redis-server") is None, reason="redis-server is not installed"
)
USD = 10**12
Start = Callable[[str], Awaitable["Sharing"]]


class Sharing:
    """The limits of one server: of one key, `k`."""

    def __init__(self, url: str, store: str) -> None:
        self.redis, self.meters = SharedRedis(url), Meters()
        self.limits = SharedLimits(self.redis, self.meters, lambda: store)

    @property
    def meter(self) -> Meter:
        return self.meters.meter("key", "k")

    def limit(self, usd_in_ledger: float | None = None, **limits: Any) -> None:
        """Set limits; a new budget begins with what the ledger has."""
        self.meter.set_limits(Allowance(**limits))
        if usd_in_ledger is not None:
            in_ledger = {"k": round(usd_in_ledger * USD)}
            load_spent(self.meters, [self.meter], lambda *_: in_ledger)

    async def spend(self, usd: float) -> None:
        amount = round(usd * USD)
        need = Need(model="m", tokens=1, amount=amount)
        hold = await self.limits.hold([self.meter], need, 5.0)
        hold.settle(1, amount)

    async def spent(self) -> float:
        await self.limits.refresh([self.meter])
        return self.meter.day.spent / USD

    async def comes_to(self, usd: float) -> None:
        """Wait until this server knows that so much was spent: on a busy machine Redis is late."""
        async with asyncio.timeout(PATIENCE_S):
            while await self.spent() != usd:  # noqa: ASYNC110 - it hears of it at some time
                await asyncio.sleep(BEAT_S)

    async def be_heard(self) -> None:
        await asyncio.sleep(2 * BEAT_S)
        await self.spent()

    async def lose_redis(self) -> None:
        self.be_silent()
        self.redis.state = "down"
        await until_async(lambda: self.limits.is_away)

    def be_silent(self) -> None:
        assert self.limits._beater is not None
        self.limits._beater.cancel()

    async def come_back(self) -> None:
        self.redis.state = "up"
        self.limits.start()
        await self.be_heard()


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@asynccontextmanager
async def starting(redis: RedisServer) -> AsyncIterator[Start]:
    redis.command("FLUSHALL")
    async with AsyncExitStack() as stack:

        async def start(store: str = "one") -> Sharing:
            server = Sharing(redis.url, store)
            server.redis.start()
            server.limits.start()
            stack.push_async_callback(server.redis.close)
            stack.push_async_callback(server.limits.close)
            await until_async(lambda: server.redis.state == "up")
            return server

        yield start


def test_a_key_that_gets_a_budget_keeps_what_it_has_spent_without_one(redis: RedisServer) -> None:
    async def check() -> None:
        async with starting(redis) as start:
            one, two = await start("one"), await start("one")
            for server in (one, two):
                server.limit(tpm=10**6)
            await one.spend(0.3)
            await two.spend(0.2)
            await one.be_heard()
            one.limit(0.5, tpm=10**6, usd_per_day=Decimal(1))
            await one.comes_to(0.5)
            two.limit(0.5, tpm=10**6, usd_per_day=Decimal(1))
            await two.limits._beat_once(0)  # nobody asks it
            await one.be_heard()
            await one.comes_to(0.5)
            await two.comes_to(0.5)

    asyncio.run(check())


def test_a_server_that_starts_when_redis_has_lost_its_data_counts_nothing_twice(
    redis: RedisServer,
) -> None:
    async def check() -> None:
        async with starting(redis) as start:
            one = await start("one")
            one.limit(2, usd_per_day=Decimal(10))
            await one.spend(3)
            await one.be_heard()
            one.be_silent()
            redis.command("FLUSHALL")
            two = await start("one")
            two.limit(5, usd_per_day=Decimal(10))
            await two.comes_to(5)
            await one.come_back()
            await one.comes_to(5)
            await two.comes_to(5)
            await two.spend(5)
            with pytest.raises(LimitReached):
                await one.spend(0.01)

    asyncio.run(check())


def test_a_server_that_starts_before_another_one_is_heard_again_counts_nothing_twice(
    redis: RedisServer,
) -> None:
    async def check() -> None:
        async with starting(redis) as start:
            one = await start("one")
            one.limit(2, usd_per_day=Decimal(10))
            await one.spend(1)
            await one.be_heard()
            await one.lose_redis()
            await one.spend(1)  # of its share
            two = await start("one")
            two.limit(4, usd_per_day=Decimal(10))
            await two.comes_to(4)
            await one.come_back()
            await one.comes_to(4)
            await two.comes_to(4)

    asyncio.run(check())


def test_a_call_that_waits_goes_on_when_its_limit_is_removed(redis: RedisServer) -> None:
    async def check() -> None:
        async with starting(redis) as start:
            server = await start("one")
            server.limit(0, usd_per_day=Decimal(1))
            need = Need(model="m", tokens=1, amount=USD)
            hold = await server.limits.hold([server.meter], need, 5.0)
            waiting = asyncio.create_task(server.spend(1))
            await server.be_heard()
            assert not waiting.done()
            server.limit()
            await waiting
            await server.spend(1)
            hold.release()
            assert (server.meter.held, server.meter.day.spent) == (0, 2 * USD)

    asyncio.run(check())


def test_a_lowered_limit_holds_for_servers_that_cannot_ask_redis(redis: RedisServer) -> None:
    async def check() -> None:
        async with starting(redis) as start:
            servers = [await start("one"), await start("two")]
            for server in servers:
                server.limit(0, usd_per_day=Decimal(10), rpm=1000)
                await server.spent()
            shares = [server.limits._known[server.meter] for server in servers]
            await until_async(lambda: all(share.usable(2)[3] == 5 * USD for share in shares))
            for server in servers:
                await server.lose_redis()
                server.limit(usd_per_day=Decimal(6), rpm=1000)
            for server in servers:
                await server.spend(1)
                with pytest.raises(LimitReached, match="share of the budget"):
                    await server.spend(0.01)
                server.limit(usd_per_day=Decimal(4), rpm=1000)
                with pytest.raises(LimitReached, match="share of the budget"):
                    await server.spend(0.01)

    asyncio.run(check())
