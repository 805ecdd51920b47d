"""`slipway compress` from the command line, on a network that a test makes."""

import json
import os
import signal
import struct
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from networks import write_network
from processes import COMMAND, mocking, run, serving

SENTENCES = [
    "The tide in harbour {n} rises {m} metres, and the ramp is under water for {n} hours a day.",
    "Whoever moors at berth {n} pays {m} coins, unless the lamp of pier {n} is out that night.",
    "A hull of {m} planks needs {n} buckets of tar, said the foreman of yard {n} to the crew.",
]


def texts(path: Path, count: int = 120) -> Path:
    """Documents that share no thirteen words: each has numbers of its own in every sentence."""
    rows = []
    for n in range(count):
        said = [each.format(n=97 * n + k, m=31 * n + k) for k in range(4) for each in SENTENCES]
        rows.append(json.dumps({"text": " ".join(said)}))
    path.write_text("\n".join(rows))
    return path


@pytest.fixture
def home(tmp_path: Path) -> Path:
    write_network(tmp_path / "tiny.gguf")
    return tmp_path


def compress(home: Path, *args: str) -> subprocess.CompletedProcess[str]:
    env = {"SLIPWAY_CACHE": str(home / "cache"), "OMP_NUM_THREADS": "1"}
    return run("compress", *args, cwd=home, env=env)


def state(home: Path, name: str = "out") -> dict[str, Any]:
    return dict(json.loads((home / name / "state.json").read_text()))


