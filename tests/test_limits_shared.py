"""Test limits and budgets that two servers keep to together, through a real Redis."""

import contextlib
import json
import shutil
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from decimal import Decimal
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import httpx
import pytest

from processes import Serving, mocking, serving
from redis_server import RedisServer, redis_server
from slipway.admission import owner_of
from slipway.providers.mock import MockServer
from slipway.settings import Settings
from slipway.store import LedgerFilter, RecordStore, open_records
from steady_load import steady_load
from waiting import comes_below, until

pytestmark = pytest.mark.skipif(
    shutil.which("redis-server") is None, reason="redis-server is not installed"
)
# 1 prompt token and 9 written ones cost 0.001 USD each
PRICE = {"input": 1000, "output": 1000}
SAYS = "one two three four five six seven eight nine"
ALONE = "each of 2 servers keeps to its share"
TOGETHER = "limits are shared among 2 servers again"
LIMITS: dict[str, dict[str, Any]] = {
    "sk-budget": {"usd_per_day": 1},
    "sk-reserves": {"usd_per_month": "0.12"},
    "sk-frozen": {"usd_per_day": 5},
    "sk-emptied": {"usd_per_day": 1},
    "sk-killed": {"usd_per_day": 1},
    "sk-full-redis": {"usd_per_day": 3},
    "sk-soaked": {"usd_per_day": 40},
    "sk-started": {"usd_per_day": 1},
    "sk-started-rpm": {"rpm": 12},
    "sk-share": {"rpm": 12},
    "sk-requests": {"rpm": 20},
    "sk-answers": {"answers": 3},
    "sk-tokens": {"tpm": 100},
    "sk-steady": {"rpm": 30_000, "tpm": 600_000, "answers": 1000, "usd_per_day": 1000},
}


def ask(server: Serving, key: str, **more: Any) -> httpx.Response:
    sent = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 9, **more}
    return server.post("/v1/chat/completions", sent, headers={"Authorization": f"Bearer {key}"})


class Pair:
    """Two servers with one Redis, each with a store of its own."""

    def __init__(
        self, folder: Path, redis: RedisServer, mock: MockServer, slow: MockServer, stack: ExitStack
    ) -> None:
        self.folder, self.redis, self.stack = folder, redis, stack
        self.mock, self.slow = mock, slow
        self.servers: list[Serving] = []

    @contextmanager
    def server(self, name: str, *, hears: bool = True) -> Iterator[Serving]:
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        settings = {
            "store": f"sqlite:///{folder}/slipway.db",
            "shared": self.redis.url,
            "keys": [{"key": key, "limits": limits} for key, limits in LIMITS.items()],
            "models": {
                name: {"base_url": mock.url, "price": PRICE, "retries": 0}
                for name, mock in (("m", self.mock), ("slow", self.slow))
            },
        }
        with serving(folder, settings=settings) as server:
            until(lambda: "answers" in server.log or not hears)
            yield server

    def ask_all(self, key: str, times: int, at_once: int = 50, **more: Any) -> list[httpx.Response]:
        """Ask both servers in turn, many times at once."""
        with ThreadPoolExecutor(at_once) as pool:
            return list(pool.map(lambda n: ask(self.servers[n % 2], key, **more), range(times)))

    @contextmanager
    def running(self, key: str, server: int) -> Iterator[None]:
        """Keep an answer in progress."""
        seen = len(self.slow.requests)
        sent = json.dumps({"model": "slow", "messages": [{"role": "user", "content": "Hi"}]})
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(sent)}\r\n\r\n"
        port = self.servers[server].port
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall((head.replace("Host: x", f"Host: 127.0.0.1:{port}") + sent).encode())
            until(lambda: len(self.slow.requests) > seen)
            yield

    def spent_usd(self, key: str) -> list[str]:
        """Return what each server says that a key has spent today."""
        asked = {"Authorization": f"Bearer {key}"}
        used = [server.get("/v1/usage", headers=asked).json() for server in self.servers]
        return [each["budgets"][0]["spent_usd"] for each in used]

    def states(self) -> list[str]:
        return [server.get("/readyz").json()["state"] for server in self.servers]

    def servers_known(self) -> list[int]:
        """Return how many servers each of them counts."""
        return [each.get("/readyz").json()["limits"]["servers"] for each in self.servers]

    def shares_are_known(self, key: str) -> bool:
        """Return whether both servers know what the other has used."""
        headers = {"Authorization": f"Bearer {key}"}
        return all(server.get("/v1/usage", headers=headers).is_success for server in self.servers)

    def said(self, what: str) -> list[int]:
        """Return how often each server has written this to its log."""
        return [server.log.count(what) for server in self.servers]

    def have_said(self, what: str, before: list[int]) -> bool:
        """Return whether each server has written this since then."""
        return all(now > was for now, was in zip(self.said(what), before, strict=True))

    def stores(self) -> Iterator[RecordStore]:
        for name in ("one", "two"):
            settings = Settings(store=f"sqlite:///{self.folder}/{name}/slipway.db")
            with contextlib.closing(open_records(settings)) as store:
                yield store

    def spent(self, key: str) -> int:
        """Return what both ledgers have of a key, in picodollars."""
        of = LedgerFilter(owner=owner_of(key))
        found = [each.ledger.sums("key", of) for each in self.stores()]
        return sum(each.cost for sums in found for each in sums)

    def rows(self, key: str) -> Counter[str]:
        """Count the rows of both ledgers by answer."""
        of, found = LedgerFilter(owner=owner_of(key)), Counter[str]()
        for store in self.stores():
            after = ""
            while page := store.ledger.rows(of, limit=5_000, after=after):
                found.update(row.answer for row in page)
                after = page[-1].id
        return found


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("pair")
    with ExitStack() as stack:
        redis = stack.enter_context(redis_server(folder))
        mock = stack.enter_context(mocking(text=SAYS, ttft_s=0.05))
        slow = stack.enter_context(mocking(text=SAYS, ttft_s=60))
        pair = Pair(folder, redis, mock, slow, stack)
        pair.servers = [stack.enter_context(pair.server(name)) for name in ("one", "two")]
        yield pair


