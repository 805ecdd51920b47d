"""Rows of numbers that metrics are counted in; several processes may each have their own."""

from bisect import bisect_left
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import msgspec

from slipway.telemetry.definitions import Labels


class Numbers(Protocol):
    """The numbers of one row: a counter has one, a histogram one for each bucket and their sum."""

    def __getitem__(self, at: int) -> float: ...

    def __setitem__(self, at: int, value: float) -> None: ...

    def __iter__(self) -> Iterator[float]: ...


# (key in METRICS, labels, how many numbers) -> a row of zeros, or what was counted before
NewRow = Callable[[str, Labels, int], Numbers]
NumberedRow = tuple[str, Labels, Numbers]


def own_row(metric: str, labels: Labels, size: int) -> Numbers:
    """Return a row that ends with this process."""
    return [0.0] * size


class Histogram:
    """Observations in buckets, one row for each combination of labels."""

    def __init__(self, key: str, bounds: tuple[float, ...], new_row: NewRow) -> None:
        self.key, self.bounds, self.new_row = key, bounds, new_row
        self.rows: dict[Labels, Numbers] = {}  # count per bucket and past the last, then the sum

    def row(self, labels: Labels) -> Numbers:
        """Return the row of these labels; observing is adding to it."""
        row = self.rows.get(labels)
        if row is None:
            row = self.rows[labels] = self.new_row(self.key, labels, len(self.bounds) + 2)
        return row

    def observe(self, labels: Labels, value: float) -> None:
        row = self.row(labels)
        row[bisect_left(self.bounds, value)] += 1
        row[-1] += value


class TokenRows(msgspec.Struct):
    """The rows of a model's input and output tokens; None until the first value."""

    labels: Labels
    input: Any = None
    output: Any = None


class AnswerRows(msgspec.Struct, frozen=True):
    """The rows that one kind of answer is counted in: to find them again takes as long as to count
    in them.
    """

    labels: Labels
    answers: Any
    duration: Any
    tokens: TokenRows
