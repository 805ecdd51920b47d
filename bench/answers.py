"""Measure what a reader sees while an answer is written: whether progress is true, whether the time
left is right, and what sections save.

    python bench/answers.py                    # 1,000 runs, a few minutes
    python bench/answers.py --runs 200 --spread 0.2

`slipway serve` answers over docs-qa with a mock whose answers vary in length and speed; half of the
questions have one section, half two to four. The rows are:

- counts true: runs in which every count of the progress agrees with the events, and the model was
  called once for each section
- first event: time to the first event (p99); longest silence: the longest time without an event in
  any run
- shown: runs of over 5 s in which the time left was shown, and for which share of their time
- covered: ranges of the time left that contained the real end, of those over 5 s and of all; width:
  a range's width as a share of the time that was really left (median)
- first words: of four sections relative to one (medians); whole: four sections relative to four
  questions asked one after another
"""

import argparse
import asyncio
import contextlib
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from gateways import ROOT, free_port

COMMAND = [sys.executable, "-c", "from slipway.cli import main; main()"]
DOCS = ROOT.parent / "shared" / "data" / "rag" / "docs-qa"


class Run(NamedTuple):
    """The events of an answer: (seconds since the question, event's name, data)."""

    events: list[tuple[float, str, dict[str, Any]]]

    def of(self, name: str) -> list[dict[str, Any]]:
        return [data for _, each, data in self.events if each == name]

    @property
    def took_s(self) -> float:
        return float(self.of("done")[0]["duration_s"])

    @property
    def silence_s(self) -> float:
        times = [0.0, *(at for at, _, _ in self.events)]
        return max(later - earlier for earlier, later in pairwise(times))

    @property
    def first_words_s(self) -> float:
        return next(at for at, name, _ in self.events if name == "delta")

    @property
    def ranges(self) -> list[tuple[float, float, float]]:
        """Return (seconds really left, low, high) for each range that was shown."""
        return [
            (self.took_s - p["elapsed_s"], *p["eta_s"]) for p in self.of("progress") if p["eta_s"]
        ]

    @property
    def counts_are_true(self) -> bool:
        progress = self.of("progress")
        sections = {s["index"] for s in self.of("section")}
        found = [p for p in progress if p["unit"] == "passages"][-1]
        right = found["done"] == found["total"] == len(self.of("source"))
        done = 0
        for _, name, data in self.events:
            done += name == "section" and data["state"] == "done"
            if name == "progress" and data["unit"] == "sections":
                right = (
                    right
                    and data["total"] == len(sections)
                    and done <= data["done"] <= len(sections)
                )
        written = [p["done"] for p in progress if p["unit"] == "sections"]
        return bool(right and written[-1] == done == len(sections))


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure progress and sections.")
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--at-once", type=int, default=24, help="questions in progress")
    parser.add_argument(
        "--spread",
        type=float,
        default=0.1,
        help="spread of length, speed and time to the first token, as in slipway mock",
    )
    parser.add_argument("--tokens", type=int, default=120)
    parser.add_argument("--tpot", type=float, default=0.05)
    parser.add_argument("--rounds", type=int, default=7, help="rounds of four sections beside one")
    options = parser.parse_args()
    questions = [
        json.loads(line)["question"] for line in (DOCS / "questions.jsonl").read_text().splitlines()
    ]
    flags = [
        "--spread",
        options.spread,
        "--tokens",
        options.tokens,
        "--tpot",
        options.tpot,
        "--ttft",
        0.3,
        "--prefill",
        2000,
    ]
    if options.runs:
        with serving(flags) as (url, mock):
            show_progress(
                asyncio.run(progress(url, mock, questions, options.runs, options.at_once))
            )
    if options.rounds:
        with serving(["--tokens", 100, "--tpot", 0.02, "--ttft", 0.3]) as (url, _):
            show_sections(asyncio.run(sections(url, questions, options.rounds)))


