"""Test the mock provider over HTTP, with raw bytes and with the OpenAI client."""

import asyncio
import base64
import json
import math
import os
import re
import signal
import ssl
import subprocess
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import click
import httpx
import openai
import pytest

import plain_http
from processes import COMMAND, run
from raw_http import (
    CHAT,
    RawReply,
    ask,
    chat,
    code_of,
    event,
    get,
    json_of,
    read,
    settings,
    wire,
    with_mock,
)
from slipway.commands.mock import command as mock_command
from slipway.providers.mock import CONTINUES, FAULTS, MockServer, parse_fault, serve
from waiting import PATIENCE_S, comes_below, until_async

# An ordinary provider


def test_a_stream_is_a_role_the_tokens_a_finish_the_usage_and_done() -> None:
    got = get(chat(stream=True, stream_options={"include_usage": True}))
    role, *tokens, finish, usage, done = got.events
    assert (got.status, got.end, got.headers["content-type"]) == (
        200,
        "end",
        "text/event-stream; charset=utf-8",
    )
    assert role["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert role["usage"] is None
    assert len(tokens) == len(got.texts) == 12
    assert {event["model"] for event in tokens} == {"m"}
    assert finish["choices"][0]["finish_reason"] == "stop"
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] == 12
    assert usage["usage"]["total_tokens"] == usage["usage"]["prompt_tokens"] + 12
    assert done == "DONE"


def test_without_include_usage_a_stream_says_nothing_of_usage() -> None:
    assert all("usage" not in event for event in get(chat(stream=True)).events if event != "DONE")


def test_the_words_follow_from_seed_and_messages_streamed_or_not() -> None:
    async def use(mock: MockServer) -> tuple[str, str, str]:
        streamed = await ask(mock.port, wire(chat(stream=True)))
        plain = await ask(mock.port, wire(chat()))
        other = await ask(mock.port, wire(chat(content="something else")))
        return "".join(streamed.texts), *(
            json_of(got)["choices"][0]["message"]["content"] for got in (plain, other)
        )

    streamed, plain, other = with_mock(use)
    assert streamed == plain
    assert len(plain.split()) == 12
    assert other != plain
    assert with_mock(use, seed=1)[0] != plain
    assert with_mock(use)[0] == plain


@pytest.mark.parametrize(
    "text", ["Straight to the point.", "  spaces  kept\n\nand lines ", "café 数据 🚢", ""]
)
def test_a_fixed_text_arrives_exactly(text: str) -> None:
    assert "".join(get(chat(stream=True), text=text).texts) == text
    assert json_of(get(chat(), text=text))["choices"][0]["message"]["content"] == text


def test_numbered_passages_are_cited_and_nothing_else_is() -> None:
    passages = (
        "Answer from these.\n[1] Ships float.\n[2] Slipways slope.\n[5] Harbours shelter.\nWhat "
        "floats?"
    )
    text = "".join(get(chat(content=passages, stream=True), tokens=80).texts)
    cited = set(re.findall(r" \[(\d+)\]\.", text))
    assert cited
    assert cited <= {"1", "2", "5"}
    assert len(text.split()) == 80
    assert "[" not in "".join(
        get(chat(content="as [1] says in the middle", stream=True), tokens=80).texts
    )
    parts = [
        {"type": "text", "text": "[7] one"},
        {"type": "image_url", "image_url": {"url": "data:,"}},
    ]
    assert " [7]." in "".join(get(chat(content=parts, stream=True)).texts)


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
def test_a_limit_of_tokens_ends_the_reply(field: str) -> None:
    got = get({**chat(stream=True), field: 4})
    assert (len(got.texts), got.finishes) == (4, ["length"])
    assert get({**chat(stream=True), field: 12}).finishes == ["stop"]


def test_several_choices_streamed_and_not() -> None:
    choices = json_of(get(chat(n=3)))["choices"]
    streamed = get(chat(n=3, stream=True))
    assert len({choice["message"]["content"] for choice in choices}) == 3
    for choice in choices:
        mine = [
            part
            for event in streamed.events[:-1]
            for part in event["choices"]
            if part["index"] == choice["index"]
        ]
        assert (
            "".join(part["delta"].get("content", "") for part in mine)
            == choice["message"]["content"]
        )


