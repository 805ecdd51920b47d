"""Files are parsed in a child process with limits on memory, files and time, so that a bomb or a
crash there ends nothing here.

The child starts with the first file, reads one after the other, and is replaced after a crash, a
timeout, or a file that left it fat. It gets no environment of ours, and ends when we do: its input
closes. What goes over its pipes is MessagePack behind four bytes of length.
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

from slipway.knowledge.readers import Document, Unreadable, read
from slipway.lifeline import Lifeline, end_with_parent
from slipway.types import Record

_SIMPLER = "split it into smaller files, or save it in a simpler form"
# bytes; the readers stay far below, and a child that was taken over is believed no more than this
_LONGEST_ANSWER = 400_000_000
_GRACE_S = 5  # how long after the deadline a child whose parent is gone ends itself


class Job(Record, frozen=True, kw_only=True):
    path: str
    data: bytes


class Page(Record, frozen=True, kw_only=True, tag="page"):
    """Page or slide `number` is read next."""

    number: int


class Done(Record, frozen=True, kw_only=True, tag="done"):
    """`tired`: the child holds so much memory now that the next file should get a new one."""

    document: Document
    tired: bool = False


class Failed(Record, frozen=True, kw_only=True, tag="failed"):
    what: str
    fix: str
    page: int | None
    tired: bool = False


class TooSlow(Unreadable):
    """It was not read by its deadline."""


_Said = Page | Done | Failed
_encoder, _jobs, _said = (
    msgspec.msgpack.Encoder(),
    msgspec.msgpack.Decoder(Job),
    msgspec.msgpack.Decoder(_Said),
)


def _send(pipe: IO[bytes], message: object) -> None:
    body = _encoder.encode(message)
    pipe.write(len(body).to_bytes(4, "big"))
    pipe.write(body)
    pipe.flush()


def _receive(pipe: IO[bytes]) -> bytes:
    """Raises EOFError where the other side is gone or says too much."""
    head = pipe.read(4)
    length = int.from_bytes(head, "big")
    body = pipe.read(length) if len(head) == 4 and length <= _LONGEST_ANSWER else b""
    if not body or len(body) < length:
        raise EOFError
    return body


class Parser:
    """Parses in a child process; calls from several threads take turns. Use it as a context
    manager, or `close` it.
    """

    def __init__(self, deadline_s: float = 60.0, memory_mb: int = 1024) -> None:
        """`deadline_s` is the longest that any file may take. `memory_mb` is for the file, on top
        of what the child needs for itself.
        """
        self._longest_s, self._deadline_s, self._memory_mb = deadline_s, deadline_s, memory_mb
        self._child: _Child | None = None
        self._turn = threading.Lock()
        self._page: int | None = None
        self._until, self._late = math.inf, False
        self._clock = threading.Lock()  # the watch must not end the child of the next file

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
        """Ends the child. A later `parse` starts a new one."""
        with self._turn:
            self._end()

    def kill(self) -> None:
        """Ends the child, also in the middle of a file, which then fails."""
        if child := self._child:
            child.process.kill()

    @property
    def child(self) -> int | None:
        """The child's process id, where there is one."""
        child = self._child
        return child.process.pid if child else None

    def parse(self, data: bytes, path: str, deadline_s: float | None = None) -> Document:
        """Reads a file by its suffix; blocks, at most `deadline_s`. Raises Unreadable; TooSlow
        where that was too short.
        """
        with self._turn:
            self._deadline_s = min(deadline_s or self._longest_s, self._longest_s)
            child = self._started()
            self._page, self._late = None, False
            self._until = time.monotonic() + self._deadline_s
            try:
                return self._asked(child, Job(path=path, data=data))
            except (
                EOFError,
                OSError,
                msgspec.MsgspecError,
            ):  # the last: what came is no answer of ours
                raise self._lost(self._end()) from None
            except BaseException as error:
                if not isinstance(
                    error, Unreadable
                ):  # interrupted: an answer may still come, to nobody
                    self._end()
                raise
            finally:
                with self._clock:
                    self._until = math.inf
                if self._late:  # just after the answer
                    self._end()

    def _asked(self, child: "_Child", job: Job) -> Document:
        asked, told = child.process.stdin, child.process.stdout
        if asked is None or told is None:
            raise EOFError
        _send(asked, job)
        while True:
            said: _Said = _said.decode(_receive(told))
            if isinstance(said, Page):
                self._page = said.number
                continue
            if said.tired:
                self._end()
            if isinstance(said, Failed):
                raise Unreadable(said.what, said.fix, said.page)
            return said.document

    def _started(self) -> "_Child":
        if self._child and self._child.process.poll() is not None:
            self._end()
        if self._child is None:
            self._child = _Child(self._longest_s, self._memory_mb)
            threading.Thread(
                target=self._watch, args=[self._child], daemon=True, name="slipway-parsing"
            ).start()
        return self._child

    def _watch(self, child: "_Child") -> None:
        """Kills the child where a file takes too long. One thread for each child: one for each file
        would take longer than a small file.
        """
        while self._child is child:
            with self._clock:
                if time.monotonic() > self._until:
                    self._late = True
                    child.process.kill()
                    return
            time.sleep(min(0.2, self._deadline_s / 10))

    def _end(self) -> int:
        """How it ended, as `subprocess` tells it; 0 where there is no child."""
        child, self._child = self._child, None
        return child.end() if child else 0

    def _lost(self, code: int) -> Unreadable:
        if self._late:
            return TooSlow(
                f"It took longer than {self._deadline_s:g} s to read", _SIMPLER, self._page
            )
        how = signal.Signals(-code).name if -code in set(signal.Signals) else f"exit {code}"
        return Unreadable(
            f"Reading it ended the parser ({how}): it is damaged, or needs more than {self._memory_mb} MB",
            _SIMPLER,
            self._page,
        )


