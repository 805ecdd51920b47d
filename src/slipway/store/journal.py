"""Append-only files that keep acknowledged rows until the store has them.

A row is appended before its request ends, so it outlives this process however that is killed: into
memory that belongs to the file, so that no system call is needed, or past it by a write. Each
process writes segments of its own and holds their locks; whoever finds a segment without its
process takes the rows over. Rows have ids, so writing one twice does no harm.
"""

import contextlib
import logging
import mmap
import os
import secrets
import threading
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from slipway.types import Record

try:
    import fcntl
except ImportError:  # Windows: segments of another process are taken over at the start only
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger("slipway")
_sync = getattr(os, "fdatasync", os.fsync)  # some systems have only the slower one
_HAS_LOCKS: bool = fcntl is not None
SEGMENT_BYTES = 4 * 1024 * 1024  # a larger segment is closed, and the next one begun
_SUFFIX = ".rows"
_BAD = ".unreadable"


class KeptRow(Record, frozen=True, kw_only=True):
    """A row that the journal kept, and its kind."""

    kind: str
    row: Any


class Segment:
    """One file of the journal: lines up to the first zero byte, and those after `SEGMENT_BYTES`.
    `unsaved` counts its rows that are not in the store.

    If `is_read_later`, its rows are in the file only, and not in memory.
    """

    def __init__(self, path: Path, *, is_read_later: bool = False) -> None:
        """Open the file and take its lock. Raises OSError, also if another process holds it."""
        self.path, self.is_read_later = path, is_read_later
        self.file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
        self.size = self.unsaved = 0
        self._memory: mmap.mmap | None = None
        self._end = 0  # of the lines in the memory
        self._torn = False  # the last write stopped in the middle of a line
        try:
            if fcntl is not None:
                fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self.file)
            raise

    @classmethod
    def created(cls, path: Path, *, is_read_later: bool) -> "Segment":
        """Create a segment. It gets its name once it is locked, so that nobody takes it over."""
        unnamed = path.with_suffix(".new")
        os.close(os.open(unnamed, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        segment = cls(unnamed, is_read_later=is_read_later)
        segment.map()
        segment.path = unnamed.rename(path)
        return segment

    def map(self) -> None:
        """Give the file all its bytes now: a full disk must not end us when they are written."""
        with contextlib.suppress(OSError, AttributeError):  # then lines are written
            os.posix_fallocate(self.file, 0, SEGMENT_BYTES)
            self._memory = mmap.mmap(self.file, SEGMENT_BYTES)

    def append(self, line: bytes) -> None:
        """Write a line. Raises OSError; what was written of it then is skipped when it is read."""
        start, end = self._end, self._end + len(line)
        if self._memory is not None and end < SEGMENT_BYTES:
            # first the new end, then the bytes before it: a reader sees the old end or the new one
            self._memory[end] = 0
            self._memory[start + 1 : end] = line[1:]
            self._memory[start] = line[0]
            self._end = end
            self.size += len(line)
            self.unsaved += 1
            return
        data = b"\n" + line if self._torn else line
        self._torn = True
        written = os.write(self.file, data)
        if written < len(data):  # the disk is full, perhaps: the next write says so
            self.size += written
            os.write(self.file, data[written:])
        self._torn = False
        self.size += len(data)
        self.unsaved += 1

    def sync(self) -> None:
        """Return when all lines are on the disk. Raises OSError."""
        _sync(self.file)

    def empty(self) -> None:
        """Forget the lines."""
        if self._memory is not None:
            self._memory[0] = self._end = 0
        if self._memory is None or self.size >= SEGMENT_BYTES:
            os.ftruncate(self.file, 0 if self._memory is None else SEGMENT_BYTES)
        self.size = 0

    def delete(self) -> None:
        with contextlib.suppress(OSError):
            self.path.unlink()
        self.close()

    def close(self) -> None:
        if self._memory is not None:
            self._memory.close()  # it holds the file, and so the lock
            self._memory = None
        with contextlib.suppress(OSError):
            os.close(self.file)


class Journal:
    """The segments of a folder. `append` is called on the event loop: one write, without a sync.

    `current` is the segment that is written; None if the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.current: Segment | None = None
        self._lock = threading.Lock()  # held for microseconds: appending, and changing segments

    def append(self, kind: str, content: bytes) -> Segment:
        """Append a row, and return the segment that holds it now. Raises OSError."""
        line = encoded(kind, content)
        with self._lock:
            if self.current is None:
                self.current = self._segment(is_read_later=False)
            self.current.append(line)
            return self.current

    def begin_segment(self, *, is_read_later: bool = False) -> Segment | None:
        """Write another segment from now on; return the one before. Raises OSError."""
        fresh = self._segment(is_read_later=is_read_later)
        with self._lock:
            before, self.current = self.current, fresh
        return before

    def saved(self, segment: Segment, rows: int) -> None:
        """Note that rows of a segment are in the store; a segment without others is emptied."""
        with self._lock:
            segment.unsaved -= rows
            if segment.unsaved:
                return
            if segment is self.current:
                segment.empty()
                return
        segment.delete()

    def _segment(self, *, is_read_later: bool) -> Segment:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        name = f"{os.getpid()}-{secrets.token_hex(6)}{_SUFFIX}"
        return Segment.created(self.folder / name, is_read_later=is_read_later)

    def abandoned(self) -> Iterator[Segment]:
        """Yield the segments of processes that have ended, with their locks taken over."""
        for path in sorted(self.folder.glob(f"*{_SUFFIX}")):
            if not _HAS_LOCKS and path.name.startswith(f"{os.getpid()}-"):
                continue
            try:
                segment = Segment(path, is_read_later=True)
            except OSError:  # it is in use, or gone
                continue
            if os.fstat(segment.file).st_nlink:
                yield segment
            else:
                segment.close()  # another process was faster

    def read(self, segment: Segment, read_row: Callable[[str, bytes], Any]) -> list[KeptRow]:
        """Return the rows of a segment; `read_row` turns a kind and JSON into a row.

        Lines that were cut or damaged, or that it cannot read (ValueError), are set aside.
        """
        rows, unreadable = list[KeptRow](), list[bytes]()
        for line in lines_of(segment.path):
            try:
                kind, content = decoded(line)
                rows.append(KeptRow(kind=kind, row=read_row(kind, content)))
            except ValueError:
                unreadable.append(line + b"\n")
        if unreadable:
            self._set_aside(segment, unreadable)
        return rows

    def count(self, segment: Segment) -> int:
        """Return how many lines a segment has."""
        return len(lines_of(segment.path))

    def _set_aside(self, segment: Segment, lines: list[bytes]) -> None:
        aside = segment.path.with_suffix(_BAD)
        with aside.open("ab") as file:
            file.writelines(lines)
        log.warning(
            "%d lines of the journal cannot be read (cut, damaged, or of a newer Slipway): kept "
            "in %s",
            len(lines),
            aside,
        )

    def close(self) -> None:
        """Close the current segment, and delete it if the store has all of it."""
        with self._lock:
            segment, self.current = self.current, None
        if segment is None:
            return
        if segment.unsaved:
            segment.close()
        else:
            segment.delete()


def lines_of(path: Path) -> list[bytes]:
    """Return the lines of a segment's file."""
    data = path.read_bytes()
    mapped, zero, _ = data[:SEGMENT_BYTES].partition(b"\0")
    if zero:
        data = mapped + b"\n" + data[SEGMENT_BYTES:]
    return [line for line in data.split(b"\n") if line.strip()]


def encoded(kind: str, content: bytes) -> bytes:
    """Return the line of a row: a checksum, the kind, and the row as JSON."""
    body = kind.encode() + b" " + content
    return b"%08x %b\n" % (zlib.crc32(body), body)


def decoded(line: bytes) -> tuple[str, bytes]:
    """Return the kind and the JSON of a line. Raises ValueError if it is cut or damaged."""
    checksum, _, body = line.partition(b" ")
    kind, _, content = body.partition(b" ")
    if checksum != b"%08x" % zlib.crc32(body):
        raise ValueError("the checksum differs")
    return kind.decode(), content
