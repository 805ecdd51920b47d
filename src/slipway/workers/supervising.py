"""The supervisor: start the workers, start a dead one again, pass signals on, carry their calls.

It is one thread without an event loop, so that it can fork at any moment. It imports what workers
need before the first fork: they share that memory.
"""

import logging
import os
import selectors
import signal
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from slipway.errors import SettingsError
from slipway.types import Record
from slipway.workers.board import Board
from slipway.workers.channel import Line, decode, encode

log = logging.getLogger("slipway")
STEADY_S = 3.0  # a worker that lived this long is started again at once
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0  # before a worker is started that died sooner
LATE_S = 10.0  # how long after the grace a worker may take to end
_READ_BYTES = 1 << 16
_NAMES = ("SIGTERM", "SIGINT", "SIGCHLD", "SIGHUP")
_SIGNALS = tuple(getattr(signal, name) for name in _NAMES if hasattr(signal, name))

Answer = Callable[[Any], None]
SupervisorVerb = Callable[["Worker", Any, Answer], None]


class Place(Record, frozen=True, kw_only=True):
    """What a worker process is given: its number, from 1, and its end of the channel."""

    number: int
    end: socket.socket

    @property
    def is_first(self) -> bool:
        """Return whether this worker keeps the documents and the store."""
        return self.number == 1


class Worker:
    """A worker as the supervisor sees it; it outlives the processes that run as this worker."""

    def __init__(self, number: int) -> None:
        self.number, self.pid = number, 0
        self.end: socket.socket | None = None
        self.arriving, self.leaving = bytearray(), bytearray()  # bytes of the channel
        self.ready = False
        self.started_at = 0.0
        self.start_at: float | None = None  # when it is started next
        self.early_ends = 0  # how often in a row it ended soon after its start
        self.problems: list[str] = []


