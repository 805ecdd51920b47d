"""Scripts: which faults apply to a call, by its number, by time and by chance."""

import math
import random
import re
import time
from collections import deque
from collections.abc import Sequence

import msgspec

from slipway.providers.mock.fault_names import goes_by_time, parse_fault
from slipway.providers.mock.faults import Fault, FaultContext
from slipway.settings.values import seconds

FORM = (
    "Write FAULT[%P][@WHEN][xM], such as cut-5, status-503@1x3 (calls 1 to 3), down@2s-5s "
    "(seconds) or cutany%20 (one call in five)"
)

_ENTRY = re.compile(
    r"(?P<fault>[^%@]*?)(?:%(?P<percent>[^%@]*?))?(?:@(?P<when>[^%@]*?))?(?:x(?P<times>\d+))?"
)
_TIME = r"(\d+(?:\.\d+)?(?:ms|s|m|h))"
_TIMES = re.compile(f"{_TIME}(?:-{_TIME})?")
_EVER = (0.0, math.inf)


class Entry(msgspec.Struct, frozen=True):
    """A fault for the calls from `calls[0]` to `calls[1]`, both included, in the seconds from
    `window_s[0]` up to `window_s[1]`. It takes the share `share` of them.
    """

    text: str
    fault: Fault
    calls: tuple[float, float] = _EVER
    window_s: tuple[float, float] = _EVER
    share: float = 1.0

    def due(self, age_s: float) -> bool:
        return self.window_s[0] <= age_s < self.window_s[1]

    def picks(self, number: int, seed: int) -> bool:
        """Return whether it applies to this call at any time: by its number, then by chance, which
        is the same for the same seed.
        """
        if not self.calls[0] <= number <= self.calls[1]:
            return False
        if self.share >= 1:
            return True
        return random.Random(f"{seed}:{number}:{self.text}").random() < self.share  # noqa: S311


class Script:
    """The entries, with a count of calls and seconds since it was created or started again.

    Raises ValueError if an entry cannot be understood.
    """

    def __init__(self, entries: Sequence[str], seed: int) -> None:
        self.entries = tuple(entries)
        self._parsed = tuple(map(parse_entry, entries))
        self._whole = tuple(
            entry for entry in self._parsed if entry.calls == _EVER and entry.share >= 1
        )
        self._refusals = tuple(entry for entry in self._parsed if goes_by_time(entry.fault))
        self._passed: dict[float, deque[float]] = {}
        self._seed = seed
        self.start()

    def start(self) -> None:
        """Count calls and seconds from now."""
        self._number = 0
        self._began_at = time.monotonic()

    def call(self) -> tuple[FaultContext, list[Fault]]:
        """Count a call; return what its faults may depend on (all but its own seed), and the faults
        that apply to it.
        """
        self._number += 1
        age_s = self._age_s()
        faults = [
            entry.fault
            for entry in self._parsed
            if entry.due(age_s) and entry.picks(self._number, self._seed)
        ]
        return FaultContext(f"{self._seed}", self._number, age_s, self._passed), faults

    def always_active(self) -> list[Fault]:
        """Return the faults that apply to every call now, whatever its number."""
        age_s = self._age_s()
        return [entry.fault for entry in self._whole if entry.due(age_s)]

    def is_down(self) -> bool:
        return bool(self._whole) and any(fault.name == "down" for fault in self.always_active())

    def refuses(self) -> bool:
        age_s = self._age_s()
        return any(entry.due(age_s) for entry in self._refusals)

    def next_change_s(self) -> float | None:
        """Return the seconds until connections are refused, or accepted again; None for never."""
        age_s = self._age_s()
        turns = [
            turn_s - age_s
            for entry in self._refusals
            for turn_s in entry.window_s
            if age_s < turn_s < math.inf
        ]
        return min(turns, default=None)

    def _age_s(self) -> float:
        return time.monotonic() - self._began_at


def parse_entry(text: str) -> Entry:
    """Parse `FAULT[%P][@WHEN][xM]`, where WHEN is a call's number, a time or two times. Raises
    ValueError that says what is wrong.
    """
    match = _ENTRY.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"Script entry {text!r} cannot be read. {FORM}.")
    fault, share = parse_fault(match["fault"]), _share(text, match["percent"])
    when, times = match["when"], match["times"]
    timed = when is not None and not when.isdecimal()
    window_s = _window(text, when) if timed else _EVER
    if timed and times:
        raise ValueError(
            f"Script entry {text!r}: x{times} counts calls and cannot be combined with a time."
        )
    calls = _EVER if timed else _calls(text, when, times)
    if goes_by_time(fault) and (calls != _EVER or share < 1):
        raise ValueError(
            f"Script entry {text!r}: {fault.name} applies to the whole server, so give it a time, "
            f"such as {fault.name}@5s-10s."
        )
    return Entry(text.strip(), fault, calls, window_s, share)


def _share(text: str, percent: str | None) -> float:
    if percent is None:
        return 1.0
    try:
        share = float(percent) / 100
    except ValueError:
        share = math.nan
    if not 0 <= share <= 1:
        raise ValueError(
            f"Script entry {text!r}: {percent!r} is not a share of calls; write % and a number "
            "from 0 to 100."
        )
    return share


def _calls(text: str, first: str | None, times: str | None) -> tuple[float, float]:
    """Return the range of calls: from call N (1 if absent) for M calls. N alone is one call,
    neither is all of them.
    """
    if first is None and times is None:
        return _EVER
    if int(first or 1) < 1 or int(times or 1) < 1:
        raise ValueError(
            f"Script entry {text!r}: calls are counted from 1, and at least one must fail."
        )
    return int(first or 1), int(first or 1) + int(times or 1) - 1


def _window(text: str, when: str) -> tuple[float, float]:
    match = _TIMES.fullmatch(when)
    if match is None:
        raise ValueError(
            f"Script entry {text!r}: after @ write a call (3), a time (2s, 500ms, 1m) or two times "
            "(2s-5s)."
        )
    start_s, end_s = seconds(match[1]), seconds(match[2]) if match[2] else math.inf
    if end_s <= start_s:
        raise ValueError(f"Script entry {text!r}: the second time must be later than the first.")
    return start_s, end_s
