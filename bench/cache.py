"""Measure kept answers beside proxied calls in the same run: requests per CPU-second, latencies
from memory and from Redis, what an untouched question costs, and what an outage of Redis costs.

    python bench/cache.py [--rounds 5] [--seconds 1.5] [--only speed|outages] [--json]

Servers run pinned to core 1, the upstream, Redis and the load to core 0; the cases take turns in
each round, and a figure is the median of the rounds, with its spread. `redis` is a server without
memory for kept answers, so that each hit is read from Redis. `off` is a server whose settings name
no cache. Needs Linux with two cores, and `redis-server`.
"""

import argparse
import json
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gateway import bodies
from gateways import PEER, Target, free_port

KEPT = {"exact": "1h"}


class Redis:
    """A Redis on loopback that keeps nothing on disk."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.start()

    def start(self) -> None:
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir"]
        self.process = subprocess.Popen(
            ["taskset", "-c", "0", "redis-server", *options, str(self.folder)],
            stdout=subprocess.DEVNULL,
        )

    def config(self, name: str, value: str) -> None:
        subprocess.run(
            ["redis-cli", "-p", str(self.port), "CONFIG", "SET", name, value],
            stdout=subprocess.DEVNULL,
            check=True,
        )

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


def server(folder: Path, name: str, up: int, **settings: Any) -> Target:
    """Return a server with a model that is kept and one that is not."""
    port, file = free_port(), folder / f"{name}.yaml"
    kept = {"cache": KEPT} if name != "off" else {}
    model = {"base_url": f"http://127.0.0.1:{up}/v1", "name": "mock-model", "api_key": "sk-up"}
    models = {"mock-model": model, "kept-model": {**model, **kept}}
    file.write_text(
        json.dumps(
            {
                "listen": {"port": port},
                "keys": [{"key": "sk-bench-key"}],
                "models": models,
                **settings,
            }
        )
    )
    serve = "from slipway.cli import main; main()"
    command = [sys.executable, "-c", serve, "serve", "--quiet", "--config", str(file)]
    return Target(name, port, command)


def written(folder: Path, model: str, *, stream: bool) -> list[str]:
    """Write the small bodies of bench/gateway.py for this model."""
    files = []
    for file in bodies(folder, "small"):
        body = json.loads(Path(file).read_text())
        body |= {"model": model, "stream": stream}
        path = Path(file).with_name(f"{model}-{stream}-{Path(file).name}")
        path.write_text(json.dumps(body))
        files.append(str(path))
    return files


def measure(folder: Path, up: int, redis: Redis, rounds: int, seconds: float) -> list[Any]:
    memory = server(folder, "memory", up)
    shared = f"redis://127.0.0.1:{redis.port}/0"
    far = server(folder, "redis", up, shared=shared, cache={"memory_mb": 0.0005})
    off = server(folder, "off", up)
    servers = [memory, far, off]
    try:
        for each in servers:
            each.start(folder / f"{each.name}.log")
        rows = []
        for stream in (False, True):
            form = "streamed" if stream else "whole"
            cases = {
                f"{form}, proxied, no cache in the settings": (off, "mock-model"),
                f"{form}, proxied, another model is kept": (memory, "mock-model"),
                f"{form}, hit in memory": (memory, "kept-model"),
                f"{form}, hit in Redis": (far, "kept-model"),
            }
            for connections in (16, 1):
                rows += measured(folder, cases, connections, rounds, seconds, stream=stream)
        return rows
    finally:
        for each in servers:
            each.stop()


def hits(target: Target) -> float:
    """Return how many questions the server has answered from what it keeps."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{target.port}/metrics",
        headers={"Authorization": "Bearer sk-bench-key"},
    )
    lines = urllib.request.urlopen(request, timeout=10).read().decode().splitlines()
    found = [line for line in lines if line.startswith("slipway_cache_answers_total")]
    return sum(float(line.rpartition(" ")[2]) for line in found if 'state="hit"' in line)


def loaded(target: Target, case: dict[str, Any], files: list[str], seconds: float) -> Any:
    """Load a server, and add the share of answers that were hits."""
    before = hits(target)
    row = target.load(case, files, seconds)
    return {**row, "hits": (hits(target) - before) / max(1.0, row["requests"])}


