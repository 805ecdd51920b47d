"""Measure how many wrong answers the semantic cache serves, and how many hits that leaves, on streams
whose questions' answers are known.

    python bench/semantic.py                # 20 streams of 8,000 questions, at each target
    python bench/semantic.py --streams 4 --target hit:1

The questions are those of Banking77 (77 intents, CC BY 4.0): two of one intent have the same answer.
None comes twice in a stream: the exact cache has repeats. Four kinds of streams, with five seeds each:

- even: all intents alike
- popular: few intents are most of the traffic
- drift: half of the intents come only in the second half, in which the others fade
- hostile: even, and 15 % are questions with a changed number, negation, opposite, name or order, shown
  after their original; each has an answer of its own

Beside it, the best fixed threshold: the nearest kept question is served if its cosine is high enough,
with the threshold that would have given most hits within the same error, chosen for each stream after
its end. It is what a perfect guess would get; nobody has it in advance.

Vectors are computed once (about a minute) and kept in the cache folder.
"""

import argparse
import gzip
import random
import statistics
import time
from collections import defaultdict
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from slipway.cache.semantic import LookUp, SemanticIndex
from slipway.cache.semantic_bound import ErrorBound, Per
from slipway.settings import folders

DATA = Path(__file__).resolve().parents[1].parent / "shared" / "data" / "pairs"
LENGTH = 8000
TARGETS = ("hit:5", "hit:2", "request:1")
KINDS = ("even", "popular", "drift", "hostile")
THRESHOLDS = [0.6 + 0.01 * step for step in range(40)]


class Asked(NamedTuple):
    text: str
    answer: str


class Outcome(NamedTuple):
    requests: int
    hits: int
    wrong: int
    checked: int
    first_hit: int | None
    changed_served: int  # changed questions (hostile streams) that got an answer from here
    late_hits: int  # in the last quarter of the stream

    @property
    def per_hit(self) -> float:
        return self.wrong / self.hits if self.hits else 0.0

    @property
    def per_request(self) -> float:
        return self.wrong / self.requests

    def error(self, per: Per) -> float:
        return self.per_hit if per == "hit" else self.per_request


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the semantic cache.")
    parser.add_argument("--data", type=Path, default=DATA, help="folder with the pairs")
    parser.add_argument("--streams", type=int, default=20, help="number of streams")
    parser.add_argument("--length", type=int, default=LENGTH, help="questions in a stream")
    parser.add_argument(
        "--target",
        action="append",
        help="what is bounded, such as hit:5 (percent); may be repeated",
    )
    options = parser.parse_args()
    questions, changed = read_data(options.data)
    vectors = embedded([q.text for q in questions] + [t for pair in changed for t in pair[1:]])
    targets = [target_of(each) for each in options.target or TARGETS]
    measured: dict[tuple[Per, float], list[tuple[str, Outcome, Outcome]]] = defaultdict(list)
    for number in range(options.streams):
        kind, seed = KINDS[number % len(KINDS)], number // len(KINDS)
        stream = made(kind, seed, questions, changed, options.length)
        fixed = by_threshold(stream, vectors)
        for per, max_error in targets:
            ours = run(stream, vectors, max_error, per, seed)
            best = max(
                (each for each in fixed if each.error(per) <= max_error), key=lambda each: each.hits
            )
            measured[per, max_error].append((kind, ours, best))
            print(kind, seed, per, max_error, ours, "best fixed:", best.hits, flush=True)
    for (per, max_error), rows in measured.items():
        report(per, max_error, rows)
    must_miss(questions, changed, vectors)
    look_ups(questions, vectors)


def target_of(text: str) -> tuple[Per, float]:
    per, _, percent = text.partition(":")
    return ("request" if per == "request" else "hit"), float(percent) / 100


