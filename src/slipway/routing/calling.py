"""An answer on its way along a route: calls begun, raced, waited for, broken off and gone on with,
as `attempts.py` says.
"""

import asyncio
import math
import random
import time
from collections.abc import Mapping, Sequence

from slipway.errors import ModelBusy, ProviderError, ProviderLimit, ProviderSlow
from slipway.providers import Call, ModelReply, Whole
from slipway.routing.attempts import Attempts, Standing, Stop, Try, Wait
from slipway.routing.continuation import Splice, continuation, is_plain, least_tokens
from slipway.routing.routes import Candidate, Route
from slipway.types import AttemptDone, AttemptKind, Emit, Notice, Piece, Record, ServedBy, Usage

CANCELLED = "cancelled"
# a call that was late with less time than this, because its question had no more, says nothing
# against the model
FAIR_S = 5.0
WENT_ON = Notice(
    code="continued", text="The model stopped in the middle; another one went on from there."
)


class Asked(Record, frozen=True, kw_only=True):
    """Who asks, and how long there is: until `until` for all of the answer, until `patient_until`
    for a later try to begin (loop's clock).
    """

    answer_id: str
    emit: Emit
    owner: str = ""
    until: float = math.inf
    patient_until: float = math.inf


class Took(Record, frozen=True, kw_only=True):
    """What a call took that wrote something, or may have; `usage` None where nobody told."""

    candidate: Candidate
    usage: Usage | None


class Attempt:
    """One call to a model, from its begin to its end, which gives back what it holds and is told in
    one record.
    """

    def __init__(
        self, index: int, candidate: Candidate, kind: AttemptKind, asked: Asked, shown: int
    ) -> None:
        """`index` is the candidate's place in the route, `shown` how many characters the reader has
        seen.
        """
        self.index, self.candidate, self.kind, self.asked, self.shown = (
            index,
            candidate,
            kind,
            asked,
            shown,
        )
        self.started_at = time.monotonic()
        self.first_at: float | None = None
        self.first: list[Piece] = []
        self.whole: Whole | None = None
        self.usage: Usage | None = None
        self.number: int | None = None
        self._reply: ModelReply | None = None
        self.began = self.ended = self._holds_turn = False

    @property
    def reply(self) -> ModelReply:
        if self._reply is None:
            raise RuntimeError("this call has not begun")
        return self._reply

    async def open(self, call: Call, *, waits: bool, others: bool) -> None:
        """Until the first words are here, or the whole of an answer that is not streamed. `others`
        may be asked where they are late.
        """
        candidate, health = self.candidate, self.candidate.health
        if health.turns is not None:
            await health.turns.enter(
                self.asked.owner, self.asked.until - time.monotonic() if waits else 0.0
            )
            self._holds_turn = True
        self.began, self.started_at = (
            True,
            time.monotonic(),
        )  # waiting for a turn is no part of the call
        self.number = health.began(again=self.kind == "retry")
        words_by, ends_by = candidate.deadlines(time.monotonic(), self.asked.until, others=others)
        call = Call(
            body=call.body,
            name_at=call.name_at,
            stream=call.stream,
            usage_wanted=call.usage_wanted,
            stream_options=call.stream_options,
            patient=waits,
            words_by=words_by if call.stream else ends_by,
            ends_by=ends_by,
        )
        self._reply = await candidate.model.chat(call)
        if call.stream:
            await self._hear(self._reply)
        else:
            self.whole = await self._reply.whole()
            self.usage = self.whole.usage
        self.first_at = time.monotonic()
        health.succeeded(self.started_at)

    async def _hear(self, reply: ModelReply) -> None:
        """What comes before the first words waits with them: nothing is shown of a model that may
        still be passed over.
        """
        while not any(piece.spoke or piece.finish for piece in self.first):
            pieces = await reply.pieces()
            if not pieces:
                return
            self.first += pieces

    def end(
        self, error: ProviderError | None = None, *, cancelled: bool = False, used: bool = True
    ) -> None:
        """Safe to call twice; the first counts."""
        if self.ended:
            return
        self.ended = True
        health, now = self.candidate.health, time.monotonic()
        if self._reply is not None:
            self._reply.close()
        if self._holds_turn and health.turns is not None:
            health.turns.leave(
                now - self.started_at if error is None and not cancelled and used else None
            )
        if error is not None and not self._says_nothing(error, now):
            health.failed(error, self.started_at, self.number if self.first_at is None else None)
        elif self.began and self.first_at is None:
            health.given_back()
        if self.began and not isinstance(error, ModelBusy):
            self.asked.emit(self._done(error, CANCELLED if cancelled else None, used=used))

    def _says_nothing(self, error: ProviderError, now: float) -> bool:
        """Whether the model is not to blame: it was not called, or it was the question that had no
        more time.
        """
        was_short = self.first_at is not None or now - self.started_at < FAIR_S
        return isinstance(error, ModelBusy) or (
            isinstance(error, ProviderSlow) and now >= self.asked.until and was_short
        )

    def may_cost(self, error: ProviderError) -> bool:
        """Whether what it wrote, or read, may have to be paid all the same."""
        return self._reply is not None or isinstance(error, ProviderSlow)

    def _done(self, error: ProviderError | None, code: str | None, *, used: bool) -> AttemptDone:
        model, now = self.candidate.model, time.monotonic()
        return AttemptDone(
            answer_id=self.asked.answer_id,
            model=model.name,
            provider=model.kind,
            zone=model.zone,
            role=self.candidate.role,
            kind=self.kind,
            status=error.upstream_status if error is not None else None if code else 200,
            error=error.code if error is not None else code,
            why=error.ours if error is not None else None,
            duration_s=now - self.started_at,
            ttft_s=None if self.first_at is None else self.first_at - self.started_at,
            shown_chars=self.shown,
            used=used,
        )