def test_times_are_kept_without_drift() -> None:
    async def use(mock: MockServer) -> float:
        await ask(mock.port, wire(chat(stream=True)))
        seen = mock.requests[-1]
        first_s, last_s = seen.sent[0] - seen.arrived_at, seen.sent[-1] - seen.arrived_at
        assert first_s >= 0.099
        assert last_s >= 0.399
        return last_s

    assert comes_below(0.43, lambda: with_mock(use, ttft_s=0.1, tpot_s=0.01, tokens=31))


def test_jitter_spreads_the_times_the_same_way_each_time() -> None:
    async def use(mock: MockServer) -> list[float]:
        await ask(mock.port, wire(chat(stream=True)))
        seen = mock.requests[-1]
        return [at - seen.arrived_at for at in seen.sent]

    def times(jitter: float) -> list[float]:
        """Return the times, each as early as it was in one of several runs."""
        runs = [with_mock(use, tpot_s=0.04, tokens=5, jitter=jitter) for _ in range(4)]
        return [min(at) for at in zip(*runs, strict=True)]

    calm, one, two = times(0.0), times(0.9), times(0.9)
    assert one == pytest.approx(two, abs=0.015)
    assert one != pytest.approx(calm, abs=0.015)


def test_spread_varies_lengths_between_answers_and_prefill_takes_its_time() -> None:
    async def use(mock: MockServer) -> list[tuple[int, float]]:
        for n in range(8):
            await ask(mock.port, wire(chat(content=f"{'long ' * 80} question {n}", stream=True)))
        return [(len(seen.sent), seen.sent[0] - seen.arrived_at) for seen in mock.requests]

    for spread in (0.0, 0.3):
        found = with_mock(use, tokens=20, ttft_s=0.0, tpot_s=0.0, prefill=1000.0, spread=spread)
        assert (len({chunks for chunks, _ in found}) > 1) == (spread > 0)
        assert min(first_s for _, first_s in found) >= 0.1  # for a hundred tokens


def test_embeddings_are_unit_vectors_of_their_input() -> None:
    async def use(mock: MockServer) -> list[Any]:
        inputs: list[Any] = ["a", ["a", "b"], [[1, 2], [3]], [1, 2]]
        got = [
            await ask(mock.port, wire({"model": "e", "input": item}, path="/v1/embeddings"))
            for item in inputs
        ]
        return [[item["embedding"] for item in json_of(one)["data"]] for one in got]

    alone, both, ids, flat = with_mock(use)
    assert alone[0] == both[0] != both[1]
    assert len(alone[0]) == 8
    assert math.hypot(*alone[0]) == pytest.approx(1)
    assert ids[0] == flat[0]
    coded = json_of(
        get(wire({"model": "e", "input": "a", "encoding_format": "base64"}, path="/v1/embeddings"))
    )
    assert len(base64.b64decode(coded["data"][0]["embedding"])) == 4 * 8


def test_the_openai_client_is_content() -> None:
    async def use(mock: MockServer) -> None:
        async with openai.AsyncOpenAI(
            base_url=mock.url, api_key="sk-test", max_retries=0
        ) as client:
            plain = await client.chat.completions.create(
                model="m", messages=[{"role": "user", "content": "hi"}]
            )
            stream = await client.chat.completions.create(
                model="m", messages=[{"role": "user", "content": "hi"}], stream=True
            )
            text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
            assert plain.choices[0].message.content == text
            assert [model.id async for model in client.models.list()] == ["one", "two"]
            vectors = await client.embeddings.create(model="e", input=["a", "b"])
            assert math.hypot(*vectors.data[1].embedding) == pytest.approx(1)
            with pytest.raises(openai.RateLimitError) as limited:
                await client.chat.completions.create(
                    model="fault-status-429-2", messages=[{"role": "user", "content": "hi"}]
                )
            assert limited.value.response.headers["retry-after"] == "2"
            with pytest.raises(openai.APIConnectionError):
                await client.chat.completions.create(
                    model="fault-reset", messages=[{"role": "user", "content": "hi"}]
                )

    with_mock(use, models=("one", "two"))


# Faults

Check = Callable[[RawReply], bool]


