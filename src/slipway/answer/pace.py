"""How long models take, learned from their past answers; from that, a range for the time left.

A section takes the time to its first words, then its length divided by its speed. Length and first
words grow with the size of what the model reads: a power of it, fitted by least squares. How far
past sections were from the fit is the spread: each of them is one scenario of how this section may
go. Scenarios that are already over (shorter than what is written) are dropped, and the more is
written, the more the speed so far counts. The time left is that of the last section to end; the
range runs between quantiles of it over the scenarios.

The quantiles move with how the ranges turn out (adaptive conformal inference, Gibbs and Candès
2021), so that all but MISSES of them hold even if models change. No range is given if it would be
too wide to help. Before ENOUGH sections of a model were seen, a prior of its kind counts with what
was seen, and its ranges are wide.
"""

import asyncio
import logging
import math
import random
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from slipway.store import RecordStore, SectionTiming, StoreError
from slipway.types import Record

log = logging.getLogger("slipway")
SAVE_S = 10.0
NOT_KEPT = "how long models take could not be %s (%s)"
WINDOW = 200  # sections remembered per model
ENOUGH = 20  # sections after which the prior no longer counts
SCENARIOS = 100
MISSES = 0.12  # the share of ranges that may miss
_STEP = 0.05  # how fast the quantiles move
_WIDEST = 0.7  # widest range to show, as a share of its middle
_WIDEST_PRIOR = 1.9  # the same while the prior counts
_LEAST = 0.03  # least widening of each end: no machine runs more evenly
_SOON_S = 1.0  # no range for less than this
_KNOWN_CHARS = 40.0  # after so many, the speed so far weighs as much as past sections
_RIDGE = 3.0


class PacePrior(Record, frozen=True, kw_only=True):
    """What is assumed of a kind of model: medians, and `spread`, the standard deviation of their
    logarithms. Time to the first words is `first_s` and `reading_s` for each 1,000 characters.
    """

    first_s: float
    reading_s: float
    chars: float
    chars_per_s: float
    spread: float


# `local`: measured on two cores (docs/decisions/009-the-local-model.md): 27 ms for a token that is
# written, 120 prompt tokens a second. `remote`: an assumption that is wide on purpose, since
# providers differ by an order of magnitude; a few answers correct it.
PRIORS = {
    "local": PacePrior(first_s=0.2, reading_s=2.1, chars=450.0, chars_per_s=150.0, spread=0.5),
    "remote": PacePrior(first_s=0.6, reading_s=0.03, chars=700.0, chars_per_s=260.0, spread=0.55),
}


class Writing:
    """A section that is written now, or waits to be; times are readings of `time.monotonic()`."""

    def __init__(self, model: str, size: int, *, local: bool = False) -> None:
        self.model, self.size, self.kind = model, size, "local" if local else "remote"
        self.began_at: float | None = None
        self.first_at: float | None = None
        self.ended_at: float | None = None
        self.chars = 0

    def add_chars(self, chars: int) -> None:
        if self.first_at is None:
            self.first_at = time.monotonic()
        self.chars += chars

    @property
    def timing(self) -> SectionTiming | None:
        """Return how long it took; None if it did not begin, or wrote nothing."""
        if (
            self.began_at is None
            or self.first_at is None
            or self.ended_at is None
            or not self.chars
        ):
            return None
        return SectionTiming(
            size=self.size,
            first_s=self.first_at - self.began_at,
            chars=self.chars,
            write_s=max(self.ended_at - self.first_at, 1e-3),
        )


class _Scenario(Record, frozen=True, kw_only=True):
    """How far a past section was from what its size predicts: logarithms of ratios."""

    first: float
    chars: float
    speed: float


class ModelPace:
    """What was learned of one model."""

    def __init__(self, kind: str = "remote") -> None:
        self.prior = PRIORS[kind]
        self.timings: deque[SectionTiming] = deque(maxlen=WINDOW)
        self.misses = MISSES  # the share that the quantiles leave out now
        self._scenarios: list[_Scenario] = []
        self._lines = ((0.0, 0.0), (0.0, 0.0), (0.0, 0.0))

    def learn(self, timing: SectionTiming) -> None:
        self.timings.append(timing)
        self._scenarios = []

    @property
    def is_known(self) -> bool:
        """Whether enough sections were seen, so that the prior no longer counts."""
        return len(self.timings) >= ENOUGH

    def scenarios(self) -> list[_Scenario]:
        if not self._scenarios:
            self._fit()
        return self._scenarios

    def _fit(self) -> None:
        timings = [*self.timings] if self.is_known else [*prior_timings(self.prior), *self.timings]
        sizes = [math.log(timing.size + 1) for timing in timings]
        firsts = [math.log(timing.first_s + 1e-3) for timing in timings]
        lengths = [math.log(timing.chars) for timing in timings]
        speeds = [math.log(timing.chars / timing.write_s) for timing in timings]
        self._lines = (
            _line(sizes, firsts),
            _line(sizes, lengths),
            (sum(speeds) / len(speeds), 0.0),
        )
        residuals = [
            [y - a - b * x for x, y in zip(sizes, ys, strict=True)]
            for ys, (a, b) in zip((firsts, lengths, speeds), self._lines, strict=True)
        ]
        self._scenarios = [
            _Scenario(first=first, chars=chars, speed=speed)
            for first, chars, speed in zip(*residuals, strict=True)
        ]

    def ends(self, writing: Writing, now: float) -> list[float]:
        """Return the seconds from now to the end of this section in each scenario still possible.

        For a section that waits, they count from its beginning.
        """
        scenarios = self.scenarios()  # also fits the lines
        x = math.log(writing.size + 1)
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


