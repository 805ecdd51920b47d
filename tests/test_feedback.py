"""Test that feedback about answers is kept, belongs to the asker, and can be listed."""

import json
import os
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

import plain_http
from processes import Serving, mocking, models, run, serving
from slipway.feedback import KEPT_DAYS, LONGEST_COMMENT, REASONS
from waiting import until

ANNA, BEN = (
    {"authorization": "Bearer sw-the-key-of-anna"},
    {"authorization": "Bearer sw-the-key-of-ben"},
)
TEA = "# Tea\n\n## Green tea\n\nGreen tea is brewed at 80 degrees for two minutes.\n"
QUESTION = "How hot is green tea brewed?"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return furnished(tmp_path_factory.mktemp("feedback"))


def furnished(folder: Path) -> Path:
    """Make a folder with a document and settings: two apps, and two keys of two tenants."""
    (folder / "docs").mkdir()
    (folder / "docs" / "tea.md").write_text(TEA)
    keys = [
        {"key": "sw-the-key-of-anna", "tenant": "acme"},
        {"key": "sw-the-key-of-ben", "tenant": "bolt"},
    ]
    settings = {
        "apps": {"tea": {"knowledge": ["./docs"]}, "more": {"knowledge": ["./docs"]}},
        "keys": keys,
        "embedding": "none",
    }
    (folder / "slipway.yaml").write_text(json.dumps(settings))
    return folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Serving]:
    with serving(folder) as server:
        yield server


def asked(server: Serving, app: str = "tea", key: dict[str, str] = ANNA) -> str:
    return str(
        server.post("/v1/answers", {"question": QUESTION, "app": app}, headers=key)
        .raise_for_status()
        .json()["id"]
    )


def give(server: Serving, key: dict[str, str] = ANNA, **said: Any) -> httpx.Response:
    return server.post("/v1/feedback", said, headers=key)


def listed(folder: Path, *options: str) -> list[dict[str, Any]]:
    done = run("feedback", "list", "--json", *options, cwd=folder)
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def of(folder: Path, answer: str) -> list[dict[str, Any]]:
    return [row for row in listed(folder, "--limit", "1000") if row["answer"] == answer]


def test_a_vote_is_saved_with_its_answer(server: Serving, folder: Path) -> None:
    answer = asked(server)
    said = give(
        server,
        answer=answer,
        helpful=False,
        reasons=["outdated", "wrong"],
        comment="  It is 70 degrees since June.  ",
    )
    assert said.status_code == 200
    assert said.json() == {
        "id": said.json()["id"],
        "answer": answer,
        "kind": "vote",
        "replaced": False,
    }
    (row,) = of(folder, answer)
    assert (row["id"], row["tenant"], row["app"], row["served_by"], row["model"]) == (
        said.json()["id"],
        "acme",
        "tea",
        "quote",
        None,
    )
    assert (row["helpful"], row["reasons"], row["comment"]) == (
        False,
        ["outdated", "wrong"],
        "It is 70 degrees since June.",
    )
    assert row["question"] == QUESTION
    assert row["text"].startswith("Green tea is brewed at 80 degrees for two minutes. [1]")
    assert [(s["n"], s["path"], s["heading"]) for s in row["sources"]] == [
        (1, "tea.md", "Green tea")
    ]
    assert "sw-the-key-of-anna" not in json.dumps(row)


def test_a_second_vote_replaces_the_first_but_not_reports_or_votes_on_sections(
    server: Serving, folder: Path
) -> None:
    answer = asked(server)
    first = give(server, answer=answer, helpful=False).json()
    again = give(server, answer=answer, helpful=True).json()
    assert again == {**first, "replaced": True}
    assert give(server, answer=answer, helpful=False, section=0).json()["replaced"] is False
    assert (
        give(server, answer=answer, kind="report", comment="The source is secret.").json()[
            "replaced"
        ]
        is False
    )
    assert {(row["kind"], row["section"], row["helpful"]) for row in of(folder, answer)} == {
        ("vote", None, True),
        ("vote", 0, False),
        ("report", None, None),
    }


def test_a_vote_can_be_taken_back_and_a_report_stays(server: Serving, folder: Path) -> None:
    answer = asked(server)
    give(server, answer=answer, helpful=False)
    give(server, answer=answer, kind="report", comment="Look at this.")
    gone = plain_http.delete(f"{server.url}/v1/feedback/{answer}", headers=ANNA)
    assert gone.json() == {"answer": answer, "withdrawn": 1}
    assert [row["kind"] for row in of(folder, answer)] == ["report"]
    assert plain_http.delete(f"{server.url}/v1/feedback/{answer}", headers=BEN).status_code == 404


