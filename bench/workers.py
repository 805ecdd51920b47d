"""Measure what a second worker gives: requests per second of wall time and of CPU time with one
and with two workers, in turn, and the memory of each process. Needs gcc and the load tools in
../shared/bench.

    python bench/workers.py [--rounds 5] [--seconds 4] [--connections 16]

The workers, the upstream and the load share the machine's cores: on two cores, the ratio of
requests per second cannot reach 2, and says little if the machine has other work. Requests per
CPU-second are valid on a noisy machine; twice their ratio is what two workers give if the upstream
and the load run elsewhere.
"""

import argparse
import json
import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

TOOLS = Path(__file__).resolve().parents[2] / "shared" / "bench"
COMMAND = [sys.executable, "-c", "from slipway.cli import main; main()"]
TICKS = os.sysconf("SC_CLK_TCK")
UPSTREAM, FIRST_PORT = 21800, 21900


def tree(pid: int) -> list[int]:
    """Return a process and those that it started."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(each for child in children for each in tree(int(child)))]


def cpu_s(pid: int) -> float:
    ticks = 0
    for each in tree(pid):
        fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / TICKS


def ended_s() -> float:
    """Return the CPU time of child processes that have ended: the loads."""
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def memory_mib(pid: int) -> dict[str, float]:
    """Return RSS and PSS: shared memory counts whole in the one, and by its share in the other."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    found = dict(re.findall(r"^(Rss|Pss):\s+(\d+)", text, re.MULTILINE))
    return {name: int(kib) / 1024 for name, kib in found.items()}


@contextmanager
def serving(folder: Path, workers: int) -> Iterator[tuple[int, int]]:
    """Run a server; yield its port and process."""
    port = FIRST_PORT + workers
    settings = folder / f"{workers}.yaml"
    settings.write_text(
        json.dumps(
            {
                "listen": {"port": port, "workers": workers},
                "models": {"mock-model": {"base_url": f"http://127.0.0.1:{UPSTREAM}/v1"}},
                "keys": [{"key": "sk-bench"}],
            }
        )
    )
    with (folder / f"{workers}.log").open("w") as log:
        process = subprocess.Popen(
            [*COMMAND, "serve", "--config", str(settings)], stdout=log, stderr=log, cwd=folder
        )
    try:
        until = time.monotonic() + 60
        while time.monotonic() < until:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5).read()
                break
            except OSError:
                time.sleep(0.1)
        yield port, process.pid
    finally:
        process.terminate()
        process.wait(60)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--connections", type=int, default=16, help="for each worker")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="bench-workers-"))
    for name in ("mock", "load"):
        subprocess.run(["gcc", "-O2", "-o", folder / name, TOOLS / f"{name}.c"], check=True)
    rows: dict[int, list[dict[str, float]]] = {1: [], 2: []}
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder)
        mock = subprocess.Popen([folder / "mock", str(UPSTREAM)], stdout=subprocess.DEVNULL)
        stack.callback(mock.wait)
        stack.callback(mock.terminate)
        servers = {workers: stack.enter_context(serving(folder, workers)) for workers in (1, 2)}
        for number in range(options.rounds + 1):
            for workers, (port, pid) in servers.items():
                before, began_at = cpu_s(pid), time.monotonic()
                others_before = cpu_s(mock.pid) + ended_s()
                command = [str(folder / "load"), "-p", str(port)]
                command += [
                    "-c",
                    str(options.connections * workers),
                    "-t",
                    str(options.seconds if number else 1),
                    "-b",
                    str(TOOLS / "body.json"),
                ]
                run = subprocess.run(command, capture_output=True, text=True, check=True)
                found, spent = json.loads(run.stdout), cpu_s(pid) - before
                took = time.monotonic() - began_at
                if number:  # the first round warms up
                    rows[workers].append(
                        {
                            "rps": found["rps"],
                            "per_cpu_s": found["reqs"] / spent,
                            "cores": spent / took,
                            "others_us": (cpu_s(mock.pid) + ended_s() - others_before)
                            / found["reqs"]
                            * 1e6,
                            "errors": found["errs"],
                            "p99_ms": found["p99"] / 1000,
                        }
                    )
        print(f"load of the machine: {os.getloadavg()[0]:.1f}; {os.cpu_count()} cores")
        for workers, found_rows in rows.items():
            middle = {k: statistics.median(row[k] for row in found_rows) for k in found_rows[0]}
            print(f"{workers} worker(s): " + ", ".join(f"{k} {v:,.2f}" for k, v in middle.items()))
        for key in ("rps", "per_cpu_s"):
            ratios = [two[key] / one[key] for one, two in zip(rows[1], rows[2], strict=True)]
            low, high = min(ratios), max(ratios)
            print(f"{key}: 2 / 1 = {statistics.median(ratios):.2f} ({low:.2f} to {high:.2f})")
        print(f"if each worker had a core of its own: {2 * statistics.median(ratios):.2f}")
        for workers, (_, pid) in servers.items():
            for name, each in zip(("main", *range(1, 9)), tree(pid), strict=False):
                said = ", ".join(f"{k} {v:.1f} MiB" for k, v in memory_mib(each).items())
                print(f"{workers} worker(s), process {name}: {said}")


if __name__ == "__main__":
    main()
