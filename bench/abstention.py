"""Measure how well `knowledge/answerability.py` separates questions that the documents answer from
those that they do not; with `--fit`, fit its weights.

    python bench/abstention.py          # docs-qa: each question with the whole index, and without
                                        # its gold sections
    python bench/abstention.py --fit    # print the weights for the source, and the thresholds

The index is built again without a question's gold places (path and heading), so that nothing of
them is left. The rows are: similarity alone; the strongest single signal; the model under nested
cross-validation (five folds of questions, ten times; the ridge and the set of signals are chosen
inside, by folds of the training questions); the model with all signals; each of these also with the
other set (SciFact) to learn from, and fitted on that alone, which has seen none of these questions;
and the shipped constants, fitted on both sets. Values use scores averaged over the ten times; the
values of single times follow them. Both cases of a question are always on the same side of a fold.
Intervals: 95 %, bootstrap over questions.
"""

import argparse
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fusion import Place, embedded
from retrieval import DATA, abstract, judged, lines
from slipway import weights
from slipway.evals.knowledge import Corpus, passages_of
from slipway.evals.questions import questions_in
from slipway.evals.statistics import auroc, paired_auroc
from slipway.knowledge.answerability import (
    DEPTH,
    KEYWORDS_ONLY,
    WITH_VECTORS,
    AnswerabilityModel,
    Signals,
    answer_probability,
    signals,
)
from slipway.knowledge.embedding import Embedder
from slipway.knowledge.fusion import DENSE_DEPTH, KEYWORD_DEPTH, Ranked, fuse, place
from slipway.knowledge.vectors import Vectors
from slipway.types import Passage

ROOT = Path(__file__).resolve().parent.parent
OWN = ROOT / "tests" / "data" / "docs-questions.jsonl"
FOLDS, TIMES = 5, 10
BALANCED = 0.45  # at this threshold both mistakes are about as frequent
RIDGE, RIDGES = 5.0, (1.0, 5.0, 25.0)
NAMES = Signals.__struct_fields__
SETS_OF_SIGNALS = (
    NAMES,
    ("match", "sentence_cosine", "sentence_coverage"),
    ("match", "lead", "heading_coverage", "heading_precision"),
    ("match", "heading_coverage", "heading_precision", "sentence_cosine", "sentence_coverage"),
    ("match", "lead", "sentence_cosine", "sentence_coverage"),
)
FAR_OFF = (
    "What is the capital of France?",
    "How do I bake sourdough bread?",
    "Who won the football world cup in 1998?",
    "What is the weather like tomorrow?",
    "Tell me a joke.",
    "Hello, how are you?",
    "Who are you?",
    "thanks!",
    "What time does the train to Berlin leave?",
    "How do I change a bicycle tyre?",
    "Which medicine helps against a headache?",
    "How tall is Mount Everest?",
    "Write a poem about the sea.",
    "What is the meaning of life?",
    "How much does a litre of milk cost?",
    "Can you help me?",
    "When was Napoleon born?",
    "How do I file my tax return?",
    "What is 17 times 23?",
    "Is it going to rain?",
)

Floats = NDArray[np.float64]


class World(NamedTuple):
    """Documents that can be searched, whole or without some places."""

    passages: list[Passage]
    vectors: Vectors
    keywords: Corpus


class Pair(NamedTuple):
    """A question's signals with the whole index and without its gold places; `cosines` has the best
    similarity of each.
    """

    question: str
    whole: Signals
    removed: Signals
    cosines: tuple[float, float]


def world(name: str, passages: list[Passage], embedder: Embedder) -> World:
    vectors = Vectors()
    vectors.put(range(len(passages)), embedded(name, passages, embedder))
    return World(passages, vectors, Corpus(passages))