def test_another_keys_answer_takes_no_vote(server: Serving, folder: Path) -> None:
    answer = asked(server, key=ANNA)
    refused = give(server, BEN, answer=answer, helpful=True)
    assert refused.status_code == 404
    assert refused.json()["error"]["param"] == "answer"
    assert of(folder, answer) == []
    assert give(server, ANNA, answer="ans-of-nobody", helpful=True).status_code == 404


BAD = [
    ({"helpful": True}, "answer", "`answer` is missing."),
    ({"answer": "ID"}, "helpful", "`helpful` is missing."),
    (
        {"answer": "ID", "helpful": "yes"},
        "helpful",
        "`helpful` must be true or false or null, not a string.",
    ),
    (
        {"answer": "ID", "helpful": True, "reasons": ["boring"]},
        "reasons[0]",
        "`reasons[0]`: `boring` is not a known reason.",
    ),
    (
        {"answer": "ID", "helpful": True, "reasons": "wrong"},
        "reasons",
        "`reasons` must be a list, not a string.",
    ),
    (
        {"answer": "ID", "helpful": True, "comment": "x" * (LONGEST_COMMENT + 1)},
        "comment",
        "`comment` has 4001 characters",
    ),
    ({"answer": "ID", "helpful": True, "stars": 5}, "stars", "There is no field `stars`."),
    ({"answer": "ID", "kind": "praise", "helpful": True}, "kind", "`kind`"),
    ({"answer": "ID", "kind": "report"}, "comment", "`comment` is empty."),
    (
        {"answer": "ID", "kind": "report", "helpful": True, "comment": "no"},
        "helpful",
        "`helpful` belongs to a vote, not to a report.",
    ),
    ({"answer": "ID", "helpful": True, "section": -1}, "section", "`section`"),
]


@pytest.mark.parametrize(
    ("said", "field", "sentence"), BAD, ids=[f"{field}-{i}" for i, (_, field, _) in enumerate(BAD)]
)
def test_invalid_feedback_is_rejected_with_the_field_and_the_fix(
    server: Serving, said: dict[str, Any], field: str, sentence: str
) -> None:
    if said.get("answer") == "ID":
        said = {**said, "answer": asked(server)}
    refused = give(server, **said)
    assert refused.status_code == 400
    error = refused.json()["error"]
    assert error["param"] == field
    assert error["message"].startswith(sentence)
    assert error["slipway"]["next"]


def test_an_answer_that_is_still_being_written_takes_no_vote_yet(tmp_path: Path) -> None:
    with (
        mocking(ttft_s=5.0) as mock,
        serving(tmp_path, settings=models(f"{mock.url}/v1", "slow")) as server,
    ):
        with plain_http.stream(
            "POST",
            f"{server.url}/v1/answers",
            json={"question": "Hello?", "app": "slow", "stream": True},
        ) as reply:
            answer = reply.headers["x-slipway-answer-id"]
            refused = server.post("/v1/feedback", {"answer": answer, "helpful": True})
        assert refused.status_code == 409
        server.post(f"/v1/answers/{answer}/cancel", {})
        stopped = server.post(
            "/v1/feedback", {"answer": answer, "kind": "report", "reasons": ["slow"]}
        )
        assert stopped.status_code == 200


def test_a_server_of_bare_models_takes_feedback_and_opens_no_store_before_the_first_call(
    tmp_path: Path,
) -> None:
    with (
        mocking(text="Hello there.") as mock,
        serving(tmp_path, settings=models(f"{mock.url}/v1", "bare", api_key="k")) as server,
    ):
        assert not (tmp_path / ".slipway").exists()
        answer = server.post("/v1/answers", {"question": "Hi?", "app": "bare"}).json()["id"]
        assert server.post("/v1/feedback", {"answer": answer, "helpful": True}).status_code == 200
    (row,) = listed(tmp_path)
    assert (row["app"], row["model"], row["served_by"], row["text"]) == (
        "bare",
        "bare",
        "model",
        "Hello there.",
    )


