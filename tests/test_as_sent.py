"""Providers as they are: what real ones send beside the standard, one test for each report."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from behaviours import Behaviour, Upstream, good, head_of, running
from processes import Serving, mocking, serving

TWIN = "The twin answers."
STREAM = [("Content-Type", "text/event-stream")]
TIMES = {"connect": "2s", "first_byte": "3s", "between_bytes": "1s", "first_token": "3s"}
Reply = Callable[[bool], Behaviour]  # is it asked for a stream -> what it gets


class AsSent(Upstream):
    """Answers each model's name by its row. `calls` counts prompts, by model."""

    def __init__(
        self, replies: dict[str, Reply], listings: dict[str, Behaviour] | None = None
    ) -> None:
        super().__init__("")
        self.replies, self.listings = replies, listings or {}
        self.calls = Counter[tuple[str, str]]()

    def behaviour(self, request: dict[str, Any], path: str) -> Behaviour:
        model, asked = request["model"], str(request["messages"][0]["content"])
        self.calls[model, asked] += 1
        if asked == "plain":
            return good(self.GOOD, streamed=bool(request.get("stream")))
        return self.replies[model](bool(request.get("stream")))

    def listing(self, path: str) -> Behaviour:
        return self.listings.get(path.split("/")[1], super().listing(path))


def events(*datas: bytes, pause_s: float = 0.0, end: str = "close") -> Reply:
    """A stream with these data, whatever was requested; each event after a pause."""
    writes = [(0.0, head_of(200, STREAM)), *((pause_s, b"data: %b\n\n" % data) for data in datas)]
    return lambda _: Behaviour("events", None, tuple(writes), end)


def whole(body: bytes, status: int = 200, *headers: tuple[str, str]) -> Reply:
    head = head_of(status, [("Content-Length", str(len(body))), *headers])
    return lambda _: Behaviour("whole", None, ((0.0, head + body),), "keep")


def form(streamed: Reply, not_streamed: Reply) -> Reply:
    return lambda is_stream: (streamed if is_stream else not_streamed)(is_stream)


def chunk(delta: str, finish: str = "null", more: str = "") -> bytes:
    return f'{{"choices":[{{"index":0,"delta":{delta},"finish_reason":{finish}}}]{more}}}'.encode()


def said(text: str, finish: str = "null", more: str = "") -> bytes:
    return chunk(json.dumps({"content": text}), finish, more)


def completion(text: str, more: str = "", finish: str = '"stop"') -> bytes:
    message = json.dumps({"role": "assistant", "content": text})
    return (
        f'{{"choices":[{{"index":0,"message":{message},"finish_reason":{finish}}}]{more}}}'.encode()
    )


def call_part(index: int, fields: str) -> bytes:
    """A chunk of one tool call."""
    part = f'{{"tool_calls":[{{"index":{index},{fields}}}]}}'
    return chunk(part, more=',"id":"c","created":1,"model":"m"')


DONE = b"[DONE]"
THOUGHT = "Let me think about this. " * 20
LONG_THOUGHT = (THOUGHT * 2000).encode()
END = said("", '"stop"')


def odd(more: str) -> Reply:
    return form(events(said("Hi", more=more), END, DONE), whole(completion("Hi", more)))


def odd_bytes(more: bytes) -> Reply:
    stream = said("Hi")[:-1] + b"," + more + b"}"
    return form(events(stream, END, DONE), whole(completion("Hi")[:-1] + b"," + more + b"}"))


def slowly(start: bytes) -> Reply:
    """What was not requested, a stream or a completion; its first bytes arrive one by one."""
    stream = b"".join(b"data: %b\n\n" % data for data in (said("Hi"), END, DONE))

    def writes(body: bytes) -> tuple[tuple[float, bytes], ...]:
        head = head_of(200, [("Content-Length", str(len(body)))])
        return ((0.0, head), *((0.01, body[at : at + 1]) for at in range(12)), (0.01, body[12:]))

    return lambda is_stream: Behaviour(
        "slowly", None, writes(start + (completion("Hi") if is_stream else stream)), "keep"
    )