def prior_timings(prior: PacePrior) -> list[SectionTiming]:
    """Return ENOUGH sections as the prior expects them, the same ones each time."""
    draw = random.Random(1)  # noqa: S311 - repeatable on purpose
    found = []
    for n in range(ENOUGH):
        first, chars, speed = (math.exp(draw.gauss(0.0, prior.spread)) for _ in range(3))
        size = 1000 * (1 + n % 8)
        length = max(1, round(prior.chars * chars))
        found.append(
            SectionTiming(
                size=size,
                first_s=(prior.first_s + prior.reading_s * size / 1000) * first,
                chars=length,
                write_s=length / (prior.chars_per_s * speed),
            )
        )
    return found


def _line(xs: Sequence[float], ys: Sequence[float]) -> tuple[float, float]:
    """Fit a line by least squares; the ridge keeps the slope small if the data say little."""
    n = len(xs)
    mean_x, mean_y = sum(xs) / n, sum(ys) / n
    slope = sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True)) / (
        sum((x - mean_x) ** 2 for x in xs) + _RIDGE * 0.1
    )
    return mean_y - slope * mean_x, slope


class Pace:
    """What was learned of all models; saved in the store from `keep` on, if there is one."""

    def __init__(self, store: Callable[[], RecordStore] | None = None) -> None:
        self.models: dict[str, ModelPace] = {}
        self._store = store
        self._fresh: deque[tuple[str, float, SectionTiming]] = deque(
            maxlen=10 * WINDOW
        )  # not saved yet
        self._keeping: asyncio.Task[None] | None = None

    def of(self, model: str, kind: str = "remote") -> ModelPace:
        return self.models.setdefault(model, ModelPace(kind))

    def learn(self, writing: Writing) -> None:
        """Learn from a section that was written to its end; do not call it for others."""
        if (timing := writing.timing) is not None:
            self.of(writing.model, writing.kind).learn(timing)
            self._fresh.append((writing.model, time.time(), timing))

    def left(
        self, writings: Sequence[Writing], at_once: int, now: float
    ) -> tuple[float, float] | None:
        """Return a range of seconds until the last of these is written, rounded outwards to tenths.

        None if too little is known.
        """
        open_ = [writing for writing in writings if writing.ended_at is None]
        models = [self.of(writing.model, writing.kind) for writing in open_]
        ends = [model.ends(writing, now) for model, writing in zip(models, open_, strict=True)]
        if not ends or min(map(len, ends)) < ENOUGH // 2:
            return None
        totals = _totals(ends, at_once)
        misses = max(model.misses for model in models)
        widest = _WIDEST if all(model.is_known for model in models) else _WIDEST_PRIOR
        low, high = _quantile(totals, misses / 2), _quantile(totals, 1 - misses / 2)
        if high + low < 2 * _SOON_S or high - low > widest * (high + low) / 2:
            return None
        return math.floor(max(low * (1 - _LEAST), 0.0) * 10) / 10, math.ceil(
            high * (1 + _LEAST) * 10
        ) / 10

    def judge(
        self, model: str, shown: Sequence[tuple[float, tuple[float, float]]], ended_at: float
    ) -> None:
        """Compare the ranges that were shown, each with its time, with the true end.

        Ranges widen if more of them missed than MISSES.
        """
        if not shown or not self.of(model).is_known:
            return
        missed = sum(not low <= ended_at - at <= high for at, (low, high) in shown) / len(shown)
        pace = self.of(model)
        pace.misses = min(max(pace.misses + _STEP * (MISSES - missed), 0.01), 0.4)

    # kept across restarts

    def keep(self) -> None:
        """Load what was learned before, then save what is new every SAVE_S, off the event loop.

        Further calls change nothing.
        """
        if self._store is not None and self._keeping is None:
            self._keeping = asyncio.get_running_loop().create_task(self._keep(self._store))

    async def close(self) -> None:
        """Save what is new, for the last time."""
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.to_thread(self.save)

    async def _keep(self, store: Callable[[], RecordStore]) -> None:
        timings, misses = await asyncio.to_thread(_load, store)
        for model, timing in timings:
            self.of(model).learn(timing)
        for model, share in misses:
            self.of(model).misses = share
        while True:
            await asyncio.sleep(SAVE_S)
            await asyncio.to_thread(self.save)

    def save(self) -> None:
        """Save what is new; blocks. What cannot be saved now is tried again the next time."""
        fresh = list(self._fresh)
        if self._store is None or not fresh:
            return
        models = {model for model, _, _ in fresh}
        with _logging_failure("saved"):
            self._store().records.save_timings(
                fresh, [(model, self.of(model).misses) for model in models], keep=WINDOW
            )
            for _ in fresh:
                self._fresh.popleft()


def _load(
    store: Callable[[], RecordStore],
) -> tuple[list[tuple[str, SectionTiming]], list[tuple[str, float]]]:
    try:
        return store().records.load_timings()
    except StoreError as error:
        log.warning(NOT_KEPT, "loaded", error)
        return [], []


@contextmanager
def _logging_failure(what: str) -> Iterator[None]:
    """Log a failure of the store: an estimate of the time left is not worth failing an answer."""
    try:
        yield
    except StoreError as error:
        log.warning(NOT_KEPT, what, error)


def _totals(ends: Sequence[Sequence[float]], at_once: int) -> list[float]:
    """Return when all of them are written, per scenario.

    One scenario of each is drawn independently, in as many lanes as are written at once.
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
    """Return a quantile whose rank counts in n + 1, so that the next value falls outside as often
    as it should, even with few values.
    """
    ordered, last = sorted(values), len(values) - 1
    place = min(max(share * (len(ordered) + 1) - 1, 0.0), last)
    low, high = ordered[math.floor(place)], ordered[math.ceil(place)]
    return low + (high - low) * (place - math.floor(place))
