"""What a measurement says, and how sure it is.

Rankings are sequences of things, best first; `gold` is the set of those that should be found. Intervals are percentile bootstraps (Efron &
Tibshirani 1993) that resample questions: what was measured on the same question stays together. The same numbers give the same interval.
"""

import math
import random
from collections.abc import Callable, Collection, Hashable, Sequence
from statistics import fmean

from slipway.types import Record

_DRAWS, _SEED = 2000, 0


class Measured(Record, frozen=True, kw_only=True):
    """A mean or an area with its 95 % interval; NaN throughout where nothing was measured."""

    value: float
    low: float
    high: float
    n: int


# One ranking


def recall_at(k: int, ranking: Sequence[Hashable], gold: Collection[Hashable]) -> float:
    """The share of gold among the first k."""
    return len(set(ranking[:k]) & set(gold)) / len(set(gold))


def mrr_at(k: int, ranking: Sequence[Hashable], gold: Collection[Hashable]) -> float:
    """1 / rank of the first gold among the first k, else 0."""
    return next((1 / rank for rank, each in enumerate(ranking[:k], 1) if each in gold), 0.0)


def ndcg_at(k: int, ranking: Sequence[Hashable], gold: Collection[Hashable]) -> float:
    """As in BEIR: binary gains, log2 discount (Järvelin & Kekäläinen 2002)."""
    got = sum(1 / math.log2(rank + 1) for rank, each in enumerate(ranking[:k], 1) if each in gold)
    return got / sum(1 / math.log2(rank + 1) for rank in range(1, min(len(set(gold)), k) + 1))


# Many


def mean(values: Sequence[float]) -> Measured:
    return _measured(lambda drawn: fmean(values[i] for i in drawn), len(values))


def difference(better: Sequence[float], than: Sequence[float]) -> Measured:
    """The mean of `better - than`, question by question; more than chance where the interval leaves 0 out."""
    return mean([a - b for a, b in zip(better, than, strict=True)])


def auroc(positive: Sequence[float], negative: Sequence[float]) -> float:
    """How often a positive scores above a negative; equals count half (Mann & Whitney 1947)."""
    if not positive or not negative:
        return math.nan
    labels: dict[float, list[int]] = {}
    for label, scores in enumerate((negative, positive)):
        for score in scores:
            labels.setdefault(score, []).append(label)
    wins, below = 0.0, 0
    for _, equal in sorted(labels.items()):
        right = sum(equal)
        wrong = len(equal) - right
        wins += right * (below + wrong / 2)
        below += wrong
    return wins / (len(positive) * len(negative))


def paired_auroc(positive: Sequence[float], negative: Sequence[float]) -> Measured:
    """Both scores of a question are drawn together: `positive[i]` and `negative[i]` are the same question's."""
    if len(positive) != len(negative):
        raise ValueError(f"{len(positive)} positives and {len(negative)} negatives are no pairs")
    return _measured(lambda drawn: auroc([positive[i] for i in drawn], [negative[i] for i in drawn]), len(positive))


def _measured(statistic: Callable[[Sequence[int]], float], n: int) -> Measured:
    if n == 0:
        return Measured(value=math.nan, low=math.nan, high=math.nan, n=0)
    chance = random.Random(_SEED)  # noqa: S311 - drawn again in the same way each time
    drawn = sorted(statistic(chance.choices(range(n), k=n)) for _ in range(_DRAWS))
    return Measured(value=statistic(range(n)), low=drawn[int(0.025 * _DRAWS)], high=drawn[int(0.975 * _DRAWS) - 1], n=n)
