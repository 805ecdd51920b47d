"""One ranking of places out of two: of those that share words with the question, and of those that
mean about the same.

A place's score is a weighted sum of its keyword score, as a share of the best place's, and of its
nearest passage's cosine. (Bruch et al. 2023 found such sums better than reciprocal ranks: they keep
how far the best is ahead.) Measured by bench/fusion.py; see docs/decisions/006.
"""

from collections.abc import Hashable, Iterable, Sequence
from typing import Generic, NamedTuple, TypeVar

from slipway.types import Hit, Passage, Record

KEYWORD_DEPTH, DENSE_DEPTH = 70, 70  # how many of each are worth fusing, for a handful of places
WEIGHT = 0.6  # of the cosine
FLOOR = 0.35  # the cosine from which a place counts that shares no word with the question

Place = tuple[str, str, Hashable]  # path, heading, and what tells it from others of that name
K = TypeVar("K", bound=Hashable)
P = TypeVar("P")


class Ranked(Record, frozen=True, kw_only=True):
    """A place, by the passage of it that is nearest to the question.

    `score` is between 0 and 1 and comparable within one search; `keyword` is the place's own score,
    0 where it shares no word; `cosine` is comparable between searches, 0 where it is not known.
    """

    passage: Passage
    score: float
    keyword: float = 0.0
    cosine: float = 0.0

    @property
    def place(self) -> Place:
        return place(self.passage)


def place(passage: Passage) -> Place:
    """A document's places are told apart by their headings and those above them, and by their pages
    where it has pages: chapters go on over many, and slides are often called the same.
    """
    return passage.path, passage.heading, passage.page or passage.trail[:-1]


def embedded_text(passage: Passage) -> str:
    """What is embedded of a passage: the headings above it say what it is about, which its own
    words often do not repeat.
    """
    return "\n".join([" > ".join(passage.trail), passage.text])


def fuse(
    keyword: Sequence[Hit],
    dense: Iterable[tuple[Passage, float]],
    limit: int,
    *,
    weight: float = WEIGHT,
    floor: float = FLOOR,
) -> list[Ranked]:
    """At most `limit` places, best first; of equals, the one that the keywords found first.

    `keyword` are places as `Index.search` gives them, best first. `dense` are passages with their
    cosines, in any order: the nearest ones (`Vectors.search`) and those of the keyword hits
    (`Vectors.compare`). Without `dense` the keywords' order stays as it is.
    """
    words = [(place(hit.passage), hit.passage, hit.score) for hit in keyword]
    fused = order(
        words,
        ((place(passage), passage, cosine) for passage, cosine in dense),
        limit,
        weight=weight,
        floor=floor,
    )
    return [
        Ranked(passage=each.passage, score=each.score, keyword=each.keyword, cosine=each.cosine)
        for each in fused
    ]


class Fused(NamedTuple, Generic[P]):
    """As `Ranked`, of whatever stands for a passage."""

    passage: P
    score: float
    keyword: float
    cosine: float


def order(
    keyword: Iterable[tuple[K, P, float]],
    dense: Iterable[tuple[K, P, float]],
    limit: int,
    *,
    weight: float = WEIGHT,
    floor: float = FLOOR,
) -> list[Fused[P]]:
    """What `fuse` does, of (place, passage, score) and (place, passage, cosine) by numbers: the
    texts are fetched for the best alone.
    """
    nearest: dict[K, tuple[P, float]] = {}
    for place_, passage, cosine in dense:
        if place_ not in nearest or cosine > nearest[place_][1]:
            nearest[place_] = passage, cosine
    words = list(keyword)
    cosines = [max(nearest[place_][1], 0.0) for place_, _, _ in words if place_ in nearest]
    usual = (
        sum(cosines) / len(cosines) if cosines else 0.0
    )  # of those whose vectors are not made yet: else they came behind all others
    fused, best = list[Fused[P]](), 0.0
    for place_, passage, score in words:
        best = best or score
        share = score / best if best > 0 else 0.0
        near = max(nearest[place_][1], 0.0) if place_ in nearest else usual
        passage, cosine = nearest.pop(place_, (passage, 0.0))
        fused.append(Fused(passage, (1 - weight) * share + weight * near, score, cosine))
    fused += [
        Fused(passage, weight * cosine, 0.0, cosine)
        for passage, cosine in nearest.values()
        if cosine >= floor
    ]
    return sorted(fused, key=lambda each: -each.score)[:limit]
