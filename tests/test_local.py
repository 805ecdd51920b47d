"""Test models that Slipway runs itself, in real child processes, with a model made by the test."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import plain_http
from processes import COMMAND, Serving, mocking, run, serving
from tiny_model import WORDS, write_tiny
from waiting import PATIENCE_S, until

PAGE = (
    "# Tides\n\nThe ramp is under water for two hours a day. The tide in the harbour rises 4 "
    "metres.\n"
)
QUESTION = "How many metres does the tide rise?"


def children(pid: int) -> list[int]:
    """Return the child processes that run a model."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(") ")[2].split()[1])
            if parent == pid and b"providers.engine" in stat.with_name("cmdline").read_bytes():
                found.append(int(stat.parent.name))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def alive(pid: int) -> bool:
    """Return whether it runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def state(server: Serving, name: str = "tiny") -> str:
    return str(server.get("/readyz").json()["local"][name])


def child(server: Serving) -> int:
    until(lambda: state(server) == "ready")
    (pid,) = children(server.process.pid)
    return pid


def settings(folder: Path, file: Path, **model: Any) -> dict[str, Any]:
    (folder / "docs").mkdir(exist_ok=True)
    (folder / "docs" / "tides.md").write_text(PAGE)
    tiny = {"provider": "local", "weights": str(file), "context": 2048, "threads": 1, **model}
    return {
        "models": {"tiny": tiny},
        "apps": {"docs": {"knowledge": "docs", "route": "tiny"}},
        "embedding": "none",
    }


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    folder = tmp_path_factory.mktemp("local")
    with serving(folder, settings=settings(folder, write_tiny(folder / "tiny.gguf"))) as server:
        yield server


@pytest.fixture(scope="module")
def endless(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """Start a server whose model never stops by itself, and takes one call at a time."""
    folder = tmp_path_factory.mktemp("endless")
    file = write_tiny(folder / "tiny.gguf", ends=False)
    with serving(
        folder, settings=settings(folder, file, context=150_000, parallel=1, wait="1s")
    ) as server:
        yield server


def test_it_answers_like_any_model(server: Serving) -> None:
    whole = server.chat("tiny", max_tokens=5)
    assert whole.headers["x-slipway-model"] == "tiny"
    assert whole.json()["model"] == "tiny"
    assert set(whole.json()["choices"][0]["message"]["content"].split()) <= set(WORDS)
    assert whole.json()["usage"]["completion_tokens"] <= 5
    streamed = server.chat("tiny", stream=True, max_tokens=5)
    assert streamed.text.endswith("data: [DONE]\n\n")


def test_the_common_prefix_of_a_second_question_is_cached(
    server: Serving,
) -> None:
    usages = [server.post("/v1/answers", {"question": QUESTION}).json()["usage"] for _ in range(2)]
    assert usages[1]["cached_tokens"] > 0.9 * usages[1]["input_tokens"]
    assert usages[1]["input_tokens"] > 200


def test_many_are_answered_at_once(server: Serving) -> None:
    with ThreadPoolExecutor(12) as pool:
        replies = list(pool.map(lambda _: server.chat("tiny", max_tokens=20), range(24)))
    assert {reply.status_code for reply in replies} == {200}


def test_a_process_that_was_killed_is_followed_by_another(server: Serving) -> None:
    for _ in range(3):
        os.kill(child(server), signal.SIGKILL)
        assert server.chat("tiny", max_tokens=5).status_code == 200
    assert "its process ended (SIGKILL) and is restarted" in server.log


def test_a_question_asked_while_it_is_loaded_waits_and_hears_of_progress(server: Serving) -> None:
    old = child(server)
    os.kill(old, signal.SIGKILL)
    (new,) = until(
        lambda: [pid for pid in children(server.process.pid) if pid != old and alive(pid)]
    )
    os.kill(new, signal.SIGSTOP)
    try:
        assert state(server) == "starting"
        body = {"question": QUESTION, "stream": True}
        with plain_http.stream(
            "POST", f"{server.url}/v1/answers", json=body, timeout=PATIENCE_S
        ) as reply:
            lines = reply.iter_lines()
            for _ in range(4):
                assert next(line for line in lines if line.startswith("event: ")) != "event: delta"
            os.kill(new, signal.SIGCONT)
            rest = list(lines)
    finally:
        os.kill(new, signal.SIGCONT)
    done = json.loads(rest[rest.index("event: done") + 1].removeprefix("data: "))
    assert (done["served_by"], done["model"]) == ("model", "tiny")


def test_a_kill_in_the_middle_of_an_answer_is_an_error_event_and_the_next_is_answered(
    endless: Serving,
) -> None:
    pid = child(endless)
    body = {"model": "tiny", "messages": [{"role": "user", "content": "Hello"}], "stream": True}
    with plain_http.stream(
        "POST", f"{endless.url}/v1/chat/completions", json=body, timeout=PATIENCE_S
    ) as reply:
        lines = reply.iter_lines()
        assert next(lines).startswith("data: ")
        os.kill(pid, signal.SIGKILL)
        rest = [line for line in lines if line]
    assert json.loads(rest[-1].removeprefix("data: "))["error"]["code"] == "provider_cut"
    until(
        lambda: endless.chat("tiny", max_tokens=5).status_code == 200
    )  # a busy machine may need more than its second


def test_a_call_that_waits_too_long_for_its_turn_is_refused(endless: Serving) -> None:
    child(endless)
    body = {"model": "tiny", "messages": [{"role": "user", "content": "Hello"}], "stream": True}
    with plain_http.stream(
        "POST", f"{endless.url}/v1/chat/completions", json=body, timeout=PATIENCE_S
    ) as reply:
        lines = reply.iter_lines()  # dropped, it would close the reply
        assert next(lines)
        refused = endless.chat("tiny", max_tokens=5)
    assert refused.status_code == 503
    assert refused.json()["error"]["code"] == "model_busy"
    assert "tiny is busy with 1 other calls" in refused.json()["error"]["message"]
    until(
        lambda: endless.chat("tiny", max_tokens=5).status_code == 200
    )  # who left has given the turn back


def test_a_prompt_that_does_not_fit_is_refused_and_another_model_may_take_it(
    tmp_path: Path,
) -> None:
    with mocking() as mock:
        given = settings(tmp_path, write_tiny(tmp_path / "tiny.gguf"), context=256)
        given["models"]["large"] = {"base_url": mock.url}
        given["routes"] = {"main": [{"model": "tiny", "role": "local"}, "large"]}
        with serving(tmp_path, settings=given) as server:
            until(lambda: state(server) == "ready")
            long = {"messages": [{"role": "user", "content": "water " * 2000}]}
            refused = server.post("/v1/chat/completions", {"model": "tiny", **long})
            assert refused.status_code == 400
            assert refused.json()["error"]["code"] == "context_length_exceeded"
            assert (
                "does not fit into the context of tiny, 256 tokens"
                in refused.json()["error"]["message"]
            )
            assert (
                server.post("/v1/chat/completions", {"model": "main", **long}).headers[
                    "x-slipway-model"
                ]
                == "large"
            )


def test_other_processes_cannot_use_the_model_process(server: Serving) -> None:
    (port,) = listening(child(server))
    body = {"messages": [{"role": "user", "content": "Hello"}]}
    for key in ({}, {"authorization": "Bearer guessed"}):
        assert (
            plain_http.post(
                f"http://127.0.0.1:{port}/v1/chat/completions", json=body, headers=key
            ).status_code
            == 401
        )
    assert b"Bearer" not in Path(f"/proc/{child(server)}/cmdline").read_bytes()


def listening(pid: int) -> list[int]:
    """Return the TCP ports on which a process listens."""
    sockets = {str(fd.readlink()) for fd in Path(f"/proc/{pid}/fd").iterdir() if fd.is_symlink()}
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return [
        int(row[1].partition(":")[2], 16)
        for row in rows
        if row[3] == "0A" and f"socket:[{row[9]}]" in sockets
    ]


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_its_process_ends_with_the_server(tmp_path: Path, end: signal.Signals) -> None:
    with serving(
        tmp_path, settings=settings(tmp_path, write_tiny(tmp_path / "tiny.gguf"))
    ) as server:
        pid = child(server)
        server.process.send_signal(end)
        server.process.wait(PATIENCE_S)
        until(lambda: not alive(pid))


def test_a_model_that_cannot_run_says_why_and_others_answer(tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(write_tiny(tmp_path / "tiny.gguf").read_bytes()[:5000])
    with mocking() as mock:
        given = settings(tmp_path, broken)
        given["models"]["other"] = {"base_url": mock.url}
        given["routes"] = {"main": ["tiny", "other"]}
        with serving(tmp_path, settings=given) as server:
            until(lambda: "failed to read key-value pairs" in state(server))
            assert "failed to read key-value pairs" in server.log
            assert server.chat("main").headers["x-slipway-model"] == "other"
            refused = server.chat("tiny")
            assert refused.status_code == 502
            assert "failed to read key-value pairs" in refused.json()["error"]["message"]
            quoted = server.post("/v1/answers", {"question": QUESTION}).json()
            assert quoted["served_by"] == "quote"
            assert "rises 4 metres" in quoted["text"]


def test_weights_that_come_later_are_taken_without_a_restart(tmp_path: Path) -> None:
    env = {"SLIPWAY_CACHE": str(tmp_path / "cache")}
    assert (
        run("weights", "add", "mine", str(write_tiny(tmp_path / "tiny.gguf")), env=env).returncode
        == 0
    )
    kept = tmp_path / "cache" / "weights" / "mine" / "tiny.gguf"
    kept.rename(tmp_path / "away.gguf")
    given = settings(tmp_path, Path("mine"))
    with serving(tmp_path, settings=given, env=env) as server:
        until(lambda: "fetch them with `slipway weights pull mine`" in state(server))
        assert server.post("/v1/answers", {"question": QUESTION}).json()["served_by"] == "quote"
        (tmp_path / "away.gguf").rename(kept)
        until(lambda: state(server) == "ready")
        until(lambda: server.chat("tiny", max_tokens=5).status_code == 200)


def test_one_command_serves_documents_with_a_model_of_a_file(tmp_path: Path) -> None:
    file = write_tiny(tmp_path / "tiny.gguf")
    settings(tmp_path, file)
    with serving(tmp_path, "--docs", "docs", "--model", str(file)) as server:
        answered = server.post("/v1/answers", {"question": QUESTION}).json()
        assert answered["model"] == "tiny"
        assert f"model  tiny: {file}, run here" in server.log


def test_the_terminal_asks_it_and_leaves_no_process(tmp_path: Path) -> None:
    settings(tmp_path, write_tiny(tmp_path / "tiny.gguf"))
    done = run("ask", "--docs", "docs", "--model", "tiny.gguf", "--json", QUESTION, cwd=tmp_path)
    assert json.loads(done.stdout)["model"] == "tiny", done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (
            {"weights": ""},
            (
                "models.tiny: `weights` is missing; write qwen2.5-coder-0.5b, or the path of a "
                "`.gguf` file"
            ),
        ),
        (
            {"weights": "qwen2.5"},
            "there are no weights `qwen2.5`; did you mean `qwen2.5-coder-0.5b`?",
        ),
        ({"weights": "minilm"}, "models.tiny.weights: there are no weights `minilm`"),
        ({"weights": "none.gguf"}, "none.gguf`"),
        (
            {"base_url": "http://127.0.0.1:1/v1"},
            "models.tiny.base_url: a local model has no address; remove it",
        ),
        (
            {"provider": "openai", "base_url": "http://127.0.0.1:1/v1"},
            "add it, or remove `weights`",
        ),
        ({"context": 10}, "models.tiny.context: "),
        ({"parallel": 0}, "models.tiny.parallel: "),
        ({"threads": -1}, "models.tiny.threads: "),
    ],
)
def test_wrong_settings_of_a_local_model_are_named(
    tmp_path: Path, model: dict[str, Any], said: str
) -> None:
    given = settings(tmp_path, write_tiny(tmp_path / "tiny.gguf"), **model)
    (tmp_path / "slipway.yaml").write_text(json.dumps(given))
    done = run("check", cwd=tmp_path, env={"SLIPWAY_CACHE": str(tmp_path / "cache")})
    assert done.returncode == 2
    assert said in done.stderr


def test_without_the_extra_one_sentence_says_what_to_install(tmp_path: Path) -> None:
    blocked = f"import sys; sys.modules['xllamacpp'] = None; {COMMAND[2]}"
    done = subprocess.run(
        [COMMAND[0], "-c", blocked, "check", "--model", "qwen2.5-coder-0.5b"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert (
        done.stderr
        == "slipway: models.qwen2.5-coder-0.5b: to run a model here, install the extra: pip install 'slipway[local]'\n"
    )
