"""The times in /metrics and in records are those that a client sees at its socket.

`bench/telemetry.py observe` measures how close they are; here the machine is busy, so only what no
load can change is checked: nothing is missing, sums are exact, and each answer is in its bucket.
"""

import json
import subprocess
import sys
from typing import Any

import pytest

from processes import ROOT

ANSWERS = 60


@pytest.fixture(scope="module")
def rows() -> dict[str, dict[str, Any]]:
    script = str(ROOT / "bench" / "telemetry.py")
    what = ["observe", "--answers", str(ANSWERS), "--workers", "2", "--limit-ms", "1000"]
    done = subprocess.run(
        [sys.executable, script, *what, "--json"],
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return {row["field"]: row for row in json.loads(done.stdout)}


@pytest.mark.parametrize("field", ["ttft_s", "tpot_s", "duration_s"])
def test_metrics_and_records_have_the_times_that_the_client_saw(
    rows: dict[str, dict[str, Any]], field: str
) -> None:
    row = rows[field]
    assert row["answers"] == row["counted"] == ANSWERS
    assert abs(row["sum_difference_s"]) < 1e-6  # of all workers, against the records
    assert row["wrong_buckets"] == []
    assert row["record_p50_ms"] < 200


def test_a_client_never_sees_the_first_token_before_the_server(
    rows: dict[str, dict[str, Any]],
) -> None:
    assert rows["ttft_s"]["record_p50_ms"] > 0
