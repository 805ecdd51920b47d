"""How long models take, learnt from the answers they wrote, and from that how much time is left, as
a range.

A section takes the time to its first words, and its length by its speed. Length and first words
grow with the size of what the model reads: a power of it, handle by least squares. How far past
sections were from that is the spread: each of them is a scenario of how this one may go. Those that
are over already (they were shorter than what is written) no longer count, and the speed so far
counts more the more is written. The time left is that of the last section to end, so the range runs
between quantiles of it over the scenarios.

The quantiles are moved as the ranges turn out (adaptive conformal inference, Gibbs and Candès
2021), so that all but MISSES of them hold also where models change. A range that says little is not
given.
"""

import asyncio
import logging
import math
import random
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from slipway.types import Record

if TYPE_CHECKING:
    from slipway.store import Store

log = logging.getLogger("slipway")
SAVE_S = 10.0
WINDOW = 200  # sections remembered of each model
ENOUGH = 20  # of them, before anything is said
SCENARIOS = 100
MISSES = 0.12  # the share of ranges that may miss
_STEP = 0.05  # how fast the quantiles move
_WIDEST = 0.7  # of a range, as a share of its middle
_LEAST = 0.03  # of each end, outwards: no machine is that even
_SOON_S = 1.0  # nothing is said where so little is left
_KNOWN_CHARS = 40.0  # after so many, the speed so far counts as much as what was learnt
_RIDGE = 3.0
_SCHEMA = """
CREATE TABLE IF NOT EXISTS pace (model TEXT, at REAL, size INTEGER, first_s REAL, chars INTEGER, write_s REAL);
CREATE TABLE IF NOT EXISTS pace_misses (model TEXT PRIMARY KEY, share REAL);
"""
# What is no duration or length, such as text, is left out: a file may be older than this, or broken
_KEPT = (
    "SELECT model, size, first_s, chars, write_s FROM pace WHERE size BETWEEN 0 AND 1e9 AND first_s BETWEEN 0 AND 1e9"
    " AND chars BETWEEN 1 AND 1e9 AND write_s BETWEEN 1e-3 AND 1e9 ORDER BY at"
)
_MISSES_KEPT = "SELECT model, share FROM pace_misses WHERE share BETWEEN 0.01 AND 0.4"
_PRUNE = "DELETE FROM pace WHERE model = ? AND rowid NOT IN (SELECT rowid FROM pace WHERE model = ? ORDER BY at DESC LIMIT ?)"


class Took(Record, frozen=True, kw_only=True):
    """One section that a model wrote: it read `size` characters, began after `first_s` seconds, and
    wrote `chars` in `write_s` more.
    """

    size: int
    first_s: float
    chars: int
    write_s: float


class Writing:
    """A section that is being written, or waits for that: times are readings of `time.monotonic()`."""

    def __init__(self, model: str, size: int) -> None:
        self.model, self.size = model, size
        self.began_at: float | None = None
        self.first_at: float | None = None
        self.ended_at: float | None = None
        self.chars = 0

    def wrote(self, chars: int) -> None:
        if self.first_at is None:
            self.first_at = time.monotonic()
        self.chars += chars

    @property
    def took(self) -> Took | None:
        if (
            self.began_at is None
            or self.first_at is None
            or self.ended_at is None
            or not self.chars
        ):
            return None
        return Took(
            size=self.size,
            first_s=self.first_at - self.began_at,
            chars=self.chars,
            write_s=max(self.ended_at - self.first_at, 1e-3),
        )


class _Scenario(Record, frozen=True, kw_only=True):
    """How far a past section was from what its size would say: logarithms of ratios."""

    first: float
    chars: float
    speed: float