class Supervisor:
    """Runs in the process that the user started. `run` returns in every worker, with its place,
    and in the supervisor with None, once all have ended.

    `verbs` are what workers may call here, besides those of this class.
    """

    def __init__(
        self,
        board: Board,
        sockets: Sequence[socket.socket],
        inner: socket.socket,
        *,
        grace_s: Callable[[], float],
        on_ready: Callable[[], None],
        unfinished: Callable[[int], int],
    ) -> None:
        """Take the sockets that the workers listen on; `inner` is for the first one only.

        `on_ready` is called once, when all workers take requests; `unfinished` says how many
        answers ever began in a worker and did not finish.
        """
        self.board, self.sockets, self.inner = board, sockets, inner
        self.workers = {number: Worker(number) for number in range(1, board.workers + 1)}
        self.verbs: dict[str, SupervisorVerb] = {"ready": self._ready, "leaving": self._leaving}
        self.verbs["failed"] = self._failed
        self.grace_s, self.on_ready, self.unfinished = grace_s, on_ready, unfinished
        self.all_were_ready = False
        self._had_terminal = os.isatty(0)
        self._selector = selectors.DefaultSelector()
        self._calls: dict[int, tuple[Worker, Callable[[Line], None]]] = {}
        self._number = 0
        self._covers: dict[int, int] = {}  # worker -> the one that accepts its connections
        self._stop_at: float | None = None  # when workers that still run are killed
        self._signals_in, self._signals_out = socket.socketpair()

    def run(self) -> Place | None:
        """Start the workers and keep them running until SIGTERM or SIGINT.

        Raise SettingsError if one cannot start at all.
        """
        with self._signals():
            for worker in self.workers.values():
                worker.start_at = 0.0
            while True:
                for worker in self._due():
                    if (place := self._start(worker)) is not None:
                        return place
                if not any(worker.pid for worker in self.workers.values()) and self._is_stopping:
                    break
                for key, _ in self._selector.select(self._pause_s()):
                    key.data()
                self._kill_late()
        if problems := [p for worker in self.workers.values() for p in worker.problems]:
            raise SettingsError(list(dict.fromkeys(problems)))
        return None

    @property
    def _is_stopping(self) -> bool:
        return self._stop_at is not None

    def _due(self) -> list[Worker]:
        """Return the workers whose time to start has come."""
        now = time.monotonic()
        times = [(worker, worker.start_at) for worker in self.workers.values()]
        return [worker for worker, at in times if at is not None and at <= now]

    def _pause_s(self) -> float | None:
        times = [worker.start_at for worker in self.workers.values() if worker.start_at is not None]
        times += [self._stop_at] if self._stop_at is not None else []
        return max(0.0, min(times) - time.monotonic()) if times else None

    # starting and ending

    def _start(self, worker: Worker) -> Place | None:
        """Fork; return the place in the new process, and None in this one."""
        ours, theirs = socket.socketpair()
        worker.start_at, worker.started_at = None, time.monotonic()
        self.board.note_start(worker.number)
        if (pid := os.fork()) == 0:
            ours.close()
            self._forget_parent(worker)
            return Place(number=worker.number, end=theirs)
        theirs.close()
        ours.setblocking(False)
        worker.pid, worker.end = pid, ours
        worker.arriving.clear()
        worker.leaving.clear()
        self._selector.register(ours, selectors.EVENT_READ, lambda: self._exchange(worker))
        return None

    def _forget_parent(self, own: Worker) -> None:
        """Close in a new worker what belongs to the supervisor."""
        signal.set_wakeup_fd(-1)
        for each in _SIGNALS:
            signal.signal(each, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # until the server has its own handler
        self._selector.close()
        for worker in self.workers.values():
            if worker.end is not None and worker is not own:
                worker.end.close()
        self._signals_in.close()
        self._signals_out.close()
        if own.number != 1:
            self.inner.close()

    def _reap(self) -> None:
        for worker in self.workers.values():
            if worker.pid and (ended := os.waitpid(worker.pid, os.WNOHANG)) != (0, 0):
                self._ended(worker, os.waitstatus_to_exitcode(ended[1]))

    def _ended(self, worker: Worker, code: int) -> None:
        self._exchange(worker)  # what it said before it ended
        was_ready, pid = worker.ready, worker.pid
        self._drop(worker)
        worker.pid, worker.ready = 0, False
        lost = self.board.note_end(worker.number, self.unfinished(worker.number))
        if self._is_stopping:
            return
        if not self.all_were_ready and not was_ready:
            worker.problems = worker.problems or [f"worker {worker.number} could not start"]
            self.stop()
            return
        lived_s = time.monotonic() - worker.started_at
        worker.early_ends = worker.early_ends + 1 if lived_s < STEADY_S else 0
        pause_s = pause_after(worker.early_ends)
        worker.start_at = time.monotonic() + pause_s
        log.warning(
            "worker %d (process %d) ended %s after %.1f s; %d answers in it were lost; it starts "
            "again %s",
            worker.number,
            pid,
            how_it_ended(code),
            lived_s,
            lost,
            f"in {pause_s:g} s" if pause_s else "now",
        )
        self._cover_all()

    def _drop(self, worker: Worker) -> None:
        """Close the channel of a worker that has ended; its calls end with an error."""
        if worker.end is not None:
            self._unwatch(worker)
            worker.end.close()
        worker.end = None
        for number, (callee, then) in list(self._calls.items()):
            if callee is worker:
                del self._calls[number]
                then(Line(error="the worker has ended"))

    def _unwatch(self, worker: Worker) -> None:
        if worker.end is not None and worker.end in self._selector.get_map():
            self._selector.unregister(worker.end)

    def stop(self) -> None:
        """Ask all workers to finish; the second time, ask them to end at once."""
        if self._is_stopping:
            for worker in self.workers.values():
                self.tell(worker, "end")
            return
        self._stop_at = time.monotonic() + self.grace_s() + LATE_S
        for listening in {*self.sockets, self.inner}:
            listening.close()
        for worker in self.workers.values():
            worker.start_at = None
            self.tell(worker, "stop")

    def _kill_late(self) -> None:
        if self._stop_at is None or time.monotonic() < self._stop_at:
            return
        self._stop_at = time.monotonic() + LATE_S
        for worker in self.workers.values():
            if worker.pid:
                log.warning("worker %d did not end in time and is killed", worker.number)
                os.kill(worker.pid, signal.SIGKILL)

    # signals

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Receive signals as bytes of a socket, which wakes the selector."""
        self._signals_in.setblocking(False)
        self._signals_out.setblocking(False)
        own = os.getpid()
        before = {each: signal.signal(each, lambda *_: None) for each in _SIGNALS}
        wakeup = signal.set_wakeup_fd(self._signals_out.fileno(), warn_on_full_buffer=False)
        self._selector.register(self._signals_in, selectors.EVENT_READ, self._take_signals)
        try:
            yield
        finally:
            if os.getpid() == own:
                signal.set_wakeup_fd(wakeup)
                for each, handler in before.items():
                    signal.signal(each, handler)

    def _take_signals(self) -> None:
        with suppress(BlockingIOError):
            for number in self._signals_in.recv(_READ_BYTES):
                self._take_signal(signal.Signals(number))

    def _take_signal(self, number: signal.Signals) -> None:
        if number == signal.SIGCHLD:
            self._reap()
        elif number == signal.SIGHUP:
            if self._terminal_is_gone:
                self.stop()
            elif (pid := self.workers[1].pid) != 0:
                os.kill(pid, signal.SIGHUP)
        else:
            what = "end now" if self._is_stopping else f"finish within {self.grace_s():g} s"
            log.info("%s: all workers %s", number.name, what)
            self.stop()

    @property
    def _terminal_is_gone(self) -> bool:
        return self._had_terminal and not os.isatty(0)

    # the channel

    def tell(self, worker: Worker, verb: str, body: Any = None) -> None:
        """Call a verb of a worker, and do not wait for the answer."""
        self._send(worker, Line(call=self._next(), verb=verb, body=body))

    def ask(
        self, workers: Iterable[Worker], verb: str, body: Any, then: Callable[[list[Line]], None]
    ) -> None:
        """Call a verb of each worker that runs; call `then` with the answers once all are there.

        The answer of a worker that ends meanwhile is an error.
        """
        asked = [worker for worker in workers if worker.end is not None and worker.ready]
        answers = list[Line]()

        def take(line: Line) -> None:
            answers.append(line)
            if len(answers) == len(asked):
                then(answers)

        if not asked:
            then([])
        for worker in asked:
            self._calls[number := self._next()] = worker, take
            self._send(worker, Line(call=number, verb=verb, body=body))

    def _next(self) -> int:
        self._number += 1
        return self._number

    def _send(self, worker: Worker, line: Line) -> None:
        if worker.end is not None:
            worker.leaving += encode(line)
            self._write(worker)

    def _write(self, worker: Worker) -> None:
        if worker.end is None:
            return
        try:
            while worker.leaving:
                del worker.leaving[: worker.end.send(worker.leaving)]
        except BlockingIOError:
            pass
        except OSError:  # it has ended: SIGCHLD comes
            worker.leaving.clear()
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if worker.leaving else 0)
        if worker.end in self._selector.get_map():
            self._selector.modify(worker.end, events, lambda: self._exchange(worker))

    def _exchange(self, worker: Worker) -> None:
        """Read what a worker sent, and write what waits for it."""
        if worker.end is None:
            return
        with suppress(OSError):  # nothing there, or it has ended: SIGCHLD comes
            while data := worker.end.recv(_READ_BYTES):
                worker.arriving += data
            self._unwatch(worker)  # it has closed its end: SIGCHLD comes
        *lines, rest = bytes(worker.arriving).split(b"\n")
        worker.arriving = bytearray(rest)
        for data in lines:
            self._take(worker, decode(data))
        self._write(worker)

    def _take(self, worker: Worker, line: Line) -> None:
        if line.answer is not None:
            found = self._calls.pop(line.answer, None)
            if found is not None:
                found[1](line)
            return

        def answer(body: Any) -> None:
            self._send(worker, Line(answer=line.call, body=body))

        def answer_of_first(lines: list[Line]) -> None:
            only = lines[0] if lines else Line(error="the first worker is not running")
            self._send(worker, Line(answer=line.call, body=only.body, error=only.error))

        if line.to == "first":
            self.ask([self.workers[1]], line.verb, line.body, answer_of_first)
        elif line.to == "others":
            others = [each for each in self.workers.values() if each is not worker]
            self.ask(
                others,
                line.verb,
                line.body,
                lambda lines: answer([each.body for each in lines if each.error is None]),
            )
        elif (verb := self.verbs.get(line.verb)) is not None:
            verb(worker, line.body, answer)
        else:
            self._send(worker, Line(answer=line.call, error=f"there is no `{line.verb}` here"))

    # verbs

    def _ready(self, worker: Worker, _: Any, answer: Answer) -> None:
        """Note that a worker takes requests."""
        worker.ready = True
        self.board.note_running(worker.number, running=True)
        if (cover := self._covers.pop(worker.number, None)) is not None:
            self.tell(self.workers[cover], "leave", worker.number)
        log.info("worker %d (process %d) takes requests", worker.number, worker.pid)
        if not self.all_were_ready and all(each.ready for each in self.workers.values()):
            self.all_were_ready = True
            self.on_ready()
        self._cover_all()
        answer(None)

    def _leaving(self, worker: Worker, _: Any, answer: Answer) -> None:
        """Note that a worker was asked to end by somebody else; others take its connections."""
        worker.ready = False
        self.board.note_running(worker.number, running=False)
        if not self._is_stopping:
            self._cover_all()
        answer(None)

    def _failed(self, worker: Worker, problems: Any, answer: Answer) -> None:
        worker.problems = [str(problem) for problem in problems]
        answer(None)

    def _cover_all(self) -> None:
        """Let a worker that runs accept the connections of each one that does not."""
        if self.sockets[0] is self.sockets[-1]:  # all share one socket
            return
        running = [worker for worker in self.workers.values() if worker.ready]
        for number, worker in self.workers.items():
            cover = self._covers.get(number)
            if worker.ready or not running or (cover is not None and self.workers[cover].ready):
                continue
            taker = min(running, key=lambda each: list(self._covers.values()).count(each.number))
            self._covers[number] = taker.number
            self.tell(taker, "listen", number)


def pause_after(early_ends: int) -> float:
    """Return how long to wait before a worker is started that ended early so many times in a row:
    not at all the first time.
    """
    if early_ends < 2:
        return 0.0
    return float(min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** (early_ends - 2)))


def how_it_ended(code: int) -> str:
    """Return an exit code, or the signal that it stands for, in words."""
    if code >= 0:
        return f"with exit code {code}"
    try:
        return f"by {signal.Signals(-code).name}"
    except ValueError:
        return f"by signal {-code}"
