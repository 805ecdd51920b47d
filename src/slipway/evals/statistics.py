"""Compute metrics and their confidence intervals.

Rankings are sequences of things, best first; `gold` is the set of those that should be found.
Intervals are percentile bootstraps (Efron & Tibshirani 1993) that resample questions: values of the
same question stay together. The same numbers give the same interval.

The second half is for evaluation sets, whose scores are mostly right or wrong: Wilson's interval
for a share, Tango's for a difference of paired shares, an expanded percentile bootstrap
over clusters for everything else, McNemar's exact test, Holm's correction, and a test that stays
valid if somebody looks at it after every item.
"""

import math
import random
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from functools import lru_cache
from itertools import combinations
from statistics import NormalDist, fmean

import msgspec

from slipway.types import Record

_DRAWS, _SEED = 2000, 0

# (which questions were drawn, some of them more than once) -> a number, or NaN
Statistic = Callable[[Sequence[int]], float]


class Measured(Record, frozen=True, kw_only=True):
    """A mean or an area with its 95 % interval; NaN throughout if nothing was measured."""

    value: float
    low: float
    high: float
    n: int


# One ranking


def recall_at(k: int, ranking: Sequence[Hashable], gold: Collection[Hashable]) -> float:
    """Return the share of gold that is among the first k."""
    return len(set(ranking[:k]) & set(gold)) / len(set(gold))


def mrr_at(k: int, ranking: Sequence[Hashable], gold: Collection[Hashable]) -> float:
    """Return 1 / rank of the first gold among the first k, else 0."""
    return next((1 / rank for rank, each in enumerate(ranking[:k], 1) if each in gold), 0.0)


def ndcg_at(k: int, ranking: Sequence[Hashable], gold: Collection[Hashable]) -> float:
    """Return nDCG as in BEIR: binary gains, log2 discount (Järvelin & Kekäläinen 2002)."""
    got = sum(1 / math.log2(rank + 1) for rank, each in enumerate(ranking[:k], 1) if each in gold)
    return got / sum(1 / math.log2(rank + 1) for rank in range(1, min(len(set(gold)), k) + 1))


# Many


def mean(values: Sequence[float]) -> Measured:
    return measured(lambda drawn: fmean(values[i] for i in drawn), len(values))


def difference(better: Sequence[float], than: Sequence[float]) -> Measured:
    """Return the mean of `better - than`, question by question; it is more than chance if the
    interval excludes 0.
    """
    return mean([a - b for a, b in zip(better, than, strict=True)])


def ratio(parts: Sequence[tuple[float, float] | None]) -> Statistic:
    """Divide the sum of the first parts by the sum of the second ones: a share of all citations,
    not a mean of each answer's share.
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
    """Return a quantile of the known values, linear between neighbours (Hyndman & Fan 1996, type
    7).
    """

    def statistic(drawn: Sequence[int]) -> float:
        there = sorted(value for i in drawn if (value := values[i]) is not None)
        at = q * (len(there) - 1)
        return _between(there, at) if there else math.nan

    return statistic


def _between(there: Sequence[float], at: float) -> float:
    low, part = there[int(at)], at - int(at)
    return low + part * (there[min(int(at) + 1, len(there) - 1)] - low) if part else low


def compared(better: Statistic, than: Statistic) -> Statistic:
    """Return `better - than` on the same questions."""
    return lambda drawn: better(drawn) - than(drawn)


def auroc(positive: Sequence[float], negative: Sequence[float]) -> float:
    """Return how often a positive beats a negative; ties count half (Mann & Whitney 1947)."""
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
    """Return the AUROC of paired scores: `positive[i]` and `negative[i]` belong to the same
    question and are drawn together.
    """
    if len(positive) != len(negative):
        raise ValueError(f"{len(positive)} positives and {len(negative)} negatives are no pairs")
    return measured(
        lambda drawn: auroc([positive[i] for i in drawn], [negative[i] for i in drawn]),
        len(positive),
    )


def measured(statistic: Statistic, n: int) -> Measured:
    """Return a statistic of `n` questions with its interval. Draws that give NaN, such as a share
    of no citations at all, are left out.
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
    """Give a share of 0 or 1 the exact interval (Clopper & Pearson 1934), since all bootstrap draws
    would be equal.
    """
    width = 1 - 0.025 ** (1 / share.n)
    return msgspec.structs.replace(share, low=share.value and 1 - width, high=share.value or width)


