"""Test that a `slipway ingest` which is killed leaves a consistent store, and can be run again."""

import contextlib
import random
import shutil
import signal
import sqlite3
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from processes import COMMAND, run
from slipway import weights
from slipway.knowledge import opened
from slipway.knowledge.sync import Synchronizer
from slipway.knowledge.verification import inconsistencies
from slipway.store import Store

FILES = 200
KINDS = ("md", "txt", "html")


def page(draw: random.Random) -> str:
    """Several places; some paragraphs are the same in many files."""
    paragraphs = [
        f"Berth {draw.randrange(50)} is for {draw.choice(['tugs', 'ferries', 'barges'])}."
        for _ in range(3)
    ]
    return (
        "# Page\n\n"
        + "\n\n".join(f"## Part {n}\n\n{text}" for n, text in enumerate(paragraphs))
        + f"\n\nNumber {draw.random()}.\n"
    )


def change(docs: Path, draw: random.Random) -> None:
    """New, edited, deleted and renamed files."""
    names = sorted(file for file in docs.rglob("*.*") if file.is_file())
    for file in draw.sample(names, len(names) // 6):
        file.write_text(page(draw))
    for file in draw.sample(names, len(names) // 12):
        file.unlink()
    for file in [file for file in draw.sample(names, len(names) // 12) if file.exists()]:
        file.rename(file.with_name(f"renamed-{draw.randrange(10**9)}{file.suffix}"))
    for _ in range(max(FILES // 8, FILES - len(names))):
        file = docs / f"d{draw.randrange(5)}" / f"{draw.randrange(10**9)}.{draw.choice(KINDS)}"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(page(draw))


def killed(home: Path, docs: Path, after_s: float) -> bool:
    """Kill it, and return whether it was still at work."""
    process = subprocess.Popen(
        [*COMMAND, "ingest", "--docs", str(docs)],
        cwd=home,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        process.wait(after_s)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
    return process.wait() == -signal.SIGKILL


@contextlib.contextmanager
def reopened(home: Path, docs: Path) -> Any:
    store = Store(home / ".slipway" / "slipway.db")
    synchronizer = opened(store, [docs], embedding="minilm" if weights.found("minilm") else "none")
    try:
        yield synchronizer
    finally:
        synchronizer.close()
        store.close()


def wrong(synchronizer: Synchronizer) -> list[str]:
    found = inconsistencies(synchronizer.collection)
    if synchronizer.dense is not None and synchronizer.dense.open():
        passages = {
            row.id
            for row in synchronizer.collection.document_store.rows(
                list(synchronizer.collection.documents)
            )
        }
        vectors = {
            number
            for number, _ in synchronizer.collection.document_store.vectors(
                "all-MiniLM-L6-v2-int8/256/8"
            )
        }
        found += ["There are vectors of passages that are gone."] if vectors - passages else []
        served = synchronizer.dense.loaded
        found += ["The vectors in memory are not those of the store."] if served != vectors else []
    return found


def state(home: Path, docs: Path) -> list[Any]:
    """Return everything that is stored, except numbers, times and keyed ids."""
    with contextlib.closing(sqlite3.connect(home / ".slipway" / "slipway.db")) as db:
        passages = db.execute("""SELECT d.path, d.state, d.version, d.title, d.passages, d.text, p.start, p.stop, p.heading, p.trail, p.text, p.key,
            (SELECT count(*) FROM vectors v WHERE v.key = p.key), p.place - (SELECT min(q.id) FROM passages q WHERE q.document = d.id)
            FROM documents d JOIN passages p ON p.document = d.id ORDER BY d.path, p.start""")
        return passages.fetchall()


def took(home: Path, docs: Path) -> float:
    started = time.monotonic()
    done = run("ingest", "--docs", str(docs), cwd=home)
    assert done.returncode == 0, done.stdout + done.stderr
    return time.monotonic() - started


def storm(tmp_path: Path, points: int, seed: int) -> None:
    draw = random.Random(seed)
    docs, home = tmp_path / "docs", tmp_path / "home"
    (tmp_path / "home").mkdir()
    docs.mkdir()
    change(docs, draw)
    (tmp_path / "timed").mkdir()
    whole_s = took(tmp_path / "timed", docs)
    hits = 0
    for point in range(points):
        if point % 3 == 2:  # the index has to be caught up, wholly
            shutil.rmtree(home / ".slipway" / "knowledge", ignore_errors=True)
        hits += killed(
            home, docs, 0.3 + draw.random() * max(whole_s - 0.3, 0.5) * (1.0 if point % 2 else 0.5)
        )
        if (home / ".slipway" / "slipway.db").exists():
            with reopened(home, docs) as synchronizer:
                assert wrong(synchronizer) == [], f"after kill {point}"
        change(docs, draw)
    assert hits >= points // 2, "most were killed at work"
    took(home, docs)
    (tmp_path / "fresh").mkdir()
    took(tmp_path / "fresh", docs)
    assert state(home, docs) == state(tmp_path / "fresh", docs)
    verified = run("ingest", "--verify", "--docs", str(docs), cwd=home)
    assert "verified: documents, index and vectors match" in verified.stdout


def test_six_kills(tmp_path: Path) -> None:
    storm(tmp_path, 6, seed=6)


@pytest.mark.soak
@pytest.mark.parametrize("seed", [1, 2])
def test_twenty_kills(tmp_path: Path, seed: int) -> None:
    storm(tmp_path, 20, seed)


def test_verify_reports_inconsistencies(tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    for n in range(5):
        (docs / f"{n}.md").write_text(f"# Page {n}\n\nWords.\n")
    time.sleep(0.1)
    took(tmp_path, docs)
    with contextlib.closing(
        sqlite3.connect(tmp_path / ".slipway" / "slipway.db", isolation_level=None)
    ) as db:
        db.execute("PRAGMA foreign_keys = ON")
        db.execute("UPDATE passages SET text = 'Wrong.' WHERE id = 1")
        db.execute("DELETE FROM documents WHERE id = 2")
    done = run("ingest", "--verify", "--docs", str(docs), cwd=tmp_path)
    assert done.returncode == 1
    assert "wrong: 1 passages are in the index though they were dropped." in done.stdout
    assert "wrong: 0.md differs from its file." in done.stdout
