"""Test the current OpenAI client, unchanged, against a real server."""

from collections.abc import Iterator
from typing import Any

import openai
import pytest

from processes import Serving, mocking, models, serving

HELLO: Any = [{"role": "user", "content": "Hello"}]
NAMES: tuple[str, ...] = (
    "mock-model",
    "fault-status-401",
    "fault-status-429-2",
    "fault-status-503",
    "fault-context",
    "fault-hang",
    "fault-cut-5",
    "fault-error200",
)
NAMES += (
    "fault-html",
    "fault-empty",
    "fault-malformed-2",
    "fault-stall-3",
    "fault-nodone",
    "fault-errorevent-2",
    "fault-reset",
    "fault-redirect",
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    folder = tmp_path_factory.mktemp("client")
    (folder / "docs").mkdir()
    (folder / "docs" / "tea.md").write_text(
        "# Tea\n\n## Green tea\n\nGreen tea is brewed at 80 degrees for two minutes.\n"
    )
    with mocking(api_key="sk-upstream") as mock:
        settings = models(
            mock.url,
            *NAMES,
            api_key="sk-upstream",
            connection={"first_byte": "700ms", "between_bytes": "700ms"},
        )
        settings["models"]["gone"] = {"base_url": "http://127.0.0.1:9/v1"}
        settings["models"]["wrong-key"] = {
            "base_url": mock.url,
            "name": "mock-model",
            "api_key": "sk-wrong-key-here",
        }
        settings["apps"] = {"tea": {"knowledge": str(folder / "docs"), "route": "mock-model"}}
        settings["keys"] = [{"key": "test-key-1"}, {"key": "test-key-2", "apps": ["tea"]}]
        with serving(folder, settings=settings) as server:
            yield server


@pytest.fixture(scope="module")
def client(server: Serving) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="test-key-1", max_retries=0) as client:
        yield client


def test_chat(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="mock-model", messages=HELLO)
    assert answer.choices[0].message.content
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 48
    assert answer._request_id is not None
    assert answer._request_id.startswith("ans-")


def test_stream_is_the_whole_answer_and_usage_comes_only_when_asked_for(
    client: openai.OpenAI,
) -> None:
    whole = (
        client.chat.completions.create(model="mock-model", messages=HELLO)
        .choices[0]
        .message.content
    )
    chunks = list(client.chat.completions.create(model="mock-model", messages=HELLO, stream=True))
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == whole
    assert all(c.usage is None for c in chunks)
    chunks = list(
        client.chat.completions.create(
            model="mock-model", messages=HELLO, stream=True, stream_options={"include_usage": True}
        )
    )
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 48


def test_models(client: openai.OpenAI) -> None:
    listed = {m.id for m in client.models.list()}
    assert {"mock-model", "tea"} <= listed
    assert client.models.retrieve("tea").id == "tea"
    with pytest.raises(openai.NotFoundError, match=r"mock-modle.*mock-model"):
        client.models.retrieve("mock-modle")


def test_unknown_fields_reach_the_model(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="mock-model", messages=HELLO, max_tokens=3, extra_body={"nobody_knows": {"this": 1}}
    )
    assert answer.choices[0].finish_reason == "length"


def test_an_app_answers_with_annotations_that_lead_to_the_passage(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="tea", messages=[{"role": "user", "content": "How hot is green tea brewed?"}]
    )
    message = answer.choices[0].message
    assert message.annotations
    mark = message.annotations[0].url_citation
    assert (message.content or "")[mark.start_index : mark.end_index].endswith("[1]")
    passage = client.get(mark.url.removeprefix("/v1"), cast_to=dict)
    assert "80 degrees" in passage["text"]


def test_an_app_streams_with_annotations_in_the_last_chunk(client: openai.OpenAI) -> None:
    question: Any = [{"role": "user", "content": "How hot is green tea brewed?"}]
    plain = list(client.chat.completions.create(model="tea", messages=question, stream=True))
    assert all(c.choices for c in plain)
    assert plain[-1].choices[0].finish_reason == "stop"
    assert plain[-1].choices[0].delta.annotations  # type: ignore[attr-defined]  # newer than the client's own type
    more: Any = {"include_usage": True, "include_progress": True}
    chunks: list[Any] = list(
        client.chat.completions.create(
            model="tea", messages=question, stream=True, stream_options=more
        )
    )
    labels = [
        c.slipway["progress"]["label"]
        for c in chunks
        if not c.choices and "progress" in (getattr(c, "slipway", None) or {})
    ]
    assert any("passages found" in label for label in labels)
    assert chunks[-1].usage.completion_tokens > 0