@lru_cache(maxsize=2)
def _draws(n: int) -> list[list[int]]:
    chance = random.Random(_SEED)  # noqa: S311 - drawn again in the same way each time
    return [chance.choices(range(n), k=n) for _ in range(_DRAWS)]


# Evaluation sets: shares, differences, tests

CONFIDENCE, POWER = 0.95, 0.8
_NORMAL = NormalDist()


def wilson(right: float, n: int, confidence: float = CONFIDENCE) -> Measured:
    """Return a share with its score interval (Wilson 1927), which also holds for few items and for
    shares near 0 or 1.
    """
    if not n:
        return Measured(value=math.nan, low=math.nan, high=math.nan, n=0)
    z = _NORMAL.inv_cdf((1 + confidence) / 2)
    middle = (right + z * z / 2) / (n + z * z)
    half = z * math.sqrt(right * (n - right) / n + z * z / 4) / (n + z * z)
    low, high = max(0.0, middle - half), min(1.0, middle + half)
    return Measured(
        value=right / n, low=low if right else 0.0, high=high if right < n else 1.0, n=n
    )


def t_quantile(p: float, freedom: int) -> float:
    """Student's quantile by the expansion of Abramowitz and Stegun (26.7.5): within 0.002 from 5
    degrees of freedom on.
    """
    x = _NORMAL.inv_cdf(p)
    terms = (
        (x**3 + x) / 4,
        (5 * x**5 + 16 * x**3 + 3 * x) / 96,
        (3 * x**7 + 19 * x**5 + 17 * x**3 - 15 * x) / 384,
        (79 * x**9 + 776 * x**7 + 1482 * x**5 - 1920 * x**3 - 945 * x) / 92160,
    )
    return x + math.fsum(term / freedom**power for power, term in enumerate(terms, 1))


def clustered_mean(values: Sequence[float], clusters: Sequence[Hashable] | None = None) -> Measured:
    """Return a mean with its interval. Items of one cluster, such as questions about one passage,
    are drawn together.

    It is the expanded percentile bootstrap (Hesterberg 2015), which is as wide as Student's
    interval where there are few clusters. Fewer than six clusters have no interval.
    """
    sums, sizes = _sums(values, clusters)
    n = len(values)
    value = sum(sums) / n if n else math.nan
    if len(sums) < 6:
        return Measured(value=value, low=math.nan, high=math.nan, n=n)
    means = _resampled(tuple(sums), tuple(sizes))
    tail = _NORMAL.cdf(
        -math.sqrt(len(sums) / (len(sums) - 1)) * t_quantile((1 + CONFIDENCE) / 2, len(sums) - 1)
    )
    return Measured(
        value=value,
        low=_between(means, tail * (len(means) - 1)),
        high=_between(means, (1 - tail) * (len(means) - 1)),
        n=n,
    )


def _sums(
    values: Sequence[float], clusters: Sequence[Hashable] | None
) -> tuple[list[float], list[int]]:
    """Return the sum and the size of each cluster; each item is one of its own where none are
    named.
    """
    if clusters is None:
        return list(values), [1] * len(values)
    sums: dict[Hashable, float] = {}
    sizes: dict[Hashable, int] = {}
    for value, cluster in zip(values, clusters, strict=True):
        sums[cluster] = sums.get(cluster, 0.0) + value
        sizes[cluster] = sizes.get(cluster, 0) + 1
    return list(sums.values()), list(sizes.values())