ODD: dict[str, Reply] = {
    "first-bytes-alone": slowly(b""),
    "byte-order-mark-in-parts": slowly(b"\xef\xbb\xbf"),
    "white-space-in-parts": slowly(b"\n \n"),
    "bytes-not-utf8": odd_bytes(b'"note":"\xc4\xe3\xba\xc3"'),
    "half-surrogate": odd_bytes(b'"note":"\\ud83d"'),
    "minus-infinity": odd_bytes(b'"x":-Infinity'),
    "nan": odd_bytes(b'"x":NaN'),
    "long-integer": odd_bytes(b'"x":' + b"9" * 5000),
    "error-empty": odd(',"error":""'),
    "error-null": odd(',"error":null'),
    "usage-text": odd(',"usage":"12 tokens"'),
    "usage-float": odd(',"usage":3.5'),
    "usage-list": odd(',"usage":[1,2]'),
    "usage-counts": odd(
        ',"usage":{"prompt_tokens":"3","completion_tokens":2.0,"prompt_tokens_details":[]}'
    ),
    "usage-negative": odd(',"usage":{"prompt_tokens":-3}'),
    "data-null": form(events(b"null", said("Hi"), END, DONE), whole(completion("Hi"))),
    "data-ping": form(events(b"ping", said("Hi"), b"", END, DONE), whole(completion("Hi"))),
    "two-lines": form(
        events(said("H") + b"\ndata: " + said("i"), END + b"\ndata: [DONE]"),
        whole(completion("Hi")),
    ),
    "one-line-ends": form(
        lambda _: Behaviour(
            "cr",
            None,
            ((0.0, head_of(200, STREAM) + b"data:%b\r\rdata:%b\r\r" % (said("Hi"), END)),),
        ),
        whole(b"\xef\xbb\xbf" + completion("Hi")),
    ),
    "content-parts": form(
        events(chunk('{"content":[{"type":"text","text":"Hi"}]}'), END, DONE),
        whole(completion("Hi")),
    ),
    "index-counts": form(
        events(said("H"), said("i").replace(b'"index":0', b'"index":1'), END, DONE),
        whole(completion("Hi")),
    ),
    "no-done": form(events(said("Hi"), END), whole(completion("Hi"))),
    "done-without-blank-line": form(
        lambda _: Behaviour(
            "",
            None,
            (
                (
                    0.0,
                    head_of(200, STREAM)
                    + b"data: %b\n\ndata: %b\n\ndata: [DONE]" % (said("Hi"), END),
                ),
            ),
        ),
        whole(completion("Hi")),
    ),
    "done-two-spaces": form(events(said("Hi"), END, b" [DONE]"), whole(completion("Hi"))),
    "finish-empty-in-every-chunk": form(
        events(said("H", '""'), said("i", '""'), END, DONE), whole(completion("Hi"))
    ),
    "finish-null-in-every-chunk": form(
        events(said("H", '"null"'), said("i", '"null"'), END, DONE), whole(completion("Hi"))
    ),
    "json-where-a-stream-was-requested": whole(
        completion("Hi"), 200, ("Content-Type", "application/json")
    ),
    "stream-where-none-was-requested": events(said("H"), said("i", '"stop"'), DONE),
    "halves-in-two-chunks": form(
        events(chunk('{"content":"H\\ud83d"}'), chunk('{"content":"\\udea2i"}'), END, DONE),
        whole(completion("H🚢i")),
    ),
}
NO_END: dict[str, Reply] = {
    "finish-empty": form(events(said("Hi", '""'), DONE), whole(completion("Hi", finish='""'))),
    "finish-word-null": form(
        events(said("Hi", '"null"'), DONE), whole(completion("Hi", finish='"null"'))
    ),
    "no-finish-clean-close": form(events(said("Hi")), whole(completion("Hi", finish="null"))),
}
WORDS = {
    "reasoning": '{"reasoning":"Let me think."}',
    "reasoning-content": '{"reasoning_content":"Let me think."}',
    "refusal": '{"refusal":"I cannot say."}',
    "function-call": '{"function_call":{"name":"f","arguments":""}}',
    "tool-call": '{"tool_calls":[{"index":0,"function":{"name":"f","arguments":""}}]}',
}
ERRORS_IN_200 = {
    "moderation": (
        b'{"error":{"message":"blocked","code":"content_filter"}}',
        400,
        "content_filter",
    ),
    "moderation-403": (
        b'{"error":{"message":"Your input was flagged by moderation","code":403}}',
        403,
        "content_policy",
    ),
    "too-long": (
        b'{"error":{"message":"maximum context length is 10 tokens"}}',
        400,
        "context_length_exceeded",
    ),
    "limit": (
        b'{"error":{"message":"slow down","type":"rate_limit_error"}}',
        429,
        "provider_limit",
    ),
    "limit-number": (b'{"error":{"message":"slow down","code":429}}', 429, "provider_limit"),
    "key": (b'{"error":{"message":"bad","type":"authentication_error"}}', 502, "provider_key"),
    "overloaded": (b'{"error":{"message":"busy","type":"overloaded_error"}}', 502, "provider_down"),
    "plain": (b'{"error":"out of memory"}', 502, "provider_down"),
    "object": (b'{"object":"error","message":"no such thing","code":400}', 400, "provider_refused"),
}
# Streams where none was requested: the parts of tool calls and log probabilities
MERGED = {
    "empty-ids": (
        b'{"id":"","created":0,"model":"","choices":[],"prompt_filter_results":[]}',
        call_part(0, '"id":"call_1","type":"function","function":{"name":"f","arguments":""}'),
        call_part(0, '"id":"","type":"","function":{"arguments":"{\\"a\\":"}'),
        call_part(0, '"id":"","function":{"name":"","arguments":"1}"}'),
    ),
    "calls-from-1": (
        call_part(2, '"id":"call_2","function":{"name":"g","arguments":""}'),
        call_part(1, '"id":"call_1","function":{"name":"f","arguments":"{}"}'),
        call_part(2, '"function":{"arguments":"[]"}'),
    ),
    "calls-with-one-index": (
        call_part(0, '"id":"call_1","function":{"name":"f","arguments":"{}"}'),
        call_part(0, '"id":"call_2","function":{"name":"g","arguments":"["}'),
        call_part(0, '"function":{"arguments":"]"}'),
    ),
    "logprobs": (
        b'{"choices":[{"index":0,"delta":{"content":"H"},"logprobs":{"content":[{"token":"H"}]}}]}',
        b'{"choices":[{"index":0,"delta":{"content":"i"},"logprobs":{"content":[{"token":"i"}]}}]}',
    ),
}
ELSEWHERE = (405, 409, 410, 413, 418, 421, 423, 424, 425, 451, 498, 499)
SHAPES = ("", "soon", "nan", "inf", "-1", "1e999", "Thu, 99 Foo 2026 99:99:99", "\xff", "9" * 400)


