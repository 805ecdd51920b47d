"""Keep records of the pipeline in files: append-only segments of blocks of a few hundred.

Every process writes segments of its own into one folder, and reads those of all. A block is a head
(its size, its checksum, the times of its first and last record) and a payload in MessagePack. The
first block of a segment names the fields of the records, so that another version can read it. An
answer is found by searching for the bytes of its id, which takes about half a millisecond a
mebibyte; a block that was cut by a crash is skipped.
"""

import contextlib
import heapq
import mmap
import os
import secrets
import struct
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from msgspec.structs import astuple

from slipway.types import AnswerDone, AttemptDone, RuleUsed, Usage

TracedRecord = AnswerDone | AttemptDone | RuleUsed
TimedRecord = tuple[float, TracedRecord]  # seconds since the epoch at which it ended

KINDS: tuple[type[TracedRecord], ...] = (AnswerDone, AttemptDone, RuleUsed)
HEAD = struct.Struct("<4sIIdd")  # magic, size of the payload, its CRC-32, first and last time
FIELDS, RECORDS = b"SWf1", b"SWr1"  # what a block holds
SUFFIX = ".trace"
SEGMENT_S = 3600.0  # a segment takes the records of an hour at most
SEGMENTS = 32  # of so many segments the folder consists at its largest
SMALLEST = 64 * 1024  # bytes of a segment, however little the folder may hold
AT_ONCE = 256  # records of a block: other threads wait while it is encoded
WINDOW = 1024 * 1024  # bytes that are searched before other threads may run
# A retry of an answer comes within this time of the try before
RETRY_S = 3600.0

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode
NUMBERS = {kind: number for number, kind in enumerate(KINDS)}
NO_USAGE = msgspec.structs.asdict(Usage())


class Block(NamedTuple):
    """A block of a segment: the times of its first and last record, and where its payload is."""

    first_at: float
    last_at: float
    start: int
    end: int


class Found(NamedTuple):
    """A record that was read: when it ended, its type, and its fields."""

    at: float
    kind: type[TracedRecord]
    fields: dict[str, Any]


class TraceWriter:
    """Writes the segments of one process, and deletes old ones of all processes."""

    def __init__(self, folder: Path, keep_s: float, at_most_bytes: int) -> None:
        self.folder = folder
        self.limit(keep_s, at_most_bytes)
        self._name = f"{os.getpid()}-{secrets.token_hex(4)}"
        self._file: int | None = None
        self._size, self._began_at = 0, 0.0

    def limit(self, keep_s: float, at_most_bytes: int) -> None:
        """Set how long records are kept, and how many bytes of them."""
        self.keep_s, self.at_most_bytes = keep_s, at_most_bytes
        self._segment_bytes = max(SMALLEST, at_most_bytes // SEGMENTS)

    def write(self, records: Sequence[TimedRecord]) -> None:
        """Append records as a block, at most AT_ONCE. Raises OSError; then nothing is written."""
        payload = encoded(records)
        now = time.time()
        if self._file is None or self._size > self._segment_bytes or self._is_old(now):
            self._begin(now)
        self._append(RECORDS, payload, records[0][0], records[-1][0])

    def _is_old(self, now: float) -> bool:
        return not 0 <= now - self._began_at < min(SEGMENT_S, self.keep_s / 4)

    def _begin(self, now: float) -> None:
        """Begin a segment, and delete those that are too old or too many."""
        self.close()
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.prune(now)
        path = self.folder / f"{int(now * 1000):014d}-{self._name}{SUFFIX}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._file, self._size, self._began_at = os.open(path, flags, 0o600), 0, now
        names = {each.__name__: each.__struct_fields__ for each in KINDS}
        self._append(FIELDS, _encode(names), now, now)

    def _append(self, magic: bytes, payload: bytes, first_at: float, last_at: float) -> None:
        if self._file is None:
            raise OSError("the segment is closed")
        head = HEAD.pack(magic, len(payload), zlib.crc32(payload), first_at, last_at)
        block = head + payload
        try:
            written = os.write(self._file, block)
            if written < len(block):  # the disk is full, perhaps: the next write says so
                os.write(self._file, block[written:])
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, self._size)
            self.close()
            raise
        self._size += len(block)

    def prune(self, now: float) -> None:
        """Delete segments older than `keep_s`, and the oldest ones beyond `at_most_bytes`.

        The newest segment of each process is only deleted for its age: it may be written to.
        """
        total, seen = 0, set[str]()
        most = self.at_most_bytes - self._segment_bytes  # one more segment is about to be written
        for path in segments(self.folder):
            writer = path.name.partition("-")[2]
            is_newest = writer not in seen
            seen.add(writer)
            with contextlib.suppress(OSError):
                found = path.stat()
                total += found.st_size
                if found.st_mtime < now - self.keep_s or (total > most and not is_newest):
                    path.unlink()

    def close(self) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):
                os.close(self._file)
            self._file = None