def _resampled(sums: tuple[float, ...], sizes: tuple[int, ...]) -> list[float]:
    """Return the means of 2,000 draws of whole clusters, in order."""
    import numpy as np  # an extra: `slipway[evals]`

    chance, many = np.random.default_rng(_SEED), len(sums)
    over, under = np.asarray(sums), np.asarray(sizes, dtype=float)
    found = []
    step = max(1, 4_000_000 // many)  # draws at once, so that large sets need no more than 32 MB
    for start in range(0, _DRAWS, step):
        drawn = chance.integers(0, many, size=(min(step, _DRAWS - start), many))
        found.append(over[drawn].sum(axis=1) / under[drawn].sum(axis=1))
    return [float(each) for each in np.sort(np.concatenate(found))]


def paired_shares(wins: int, losses: int, n: int, confidence: float = CONFIDENCE) -> Measured:
    """Return the difference of two shares of the same items, with the asymptotic score interval of
    Tango (1998). It holds the truth about as often as it says from 20 items on.
    """
    if not n:
        return Measured(value=math.nan, low=math.nan, high=math.nan, n=0)
    z, value = _NORMAL.inv_cdf((1 + confidence) / 2), (wins - losses) / n
    return Measured(
        value=value,
        low=_difference_at(z, -1.0, value, wins, losses, n),
        high=_difference_at(-z, value, 1.0, wins, losses, n),
        n=n,
    )


def _difference_at(z: float, low: float, high: float, wins: int, losses: int, n: int) -> float:
    """Return the difference between `low` and `high` whose score is z; the score falls with it."""
    for _ in range(50):  # each step halves the range
        middle = (low + high) / 2
        if _paired_score(middle, wins, losses, n) > z:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _paired_score(difference: float, wins: int, losses: int, n: int) -> float:
    """Return how many standard errors what was seen is above a difference, which is strictly
    between -1 and 1; the error is that of the likeliest shares with this difference.
    """
    linear = (2 * n - wins + losses) * difference - wins - losses
    constant = -losses * difference * (1 - difference)
    losing = (math.sqrt(max(0.0, linear**2 - 8 * n * constant)) - linear) / (4 * n)
    variance = n * (2 * losing + difference * (1 - difference))
    above = wins - losses - n * difference
    if variance > 0:
        return above / math.sqrt(variance)
    return math.copysign(math.inf, above) if above else 0.0


def mcnemar(wins: int, losses: int) -> float:
    """Return the exact two-sided p-value of McNemar's test: of the items on which two differ, each
    wins half of them by chance.
    """
    n, few = wins + losses, min(wins, losses)
    if wins == losses:
        return 1.0
    logs = [
        math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) - n * math.log(2)
        for k in range(few + 1)
    ]
    return min(1.0, 2 * math.fsum(math.exp(each) for each in logs))


def holm(ps: Sequence[float]) -> list[float]:
    """Return the p-values corrected for how many there are (Holm 1979), in their order."""
    found, most = [0.0] * len(ps), 0.0
    for rank, i in enumerate(sorted(range(len(ps)), key=ps.__getitem__)):
        most = max(most, min(1.0, (len(ps) - rank) * ps[i]))
        found[i] = most
    return found


class Pair(Record, frozen=True, kw_only=True):
    """One candidate against another on the same items. `p` is not yet corrected for how many pairs
    there are.

    `detectable` is the smallest true difference that so many items would show in four of five runs;
    `needed` is how many items the difference that was measured would take.
    """

    difference: Measured
    wins: int
    losses: int
    ties: int
    p: float
    test: str
    detectable: float
    needed: int | None


def compared_scores(
    better: Sequence[float], than: Sequence[float], clusters: Sequence[Hashable] | None = None
) -> Pair:
    """Compares two candidates item by item: by McNemar's test where all scores are 0 or 1 and no
    items belong together, else by the bootstrap.
    """
    differences = [a - b for a, b in zip(better, than, strict=True)]
    wins, losses, n = (
        sum(d > 0 for d in differences),
        sum(d < 0 for d in differences),
        len(differences),
    )
    alone = clusters is None or len(set(clusters)) == n
    if alone and all(score in (0, 1) for score in (*better, *than)):
        found, p, test = paired_shares(wins, losses, n), mcnemar(wins, losses), "McNemar"
    else:
        found = clustered_mean(differences, clusters)
        p, test = _bootstrap_p(differences, clusters), "paired bootstrap"
    error = standard_error(differences, clusters)
    if (
        test == "McNemar" and n
    ):  # also where they never differ, which does not mean that they never would
        up, down = (wins + 1) / (n + 2), (losses + 1) / (n + 2)
        error = max(error, math.sqrt((up + down - (up - down) ** 2) / (n + 2)))
    z = _NORMAL.inv_cdf((1 + CONFIDENCE) / 2) + _NORMAL.inv_cdf(POWER)
    needed = math.ceil(n * (z * error / found.value) ** 2) if found.value and error else None
    return Pair(
        difference=found,
        wins=wins,
        losses=losses,
        ties=n - wins - losses,
        p=p,
        test=test,
        detectable=z * error
        + (1 / n if test == "McNemar" and n else 0.0),  # an exact test asks one item more
        needed=needed,
    )


