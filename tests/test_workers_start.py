"""Test how a server with several workers starts and ends: as one with a single process does."""

import os
import re
import signal
import socket
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from processes import Serving, mocking, models, run, serving
from several_workers import Workers, several
from test_local import alive
from waiting import PATIENCE_S, until

QUESTION = {"messages": [{"role": "user", "content": "Hello"}], "stream": True}


def children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_free(port: int) -> bool:
    with suppress(OSError), socket.create_server(("127.0.0.1", port)):
        return True
    return False


def stream_of(workers: Workers, worker: int, model: str) -> Any:
    return workers.fresh(worker).stream(
        "POST", "/v1/chat/completions", json={"model": model, **QUESTION}
    )


@contextmanager
def two_streams(workers: Workers) -> Iterator[list[Iterator[str]]]:
    """Begin an endless stream at each worker."""
    with stream_of(workers, 1, "say-5000") as one, stream_of(workers, 2, "say-5000") as two:
        lines = [one.iter_lines(), two.iter_lines()]
        for each in lines:
            next(each)
        yield lines


def is_over(server: Serving, pids: list[int]) -> bool:
    return server.process.poll() is not None and not any(alive(pid) for pid in pids)


@pytest.mark.parametrize("to_group", [False, True])
def test_a_stop_lets_answers_of_all_workers_finish(tmp_path: Path, *, to_group: bool) -> None:
    with (
        mocking(tpot_s=0.002) as mock,
        several(tmp_path, settings=models(mock.url, "say-500")) as workers,
        stream_of(workers, 1, "say-500") as one,
        stream_of(workers, 2, "say-500") as two,
    ):
        first, second = one.iter_lines(), two.iter_lines()
        next(first), next(second)
        server, pids = workers.server, children(workers.server.process.pid)
        assert len(pids) == 2
        if to_group:  # as a service manager and a terminal do: each process gets the signal
            for pid in (server.process.pid, *pids):
                os.kill(pid, signal.SIGINT)
        else:
            server.terminate()
        until(lambda: is_free(server.port))
        assert "data: [DONE]" in list(first)
        assert "data: [DONE]" in list(second)
        assert server.process.wait(PATIENCE_S) == 0
        assert is_over(server, pids)


def test_a_second_signal_ends_all_at_once(tmp_path: Path) -> None:
    with (
        mocking(tpot_s=0.01) as mock,
        serving(tmp_path, "--workers", "2", settings=models(mock.url, "say-5000")) as server,
        ExitStack() as stack,
        two_streams(Workers(server, stack)) as streams,
    ):
        pids = children(server.process.pid)
        server.terminate()
        until(lambda: is_free(server.port))
        server.terminate()
        assert server.process.wait(PATIENCE_S) == 0
        assert is_over(server, pids)
        for stream in streams:
            with suppress(httpx.TransportError):  # cut, with or without a last event
                assert "data: [DONE]" not in list(stream)


def test_workers_start_if_the_temporary_folder_has_a_long_name(tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 100)
    deep.mkdir()
    named = models("http://127.0.0.1:9/v1", "mock-model")
    with several(tmp_path, settings=named, env={"TMPDIR": str(deep)}) as workers:
        assert workers.server.get("/healthz").status_code == 200


def test_workers_end_when_the_supervisor_is_killed(tmp_path: Path) -> None:
    with (
        mocking() as mock,
        tempfile.TemporaryDirectory() as short,
        several(
            tmp_path, settings=models(mock.url, "mock-model"), env={"TMPDIR": short}
        ) as workers,
    ):
        pids = children(workers.server.process.pid)
        assert list(Path(short).glob("slipway-*"))
        workers.server.process.kill()
        until(lambda: is_over(workers.server, pids))
        assert is_free(workers.server.port)
        assert not list(Path(short).glob("slipway-*"))


@pytest.mark.parametrize("count", ["0", "-1", "x", "1.5", "65"])
def test_a_wrong_number_of_workers_is_refused_in_a_sentence(tmp_path: Path, count: str) -> None:
    done = run("serve", "--workers", count, cwd=tmp_path)
    sentence = f"slipway: --workers: `{count}` is not a number of workers; write 1 to 64\n"
    assert (done.returncode, done.stderr) == (2, sentence)


def test_a_wrong_number_in_the_file_names_its_line(tmp_path: Path) -> None:
    (tmp_path / "slipway.yaml").write_text("listen:\n  workers: 0\n")
    done = run("serve", cwd=tmp_path)
    assert done.returncode == 2
    assert re.match(r"slipway: slipway\.yaml:2: listen\.workers: .*", done.stderr), done.stderr


def test_one_worker_adds_no_process(tmp_path: Path) -> None:
    with mocking() as mock, serving(tmp_path, settings=models(mock.url, "mock-model")) as server:
        assert children(server.process.pid) == []
        assert server.get("/healthz").json() == {"status": "ok"}
        taken = run(
            *("serve", "--port", str(server.port), "--model", f"{mock.url}#mock-model"),
            *("--workers", "2"),
            cwd=tmp_path,
        )
        assert taken.returncode == 2
        assert f"port {server.port} of 127.0.0.1 is in use" in taken.stderr


def test_a_port_of_several_workers_is_taken_for_others(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"listen": {"workers": 2}}
    with mocking() as mock:
        settings |= models(mock.url, "mock-model")
        with serving(tmp_path, settings=settings) as server:
            assert server.get("/healthz").json()["workers"]["configured"] == 2
            for count in ("1", "2"):
                taken = run(
                    *("serve", "--port", str(server.port), "--workers", count),
                    *("--model", f"{mock.url}#mock-model"),
                    cwd=tmp_path,
                )
                assert taken.returncode == 2
                assert f"port {server.port} of 127.0.0.1 is in use" in taken.stderr


def test_what_the_first_worker_cannot_use_ends_the_start(tmp_path: Path) -> None:
    (tmp_path / "tea.md").write_text("# Tea\n\nGreen tea is brewed for two minutes.\n")
    (tmp_path / "broken.db").write_text("This is no database, but a text. " * 200)
    (tmp_path / "slipway.yaml").write_text("store: sqlite:///broken.db\n")
    done = run(
        *("serve", "--docs", "tea.md", "--port", "0", "--workers", "2"),
        cwd=tmp_path,
    )
    assert done.returncode == 2
    assert "slipway: store: broken.db cannot be used" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr


def test_a_store_that_another_server_uses_is_copied_for_the_first_worker(tmp_path: Path) -> None:
    (tmp_path / "tea.md").write_text("# Tea\n\nGreen tea is brewed for two minutes.\n")
    settings = {"apps": {"tea": {"knowledge": "tea.md"}}, "embedding": "none"}
    with (
        serving(tmp_path, settings=settings),
        several(tmp_path, settings=settings) as workers,
    ):
        for worker in (1, 2):
            reply = workers.to(worker).post(
                "/v1/answers", json={"question": "How long is green tea brewed?"}
            )
            assert "two minutes" in reply.json()["text"], reply.text
        assert workers.server.log.count("a temporary copy is used") == 1
