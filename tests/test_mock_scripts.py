"""Test the mock provider's scripts: faults by number, over time and by chance."""

import asyncio
import json
import re
import threading
from typing import Any

import httpx
import pytest

import plain_http
from processes import mocking
from raw_http import RawReply, ask, chat, code_of, get, json_of, settings, wire, with_mock
from slipway.providers.mock import FAULTS, MockServer, parse_entry
from waiting import PATIENCE_S

REFUSED = "refused"


async def status(
    port: int, body: Any = None, *, path: str = "/v1/chat/completions", method: str = "POST"
) -> int | str:
    try:
        return (
            await ask(port, wire(chat() if body is None else body, path=path, method=method))
        ).status
    except ConnectionRefusedError:
        return REFUSED


async def models(port: int) -> int | str:
    return await status(port, b"", path="/v1/models", method="GET")


async def put(port: int, *entries: Any) -> RawReply:
    return await ask(port, wire(list(entries), path="/script", method="PUT"))


# By number and by chance


@pytest.mark.parametrize(
    ("script", "statuses"),
    [
        ((), [200, 200, 200, 200]),
        (("status-503",), [503, 503, 503, 503]),
        (("status-503@1x3",), [503, 503, 503, 200]),
        (("status-503@2",), [200, 503, 200, 200]),
        (("status-503x2",), [503, 503, 200, 200]),
        (("status-429@1", "status-500@3x2"), [429, 200, 500, 500]),
        (("context@2x2",), [200, 400, 400, 200]),
        (("status-503%100@2x2",), [200, 503, 503, 200]),
        (("status-503%0",), [200, 200, 200, 200]),
        (("down@2",), [200, 503, 200, 200]),
        (("limit-2",), [200, 200, 429, 429]),
        (("limit-2@3x2", "limit-0@1"), [429, 200, 200, 200]),
    ],
)
def test_a_script_picks_calls_by_number(script: tuple[str, ...], statuses: list[int]) -> None:
    async def use(mock: MockServer) -> list[int | str]:
        got = []
        for _ in statuses:
            await models(mock.port)  # does not count
            got.append(await status(mock.port))
        return got

    assert with_mock(use, script=script) == statuses


def test_chance_follows_from_the_seed_and_the_number_of_the_call() -> None:
    async def use(mock: MockServer) -> list[int | str]:
        return [await status(mock.port, chat(content=f"question {n}")) for n in range(200)]

    def drawn(seed: int, *script: str) -> list[int | str]:
        return with_mock(use, seed=seed, script=script, ttft_s=0.0, tokens=1)

    one = drawn(1, "status-503%12.5")
    assert 10 <= one.count(503) <= 45
    assert drawn(1, "status-503%12.5") == one
    assert drawn(2, "status-503%12.5") != one
    both = drawn(
        1, "status-503%50", "status-500%50"
    )  # drawn apart; if both are drawn, the second applies
    assert 30 <= both.count(503) <= 70


def test_cutany_cuts_each_call_elsewhere_and_the_same_seed_in_the_same_places() -> None:
    async def use(mock: MockServer) -> list[bytes]:
        return [(await ask(mock.port, wire(chat(stream=True)))).body for _ in range(60)]

    def sizes(seed: int) -> list[int]:
        return [
            len(body)
            for body in with_mock(use, seed=seed, script=("cutany",), ttft_s=0.0, tpot_s=0.0)
        ]

    length = len(get(chat(stream=True), seed=3).body)
    three = sizes(3)
    assert len(set(three)) > 40
    assert min(three) < length / 5
    assert (
        length * 0.8 < max(three) < length * 1.05
    )  # the number of the call, in each event's id, may have two digits
    assert sizes(3) == three
    assert sizes(4) != three


@pytest.mark.parametrize("stream", [True, False])
def test_cutchar_ends_inside_a_character(stream: bool) -> None:
    got = get(chat("fault-cutchar-2", stream=stream), text="plain words, café 数据 🚢 more")
    assert got.body.endswith(
        '"content":"café"'.encode()[:-2] if stream else "plain words, café".encode()[:-1]
    )
    with pytest.raises(UnicodeDecodeError):
        got.body.decode()


