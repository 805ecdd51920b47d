"""Test that routes survive every fault of `provider_faults`: alone, with a backup, in an app."""

import asyncio
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

import plain_http
from chat_client import ChatReply, ask
from processes import Serving, mocking, serving
from provider_faults import FAULT_CASES, SLOWEST_S, TIMES, FaultCase, FaultServers, fault_servers
from slipway.providers.mock import MockServer
from slipway.web.runs import HEARTBEAT_S
from waiting import until

AT_ONCE = 24
MOST_CALLS = 8  # of two models: three tries of each, and one more where it can be reached
# of two that break off again and again: one call, then four times one of each, a retry and one more
# of each
MOST_CALLS_BEHIND_WORDS = 13
HELLO = [{"role": "user", "content": "Hello"}]
SAYS_ALL = ("whole", "continued")
BEHIND_THE_END = (
    "cut after the last token",
    "cut after the finish reason",
    "finish reason `error`",
    "no finish reason",
)


async def ask_all(url: str, cases: list[FaultCase]) -> dict[str, ChatReply]:
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(client: httpx.AsyncClient, case: FaultCase) -> ChatReply:
        async with gate:
            return await ask(client, f"{url}/v1", case.body, patience_s=SLOWEST_S)

    async with plain_http.AsyncClient(limits=httpx.Limits(max_connections=AT_ONCE)) as client:
        seen = await asyncio.gather(*(one(client, case) for case in cases))
    return {case.name: each for case, each in zip(cases, seen, strict=True)}


class Asked:
    """All cases, asked once."""

    def __init__(self, servers: FaultServers) -> None:
        self.servers = servers
        self.seen = asyncio.run(ask_all(servers.server.url, FAULT_CASES))
        self.calls = servers.attempts()


@pytest.fixture(scope="module")
def asked(
    tmp_path_factory: pytest.TempPathFactory, certificate: tuple[Path, Path]
) -> Iterator[Asked]:
    with fault_servers(tmp_path_factory.mktemp("faults"), certificate, *FAULT_CASES) as everything:
        yield Asked(everything)


@pytest.mark.parametrize("case", FAULT_CASES, ids=lambda case: case.name)
def test_a_client_sees_the_right_outcome_of_each_fault(asked: Asked, case: FaultCase) -> None:
    seen, truth = asked.seen[case.name], asked.servers.truth(case)
    words = set(case.words)
    if seen.took_s > HEARTBEAT_S:  # on a busy machine: a heartbeat has begun the response by then
        words |= {"error event" for word in case.words if word.startswith("error ")}
    assert seen.word in words, seen
    if seen.word in SAYS_ALL or (seen.word == "error event" and case.fault.name in BEHIND_THE_END):
        assert seen.text == truth
    elif seen.word == "quote":
        assert "80 degrees" in seen.text
        assert "degraded" in seen.notices
    else:
        assert truth.startswith(seen.text)
        assert bool(seen.text) == (seen.word == "error event")
        assert seen.has_envelope
    assert len(seen.ids) <= 1


@pytest.mark.parametrize("case", FAULT_CASES, ids=lambda case: case.name)
def test_no_more_calls_than_need_be(asked: Asked, case: FaultCase) -> None:
    calls = asked.calls[case.name]
    assert 1 <= calls <= case.calls
    assert len(asked.servers.received(case)) <= calls
    reported = asked.seen[case.name].headers.get("x-slipway-attempts")
    assert reported is None or int(reported) <= calls


@pytest.mark.parametrize(
    "case", [case for case in FAULT_CASES if case.target == "routed"], ids=lambda case: case.name
)
def test_the_reply_names_the_model_that_wrote_it(asked: Asked, case: FaultCase) -> None:
    seen = asked.seen[case.name]
    if seen.status != 200:
        return
    first, backup = f"{case.name}.first", f"{case.name}.backup"
    helped = seen.word == "whole" and asked.calls[case.name] > 1
    assert seen.headers["x-slipway-model"] == (backup if helped else first)
    if seen.word == "continued":
        assert seen.models == [case.fault.says, "m"]  # each chunk names who wrote it


@pytest.mark.parametrize(
    "case",
    [c for c in FAULT_CASES if c.target == "alone" and c.fault.name.startswith("429")],
    ids=lambda c: c.name,
)
def test_a_429_says_when_to_try_again(asked: Asked, case: FaultCase) -> None:
    assert int(asked.seen[case.name].headers["retry-after"]) >= 1


def test_unusual_but_valid_replies_are_passed_on(asked: Asked) -> None:
    seen = {
        name: asked.seen[f"{name}.routed.streamed"]
        for name in ("content-filter", "another-model-s-name", "no-usage")
    }
    assert seen["content-filter"].finish == "content_filter"
    assert seen["another-model-s-name"].models == ["another-model"]
    assert seen["no-usage"].usage is None


def test_nothing_is_left_behind(asked: Asked) -> None:
    server = asked.servers.server
    assert "slipway_answers_in_flight 0.0" in server.get("/metrics").text
    assert server.get("/readyz").status_code == 200
    assert "Traceback" not in server.log


