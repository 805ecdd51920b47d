"""Traces: kept for a day, found whichever process answered, listed, and never in the way."""

import gc
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from processes import Serving, mocking, run, serving
from slipway.telemetry.trace_files import SUFFIX, segments
from slipway.telemetry.traces import MOST_WAITING, TraceFilter, Traces
from slipway.types import AnswerDone, AttemptDone, Usage

ADMIN = {"authorization": "Bearer sw-admin-of-tests"}
ANN = {"authorization": "Bearer sw-ann-of-tests"}
MIB = 1024 * 1024


def attempt(ref: str, **more: Any) -> AttemptDone:
    fields = {"model": "m", "provider": "openai", "zone": "z", "status": 200, "error": None}
    timing = {"duration_s": 0.5, "ttft_s": 0.1}
    return AttemptDone(answer_id=ref, **{**fields, **timing, **more})


def answer(ref: str, **more: Any) -> AnswerDone:
    fields: dict[str, Any] = {
        "endpoint": "chat",
        "app": "docs",
        "model": "m",
        "provider": "openai",
        "served_by": "model",
        "streamed": True,
        "error": None,
        "duration_s": 1.0,
        "ttft_s": 0.2,
        "usage": Usage(input_tokens=7, output_tokens=3),
        "tenant": "acme",
    }
    return AnswerDone(id=ref, **{**fields, **more})


def filled(folder: Path, count: int, *, prefix: str = "ans") -> Traces:
    traces = Traces(folder)
    for n in range(count):
        traces.keep((time.time(), attempt(f"{prefix}-{n}")))
        traces.keep((time.time(), answer(f"{prefix}-{n}")))
    traces.flush()
    return traces


def ids(traces: Traces, **wanted: Any) -> list[str]:
    return [row["id"] for row in traces.recent(TraceFilter(**wanted))[0]]


# What is kept


def test_processes_find_each_others_traces(tmp_path: Path) -> None:
    one, other = filled(tmp_path, 20, prefix="one"), filled(tmp_path, 20, prefix="other")
    assert len(segments(tmp_path)) == 2
    for reader in (one, other):
        for ref in ("one-7", "other-7"):
            found = reader.find(ref, None)
            assert found is not None
            assert found["tries"][0]["answer"]["tenant"] == "acme"
            assert found["tries"][0]["attempts"][0]["ttft_s"] == 0.1
        assert ids(reader, limit=30) == [
            *(f"other-{n}" for n in reversed(range(20))),
            *(f"one-{n}" for n in range(19, 9, -1)),
        ]


def test_a_list_is_chosen_by_error_app_duration_and_time(tmp_path: Path) -> None:
    traces = Traces(tmp_path)
    for n in range(60):
        error = "provider_down" if n % 10 == 0 else None
        traces.keep(
            (time.time(), answer(f"ans-{n}", app="ab"[n % 2], error=error, duration_s=n / 10))
        )
        if n % 7 == 0:
            traces.flush()
    assert ids(traces, errors=True) == [f"ans-{n}" for n in (50, 40, 30, 20, 10, 0)]
    assert ids(traces, app="b", limit=2) == ["ans-59", "ans-57"]
    assert ids(traces, slower_than_s=5.7) == ["ans-59", "ans-58"]
    rows, is_cut = traces.recent(TraceFilter(limit=1))
    assert not is_cut
    assert (rows[0]["input_tokens"], rows[0]["cost_usd"], rows[0]["ttft_s"]) == (7, "0", 0.2)
    seen = list[str]()
    before = float("inf")
    while page := traces.recent(TraceFilter(limit=7, before=before))[0]:
        seen += [row["id"] for row in page]
        before = page[-1]["at"]
    assert seen == [f"ans-{n}" for n in reversed(range(60))]


def test_a_record_cut_by_a_crash_is_skipped(tmp_path: Path) -> None:
    traces = filled(tmp_path, 5)
    traces.keep((time.time(), answer("ans-late")))
    traces.flush()
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    for cut in (1, 30, 100):
        file.write_bytes(whole[:-cut])
        assert Traces(tmp_path).find("ans-3", None) is not None
        assert Traces(tmp_path).find("ans-late", None) is None
    file.write_bytes(whole + bytes(100))
    assert Traces(tmp_path).find("ans-late", None) is not None
    file.write_bytes(whole[:-5] + b"XXXXX")
    assert Traces(tmp_path).find("ans-late", None) is None
    assert ids(Traces(tmp_path), limit=1) == ["ans-4"]
    file.write_bytes(b"")
    assert ids(Traces(tmp_path)) == []


