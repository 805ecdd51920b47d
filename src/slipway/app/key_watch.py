"""Keep the table of keys as the store has it, whichever process changes them."""

import logging
import threading
import time

from slipway.app.stores import LazyRecords
from slipway.keys import KeyTable
from slipway.store import StoreError

log = logging.getLogger("slipway")
POLL_S = 0.35  # between two looks: a revoked key fails within a second in every process
STOP_S = 5.0


class KeyWatch:
    """Read the keys again whenever their version in the store has changed.

    While the store cannot be read, the keys stay as they were.
    """

    def __init__(self, records: LazyRecords, table: KeyTable) -> None:
        self.records, self.table = records, table
        self._stop = threading.Event()
        self._looking = threading.Lock()
        self._thread: threading.Thread | None = None
        self._warned = False

    def look(self) -> None:
        """Read the keys now if they have changed."""
        if not self.records.is_there:
            return
        try:
            with self._looking:
                keys = self.records().keys
                if keys.version() != self.table.version:
                    self.table.replace(*keys.load())
                self.table.read_at = time.time()
        except StoreError as error:
            if not self._warned:
                log.warning("the keys in the store cannot be read: %s; they stay as known", error)
            self._warned = True
        else:
            self._warned = False

    def start(self) -> None:
        self._thread = threading.Thread(target=self._watch, name="slipway keys", daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._stop.wait(POLL_S):
            try:
                self.look()
            except Exception:  # the thread must go on: the next look may succeed
                log.exception("the keys in the store could not be read")

    def stop(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(STOP_S)
