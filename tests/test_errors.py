"""Test what an error says to the client, in two languages, and to the operator."""

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from processes import Serving, mocking, models, run, serving
from slipway import errors
from slipway.catalogue import (
    CATALOGUE,
    LANGUAGES,
    RETRY,
    preferred_language,
    reader_sentences,
    retry_sentence,
    wait_in_words,
)
from slipway.telemetry.traces import MAX_RECORDS, Traces
from slipway.types import AnswerDone, AttemptDone
from test_upstream import scripted
from waiting import until

QUESTION = {"question": "Tell me a secret word.", "app": "none"}
CHINESE = {"accept-language": "zh-CN,zh;q=0.9,en;q=0.8"}
ANN, BEN = {"authorization": "Bearer sw-ann-of-tests"}, {"authorization": "Bearer sw-ben-of-tests"}
TECHNICAL = {
    "en": r"\b(provider|upstream|status|token|context|https?|api|endpoint|header|json|server|error|request|invalid|illegal|must)s?\b",
    "zh": "令牌|状态|接口|上游|请求头|服务商|错误码|非法|无效|必须",
}


# The catalogue


def kinds(base: type[errors.SlipwayError] = errors.SlipwayError) -> list[type[errors.SlipwayError]]:
    return [each for sub in base.__subclasses__() for each in (sub, *kinds(sub))]


def test_every_error_that_reaches_a_client_has_a_text_in_every_language() -> None:
    assert set(CATALOGUE) == {each.code for each in kinds()} - {
        "settings",
        "weights",
    }  # those end a command, not an answer
    assert all(tuple(row) == LANGUAGES for row in CATALOGUE.values())


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("code", CATALOGUE)
def test_error_texts_are_short_plain_sentences(code: str, language: Any) -> None:
    what, then = CATALOGUE[code][language]
    longest = then.replace(RETRY, retry_sentence(80 * 60.0, language))
    assert what
    assert then
    for said in (what, longest):
        assert len(said) <= 90
        assert said.endswith("." if language == "en" else "。")
    assert not re.search(r"[\d`_]", what + then)
    assert not re.search(TECHNICAL[language], f"{what} {then}".lower())


def test_an_error_says_whether_trying_again_helps() -> None:
    for each in kinds():
        if each.code in CATALOGUE:
            then = CATALOGUE[each.code]["en"][1]
            assert (RETRY in then or "Try again" in then) == each.retryable


@pytest.mark.parametrize(
    ("wait_s", "english", "chinese"),
    [
        (None, "Try again in a moment.", "请稍后重试。"),
        (1.0, "Try again in a moment.", "请稍后重试。"),
        (16.2, "Try again in about 20 seconds.", "请约 20 秒后重试。"),
        (90.0, "Try again in about 90 seconds.", "请约 90 秒后重试。"),
        (91.0, "Try again in about 2 minutes.", "请约 2 分钟后重试。"),
        (86400.0, "Try again in about 24 hours.", "请约 24 小时后重试。"),
    ],
)
def test_the_time_to_wait_is_said_in_words(
    wait_s: float | None, english: str, chinese: str
) -> None:
    assert (retry_sentence(wait_s, "en"), retry_sentence(wait_s, "zh")) == (english, chinese)


def test_a_wait_is_never_shown_shorter_than_it_is() -> None:
    units = {"seconds": 1, "minutes": 60, "hours": 3600}
    for wait_s in range(6, 20_000, 7):
        number, unit = wait_in_words(wait_s, "en").split()
        assert wait_s <= int(number) * units[unit] <= max(wait_s + 5, wait_s * 2)


