"""Test limits and budgets of keys, tenants and apps, against the mock provider."""

import contextlib
import json
import os
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest

from processes import Serving, mocking, serving
from several_workers import several
from slipway.providers.mock import MockServer
from slipway.settings import Settings
from slipway.store import LedgerFilter, open_records
from waiting import until

KEY = "sk-of-the-tests"
AUTH = {"Authorization": f"Bearer {KEY}"}
# 1 prompt token and 9 written ones cost 0.001 USD each
PRICE = {"input": 1000, "output": 1000}
SAYS = "one two three four five six seven eight nine"


def body(model: str = "m", **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": "Hi"}], **more}


@contextmanager
def limited(
    folder: Path, mock: MockServer, limits: dict[str, Any], *args: str, **more: Any
) -> Iterator[Serving]:
    """Serve a model whose calls cost 0.01 USD, for one key with these limits."""
    settings = {
        "store": f"sqlite:///{folder}/slipway.db",
        "keys": [{"key": KEY, "limits": limits}],
        "models": {"m": {"base_url": mock.url, "price": PRICE, "retries": 0}},
        **more,
    }
    with serving(folder, *args, settings=settings) as server:
        yield server


def ask(server: Serving, model: str = "m", **more: Any) -> httpx.Response:
    sent = {"max_tokens": 9, **more}
    return server.post("/v1/chat/completions", body(model, **sent), headers=AUTH)


def test_requests_a_minute_are_limited_with_headers_like_openais(tmp_path: Path) -> None:
    with mocking(text=SAYS) as mock, limited(tmp_path, mock, {"rpm": 3}) as server:
        replies = [ask(server) for _ in range(5)]
        assert [reply.status_code for reply in replies] == [200, 200, 200, 429, 429]
        left = [reply.headers["x-ratelimit-remaining-requests"] for reply in replies]
        assert left == ["2", "1", "0", "0", "0"]
        refused = replies[-1]
        assert refused.headers["x-ratelimit-limit-requests"] == "3"
        assert 50 <= int(refused.headers["retry-after"]) <= 62
        error = refused.json()["error"]
        assert (error["code"], error["type"]) == ("rate_limit_exceeded", "rate_limit_error")
        assert "3 answers a minute of this key" in error["message"]
        assert len(mock.requests) == 3


def test_tokens_a_minute_are_reserved_and_given_back(tmp_path: Path) -> None:
    with mocking(text=SAYS) as mock, limited(tmp_path, mock, {"tpm": 35}) as server:
        first = ask(server, max_tokens=30)  # 31 reserved, 10 taken
        assert first.headers["x-ratelimit-limit-tokens"] == "35"
        assert ask(server).headers["x-ratelimit-remaining-tokens"] == "15"
        assert ask(server, stream=True).status_code == 200
        refused = ask(server)
        assert refused.status_code == 429
        assert refused.headers["x-ratelimit-remaining-tokens"] == "5"
        assert int(refused.headers["retry-after"]) >= 50
        assert "this call may take 10" in refused.json()["error"]["message"]


def test_answers_at_a_time_are_limited(tmp_path: Path) -> None:
    with (
        mocking(text=SAYS, script=("hang@1",)) as mock,
        limited(tmp_path, mock, {"answers": 1}) as server,
        ThreadPoolExecutor(1) as pool,
    ):
        with httpx.Client() as client:
            stream = client.stream(
                "POST",
                f"{server.url}/v1/chat/completions",
                json=body(stream=True),
                headers=AUTH,
            )
            waiting = pool.submit(stream.__enter__)
            until(lambda: mock.requests)
            assert ask(server).status_code == 429
        waiting.exception()
        until(lambda: ask(server).status_code == 200)


def test_a_budget_is_spent_to_the_last_call_and_no_further(tmp_path: Path) -> None:
    """500 concurrent requests of 0.01 USD meet a budget of 1 USD."""
    with (
        mocking(text=SAYS, ttft_s=0.05) as mock,
        limited(tmp_path, mock, {"usd_per_day": 1}) as server,
    ):
        with ThreadPoolExecutor(50) as pool:
            replies = list(pool.map(lambda _: ask(server), range(500)))
        assert Counter(reply.status_code for reply in replies) == {200: 100, 402: 400}
        assert len(mock.requests) == 100
        refused = next(reply for reply in replies if reply.status_code == 402)
        assert refused.headers["x-should-retry"] == "false"
        assert 0 < int(refused.headers["retry-after"]) <= 86_400
        error = refused.json()["error"]
        assert (error["code"], error["type"]) == ("budget_spent", "insufficient_quota")


def test_a_call_that_fits_once_others_took_less_waits_for_them(tmp_path: Path) -> None:
    """Each call reserves 0.03 USD and takes 0.01: all ten fit into 0.1, three at a time."""
    with (
        mocking(text=SAYS, ttft_s=0.05) as mock,
        limited(tmp_path, mock, {"usd_per_month": "0.12"}) as server,
    ):
        with ThreadPoolExecutor(10) as pool:
            replies = list(pool.map(lambda _: ask(server, max_tokens=29), range(10)))
        assert Counter(reply.status_code for reply in replies) == {200: 10}
        assert ask(server, max_tokens=29).status_code == 402


def test_a_budget_survives_kill_9(tmp_path: Path) -> None:
    """Calls that were running when the server was killed count as spent: they were billed."""
    refused, well = threading.Event(), list[int]()
    with mocking(text=SAYS, ttft_s=0.02) as mock:
        for last in (False, True):
            with limited(tmp_path, mock, {"usd_per_day": 1}) as server:

                def storm(server: Serving = server) -> None:
                    while not refused.is_set():
                        try:
                            reply = ask(server)
                        except httpx.TransportError:
                            return
                        well.append(reply.status_code)
                        if reply.status_code == 402:
                            refused.set()

                threads = [threading.Thread(target=storm) for _ in range(20)]
                for thread in threads:
                    thread.start()
                if not last:
                    until(lambda: well.count(200) >= 40)
                    server.process.kill()
                for thread in threads:
                    thread.join()
        assert refused.is_set()
        with contextlib.closing(
            open_records(Settings(store=f"sqlite:///{tmp_path}/slipway.db"))
        ) as store:
            rows = store.ledger.rows(LedgerFilter(), limit=1000)
        lost = [row for row in rows if row.error == "lost"]
        assert sum(row.cost or 0 for row in rows) == 10**12  # one USD
        # those that the mock never saw were noted in the moment before they were sent
        assert 100 - len(lost) <= len(mock.requests) <= 100


def test_several_workers_spend_one_budget(tmp_path: Path) -> None:
    limits = {"usd_per_day": "0.5", "rpm": 1000}
    with (
        mocking(text=SAYS) as mock,
        limited(tmp_path, mock, limits, "--workers", "2") as server,
        ThreadPoolExecutor(20) as pool,
    ):
        replies = list(pool.map(lambda _: ask(server), range(120)))
        left = {int(reply.headers["x-ratelimit-remaining-requests"]) for reply in replies}
    assert Counter(reply.status_code for reply in replies) == {200: 50, 402: 70}
    assert len(mock.requests) == 50
    assert min(left) == 1000 - 120  # all of them are counted together


@pytest.mark.soak
def test_a_budget_survives_the_worker_that_counts_it(tmp_path: Path) -> None:
    """Worker 1 of 4 is killed while 500 requests of 0.01 USD meet a budget of 1 USD."""
    settings: dict[str, Any] = {
        "store": f"sqlite:///{tmp_path}/slipway.db",
        "keys": [{"key": KEY, "limits": {"usd_per_day": 1}}],
    }
    with mocking(text=SAYS, ttft_s=0.05) as mock:
        settings["models"] = {"m": {"base_url": mock.url, "price": PRICE, "retries": 0}}
        with (
            several(tmp_path, settings=settings, workers=4) as workers,
            ThreadPoolExecutor(50) as pool,
        ):
            replies = [pool.submit(ask, workers.server) for _ in range(500)]
            until(lambda: len(mock.requests) >= 40)
            os.kill(workers.pid_of(1), signal.SIGKILL)
            answered = [reply.result() for reply in replies if not reply.exception()]
            while ask(workers.server).status_code == 200:  # until the budget is spent
                pass
            last = ask(workers.server)
            spent = workers.server.get("/v1/usage", headers=AUTH).json()
        assert last.status_code == 402
        assert {reply.status_code for reply in answered} <= {200, 402, 503}
        with contextlib.closing(open_records(Settings(store=settings["store"]))) as store:
            rows = store.ledger.rows(LedgerFilter(), limit=1000)
        lost = sum(row.error == "lost" for row in rows)
        assert sum(row.cost or 0 for row in rows) == 10**12
        assert spent["cost_usd"] == spent["budgets"][0]["spent_usd"] == "1"
        assert 100 - lost <= len(mock.requests) <= 100


def test_tenants_and_apps_have_limits_of_their_own(tmp_path: Path) -> None:
    settings = {
        "keys": [{"key": KEY, "tenant": "acme"}, {"key": "sk-of-a-colleague", "tenant": "acme"}],
        "tenants": {"acme": {"limits": {"usd_per_day": "0.02"}}},
        "apps": {"chat": {"route": "m", "limits": {"rpm": 1}}},
    }
    with mocking(text=SAYS) as mock, limited(tmp_path, mock, {}, **settings) as server:
        other = {"Authorization": "Bearer sk-of-a-colleague"}
        assert ask(server, "chat").status_code == 200
        assert "the app `chat`" in ask(server, "chat").json()["error"]["message"]
        sent = body(max_tokens=9)
        assert server.post("/v1/chat/completions", sent, headers=other).status_code == 200
        refused = server.post("/v1/chat/completions", sent, headers=other)
        assert refused.status_code == 402
        assert "the tenant `acme` for this day" in refused.json()["error"]["message"]


@pytest.mark.parametrize(("at_limit", "model"), [("cheaper", "cheap"), ("refuse", None)])
def test_at_the_limit_a_route_refuses_or_asks_a_cheaper_model(
    tmp_path: Path, at_limit: str, model: str | None
) -> None:
    with mocking(text=SAYS) as mock:
        settings = {
            "models": {
                "m": {"base_url": mock.url, "price": PRICE},
                "cheap": {"base_url": mock.url, "price": {"input": 1, "output": 1}},
            },
            "routes": {"both": ["m", {"model": "cheap", "role": "smaller"}]},
        }
        limits = {"usd_per_day": "0.015", "at_limit": at_limit}
        with limited(tmp_path, mock, limits, **settings) as server:
            assert ask(server, "both").headers["x-slipway-model"] == "m"
            second = ask(server, "both")
            assert second.headers.get("x-slipway-model") == model
            assert second.status_code == (402 if model is None else 200)


def test_a_model_that_continues_an_answer_needs_money_of_its_own(tmp_path: Path) -> None:
    """The first call breaks off after 5 words, which cost 0.006 USD: the rest is too little."""
    with mocking(text=SAYS, script=("cut-5@1",)) as mock:
        settings = {
            "models": {name: {"base_url": mock.url, "price": PRICE} for name in ("m", "other")},
            "routes": {"both": ["m", {"model": "other", "role": "twin"}]},
        }
        with limited(tmp_path, mock, {"usd_per_day": "0.015"}, **settings) as server:
            text = ask(server, "both", stream=True).text
            spent = server.get("/v1/usage", headers=AUTH).json()
        assert '"code":"provider_cut"' in text
        assert len(mock.requests) == 1
        assert spent["cost_usd"] == spent["budgets"][0]["spent_usd"] == "0.006"
        assert spent["budgets"][0]["reserved_usd"] == "0"


@pytest.mark.parametrize("at_limit", ["quote", "refuse"])
def test_at_the_limit_an_app_refuses_or_quotes_its_documents(tmp_path: Path, at_limit: str) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/tea.md").write_text("# Tea\n\nGreen tea is brewed at 80 degrees.\n")
    app = {"knowledge": str(tmp_path / "docs"), "route": "m"}
    limits = {"usd_per_day": "0.01", "at_limit": at_limit}
    with (
        mocking(text="80 degrees. [1]") as mock,
        limited(tmp_path, mock, limits, apps={"tea": app}, embedding="none") as server,
    ):
        question = [{"role": "user", "content": "How hot is green tea brewed?"}]
        reply = ask(server, "tea", messages=question)
        if at_limit == "refuse":
            assert reply.status_code == 402
        else:
            said = reply.json()
            assert said["slipway"]["served_by"] == "quote"
            assert [notice["code"] for notice in said["slipway"]["notices"]] == ["at_limit"]
        assert mock.requests == []


def test_a_model_without_a_price_is_refused_where_there_is_a_budget(tmp_path: Path) -> None:
    with mocking(text=SAYS) as mock:
        settings = {"models": {"m": {"base_url": mock.url}}}
        with limited(tmp_path, mock, {"usd_per_day": 1}, **settings) as server:
            refused = ask(server)
            assert "models.m: its price is unknown, so whoever has a budget" in server.log
    assert refused.status_code == 402
    assert refused.json()["error"]["code"] == "price_unknown"
    assert "The price of `m` is unknown" in refused.json()["error"]["message"]


def test_limits_change_while_the_server_runs_and_keep_their_counts(tmp_path: Path) -> None:
    with mocking(text=SAYS) as mock, limited(tmp_path, mock, {"usd_per_day": "0.02"}) as server:
        assert [ask(server).status_code for _ in range(3)] == [200, 200, 402]
        (file,) = tmp_path.glob("settings-*.yaml")
        settings = json.loads(file.read_text())
        settings["keys"][0]["limits"]["usd_per_day"] = "0.03"
        file.write_text(json.dumps(settings))
        until(lambda: "limits changed" in server.log or "keys changed" in server.log)
        assert [ask(server).status_code for _ in range(2)] == [200, 402]
    assert Decimal("0.03") == len(mock.requests) * Decimal("0.01")


def test_a_budget_counts_calls_that_began_before_it_and_while_it_was_gone(tmp_path: Path) -> None:
    """Each call costs 0.01 USD; the first one runs while the budget is made."""

    def change(limits: dict[str, Any] | None) -> None:
        (file,) = tmp_path.glob("settings-*.yaml")
        settings, applied = json.loads(file.read_text()), server.log.count("settings applied")
        settings["keys"][0]["limits"] = limits
        file.write_text(json.dumps(settings))
        until(lambda: server.log.count("settings applied") > applied)

    def spent() -> str:
        budgets = server.get("/v1/usage", headers=AUTH).json()["budgets"]
        return str(budgets[0]["spent_usd"])

    with (
        mocking(text=SAYS, ttft_s=1.5) as mock,
        limited(tmp_path, mock, {"rpm": 1000}) as server,
        ThreadPoolExecutor(1) as pool,
    ):
        running = pool.submit(ask, server)
        until(lambda: len(mock.requests) == 1)
        change({"usd_per_day": "0.02"})
        assert spent() == "0"
        assert running.result().status_code == 200
        assert spent() == "0.01"
        change(None)
        assert ask(server).status_code == 200
        change({"usd_per_day": "0.02"})
        assert spent() == "0.02"
        assert ask(server).status_code == 402


BIG = "x" * 4000


def said(**message: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "Hi", **message}]}