@pytest.fixture(autouse=True)
def _is_well(request: pytest.FixtureRequest) -> None:
    """Begin when both servers share limits: on a busy machine, Redis may have been late."""
    if "pair" in request.fixturenames:
        pair: Pair = request.getfixturevalue("pair")
        until(lambda: pair.states() == ["ok", "ok"] and pair.servers_known() == [2, 2])


def restart(pair: Pair, *, hears: bool = True) -> None:
    """Kill a server and start it again; `hears` is whether Redis answers it now."""
    pair.servers[1].process.kill()
    pair.servers[1] = pair.stack.enter_context(pair.server("two", hears=hears))


def codes(replies: list[httpx.Response]) -> Counter[int]:
    return Counter(reply.status_code for reply in replies)


def test_servers_that_nobody_asks_hear_from_redis_all_the_time(pair: Pair) -> None:
    """Other work on this machine may delay Redis, so once is enough."""

    def false_alarms() -> int:
        said, messages = sum(pair.said(ALONE)), pair.redis.calls("evalsha")
        until(lambda: pair.redis.calls("evalsha") > messages + 12)
        return sum(pair.said(ALONE)) - said

    assert comes_below(1, false_alarms)
    assert pair.servers_known() == [2, 2]


def test_two_servers_spend_one_budget_to_the_last_call(pair: Pair) -> None:
    """500 concurrent requests of 0.01 USD meet a budget of 1 USD."""
    replies = pair.ask_all("sk-budget", 500)
    assert codes(replies) == {200: 100, 402: 400}
    refused = next(reply for reply in replies if reply.status_code == 402)
    assert refused.json()["error"]["code"] == "budget_spent"
    assert pair.spent_usd("sk-budget") == ["1", "1"]


def test_a_call_that_fits_once_others_took_less_waits_for_them(pair: Pair) -> None:
    """Each call reserves 0.03 USD and takes 0.01: all ten fit into 0.12, four at a time."""
    assert codes(pair.ask_all("sk-reserves", 10, max_tokens=29)) == {200: 10}
    assert ask(pair.servers[0], "sk-reserves", max_tokens=29).status_code == 402