def test_cutchar_without_such_a_character_ends_inside_an_event() -> None:
    got = get(chat("fault-cutchar-2", stream=True), text="only plain words here")
    assert (got.body.count(b"\n\n"), got.body.endswith(b"\n\n"), got.end) == (3, False, "closed")
    assert get(chat("fault-cutchar-99", stream=True), text="few").end == "closed"
    assert get(chat("fault-cutchar", stream=True), script=("empty",)).body == b""


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ("cut-5@", "after @ write a call (3), a time (2s, 500ms, 1m) or two times (2s-5s)"),
        ("cut-5@soon", "after @ write a call"),
        ("cut-5@2s-", "after @ write a call"),
        ("cut-5@2-5", "after @ write a call"),
        ("cut-5@5s-2s", "the second time must be later"),
        ("cut-5@2s-2s", "the second time must be later"),
        ("cut-5@2sx3", "x3 counts calls and cannot be combined with a time"),
        ("cut-5@0", "calls are counted from 1"),
        ("cut-5x0", "calls are counted from 1"),
        ("cut-5%", "'' is not a share of calls"),
        ("cut-5%-3", "'-3' is not a share of calls"),
        ("cut-5%101", "write % and a number from 0 to 100"),
        ("cut-5%nan", "'nan' is not a share of calls"),
        ("cut-5@2s%20", "Write FAULT[%P][@WHEN][xM]"),
        ("cut-5%20%30", "Write FAULT[%P][@WHEN][xM]"),
        ("stal-5@2s", "Did you mean 'stall'?"),
        (
            "refuse@3",
            "refuse applies to the whole server, so give it a time, such as refuse@5s-10s",
        ),
        ("refusex3", "applies to the whole server"),
        ("refuse%20", "applies to the whole server"),
        ("refuse%20@1s", "applies to the whole server"),
    ],
)
def test_an_entry_that_cannot_be_understood_says_why(entry: str, says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)):
        parse_entry(entry)
    with pytest.raises(ValueError, match=re.escape(says)):
        MockServer(settings(script=(entry,)))


@pytest.mark.parametrize("name", sorted(FAULTS))
def test_every_fault_may_be_scripted_by_time(name: str) -> None:
    entry = parse_entry(f"{name}@500ms-1.5m")
    assert (entry.fault.name, entry.window_s, entry.share) == (name, (0.5, 90), 1)


def test_refuse_is_no_model() -> None:
    got = get(chat("fault-refuse"))
    assert (got.status, code_of(got)) == (404, "model_not_found")
    assert "put it in a script" in json_of(got)["error"]["message"]


# Over time


def test_faults_come_and_go_with_the_clock() -> None:
    async def use(mock: MockServer) -> list[int | str]:
        got = list[int | str]()
        while len(got) < 4:
            now = await status(mock.port)
            got += [now] if [now] != got[-1:] else []
            await asyncio.sleep(0.02)
        return got

    assert with_mock(
        use, script=("status-503@300ms-600ms", "status-429@0.9s"), ttft_s=0.0, tpot_s=0.0, tokens=1
    ) == [200, 503, 200, 429]


def test_down_takes_every_route_but_those_that_steer() -> None:
    async def use(mock: MockServer) -> None:
        paths = [
            ("/v1/models", "GET"),
            ("/v1/embeddings", "POST"),
            ("/v1/nowhere", "GET"),
            ("/v1/chat/completions", "POST"),
        ]
        assert [
            await status(mock.port, b"", path=path, method=method) for path, method in paths
        ] == [503] * 4
        assert await status(mock.port) == 503
        for path in ("/healthz", "/requests"):
            assert await status(mock.port, b"", path=path, method="GET") == 200
        assert (await put(mock.port)).status == 200
        assert (await models(mock.port), await status(mock.port)) == (200, 200)

    with_mock(use, script=("down",))


def test_limit_slides_over_a_second() -> None:
    async def use(mock: MockServer) -> tuple[list[int | str], list[int | str]]:
        first = [await status(mock.port) for _ in range(5)]
        await asyncio.sleep(1.05)
        return first, [await status(mock.port) for _ in range(5)]

    now, later = with_mock(use, script=("limit-3",), ttft_s=0.0, tpot_s=0.0)
    assert now == later == [200, 200, 200, 429, 429]


def test_refuse_closes_the_port_and_all_connections_and_opens_the_same_port_again() -> None:
    async def use(mock: MockServer) -> tuple[RawReply, list[int | str]]:
        under_way = asyncio.create_task(ask(mock.port, wire(chat("say-5000", stream=True))))
        seen = list[int | str]()
        while seen.count(200) < 2:
            now = await models(mock.port)
            seen += [now] if [now] != seen[-1:] else []
            await asyncio.sleep(0.02)
        return await under_way, seen

    cut, seen = with_mock(use, script=("refuse@600ms-1s",))
    assert (cut.status, cut.end, "DONE" in cut.body.decode()) == (200, "closed", False)
    assert seen == [200, REFUSED, 200]


