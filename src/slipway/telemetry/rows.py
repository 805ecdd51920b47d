"""Rows of numbers that metrics are counted in; several processes may each have their own."""

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


class TokenRows(msgspec.Struct):
    """The rows of a model's tokens, by type; None until the first value."""

    labels: Labels
    input: Any = None
    output: Any = None
    cached: Any = None
    reasoning: Any = None


class AnswerRows(msgspec.Struct):
    """The rows that one kind of answer is counted in: to find them again takes as long as to count
    in them. Each answer adds 1 to all of `ones`; the rows of times are None until the first
    streamed answer.
    """

    labels: Labels
    ones: tuple[Any, ...]
    duration: Any
    tokens: TokenRows
    ttft: Any = None
    tpot: Any = None


class AttemptRows(msgspec.Struct, frozen=True):
    """The rows that one kind of call is counted in; each call adds 1 to all of `ones`."""

    duration: Any
    ones: tuple[Any, ...]