def ahead_s(got: RawReply) -> float:
    """Return how far ahead the date in Retry-After is."""
    return parsedate_to_datetime(got.headers["retry-after"]).timestamp() - time.time()


FAULT_ROWS: list[
    tuple[str, Check, Check]
] = [  # model, what a stream looks like, what a whole reply looks like
    (
        "fault-cut-4",
        lambda g: (len(g.texts), g.finishes, g.end) == (4, [], "closed"),
        lambda g: g.end == "closed" and 0 < len(g.body) < 300,
    ),
    (
        "fault-cut-0",
        lambda g: (len(g.events), g.texts, g.end) == (1, [], "closed"),
        lambda g: g.end == "closed",
    ),
    (
        "fault-cut-99",
        lambda g: (len(g.texts), g.finishes, g.end) == (12, [], "closed"),
        lambda g: g.end == "closed",
    ),
    (
        "fault-stall-5",
        lambda g: (len(g.texts), g.end) == (5, "open"),
        lambda g: g.end == "open" and 0 < len(g.body) < 300,
    ),
    (
        "fault-malformed-3",
        lambda g: (g.events.index("BROKEN"), len(g.texts), g.end) == (4, 11, "end"),
        lambda g: event(g.body.decode()) == "BROKEN",
    ),
    (
        "fault-status-503",
        lambda g: g.status == 503 and "retry-after" not in g.headers,
        lambda g: code_of(g) == "server_error",
    ),
    (
        "fault-status-429-2",
        lambda g: (g.status, g.headers["retry-after"]) == (429, "2"),
        lambda g: code_of(g) == "rate_limit_exceeded",
    ),
    ("fault-status-401", lambda g: g.status == 401, lambda g: code_of(g) == "invalid_api_key"),
    (
        "fault-slow-0.12",
        lambda g: 0.12 <= (g.first_s or 0) < 1 and len(g.texts) == 12,
        lambda g: 0.12 <= (g.first_s or 0) < 1,
    ),
    (
        "fault-drip-0",
        lambda g: {len(p) for p in g.pieces} == {1} and len(g.texts) == 12,
        lambda g: len(json_of(g)["choices"]) == 1,
    ),
    (
        "fault-nodone",
        lambda g: (
            (len(g.texts), g.finishes, g.end, "DONE" in g.events) == (12, ["stop"], "end", False)
        ),
        lambda g: g.status == 200,
    ),
    (
        "fault-empty",
        lambda g: (g.status, g.body, g.end) == (200, b"", "end"),
        lambda g: (g.status, g.body, g.end) == (200, b"", "end"),
    ),
    (
        "fault-html",
        lambda g: g.status == 200 and b"<html>" in g.body,
        lambda g: g.headers["content-type"].startswith("text/html"),
    ),
    (
        "fault-error200",
        lambda g: g.status == 200 and code_of(g) == "server_error",
        lambda g: g.status == 200 and code_of(g) == "server_error",
    ),
    (
        "fault-errorevent-4",
        lambda g: (
            (len(g.texts), list(g.events[-1]), g.finishes, g.end) == (4, ["error"], [], "end")
        ),
        lambda g: g.status == 500,
    ),
    ("fault-down", lambda g: g.status == 503, lambda g: code_of(g) == "server_error"),
    (
        "fault-limit-0",
        lambda g: (g.status, g.headers["retry-after"]) == (429, "1"),
        lambda g: g.status == 429,
    ),
    ("fault-limit-1", lambda g: len(g.texts) == 12, lambda g: g.status == 200),
    (
        "fault-policy",
        lambda g: (g.status, code_of(g)) == (400, "content_policy_violation"),
        lambda g: g.status == 400,
    ),
    ("fault-statusdate-429-60", lambda g: 58 < ahead_s(g) <= 61, lambda g: g.status == 429),
    (
        "fault-cutat-300",
        lambda g: (len(g.body), g.end) == (300, "closed"),
        lambda g: (len(g.body), g.end) == (300, "closed"),
    ),
    (
        "fault-cutat-0",
        lambda g: (g.status, g.body, g.end) == (200, b"", "closed"),
        lambda g: (g.body, g.end) == (b"", "closed"),
    ),
    (
        "fault-cutat-99999",
        lambda g: (g.events[-1], g.end) == ("DONE", "closed"),
        lambda g: g.end == "end",
    ),
    (
        "fault-cutany",
        lambda g: g.end == "closed" and b"[DONE]\n\n" not in g.body,
        lambda g: g.end == "closed",
    ),
    (
        "fault-cutchar-2",
        lambda g: (g.body.count(b'"content":') > 2, g.end) == (True, "closed"),
        lambda g: g.end == "closed",
    ),
    (
        "fault-cutend",
        lambda g: (
            (len(g.texts), g.finishes, g.end, "DONE" in g.events) == (12, ["stop"], "closed", False)
        ),
        lambda g: (
            g.end == "closed" and event(g.body.decode() + "}")["usage"]["completion_tokens"] == 12
        ),
    ),
    (
        "fault-badfinish",
        lambda g: (len(g.texts), g.finishes, g.events[-1]) == (12, ["error"], "DONE"),
        lambda g: json_of(g)["choices"][0]["finish_reason"] == "error",
    ),
    (
        "fault-nofinish",
        lambda g: (len(g.texts), g.finishes, g.events[-1]) == (12, [], "DONE"),
        lambda g: json_of(g)["choices"][0]["finish_reason"] is None,
    ),
    (
        "fault-split-1",
        lambda g: {len(p) for p in g.pieces} == {1} and len(g.texts) == 12,
        lambda g: len(json_of(g)["choices"]) == 1,
    ),
    (
        "fault-hang",
        lambda g: (g.status, g.end) == (0, "open"),
        lambda g: (g.status, g.end) == (0, "open"),
    ),
    (
        "fault-reset",
        lambda g: (g.status, g.end) == (0, "reset"),
        lambda g: (g.status, g.end) == (0, "reset"),
    ),
    (
        "fault-redirect",
        lambda g: (g.status, ".invalid/" in g.headers["location"]) == (307, True),
        lambda g: g.status == 307,
    ),
    (
        "fault-context",
        lambda g: (g.status, code_of(g)) == (400, "context_length_exceeded"),
        lambda g: g.status == 400,
    ),
    (
        "fault-filter",
        lambda g: g.finishes == ["content_filter"],
        lambda g: json_of(g)["choices"][0]["finish_reason"] == "content_filter",
    ),
    (
        "fault-split",
        lambda g: max(map(len, g.pieces)) <= 7 and len(g.texts) == 12,
        lambda g: len(json_of(g)["choices"]) == 1,
    ),
    (
        "fault-packed",
        lambda g: len(g.pieces) == 4 and len(g.texts) == 12,
        lambda g: len(json_of(g)["choices"]) == 1,
    ),
    (
        "fault-nousage",
        lambda g: b'"usage"' not in g.body and len(g.texts) == 12,
        lambda g: "usage" not in json_of(g),
    ),
    (
        "fault-wrongmodel",
        lambda g: g.events[0]["model"] == "another-model",
        lambda g: json_of(g)["model"] == "another-model",
    ),
    (
        "fault-inject",
        lambda g: "<script>" in "".join(g.texts),
        lambda g: b"](javascript:" in g.body and b"![x](http://evil.invalid" in g.body,
    ),
    ("fault-flap-60", lambda g: (g.status, len(g.texts)) == (200, 12), lambda g: g.status == 200),
    (
        "fault-say-7",
        lambda g: len(g.texts) == 7,
        lambda g: json_of(g)["usage"]["completion_tokens"] == 7,
    ),
    (
        "say-70",
        lambda g: len(g.texts) == 70,
        lambda g: json_of(g)["usage"]["completion_tokens"] == 70,
    ),
    (
        "fault-lies-1",
        lambda g: max(map(len, g.texts)) <= 5,
        lambda g: "[" in json_of(g)["choices"][0]["message"]["content"],
    ),
    (
        "echo",
        lambda g: "".join(g.texts) == "hello  you",
        lambda g: json_of(g)["choices"][0]["message"]["content"] == "hello  you",
    ),
]


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize(
    ("model", "streamed", "whole"), FAULT_ROWS, ids=[row[0] for row in FAULT_ROWS]
)
def test_fault(model: str, streamed: Check, whole: Check, stream: bool) -> None:
    got = get(
        chat(model, "hello  you", stream=stream, stream_options={"include_usage": True}),
        patience_s=0.6 if "stall" in model or "hang" in model else PATIENCE_S,
    )
    assert (streamed if stream else whole)(got), got


