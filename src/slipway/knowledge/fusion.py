"""One ranking of places out of two: of those that share words with the question, and of those that mean about the same.

A place's score is a weighted sum of its keyword score, as a share of the best place's, and of its nearest passage's cosine. (Bruch et al. 2023
found such sums better than reciprocal ranks: they keep how far the best is ahead.) Measured by bench/fusion.py; see docs/decisions/006.
"""

from collections.abc import Iterable, Sequence

from slipway.types import Hit, Passage, Record

KEYWORD_DEPTH, DENSE_DEPTH = 100, 100  # how many of each are worth fusing, for a handful of places
WEIGHT = 0.6  # of the cosine
FLOOR = 0.35  # the cosine from which a place counts that shares no word with the question

Place = tuple[str, str, int | None]


class Ranked(Record, frozen=True, kw_only=True):
    """A place, by the passage of it that is nearest to the question.

    `score` is between 0 and 1 and comparable within one search; `keyword` is the place's own score, 0 where it shares no word; `cosine` is
    comparable between searches, 0 where it is not known.
    """

    passage: Passage
    score: float
    keyword: float = 0.0
    cosine: float = 0.0

    @property
    def place(self) -> Place:
        return place(self.passage)


def place(passage: Passage) -> Place:
    """A document's places are told apart by their headings; where it has none, by its pages."""
    return passage.path, passage.heading, passage.page if len(passage.trail) < 2 and passage.heading == passage.title else None


def embedded_text(passage: Passage) -> str:
    """What is embedded of a passage: the headings above it say what it is about, which its own words often do not repeat."""
    return "\n".join([" > ".join(passage.trail), passage.text])


def fuse(
    keyword: Sequence[Hit], dense: Iterable[tuple[Passage, float]], limit: int, *, weight: float = WEIGHT, floor: float = FLOOR
) -> list[Ranked]:
    """At most `limit` places, best first; of equals, the one that the keywords found first.

    `keyword` are places as `Index.search` gives them, best first. `dense` are passages with their cosines, in any order: the nearest ones
    (`Vectors.search`) and those of the keyword hits (`Vectors.compare`). Without `dense` the keywords' order stays as it is.
    """
    nearest: dict[Place, tuple[Passage, float]] = {}
    for passage, cosine in dense:
        if cosine > nearest.get(place(passage), (passage, -2.0))[1]:
            nearest[place(passage)] = (passage, cosine)
    best = keyword[0].score if keyword else 0.0
    shared = {place(hit.passage): hit for hit in keyword}
    ranked = [_ranked(hit, nearest.get(each), best, weight) for each, hit in shared.items()]
    ranked += [
        Ranked(passage=passage, score=weight * cosine, cosine=cosine)
        for each, (passage, cosine) in nearest.items()
        if each not in shared and cosine >= floor
    ]
    return sorted(ranked, key=lambda each: -each.score)[:limit]


def _ranked(hit: Hit, near: tuple[Passage, float] | None, best: float, weight: float) -> Ranked:
    passage, cosine = near or (hit.passage, 0.0)
    share = hit.score / best if best > 0 else 0.0
    return Ranked(passage=passage, score=(1 - weight) * share + weight * max(cosine, 0.0), keyword=hit.score, cosine=cosine)
