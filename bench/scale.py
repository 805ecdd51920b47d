"""Measure what many documents cost: reading them, checking them again, and searching them. It works
in temporary folders; the large store is kept in bench/.build.

    python bench/scale.py [--files 10000] [--chunks 50000] [--rounds 5] [--json]

`first` reads small Markdown files into a new store; `again` checks them unchanged, in the same
process and by `slipway ingest` in a fresh one. `find` asks a fresh process that has only opened a
store of so many passages with a vector each, from one thread and from eight; the vectors are
random, which changes nothing about the cost of comparing them. If the weights are here, each query
is a different one and is embedded. RSS is read after the questions. `cpu` counts chunks per
CPU-second of `slipway ingest`, including the parsing children. Median, minimum and maximum.

Measured on two cores that others used too: 0.1 s to check 10,000 unchanged files again, 0.8 s with
a fresh process. Among 50,000 passages 7 ms at p50 and 10 ms at p95 for one thread; 39 and 52 ms (45
to 55 from run to run) for eight that ask without a pause. 344 MiB, keywords ready in 0.1 s, vectors
in 1.5 s. 3,920 chunks a CPU-second without vectors, 62 with (of 80 words each).
"""

import argparse
import json
import os
import random
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from slipway import weights
from slipway.knowledge import Knowledge, opened
from slipway.knowledge.embedding import opened as opened_model
from slipway.store import Store
from slipway.types import Asker

BUILD = Path(__file__).resolve().parent / ".build"
DOCS = Path(__file__).resolve().parent.parent / "docs"
INGEST = [sys.executable, "-c", "from slipway.cli import main; main()", "ingest", "--json"]
OPERATOR = Asker(owner="bench", everything=True)
WORDS = 12  # of a question
SECTIONS = 10  # of a document of the large store


def vocabulary() -> list[str]:
    """Return the words of our own documents by frequency, then made-up rare ones."""
    draw = random.Random(1)
    counts = Counter(
        word
        for file in sorted(DOCS.glob("*.md"))
        for word in re.findall(r"[a-z]{2,}", file.read_text().lower())
    )
    rare = [
        "".join(
            draw.choice("bcdfglmnprst") + draw.choice("aeiou")
            for _ in range(draw.choice([2, 3, 4]))
        )
        for _ in range(17_000)
    ]
    return [word for word, _ in counts.most_common()] + rare


def prose(draw: random.Random, words: Sequence[str], count: int) -> str:
    """Draw words as in a language: the tenth a tenth as often as the first (Zipf)."""
    return " ".join(words[int(len(words) ** draw.random()) - 1] for _ in range(count))


def write(folder: Path, files: int, sections: int, words_each: int) -> None:
    draw, words = random.Random(files), vocabulary()
    for number in range(files):
        file = folder / f"d{number % 100}" / f"{number}.md"
        file.parent.mkdir(parents=True, exist_ok=True)
        parts = (
            f"## {prose(draw, words, 3)} {n}\n\n{prose(draw, words, words_each)}.\n"
            for n in range(sections)
        )
        file.write_text(f"# {prose(draw, words, 3)}\n\n" + "\n".join(parts))


def knowledge_of(store: Store, docs: Path, embedding: str = "none") -> Knowledge:
    return Knowledge(opened(store, [docs], embedding=embedding))


def timed(call: Any) -> float:
    started = time.monotonic()
    call()
    return time.monotonic() - started


