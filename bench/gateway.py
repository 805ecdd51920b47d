"""Measure what the gateway costs: requests and chunks per CPU-second, added latency and memory,
beside LiteLLM's proxy in the same run.

    python bench/gateway.py [--rounds 5] [--seconds 2] [--litellm PATH] [--json]

The gateway runs pinned to core 1, the upstream and the load to core 0; targets take turns in each
round, and the figure is the median of the rounds, with their spread. CPU time is that of the
target's whole process tree, so that it is valid on a noisy machine; latencies are valid only as
differences to `direct`. LiteLLM is found by --litellm, by $LITELLM or in .venv-litellm; without it
only Slipway is measured. If ../shared/bench exists beside the checkout, its driver runs too
(--shared). Needs Linux with two cores.
"""

import argparse
import json
import os
import random
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PEER = str(ROOT / "bench" / "peer.py")
SHARED = ROOT.parent / "shared" / "bench" / "measure.py"
TICKS = os.sysconf("SC_CLK_TCK")
WORDS = (ROOT / "README.md").read_text().split()
LITELLM = """model_list:
  - model_name: mock-model
    litellm_params:
      {{model: openai/gpt-4o-mini, api_base: "http://127.0.0.1:{up}/v1", api_key: sk-up}}
  - model_name: mock-slow
    litellm_params:
      {{model: openai/gpt-4o-mini, api_base: "http://127.0.0.1:{up}/slow/v1", api_key: sk-up}}
"""
LITELLM_ENV = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_MODE": "PRODUCTION",
    "LITELLM_MASTER_KEY": "sk-bench-key",
    "LITELLM_LOG": "ERROR",
    "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
}
CASES: dict[str, dict[str, Any]] = {
    "small, 1 connection": {"connections": 1, "bodies": "small"},
    "small, 16 connections": {"connections": 16, "bodies": "small"},
    "21 KB, 16 connections": {"connections": 16, "bodies": "large"},
    "100 streams, 64 chunks at 10 ms": {"connections": 100, "bodies": "stream"},
}


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def tree(pid: int) -> list[int]:
    found, todo = list[int](), [pid]
    while todo:
        found.append(p := todo.pop())
        for children in Path(f"/proc/{p}/task").glob("*/children"):
            try:
                todo += map(int, children.read_text().split())
            except OSError:  # it ended meanwhile
                continue
    return found


def cpu_s(pid: int) -> float:
    ticks = 0
    for p in tree(pid):
        try:
            fields = Path(f"/proc/{p}/stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        ticks += int(fields[11]) + int(fields[12])
    return ticks / TICKS


def rss_mib(pid: int) -> float:
    kib = 0
    for p in tree(pid):
        try:
            lines = Path(f"/proc/{p}/status").read_text().splitlines()
        except OSError:
            continue
        kib += sum(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))
    return kib / 1024


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
        if kind == "stream":
            body["stream"] = True
        file = folder / f"{kind}-{i}.json"
        file.write_text(json.dumps(body))
        files.append(str(file))
    return files


class Target:
    def __init__(
        self, name: str, port: int, command: list[str] | None, env: dict[str, str] | None = None
    ) -> None:
        self.name, self.port, self.command, self.env = name, port, command, env or {}
        self.process: subprocess.Popen[bytes] | None = None
        self.ready_s = 0.0

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def start(self, log: Path, patience_s: float = 120) -> None:
        if self.command is None:
            return
        began = time.monotonic()
        with log.open("w") as out:
            self.process = subprocess.Popen(
                ["taskset", "-c", "1", *self.command],
                stdout=out,
                stderr=out,
                env={**os.environ, **self.env},
            )
        body = json.dumps(
            {"model": "mock-model", "messages": [{"role": "user", "content": "Hello"}]}
        ).encode()
        headers = {"Content-Type": "application/json", "Authorization": "Bearer sk-bench-key"}
        while time.monotonic() - began < patience_s and self.process.poll() is None:
            try:
                request = urllib.request.Request(
                    f"http://127.0.0.1:{self.port}/v1/chat/completions", body, headers
                )
                urllib.request.urlopen(request, timeout=10).read()
            except OSError:
                time.sleep(0.02)
                continue
            self.ready_s = time.monotonic() - began
            return
        raise SystemExit(f"{self.name} did not answer:\n{log.read_text()[-2000:]}")

    def load(self, case: dict[str, Any], files: list[str], seconds: float) -> dict[str, float]:
        path = (
            "/slow/v1/chat/completions"
            if self.name == "direct" and case["bodies"] == "stream"
            else "/v1/chat/completions"
        )
        plan = {
            "port": self.port,
            "path": path,
            "connections": case["connections"],
            "seconds": seconds,
            "bodies": files,
            "key": "sk-bench-key",
        }
        before = cpu_s(self.pid)
        done = subprocess.run(
            ["taskset", "-c", "0", sys.executable, PEER, "load", json.dumps(plan)],
            capture_output=True,
            text=True,
            timeout=seconds + 60,
        )
        if done.returncode:
            raise SystemExit(done.stderr)
        row: dict[str, float] = json.loads(done.stdout)
        spent = max(cpu_s(self.pid) - before, 1 / TICKS)
        return {
            **row,
            "per_cpu_s": row["requests"] / spent,
            "chunks_per_cpu_s": row["chunks"] / spent,
            "rss_mib": rss_mib(self.pid),
        }

    def stop(self) -> None:
        if self.process is None:
            return
        for p in tree(self.pid):
            try:
                os.kill(p, signal.SIGTERM)
            except ProcessLookupError:
                continue
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()