def ranked(
    here: World, question: str, index: Corpus, without: set[Place], embedder: Embedder | None
) -> list[Ranked]:
    keyword = [
        hit for hit in index.hits(question, 2 * KEYWORD_DEPTH) if _last(hit.passage) not in without
    ][:KEYWORD_DEPTH]
    if embedder is None:
        return fuse(keyword, [], DEPTH)
    query, numbers = (
        embedder.embed_query(question),
        {passage.id: number for number, passage in enumerate(here.passages)},
    )
    allowed = [
        number for number, passage in enumerate(here.passages) if _last(passage) not in without
    ]
    near = dict(here.vectors.search(query, DENSE_DEPTH, allowed)) | here.vectors.compare(
        query, [numbers[h.passage.id] for h in keyword]
    )
    return fuse(
        keyword, [(here.passages[number], cosine) for number, cosine in near.items()], DEPTH
    )


def _last(passage: Passage) -> Place:
    return Path(passage.path).name, passage.heading


def pairs(
    here: World,
    questions: Sequence[tuple[str, set[Place]]],
    embedder: Embedder | None,
    *,
    rebuilt: bool,
) -> list[Pair]:
    """Return each question's signals. With `rebuilt`, the index is built without the gold places;
    otherwise they are skipped in the hits of the whole index.
    """
    embed = embedder.embed_query if embedder else None
    found = []
    for question, gold in questions:
        rest = (
            Corpus(p for p in here.passages if _last(p) not in gold) if rebuilt else here.keywords
        )
        both = [
            ranked(here, question, here.keywords, set(), embedder),
            ranked(here, question, rest, gold, embedder),
        ]
        whole, removed = (
            signals(question, each, here.keywords.index, embed) if each else Signals()
            for each in both
        )
        cosines = [max((one.cosine for one in each), default=0.0) for each in both]
        found.append(Pair(question, whole, removed, (cosines[0], cosines[1])))
    return found


# Fitting


def fitted(
    sets: Sequence[Sequence[Pair]], names: Sequence[str], ridge: float
) -> Callable[[Signals], float]:
    coefficients, bias = coefficients_of(sets, names, ridge)
    return lambda found: float(_row(found, names) @ coefficients + bias)


def coefficients_of(
    sets: Sequence[Sequence[Pair]], names: Sequence[str], ridge: float
) -> tuple[Floats, float]:
    """Fit a logistic regression by Newton's method, with ridge on standardised signals; return
    weights for raw signals. Each set has the same weight, as 50 pairs.
    """
    x = np.array(
        [_row(each, names) for data in sets for pair in data for each in (pair.whole, pair.removed)]
    )
    y = np.array([1.0, 0.0] * sum(map(len, sets)))
    counts = np.concatenate([np.full(2 * len(data), 50 / len(data)) for data in sets])
    middle, scale = x.mean(axis=0), x.std(axis=0) + 1e-9
    z = np.column_stack([(x - middle) / scale, np.ones(len(x))])
    penalty = np.diag([ridge] * len(names) + [0.0])
    w = np.zeros(len(names) + 1)
    for _ in range(12):
        p = 1 / (1 + np.exp(-z @ w))
        w -= np.linalg.solve(
            z.T @ (z * (counts * p * (1 - p))[:, None]) + penalty,
            z.T @ (counts * (p - y)) + penalty @ w,
        )
    plain: Floats = w[:-1] / scale
    return plain, float(w[-1] - plain @ middle)


def _row(found: Signals, names: Sequence[str]) -> Floats:
    return np.array([getattr(found, name) for name in names])


Scores = list[tuple[float, float]]
Chosen = tuple[Sequence[str], float]  # signals and ridge


def held_out(
    data: Sequence[Pair],
    also: Sequence[Pair],
    choose: Callable[[Sequence[Pair]], Chosen],
    seed: int,
) -> Scores:
    """Return each question's two scores by a model that has not seen it, fitted on the other folds
    and on all of `also`.
    """
    order, scores = (
        random.Random(seed).sample(range(len(data)), len(data)),
        [(0.0, 0.0)] * len(data),
    )
    for fold in range(FOLDS):
        test = set(order[fold::FOLDS])
        training = [pair for i, pair in enumerate(data) if i not in test]
        score = fitted([training, also] if also else [training], *choose(training))
        for i in test:
            scores[i] = score(data[i].whole), score(data[i].removed)
    return scores


