"""Test `/v1/answers`: events, resume, cancel, retry, passages, ownership, and quotes as the
fallback.
"""

import json
import threading
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import plain_http
from processes import Serving, mocking, models, serving
from waiting import until

SentEvent = tuple[int, str, dict[str, Any]]
KEY = {"authorization": "Bearer test-key-1"}
OTHER = {"authorization": "Bearer test-key-2"}
TEA = (
    "# Tea\n\n## Green tea\n\nGreen tea is brewed at 80 degrees for two minutes.\n\n## Black "
    "tea\n\nBlack tea takes boiling water and four minutes.\n"
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    folder = tmp_path_factory.mktemp("answers")
    (folder / "tea.md").write_text(TEA)
    with (
        mocking() as mock,
        mocking(ttft_s=0.05, tpot_s=0.03, tokens=60) as slow,
        mocking(script=("cut-8@1",), tpot_s=0.005) as once,
    ):
        settings = models(
            mock.url,
            "mock-model",
            "fault-status-503",
            "fault-cut-8",
            "fault-malformed-4",
            "fault-context",
        )
        settings["models"]["slow"] = {"base_url": slow.url, "name": "mock-model"}
        settings["models"]["cut-once"] = {"base_url": once.url, "name": "mock-model"}
        settings["models"]["down-too"] = {"base_url": mock.url, "name": "fault-status-503"}
        settings["routes"] = {"two": ["down-too", "mock-model"]}
        for app, route in {
            "tea": "mock-model",
            "down": "fault-status-503",
            "cut": "fault-cut-8",
            "slow-tea": "slow",
            "once": "cut-once",
        }.items():
            settings["apps"] = {
                **settings.get("apps", {}),
                app: {"knowledge": str(folder / "tea.md"), "route": route},
            }
        settings["apps"]["quotes"] = {"knowledge": str(folder / "tea.md")}
        settings["keys"] = [
            {"key": "test-key-1"},
            {"key": "test-key-2"},
            {"key": "test-key-3", "apps": ["quotes"]},
        ]
        with serving(folder, settings=settings) as server:
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


def ask(
    server: Serving,
    app: str,
    question: str = "How hot is green tea brewed?",
    headers: dict[str, str] = KEY,
) -> dict[str, Any]:
    response = server.post("/v1/answers", {"question": question, "app": app}, headers=headers)
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def stream(
    server: Serving, app: str, question: str = "How hot is green tea brewed?"
) -> tuple[str, list[SentEvent]]:
    with plain_http.stream(
        "POST",
        f"{server.url}/v1/answers",
        json={"question": question, "app": app, "stream": True},
        headers=KEY,
        timeout=20,
    ) as r:
        assert r.headers["cache-control"] == "no-cache, no-transform"
        assert r.headers["x-accel-buffering"] == "no"
        return r.headers["x-slipway-answer-id"], list(events(r.iter_lines()))


def resume(server: Serving, answer_id: str, after: int) -> list[SentEvent]:
    with plain_http.stream(
        "GET",
        f"{server.url}/v1/answers/{answer_id}/events",
        headers={**KEY, "last-event-id": str(after)},
        timeout=20,
    ) as r:
        assert r.status_code == 200
        return list(events(r.iter_lines()))


def text(received: list[SentEvent]) -> str:
    return "".join(data["text"] for _, name, data in received if name == "delta")


def test_a_whole_answer_has_the_fields_of_the_design(server: Serving) -> None:
    answer = ask(server, "tea")
    assert {
        "id",
        "text",
        "served_by",
        "model",
        "abstained",
        "sources",
        "sections",
        "usage",
        "cost_usd",
        "notices",
    } <= set(answer)
    assert answer["served_by"] == "model"
    source = answer["sources"][0]
    assert set(source) == {
        "n",
        "id",
        "path",
        "heading",
        "page",
        "start",
        "end",
        "text",
        "version",
        "cited",
    }
    assert (source["path"], source["heading"]) == ("tea.md", "Green tea")
    assert TEA[source["start"] : source["end"]] == source["text"]
    assert answer["usage"]["output_tokens"] > 0


def test_without_a_model_the_sentences_that_answer_are_quoted(server: Serving) -> None:
    answer = ask(server, "quotes")
    assert answer["served_by"] == "quote"
    assert answer["text"].startswith("Green tea is brewed at 80 degrees for two minutes. [1]")
    assert answer["sources"][0]["cited"]


def test_questions_that_the_documents_do_not_answer_get_an_abstention(server: Serving) -> None:
    for app in ("quotes", "tea"):
        answer = ask(server, app, "zzyzx qwertyuiop?")
        assert answer["abstained"]
        assert answer["text"].startswith("The documents do not say.")
        assert not any(s["cited"] for s in answer["sources"])


def test_events_come_in_order_and_fold_to_the_same_answer(server: Serving) -> None:
    answer_id, received = stream(server, "tea")
    assert [n for n, _, _ in received] == list(range(1, len(received) + 1))
    names = [name for _, name, _ in received]
    assert names[0] == "progress"
    assert names[-1] == "done"
    assert {"source", "section", "delta", "citation", "usage"} <= set(names)
    assert text(received) == ask(server, "tea")["text"]
    last_progress = [d for _, n, d in received if n == "progress" and d["stage"] == "retrieve"][-1]
    assert last_progress["done"] == names.count("source")
    kept = server.get(f"/v1/answers/{answer_id}", headers=KEY).json()
    assert kept["text"] == text(received)
    assert kept["state"] == "done"


def test_resume_at_every_event_gives_the_rest(server: Serving) -> None:
    answer_id, received = stream(server, "tea")
    for after in range(len(received) + 1):
        assert resume(server, answer_id, after) == received[after:]


def test_a_dropped_reader_comes_back_and_misses_nothing(server: Serving) -> None:
    body = {"question": "How hot is green tea brewed?", "app": "slow-tea", "stream": True}
    with plain_http.stream(
        "POST", f"{server.url}/v1/answers", json=body, headers=KEY, timeout=20
    ) as r:
        answer_id, lines = r.headers["x-slipway-answer-id"], events(r.iter_lines())
        first = [next(lines) for _ in range(8)]
    rest = resume(server, answer_id, first[-1][0])
    assert [n for n, _, _ in first + rest] == list(range(1, len(first) + len(rest) + 1))
    assert rest[-1][1] == "done"


def test_the_model_down_the_documents_still_answer(server: Serving) -> None:
    answer = ask(server, "down")
    assert answer["served_by"] == "quote"
    assert answer["notices"][0]["code"] == "degraded"
    assert answer["attempts"] == 3  # and tried twice again
    assert "80 degrees" in answer["text"]


def test_a_route_tries_its_next_model(server: Serving) -> None:
    response = server.post(
        "/v1/chat/completions",
        {"model": "two", "messages": [{"role": "user", "content": "x"}]},
        headers=KEY,
    )
    assert response.status_code == 200
    assert response.headers["x-slipway-model"] == "mock-model"
    assert response.headers["x-slipway-attempts"] == "2"


def test_a_cut_keeps_the_text_and_says_so(server: Serving) -> None:
    _, received = stream(server, "cut")
    assert text(received)
    assert received[-1][1] == "error"
    assert received[-1][2]["code"] == "provider_cut"
    assert received[-1][2]["retryable"]
    assert "done" not in [name for _, name, _ in received]
    response = server.post(
        "/v1/answers", {"question": "How hot is green tea brewed?", "app": "cut"}, headers=KEY
    )
    assert response.status_code == 502


def test_a_retry_continues_the_same_answer(server: Serving) -> None:
    answer_id, received = stream(server, "once")
    assert received[-1][1] == "error"
    with plain_http.stream(
        "POST",
        f"{server.url}/v1/answers/{answer_id}/retry",
        json={"stream": True},
        headers=KEY,
        timeout=20,
    ) as r:
        again = list(events(r.iter_lines()))
    assert again[0][0] == received[-1][0] + 1
    assert again[-1][1] == "done"
    kept = server.get(f"/v1/answers/{answer_id}", headers=KEY).json()
    assert kept["text"] == text(again)
    assert [s["n"] for s in kept["sources"]] == list(range(1, len(kept["sources"]) + 1))
    refused = server.post(f"/v1/answers/{answer_id}/retry", {}, headers=KEY)
    assert refused.status_code == 409


def test_cancel_stops_the_model_and_keeps_the_text(server: Serving) -> None:
    body = {"question": "How hot is green tea brewed?", "app": "slow-tea", "stream": True}
    received: list[SentEvent] = []
    with plain_http.stream(
        "POST", f"{server.url}/v1/answers", json=body, headers=KEY, timeout=20
    ) as r:
        answer_id = r.headers["x-slipway-answer-id"]
        for event in events(r.iter_lines()):
            received.append(event)
            if event[1] == "delta" and len(received) > 8:
                threading.Thread(
                    target=server.post,
                    args=(f"/v1/answers/{answer_id}/cancel", {}),
                    kwargs={"headers": KEY},
                ).start()
    assert received[-1][1] == "error"
    assert received[-1][2]["code"] == "cancelled"
    assert text(received)


def test_answers_and_passages_belong_to_their_key(server: Serving) -> None:
    answer = ask(server, "tea")
    for headers in (OTHER, {"authorization": "Bearer test-key-3"}):
        for path in (
            f"/v1/answers/{answer['id']}",
            f"/v1/answers/{answer['id']}/events",
            "/v1/answers/ans-0",
        ):
            assert server.get(path, headers=headers).status_code == 404
        for act in ("cancel", "retry"):
            assert (
                server.post(f"/v1/answers/{answer['id']}/{act}", {}, headers=headers).status_code
                == 404
            )
    passage = server.get(f"/v1/passages/{answer['sources'][0]['id']}", headers=KEY).json()
    assert passage["text"] == answer["sources"][0]["text"]
    assert passage["trail"][-1] == "Green tea"
    assert server.get("/v1/passages/psg-0", headers=KEY).status_code == 404


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({}, "`question` is missing or empty"),
        ({"question": "  ", "app": "tea"}, "`question` is missing or empty"),
        ({"question": "x"}, "`app` is missing"),
        ({"question": "x", "app": "coffee"}, "There is no model or app `coffee`"),
        ({"question": "x", "app": "tea", "strem": True}, "There is no field `strem`"),
        ({"question": 5, "app": "tea"}, "`question` must be a string"),
        (
            {"question": "x", "messages": [{"role": "user", "content": "y"}], "app": "tea"},
            "both given",
        ),
        ({"messages": [{"content": "y"}], "app": "tea"}, "role"),
        ({"messages": [], "app": "tea"}, "holds no text"),
    ],
)
def test_a_bad_question_gets_an_error_that_names_the_field(
    server: Serving, body: dict[str, Any], says: str
) -> None:
    response = server.post("/v1/answers", body, headers=KEY)
    assert response.status_code in (400, 404)
    assert says in response.json()["error"]["message"]