def targets(folder: Path, up: int, litellm: str | None) -> list[Target]:
    port = free_port()
    settings = {
        "listen": {"port": port},
        "keys": [{"key": "sk-bench-key"}],
        "models": {
            "mock-model": {"base_url": f"http://127.0.0.1:{up}/v1", "api_key": "sk-up"},
            "mock-slow": {
                "base_url": f"http://127.0.0.1:{up}/slow/v1",
                "name": "mock-model",
                "api_key": "sk-up",
            },
        },
    }
    (folder / "slipway.yaml").write_text(json.dumps(settings))
    command = [
        sys.executable,
        "-c",
        "from slipway.cli import main; main()",
        "serve",
        "--quiet",
        "--config",
        str(folder / "slipway.yaml"),
    ]
    found = [Target("direct", up, None), Target("slipway", port, command)]
    if litellm:
        port = free_port()
        (folder / "litellm.yaml").write_text(LITELLM.format(up=up))
        command = [
            litellm,
            "--config",
            str(folder / "litellm.yaml"),
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
            "--num_workers",
            "1",
        ]
        found.append(Target("litellm", port, [*command, "--telemetry", "False"], LITELLM_ENV))
    return found


def measure(folder: Path, rounds: int, seconds: float, litellm: str | None) -> list[dict[str, Any]]:
    up = free_port()
    found = targets(folder, up, litellm)
    found[0].process = subprocess.Popen(
        ["taskset", "-c", "0", sys.executable, PEER, "upstream", str(up)]
    )
    try:
        time.sleep(0.5)
        for target in found:
            target.start(folder / f"{target.name}.log")
        idle = {t.name: rss_mib(t.pid) for t in found}
        rows = []
        for name, case in CASES.items():
            files = bodies(folder, case["bodies"])
            for target in found:
                target.load(case, files, 0.7)  # warm
            runs = [(t.name, t.load(case, files, seconds)) for _ in range(rounds) for t in found]
            rows += [
                summary(name, t, [r for n, r in runs if n == t.name], idle[t.name]) for t in found
            ]
        return rows
    finally:
        for target in found:
            target.stop()


def summary(
    case: str, target: Target, runs: list[dict[str, float]], idle_mib: float
) -> dict[str, Any]:
    middle = {k: statistics.median(r[k] for r in runs) for k in runs[0]}
    key = "chunks_per_cpu_s" if middle["chunks"] else "per_cpu_s"
    spread = [min(r[key] for r in runs), max(r[key] for r in runs)]
    errors = sum(r["errors"] for r in runs)
    return {
        "case": case,
        "target": target.name,
        **middle,
        "errors": errors,
        "spread": spread,
        "idle_mib": idle_mib,
        "ready_s": target.ready_s,
    }


def table(rows: list[dict[str, Any]]) -> None:
    print(
        f"{'case':32} {'target':8} {'per CPU-s':>10} {'spread':>15} {'added p50 ms':>13} "
        f"{'added TTFT ms':>14} {'errors':>7} {'RSS MiB':>8} {'ready s':>8}"
    )
    for r in rows:
        base = next(b for b in rows if b["case"] == r["case"] and b["target"] == "direct")
        rate = r["chunks_per_cpu_s"] if r["chunks"] else r["per_cpu_s"]
        ttft = (r["ttft_p50_us"] - base["ttft_p50_us"]) / 1000
        added = (r["p50_us"] - base["p50_us"]) / 1000
        spread = f"{r['spread'][0]:.0f}-{r['spread'][1]:.0f}"
        print(
            f"{r['case']:32} {r['target']:8} {rate:10.0f} {spread:>15} {added:13.3f} "
            f"{ttft:14.2f} {r['errors']:7.0f} {r['rss_mib']:8.0f} {r['ready_s']:8.2f}"
        )


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
    parser.add_argument(
        "--litellm",
        default=os.environ.get("LITELLM") or shutil.which(str(ROOT / ".venv-litellm/bin/litellm")),
    )
    parser.add_argument("--shared", action="store_true", help="run the shared driver too")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(Path(folder), given.rounds, given.seconds, given.litellm)
    if given.json:
        print(json.dumps(rows))
    else:
        table(rows)
    if given.shared and SHARED.exists():
        shared(given.litellm, given.seconds)


if __name__ == "__main__":
    main()