def all_signals(_: Sequence[Pair]) -> Chosen:
    return NAMES, RIDGE


def chosen(training: Sequence[Pair], also: Sequence[Pair], seed: int) -> Chosen:
    """Choose signals and ridge by folds of the training questions."""
    choices: list[Chosen] = [(names, ridge) for names in SETS_OF_SIGNALS for ridge in RIDGES]
    return max(choices, key=lambda choice: _area(held_out(training, also, lambda _: choice, seed)))


def _area(scores: Scores) -> float:
    return auroc(*zip(*scores, strict=True))


def averaged(run: Callable[[int], Scores]) -> tuple[Scores, list[float]]:
    """Return each question's mean scores over the times, and the area of each time."""
    runs = [run(seed) for seed in range(TIMES)]
    scores = [
        (fmean(a for a, _ in each), fmean(b for _, b in each)) for each in zip(*runs, strict=True)
    ]
    return scores, [_area(scores) for scores in runs]


# Printing


def print_area(name: str, scores: Scores, areas: Sequence[float] = ()) -> None:
    measured = paired_auroc(*zip(*scores, strict=True))
    each = (
        f"  single times: mean {fmean(areas):.3f}, {min(areas):.3f} to {max(areas):.3f}"
        if areas
        else ""
    )
    print(f"{name:58} {measured.value:.3f}  [{measured.low:.3f}, {measured.high:.3f}]{each}")


def rates(scores: Scores, least: float) -> str:
    abstains, answers = fmean(a < least for a, _ in scores), fmean(b >= least for _, b in scores)
    return f"abstains from {abstains:.0%} of what is answered, answers {answers:.0%} of what is not"


def report(
    title: str, data: Sequence[Pair], other: Sequence[Pair], model: AnswerabilityModel
) -> None:
    print(f"\n{title} (n={len(data)})")
    if any(cosine for pair in data for cosine in pair.cosines):
        print_area("similarity alone", [pair.cosines for pair in data])
    print_area("match alone", [(pair.whole.match, pair.removed.match) for pair in data])
    print_area(
        "model, nested cross-validation",
        *averaged(
            lambda seed: held_out(data, (), lambda training: chosen(training, (), seed), seed)
        ),
    )
    print_area(
        "the same, and the other set to learn from",
        *averaged(lambda s: held_out(data, other, lambda t: chosen(t, other, s), s)),
    )
    print_area(
        "model with all signals, cross-validation",
        *averaged(lambda seed: held_out(data, (), all_signals, seed)),
    )
    plain, areas = averaged(lambda seed: held_out(data, other, all_signals, seed))
    print_area("the same, and the other set to learn from: as shipped", plain, areas)
    score = fitted([other], NAMES, RIDGE)
    print_area(
        "model fitted on the other set alone",
        [(score(pair.whole), score(pair.removed)) for pair in data],
    )
    shipped = [_by(model, pair) for pair in data]
    print_area("shipped constants, which have seen these questions", shipped)
    thresholds(shipped, plain, model)


def thresholds(shipped: Scores, plain: Scores, model: AnswerabilityModel) -> None:
    for least in (model.threshold, BALANCED):
        print(f"  at {least}: shipped {rates(shipped, least)}", end="")
        print(
            f"; cross-validated {rates(plain, float(np.log(least / (1 - least))))}" if plain else ""
        )


def _probability(model: AnswerabilityModel, found: Signals) -> float:
    return float(1 / (1 + np.exp(-(_row(found, NAMES) @ _row(model.weights, NAMES) + model.bias))))


def _by(model: AnswerabilityModel, pair: Pair) -> tuple[float, float]:
    return _probability(model, pair.whole), _probability(model, pair.removed)