def test_requests_a_minute_are_counted_together(pair: Pair) -> None:
    first = [ask(pair.servers[0], "sk-requests") for _ in range(5)]
    assert codes([*first, *pair.ask_all("sk-requests", 40)]) == {200: 20, 429: 25}
    refused = ask(pair.servers[1], "sk-requests")
    assert "20 answers a minute of this key" in refused.json()["error"]["message"]
    assert 40 <= int(refused.headers["retry-after"]) <= 62
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"


def test_tokens_a_minute_are_counted_together(pair: Pair) -> None:
    assert codes(pair.ask_all("sk-tokens", 30)) == {200: 10, 429: 20}


def test_answers_at_a_time_are_counted_together(pair: Pair) -> None:
    with ExitStack() as stack:
        for n in range(3):
            stack.enter_context(pair.running("sk-answers", n % 2))
        refused = [ask(server, "sk-answers") for server in pair.servers]
        assert codes(refused) == {429: 2}
        assert "3 answers of this key are in progress" in refused[0].json()["error"]["message"]
    until(lambda: ask(pair.servers[0], "sk-answers").status_code == 200)
    assert codes([ask(server, "sk-answers") for server in pair.servers]) == {200: 2}


def nothing() -> None:
    """Change nothing."""


class Load:
    """Asks both servers in turn, from several threads, until it is stopped or refused."""

    def __init__(self, pair: Pair, key: str, threads: int, **more: Any) -> None:
        self.pair, self.key, self.more = pair, key, more
        self.done = list[tuple[float, float, int]]()  # when it began, how long it took, the status
        self.refused = 0  # because a server had used its share while Redis was away
        self.stopped = threading.Event()
        self.threads = [threading.Thread(target=self.run, args=(n,)) for n in range(threads)]

    def run(self, number: int) -> None:
        while not self.stopped.is_set():
            began = time.monotonic()
            try:
                reply = ask(self.pair.servers[number % 2], self.key, **self.more)
            except httpx.TransportError:  # the server was killed
                time.sleep(0.05)
                continue
            if "cannot ask each other" in reply.text:  # honest; it may be more in a moment
                self.refused += 1
                time.sleep(0.05)
                continue
            self.done.append((began, time.monotonic() - began, reply.status_code))
            if reply.status_code == 402:
                return

    def __enter__(self) -> "Load":
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for thread in self.threads:
            thread.join()

    def codes(self) -> Counter[int]:
        return Counter(code for _, _, code in self.done)

    def around(self, change: Callable[[], None]) -> tuple[list[float], list[float]]:
        """Return how long some calls took that began before a change, and some after it."""
        found = list[list[float]]()
        for at_first in (nothing, change):
            began, calls = time.monotonic(), len(self.done)
            at_first()
            until(lambda calls=calls: len(self.done) >= calls + 30)  # type: ignore[misc]
            found.append([took for at, took, _ in self.done if at >= began])
        return found[0], found[1]


def test_a_frozen_redis_costs_no_answer_and_no_cent(pair: Pair) -> None:
    """A budget of 5 USD is spent with 500 calls; Redis is frozen on the way."""
    with Load(pair, "sk-frozen", 6) as load:
        until(lambda: len(load.done) >= 20)
        before, during = load.around(pair.redis.freeze)
        until(lambda: pair.states() == ["degraded", "degraded"])
        assert pair.have_said(ALONE, [0, 0])
        together, thawed = pair.said(TOGETHER), time.monotonic()
        pair.redis.thaw()
        until(lambda: pair.have_said(TOGETHER, together))
        back_s = time.monotonic() - thawed
        assert load.refused == 0
        # other work on this machine adds to what is measured, so once below the limit is enough
        while is_late(before, during) and len(load.done) < 400:
            before, during = load.around(pair.redis.freeze)
            pair.redis.thaw()
    assert load.codes() == {200: 500, 402: 6}
    assert not is_late(before, during)
    assert back_s <= 5.0 + pair.servers[0].at_once_s()
    until(lambda: pair.states() == ["ok", "ok"])