def rss_mib() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def cpu_of(command: list[str], cwd: Path) -> tuple[float, float, dict[str, Any]]:
    """Return (seconds, CPU-seconds with its children, what it printed)."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.monotonic() - started, cpu, json.loads(done.stdout)["docs"]


def reading(files: int, rounds: int) -> Iterator[tuple[str, float]]:
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        write(home / "docs", files, 1, 40)
        (home / "slipway.yaml").write_text("embedding: none\n")
        time.sleep(0.1)
        for number in range(max(rounds // 2, 1)):
            store = Store(home / str(number) / "slipway.db")
            knowledge = knowledge_of(store, home / "docs")
            yield "first_files_per_s", files / timed(knowledge.build)
            for _ in range(rounds):
                yield "again_s", timed(knowledge.build)
            knowledge.synchronizer.close()
            store.close()
        subprocess.run([*INGEST, "--docs", "docs"], cwd=home, check=True, capture_output=True)
        for _ in range(rounds):
            seconds, _, printed = cpu_of([*INGEST, "--docs", "docs"], home)
            assert (printed["unchanged"], printed["read"], printed["embedded"]) == (files, 0, 0), (
                printed
            )
            yield "again_fresh_process_s", seconds


def large(chunks: int) -> Path:
    """Make a store of so many passages with random vectors, once; return its path."""
    home = BUILD / f"scale-{chunks}"
    if (home / "made").exists():
        return home
    shutil.rmtree(home, ignore_errors=True)
    write(home / "docs", chunks // SECTIONS, SECTIONS, 80)
    time.sleep(0.1)
    store = Store(home / "store" / "slipway.db")
    knowledge = knowledge_of(store, home / "docs")
    knowledge.build()
    draw, document_store = (
        np.random.default_rng(1),
        knowledge.synchronizer.collection.document_store,
    )
    model, after = opened_model("minilm").model if weights.found("minilm") else "none", 0
    while missing := document_store.without_vector(model, after, 5000):
        after = missing[-1][0]
        made = draw.normal(size=(len(missing), 384)).astype(np.float32)
        made /= np.linalg.norm(made, axis=1, keepdims=True)
        document_store.put_vectors(
            model, {key: row.tobytes() for (_, key, _), row in zip(missing, made, strict=True)}
        )
    knowledge.synchronizer.close()
    store.close()
    (home / "made").touch()
    return home


def finding(home: Path, questions: int) -> dict[str, float]:
    """Measure searches; runs in the fresh process."""
    started = time.monotonic()
    store = Store(home / "store" / "slipway.db")
    knowledge = knowledge_of(store, home / "docs", "minilm" if weights.found("minilm") else "none")
    found = {"ready_s": time.monotonic() - started}
    knowledge.synchronizer.start()
    while knowledge.synchronizer.dense and "/" not in knowledge.synchronizer.dense_state():
        time.sleep(0.01)
    found["vectors_s"] = time.monotonic() - started
    while knowledge.synchronizer.status()["scanning"]:
        time.sleep(0.05)
    draw, words = random.Random(time.time_ns()), vocabulary()
    asked = [prose(draw, words, WORDS) for _ in range(2 * questions)]
    one(knowledge, asked[0])
    for name, threads, some in (("1", 1, asked[:questions]), ("8", 8, asked[questions:])):
        with ThreadPoolExecutor(threads) as pool:
            took = sorted(pool.map(lambda question: one(knowledge, question), some))
        found |= {
            f"p50_ms_at_{name}": took[len(took) // 2],
            f"p95_ms_at_{name}": took[len(took) * 95 // 100],
        }
    found["rss_mib"] = rss_mib()
    knowledge.synchronizer.close()
    store.close()
    return found


def one(knowledge: Knowledge, question: str) -> float:
    return 1000 * timed(lambda: knowledge.search(question, OPERATOR))


def costs(rounds: int) -> Iterator[tuple[str, float]]:
    for name, files, embedding in (
        ("cpu_chunks_per_s_words", 1000, "none"),
        ("cpu_chunks_per_s_embedded", 60, "minilm"),
    ):
        if embedding != "none" and not weights.found(embedding):
            continue
        for _ in range(rounds):
            with tempfile.TemporaryDirectory() as folder:
                home = Path(folder)
                write(home / "docs", files, SECTIONS, 80)
                (home / "slipway.yaml").write_text(f"embedding: {embedding}\n")
                _, cpu, printed = cpu_of([*INGEST, "--docs", "docs"], home)
                yield name, printed["passages"] / cpu


def measured(given: argparse.Namespace) -> Iterator[tuple[str, float]]:
    if given.only in (None, "read"):
        yield from reading(given.files, given.rounds)
    if given.only in (None, "find"):
        home = large(given.chunks)
        for _ in range(given.rounds):
            command = [
                sys.executable,
                __file__,
                "--serve",
                str(home),
                "--questions",
                str(given.questions),
            ]
            yield from json.loads(
                subprocess.run(command, capture_output=True, text=True, check=True).stdout
            ).items()
    if given.only in (None, "cpu"):
        yield from costs(given.rounds)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--chunks", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--questions", type=int, default=300)
    parser.add_argument("--only", choices=["read", "find", "cpu"], help="one part of it")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    if given.serve:
        print(json.dumps(finding(given.serve, given.questions)))
        return
    rows: dict[str, list[float]] = {}
    for name, value in measured(given):
        rows.setdefault(name, []).append(value)
    if given.json:
        print(json.dumps(rows))
        return
    for name, values in rows.items():
        print(
            f"{name:26} median {statistics.median(values):9.2f}   from {min(values):.2f} to "
            f"{max(values):.2f}   ({len(values)} rounds)"
        )


if __name__ == "__main__":
    main()