def test_a_model_is_quantised_measured_registered_and_taken_back(home: Path) -> None:
    texts(home / "test.jsonl", 40)
    done = compress(
        home, "tiny.gguf", "--target", "size=600kB", "--test", "test.jsonl", "--rounds", "0", "--out", "out",
        "--name", "tiny-8", "--price-hour", "0.1", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["planned"]["form"] == "q8_0"  # 8 bits come first
    assert found["result"]["bytes"] <= 600_000
    assert found["result"]["kinds"] == {"q8_0": 29, "f32": 9}
    reading = found["result"]["readings"]["in the domain"]
    assert reading["low"] <= reading["ratio"] <= reading["high"]
    assert 0.98 < reading["ratio"] < 1.02
    assert reading["kl"] < 0.01
    assert reading["same_top"] > 0.9
    assert found["ingested"]["licence"] == "apache-2.0"
    assert found["gated"]["verdict"] == "keep"
    page = (home / "out" / "report.html").read_text()
    assert "KEEP" in page
    assert "<svg" in page
    assert "tiny-8" in (home / "out" / "report.md").read_text()
    listed = run("weights", "list", env={"SLIPWAY_CACHE": str(home / "cache")})
    assert "tiny-8" in listed.stdout
    back = compress(home, "rollback", "tiny-8")
    assert back.returncode == 0, back.stderr
    assert "the weights `tiny-8` are removed" in back.stdout
    assert (home / "out" / "tiny-8.gguf").is_file()
    again = compress(home, "rollback", "tiny-8")
    assert again.returncode == 2
    assert "nothing here is called `tiny-8`" in again.stderr


def test_a_finished_stage_is_not_done_again_and_a_missing_file_is(home: Path) -> None:
    args = ("tiny.gguf", "--quant", "q4_0", "--prune", "depth:1", "--rounds", "0", "--out", "out")
    assert compress(home, *args).returncode == 0
    before = state(home)
    (home / "out" / "tiny-small.gguf").unlink()
    assert compress(home, *args).returncode == 0
    after = state(home)
    changed = {name for name in after if after[name] != before[name]}
    assert changed <= {"quantise", "gate"}
    assert "quantise" in changed
    other = compress(
        home, "tiny.gguf", "--quant", "q8_0", "--prune", "depth:1", "--rounds", "0", "--out", "out"
    )
    assert other.returncode == 0
    assert state(home)["prune"]["seconds"] != after["prune"]["seconds"]  # it depends on the plan
    assert state(home)["ingest"] == after["ingest"]


@pytest.mark.parametrize("label", ["reading the model", "pruning", "quantising to q4_0"])
def test_killed_at_a_stage_it_goes_on_and_comes_to_the_same(home: Path, label: str) -> None:
    args = [
        "compress",
        "tiny.gguf",
        "--quant",
        "q4_0",
        "--prune",
        "depth:1",
        "--rounds",
        "0",
        "--out",
        "out",
    ]
    env = {**os.environ, "SLIPWAY_CACHE": str(home / "cache"), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [*COMMAND, *args], cwd=home, env=env, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:  # fmt: skip
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith(label):
                process.kill()
                break
        else:
            raise AssertionError(f"{label} never came")
        process.communicate()
    done = compress(home, *args[1:])
    assert done.returncode == 0, done.stderr
    report = json.loads((home / "out" / "report.json").read_text())
    # also what the process had that was killed
    assert report["memory"] == max(stage["memory"] for stage in state(home).values()) > 0
    whole = (home / "out" / "tiny-small.gguf").read_bytes()
    fresh = compress(home, *args[1:-1], "fresh")
    assert fresh.returncode == 0, fresh.stderr
    assert whole == (home / "fresh" / "tiny-small.gguf").read_bytes()
    assert not list((home / "out").glob(".*.part"))


def test_stopped_by_hand_it_says_how_to_go_on(home: Path) -> None:
    env = {**os.environ, "SLIPWAY_CACHE": str(home / "cache"), "OMP_NUM_THREADS": "1"}
    args = ["compress", "tiny.gguf", "--quant", "q8_0", "--rounds", "0", "--out", "out"]
    with subprocess.Popen(
        [*COMMAND, *args], cwd=home, env=env, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("reading the test"):
                process.send_signal(signal.SIGINT)
                break
        rest = process.stderr.read()
    assert process.returncode == 130, rest
    assert "What is done is in out; the same command goes on." in rest
    assert "ingest" in state(home)


def test_two_in_one_folder_do_not_meet(home: Path) -> None:
    env = {**os.environ, "SLIPWAY_CACHE": str(home / "cache"), "OMP_NUM_THREADS": "1"}
    args = ["compress", "tiny.gguf", "--quant", "q8_0", "--rounds", "0", "--out", "out"]
    with subprocess.Popen([*COMMAND, *args], cwd=home, env=env, stderr=subprocess.PIPE) as first:
        assert first.stderr is not None
        assert first.stderr.readline()  # it is at work
        second = compress(home, *args[1:])
        first.kill()
        first.communicate()
    assert second.returncode == 2
    assert "another `slipway compress` works in out" in second.stderr


def test_answers_to_questions_of_ones_own_are_compared_one_by_one(home: Path) -> None:
    (home / "docs").mkdir()
    pages = [f"# Berth {n}\n\nBerth {n} costs {7 * n} coins a day.\n" for n in range(1, 3)]
    rows = []
    for n, page in enumerate(pages, 1):
        (home / "docs" / f"berth-{n}.md").write_text(page)
        gold = [{"page": f"berth-{n}.md", "heading": f"Berth {n}"}]
        asked = {"question": f"What does berth {n} cost?", "gold": gold, "answer": f"{7 * n} coins"}
        rows.append(json.dumps(asked))
    (home / "q.jsonl").write_text("\n".join(rows))
    done = compress(
        home, "tiny.gguf", "--quant", "q8_0", "--rounds", "0", "--questions", "q.jsonl",
        "--docs", "docs", "--target", "quality=-2pp", "--out", "out", "--json",
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    found = json.loads(done.stdout)["gated"]
    assert found["answers"]["n"] == 2
    assert found["answers"]["new"] == 0  # it talks nonsense, and is not given the quotes' credit
    (check,) = found["checks"]
    assert "more items would decide it" in check["found"]
    assert json.loads(done.stdout)["registered"]["why"] == "the verdict is undecided"


def test_text_and_documents_that_changed_are_read_again(home: Path) -> None:
    """A folder keeps its name when its files change, and so do the pages of --docs."""
    (home / "texts").mkdir()
    texts(home / "texts" / "a.jsonl", 20)
    (home / "docs").mkdir()
    (home / "docs" / "berth.md").write_text("# Berth\n\nBerth 1 costs 7 coins a day.\n")
    gold = [{"page": "berth.md"}]
    asked = {"question": "What does berth 1 cost?", "gold": gold, "answer": "7 coins"}
    (home / "q.jsonl").write_text(json.dumps(asked))
    args = ("tiny.gguf", "--quant", "q8_0", "--rounds", "0", "--test", "texts", "--questions",
            "q.jsonl", "--docs", "docs", "--out", "out")  # fmt: skip
    first = compress(home, *args)
    assert first.returncode == 1, first.stderr
    assert "on 1 questions; undecided, about 182 more items" in first.stdout
    before = state(home)
    (home / "docs" / "berth.md").write_text("# Berth\n\nBerth 1 costs 8 coins a day.\n")
    assert compress(home, *args).returncode == 1
    after = state(home)
    assert {name for name in after if after[name] != before[name]} == {"gate"}
    texts(home / "texts" / "a.jsonl", 40)
    assert compress(home, *args).returncode == 1
    assert state(home)["text"]["key"] != after["text"]["key"]


# Bad input


def _bad(home: Path) -> dict[str, tuple[list[str], str]]:
    (home / "text.gguf").write_text("no model")
    (home / "cut.gguf").write_bytes((home / "tiny.gguf").read_bytes()[:2000])
    (home / "empty").mkdir()
    strange = home / "strange"
    strange.mkdir()
    (strange / "config.json").write_text('{"model_type": "mamba"}')
    few = home / "few.txt"
    few.write_text("\n\n".join(f"Line {n} of a short text." for n in range(20)))
    (home / "s.yaml").write_text("models: {a: {base_url: x}}\nroutes: {main: [a]}\n")
    (home / "no-answer.jsonl").write_text('{"question": "What?", "gold": [{"page": "few.txt"}]}')
    whole = texts(home / "whole.jsonl")
    part = home / "part.jsonl"
    part.write_text("\n".join(whole.read_text().splitlines()[:10]))
    return {
        "no such model": (["nothing.gguf"], "there is no file, folder or weights `nothing.gguf`"),
        "no model": (["text.gguf"], "text.gguf is not a GGUF file; give a GGUF file, a folder in"),
        "cut short": (["cut.gguf"], "cut.gguf begins like a GGUF file, but cannot be read"),
        "empty folder": (["empty"], "empty has no config.json; give a GGUF file, a folder in"),
        "architecture": (["strange"], "`mamba` is not known here; known are llama, qwen2, qwen3"),
        "few lines": (["tiny.gguf", "--distil", "few.txt"], "20 documents with 120 words are too"),
        "no text": (["tiny.gguf", "--distil", "none.txt"], "--distil: there is no file or folder"),
        "overlap": (
            ["tiny.gguf", "--distil", "whole.jsonl", "--test", "part.jsonl"],
            "10 of 120 training documents share text with the test, the first is document 1",
        ),
        "size": (["tiny.gguf", "--target", "size=100kB"], "the nearest is q4_0 with 0.3 MB, or with"),
        "target": (["tiny.gguf", "--target", "fast"], "--target: `fast` is not one; write size=92MB"),
        "quality": (["tiny.gguf", "--target", "quality=-2pp"], "add --questions and --docs"),
        "speed": (["tiny.gguf", "--target", "speed=2x"], "speed is measured in rounds"),
        "form": (["tiny.gguf", "--quant", "q3"], "--quant: `q3` is not one; choose f16, q8_0"),
        "depth": (["tiny.gguf", "--prune", "depth:9"], "depth:9 is not possible with 4 layers"),
        "width": (["tiny.gguf", "--prune", "width:100"], "a multiple of 256 below it, such as width:256"),
        "zeros": (["tiny.gguf", "--prune", "wanda:0.5"], "makes a GGUF file neither smaller nor faster"),
        "questions": (["tiny.gguf", "--questions", "q.jsonl"], "answers are measured only with --docs"),
        "docs": (["tiny.gguf", "--questions", "q.jsonl", "--docs", "none"], "does not exist"),
        "canary": (["tiny.gguf", "--canary", "much"], "--canary: `much` is not a share; write `5%`"),
        "out": (["tiny.gguf", "--out", "few.txt"], "--out: few.txt is a file; name a folder"),
        "own file": (["tiny.gguf", "--name", "original.f16"], "is a file of the run itself; choose"),
        "itself": (["tiny.gguf", "--out", ".", "--name", "tiny"], "tiny.gguf would be written over"),
        "route": (
            ["tiny.gguf", "--config", "s.yaml", "--route", "mian"],
            "--route: there is no route `mian`; there are: main",
        ),
        "taken": (["tiny.gguf", "--config", "s.yaml", "--name", "a"], "a model `a` that does not run"),
        "unanswered": (
            ["tiny.gguf", "--questions", "no-answer.jsonl", "--docs", "few.txt"],
            "none of them has an `answer` or is `unanswerable`",
        ),
        "minutes": (["tiny.gguf", "--minutes", "nan"], "--minutes: nan is not possible"),
        "price": (["tiny.gguf", "--price-hour", "inf"], "--price-hour: inf is not a price"),
        "no place": (["tiny.gguf", "--out", "/proc/x/y"], "--out: /proc/x/y cannot be made"),
        "gguf recipe": (["tiny.gguf", "--recipe", "awq"], "llm-compressor reads no GGUF files"),
        "convert": (["convert", "tiny.gguf", "/proc/x"], "OUT: /proc/x cannot be written"),
        "recipe": (["tiny", "--recipe", "int3"], "--recipe: `int3` is not one; choose awq, gptq"),
    }  # fmt: skip


@pytest.mark.parametrize("name", [
    "no such model", "no model", "cut short", "empty folder", "architecture", "few lines", "no text",
    "overlap", "size", "target", "quality", "speed", "form", "depth", "width", "zeros", "questions", "docs", "canary", "recipe",
    "out", "own file", "itself", "route", "taken", "unanswered", "minutes", "price", "no place", "gguf recipe", "convert",
])  # fmt: skip
def test_bad_input_gets_a_sentence_that_names_it(home: Path, name: str) -> None:
    args, sentence = _bad(home)[name]
    out = [] if "--out" in args else ["--out", "out"]
    more = [] if args[0] == "convert" else ["--rounds", "0", *out]
    done = compress(home, *args, *more)
    assert done.returncode == 2, done.stderr
    assert not list((home / "out").glob("*.gguf")) or name == "size"  # before anything is made
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


def test_a_vocabulary_that_differs_from_its_model_is_refused(home: Path) -> None:
    assert compress(home, "convert", "tiny.gguf", "folder").returncode == 0
    config = json.loads((home / "folder" / "config.json").read_text())
    (home / "folder" / "config.json").write_text(json.dumps({**config, "vocab_size": 100}))
    done = compress(home, "folder", "--rounds", "0", "--out", "out")
    assert done.returncode == 2
    assert "the vocabulary differs; take both files from one model" in done.stderr


def test_too_little_disk_space_is_reported_first_with_the_estimate(home: Path) -> None:
    """The file claims 10 trillion weights, and contains none of them."""
    assert compress(home, "convert", "tiny.gguf", "folder").returncode == 0
    file = home / "folder" / "model.safetensors"
    (length,) = struct.unpack("<Q", file.read_bytes()[:8])
    head = json.loads(file.read_bytes()[8 : 8 + length])
    head["model.embed_tokens.weight"]["shape"] = [10_000_000, 1_000_000]
    words = json.dumps(head).encode()
    file.write_bytes(struct.pack("<Q", len(words)) + words)
    done = compress(home, "folder", "--quant", "q8_0", "--rounds", "0", "--out", "out")
    assert done.returncode == 2
    assert "--out: about 40000.0 GB are needed on the disk of out, and " in done.stderr
    assert not (home / "out" / "original.f16.gguf").exists()


def test_a_full_disk_is_reported_and_nothing_half_is_left(home: Path) -> None:
    limit = ["sh", "-c", 'ulimit -f 300; exec "$@"', "sh"]
    done = subprocess.run(
        [*limit, *COMMAND, "compress", "tiny.gguf", "--quant", "q8_0", "--rounds", "0", "--out", "out"],
        cwd=home, capture_output=True, text=True, check=False,
        env={**os.environ, "SLIPWAY_CACHE": str(home / "cache"), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 1
    assert "slipway: A file could not be written" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((home / "out").glob(".*.part"))


def test_numbers_are_not_rounded_by_the_text_of_the_test(home: Path) -> None:
    assert (
        compress(home, "tiny.gguf", "--quant", "q4_0", "--rounds", "0", "--out", "out").returncode
        == 0
    )
    kept = json.loads((home / "out" / "texts.json").read_text())
    assert len(kept["other"]) == 8
    assert len(kept["calibration"]) == 16
    assert not [window for window in kept["calibration"] if window in kept["other"]]


def test_a_perplexity_without_text_of_the_domain_says_what_was_read(home: Path) -> None:
    done = compress(
        home, "tiny.gguf", "--target", "perplexity=+8%", "--rounds", "0", "--out", "out"
    )
    assert done.returncode == 0, done.stderr
    assert "on general text, since none of your domain was given: keep" in done.stdout


def test_the_result_of_another_model_is_not_replaced(home: Path) -> None:
    (home / "other").mkdir()
    write_network(home / "other" / "tiny.gguf", seed=1)
    assert compress(home, "tiny.gguf", "--quant", "q8_0", "--rounds", "0").returncode == 0
    done = compress(home, "other/tiny.gguf", "--quant", "q8_0", "--rounds", "0")
    assert done.returncode == 2
    assert f"`tiny-small` were made from {home / 'tiny.gguf'}, and would be replaced" in done.stderr


# The way back, and the share of a route

SETTINGS = """\
# ours
models:
  first: {base_url: "%s"}   # the one
routes:
  main:
    - first  # all of it
  flow: [first, first]
"""


def test_the_result_gets_a_share_of_a_route_and_loses_it_again(home: Path) -> None:
    with mocking() as mock:
        settings = home / "slipway.yaml"
        settings.write_text(SETTINGS % mock.url)
        before = settings.read_text()
        done = compress(
            home, "tiny.gguf", "--quant", "q8_0", "--rounds", "0", "--out", "out", "--name", "tiny-8",
            "--config", "slipway.yaml", "--route", "main", "--canary", "20%",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        after = settings.read_text()
        assert "  tiny-8: {provider: local, weights: tiny-8}\n" in after
        assert "    - first  # all of it\n    - {model: tiny-8, canary: 20%}\n" in after
        assert after.startswith("# ours\n")
        env = {"SLIPWAY_CACHE": str(home / "cache")}
        assert run("check", "--config", str(settings), env=env).returncode == 0
        back = compress(home, "rollback", "tiny-8", "--config", "slipway.yaml")
        assert back.returncode == 0, back.stderr
        assert settings.read_text() == before


def test_settings_that_would_be_wrong_stay_as_they_were(home: Path) -> None:
    settings = home / "slipway.yaml"
    settings.write_text("models:\n  first: {base_url: none}\nroutes: {main: [first]}\n")
    before = settings.read_text()
    done = compress(
        home, "tiny.gguf", "--quant", "q8_0", "--rounds", "0", "--out", "out", "--config", "slipway.yaml",
        "--route", "main",
    )  # fmt: skip
    assert done.returncode == 2
    assert "`none` is not an address" in done.stderr
    assert settings.read_text() == before


def test_a_canary_answers_its_share_and_others_answer_if_it_fails(tmp_path: Path) -> None:
    with mocking(text="old") as old, mocking(text="new") as new:
        gone = {"base_url": "http://127.0.0.1:9/v1", "retries": 0}
        given = {
            "models": {"old": {"base_url": old.url}, "new": {"base_url": new.url}, "gone": gone},
            "routes": {
                "main": ["old", {"model": "new", "canary": "30%"}],
                "broken": ["old", {"model": "gone", "canary": "100%"}],
            },
        }
        with serving(tmp_path, settings=given) as server:
            models = [server.chat("main").headers["x-slipway-model"] for _ in range(200)]
            share = models.count("new") / len(models)
            assert 0.17 < share < 0.43  # four standard errors
            assert server.chat("broken").headers["x-slipway-model"] == "old"


def test_a_share_that_is_none_is_refused_by_its_name(tmp_path: Path) -> None:
    file = tmp_path / "slipway.yaml"
    file.write_text(
        "models: {a: {base_url: 'http://127.0.0.1:9/v1'}}\n"
        "routes: {main: [{model: a, canary: 200%}]}\n"
    )
    done = run("check", "--config", str(file))
    assert done.returncode == 2
    assert "routes.main[0].canary: `200%` is not a share; write `5%`" in done.stderr
    file.write_text(
        "models: {a: {base_url: 'http://127.0.0.1:9/v1'}}\n"
        "routes: {main: [a, {model: a, canary: 60%}, {model: a, canary: 60%}]}\n"
    )
    done = run("check", "--config", str(file))
    assert done.returncode == 2
    assert "routes.main: its canaries take 120% of the questions" in done.stderr


# Distillation: torch is too large for the environment of all tests; see docs/decisions


def test_distilling_recovers_what_pruning_lost(home: Path) -> None:
    pytest.importorskip("torch")
    texts(home / "text.jsonl", 200)
    done = compress(
        home, "tiny.gguf", "--prune", "depth:1", "--quant", "q4_0", "--distil", "text.jsonl",
        "--minutes", "0.1", "--rounds", "0", "--out", "out", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    pruned, taught = (
        found[name]["file"]["readings"]["in the domain"]["kl"] for name in ("pruned", "distilled")
    )
    assert taught < 0.5 * pruned
    assert found["distilled"]["sampled"] > 0
    assert found["distilled"]["losses"][-1][1] < found["distilled"]["losses"][0][1]


def test_a_lesson_that_was_killed_goes_on(home: Path) -> None:
    pytest.importorskip("torch")
    texts(home / "text.jsonl", 200)
    args = ["compress", "tiny.gguf", "--prune", "depth:1", "--quant", "q4_0", "--distil",
            "text.jsonl", "--minutes", "0.1", "--rounds", "0", "--out", "out"]  # fmt: skip
    env = {**os.environ, "SLIPWAY_CACHE": str(home / "cache"), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [*COMMAND, *args], cwd=home, env=env, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("distilling: "):
                break
        process.kill()
        process.communicate()
    begun = time.monotonic()
    done = compress(home, *args[1:])
    assert done.returncode == 0, done.stderr
    assert "reading the model" not in done.stderr
    assert time.monotonic() - begun < 100
