"""Test that identical questions in progress share one call, and that nobody owns it."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

import plain_http
from processes import Serving, mocking, serving
from slipway.providers.mock import MockServer
from waiting import PATIENCE_S, until_async

MANY = 1000


class Shared:
    def __init__(self, server: Serving, mock: MockServer, late: MockServer) -> None:
        self.server, self.mock, self.late = server, mock, late
        self.before = 0

    def body(self, text: str, model: str = "m", **more: Any) -> dict[str, Any]:
        return {"model": model, "messages": [{"role": "user", "content": text}], **more}

    def calls(self, text: str) -> int:
        return sum(text in json.dumps(seen.body) for seen in self.mock.requests)

    def client(self, most: int = 20) -> httpx.AsyncClient:
        limits = httpx.Limits(max_connections=most)
        client: httpx.AsyncClient = plain_http.AsyncClient(
            base_url=self.server.url, timeout=PATIENCE_S, limits=limits
        )
        return client

    def metric(self, name: str) -> float:
        lines = self.server.get("/metrics").text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    with (
        mocking(ttft_s=0.5, tpot_s=0.01, tokens=30) as mock,
        mocking(tokens=30, script=("cut-5",)) as cut,
        mocking(tokens=30, ttft_s=1.5) as late,
    ):
        settings = {
            "limits": {"answers": 4000, "connections": 4000},
            "models": {
                "m": {"base_url": mock.url, "name": "mock-model", "retries": 0, "cache": "1h"},
                "cut": {"base_url": cut.url, "name": "mock-model", "retries": 0, "cache": {}},
                "late": {"base_url": late.url, "name": "mock-model"},
                "unkept": {
                    "base_url": mock.url,
                    "name": "mock-model",
                    "retries": 0,
                    "cache": {},
                },
            },
            "routes": {"cut-then-late": ["cut", "late"]},
            "apps": {"app": {"route": "unkept", "cache": {}}},
        }
        with serving(tmp_path_factory.mktemp("shared"), settings=settings) as server:
            yield Shared(server, mock, late)


def text_of(stream: bytes) -> str:
    chunks = [json.loads(e[6:]) for e in stream.split(b"\n\n") if e.startswith(b"data: {")]
    return "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks if c["choices"])


@pytest.mark.parametrize("model", ["m", "app"])
def test_identical_questions_in_progress_share_one_call(shared: Shared, model: str) -> None:
    async def ask_all() -> list[httpx.Response]:
        async with shared.client(60) as client:
            bodies = [shared.body(f"together {model}", model, stream=True)] * 40
            return await asyncio.gather(
                *(client.post("/v1/chat/completions", json=body) for body in bodies)
            )

    replies = asyncio.run(ask_all())
    assert shared.calls(f"together {model}") == 1
    assert {reply.status_code for reply in replies} == {200}
    assert len({text_of(reply.content) for reply in replies}) == 1
    if model == "m":
        states = [reply.headers["x-slipway-cache"] for reply in replies]
        assert states.count("miss") == 1
        assert set(states) == {"miss", "flight"} or set(states) == {"miss", "flight", "hit"}


def test_whole_answers_share_a_call_and_join_a_stream(shared: Shared) -> None:
    async def ask_all() -> list[httpx.Response]:
        async with shared.client() as client:
            streamed = asyncio.create_task(
                client.post("/v1/chat/completions", json=shared.body("mixed", stream=True))
            )
            await until_async(lambda: shared.calls("mixed"))
            whole = [
                client.post("/v1/chat/completions", json=shared.body("mixed")) for _ in range(5)
            ]
            return [await streamed, *await asyncio.gather(*whole)]

    streamed, *whole = asyncio.run(ask_all())
    assert shared.calls("mixed") == 1
    texts = {each.json()["choices"][0]["message"]["content"] for each in whole}
    assert texts == {text_of(streamed.content)}
    assert {each.headers["x-slipway-cost-usd"] for each in whole} == {"0"}


@pytest.mark.parametrize("model", ["m", "app"])
def test_the_first_client_may_leave(shared: Shared, model: str) -> None:
    text = f"leaving {model}"

    async def ask_all() -> list[httpx.Response]:
        async with shared.client() as client:
            first = asyncio.create_task(
                client.post("/v1/chat/completions", json=shared.body(text, model, stream=True))
            )
            await until_async(lambda: shared.calls(text))
            others = [
                asyncio.create_task(
                    client.post("/v1/chat/completions", json=shared.body(text, model, stream=True))
                )
                for _ in range(5)
            ]
            await asyncio.sleep(0.1)
            first.cancel()
            return await asyncio.gather(*others)

    replies = asyncio.run(ask_all())
    assert shared.calls(text) == 1
    assert len({text_of(reply.content) for reply in replies}) == 1
    assert all(reply.content.endswith(b"data: [DONE]\n\n") for reply in replies)


def test_a_late_client_gets_the_stream_from_its_start(shared: Shared) -> None:
    async def ask_both() -> tuple[bytes, bytes]:
        async with (
            shared.client() as client,
            client.stream(
                "POST", "/v1/chat/completions", json=shared.body("late", stream=True)
            ) as first,
        ):
            chunks = first.aiter_bytes()
            begun = await anext(chunks)
            late = asyncio.create_task(
                client.post("/v1/chat/completions", json=shared.body("late", stream=True))
            )
            return begun + b"".join([chunk async for chunk in chunks]), (await late).content

    first, late = asyncio.run(ask_both())
    assert shared.calls("late") == 1
    assert first == late


def test_a_client_may_join_while_the_next_model_is_asked_to_continue(shared: Shared) -> None:
    async def ask_all() -> list[httpx.Response]:
        body = shared.body("joined", "cut-then-late", stream=True)
        async with shared.client() as client:
            first = asyncio.create_task(client.post("/v1/chat/completions", json=body))
            await until_async(lambda: shared.late.requests)
            second = asyncio.create_task(client.post("/v1/chat/completions", json=body))
            third = asyncio.create_task(
                client.post("/v1/chat/completions", json={**body, "stream": False})
            )
            return [await first, await second, await third]

    first, second, third = asyncio.run(ask_all())
    assert (second.status_code, third.status_code) == (200, 200), (second.text, third.text)
    assert second.headers["x-slipway-cache"] == third.headers["x-slipway-cache"] == "flight"
    assert text_of(second.content) == text_of(first.content)
    assert third.json()["choices"][0]["message"]["content"] == text_of(first.content)


def test_the_call_ends_when_the_last_client_leaves(shared: Shared) -> None:
    async def leave() -> None:
        async with shared.client() as client:
            asked = [
                asyncio.create_task(
                    client.post("/v1/chat/completions", json=shared.body("deserted", stream=True))
                )
                for _ in range(3)
            ]
            await until_async(lambda: shared.calls("deserted"))
            await asyncio.sleep(0.1)
            for each in asked:
                each.cancel()
            seen = next(r for r in shared.mock.requests if "deserted" in json.dumps(r.body))
            await until_async(lambda: seen.closed_at is not None)

    asyncio.run(leave())
    again = shared.server.chat("m", messages=[{"role": "user", "content": "deserted"}])
    assert again.headers["x-slipway-cache"] == "miss"


def test_a_failure_is_that_of_all_and_is_not_kept(shared: Shared) -> None:
    async def ask_all() -> list[httpx.Response]:
        async with shared.client() as client:
            asked = [
                client.post("/v1/chat/completions", json=shared.body("failing")) for _ in range(5)
            ]
            return await asyncio.gather(*asked)

    shared.mock.script("status-400", "slow-0.3")
    try:
        replies = asyncio.run(ask_all())
    finally:
        shared.mock.script()
    assert {reply.status_code for reply in replies} == {400}
    again = shared.server.chat("m", messages=[{"role": "user", "content": "failing"}])
    assert again.headers["x-slipway-cache"] == "miss"


def test_calls_are_shared_where_nothing_is_kept(shared: Shared) -> None:
    async def ask_all() -> list[httpx.Response]:
        async with shared.client() as client:
            asked = [
                client.post("/v1/chat/completions", json=shared.body("unkept", "unkept"))
                for _ in range(5)
            ]
            return await asyncio.gather(*asked)

    asyncio.run(ask_all())
    assert shared.calls("unkept") == 1
    asyncio.run(ask_all())
    assert shared.calls("unkept") == 2


@pytest.mark.soak
@pytest.mark.parametrize("stream", [True, False])
def test_a_thousand_identical_questions_are_one_call(shared: Shared, stream: bool) -> None:
    text = f"thousand {stream}"

    async def ask_all() -> list[httpx.Response]:
        async with shared.client(MANY) as client:
            body = shared.body(text, stream=stream)
            return await asyncio.gather(
                *(client.post("/v1/chat/completions", json=body) for _ in range(MANY))
            )

    shared.mock.script("slow-5")
    try:
        replies = asyncio.run(ask_all())
    finally:
        shared.mock.script()
    assert shared.calls(text) == 1
    assert {reply.status_code for reply in replies} == {200}
    if stream:
        assert len({text_of(reply.content) for reply in replies}) == 1
    else:
        assert len({reply.content for reply in replies}) == 1