# What only one model can write, and who fails as well


def route(tmp_path: Path, *models: dict[str, Any], **more: Any) -> Any:
    """Start a server with one route, `r`, over these models."""
    named = {f"m{n}": {"connection": TIMES, **model} for n, model in enumerate(models)}
    return serving(tmp_path, settings={"models": named, "routes": {"r": list(named)}, **more})


def chat(server: Serving, **more: Any) -> ChatReply:
    async def one() -> ChatReply:
        async with plain_http.AsyncClient() as client:
            return await ask(client, f"{server.url}/v1", {"model": "r", "messages": HELLO, **more})

    return asyncio.run(one())


def truth(mock: MockServer) -> str:
    return str(
        plain_http.post(f"{mock.url}/truth", json={"model": "m", "messages": HELLO}).json()["text"]
    )


@pytest.mark.parametrize(
    "asks",
    [
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}]},
        {"response_format": {"type": "json_object"}},
        {"logprobs": True},
        {"n": 2},
    ],
    ids=lambda asks: next(iter(asks)),
)
def test_another_model_continues_only_plain_text(tmp_path: Path, asks: dict[str, Any]) -> None:
    with (
        mocking() as mock,
        route(
            tmp_path,
            {"base_url": mock.url, "name": "fault-cut-6"},
            {"base_url": mock.url, "name": "m"},
        ) as server,
    ):
        seen = chat(server, stream=True, **asks)
        assert seen.word == "error event"
        assert seen.has_envelope
        assert seen.text
        assert truth(mock).startswith(seen.text)
        assert len(mock.requests) == 1


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        ("fault-status-503", "fault-html", ("error 502", "error 502")),
        ("fault-hang", "fault-status-500", ("error 504", "error 504")),
        ("fault-status-429", "fault-status-503", ("error 429", "error 429")),
        ("fault-cut-5", "fault-status-503", ("error event", "error 502")),
        ("fault-cut-5", "fault-policy", ("error event", "error 400")),
        ("fault-stall-5", "fault-malformed-0", ("error event", "error 504")),
    ],
)
def test_two_models_fail_and_the_first_error_is_reported(
    tmp_path: Path, first: str, second: str, words: tuple[str, str], stream: bool
) -> None:
    """The first error is reported, unless the second model refuses the request itself."""
    with (
        mocking() as mock,
        route(
            tmp_path, {"base_url": mock.url, "name": first}, {"base_url": mock.url, "name": second}
        ) as server,
    ):
        seen = chat(server, stream=stream)
        assert seen.word == words[0 if stream else 1]
        assert seen.has_envelope
        assert truth(mock).startswith(seen.text)
        calls = [request for request in mock.requests if request.method == "POST"]
        assert len(calls) <= (MOST_CALLS_BEHIND_WORDS if seen.text else MOST_CALLS)


# Zones


def test_zones_die_and_come_back_one_by_one(tmp_path: Path) -> None:
    with mocking(seed=1) as north, mocking(seed=1) as south, mocking(seed=1) as west:
        zones = {"north": north, "south": south, "west": west}
        models = [{"base_url": mock.url, "name": "m", "zone": zone} for zone, mock in zones.items()]
        with route(tmp_path, *models) as server:
            assert writers(server) == {"m0"}
            north.script("refuse")
            assert writers(server) == {"m1"}
            south.script("down")
            assert writers(server) == {"m2"}
            west.script("refuse")
            dead = [chat(server, stream=stream) for stream in (True, False) for _ in range(5)]
            assert {seen.word for seen in dead} == {"error 502"}
            assert all(seen.has_envelope for seen in dead)
            for mock, writer in ((west, "m2"), (south, "m1"), (north, "m0")):
                mock.script()
                until(partial(is_written_by, server, writer))
                assert writers(server) == {writer}


def is_written_by(server: Serving, writer: str) -> bool:
    return writers(server, 1) == {writer}


def writers(server: Serving, count: int = 6) -> set[str]:
    """Return which models answer questions asked one after another; each answer must be complete."""
    seen = [chat(server, stream=n % 2 == 0) for n in range(count)]
    return {
        each.headers.get("x-slipway-model", each.word) if each.word == "whole" else each.word
        for each in seen
    }


def test_a_model_that_flaps_is_not_noticed(tmp_path: Path) -> None:
    with mocking(seed=1) as first, mocking(seed=1) as second:
        first.script("flap-1")
        with route(
            tmp_path, {"base_url": first.url, "name": "m"}, {"base_url": second.url, "name": "m"}
        ) as server:
            end = time.monotonic() + 4.5
            seen = list[ChatReply]()
            while time.monotonic() < end:
                seen.append(chat(server, stream=len(seen) % 2 == 0))
                time.sleep(0.02)
        assert {each.word for each in seen} == {"whole"}
        assert {each.headers["x-slipway-model"] for each in seen} == {"m0", "m1"}
