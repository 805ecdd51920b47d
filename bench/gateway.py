"""Measure what the gateway costs: requests and chunks per CPU-second, added latency and memory,
beside other gateways in the same run.

    python bench/gateway.py [--rounds 5] [--seconds 2] [--cases small,…] [--beside NAME=CHECKOUT]
                            [--litellm PATH] [--portkey SCRIPT] [--keep] [--json]

The others are a bare proxy in Python (`bare.py`), nginx if it is installed, another checkout of
Slipway (--beside), LiteLLM's proxy (--litellm, $LITELLM or .venv-litellm), and Portkey's gateway
(--portkey or $PORTKEY: `build/start-server.js` of the npm package @portkey-ai/gateway). TensorZero
is not among them: its gateway is published as a container image, and its wheel can only be embedded
in a program. Only ratios between rows of one run mean something: machines differ, and so do their
hours. The table shows each target's figure as a share of `bare` and of `nginx`, as the median over
the rounds.

The gateways run pinned to core 1, the upstream and the load to core 0; targets take turns in each
round, and the figure is the median of the rounds, with their spread. CPU time is that of the
target's whole process tree, so that it is valid on a noisy machine; latencies are valid only as
differences to `direct`. With --keep, the ratios are added to `gateway_history.jsonl`, one line a
run, with the commit. If ../shared/bench exists beside the checkout, its driver runs too (--shared).
Needs Linux with two cores.
"""

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from gateways import PEER, ROOT, Target, free_port, rss_mib, targets

SHARED = ROOT.parent / "shared" / "bench" / "measure.py"
HISTORY = ROOT / "bench" / "gateway_history.jsonl"
WORDS = (ROOT / "README.md").read_text().split()
CASES: dict[str, dict[str, Any]] = {
    "one": {"title": "small, 1 connection", "connections": 1, "bodies": "small"},
    "small": {"title": "small, 16 connections", "connections": 16, "bodies": "small"},
    "large": {"title": "21 KB, 16 connections", "connections": 16, "bodies": "large"},
    "burst": {"title": "16 streams, 64 at once", "connections": 16, "bodies": "burst"},
    "stream": {"title": "100 streams, 64 x 10 ms", "connections": 100, "bodies": "stream"},
}
PEERS = ("bare", "nginx")  # whose figures the others are divided by


def bodies(folder: Path, kind: str) -> list[str]:
    """Write 64 different requests to files: short questions, or questions after 21 KB of
    passages.
    """
    draw = random.Random(kind)
    files = []
    for i in range(64):
        size = 21_000 if kind == "large" else draw.randint(40, 400)
        text = ""
        while len(text) < size:
            text += draw.choice(WORDS) + " "
        messages = [
            {"role": "system", "content": "Answer briefly."},
            {"role": "user", "content": f"{i}: {text}"},
        ]
        body: dict[str, Any] = {
            "model": "mock-slow" if kind == "stream" else "mock-model",
            "messages": messages,
            "temperature": round(draw.random(), 2),
        }
        if kind in ("stream", "burst"):
            body["stream"] = True
        file = folder / f"{kind}-{i}.json"
        file.write_text(json.dumps(body))
        files.append(str(file))
    return files


