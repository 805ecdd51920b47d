"""Keep the table of keys as the store has it, whichever process changes them."""

import logging
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress

import msgspec

from slipway.app.stores import LazyRecords, write_private
from slipway.keys import KeyTable, limits_in
from slipway.settings import Allowance
from slipway.store import KeyHash, SavedKey, StoreError, is_local
from slipway.types import Record

log = logging.getLogger("slipway")
POLL_S = 0.35  # between two looks: a revoked key fails within a second in every process
STOP_S = 5.0
COPY = "keys.json"


class KeysCopy(Record, frozen=True, kw_only=True):
    """The keys as they were last read, on this machine: hashes, no keys."""

    version: int
    keys: list[SavedKey]
    hashes: list[KeyHash]


class KeyWatch:
    """Read the keys again whenever their version in the store has changed.

    While the store cannot be read, the keys stay as they were: `why_down` says why. A server that
    starts then takes the copy that the last one left on this machine. `before_use` is called with
    the limits of keys before they are in force.
    """

    def __init__(self, records: LazyRecords, table: KeyTable) -> None:
        self.records, self.table = records, table
        self.why_down: str | None = None
        self.before_use: Callable[[Mapping[str, Allowance]], None] = lambda limits: None
        local = is_local(records.settings)  # a file can be read, whoever has locked it
        self._copy = None if local else records.folder / COPY
        self._stop = threading.Event()
        self._looking = threading.Lock()
        self._thread: threading.Thread | None = None

    def look(self) -> None:
        """Read the keys now if they have changed."""
        if not self.records.is_there:
            return
        try:
            with self._looking:
                keys = self.records().keys
                if keys.version() != self.table.version:
                    version, found, hashes = keys.load()
                    self._take(KeysCopy(version=version, keys=found, hashes=hashes))
        except StoreError as error:
            if self.why_down is None:
                log.warning("the keys in the store cannot be read (%s): they stay as known", error)
            self.why_down = str(error)
            if self.table.read_at is None:
                self._take_copy()
        else:
            self.why_down = None
        self.records.read_secret()

    def _take(self, found: KeysCopy) -> None:
        self.before_use(limits_in(found.keys))
        self.table.replace(found.version, found.keys, found.hashes)
        if self._copy is not None:
            write_private(self._copy, msgspec.json.encode(found))

    def _take_copy(self) -> None:
        """Use the copy of the last server until the store can be read; without one, keys of the
        store and unknown ones look alike.
        """
        self.table.is_unknown = True
        if self._copy is None:
            return
        with suppress(OSError, msgspec.MsgspecError):
            found = msgspec.json.decode(self._copy.read_bytes(), type=KeysCopy)
            self.table.replace(found.version, found.keys, found.hashes, is_copy=True)
            log.warning("keys of the store are those that were last read on this machine")

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
