"""Test `slipway eval answers` against the mock provider: known answers, scores, saved runs."""

import fcntl
import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from processes import COMMAND, mocking, run, serving
from slipway.providers.mock import MockServer
from waiting import PATIENCE_S

LEAVE = (
    "# Leave\n\n## Days\n\nEveryone has 30 days of leave a year.\n\n## Illness\n\nCall the office "
    "before nine.\n"
)
TEA = "# Tea\n\n## Brewing\n\nGreen tea is brewed at 80 degrees for two minutes.\n"
QUESTIONS = [
    {
        "id": "leave",
        "question": "How many days of leave does everyone have?",
        "gold": [{"page": "leave.md", "heading": "Days"}],
        "answer": "Everyone has 30 days of leave each year.",
    },
    {
        "id": "tea",
        "question": "At how many degrees is green tea brewed?",
        "gold": [{"page": "tea.md", "heading": "Brewing"}],
        "answer": "80 degrees, for two minutes.",
    },
]
RIGHT = "Everyone has 30 days of leave a year [1]. It is so [9]."


class EvalWorkspace:
    """Documents and questions in a folder; commands run in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "docs").mkdir()
        (folder / "docs" / "leave.md").write_text(LEAVE)
        (folder / "docs" / "tea.md").write_text(TEA)
        self.ask(QUESTIONS)

    def ask(self, questions: list[dict[str, Any]]) -> None:
        (self.folder / "questions.jsonl").write_text(
            "\n".join(json.dumps(each) for each in questions)
        )

    def settings(self, **settings: Any) -> None:
        (self.folder / "slipway.yaml").write_text(json.dumps({"embedding": "none", **settings}))

    def run(self, *more: str) -> subprocess.CompletedProcess[str]:
        return run("eval", "answers", "--questions", "questions.jsonl", *more, cwd=self.folder)

    def result(self, *more: str, code: int = 0) -> dict[str, Any]:
        done = self.run("--json", *more)
        assert done.returncode == code, done.stderr
        result: dict[str, Any] = json.loads(done.stdout)
        return result


@pytest.fixture
def workspace(tmp_path: Path) -> EvalWorkspace:
    return EvalWorkspace(tmp_path)


def two_apps(url: str) -> dict[str, Any]:
    """Apps over the same documents: one quotes, one has a model write."""
    model = {"base_url": f"{url}/v1", "name": "mock-model", "price": {"input": 1, "output": 2}}
    return {
        "models": {"m": model},
        "apps": {"plain": {"knowledge": "docs"}, "written": {"knowledge": "docs", "route": "m"}},
    }


def calls(mock: MockServer) -> int:
    return sum(seen.path.endswith("/chat/completions") for seen in mock.requests)


def test_known_answers_get_the_values_worked_out_by_hand(workspace: EvalWorkspace) -> None:
    with mocking(text=RIGHT) as mock:
        workspace.settings(**two_apps(mock.url))
        result = workspace.result("--app", "written")
    written = {
        metric: each["value"] for metric, each in result["measured"]["written"].items() if each
    }
    assert result["totals"]["written"]["served_by"] == {"model": 2}
    leave, tea = (each["answers"]["written"]["scores"] for each in result["questions"])
    assert (leave["fact overlap"], tea["fact overlap"]) == (
        1.0,
        0.0,
    )  # of `30`, `year`; of `80`, `minute`
    assert written["fact overlap"] == 0.5
    assert (leave["right citations"], tea["right citations"]) == (
        1.0,
        1.0,
    )  # each is cited by its first source
    assert written["dangling citations"] == 0.5  # [9] names no source
    assert written["uncited sentences"] == 0.0  # "It is so." says nothing that a source could have
    assert written["false abstentions"] == written["failed"] == 0.0
    assert written["cost"] > 0
    assert result["measured"]["written"]["false answers"] is None
    assert any("False answers are not measured" in note for note in result["notes"])
    by_name = result["questions"][0]["answers"]["written"]
    assert by_name["facts"] == {"found": ["30", "year"], "missing": []}
    assert by_name["cited"] == [{"path": "leave.md", "heading": "Days", "right": True}]
    assert by_name["without_gold"] is None
    assert result["questions"][1]["answers"]["written"]["facts"] == {
        "found": [],
        "missing": ["80", "minutes"],
    }


def test_too_few_questions_have_no_interval_and_enough_have_one(workspace: EvalWorkspace) -> None:
    with mocking(text=RIGHT) as mock:
        workspace.settings(**two_apps(mock.url))
        few = workspace.result()
        workspace.ask([{**each, "id": f"{each['id']} {n}"} for n in range(3) for each in QUESTIONS])
        enough = workspace.result()
    assert few["measured"]["written"]["fact overlap"] == {"value": 0.5, "interval": None, "n": 2}
    assert few["differences"]["written"]["dangling citations"] == {
        "value": 0.5,
        "interval": None,
        "n": 2,
    }
    assert any("fewer than 6 questions have no interval" in note for note in few["notes"])
    low, high = enough["measured"]["written"]["fact overlap"]["interval"]
    assert (low, high) == pytest.approx(
        (1 / 6, 5 / 6), abs=1e-6
    )  # of six coins, 1 or fewer fall on one side 11 times of 100, none 2 times
    assert enough["measured"]["written"]["failed"]["interval"] == pytest.approx(
        [0.0, 0.459258]
    )  # none of six: Clopper and Pearson
    assert not any("fewer than 6" in note for note in enough["notes"])


def test_apps_and_models_are_compared_with_the_first(
    workspace: EvalWorkspace,
) -> None:
    with mocking(text=RIGHT) as mock:
        workspace.settings(**two_apps(mock.url))
        both = workspace.result()
        assert list(both["columns"]) == ["plain", "written"]
        assert both["differences"]["written"]["fact overlap"]["value"] == pytest.approx(
            both["measured"]["written"]["fact overlap"]["value"]
            - both["measured"]["plain"]["fact overlap"]["value"]
        )
        assert list(workspace.result("--against", "written")["differences"]) == ["plain"]
        assert list(workspace.result("--app", "written")["columns"]) == ["quote", "written"]
        crossed = workspace.result(
            "--app", "plain", "--app", "written", "--model", f"{mock.url}/v1#other", "--model", "m"
        )
    assert list(crossed["columns"]) == [
        "quote",
        "plain/other",
        "plain/m",
        "written/other",
        "written/m",
    ]
    assert crossed["columns"]["written/other"] == "app written, written by other"


def test_saved_answers_are_reused_until_settings_documents_or_questions_change(
    workspace: EvalWorkspace,
) -> None:
    with mocking(text=RIGHT) as mock:
        workspace.settings(**two_apps(mock.url))
        first = workspace.result("--save", "runs.jsonl", "--limit", "1")
        assert calls(mock) == 1
        workspace.result("--save", "runs.jsonl")
        assert calls(mock) == 2
        again = workspace.run("--save", "runs.jsonl", "--json")
        assert calls(mock) == 2
        assert "4 of 4 answers are in runs.jsonl already" in again.stderr
        assert json.loads(again.stdout)["questions"][0] == first["questions"][0]
        (workspace.folder / "docs" / "tea.md").write_text(TEA.replace("80", "85"))
        done = workspace.run("--save", "runs.jsonl")
        assert calls(mock) == 4
    assert (
        "4 saved answers are of other settings, documents or questions, and are not used"
        in done.stderr
    )


def test_a_run_that_was_cut_in_the_middle_of_a_line_continues(workspace: EvalWorkspace) -> None:
    asked = ("--app", "written", "--app", "plain", "--save", "runs.jsonl", "--concurrency", "1")
    with mocking(text=RIGHT) as mock:
        workspace.settings(**two_apps(mock.url))
        workspace.result(*asked)
        saved = workspace.folder / "runs.jsonl"
        whole = saved.read_bytes()
        saved.write_bytes(whole[:-20])
        workspace.result(*asked)
        assert calls(mock) == 3
    lines = [json.loads(line) for line in saved.read_text().splitlines()]
    assert [(each["column"], each["question"]) for each in lines] == [
        *(("written", "leave"), ("plain", "leave")),
        *(("plain", "tea"), ("written", "tea")),  # who is first takes turns
    ]


def test_each_change_that_may_change_an_answer_asks_again(workspace: EvalWorkspace) -> None:
    with mocking(text=RIGHT) as mock:
        settings = two_apps(mock.url)
        asked = ("--app", "written", "--save", "runs.jsonl", "--limit", "1")
        workspace.settings(**settings)
        workspace.result(*asked)
        settings["models"]["m"]["price"] = {"input": 3, "output": 3}  # not this one
        workspace.settings(**settings)
        workspace.result(*asked)
        assert calls(mock) == 1
        for n, (of, change) in enumerate(
            [
                ("models", {"name": "other"}),
                ("apps", {"instructions": "Be brief."}),
                ("apps", {"passages": 2}),
            ],
            2,
        ):
            settings[of]["m" if of == "models" else "written"].update(change)
            workspace.settings(**settings)
            workspace.result(*asked)
            assert calls(mock) == n


def test_a_file_that_is_not_ours_is_left_as_it_is(workspace: EvalWorkspace) -> None:
    file = workspace.folder / "questions.jsonl"
    for data in (file.read_bytes(), b"a line without an end", file.read_bytes() + b"\n"):
        saved = workspace.folder / "other.txt"
        saved.write_bytes(data)
        done = workspace.run("--docs", "docs", "--save", "other.txt")
        assert done.returncode == 2
        assert (
            done.stderr.splitlines()[-1]
            == "slipway: --save: other.txt:1: this is not a saved answer; name another file"
        )
        assert saved.read_bytes() == data


def test_two_runs_do_not_write_to_one_file(workspace: EvalWorkspace) -> None:
    with (workspace.folder / "runs.jsonl").open("ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        done = workspace.run("--docs", "docs", "--save", "runs.jsonl")
    assert done.returncode == 2
    assert (
        "--save: another run is writing to runs.jsonl; wait for it, or name another file"
        in done.stderr
    )


def test_a_stopped_run_keeps_its_answers_and_pays_for_them_once(
    workspace: EvalWorkspace,
) -> None:
    asked = ("--app", "written", "--save", "runs.jsonl", "--concurrency", "1")
    with mocking(text=RIGHT, script=("hang@2",)) as mock:
        workspace.settings(**two_apps(mock.url))
        command = [*COMMAND, "eval", "answers", "--questions", "questions.jsonl", *asked]
        process = subprocess.Popen(command, cwd=workspace.folder, stderr=subprocess.PIPE, text=True)
        while calls(mock) < 2:
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 130
        assert said.endswith(
            "Stopped. The answers so far are in runs.jsonl; run the same command again to continue.\n"
        )
        assert "2 of 4 answers are in runs.jsonl already" in workspace.run(*asked).stderr
        assert calls(mock) == 3


def test_a_failed_answer_counts_as_none_is_shown_and_is_asked_again(
    workspace: EvalWorkspace,
) -> None:
    with mocking(text=RIGHT, script=("cut-5@1",)) as mock:
        workspace.settings(**two_apps(mock.url))
        asked = ("--app", "written", "--save", "runs.jsonl", "--concurrency", "1")
        result = workspace.result(*asked, code=1)
        assert result["measured"]["written"]["failed"]["value"] == 0.5
        assert (
            result["measured"]["written"]["fact overlap"]["value"] == 0.0
        )  # the answer on leave is the one that failed
        assert any(
            note.startswith("written: 1 of 2 answers failed and count as none; the first error: ")
            for note in result["notes"]
        )
        assert workspace.result(*asked)["measured"]["written"]["fact overlap"]["value"] == 0.5
        assert calls(mock) == 3


def test_quotes_in_place_of_a_model_that_is_down_are_reported(workspace: EvalWorkspace) -> None:
    with mocking(text=RIGHT, script=("status-500",)) as mock:
        workspace.settings(**two_apps(mock.url))
        result = workspace.result("--app", "written")
    assert result["totals"]["written"]["degraded"] == 2
    assert any(
        "written: 2 of 2 answers are quotes, since the model could not be reached" in note
        for note in result["notes"]
    )


def test_questions_without_an_answer_and_pages_that_are_withheld_tell_of_false_answers(
    workspace: EvalWorkspace,
) -> None:
    workspace.ask(
        [*QUESTIONS, {"question": "Who won the chess championship?", "unanswerable": True}]
    )
    with mocking(text="NOT IN THE DOCUMENTS") as mock:
        workspace.settings(**two_apps(mock.url))
        result = workspace.result("--without-gold")
    measured = result["measured"]
    assert measured["written"]["false abstentions"]["value"] == 1.0
    assert measured["written"]["fact overlap"]["value"] == 0.0
    assert measured["plain"]["false abstentions"]["value"] == 0.0
    assert measured["plain"]["false answers"] == {"value": 0.0, "interval": [0.0, 0.975], "n": 1}
    assert measured["plain"]["false answers without gold"] == {
        "value": 0.0,
        "interval": [0.0, 0.841886],
        "n": 2,
    }
    assert result["totals"]["plain"]["asked"] == 5
    assert not any("false answers" in note for note in result["notes"])


def test_a_running_server_is_asked(workspace: EvalWorkspace) -> None:
    with serving(
        workspace.folder, "--docs", str(workspace.folder / "docs"), settings={"embedding": "none"}
    ) as server:
        result = workspace.result("--url", server.url, "--app", "docs")
        failed = workspace.result("--url", server.url, "--app", "nobody", code=1)
    assert result["measured"]["docs"]["answers rightly cited"]["value"] == 1.0
    assert result["measured"]["docs"]["dangling citations"] is None  # a server does not tell
    assert failed["measured"]["nobody"]["failed"]["value"] == 1.0
    assert "nobody" in failed["notes"][0]


def test_answers_of_a_server_are_kept_with_a_warning_that_it_may_have_changed(
    workspace: EvalWorkspace,
) -> None:
    with serving(
        workspace.folder, "--docs", str(workspace.folder / "docs"), settings={"embedding": "none"}
    ) as server:
        asked = ("--url", server.url, "--app", "docs", "--save", "runs.jsonl")
        assert "name another file" not in workspace.run(*asked).stderr
        again = workspace.run(*asked)
    assert "2 of 2 answers are in runs.jsonl already" in again.stderr
    assert (
        "The settings and documents of a server may have changed since; if they have, name "
        "another file" in again.stderr
    )


WRONG = {
    ("--app", "nobody"): "--app: there is no app `nobody`; known: plain, written",
    ("--against", "nobody"): "--against: there is no column `nobody`; there are plain, written",
    (
        "--url",
        "http://127.0.0.1:1",
        "--docs",
        "docs",
    ): "--url: a running server has its own settings; leave out --docs",
    (
        "--url",
        "http://127.0.0.1:1",
        "--without-gold",
    ): "--without-gold: a server cannot withhold pages; leave out --url",
    (
        "--save",
        "nowhere/runs.jsonl",
    ): "--save: nowhere/runs.jsonl cannot be written: no such file or directory",
    (
        "--save",
        "questions.jsonl",
    ): "--save: questions.jsonl:1: this is not a saved answer; name another file",
    (
        "--model",
        "m",
        "--model",
        "m",
    ): "--model: two have the same name; give them names of their own in the settings file",
}


@pytest.mark.parametrize("more", WRONG)
def test_mistakes_are_named_with_their_fix(workspace: EvalWorkspace, more: tuple[str, ...]) -> None:
    with mocking() as mock:
        workspace.settings(**two_apps(mock.url))
        done = workspace.run(*more)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(f"slipway: {WRONG[more]}")
    assert calls(mock) == 0


def test_gold_passages_that_the_documents_lack_are_reported_before_anything_is_asked(
    workspace: EvalWorkspace,
) -> None:
    workspace.ask([{**QUESTIONS[0], "gold": [{"page": "leave.md", "heading": "Dayz"}]}])
    done = workspace.run("--docs", "docs")
    assert (
        done.stderr.splitlines()[-1]
        == "slipway: questions.jsonl:1: gold[0].heading: `Dayz` is no heading of leave.md"
    )


def test_there_must_be_something_to_ask(workspace: EvalWorkspace) -> None:
    assert (
        "slipway: there is nothing to ask; add --docs FOLDER, --model MODEL"
        in workspace.run().stderr
    )