@contextlib.contextmanager
def serving(mock_flags: Sequence[Any]) -> Iterator[tuple[str, str]]:
    """Start both as processes, so that neither delays the other; yield their addresses."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        port, up = free_port(), free_port()
        file = Path(folder) / "slipway.yaml"
        model = {"base_url": f"http://127.0.0.1:{up}/v1", "name": "mock-model"}
        app = {"knowledge": str(DOCS / "pages"), "route": "m"}
        file.write_text(
            json.dumps(
                {
                    "embedding": "none",
                    "listen": {"port": port},
                    "models": {"m": model},
                    "apps": {"docs": app},
                }
            )
        )
        for command in (
            ["mock", "--port", str(up), *map(str, mock_flags)],
            ["serve", "--quiet", "--config", str(file)],
        ):
            process = subprocess.Popen([*COMMAND, *command], stdout=subprocess.DEVNULL, cwd=folder)
            stack.callback(process.wait)
            stack.callback(process.terminate)
        wait_for(f"http://127.0.0.1:{up}/healthz")
        wait_for(f"http://127.0.0.1:{port}/readyz")
        yield f"http://127.0.0.1:{port}", f"http://127.0.0.1:{up}"


def wait_for(url: str) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(url).status_code == 200:
                return
        time.sleep(0.05)
    raise SystemExit(f"{url} did not get ready")


async def ask(client: httpx.AsyncClient, url: str, question: str) -> Run:
    events, name, began = list[tuple[float, str, dict[str, Any]]](), "", time.monotonic()
    async with client.stream(
        "POST", f"{url}/v1/answers", json={"question": question, "stream": True}, timeout=300
    ) as reply:
        async for line in reply.aiter_lines():
            if line.startswith("event: "):
                name = line[7:]
            elif line.startswith("data: "):
                events.append((time.monotonic() - began, name, json.loads(line[6:])))
    return Run(events)


# Progress


async def progress(
    url: str, mock: str, questions: list[str], runs: int, at_once: int
) -> tuple[list[Run], int]:
    """Return the runs in the order of their ends, and the calls that the mock got."""
    rng, gate, done = random.Random(1), asyncio.Semaphore(at_once), list[Run]()

    async def one(client: httpx.AsyncClient) -> None:
        several = rng.sample(questions, rng.choice([1, 1, 1, 2, 3, 4]))
        async with gate:
            done.append(await ask(client, url, " ".join(map(alone, several))))
        print(f"\r{len(done)}/{runs}", end="", file=sys.stderr)

    async with httpx.AsyncClient(limits=httpx.Limits(max_connections=at_once)) as client:
        await asyncio.gather(*(one(client) for _ in range(runs)))
        print(file=sys.stderr)
        seen = (await client.get(f"{mock}/requests", timeout=60)).json()
    return done, sum(each["path"].endswith("/chat/completions") for each in seen)


def alone(question: str) -> str:
    """Return the first of its questions, so that it has one section."""
    return question.partition("?")[0] + "?"


def show_progress(found: tuple[list[Run], int]) -> None:
    runs, calls = found
    written = sum(
        s["state"] == "done" and s["model"] is not None for run in runs for s in run.of("section")
    )
    right = sum(run.counts_are_true for run in runs)
    long = [run for run in runs if run.took_s > 5]
    firsts = sorted(run.events[0][0] * 1000 for run in runs)
    shown = [run for run in long if run.ranges]
    share = statistics.median(len(run.ranges) / len(run.of("progress")) for run in shown)
    say(
        "runs",
        f"{len(runs)}, {statistics.median(run.took_s for run in runs):.1f} s (median), "
        f"{len(long)} over 5 s",
    )
    say(
        "counts true",
        f"{right}/{len(runs)}; {calls} calls for {written} sections that a model wrote",
    )
    say(
        "first event",
        f"p50 {firsts[len(runs) // 2]:.0f} ms, p99 {firsts[int(0.99 * len(runs))]:.0f} ms, "
        f"longest {firsts[-1]:.0f} ms",
    )
    say("longest silence", f"{max(run.silence_s for run in runs):.2f} s")
    say(
        "shown",
        f"in {len(shown) / len(long):.1%} of the runs over 5 s, in {share:.0%} of their progress "
        "events (median)",
    )
    show_ranges("over 5 s", long)
    show_ranges("all runs", runs)


def show_ranges(name: str, runs: list[Run]) -> None:
    ranges = [each for run in runs for each in run.ranges]
    covered = sum(low <= left <= high for left, low, high in ranges) / len(ranges)
    widths = sorted((high - low) / left for left, low, high in ranges if left > 0)
    spread = f"{widths[len(widths) // 4]:.2f}-{widths[3 * len(widths) // 4]:.2f}"
    say(
        name,
        f"covered {covered:.1%} of {len(ranges)} ranges; width {statistics.median(widths):.2f} "
        f"of what was left ({spread})",
    )


def say(name: str, figures: str) -> None:
    print(f"{name:16}{figures}")


# Sections


async def sections(url: str, questions: list[str], rounds: int) -> list[dict[str, float]]:
    found, four = [], [alone(each) for each in questions[:4]]
    async with httpx.AsyncClient() as client:
        for _ in range(rounds):
            singles = [await ask(client, url, each) for each in four]
            together = await ask(client, url, " ".join(four))
            if len({s["index"] for s in together.of("section")}) != 4:
                raise SystemExit("four questions did not get four sections")
            single = statistics.median(run.first_words_s for run in singles)
            whole = sum(run.events[-1][0] for run in singles)
            found.append(
                {
                    "first words": together.first_words_s / single,
                    "whole": together.events[-1][0] / whole,
                }
            )
    return found


def show_sections(found: list[dict[str, float]]) -> None:
    for name in found[0]:
        values = sorted(each[name] for each in found)
        say(name, f"{statistics.median(values):.2f} times ({values[0]:.2f}-{values[-1]:.2f})")


if __name__ == "__main__":
    main()
