"""Keep the numbers of one row over time: a line of points for each step.

Points of 10 s are kept for 70 minutes, of a minute for 25 hours, of ten minutes for 8 days.
"""

from array import array
from bisect import bisect_right
from operator import add

import msgspec

DROPPED_TOGETHER = 64  # points of a line
NAN = float("nan")  # a gauge that has no value


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """How far apart points are, and how long they are kept. Points that `is_saved` are written into
    the store, too.
    """

    every_s: float
    keep_s: float
    is_saved: bool = True


STEPS = (
    Step(every_s=10, keep_s=70 * 60, is_saved=False),
    Step(every_s=60, keep_s=25 * 3600),
    Step(every_s=600, keep_s=8 * 86400),
)


class Points:
    """The points of one row at one step: what its numbers were from a time on.

    `kept` holds the numbers before the first point, the times, and the numbers of all points. Other
    threads may read while points are put and dropped: what they have read stays as it is.
    """

    __slots__ = ("kept", "size")

    def __init__(self, before: "array[float]") -> None:
        self.size = len(before)
        self.kept = (before, array("d"), array("d"))

    @property
    def times(self) -> "array[float]":
        return self.kept[1]

    def at(self, when: float) -> "array[float]":
        """Return the numbers at this time."""
        before, times, numbers = self.kept
        point, size = bisect_right(times, when), self.size
        return numbers[(point - 1) * size : point * size] if point else before

    def put(self, when: float, numbers: "array[float]") -> None:
        _, times, kept = self.kept
        kept.extend(numbers)  # before its time: who finds the time finds the numbers
        times.append(when)

    def begin_with(self, before: "array[float]") -> None:
        """Set the numbers before the first point."""
        self.kept = (before, *self.kept[1:])

    def drop(self, before: float) -> None:
        """Drop old points, but keep the latest of those: it holds until the next one."""
        _, times, numbers = self.kept
        count, size = bisect_right(times, before) - 1, self.size
        if count >= DROPPED_TOGETHER:
            first = numbers[(count - 1) * size : count * size]
            self.kept = (first, times[count:], numbers[count * size :])

    def put_before(self, earlier: "Points", total: "array[float]") -> None:
        """Put an earlier line in front of this one, which counts on from `total`."""
        _, times, numbers = self.kept
        moved = array("d", map(add, numbers, list(total) * len(times)))
        before, earlier_times, earlier_numbers = earlier.kept
        self.kept = (before, earlier_times + times, earlier_numbers + moved)


class Track:
    """All that is kept of one row: its numbers at the last sample, and a line for each step."""

    __slots__ = ("latest", "lines", "total")

    def __init__(self, size: int, before: float) -> None:
        self.latest: list[float] | None = None  # as the metric had them
        self.total = array("d", [before]) * size
        self.lines = tuple(Points(self.total[:]) for _ in STEPS)

    def close(self, step: int, now: float) -> "array[float]":
        """Put a point, and return the numbers of the point before."""
        line = self.lines[step]
        earlier = line.at(now)
        line.put(now, self.total)
        line.drop(now - STEPS[step].keep_s)
        return earlier

    def at(self, when: float, sampled_at: float) -> "array[float]":
        """Return the numbers at this time, from the finest line that reaches back so far."""
        if when >= sampled_at:
            return self.total
        for step, line in zip(STEPS, self.lines, strict=True):
            if sampled_at - when <= step.keep_s:
                return line.at(when)
        return self.lines[-1].at(when)