def test_every_fault_has_a_row_and_a_meaning() -> None:
    assert {parse_fault(model).name for model, *_ in FAULT_ROWS} == set(FAULTS) - {
        "refuse"
    }  # which no call has alone
    assert all(meaning.startswith(name) and "\n" not in meaning for name, meaning in FAULTS.items())


def test_split_cuts_inside_characters() -> None:
    got = get(chat("fault-split", stream=True), text="数据 🚢 " * 12)
    assert "".join(got.texts) == "数据 🚢 " * 12
    assert any(
        piece[0] & 0b1100_0000 == 0b1000_0000 for piece in got.pieces
    )  # begins in the middle of one


def test_drip_keeps_its_pace() -> None:
    async def use(mock: MockServer) -> float:
        await ask(mock.port, wire(chat("fault-drip-2")))
        sent = mock.requests[-1].sent
        pace_s = (sent[-1] - sent[0]) / (len(sent) - 1)
        assert pace_s >= 0.0019
        return pace_s

    assert comes_below(0.003, lambda: with_mock(use, text=""))
    assert parse_fault("drip").args == (5,)


def test_flap_alternates_by_the_servers_clock() -> None:
    async def use(mock: MockServer) -> list[int]:
        statuses = list[int]()
        while len(statuses) < 3:
            status = (await ask(mock.port, wire(chat("fault-flap-0.3")))).status
            statuses += [status] if [status] != statuses[-1:] else []
            await asyncio.sleep(0.02)
        return statuses

    assert with_mock(use, ttft_s=0.0, tpot_s=0.0) == [200, 503, 200]


