"""Measure how well a search finds the places that answer, and whether its confidence shows when
nothing answers.

A search is any function `(question, limit) -> places, best first`. For abstention, each question is
asked twice: as it is, and with its gold places removed from what was found.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from slipway.errors import SettingsError
from slipway.evals.questions import Gold, GoldQuestion
from slipway.evals.statistics import (
    Measured,
    difference,
    mean,
    mrr_at,
    ndcg_at,
    paired_auroc,
    recall_at,
)
from slipway.knowledge import files
from slipway.knowledge.answerability import DEPTH
from slipway.knowledge.document_store import StoredPassage
from slipway.knowledge.fusion import PlaceKey, Ranked, place
from slipway.knowledge.index import Index
from slipway.knowledge.passages import passages
from slipway.knowledge.readers import UnreadableFile, read
from slipway.types import Hit, Passage, Record

Search = Callable[[str, int], Sequence[Ranked]]
Sureness = Callable[[str, Sequence[Ranked]], float]

_MOST_GOLD = 30  # further places to search for, since gold ones are removed


METRICS: dict[str, Callable[[Sequence[Gold | PlaceKey], Sequence[Gold]], float]] = {
    "recall@3": lambda ranking, gold: recall_at(3, ranking, gold),
    "recall@10": lambda ranking, gold: recall_at(10, ranking, gold),
    "mrr@3": lambda ranking, gold: mrr_at(3, ranking, gold),
    "ndcg@10": lambda ranking, gold: ndcg_at(10, ranking, gold),
}
ABSTENTION = "abstention_auroc"


class SearchReport(Record, frozen=True, kw_only=True):
    """Results by search, then by metric. `differences` compare the last search with the first,
    question by question.
    """

    n: int
    measured: Mapping[str, Mapping[str, Measured]]
    differences: Mapping[str, Measured]


# What is searched


def passages_of(docs: Sequence[Path]) -> list[Passage]:
    """Return the passages of these folders, cut as for serving; unreadable files are left out.
    Raises SettingsError if nothing can be read.
    """
    if problems := files.problems(docs):
        raise SettingsError(problems)
    return [
        passage for found in files.find(docs) if not found.refused for passage in _passages(found)
    ]


def _passages(found: files.FoundFile) -> list[Passage]:
    try:
        data = Path(found.file).read_bytes()
        return passages(read(data, found.path), found.path, hashlib.sha256(data).hexdigest()[:16])
    except (OSError, UnreadableFile):
        return []


class Corpus:
    """Passages in memory, each a document of its own, in the index that Slipway serves with: to
    measure texts that are not files.
    """

    def __init__(self, passages: Iterable[Passage]) -> None:
        self.passages, self.index = list(passages), Index(None)
        places: dict[PlaceKey, int] = {}
        self.index.update(
            [
                StoredPassage(
                    id=n, document=n, place=places.setdefault(place(passage), n), passage=passage
                )
                for n, passage in enumerate(self.passages, 1)
            ],
            (),
            1,
        )

    def number(self, n: int) -> Passage:
        """Return the passage with the index's number `n`, counted from 1."""
        return self.passages[n - 1]

    def hits(self, question: str, limit: int) -> list[Hit]:
        return [
            Hit(passage=self.number(found.passage), score=found.score)
            for found in self.index.search(question, limit)
        ]


# What comes out


def measure(
    questions: Sequence[GoldQuestion], searches: Mapping[str, tuple[Search, Sureness]]
) -> SearchReport:
    values = {name: _values(questions, *each) for name, each in searches.items()}
    measured = {
        name: {metric: mean(row) for metric, row in rows.items()} for name, rows in values.items()
    }
    for name, each in searches.items():
        measured[name][ABSTENTION] = _abstention(questions, *each)
    first, *_, last = [*values.values(), *values.values()]
    differences = (
        {metric: difference(last[metric], first[metric]) for metric in METRICS}
        if len(searches) > 1
        else {}
    )
    return SearchReport(n=len(questions), measured=measured, differences=differences)


def _values(
    questions: Sequence[GoldQuestion], search: Search, _: Sureness
) -> dict[str, list[float]]:
    rankings = [(_judged(search(each.question, 10), each.gold), each.gold) for each in questions]
    return {
        metric: [value(ranking, gold) for ranking, gold in rankings]
        for metric, value in METRICS.items()
    }


def _judged(ranked: Sequence[Ranked], gold: Sequence[Gold]) -> list[Gold | PlaceKey]:
    """Replace each place by the gold that it is in, and keep each gold once."""
    return list(
        dict.fromkeys(
            next((one for one in gold if one.is_at(each.place)), each.place) for each in ranked
        )
    )


def _abstention(questions: Sequence[GoldQuestion], search: Search, sure: Sureness) -> Measured:
    with_gold, without = [], []
    for each in questions:
        found = search(each.question, DEPTH + _MOST_GOLD)
        rest = [one for one in found if not any(gold.is_at(one.place) for gold in each.gold)]
        with_gold.append(sure(each.question, found[:DEPTH]))
        without.append(sure(each.question, rest[:DEPTH]))
    return paired_auroc(with_gold, without)
