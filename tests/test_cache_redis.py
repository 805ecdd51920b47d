"""Test servers that share kept answers through a real Redis, also if that is slow, full or gone."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

import plain_http
from processes import Serving, mocking, run, serving
from redis_server import RedisServer, SlowLine, redis_server, slow_line
from slipway.providers.mock import MockServer
from waiting import PATIENCE_S, until

pytestmark = pytest.mark.usefixtures("needs_redis")


@pytest.fixture(scope="module")
def needs_redis() -> None:
    import shutil

    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed")


class Pair:
    """Two servers with one Redis, reached by a line that can be slow."""

    def __init__(
        self, servers: list[Serving], mock: MockServer, redis: RedisServer, line: SlowLine
    ) -> None:
        self.servers, self.mock, self.redis, self.line = servers, mock, redis, line
        self.asked = 0

    def ask(self, text: str, server: int = 0, **headers: str) -> httpx.Response:
        body = {"model": "m", "messages": [{"role": "user", "content": text}]}
        return self.servers[server].post("/v1/chat/completions", body, headers=headers)

    def state(self, text: str, server: int = 0) -> str:
        return str(self.ask(text, server).headers["x-slipway-cache"])

    def calls(self, text: str) -> int:
        return sum(text in json.dumps(seen.body) for seen in self.mock.requests)

    def said(self, what: str) -> list[str]:
        return [line for line in self.servers[0].log.splitlines() if what in line]

    def shares(self) -> bool:
        """Return whether what one server keeps serves on the other."""
        self.asked += 1
        text = f"shared {self.asked}"
        self.ask(text)
        time.sleep(0.02)
        return self.state(text, 1) == "hit"


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("pair")
    with ExitStack() as stack:
        mock = stack.enter_context(mocking(tokens=5))
        redis = stack.enter_context(redis_server(folder))
        line = stack.enter_context(slow_line(redis.port))
        settings = {
            "shared": f"redis://127.0.0.1:{line.port}/0",
            "models": {
                "m": {
                    "base_url": mock.url,
                    "name": "mock-model",
                    "cache": {"exact": "1h", "tags": ["tagged"]},
                }
            },
        }
        servers = [
            stack.enter_context(serving(folder, settings=settings)),
            stack.enter_context(serving(folder, settings=settings)),
        ]
        pair = Pair(servers, mock, redis, line)
        until(lambda: all("answers" in server.log for server in servers))
        yield pair


def test_servers_serve_what_the_other_has_kept(pair: Pair) -> None:
    first = pair.ask("both")
    until(lambda: pair.redis.command("EXISTS", key_of(first)) == b":1\r\n")
    second = pair.ask("both", 1)
    assert second.headers["x-slipway-cache"] == "hit"
    assert second.content == first.content
    assert pair.calls("both") == 1
    pair.redis.command("FLUSHALL")
    assert pair.state("both", 1) == "hit"  # from its own memory now


def key_of(reply: httpx.Response) -> str:
    return f"slipway:cache:{reply.headers['x-slipway-cache-key']}"


def break_and_mend(pair: Pair, breaks: Callable[[], None], mends: Callable[[], None]) -> list[str]:
    """Ask through an outage of Redis, and return what the log says of it."""
    until(pair.shares)
    before = len(pair.said("Redis at"))
    breaks()
    try:
        began = time.monotonic()
        while time.monotonic() - began < 2.0:
            pair.asked += 1
            for _ in range(2):
                reply = pair.ask(f"broken {pair.asked}")
                assert reply.status_code == 200
            assert reply.headers["x-slipway-cache"] == "hit"
    finally:
        mends()
    mended = time.monotonic()
    until(pair.shares)
    assert time.monotonic() - mended < 5.0 + pair.servers[0].at_once_s()
    return pair.said("Redis at")[before:]


def test_a_frozen_redis_costs_no_answer(pair: Pair) -> None:
    said = break_and_mend(pair, pair.redis.freeze, pair.redis.thaw)
    assert [line.split("/0 ")[1][:24] for line in said] == ["does not answer within 2", "answers"]


def test_a_killed_redis_costs_no_answer(pair: Pair) -> None:
    said = break_and_mend(pair, pair.redis.kill, pair.redis.start)
    assert len(said) == 2


def test_a_slow_redis_costs_no_answer(pair: Pair) -> None:
    def slow() -> None:
        pair.line.delay_s = 2.0

    def fast() -> None:
        pair.line.delay_s = 0.0

    said = break_and_mend(pair, slow, fast)
    assert len(said) == 2


def test_a_full_redis_costs_no_answer(pair: Pair) -> None:
    def fill() -> None:
        pair.redis.command("CONFIG", "SET", "maxmemory", "1")

    def empty() -> None:
        pair.redis.command("CONFIG", "SET", "maxmemory", "0")

    said = break_and_mend(pair, fill, empty)
    found = [("is full" in line, "has memory again" in line) for line in said]
    # on a busy machine Redis may be late as well, which is said by other lines
    assert [each for each in found if any(each)] == [(True, False), (False, True)]


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("http://127.0.0.1:6379", "is not the address of a Redis server; write `redis://HOST"),
        ("redis://127.0.0.1:6379/first", "`first` is not the number of a database"),
        ("redis://", "names no host"),
    ],
)
def test_a_wrong_address_stops_the_start(tmp_path: Path, address: str, says: str) -> None:
    (tmp_path / "slipway.yaml").write_text(f"shared: {address}\n")
    done = run("check", cwd=tmp_path)
    assert done.returncode == 2
    assert "slipway.yaml:1: shared: " in done.stderr
    assert says in done.stderr


def test_check_says_what_is_wrong_with_a_redis(tmp_path: Path, pair: Pair) -> None:
    def check(address: str) -> tuple[int, str]:
        (tmp_path / "slipway.yaml").write_text(f"listen: {{port: 0}}\nshared: {address}\n")
        done = run("check", cwd=tmp_path)
        return done.returncode, done.stdout + done.stderr

    with redis_server(tmp_path, "--requirepass", "right") as locked:
        place = f"127.0.0.1:{locked.port}"
        assert check(f"redis://:right@{place}")[0] == 0
        for wrong in (f"redis://:wrong@{place}", f"redis://{place}"):
            code, said = check(wrong)
            assert code == 2
            assert "rejected the user or password" in said
            assert "wrong" not in said.replace("what is wrong", "")
    code, said = check(f"redis://127.0.0.1:{pair.servers[0].port}")
    assert (code, "does not speak the protocol of Redis" in said) == (2, True)
    code, said = check(f"redis://{place}")
    assert (code, "cannot be reached" in said) == (0, True)


@pytest.mark.soak
def test_a_thousand_questions_to_four_workers_are_four_calls_at_most(tmp_path: Path) -> None:
    async def ask_all(url: str) -> list[httpx.Response]:
        limits = httpx.Limits(max_connections=1000)
        async with plain_http.AsyncClient(timeout=PATIENCE_S, limits=limits) as client:
            body = {"model": "m", "messages": [{"role": "user", "content": "four"}]}
            asked = [client.post(f"{url}/v1/chat/completions", json=body) for _ in range(1000)]
            return await asyncio.gather(*asked)

    with redis_server(tmp_path) as redis, mocking(tokens=20, ttft_s=5.0) as mock:
        settings = {
            "shared": redis.url,
            "limits": {"answers": 4000, "connections": 4000},
            "models": {"m": {"base_url": mock.url, "name": "mock-model", "cache": "1h"}},
        }
        with serving(tmp_path, "--workers", "4", settings=settings) as server:
            replies = asyncio.run(ask_all(server.url))
            assert {reply.status_code for reply in replies} == {200}
            texts = {reply.json()["choices"][0]["message"]["content"] for reply in replies}
            assert len(texts) == 1
            states = Counter(reply.headers["x-slipway-cache"] for reply in replies)
            assert states["miss"] == len(mock.requests) <= 4
