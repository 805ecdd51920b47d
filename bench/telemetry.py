"""Measure whether the telemetry is right, and what it costs.

    python bench/telemetry.py observe [--answers 600] [--workers 1] [--json]
    python bench/telemetry.py cost [--rounds 7] [--seconds 2] [--json]

`observe` is a client that streams answers of `slipway mock` through `slipway serve` at low load, and
takes the time of each byte at its socket. It compares time to first token, time per output token and
duration with the record of each answer and with the histograms of /metrics: every difference to the
record, the means, and each bucket. On a busy machine, `chrt -f 10` in front of the command keeps
others away.

`cost` measures requests per CPU-second with all telemetry on (metrics, traces, access log in JSON,
history, alerts, a scrape each round) beside the same server with all of it off. Both are pinned to
core 1, upstream and load to core 0, and take turns in each round; the figure is the median of the
rounds' ratios, with their spread; `best` compares the best rounds. Needs Linux with two cores.
"""

import argparse
import asyncio
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from gateway import CASES, bodies
from gateways import PEER, Target, free_port
from slipway.settings import Settings

SERVE = "from slipway.cli import main; main()"
KEY = "sk-bench-key"
TOKENS = 16
AT_ONCE = 2  # answers: little enough that nobody waits for the CPU
LIMIT_MS = 2.0
FIELDS = ("ttft_s", "tpot_s", "duration_s")
HISTOGRAMS = {
    "ttft_s": "gen_ai_server_time_to_first_token_seconds",
    "tpot_s": "gen_ai_server_time_per_output_token_seconds",
    "duration_s": "gen_ai_server_request_duration_seconds",
}
WORDS = re.compile(rb'"content": ?"[^"]')
SAMPLE = re.compile(r"^(\w+?)_(bucket|sum|count)\{(.*?)\} (\S+)$")
EDGE = re.compile(r'le="([^"]+)"')


# What an outside observer sees


class Observer(asyncio.Protocol):
    """A connection that asks for one stream, and notes when what arrives."""

    def __init__(self, port: int) -> None:
        body = json.dumps(
            {
                "model": "mock-model",
                "stream": True,
                "messages": [{"role": "user", "content": f"Question {time.monotonic_ns()}"}],
            }
        ).encode()
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
            f"Content-Type: application/json\r\nAuthorization: Bearer {KEY}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        self.request = head.encode() + body
        self.held, self.first_at = b"", 0.0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.sent_at = time.monotonic()
        self.transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        now = time.monotonic()
        self.held += data
        if not self.first_at and WORDS.search(self.held):
            self.first_at = now
        if self.held.endswith(b"0\r\n\r\n"):
            self.ended_at = now
            self.transport.close()
            if not self.done.done():
                self.done.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(RuntimeError(f"cut: {self.held[-300:]!r}"))

    def seen(self) -> dict[str, Any]:
        """Return the answer's id and its times as the client saw them."""
        head = self.held.split(b"\r\n\r\n", 1)[0].decode()
        answer = re.search(r"x-slipway-answer-id: (\S+)", head, re.IGNORECASE)
        assert answer is not None, head
        tokens = len(WORDS.findall(self.held))
        return {
            "id": answer[1],
            "ttft_s": self.first_at - self.sent_at,
            "tpot_s": (self.ended_at - self.first_at) / (tokens - 1),
            "duration_s": self.ended_at - self.sent_at,
        }