def test_fields_of_another_version_are_read_by_their_names(tmp_path: Path) -> None:
    filled(tmp_path, 1).close()
    (file,) = tmp_path.iterdir()
    renamed = file.read_bytes().replace(b"citations_kept", b"citations_then")
    file.write_bytes(renamed)  # the names' checksum does not match any more: they are not believed
    assert Traces(tmp_path).find("ans-0", None) is None


def test_old_traces_are_deleted_by_age_and_by_size(tmp_path: Path) -> None:
    old, busy = filled(tmp_path, 5, prefix="old"), Traces(tmp_path, 3600.0, 1 * MIB)
    (file,) = tmp_path.iterdir()
    os.utime(file, (time.time() - 7200, time.time() - 7200))
    for n in range(12_000):
        busy.keep((time.time(), answer(f"busy-{n}")))
        if n % 200 == 0:
            busy.flush()
    busy.flush()
    assert busy.find("old-1", None) is None
    assert busy.find("busy-11999", None) is not None
    assert busy.find("busy-1", None) is None
    assert 0.5 * MIB < sum(each.stat().st_size for each in tmp_path.iterdir()) < 1.1 * MIB
    old.close()
    busy.close()


def test_a_disk_that_cannot_be_written_loses_nothing_at_first_and_is_reported_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    blocked = tmp_path / "traces"
    blocked.write_text("a file where the folder should be")
    lost = list[int]()
    traces = Traces(blocked)
    traces.on_lost = lost.append
    traces.keep((time.time(), answer("ans-1")))
    for _ in range(3):
        traces.flush()
    assert traces.find("ans-1", None) is not None
    assert ids(traces) == ["ans-1"]
    assert sum("traces cannot be written" in each.message for each in caplog.records) == 1
    for n in range(MOST_WAITING + 9):
        traces.keep((time.time(), answer(f"ans-more-{n}")))
    traces.flush()
    assert sum(lost) == 10
    blocked.unlink()
    traces.flush()
    assert Traces(blocked).find(f"ans-more-{MOST_WAITING}", None) is not None
    traces.close()


def test_a_list_of_50000_answers_is_fast(tmp_path: Path) -> None:
    traces = Traces(tmp_path)
    for n in range(50_000):
        traces.keep((time.time(), answer(f"ans-{n}", error="provider_down" if n < 3 else None)))
        if n % 500 == 0:
            traces.flush()
    gc.collect()  # or it may look through all objects of the tests in between
    began_at = time.process_time()
    assert ids(traces, limit=50)[0] == "ans-49999"
    latest_s = time.process_time() - began_at
    assert ids(traces, errors=True) == ["ans-2", "ans-1", "ans-0"]  # it looks through all
    all_s = time.process_time() - began_at - latest_s
    assert latest_s < all_s / 3


# Through a server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    folder = tmp_path_factory.mktemp("traces")
    (folder / "docs").mkdir()
    (folder / "docs" / "leave.md").write_text("# Leave\n\nEveryone has 30 days of leave.\n")
    with mocking() as mock:
        settings = {
            "models": {
                "m": {
                    "base_url": mock.url,
                    "name": "mock-model",
                    "price": {"input": 1, "output": 2},
                },
                "away": {"base_url": "http://127.0.0.1:9/v1", "retries": 0},
            },
            "routes": {"main": ["away", "m"]},
            "apps": {"docs": {"knowledge": ["./docs"], "route": "m", "cache": "1h"}},
            "keys": [
                {"key": "sw-admin-of-tests", "admin": True},
                {"key": "sw-ann-of-tests"},
            ],
        }
        with serving(folder, settings=settings) as server:
            yield server


def asked(server: Serving, app: str, question: str = "How many days of leave?") -> str:
    reply = server.post("/v1/answers", {"question": question, "app": app}, headers=ANN)
    return reply.headers["x-slipway-answer-id"]