def is_late(before: list[float], during: list[float]) -> bool:
    """Return whether the slowest calls took over 25 ms longer, beside what varies anyway."""
    return p99(during) - p99(before) > 0.025 + p99(before) - median(before)


def p99(times: list[float]) -> float:
    return quantiles(times, n=100, method="inclusive")[98]


def test_a_redis_that_is_emptied_costs_no_cent(pair: Pair) -> None:
    with Load(pair, "sk-emptied", 20) as load:
        for calls in (20, 45, 70):
            until(lambda calls=calls: load.codes()[200] >= calls)  # type: ignore[misc]
            pair.redis.command("FLUSHALL")
    assert load.codes() == {200: 100, 402: 20}


def test_a_full_redis_costs_no_answer(pair: Pair) -> None:
    """Each server keeps to its share, and says what to do when that is used."""
    with Load(pair, "sk-full-redis", 4) as load:
        until(lambda: load.codes()[200] >= 20)
        alone, together = pair.said(ALONE), pair.said(TOGETHER)
        pair.redis.command("CONFIG", "SET", "maxmemory", "1")
        until(lambda: pair.have_said(ALONE, alone))
        assert all("is full: nothing new is kept there" in each.log for each in pair.servers)
        pair.redis.command("CONFIG", "SET", "maxmemory", "0")
        until(lambda: pair.have_said(TOGETHER, together))
    assert load.codes() == {200: 300, 402: 4}


def test_a_server_that_has_used_its_share_says_so(pair: Pair) -> None:
    for server in pair.servers:
        assert ask(server, "sk-share").status_code == 200
    until(lambda: pair.shares_are_known("sk-share"))
    pair.redis.freeze()
    try:
        until(lambda: pair.states() == ["degraded", "degraded"])
        replies = [[ask(server, "sk-share") for _ in range(6)] for server in pair.servers]
    finally:
        pair.redis.thaw()
    for some in replies:  # 10 of 12 are left, 5 for each
        assert [reply.status_code for reply in some] == [200] * 5 + [429]
        assert "this one has used its share of the answers a minute" in some[-1].text
        assert some[-1].headers["retry-after"] == "5"


def test_a_killed_server_costs_no_cent(pair: Pair) -> None:
    """What it had reserved counts as spent. The ledger has it too, except for what was reserved in
    the moment of its end, and not noted yet: ten threads ask each server.
    """
    seen = len(pair.mock.requests)
    with Load(pair, "sk-killed", 20) as load:
        until(lambda: load.codes()[200] >= 40)
        restart(pair)
    assert load.codes()[402] == 20
    asked = len(pair.mock.requests) - seen
    assert 90 <= asked <= 100
    until(lambda: 90 * 10**10 <= pair.spent("sk-killed") <= 10**12)
    assert pair.spent_usd("sk-killed") == ["1", "1"]


def test_a_server_that_starts_while_redis_is_away_spends_nothing_that_others_may_have_spent(
    pair: Pair,
) -> None:
    """Once it knows, its share is there also for keys that nobody has used since its start."""
    assert ask(pair.servers[0], "sk-started").status_code == 200
    pair.redis.freeze()
    try:
        restart(pair, hears=False)
        refused = ask(pair.servers[1], "sk-started")
        served = ask(pair.servers[1], "sk-started-rpm")
    finally:
        pair.redis.thaw()
    assert (refused.status_code, refused.headers["retry-after"]) == (402, "5")
    assert "does not know yet what the others have spent of the budget of this key" in refused.text
    assert served.status_code == 200
    until(lambda: pair.states() == ["ok", "ok"] and pair.servers_known() == [2, 2])
    messages = pair.redis.calls("evalsha")
    until(lambda: pair.redis.calls("evalsha") > messages + 20)
    pair.redis.freeze()
    try:
        until(lambda: pair.states() == ["degraded", "degraded"])
        assert ask(pair.servers[1], "sk-started").status_code == 200
    finally:
        pair.redis.thaw()


