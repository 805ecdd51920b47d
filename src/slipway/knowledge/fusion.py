"""Combine keyword search and vector search into one ranking of places.

A place's score is a weighted sum of its keyword score, as a share of the best place's, and its
nearest passage's cosine. Bruch et al. (2023) found such sums better than reciprocal rank fusion,
since they keep how far the best is ahead. Measured by bench/fusion.py; see docs/decisions/006.
"""

from collections.abc import Hashable, Iterable, Sequence
from typing import Generic, NamedTuple, TypeVar

from slipway.types import Hit, Passage, Record

KEYWORD_DEPTH, DENSE_DEPTH = 70, 70  # results of each search to fuse
WEIGHT = 0.6  # of the cosine
FLOOR = 0.35  # the least cosine of a place that shares no word with the question

PlaceKey = tuple[str, str, Hashable]  # path, heading, page or parent headings
K = TypeVar("K", bound=Hashable)
P = TypeVar("P")


class Ranked(Record, frozen=True, kw_only=True):
    """Hold a place and its passage that is nearest to the question.

    `score` is between 0 and 1 and comparable within one search. `keyword` is the place's keyword
    score, 0 if it shares no word with the question. `cosine` is comparable between searches, 0 if
    unknown.
    """

    passage: Passage
    score: float
    keyword: float = 0.0
    cosine: float = 0.0

    @property
    def place(self) -> PlaceKey:
        return place(self.passage)


def place(passage: Passage) -> PlaceKey:
    """Return the key of a passage's place: path, heading, and the page, or the headings above if
    the document has no pages. Chapters span many pages, and slides often share a title.
    """
    return passage.path, passage.heading, passage.page or passage.trail[:-1]


def embedded_text(passage: Passage) -> str:
    """Return the text that is embedded for a passage: its headings and its words, since the words
    often do not repeat what the headings say.
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
    """Return at most `limit` places, best first; on a tie, the one that keywords ranked first.

    `keyword` holds places as `Index.search` returns them, best first. `dense` holds passages with
    their cosines in any order: the nearest ones (`Vectors.search`) and those of the keyword hits
    (`Vectors.compare`). Without `dense` the keyword order is kept.
    """
    words = [(place(hit.passage), hit.passage, hit.score) for hit in keyword]
    fused = fuse_keys(
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


class FusedPlace(NamedTuple, Generic[P]):
    """Hold the same values as `Ranked` with any key in place of the passage."""

    passage: P
    score: float
    keyword: float
    cosine: float


def fuse_keys(
    keyword: Iterable[tuple[K, P, float]],
    dense: Iterable[tuple[K, P, float]],
    limit: int,
    *,
    weight: float = WEIGHT,
    floor: float = FLOOR,
) -> list[FusedPlace[P]]:
    """Do what `fuse` does with (place, passage, score) and (place, passage, cosine) given as
    numbers, so that texts are loaded only for the best.
    """
    nearest: dict[K, tuple[P, float]] = {}
    for place_, passage, cosine in dense:
        if place_ not in nearest or cosine > nearest[place_][1]:
            nearest[place_] = passage, cosine
    words = list(keyword)
    cosines = [max(nearest[place_][1], 0.0) for place_, _, _ in words if place_ in nearest]
    # Used for places whose vectors are not made yet; otherwise they would rank last
    mean_cosine = sum(cosines) / len(cosines) if cosines else 0.0
    fused, best = list[FusedPlace[P]](), 0.0
    for place_, passage, score in words:
        best = best or score
        share = score / best if best > 0 else 0.0
        near = max(nearest[place_][1], 0.0) if place_ in nearest else mean_cosine
        passage, cosine = nearest.pop(place_, (passage, 0.0))
        fused.append(FusedPlace(passage, (1 - weight) * share + weight * near, score, cosine))
    fused += [
        FusedPlace(passage, weight * cosine, 0.0, cosine)
        for passage, cosine in nearest.values()
        if cosine >= floor
    ]
    return sorted(fused, key=lambda each: -each.score)[:limit]
