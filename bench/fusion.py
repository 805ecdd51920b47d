"""Measure whether keywords and vectors together find more than keywords alone, and how best to
combine them.

    python bench/fusion.py    # docs-qa and SciFact; the first run embeds 6,000 passages (4 minutes
                              # on one core) and keeps them in bench/.build

Nested cross-validation: ten folds, ten times. For each fold, the form of fusion (`FORMS`: weighted
sums with a floor, sums of scores scaled to the same range, reciprocal ranks; each with its weights)
is the one that does best on the other nine folds; its results on the fold's own questions count.
`shipped` is what knowledge/fusion.py does, as a constant; `keyword` is the index alone. Intervals:
95 %, bootstrap over questions; `+` rows are paired differences to `keyword`. `other` chooses the
form on the other set, and tests it here.
"""

import argparse
import hashlib
import json
import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from retrieval import DATA, abstract, judged, lines, rows_of
from slipway import weights
from slipway.evals.knowledge import passages_of
from slipway.evals.statistics import Measured, difference, mean, mrr_at, ndcg_at, recall_at
from slipway.knowledge.embedding import Embedder
from slipway.knowledge.fusion import DENSE_DEPTH, KEYWORD_DEPTH, embedded_text, fuse
from slipway.knowledge.index import Index
from slipway.knowledge.vectors import Vectors
from slipway.types import Hit, Passage

BUILD = Path(__file__).resolve().parent / ".build"
FOLDS, TIMES = 10, 10

Place = tuple[str, str]
Dense = list[tuple[Passage, float]]
Floats = NDArray[np.float32]
Metrics = Mapping[str, Callable[[Sequence[Place], set[Place]], float]]
Form = Callable[[Sequence[Hit], Dense], Sequence[Place]]


class Case(NamedTuple):
    keyword: Sequence[Hit]
    dense: Dense
    gold: set[Place]


class Set(NamedTuple):
    cases: list[Case]
    metrics: Metrics
    """What is measured; a form is chosen by their mean."""


# Forms


def summed(weight: float, floor: float) -> Form:
    return lambda keyword, dense: [
        each.place[:2] for each in fuse(keyword, dense, 10, weight=weight, floor=floor)
    ]


def ranges(weight: float) -> Form:
    """Scale both scores from 0, the worst found, to 1, the best, and add them."""

    def form(keyword: Sequence[Hit], dense: Dense) -> Sequence[Place]:
        scores: Counter[Place] = Counter()
        for share, found in (
            (1 - weight, {_place(h.passage): h.score for h in keyword}),
            (weight, _nearest(dense)),
        ):
            low, high = min(found.values(), default=0.0), max(found.values(), default=1.0)
            for each, score in found.items():
                scaled = share * (score - low) / (high - low or 1.0)
                scores[each] += scaled  # type: ignore[assignment]
        return [each for each, _ in scores.most_common(10)]

    return form


def reciprocal(weight: float, k: int) -> Form:
    """Rank by weighted reciprocal ranks (Cormack et al. 2009)."""

    def form(keyword: Sequence[Hit], dense: Dense) -> Sequence[Place]:
        scores: Counter[Place] = Counter()
        for share, found in (
            (1 - weight, [_place(h.passage) for h in keyword]),
            (weight, list(_nearest(dense))),
        ):
            for rank, each in enumerate(found, 1):
                scores[each] += share / (k + rank)  # type: ignore[assignment]
        return [each for each, _ in scores.most_common(10)]

    return form


def _place(passage: Passage) -> Place:
    """Return a place as the gold names it."""
    return passage.path, passage.heading


def _nearest(dense: Dense) -> dict[Place, float]:
    found: dict[Place, float] = {}
    for passage, cosine in sorted(dense, key=lambda pair: -pair[1]):
        found.setdefault(_place(passage), cosine)
    return found


TENTHS = [tenth / 10 for tenth in range(1, 10)]
FORMS: dict[str, Form] = {
    **{
        f"sum {w} floor {floor}": summed(w, floor)
        for w in TENTHS
        for floor in (-1.0, 0.25, 0.35, 0.45)
    },
    **{f"ranges {w}": ranges(w) for w in TENTHS},
    **{f"reciprocal {w} k {k}": reciprocal(w, k) for w in TENTHS for k in (5, 20, 60)},
}
ALONE: dict[str, Form] = {
    "keyword": lambda keyword, _: [_place(hit.passage) for hit in keyword],
    "vectors": lambda _, dense: list(_nearest(dense)),
    "shipped": lambda keyword, dense: [each.place[:2] for each in fuse(keyword, dense, 10)],
}


# Sets


def docs_qa(embedder: Embedder) -> Set:
    passages = passages_of([DATA / "docs-qa" / "pages"])
    questions = [
        (q["question"], {(g["page"], g["heading"]) for g in q["gold"]})
        for q in lines(DATA / "docs-qa" / "questions.jsonl")
    ]
    metrics = {"recall@3": lambda r, g: recall_at(3, r, g), "mrr@3": lambda r, g: mrr_at(3, r, g)}
    return Set(_cases("docs-qa", passages, questions, embedder), metrics)


def scifact(embedder: Embedder) -> Set:
    passages = [abstract(row) for row in lines(DATA / "scifact" / "corpus.jsonl.gz")]
    headings = {passage.path: passage.heading for passage in passages}
    relevant = judged()
    questions = [
        (row["text"], {(path, headings[path]) for path in relevant[row["_id"]]})
        for row in lines(DATA / "scifact" / "queries.jsonl")
        if row["_id"] in relevant
    ]
    return Set(
        _cases("scifact", passages, questions, embedder),
        {"ndcg@10": lambda r, g: ndcg_at(10, r, g)},
    )


