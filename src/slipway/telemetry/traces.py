"""Keep what happened to each answer for a day, to be found by its id.

A record says which stages ran and which models were tried, when, and how each ended; never what was
asked or answered. `keep` costs the event loop a tenth of a microsecond; a thread writes what came
in a quarter of a second into a file, so that few records are in memory.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from slipway.telemetry import trace_files
from slipway.telemetry.trace_files import AT_ONCE, Found, TimedRecord, TraceWriter
from slipway.telemetry.trace_views import summary, tries
from slipway.types import AnswerDone, Record

log = logging.getLogger("slipway")
KEEP_S = 86_400.0
AT_MOST_BYTES = 512 * 1024 * 1024
FLUSH_S = 0.25
PRUNE_S = 60.0  # between two looks for old segments
MOST_WAITING = 40_000  # records in memory while they cannot be written
# An answer may be tried again any number of times; only its latest records are shown
MAX_RECORDS = 200
MOST_LOOKED_AT = 200_000  # answers that one list looks through
UNWRITTEN = "traces cannot be written (%s): the latest ones are kept in memory until they can"

Take = Callable[[Sequence[TimedRecord]], None]


class TraceFilter(Record, frozen=True, kw_only=True):
    """Which answers a list shows: at most `limit` that ended `before` a time, in seconds since the
    epoch; of one `app`, with an error if `errors`, and if they took more than `slower_than_s`.
    """

    limit: int = 50
    errors: bool = False
    app: str | None = None
    slower_than_s: float | None = None
    before: float = float("inf")

    def test_for(self, names: Sequence[str]) -> Callable[[Sequence[Any]], bool]:
        """Return a test of the values of an answer's fields, which have these names."""
        app, error, duration = (names.index(name) for name in ("app", "error", "duration_s"))
        least_s = -1.0 if self.slower_than_s is None else self.slower_than_s

        def takes(values: Sequence[Any]) -> bool:
            return (
                (self.app is None or values[app] == self.app)
                and (not self.errors or values[error] is not None)
                and values[duration] > least_s
            )

        return takes


class Traces:
    """The traces of a server, in `folder`; several processes share it.

    `takers` get every batch of records before it is written, in the thread that writes.
    """

    def __init__(
        self, folder: Path, keep_s: float = KEEP_S, at_most_bytes: int = AT_MOST_BYTES
    ) -> None:
        self.folder = folder
        self.takers: list[Take] = []
        self.on_lost: Callable[[int], None] = lambda count: None
        self.lost = 0  # records that could not be kept
        self._writer = TraceWriter(folder, keep_s, at_most_bytes)
        self._pending: deque[TimedRecord] = deque()
        # Keep a record of an answer, of a call to a model, or of a rule
        self.keep: Callable[[TimedRecord], None] = self._pending.append
        self._unwritten: list[TimedRecord] = []
        self._lock = threading.Lock()
        self._searching = threading.Lock()  # one search at a time: it is answers that matter
        self._ends = threading.Event()
        self._thread: threading.Thread | None = None
        self._is_failing = False

    def limit(self, keep_s: float, at_most_bytes: int) -> None:
        """Set how long traces are kept, and how many bytes of them."""
        self._writer.limit(keep_s, at_most_bytes)

    @property
    def keep_s(self) -> float:
        return self._writer.keep_s

    # writing

    def start(self) -> None:
        """Begin to write every FLUSH_S seconds."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="slipway-traces", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        pruned_at = 0.0
        while not self._ends.wait(FLUSH_S):
            try:
                self.flush()
                if time.monotonic() - pruned_at > PRUNE_S:  # also if nothing is asked any more
                    pruned_at = time.monotonic()
                    self._writer.prune(time.time())
            except Exception:  # a defect here must not end the writing of traces for good
                log.exception("bug: traces could not be written")

    def flush(self) -> None:
        """Write what was kept until now."""
        with self._lock:
            batch = self._take()
            if batch:
                for take in self.takers:
                    take(batch)
            self._unwritten += batch
            if self._unwritten:
                self._write()

    def _take(self) -> list[TimedRecord]:
        taken, pending = list[TimedRecord](), self._pending
        while pending:
            taken.append(pending.popleft())
        return taken

    def _write(self) -> None:
        try:
            while self._unwritten:
                self._writer.write(self._unwritten[:AT_ONCE])
                del self._unwritten[:AT_ONCE]
                time.sleep(0)
        except OSError as error:
            if not self._is_failing:
                self._is_failing = True
                log.warning(UNWRITTEN, error.strerror or error)
            self._drop(len(self._unwritten) - MOST_WAITING)
        else:
            if self._is_failing:
                self._is_failing = False
                log.info("traces are written again")

    def _drop(self, count: int) -> None:
        """Forget the oldest records that could not be written."""
        if count > 0:
            del self._unwritten[:count]
            self.lost += count
            self.on_lost(count)

    def close(self) -> None:
        """Write the last records, and end."""
        self._ends.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self.flush()
        self._writer.close()

    # reading

    def find(self, answer_id: str, owner: str | None) -> dict[str, Any] | None:
        """Return the trace of a finished answer of this owner, or None if there is none. Blocks.

        If `owner` is None, answers of every owner are found.
        """
        self.flush()
        with self._searching:
            found = trace_files.find(self.folder, answer_id)
        found += [each for each in self._in_memory() if trace_files.answer_of(each) == answer_id]
        found = sorted(found, key=lambda each: each.at)[-MAX_RECORDS:]
        owners = {each.fields["owner"] for each in found if each.kind is AnswerDone}
        if not owners or owner not in (None, *owners):
            return None
        return {"id": answer_id, "tries": tries(found)}

    def recent(self, wanted: TraceFilter) -> tuple[list[dict[str, Any]], bool]:
        """Return summaries of the latest answers, and whether older ones were not looked at. Blocks."""
        self.flush()
        with self._searching:
            found, looked = trace_files.recent(
                self.folder, wanted.test_for, wanted.limit, wanted.before, MOST_LOOKED_AT
            )
        takes = wanted.test_for(AnswerDone.__struct_fields__)
        found += [
            each
            for each in self._in_memory()
            if each.kind is AnswerDone
            and each.at < wanted.before
            and takes(tuple(each.fields.values()))
        ]
        found = sorted(found, key=lambda each: -each.at)[: wanted.limit]
        return [summary(each) for each in found], looked >= MOST_LOOKED_AT

    def _in_memory(self) -> list[Found]:
        """Return the records that could not be written."""
        with self._lock:
            waiting = list(self._unwritten)
        return [Found(at, type(record), trace_files.fields_of(record)) for at, record in waiting]
