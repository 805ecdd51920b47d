"""Keep what the metrics counted over time, in memory, for alerts and plots.

Each row of a counter or a histogram becomes a line of points: the total at the time of a sample, and
only if it changed. Totals never fall: a counter that falls has begun again and counts from zero, as
in Prometheus. Every question is answered from the finest points that reach back so far.
"""

import logging
import time
from array import array
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from operator import add

import msgspec

from slipway.store.contract import HistoryRow
from slipway.telemetry.buckets import below, quantile_of
from slipway.telemetry.definitions import METRICS, Labels, MetricDefinition
from slipway.telemetry.rows import NumberedRow
from slipway.telemetry.saved_history import SavedCounts, SavedHistory, replayed, written_counts
from slipway.telemetry.tracks import NAN, STEPS, Track

log = logging.getLogger("slipway")
NUMBERS_AT_MOST = 50_000  # of all rows together; a histogram has one for each bucket
UNSAVED_AT_MOST = 2_000  # closed rows that wait for a store that is down
NOWHERE: Mapping[str, str | Collection[str]] = {}

GaugeValue = tuple[str, Labels, float]  # (key in METRICS, labels, value)
Where = Mapping[str, str | Collection[str]]


class Series(msgspec.Struct, frozen=True, kw_only=True):
    """Values to plot: at each of the `times` (seconds since the epoch), one value for each labels.

    A counter's value is its increase in the `step_s` seconds before that time, a gauge's its value
    then; None if nothing is known.
    """

    times: list[float]
    step_s: float
    values: dict[Labels, list[float | None]]


