"""Write what was counted for the store, and read it back after a start."""

import zlib
from array import array
from collections.abc import Mapping, Sequence
from operator import add

import msgspec

from slipway.store.contract import HistoryRow
from slipway.telemetry.definitions import Labels, MetricDefinition
from slipway.telemetry.tracks import NAN, STEPS, Track

SavedCounts = list[tuple[str, Labels, list[float]]]


class SavedHistory(msgspec.Struct):
    """What was saved before the start: tracks by metric and labels."""

    began_at: float
    tracks: dict[str, dict[Labels, Track]] = {}


def replayed(
    rows: Sequence[HistoryRow], metrics: Mapping[str, MetricDefinition], now: float
) -> SavedHistory:
    """Return what the rows say. Takes long, and may run in a thread.

    Ten-minute rows are used only for the time before the first row of a minute.
    """
    minutes = [row for row in rows if row.step_s == STEPS[1].every_s]
    first = min((row.at - row.step_s for row in minutes), default=float("inf"))
    used = [row for row in rows if row.step_s != STEPS[1].every_s and row.at <= first]
    used = sorted([*used, *minutes], key=lambda row: row.at)
    saved = SavedHistory(began_at=used[0].at - used[0].step_s if used else 0.0)
    until = max(now, used[-1].at) if used else 0.0
    for row in used:
        for name, labels, numbers in read_counts(row.counts):
            metric = metrics.get(name)
            if metric is not None and _fits(metric, labels, numbers):
                tracks = saved.tracks.setdefault(name, {})
                _replay(tracks, labels, numbers, row.at, until, metric.kind == "gauge")
    return saved


def _fits(metric: MetricDefinition, labels: Labels, numbers: Sequence[float]) -> bool:
    """Return whether a saved row fits the metric: another version may have saved it."""
    size = len(metric.buckets) + 2 if metric.buckets else 1
    return len(labels) == len(metric.labels) and len(numbers) == size


def _replay(
    tracks: dict[Labels, Track],
    labels: Labels,
    numbers: list[float],
    at: float,
    until: float,
    is_gauge: bool,
) -> None:
    """Put a saved row into the lines that keep points of its age."""
    track = tracks.get(labels)
    if track is None:
        track = tracks[labels] = Track(len(numbers), NAN if is_gauge else 0.0)
    track.total = array("d", numbers if is_gauge else map(add, track.total, numbers))
    for step, line in zip(STEPS, track.lines, strict=True):
        if until - at <= step.keep_s:
            line.put(at, track.total)
        else:
            line.begin_with(track.total[:])


def written_counts(counts: SavedCounts) -> bytes:
    return zlib.compress(msgspec.msgpack.encode(counts), 6)


def read_counts(content: bytes) -> SavedCounts:
    return msgspec.msgpack.decode(zlib.decompress(content), type=SavedCounts)
