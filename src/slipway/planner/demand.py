"""Estimate how many requests come and how long they are, from a few numbers or from a trace."""

import csv
import gzip
import io
import math
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from slipway.errors import SettingsError
from slipway.planner.requirements import Requirements
from slipway.types import Record

MONTH_S = 730 * 3600
PEAK = 3.0  # times the mean, if nobody says
BIN_S = 10.0
_TIME = ("TIMESTAMP", "timestamp", "time", "t_s", "at")
_INPUT = ("ContextTokens", "input_tokens", "prompt_tokens", "input_length")
_OUTPUT = ("GeneratedTokens", "output_tokens", "completion_tokens", "output_length")


class TraceRequest(Record, frozen=True, array_like=True):
    """One request: seconds since the first, and its tokens."""

    at: float
    input: int
    output: int


class Demand(Record, frozen=True, kw_only=True):
    """What is asked in a month. Without a trace, requests are taken to come at random around the
    mean; `pace` is how many times faster than in the trace they come.
    """

    mean_rps: float
    peak_rps: float
    input_tokens: float
    output_tokens: float
    trace: tuple[TraceRequest, ...] = ()
    pace: float = 1.0

    @property
    def month(self) -> float:
        """Requests in a month."""
        return self.mean_rps * MONTH_S

    def scaled(self, factor: float) -> "Demand":
        """Return the same demand with `factor` times the requests."""
        return Demand(
            mean_rps=self.mean_rps * factor,
            peak_rps=self.peak_rps * factor,
            input_tokens=self.input_tokens,
            output_tokens=self.output_tokens,
            trace=self.trace,
            pace=self.pace * factor,
        )


def demand_of(requirements: Requirements, folder: Path = Path()) -> Demand:
    """Raises SettingsError for a trace that cannot be read."""
    traffic, context = requirements.traffic, requirements.context
    if traffic.trace is not None:
        return from_trace(read_trace(folder / traffic.trace))
    return Demand(
        mean_rps=traffic.mean_rps,
        peak_rps=traffic.peak_rps or traffic.mean_rps * PEAK,
        input_tokens=traffic.input_tokens or context.input_p95 / 2,
        output_tokens=traffic.output_tokens or context.output_p95 / 2,
    )


def from_trace(trace: Sequence[TraceRequest]) -> Demand:
    """Take the month to be the trace, again and again."""
    span = max(trace[-1].at, BIN_S)
    counts = [0] * (math.floor(span / BIN_S) + 1)
    for request in trace:
        counts[min(int(request.at / BIN_S), len(counts) - 1)] += 1
    minutes = [sum(counts[i : i + 6]) / 60 for i in range(max(1, len(counts) - 5))]
    return Demand(
        mean_rps=len(trace) / span,
        peak_rps=max(minutes),
        input_tokens=sum(request.input for request in trace) / len(trace),
        output_tokens=sum(request.output for request in trace) / len(trace),
        trace=tuple(trace),
    )


def read_trace(file: Path) -> list[TraceRequest]:
    """Read a CSV of requests, gzipped or not, and sort it by time. Raises SettingsError."""
    try:
        data = file.read_bytes()
        text = (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).decode()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise SettingsError([f"traffic.trace: {file} cannot be read: {why.lower()}"]) from None
    reader = csv.DictReader(io.StringIO(text))
    columns = [_column(file, reader.fieldnames or (), names) for names in (_TIME, _INPUT, _OUTPUT)]
    found = []
    for row in reader:
        try:
            at, input_, output = (row[column] for column in columns)
            found.append(TraceRequest(_seconds(at), int(float(input_)), int(float(output))))
        except ValueError as error:
            raise SettingsError([f"traffic.trace: {file}:{reader.line_num}: {error}"]) from None
    if len(found) < 2:
        raise SettingsError([f"traffic.trace: {file} has fewer than two requests"])
    found.sort(key=lambda request: request.at)
    first = found[0].at
    return [TraceRequest(request.at - first, request.input, request.output) for request in found]


def _column(file: Path, names: Sequence[str], known: Sequence[str]) -> str:
    found = next((name for name in known if name in names), None)
    if found is None:
        raise SettingsError(
            [
                (
                    f"traffic.trace: {file} has no column {' or '.join(known)}; it has "
                    f"{', '.join(names) or 'none'}"
                )
            ]
        )
    return found


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return datetime.fromisoformat(text[:26]).timestamp()