class _Child:
    """The process, which ends when we do."""

    def __init__(self, deadline_s: float, memory_mb: int) -> None:
        self._line = Lifeline()
        needed = {
            name: os.environ[name] for name in ("SYSTEMROOT",) if name in os.environ
        }  # Windows starts nothing without it
        code = f"from slipway.knowledge.parsing import serve; serve({deadline_s!r}, {memory_mb!r}, {self._line.fd})"
        try:
            self.process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-P", "-s", "-X", "utf8", "-c", code],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**needed, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
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
        """Closes the pipes and waits; what was not yet written is lost. Returns how the process
        ended.
        """
        self.process.kill()
        with contextlib.suppress(OSError), self.process:
            pass
        self._line.end_child()
        return self.process.wait()


# In the child


def serve(deadline_s: float, memory_mb: int, line: int) -> None:
    """The child's life: a job from stdin, pages and an answer to stdout, until stdin or `line`
    closes.
    """
    end_with_parent(line)
    asked, told = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a parser prints must not get between the answers
    fat = _limit(memory_mb)
    while True:
        try:
            job = _jobs.decode(_receive(asked))
        except EOFError:
            os._exit(0)
        _alarm(deadline_s + _GRACE_S)
        answer = _answer(job, told, memory_mb)
        _alarm(0)
        del job
        _send(told, msgspec.structs.replace(answer, tired=answer.tired or _held() > fat))


def _answer(job: Job, told: IO[bytes], memory_mb: int) -> Done | Failed:
    page: int | None = None

    def on_page(number: int) -> None:
        nonlocal page
        page = number
        _send(told, Page(number=number))

    try:
        return Done(document=read(job.data, job.path, on_page))
    except Unreadable as error:
        return Failed(what=error.what, fix=error.fix, page=error.page)
    except MemoryError:
        return Failed(
            what=f"It needs more than {memory_mb} MB of memory to read",
            fix=_SIMPLER,
            page=page,
            tired=True,
        )
    except RecursionError:
        return Failed(what="It is nested too deeply", fix="save it in a simpler form", page=page)
    # Whatever a parser raises is a file's fault, and told as that
    except Exception as error:  # noqa: BLE001
        return Failed(
            what=f"It could not be parsed ({type(error).__name__})",
            fix="save it in a simpler form, or remove it",
            page=page,
        )


def _limit(memory_mb: int) -> int:
    """Sets the limits; returns how much memory is too much to go on with. Where the system has no
    such limits, the deadline remains.
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
    """Bytes of address space; 0 where the system does not tell."""
    try:
        return int(Path("/proc/self/statm").read_bytes().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def _alarm(after_s: float) -> None:
    """The system ends this process then; 0 is never."""
    if sys.platform != "win32":
        signal.setitimer(signal.ITIMER_REAL, after_s)
