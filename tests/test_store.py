"""Test the store's records: numbered migrations, also of a store that an earlier version wrote."""

import json
import sqlite3
from pathlib import Path

from processes import run

EARLIER = """
CREATE TABLE answers (
    id TEXT NOT NULL UNIQUE, at REAL NOT NULL, tenant TEXT NOT NULL, owner TEXT NOT NULL,
    app TEXT NOT NULL, model TEXT, step TEXT, prompt TEXT
);
CREATE TABLE feedback (
    id TEXT NOT NULL, answer TEXT NOT NULL, kind TEXT NOT NULL, section INTEGER NOT NULL,
    at REAL NOT NULL, tenant TEXT NOT NULL, owner TEXT NOT NULL, app TEXT NOT NULL, model TEXT,
    step TEXT, prompt TEXT, helpful INTEGER, reasons TEXT NOT NULL, comment TEXT NOT NULL,
    question TEXT, text TEXT, sources TEXT, PRIMARY KEY (answer, kind, section)
);
INSERT INTO feedback VALUES ('fb-1', 'ans-1', 'vote', -1, 1.0, 'default', 'o', 'docs', NULL,
    'quote', NULL, 1, '[]', 'good', 'q', 't', '[]');
"""


def settings(tmp_path: Path) -> str:
    """Write settings whose store is `slipway.db`, with one document."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/a.md").write_text("# Tea\n\nTea is steeped for four minutes.\n")
    file = tmp_path / "slipway.yaml"
    file.write_text(
        json.dumps(
            {
                "store": f"sqlite:///{tmp_path}/slipway.db",
                "apps": {"docs": {"knowledge": str(tmp_path / "docs")}},
            }
        )
    )
    return str(file)


def test_an_earlier_store_keeps_its_feedback_and_is_migrated(tmp_path: Path) -> None:
    file = settings(tmp_path)
    with sqlite3.connect(tmp_path / "slipway.db") as db:
        db.executescript(EARLIER)
    db.close()
    for _ in range(2):  # before the migration, and after it
        listed = run("feedback", "list", "--config", file, "--json", cwd=tmp_path)
        (row,) = json.loads(listed.stdout)
        assert (row["served_by"], row["helpful"], row["comment"]) == ("quote", True, "good")
        assert run("ingest", "--config", file, cwd=tmp_path).returncode == 0
    with sqlite3.connect(tmp_path / "slipway.db") as db:
        columns = [row[1] for row in db.execute("PRAGMA table_info(feedback)")]
    db.close()
    assert "served_by" in columns
    assert "step" not in columns


def test_a_store_of_a_newer_version_is_refused_with_the_way_out(tmp_path: Path) -> None:
    file = settings(tmp_path)
    assert run("ingest", "--config", file, cwd=tmp_path).returncode == 0
    with sqlite3.connect(tmp_path / "slipway.db") as db:
        db.execute("INSERT INTO migrations VALUES (9999, 0)")
    db.close()
    refused = run("ingest", "--config", file, cwd=tmp_path)
    assert refused.returncode == 2
    assert "a newer Slipway wrote it (schema 9999" in refused.stderr
