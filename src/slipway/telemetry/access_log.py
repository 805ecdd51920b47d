"""The access log: a line of JSON for each request, on the standard output.

A line says who asked what for, how it ended and what it took; it never holds a prompt, an answer, a
key or text of a document, unless content is switched on. A request costs the event loop a
microsecond; a thread writes what came in half a second. A standard output that is closed, or that
nobody reads, stops nothing: lines are dropped and counted.
"""

import errno
import logging
import os
import stat
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import msgspec

from slipway.prices import PICO
from slipway.telemetry.content import said_in, sent_in
from slipway.telemetry.redaction import redacted
from slipway.types import AnswerDone, Record

log = logging.getLogger("slipway")
WRITE_S = 0.5
MOST_WAITING = 20_000  # requests
MOST_UNCLAIMED = 10_000  # answers whose request has not ended
MOST_OF_PATH = 200  # characters
MOST_PATHS = 1000  # whose form in the log is kept
UNCLAIMED_S = 60.0  # after that, an answer gets a line without a request
ATOMIC = 4096  # bytes that a pipe takes from one process at once (PIPE_BUF)
AT_ONCE = 64  # lines that are made before they are written and other threads may run
STUCK_S = 2.0  # how long a full pipe is waited for
CLOSE_S = 3.0
CLIENT_LEFT = 499  # the status of a request whose client left before the response, as nginx has it
BROKEN = "the access log cannot be written (%s): its lines are dropped until it can"

MILLISECONDS = tuple(f".{each:03d}Z" for each in range(1000))  # as a time ends

TimedAnswer = tuple[float, AnswerDone]  # seconds since the epoch at which it ended

_encode = msgspec.json.Encoder().encode_lines


class RequestSeen(Record, frozen=True, kw_only=True, gc=False):
    """A request that has ended. `ref` is the id of its answer, `head` the beginning of the response;
    `body` and `said` are its content, if that is logged.
    """

    at: float  # seconds since the epoch
    duration_s: float
    method: str
    path: str
    head: bytes
    ref: str | None
    tenant: str | None
    key: str | None  # identifies it without revealing it
    error: str | None = None  # its code
    body: bytes | None = None
    said: Sequence[bytes] = ()


