"""Measure how well keyword search finds the places that answer, and how fast.

    python bench/retrieval.py                  # docs-qa: recall@3 and MRR@3 over places
    python bench/retrieval.py --docs DIR --questions FILE
    python bench/retrieval.py --url http://127.0.0.1:8080    # ask a running server
    python bench/retrieval.py --set scifact    # nDCG@10 over abstracts, to check that nothing is
                                               # tuned to docs-qa alone

A place is a path with a heading. recall@3 is the mean over questions of the share of their gold
places among the first three; MRR@3 is the mean of 1/rank of the first gold place among the first
three, else 0. nDCG is as in BEIR: binary gains, log2 discount.
"""

import argparse
import gzip
import json
import math
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx

from slipway.knowledge import Knowledge, opened
from slipway.knowledge.document_store import StoredPassage
from slipway.knowledge.index import Index
from slipway.store import Store
from slipway.types import Asker, Passage

DATA = Path(__file__).resolve().parents[1].parent / "shared" / "data" / "rag"

OPERATOR = Asker(owner="bench", everything=True)

Place = tuple[str, str]  # (last part of the path, heading)
Ranker = Callable[[str], Sequence[Place]]


def main() -> None:
    options = _options()
    measured = SETS[options.set](options)
    if options.json:
        print(json.dumps(measured))
        return
    for name, value in measured.items():
        print(f"{name:16} {value}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure retrieval.")
    parser.add_argument("--set", choices=SETS, default="docs-qa")
    parser.add_argument("--docs", type=Path, default=DATA / "docs-qa" / "pages")
    parser.add_argument(
        "--questions",
        type=Path,
        default=DATA / "docs-qa" / "questions.jsonl",
        help="JSONL: question, gold [{page, heading}]",
    )
    parser.add_argument("--url", help="ask this server instead of searching here")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def docs_qa(options: argparse.Namespace) -> dict[str, Any]:
    questions = list(lines(options.questions))
    started = time.perf_counter()
    rank = _through_the_door(options.url) if options.url else _here(options.docs)
    built_s = time.perf_counter() - started
    recalls, reciprocals, times_ms = [], [], []
    for question in questions:
        gold = {(each["page"], each["heading"]) for each in question["gold"]}
        asked = time.perf_counter()
        first = list(rank(question["question"]))[:3]
        times_ms.append((time.perf_counter() - asked) * 1e3)
        recalls.append(len(gold & set(first)) / len(gold))
        reciprocals.append(
            next((1 / place for place, found in enumerate(first, 1) if found in gold), 0.0)
        )
    return {
        "n": len(questions),
        "recall@3": round(statistics.fmean(recalls), 3),
        "mrr@3": round(statistics.fmean(reciprocals), 3),
        "build_s": None if options.url else round(built_s, 3),
        **_spread(times_ms),
    }


def _here(docs: Path) -> Ranker:
    knowledge = Knowledge(opened(Store.temporary(), [docs]))
    knowledge.build()
    return lambda question: [
        (Path(hit.passage.path).name, hit.passage.heading)
        for hit in knowledge.search(question, OPERATOR)
    ]


def _through_the_door(url: str) -> Ranker:
    client = httpx.Client(base_url=url, timeout=60)

    def rank(question: str) -> list[Place]:
        reply = client.post(
            "/v1/answers", json={"question": question, "stream": False}
        ).raise_for_status()
        return [
            (Path(source["path"]).name, source["heading"]) for source in reply.json()["sources"]
        ]

    return rank


def scifact(_: argparse.Namespace) -> dict[str, Any]:
    folder, relevant = DATA / "scifact", judged()
    started = time.perf_counter()
    rows = rows_of(abstract(row) for row in lines(folder / "corpus.jsonl.gz"))
    names = {row.id: row.passage.path for row in rows}
    index = Index(None)
    index.update(rows, (), 1)
    built_s = time.perf_counter() - started
    gains, times_ms = [], []
    for query in [row for row in lines(folder / "queries.jsonl") if row["_id"] in relevant]:
        asked = time.perf_counter()
        hits = index.search(query["text"], 10)
        times_ms.append((time.perf_counter() - asked) * 1e3)
        gains.append(
            _ndcg(
                [names[hit.passage] in relevant[query["_id"]] for hit in hits],
                len(relevant[query["_id"]]),
            )
        )
    return {
        "n": len(gains),
        "ndcg@10": round(statistics.fmean(gains), 3),
        "build_s": round(built_s, 3),
        **_spread(times_ms),
    }


def judged() -> dict[str, set[str]]:
    """Return SciFact's claims that have an answer, with the abstracts that contain it."""
    relevant: dict[str, set[str]] = {}
    for line in (DATA / "scifact" / "qrels.tsv").read_text().splitlines()[1:]:
        claim, document, score = line.split("\t")
        if int(score) > 0:
            relevant.setdefault(claim, set()).add(document)
    return relevant


def abstract(row: dict[str, str]) -> Passage:
    """Return an abstract as a passage, with its title as the heading."""
    text, title = row["text"], row["title"]
    return Passage(
        id=row["_id"],
        path=row["_id"],
        title="",
        heading=title,
        trail=(title,),
        start=0,
        end=len(text),
        text=text,
        version="",
    )


def rows_of(passages: Iterable[Passage]) -> list[StoredPassage]:
    """Number the passages from 1; each is a document of its own, places go by path and heading."""
    places: dict[tuple[str, str], int] = {}
    return [
        StoredPassage(
            id=number,
            document=number,
            place=places.setdefault((passage.path, passage.heading), number),
            passage=passage,
        )
        for number, passage in enumerate(passages, 1)
    ]


def _ndcg(found: Sequence[bool], relevant: int) -> float:
    got = sum(hit / math.log2(rank + 1) for rank, hit in enumerate(found, 1))
    return got / sum(1 / math.log2(rank + 1) for rank in range(1, min(relevant, 10) + 1))


def _spread(times_ms: Sequence[float]) -> dict[str, float]:
    ordered = sorted(times_ms)
    return {
        "query_p50_ms": round(statistics.median(ordered), 2),
        "query_p95_ms": round(ordered[int(0.95 * (len(ordered) - 1))], 2),
    }


def lines(file: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(file, "rt") if file.suffix == ".gz" else file.open() as lines:
        yield from map(json.loads, lines)


SETS = {"docs-qa": docs_qa, "scifact": scifact}

if __name__ == "__main__":
    main()
