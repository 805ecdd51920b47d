"""The ledger's rows on their way into the store, and what running calls may still cost."""

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from slipway.ledger import HeldCall, LedgerRow
from slipway.store.contract import Ledger, StoreError
from slipway.store.hold_log import HoldLog, take_lost
from slipway.store.writer import RowWriter

log = logging.getLogger("slipway")
LOST = (
    "%d calls were running when a process was killed: they are booked with the most that they may "
    "have cost"
)


class LedgerWriter:
    """Takes the ledger's rows from the event loop; they are in the journal when `add` returns.

    `holds` is the folder for notes of running calls, and `ledger` opens the ledger. `watch` is
    called with each row.
    """

    def __init__(self, writer: RowWriter, holds: Path, ledger: Callable[[], Ledger]) -> None:
        self._writer, self._folder, self.ledger = writer, holds, ledger
        self.watch: Callable[[LedgerRow], None] = lambda row: None
        self._holds: HoldLog | None = None
        self._unkept = set[str]()  # calls whose rows only memory has
        self._late = deque[str]()  # those of them that the store has by now
        self._recovered = False
        self._recovering = threading.Lock()
        writer.saved = self._saved

    def add(self, row: LedgerRow) -> None:
        """Keep a row until the store has it. Then what the call may cost need not be noted."""
        is_kept = self._writer.add(row)
        if self._holds is not None:
            if is_kept:
                self._holds.settled(row.id)
            else:
                self._unkept.add(row.id)
        self.watch(row)

    def hold(self, call: HeldCall) -> None:
        """Note a call that begins, with what it may cost at most; see `HoldLog`."""
        try:
            if self._holds is None:
                self._holds = HoldLog(self._folder)
            self._holds.hold(call)
            while self._late:
                self._holds.settled(self._late.popleft())
        except OSError as error:
            log.warning("a call cannot be noted before it begins (%s)", error.strerror)

    def release(self, call_id: str) -> None:
        """Forget a call that was held and not made."""
        if self._holds is not None:
            self._holds.settled(call_id)

    def _saved(self, kind: str, rows: Sequence[Any]) -> None:
        if kind == "ledger" and self._unkept:  # in the writer's thread
            late = self._unkept.intersection(row.id for row in rows)
            self._unkept.difference_update(late)
            self._late += late

    def flush(self, within_s: float) -> bool:
        """Wait until the store has what was added until now; False if that took too long."""
        return self._writer.flush(within_s)

    def recover(self, within_s: float) -> None:
        """Wait until the store has what was added until now, and book what processes left that were
        killed: first the rows that they had finished, then the calls that were running. Raises
        StoreError.
        """
        with self._recovering:
            if not self._writer.flush(within_s):
                raise StoreError(self._writer.trouble or "rows wait that it has not taken")
            if self._recovered:
                return
            for path, rows in take_lost(self._folder):
                if rows:
                    self.ledger().book(rows)
                    log.warning(LOST, len(rows))
                path.unlink(missing_ok=True)
            self._recovered = True

    def close(self) -> None:
        """End the notes; call it when the writer has ended."""
        if self._holds is not None:
            while self._late:
                self._holds.settled(self._late.popleft())
            self._holds.close()