def test_the_only_app_of_a_key_needs_no_name(server: Serving) -> None:
    response = server.post(
        "/v1/answers",
        {"question": "How hot is green tea brewed?"},
        headers={"authorization": "Bearer test-key-3"},
    )
    assert response.json()["served_by"] == "quote"


def test_a_model_can_be_asked_like_an_app(server: Serving) -> None:
    answer = ask(server, "mock-model")
    assert answer["sources"] == []
    assert answer["served_by"] == "model"


def test_unreadable_files_are_reported_and_the_rest_is_served(tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "good.md").write_text(TEA)
    (docs / "bytes.txt").write_bytes(bytes(range(1, 32)) + b"\xff")
    (docs / ".secret.md").write_text("# Hidden\n\nThe password is swordfish.\n")
    (tmp_path / "outside.md").write_text("# Outside\n\nThe outside word is marmalade.\n")
    (docs / "link.md").symlink_to(tmp_path / "outside.md")
    with serving(tmp_path, "--docs", str(docs)) as server:
        assert server.get("/readyz").json()["knowledge"]["docs"]["failed"] >= 1
        assert "bytes.txt was left out" in server.log
        assert "UTF-8" in server.log
        assert (
            server.post("/v1/answers", {"question": "How hot is green tea?"}).json()["sources"][0][
                "path"
            ]
            == "good.md"
        )
        for secret in ("swordfish", "marmalade"):
            assert secret not in server.post(
                "/v1/answers", {"question": f"What about {secret}?"}
            ).text.replace(f"about {secret}", "")