class History:
    """What the metrics counted over the last days.

    `rows` yields what all workers counted (`Telemetry.all_rows`); rows with the same labels are
    added. `gauges` yields the values of the gauges now. With `baseline`, the first sample only
    says where counting begins: its counts are in what is loaded already.
    """

    def __init__(
        self,
        rows: Callable[[], Iterable[NumberedRow]],
        gauges: Callable[[], Iterable[GaugeValue]] = tuple,
        *,
        clock: Callable[[], float] = time.time,
        metrics: Mapping[str, MetricDefinition] = METRICS,
        baseline: bool = False,
    ) -> None:
        self.rows, self.gauges, self.clock, self.metrics = rows, gauges, clock, metrics
        self.sampled_at = 0.0
        self.began_at = 0.0  # of what is known; later if nothing was loaded
        self._tracks: dict[str, dict[Labels, Track]] = {name: {} for name in metrics}
        self._changed: list[dict[tuple[str, Labels], Track]] = [{} for _ in STEPS]
        self._closed_at = [0.0 for _ in STEPS]
        self._unsaved: deque[HistoryRow] = deque(maxlen=UNSAVED_AT_MOST)
        self._numbers, self._is_baseline = 0, baseline

    # what is kept

    def sample(self, now: float) -> None:
        """Take what the metrics have counted, as of `now`. A clock that was set back is waited for."""
        now = max(now, self.sampled_at)
        self.began_at = self.began_at or now
        self._take_rows()
        self._take_gauges()
        self._is_baseline = False
        self.sampled_at = now
        for number, step in enumerate(STEPS):
            if number == 0 or now // step.every_s > self._closed_at[number] // step.every_s:
                self._close(number, now)

    def close(self, now: float) -> None:
        """Sample once more and close all steps, so that `take_unsaved` has everything."""
        self.sample(now)
        for number in range(1, len(STEPS)):
            self._close(number, self.sampled_at)

    def take_unsaved(self) -> list[HistoryRow]:
        """Return the rows that are not in the store yet; put them back if they cannot be saved."""
        rows = list(self._unsaved)
        self._unsaved.clear()
        return rows

    def put_back(self, rows: Iterable[HistoryRow]) -> None:
        self._unsaved.extendleft(reversed(list(rows)))

    def load(self, rows: Sequence[HistoryRow]) -> None:
        """Put what was saved before the start in front of what was sampled since."""
        self.join(self.replayed(rows))

    def replayed(self, rows: Sequence[HistoryRow]) -> SavedHistory:
        """Return what was saved, ready for `join`. Takes long, and may run in a thread."""
        return replayed(rows, self.metrics, self.clock())

    def join(self, saved: SavedHistory) -> None:
        """Put it in front of what was sampled."""
        self.began_at = saved.began_at or self.began_at
        for name, tracks in saved.tracks.items():
            for labels, track in tracks.items():
                self._put_before(name, labels, track)

    def _put_before(self, name: str, labels: Labels, earlier: Track) -> None:
        track = self._tracks[name].get(labels)
        if track is None:
            self._tracks[name][labels] = earlier
            self._numbers += len(earlier.total)
            return
        is_gauge = self._is_gauge(name)
        nothing = array("d", [0.0]) * len(track.total)
        for line, before in zip(track.lines, earlier.lines, strict=True):
            line.put_before(before, nothing if is_gauge else earlier.total)
        if not is_gauge:
            track.total = array("d", map(add, track.total, earlier.total))

    def _is_gauge(self, name: str) -> bool:
        return self.metrics[name].kind == "gauge"

    def _take_rows(self) -> None:
        sums: dict[tuple[str, Labels], list[float]] = {}
        for name, labels, row in self.rows():
            key = (name, labels)
            known = sums.get(key)
            sums[key] = list(row) if known is None else list(map(add, known, row))
        for (name, labels), numbers in sums.items():
            if name not in self.metrics or self._is_gauge(name):
                continue
            track = self._track(name, labels, len(numbers), 0.0)
            if track is None or track.latest == numbers:
                continue
            if self._count(track, numbers):
                self._note_change(name, labels, track)

    def _count(self, track: Track, numbers: list[float]) -> bool:
        """Add what was counted since the last sample; return whether that is anything."""
        latest, track.latest = track.latest, numbers
        if self._is_baseline or (latest is None and not any(numbers)):
            return False
        if latest is None or any(new < old for new, old in zip(numbers, latest, strict=True)):
            latest = [0.0] * len(numbers)  # it began again
        track.total = array(
            "d", [t + new - old for t, new, old in zip(track.total, numbers, latest, strict=True)]
        )
        return True

    def _take_gauges(self) -> None:
        seen = set()
        for name, labels, value in self.gauges():
            track = self._track(name, labels, 1, NAN)
            seen.add((name, labels))
            if track is not None and track.total[0] != value:
                track.total = array("d", [value])
                self._note_change(name, labels, track)
        for name, tracks in self._tracks.items():
            if not self._is_gauge(name):
                continue
            for labels, track in tracks.items():
                gone = (name, labels) not in seen and track.total[0] == track.total[0]
                if gone:  # such as a model that was removed: NaN says that there is no value
                    track.total = array("d", [NAN])
                    self._note_change(name, labels, track)

    def _track(self, name: str, labels: Labels, size: int, before: float) -> Track | None:
        """Return the track of a row; None if there are too many."""
        track = self._tracks[name].get(labels)
        if track is None:
            if self._numbers <= NUMBERS_AT_MOST < self._numbers + size:
                log.warning("there are too many metrics: new ones are missing in alerts and plots")
            if self._numbers + size > NUMBERS_AT_MOST:
                self._numbers = max(self._numbers, NUMBERS_AT_MOST + 1)
                return None
            self._numbers += size
            track = self._tracks[name][labels] = Track(size, before)
        return track

    def _note_change(self, name: str, labels: Labels, track: Track) -> None:
        for changed in self._changed:
            changed[name, labels] = track

    def _close(self, number: int, now: float) -> None:
        """Put a point into the line of every row that changed since the last one."""
        changed, self._changed[number] = self._changed[number], {}
        self._closed_at[number] = now
        counts: SavedCounts = []
        for (name, labels), track in changed.items():
            earlier = track.close(number, now)
            if STEPS[number].is_saved:
                is_gauge = self._is_gauge(name)
                numbers = track.total if is_gauge else map(float.__sub__, track.total, earlier)
                counts.append((name, labels, list(numbers)))
        if counts:
            step_s = int(STEPS[number].every_s)
            row = HistoryRow(step_s=step_s, at=now, counts=written_counts(counts))
            self._unsaved.append(row)

    # what can be asked

    def increase(
        self,
        metric: str,
        window_s: float,
        *,
        by: tuple[str, ...] = (),
        where: Where = NOWHERE,
        now: float | None = None,
    ) -> dict[Labels, float]:
        """Return how much a counter grew in the last `window_s` seconds, or how many observations
        a histogram got, for each combination of the labels in `by`. Nothing is left out or
        extrapolated: these are the counts.
        """
        sums = self._sums(metric, window_s, by, where, now)
        if self.metrics[metric].buckets:
            return {labels: sum(numbers[:-1]) for labels, numbers in sums.items()}
        return {labels: numbers[0] for labels, numbers in sums.items()}

    def below(
        self,
        metric: str,
        bound: float,
        window_s: float,
        *,
        by: tuple[str, ...] = (),
        where: Where = NOWHERE,
        now: float | None = None,
    ) -> dict[Labels, float]:
        """Return how many observations of a histogram were at most `bound`. Between two edges of
        buckets, those of a bucket count as spread evenly.
        """
        bounds = self.metrics[metric].buckets
        return {
            labels: below(bounds, numbers[:-1], bound)
            for labels, numbers in self._sums(metric, window_s, by, where, now).items()
        }

    def quantile(
        self,
        metric: str,
        q: float,
        window_s: float,
        *,
        by: tuple[str, ...] = (),
        where: Where = NOWHERE,
        now: float | None = None,
    ) -> dict[Labels, float]:
        """Return a quantile of what a histogram observed, interpolated as Prometheus'
        `histogram_quantile` does. Labels without an observation are left out.
        """
        bounds = self.metrics[metric].buckets
        found = {}
        for labels, numbers in self._sums(metric, window_s, by, where, now).items():
            value = quantile_of(bounds, numbers[:-1], q)
            if value is not None:
                found[labels] = value
        return found

    def is_there(self, metric: str, where: Where = NOWHERE, now: float | None = None) -> bool:
        """Return whether a counter had counted anything by then."""
        when = self.clock() if now is None else now
        return any(
            any(track.at(when, self.sampled_at)) for _, track in self._chosen(metric, (), where)
        )

    def gauge(
        self,
        metric: str,
        *,
        by: tuple[str, ...] | None = None,
        where: Where = NOWHERE,
        now: float | None = None,
    ) -> dict[Labels, float]:
        """Return the values of a gauge at the last sample before `now`: one for each of its labels,
        or the sum for each combination of the labels in `by`.
        """
        when = self.sampled_at if now is None else now
        by = self.metrics[metric].labels if by is None else by
        values: dict[Labels, float] = {}
        for labels, track in self._chosen(metric, by, where):
            value = track.at(when, self.sampled_at)[0]
            if value == value:
                values[labels] = values.get(labels, 0.0) + value
        return values

    def series(
        self,
        metric: str,
        window_s: float,
        points: int,
        *,
        by: tuple[str, ...] = (),
        where: Where = NOWHERE,
        q: float | None = None,
        now: float | None = None,
    ) -> Series:
        """Return `points` values over the last `window_s` seconds for each combination of the labels
        in `by`: increases of a counter, quantiles `q` (or counts) of a histogram, values of a gauge.
        """
        end = self.sampled_at if now is None else now
        step_s = window_s / points
        edges = [end - window_s + step_s * number for number in range(points + 1)]
        definition = self.metrics[metric]
        groups: dict[Labels, list[list[float]]] = {}
        for labels, track in self._chosen(metric, by, where):
            numbers = [track.at(edge, self.sampled_at) for edge in edges]
            rows = (
                [list(each) for each in numbers[1:]]
                if definition.kind == "gauge"
                else [list(map(float.__sub__, late, early)) for early, late in pairwise(numbers)]
            )
            known = groups.get(labels)
            groups[labels] = rows if known is None else list(map(_added, known, rows))
        return Series(
            times=edges[1:],
            step_s=step_s,
            values={
                labels: [_plotted(definition, row, q) for row in rows]
                for labels, rows in groups.items()
            },
        )

    def _sums(
        self,
        metric: str,
        window_s: float,
        by: tuple[str, ...],
        where: Where,
        now: float | None,
    ) -> dict[Labels, list[float]]:
        end = self.clock() if now is None else now
        sums: dict[Labels, list[float]] = {}
        for labels, track in self._chosen(metric, by, where):
            early, late = (track.at(t, self.sampled_at) for t in (end - window_s, end))
            if early == late:
                continue
            grown = list(map(float.__sub__, late, early))
            known = sums.get(labels)
            sums[labels] = grown if known is None else list(map(add, known, grown))
        return sums

    def _chosen(
        self, metric: str, by: tuple[str, ...], where: Where
    ) -> Iterator[tuple[Labels, Track]]:
        """Yield the tracks that `where` chooses, each with the labels in `by`."""
        names = self.metrics[metric].labels
        places = [names.index(name) for name in by]
        wanted = [
            (names.index(name), {value} if isinstance(value, str) else value)
            for name, value in where.items()
        ]
        for labels, track in list(self._tracks[metric].items()):  # threads may ask
            if all(labels[place] in values for place, values in wanted):
                yield tuple(labels[place] for place in places), track


def _added(one: list[float], other: list[float]) -> list[float]:
    """Add the numbers of two points; a gauge without a value adds nothing."""
    return [b if a != a else a if b != b else a + b for a, b in zip(one, other, strict=True)]


def _plotted(metric: MetricDefinition, numbers: list[float], q: float | None) -> float | None:
    if metric.buckets:
        return sum(numbers[:-1]) if q is None else quantile_of(metric.buckets, numbers[:-1], q)
    return numbers[0] if numbers[0] == numbers[0] else None