def test_a_wrong_password_is_a_clear_error(tmp_path: Path) -> None:
    with redis_server(tmp_path, "--requirepass", "right") as locked, mocking() as mock:
        settings = {
            "shared": f"redis://:wrong@127.0.0.1:{locked.port}",
            "keys": [{"key": "sk-budget", "limits": {"rpm": 1}}],
            "models": {"m": {"base_url": mock.url}},
        }
        with serving(tmp_path, settings=settings) as server:
            until(lambda: "rejected the user or password: correct them in `shared`" in server.log)
            until(lambda: server.get("/readyz").json()["state"] == "degraded")
            key = {"Authorization": "Bearer sk-budget"}
            assert "slipway_limits_shared 0" in server.get("/metrics", headers=key).text
            assert ":wrong@" not in server.log


@pytest.mark.soak
def test_freezes_lost_data_and_kills_cost_no_cent(pair: Pair) -> None:
    """60 s of all of it, at about 100 calls a second, with a budget of 40 USD."""
    began = time.monotonic()
    with Load(pair, "sk-soaked", 10) as load:
        for number in range(6):
            pair.redis.freeze()
            time.sleep(5)
            pair.redis.thaw()
            time.sleep(2)
            pair.redis.command("FLUSHALL")
            time.sleep(2)
            if number % 2:
                restart(pair)
        while time.monotonic() - began < 60:
            time.sleep(0.1)
    codes = load.codes()
    assert codes == {200: codes[200], 402: 10}
    until(lambda: pair.spent("sk-soaked") >= 39 * 10**12)
    assert pair.spent("sk-soaked") <= 40 * 10**12


@pytest.mark.parametrize("seconds", [2.0, pytest.param(60.0, marks=pytest.mark.soak)])
def test_a_frozen_redis_fails_no_request_and_loses_no_row(pair: Pair, seconds: float) -> None:
    """100 requests a second to two servers, with every kind of limit to be counted together."""
    until(lambda: pair.servers_known() == [2, 2])
    key = {"authorization": "Bearer sk-steady"}
    pair.mock.requests.clear()  # it keeps 10,000, more than come now
    with ExitStack() as stack:
        loads = [
            stack.enter_context(steady_load(server.url, "m", per_s=50, **key))
            for server in pair.servers
        ]
        until(lambda: all(len(load.acknowledged) > seconds * 10 for load in loads))
        frozen_at = time.monotonic()
        pair.redis.freeze()
        until(lambda: pair.states() == ["degraded", "degraded"])
        time.sleep(max(0.0, frozen_at + seconds - time.monotonic()))
        thawed_at = time.monotonic()
        pair.redis.thaw()
        until(lambda: pair.states() == ["ok", "ok"])
        healthy_s = time.monotonic() - thawed_at
        until(lambda: all(load.times[-1][0] > thawed_at + healthy_s for load in loads))
    assert [load.failed for load in loads] == [[], []]
    assert healthy_s < 3.0 + pair.servers[0].at_once_s()
    acknowledged = [answer for load in loads for answer in load.acknowledged]
    calls = len(pair.mock.requests)
    assert calls == len(acknowledged) == sum(load.sent for load in loads)
    until(lambda: pair.rows("sk-steady").total() >= calls)
    rows = pair.rows("sk-steady")
    assert [rows[answer] for answer in acknowledged] == [1] * calls
    spent_usd = f"{Decimal(pair.spent('sk-steady')).scaleb(-12).normalize():f}"
    until(lambda: pair.spent_usd("sk-steady") == [spent_usd, spent_usd])
    times = [each for load in loads for each in load.times]
    healthy = [took for at, took in times if at < frozen_at]
    frozen = [took for at, took in times if frozen_at < at < thawed_at]
    print(  # noqa: T201 - for the one who measures
        f"{calls} requests, none failed, {len(rows)} rows; ms (p50, p99): "
        f"healthy {in_ms(healthy)}, frozen {in_ms(frozen)}; healthy after {healthy_s:.2f} s"
    )


def in_ms(times: list[float]) -> tuple[float, float]:
    return round(1000 * median(times), 1), round(1000 * p99(times), 1)
