"""Parse files in a child process with limits on memory, open files and time, so that a malicious or
damaged file cannot harm the server.

The child starts with the first file, reads files one after the other, and is replaced after a
crash, a timeout, or a file that left it with too much memory. It gets none of our environment
variables, and ends when its input closes, as it does when the server ends. Messages on its pipes
are MessagePack with four bytes of length before them.
"""

import contextlib
import math
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import msgspec

from slipway.knowledge.readers import ParsedDocument, UnreadableFile, read
from slipway.knowledge.readers.ocr import switch_on
from slipway.lifeline import Lifeline, end_with_parent
from slipway.settings.environment import for_child
from slipway.types import Record

_SIMPLER = "split it into smaller files, or save it in a simpler form"
# bytes: readers return far less; it also limits a child that an attacker controls
_LONGEST_ANSWER = 400_000_000
_OCR_SHARE = 0.6  # of the time of a file, for recognising its pages
_GRACE_S = 5  # seconds after its deadline a child whose parent is gone ends itself


class ParseJob(Record, frozen=True, kw_only=True):
    """Parse `data`; the suffix of `path` names the kind."""

    path: str
    data: bytes


class PageStarted(Record, frozen=True, kw_only=True, tag="page"):
    """The child starts to read page or slide `number`."""

    number: int


class FileParsed(Record, frozen=True, kw_only=True, tag="done"):
    """`needs_restart`: the child holds so much memory that the next file should get a new one."""

    document: ParsedDocument
    needs_restart: bool = False


class ParseFailed(Record, frozen=True, kw_only=True, tag="failed"):
    """The fields of an UnreadableFile; see `FileParsed` for `needs_restart`."""

    what: str
    fix: str
    page: int | None
    needs_restart: bool = False


class ParseTimeout(UnreadableFile):
    """The file was not read within its deadline."""


_Message = PageStarted | FileParsed | ParseFailed
_encoder, _jobs, _messages = (
    msgspec.msgpack.Encoder(),
    msgspec.msgpack.Decoder(ParseJob),
    msgspec.msgpack.Decoder(_Message),
)


def _send(pipe: IO[bytes], message: object) -> None:
    body = _encoder.encode(message)
    pipe.write(len(body).to_bytes(4, "big"))
    pipe.write(body)
    pipe.flush()


def _receive(pipe: IO[bytes]) -> bytes:
    """Return the next message. Raises EOFError if the other side is gone or sends too much."""
    head = pipe.read(4)
    length = int.from_bytes(head, "big")
    body = pipe.read(length) if len(head) == 4 and length <= _LONGEST_ANSWER else b""
    if not body or len(body) < length:
        raise EOFError
    return body


class Parser:
    """Parse files in a child process, one at a time for all threads. Use it as a context manager,
    or `close` it.
    """

    def __init__(
        self, deadline_s: float = 60.0, memory_mb: int = 1024, *, ocr: bool = False
    ) -> None:
        """`deadline_s` is the longest time for any file. `memory_mb` is for the file, on top of
        what the child needs for itself. `ocr` recognises the text of scanned pages.
        """
        self._ocr = ocr
        self._longest_s, self._deadline_s, self._memory_mb = deadline_s, deadline_s, memory_mb
        self._child: _Child | None = None
        self._turn = threading.Lock()
        self._page: int | None = None
        self._until, self._late = math.inf, False
        self._clock = (
            threading.Lock()
        )  # so that the watching thread never kills the child of the next file

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the child. A later `parse` starts a new one."""
        with self._turn:
            self._end()

    def kill(self) -> None:
        """Kill the child, even while it reads a file, which then fails."""
        if child := self._child:
            child.process.kill()

    @property
    def child(self) -> int | None:
        """Return the child's process id; None without a child."""
        child = self._child
        return child.process.pid if child else None

    def parse(self, data: bytes, path: str, deadline_s: float | None = None) -> ParsedDocument:
        """Read a file by its suffix; block for at most `deadline_s`.

        Raises UnreadableFile, or its subclass ParseTimeout if the deadline passed.
        """
        with self._turn:
            self._deadline_s = min(deadline_s or self._longest_s, self._longest_s)
            child = self._started()
            self._page, self._late = None, False
            self._until = time.monotonic() + self._deadline_s
            try:
                return self._run(child, ParseJob(path=path, data=data))
            except (
                EOFError,
                OSError,
                msgspec.MsgspecError,
            ):  # MsgspecError: the answer is not one of our messages
                raise self._lost(self._end()) from None
            except BaseException as error:
                if not isinstance(
                    error, UnreadableFile
                ):  # interrupted: an answer may still come that nobody reads
                    self._end()
                raise
            finally:
                with self._clock:
                    self._until = math.inf
                if self._late:  # the deadline passed just after the answer
                    self._end()

    def _run(self, child: "_Child", job: ParseJob) -> ParsedDocument:
        requests, replies = child.process.stdin, child.process.stdout
        if requests is None or replies is None:
            raise EOFError
        _send(requests, job)
        while True:
            said: _Message = _messages.decode(_receive(replies))
            if isinstance(said, PageStarted):
                self._page = said.number
                continue
            if said.needs_restart:
                self._end()
            if isinstance(said, ParseFailed):
                raise UnreadableFile(said.what, said.fix, said.page)
            return said.document

    def _started(self) -> "_Child":
        if self._child and self._child.process.poll() is not None:
            self._end()
        if self._child is None:
            self._child = _Child(self._longest_s, self._memory_mb, ocr=self._ocr)
            threading.Thread(
                target=self._watch, args=[self._child], daemon=True, name="slipway-parsing"
            ).start()
        return self._child

    def _watch(self, child: "_Child") -> None:
        """Kill the child if a file takes too long. One thread serves a child for all its files,
        since starting a thread takes longer than reading a small file.
        """
        while self._child is child:
            with self._clock:
                if time.monotonic() > self._until:
                    self._late = True
                    child.process.kill()
                    return
            time.sleep(min(0.2, self._deadline_s / 10))

    def _end(self) -> int:
        """End the child; return its `subprocess` return code, 0 without a child."""
        child, self._child = self._child, None
        return child.end() if child else 0

    def _lost(self, code: int) -> UnreadableFile:
        if self._late:
            return ParseTimeout(
                f"It took longer than {self._deadline_s:g} s to read", _SIMPLER, self._page
            )
        how = signal.Signals(-code).name if -code in set(signal.Signals) else f"exit {code}"
        return UnreadableFile(
            f"Reading it ended the parser ({how}): it is damaged, or needs more than {self._memory_mb} MB",
            _SIMPLER,
            self._page,
        )


