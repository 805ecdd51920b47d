"""Write rows off the event loop: they go into the journal at once, and into the store in batches.

While the store is down, locked or full, rows wait in the journal, and are written once it is back.
"""

import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from slipway.ledger import LedgerRow
from slipway.store.contract import CollectedAnswer, FeedbackRow, RowError, StoreError, Withdrawal
from slipway.store.journal import SEGMENT_BYTES, Journal, Segment
from slipway.store.record_store import RecordStore
from slipway.types import Answered, Record, RuleUsed

log = logging.getLogger("slipway")
BATCH_S = 0.1  # how long rows are collected before they are written together
AT_ONCE = 2_000  # rows in a transaction
FEWEST = 50  # the same after failures: a slow store may not take more within its time limit
RETRY_S = 0.5  # pause after a failure
LOOK_S = 5.0  # between two looks for segments of processes that have ended
HELD = 20_000  # rows in memory; what comes while more wait is read from the journal later
HELD_ALONE = 20_000  # rows in memory if the journal cannot be written either
CLOSE_S = 10.0  # how long the end of the server waits for the last rows
LATE_S = 3.0  # rows that wait longer are a sign that the store hangs
ANSWERS_KEPT_DAYS = 30
MOST_ANSWERS = 200_000  # answers that can be voted on; the oldest are dropped first

MOST_COLLECTED = 50_000  # answers whose texts are kept to find rules

encode = msgspec.json.Encoder().encode


def book(store: RecordStore, rows: Sequence[LedgerRow]) -> None:
    store.ledger.book(rows)


def note_answers(store: RecordStore, rows: Sequence[Answered]) -> None:
    store.records.note_answers(rows, days=ANSWERS_KEPT_DAYS, at_most=MOST_ANSWERS)


def save_feedback(store: RecordStore, rows: Sequence[FeedbackRow]) -> None:
    for row in rows:
        store.records.save_feedback(row)


def withdraw(store: RecordStore, rows: Sequence[Withdrawal]) -> None:
    for row in rows:
        store.records.withdraw_votes(row.answer, row.at)


def count_hits(store: RecordStore, rows: Sequence[RuleUsed]) -> None:
    store.rules.count_hits(rows, days=ANSWERS_KEPT_DAYS, at_most=MOST_ANSWERS)


def collect(store: RecordStore, rows: Sequence[CollectedAnswer]) -> None:
    store.rules.collect(rows, days=ANSWERS_KEPT_DAYS, at_most=MOST_COLLECTED)


class Sort(Record, frozen=True, kw_only=True):
    """What becomes of rows of one type: how they are read from the journal, and written."""

    row: type[Any]
    write: Callable[[RecordStore, Sequence[Any]], None]


SORTS: dict[str, Sort] = {
    "ledger": Sort(row=LedgerRow, write=book),
    "answer": Sort(row=Answered, write=note_answers),
    "feedback": Sort(row=FeedbackRow, write=save_feedback),
    "withdrawal": Sort(row=Withdrawal, write=withdraw),
    "rule": Sort(row=RuleUsed, write=count_hits),
    "collected": Sort(row=CollectedAnswer, write=collect),
}
NAMES: dict[type[Any], str] = {sort.row: name for name, sort in SORTS.items()}


class Waiting(Record, frozen=True, kw_only=True, gc=False):
    """A row that is not in the store yet; `segment` is None if the journal could not keep it."""

    kind: str
    row: Any
    segment: Segment | None