def rows() -> dict[str, Reply]:
    """All replies, by the name of the model that sends them."""
    found = {**ODD, **NO_END}
    for name, delta in WORDS.items():
        found[name] = events(chunk(delta), said("Hi"), END, DONE, pause_s=0.5)
    for name, (body, _, _) in ERRORS_IN_200.items():
        found[f"200-{name}"] = form(events(body), whole(body))
    for status in ELSEWHERE:
        found[f"status-{status}"] = whole(b'{"error":{"message":"no"}}', status)
    for number, shape in enumerate(SHAPES):
        found[f"retry-{number}"] = whole(b"{}", 429, ("Retry-After", shape))
    found["gbk"] = whole('{"error":{"message":"模型过载，请稍后"}}'.encode("gbk"), 500)
    found["retry-ms"] = whole(b"{}", 429, ("retry-after-ms", "5000"))
    found["reset-tokens"] = whole(
        b"{}",
        429,
        ("x-ratelimit-reset-requests", "1ms"),
        ("x-ratelimit-remaining-requests", "5"),
        ("x-ratelimit-reset-tokens", "1m3s"),
        ("x-ratelimit-remaining-tokens", "0"),
    )
    found["moderation-403"] = whole(b'{"error":{"message":"flagged by moderation"}}', 403)
    found["long-thought"] = form(
        events(*[chunk(f'{{"reasoning":"{THOUGHT}"}}')] * 2000, said("Hi"), END, DONE),
        whole(completion("Hi").replace(b'"content"', b'"reasoning":"%b","content"' % LONG_THOUGHT)),
    )
    found["two-choices"] = events(
        b'{"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":"stop"}]}',
        b'{"choices":[{"index":1,"delta":{"content":"b"},"finish_reason":null}]}',
        DONE,
    )
    for name, streams in MERGED.items():
        found[name] = events(*streams, chunk("{}", '"stop"'), DONE)
    found["comments-after-words"] = lambda _: Behaviour(
        "",
        None,
        ((0.0, head_of(200, STREAM) + b"data: %b\n\n" % said("Hi")),),
        "hold with comments",
    )
    found["half-a-tool-call"] = events(chunk(WORDS["tool-call"]))
    found["reset"] = lambda _: Behaviour("reset", None, (), "reset")
    return found