async def observed(port: int, count: int) -> list[dict[str, Any]]:
    """Stream so many answers, a few at a time, and return what the client saw."""
    loop = asyncio.get_running_loop()
    found = list[dict[str, Any]]()

    async def one_after_another(times: int) -> None:
        for _ in range(times):
            _, observer = await loop.create_connection(lambda: Observer(port), "127.0.0.1", port)
            await observer.done
            found.append(observer.seen())

    await asyncio.gather(*(one_after_another(count // AT_ONCE) for _ in range(AT_ONCE)))
    return found


def fetched(port: int, path: str) -> str:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}", headers={"Authorization": f"Bearer {KEY}"}
    )
    with urllib.request.urlopen(request, timeout=30) as response:
        return str(response.read().decode())


def recorded(port: int, answer: str) -> dict[str, float]:
    """Return the times that the record of an answer has."""
    record = json.loads(fetched(port, f"/v1/traces/{answer}"))["tries"][-1]["answer"]
    ttft_s, duration_s = record["ttft_s"], record["duration_s"]
    tpot_s = (duration_s - ttft_s) / (record["usage"]["output_tokens"] - 1)
    return {"ttft_s": ttft_s, "tpot_s": tpot_s, "duration_s": duration_s}


def histogram(text: str, name: str) -> dict[str, Any]:
    """Return the buckets, the sum and the count of a histogram, over all of its labels."""
    found: dict[str, Any] = {"buckets": {}, "sum": 0.0, "count": 0.0}
    for line in text.splitlines():
        sample = SAMPLE.match(line)
        if sample is None or sample[1] != name:
            continue
        value = float(sample[4])
        if sample[2] == "bucket":
            edge = EDGE.search(sample[3])
            assert edge is not None
            found["buckets"][float(edge[1])] = found["buckets"].get(float(edge[1]), 0.0) + value
        else:
            found[sample[2]] += value
    return found


def added(after: dict[str, Any], before: dict[str, Any]) -> dict[str, Any]:
    """Return what a histogram counted between two scrapes."""
    return {
        "buckets": {
            edge: count - before["buckets"].get(edge, 0.0)
            for edge, count in after["buckets"].items()
        },
        **{key: after[key] - before[key] for key in ("sum", "count")},
    }


def percentile(values: list[float], q: float) -> float:
    return sorted(values)[min(len(values) - 1, int(q * len(values)))]


def compared(
    field: str, seen: list[dict[str, Any]], counted: dict[str, Any], limit_s: float
) -> dict[str, Any]:
    """Compare what the client saw of a time with the records and with the histogram."""
    values = [each[field] for each in seen]
    row: dict[str, Any] = {
        "field": field,
        "answers": len(seen),
        "counted": counted["count"],
        "client_p50_ms": 1000 * percentile(values, 0.5),
        "client_p99_ms": 1000 * percentile(values, 0.99),
        "mean_difference_ms": 1000 * (statistics.fmean(values) - counted["sum"] / len(values)),
    }
    apart = [1000 * (each[field] - each["record"][field]) for each in seen]
    row |= {
        "record_p50_ms": percentile(apart, 0.5),
        "record_p99_ms": percentile([abs(each) for each in apart], 0.99),
        "record_worst_ms": max(map(abs, apart)),
        "sum_difference_s": counted["sum"] - sum(each["record"][field] for each in seen),
    }
    # A value is in the right bucket, or within the limit of an edge of it, on either side
    row["wrong_buckets"] = [
        edge
        for edge, count in counted["buckets"].items()
        if not sum(v <= edge - limit_s for v in values)
        <= count
        <= sum(v <= edge + limit_s for v in values)
    ]
    return row


@contextmanager
def running(command: list[str], log: Path, port: int, path: str) -> Iterator[None]:
    with log.open("w") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out)
    try:
        for _ in range(600):
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5):
                    break
            except OSError:
                assert process.poll() is None, log.read_text()
                time.sleep(0.1)
        yield
    finally:
        process.terminate()
        process.wait(60)


def observe(folder: Path, count: int, workers: int, limit_s: float) -> list[dict[str, Any]]:
    """Start a mock and a server, stream answers, and compare."""
    up, port = free_port(), free_port()
    settings = {
        "listen": {"port": port},
        "models": {"mock-model": {"base_url": f"http://127.0.0.1:{up}/v1"}},
        "keys": [KEY],
    }
    file = folder / "observe.yaml"
    file.write_text(json.dumps(settings))
    pace = ["--ttft", "0.03", "--tpot", "0.004", "--tokens", str(TOKENS), "--spread", "0.5"]
    mock = [sys.executable, "-c", SERVE, "mock", "--port", str(up), *pace]
    serve = [sys.executable, "-c", SERVE, "serve", "--quiet", "--config", str(file)]
    if workers > 1:
        serve += ["--workers", str(workers)]
    with (
        running(mock, folder / "mock.log", up, "/healthz"),
        running(serve, folder / "serve.log", port, "/healthz"),
    ):
        asyncio.run(observed(port, 20))  # warm
        before = fetched(port, "/metrics")
        seen = asyncio.run(observed(port, count))
        after = fetched(port, "/metrics")
        for each in seen:
            each["record"] = recorded(port, each["id"])
    return [
        compared(field, seen, added(histogram(after, name), histogram(before, name)), limit_s)
        for field, name in HISTOGRAMS.items()
    ]


def print_observed(rows: list[dict[str, Any]]) -> None:
    print(
        f"{'':11} {'answers':>8} {'counted':>8} {'client p50':>11} {'client p99':>11} "
        f"{'record: p50':>12} {'p99':>7} {'worst':>7} {'mean':>7}   (ms)"
    )
    for r in rows:
        print(
            f"{r['field']:11} {r['answers']:8} {r['counted']:8.0f} {r['client_p50_ms']:11.1f} "
            f"{r['client_p99_ms']:11.1f} {r['record_p50_ms']:12.2f} {r['record_p99_ms']:7.2f} "
            f"{r['record_worst_ms']:7.2f} {r['mean_difference_ms']:7.2f}"
        )
        for edge in r["wrong_buckets"]:
            print(f"{'':11} the bucket up to {edge:g} s has another count than the client saw")