def test_embeddings_fail_by_model_too() -> None:
    assert (
        get(wire({"model": "fault-status-500", "input": "a"}, path="/v1/embeddings")).status == 500
    )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("stal-5", "Did you mean 'stall'?"),
        ("fault-zzzz", "Known faults: badfinish, context, cut, cutany"),
        ("cut-5-6", "too many arguments"),
        ("status-200", "between 400 and 599"),
        ("", "no fault ''"),
    ],
)
def test_an_unknown_fault_is_refused_with_the_known_ones(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)):
        parse_fault(text)
    with pytest.raises(ValueError, match=re.escape(says)):
        MockServer(settings(script=(text,)))


def test_an_unknown_fault_as_a_model_is_not_found() -> None:
    got = get(chat("fault-stal-5"))
    assert (got.status, code_of(got)) == (404, "model_not_found")
    assert "Did you mean 'stall'?" in json_of(got)["error"]["message"]


def test_faults_add_up() -> None:
    got = get(chat("fault-cut-3", stream=True), script=("split", "slow-0.1", "wrongmodel@1"))
    assert (len(got.texts), got.end, got.events[0]["model"]) == (3, "closed", "another-model")
    assert max(map(len, got.pieces)) <= 7
    assert (got.first_s or 0) >= 0.1


# HTTP


@pytest.mark.parametrize(
    ("request_", "status", "code"),
    [
        (wire(b"{not json"), 400, "bad_request"),
        (wire(b"[" * 200_000), 400, "bad_request"),
        (wire(b"\xff\xfe"), 400, "bad_request"),
        (wire(b""), 400, "bad_request"),
        (wire([]), 400, "bad_request"),
        (wire({"messages": []}), 400, "bad_request"),
        (wire(chat(n=9)), 400, "bad_request"),
        (wire(chat(max_tokens=0)), 400, "bad_request"),
        (wire({}, path="/v1/nowhere"), 404, "not_found"),
        (wire({}, path="/v1/models"), 404, "not_found"),
        (b"this is not http\r\n\r\n", 400, "bad_request"),
        (b"CONNECT evil.invalid:443 HTTP/1.1\r\nHost: x\r\n\r\n", 400, "bad_request"),
    ],
)
def test_invalid_requests_get_an_openai_error(request_: bytes, status: int, code: str) -> None:
    got = get(request_)
    assert (got.status, code_of(got)) == (status, code)
    assert json_of(got)["error"]["message"]


