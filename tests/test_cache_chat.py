"""Test kept answers of models and routes: when they serve, what they say, and what is not kept."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

import plain_http
from behaviours import Behaviour, head_of, running
from processes import Serving, serving
from test_as_sent import STREAM, AsSent, Reply, chunk, events, form, whole
from waiting import until

THOUGHT = '{"role":"assistant","reasoning_content":"Hm, ships."}'
TOOL = (
    '{"tool_calls":[{"index":0,"id":"c1","type":"function",'
    '"function":{"name":"f","arguments":"{\\"a\\":1}"}}]}'
)
USAGE = (
    b'{"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":5,"total_tokens":12,'
    b'"completion_tokens_details":{"reasoning_tokens":3}}}'
)
COMPLETION = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Ships float.", "annotations": []},
            "finish_reason": "stop",
        }
    ],
    "usage": {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12},
}


def completion(finish: str, **message: Any) -> bytes:
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": "Ships", **message},
        "finish_reason": finish,
    }
    return json.dumps({**COMPLETION, "choices": [choice]}).encode()


def cut(_: bool) -> Behaviour:
    return Behaviour("cut", None, ((0.0, head_of(200, STREAM)), (0.0, b"data: {")), "close")


def once(reply: Reply) -> Reply:
    """Answer the first call, and break off every later one."""
    calls = iter([reply])
    return lambda is_stream: next(calls, cut)(is_stream)


SAID = events(
    chunk(THOUGHT),
    chunk('{"content":"Ships float.","annotations":[{"a":1}]}'),
    chunk("{}", '"stop"'),
    USAGE,
    b"[DONE]",
)
REPLIES: dict[str, Reply] = {
    "plain": form(SAID, whole(json.dumps(COMPLETION).encode())),
    "warm": form(SAID, whole(json.dumps(COMPLETION).encode())),
    "streams": SAID,
    "tools": events(chunk(TOOL), chunk("{}", '"tool_calls"'), b"[DONE]"),
    "length": form(
        events(chunk('{"content":"a"}'), chunk("{}", '"length"'), b"[DONE]"),
        whole(completion("length")),
    ),
    "filtered": form(
        events(chunk('{"content":"a"}'), chunk("{}", '"content_filter"'), b"[DONE]"),
        whole(completion("content_filter")),
    ),
    "refused": form(
        events(chunk('{"refusal":"I cannot"}'), chunk("{}", '"stop"'), b"[DONE]"),
        whole(completion("stop", refusal="I cannot")),
    ),
    "empty": form(
        events(chunk('{"role":"assistant","content":""}'), chunk("{}", '"stop"'), b"[DONE]"),
        whole(completion("stop", content="")),
    ),
    "cut": cut,
    "once-streamed": once(SAID),
    "once-whole": once(whole(json.dumps(COMPLETION).encode())),
}
OLD = {"exact": "1ms", "stale_on_error": "1h"}
PRICE = {"input": 1, "output": 2}


class Kept:
    def __init__(self, server: Serving, upstream: AsSent) -> None:
        self.server, self.upstream = server, upstream

    def ask(
        self, model: str, text: str, *, cache: str | None = None, key: str = "", **more: Any
    ) -> httpx.Response:
        body = {"model": model, "messages": [{"role": "user", "content": text}], **more}
        headers = {"authorization": f"Bearer {key or 'sw-red-key'}"}
        if cache is not None:
            headers["x-slipway-cache"] = cache
        return self.server.post("/v1/chat/completions", body, headers=headers)

    def calls(self, model: str, text: str) -> int:
        return self.upstream.calls[model, text]


def state(reply: httpx.Response) -> str | None:
    found: str | None = reply.headers.get("x-slipway-cache")
    return found


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kept]:
    upstream = AsSent(REPLIES)
    with running(upstream) as url:
        models = {
            name: {"base_url": url, "retries": 0, "price": PRICE, "cache": "1h"}
            for name in REPLIES
            if name != "warm"
        }
        models |= {name: {**models[name], "cache": OLD} for name in models if "once" in name}
        for variant in ("a", "b"):
            models[f"plain-{variant}"] = {
                **models["plain"],
                "name": "plain",
                "headers": {"X-Config": variant},
            }
        settings = {
            "cache": {"exact": "1h"},
            "keys": [
                {"key": "sw-red-key", "tenant": "red"},
                {"key": "sw-red-other", "tenant": "red"},
                {"key": "sw-blue-key", "tenant": "blue"},
            ],
            "models": {**models, "warm": {"base_url": url}},
            "routes": {"both": ["plain", "streams"]},
        }
        with serving(tmp_path_factory.mktemp("kept"), settings=settings) as server:
            yield Kept(server, upstream)


def test_the_same_question_is_answered_once(kept: Kept) -> None:
    first, second = kept.ask("plain", "once"), kept.ask("plain", "once", key="sw-red-other")
    assert kept.calls("plain", "once") == 1
    assert (state(first), state(second)) == ("miss", "hit")
    assert first.json() == second.json()
    assert second.headers["age"] == "0"
    assert second.headers["x-slipway-served-by"] == "cache"
    assert second.headers["x-slipway-cost-usd"] == "0"
    assert second.headers["x-slipway-saved-usd"] == first.headers["x-slipway-cost-usd"]
    assert second.headers["x-slipway-saved-tokens"] == "12"
    assert second.headers["x-slipway-cache-key"] == first.headers["x-slipway-cache-key"]
    assert second.headers["x-slipway-answer-id"] != first.headers["x-slipway-answer-id"]


def test_a_stream_is_replayed_with_all_its_fields(kept: Kept) -> None:
    with_usage: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}
    first = kept.ask("streams", "replay", **with_usage)
    second = kept.ask("streams", "replay", **with_usage)
    assert kept.calls("streams", "replay") == 1
    assert first.content == second.content
    assert b"reasoning_content" in second.content
    assert b"reasoning_tokens" in second.content
    assert b'"annotations"' in second.content
    assert state(second) == "hit"


def test_usage_is_shown_to_those_who_ask_for_it(kept: Kept) -> None:
    without = kept.ask("streams", "usage", stream=True)
    wanted = kept.ask("streams", "usage", stream=True, stream_options={"include_usage": True})
    again = kept.ask("streams", "usage", stream=True)
    assert kept.calls("streams", "usage") == 1
    assert b"prompt_tokens" not in without.content
    assert b"reasoning_tokens" in wanted.content
    assert again.content == without.content


def test_streamed_and_whole_answers_serve_each_other(kept: Kept) -> None:
    kept.ask("plain", "first streamed", stream=True)
    whole = kept.ask("plain", "first streamed")
    assert kept.calls("plain", "first streamed") == 1
    message = whole.json()["choices"][0]["message"]
    assert message["content"] == "Ships float."
    assert message["reasoning_content"] == "Hm, ships."
    assert message["annotations"] == [{"a": 1}]
    assert whole.json()["usage"]["completion_tokens_details"] == {"reasoning_tokens": 3}
    kept.ask("plain", "first whole")
    streamed = kept.ask("plain", "first whole", stream=True)
    assert kept.calls("plain", "first whole") == 1
    assert state(streamed) == "hit"
    assert b"Ships float." in streamed.content
    assert streamed.content.endswith(b"data: [DONE]\n\n")
    assert b"prompt_tokens" not in streamed.content


def test_tool_calls_are_kept(kept: Kept) -> None:
    kept.ask("tools", "call", stream=True)
    whole = kept.ask("tools", "call")
    assert state(whole) == "hit"
    assert whole.json()["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"] == (
        '{"a":1}'
    )


def test_completions_of_the_older_form_are_kept_as_well(kept: Kept) -> None:
    body = {"model": "plain", "prompt": "older"}
    headers = {"authorization": "Bearer sw-red-key"}
    first = kept.server.post("/v1/completions", body, headers=headers)
    second = kept.server.post("/v1/completions", body, headers=headers)
    assert (state(second), second.json()) == ("hit", first.json())
    assert second.json()["choices"][0]["text"] == "Ships float."
    assert state(kept.ask("plain", "older")) == "hit"


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("model", ["length", "filtered", "refused", "empty", "cut"])
def test_only_complete_answers_are_kept(kept: Kept, model: str, stream: bool) -> None:
    text = f"incomplete {stream}"
    kept.ask(model, text, stream=stream)
    assert state(kept.ask(model, text, stream=stream)) != "hit"
    assert kept.calls(model, text) == 2


@pytest.mark.parametrize(
    "more",
    [
        {"temperature": 0.5},
        {"top_p": 0.5},
        {"max_tokens": 5},
        {"seed": 1},
        {"n": 2},
        {"user": "bob"},
        {"response_format": {"type": "json_object"}},
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
        {"messages": [{"role": "system", "content": "Be brief"}, {"role": "user", "content": "k"}]},
        {"messages": [{"role": "user", "content": "a"}, {"role": "user", "content": "k"}]},
        {"messages": [{"role": "user", "content": "k "}]},
    ],
)
def test_all_that_shapes_an_answer_is_in_the_key(kept: Kept, more: dict[str, Any]) -> None:
    kept.ask("plain", "k")
    assert state(kept.ask("plain", "k", **more)) == "miss"
    assert state(kept.ask("plain", "k", **more)) == "hit"


def test_models_that_differ_in_their_headers_have_different_answers(kept: Kept) -> None:
    states = [state(kept.ask(f"plain-{variant}", "Which?")) for variant in ("a", "b", "a")]
    assert states == ["miss", "miss", "hit"]


def test_the_order_of_fields_is_not_in_the_key(kept: Kept) -> None:
    def send(body: str) -> httpx.Response:
        return plain_http.post(
            f"{kept.server.url}/v1/chat/completions",
            content=body,
            headers={
                "authorization": "Bearer sw-red-key",
                "content-type": "application/json",
            },
        )

    one = send('{"model":"plain","temperature":0,"messages":[{"role":"user","content":"order"}]}')
    other = send(
        '{"messages": [{"content": "order", "role": "user"}], "temperature": 0.0,'
        ' "seed": null, "stream": false, "model": "plain"}'
    )
    assert (state(one), state(other)) == ("miss", "hit")


def test_another_tenant_never_gets_an_answer(kept: Kept) -> None:
    kept.ask("plain", "whose")
    other = kept.ask("plain", "whose", key="sw-blue-key")
    assert state(other) == "miss"
    assert kept.calls("plain", "whose") == 2


def test_a_model_without_a_cache_is_kept_at_temperature_zero_only(kept: Kept) -> None:
    for _ in range(2):
        assert state(kept.ask("warm", "zero", temperature=0.7)) is None
        assert state(kept.ask("warm", "zero")) is None
    assert kept.calls("warm", "zero") == 4
    assert state(kept.ask("warm", "zero", temperature=0)) == "miss"
    assert state(kept.ask("warm", "zero", temperature=0)) == "hit"


def test_a_route_keeps_answers_as_its_first_model_does(kept: Kept) -> None:
    assert state(kept.ask("both", "route")) == "miss"
    assert state(kept.ask("both", "route")) == "hit"
    assert state(kept.ask("plain", "route")) == "miss"


def test_a_request_steers_the_cache(kept: Kept) -> None:
    missing = kept.ask("plain", "steer", cache="only")
    assert missing.status_code == 404
    assert missing.json()["error"]["code"] == "not_cached"
    assert state(kept.ask("plain", "steer", cache="off")) is None
    assert state(kept.ask("plain", "steer")) == "miss"
    assert state(kept.ask("plain", "steer", cache="off")) is None
    assert state(kept.ask("plain", "steer", cache="only")) == "hit"
    assert state(kept.ask("plain", "steer", cache="refresh")) == "refresh"
    assert kept.calls("plain", "steer") == 4
    assert kept.ask("warm", "steer", cache="only").json()["error"]["code"] == "not_cached"
    wrong = kept.ask("plain", "steer", cache="maybe")
    assert wrong.status_code == 400
    assert "`off`, `refresh` or `only`" in wrong.json()["error"]["message"]


def test_a_request_that_has_no_key_is_left_alone(kept: Kept) -> None:
    text = "infinite"
    body = json.dumps({"model": "plain", "messages": [{"role": "user", "content": text}]})
    body = body[:-1] + ', "seed": 1e400}'
    headers = {"authorization": "Bearer sw-red-key", "content-type": "application/json"}
    for _ in range(2):
        reply = plain_http.post(
            f"{kept.server.url}/v1/chat/completions", content=body, headers=headers
        )
        assert reply.status_code == 200
        assert state(reply) is None
    assert kept.calls("plain", text) == 2


def test_large_numbers_are_not_confused(kept: Kept) -> None:
    for seed in (10**30, 10**30 + 1, 0.1, 0.2):
        assert state(kept.ask("plain", "large", seed=seed)) == "miss"
        assert state(kept.ask("plain", "large", seed=seed)) == "hit"


def test_a_large_request_is_kept_as_well(kept: Kept) -> None:
    text = "long " * 300_000
    assert state(kept.ask("plain", text)) == "miss"
    assert state(kept.ask("plain", text)) == "hit"


def not_hit(reply: httpx.Response) -> httpx.Response | None:
    return None if state(reply) == "hit" else reply


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("model", ["once-streamed", "once-whole"])
def test_an_old_answer_is_served_if_the_model_fails(kept: Kept, model: str, stream: bool) -> None:
    kept.ask(model, "old", stream=stream)
    # the second question may come within the millisecond for which the answer is fresh
    old = until(lambda: not_hit(kept.ask(model, "old", stream=stream)))
    assert old is not None
    assert old.status_code == 200
    assert (state(old), old.headers["x-slipway-served-by"]) == ("stale", "stale")
    assert "Ships float." in old.text
    other = kept.ask(model, "never asked")
    assert other.status_code == 502
