"""How long a search takes among many passages, alone and eight at once; and how fast passages are embedded.

    python bench/search.py                       # 50,000 passages: SciFact's abstracts, several times over
    python bench/search.py --passages 10000 --threads 4

Eight threads ask without a pause, each question for the first time: nothing is remembered, and the processor is never idle. The vectors of the
passages are random, which changes no time.
"""

import argparse
import itertools
import resource
import threading
import time
from collections.abc import Callable, Iterator

import msgspec
import numpy as np

from retrieval import DATA, abstract, lines
from slipway import weights
from slipway.knowledge.embedding import Embedder
from slipway.knowledge.fusion import DENSE_DEPTH, KEYWORD_DEPTH, fuse
from slipway.knowledge.index import Index
from slipway.knowledge.vectors import Vectors
from slipway.types import Passage


def many(count: int) -> Iterator[Passage]:
    rows = [abstract(row) for row in lines(DATA / "scifact" / "corpus.jsonl.gz")]
    for number, passage in enumerate(itertools.islice(itertools.cycle(rows), count)):
        yield msgspec.structs.replace(passage, id=str(number), path=f"{number}.md")


def timed(name: str, ask: Callable[[str], object], questions: list[str], threads: int) -> None:
    times_ms: list[float] = []

    def one(share: list[str]) -> None:
        for question in share:
            started = time.perf_counter()
            ask(question)
            times_ms.append((time.perf_counter() - started) * 1e3)

    started = time.perf_counter()
    running = [threading.Thread(target=one, args=(questions[each::threads],)) for each in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    each_s = len(questions) / (time.perf_counter() - started)
    p50, p95 = np.percentile(times_ms, [50, 95])
    print(f"{name:34} {threads} at once: p50 {p50:6.1f} ms  p95 {p95:6.1f} ms  {each_s:6.0f}/s")


def main() -> None:
    parser = argparse.ArgumentParser(description="Measures searches.")
    parser.add_argument("--passages", type=int, default=50_000)
    parser.add_argument("--threads", type=int, default=8)
    options, files = parser.parse_args(), weights.found("minilm")
    if files is None:
        parser.error("it needs the weights: slipway weights pull minilm")
    passages = list(many(options.passages))
    started = time.perf_counter()
    index = Index(passages)
    print(f"{'keyword index':34} {time.perf_counter() - started:.1f} s")
    before_mb = _memory_mb()
    embedder = Embedder(files)
    sample = [f"{passage.heading}\n{passage.text}" for passage in passages[:100]]
    started = time.perf_counter()
    embedder.embed(sample)
    print(f"{'embedding':34} {len(sample) / (time.perf_counter() - started):.1f} passages/s on one core")
    vectors, made = Vectors(), np.random.default_rng(0).normal(size=(len(passages), 384)).astype(np.float32)
    vectors.put(range(len(passages)), made / np.linalg.norm(made, axis=1, keepdims=True))
    del made
    questions = [row["question"] for row in lines(DATA / "docs-qa" / "questions.jsonl")]
    questions = [f"{number} {question}" for number in range(8) for question in questions]
    fresh = itertools.count()

    def whole(question: str) -> object:
        query, keyword = embedder.embed_query(f"{next(fresh)} {question}"), index.search(question, KEYWORD_DEPTH)
        near = dict(vectors.search(query, DENSE_DEPTH)) | vectors.compare(query, [int(hit.passage.id) for hit in keyword])
        return fuse(keyword, [(passages[number], cosine) for number, cosine in near.items()], 5)

    query = embedder.embed_query("a question")
    parts: dict[str, Callable[[str], object]] = {
        "keywords": lambda question: index.search(question, KEYWORD_DEPTH),
        "embedding of the question": lambda question: embedder.embed_query(f"{next(fresh)} {question}"),
        "vectors": lambda question: vectors.search(query, DENSE_DEPTH),
        "whole search": whole,
    }
    for name, ask in parts.items():
        for threads in (1, options.threads):
            timed(name, ask, questions, threads)
    print(
        f"{'memory, model and vectors':34} {_memory_mb() - before_mb:.0f} MB at most, of which vectors {len(passages) * 384 * 4 / 1e6:.0f} MB"
    )


def _memory_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


if __name__ == "__main__":
    main()