def test_refuse_ends_connections_that_wait_for_their_next_request() -> None:
    async def use(mock: MockServer) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", mock.port)
        async with asyncio.timeout(PATIENCE_S):
            end = await reader.read()
        writer.close()
        return end

    assert with_mock(use, script=("refuse@100ms-200ms",)) == b""


def test_a_mock_that_refuses_can_be_closed() -> None:
    async def use(mock: MockServer) -> int | str:
        assert await status(mock.port) == REFUSED
        await mock.close()
        async with MockServer(settings(port=mock.port)) as again:
            return await status(again.port)

    assert with_mock(use, script=("refuse",)) == 200


# Replaced while it runs


def test_a_script_is_replaced_on_the_mocks_own_loop() -> None:
    async def use(mock: MockServer) -> list[int | str]:
        seen = [await status(mock.port)]
        for entries in (("status-503@1",), ("refuse",), ("status-429",), ("refuse",), ()):
            mock.script(*entries)
            seen.append(await status(mock.port))
        for entries in ((), ("refuse",), (), ("refuse",)):
            mock.script(*entries)
        await asyncio.sleep(0.01)
        return [*seen, await status(mock.port)]

    assert with_mock(use) == [200, 503, REFUSED, 429, REFUSED, 200, REFUSED]


def test_a_script_may_be_replaced_from_another_thread_and_counts_from_one_again() -> None:
    with mocking(script=("status-500@1",)) as mock, plain_http.Client() as client:
        url = f"{mock.url}/chat/completions"
        assert [client.post(url, json=chat()).status_code for _ in range(2)] == [500, 200]
        mock.script("status-503@1")
        assert [client.post(url, json=chat()).status_code for _ in range(2)] == [503, 200]
        mock.script("refuse")
        with pytest.raises(httpx.ConnectError):
            client.post(url, json=chat())
        mock.script()
        assert client.post(url, json=chat()).status_code == 200
        with pytest.raises(ValueError, match="no fault"):
            mock.script("status-503", "nonsense")
        assert client.post(url, json=chat()).status_code == 200


def test_scripts_from_many_threads_leave_the_last_in_force() -> None:
    with mocking() as mock:
        threads = [
            threading.Thread(target=mock.script, args=("refuse",) if n % 2 else ())
            for n in range(20)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE_S)
        mock.script()
        assert plain_http.post(f"{mock.url}/chat/completions", json=chat()).status_code == 200


def test_a_script_is_put_over_http_and_its_reply_arrives_before_it_refuses() -> None:
    async def use(mock: MockServer) -> list[int | str]:
        seen = [await status(mock.port)]
        assert json_of(await put(mock.port, "status-503@1")) == ["status-503@1"]
        seen += [await status(mock.port), await status(mock.port)]
        assert (await put(mock.port, "refuse@0s-1s")).status == 200
        seen.append(await status(mock.port))
        await asyncio.sleep(1)
        return [*seen, await status(mock.port), len(mock.requests)]

    assert with_mock(use) == [
        200,
        503,
        200,
        REFUSED,
        200,
        4,
    ]  # the script was no request to remember


@pytest.mark.parametrize("script", [["nonsense"], ["cut-5@"], "cut-5", [5], {}])
def test_a_script_that_cannot_be_understood_is_refused_and_changes_nothing(script: Any) -> None:
    async def use(mock: MockServer) -> tuple[RawReply, int | str]:
        got = await ask(mock.port, wire(script, path="/script", method="PUT"))
        return got, await status(mock.port)

    got, after = with_mock(use, script=("status-503",))
    assert (got.status, after) == (400, 503)
    assert json_of(got)["error"]["message"]


# Keys


@pytest.mark.parametrize(
    ("key", "expected"), [("sk-bad", 401), ("sk-worse", 401), ("sk-good", 200), (None, 200)]
)
def test_a_bad_key_is_refused_and_others_are_not(key: str | None, expected: int) -> None:
    headers = f"Authorization: Bearer {key}\r\n" if key else ""
    got = get(wire(chat(), headers=headers), bad_keys=("sk-bad", "sk-worse"))
    assert got.status == expected
    assert expected == 200 or json.loads(got.body)["error"]["code"] == "invalid_api_key"