def test_answers_through_an_openai_client_can_be_voted_on(server: Serving, folder: Path) -> None:
    for stream in (False, True):
        body = {
            "model": "more",
            "stream": stream,
            "messages": [{"role": "user", "content": QUESTION}],
        }
        answer = server.post("/v1/chat/completions", body, headers=ANNA).headers[
            "x-slipway-answer-id"
        ]
        assert give(server, answer=answer, helpful=True).status_code == 200
        assert of(folder, answer)[0]["text"].startswith("Green tea")


def noted(folder: Path, answer: str) -> bool:
    with closing(sqlite3.connect(f"file:{folder}/.slipway/slipway.db?mode=ro", uri=True)) as db:
        return db.execute("SELECT 1 FROM answers WHERE id = ?", (answer,)).fetchone() is not None


def test_a_vote_may_come_after_a_restart_and_after_a_kill_nothing_acknowledged_is_lost(
    tmp_path: Path,
) -> None:
    folder = furnished(tmp_path)
    with serving(folder) as first:
        early, late = asked(first), asked(first)
        assert give(first, answer=early, helpful=True).status_code == 200
        until(lambda: noted(folder, late))
        os.kill(first.process.pid, signal.SIGKILL)
        first.process.wait()
    assert len(of(folder, early)) == 1
    with serving(folder) as second:
        assert give(second, answer=late, helpful=False).status_code == 200
        assert give(second, BEN, answer=late, helpful=False).status_code == 404
        assert give(second, answer=early, helpful=False).json()["replaced"] is True
    (row,) = of(folder, late)
    assert (row["app"], row["served_by"], row["text"]) == ("tea", "quote", None)
    (row,) = of(folder, early)
    assert row["helpful"] is False
    assert row["text"].startswith("Green tea")  # it was known at the first vote


def test_a_second_server_on_the_same_store_saves_feedback_as_well(
    folder: Path, server: Serving
) -> None:
    with serving(folder) as second:
        answer = asked(second)
        assert give(second, answer=answer, helpful=True).status_code == 200
        assert len(of(folder, answer)) == 1
        asked(server)


def test_feedback_is_counted_once(server: Serving) -> None:
    def counted(helpful: str) -> float:
        name = f'slipway_feedback_total{{app="more",helpful="{helpful}"}} '
        lines = server.get("/metrics", headers=ANNA).text.splitlines()
        return next(
            (float(line.removeprefix(name)) for line in lines if line.startswith(name)), 0.0
        )

    before = [counted(h) for h in ("yes", "no", "report")]
    answer = asked(server, "more")
    for _ in range(2):
        give(server, answer=answer, helpful=False)
    give(server, answer=answer, kind="report", comment="x")
    assert [counted(h) for h in ("yes", "no", "report")] == [
        before[0],
        before[1] + 1,
        before[2] + 1,
    ]


def test_the_list_is_limited_filtered_and_readable(server: Serving, folder: Path) -> None:
    answer = asked(server, "more")
    give(
        server, answer=answer, helpful=False, reasons=["unclear"], comment="Too\nbrief \x1b[31mred"
    )
    assert [row["answer"] for row in listed(folder, "--limit", "1")] == [answer]
    assert {row["app"] for row in listed(folder, "--app", "more")} == {"more"}
    assert {row["helpful"] for row in listed(folder, "--helpful", "no")} == {False}
    assert listed(folder, "--since", "1h", "--limit", "1")[0]["answer"] == answer
    shown = run("feedback", "list", "--app", "more", cwd=folder).stdout
    assert "not helpful  more, quote  unclear" in shown
    assert "  says    Too brief  [31mred" in shown.replace("brief [", "brief  [")
    assert "\x1b" not in shown
    wrong = run("feedback", "list", "--since", "soon", cwd=folder)
    assert wrong.returncode == 2
    assert "--since: `soon` is not a duration" in wrong.stderr


def test_where_nothing_was_said_the_list_says_so(tmp_path: Path) -> None:
    assert run("feedback", "list", cwd=tmp_path).stdout == "No feedback has been saved here yet.\n"
    assert listed(tmp_path) == []
    assert not (tmp_path / ".slipway").exists()


def test_the_page_of_documentation_tells_the_reasons_and_limits() -> None:
    page = (Path(__file__).parents[1] / "docs/feedback.md").read_text()
    assert all(f"| `{reason}` |" in page for reason in REASONS)
    assert f"{LONGEST_COMMENT:,} characters" in page
    assert f"{KEPT_DAYS} days" in page