@pytest.fixture(scope="module")
def upstream() -> AsSent:
    return AsSent(rows())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, upstream: AsSent) -> Iterator[Serving]:
    """Each row as a model, and as the first of a route whose twin is well."""
    with running(upstream) as url, mocking(text=TWIN) as twin:
        models: dict[str, Any] = {"twin": {"base_url": twin.url, "name": "t"}}
        routes = {}
        for name in upstream.replies:
            settings = {"base_url": url, "name": name, "retries": 0, "connection": TIMES}
            models[name] = settings
            models[f"first.{name}"] = settings
            routes[f"route.{name}"] = [f"first.{name}", {"model": "twin", "role": "twin"}]
        models["reset"] = {**models["reset"], "retries": 2}
        settings = {"models": models, "routes": routes}
        with serving(tmp_path_factory.mktemp("as-sent"), settings=settings) as running_server:
            yield running_server


def text_of(reply: httpx.Response) -> str:
    """The text of a stream or of a completion, strictly read."""
    if not reply.headers["content-type"].startswith("text/event-stream"):
        return str(
            json.loads(reply.content.decode(), parse_constant=refuse)["choices"][0]["message"][
                "content"
            ]
        )
    text = ""
    for line in reply.content.decode().splitlines():
        if (
            line.startswith("data:")
            and line.strip() != "data: [DONE]"
            and line[5:].strip() != "[DONE]"
        ):
            value = json.loads(line[5:], parse_constant=refuse)
            for choice in value.get("choices", []):
                content = (choice.get("delta") or {}).get("content") or ""
                text += content if isinstance(content, str) else "".join(p["text"] for p in content)
    return text


def refuse(constant: str) -> None:
    raise ValueError(constant)


def code_of(reply: httpx.Response) -> str:
    """The code of an error, also of one in a stream."""
    if reply.headers["content-type"].startswith("text/event-stream"):
        lines = [line[5:] for line in reply.text.splitlines() if line.startswith("data:")]
        return next((json.loads(e)["error"]["code"] for e in lines if '"error":{' in e), "")
    return str(reply.json()["error"]["code"]) if reply.status_code != 200 else ""


@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize("name", ODD)
def test_what_is_odd_costs_no_answer(server: Serving, name: str, streamed: bool) -> None:
    reply = server.chat(name, stream=streamed)
    assert reply.status_code == 200, reply.text
    is_pair = name == "halves-in-two-chunks"
    assert text_of(reply) == ("H🚢i" if is_pair else "Hi"), reply.text
    if streamed:
        assert reply.text.rstrip().endswith("[DONE]")
        assert '"finish_reason":""' not in reply.text
        assert '"finish_reason":"null"' not in reply.text
    routed = server.chat(f"route.{name}", stream=streamed)
    assert routed.headers["x-slipway-model"] == f"first.{name}"


@pytest.mark.parametrize(
    ("name", "calls"),
    [
        ("empty-ids", [("call_1", "f", '{"a":1}')]),
        ("calls-from-1", [("call_1", "f", "{}"), ("call_2", "g", "[]")]),
        ("calls-with-one-index", [("call_1", "f", "{}"), ("call_2", "g", "[]")]),
    ],
)
def test_the_parts_of_tool_calls_are_joined(
    server: Serving, name: str, calls: list[tuple[str, str, str]]
) -> None:
    answer = server.chat(name).json()
    assert (answer["id"], answer["created"], answer["model"]) == ("c", 1, "m")
    found = answer["choices"][0]["message"]["tool_calls"]
    assert calls == sorted(
        (each["id"], each["function"]["name"], each["function"]["arguments"]) for each in found
    )
    assert not any("index" in each for each in found)


def test_the_log_probabilities_of_all_chunks_are_joined(server: Serving) -> None:
    choice = server.chat("logprobs").json()["choices"][0]
    assert choice["message"]["content"] == "Hi"
    assert [each["token"] for each in choice["logprobs"]["content"]] == ["H", "i"]


