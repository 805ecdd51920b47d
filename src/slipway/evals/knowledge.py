"""How well a search finds the places that answer, and whether it is known when nothing answers.

A search is `(question, limit) -> places, best first`; whatever can do that can be measured. Each
question is asked twice for abstention: as it is, and with its gold places taken out of what was
found.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from slipway.errors import SettingsError
from slipway.evals.questions import Gold, Question
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

_MOST_GOLD = 30  # places that are looked for behind those that are wanted, since some are taken out


METRICS: dict[str, Callable[[Sequence[Gold | PlaceKey], Sequence[Gold]], float]] = {
    "recall@3": lambda ranking, gold: recall_at(3, ranking, gold),
    "recall@10": lambda ranking, gold: recall_at(10, ranking, gold),
    "mrr@3": lambda ranking, gold: mrr_at(3, ranking, gold),
    "ndcg@10": lambda ranking, gold: ndcg_at(10, ranking, gold),
}
ABSTENTION = "abstention_auroc"


class Report(Record, frozen=True, kw_only=True):
    """By the name of the search, then of the metric. `differences` are of the last search to the
    first, question by question.
    """

    n: int
    measured: Mapping[str, Mapping[str, Measured]]
    differences: Mapping[str, Measured]


# What is searched


def passages_of(docs: Sequence[Path]) -> list[Passage]:
    """All that can be read in these folders, cut as for serving; what cannot be read is left out.
    Raises SettingsError where nothing can.
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
    """Passages in memory, each a document of its own, under the index that serves: for measuring
    what is not files.
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
        """The passage with the index's number `n`; they are counted from 1."""
        return self.passages[n - 1]

    def hits(self, question: str, limit: int) -> list[Hit]:
        return [
            Hit(passage=self.number(found.passage), score=found.score)
            for found in self.index.search(question, limit)
        ]


# What comes out


def measure(
    questions: Sequence[Question], searches: Mapping[str, tuple[Search, Sureness]]
) -> Report:
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
    return Report(n=len(questions), measured=measured, differences=differences)


def _values(questions: Sequence[Question], search: Search, _: Sureness) -> dict[str, list[float]]:
    rankings = [(_judged(search(each.question, 10), each.gold), each.gold) for each in questions]
    return {
        metric: [value(ranking, gold) for ranking, gold in rankings]
        for metric, value in METRICS.items()
    }


def _judged(ranked: Sequence[Ranked], gold: Sequence[Gold]) -> list[Gold | PlaceKey]:
    """Each place as the gold that it is, once."""
    return list(
        dict.fromkeys(
            next((one for one in gold if one.is_at(each.place)), each.place) for each in ranked
        )
    )


def _abstention(questions: Sequence[Question], search: Search, sure: Sureness) -> Measured:
    with_gold, without = [], []
    for each in questions:
        found = search(each.question, DEPTH + _MOST_GOLD)
        rest = [one for one in found if not any(gold.is_at(one.place) for gold in each.gold)]
        with_gold.append(sure(each.question, found[:DEPTH]))
        without.append(sure(each.question, rest[:DEPTH]))
    return paired_auroc(with_gold, without)
