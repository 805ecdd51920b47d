"""Read the buckets of a histogram: quantiles, and how many observations were at most a bound."""

from collections.abc import Sequence


def below(bounds: tuple[float, ...], counts: Sequence[float], bound: float) -> float:
    """Return how many of the observations in buckets were at most `bound`."""
    found, lower = 0.0, 0.0
    for upper, count in zip(bounds, counts, strict=False):
        if bound < upper:
            return found + count * max(0.0, (bound - lower) / (upper - lower))
        found, lower = found + count, upper
    return found


def quantile_of(bounds: tuple[float, ...], counts: Sequence[float], q: float) -> float | None:
    """Return the quantile of observations in buckets, the last of which has no upper edge; None if
    there are none. An observation past the last edge counts as that edge.
    """
    total = sum(counts)
    if total <= 0:
        return None
    rank, seen, lower = q * total, 0.0, 0.0
    for upper, count in zip(bounds, counts, strict=False):
        if seen + count >= rank and count > 0:
            return lower + (upper - lower) * (rank - seen) / count
        seen, lower = seen + count, upper
    return bounds[-1]