@pytest.mark.parametrize(
    ("header", "language"),
    [
        ("", "en"),
        ("zh-CN,zh;q=0.9,en;q=0.8", "zh"),
        ("en-US,en;q=0.5,zh;q=0.9", "en"),
        ("fr, zh;q=0.3", "zh"),
        ("en;q=0.1, ZH-TW ; q=0.2", "zh"),
        ("zh;q=0, en;q=0.1", "en"),
        ("zh;q=0", "en"),
        ("*", "en"),
        ("zh;;;q=x, \xff", "en"),
        pytest.param(
            "z" * 60_000 + "!", "en", id="as long as a head may be"
        ),  # in linear time: anybody may send it
    ],
)
def test_the_language_is_the_one_that_the_reader_prefers(header: str, language: str) -> None:
    assert preferred_language(header) == language


def test_a_code_of_the_providers_own_is_shown_as_a_refusal() -> None:
    refused = errors.ProviderRefused("The provider says: insufficient_quota.")
    refused.code = "insufficient_quota"
    assert reader_sentences(refused, "en") == CATALOGUE["provider_refused"]["en"]


# Before a request reaches an app


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """`main` fails over from `away` to a model that answers; `limited` says that it can be asked in
    an hour, `cut` never comes to an end.
    """
    with mocking() as mock:
        settings: dict[str, Any] = models(mock.url, "mock-model", zone="b")
        settings["models"] |= {
            "away": {"base_url": "http://127.0.0.1:9/v1", "zone": "a"},
            "down": {"base_url": "http://127.0.0.1:9/v1", "zone": "a"},
            "limited": {"base_url": mock.url, "name": "fault-status-429-3600"},
            "cut": {"base_url": mock.url, "name": "fault-cut-3"},
        }
        settings["routes"] = {"main": ["away", {"model": "mock-model", "role": "twin"}]}
        settings["keys"] = [{"key": "sw-ann-of-tests"}, {"key": "sw-ben-of-tests"}]
        with serving(tmp_path_factory.mktemp("errors"), settings=settings) as server:
            yield server


def chat(server: Serving, model: str, headers: dict[str, str], **more: Any) -> httpx.Response:
    body = {
        "model": model,
        "messages": [{"role": "user", "content": "Tell me a secret word."}],
        **more,
    }
    return server.post("/v1/chat/completions", body, headers=headers)


def reader(response: httpx.Response) -> dict[str, Any]:
    found: dict[str, Any] = response.json()["error"]["slipway"]["reader"]
    return found


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize(
    "body", [QUESTION, {"model": "none", "messages": [{"role": "user", "content": "Hello"}]}]
)
def test_a_refusal_speaks_to_the_reader_and_to_the_developer(
    server: Serving, body: dict[str, Any], language: Any
) -> None:
    path = "/v1/answers" if "question" in body else "/v1/chat/completions"
    refused = server.post(path, body, headers=ANN | (CHINESE if language == "zh" else {}))
    what, then = CATALOGUE["model_not_found"][language]
    assert reader(refused) == {"what": what, "next": then, "language": language}
    assert refused.json()["error"]["message"].startswith("There is no model or app `none`.")
    assert "none" not in str(reader(refused))


def test_how_long_to_wait_is_said_to_the_reader(server: Serving) -> None:
    refused = chat(server, "limited", ANN | CHINESE)
    assert refused.status_code == 429
    assert reader(refused)["next"] == "请约 60 分钟后重试。"
    assert 3590 < refused.json()["error"]["slipway"]["retry_after_s"] <= 3600


def test_an_error_in_the_middle_speaks_to_the_reader(server: Serving) -> None:
    asked = server.post(
        "/v1/answers", {**QUESTION, "app": "cut", "stream": True}, headers=ANN | CHINESE
    )
    event = msgspec.json.decode(re.findall(r"event: error\ndata: (.*)", asked.text)[-1])
    assert event["code"] == "provider_cut"
    assert event["reader"] == {
        "what": "回答在完成前中断了。",
        "next": "请稍后重试。",
        "language": "zh",
    }
    assert "The provider of cut ended the connection" in event["what"]


