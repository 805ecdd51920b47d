"""Measure what counting money costs: requests per CPU-second with the key check, limits, budgets,
the ledger and metrics on, beside the same server with all of them off.

    python bench/money.py [--rounds 7] [--seconds 2] [--case NAME] [--json]

The server without them has no keys, and its ledger and metrics are replaced by functions that do
nothing. Both are pinned to core 1, upstream and load to core 0, and take turns in each round; the
figure is the median of the rounds' ratios, with their spread. Needs Linux with two cores.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from gateway import CASES, bodies
from gateways import PEER, Target, free_port

SERVE = "from slipway.cli import main; main()"
OFF = f"""
from slipway.store.writer import RowWriter
from slipway.telemetry.metrics import Telemetry
RowWriter.add = lambda self, row, sync=False: True
Telemetry.emit = lambda self, record: None
{SERVE}
"""
LIMITS = {
    "rpm": 10_000_000,
    "tpm": 10_000_000_000,
    "answers": 100_000,
    "usd_per_day": 1_000_000,
    "usd_per_month": 10_000_000,
}
PRICE = {"input": 0.4, "cached_input": 0.1, "output": 1.2}
MEASURED = ("small, 1 connection", "small, 16 connections", "100 streams, 64 chunks at 10 ms")


def server(name: str, folder: Path, up: int, *, counts: bool) -> Target:
    port = free_port()
    models: dict[str, Any] = {
        "mock-model": {"base_url": f"http://127.0.0.1:{up}/v1", "api_key": "sk-up"},
        "mock-slow": {
            "base_url": f"http://127.0.0.1:{up}/slow/v1",
            "name": "mock-model",
            "api_key": "sk-up",
        },
    }
    settings: dict[str, Any] = {
        "listen": {"port": port},
        "models": models,
        "store": f"sqlite:///{folder}/{name}.db",
    }
    if counts:
        settings["keys"] = [{"key": "sk-bench-key", "limits": LIMITS}]
        for model in models.values():
            model["price"] = PRICE
    file = folder / f"{name}.yaml"
    file.write_text(json.dumps(settings))
    code = SERVE if counts else OFF
    return Target(
        name, port, [sys.executable, "-c", code, "serve", "--quiet", "--config", str(file)]
    )


def measure(
    folder: Path, rounds: int, seconds: float, cases: tuple[str, ...]
) -> list[dict[str, Any]]:
    up = free_port()
    upstream = subprocess.Popen(["taskset", "-c", "0", sys.executable, PEER, "upstream", str(up)])
    off, on = (server(name, folder, up, counts=name == "on") for name in ("off", "on"))
    try:
        time.sleep(0.5)
        for target in (off, on):
            target.start(folder / f"{target.name}.log")
        rows = []
        for name in cases:
            case = CASES[name]
            files = bodies(folder, case["bodies"])
            figure = "chunks_per_cpu_s" if case["bodies"] == "stream" else "per_cpu_s"
            for target in (off, on):
                target.load(case, files, 0.7)  # warm
            runs = [
                tuple(target.load(case, files, seconds) for target in (off, on))
                for _ in range(rounds)
            ]
            ratios = [with_all[figure] / without[figure] for without, with_all in runs]
            rows.append(
                {
                    "case": name,
                    "off": statistics.median(without[figure] for without, _ in runs),
                    "on": statistics.median(with_all[figure] for _, with_all in runs),
                    "ratio": statistics.median(ratios),
                    "spread": [min(ratios), max(ratios)],
                    "errors": sum(run["errors"] for pair in runs for run in pair),
                }
            )
        return rows
    finally:
        for target in (off, on):
            target.stop()
        upstream.terminate()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--case", choices=MEASURED, help="measure only this one")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(
            Path(folder), given.rounds, given.seconds, (given.case,) if given.case else MEASURED
        )
    if given.json:
        print(json.dumps(rows))
        return
    print(f"{'per CPU-second':34} {'off':>8} {'on':>8} {'ratio':>7} {'spread':>14} {'errors':>7}")
    for r in rows:
        spread = f"{r['spread'][0]:.2f}-{r['spread'][1]:.2f}"
        print(
            f"{r['case']:34} {r['off']:8.0f} {r['on']:8.0f} {r['ratio']:7.3f} {spread:>14} "
            f"{r['errors']:7.0f}"
        )


if __name__ == "__main__":
    main()
