"""Test that a failing model is not asked until it is healthy, and that no client waits for probes."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any

import plain_http
from processes import Serving, free_port, mocking, models, serving
from waiting import PATIENCE_S, until


def state(server: Serving, name: str) -> str:
    return str(server.get("/readyz").json()["health"][name]["state"])


def chats(mock: Any) -> int:
    return sum(seen.path.endswith("/chat/completions") for seen in mock.requests)


def two(first: str, second: str) -> dict[str, Any]:
    file = models(first, "first", retries=0)
    file["models"]["second"] = {"base_url": second}
    return {**file, "routes": {"main": ["first", "second"]}}


def test_a_dead_model_costs_three_calls_and_is_back_once_it_lives(tmp_path: Path) -> None:
    with (
        mocking() as first,
        mocking() as second,
        serving(tmp_path, settings=two(first.url, second.url)) as server,
    ):
        first.script("down")
        for _ in range(20):
            assert server.chat("main").headers["x-slipway-model"] == "second"
        assert chats(first) == 3
        health = server.get("/readyz").json()["health"]["first"]
        assert health["state"] == "open"
        assert "failed (503)" in health["why"]
        assert 'slipway_model_state{model="first",state="open"} 1.0' in server.get("/metrics").text
        first.script()
        until(lambda: state(server, "first") == "half-open")
        until(lambda: server.chat("main").headers["x-slipway-model"] == "first")
        until(lambda: state(server, "first") == "closed")


def test_no_client_waits_for_a_trial(tmp_path: Path) -> None:
    with (
        mocking() as first,
        mocking() as second,
        serving(tmp_path, settings=two(first.url, second.url)) as server,
    ):
        first.script("down")
        for _ in range(3):
            server.chat("main")
        first.script("slow-5")  # it can be reached again, but is slow
        until(lambda: state(server, "first") == "half-open")
        asked = len(second.requests)
        answer = server.chat("main")
        assert state(server, "first") == "half-open", "the answer came before the trial ended"
        assert answer.headers["x-slipway-model"] == "second"
        assert len(second.requests) == asked + 1
        assert "x-slipway-cost-usd" not in answer.headers  # what the trial takes is not known
        until(lambda: state(server, "first") == "closed")  # its verdict was waited for


def test_an_open_breaker_refuses_at_once_even_if_no_other_model_is_left(
    tmp_path: Path,
) -> None:
    with mocking() as mock, serving(tmp_path, settings=models(mock.url, "m", retries=0)) as server:
        mock.script("down")
        for _ in range(3):
            assert server.chat("m").status_code == 502
        refused = server.chat("m")
        assert refused.status_code == 502
        assert int(refused.headers["retry-after"]) >= 1
        assert "m: The provider of m failed (503)" in refused.json()["error"]["message"]
        assert chats(mock) == 3
        mock.script()
        assert server.chat("m").status_code in (
            200,
            502,
        )  # who asks in that moment has it looked at again
        until(lambda: server.chat("m").status_code == 200)


def test_a_key_that_is_not_taken_is_not_sent_again(tmp_path: Path) -> None:
    with mocking(bad_keys=("sk-wrong",)) as mock:
        file = models(mock.url, "wrong", api_key="sk-wrong")
        file["models"]["right"] = {"base_url": mock.url, "api_key": "sk-right"}
        file["routes"] = {"main": ["wrong", "right"]}
        with serving(tmp_path, settings=file) as server:
            for _ in range(5):
                assert server.chat("main").headers["x-slipway-model"] == "right"
            until(lambda: sum(seen.method == "GET" for seen in mock.requests) >= 2)  # two probes
            assert state(server, "wrong") == "open"
            refused = server.chat("wrong")
    assert refused.json()["error"]["code"] == "provider_key"
    assert (
        sum(
            seen.headers["authorization"] == "Bearer sk-wrong" and seen.method == "POST"
            for seen in mock.requests
        )
        == 1
    )


def test_a_model_that_rate_limits_us_is_left_alone_for_its_retry_after(tmp_path: Path) -> None:
    with (
        mocking() as first,
        mocking() as second,
        serving(tmp_path, settings=two(first.url, second.url)) as server,
    ):
        first.script("status-429-1")
        began_at = time.monotonic()
        assert server.chat("main").headers["x-slipway-model"] == "second"
        assert 0 < server.get("/readyz").json()["health"]["first"]["rests_s"] <= 1
        first.script()
        until(lambda: server.chat("main").headers["x-slipway-model"] == "first")
        assert time.monotonic() - began_at >= 1
        assert state(server, "first") == "closed"


def test_health_survives_a_reload_but_not_a_new_address(tmp_path: Path) -> None:
    with mocking() as dead, mocking() as second:
        dead.script("down")
        file = two(dead.url, second.url)
        with serving(tmp_path, settings=file) as server:
            for _ in range(3):
                server.chat("main")
            path = next(tmp_path.glob("settings-*.yaml"))
            apply(server, path, {**file, "limits": {"answers": 77}})
            assert state(server, "first") == "open"
            file["models"]["first"]["price"] = {"input": 1, "output": 1}
            apply(server, path, file)
            assert state(server, "first") == "open"
            assert server.chat("main").headers["x-slipway-attempts"] == "1"
            file["models"]["first"]["base_url"] = f"http://127.0.0.1:{free_port()}/v1"
            apply(server, path, file)
            assert state(server, "first") == "closed"


def apply(server: Serving, path: Path, settings: dict[str, Any]) -> None:
    before = server.get("/readyz").json()["settings"]["applied_at"]
    path.write_text(json.dumps(settings))
    until(lambda: bool(server.get("/readyz").json()["settings"]["applied_at"] > before))


def test_another_key_in_the_headers_is_another_endpoint(tmp_path: Path) -> None:
    with mocking() as mock:
        file = models(mock.url, "m", headers={"api-key": "old"}, retries=0)
        with serving(tmp_path, settings=file) as server:
            mock.script("status-429-1000")
            assert server.chat("m").status_code == 429
            mock.script()
            assert server.chat("m").status_code == 429
            file["models"]["m"]["headers"] = {"api-key": "new"}
            apply(server, next(tmp_path.glob("settings-*.yaml")), file)
            assert server.chat("m").status_code == 200


def test_a_model_is_not_to_blame_for_a_question_that_had_no_more_time(tmp_path: Path) -> None:
    with mocking() as first, mocking(ttft_s=2.0) as second:
        first.script("hang")
        file = two(first.url, second.url)
        file["models"]["first"]["connection"] = {"first_byte": "700ms"}
        with serving(tmp_path, settings={**file, "limits": {"answer_time": "1s"}}) as server:
            for _ in range(4):
                assert server.chat("main").status_code == 504
            assert state(server, "second") == "closed"


def test_output_that_may_have_been_written_is_not_counted_as_free(tmp_path: Path) -> None:
    with mocking() as first, mocking() as second:
        file = two(first.url, second.url)
        for model in file["models"].values():
            model["price"] = {"input": 1, "output": 1}
        with serving(tmp_path, settings=file) as server:
            first.script("status-503")
            free = Decimal(server.chat("main").headers["x-slipway-cost-usd"])
            first.script("cut-0")  # its prompt is charged, as far as it can be counted here
            assert Decimal(server.chat("main").headers["x-slipway-cost-usd"]) > free


def test_how_long_a_model_rests_has_an_end(tmp_path: Path) -> None:
    with mocking() as mock, serving(tmp_path, settings=models(mock.url, "m", retries=0)) as server:
        mock.script("statusdate-429-90000000")
        for _ in range(2):
            assert int(server.chat("m").headers["retry-after"]) <= 86400


def test_a_model_that_its_provider_does_not_know_is_not_asked_for_ever(tmp_path: Path) -> None:
    with mocking() as first, mocking() as second:
        file = two(first.url, second.url)
        file["models"]["first"]["name"] = "fault-status-404"
        with serving(tmp_path, settings=file) as server:
            for _ in range(10):
                assert server.chat("main").headers["x-slipway-model"] == "second"
            assert state(server, "first") != "closed"
        assert chats(first) <= 5  # three, and trials


def test_an_address_that_can_be_none_is_passed_over(tmp_path: Path) -> None:
    with (
        mocking() as mock,
        serving(tmp_path, settings=two("http://no..where/v1", mock.url)) as server,
    ):
        assert server.chat("main").headers["x-slipway-model"] == "second"


def test_slow_first_words_count_as_failures(tmp_path: Path) -> None:
    with mocking(ttft_s=600.0) as slow, mocking() as second:
        file = two(slow.url, second.url)
        file["models"]["first"]["connection"] = {"first_token": "300ms"}
        with (
            serving(tmp_path, settings=file) as server,
            plain_http.Client(base_url=server.url, timeout=PATIENCE_S) as client,
        ):
            body = {"model": "main", "stream": True, "messages": [{"role": "user", "content": "x"}]}
            for asked in range(1, 6):
                reply = client.post("/v1/chat/completions", json=body)
                assert reply.headers["x-slipway-model"] == "second"
                assert asked > 3 or chats(slow) == asked
            assert state(server, "first") in ("open", "half-open")
            assert chats(slow) <= 4  # three, and a trial if the two calls behind them took long


def test_a_model_that_opened_its_breaker_is_not_asked_again_at_once(tmp_path: Path) -> None:
    with (
        mocking() as mock,
        serving(tmp_path, settings=models(mock.url, "fault-status-503", retries=0)) as server,
    ):
        for asked in range(1, 4):  # the list of models is well, so that a look would find it back
            assert server.chat("fault-status-503").status_code == 502
            assert chats(mock) == asked


def test_calls_that_waited_for_their_turn_meanwhile_do_not_keep_a_model_away(
    tmp_path: Path,
) -> None:
    with (
        mocking() as mock,
        serving(
            tmp_path, settings=models(mock.url, "fault-status-503", retries=0, at_once=1)
        ) as server,
    ):
        mock.script("slow-0.3")
        with ThreadPoolExecutor(
            8
        ) as pool:  # the later ones begin when the first have opened it, and it was reached again
            list(pool.map(lambda _: server.chat("fault-status-503"), range(8)))
        until(lambda: server.get("/readyz").json()["health"]["fault-status-503"]["busy"] == 0)
        before = chats(mock)
        until(
            lambda: server.chat("fault-status-503").status_code == 502 and chats(mock) > before,
            within_s=15,  # the pause would be 30 s if each of the later calls had doubled it
        )