def measured(
    folder: Path,
    cases: dict[str, tuple[Target, str]],
    connections: int,
    rounds: int,
    seconds: float,
    *,
    stream: bool,
) -> list[dict[str, Any]]:
    """Measure the cases in turns, and return a row for each."""
    case = {"connections": connections, "bodies": "small"}
    files = {name: written(folder, model, stream=stream) for name, (_, model) in cases.items()}
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in cases}
    for name, (target, _) in cases.items():
        target.load(case, files[name], 0.5)
    for _ in range(rounds):
        for name, (target, _) in cases.items():
            runs[name].append(loaded(target, case, files[name], seconds))
    return [
        {
            "case": name,
            "connections": connections,
            "errors": sum(run["errors"] for run in found),
            "spread": [min(r["per_cpu_s"] for r in found), max(r["per_cpu_s"] for r in found)],
            **{k: statistics.median(run[k] for run in found) for k in found[0] if k != "errors"},
        }
        for name, found in runs.items()
    ]


def outages(folder: Path, up: int, redis: Redis, seconds: float) -> list[dict[str, Any]]:
    """Load a server that reads each hit from Redis, while Redis is broken for a half of the time."""
    shared = f"redis://127.0.0.1:{redis.port}/0"
    target = server(folder, "outage", up, shared=shared, cache={"memory_mb": 0.0005})
    target.command = [word for word in target.command or [] if word != "--quiet"]
    log = folder / "outage.log"
    case = {"connections": 4, "bodies": "small"}
    files = written(folder, "kept-model", stream=False)
    kinds: dict[str, tuple[Callable[[], None], Callable[[], None]]] = {
        "healthy": (lambda: None, lambda: None),
        "stopped by SIGSTOP": (
            lambda: redis.process.send_signal(signal.SIGSTOP),
            lambda: redis.process.send_signal(signal.SIGCONT),
        ),
        "killed": (redis.kill, redis.start),
        "full": (
            lambda: redis.config("maxmemory", "1"),
            lambda: redis.config("maxmemory", "0"),
        ),
    }
    rows = []
    target.start(log)
    try:
        target.load(case, files, 1.0)
        for name, (breaks, mends) in kinds.items():
            said = log.read_text().count("Redis at")
            timers = [threading.Timer(seconds / 4, breaks), threading.Timer(3 * seconds / 4, mends)]
            for timer in timers:
                timer.start()
            row: dict[str, Any] = dict(target.load(case, files, seconds))
            time.sleep(1.5)
            row |= {"case": name, "lines": log.read_text().count("Redis at") - said}
            rows.append(row)
    finally:
        target.stop()
    return rows


def table(rows: list[dict[str, Any]]) -> None:
    print(
        f"{'case':46} {'conn.':>5} {'per CPU-s':>10} {'spread':>13} {'p50 ms':>8} "
        f"{'p99 ms':>8} {'hits':>6} {'errors':>7}"
    )
    for r in rows:
        spread = f"{r['spread'][0]:.0f}-{r['spread'][1]:.0f}"
        print(
            f"{r['case']:46} {r['connections']:5} {r['per_cpu_s']:10.0f} {spread:>13} "
            f"{r['p50_us'] / 1000:8.2f} {r['p99_us'] / 1000:8.2f} {100 * r['hits']:4.0f} % "
            f"{r['errors']:7.0f}"
        )


def outage_table(rows: list[dict[str, Any]]) -> None:
    print(f"\n{'Redis':20} {'requests':>9} {'failed':>7} {'p99 ms':>8} {'most ms':>8} {'log':>4}")
    for r in rows:
        print(
            f"{r['case']:20} {r['requests']:9.0f} {r['errors']:7.0f} {r['p99_us'] / 1000:8.2f} "
            f"{r['max_us'] / 1000:8.1f} {r['lines']:4}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.5, help="of each measurement")
    parser.add_argument("--only", choices=["speed", "outages"])
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder, up = Path(name), free_port()
        upstream = subprocess.Popen(
            ["taskset", "-c", "0", sys.executable, PEER, "upstream", str(up)]
        )
        redis = Redis(folder)
        try:
            time.sleep(0.5)
            rows, found = list[Any](), list[Any]()
            if options.only != "outages":
                rows = measure(folder, up, redis, options.rounds, options.seconds)
            if options.only != "speed":
                found = outages(folder, up, redis, 4 * options.seconds)
        finally:
            redis.kill()
            upstream.terminate()
    if options.json:
        print(json.dumps({"speed": rows, "outages": found}))
        return
    if rows:
        table(rows)
    if found:
        outage_table(found)


if __name__ == "__main__":
    main()
