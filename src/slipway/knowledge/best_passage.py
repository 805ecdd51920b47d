"""Choose the passage of a place that answers: a chapter or a sheet has many passages, and the one
with the highest keyword score is often not the one with the answer.
"""

from collections.abc import Sequence
from itertools import pairwise

from slipway.knowledge.answerability import Terms, WeightedQuestion, sentences
from slipway.knowledge.fusion import Ranked
from slipway.types import Passage

PLACES_READ = 5  # places; later ones are rarely shown
# Weight of word pairs in the question's order, which tells `flat 23-22` from `flat 22-23`
# (Metzler & Croft 2005)
_PAIR_WEIGHT = 0.2


def choose_best_passages(
    question: str,
    ranked: Sequence[Ranked],
    others: Sequence[Sequence[tuple[Passage, float]]],
    terms: Terms,
) -> list[Ranked]:
    """Return the places; for the first `PLACES_READ`, pick the passage whose best sentence or row
    covers most of the question. If there are vectors, its cosine counts equally.

    `others` holds further passages of each place with their cosines, which are 0 without vectors.
    """
    if not any(others):
        return list(ranked)
    asked, content = WeightedQuestion(question, terms), frozenset(terms.content_terms(question))
    pairs = frozenset(pair for pair in pairwise(terms.words(question)) if content.issuperset(pair))

    def coverage(passage: Passage) -> float:
        return max(
            (
                _coverage(words, asked, pairs)
                for words in terms.words_of_each([*sentences(passage.text)])
            ),
            default=0.0,
        )

    found = list(ranked)
    for index, (place, more) in enumerate(zip(ranked[:PLACES_READ], others, strict=False)):
        if more:
            worth = [
                (coverage(passage) + near, passage, near)
                for passage, near in [(place.passage, place.cosine), *more]
            ]
            _, passage, cosine = max(worth, key=lambda each: each[0])
            found[index] = Ranked(
                passage=passage, score=place.score, keyword=place.keyword, cosine=cosine
            )
    return found


def _coverage(
    words: Sequence[str], asked: WeightedQuestion, pairs: frozenset[tuple[str, str]]
) -> float:
    share = asked.coverage(words)
    return (
        share + _PAIR_WEIGHT * len(pairs.intersection(pairwise(words))) / len(pairs)
        if share and pairs
        else share
    )