def standard_error(values: Sequence[float], clusters: Sequence[Hashable] | None = None) -> float:
    """Return the standard error of a mean, robust to clusters (Liang and Zeger 1986, corrected for
    few).
    """
    sums, sizes = _sums(values, clusters)
    n, many = len(values), len(sums)
    if many < 2:
        return math.nan
    mean_ = sum(sums) / n
    around = math.fsum((total - mean_ * size) ** 2 for total, size in zip(sums, sizes, strict=True))
    return math.sqrt(many / (many - 1) * around) / n


def _bootstrap_p(differences: Sequence[float], clusters: Sequence[Hashable] | None) -> float:
    """Return how often draws of the same items fall on the other side of 0, doubled."""
    sums, sizes = _sums(differences, clusters)
    if len(sums) < 6 or not any(sums):
        return 1.0
    means = _resampled(tuple(sums), tuple(sizes))
    least = min(sum(mean_ <= 0 for mean_ in means), sum(mean_ >= 0 for mean_ in means))
    return min(1.0, 2 * (least + 1) / (len(means) + 1))


# Looking after every item


def evidence(wins: int, losses: int) -> float:
    """Return the logarithm of an e-value against "each wins half of the items on which they
    differ".

    It mixes over all shares evenly (Robbins 1970). By Ville's inequality it ever reaches log(1 /
    alpha) in at most a share alpha of runs in which there is no difference, however often somebody
    looks.
    """
    n = wins + losses
    return n * math.log(2) + _log_beta(wins + 1, losses + 1)


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


class Race:
    """Candidates that answer the same items, one item after another: who is beaten drops out, and
    the last one has won.

    A candidate is beaten if the evidence of any pair reaches the error rate shared among all pairs
    (Bonferroni), so that the chance of ever dropping one that is as good as the others is at most
    `alpha`.
    """

    def __init__(self, names: Sequence[str], alpha: float = 1 - CONFIDENCE) -> None:
        self.left = list(names)
        self.beaten: dict[str, tuple[str, int]] = {}  # by whom, after how many items
        self.items = 0
        self._wins = {pair: [0, 0] for pair in combinations(names, 2)}
        self._enough = math.log(max(1, len(self._wins)) / alpha)

    def see(self, scores: Mapping[str, float]) -> None:
        """Takes the scores of one item, of all candidates that are left."""
        self.items += 1
        for (one, other), counts in self._wins.items():
            if one in self.beaten or other in self.beaten:
                continue
            if scores[one] != scores[other]:
                counts[scores[one] < scores[other]] += 1
            if evidence(*counts) >= self._enough and counts[0] != counts[1]:
                winner, loser = (one, other) if counts[0] > counts[1] else (other, one)
                self.beaten[loser] = (winner, self.items)
                self.left.remove(loser)

    @property
    def winner(self) -> str | None:
        return self.left[0] if len(self.left) == 1 else None

    def p(self, one: str, other: str) -> float:
        """Return a p-value of this pair that holds whenever it is looked at."""
        counts = self._wins.get((one, other)) or self._wins[other, one]
        return min(1.0, math.exp(-evidence(*counts)))


# Two who judge the same


class Agreement(Record, frozen=True, kw_only=True):
    """How often two judges agree, and how much more often than by chance (Cohen 1960)."""

    share: Measured
    kappa: float


def agreement(one: Sequence[Hashable], other: Sequence[Hashable]) -> Agreement:
    n = len(one)
    same = sum(a == b for a, b in zip(one, other, strict=True))
    chance = (
        sum(one.count(each) * other.count(each) for each in set(one)) / (n * n) if n else math.nan
    )
    kappa = math.nan if not n or chance == 1 else (same / n - chance) / (1 - chance)
    return Agreement(share=wilson(same, n), kappa=kappa)