def test_what_cannot_be_read_is_counted(server: Serving) -> None:
    server.chat("usage-text")
    server.chat("data-ping", stream=True)
    metrics = server.get("/metrics").text
    for name in ("usage-text", "data-ping"):
        assert f'slipway_left_out_total{{model="{name}"' in metrics
    usage = server.chat("usage-counts").json()["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (3, 2)
    assert "usage" not in server.chat("usage-text").json()


@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize("name", NO_END)
def test_a_finish_reason_without_a_reason_is_no_end(
    server: Serving, name: str, streamed: bool
) -> None:
    reply = server.chat(name, stream=streamed)
    assert code_of(reply) == "provider_cut"
    assert "[DONE]" not in reply.text


def test_each_of_several_choices_must_end(server: Serving) -> None:
    reply = server.chat("two-choices", stream=True, n=2)
    assert code_of(reply) == "provider_cut"


@pytest.mark.parametrize("name", WORDS)
def test_thinking_refusals_and_calls_are_words(tmp_path: Path, name: str) -> None:
    """The first content comes after the limit for the first words."""
    delay = events(chunk(WORDS[name]), said("Hi"), END, DONE, pause_s=0.6)
    with running(AsSent({"m": delay})) as url, mocking(text=TWIN) as twin:
        times = {**TIMES, "first_token": "1s"}
        models = {
            "m": {"base_url": url, "connection": times},
            "twin": {"base_url": twin.url, "name": "t"},
        }
        with serving(
            tmp_path, settings={"models": models, "routes": {"r": ["m", "twin"]}}
        ) as server:
            reply = server.chat("r", stream=True)
            assert reply.headers["x-slipway-model"] == "m"
            assert text_of(reply) == "Hi"
            key = next(iter(json.loads(WORDS[name])))
            assert f'"{key}"' in reply.text


@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize("model", ["long-thought", "route.long-thought"])
def test_thinking_is_never_thrown_away_for_being_long(
    server: Serving, model: str, streamed: bool
) -> None:
    reply = server.chat(model, stream=streamed)
    assert text_of(reply) == "Hi"
    assert reply.text.count("Let me think") == LONG_THOUGHT.count(b"Let me think")
    assert reply.headers["x-slipway-model"].endswith("long-thought")


@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize("name", ERRORS_IN_200)
def test_an_error_in_a_200_is_classified(server: Serving, name: str, streamed: bool) -> None:
    _, status, code = ERRORS_IN_200[name]
    reply = server.chat(f"200-{name}", stream=streamed)
    if reply.status_code != 503 and "No model can be asked" not in reply.text:
        assert (reply.status_code, code_of(reply)) == (status, code)
    routed = server.chat(f"route.200-{name}", stream=streamed)
    is_returned = name in ("moderation", "moderation-403", "object")
    assert (routed.status_code == status) if is_returned else (text_of(routed) == TWIN)


@pytest.mark.parametrize("status", ELSEWHERE)
def test_what_may_be_fine_elsewhere_goes_on(server: Serving, status: int) -> None:
    assert server.chat(f"status-{status}").status_code == status
    assert text_of(server.chat(f"route.status-{status}")) == TWIN


def test_a_retry_after_of_any_shape_is_read(server: Serving) -> None:
    for number in range(len(SHAPES)):
        assert server.chat(f"retry-{number}").status_code == 429
        assert text_of(server.chat(f"route.retry-{number}")) == TWIN
    assert server.chat("retry-ms").headers["retry-after"] == "5"
    assert server.chat("reset-tokens").headers["retry-after"] == "63"


def test_an_error_that_is_not_utf8_fails_over(server: Serving) -> None:
    assert server.chat("gbk").status_code == 502
    assert text_of(server.chat("route.gbk")) == TWIN
    assert "Traceback" not in server.log


def test_moderation_with_403_is_no_bad_key(server: Serving) -> None:
    for _ in range(5):
        assert server.chat("moderation-403").status_code == 403
    assert server.get("/readyz").json()["health"]["moderation-403"]["state"] == "closed"


def test_comments_do_not_hide_a_stall(server: Serving) -> None:
    began = time.monotonic()
    reply = server.chat("comments-after-words", stream=True)
    assert code_of(reply) == "provider_slow"
    assert time.monotonic() - began < 10
    assert TWIN in text_of(server.chat("route.comments-after-words", stream=True))


def test_half_a_tool_call_is_never_followed_by_prose(server: Serving) -> None:
    reply = server.chat("route.half-a-tool-call", stream=True)
    assert code_of(reply) == "provider_cut"
    assert TWIN not in reply.text


def test_a_prompt_that_resets_is_sent_no_more_often_than_retries_allow(
    server: Serving, upstream: AsSent
) -> None:
    async def fill() -> None:
        async with httpx.AsyncClient(base_url=server.url, timeout=20) as client:
            body = {"model": "reset", "messages": [{"role": "user", "content": "plain"}]}
            await asyncio.gather(
                *(client.post("/v1/chat/completions", json=body) for _ in range(8))
            )

    asyncio.run(fill())  # eight connections are kept now
    assert server.chat("reset").status_code == 502
    assert upstream.calls["reset", "Hello"] <= 3