@pytest.mark.parametrize(
    ("model", "kind", "code", "says"),
    [
        (
            "nobody",
            openai.NotFoundError,
            "model_not_found",
            "There is no model or app `nobody`",
        ),
        ("fault-context", openai.BadRequestError, "context_length_exceeded", "context"),
        ("fault-status-429-2", openai.RateLimitError, "provider_limit", "limiting us"),
        ("fault-status-503", openai.InternalServerError, "provider_down", "failed (503)"),
        ("fault-status-401", openai.InternalServerError, "provider_key", "did not accept our key"),
        ("wrong-key", openai.InternalServerError, "provider_key", "did not accept our key"),
        ("gone", openai.InternalServerError, "provider_down", "nothing listens there"),
        (
            "fault-hang",
            openai.InternalServerError,
            "provider_slow",
            "did not begin to answer within 0.7 s",
        ),
        ("fault-stall-3", openai.InternalServerError, "provider_slow", "fell silent for 0.7 s"),
        ("fault-cut-5", openai.InternalServerError, "provider_cut", "in the middle of its answer"),
        ("fault-reset", openai.InternalServerError, "provider_down", "without an answer"),
        ("fault-error200", openai.InternalServerError, "provider_down", "failed"),
        (
            "fault-html",
            openai.InternalServerError,
            "provider_nonsense",
            "did not answer with a completion",
        ),
        (
            "fault-empty",
            openai.InternalServerError,
            "provider_nonsense",
            "did not answer with a completion",
        ),
        ("fault-redirect", openai.InternalServerError, "provider_nonsense", "307"),
    ],
)
def test_each_failure_is_the_error_that_the_client_knows(
    client: openai.OpenAI, model: str, kind: type[openai.APIStatusError], code: str, says: str
) -> None:
    with pytest.raises(kind) as caught:
        client.chat.completions.create(model=model, messages=HELLO)
    error = caught.value
    assert error.code == code
    assert says in error.message
    ours = error.body["slipway"]  # type: ignore[index]
    assert ours["what"]
    assert ours["ref"] == error.response.headers["x-slipway-answer-id"] or ours["ref"].startswith(
        "ref-"
    )
    assert error.response.headers["x-should-retry"] == str(ours["retryable"]).lower()
    assert "sk-" not in error.response.text


def test_retry_after_is_passed_on(client: openai.OpenAI) -> None:
    with pytest.raises(openai.RateLimitError) as caught:
        client.chat.completions.create(model="fault-status-429-2", messages=HELLO)
    assert caught.value.response.headers["retry-after"] == "2"


@pytest.mark.parametrize(
    "model",
    [
        "fault-cut-5",
        "fault-malformed-2",
        "fault-stall-3",
        "fault-errorevent-2",
        "fault-empty",
        "fault-html",
    ],
)
def test_a_broken_stream_is_never_reported_as_success(client: openai.OpenAI, model: str) -> None:
    with pytest.raises(openai.APIError) as caught:
        list(client.chat.completions.create(model=model, messages=HELLO, stream=True))
    assert caught.value.body["slipway"]["retryable"] is True  # type: ignore[index]


def test_client_timeouts_are_its_own(client: openai.OpenAI) -> None:
    with pytest.raises(openai.APITimeoutError):
        client.chat.completions.create(model="fault-hang", messages=HELLO, timeout=0.2)


def test_keys(server: Serving) -> None:
    with (
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="nope-nope", max_retries=0) as stranger,
        pytest.raises(openai.AuthenticationError),
    ):
        stranger.models.list()
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="test-key-2", max_retries=0) as guest:
        assert [m.id for m in guest.models.list()] == ["tea"]
        with pytest.raises(openai.NotFoundError, match=r"no model or app `mock-model`.*tea"):
            guest.chat.completions.create(model="mock-model", messages=HELLO)
        assert guest.chat.completions.create(model="tea", messages=HELLO).choices


@pytest.mark.parametrize(
    ("body", "param", "says"),
    [
        (
            {"model": "mock-model", "messages": "hi"},
            "messages",
            "`messages` must be a list, not a string",
        ),
        ({"model": "mock-model", "messages": []}, "messages", "`messages` is empty"),
        (
            {"model": "mock-model", "messages": [{"role": "boss", "content": "x"}]},
            "messages[0].role",
            "is not a role",
        ),
        (
            {"model": "mock-model", "messages": [{"role": "user", "content": 5}]},
            "messages[0].content",
            "must be a string or a list of parts",
        ),
        ({"messages": HELLO}, "model", "`model` is missing"),
        ({"model": 5, "messages": HELLO}, "model", "must be a string"),
        (
            {"model": "mock-model", "messages": HELLO, "stream": "yes"},
            "stream",
            "must be true or false",
        ),
        (
            {"model": "tea", "messages": [{"role": "user", "content": ["x"]}]},
            "messages[0].content",
            "a list of parts, each an object",
        ),
        (
            {
                "model": "tea",
                "messages": [{"role": "user", "content": [{"type": "text", "text": None}]}],
            },
            "messages",
            "has no text",
        ),
        ({"model": "tea", "messages": HELLO, "n": 2}, "n", "cannot be used with the app `tea`"),
        (
            {"model": "tea", "messages": [{"role": "user", "content": " "}]},
            "messages",
            "has no text",
        ),
    ],
)
def test_bad_requests_name_the_field_and_the_fix(
    client: openai.OpenAI, body: object, param: str, says: str
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.post("/chat/completions", body=body, cast_to=object)
    assert caught.value.param == param
    assert says in caught.value.message


def test_logs_hold_no_keys_and_no_words_of_the_question(server: Serving) -> None:
    assert "test-key" not in server.log
    assert "sk-upstream" not in server.log
    assert "Hello" not in server.log