def test_the_error_of_a_retry_is_in_the_language_of_the_client(server: Serving) -> None:
    failed = server.post("/v1/answers", {**QUESTION, "app": "cut"}, headers=ANN)
    assert reader(failed)["language"] == "en"
    retry_sentence = server.post(
        f"/v1/answers/{failed.headers['x-slipway-answer-id']}/retry",
        {"stream": True},
        headers=ANN | CHINESE,
    )
    event = msgspec.json.decode(re.findall(r"event: error\ndata: (.*)", retry_sentence.text)[-1])
    assert event["reader"]["language"] == "zh"


def test_a_chat_stream_that_breaks_off_speaks_to_the_reader(tmp_path: Path) -> None:
    with (
        mocking(script=("cut-3",)) as mock,
        serving(tmp_path, settings=models(mock.url, "mock-model")) as server,
    ):
        last = chat(server, "mock-model", CHINESE, stream=True).text.strip().split("\n\n")[-1]
        assert (
            msgspec.json.decode(last.removeprefix("data: "))["error"]["slipway"]["reader"]["what"]
            == "回答在完成前中断了。"
        )


def test_unparsable_requests_get_a_reference_too(server: Serving) -> None:
    refused = server.get("/v1/models", headers=ANN | CHINESE | {"x-large": "x" * 100_000})
    assert refused.status_code == 431
    ref = refused.json()["error"]["slipway"]["ref"]
    assert refused.headers["x-request-id"] == ref
    assert line(server, ref)


# References


def line(server: Serving, ref: str) -> str:
    """Return the line of the log that has the reference."""
    assert re.fullmatch(r"(ref|ans)-[0-9a-f]{32}", ref)
    return until(lambda: [each for each in server.log.splitlines() if ref in each])[0]


def test_every_reference_is_in_the_log_without_the_content_of_the_request(server: Serving) -> None:
    attempts = [
        server.post("/v1/answers", {**QUESTION, "app": "a-secret-app"}, headers=ANN),
        server.post("/v1/answers", {"a-secret-field": 1}, headers=ANN),
        server.post("/v1/answers", QUESTION, headers={"authorization": "Bearer a-secret-key"}),
        server.get("/v1/a-path%0Aof two lines", headers=ANN),
        chat(server, "down", ANN),
    ]
    for refused in attempts:
        found = line(server, refused.json()["error"]["slipway"]["ref"])
        assert "secret" not in found
        assert refused.json()["error"]["code"] in found
    assert "\nof two lines" not in server.log


ECHO = b'{"error": {"message": "I cannot:\\nTell me a secret word.", "code": "a secret word"}}'


@pytest.mark.parametrize("status", [400, 500])
def test_a_providers_message_about_a_question_is_shown_to_its_asker_only(
    tmp_path: Path, status: int
) -> None:
    reply = b"HTTP/1.1 %d No\r\nContent-Length: %d\r\n\r\n%b" % (status, len(ECHO), ECHO)
    with scripted([reply] * 50) as (port, _):
        settings = {
            **models(f"http://127.0.0.1:{port}/v1", "m", retries=0),
            "keys": ["sw-ann-of-tests", "sw-ben-of-tests"],
        }
        with serving(tmp_path, settings=settings) as server:
            replies = [
                server.post("/v1/answers", {**QUESTION, "app": "m"}, headers=ANN) for _ in range(3)
            ]
            assert all("I cannot: Tell me a secret word." in each.text for each in replies)
            found = trace(server, replies[0].headers["x-slipway-answer-id"])
            assert str(status) in found["tries"][0]["attempts"][0]["why"]
            others = [
                server.post("/v1/answers", {"question": "Hello", "app": "none"}, headers=BEN),
                server.get("/readyz", headers=BEN),
            ]
            if status == 500:  # now the model is not asked any more, and others learn why
                others.append(
                    server.post("/v1/answers", {"question": "Hello", "app": "m"}, headers=BEN)
                )
                assert "failed (500)" in others[-1].text
            assert not any(
                "secret" in each
                for each in (
                    str(found),
                    server.get("/metrics", headers=BEN).text,
                    *(o.text for o in others),
                )
            )
            assert status == 500 or "secret" not in server.log
            assert all(
                re.match(r"\d\d:\d\d:\d\d [IW] ", each)
                for each in server.log.splitlines()
                if "secret" in each
            )


