"""A small file that outlives the process: what running calls may cost at most.

A call with a budget is written here before it begins, into memory that belongs to the file: the
operating system keeps it even if the process is killed in the next moment, and no system call is
needed. When the call is in the ledger, its line counts no more. Calls that were running when a
process was killed are booked by the next one, with the most that they may have cost: nobody knows
better, and a budget must not be spent twice.
"""

import contextlib
import logging
import mmap
import os
import secrets
import threading
import zlib
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
SIZE = 4 << 20  # bytes of the file at first; it grows if more calls run at a time than it can hold
GONE = b"-"  # begins the line of a call that counts no more
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(LedgerRow).decode


class HoldLog:
    """The file of this process: lines with a checksum each, up to the first zero byte.

    `hold` is called on the event loop, `settled` in any thread.
    """

    def __init__(self, folder: Path, size: int = SIZE) -> None:
        """Make the file, with all its bytes: a full disk must not end us later. Raises OSError."""
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder = folder
        self._held: dict[str, bytes] = {}
        self._lock = threading.Lock()
        self._open(size)

    def _open(self, size: int) -> None:
        """Begin a file of this size with all that counts."""
        path = self._folder / f"{NAME}{os.getpid()}-{secrets.token_hex(4)}{END}"
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        if fcntl is not None:  # held until this process ends, so that others see that it lives
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file, 0, size)
        else:
            os.ftruncate(file, size)
        self._path, self._file, self._size = path, file, size
        self._memory, self._end = mmap.mmap(file, size), 0
        self._append(b"".join(self._held.values()))

    def hold(self, row: LedgerRow) -> None:
        """Write a call that begins. Raises OSError if the disk is full."""
        line = checked(_encode(row))
        with self._lock:
            self._held[row.id] = line
            self._append(line)

    def settled(self, ids: Iterable[str]) -> None:
        """Forget calls: they are in the ledger, or were not made."""
        with self._lock:
            gone = [id_ for id_ in ids if self._held.pop(id_, None) is not None]
            if not self._held:
                self._memory[0], self._end = 0, 0
            elif gone:
                with contextlib.suppress(OSError):  # the ledger skips what it has already
                    self._append(b"".join(checked(GONE + id_.encode()) for id_ in gone))

    def _append(self, lines: bytes) -> None:
        """Write lines; if there is no space left, begin another file, with all that counts."""
        if not lines:
            return
        if self._end + len(lines) >= self._size:
            before, file = self._path, self._file
            counts = sum(map(len, self._held.values()))
            self._open(max(self._size, 1 << (2 * counts).bit_length()))
            before.unlink(missing_ok=True)
            os.close(file)
            return
        start, self._end = self._end, self._end + len(lines)
        # first the new end, then the bytes before it: whoever reads sees the old end or the new one
        self._memory[self._end] = 0
        self._memory[start + 1 : self._end] = lines[1:]
        self._memory[start] = lines[0]

    def close(self) -> None:
        """End the file; what is still held stays in it for the next process."""
        with self._lock:
            if not self._held:
                self._path.unlink(missing_ok=True)
            self._memory.close()  # it holds the file, and so the lock
            os.close(self._file)


def checked(content: bytes) -> bytes:
    """Return a line with its checksum."""
    return b"%08x %b\n" % (zlib.crc32(content), content)


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
    """Return the calls that still count. A line that was cut is no call: it had not begun."""
    held: dict[str, LedgerRow] = {}
    for line in data.partition(b"\0")[0].split(b"\n"):
        checksum, _, content = line.partition(b" ")
        if checksum != b"%08x" % zlib.crc32(content):
            continue
        if content.startswith(GONE):
            held.pop(content[1:].decode("ascii", "replace"), None)
            continue
        with contextlib.suppress(msgspec.MsgspecError):
            row = _decode(content)
            held[row.id] = row
    return held
