"""A small file that outlives the process: what running calls may cost at most.

A call with a budget is written here before it begins, by one write that the operating system keeps
even if the process is killed in the next moment. When the call is in the ledger, its line counts no
more. Calls that were running when a process was killed are booked by the next one, with the most
that they may have cost: nobody knows better, and a budget must not be spent twice.
"""

import contextlib
import logging
import os
import secrets
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from slipway.ledger import LedgerRow

try:
    import fcntl
except ImportError:  # Windows: a file that cannot be removed is still in use there
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger("slipway")
NAME, END = "holds-", ".log"
LARGEST = 4 << 20  # bytes, after which the file is written again with what still counts
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(LedgerRow).decode


class HoldLog:
    """The file of this process. `hold` is called on the event loop, `settled` in any thread."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._path = folder / f"{NAME}{os.getpid()}-{secrets.token_hex(4)}{END}"
        self._file = os.open(
            self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600
        )
        if fcntl is not None:  # held until this process ends, so that others see that it lives
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._held: dict[str, bytes] = {}
        self._size = 0
        self._lock = threading.Lock()

    def hold(self, row: LedgerRow) -> None:
        """Write a call that begins. Raises OSError if the disk is full."""
        line = _encode(row) + b"\n"
        with self._lock:
            self._held[row.id] = line
            self._write(line)

    def settled(self, ids: Iterable[str]) -> None:
        """Forget calls: they are in the ledger, or were not made."""
        with self._lock:
            gone = [id_ for id_ in ids if self._held.pop(id_, None) is not None]
            if not gone:
                return
            try:
                if not self._held or self._size > LARGEST:
                    os.ftruncate(self._file, 0)
                    self._size = 0
                    self._write(b"".join(self._held.values()))
                else:
                    self._write(b"".join(b"-%b\n" % id_.encode() for id_ in gone))
            except OSError as error:  # they are skipped when they are booked a second time
                log.warning("%s cannot be written (%s)", self._path, error.strerror)

    def _write(self, data: bytes) -> None:
        if data:
            os.write(self._file, data)
            self._size += len(data)

    def close(self) -> None:
        """End the file; what is still held stays in it for the next process."""
        if not self._held:
            self._path.unlink(missing_ok=True)
        os.close(self._file)


def take_lost(folder: Path) -> Iterator[tuple[Path, list[LedgerRow]]]:
    """Yield (file, calls that were running) of each process that has ended. The caller removes the
    file when the calls are booked.
    """
    for path in sorted(folder.glob(f"{NAME}*{END}")):
        with contextlib.suppress(OSError), path.open("rb") as file:
            try:
                if fcntl is not None:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue  # its process lives
            yield path, list(read(file.read()).values())


def read(data: bytes) -> dict[str, LedgerRow]:
    """Return the calls that still count. A last line that was cut is no call: it had not begun."""
    held: dict[str, LedgerRow] = {}
    for line in data.split(b"\n"):
        if line.startswith(b"-"):
            held.pop(line[1:].decode("ascii", "replace"), None)
        elif line:
            try:
                row = _decode(line)
            except msgspec.MsgspecError:
                continue
            held[row.id] = row
    return held
