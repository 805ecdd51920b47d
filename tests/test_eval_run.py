"""`slipway eval run`, `compare`, `report`, `judge` and `sets` from the command line, against the
mock.
"""

import csv
import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from processes import COMMAND, mocking, run, serving

ITEMS = [
    {
        "id": f"q{n}",
        "question": f"Which one? ({n})",
        "choices": ["this", "that"],
        "reference": "A" if n % 5 else "B",
        "tags": ["odd" if n % 2 else "even"],
    }
    for n in range(40)
]


class Bench:
    """A folder with a set, and mocks of set answers as models of a settings file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "set.jsonl").write_text("".join(json.dumps(item) + "\n" for item in ITEMS))

    def settings(self, price: dict[str, float] | None = None, **models: str) -> None:
        """Models by their names, each at one address."""
        entry = {
            name: {"base_url": url, "name": "mock-model", **({"price": price} if price else {})}
            for name, url in models.items()
        }
        (self.folder / "slipway.yaml").write_text(json.dumps({"models": entry}))

    def eval(self, *args: str) -> subprocess.CompletedProcess[str]:
        return run("eval", *args, cwd=self.folder)

    def run(self, *args: str) -> subprocess.CompletedProcess[str]:
        return self.eval("run", "--set", "set.jsonl", "--save", "log.jsonl", *args)

    def lines(self, kind: str, file: str = "log.jsonl") -> list[dict[str, Any]]:
        found = [json.loads(line) for line in (self.folder / file).read_text().splitlines()]
        return [line for line in found if line["line"] == kind]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.fixture
def two(bench: Bench) -> Iterator[Bench]:
    """Start two models: one always answers A in the requested form, the other always B in words."""
    with (
        mocking(text="Answer: A") as one,
        mocking(text="I think it is **B**, so the answer is B.") as other,
    ):
        bench.settings(price={"input": 1, "output": 2}, a=f"{one.url}/v1", b=f"{other.url}/v1")
        yield bench


def test_two_models_are_compared_item_by_item(two: Bench) -> None:
    done = two.run("--model", "a", "--model", "b", "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    one, other = said["candidates"]["a"], said["candidates"]["b"]
    assert (one["flexible"]["value"], other["flexible"]["value"]) == (0.8, 0.2)
    assert (one["strict"]["value"], other["strict"]["value"]) == (0.8, 0.0)
    assert one["flexible"]["low"] == pytest.approx(0.6525, abs=1e-3)  # Wilson's, of 32 of 40
    assert one["tags"]["even"]["n"] == 20
    [pair] = said["comparisons"]
    assert (pair["pair"]["wins"], pair["pair"]["losses"], pair["pair"]["ties"]) == (32, 8, 0)
    assert pair["p"] == pytest.approx(0.000182, abs=1e-5)
    assert pair["better"] == said["winner"] == "a"
    assert pair["pair"]["detectable"] > 0
    assert one["ttft_p50"]["value"] > 0
    assert float(one["total_usd"]) > 0
    assert any(
        "b: 20.0% of the items are right only in the flexible reading" in note
        for note in said["notes"]
    )


def test_a_report_is_made_again_from_its_log_byte_by_byte(two: Bench) -> None:
    first = two.run("--model", "a", "--model", "b", "--html", "one.html", "--markdown", "one.md")
    again = two.eval("report", "log.jsonl", "--html", "two.html", "--markdown", "two.md")
    assert first.stdout == again.stdout
    for kind in ("html", "md"):
        assert (two.folder / f"one.{kind}").read_bytes() == (
            two.folder / f"two.{kind}"
        ).read_bytes()
    (two.folder / "set.jsonl").unlink()  # the log has all
    assert two.eval("report", "log.jsonl").stdout == first.stdout


def test_the_log_has_every_raw_output_and_the_hashes(two: Bench) -> None:
    two.run("--model", "b")
    answers = two.lines("answer")
    assert len(answers) == 40
    assert all(
        each["reply"]["text"] == "I think it is **B**, so the answer is B." for each in answers
    )
    assert len({each["item_hash"] for each in answers}) == 40
    assert {each["item_hash"] for each in answers} == {each["hash"] for each in two.lines("item")}
    assert all(each["prompt_hash"] and each["made"] for each in answers)
    [header] = two.lines("run")
    assert header["scorer"] == "letter"
    assert len(header["order"]) == 40


def test_a_run_goes_on_where_it_was_stopped_and_pays_for_nothing_twice(two: Bench) -> None:
    two.run("--model", "a", "--limit", "15", "--no-cache")
    assert len(two.lines("answer")) == 15
    done = two.run("--model", "a", "--no-cache")
    assert "log.jsonl has 15 answers already" in done.stderr
    assert len(two.lines("answer")) == 40
    cached = two.eval("run", "--set", "set.jsonl", "--model", "a", "--save", "other.jsonl")
    assert cached.returncode == 0
    assert len(two.lines("answer", "other.jsonl")) == 40
    two.run(
        "--model", "a", "--parameter", "temperature=0.5", "--no-cache"
    )  # another way: asked again
    assert len(two.lines("answer")) == 80


def test_answers_of_an_earlier_run_come_from_the_cache(two: Bench) -> None:
    two.run("--model", "a")
    done = two.eval("run", "--set", "set.jsonl", "--model", "a", "--save", "other.jsonl")
    assert "a: 40 of 40 answers come from the cache" in done.stdout
    assert "TTFT" not in done.stdout


def test_a_line_that_was_half_written_is_written_again(two: Bench) -> None:
    two.run("--model", "a", "--limit", "5")
    log = two.folder / "log.jsonl"
    log.write_bytes(log.read_bytes()[:-20])
    done = two.run("--model", "a", "--limit", "5")
    assert done.returncode == 0
    assert len(two.lines("answer")) == 5


def test_a_run_ends_early_once_a_candidate_has_surely_won(two: Bench) -> None:
    done = two.run("--model", "a", "--model", "b", "--stop", "--concurrency", "1")
    assert "Stopped early: a has won after" in done.stderr
    assert len(two.lines("answer")) < 60
    assert "a is better, known after" in done.stdout


def test_a_candidate_alone_is_asked_every_item(two: Bench) -> None:
    done = two.run("--model", "a", "--stop")
    assert done.returncode == 0, done.stderr
    assert len(two.lines("answer")) == 40


def test_a_run_keeps_to_its_budget(two: Bench) -> None:
    two.run("--model", "a", "--limit", "3", "--no-cache")
    each = float(two.lines("answer")[0]["reply"]["cost_usd"])
    (two.folder / "log.jsonl").unlink()
    done = two.run("--model", "a", "--budget", str(each * 10), "--no-cache")
    assert "Stopped at the budget" in done.stderr
    assert 5 <= len(two.lines("answer")) <= 10
    assert sum(float(line["reply"]["cost_usd"]) for line in two.lines("answer")) <= each * 10


def test_a_budget_needs_prices(bench: Bench) -> None:
    bench.settings(a="http://127.0.0.1:9/v1")
    done = bench.run("--model", "a", "--budget", "1")
    assert done.returncode == 2
    assert (
        "--budget: what a costs is not known, and is not 0; give each model a `price`"
        in done.stderr
    )


def test_answers_that_fail_count_as_wrong_and_are_asked_again(bench: Bench) -> None:
    with mocking(text="Answer: A", script=("status-500",)) as broken:
        bench.settings(a=f"{broken.url}/v1")
        done = bench.run("--model", "a", "--limit", "2")
    assert done.returncode == 1
    assert "a: 2 of 2 answers failed and count as wrong; the first error:" in done.stdout
    with mocking(text="Answer: A") as well:
        bench.settings(a=f"{well.url}/v1")
        done = bench.run("--model", "a", "--limit", "2")
    assert done.returncode == 0
    assert "failed" not in done.stdout


def test_apps_are_asked_through_the_pipeline_with_their_documents(bench: Bench) -> None:
    (bench.folder / "docs").mkdir()
    (bench.folder / "docs" / "leave.md").write_text(
        "# Leave\n\n## Days\n\nEverybody has 30 days of leave a year.\n"
    )
    (bench.folder / "slipway.yaml").write_text(
        json.dumps({"apps": {"hr": {"knowledge": ["./docs"]}}})
    )
    items = [
        {
            "question": "How many days of leave do I have?",
            "gold": [{"page": "leave.md", "heading": "Days"}],
        }
    ]
    (bench.folder / "set.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    done = bench.run("--json")
    said = json.loads(done.stdout)["candidates"]["hr"]
    assert said["flexible"]["value"] == 1.0
    assert said["served_by"] == {"quote": 1}
    [answer] = bench.lines("answer")
    assert answer["reply"]["cited"] == [{"path": "leave.md", "heading": "Days"}]


def test_a_judge_judges_in_both_orders_and_its_agreement_is_said(bench: Bench) -> None:
    items = [{"question": f"Say {n}", "reference": f"It is {n}"} for n in range(8)]
    (bench.folder / "set.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    with mocking(text="It is something") as one, mocking(text="RIGHT") as judge:
        bench.settings(a=f"{one.url}/v1", judge=f"{judge.url}/v1")
        done = bench.run("--scorer", "judge", "--model", "a", "--judge", "judge")
    assert done.returncode == 0, done.stderr
    assert (
        "The judge says the same in both orders on 100.0 % [67.6, 100.0] of the answers"
        in done.stdout
    )
    assert [line["verdicts"] for line in bench.lines("verdict")] == [[True, True]] * 8
    assert bench.eval("report", "log.jsonl").stdout == done.stdout
    without = bench.run("--scorer", "judge", "--model", "a")
    assert "--judge: scorer `judge` needs a model that judges" in without.stderr


def test_a_judge_is_measured_against_people(bench: Bench) -> None:
    rows = [("q", "r", f"answer {n}", n < 6) for n in range(10)]
    with (bench.folder / "labels.csv").open("w", newline="") as out:
        csv.writer(out).writerows([("question", "reference", "answer", "right"), *rows])
    with mocking(text="RIGHT") as judge:
        bench.settings(judge=f"{judge.url}/v1")
        done = bench.eval("judge", "--labels", "labels.csv", "--model", "judge", "--json")
    said = json.loads(done.stdout)
    assert said["people"]["share"]["value"] == 0.6
    assert said["people"]["kappa"] == 0
    assert (said["lenient"], said["strict"], said["silent"]) == (4, 0, 0)


def test_logs_of_two_days_are_compared(two: Bench) -> None:
    two.eval("run", "--set", "set.jsonl", "--model", "a", "--save", "monday.jsonl")
    two.eval("run", "--set", "set.jsonl", "--model", "b", "--save", "tuesday.jsonl")
    done = two.eval("compare", "monday.jsonl", "tuesday.jsonl")
    assert done.returncode == 0
    assert "a - b" in done.stdout
    assert "a is better" in done.stdout
    odd = two.eval("compare", "monday.jsonl", "tuesday.jsonl", "--tag", "odd", "--json")
    assert json.loads(odd.stdout)["n"] == 20
    alone = two.eval("compare", "monday.jsonl")
    assert "there is one candidate only" in alone.stderr


def test_a_single_candidate_gets_its_detectable_difference(two: Bench) -> None:
    done = two.run("--model", "a")
    assert "detectable difference" in done.stdout


def test_ctrl_c_says_how_to_go_on(bench: Bench) -> None:
    with mocking(text="Answer: A", ttft_s=0.5) as slow:
        bench.settings(a=f"{slow.url}/v1")
        process = subprocess.Popen(
            [*COMMAND, "eval", "run", "--set", "set.jsonl", "--model", "a", "--save", "log.jsonl", "--concurrency", "1"],
            cwd=bench.folder, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        assert process.stderr is not None
        while "items for a" not in process.stderr.readline():
            pass
        while not bench.lines("answer") if (bench.folder / "log.jsonl").exists() else True:
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        with process.stderr as stderr:
            said = stderr.read()
        assert process.wait(20) == 130
    assert "The same command with --save log.jsonl goes on from there." in said
    assert bench.lines("answer")


# Sets


def test_packed_sets_are_listed_with_their_licences(bench: Bench) -> None:
    done = bench.eval("sets", "list", "--json")
    found = {row["name"]: row for row in json.loads(done.stdout)}
    assert {name: row["items"] for name, row in found.items()} == {
        "bbh": 6511, "mmlu": 14079, "gsm8k": 1319, "law": 1763, "medicine": 1121, "maths": 2383,
    }  # fmt: skip
    assert all(row["licence"] == "MIT" for row in found.values())


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("mmlu", "Reply with one line of the form `Answer: X` and nothing else"),
        ("gsm8k", "Think step by step. End with one line of the form `Answer: N`"),
        (
            "bbh",
            (
                "Think step by step. End with one line of the form `Answer: W`, where W is one "
                "of: True, False."
            ),
        ),
    ],
)
def test_the_prompt_of_an_item_is_shown(bench: Bench, name: str, form: str) -> None:
    done = bench.eval("sets", "show", name, "--limit", "1")
    assert form in done.stdout
    assert "--- right: " in done.stdout


def test_worked_examples_come_first_if_they_are_wanted(bench: Bench) -> None:
    with mocking(text="Answer: A") as one:
        bench.settings(a=f"{one.url}/v1")
        done = bench.eval(
            "run",
            "--set",
            "mmlu",
            "--limit",
            "3",
            "--model",
            "a",
            "--examples",
            "--save",
            "log.jsonl",
        )
        assert done.returncode == 0, done.stderr
        assert "input_tokens" in json.dumps(bench.lines("answer")[0])
        assert min(each["reply"]["input_tokens"] for each in bench.lines("answer")) > 250


def test_a_csv_becomes_a_set_of_ones_own(bench: Bench) -> None:
    (bench.folder / "own.csv").write_text(
        'question,reference,tags\n"How many days?",30,hr;leave\n"What is 2+2?",4,\n'
    )
    done = bench.eval("sets", "add", "own.csv", "--name", "own")
    assert done.stdout.startswith("2 items, scorer number")
    with mocking(text="Answer: 30") as one:
        bench.settings(a=f"{one.url}/v1")
        said = bench.eval("run", "--set", "own", "--model", "a", "--json", "--save", "own.jsonl")
    assert json.loads(said.stdout)["candidates"]["a"]["flexible"]["value"] == 0.5


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('{"question": 1}', "set.jsonl:1: question: it is missing; it must be a text"),
        (
            '{"question": "q", "choices": ["a", "b"], "reference": "C"}',
            "reference: `C` is neither a letter up to B nor one of the choices",
        ),
        (
            '{"question": "q", "choices": ["a"], "reference": "A"}',
            "choices: there are 1; give 2 to 26",
        ),
        (
            (
                '{"question": "q", "reference": "r", "id": 1}\n{"question": "q", "reference": "r", '
                '"id": 1}'
            ),
            "set.jsonl:2: id: `1` is already used in line 1",
        ),
        (
            '{"set": {"scorer": "nose"}}\n{"question": "q", "reference": "r"}',
            "scorer: there is no `nose`; known: letter, number",
        ),
        (
            '{"set": {"scorer": "number"}}\n{"question": "q"}',
            "reference: it is empty, and scorer `number` needs one",
        ),
        ("nonsense", "set.jsonl:1: this is no JSON"),
        ("", "there are no items in it"),
    ],
)
def test_mistakes_in_a_set_are_reported(bench: Bench, text: str, sentence: str) -> None:
    (bench.folder / "set.jsonl").write_text(text)
    done = bench.run("--model", "a")
    assert done.returncode == 2
    assert sentence in done.stderr


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (
            ["run", "--set", "nothing", "--model", "a"],
            "--set: there is no set or file `nothing`; packed: bbh, mmlu",
        ),
        (
            ["run", "--set", "mmlu", "--scorer", "f1", "--model", "a"],
            "--scorer: the packed set `mmlu` has one of its own",
        ),
        (
            ["run", "--set", "set.jsonl", "--model", "a", "--parameter", "x"],
            "--parameter: `x` is not NAME=JSON",
        ),
        (["run", "--set", "set.jsonl"], "there is nobody to ask; add --model MODEL"),
        (["run", "--set", "set.jsonl", "--model", "a", "--app", "b"], "--app: there is no app `b`"),
        (["report", "none.jsonl"], "LOG: none.jsonl cannot be read"),
        (["report", "set.jsonl"], "set.jsonl:1: this is no line of an evaluation's log"),
        (["sets", "add", "set.jsonl", "--name", "mmlu"], "--name: `mmlu` is taken by a packed set"),
        (["judge", "--labels", "none.csv", "--model", "a"], "--labels: none.csv cannot be read"),
    ],
)
def test_mistakes_in_a_command_are_reported(bench: Bench, args: list[str], sentence: str) -> None:
    if "a" in args:
        bench.settings(a="http://127.0.0.1:9/v1")
    done = bench.eval(*args)
    assert done.returncode == 2
    assert sentence in done.stderr


def test_helpful_answers_become_a_set(bench: Bench) -> None:
    (bench.folder / "docs").mkdir()
    (bench.folder / "docs" / "leave.md").write_text(
        "# Leave\n\n## Days\n\nEverybody has 30 days of leave a year.\n"
    )
    with serving(
        bench.folder,
        settings={"apps": {"hr": {"knowledge": ["./docs"]}}, "store": "sqlite:///own.db"},
    ) as server:
        answer = server.post(
            "/v1/answers", {"question": "How many days of leave do I have?"}
        ).json()
        assert server.post(
            "/v1/feedback", {"answer": answer["id"], "helpful": True}
        ).status_code in (200, 201)
    config = next(bench.folder.glob("settings-*.yaml"))
    done = bench.eval("sets", "from-feedback", "--config", str(config), "--name", "liked")
    assert done.stdout.startswith("1 items, scorer f1"), done.stderr
    shown = bench.eval("sets", "show", "liked")
    assert "How many days of leave do I have?" in shown.stdout
    assert "30 days" in shown.stdout
    none = bench.eval(
        "sets", "from-feedback", "--config", str(config), "--name", "x", "--app", "other"
    )
    assert "there is no helpful vote with a question and an answer yet" in none.stderr