def test_an_error_names_the_field() -> None:
    assert json_of(get(chat(n=9)))["error"]["param"] == "n"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ("", 401),
        ("Authorization: Bearer wrong\r\n", 401),
        ("Authorization: Bearer sk-right\r\n", 200),
        ("api-key: sk-right\r\n", 200),
    ],
)
def test_a_key_is_asked_for_where_one_is_set(headers: str, status: int) -> None:
    assert get(wire(chat(), headers=headers), api_key="sk-right").status == status


def test_health_needs_no_key_and_paths_need_only_end_right() -> None:
    async def use(mock: MockServer) -> list[int]:
        paths = ["/healthz", "/v1/models", "/openai/deployments/x/models?api-version=1"]
        return [
            (
                await ask(mock.port, wire(b"", path=path, method="GET", headers="api-key: k\r\n"))
            ).status
            for path in paths
        ]

    assert with_mock(use, api_key="k") == [200, 200, 200]
    assert get(wire(b"", path="/healthz", method="GET"), api_key="k").status == 200


def test_pipelined_requests_are_answered_in_turn_on_one_connection() -> None:
    async def use(mock: MockServer) -> list[RawReply]:
        reader, writer = await asyncio.open_connection("127.0.0.1", mock.port)
        requests = [chat("a", stream=True), chat("b"), chat("c", stream=True)]
        writer.write(b"".join(map(wire, requests)))
        got = [await read(reader, 0) for _ in requests]
        writer.transport.abort()
        return got

    one, two, three = with_mock(use)
    assert [one.events[0]["model"], json_of(two)["model"], three.events[0]["model"]] == [
        "a",
        "b",
        "c",
    ]
    assert [len(one.texts), len(three.texts)] == [12, 12]


def test_chunked_bodies_slow_bodies_and_expect() -> None:
    async def use(mock: MockServer) -> tuple[RawReply, bytes]:
        data = json.dumps(chat("echo", "chunked")).encode()
        reader, writer = await asyncio.open_connection("127.0.0.1", mock.port)
        writer.write(
            f"POST {CHAT} HTTP/1.1\r\nHost: mock\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n".encode()
        )
        interim = await reader.readuntil(b"\r\n\r\n")
        for at in range(0, len(data), 9):
            part = data[at : at + 9]
            writer.write(b"%x\r\n%b\r\n" % (len(part), part))
            await asyncio.sleep(0)
        writer.write(b"0\r\n\r\n")
        got = await read(reader, 0)
        writer.transport.abort()
        return got, interim

    got, interim = with_mock(use)
    assert interim.startswith(b"HTTP/1.1 100 ")
    assert json_of(got)["choices"][0]["message"]["content"] == "chunked"


def test_an_upgrade_is_declined_by_answering() -> None:
    assert get(wire(chat(), headers="Connection: Upgrade\r\nUpgrade: h2c\r\n")).status == 200


def test_http_1_0_gets_an_unframed_body_and_the_end_of_the_connection() -> None:
    got = get(wire(chat(stream=True), version="1.0"))
    assert "transfer-encoding" not in got.headers
    assert (len(got.texts), got.events[-1]) == (12, "DONE")


def test_head_has_no_body() -> None:
    async def use(mock: MockServer) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", mock.port)
        writer.write(wire(b"", path="/healthz", method="HEAD", headers="Connection: close\r\n"))
        got = await reader.read()
        writer.transport.abort()
        return got

    assert with_mock(use).endswith(b"\r\n\r\n")


def test_bodies_may_be_big_but_not_endless() -> None:
    async def use(mock: MockServer) -> list[int]:
        async with plain_http.AsyncClient(timeout=20) as client:
            big = await client.post(
                f"{mock.url}/chat/completions", json=chat("say-1", "x" * (20 << 20))
            )
        too_big = (
            f"POST {CHAT} HTTP/1.1\r\nHost: mock\r\nContent-Length: {70 << 20}\r\n\r\n".encode()
        )
        return [big.status_code, (await ask(mock.port, too_big, patience_s=PATIENCE_S)).status]

    assert with_mock(use) == [200, 413]


# What was seen


