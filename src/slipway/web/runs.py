"""Running and recent answers: each an append-only log of events that a reader can resume.

They are kept in memory: MAX_ANSWER_BYTES of each answer, MAX_TOTAL_BYTES together, until KEPT_S
after the end. An answer without a reader is stopped after ORPHAN_S. An expired answer raises Gone,
an unknown one NotFound.
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from sys import getsizeof
from typing import Literal

import msgspec

from slipway.answer.draft import Draft
from slipway.errors import (
    Cancelled,
    Conflict,
    Gone,
    InternalError,
    NotFound,
    SlipwayError,
    Stopping,
    log_text,
)
from slipway.types import Done, Event, Question
from slipway.web.error_forms import failed_event
from slipway.web.event_stream import event_sse

log = logging.getLogger("slipway")
MAX_ANSWER_BYTES = 1024 * 1024
MAX_TOTAL_BYTES = 32 * 1024 * 1024
KEPT_S = 600.0
ORPHAN_S = 60.0
HEARTBEAT_S = 10.0
RUN_BYTES = 4000  # of memory, for an answer without events
KEPT_IDS = 10_000  # ids of expired answers that are remembered

Work = Callable[[Question, Draft, Callable[[Event], None]], Awaitable[None]]
State = Literal["running", "done", "failed", "cancelled"]


def size_of_json(body: bytes) -> int:
    """Return about how many bytes a parsed body takes at most: its texts, which may have 4 bytes a
    character, and each object and element.
    """
    elements = body.count(b"[") + body.count(b",")
    return 4 * len(body) + 200 * body.count(b"{") + 60 * elements


def question_size(question: Question) -> int:
    """Return about how many bytes a question takes without its conversation and options."""
    return RUN_BYTES + getsizeof(question.text) + sum(getsizeof(p.text) for p in question.attached)


def memory_of(encoded: bytes) -> int:
    """Return about how many bytes an event takes: its encoded form, and the object with its text."""
    return 300 + 2 * len(encoded)


class Run:
    """One answer. Events are numbered from 1; `first` is the oldest one that is still kept."""

    def __init__(self, question: Question, body: bytes = b"") -> None:
        """`body` is the request that the question was read from."""
        self.question = question
        self._sent = size_of_json(body)
        self.draft = Draft()
        self.log: deque[tuple[bytes, Event]] = deque()
        self.first = 1
        self.size = question_size(question) + self._sent  # bytes, with the question
        self.events_size = 0  # bytes of the events in the log
        self.state: State = "running"
        self.stopping = False
        self.error: SlipwayError | None = None
        self.task: asyncio.Task[None] | None = None
        self.readers: set[asyncio.Event] = set()
        self.ended_at: float | None = None
        # called once with the last event in the log, before a reader sees it
        self.on_end: Callable[[], None] | None = None
        self.alone_since: float | None = None

    @property
    def last(self) -> int:
        """Return the number of the latest event."""
        return self.first + len(self.log) - 1

    @property
    def events(self) -> list[Event]:
        """Return all events so far. Raise Gone if the first of them have expired."""
        self.check(0)
        return [event for _, event in self.log]

    async def whole(self, after: int = 0) -> list[Event]:
        """Wait for the end and return all events.

        Events after number `after` are collected as they come, so that they cannot expire before.
        """
        events = self.events[:after]
        async for _, event in self.follow(after):
            if event is not None:
                events.append(event)
        return events

    def begin(self, work: Work) -> None:
        """Start the work, or start it again; new events are appended to the same log."""
        loop = asyncio.get_running_loop()
        self.state, self.error, self.ended_at, self.alone_since = "running", None, None, loop.time()
        self.task = loop.create_task(self._do(work))

    async def _do(self, work: Work) -> None:
        try:
            await work(self.question, self.draft, self.append)
            self.state = "done"
            self.forget_work()
        except asyncio.CancelledError:
            self.state = "cancelled"
            self.error = (
                Stopping("The server stopped before this answer was complete.")
                if self.stopping
                else Cancelled("The answer was stopped.")
            )
        except SlipwayError as error:
            self.state, self.error = "failed", error
        except Exception as error:
            log.exception("bug: answer %s failed unexpectedly", self.question.id)
            self.state, self.error = "failed", InternalError.of(error)
        finally:
            self.ended_at = asyncio.get_running_loop().time()
        if self.error is not None:
            self.tell(self.error)
            missing = self.draft.missing
            self.append(
                failed_event(
                    self.error,
                    self.question.id,
                    self.question.language,
                    section=missing[0].index if missing else 0,
                )
            )
        self._tell_end()
        for reader in self.readers:
            reader.set()

    def _tell_end(self) -> None:
        on_end, self.on_end = self.on_end, None
        if on_end is not None:
            on_end()

    def tell(self, error: SlipwayError) -> None:
        """Log an error. A refusal may quote the question, so that only its code is logged."""
        if error.status >= 500:
            log.warning("%s: %s", self.question.id, log_text(error))
        elif not isinstance(error, Cancelled):
            log.info("%s: rejected: %d (%s)", self.question.id, error.status, type(error).code)

    def forget_work(self) -> None:
        """Drop what only a retry needs: a complete answer cannot be retried."""
        self.size -= question_size(self.question) + self._sent
        self.question = msgspec.structs.replace(self.question, messages=(), options={}, attached=())
        self.size, self._sent = self.size + question_size(self.question), 0
        self.draft = Draft()

    def cancel(self, *, stopping: bool = False) -> None:
        """Stop the answer, if it is running; `stopping` if it is because the server stops."""
        self.stopping = stopping
        if self.task is not None and not self.task.done():
            self.task.cancel()

    def append(self, event: Event) -> None:
        """Add an event to the log and wake the readers; the oldest events may expire."""
        encoded = event_sse(self.last + 1, event)
        self.log.append((encoded, event))
        self.size += memory_of(encoded)
        self.events_size += len(encoded)
        while self.events_size > MAX_ANSWER_BYTES and len(self.log) > 1:
            dropped = self.log.popleft()[0]
            self.size -= memory_of(dropped)
            self.events_size -= len(dropped)
            self.first += 1
        if type(event) is Done:
            self._tell_end()
        for reader in self.readers:
            reader.set()

    def check(self, after: int) -> None:
        """Raise Gone if the event after number `after` has expired."""
        if after + 1 < self.first:
            raise Gone("The beginning of this answer has expired.")

    async def follow(
        self, after: int = 0, heartbeat_s: float = HEARTBEAT_S
    ) -> AsyncIterator[tuple[bytes, Event | None]]:
        """Yield (bytes for the stream, event) of each event after number `after`, until the end.

        A heartbeat has the event None. Raise Gone if the next event has expired.
        """
        more = asyncio.Event()
        self.readers.add(more)
        self.alone_since = None
        try:
            while True:
                more.clear()
                while after < self.last:
                    self.check(after)
                    after += 1
                    yield self.log[after - self.first]
                if self.state != "running" and after >= self.last:
                    return
                try:
                    async with asyncio.timeout(heartbeat_s):
                        await more.wait()
                except TimeoutError:
                    yield b": still here\n\n", None
        finally:
            self.readers.discard(more)
            if not self.readers:
                self.alone_since = asyncio.get_running_loop().time()


class Runs:
    """All running and recent answers, by id."""

    def __init__(self) -> None:
        self.runs: dict[str, Run] = {}
        self.gone_ids: deque[str] = deque(maxlen=KEPT_IDS)
        self.sweeper: asyncio.Task[None] | None = None

    def start(self, question: Question, body: bytes, work: Work) -> Run:
        """Start an answer to the question that a request's body asks, and return it."""
        run = self.runs[question.id] = Run(question, body)
        self._go(run, work)
        return run

    def _go(self, run: Run, work: Work) -> None:
        run.begin(work)
        if self.sweeper is None or self.sweeper.done():
            self.sweeper = asyncio.get_running_loop().create_task(self._sweep())

    def get(self, run_id: str, owner: str) -> Run:
        """Return an answer of this owner. Raise Gone if it has expired.

        Raise NotFound if it never existed or belongs to another key.
        """
        run = self.runs.get(run_id)
        if run is None and run_id in self.gone_ids:
            raise Gone("This answer has expired.")
        if run is None or run.question.asker.owner != owner:
            raise NotFound(
                "There is no answer with this id.",
                "Check the id; answers belong to the key that asked.",
                param="id",
            )
        return run

    def retry(self, run: Run, work: Work) -> None:
        """Write again what is missing; new events are appended to the same log.

        Raise Conflict if the answer is running or nothing is missing.
        """
        if run.state == "running":
            raise Conflict(
                "This answer is still being written.", f"Read /v1/answers/{run.question.id}/events."
            )
        if run.state == "done":
            raise Conflict("This answer is complete.", "Ask again for another answer.")
        self._go(run, work)

    async def _sweep(self) -> None:
        while self.runs:
            await asyncio.sleep(1.0)
            now = asyncio.get_running_loop().time()
            for run in list(self.runs.values()):
                if (
                    run.ended_at is None
                    and run.alone_since is not None
                    and now - run.alone_since > ORPHAN_S
                ):
                    log.info(
                        "answer %s was stopped: nobody read it for %g s",
                        run.question.id,
                        ORPHAN_S,
                    )
                    run.cancel()
                elif run.ended_at is not None and not run.readers and now - run.ended_at > KEPT_S:
                    self._forget(run)
            self._shrink()

    def _shrink(self) -> None:
        total = sum(run.size for run in self.runs.values())
        ended = [run for run in self.runs.values() if run.ended_at is not None and not run.readers]
        for run in sorted(ended, key=lambda r: r.ended_at or 0):
            if total <= MAX_TOTAL_BYTES:
                return
            total -= run.size
            self._forget(run)

    def _forget(self, run: Run) -> None:
        del self.runs[run.question.id]
        self.gone_ids.append(run.question.id)

    async def stop(self) -> None:
        """Stop all running answers, and tell their readers that the server stops."""
        if late := self.running:
            log.warning("%d answers were cut: the server stopped before their end", len(late))
            for run in late:
                run.cancel(stopping=True)
            await asyncio.wait([run.task for run in late if run.task is not None])

    @property
    def running(self) -> list[Run]:
        """Return the answers in progress."""
        return [run for run in self.runs.values() if run.ended_at is None]

    async def close(self, timeout_s: float) -> None:
        """Let running answers finish within this time, then stop the others."""
        if tasks := [run.task for run in self.running if run.task is not None]:
            await asyncio.wait(tasks, timeout=timeout_s)
            await self.stop()
        if self.sweeper is not None:
            self.sweeper.cancel()