class AccessLog:
    """Writes the access log; `note` takes requests and `keep` answers, on the event loop."""

    def __init__(
        self,
        *,
        content: bool = False,
        redact: Callable[[str], str] = redacted,
        on_lost: Callable[[int], None] = lambda count: None,
        file: int = 1,
    ) -> None:
        """`file` is where lines are written to; `redact` cleans content."""
        self.content, self.redact = content, redact
        self._on_lost, self._file = on_lost, file
        self._is_file = is_file(file)
        self.lost = 0
        self._requests: deque[RequestSeen] = deque()
        self._answers: deque[TimedAnswer] = deque(maxlen=MOST_WAITING)
        # Keep an answer that has ended for its line
        self.keep: Callable[[TimedAnswer], None] = self._answers.append
        # Most requests are for a few paths, and to look through one takes as long as all else here
        self._paths: dict[str, str] = {}
        self._unclaimed: dict[str, TimedAnswer] = {}
        self._ends = threading.Event()
        self._thread: threading.Thread | None = None
        self._is_failing = False

    def note(self, request: RequestSeen) -> None:
        """Take a request that has ended."""
        if len(self._requests) < MOST_WAITING:
            self._requests.append(request)
        else:
            self._lose(1)

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="slipway-log", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._ends.wait(WRITE_S):
            self.write()
        self.write()

    def close(self) -> None:
        """Write the last lines, for a moment, and end."""
        self._ends.set()
        if self._thread is not None:
            self._thread.join(CLOSE_S)

    def write(self) -> None:
        """Write what has come until now."""
        try:
            left = b""
            for lines in self._lines():
                left = left + lines if left else self._put(lines)
            if left:
                self._lose(left.count(b"\n"))
        except Exception:  # a defect here must not end the log for good
            log.exception("bug: lines of the access log could not be written")

    def _lines(self) -> Iterator[bytes]:
        """Yield the lines of what has come until now, many at once."""
        # first the requests: their answers have ended before them, and are in the other queue
        requests = [self._requests.popleft() for _ in range(len(self._requests))]
        for _ in range(len(self._answers)):
            timed = self._answers.popleft()
            self._unclaimed[timed[1].id] = timed
        for start in range(0, len(requests), AT_ONCE):
            yield _encode([self._request_line(each) for each in requests[start : start + AT_ONCE]])
        yield _encode([answer_line(at, answer) for at, answer in self._take_late()])

    def _take_late(self) -> Iterator[TimedAnswer]:
        """Take out the answers whose request is not waited for any longer."""
        late = time.time() - UNCLAIMED_S
        while self._unclaimed:
            ref, (at, answer) = next(iter(self._unclaimed.items()))
            is_full = len(self._unclaimed) > MOST_UNCLAIMED
            if not (at < late or is_full or self._ends.is_set()):
                return
            del self._unclaimed[ref]
            yield at, answer

    def _request_line(self, request: RequestSeen) -> dict[str, Any]:
        ref = request.ref
        line = {
            "time": iso(request.at),
            "kind": "request",
            "id": ref,
            "method": request.method,
            "path": self._paths.get(request.path) or self._path(request.path),
            "status": int(request.head[9:12]) if request.head else CLIENT_LEFT,
            "duration_s": microseconds(request.duration_s),
            "tenant": request.tenant,
            "key": request.key,
            "error": request.error,
        }
        found = self._unclaimed.pop(ref, None) if ref is not None else None
        if found is not None:
            line |= facts_of(found[1])
        if self.content and request.body is not None:
            line["request"] = sent_in(request.body, self.redact)
            line["response"] = said_in(request.said, self.redact)
        return line

    def _path(self, path: str) -> str:
        """Return a path without what looks like a key; most are asked for again and again."""
        found = self.redact(path[:MOST_OF_PATH])
        if len(self._paths) >= MOST_PATHS:
            self._paths.clear()
        if len(path) <= MOST_OF_PATH:
            self._paths[path] = found
        return found

    def _put(self, lines: bytes) -> bytes:
        """Write lines, and return those that could not be written: whole ones, and into a pipe as
        many at once as other processes cannot write into.
        """
        if self._is_file:
            return b"" if self._write_all(lines) else lines
        start = 0
        while start < len(lines):
            end = lines.rfind(b"\n", start, start + ATOMIC) + 1
            end = end or lines.index(b"\n", start) + 1  # a line that is longer
            if not self._write_all(lines[start:end]):
                return lines[start:]
            start = end
        return b""

    def _write_all(self, data: bytes) -> bool:
        until = time.monotonic() + STUCK_S
        while data:
            try:
                data = data[os.write(self._file, data) :]
            except BlockingIOError:  # whoever started us made it so
                if time.monotonic() > until:
                    self._fail("nobody reads it")
                    return False
                time.sleep(0.02)
            except OSError as error:
                self._fail(os.strerror(error.errno or errno.EIO))
                return False
        if self._is_failing:
            self._is_failing = False
            log.info("the access log is written again")
        return True

    def _fail(self, why: str) -> None:
        if not self._is_failing:
            self._is_failing = True
            log.warning(BROKEN, why)

    def _lose(self, count: int) -> None:
        self.lost += count
        self._on_lost(count)


def is_file(file: int) -> bool:
    """Return whether it is a file on a disk; False if it is closed."""
    try:
        return stat.S_ISREG(os.fstat(file).st_mode)
    except OSError:
        return False


def iso(at: float) -> str:
    """Return a time as `2026-11-28T08:44:51.156Z`."""
    whole = int(at)
    return second(whole) + MILLISECONDS[int((at - whole) * 1000)]


def microseconds(seconds: float) -> float:
    """Return a duration with six decimals; `round` takes twice as long."""
    return int(seconds * 1e6 + 0.5) / 1e6


@lru_cache(maxsize=64)
def second(at: int) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def dollars(picodollars: int | None) -> str | None:
    """Return an amount in USD, exactly and without an exponent."""
    if picodollars is None:
        return None
    whole, rest = divmod(picodollars, PICO)
    return f"{whole}.{rest:012d}".rstrip("0") if rest else str(whole)


def facts_of(a: AnswerDone) -> dict[str, Any]:
    """Return what a line says of an answer."""
    usage = a.usage
    return {
        "endpoint": a.endpoint,
        "app": a.app,
        "model": a.model,
        "served_by": a.served_by,
        "cache": a.cache,
        "streamed": a.streamed,
        "answer_s": microseconds(a.duration_s),
        "ttft_s": None if a.ttft_s is None else microseconds(a.ttft_s),
        "input_tokens": None if usage is None else usage.input_tokens,
        "output_tokens": None if usage is None else usage.output_tokens,
        "cost_usd": dollars(a.cost),
        "error": a.error,
        "trace_id": None if a.trace is None else a.trace.trace_id,
    }


def answer_line(at: float, a: AnswerDone) -> dict[str, Any]:
    """Return the line of an answer without a request that waited for it."""
    who = {"tenant": a.tenant, "key": a.owner}
    return {"time": iso(at), "kind": "answer", "id": a.id, **who, **facts_of(a)}