def report(per: Per, max_error: float, rows: Sequence[tuple[str, Outcome, Outcome]]) -> None:
    held = sum(ours.error(per) <= max_error for _, ours, _ in rows)
    never = sum(ours.hits == 0 for _, ours, _ in rows)
    print(
        f"max_error {max_error:.0%} per {per}: held in {held} of {len(rows)} streams; never served in {never}"
    )
    for kind in dict.fromkeys(kind for kind, _, _ in rows):
        mine = [(ours, best) for each, ours, best in rows if each == kind]

        def middle(values: Sequence[float]) -> str:
            return f"{statistics.median(values):6.2%} [{min(values):.2%}, {max(values):.2%}]"

        print(
            f"  {kind:8} hits {middle([o.hits / o.requests for o, _ in mine])}"
            f"  in the last quarter {middle([4 * o.late_hits / o.requests for o, _ in mine])}"
            f"  error {middle([o.error(per) for o, _ in mine])}"
            f"  checked {middle([o.checked / o.requests for o, _ in mine])}"
            f"  first hit {statistics.median([o.first_hit or o.requests for o, _ in mine]):.0f}"
            f"  changed served {sum(o.changed_served for o, _ in mine)}"
            f"  best fixed {middle([b.hits / b.requests for _, b in mine])}"
            f", in the last quarter {middle([4 * b.late_hits / b.requests for _, b in mine])}"
        )


# Data


class Changed(NamedTuple):
    kind: str
    original: str
    changed: str


def read_data(folder: Path) -> tuple[list[Asked], list[Changed]]:
    """Return the questions, each text once, and pairs of a question and its changed form."""
    with gzip.open(folder / "banking77_train.tsv.gz", "rt", encoding="utf-8") as file:
        rows = [line.rstrip("\n").split("\t") for line in file][1:]
    questions = [Asked(*row) for row in {text: (text, intent) for text, intent in rows}.values()]
    with gzip.open(folder / "must_miss_banking.tsv.gz", "rt", encoding="utf-8") as file:
        pairs = [Changed(*line.rstrip("\n").split("\t")[:3]) for line in file][1:]
    return questions, pairs


def embedded(texts: Sequence[str]) -> dict[str, Any]:
    """Return the vectors of these texts, from the file of an earlier run if it has them."""
    file = folders.cache() / "bench" / "banking77_minilm.npz"
    if file.is_file():
        kept = np.load(file)
        known = dict(zip(kept["texts"].tolist(), kept["vectors"], strict=True))
        if known.keys() >= set(texts):
            return known
    from slipway.knowledge.embedding import opened

    each = sorted(set(texts))
    vectors = opened("minilm").embed(each)
    file.parent.mkdir(parents=True, exist_ok=True)
    np.savez(file, texts=np.array(each), vectors=vectors)
    return dict(zip(each, vectors, strict=True))