class Habits:
    """What is known of one model."""

    def __init__(self) -> None:
        self.took: deque[Took] = deque(maxlen=WINDOW)
        self.misses = MISSES  # the share that the quantiles leave out now
        self._scenarios: list[_Scenario] = []
        self._lines = ((0.0, 0.0), (0.0, 0.0), (0.0, 0.0))

    def learn(self, took: Took) -> None:
        self.took.append(took)
        self._scenarios = []

    def scenarios(self) -> list[_Scenario]:
        if not self._scenarios and len(self.took) >= ENOUGH:
            self._fit()
        return self._scenarios

    def _fit(self) -> None:
        sizes = [math.log(took.size + 1) for took in self.took]
        firsts = [math.log(took.first_s + 1e-3) for took in self.took]
        lengths = [math.log(took.chars) for took in self.took]
        speeds = [math.log(took.chars / took.write_s) for took in self.took]
        self._lines = (
            _line(sizes, firsts),
            _line(sizes, lengths),
            (sum(speeds) / len(speeds), 0.0),
        )
        said = [
            [y - a - b * x for x, y in zip(sizes, ys, strict=True)]
            for ys, (a, b) in zip((firsts, lengths, speeds), self._lines, strict=True)
        ]
        self._scenarios = [
            _Scenario(first=first, chars=chars, speed=speed)
            for first, chars, speed in zip(*said, strict=True)
        ]

    def ends(self, writing: Writing, now: float) -> list[float]:
        """Seconds from now to the end of this section, one for each scenario that is still
        possible; for one that waits, to its end once begun.
        """
        scenarios, x = (
            self.scenarios(),
            math.log(writing.size + 1),
        )  # the lines are handle with them
        first_s, chars, speed = (math.exp(a + b * x) for a, b in self._lines)
        if writing.first_at is None:
            waited = now - writing.began_at if writing.began_at is not None else 0.0
            return [
                first_s * math.exp(s.first) - waited + chars * math.exp(s.chars - s.speed) / speed
                for s in scenarios
                if first_s * math.exp(s.first) > waited
            ]
        written_s = max(now - writing.first_at, 1e-3)
        trust = writing.chars / (writing.chars + _KNOWN_CHARS)
        so_far = trust * math.log(max(writing.chars, 1) / written_s) + (1 - trust) * math.log(speed)
        lengths = ((chars * math.exp(s.chars), so_far + (1 - trust) * s.speed) for s in scenarios)
        return [
            (length - writing.chars) / math.exp(pace)
            for length, pace in lengths
            if length > writing.chars
        ]


def _line(xs: Sequence[float], ys: Sequence[float]) -> tuple[float, float]:
    """Least squares, with a slope that is small where there is little to tell it by."""
    n = len(xs)
    mean_x, mean_y = sum(xs) / n, sum(ys) / n
    slope = sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True)) / (
        sum((x - mean_x) ** 2 for x in xs) + _RIDGE * 0.1
    )
    return mean_y - slope * mean_x, slope


