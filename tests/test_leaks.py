"""Nothing leaks or piles up: files, credentials, names, votes, metrics, control characters, disks."""

import json
import os
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import plain_http
from processes import COMMAND, Serving, models, port_in, run, serving
from slipway import weights
from slipway.errors import WeightsError
from slipway.weights import Weights
from slipway.weights.sources import WeightsFile
from waiting import until
from watchdog import replying

QUESTION = "How many days of leave are there?"
LEAVE = "# Leave\n\nEveryone has 30 days of leave a year.\n"


def documents(folder: Path) -> dict[str, Any]:
    """Settings of an app over one document."""
    (folder / "docs").mkdir(exist_ok=True)
    (folder / "docs" / "leave.md").write_text(LEAVE)
    return {"apps": {"docs": {"knowledge": ["./docs"]}}, "embedding": "none"}


def upload(server: Serving, name: str = "more.md", text: str = LEAVE) -> Any:
    return plain_http.post(f"{server.url}/v1/documents", files={"file": (name, text)})


# Files


def test_the_store_and_uploads_are_for_their_owner_alone(tmp_path: Path) -> None:
    store = tmp_path / "data"
    store.mkdir(mode=0o755)
    settings = {**documents(tmp_path), "store": f"sqlite:///{store}/slipway.db"}
    with serving(tmp_path, settings=settings) as server:
        assert upload(server).status_code == 201
        files = [
            each
            for each in store.rglob("*")
            if each.name.startswith("slipway.db") or "uploads" in each.parts or each.name == "lock"
        ]
        names = {each.name for each in files}
        assert names >= {"slipway.db", "slipway.db-wal", "uploads"}
        assert any(each.startswith("more~") for each in names)
        for each in files:
            assert stat.S_IMODE(each.stat().st_mode) & 0o077 == 0, each


def test_a_second_server_on_a_used_store_refuses_uploads(tmp_path: Path) -> None:
    settings = documents(tmp_path)
    with serving(tmp_path, settings=settings), serving(tmp_path, settings=settings) as second:
        refused = upload(second)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "not_kept")
        assert "another process uses the store" in refused.json()["error"]["message"]


def test_a_temporary_store_goes_with_its_process(tmp_path: Path) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    settings, env = documents(tmp_path), {"TMPDIR": str(temporary)}
    with serving(tmp_path, settings=settings):
        with serving(tmp_path, settings=settings, env=env) as killed:
            assert list(temporary.glob("slipway-store-*"))
            killed.process.send_signal(signal.SIGKILL)
            killed.process.wait()
        with serving(tmp_path, settings=settings, env=env):
            assert len(list(temporary.glob("slipway-store-*"))) == 1
    assert not list(temporary.glob("slipway-store-*"))


# Credentials


@pytest.mark.parametrize("address", ["http://bob:hush@127.0.0.1:9/v1", "ftp://bob:hush@h/v1"])
def test_credentials_in_an_address_are_refused_and_never_printed(
    tmp_path: Path, address: str
) -> None:
    (tmp_path / "slipway.yaml").write_text(f"models:\n  m: {{base_url: '{address}'}}\n")
    checked = run("check", cwd=tmp_path)
    assert checked.returncode == 2
    assert "slipway.yaml:2: models.m.base_url: " in checked.stderr
    flagged = run("ask", "--model", f"{address}#m", "x", cwd=tmp_path)
    for done in (checked, flagged):
        assert done.returncode
        assert "hush" not in done.stdout + done.stderr


# Votes, metrics


def test_a_vote_for_a_section_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with serving(tmp_path, settings=documents(tmp_path)) as server:
        answer = server.post("/v1/answers", {"question": QUESTION}).json()["id"]
        for section, status in ((0, 200), (1, 400), (7, 400), (8, 400), (999, 400)):
            vote = {"answer": answer, "helpful": True, "section": section}
            response = server.post("/v1/feedback", vote)
            assert response.status_code == status, response.text
            assert status == 200 or response.json()["error"]["param"] == "section"


def test_a_label_is_never_a_providers_word(tmp_path: Path) -> None:
    answer = b'{"error": {"message": "no", "code": "strange_word", "type": "x"}}'
    with (
        replying(answer, status=422) as url,
        serving(tmp_path, settings=models(url, "m")) as server,
    ):
        refused = server.chat("m")
        assert refused.status_code == 422
        metrics = server.get("/metrics").text
    assert "strange_word" not in metrics
    assert 'error="provider_refused"' in metrics


# Control characters

ESCAPES = "\x1b]0;owned\x07\x1b[2J"