def made(
    kind: str,
    seed: int,
    questions: Sequence[Asked],
    changed: Sequence[Changed],
    length: int,
) -> list[Asked]:
    """Return a stream of that kind."""
    chance = random.Random(f"{kind}-{seed}")
    pool = chance.sample(questions, len(questions))
    if kind == "popular":
        pool = weighted(chance, pool, {a: 1 / n for n, a in enumerate(shuffled(chance, pool), 1)})
    elif kind == "drift":
        late = set(shuffled(chance, pool)[::2])
        first = [q for q in pool if q.answer not in late]
        second = weighted(
            chance,
            [q for q in pool if q not in set(first[: length // 2])],
            {q.answer: 1.0 if q.answer in late else 0.2 for q in pool},
        )
        pool = first[: length // 2] + second
    if kind != "hostile":
        return pool[:length]
    pool = pool[: int(length * 0.85)]
    at = {q.text: n for n, q in enumerate(pool)}
    usable = [pair for pair in changed if pair.original in at]
    extra = chance.sample(usable, min(len(usable), length - len(pool)))
    after: dict[int, list[Asked]] = defaultdict(list)
    for _, original, other in extra:
        place = min(at[original] + chance.randrange(1, 400), len(pool) - 1)
        after[place].append(Asked(other, f"changed: {other}"))
    return [asked for n, q in enumerate(pool) for asked in (q, *after[n])]


def shuffled(chance: random.Random, pool: Sequence[Asked]) -> list[str]:
    answers = sorted({q.answer for q in pool})
    chance.shuffle(answers)
    return answers


def weighted(
    chance: random.Random, pool: Sequence[Asked], weights: dict[str, float]
) -> list[Asked]:
    """Order by weighted sampling without replacement (Efraimidis and Spirakis 2006)."""
    return sorted(pool, key=lambda q: -(chance.random() ** (1 / weights[q.answer])))


# Policies


def run(
    stream: Sequence[Asked], vectors: dict[str, Any], max_error: float, per: Per, seed: int
) -> Outcome:
    """Send a stream through the semantic cache as the server does."""
    index = SemanticIndex(ErrorBound(max_error, per, random.Random(seed).random))
    answers: dict[Hashable, str] = {}
    hits = wrong = checked = changed = late = 0
    first_hit = None
    for number, asked in enumerate(stream):
        found = index.decide(index.find(asked.text, vectors[asked.text], "all"))
        if found.verdict == "serve" and found.best is not None:
            hits += 1
            first_hit = number if first_hit is None else first_hit
            wrong += answers[found.best.key] != asked.answer
            changed += asked.answer.startswith("changed: ")
            late += number >= 0.75 * len(stream)
            continue
        checked += found.verdict == "check"
        same = [answers[near.key] == asked.answer for near in found.groups[:3]]
        index.learn(found, same, number)
        answers[number] = asked.answer
    return Outcome(len(stream), hits, wrong, checked, first_hit, changed, late)


def must_miss(
    questions: Sequence[Asked], changed: Sequence[Changed], vectors: dict[str, Any]
) -> None:
    """Print how many changed questions would get the answer of their original, beside a cache that
    has learned and serves as much as it ever may.
    """
    index = SemanticIndex(ErrorBound(1.0, "request", random.Random(0).random))
    answers: dict[Hashable, str] = {}
    intents = dict(questions)
    chance = random.Random(0)
    for number, (text, answer) in enumerate(chance.sample(questions, len(questions))):
        found = index.find(text, vectors[text], "all")
        index.learn(found, [answers[near.key] == answer for near in found.groups[:3]], number)
        answers[number] = answer
    kinds = defaultdict(list)
    for kind, original, text in changed:
        found = index.find(text, vectors[text], "all")
        is_same = found.best is not None and answers[found.best.key] == intents.get(original)
        kinds[kind].append(found.score if is_same else 0.0)
    for kind, scores in kinds.items():
        shown = "  ".join(
            f"{sum(score >= limit for score in scores)} at {limit}" for limit in (0.5, 0.9, 0.99)
        )
        print(f"must miss, {kind}: of {len(scores)}, with a score that would serve: {shown}")


def look_ups(questions: Sequence[Asked], vectors: dict[str, Any]) -> None:
    """Print how long a look-up takes beside 10,000 kept questions, without the embedding."""
    index = SemanticIndex(ErrorBound(0.01))
    for number, (text, _) in enumerate(questions):
        index.learn(LookUp(text=text, partition="all", vector=vectors[text]), [], number)
    took = []
    for text, _ in random.Random(0).sample(questions, 500):
        began_at = time.perf_counter()
        index.find(f"{text} please", vectors[text], "all")
        took.append((time.perf_counter() - began_at) * 1000)
    p50, p95 = statistics.median(took), statistics.quantiles(took, n=20)[-1]
    print(f"look-up beside {len(index):,} questions: p50 {p50:.1f} ms, p95 {p95:.1f} ms")


def by_threshold(stream: Sequence[Asked], vectors: dict[str, Any]) -> list[Outcome]:
    """Serve the nearest kept question if its cosine reaches a fixed threshold, for each of them."""
    rows = np.stack([vectors[asked.text] for asked in stream])
    similar = rows @ rows.T
    answers = np.array([asked.answer for asked in stream])
    return [
        Outcome(len(stream), 0, 0, 0, None, 0, 0),
        *(_fixed(similar, answers, t) for t in THRESHOLDS),
    ]


def _fixed(similar: Any, answers: Any, threshold: float) -> Outcome:
    kept: list[int] = []
    hits = wrong = late = 0
    allowed = np.zeros(len(similar), bool)
    for number in range(len(similar)):
        row = (
            np.where(allowed[:number], similar[number, :number], -1.0)
            if number
            else np.array([-1.0])
        )
        best = int(row.argmax())
        if row[best] >= threshold:
            hits += 1
            wrong += answers[best] != answers[number]
            late += number >= 0.75 * len(similar)
        else:
            allowed[number] = True
            kept.append(number)
    return Outcome(len(similar), hits, wrong, 0, None, 0, late)


if __name__ == "__main__":
    began = time.process_time()
    main()
    print(f"{time.process_time() - began:.0f} s of CPU")