class Pace:
    """All models' habits; kept in a store where there is one, from `keep` on."""

    def __init__(self, store: "Callable[[], Store] | None" = None) -> None:
        self.habits: dict[str, Habits] = {}
        self._store = store
        self._fresh: deque[tuple[str, float, Took]] = deque(maxlen=10 * WINDOW)  # not stored yet
        self._keeping: asyncio.Task[None] | None = None

    def of(self, model: str) -> Habits:
        return self.habits.setdefault(model, Habits())

    def learn(self, writing: Writing) -> None:
        """What was cut short is not learnt from: call it for sections that came to their end."""
        if (took := writing.took) is not None:
            self.of(writing.model).learn(took)
            self._fresh.append((writing.model, time.time(), took))

    def left(
        self, writings: Sequence[Writing], at_once: int, now: float
    ) -> tuple[float, float] | None:
        """Seconds until the last of these is written, as a range in tenths; None where that is not
        known well enough.
        """
        open_ = [writing for writing in writings if writing.ended_at is None]
        ends = [self.of(writing.model).ends(writing, now) for writing in open_]
        if (
            not ends
            or min(map(len, ends)) < ENOUGH // 2
            or any(len(self.of(writing.model).took) < ENOUGH for writing in open_)
        ):
            return None
        totals = _totals(ends, at_once)
        misses = max(self.of(writing.model).misses for writing in open_)
        low, high = _quantile(totals, misses / 2), _quantile(totals, 1 - misses / 2)
        if high + low < 2 * _SOON_S or high - low > _WIDEST * (high + low) / 2:
            return None
        return math.floor(max(low * (1 - _LEAST), 0.0) * 10) / 10, math.ceil(
            high * (1 + _LEAST) * 10
        ) / 10

    def judge(
        self, model: str, shown: Sequence[tuple[float, tuple[float, float]]], ended_at: float
    ) -> None:
        """`shown` are the ranges that were given, each with its time: where more miss than should,
        ranges widen.
        """
        if not shown:
            return
        missed = sum(not low <= ended_at - at <= high for at, (low, high) in shown) / len(shown)
        habits = self.of(model)
        habits.misses = min(max(habits.misses + _STEP * (MISSES - missed), 0.01), 0.4)

    # kept across restarts

    def keep(self) -> None:
        """Loads what was learnt before, and from then on stores what is new, every SAVE_S, off the
        event loop. Called again, does nothing.
        """
        if self._store is not None and self._keeping is None:
            self._keeping = asyncio.get_running_loop().create_task(self._keep(self._store))

    async def close(self) -> None:
        """Stores what is new, for the last time."""
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.to_thread(self.save)

    async def _keep(self, store: "Callable[[], Store]") -> None:
        took, misses = await asyncio.to_thread(_stored, store)
        for model, each in took:
            self.of(model).learn(each)
        for model, share in misses:
            self.of(model).misses = share
        while True:
            await asyncio.sleep(SAVE_S)
            await asyncio.to_thread(self.save)

    def save(self) -> None:
        """Writes what is new; blocks. What cannot be written now is tried again the next time."""
        fresh = list(self._fresh)
        if self._store is None or not fresh:
            return
        with _telling("stored"), self._store().writing() as db:
            db.executemany(
                "INSERT INTO pace VALUES (?, ?, ?, ?, ?, ?)",
                [(m, at, t.size, t.first_s, t.chars, t.write_s) for m, at, t in fresh],
            )
            for model in {model for model, _, _ in fresh}:
                db.execute(
                    "INSERT OR REPLACE INTO pace_misses VALUES (?, ?)",
                    (model, self.of(model).misses),
                )
                db.execute(_PRUNE, (model, model, WINDOW))
            for _ in fresh:
                self._fresh.popleft()


def _stored(store: "Callable[[], Store]") -> tuple[list[tuple[str, Took]], list[tuple[str, float]]]:
    """What was learnt of each model, oldest first, and its share of misses; blocks."""
    took, misses = list[tuple[str, Took]](), list[tuple[str, float]]()
    with _telling("read"), store().writing() as db:
        for statement in filter(str.strip, _SCHEMA.split(";")):
            db.execute(statement)
        for model, size, first_s, chars, write_s in db.execute(_KEPT):
            took.append((model, Took(size=size, first_s=first_s, chars=chars, write_s=write_s)))
        misses += db.execute(_MISSES_KEPT)
    return took, misses


@contextmanager
def _telling(what: str) -> Iterator[None]:
    """How long answers take is worth a line in the log, not an answer."""
    import sqlite3  # 1 MB, and only needed where there is a store

    try:
        yield
    except sqlite3.Error as error:
        log.warning("how long models take could not be %s (%s)", what, error)


def _totals(ends: Sequence[Sequence[float]], at_once: int) -> list[float]:
    """When all of them are written: one scenario of each, drawn apart, in as many lanes as are
    written at once.
    """
    if len(ends) == 1:
        return list(ends[0])
    draw = random.Random(len(ends))  # noqa: S311 - repeatable on purpose
    totals = []
    for _ in range(SCENARIOS):
        lanes = [0.0] * min(at_once, len(ends))
        for each in ends:
            shortest = lanes.index(min(lanes))
            lanes[shortest] += each[int(draw.random() * len(each))]
        totals.append(max(lanes))
    return totals


def _quantile(values: Sequence[float], share: float) -> float:
    """With as few values as these, one more would fall outside of them as often as it should: the
    rank counts in n + 1.
    """
    ordered, last = sorted(values), len(values) - 1
    place = min(max(share * (len(ordered) + 1) - 1, 0.0), last)
    low, high = ordered[math.floor(place)], ordered[math.ceil(place)]
    return low + (high - low) * (place - math.floor(place))
