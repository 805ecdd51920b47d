"""Measure what a question over documents costs until its model has spoken: CPU time of the server,
and the time to the first token, one question at a time and many at once.

    python bench/apps.py [--rounds 3] [--beside NAME=CHECKOUT] [--json]

The documents are those of docs-qa and abstracts of SciFact, about 1,000 passages; the questions are
narrow ones about both, each asked once a round. The model is the upstream of `peer.py`, which
answers at once, so that only our own work is measured: search, embedding, prompt, the answer's
events. Checkouts take turns. CPU time is that of the whole process tree, from the kernel; it is
valid on a busy machine, times are valid only beside each other. Needs ../shared/data, the weights
`minilm`, and Linux.
"""

import argparse
import asyncio
import gzip
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx

from gateways import PEER, ROOT, Target, cpu_s, free_port

DATA = ROOT.parent / "shared" / "data" / "rag"
ABSTRACTS = 380
AT_ONCE = (1, 32)
QUESTIONS = 96  # a round, for each number at once


def documents(folder: Path) -> Path:
    """Write the documents into a folder, and return it."""
    pages = folder / "pages"
    pages.mkdir()
    for page in (DATA / "docs-qa" / "pages").iterdir():
        (pages / page.name).write_bytes(page.read_bytes())
    with gzip.open(DATA / "scifact" / "corpus.jsonl.gz", "rt") as lines:
        for number, line in enumerate(lines):
            if number == ABSTRACTS:
                break
            row = json.loads(line)
            text = row["text"] if isinstance(row["text"], str) else " ".join(row["text"])
            (pages / f"abstract-{number}.md").write_text(f"# {row['title']}\n\n{text}\n")
    return pages


def questions() -> list[str]:
    """Return narrow questions, half of them about each set."""
    found = [
        json.loads(line)["question"]
        for line in (DATA / "docs-qa" / "questions.jsonl").read_text().splitlines()
    ]
    for line in (DATA / "scifact" / "queries.jsonl").read_text().splitlines():
        row = json.loads(line)
        found.append(row.get("text") or row["claim"])
    return found


def target(name: str, folder: Path, up: int, pages: Path, checkout: Path) -> Target:
    port, home = free_port(), folder / name
    home.mkdir()
    settings = {
        "listen": {"port": port},
        "models": {"mock-model": {"base_url": f"http://127.0.0.1:{up}/v1", "api_key": "sk-up"}},
        "routes": {"main": ["mock-model"]},
        "apps": {"docs": {"knowledge": str(pages), "route": "main"}},
    }
    (home / "slipway.yaml").write_text(json.dumps(settings))
    start = "from slipway.cli import main; main()"
    command = [sys.executable, "-c", start, "serve", "--quiet", "--config"]
    env = {"PYTHONPATH": str(checkout / "src")}
    return Target(name, port, [*command, str(home / "slipway.yaml")], env, home)


def wait_until_read(found: Target) -> None:
    """Return once all documents have been read and embedded."""
    until = time.monotonic() + 600
    while time.monotonic() < until:
        reply = httpx.get(f"http://127.0.0.1:{found.port}/readyz", timeout=30, trust_env=False)
        known: dict[str, Any] = reply.json()["knowledge"]["docs"]
        dense = str(known.get("dense", "")).split("/")
        if known["ready"] and known["read"] == "100 %" and len(set(dense)) == 1:
            return
        time.sleep(0.5)
    raise SystemExit(f"{found.name} has not read the documents: {known}")


async def ask_all(port: int, asked: list[str], at_once: int) -> list[float]:
    """Ask each question, so many at once; return the seconds to the first words."""
    waits, todo = list[float](), list(asked)
    async with httpx.AsyncClient(timeout=120, trust_env=False) as client:

        async def ask() -> None:
            while todo:
                question = todo.pop()
                began_at = time.monotonic()
                body = {
                    "model": "docs",
                    "stream": True,
                    "messages": [{"role": "user", "content": question}],
                }
                url = f"http://127.0.0.1:{port}/v1/chat/completions"
                async with client.stream("POST", url, json=body) as reply:
                    assert reply.status_code == 200, await reply.aread()
                    first: float | None = None
                    async for line in reply.aiter_lines():
                        if first is None and '"content":"' in line and '"content":""' not in line:
                            first = time.monotonic() - began_at
                waits.append(first if first is not None else time.monotonic() - began_at)

        await asyncio.gather(*(ask() for _ in range(at_once)))
    return waits


def measure(given: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    up, pages = free_port(), documents(folder)
    peer = subprocess.Popen([sys.executable, PEER, "upstream", str(up)])
    checkouts = [("now", ROOT), *((n, Path(p)) for n, _, p in map(split, given.beside))]
    targets = [target(name, folder, up, pages, path.resolve()) for name, path in checkouts]
    asked, rows = questions(), list[dict[str, Any]]()
    try:
        time.sleep(0.5)
        for each in targets:
            each.start(folder / f"{each.name}.log")
            wait_until_read(each)
            asyncio.run(ask_all(each.port, asked[:16], 4))  # warm
        for at_once in AT_ONCE:
            found: dict[str, list[tuple[float, list[float]]]] = {t.name: [] for t in targets}
            for number in range(given.rounds):
                mine = asked[number * QUESTIONS : (number + 1) * QUESTIONS]
                for each in targets:
                    before = cpu_s(each.pid)
                    waits = asyncio.run(ask_all(each.port, list(mine), at_once))
                    spent = (cpu_s(each.pid) - before) / len(mine)
                    found[each.name].append((spent, waits))
            for name, rounds in found.items():
                costs = [1000 * cost for cost, _ in rounds]
                waits = sorted(1000 * wait for _, each in rounds for wait in each)
                rows.append(
                    {
                        "target": name,
                        "at_once": at_once,
                        "cpu_ms": round(statistics.median(costs), 2),
                        "cpu_ms_spread": [round(min(costs), 2), round(max(costs), 2)],
                        "ttft_p50_ms": round(waits[len(waits) // 2], 1),
                        "ttft_p95_ms": round(waits[int(len(waits) * 0.95)], 1),
                    }
                )
    finally:
        for each in targets:
            each.stop()
        peer.terminate()
        peer.wait()
    return rows


def split(given: str) -> tuple[str, str, str]:
    return given.partition("=")


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure questions over documents.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--beside", action="append", default=[], metavar="NAME=CHECKOUT")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory() as name:
        rows = measure(given, Path(name))
    if given.json:
        print(json.dumps(rows))
        return
    print(f"{'target':8} {'at once':>7} {'CPU ms':>8} {'spread':>16} {'TTFT p50':>9} {'p95 ms':>8}")
    for r in rows:
        spread = "{}-{}".format(*r["cpu_ms_spread"])
        print(
            f"{r['target']:8} {r['at_once']:7} {r['cpu_ms']:8} {spread:>16} "
            f"{r['ttft_p50_ms']:9} {r['ttft_p95_ms']:8}"
        )


if __name__ == "__main__":
    main()
