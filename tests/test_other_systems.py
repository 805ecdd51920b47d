"""Run Slipway without what only Linux has, as on macOS: these functions of `os` are missing there."""

import json
import subprocess
import sys
from pathlib import Path

from processes import mocking

MISSING = ("sched_getaffinity", "posix_fallocate", "posix_fadvise", "fdatasync", "pipe2")
CODE = f"""import os
for name in {MISSING!r}:
    delattr(os, name)
from slipway.cli import main
main()
"""


def run(folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", CODE, *args]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)


def test_a_question_is_answered_and_the_machine_is_checked(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.md").write_text("# Leave\n\nEmployees get 30 days of leave a year.\n")
    with mocking(text="They get 30 days [1].") as mock:
        settings = {
            "models": {"m": {"base_url": mock.url, "price": {"input": 1, "output": 1}}},
            "apps": {"docs": {"knowledge": ["docs"], "route": "m"}},
        }
        (tmp_path / "slipway.yaml").write_text(json.dumps(settings))
        asked = run(tmp_path, "ask", "How many days of leave do employees get?")
        assert (asked.returncode, asked.stderr) == (0, "")
        assert "30 days" in asked.stdout
        checked = json.loads(run(tmp_path, "check", "--json").stdout)
    rows = {row["name"]: row for row in checked["rows"]}
    assert "core" in rows["cores"]["says"]
    assert not [row for row in checked["rows"] if "AttributeError" in row["says"]]