@pytest.fixture(scope="module")
def small_budget(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[MockServer, Serving]]:
    """Serve a key that may spend 0.06 USD a day."""
    folder = tmp_path_factory.mktemp("small")
    with mocking(text=SAYS) as mock, limited(folder, mock, {"usd_per_day": "0.06"}) as server:
        yield mock, server


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"max_tokens": 1, "max_completion_tokens": 500}, "it may cost 0.501"),
        ({"max_tokens": "9", "n": "7"}, "it may cost 0.064"),
        ({"max_tokens": 9.0, "n": 7.0}, "it may cost 0.064"),
        ({"prediction": {"type": "content", "content": BIG}}, "it may cost 1.0"),
        (said(function_call={"name": "f", "arguments": BIG}), "it may cost 1.0"),
        (said(reasoning_content=BIG), "it may cost 1.0"),
        (said(content=[{"type": "file", "file": {"file_data": BIG}}]), "it may cost 1.0"),
        (said(content=[{"type": "file", "file": {"file_id": "f"}}]), "it may cost 10.0"),
        (
            said(content=[{"type": "input_audio", "input_audio": {"data": BIG, "format": "mp3"}}]),
            "The price of audio of `m` is unknown",
        ),
        ({"modalities": ["text", "audio"]}, "The price of audio of `m` is unknown"),
        ({"modalities": ["image", "text"]}, "The price of images of `m` is unknown"),
    ],
)
def test_whatever_a_request_may_take_is_reserved(
    small_budget: tuple[MockServer, Serving], more: dict[str, Any], says: str
) -> None:
    mock, server = small_budget
    refused = ask(server, **more)
    assert refused.status_code == 402
    assert says in refused.json()["error"]["message"]
    assert not mock.requests