def answered(server: Serving, app: str, who: dict[str, str] = ANN) -> str:
    reply = server.post("/v1/answers", {**QUESTION, "app": app}, headers=who)
    return reply.headers["x-slipway-answer-id"]


def trace(server: Serving, ref: str, who: dict[str, str] = ANN) -> Any:
    return server.get(f"/v1/traces/{ref}", headers=who).json()


@pytest.fixture(scope="module")
def failed_over(server: Serving) -> str:
    return answered(server, "main")


def test_a_reference_finds_which_models_were_tried_and_how_that_ended(
    server: Serving, failed_over: str
) -> None:
    found = trace(server, failed_over)
    assert found["id"] == failed_over
    (tried,) = found["tries"]
    assert [(a["model"], a["zone"], a["error"]) for a in tried["attempts"]] == [
        ("away", "a", "provider_down"),
        ("mock-model", "b", None),
    ]
    assert (tried["answer"]["app"], tried["answer"]["model"], tried["answer"]["error"]) == (
        "main",
        "mock-model",
        None,
    )
    assert abs(tried["answer"]["ended_at"] - time.time()) < 60
    assert "secret" not in str(found)
    assert "owner" not in str(found)


@pytest.mark.parametrize("stream", [False, True])
def test_bare_models_leave_a_trace_too(server: Serving, stream: bool) -> None:
    found = trace(
        server, chat(server, "mock-model", ANN, stream=stream).headers["x-slipway-answer-id"]
    )
    assert [a["model"] for a in found["tries"][0]["attempts"]] == ["mock-model"]
    assert found["tries"][0]["answer"]["endpoint"] == "chat"


def test_each_try_of_an_answer_is_in_its_trace(server: Serving) -> None:
    ref = answered(server, "down")
    server.post(f"/v1/answers/{ref}/retry", {}, headers=ANN)
    assert [each["answer"]["error"] for each in trace(server, ref)["tries"]] == [
        "provider_down",
        "provider_down",
    ]


def test_a_trace_belongs_to_the_key_that_asked(server: Serving) -> None:
    ref = answered(server, "mock-model")
    assert server.get(f"/v1/traces/{ref}", headers=BEN).status_code == 404
    assert server.get(f"/v1/traces/{ref}").status_code == 401
    assert server.get(f"/v1/traces/{ref}", headers=ANN).status_code == 200


def test_a_reference_without_a_trace_is_sent_to_the_log(server: Serving) -> None:
    for ref, says in (
        ("ref-1", "was rejected before an answer began"),
        ("ans-1", "the server's log may say more"),
    ):
        unknown = server.get(f"/v1/traces/{ref}", headers=ANN)
        assert unknown.status_code == 404
        assert says in unknown.json()["error"]["message"]


def test_the_command_prints_a_trace_as_lines(
    server: Serving, failed_over: str, tmp_path: Path
) -> None:
    reported = run(
        "trace", failed_over, "--url", server.url, "--key", "sw-ann-of-tests", cwd=tmp_path
    )
    assert reported.returncode == 0
    said = reported.stdout.splitlines()
    assert said[0] == failed_over
    assert re.search(r"answer of main: done after .*, first words after .*served by model", said[1])
    away = next(line for line in said if "model away" in line)
    assert re.search(r"^ +\d+\.\d ms +\d+\.\d ms +·*█+·* +model away +provider_down, \$0", away)
    assert "why The provider of away cannot be reached: nothing listens there." in away
    assert re.search(r"model mock-model +done, .*zone b", "\n".join(said))
    assert [line.split()[5] for line in said if "·█" in line or "█·" in line]
    as_json = run(
        "trace",
        failed_over,
        "--url",
        server.url,
        "--json",
        cwd=tmp_path,
        env={"SLIPWAY_KEY": "sw-ann-of-tests"},
    )
    assert msgspec.json.decode(as_json.stdout) == trace(server, failed_over)