def measure(given: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    up = free_port()
    found = targets(folder, up, given.litellm, given.portkey, given.beside)
    found[0].process = subprocess.Popen(
        ["taskset", "-c", "0", sys.executable, PEER, "upstream", str(up)]
    )
    try:
        time.sleep(0.5)
        for target in found:
            target.start(folder / f"{target.name}.log")
        idle = {t.name: rss_mib(t.pid) for t in found}
        rows = []
        for name in given.cases.split(","):
            rows += measure_case(name, found, given, folder, idle)
        return rows
    finally:
        for target in found:
            target.stop()


def measure_case(
    name: str,
    found: list[Target],
    given: argparse.Namespace,
    folder: Path,
    idle: dict[str, float],
) -> list[dict[str, Any]]:
    case = CASES[name]
    files = bodies(folder, case["bodies"])
    for target in found:
        target.load(case, files, 0.7)  # warm
    runs: dict[str, list[dict[str, float]]] = {t.name: [] for t in found}
    for _ in range(given.rounds):
        for target in found:
            runs[target.name].append(target.load(case, files, given.seconds))
    return [summary(name, t, runs, idle[t.name]) for t in found]


def summary(
    case: str, target: Target, runs: dict[str, list[dict[str, float]]], idle_mib: float
) -> dict[str, Any]:
    own = runs[target.name]
    middle = {k: statistics.median(r[k] for r in own) for k in own[0]}
    key = "chunks_per_cpu_s" if middle["chunks"] else "per_cpu_s"
    return {
        "case": case,
        "target": target.name,
        **middle,
        "errors": sum(r["errors"] for r in own),
        "figure": middle[key],
        "spread": [min(r[key] for r in own), max(r[key] for r in own)],
        "of": {peer: shares(own, runs[peer], key) for peer in PEERS if peer in runs},
        "idle_mib": idle_mib,
        "ready_s": target.ready_s,
    }


def shares(own: list[dict[str, float]], peers: list[dict[str, float]], key: str) -> list[float]:
    """Return the ratio to a peer in the rounds: median, lowest, highest."""
    ratios = [mine[key] / theirs[key] for mine, theirs in zip(own, peers, strict=True)]
    return [round(each, 3) for each in (statistics.median(ratios), min(ratios), max(ratios))]


def table(rows: list[dict[str, Any]]) -> None:
    print(
        f"{'case':24} {'target':8} {'per CPU-s':>10} {'spread':>15} {'of bare':>17} "
        f"{'of nginx':>8} {'added p50 ms':>13} {'added TTFT ms':>14} {'errors':>7} {'RSS MiB':>8} "
        f"{'ready s':>8}"
    )
    for r in rows:
        base = next(b for b in rows if b["case"] == r["case"] and b["target"] == "direct")
        ttft = (r["ttft_p50_us"] - base["ttft_p50_us"]) / 1000
        added = (r["p50_us"] - base["p50_us"]) / 1000
        spread = f"{r['spread'][0]:.0f}-{r['spread'][1]:.0f}"
        bare = "{:.2f} ({:.2f}-{:.2f})".format(*r["of"]["bare"])
        nginx = f"{r['of']['nginx'][0]:.3f}" if "nginx" in r["of"] else ""
        print(
            f"{CASES[r['case']]['title']:24} {r['target']:8} {r['figure']:10.0f} {spread:>15} "
            f"{bare:>17} {nginx:>8} {added:13.3f} {ttft:14.2f} {r['errors']:7.0f} "
            f"{r['rss_mib']:8.0f} {r['ready_s']:8.2f}"
        )


def keep(rows: list[dict[str, Any]], rounds: int) -> None:
    """Add the ratios of this run to the history."""
    git = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=10"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    direct = {r["case"]: r for r in rows if r["target"] == "direct"}
    found = {
        f"{r['case']}/{r['target']}": {
            "per_cpu_s": round(r["figure"]),
            **{f"of_{peer}": ratio for peer, ratio in r["of"].items()},
            "added_p50_ms": round((r["p50_us"] - direct[r["case"]]["p50_us"]) / 1000, 3),
            "rss_mib": round(r["rss_mib"]),
        }
        for r in rows
        if r["target"] != "direct"
    }
    line = {
        "commit": commit,
        "at": time.strftime("%Y-%m-%d"),
        "rounds": rounds,
        "load": os.getloadavg()[0],
        "rows": found,
    }
    with HISTORY.open("a") as file:
        file.write(json.dumps(line) + "\n")


def shared(litellm: str | None, seconds: float) -> None:
    """Run the shared driver, with its own load generator in C, over the same settings."""
    mock, slow = (
        "base_url: 'http://127.0.0.1:%s/v1'",
        "base_url: 'http://127.0.0.1:%s/m/0/10/64/v1', name: mock-model",
    )
    template = (
        f"listen: {{port: %s}}\\nmodels:\\n  mock-model: {{{mock}, api_key: k}}\\n"
        f"  mock-slow: {{{slow}, api_key: k}}\\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        start = Path(folder) / "start.sh"
        serve = (
            f"exec {sys.executable} -c 'from slipway.cli import main; main()' "
            "serve --quiet --config $1/slipway.yaml"
        )
        start.write_text(f'printf "{template}" "$3" "$2" "$2" > $1/slipway.yaml\n{serve}\n')
        for mode, conc in (("json", "1,16"), ("stream", "100")):
            command = [
                sys.executable,
                str(SHARED),
                "--gateway",
                f"sh {start} {{dir}} {{mock}} {{port}}",
                "--mode",
                mode,
                "--conc",
                conc,
                "--secs",
                str(seconds),
            ]
            subprocess.run([*command, *(["--litellm", litellm] if litellm else [])], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--cases", default="one,small,large,stream", help=", ".join(CASES))
    parser.add_argument(
        "--beside", action="append", default=[], metavar="NAME=CHECKOUT", help="another Slipway"
    )
    parser.add_argument("--portkey", metavar="SCRIPT", default=os.environ.get("PORTKEY"))
    parser.add_argument(
        "--litellm",
        default=os.environ.get("LITELLM") or shutil.which(str(ROOT / ".venv-litellm/bin/litellm")),
    )
    parser.add_argument("--keep", action="store_true", help="add the ratios to the history")
    parser.add_argument("--shared", action="store_true", help="run the shared driver too")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(given, Path(folder))
    if given.keep:
        keep(rows, given.rounds)
    if given.json:
        print(json.dumps(rows))
    else:
        table(rows)
    if given.shared and SHARED.exists():
        shared(given.litellm, given.seconds)


if __name__ == "__main__":
    main()