def far_off(here: World, embedder: Embedder | None, model: AnswerabilityModel) -> None:
    embed, times = embedder.embed_query if embedder else None, []
    answered = []
    for question in FAR_OFF:
        found = ranked(here, question, here.keywords, set(), embedder)
        started = time.perf_counter()
        sure = answer_probability(question, found, here.keywords.index, embed)
        times.append((time.perf_counter() - started) * 1e3)
        if sure >= model.threshold:
            answered.append(f"{question} ({sure:.2f})")
    print(
        f"  far off: {len(answered)} of {len(FAR_OFF)} would be answered {answered}; p50 "
        f"{np.median(times):.1f} ms, max {max(times):.1f} ms"
    )


def unseen(own: World, embedder: Embedder | None, model: AnswerabilityModel) -> None:
    """Measure our own docs, which nothing was fitted on; the questions avoid the pages' words."""
    questions = questions_in(OWN, [place(passage) for passage in own.passages])
    asked = [
        (each.question, {(Path(gold.page).name, gold.heading or "") for gold in each.gold})
        for each in questions
    ]
    data = pairs(own, asked, embedder, rebuilt=True)
    print(f"\nour own docs (n={len(data)})")
    if embedder:
        print_area("similarity alone", [pair.cosines for pair in data])
    shipped = [_by(model, pair) for pair in data]
    print_area("shipped constants, which have not seen them", shipped)
    thresholds(shipped, [], model)
    far_off(own, embedder, model)


def docs_questions() -> list[tuple[str, set[Place]]]:
    return [
        (q["question"], {(g["page"], g["heading"]) for g in q["gold"]})
        for q in lines(DATA / "docs-qa" / "questions.jsonl")
    ]


def scifact_questions(passages: Sequence[Passage]) -> list[tuple[str, set[Place]]]:
    headings, relevant = {passage.path: _last(passage) for passage in passages}, judged()
    rows = lines(DATA / "scifact" / "queries.jsonl")
    found = [
        (row["text"], {headings[path] for path in relevant[row["_id"]]})
        for row in rows
        if row["_id"] in relevant
    ]
    return found[::4]  # every fourth claim: 203 are enough, and a minute instead of five


def printed(sets: Sequence[Sequence[Pair]]) -> str:
    coefficients, bias = coefficients_of(sets, NAMES, RIDGE)
    return (
        ", ".join(f"{name}={weight:.2f}" for name, weight in zip(NAMES, coefficients, strict=True))
        + f"; bias {bias:.2f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure abstention.")
    parser.add_argument("--fit", action="store_true", help="print the weights for the source")
    options, files = parser.parse_args(), weights.found("minilm")
    if files is None:
        parser.error("it needs the weights: slipway weights pull minilm")
    embedder = Embedder(files)
    docs = world("docs-qa", passages_of([DATA / "docs-qa" / "pages"]), embedder)
    abstracts = world(
        "scifact", [abstract(row) for row in lines(DATA / "scifact" / "corpus.jsonl.gz")], embedder
    )
    own = world("own", passages_of(sorted((ROOT / "docs").glob("*.md"))), embedder)
    for title, uses, model in (
        ("with vectors", embedder, WITH_VECTORS),
        ("keywords only", None, KEYWORDS_ONLY),
    ):
        here = pairs(docs, docs_questions(), uses, rebuilt=True)
        there = pairs(abstracts, scifact_questions(abstracts.passages), uses, rebuilt=False)
        if options.fit:
            print(title, printed([here, there]))
        report(f"docs-qa, {title}", here, there, model)
        far_off(docs, uses, model)
        on_pages = [
            (question, {_last(p) for p in docs.passages if _last(p)[0] in dict(gold)})
            for question, gold in docs_questions()
        ]
        easier = pairs(docs, on_pages, uses, rebuilt=True)
        print_area(
            "  gold pages removed instead: similarity alone", [pair.cosines for pair in easier]
        )
        print_area(
            "  gold pages removed instead: shipped constants", [_by(model, pair) for pair in easier]
        )
        report(f"SciFact, {title}", there, here, model)
        unseen(own, uses, model)


if __name__ == "__main__":
    main()