def test_received_requests_can_be_inspected_from_another_process() -> None:
    async def use(mock: MockServer) -> list[dict[str, Any]]:
        await ask(
            mock.port,
            wire(chat("m", "hi"), headers="Authorization: Bearer sk-secret-1234\r\nX-Trace: 7\r\n"),
        )
        listed: list[dict[str, Any]] = json_of(
            await ask(mock.port, wire(b"", path="/requests", method="GET"))
        )
        assert mock.requests[0].headers["authorization"] == "Bearer sk-secret-1234"
        return listed

    (seen,) = with_mock(use)
    assert (seen["method"], seen["path"], seen["body"]) == ("POST", CHAT, chat("m", "hi"))
    assert (seen["headers"]["authorization"], seen["headers"]["x-trace"]) == ("…1234", "7")
    assert (seen["closed_early"], seen["closed_after_s"], seen["chunks"]) == (False, None, 1)
    assert 0 <= seen["age_s"] < PATIENCE_S


def test_a_client_that_leaves_is_noticed_with_the_time() -> None:
    async def use(mock: MockServer) -> tuple[dict[str, Any], int, float | None]:
        reader, writer = await asyncio.open_connection("127.0.0.1", mock.port)
        writer.write(wire(chat("say-500", stream=True)))
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.abort()
        await until_async(lambda: mock.requests[0].closed_at)
        sent = len(mock.requests[0].sent)
        (listed,) = json_of(await ask(mock.port, wire(b"", path="/requests", method="GET")))
        assert len(mock.requests[0].sent) == sent  # it stopped writing
        return listed, sent, mock.requests[0].closed_at

    listed, sent, closed_at = with_mock(use, tpot_s=0.005)
    assert 0 < sent < 500
    assert listed["closed_early"] is True
    assert 0 < listed["closed_after_s"] < 2.5  # all 500 would take that long
    assert closed_at is not None


@pytest.mark.parametrize("model", ["m", "fault-cut-3", "fault-reset"])
def test_an_end_of_the_mocks_own_making_is_not_the_clients(model: str) -> None:
    async def use(mock: MockServer) -> float | None:
        await ask(mock.port, wire(chat(model, stream=True)))
        await asyncio.sleep(0.01)
        return mock.requests[0].closed_at

    assert with_mock(use) is None


def test_a_slow_reader_is_waited_for_and_gets_everything() -> None:
    async def use(mock: MockServer) -> tuple[int, RawReply]:
        reader, writer = await asyncio.open_connection("127.0.0.1", mock.port, limit=4096)
        writer.write(wire(chat(stream=True)))
        await asyncio.sleep(0.2)
        sent = len(mock.requests[0].sent)
        got = await read(reader, 0)
        writer.transport.abort()
        return sent, got

    text = f"{'y' * 20_000} " * 600
    sent, got = with_mock(use, ttft_s=0.0, tpot_s=0.0, text=text)
    assert 0 < sent < 600
    assert ("".join(got.texts) == text, got.events[-1]) == (True, "DONE")


# Start and end


def test_a_port_in_use_is_an_os_error_and_closing_frees_it() -> None:
    async def use(mock: MockServer) -> None:
        with pytest.raises(OSError, match=r"in use"):
            await MockServer(settings(port=mock.port)).start()
        await mock.close()
        async with MockServer(settings(port=mock.port)) as again:
            assert again.url == f"http://127.0.0.1:{mock.port}/v1"

    with_mock(use)


def test_closing_drops_replies_in_progress() -> None:
    async def use(mock: MockServer) -> RawReply:
        asked = asyncio.create_task(ask(mock.port, wire(chat("fault-hang")), patience_s=PATIENCE_S))
        await asyncio.sleep(0.05)
        await mock.close()
        return await asked

    assert with_mock(use).end in {"closed", "reset"}


def test_serve_runs_until_sigterm() -> None:
    async def run() -> int:
        started: asyncio.Future[MockServer] = asyncio.get_running_loop().create_future()
        served = asyncio.create_task(serve(settings(), ready=started.set_result))
        status = (await ask((await started).port, wire(b"", path="/healthz", method="GET"))).status
        os.kill(os.getpid(), signal.SIGTERM)
        async with asyncio.timeout(PATIENCE_S):
            await served
        return status

    assert asyncio.run(run()) == 200


# TLS


