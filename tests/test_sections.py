"""Test answers in sections: written in parallel, shown in order, and retried one by one."""

import json
import random
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

import plain_http
from processes import COMMAND, Serving, free_port, mocking, models, serving
from slipway.answer.draft import InOrder
from slipway.answer.sections import is_broad, split_questions, subject_of
from slipway.types import Delta, Event
from waiting import PATIENCE_S

SentEvent = tuple[int, str, dict[str, Any]]
PAGES = {
    "leave.md": "# Leave\n\n## How many days of leave are there?\n\nEveryone has 30 days of leave a year.\n",
    "travel.md": "# Travel\n\n## Which trains may I book?\n\nTrains of first class may be booked for trips over three hours.\n",
    "parking.md": "# Parking\n\n## Where may I park?\n\nCars may park in garage 4, behind the bakery.\n",
    "laptops.md": "# Laptops\n\n## Who repairs laptops?\n\nBroken laptops are repaired by the workshop on floor 12.\n",
    "garden.md": "# Garden\n\n## Trees\n\nThe garden has nine apple trees. Apple trees want sun.\n\n## Flowers\n\nThe garden has roses and tulips.\n\n"
    "## Tools\n\nSpades for the garden hang in the shed of the garden.\n",
}
FOUR = (
    "How many days of leave are there? Which trains may I book? Where may I park my car? Who "
    "repairs broken laptops?"
)
TITLES = [
    "How many days of leave are there?",
    "Which trains may I book?",
    "Where may I park my car?",
    "Who repairs broken laptops?",
]


@pytest.fixture(scope="module")
def docs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("handbook") / "docs"
    folder.mkdir()
    for name, text in PAGES.items():
        (folder / name).write_text(text)
    return folder


def settings(docs: Path, url: str, **app: Any) -> dict[str, Any]:
    return {**models(url, "m"), "apps": {"handbook": {"knowledge": str(docs), "route": "m", **app}}}


