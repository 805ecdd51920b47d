"""A small file that outlives the process: what running calls may cost at most.

A call with a budget is written here before it begins, into memory that belongs to the file: the
operating system keeps it even if the process is killed in the next moment, and no system call is
needed. When the journal or the ledger has the call, its line counts no more. Calls that were
running when a process was killed are booked by the next one, with the most that they may have cost:
nobody knows better, and a budget must not be spent twice.
"""

import contextlib
import logging
import mmap
import os
import secrets
import zlib
from collections.abc import Iterator
from pathlib import Path

import msgspec

from slipway.ledger import HeldCall, LedgerRow

try:
    import fcntl
except ImportError:  # Windows: a file that cannot be removed is still in use there
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger("slipway")
NAME, END = "holds-", ".log"
SIZE = 4 << 20  # bytes of the file at first; it grows if more calls run at a time than it can hold
GONE = ord("-")  # replaces the first byte of a line that counts no more: its checksum is wrong
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(HeldCall).decode


class HoldLog:
    """The file of this process: lines with a checksum each, up to the first zero byte.

    All calls come from one thread: that of the event loop.
    """

    def __init__(self, folder: Path, size: int = SIZE) -> None:
        """Make the file, with all its bytes: a full disk must not end us later. Raises OSError."""
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder = folder
        self._held: dict[str, tuple[int, bytes]] = {}  # where the line of a call is, and its text
        self._open(size)

    def _open(self, size: int) -> None:
        """Begin a file of this size with all that counts."""
        path = self._folder / f"{NAME}{os.getpid()}-{secrets.token_hex(4)}{END}"
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            if fcntl is not None:  # held until this process ends, so that others see that it lives
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file, 0, size)
            else:
                os.ftruncate(file, size)
            memory = mmap.mmap(file, size)
        except OSError:  # the disk is full, perhaps
            path.unlink(missing_ok=True)
            os.close(file)
            raise
        self._path, self._file, self._size = path, file, size
        self._memory, self._end = memory, 0
        for id_, (_, line) in self._held.items():
            self._append(id_, line)

    def hold(self, call: HeldCall) -> None:
        """Write a call that begins. Raises OSError if the disk is full."""
        content = _encode(call)
        line = b"%08x %b\n\0" % (zlib.crc32(content), content)
        if self._end + len(line) > self._size:
            self._begin_file(len(line))
        self._append(call.id, line)

    def settled(self, id_: str) -> None:
        """Forget a call: the journal or the ledger has it, or it was not made."""
        held = self._held.pop(id_, None)
        if held is None:
            return
        if self._held:
            self._memory[held[0]] = GONE
        else:
            self._memory[0] = self._end = 0

    def _begin_file(self, more: int) -> None:
        """Begin another file, with all that counts and space for twice as much."""
        before, memory, file = self._path, self._memory, self._file
        counts = more + sum(len(line) for _, line in self._held.values())
        self._open(max(self._size, 1 << (2 * counts).bit_length()))
        before.unlink(missing_ok=True)
        memory.close()
        os.close(file)

    def _append(self, id_: str, line: bytes) -> None:
        """Write a line and the zero after it."""
        start = self._end
        # the first byte comes last: whoever reads sees the old end or the whole line
        self._memory[start + 1 : start + len(line)] = line[1:]
        self._memory[start] = line[0]
        self._held[id_] = start, line
        self._end = start + len(line) - 1

    def close(self) -> None:
        """End the file; what is still held stays in it for the next process."""
        if not self._held:
            self._path.unlink(missing_ok=True)
        self._memory.close()  # it holds the file, and so the lock
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
    """Return what to book of the calls that still count. A line that was cut is no call: it had not
    begun.
    """
    held: dict[str, LedgerRow] = {}
    for line in data.partition(b"\0")[0].split(b"\n"):
        checksum, _, content = line.partition(b" ")
        if checksum != b"%08x" % zlib.crc32(content):
            continue
        with contextlib.suppress(msgspec.MsgspecError):
            held_call = _decode(content)
            held[held_call.id] = held_call.lost()
    return held
