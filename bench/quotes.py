"""Measure how well an answer without a model quotes what answers, and how reliably it abstains.

    python bench/quotes.py           # docs-qa, with the places that are found, and with the gold
                                     # pages removed
    python bench/quotes.py --show    # also print the quotes with the fewest facts

- facts covered: the mean share of the gold answer's content words and numbers, without those of the
  question, that the quote has
- precision: the mean share of the quote's content words that the gold answer or the question has
- characters: the median length of a quote
- loose: the share of quoted spans that have no word of the gold answer besides the question's
"""

import argparse
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from slipway.evals.facts import covered, precision, said
from slipway.knowledge import Knowledge, opened
from slipway.knowledge.quoting import quote
from slipway.store import Store
from slipway.types import Asker, Source

DATA = Path(__file__).resolve().parents[1].parent / "shared" / "data" / "rag" / "docs-qa"
FOUND = 5

OPERATOR = Asker(owner="bench", everything=True)


class Case(NamedTuple):
    question: str
    answer: str
    sources: list[Source]
    others: list[Source]  # what is found without the gold pages


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure quotes.")
    parser.add_argument(
        "--data", type=Path, default=DATA, help="folder with questions.jsonl and pages/"
    )
    parser.add_argument("--show", action="store_true", help="print the worst quotes")
    options = parser.parse_args()
    for name, value in measured(list(gold(options.data)), show=options.show).items():
        print(f"{name:32} {value}")


def gold(data: Path) -> list[Case]:
    knowledge = Knowledge(opened(Store.temporary(), [data / "pages"]))
    knowledge.build()
    cases = []
    for line in (data / "questions.jsonl").read_text().splitlines():
        row: dict[str, Any] = json.loads(line)
        pages, places = (
            {each["page"] for each in row["gold"]},
            {(each["page"], each["heading"]) for each in row["gold"]},
        )
        hits = [hit.passage for hit in knowledge.search(row["question"], OPERATOR, 30)]
        without = [
            p
            for p in hits
            if Path(p.path).name not in pages and (Path(p.path).name, p.heading) not in places
        ]
        cases.append(Case(row["question"], row["answer"], numbered(hits), numbered(without)))
    return cases


def numbered(passages: Sequence[Any]) -> list[Source]:
    return [
        Source(
            n=n,
            id=p.id,
            path=p.path,
            heading=p.heading,
            start=p.start,
            end=p.end,
            text=p.text,
            version=p.version,
        )
        for n, p in enumerate(passages[:FOUND], 1)
    ]


def measured(cases: Sequence[Case], *, show: bool) -> dict[str, Any]:
    found = [(case, quote(case.question, case.sources)) for case in cases]
    quoted = [(case, each) for case, each in found if each is not None]
    covers = [covered(each.text, case.answer, case.question) or 0.0 for case, each in quoted]
    for cover, case, each in (
        sorted(zip(covers, *zip(*quoted, strict=True), strict=True), key=lambda row: row[0])[:8]
        if show
        else ()
    ):
        print(f"{cover:.2f} Q: {case.question}\n  GOLD: {case.answer}\n  QUOTE: {each.text}\n")
    spans = [(case, each.text[c.start : c.end]) for case, each in quoted for c in each.citations]
    precise = [precision(each.text, case.answer, case.question) or 0.0 for case, each in quoted]
    return {
        "questions": len(cases),
        "abstained, gold pages there": (
            f"{len(cases) - len(quoted)} ({1 - len(quoted) / len(cases):.0%})"
        ),
        "abstained, gold pages removed": (
            f"{sum(quote(c.question, c.others) is None for c in cases) / len(cases):.0%}"
        ),
        "facts covered": f"{sum(covers) / len(cases):.3f}",
        "precision": f"{statistics.fmean(precise):.3f}",
        "characters": f"{statistics.median(len(q.text) for _, q in quoted):.0f}",
        "spans a quote": f"{len(spans) / len(quoted):.2f}",
        "sources a quote": (
            f"{statistics.fmean(len({c.n for c in q.citations}) for _, q in quoted):.2f}"
        ),
        "loose spans": f"{sum(is_loose(c, s) for c, s in spans) / len(spans):.1%}",
    }


def is_loose(case: Case, span: str) -> bool:
    """Return whether a span has no word of the gold answer besides the question's."""
    return not said(span) & (said(case.answer) - said(case.question))


if __name__ == "__main__":
    main()