class _Child:
    """The child process; it ends when this process ends."""

    def __init__(self, deadline_s: float, memory_mb: int, *, ocr: bool) -> None:
        self._line = Lifeline()
        code = f"from slipway.knowledge.parsing import serve; serve({deadline_s!r}, {memory_mb!r}, {self._line.fd}, ocr={ocr!r})"
        try:
            self.process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-P", "-s", "-X", "utf8", "-c", code],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=for_child(("SYSTEMROOT",)),  # Windows starts no process without it
                cwd=Path(sys.executable).anchor,
                start_new_session=True,  # Ctrl+C is for the parent
                pass_fds=self._line.fds,
            )
        except BaseException:  # no pipe stays open
            self._line.end_child()
            raise
        finally:
            self._line.close_child_end()

    def end(self) -> int:
        """Kill the process, close its pipes and return its exit code; unwritten bytes are lost."""
        self.process.kill()
        with contextlib.suppress(OSError), self.process:
            pass
        self._line.end_child()
        return self.process.wait()


# In the child


def serve(deadline_s: float, memory_mb: int, line: int, *, ocr: bool = False) -> None:
    """Run in the child: read jobs from stdin, write pages and answers to stdout, until stdin or
    `line` closes.
    """
    if ocr:
        switch_on(_OCR_SHARE * deadline_s)
    end_with_parent(line)
    requests, replies = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a parser prints must not mix with the answers
    restart_above = _limit(memory_mb)
    while True:
        try:
            job = _jobs.decode(_receive(requests))
        except EOFError:
            os._exit(0)
        _alarm(deadline_s + _GRACE_S)
        answer = _answer(job, replies, memory_mb)
        _alarm(0)
        del job
        _send(
            replies,
            msgspec.structs.replace(
                answer, needs_restart=answer.needs_restart or _held() > restart_above
            ),
        )


def _answer(job: ParseJob, replies: IO[bytes], memory_mb: int) -> FileParsed | ParseFailed:
    page: int | None = None

    def on_page(number: int) -> None:
        nonlocal page
        page = number
        _send(replies, PageStarted(number=number))

    try:
        return FileParsed(document=read(job.data, job.path, on_page))
    except UnreadableFile as error:
        return ParseFailed(what=error.what, fix=error.fix, page=error.page)
    except MemoryError:
        return ParseFailed(
            what=f"It needs more than {memory_mb} MB of memory to read",
            fix=_SIMPLER,
            page=page,
            needs_restart=True,
        )
    except RecursionError:
        return ParseFailed(
            what="It is nested too deeply", fix="save it in a simpler form", page=page
        )
    # Parsers raise anything for damaged files: replies as that
    except Exception as error:  # noqa: BLE001
        return ParseFailed(
            what=f"It could not be parsed ({type(error).__name__})",
            fix="save it in a simpler form, or remove it",
            page=page,
        )


def _limit(memory_mb: int) -> int:
    """Set the limits; return how many bytes of memory make a restart necessary. On systems without
    such limits only the deadline protects.
    """
    own = _held()
    limit = own + memory_mb * 1_000_000
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        for kind, most in (("CORE", 0), ("FSIZE", 0), ("NOFILE", 64), ("AS", limit if own else 0)):
            if most or kind != "AS":
                resource.setrlimit(getattr(resource, f"RLIMIT_{kind}"), (most, most))
    return own + memory_mb * 1_000_000 // 4


def _held() -> int:
    """Return the bytes of address space in use; 0 if the system does not report them."""
    try:
        return int(Path("/proc/self/statm").read_bytes().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def _alarm(after_s: float) -> None:
    """Have the system kill this process after so many seconds; 0 cancels it."""
    if sys.platform != "win32":
        signal.setitimer(signal.ITIMER_REAL, after_s)
