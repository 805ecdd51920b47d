"""Test that a model gets no more calls at once than it takes, and that others wait fairly."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

import httpx
import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

import plain_http
from processes import mocking, models, serving
from slipway.errors import ModelBusy
from slipway.providers import Provider
from slipway.routing import Candidate, Health, Route
from slipway.routing.slots import ModelSlots
from waiting import PATIENCE_S, until


@given(
    st.integers(1, 3),
    st.lists(
        st.tuples(st.sampled_from("abc"), st.sampled_from(["stays", "leaves", "late"])), max_size=25
    ),
)
@settings(max_examples=60, deadline=None)
def test_turns_are_never_lost_and_never_too_many(most: int, calls: list[tuple[str, str]]) -> None:
    async def all_of_them() -> None:
        turns, busiest = ModelSlots("m", most, 5.0), 0

        async def one(owner: str, how: str) -> None:
            nonlocal busiest
            try:
                await turns.enter(owner, 0.0 if how == "late" else 5.0)
            except ModelBusy:
                return
            busiest = max(busiest, turns.busy)
            try:
                await asyncio.sleep(0)
            finally:
                turns.leave(0.001)

        tasks = [asyncio.create_task(one(*call)) for call in calls]
        for task, (_, how) in zip(tasks, calls, strict=True):
            if how == "leaves":
                await asyncio.sleep(0)
                task.cancel()
        await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 5)
        assert busiest <= most
        assert (turns.busy, turns.waiting) == (0, 0)

    asyncio.run(all_of_them())


def in_loop(test: Callable[[], Awaitable[None]]) -> None:
    async def run() -> None:
        await test()

    asyncio.run(run())


def test_a_busy_client_does_not_delay_others() -> None:
    async def test() -> None:
        turns, served = ModelSlots("m", 1, 60.0), list[str]()

        async def one(owner: str) -> None:
            await turns.enter(owner, 60.0)
            served.append(owner)
            await asyncio.sleep(0)
            turns.leave()

        await asyncio.gather(*(one("much") for _ in range(10)), *(one("little") for _ in range(2)))
        assert [n for n, owner in enumerate(served) if owner == "little"] == [2, 4]

    in_loop(test)


def test_a_call_that_cannot_be_served_in_time_is_refused_at_once() -> None:
    async def test() -> None:
        turns = ModelSlots("m", 1, 60.0)
        turns.takes_s = 60.0
        await turns.enter("a", 60.0)
        began = time.monotonic()
        with pytest.raises(ModelBusy) as reported:
            await turns.enter("a", 30.0)
        assert time.monotonic() - began < 15
        assert reported.value.retry_after_s == 60.0

    in_loop(test)


def test_a_model_that_is_busy_is_passed_over_where_another_is_free(tmp_path: Path) -> None:
    with mocking(ttft_s=2.0) as one, mocking() as other:
        file = models(one.url, "first", at_once=1)
        file["models"]["second"] = {"base_url": other.url}
        file["routes"] = {"main": ["first", "second"]}
        with serving(tmp_path, settings=file) as server, ThreadPoolExecutor(4) as pool:
            replies = list(pool.map(lambda _: server.chat("main"), range(4)))
    assert sorted(reply.headers["x-slipway-model"] for reply in replies) == [
        "first",
        "second",
        "second",
        "second",
    ]
    assert {reply.headers["x-slipway-attempts"] for reply in replies} == {
        "1"
    }  # a model that was passed over was not called


def test_more_calls_than_a_model_takes_wait_and_the_rest_get_a_503_with_a_retry_after(
    tmp_path: Path,
) -> None:
    with (
        mocking(ttft_s=0.5) as mock,
        serving(tmp_path, settings=models(mock.url, "m", at_once=2, wait="1200ms")) as server,
        plain_http.Client(base_url=server.url, timeout=PATIENCE_S) as client,
        ThreadPoolExecutor(12) as pool,
    ):
        server.chat("m")  # how long a call takes is known then
        replies = list(pool.map(lambda _: timed(client), range(12)))
        assert server.get("/readyz").json()["health"]["m"]["busy"] == 0
        slack_s = 20 * server.at_once_s()
    served = [took_s for reply, took_s in replies if reply.status_code == 200]
    shed = [(reply, took_s) for reply, took_s in replies if reply.status_code == 503]
    assert len(served) >= 2
    assert len(shed) >= 2
    assert len(served) + len(shed) == 12
    assert max(served) < 1.2 + 0.5 + slack_s
    for reply, _ in shed:
        assert reply.json()["error"]["code"] == "model_busy"
        assert int(reply.headers["retry-after"]) >= 1


def timed(client: httpx.Client) -> tuple[httpx.Response, float]:
    began = time.monotonic()
    reply = client.post(
        "/v1/chat/completions", json={"model": "m", "messages": [{"role": "user", "content": "x"}]}
    )
    return reply, time.monotonic() - began


def test_time_in_the_queue_does_not_count_as_call_time(tmp_path: Path) -> None:
    with (
        mocking(ttft_s=0.3) as mock,
        serving(tmp_path, settings=models(mock.url, "m", at_once=1, wait="2900ms")) as server,
        ThreadPoolExecutor(5) as pool,
    ):
        server.chat("m")  # how long a call takes is known then
        for _ in range(3):
            assert [
                reply.status_code for reply in pool.map(lambda _: server.chat("m"), range(5))
            ] == [200] * 5


def test_a_model_without_a_free_connection_is_busy(tmp_path: Path) -> None:
    with mocking(ttft_s=2.0) as one, mocking() as other:
        file = models(one.url, "first", connection={"max": 1, "connect": "300ms"})
        file["models"]["second"] = {"base_url": other.url}
        file["routes"] = {"main": ["first", "second"]}
        with serving(tmp_path, settings=file) as server, ThreadPoolExecutor(3) as pool:
            replies = list(pool.map(lambda _: server.chat("main"), range(3)))
            assert sorted(reply.headers["x-slipway-model"] for reply in replies) == [
                "first",
                "second",
                "second",
            ]
            assert {reply.headers["x-slipway-attempts"] for reply in replies} == {"1"}
            alone = list(pool.map(lambda _: server.chat("first"), range(2)))
            assert server.get("/readyz").json()["health"]["first"]["state"] == "closed"
    assert sorted(reply.status_code for reply in alone) == [200, 503]
    assert {reply.json()["error"]["code"] for reply in alone if reply.status_code == 503} == {
        "model_busy"
    }


def test_sections_are_written_no_more_at_once_than_the_narrowest_model_takes() -> None:
    narrow, wide, any_number = (
        Health("m", slots=turns)
        for turns in (ModelSlots("m", 2, 1.0), ModelSlots("m", 5, 1.0), None)
    )
    model = cast("Provider", None)
    route = Route(
        name="r",
        candidates=tuple(
            Candidate(model=model, health=health) for health in (wide, narrow, any_number)
        ),
    )
    assert route.at_once == 2


def test_a_client_that_leaves_the_queue_delays_no_other(tmp_path: Path) -> None:
    with (
        mocking(ttft_s=2.0) as mock,
        serving(tmp_path, settings=models(mock.url, "m", at_once=1)) as server,
    ):
        body = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
        with ThreadPoolExecutor(1) as pool:
            first = pool.submit(server.chat, "m")
            until(lambda: mock.requests)
            with pytest.raises(httpx.ReadTimeout):
                plain_http.post(f"{server.url}/v1/chat/completions", json=body, timeout=0.1)
            assert first.result().status_code == 200
        idle = {
            "state": "closed",
            "why": None,
            "for_s": None,
            "rests_s": None,
            "busy": 0,
            "waiting": 0,
            "oldest_s": 0.0,
        }
        until(lambda: server.get("/readyz").json()["health"]["m"] == idle)
    assert len(mock.requests) == 1