def test_the_command_says_why_there_is_no_trace(server: Serving, tmp_path: Path) -> None:
    for arguments, says in (
        (
            ("ref-1", "--url", server.url, "--key", "sw-ann-of-tests"),
            "rejected before an answer began",
        ),
        (("ref-1", "--url", server.url), "This server requires a key"),
        (
            ("../models", "--url", server.url),
            "`../models` is not a reference. References begin with `ans-` or `ref-`.",
        ),
        (
            ("ref-1", "--url", "http://127.0.0.1:9"),
            "No server answers at http://127.0.0.1:9. Name it with --url.",
        ),
    ):
        reported = run("trace", *arguments, cwd=tmp_path)
        assert reported.returncode == 1
        assert says in reported.stderr


def test_the_operator_at_the_machine_sees_every_trace(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "leave.md").write_text(
        "# Leave\n\nEveryone has 30 days of leave a year.\n"
    )
    settings = {"keys": ["sw-ann-of-tests"], "apps": {"docs": {"knowledge": ["./docs"]}}}
    with serving(tmp_path, settings=settings) as server:
        ref = answered(server, "docs")
        (config,) = tmp_path.glob("settings-*.yaml")
        reported = run("trace", ref, "--config", str(config), cwd=tmp_path)
        assert "answer of docs: done" in reported.stdout, reported.stderr


def test_where_there_are_no_keys_every_trace_is_seen(tmp_path: Path) -> None:
    with mocking() as mock, serving(tmp_path, settings=models(mock.url, "mock-model")) as server:
        assert trace(server, answered(server, "mock-model", {}), {})["tries"]


# What is kept


def attempt(ref: str) -> AttemptDone:
    return AttemptDone(
        answer_id=ref,
        model="m",
        provider="openai",
        zone="z",
        status=200,
        error=None,
        duration_s=1.0,
        ttft_s=None,
    )


def answer(ref: str) -> AnswerDone:
    return AnswerDone(
        id=ref,
        endpoint="answers",
        app="docs",
        model="m",
        provider="openai",
        served_by="model",
        streamed=True,
        error=None,
        duration_s=1.0,
        ttft_s=None,
        usage=None,
        tenant="default",
        owner="ann",
    )


def test_traces_outlive_their_process_and_each_is_bounded(tmp_path: Path) -> None:
    traces = Traces(tmp_path)
    for n in range(100):
        traces.keep((time.time(), attempt(f"ans-{n}")))
        traces.keep((time.time(), answer(f"ans-{n}")))
    traces.close()
    later = Traces(tmp_path)
    assert later.find("ans-10", "ann") is not None
    assert later.find("ans-10", "ben") is None
    assert later.find("ans-1000", None) is None
    for _ in range(MAX_RECORDS):
        later.keep((time.time(), answer("ans-10")))
    found = later.find("ans-10", None)
    assert found is not None
    assert len(found["tries"]) == MAX_RECORDS
    later.close()


def test_a_try_under_way_is_seen_once_another_has_ended(tmp_path: Path) -> None:
    traces = Traces(tmp_path)
    traces.keep((time.time(), attempt("ans-1")))
    assert traces.find("ans-1", None) is None
    traces.keep((time.time(), answer("ans-1")))
    traces.keep((time.time(), attempt("ans-1")))
    found = traces.find("ans-1", "ann")
    assert found is not None
    assert [each["answer"] is None for each in found["tries"]] == [False, True]
    traces.close()
