"""Measure how the gateway's memory grows: over many small requests and streams, and with each stream
that is open and silent.

    python bench/memory.py [--requests 1000000] [--streams 100000] [--idle 1000]

RSS is that of the whole process tree, read after each part of the load. The slope is a fitted line
through the second half of the readings, in KiB for each thousand: what fills at the start, such as
the latest traces, is not growth. Needs Linux with two cores.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from gateway import CASES, bodies
from gateways import PEER, ROOT, Target, free_port, rss_mib, slipway

PART_S = 5.0


def grow(target: Target, folder: Path, case: str, total: int) -> dict[str, Any]:
    """Send so many requests; return the readings and the slope."""
    files, done, errors = bodies(folder, CASES[case]["bodies"]), 0, 0
    readings = [(0, rss_mib(target.pid))]
    while done < total:
        row = target.load(CASES[case], files, min(PART_S, max(0.5, total / 20_000)))
        done, errors = done + int(row["requests"]), errors + int(row["errors"])
        readings.append((done, row["rss_mib"]))
    late = readings[len(readings) // 2 :]
    slope = statistics.linear_regression(*zip(*late, strict=True)).slope if len(late) > 2 else 0.0
    return {
        "case": case,
        "requests": done,
        "errors": errors,
        "rss_mib": [round(mib, 1) for _, mib in readings],
        "slope_kib_per_1000": round(slope * 1024 * 1000, 2),
    }


def idle(target: Target, folder: Path, count: int) -> dict[str, Any]:
    """Open so many streams that stay silent; return what one takes."""
    file = folder / "idle.json"
    message = {"role": "user", "content": "Hello"}
    file.write_text(json.dumps({"model": "mock-idle", "stream": True, "messages": [message]}))
    plan = {
        "port": target.port,
        "path": "/v1/chat/completions",
        "connections": count,
        "bodies": [str(file)],
        "key": "sk-bench-key",
    }
    before = rss_mib(target.pid)
    command = [sys.executable, PEER, "hold", json.dumps(plan)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holding:
        assert holding.stdout is not None
        assert holding.stdin is not None
        opened = holding.stdout.readline()
        grown = rss_mib(target.pid) - before
        holding.stdin.close()
        if opened != b"open\n":
            raise SystemExit("not all streams began")
    return {"case": "idle", "streams": count, "kib_each": round(grown * 1024 / count, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--streams", type=int, default=100_000)
    parser.add_argument("--idle", type=int, default=1000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder, up = Path(name), free_port()
        upstream = subprocess.Popen([sys.executable, PEER, "upstream", str(up)])
        target = slipway("slipway", folder, up, ROOT)
        try:
            target.start(folder / "log")
            rows = [
                idle(target, folder, given.idle),
                grow(target, folder, "small", given.requests),
                grow(target, folder, "burst", given.streams),
            ]
        finally:
            target.stop()
            upstream.terminate()
    for row in rows:
        print(json.dumps(row))


if __name__ == "__main__":
    main()
