"""Which model is asked after failures: a model that has healed is found again whatever its list of
models says, one client's prompts do not take it from others, and a better model is asked once more
before a weaker one.
"""

import asyncio
import itertools
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from behaviours import Behaviour, good, head_of, running
from processes import Serving, mocking, serving
from slipway.routing.blame import RECENTLY_S, Blame, Origin
from slipway.routing.breaker import Breaker
from slipway.routing.usual_times import DEFAULT_S, LONGEST_S, SHORTEST_S, UsualTimes
from test_as_sent import TIMES, AsSent, Reply, code_of, text_of, whole

DOWN = b'{"error":{"message":"failed"}}'


def in_turn(*replies: Reply) -> Reply:
    """The first call gets the first reply, and so on; the last one is kept."""
    left = iter(replies)
    last = replies[-1]
    return lambda is_stream: next(left, last)(is_stream)


def well(is_stream: bool) -> Behaviour:
    return good("Well again.", streamed=is_stream)


def fails(status: int = 503, *headers: tuple[str, str]) -> Reply:
    return whole(DOWN, status, *headers)


def until_well(server: Serving, model: str, within_s: float) -> float:
    """How many seconds until the model answers; each question is another one."""
    began = time.monotonic()
    for number in itertools.count():
        body = {"model": model, "messages": [{"role": "user", "content": f"{model} {number}"}]}
        reply = server.post("/v1/chat/completions", body)
        if reply.status_code == 200:
            return time.monotonic() - began
        assert time.monotonic() - began < within_s, reply.text
        time.sleep(0.1)
    raise AssertionError("unreachable")


# A healed model


LISTINGS = {
    **{
        str(s): Behaviour("", None, ((0.0, head_of(s, [("Content-Length", "0")])),))
        for s in (401, 403, 404, 429)
    },
    "slow": Behaviour("", None, ((1.2, head_of(200, [("Content-Length", "2")]) + b"{}"),)),
    "hang": Behaviour("", None, (), "hold"),
}


def test_a_healed_model_is_asked_again_though_its_list_of_models_fails(tmp_path: Path) -> None:
    replies: dict[str, Reply] = {name: in_turn(*[fails()] * 3, well) for name in LISTINGS}
    with running(AsSent(replies, LISTINGS)) as url:
        models = {
            name: {"base_url": url.replace("/v1", f"/{name}/v1"), "name": name, "retries": 0}
            for name in LISTINGS
        }
        with serving(tmp_path, settings={"models": models}) as server:
            for name in LISTINGS:
                for number in range(3):
                    server.post(
                        "/v1/chat/completions",
                        {"model": name, "messages": [{"role": "user", "content": f"{number}"}]},
                    )
                assert server.get("/readyz").json()["health"][name]["state"] != "closed"
            for name in LISTINGS:
                until_well(server, name, 25.0)


def test_time_alone_allows_a_trial_later_after_each_that_failed() -> None:
    breaker, now, waits = Breaker(), 0.0, []
    breaker.failed(now, at_once=True)
    for _ in range(6):
        began = now
        while breaker.state == "open":
            now += 0.5
            breaker.waited(now, 2.0)
        waits.append(now - began)
        breaker.begin_trial(now)
        breaker.failed(now)
    assert waits == [2.0, 2.0, 4.0, 8.0, 16.0, 30.0]


# A poisoned client


POISONS: dict[str, Reply] = {
    "500": fails(500),
    "reset": lambda _: Behaviour("reset", None, (), "reset"),
    "moderation": whole(b'{"error":{"message":"flagged by moderation"}}', 403),
    "forbidden": whole(b'{"error":{"message":"no"}}', 403),
    "nonsense": whole(b"<html>"),
    "cut": lambda _: Behaviour(
        "cut", None, ((0.0, head_of(200, [("Content-Length", "9")]) + b"{"),)
    ),
}


class Poisoned(AsSent):
    """Answers every prompt but those that name a poison."""

    def behaviour(self, request: dict[str, Any], path: str) -> Behaviour:
        asked, is_stream = str(request["messages"][0]["content"]), bool(request.get("stream"))
        poison = POISONS.get(asked.split(" ")[0])
        return poison(is_stream) if poison else good("Well.", streamed=is_stream)


async def hammer(server: Serving, poison: str, keys: tuple[str, str], *, same: bool) -> float:
    """Ask 4 poisoned prompts for each good one, side by side; return the share of good ones that
    were answered.
    """
    answered = list[bool]()

    async def ask(client: httpx.AsyncClient, text: str, key: str) -> bool:
        body = {"model": "r", "messages": [{"role": "user", "content": text}]}
        headers = {"Authorization": f"Bearer {key}"}
        reply = await client.post("/v1/chat/completions", json=body, headers=headers)
        return reply.status_code == 200

    async def bad(client: httpx.AsyncClient) -> None:
        for number in range(25):
            await ask(client, poison if same else f"{poison} {number}", keys[0])

    async def fine(client: httpx.AsyncClient) -> None:
        for number in range(50):
            answered.append(await ask(client, f"fine {number}", keys[1]))

    async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
        await ask(client, "first", keys[1])
        await asyncio.gather(*(bad(client) for _ in range(4)), fine(client), fine(client))
    return sum(answered) / len(answered)


