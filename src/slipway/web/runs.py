"""Answers under way and lately done: each an append-only log of events that readers may leave and
come back to.

Kept in memory: PER_ANSWER bytes of an answer, ALL bytes together, KEPT_S after its end. An answer
goes on without a reader for ORPHAN_S. What is kept no longer is Gone, not unknown.
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Literal

from slipway.answer.draft import Draft
from slipway.errors import Cancelled, Conflict, Gone, InternalError, NotFound, SlipwayError
from slipway.types import Event, Question
from slipway.web.wire import event_sse, failed

log = logging.getLogger("slipway")
PER_ANSWER = 1024 * 1024
ALL = 64 * 1024 * 1024
KEPT_S = 600.0
ORPHAN_S = 60.0
HEARTBEAT_S = 10.0
FORGOTTEN = 10_000  # ids remembered as gone

Work = Callable[[Question, Draft, Callable[[Event], None]], Awaitable[None]]
State = Literal["running", "done", "failed", "cancelled"]


class Run:
    """One answer. Events are numbered from 1; `first` is the number of the oldest that is still
    kept.
    """

    def __init__(self, question: Question) -> None:
        self.question = question
        self.draft = Draft()
        self.log: deque[tuple[bytes, Event]] = deque()
        self.first = 1
        self.size = 0
        self.state: State = "running"
        self.error: SlipwayError | None = None
        self.task: asyncio.Task[None] | None = None
        self.readers: set[asyncio.Event] = set()
        self.ended_at: float | None = None
        self.alone_since: float | None = None

    @property
    def last(self) -> int:
        return self.first + len(self.log) - 1

    @property
    def events(self) -> list[Event]:
        """All events so far. Raises Gone where the first of them are kept no longer: half an answer
        is none.
        """
        self.check(0)
        return [event for _, event in self.log]

    async def whole(self, after: int = 0) -> list[Event]:
        """All events, once there are no more; those behind number `after` are taken as they come,
        however many they are.
        """
        events = self.events[:after]
        async for _, event in self.follow(after):
            if event is not None:
                events.append(event)
        return events

    def begin(self, work: Work) -> None:
        """Starts the work, or starts it again: its events follow in the same log."""
        loop = asyncio.get_running_loop()
        self.state, self.error, self.ended_at, self.alone_since = "running", None, None, loop.time()
        self.task = loop.create_task(self._do(work))

    async def _do(self, work: Work) -> None:
        try:
            await work(self.question, self.draft, self.say)
            self.state = "done"
        except asyncio.CancelledError:
            self.state, self.error = "cancelled", Cancelled("The answer was stopped.")
        except SlipwayError as error:
            self.state, self.error = "failed", error
        except Exception as error:
            log.exception("a defect met by answer %s", self.question.id)
            self.state, self.error = "failed", InternalError.of(error)
        finally:
            self.ended_at = asyncio.get_running_loop().time()
        if self.error is not None:
            self.tell(self.error)
            missing = self.draft.missing
            self.say(
                failed(
                    self.error,
                    self.question.id,
                    self.question.language,
                    section=missing[0].index if missing else 0,
                )
            )
        for reader in self.readers:
            reader.set()

    def tell(self, error: SlipwayError) -> None:
        """In the log; what refuses a question may quote it, and is told by its kind alone."""
        if error.status >= 500:
            log.warning("%s: %s (%s)", self.question.id, error.what, error.code)
        elif not isinstance(error, Cancelled):
            log.info(
                "%s: it was refused: %d (%s)", self.question.id, error.status, type(error).code
            )

    def cancel(self) -> None:
        if self.task is not None and not self.task.done():
            self.task.cancel()

    def say(self, event: Event) -> None:
        encoded = event_sse(self.last + 1, event)
        self.log.append((encoded, event))
        self.size += len(encoded)
        while self.size > PER_ANSWER and len(self.log) > 1:
            self.size -= len(self.log.popleft()[0])
            self.first += 1
        for reader in self.readers:
            reader.set()

    def check(self, after: int) -> None:
        """Raises Gone where the event behind number `after` is kept no longer."""
        if after + 1 < self.first:
            raise Gone("The beginning of this answer is kept no longer.")

    async def follow(
        self, after: int = 0, heartbeat_s: float = HEARTBEAT_S
    ) -> AsyncIterator[tuple[bytes, Event | None]]:
        """The events behind number `after` and those to come, encoded and as they are; a
        heartbeat's event is None. Raises Gone.
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
    def __init__(self) -> None:
        self.runs: dict[str, Run] = {}
        self.forgotten: deque[str] = deque(maxlen=FORGOTTEN)
        self.sweeper: asyncio.Task[None] | None = None

    def start(self, question: Question, work: Work) -> Run:
        run = self.runs[question.id] = Run(question)
        self._go(run, work)
        return run

    def _go(self, run: Run, work: Work) -> None:
        run.begin(work)
        if self.sweeper is None or self.sweeper.done():
            self.sweeper = asyncio.get_running_loop().create_task(self._sweep())

    def get(self, run_id: str, owner: str) -> Run:
        """Raises Gone for an answer kept no longer, NotFound for one that never was or is another
        key's.
        """
        run = self.runs.get(run_id)
        if run is None and run_id in self.forgotten:
            raise Gone("This answer is kept no longer.")
        if run is None or run.question.asker.owner != owner:
            raise NotFound(
                "There is no answer of that id.",
                "Check the id; answers belong to the key that asked.",
                param="id",
            )
        return run

    def retry(self, run: Run, work: Work) -> None:
        """Does again what is missing: its events follow in the same log. Raises Conflict where
        nothing is.
        """
        if run.state == "running":
            raise Conflict(
                "This answer is still being written.", f"Read /v1/answers/{run.question.id}/events."
            )
        if run.state == "done":
            raise Conflict("Nothing of this answer is missing.", "Ask again for another answer.")
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
                        "answer %s had no reader for %g s and was stopped",
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
            if total <= ALL:
                return
            total -= run.size
            self._forget(run)

    def _forget(self, run: Run) -> None:
        del self.runs[run.question.id]
        self.forgotten.append(run.question.id)

    @property
    def running(self) -> list[Run]:
        return [run for run in self.runs.values() if run.ended_at is None]

    async def close(self, grace_s: float) -> None:
        """Lets what runs finish within the grace, then stops it, and says so."""
        if tasks := [run.task for run in self.running if run.task is not None]:
            _, late = await asyncio.wait(tasks, timeout=grace_s)
            for task in late:
                task.cancel()
            if late:
                log.warning("the grace of %g s ran out: %d answers were cut", grace_s, len(late))
                await asyncio.wait(late)
        if self.sweeper is not None:
            self.sweeper.cancel()