def encoded(records: Sequence[TimedRecord]) -> bytes:
    """Return the payload of a block: the answers, then all other records.

    Records are written without the names of their fields, and so in a third of the bytes; a usage
    has the names of its counts that are not 0.
    """
    answers, others = list[Any](), list[Any]()
    for at, record in records:
        kind = type(record)
        if kind is AnswerDone:
            answers.append((at, astuple(record)))
        else:
            others.append((at, NUMBERS[kind], astuple(record)))
    return _encode((answers, others))


def fields_of(record: TracedRecord) -> dict[str, Any]:
    """Return the fields of a record, as they would be read."""
    return with_zeros(msgspec.to_builtins(record))


def with_zeros(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a record with the counts of tokens that are 0: they are not written."""
    for each in (fields, *fields.get("other_usage", ())):
        if each.get("usage") is not None:
            each["usage"] = {**NO_USAGE, **each["usage"]}
    return fields


def segments(folder: Path) -> list[Path]:
    """Return the segments of all processes, the latest first."""
    with contextlib.suppress(OSError):
        return sorted(folder.glob(f"*{SUFFIX}"), reverse=True)
    return []


class TraceSegment:
    """A segment that is read. Use it as a context manager."""

    def __init__(self, path: Path) -> None:
        """Map the file. Raises OSError, also for an empty file."""
        with path.open("rb") as file:
            try:
                self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            except ValueError:
                raise OSError(f"{path} is empty") from None
        self._names: dict[str, tuple[str, ...]] = {}
        self.blocks = list(self._walk())

    def __enter__(self) -> "TraceSegment":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._bytes.close()

    def _walk(self) -> Iterator[Block]:
        """Yield the blocks of records; a damaged one, and what follows it, is left out."""
        data, at = self._bytes, 0
        while at + HEAD.size <= len(data):
            magic, size, _, first_at, last_at = HEAD.unpack_from(data, at)
            start = at + HEAD.size
            at = start + size
            if magic not in (FIELDS, RECORDS) or at > len(data):
                return
            if magic == RECORDS:
                yield Block(first_at, last_at, start, at)
                continue
            payload = self._payload(Block(first_at, last_at, start, at))
            if payload is None:
                return
            self._names = {k: tuple(v) for k, v in _decode(payload).items()}

    def _payload(self, block: Block) -> bytes | None:
        """Return the bytes of a block; None if they are damaged."""
        data = self._bytes[block.start : block.end]
        head = HEAD.unpack_from(self._bytes, block.start - HEAD.size)
        return data if zlib.crc32(data) == head[2] else None

    def answers(self, block: Block) -> list[tuple[float, list[Any]]]:
        """Return the answers of a block as values, in the order of `names`."""
        payload = self._payload(block)
        return [] if payload is None else _answers_in(payload)[0]

    def names(self, kind: type[Any]) -> tuple[str, ...]:
        """Return the names of a record's fields, as this segment was written."""
        return self._names.get(kind.__name__, ())

    def fields(self, kind: type[Any], values: Sequence[Any]) -> dict[str, Any]:
        """Return the fields of a record by their names."""
        found = dict(zip(self.names(kind), values, strict=False))
        usage = found.get("usage")
        if isinstance(usage, list):  # as it was written until November 2026
            found["usage"] = dict(zip(self.names(Usage), usage, strict=False))
        return with_zeros(found)

    def records_of(self, answer_id: str) -> list[Found]:
        """Return the records of an answer, in the order in which they were written."""
        found = list[Found]()
        for block in self._blocks_with(answer_id.encode()):
            payload = self._payload(block)
            if payload is None:
                continue
            answers, others = _decode(payload)
            for at, values in answers:
                if answer_id in values[:2]:
                    found.append(Found(at, AnswerDone, self.fields(AnswerDone, values)))
            for at, number, values in others:
                if answer_id in values[:2] and number < len(KINDS):
                    kind = KINDS[number]
                    found.append(Found(at, kind, self.fields(kind, values)))
        return [each for each in found if answer_of(each) == answer_id]

    def _blocks_with(self, needle: bytes) -> Iterator[Block]:
        """Yield the blocks in which some bytes are found."""
        places, start, size = list[int](), 0, len(self._bytes)
        while start < size:
            end = min(size, start + WINDOW + len(needle))
            at = self._bytes.find(needle, start, end)
            if at >= 0:
                places.append(at)
                start = at + 1
            else:
                start += WINDOW
                time.sleep(0)
        rest = iter(places)
        place = next(rest, None)
        for block in self.blocks:
            while place is not None and place < block.start:
                place = next(rest, None)
            if place is None:
                return
            if place < block.end:
                yield block


_answers_in = msgspec.msgpack.Decoder(tuple[list[tuple[float, list[Any]]], msgspec.Raw]).decode


def answer_of(found: Found) -> str:
    """Return the id of the answer that a record belongs to."""
    name = "id" if found.kind is AnswerDone else "answer_id"
    answer_id: str = found.fields.get(name, "")
    return answer_id


def find(folder: Path, answer_id: str) -> list[Found]:
    """Return all records of an answer, the oldest first. Blocks."""
    found, until = list[Found](), 0.0
    for path in segments(folder):
        with contextlib.suppress(OSError):
            if path.stat().st_mtime < until:
                continue
            with TraceSegment(path) as segment:
                found += segment.records_of(answer_id)
        if found:  # earlier tries cannot be much older
            until = min(each.at for each in found) - RETRY_S
    return sorted(found, key=lambda each: each.at)


# the names of an answer's fields -> a test of their values
TestFor = Callable[[Sequence[str]], Callable[[Sequence[Any]], bool]]


def recent(
    folder: Path, test_for: TestFor, limit: int, before: float, most: int
) -> tuple[list[Found], int]:
    """Return up to `limit` answers that pass a test, the latest first, and how many were looked at,
    which are at most about `most`. `before` is the time before which they ended. Blocks.

    Segments of several processes are read side by side, block by block, in the order of time.
    """
    found, looked = list[Found](), 0
    with contextlib.ExitStack() as opened:
        # (minus the latest time in it, number, what is read next)
        queue: list[tuple[float, int, Path | tuple[TraceSegment, int]]] = []
        for number, path in enumerate(segments(folder)):
            with contextlib.suppress(OSError):
                queue.append((-path.stat().st_mtime - 1.0, number, path))
        heapq.heapify(queue)
        while queue and looked < most:
            bound, number, each = heapq.heappop(queue)
            if len(found) >= limit and found[limit - 1].at >= -bound:
                break
            if isinstance(each, Path):
                with contextlib.suppress(OSError):
                    segment = opened.enter_context(TraceSegment(each))
                    _push(queue, number, segment, len(segment.blocks) - 1)
                continue
            segment, at = each
            block = segment.blocks[at]
            _push(queue, number, segment, at - 1)
            if block.first_at >= before:
                continue
            answers = segment.answers(block)
            looked += len(answers)
            is_wanted = test_for(segment.names(AnswerDone))
            found += [
                Found(ended_at, AnswerDone, segment.fields(AnswerDone, values))
                for ended_at, values in answers
                if ended_at < before and is_wanted(values)
            ]
            found.sort(key=lambda each: -each.at)
            del found[limit:]
            time.sleep(0)
    return found, looked


def _push(queue: list[Any], number: int, segment: TraceSegment, at: int) -> None:
    if at >= 0:
        heapq.heappush(queue, (-segment.blocks[at].last_at, number, (segment, at)))