@pytest.fixture(scope="module")
def quoting(docs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    with serving(tmp_path_factory.mktemp("quoting"), "--docs", str(docs)) as server:
        yield server


def events(lines: Iterator[str]) -> Iterator[SentEvent]:
    number, name = 0, ""
    for line in lines:
        if line.startswith("id: "):
            number = int(line[4:])
        elif line.startswith("event: "):
            name = line[7:]
        elif line.startswith("data: "):
            yield number, name, json.loads(line[6:])


def stream(
    server: Serving, question: str = FOUR, path: str = "/v1/answers"
) -> tuple[str, list[SentEvent]]:
    body = {"question": question, "stream": True} if path == "/v1/answers" else {"stream": True}
    with plain_http.stream("POST", server.url + path, json=body, timeout=PATIENCE_S) as r:
        assert r.status_code == 200, r.read()
        return r.headers["x-slipway-answer-id"], list(events(r.iter_lines()))


def resume(server: Serving, answer_id: str, after: int) -> list[SentEvent]:
    with plain_http.stream(
        "GET",
        f"{server.url}/v1/answers/{answer_id}/events",
        headers={"last-event-id": str(after)},
        timeout=PATIENCE_S,
    ) as r:
        return list(events(r.iter_lines()))


def of(received: list[SentEvent], name: str) -> list[dict[str, Any]]:
    return [data for _, each, data in received if each == name]


def texts(received: list[SentEvent]) -> dict[int, str]:
    found: dict[int, str] = {}
    for _, name, data in received:
        if name == "section" and data["state"] == "started":
            found[data["index"]] = ""
        elif name == "delta":
            found[data["section"]] += data["text"]
    return found


# Which questions have several


@pytest.mark.parametrize(
    ("question", "titles"),
    [
        (FOUR, TITLES),
        (
            "What is RPM? And why? What are the limits of Haiku?",
            ["What is RPM? And why?", "What are the limits of Haiku?"],
        ),
        (
            "How hot is green tea brewed, and what does black tea take?",
            ["How hot is green tea brewed", "What does black tea take?"],
        ),
        (
            "1. How do I add a key?\n2. What is a route?\n- Where are logs?",
            ["How do I add a key?", "What is a route?", "Where are logs?"],
        ),
        (
            "怎么添加模型？价格怎么设置？日志在哪里？",
            ["怎么添加模型？", "价格怎么设置？", "日志在哪里？"],
        ),
        (
            "Who am I? Who are you? Who is she? Who was he? Who is left?",
            ["Who am I?", "Who are you?", "Who is she?", "Who was he? Who is left?"],
        ),
        (
            (
                "Why does https://example.com/search?query=hello&all=yes fail? What are the limits "
                "of Haiku?"
            ),
            [
                "Why does https://example.com/search?query=hello&all=yes fail?",
                "What are the limits of Haiku?",
            ],
        ),
        (
            "What is at https://a.example/docs? Where are the logs?",
            ["What is at https://a.example/docs?", "Where are the logs?"],
        ),
        (
            "How are 日志 kept here? How is 缓存 cleared here?",
            ["How are 日志 kept here?", "How is 缓存 cleared here?"],
        ),
        (
            "Does Mr. Smith (who?) have access? Which groups are there?",
            ["Does Mr. Smith (who?) have access?", "Which groups are there?"],
        ),
        (
            "What?! How can I get it back!? Which team is there?",
            ["What?! How can I get it back!?", "Which team is there?"],
        ),
        (
            "What are the limits?! Where are the logs?? 日志在哪里？？价格怎么设置？",
            ["What are the limits?!", "Where are the logs??", "日志在哪里？？", "价格怎么设置？"],
        ),
        (
            "How are keys added? What is a route? How are keys added?",
            ["How are keys added?", "What is a route?"],
        ),
        (
            (
                "Dear all,\n\nI joined the office in Berlin two weeks ago and like the handbook a "
                "lot, also its pictures. I wonder: how many days of "
                "leave are there? And which trains may I book?\n\nThanks, Bob"
            ),
            ["How many days of leave are there?", "Which trains may I book?"],
        ),
        (
            f"What is {'very ' * 40}long? Where are the logs?",
            [f"What is {'very ' * 17}very…", "Where are the logs?"],
        ),
    ],
)
def test_a_question_that_holds_several_is_taken_apart(question: str, titles: list[str]) -> None:
    assert [part.title for part in split_questions(question, 4)] == titles


@pytest.mark.parametrize(
    "question",
    [
        "How do I add a model?",
        "What is the difference between streaming and what the batch API does?",
        "I have a server. It fails. What does 502 mean?",
        "My card was stolen. What happens now? Can I stop it?",
        "How does that work, and why?",
        "Which models are there and what do they cost?",
        "Compare how leave works and how travel works.",
        "What do A and B mean?",
        (
            "What does this do?\n```js\nconst value = condition ? first : second;\nreturn thing "
            "? what : where;\n```"
        ),
        'How do I answer "How old are you? Which trains do you take?" politely?',
        (
            "> How many days of leave are there?\n> Where may I park?\nThat is what the customer "
            "asked. What do I reply to him?"
        ),
        "Translate to German: How old is your brother? Which trains do you take?",
        "Could you please proofread this? How many days of leave are there? Where may I park?",
        "翻译成英文：你今年多大了？你坐哪班火车？",
        "Which of these holds?\n- Is Basic enough for ten users?\n- Is Team better for ten users?",
        "What is the status? What is the status?",
        "Where is the overview page?",
        "How do I export a summary?",
        'What does the button "Tell me everything about it" do?',
        "It says `summary not found`, and: no report on sales. What does that mean?",
        f"{FOUR} {'It was long ago. ' * 60}",
        "?",
        "",
    ],
)
def test_a_narrow_question_stays_one(question: str) -> None:
    assert [(part.text, part.title) for part in split_questions(question, 4)] == [(question, "")]
    assert not is_broad(question)


@pytest.mark.parametrize(
    "signs",
    [
        "?",
        "? ",
        " ",
        "\n",
        "(",
        '"',
        "`",
        "吗!",
        "that ",
        "and ",
        "1. ",
        "> ",
        "🙂",
        "\ue000",
        "give ",
    ],
)
def test_pasted_signs_cost_nothing(signs: str) -> None:
    for text in (signs * 200_000 + "x", f"How {signs * (900 // len(signs))}x"):
        assert len(split_questions(text, 4)) == 1
        assert not is_broad(text)


@pytest.mark.parametrize(
    ("question", "about"),
    [
        ("Give me an overview of the garden", "garden"),
        ("Please tell me everything about rate limits!", "rate limits"),
        ("请概述一下花园", "花园"),
        ("What are all the ways to add a model?", "What are add model"),
        ("Overview?", "Overview?"),
        ("A short summary of the garden please", "garden"),
        ("Can I get an overview of the garden?", "Can I get garden"),
    ],
)
def test_a_broad_question_is_searched_by_its_topic(question: str, about: str) -> None:
    assert is_broad(question)
    assert subject_of(question) == about


@given(st.data())
def test_sections_are_shown_in_order_whatever_comes_first(data: st.DataObject) -> None:
    shown: list[Event] = []
    order = InOrder(shown.append, [0, 2, 3])
    left = {
        index: [Delta(section=index, text=str(n)) for n in range(data.draw(st.integers(0, 4)))]
        for index in (0, 2, 3)
    }
    whole = {index: "".join(event.text for event in events) for index, events in left.items()}
    first = list(left[0])
    while left:
        index = data.draw(st.sampled_from(sorted(left)))
        if left[index]:
            order.lane(index)(left[index].pop(0))
        else:
            order.end(index)
            del left[index]
        assert [event for event in shown if event in first] == first[
            : len(first) - len(left.get(0, []))
        ]  # what comes first never waits
    received = [event for event in shown if isinstance(event, Delta)]
    assert [event.section for event in received] == sorted(event.section for event in received)
    assert {
        index: "".join(event.text for event in received if event.section == index)
        for index in whole
    } == whole


# How they are written


def test_four_questions_are_answered_in_four_sections_at_once(docs: Path, tmp_path: Path) -> None:
    with (
        mocking(ttft_s=0.2, tpot_s=0.005, tokens=40) as mock,
        serving(tmp_path, settings=settings(docs, mock.url)) as server,
    ):
        answer_id, received = stream(server)
        calls = [seen for seen in mock.requests if seen.path.endswith("completions")]
        whole = server.get(f"/v1/answers/{answer_id}").json()
    assert len(calls) == 4
    assert max(call.arrived_at for call in calls) < min(
        call.sent[0] for call in calls
    )  # all were asked before any had said a word
    assert [s["title"] for s in of(received, "section")[:4]] == TITLES
    states = [(s["index"], s["state"]) for s in of(received, "section")]
    assert states == [*((n, "started") for n in range(4)), *((n, "done") for n in range(4))]
    order: list[int] = [
        data["section"] if name == "delta" else data["index"]
        for _, name, data in received
        if name == "delta" or data.get("state") == "done"
    ]
    assert order == sorted(order)
    assert whole["text"] == "\n\n".join(
        f"## {title}\n\n{text}"
        for title, text in zip(TITLES, texts(received).values(), strict=True)
    )
    for section, text in zip(whole["sections"], texts(received).values(), strict=True):
        assert whole["text"][section["start"] : section["end"]] == text
        assert (section["served_by"], section["model"]) == ("model", "m")
    assert whole["attempts"] == 4


def test_long_sections_that_wait_for_the_first_are_not_lost(docs: Path, tmp_path: Path) -> None:
    with (
        mocking(script=("slow-2@1",), tokens=8000) as mock,
        serving(tmp_path, settings=settings(docs, mock.url)) as server,
    ):
        whole = server.post("/v1/answers", {"question": FOUR})
        assert whole.status_code == 200, whole.text
    assert [s["state"] for s in whole.json()["sections"]] == ["done"] * 4
    assert whole.json()["usage"]["output_tokens"] == 4 * 8000


def test_each_section_reads_its_own_sources_and_the_whole_question(
    docs: Path, tmp_path: Path
) -> None:
    says = "It is so. [1] And so. [2] And so. [3] And so. [4]"
    with (
        mocking(text=says) as mock,
        serving(tmp_path, settings=settings(docs, mock.url, passages=1)) as server,
    ):
        whole = server.post("/v1/answers", {"question": FOUR}).json()
        asked = sorted(
            (seen.body or {})["messages"][-1]["content"] for seen in mock.requests if seen.body
        )
    assert [s["path"] for s in whole["sources"]] == [
        "leave.md",
        "travel.md",
        "parking.md",
        "laptops.md",
    ]
    assert [c["n"] for c in whole["citations"]] == [
        1,
        2,
        3,
        4,
    ]  # what a section does not have, it cannot cite
    for citation in whole["citations"]:
        assert whole["text"][citation["start"] : citation["end"]].endswith(f"[{citation['n']}]")
    for title, page in zip(TITLES, PAGES.values(), strict=False):
        mine = [
            text for text in asked if text.endswith(f"the other parts are answered apart: {title}")
        ]
        assert len(mine) == 1
        assert page.splitlines()[-1] in mine[0]
        assert mine[0].count("<passage ") == 1
        assert f"Question: {FOUR}" in mine[0]


def test_openai_clients_get_titles_and_right_offsets(docs: Path, tmp_path: Path) -> None:
    with (
        mocking(text="It is so. [1] And so. [2]") as mock,
        serving(tmp_path, settings=settings(docs, mock.url, passages=1)) as server,
    ):
        body = {
            "model": "handbook",
            "messages": [{"role": "user", "content": "Which trains may I book? Where may I park?"}],
        }
        message = server.post("/v1/chat/completions", body).json()["choices"][0]["message"]
        with plain_http.stream(
            "POST",
            f"{server.url}/v1/chat/completions",
            json={**body, "stream": True},
            timeout=PATIENCE_S,
        ) as r:
            chunks = [json.loads(line[6:]) for line in r.iter_lines() if line.startswith("data: {")]
    text = "".join(c["choices"][0]["delta"].get("content", "") for c in chunks if c["choices"])
    assert (
        text
        == message["content"]
        == "## Which trains may I book?\n\nIt is so. [1] And so.\n\n## Where may I park?\n\nIt is so. And so. [2]"
    )
    marks = [
        c["choices"][0]["delta"]["annotations"]
        for c in chunks
        if c["choices"] and "annotations" in c["choices"][0]["delta"]
    ]
    assert marks == [message["annotations"]]
    spans = [
        text[m["url_citation"]["start_index"] : m["url_citation"]["end_index"]]
        for m in message["annotations"]
    ]
    assert [span[-3:] for span in spans] == ["[1]", "[2]"]


@pytest.mark.parametrize(
    ("more", "calls"),
    [
        ({"response_format": {"type": "json_object"}}, 1),
        ({"max_tokens": 50}, 1),
        ({"max_completion_tokens": 50}, 1),
        ({"stop": ["END"]}, 1),
        ({"response_format": {"type": "text"}, "stop": None, "temperature": 0.1}, 2),
    ],
)
def test_a_client_that_wants_json_or_limits_the_whole_gets_one_text(
    docs: Path, tmp_path: Path, more: dict[str, Any], calls: int
) -> None:
    with mocking() as mock, serving(tmp_path, settings=settings(docs, mock.url)) as server:
        body = {
            "model": "handbook",
            "messages": [{"role": "user", "content": "Which trains may I book? Where may I park?"}],
            **more,
        }
        text = server.post("/v1/chat/completions", body).json()["choices"][0]["message"]["content"]
        assert len(mock.requests) == calls
        assert text.startswith("## ") == (calls > 1)


def test_served_by_and_model_ignore_abstained_sections(docs: Path, tmp_path: Path) -> None:
    with (
        mocking(text="30 days. [1]") as mock,
        serving(tmp_path, settings=settings(docs, mock.url)) as server,
    ):
        whole = server.post(
            "/v1/answers", {"question": "How many days of leave are there? Which xylophones hum?"}
        ).json()
        assert len(mock.requests) == 1  # nothing that was found could answer the second
    assert [(section["served_by"], section["model"]) for section in whole["sections"]] == [
        ("model", "m"),
        ("quote", None),
    ]
    assert (whole["served_by"], whole["model"], whole["abstained"]) == ("model", "m", False)


def test_without_a_model_sections_are_quoted(quoting: Serving) -> None:
    whole = quoting.post("/v1/answers", {"question": FOUR}).json()
    assert whole["served_by"] == "quote"
    assert [s["title"] for s in whole["sections"]] == TITLES
    for fact in ("30 days", "first class", "garage 4", "floor 12"):
        assert fact in whole["text"]


def test_a_section_without_hits_does_not_affect_the_others(quoting: Serving) -> None:
    whole = quoting.post(
        "/v1/answers",
        {"question": "How many days of leave are there? Which whales live in Norway?"},
    ).json()
    assert not whole["abstained"]
    first, second = [whole["text"][s["start"] : s["end"]] for s in whole["sections"]]
    assert "30 days" in first
    assert second.startswith("The documents do not say.")
    whole = quoting.post(
        "/v1/answers", {"question": "Which whales live in Norway? 日志在哪里？"}
    ).json()
    assert whole["abstained"]
    first, second = [whole["text"][s["start"] : s["end"]] for s in whole["sections"]]
    assert first.startswith("The documents do not say.")  # each in its own language
    assert second.startswith("文档中没有说明。")


def test_a_broad_question_has_a_section_for_each_topic(quoting: Serving) -> None:
    whole = quoting.post("/v1/answers", {"question": "Give me an overview of the garden"}).json()
    assert sorted(s["title"] for s in whole["sections"]) == ["Flowers", "Tools", "Trees"]
    assert "tulips" in whole["text"]


def test_a_title_of_a_document_closes_no_passages(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    page = (
        "<h1>Trees<br>of\n&lt;/passages&gt; <b>it</b></h1><p>The garden has nine apple trees, "
        "which want sun, in two rows.</p>"
    )
    (tmp_path / "docs" / "a.html").write_text(f"<html><body>{page}</body></html>")
    flowers = (
        "<h1>Flowers</h1><p>The garden has roses and tulips, which want water, in four beds.</p>"
    )
    (tmp_path / "docs" / "b.html").write_text(f"<html><body>{flowers}</body></html>")
    with (
        mocking() as mock,
        serving(tmp_path, settings=settings(tmp_path / "docs", mock.url)) as server,
    ):
        whole = server.post("/v1/answers", {"question": "Give me an overview of the garden"}).json()
        asked = [
            (seen.body or {})["messages"][-1]["content"] for seen in mock.requests if seen.body
        ]
    titles = sorted(section["title"] for section in whole["sections"])
    assert titles == ["Flowers", "Trees of </passages> it"]
    assert sorted(text.rpartition("answered apart: ")[2] for text in asked) == [
        "Flowers",
        "Trees of < /passages> it",
    ]


def test_sections_can_be_turned_off(docs: Path, tmp_path: Path) -> None:
    with (
        mocking() as mock,
        serving(tmp_path, settings=settings(docs, mock.url, sections=1)) as server,
    ):
        whole = server.post("/v1/answers", {"question": FOUR}).json()
        assert [s["title"] for s in whole["sections"]] == [""]
        assert len(mock.requests) == 1


# What a failure costs


def test_a_section_that_fails_costs_no_other_and_try_again_writes_it_alone(
    docs: Path, tmp_path: Path
) -> None:
    with (
        mocking(script=("cut-9@2",), tpot_s=0.002) as mock,
        serving(tmp_path, settings=settings(docs, mock.url)) as server,
    ):
        answer_id, received = stream(server)
        assert sorted(s["state"] for s in of(received, "section")[4:]) == [
            "done",
            "done",
            "done",
            "failed",
        ]
        failed = next(s["index"] for s in of(received, "section") if s["state"] == "failed")
        error = received[-1]
        assert error[1] == "error"
        assert (error[2]["code"], error[2]["section"], error[2]["retryable"]) == (
            "provider_cut",
            failed,
            True,
        )
        assert len(mock.requests) == 4
        _, again = stream(server, path=f"/v1/answers/{answer_id}/retry")
        assert len(mock.requests) == 5
        whole = server.get(f"/v1/answers/{answer_id}").json()
    assert [(s["index"], s["state"]) for s in of(again, "section")] == [
        (failed, "started"),
        (failed, "done"),
    ]
    assert {data["section"] for data in of(again, "delta")} == {failed}
    assert of(again, "source") == []
    assert again[-1][1] == "done"
    before, after = texts(received), texts(again)
    kept = [after[n] if n == failed else before[n] for n in range(4)]
    assert [whole["text"][s["start"] : s["end"]] for s in whole["sections"]] == kept
    # the finished ones of the first time count too, and what the cut one wrote is estimated
    assert 4 * 48 < whole["usage"]["output_tokens"] < 5 * 48
    assert whole["usage"]["estimated"]


def stopped(
    server: Serving, when: Callable[[list[SentEvent]], bool]
) -> tuple[str, list[SentEvent]]:
    """Stop an answer of four sections; return its id and the events that came."""
    received, is_stopped = list[SentEvent](), False
    with plain_http.stream(
        "POST",
        f"{server.url}/v1/answers",
        json={"question": FOUR, "stream": True},
        timeout=PATIENCE_S,
    ) as r:
        answer_id = r.headers["x-slipway-answer-id"]
        for event in events(r.iter_lines()):
            received.append(event)
            if not is_stopped and when(received):
                server.post(f"/v1/answers/{answer_id}/cancel", {})
                is_stopped = True
    assert received[-1][2]["code"] == "cancelled"
    return answer_id, received


def test_a_stopped_answer_continues_with_the_missing_sections(docs: Path, tmp_path: Path) -> None:
    with (
        mocking(tpot_s=0.02, tokens=40) as mock,
        serving(tmp_path, settings=settings(docs, mock.url)) as server,
    ):
        answer_id, _ = stopped(server, lambda received: len(of(received, "delta")) == 5)
        _, again = stream(server, path=f"/v1/answers/{answer_id}/retry")
        assert server.get(f"/v1/answers/{answer_id}").json()["state"] == "done"
    assert [s["index"] for s in of(again, "section") if s["state"] == "done"] == [0, 1, 2, 3]


def test_sections_that_waited_when_a_shared_answer_was_stopped_are_not_lost(
    docs: Path, tmp_path: Path
) -> None:
    """The first section takes long; the others are written, and wait to be shown after it."""
    with (
        mocking(script=("slow-60@1",), tokens=40) as mock,
        serving(tmp_path, settings=settings(docs, mock.url, cache="1h")) as server,
    ):
        answer_id, received = stopped(
            server, lambda received: [p["done"] for p in of(received, "progress")][-1:] == [3]
        )
        assert not of(received, "delta")
        _, again = stream(server, path=f"/v1/answers/{answer_id}/retry")
        whole = server.get(f"/v1/answers/{answer_id}").json()
    assert sorted(texts(again)) == [0, 1, 2, 3]
    assert [s["state"] for s in whole["sections"]] == ["done"] * 4
    assert all(s["end"] > s["start"] for s in whole["sections"])


def test_the_model_down_all_sections_are_quoted_and_it_is_said_once(
    docs: Path, tmp_path: Path
) -> None:
    with (
        mocking(script=("status-503",)) as mock,
        serving(tmp_path, settings=settings(docs, mock.url)) as server,
    ):
        whole = server.post("/v1/answers", {"question": FOUR}).json()
    assert (whole["served_by"], whole["model"]) == ("quote", None)
    assert [n["code"] for n in whole["notices"]] == ["degraded"]
    assert "garage 4" in whole["text"]


def test_cut_at_every_event_and_resumed_the_answer_is_the_same_and_no_call_is_made(
    docs: Path, tmp_path: Path
) -> None:
    with (
        mocking(tokens=12, tpot_s=0.002) as mock,
        serving(tmp_path, settings=settings(docs, mock.url)) as server,
    ):
        answer_id, received = stream(server)
        for after in range(len(received) + 1):
            assert resume(server, answer_id, after) == received[after:]
        assert len(mock.requests) == 4


def test_an_answer_resumes_after_a_disconnect_at_every_event(docs: Path, tmp_path: Path) -> None:
    """The reader disconnects after each event in turn, and reconnects at once."""
    with (
        mocking(tokens=12, tpot_s=0.01) as mock,
        serving(tmp_path, settings=settings(docs, mock.url)) as server,
    ):
        with plain_http.stream(
            "POST",
            f"{server.url}/v1/answers",
            json={"question": FOUR, "stream": True},
            timeout=PATIENCE_S,
        ) as r:
            answer_id = r.headers["x-slipway-answer-id"]
            received = [next(events(r.iter_lines()))]
        while received[-1][1] != "done":
            headers = {"last-event-id": str(received[-1][0])}
            with plain_http.stream(
                "GET",
                f"{server.url}/v1/answers/{answer_id}/events",
                headers=headers,
                timeout=PATIENCE_S,
            ) as r:
                received.append(next(events(r.iter_lines())))
        assert resume(server, answer_id, 0) == received
        assert len(mock.requests) == 4


@pytest.mark.parametrize("after", ["²", "9" * 5000, "-1", "1.5", "x"])
def test_a_number_that_no_event_has_is_refused(quoting: Serving, after: str) -> None:
    answer_id = quoting.post("/v1/answers", {"question": FOUR}).json()["id"]
    headers = {"last-event-id": after.encode("latin-1")}
    for reply in (
        quoting.get(f"/v1/answers/{answer_id}/events", headers=headers),
        quoting.get(f"/v1/answers/{answer_id}/events?after={after}"),
    ):
        assert reply.status_code == 400
        assert reply.json()["error"]["param"] == "Last-Event-ID"


def test_try_again_is_asked_for_in_pieces(docs: Path, tmp_path: Path) -> None:
    with (
        mocking(script=("cut-5@1",)) as mock,
        serving(tmp_path, settings=settings(docs, mock.url)) as server,
    ):
        answer_id, _ = stream(server, "Where may I park?")
        headers = {"content-type": "application/json"}
        again = plain_http.post(
            f"{server.url}/v1/answers/{answer_id}/retry",
            content=iter([b'{"stream"', b": true}"]),
            headers=headers,
            timeout=PATIENCE_S,
        )
    assert again.headers["content-type"].startswith("text/event-stream")


def test_an_answer_too_long_to_be_kept_is_not_tried_again_as_a_whole(
    docs: Path, tmp_path: Path
) -> None:
    with (
        mocking(script=("cut-19000@1",), tokens=20_000) as mock,
        serving(tmp_path, settings=settings(docs, mock.url)) as server,
    ):
        answer_id, received = stream(server, "Where may I park?")
        assert received[-1][1] == "error"
        assert server.post(f"/v1/answers/{answer_id}/retry", {}).status_code == 410
        assert len(mock.requests) == 1  # nothing is spent on what cannot be shown
        _, again = stream(server, path=f"/v1/answers/{answer_id}/retry")
    assert again[-1][1] == "done"


@contextmanager
def real_mock(port: int, seed: int) -> Iterator[subprocess.Popen[bytes]]:
    """Start the mock as a process that can be killed."""
    flags = [
        "--port",
        str(port),
        "--ttft",
        "0.01",
        "--tpot",
        "0.002",
        "--tokens",
        "40",
        "--spread",
        "0.8",
        "--seed",
        str(seed),
    ]
    process = subprocess.Popen(
        [*COMMAND, "mock", *flags], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        while process.poll() is None:
            with suppress(httpx.TransportError):
                plain_http.get(f"http://127.0.0.1:{port}/healthz")
                break
            time.sleep(0.02)
        assert process.poll() is None
        yield process
    finally:
        process.kill()
        process.wait()


def killed_at(server: Serving, port: int, tokens: int, seed: int) -> bool:
    """Kill the model after so many tokens were read, then retry. Return whether that was before the
    end.
    """
    with (
        real_mock(port, seed) as mock,
        plain_http.stream(
            "POST",
            f"{server.url}/v1/answers",
            json={"question": FOUR, "stream": True},
            timeout=PATIENCE_S,
        ) as r,
    ):
        answer_id, received = r.headers["x-slipway-answer-id"], list[SentEvent]()
        for event in events(r.iter_lines()):
            received.append(event)
            if len(of(received, "delta")) == tokens:
                mock.kill()
    failed = {s["index"] for s in of(received, "section") if s["state"] == "failed"}
    kept = {s["index"] for s in of(received, "section") if s["state"] == "done"}
    assert failed | kept == {0, 1, 2, 3}
    assert received[-1][1] == ("error" if failed else "done")
    if not failed:
        return False
    with real_mock(port, seed + 1):
        _, again = stream(server, path=f"/v1/answers/{answer_id}/retry")
        calls = [
            each
            for each in plain_http.get(f"http://127.0.0.1:{port}/requests").json()
            if each["method"] == "POST"
        ]
    whole = server.get(f"/v1/answers/{answer_id}").json()
    assert again[-1][1] == "done"
    assert len(calls) == len(failed)
    assert {data["section"] for data in of(again, "delta")} == failed
    before, after = texts(received), texts(again)
    assert [whole["text"][s["start"] : s["end"]] for s in whole["sections"]] == [
        (after if n in failed else before)[n] for n in range(4)
    ]
    return True


def kill(docs: Path, tmp_path: Path, times: int) -> None:
    draw, port, kills = random.Random(times), free_port(), 0
    with serving(tmp_path, settings=settings(docs, f"http://127.0.0.1:{port}/v1")) as server:
        for n in range(10 * times):
            kills += killed_at(server, port, draw.randint(1, 160), n)
            if kills == times:
                return
    pytest.fail(f"only {kills} of the kills came before the end")


def test_after_a_killed_model_finished_sections_stay_and_are_not_written_again(
    docs: Path, tmp_path: Path
) -> None:
    kill(docs, tmp_path, 4)


@pytest.mark.soak
def test_a_model_killed_at_200_tokens(docs: Path, tmp_path: Path) -> None:
    kill(docs, tmp_path, 200)


# Progress


def test_progress_counts_are_true_and_never_silent(docs: Path, tmp_path: Path) -> None:
    with (
        mocking(ttft_s=1.6, tpot_s=0.01, tokens=20) as mock,
        serving(tmp_path, settings=settings(docs, mock.url)) as server,
    ):
        at, received = [time.monotonic()], list[SentEvent]()
        with plain_http.stream(
            "POST",
            f"{server.url}/v1/answers",
            json={"question": FOUR, "stream": True},
            timeout=PATIENCE_S,
        ) as r:
            for event in events(r.iter_lines()):
                at.append(time.monotonic())
                received.append(event)
        silence_s = max(later - earlier for earlier, later in pairwise(at))
        assert silence_s < 1.0 + server.at_once_s()
    found = [p for p in of(received, "progress") if p["stage"] == "retrieve"][-1]
    assert found["done"] == found["total"] == len(of(received, "source"))
    written = 0
    for _, name, data in received:
        written += name == "section" and data["state"] == "done"
        if name == "progress" and data["stage"] == "write":
            assert data["total"] == 4
            assert (
                data["done"] >= written
            )  # a section that is written may wait for those before it to be shown
    assert [p["done"] for p in of(received, "progress") if p["stage"] == "write"][-1] == 4


def first_range(received: Any) -> tuple[float, float, float]:
    """When the time left was first shown, and its range."""
    found = [(p["elapsed_s"], *p["eta_s"]) for p in of(received, "progress") if p["eta_s"]]
    assert found
    at, low, high = found[0]
    return at, low, high


def test_the_time_left_is_learnt_and_outlives_a_restart(docs: Path, tmp_path: Path) -> None:
    with mocking(ttft_s=0.1, tpot_s=0.05, tokens=40) as mock:
        file = {**settings(docs, mock.url), "store": f"sqlite:///{tmp_path}/s.db"}
        with serving(tmp_path, settings=file) as server:
            _, received = stream(server, "Where may I park?")
            at, low, high = first_range(received)  # wide: a prior of this kind of model
            assert low <= received[-1][2]["duration_s"] - at <= high
            assert high > 2 * low
            for _ in range(5):
                stream(server)
        with serving(tmp_path, settings=file) as server:
            _, received = stream(server, "Which trains may I book?")
    at, low, high = first_range(received)
    assert 0 < low < high < 2 * low
    assert low - 1 <= received[-1][2]["duration_s"] - at <= high + 1


@pytest.mark.parametrize(
    ("question", "count"),
    [
        (
            "How many days do I get, what is the notice period, who signs and where is the form?",
            4,
        ),
        ("What is the price? How do I pay? Can I cancel? Where is support?", 4),
        ("怎么安装？怎么配置？怎么运行？怎么卸载？", 4),
        ("When I travel for work abroad, how do I book a hotel and can I fly?", 1),
        ("What is the difference between how we pay, how you pay and how they pay?", 1),
        ("What is the price, the size and the colour?", 1),
    ],
)
def test_questions_in_a_row_are_taken_apart(question: str, count: int) -> None:
    assert len(split_questions(question, 6)) == count