class Answering:
    """`open` it, take its `pieces` or its `whole`, and `close` it in any case. Everything raises
    ProviderError.

    `model` and `served_by` are those that write now; `took` is what was paid for or may have been;
    `notices` are for the reader.
    """

    def __init__(self, route: Route, call: Call, asked: Asked) -> None:
        self.route, self.call, self.asked = route, call, asked
        candidates = route.candidates
        self.attempts = Attempts(
            route.traits,
            patient_until=min(asked.patient_until, asked.until),
            until=asked.until,
            least_tokens=least_tokens(call.body) if len(candidates) > 1 else 0,
        )
        self.took: list[Took] = []
        self.notices: list[Notice] = []
        self.asking = candidates[0]  # who was called last
        self._attempt: Attempt | None = None
        self._opening: Sequence[
            Piece
        ] = ()  # how the stream began: who goes on does so under its id
        self._text: list[str] = []
        self._finished = self._looked = False
        self._splice: Splice | None = None

    # who answers
    @property
    def attempt(self) -> Attempt:
        if self._attempt is None:
            raise RuntimeError("this answer has not begun")
        return self._attempt

    @property
    def candidate(self) -> Candidate:
        return self.attempt.candidate

    @property
    def served_by(self) -> ServedBy:
        return self.candidate.served_by

    @property
    def whole(self) -> Whole | None:
        return self.attempt.whole

    @property
    def went_on(self) -> bool:
        """Whether more than one model wrote it."""
        return self._splice is not None

    # the way
    async def open(self) -> None:
        """A model has begun to answer, or, where the answer is not streamed, has answered."""
        while (attempt := await self._step(self.call)) is None:
            pass
        self._attempt = attempt
        self._opening = attempt.first
        self.notices += passed_over(self.route.candidates[0], attempt.candidate)

    async def pieces(self) -> list[Piece]:
        """The next events; an empty list is the proper end. Where a model breaks off and another
        can go on, it does.
        """
        attempt = self.attempt
        if attempt.first:
            pieces, attempt.first = attempt.first, []
        else:
            try:
                pieces = await attempt.reply.pieces()
            except ProviderError as error:
                return await self._go_on(error)
        return self._passed(pieces)

    def _passed(self, pieces: list[Piece]) -> list[Piece]:
        for piece in pieces:
            if piece.usage is not None:
                self.attempt.usage = piece.usage
            if piece.finish is not None:
                self._finished = True
        if self._splice is not None:
            pieces = self._splice.pieces(pieces)
        if len(self.route.candidates) > 1:  # another may have to go on from it
            self._text += [piece.text for piece in pieces if piece.text]
        return pieces

    async def _go_on(self, error: ProviderError) -> list[Piece]:
        """What another model writes from here on; raises `error` where none can."""
        broken = self.attempt
        broken.end(error)
        self.took.append(Took(candidate=broken.candidate, usage=broken.usage))
        self._attempt = None
        if (
            self._finished
            or not is_plain(self.call)
            or not self.attempts.broke(broken.index, error)
        ):
            self._attempt = broken
            raise error
        shown = "".join(self._text)
        try:
            while (attempt := await self._step(self.call, shown)) is None:
                pass
        except BaseException:
            self._attempt = broken
            raise
        self._attempt = attempt
        self._splice = Splice(
            self._opening,
            shown,
            prefilled=attempt.candidate.traits.prefill is not None,
            notice=WENT_ON,
        )
        self.notices.append(WENT_ON)
        return await self.pieces()

    async def _step(self, call: Call, shown: str | None = None) -> Attempt | None:
        """One step of the way: a call that has begun to answer, or None where it is not over yet.
        Raises the last word.
        """
        step = self.attempts.next(time.monotonic(), self._standing, self._may_retry)
        if isinstance(step, Stop):
            if await self._someone_is_back():
                return None
            raise step.error
        if isinstance(step, Wait):
            await asyncio.sleep(max(0.0, step.until - time.monotonic()))
            return None
        if step.beside is not None:
            return await self._race(step, step.beside, call)
        attempt = self._begin(step.index, step.kind)
        if shown:
            call = continuation(call, shown, attempt.candidate.traits)
        try:
            await attempt.open(call, waits=step.waits, others=not step.waits)
        except ProviderError as error:
            self._failed(attempt, error)
            return None
        except BaseException:
            self._give_up(attempt)
            raise
        return attempt

    def _give_up(self, attempt: Attempt, *, used: bool = True) -> None:
        """It was asked, and nobody tells what that took."""
        if attempt.began:
            self.took.append(Took(candidate=attempt.candidate, usage=None))
        attempt.end(cancelled=True, used=used)

    async def _someone_is_back(self) -> bool:
        """Before a question is given up: whether one that was away can be reached now. Once, and
        for free.
        """
        candidates = enumerate(self.route.candidates)
        away = [
            index
            for index, each in candidates
            if each.health.breaker.state == "open" and self.attempts.may_be_back(index)
        ]
        if self._looked or not away:
            return False
        self._looked = True
        back = await asyncio.gather(*(self.route.candidates[index].health.look() for index in away))
        self.attempts.look_again(
            index for index, is_back in zip(away, back, strict=True) if is_back
        )
        return any(back)

    def _begin(self, index: int, kind: AttemptKind) -> Attempt:
        self.asking = self.route.candidates[index]
        return Attempt(index, self.asking, kind, self.asked, sum(map(len, self._text)))

    def _failed(self, attempt: Attempt, error: ProviderError) -> None:
        attempt.end(error)
        rests_until = self._standing(attempt.index).until
        if (
            isinstance(error, ProviderLimit)
            and error.retry_after_s is None
            and rests_until is not None
        ):
            error.retry_after_s = max(
                0.0, rests_until - time.monotonic()
            )  # it does not say for how long: so long it is left alone
        if attempt.may_cost(error):
            self.took.append(Took(candidate=attempt.candidate, usage=attempt.usage))
        # It spreads load
        self.attempts.failed(attempt.index, error, time.monotonic(), random.random())  # noqa: S311

    def _standing(self, index: int) -> Standing:
        return self.route.candidates[index].health.standing(time.monotonic())

    def _may_retry(self, index: int) -> bool:
        return self.route.candidates[index].health.budget.spend()

    async def _race(self, step: Try, beside: int, call: Call) -> Attempt | None:
        """A model that may be well again is tried, and another asked at the same time: who speaks
        first answers, and the trial ends with its verdict.
        """
        running = {
            asyncio.get_running_loop().create_task(
                attempt.open(call, waits=False, others=True)
            ): attempt
            for attempt in (self._begin(step.index, "trial"), self._begin(beside, "first"))
        }
        try:
            while running:
                done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for task in [task for task in running if task in done]:  # the trial first
                    attempt = running[task]
                    try:
                        task.result()
                    except ProviderError as error:
                        self._failed(attempt, error)
                    del running[task]
                    if not attempt.ended:
                        self._lose(running)
                        return attempt
        except BaseException:
            for task, attempt in running.items():
                task.cancel()
                self._give_up(attempt)
            raise
        return None

    def _lose(self, running: Mapping["asyncio.Task[None]", Attempt]) -> None:
        """Another was faster. A trial goes on to its verdict, and a call that was asked beside one
        is given up.
        """
        for task, attempt in running.items():
            if task.done() and isinstance(
                error := task.exception(), ProviderError
            ):  # in the same moment
                attempt.end(error)
            elif attempt.kind == "trial":
                self.took.append(Took(candidate=attempt.candidate, usage=None))
                attempt.candidate.health.watch(
                    asyncio.get_running_loop().create_task(verdict(task, attempt))
                )
            else:
                task.cancel()
                self._give_up(attempt, used=False)

    def close(self) -> None:
        """Gives back what is held. An answer that is not over is given up."""
        attempt = self._attempt
        if attempt is not None and not attempt.ended:
            is_over = attempt.whole is not None or self._finished
            attempt.end(cancelled=not is_over)
            self.took.append(Took(candidate=attempt.candidate, usage=attempt.usage))


async def verdict(task: "asyncio.Task[None]", trial: Attempt) -> None:
    """Waits for a trial's first words, and ends it there."""
    try:
        await task
    except ProviderError as error:
        trial.end(error, used=False)
    except BaseException:
        task.cancel()
        trial.end(cancelled=True, used=False)
        raise
    else:
        trial.end(used=False)


def passed_over(first: Candidate, answers: Candidate) -> list[Notice]:
    """What the reader is told where another model answers than the first of the route."""
    if answers is first:
        return []
    if answers.served_by == "smaller":
        return [
            Notice(
                code="smaller",
                text="The model that usually answers was not available, so a smaller one answered: check what matters.",
            )
        ]
    return [
        Notice(
            code="failover",
            text="The model that usually answers was not available, so another one answered.",
        )
    ]
