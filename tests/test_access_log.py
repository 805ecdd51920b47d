"""The access log: one line of JSON for each request, without content, and never in the way."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import plain_http
from processes import Serving, free_port, mocking, serving
from slipway.telemetry.access_log import MOST_WAITING, AccessLog, RequestSeen
from slipway.telemetry.content import said_in
from slipway.telemetry.redaction import redacted, redactor
from slipway.types import AnswerDone, Usage
from waiting import until

ANN = {"authorization": "Bearer sw-ann-of-tests"}


def request(ref: str | None = None, **more: Any) -> RequestSeen:
    fields: dict[str, Any] = {"at": time.time(), "duration_s": 0.25, "method": "POST"}
    fields |= {"path": "/v1/chat/completions", "head": b"HTTP/1.1 200"}
    fields |= {"ref": ref, "tenant": "acme", "key": "k1"}
    return RequestSeen(**{**fields, **more})


def answer(ref: str) -> AnswerDone:
    return AnswerDone(
        id=ref,
        endpoint="chat",
        app="main",
        model="m",
        provider="openai",
        served_by="model",
        streamed=True,
        error=None,
        duration_s=0.2,
        ttft_s=0.1,
        usage=Usage(input_tokens=7, output_tokens=3),
        tenant="acme",
        owner="k1",
        cost=13_000_000,
    )


def lines_of(text: str, kind: str = "request") -> list[dict[str, Any]]:
    found = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    return [line for line in found if line["kind"] == kind]


# Lines


def test_a_line_joins_a_request_and_its_answer(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as file:
        log = AccessLog(file=file.fileno())
        log.keep((time.time(), answer("ans-1")))
        log.note(request("ans-1"))
        log.note(request(None, method="GET", path="/healthz"))
        log.note(request("ans-2", head=b""))
        log.write()
        log.keep((time.time(), answer("ans-3")))
        log.close()
        log.write()
    joined, plain, left = lines_of((tmp_path / "log").read_text())
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", joined["time"])
    assert (joined["id"], joined["status"], joined["duration_s"]) == ("ans-1", 200, 0.25)
    assert (joined["app"], joined["model"], joined["served_by"]) == ("main", "m", "model")
    assert (joined["input_tokens"], joined["output_tokens"]) == (7, 3)
    assert (joined["cost_usd"], joined["ttft_s"]) == ("0.000013", 0.1)
    assert (joined["tenant"], joined["key"], joined["error"]) == ("acme", "k1", None)
    assert (plain["path"], "app" in plain) == ("/healthz", False)
    assert left["status"] == 499
    (alone,) = lines_of((tmp_path / "log").read_text(), "answer")
    assert alone["id"] == "ans-3"


def test_many_lines_arrive_whole_and_in_order_in_a_pipe() -> None:
    reader, writer = os.pipe()
    log = AccessLog(file=writer)
    refs = [f"ans-{n}" for n in range(100)]
    for ref in refs:
        log.keep((time.time(), answer(ref)))
        log.note(request(ref))
    log.write()
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        lines = lines_of(pipe.read().decode())
    assert [line["id"] for line in lines] == refs
    assert all(line["app"] == "main" for line in lines)


def test_a_full_pipe_and_a_closed_one_stop_nothing(caplog: pytest.LogCaptureFixture) -> None:
    lost = list[int]()
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    log = AccessLog(file=writer, on_lost=lost.append)
    for _ in range(5000):  # more than a pipe holds
        log.note(request("ans-1"))
    began_at = time.monotonic()
    log.write()
    assert time.monotonic() - began_at < 30
    assert 0 < sum(lost) < 5000
    os.close(reader)
    log.note(request("ans-2"))
    log.write()
    os.close(writer)
    assert sum("the access log cannot be written" in each.message for each in caplog.records) == 1
    before = log.lost
    for _ in range(MOST_WAITING + 5):
        log.note(request("ans-3"))
    assert log.lost - before == 5


# What is removed


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("my key is sk-proj-abc123def456ghi789", "my key is [key]"),
        ("Authorization: Bearer abcdef123456", "Authorization: [key]"),
        ("ghp_0123456789abcdefghijABCDEFGHIJ and AKIAIOSFODNN7EXAMPLE", "[key] and [key]"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.sig-1", "[key]"),
        ("postgres://ann:hunter2@db/x", "postgres://[key]@db/x"),
        ("0123456789abcdef0123456789abcdef01234567", "[key]"),
        ("write to ann.lee+x@mail.example.co.uk.", "write to [e-mail]."),
        ("call +49 (170) 123-4567 or 13812345678", "call [phone] or [phone]"),
        ("card 4111 1111 1111 1111, 5500-0000-0000-0004", "card [card], [card]"),
        ("on 2026-11-28 at 10:30, $1,234,567.89", "on 2026-11-28 at 10:30, $1,234,567.89"),
        ("version 3.11.7, 30 days, 1,000,000 users", "version 3.11.7, 30 days, 1,000,000 users"),
        ("ans-e06d4f95b77109a47e0bdab20dc9bb5e", "ans-e06d4f95b77109a47e0bdab20dc9bb5e"),
        ("电话13812345678，邮箱 li@例子.公司", "电话[phone]，邮箱 [e-mail]"),
    ],
)
def test_keys_addresses_and_numbers_are_removed(text: str, left: str) -> None:
    assert redacted(text) == left


def test_the_keys_of_the_settings_are_removed_whatever_they_look_like() -> None:
    assert redactor({"open sesame"})("say open sesame, please") == "say [key], please"


def test_an_address_that_is_cut_in_two_by_a_stream_is_removed() -> None:
    chunks = [
        b'data: {"choices":[{"delta":{"content":"Ask ann@exam"}}]}\n\n',
        b'data: {"choices":[{"delta":{"content":"ple.com"}}]}\n\ndata: [DONE]\n\n',
    ]
    assert said_in(chunks, redacted) == "Ask [e-mail]"
    ours = b'event: delta\ndata: {"text":"call +49 170 12","section":0}\n\n'
    more = b'event: delta\ndata: {"text":"34567","section":0}\n\n'
    assert said_in([ours, more], redacted) == "call [phone]"


# Through a server


@pytest.fixture(scope="module")
def upstream() -> Iterator[Any]:
    with mocking() as mock:
        yield mock


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, upstream: Any) -> Iterator[Serving]:
    settings = {
        "models": {
            "m": {"base_url": upstream.url, "name": "mock-model"},
            "away": {"base_url": "http://127.0.0.1:9/v1", "retries": 0},
        },
        "keys": [{"key": "sw-ann-of-tests", "tenant": "acme"}],
        "log": {"format": "json", "content": True},
    }
    with serving(tmp_path_factory.mktemp("log"), settings=settings) as server:
        yield server


def logged(server: Serving, ref: str) -> dict[str, Any]:
    found = until(lambda: [r for r in lines_of(server.log) if r["id"] == ref])
    assert found is not None
    assert len(found) == 1
    return dict(found[0])


def said(server: Serving, text: str, **more: Any) -> dict[str, Any]:
    body = {"model": "m", "messages": [{"role": "user", "content": text}], **more}
    reply = server.post("/v1/chat/completions", body, headers=ANN)
    return logged(server, reply.headers["x-slipway-answer-id"])


@pytest.mark.parametrize("stream", [True, False])
def test_content_is_logged_where_it_is_switched_on(server: Serving, stream: bool) -> None:
    line = said(server, "My card is 4111 1111 1111 1111; I am Ann.", stream=stream)
    assert line["request"]["messages"][0]["content"] == "My card is [card]; I am Ann."
    assert len(str(line["response"])) > 100
    assert (line["tenant"], line["status"], line["streamed"]) == ("acme", 200, stream)


def test_a_failed_request_has_the_code_of_its_error(server: Serving) -> None:
    assert said(server, "Hello", model="away")["error"] == "provider_down"
    reply = server.post("/v1/chat/completions", {"model": "none"}, headers=ANN)
    line = logged(server, reply.headers["x-request-id"])
    assert (line["status"], line["error"]) == (reply.status_code, reply.json()["error"]["code"])


def test_an_id_in_a_path_is_logged_by_its_name(server: Serving) -> None:
    server.get("/v1/traces/ans-of-the-path", headers=ANN)
    assert until(lambda: [r for r in lines_of(server.log) if r["path"] == "/v1/traces/{id}"])
    assert "ans-of-the-path" not in server.log


def test_messages_are_lines_of_json_too(server: Serving) -> None:
    said(server, "Hello", model="away")
    messages = [line["message"] for line in lines_of(server.log, "message")]
    assert any("model away failed: provider_down" in each for each in messages)


def test_each_worker_logs_what_it_answers(tmp_path: Path, upstream: Any) -> None:
    settings = {"models": {"m": {"base_url": upstream.url, "name": "mock-model"}}}
    body = {"question": "Hello", "app": "m"}
    with serving(tmp_path, "--workers", "2", "--log", "json", settings=settings) as server:
        refs = [server.chat("m").headers["x-slipway-answer-id"] for _ in range(8)]
        refs += [server.post("/v1/answers", body).json()["id"] for _ in range(8)]
    assert sorted(r["id"] for r in lines_of(server.log) if r["id"] in refs) == sorted(refs)
    assert all("request" not in line for line in lines_of(server.log))


def test_answers_go_on_if_nobody_reads_the_standard_output(tmp_path: Path, upstream: Any) -> None:
    port = free_port()
    (tmp_path / "slipway.yaml").write_text(
        f"models: {{m: {{base_url: '{upstream.url}', name: mock-model}}}}\nlog: json\n"
    )
    with (tmp_path / "errors").open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "slipway", "serve", "--quiet", "--port", str(port)],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=errors,
        )
    assert process.stdout is not None
    process.stdout.close()  # whoever read it has ended
    url = f"http://127.0.0.1:{port}/v1/chat/completions"
    body = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}

    def asked() -> bool:
        try:
            return plain_http.post(url, json=body, timeout=30).status_code == 200
        except httpx.TransportError:
            return False

    try:
        assert until(asked)
        assert until(lambda: "cannot be written" in (tmp_path / "errors").read_text())
        assert all(asked() for _ in range(20))
    finally:
        process.terminate()
        assert process.wait(60) == 0
