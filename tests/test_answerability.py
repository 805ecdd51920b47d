"""Test how passages that answer are distinguished from nothing, nonsense and near misses."""

from collections.abc import Sequence

import pytest

from slipway.evals.knowledge import Corpus
from slipway.knowledge.answerability import WITH_VECTORS, answer_probability, signals, threshold
from slipway.knowledge.embedding import Embedder
from slipway.knowledge.fusion import DENSE_DEPTH, Ranked, embedded_text, fuse
from slipway.types import Passage

PAGES = {
    (
        "leave.md",
        "Days of leave",
    ): "Everyone has 30 days of leave a year. Days that are left expire in March.",
    (
        "leave.md",
        "Illness",
    ): "Call your team before nine in the morning. A doctor's note is needed from the third day.",
    (
        "travel.md",
        "Booking",
    ): "Trains are booked by the office. Flights need the consent of your head of department.",
    (
        "travel.md",
        "Expenses",
    ): "Hand in receipts within four weeks. Meals are paid up to 28 euros a day.",
    ("office.md", "Keys"): "The front desk hands out keys. A lost key costs 50 euros.",
}
KNOWN = [
    Passage(
        id=text[:9],
        path=path,
        title="",
        heading=heading,
        trail=("Handbook", heading),
        start=0,
        end=len(text),
        text=text,
        version="",
    )
    for (path, heading), text in PAGES.items()
]
CORPUS = Corpus(KNOWN)
TERMS = CORPUS.index
ANSWERED = [
    "How many days of leave do I have?",
    "What does a lost key cost?",
    "When must I hand in receipts?",
    "Who books trains?",
]
OFF = [
    "What is the capital of France?",
    "Tell me a joke.",
    "Hello!",
    "How do I bake bread?",
    "",
    "?!",
]


def found(question: str, embedder: Embedder | None) -> Sequence[Ranked]:
    keyword = CORPUS.hits(question, 20)
    if embedder is None:
        return fuse(keyword, [], 20)
    vectors = embedder.embed([embedded_text(passage) for passage in KNOWN])
    cosines = vectors @ embedder.embed_query(question)
    return fuse(keyword, zip(KNOWN, map(float, cosines), strict=True), DENSE_DEPTH)


@pytest.mark.parametrize("question", ANSWERED)
def test_answered_questions_are_above_the_threshold(question: str, embedder: Embedder) -> None:
    assert answer_probability(
        question, found(question, embedder), TERMS, embedder.embed_query
    ) >= threshold(embedder.embed_query)


@pytest.mark.parametrize("question", OFF)
def test_unrelated_questions_are_below_the_threshold_with_and_without_vectors(
    question: str, embedder: Embedder
) -> None:
    assert answer_probability(
        question, found(question, embedder), TERMS, embedder.embed_query
    ) < threshold(embedder.embed_query)
    assert answer_probability(question, found(question, None), TERMS) < threshold()


@pytest.mark.parametrize("question", ANSWERED)
def test_keywords_alone_tell_it_too(question: str) -> None:
    whole = found(question, None)
    assert answer_probability(question, whole, TERMS) >= threshold()
    assert answer_probability(question, whole[1:], TERMS) < answer_probability(
        question, whole, TERMS
    )


def test_nothing_found_is_no_answer() -> None:
    assert answer_probability("How many days of leave do I have?", [], TERMS) == 0
    assert answer_probability("what about it", found(ANSWERED[0], None), TERMS) == 0


def test_each_signal_speaks_for_an_answer(embedder: Embedder) -> None:
    assert all(
        getattr(WITH_VECTORS.weights, name) > 0 for name in WITH_VECTORS.weights.__struct_fields__
    )
    of = signals(ANSWERED[0], found(ANSWERED[0], embedder), TERMS, embedder.embed_query)
    assert all(0 <= getattr(of, name) <= 1 for name in of.__struct_fields__)


def test_rare_words_weigh_more() -> None:
    assert TERMS.idf("") > TERMS.idf("leav") > TERMS.idf("handbook") > 0