# What it costs

# No record is watched, nothing is sampled, so no alert is evaluated, and nothing is logged of requests
OFF = f"""
from slipway.app import building
def nothing(*_): pass
building.Assembly.emit = building.Assembly.sample_metrics = nothing
building.Observing.start = nothing
{SERVE}
"""
WANTED: dict[str, Any] = {
    "slo": {"availability": "99.9%", "ttft_p95": "2s", "tpot_p95": "100ms"},
    "metrics": {"compatible": ["vllm", "litellm"]},
    "log": "json",
}
ON = {name: value for name, value in WANTED.items() if name in Settings.__struct_fields__}
MEASURED = ("one", "small", "stream")


def target(name: str, folder: Path, up: int, *, with_all: bool) -> Target:
    """Return a server with all telemetry on, or with none."""
    port = free_port()
    models = {
        "mock-model": {"base_url": f"http://127.0.0.1:{up}/v1"},
        "mock-slow": {"base_url": f"http://127.0.0.1:{up}/slow/v1", "name": "mock-model"},
    }
    settings: dict[str, Any] = {
        "listen": {"port": port},
        "models": models,
        "keys": [KEY],
        "store": f"sqlite:///{folder}/{name}.db",
        **(ON if with_all else {}),
    }
    file = folder / f"{name}.yaml"
    file.write_text(json.dumps(settings))
    code = SERVE if with_all else OFF
    return Target(
        name, port, [sys.executable, "-c", code, "serve", "--quiet", "--config", str(file)]
    )


def cost(folder: Path, rounds: int, seconds: float, cases: tuple[str, ...]) -> list[dict[str, Any]]:
    """Load both servers in turns, and return the ratios of what they do in a CPU-second."""
    up = free_port()
    upstream = subprocess.Popen(["taskset", "-c", "0", sys.executable, PEER, "upstream", str(up)])
    off, on = (target(name, folder, up, with_all=name == "on") for name in ("off", "on"))
    try:
        time.sleep(0.5)
        for each in (off, on):
            each.start(folder / f"{each.name}.log")
        return [measured(CASES[case], off, on, folder, rounds, seconds) for case in cases]
    finally:
        for each in (off, on):
            each.stop()
        upstream.terminate()


def measured(
    case: dict[str, Any], off: Target, on: Target, folder: Path, rounds: int, seconds: float
) -> dict[str, Any]:
    files = bodies(folder, case["bodies"])
    figure = "chunks_per_cpu_s" if case["bodies"] == "stream" else "per_cpu_s"
    for each in (off, on):
        each.load(case, files, 0.7)  # warm
    runs = []
    for number in range(rounds):
        turn = (off, on) if number % 2 else (on, off)
        done = {each.name: each.load(case, files, seconds) for each in turn}
        fetched(on.port, "/metrics")  # what a scraper costs falls into the next round
        runs.append((done["off"], done["on"]))
    ratios = [with_all[figure] / without[figure] for without, with_all in runs]
    return {
        "case": case["title"],
        "off": statistics.median(without[figure] for without, _ in runs),
        "on": statistics.median(with_all[figure] for _, with_all in runs),
        "ratio": statistics.median(ratios),
        "spread": [min(ratios), max(ratios)],
        # a busy machine only ever makes a request dearer, so the best rounds are the least disturbed
        "best": max(on_[figure] for _, on_ in runs) / max(off_[figure] for off_, _ in runs),
        "errors": sum(run["errors"] for pair in runs for run in pair),
    }


def print_cost(rows: list[dict[str, Any]]) -> None:
    print(
        f"{'per CPU-second':26} {'off':>8} {'on':>8} {'ratio':>7} {'spread':>12} {'best':>7} {'errors':>7}"
    )
    for r in rows:
        spread = f"{r['spread'][0]:.2f}-{r['spread'][1]:.2f}"
        print(
            f"{r['case']:26} {r['off']:8.0f} {r['on']:8.0f} {r['ratio']:7.3f} {spread:>12} "
            f"{r['best']:7.3f} "
            f"{r['errors']:7.0f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["observe", "cost"])
    parser.add_argument("--answers", type=int, default=600)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--limit-ms", type=float, default=LIMIT_MS, help="tolerance of buckets")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--case", choices=MEASURED, help="measure only this one")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if given.what == "observe":
            rows = observe(folder, given.answers, given.workers, given.limit_ms / 1000)
        else:
            cases = (given.case,) if given.case else MEASURED
            rows = cost(folder, given.rounds, given.seconds, cases)
    if given.json:
        print(json.dumps(rows))
    else:
        (print_observed if given.what == "observe" else print_cost)(rows)


if __name__ == "__main__":
    main()