def _cases(
    name: str, passages: list[Passage], questions: list[tuple[str, set[Place]]], embedder: Embedder
) -> list[Case]:
    index, vectors, rows = Index(None), Vectors(), rows_of(passages)
    index.update(rows, (), 1)
    vectors.put([row.id for row in rows], embedded(name, passages, embedder))

    def case(question: str, gold: set[Place]) -> Case:
        query, found = embedder.embed_query(question), index.search(question, KEYWORD_DEPTH)
        near = dict(vectors.search(query, DENSE_DEPTH)) | vectors.compare(
            query, [each.passage for each in found]
        )
        keyword = [Hit(passage=passages[each.passage - 1], score=each.score) for each in found]
        return Case(
            keyword, [(passages[number - 1], cosine) for number, cosine in near.items()], gold
        )

    return [case(*each) for each in questions]


def embedded(name: str, passages: Sequence[Passage], embedder: Embedder) -> Floats:
    texts = [embedded_text(passage) for passage in passages]
    digest = hashlib.sha256(json.dumps([embedder.model, texts]).encode()).hexdigest()
    kept = BUILD / f"{name}-{digest[:16]}.npy"
    if not kept.exists():
        BUILD.mkdir(exist_ok=True)
        np.save(kept, embedder.embed(texts))
    loaded: Floats = np.load(kept)
    return loaded


# Measuring


def nested(
    measured: Mapping[str, Sequence[float]], chosen_by: Mapping[str, Sequence[float]]
) -> tuple[list[float], Counter[str]]:
    """Return for each question the score of the forms that were chosen without it, averaged over
    the times; and how often each form was chosen.
    """
    n = len(next(iter(chosen_by.values())))
    got, chosen = [0.0] * n, Counter[str]()
    for time in range(TIMES):
        order = random.Random(time).sample(range(n), n)
        for fold in range(FOLDS):
            held_out = set(order[fold::FOLDS])
            best = max(
                chosen_by,
                key=lambda form: fmean(
                    v for i, v in enumerate(chosen_by[form]) if i not in held_out
                ),
            )
            chosen[best] += 1
            for i in held_out:
                got[i] += measured[best][i] / TIMES
    return got, chosen


def _results(forms: Mapping[str, Form], data: Set) -> dict[str, dict[str, list[float]]]:
    """Return metric -> form -> a value for each question; `mean` is the mean of the metrics."""
    found: dict[str, dict[str, list[float]]] = {name: {} for name in [*data.metrics, "mean"]}
    for form, rank in forms.items():
        rankings = [rank(case.keyword, case.dense) for case in data.cases]
        for name, metric in data.metrics.items():
            found[name][form] = [
                metric(_last(ranking), case.gold)
                for ranking, case in zip(rankings, data.cases, strict=True)
            ]
        found["mean"][form] = [
            fmean(values)
            for values in zip(*(found[name][form] for name in data.metrics), strict=True)
        ]
    return found


def _last(ranking: Iterable[Place]) -> list[Place]:
    """Return the last part of a page's path, which gold names."""
    return [(Path(path).name, heading) for path, heading in ranking]


def report(sets: Mapping[str, Set]) -> dict[str, dict[str, dict[str, Measured]]]:
    results = {name: _results(FORMS | ALONE, data) for name, data in sets.items()}
    best = {
        name: max(FORMS, key=lambda form: fmean(found["mean"][form]))
        for name, found in results.items()
    }
    rows: dict[str, dict[str, dict[str, Measured]]] = {}
    for name, data in sets.items():
        other = next((best[each] for each in sets if each != name), best[name])
        rows[name] = {metric: _row(results[name], metric, other) for metric in data.metrics}
        chosen = nested(
            results[name]["mean"], {form: results[name]["mean"][form] for form in FORMS}
        )[1]
        print(
            f"{name}: chosen in the folds: "
            + ", ".join(f"{form} ({times})" for form, times in chosen.most_common(4))
            + f"; other: {other}"
        )
    return rows


def _row(
    results: Mapping[str, Mapping[str, Sequence[float]]], metric: str, other: str
) -> dict[str, Measured]:
    values, by = results[metric], {form: results["mean"][form] for form in FORMS}
    rows = {name: values[name] for name in ALONE} | {
        "nested": nested(values, by)[0],
        "other": values[other],
    }
    differences = {
        f"+ {name}": difference(rows[name], rows["keyword"])
        for name in ("shipped", "nested", "other")
    }
    return {name: mean(row) for name, row in rows.items()} | differences


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure fusion.")
    parser.add_argument("--set", choices=SETS, action="append")
    files = weights.found("minilm")
    if files is None:
        parser.error("it needs the weights: slipway weights pull minilm")
    embedder = Embedder(files)
    for name, metrics in report(
        {name: SETS[name](embedder) for name in parser.parse_args().set or SETS}
    ).items():
        for metric, rows in metrics.items():
            for row, m in rows.items():
                print(
                    f"{name:8} {metric:9} {row:10} {m.value:+.3f}  [{m.low:+.3f}, {m.high:+.3f}]  "
                    f"n={m.n}"
                )


SETS = {"docs-qa": docs_qa, "scifact": scifact}

if __name__ == "__main__":
    main()
