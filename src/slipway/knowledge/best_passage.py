"""Which passage of a place answers: a chapter or a sheet has many, and the best of their words
stand in one that says them in a hundred rows.
"""

from collections.abc import Sequence
from itertools import pairwise

from slipway.knowledge.answerability import Asked, Terms, sentences
from slipway.knowledge.fusion import Ranked
from slipway.types import Passage

READ = 5  # places: those behind them are hardly shown
# what words count that follow each other as in the question, which tells `flat 23-22` from `flat
# 22-23` (Metzler & Croft 2005)
_NEXT = 0.2


def spotted(
    question: str,
    ranked: Sequence[Ranked],
    others: Sequence[Sequence[tuple[Passage, float]]],
    terms: Terms,
) -> list[Ranked]:
    """The first `READ` places, each by that of its passages whose best sentence or row has most of
    the question; where there are vectors, its cosine counts as much. `others` are further passages
    of each place with their cosines, which are 0 where there are none.
    """
    if not any(others):
        return list(ranked)
    asked, telling = Asked(question, terms), frozenset(terms.telling(question))
    pairs = frozenset(pair for pair in pairwise(terms.words(question)) if telling.issuperset(pair))

    def said(passage: Passage) -> float:
        return max(
            (
                _said(words, asked, pairs)
                for words in terms.words_of_each([*sentences(passage.text)])
            ),
            default=0.0,
        )

    found = list(ranked)
    for index, (place, more) in enumerate(zip(ranked[:READ], others, strict=False)):
        if more:
            worth = [
                (said(passage) + near, passage, near)
                for passage, near in [(place.passage, place.cosine), *more]
            ]
            _, passage, cosine = max(worth, key=lambda each: each[0])
            found[index] = Ranked(
                passage=passage, score=place.score, keyword=place.keyword, cosine=cosine
            )
    return found


def _said(words: Sequence[str], asked: Asked, pairs: frozenset[tuple[str, str]]) -> float:
    share = asked.share(words)
    return (
        share + _NEXT * len(pairs.intersection(pairwise(words))) / len(pairs)
        if share and pairs
        else share
    )