def test_an_answer_continues_if_its_reader_leaves(server: Serving) -> None:
    body = {"question": "How hot is green tea brewed?", "app": "slow-tea", "stream": True}
    with plain_http.stream(
        "POST", f"{server.url}/v1/answers", json=body, headers=KEY, timeout=20
    ) as r:
        answer_id = r.headers["x-slipway-answer-id"]

    def state() -> str:
        return str(server.get(f"/v1/answers/{answer_id}", headers=KEY).json()["state"])

    until(lambda: state() != "running")
    assert state() == "done"


def test_the_cost_is_exact_and_unknown_without_a_price(tmp_path: Path) -> None:
    with mocking() as mock:
        priced = {
            "base_url": mock.url,
            "name": "mock-model",
            "price": {"input": "0.11", "output": "0.28"},
        }
        with serving(
            tmp_path, settings={"models": {"priced": priced, "free": {**priced, "price": None}}}
        ) as server:
            ask = {"messages": [{"role": "user", "content": "Hello"}]}
            answer = server.post("/v1/chat/completions", {"model": "priced", **ask})
            usage = answer.json()["usage"]
            exact = (
                Decimal(usage["prompt_tokens"]) * Decimal("0.11")
                + Decimal(usage["completion_tokens"]) * Decimal("0.28")
            ) / 1_000_000
            assert Decimal(answer.headers["x-slipway-cost-usd"]) == exact
            assert (
                Decimal(
                    server.post("/v1/answers", {"app": "priced", "question": "Hello"}).json()[
                        "cost_usd"
                    ]
                )
                == exact
            )
            assert (
                "x-slipway-cost-usd"
                not in server.post("/v1/chat/completions", {"model": "free", **ask}).headers
            )


def test_a_smaller_model_says_that_it_is_one(tmp_path: Path) -> None:
    with mocking() as mock:
        route = ["fault-status-503", {"model": "mock-model", "role": "smaller"}]
        with serving(
            tmp_path,
            settings={
                **models(mock.url, "fault-status-503", "mock-model"),
                "routes": {"main": route},
            },
        ) as server:
            assert server.chat("main").headers["x-slipway-served-by"] == "smaller"
            assert (
                server.post("/v1/answers", {"app": "main", "question": "Hello"}).json()["served_by"]
                == "smaller"
            )


def test_a_very_long_answer_is_complete_and_its_log_reports_dropped_events(tmp_path: Path) -> None:
    with mocking() as mock, serving(tmp_path, settings=models(mock.url, "say-30000")) as server:
        answer = server.post("/v1/answers", {"app": "say-30000", "question": "Hello"}).json()
        chat = server.chat("say-30000").json()["choices"][0]["message"]["content"]
        assert len(answer["text"].split()) == len(chat.split()) > 25_000
        gone = server.get(f"/v1/answers/{answer['id']}/events")
        assert gone.status_code == 410
        assert "has expired" in gone.json()["error"]["message"]
        assert server.get(f"/v1/answers/{answer['id']}").status_code == 410