def test_control_characters_of_documents_do_not_reach_a_terminal_or_a_log(tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / f"a{ESCAPES[:5]}.md").write_text(f"# Leave {ESCAPES}\n\n30 days {ESCAPES} of leave.\n")
    (docs / f"b{ESCAPES[:5]}.pdf").write_bytes(b"%PDF-1.4 broken")
    asked = run("ask", "--docs", "docs", QUESTION, cwd=tmp_path)
    ingested = run("ingest", "--docs", "docs", cwd=tmp_path)
    for done in (asked, ingested):
        assert "\x1b" not in done.stdout + done.stderr, done
        assert "\x07" not in done.stdout + done.stderr
    assert "\\x1b" in ingested.stdout
    shutil.rmtree(tmp_path / ".slipway")  # so that the server reads, and reports, them again
    with serving(tmp_path, "--docs", "docs") as server:
        until(lambda: "left out" in server.log)
        assert "\x1b" not in server.log


# Weights


def test_a_source_that_sends_more_than_the_file_is_left_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLIPWAY_CACHE", str(tmp_path))
    with replying(b"x" * 50_000_000, method="GET") as url:
        file = WeightsFile(name="f.bin", sha256="0" * 64, size=1000, sources=(f"{url}/f.bin",))
        wanted = Weights(name="bomb", purpose="a test", licence="none", files=(file,))
        with pytest.raises(WeightsError, match="more than the 1,000 bytes"):
            weights.pull(wanted)
    assert sum(each.stat().st_size for each in tmp_path.rglob("*") if each.is_file()) < 100


# Settings


@pytest.mark.parametrize(
    "yaml",
    [
        "a: &a [x, x, x, x, x, x, x, x, x]\n"
        + "".join(
            f"{b}: &{b} [{', '.join(['*' + a] * 9)}]\n"
            for a, b in zip("abcdefghij", "bcdefghijk", strict=True)
        ),
        "models: &m\n  a: *m\n",
    ],
)
def test_aliases_cannot_hold_up_a_check(tmp_path: Path, yaml: str) -> None:
    (tmp_path / "slipway.yaml").write_text(yaml)
    began_at = time.process_time()
    done = run("check", cwd=tmp_path)
    assert done.returncode == 2
    assert "aliases" in done.stderr
    assert time.process_time() - began_at < 10


# A full disk


@contextmanager
def on_a_small_disk(folder: Path, settings: dict[str, Any]) -> Iterator[tuple[Serving, Path]]:
    """A server whose store is on a disk of 4 MB that nothing else uses; and that disk, from here."""
    (folder / "disk").mkdir()
    file = folder / "slipway.yaml"
    file.write_text(json.dumps({**settings, "store": f"sqlite:///{folder}/disk/slipway.db"}))
    log = folder / "serve.log"
    script = 'mount -t tmpfs -o size=4m tmpfs "$0" && exec "$@"'
    command = ["unshare", "-Urm", "sh", "-c", script, str(folder / "disk"), *COMMAND, "serve"]
    with log.open("w") as out:
        process = subprocess.Popen(
            [*command, "--port", "0", "--config", str(file)], stdout=out, stderr=out, text=True
        )
    try:
        port = until(lambda: port_in(log, process), 150)
        assert port
        server = Serving(process, port, log)
        yield server, Path(f"/proc/{process.pid}/root") / (folder / "disk").relative_to("/")
    finally:
        process.terminate()
        process.wait(60)


def can_mount() -> bool:
    if shutil.which("unshare") is None:
        return False
    done = subprocess.run(["unshare", "-Urm", "mount", "-t", "tmpfs", "x", "/mnt"], check=False)
    return done.returncode == 0


def test_a_full_disk_is_reported_and_survived(tmp_path: Path) -> None:
    if not can_mount():
        pytest.skip("this system lets nobody mount a small disk")
    with on_a_small_disk(tmp_path, documents(tmp_path)) as (server, disk):
        until(lambda: server.get("/readyz").json()["knowledge"]["docs"]["documents"] == 1)
        answer = server.post("/v1/answers", {"question": QUESTION}).json()["id"]
        filler = disk / "filler"
        with filler.open("wb") as out:
            try:
                while True:
                    os.write(out.fileno(), b"x" * 4096)
            except OSError:
                pass
        refused = upload(server, text=LEAVE * 3000)
        assert (refused.status_code, refused.json()["error"]["code"]) == (507, "storage_full")
        vote = server.post(
            "/v1/feedback", {"answer": answer, "helpful": True, "comment": "x" * 3999}
        )
        assert vote.status_code in (200, 507)
        assert server.post("/v1/answers", {"question": QUESTION}).status_code == 200
        for n in range(30):
            (tmp_path / "docs" / f"new-{n}.md").write_text(LEAVE * 200)
        until(lambda: "The disk is full" in server.log)
        assert server.post("/v1/answers", {"question": QUESTION}).status_code == 200
        assert "Traceback" not in server.log
        filler.unlink()
        began_at = time.monotonic()
        until(lambda: server.get("/readyz").json()["knowledge"]["docs"]["documents"] == 31)
        assert time.monotonic() - began_at < 5 + 20 * server.at_once_s()
        assert upload(server).status_code == 201