def test_tls_with_a_certificate_of_ones_own(certificate: tuple[Path, Path]) -> None:
    async def use(mock: MockServer) -> list[str]:
        url, body = f"{mock.url}/chat/completions", chat(stream=True)
        assert url.startswith("https://127.0.0.1:")
        ends = []
        async with (
            plain_http.AsyncClient(
                verify=ssl.create_default_context(cafile=str(certificate[0]))
            ) as trusting,
            plain_http.AsyncClient() as wary,
        ):
            assert (await trusting.post(url, json=body)).text.endswith("data: [DONE]\n\n")
            with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
                await wary.post(url, json=body)
            for fault in ("fault-cut-3", "fault-reset"):
                with pytest.raises(httpx.TransportError) as ended:
                    await trusting.post(url, json=chat(fault, stream=True))
                ends.append(type(ended.value).__name__)
            mock.script("refuse")
            with pytest.raises(httpx.ConnectError):
                await trusting.post(url, json=body)
            mock.script()
            assert (await trusting.post(url, json=body)).status_code == 200
        return ends

    assert with_mock(use, tls_cert=certificate[0], tls_key=certificate[1]) == [
        "RemoteProtocolError",
        "ReadError",
    ]


def test_tls_needs_a_certificate_and_its_key(
    certificate: tuple[Path, Path], tmp_path: Path
) -> None:
    cert, key = certificate
    with pytest.raises(ValueError, match="needs both"):
        MockServer(settings(tls_cert=cert))
    for wrong in (
        {"tls_cert": key, "tls_key": cert},
        {"tls_cert": cert, "tls_key": tmp_path / "none.pem"},
    ):
        with pytest.raises(ValueError, match=r"no certificate \(tls_cert\) with its key"):
            MockServer(settings(**wrong))


# The command


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--script", "cut-5@soon"], "slipway: Script entry 'cut-5@soon': after @ write a call"),
        (["--script", "refuse@3"], "refuse applies to the whole server, so give it a time"),
        (
            ["--tls-cert", "cert.pem"],
            "slipway: TLS needs both a certificate (tls_cert) and its key (tls_key).",
        ),
        (["--port", "99999"], "99999 is not in the range 0<=x<=65535"),
        (["--tokens", "0"], "0 is not in the range x>=1"),
        (["--ttft", "-1"], "-1.0 is not in the range x>=0"),
        (
            ["--continues", "always"],
            "'always' is not one of 'exact', 'repeat', 'restart', 'preface', 'space'",
        ),
    ],
)
def test_the_command_explains_mistakes(args: list[str], says: str) -> None:
    done = run("mock", *args)
    assert (done.returncode, says in done.stderr) == (2, True), done.stderr


def test_the_command_takes_each_habit_of_going_on() -> None:
    (option,) = (param for param in mock_command.params if param.name == "continues")
    assert isinstance(option.type, click.Choice)
    assert tuple(option.type.choices) == tuple(CONTINUES)


def test_the_command_steered_from_outside(certificate: tuple[Path, Path]) -> None:
    cert, key = map(str, certificate)
    more = ("--bad-key", "sk-bad", "--continues", "restart", "--tls-cert", cert, "--tls-key", key)
    process = subprocess.Popen(
        [*COMMAND, "mock", "--port", "0", "--ttft", "0", "--tpot", "0", *more],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        url = (process.stdout.readline() if process.stdout else "").split()[-1]
        with plain_http.Client(
            base_url=url, verify=ssl.create_default_context(cafile=cert)
        ) as client:
            truth = client.post("/truth", json=chat()).json()["text"]
            body = chat()
            body["messages"].append({"role": "assistant", "content": truth[:30]})
            assert (
                client.post("/chat/completions", json=body).json()["choices"][0]["message"][
                    "content"
                ]
                == truth
            )
            assert (
                client.post(
                    "/chat/completions", json=body, headers={"Authorization": "Bearer sk-bad"}
                ).status_code
                == 401
            )
            assert client.put("/script", json=["status-503@1", "down@1h"]).json() == [
                "status-503@1",
                "down@1h",
            ]
            assert [
                client.post("/chat/completions", json=chat()).status_code for _ in range(2)
            ] == [503, 200]
    finally:
        process.terminate()
        process.communicate(timeout=10)