class RowWriter:
    """Takes rows from any thread; `waiting` is how many are not in the store yet.

    `why_down` says why the store cannot be written now; None if it can. `saved`, if set, is called
    in the thread with each batch that is in the store.
    """

    def __init__(self, store: Callable[[], RecordStore], folder: Path, *, held: int = HELD) -> None:
        """Take a function that opens the store; the thread calls it for its first batch.

        `folder` is the journal's, `held` how many rows may wait in memory.
        """
        self._store, self._most = store, held
        self.journal = Journal(folder)
        self._rows = deque[Waiting]()  # its append and popleft are atomic
        self._batch: list[Waiting] = []  # taken from the rows, and not saved yet
        self._later = deque[Segment]()  # closed segments whose rows are in the file only
        self._at_once = AT_ONCE
        self._wake = threading.Event()
        self._closing = False
        self._thread: threading.Thread | None = None
        self._started = threading.Lock()
        self._tried_at = time.monotonic()  # when the last batch was begun
        self._look_at = 0.0
        self._has_looked = False
        self._warned = False
        self.lost = 0
        self._gone = 0  # rows that wait no more
        self.why_down: str | None = None
        self.on_change: Callable[[], None] = lambda: None  # called in the thread
        self.saved: Callable[[str, Sequence[Any]], None] | None = None

    @property
    def waiting(self) -> int:
        current = self.journal.current
        later = [*self._later, *([current] if current and current.is_read_later else [])]
        return len(self._rows) + len(self._batch) + sum(segment.unsaved for segment in later)

    @property
    def trouble(self) -> str | None:
        """Return why rows wait; None if the store takes them."""
        if self.why_down is not None:
            return self.why_down
        if self._batch and time.monotonic() - self._tried_at > LATE_S:
            return "it does not answer"
        return None

    def add(self, row: Any, *, sync: bool = False) -> bool:
        """Keep a row until the store has it; with `sync`, it is on the disk when this returns.

        This is all that the event loop does for a row. Return False if only memory holds it.
        """
        kind, segment = NAMES[type(row)], None
        try:
            segment = self.journal.append(kind, encode(row))
            if sync:
                segment.sync()
            self._warned = False
        except OSError as error:
            self._cannot_keep(error)
        if segment is not None and segment.is_read_later:
            pass  # it is read when its turn comes
        elif segment is None and len(self._rows) >= HELD_ALONE:
            self.lost += 1
            return False
        else:
            self._rows.append(Waiting(kind=kind, row=row, segment=segment))
        if not self._wake.is_set():
            self._wake_up()
        return segment is not None

    def start(self) -> None:
        """Look for rows that processes before this one left."""
        if self.journal.folder.is_dir():
            self._wake_up()

    def flush(self, within_s: float) -> bool:
        """Wait until the store has all rows that are here now, those of processes that have ended
        included; False if that took too long. Rows may come all the time meanwhile.
        """
        self.start()
        end = time.monotonic() + within_s
        last = self.waiting + self._gone  # in this order: a row that goes meanwhile counts twice
        while not self._has_gone(last):
            if time.monotonic() >= end:
                return False
            time.sleep(0.005)
        return True

    def _has_gone(self, last: int) -> bool:
        """Return whether so many rows are gone, and none waits in files alone."""
        if self._thread is not None and not self._has_looked:
            return False
        current = self.journal.current
        in_files = bool(self._later) or (current is not None and current.is_read_later)
        return not self.waiting or (self._gone >= last and not in_files)

    def _wake_up(self) -> None:
        if self._thread is None:
            with self._started:
                if self._thread is None:
                    self._thread = threading.Thread(
                        target=self._run, name="slipway rows", daemon=True
                    )
                    self._thread.start()
        self._wake.set()

    def _cannot_keep(self, error: OSError) -> None:
        if not self._warned:
            log.error(
                "the journal %s cannot be written (%s): rows that the store does not take now are "
                "in memory only; free some disk space",
                self.journal.folder,
                error.strerror or error,
            )
        self._warned = True

    def close(self) -> None:
        """Save the last rows, and end the thread. What is not saved stays in the journal."""
        self._closing = True
        if self._thread is not None:
            self._wake.set()
            self._thread.join(CLOSE_S)
        lost = sum(1 for each in [*self._rows, *self._batch] if each.segment is None)
        if lost:
            log.error("%d rows could neither be saved nor kept before the server ended", lost)
        if kept := self.waiting - lost:
            log.warning(
                "%d rows wait in the journal %s for the next start", kept, self.journal.folder
            )
        waiting = {each.segment for each in [*self._rows, *self._batch] if each.segment}
        for segment in {*self._later, *waiting} - {self.journal.current}:
            segment.close()
        self.journal.close()

    # in the thread

    def _run(self) -> None:
        while True:
            self._wake.wait(LOOK_S)
            self._wake.clear()
            if not self._closing:
                time.sleep(BATCH_S)
            try:
                done = self._work()
            except Exception:  # the thread must go on: the next try may succeed
                log.exception("rows could not be written")
                done = False
            self.on_change()
            if self._closing:
                return
            if not done:
                time.sleep(RETRY_S)
                self._wake.set()

    def _work(self) -> bool:
        """Write what is there; False if the store failed."""
        self._tend_segments()
        if not (self._batch or self._rows or self._later):
            return self.why_down is None or self._is_back()
        while self._batch or self._rows or self._later:
            if not self._batch:
                self._take()
            self._tried_at = time.monotonic()
            try:
                self._write(self._batch)
            except StoreError as error:
                self._failed(error)
                return False
            self.why_down = None
        return True

    def _is_back(self) -> bool:
        try:
            self._store().keys.version()
        except StoreError:
            return False
        self.why_down = None
        return True

    def _failed(self, error: StoreError) -> None:
        if self.why_down is None:
            log.warning(
                "the store cannot be written (%s): rows are kept in %s until it can",
                error,
                self.journal.folder,
            )
        self.why_down = str(error)
        self._at_once = max(self._at_once // 4, FEWEST)

    def _tend_segments(self) -> None:
        """Sync what the store does not take, close a segment that is full, and find those left
        behind.
        """
        now, current = time.monotonic(), self.journal.current
        try:
            if current is not None:
                if self.why_down is not None and current.unsaved:
                    current.sync()  # otherwise the store syncs the rows in a moment
                crowded = len(self._rows) + len(self._batch) >= self._most
                if current.size >= SEGMENT_BYTES or crowded != current.is_read_later:
                    self._close_segment(is_read_later=crowded)
        except OSError as error:
            self._cannot_keep(error)
        if now >= self._look_at:
            self._look_at = now + LOOK_S
            for segment in self.journal.abandoned():
                self._adopt(segment)
            self._has_looked = True  # only now: `flush` waits for what was found

    def _close_segment(self, *, is_read_later: bool) -> None:
        before = self.journal.begin_segment(is_read_later=is_read_later)
        if before is None:
            return
        if before.unsaved:
            before.sync()
        if before.is_read_later:
            self._later.append(before)
        elif not before.unsaved:
            before.delete()

    def _adopt(self, segment: Segment) -> None:
        """Take over a segment that another process has left."""
        segment.unsaved = self.journal.count(segment)
        if not segment.unsaved:
            segment.delete()
            return
        log.info("%d rows of an earlier process are in the journal", segment.unsaved)
        self._later.append(segment)

    def _take(self) -> None:
        """Take the next batch, from memory or else from a closed segment."""
        rows, batch = self._rows, self._batch
        while rows and len(batch) < AT_ONCE:
            batch.append(rows[0])  # it is always in one of the two: `flush` looks at both
            rows.popleft()
        if not self._batch and self._later:
            segment = self._later[0]
            kept = self.journal.read(segment, row_of)
            segment.unsaved = len(kept)
            self._batch = [Waiting(kind=k.kind, row=k.row, segment=segment) for k in kept]
            self._later.popleft()
            if not kept:
                segment.delete()

    def _write(self, batch: list[Waiting]) -> None:
        """Write a batch, in order; what is written leaves it. Raises StoreError."""
        store = self._store()
        while batch:
            kind, some = batch[0].kind, batch[: self._at_once]
            group = some
            if any(waiting.kind != kind for waiting in some):
                group = list(itertools.takewhile(lambda waiting: waiting.kind == kind, some))  # noqa: B023 - called at once
            try:
                self._write_group(store, kind, group)
            except RowError:
                self._write_one_by_one(store, kind, group)
            self._gone += len(group)
            del batch[: len(group)]
            self._done(group)
            self._at_once = min(2 * self._at_once, AT_ONCE)

    def _write_group(self, store: RecordStore, kind: str, group: Iterable[Waiting]) -> None:
        rows = [waiting.row for waiting in group]
        SORTS[kind].write(store, rows)
        if self.saved is not None:
            self.saved(kind, rows)

    def _write_one_by_one(self, store: RecordStore, kind: str, group: Sequence[Waiting]) -> None:
        """Write rows of which the store refuses some; those are logged and left out."""
        for waiting in group:
            try:
                self._write_group(store, kind, [waiting])
            except RowError as error:
                self.lost += 1
                log.error("the store refuses a row (%s): %s", error, encode(waiting.row)[:500])  # noqa: TRY400

    def _done(self, group: Iterable[Waiting]) -> None:
        by_segment = itertools.groupby(group, key=lambda waiting: waiting.segment)
        for segment, of_segment in by_segment:
            if segment is not None:
                self.journal.saved(segment, sum(1 for _ in of_segment))


def row_of(kind: str, content: bytes) -> Any:
    """Return the row that the journal kept as JSON. Raises ValueError if it cannot be read."""
    if kind not in SORTS:
        raise ValueError(f"no such kind: {kind}")
    return msgspec.json.decode(content, type=SORTS[kind].row)  # its errors are ValueErrors