@pytest.mark.parametrize("poison", POISONS)
def test_a_poisoned_client_does_not_shut_out_a_good_one(tmp_path: Path, poison: str) -> None:
    """With a key of its own and prompts that differ, and under the same key with the same prompt."""
    keys = ("sk-poisoned-client-0123456789", "sk-good-client-0123456789")
    for same, asked_by in ((False, keys), (True, (keys[1], keys[1]))):
        with running(Poisoned({})) as url:
            settings = {
                "models": {"m": {"base_url": url, "connection": TIMES}},
                "routes": {"r": ["m"]},
                "keys": [{"key": key} for key in keys],
            }
            with serving(tmp_path, settings=settings) as server:
                share = asyncio.run(hammer(server, poison, asked_by, same=same))
                assert share >= 0.99, (poison, same, share)


def test_an_outage_still_counts_whoever_asks() -> None:
    blame = Blame()
    blame.succeeded(Origin(owner="a", prompt=1), 0.0)
    assert all(blame.is_on_model(Origin(owner="a", prompt=1), 0.0) for _ in range(9))
    for owner in "abc":
        assert blame.is_on_model(Origin(owner=owner, prompt=2), 0.0)
    assert all(blame.is_on_model(Origin(owner="d", prompt=n), 0.1 + RECENTLY_S) for n in range(9))


def test_what_fails_while_others_are_answered_is_the_prompts_or_the_keys_fault() -> None:
    blame, now = Blame(), 0.0
    poison = Origin(owner="a", prompt=1)
    assert blame.is_on_model(poison, now)
    blame.succeeded(Origin(owner="a", prompt=2), now)
    assert not blame.is_on_model(poison, now)
    blame.succeeded(poison, now)
    assert blame.is_on_model(poison, now)
    found = []
    for number in range(6):
        found.append(blame.is_on_model(Origin(owner="x", prompt=number), now))
        blame.succeeded(Origin(owner="b", prompt=number), now)
    assert found == [True, True, False, False, False, False]


# The order


@contextmanager
def routed(
    tmp_path: Path, first: Reply, *roles: str, **limits: Any
) -> Iterator[tuple[Serving, AsSent]]:
    """A route whose first model answers so, and whose others are well; each is called by its role."""
    upstream = AsSent({"primary": first})
    with ExitStack() as stack:
        url = stack.enter_context(running(upstream))
        models: dict[str, Any] = {
            "primary": {"base_url": url, "connection": {"between_bytes": "1s"}}
        }
        for role in roles:
            mock = stack.enter_context(mocking(text=f"By the {role}."))
            models[role] = {"base_url": mock.url}
        route = ["primary", *({"model": role, "role": role} for role in roles)]
        settings = {"models": models, "routes": {"r": route}, **limits}
        yield stack.enter_context(serving(tmp_path, settings=settings)), upstream


@pytest.mark.parametrize("weaker", ["smaller", "local"])
def test_a_primary_is_asked_once_more_before_a_weaker_model(tmp_path: Path, weaker: str) -> None:
    with routed(tmp_path, in_turn(fails(500), well), weaker) as (server, upstream):
        reply = server.chat("r")
        assert reply.headers["x-slipway-model"] == "primary"
        assert upstream.calls["primary", "Hello"] == 2


def test_a_twin_is_asked_at_once(tmp_path: Path) -> None:
    with routed(tmp_path, in_turn(fails(500), well), "twin", "smaller") as (server, upstream):
        assert server.chat("r").headers["x-slipway-model"] == "twin"
        assert upstream.calls["primary", "Hello"] == 1


def test_a_short_rate_limit_is_waited_out_before_a_weaker_model(tmp_path: Path) -> None:
    limited = in_turn(fails(429, ("Retry-After", "1")), well)
    with routed(tmp_path, limited, "smaller") as (server, _):
        began = time.monotonic()
        assert server.chat("r").headers["x-slipway-model"] == "primary"
        assert time.monotonic() - began >= 1.0
    limited = in_turn(fails(429, ("Retry-After", "30")), well)
    with routed(tmp_path, limited, "smaller") as (server, _):
        assert server.chat("r").headers["x-slipway-model"] == "smaller"


def test_without_time_a_weaker_model_is_asked_at_once(tmp_path: Path) -> None:
    limited = in_turn(fails(429, ("Retry-After", "1")), well)
    with routed(tmp_path, limited, "smaller", limits={"patience": "500ms"}) as (server, _):
        assert server.chat("r").headers["x-slipway-model"] == "smaller"


def test_a_primary_that_fails_twice_gives_way(tmp_path: Path) -> None:
    with routed(tmp_path, fails(500), "smaller") as (server, upstream):
        assert server.chat("r").headers["x-slipway-model"] == "smaller"
        assert upstream.calls["primary", "Hello"] == 2


# How long a model is waited for


def test_the_limit_for_the_first_words_follows_what_is_usual() -> None:
    times = UsualTimes()
    assert times.limit_s == DEFAULT_S
    for _ in range(50):
        times.add(0.4)
    assert times.limit_s == SHORTEST_S
    for _ in range(50):
        times.add(4.0)
    assert times.limit_s == 16.0
    for _ in range(50):
        times.add(60.0)
    assert times.limit_s == LONGEST_S


def test_an_answer_that_is_not_streamed_is_not_waited_for_without_end(tmp_path: Path) -> None:
    """After the usual time, here the shortest one, another model is asked as well."""
    hangs = lambda _: Behaviour("hang", None, (), "hold")  # noqa: E731
    first = in_turn(*[well] * 5, hangs)
    with routed(tmp_path, first, "twin") as (server, _):
        for _ in range(5):
            assert server.chat("r").headers["x-slipway-model"] == "primary"
        began = time.monotonic()
        reply = server.chat("r", temperature=0)
        assert text_of(reply) == "By the twin."
        assert SHORTEST_S <= time.monotonic() - began < 2 * SHORTEST_S
        assert code_of(reply) == ""
