"""What a measurement says, and how sure it is.

Rankings are sequences of things, best first; `gold` is the set of those that should be found.
Intervals are percentile bootstraps (Efron & Tibshirani 1993) that resample questions: what was
measured on the same question stays together. The same numbers give the same interval.
"""

import math
import random
from collections.abc import Callable, Collection, Hashable, Sequence
from functools import lru_cache
from statistics import fmean

import msgspec

from slipway.types import Record

_DRAWS, _SEED = 2000, 0

Statistic = Callable[
    [Sequence[int]], float
]  # (which questions were drawn, some of them more than once) -> a number, or NaN


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
    return measured(lambda drawn: fmean(values[i] for i in drawn), len(values))


def difference(better: Sequence[float], than: Sequence[float]) -> Measured:
    """The mean of `better - than`, question by question; more than chance where the interval leaves
    0 out.
    """
    return mean([a - b for a, b in zip(better, than, strict=True)])


def ratio(parts: Sequence[tuple[float, float] | None]) -> Statistic:
    """The sum of the first parts by that of the second ones: a share of all citations, not a mean
    of each answer's share.
    """
    over, under = (
        [part[0] if part else 0.0 for part in parts],
        [part[1] if part else 0.0 for part in parts],
    )

    def statistic(drawn: Sequence[int]) -> float:
        whole = sum(map(under.__getitem__, drawn))
        return sum(map(over.__getitem__, drawn)) / whole if whole else math.nan

    return statistic


def quantile(q: float, values: Sequence[float | None]) -> Statistic:
    """Of the values that there are, linear between neighbours (Hyndman & Fan 1996, type 7)."""

    def statistic(drawn: Sequence[int]) -> float:
        there = sorted(value for i in drawn if (value := values[i]) is not None)
        at = q * (len(there) - 1)
        return _between(there, at) if there else math.nan

    return statistic


def _between(there: Sequence[float], at: float) -> float:
    low, part = there[int(at)], at - int(at)
    return low + part * (there[min(int(at) + 1, len(there) - 1)] - low) if part else low


def compared(better: Statistic, than: Statistic) -> Statistic:
    """`better - than` on the same questions."""
    return lambda drawn: better(drawn) - than(drawn)


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
    """Both scores of a question are drawn together: `positive[i]` and `negative[i]` are the same
    question's.
    """
    if len(positive) != len(negative):
        raise ValueError(f"{len(positive)} positives and {len(negative)} negatives are no pairs")
    return measured(
        lambda drawn: auroc([positive[i] for i in drawn], [negative[i] for i in drawn]),
        len(positive),
    )


def measured(statistic: Statistic, n: int) -> Measured:
    """A statistic of `n` questions; draws for which it is NaN, such as a share of no citations at
    all, tell nothing and are left out.
    """
    value = statistic(range(n)) if n else math.nan
    if math.isnan(value):
        return Measured(value=math.nan, low=math.nan, high=math.nan, n=n)
    found = sorted(each for drawn in _draws(n) if not math.isnan(each := statistic(drawn)))
    return Measured(
        value=value,
        low=found[int(0.025 * len(found))],
        high=found[max(0, int(0.975 * len(found)) - 1)],
        n=n,
    )


def all_or_none(share: Measured) -> Measured:
    """A share of 0 or 1, with the exact interval of so many questions (Clopper & Pearson 1934):
    drawn again, they would always give the same.
    """
    width = 1 - 0.025 ** (1 / share.n)
    return msgspec.structs.replace(share, low=share.value and 1 - width, high=share.value or width)


@lru_cache(maxsize=2)
def _draws(n: int) -> list[list[int]]:
    chance = random.Random(_SEED)  # noqa: S311 - drawn again in the same way each time
    return [chance.choices(range(n), k=n) for _ in range(_DRAWS)]