def test_each_stage_of_an_answer_is_on_the_time_line(server: Serving) -> None:
    found = server.get(f"/v1/traces/{asked(server, 'docs')}", headers=ANN).json()
    (tried,) = found["tries"]
    spans = tried["spans"]
    assert [span["name"] for span in spans if span["kind"] == "stage"] == [
        *("admission", "cache", "planning", "knowledge", "prompt", "routing", "settlement"),
    ]
    assert [span["name"] for span in spans if span["kind"] == "attempt"][-1] == "m"
    starts = [span["start_s"] for span in spans]
    assert starts == sorted(starts)
    total_s = tried["answer"]["duration_s"]
    assert all(span["start_s"] + span["duration_s"] <= total_s + 0.001 for span in spans)
    facts = {span["name"]: span["facts"] for span in spans}
    assert facts["knowledge"]["passages"] == 1
    assert facts["prompt"]["tokens"] > 20
    usage = tried["answer"]["usage"]
    cost = (usage["input_tokens"] + 2 * usage["output_tokens"]) / 1e6
    assert float(tried["answer"]["cost_usd"]) == pytest.approx(cost)
    asked(server, "docs")  # it is kept now that the documents have been read
    again = server.get(f"/v1/traces/{asked(server, 'docs')}", headers=ANN).json()
    stages = {span["name"]: span["facts"] for span in again["tries"][0]["spans"]}
    assert list(stages) == ["admission", "cache", "settlement"]
    assert stages["cache"] == {"found": "hit"}


def test_the_list_is_for_admin_keys(server: Serving) -> None:
    failed = asked(server, "away")
    assert server.get("/v1/traces", headers=ANN).status_code == 403
    rows = server.get("/v1/traces?errors=true&limit=1&app=away", headers=ADMIN).json()["data"]
    assert [row["id"] for row in rows] == [failed]
    assert rows[0]["error"] == "provider_down"
    assert server.get(f"/v1/traces/{failed}", headers=ADMIN).status_code == 200


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("limit=0", "`limit` must be a whole number from 1 to 1000"),
        ("limit=x", "`limit` must be a whole number"),
        ("errors=maybe", "`errors` must be `true` or `false`"),
        ("slower_than=soon", "`slower_than`: `soon` is not a duration"),
        ("before=then", "`before` must be a time in seconds since 1970"),
    ],
)
def test_a_wrong_parameter_is_named(server: Serving, query: str, says: str) -> None:
    reply = server.get(f"/v1/traces?{query}", headers=ADMIN)
    assert reply.status_code == 400
    assert says in reply.json()["error"]["message"]


def test_the_command_lists_answers(server: Serving, tmp_path: Path) -> None:
    failed = asked(server, "away")
    here = ("--url", server.url, "--key", "sw-admin-of-tests")
    table = run("trace", "--last", "3", "--errors", *here, cwd=tmp_path).stdout
    assert table.splitlines()[0].split() == [
        *("ended", "id", "app", "answered", "by", "outcome", "took", "first", "tokens", "USD"),
    ]
    assert failed in table.splitlines()[1]
    assert "provider_down" in table.splitlines()[1]
    listed = run("trace", "--last", "3", "--app", "away", "--json", *here, cwd=tmp_path).stdout
    assert json.loads(listed)["data"][0]["id"] == failed
    both = run("trace", failed, "--last", "3", *here, cwd=tmp_path)
    assert both.returncode == 1
    assert "Write `slipway trace ID` or `slipway trace --last 20`." in both.stderr


def test_a_trace_is_found_after_a_restart_and_without_a_server(tmp_path: Path) -> None:
    with mocking() as mock:
        settings = {"models": {"m": {"base_url": mock.url, "name": "mock-model"}}}
        with serving(tmp_path, settings=settings) as server:
            ref = server.chat("m").headers["x-slipway-answer-id"]
        (config,) = tmp_path.glob("settings-*.yaml")
        offline = run("trace", ref, "--config", str(config), cwd=tmp_path)
        assert "answer of m: done" in offline.stdout, offline.stderr
        listed = run("trace", "--last", "1", "--config", str(config), cwd=tmp_path)
        assert ref in listed.stdout, listed.stderr
        with serving(tmp_path, settings=settings) as server:
            found = server.get(f"/v1/traces/{ref}").json()
            assert found["tries"][0]["answer"]["app"] == "m"
            assert len(list(tmp_path.rglob(f"*{SUFFIX}"))) >= 1
