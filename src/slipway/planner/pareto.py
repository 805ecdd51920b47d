"""Find the Pareto front: models that no other one beats in quality, cost or speed without being
worse in another.
"""

from collections.abc import Sequence

from slipway.types import Record


class Point(Record, frozen=True, kw_only=True):
    """More quality is better, less cost and less latency are. What is not known is None, and then
    neither better nor worse than what is.
    """

    name: str
    quality: float | None
    cost: float | None
    latency: float | None


def dominates(one: Point, other: Point) -> bool:
    """Return whether one is at least as good in everything, and better in something."""
    pairs = [
        (_negative(one.quality), _negative(other.quality)),
        (one.cost, other.cost),
        (one.latency, other.latency),
    ]
    if any((a is None) != (b is None) for a, b in pairs):
        return False
    known = [(a, b) for a, b in pairs if a is not None and b is not None]
    return all(a <= b for a, b in known) and any(a < b for a, b in known)


def _negative(value: float | None) -> float | None:
    return None if value is None else -value


def front(points: Sequence[Point]) -> list[str]:
    """Return the names of those that nobody dominates, in their order."""
    kept: list[Point] = []
    for point in sorted(points, key=_sum):
        if not any(dominates(each, point) for each in kept):
            kept.append(point)
    names = {each.name for each in kept}
    return [point.name for point in points if point.name in names]


def _sum(point: Point) -> tuple[float, float, float]:
    """Return an order in which nobody is dominated by somebody behind."""
    worst = float("inf")
    return (
        worst if point.quality is None else -point.quality,
        worst if point.cost is None else point.cost,
        worst if point.latency is None else point.latency,
    )
