"""Write the ledger off the event loop: rows are appended to a list, and a thread saves them in
batches. Rows that cannot be saved are kept and tried again.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from slipway.errors import SettingsError
from slipway.ledger import LedgerRow
from slipway.store.contract import Ledger, StoreError
from slipway.store.hold_log import HoldLog, take_lost

log = logging.getLogger("slipway")
BATCH_S = 0.05  # how long rows are collected before they are saved together
AT_ONCE = 5_000  # rows in a transaction
RETRY_S = (0.2, 2.0)  # pause after a failure: the first, and the longest
CLOSE_S = 10.0  # how long the end of the server waits for the last rows


class LedgerStore(Protocol):
    """What the writer needs of a store: where rows are saved, and a folder on this machine."""

    @property
    def ledger(self) -> Ledger: ...

    @property
    def folder(self) -> Path: ...


class LedgerWriter:
    """Takes rows from any thread; `waiting` is how many are not in the store yet."""

    def __init__(self, store: Callable[[], LedgerStore]) -> None:
        """Take a function that opens the store; the thread calls it for its first batch."""
        self._store = store
        self._rows = deque[LedgerRow]()  # its append and popleft are atomic
        self._unsaved: list[LedgerRow] = []  # taken from the list, and not saved yet
        self._wake = threading.Event()
        self._closing = False
        self._thread: threading.Thread | None = None
        self._holds: HoldLog | None = None
        self._recovered = False
        self._opening = threading.Lock()

    @property
    def waiting(self) -> int:
        return len(self._rows) + len(self._unsaved)

    def add(self, row: LedgerRow) -> None:
        """Queue a row. This is all that the event loop does for it."""
        self._rows.append(row)
        if not self._wake.is_set():
            self._wake_up()

    def _wake_up(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="slipway ledger", daemon=True)
            self._thread.start()
        self._wake.set()

    def hold(self, row: LedgerRow) -> None:
        """Note a call that begins, with what it may cost at most; see `HoldLog`."""
        if self._holds is None:
            self._holds = HoldLog(self._store().folder)
        try:
            self._holds.hold(row)
        except OSError as error:
            log.warning("a call cannot be noted before it begins (%s)", error.strerror)

    def release(self, call_id: str) -> None:
        """Forget a call that was held and not made."""
        if self._holds is not None:
            self._holds.settled([call_id])

    def ledger(self) -> Ledger:
        """Return the ledger, after the calls of processes that were killed are booked."""
        store = self._store()
        with self._opening:
            if not self._recovered:
                for path, rows in take_lost(store.folder):
                    store.ledger.book(rows)
                    path.unlink(missing_ok=True)
                    if rows:
                        log.warning(
                            "%d calls were running when a process was killed: they are booked "
                            "with the most that they may have cost",
                            len(rows),
                        )
                self._recovered = True
        return store.ledger

    def flush(self, within_s: float = CLOSE_S) -> bool:
        """Wait until all rows are saved; False if that took too long."""
        end = time.monotonic() + within_s
        while self.waiting and time.monotonic() < end:
            time.sleep(BATCH_S / 10)
        return not self.waiting

    def close(self) -> None:
        """Save the last rows, and end the thread."""
        self._closing = True
        if self._thread is not None:
            self._wake.set()
            self._thread.join(CLOSE_S)
        if self._holds is not None:
            self._holds.close()
        if self.waiting:
            log.error(
                "%d rows of the ledger could not be saved before the server ended", self.waiting
            )

    def _run(self) -> None:
        pause_s = RETRY_S[0]
        while True:
            self._wake.wait()
            if not self._closing:
                time.sleep(BATCH_S)
            self._wake.clear()
            if self._save_all():
                pause_s = RETRY_S[0]
            elif self._closing:
                return
            else:
                time.sleep(pause_s)
                pause_s = min(2 * pause_s, RETRY_S[1])
                self._wake.set()
                continue
            if self._closing and not self.waiting:
                return

    def _save_all(self) -> bool:
        """Save what is there; False if the store failed."""
        while self._unsaved or self._rows:
            while self._rows and len(self._unsaved) < AT_ONCE:
                self._unsaved.append(self._rows.popleft())
            try:
                self.ledger().book(self._unsaved)
            except (StoreError, SettingsError, OSError) as error:
                log.warning(
                    "the ledger cannot be saved now (%s); %d rows are kept and tried again",
                    error,
                    self.waiting,
                )
                return False
            saved, self._unsaved = self._unsaved, []
            if self._holds is not None:
                self._holds.settled(row.id for row in saved)
        return True
