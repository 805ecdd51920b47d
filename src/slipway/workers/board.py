"""Memory that the supervisor and all workers share, so that a worker's counts outlive it.

Each worker has a segment for its counters, which only it writes, and a few numbers. The memory
belongs to the supervisor: a worker that is killed loses nothing that it had counted, and the one
that is started in its place continues the same counters. Reading needs no lock: a number is
written with one store of 8 bytes, and a row is visible once it is complete.
"""

import logging
import mmap
from collections.abc import Iterator

log = logging.getLogger("slipway")
SEGMENT_BYTES = 8 * 1024 * 1024  # of a worker's counters; memory is used only for rows that exist
CELLS = 5  # numbers of a worker
_WORD = 8
_IN_FLIGHT, _BEGAN, _RUNNING, _STARTS, _LOST = range(CELLS)


class WorkerSegment:
    """The counters of one worker: rows of numbers, each with a key."""

    def __init__(self, memory: memoryview) -> None:
        self._memory, self._words = memory, memory.cast("Q")
        self._warned = False

    def row(self, key: bytes, size: int) -> "memoryview[float]":
        """Return the row of this key with `size` numbers; a new one holds zeros.

        If the memory is full, the row is this process's own: a warning says that it is missing
        from the sums.
        """
        for known, values in self.rows():
            if known == key:
                return values
        end = self._used
        needed = _WORD * (1 + size) + len(key) + -len(key) % _WORD
        if end + needed > len(self._memory):
            if not self._warned:
                log.warning("the memory for metrics is full: new rows are missing from /metrics")
            self._warned = True
            return memoryview(bytearray(_WORD * size)).cast("d")
        self._words[end // _WORD] = len(key) << 32 | size
        start = end + _WORD * (1 + size)
        self._memory[start : start + len(key)] = key
        self._words[0] = end + needed  # from now on the row is there
        return self._memory[end + _WORD : start].cast("d")

    def rows(self) -> Iterator[tuple[bytes, "memoryview[float]"]]:
        """Yield (key, numbers) of each row."""
        at, end = _WORD, self._used
        while at < end:
            sizes = self._words[at // _WORD]
            size, length = sizes & 0xFFFFFFFF, sizes >> 32
            start = at + _WORD * (1 + size)
            yield (
                bytes(self._memory[start : start + length]),
                self._memory[at + _WORD : start].cast("d"),
            )
            at = start + length + -length % _WORD

    @property
    def _used(self) -> int:
        return self._words[0] or _WORD


class Board:
    """The shared memory of `workers` workers, numbered from 1. Make it before they are started."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        head = _WORD * CELLS * (workers + 1)
        self._head = -(-head // mmap.PAGESIZE) * mmap.PAGESIZE
        self._memory = memoryview(mmap.mmap(-1, self._head + workers * SEGMENT_BYTES))
        self.cells = self._memory[:head].cast("q")
        self.segments = [
            WorkerSegment(self._memory[start : start + SEGMENT_BYTES])
            for start in range(self._head, len(self._memory), SEGMENT_BYTES)
        ]

    def segment(self, number: int) -> WorkerSegment:
        """Return the counters of worker `number`."""
        return self.segments[number - 1]

    def all_in_flight(self) -> "memoryview[int]":
        """Return the numbers of answers that workers 1, 2, … are giving, as they change."""
        return self.cells[CELLS + _IN_FLIGHT :: CELLS]

    def all_began(self) -> "memoryview[int]":
        """Return how many answers began in workers 1, 2, …, as these numbers change."""
        return self.cells[CELLS + _BEGAN :: CELLS]

    @property
    def running(self) -> int:
        """Return how many workers take requests."""
        return sum(self.cells[CELLS + _RUNNING :: CELLS])

    def is_running(self, number: int) -> bool:
        return bool(self.cells[CELLS * number + _RUNNING])

    def note_running(self, number: int, *, running: bool) -> None:
        self.cells[CELLS * number + _RUNNING] = running

    @property
    def restarts(self) -> int:
        """Return how often a worker was started in place of one that had ended."""
        return sum(max(0, starts - 1) for starts in self.cells[CELLS + _STARTS :: CELLS])

    def starts(self, number: int) -> int:
        """Return how often worker `number` was started."""
        return self.cells[CELLS * number + _STARTS]

    def note_start(self, number: int) -> None:
        self.cells[CELLS * number + _STARTS] += 1

    @property
    def lost(self) -> int:
        """Return how many answers were in progress in workers when these ended."""
        return sum(self.cells[CELLS + _LOST :: CELLS])

    def note_end(self, number: int, unfinished: int) -> int:
        """Note the end of a worker in which so many answers ever began and did not finish; return
        how many of them this process has lost.
        """
        before = self.cells[CELLS * number + _LOST]
        self.cells[CELLS * number + _LOST] = unfinished
        self.cells[CELLS * number + _IN_FLIGHT] = 0
        self.note_running(number, running=False)
        return unfinished - before
