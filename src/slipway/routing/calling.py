"""An answer on its way along a route: calls begun, raced, waited for, broken off and gone on with,
as `attempts.py` says.
"""

import asyncio
import math
import random
import time
from collections.abc import Mapping, Sequence

from slipway.errors import ModelBusy, ProviderError, ProviderLimit, ProviderSlow
from slipway.providers import Call, Completion, ModelReply
from slipway.routing.attempts import Attempts, Availability, CallModel, GiveUp, WaitUntil
from slipway.routing.continuation import Splice, can_be_continued, continuation, least_tokens
from slipway.routing.routes import Candidate, Route
from slipway.types import AttemptDone, AttemptKind, Emit, Notice, Piece, Record, ServedBy, Usage

CANCELLED = "cancelled"
# a call that was late with less time than this, because its question had no more, says nothing
# against the model
FAIR_TIME_S = 5.0
CONTINUED = Notice(
    code="continued", text="The model stopped in the middle; another one went on from there."
)


class CallContext(Record, frozen=True, kw_only=True):
    """Who asks, and how long there is: until `until` for all of the answer, until `patient_until`
    for a later try to begin (loop's clock).
    """

    answer_id: str
    emit: Emit
    owner: str = ""
    until: float = math.inf
    retry_until: float = math.inf


class AttemptUsage(Record, frozen=True, kw_only=True):
    """What a call took that wrote something, or may have; `usage` None where nobody told."""

    candidate: Candidate
    usage: Usage | None


class Attempt:
    """One call to a model, from its begin to its end, which gives back what it holds and is told in
    one record.
    """

    def __init__(
        self, index: int, candidate: Candidate, kind: AttemptKind, context: CallContext, shown: int
    ) -> None:
        """`index` is the candidate's place in the route, `shown` how many characters the reader has
        seen.
        """
        self.index, self.candidate, self.kind, self.context, self.shown = (
            index,
            candidate,
            kind,
            context,
            shown,
        )
        self.started_at = time.monotonic()
        self.first_at: float | None = None
        self.first: list[Piece] = []
        self.whole: Completion | None = None
        self.usage: Usage | None = None
        self.call_number: int | None = None
        self._reply: ModelReply | None = None
        self.began = self.ended = self._holds_slot = False

    @property
    def reply(self) -> ModelReply:
        if self._reply is None:
            raise RuntimeError("this call has not begun")
        return self._reply

    async def open(self, call: Call, *, may_wait: bool, others: bool) -> None:
        """Until the first words are here, or the whole of an answer that is not streamed. `others`
        may be asked where they are late.
        """
        candidate, health = self.candidate, self.candidate.health
        if health.slots is not None:
            await health.slots.enter(
                self.context.owner, self.context.until - time.monotonic() if may_wait else 0.0
            )
            self._holds_slot = True
        self.began, self.started_at = (
            True,
            time.monotonic(),
        )  # waiting for a turn is no part of the call
        self.call_number = health.began(is_retry=self.kind == "retry")
        words_by, ends_by = candidate.deadlines(time.monotonic(), self.context.until, others=others)
        call = Call(
            body=call.body,
            name_at=call.name_at,
            stream=call.stream,
            usage_wanted=call.usage_wanted,
            stream_options=call.stream_options,
            patient=may_wait,
            words_by=words_by if call.stream else ends_by,
            ends_by=ends_by,
        )
        self._reply = await candidate.model.chat(call)
        if call.stream:
            await self._read_first_words(self._reply)
        else:
            self.whole = await self._reply.whole()
            self.usage = self.whole.usage
        self.first_at = time.monotonic()
        health.succeeded(self.started_at)

    async def _read_first_words(self, reply: ModelReply) -> None:
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
        if self._holds_slot and health.slots is not None:
            health.slots.leave(
                now - self.started_at if error is None and not cancelled and used else None
            )
        if error is not None and not self._is_no_evidence(error, now):
            health.failed(
                error, self.started_at, self.call_number if self.first_at is None else None
            )
        elif self.began and self.first_at is None:
            health.release_trial()
        if self.began and not isinstance(error, ModelBusy):
            self.context.emit(self._record(error, CANCELLED if cancelled else None, used=used))

    def _is_no_evidence(self, error: ProviderError, now: float) -> bool:
        """Whether the model is not to blame: it was not called, or it was the question that had no
        more time.
        """
        was_short = self.first_at is not None or now - self.started_at < FAIR_TIME_S
        return isinstance(error, ModelBusy) or (
            isinstance(error, ProviderSlow) and now >= self.context.until and was_short
        )

    def may_be_billed(self, error: ProviderError) -> bool:
        """Whether what it wrote, or read, may have to be paid all the same."""
        return self._reply is not None or isinstance(error, ProviderSlow)

    def _record(self, error: ProviderError | None, code: str | None, *, used: bool) -> AttemptDone:
        model, now = self.candidate.model, time.monotonic()
        return AttemptDone(
            answer_id=self.context.answer_id,
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


class RoutedAnswer:
    """`open` it, take its `pieces` or its `whole`, and `close` it in any case. Everything raises
    ProviderError.

    `model` and `served_by` are those that write now; `took` is what was paid for or may have been;
    `notices` are for the reader.
    """

    def __init__(self, route: Route, call: Call, context: CallContext) -> None:
        self.route, self.call, self.context = route, call, context
        candidates = route.candidates
        self.attempts = Attempts(
            route.traits,
            retry_until=min(context.retry_until, context.until),
            until=context.until,
            least_tokens=least_tokens(call.body) if len(candidates) > 1 else 0,
        )
        self.usages: list[AttemptUsage] = []
        self.notices: list[Notice] = []
        self.asking = candidates[0]  # who was called last
        self._attempt: Attempt | None = None
        self._opening: Sequence[
            Piece
        ] = ()  # how the stream began: who goes on does so under its id
        self._text: list[str] = []
        self._finished = self._probed = False
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
    def whole(self) -> Completion | None:
        return self.attempt.whole

    @property
    def was_continued(self) -> bool:
        """Whether more than one model wrote it."""
        return self._splice is not None

    # the way
    async def open(self) -> None:
        """A model has begun to answer, or, where the answer is not streamed, has answered."""
        while (attempt := await self._next_attempt(self.call)) is None:
            pass
        self._attempt = attempt
        self._opening = attempt.first
        self.notices += failover_notices(self.route.candidates[0], attempt.candidate)

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
                return await self._continue(error)
        return self._note(pieces)

    def _note(self, pieces: list[Piece]) -> list[Piece]:
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

    async def _continue(self, error: ProviderError) -> list[Piece]:
        """What another model writes from here on; raises `error` where none can."""
        broken = self.attempt
        broken.end(error)
        self.usages.append(AttemptUsage(candidate=broken.candidate, usage=broken.usage))
        self._attempt = None
        if (
            self._finished
            or not can_be_continued(self.call)
            or not self.attempts.interrupted(broken.index, error)
        ):
            self._attempt = broken
            raise error
        shown = "".join(self._text)
        try:
            while (attempt := await self._next_attempt(self.call, shown)) is None:
                pass
        except BaseException:
            self._attempt = broken
            raise
        self._attempt = attempt
        self._splice = Splice(
            self._opening,
            shown,
            prefilled=attempt.candidate.traits.prefill is not None,
            notice=CONTINUED,
        )
        self.notices.append(CONTINUED)
        return await self.pieces()

    async def _next_attempt(self, call: Call, shown: str | None = None) -> Attempt | None:
        """One step of the way: a call that has begun to answer, or None where it is not over yet.
        Raises the last word.
        """
        step = self.attempts.next(time.monotonic(), self._availability, self._may_retry)
        if isinstance(step, GiveUp):
            if await self._probe_all():
                return None
            raise step.error
        if isinstance(step, WaitUntil):
            await asyncio.sleep(max(0.0, step.until - time.monotonic()))
            return None
        if step.alongside is not None:
            return await self._race(step, step.alongside, call)
        attempt = self._new_attempt(step.index, step.kind)
        if shown:
            call = continuation(call, shown, attempt.candidate.traits)
        try:
            await attempt.open(call, may_wait=step.may_wait, others=not step.may_wait)
        except ProviderError as error:
            self._failed(attempt, error)
            return None
        except BaseException:
            self._cancel(attempt)
            raise
        return attempt

    def _cancel(self, attempt: Attempt, *, used: bool = True) -> None:
        """It was asked, and nobody tells what that took."""
        if attempt.began:
            self.usages.append(AttemptUsage(candidate=attempt.candidate, usage=None))
        attempt.end(cancelled=True, used=used)

    async def _probe_all(self) -> bool:
        """Before a question is given up: whether one that was away can be reached now. Once, and
        for free.
        """
        candidates = enumerate(self.route.candidates)
        away = [
            index
            for index, each in candidates
            if each.health.breaker.state == "open" and self.attempts.was_not_tried(index)
        ]
        if self._probed or not away:
            return False
        self._probed = True
        back = await asyncio.gather(
            *(self.route.candidates[index].health.probe_now() for index in away)
        )
        self.attempts.reconsider(
            index for index, is_back in zip(away, back, strict=True) if is_back
        )
        return any(back)

    def _new_attempt(self, index: int, kind: AttemptKind) -> Attempt:
        self.asking = self.route.candidates[index]
        return Attempt(index, self.asking, kind, self.context, sum(map(len, self._text)))

    def _failed(self, attempt: Attempt, error: ProviderError) -> None:
        attempt.end(error)
        rests_until = self._availability(attempt.index).until
        if (
            isinstance(error, ProviderLimit)
            and error.retry_after_s is None
            and rests_until is not None
        ):
            error.retry_after_s = max(
                0.0, rests_until - time.monotonic()
            )  # it does not say for how long: so long it is left alone
        if attempt.may_be_billed(error):
            self.usages.append(AttemptUsage(candidate=attempt.candidate, usage=attempt.usage))
        # It spreads load
        self.attempts.failed(attempt.index, error, time.monotonic(), random.random())  # noqa: S311

    def _availability(self, index: int) -> Availability:
        return self.route.candidates[index].health.availability(time.monotonic())

    def _may_retry(self, index: int) -> bool:
        return self.route.candidates[index].health.budget.spend()

    async def _race(self, step: CallModel, alongside: int, call: Call) -> Attempt | None:
        """A model that may be well again is tried, and another asked at the same time: who speaks
        first answers, and the trial ends with its verdict.
        """
        running = {
            asyncio.get_running_loop().create_task(
                attempt.open(call, may_wait=False, others=True)
            ): attempt
            for attempt in (
                self._new_attempt(step.index, "trial"),
                self._new_attempt(alongside, "first"),
            )
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
                        self._settle_losers(running)
                        return attempt
        except BaseException:
            for task, attempt in running.items():
                task.cancel()
                self._cancel(attempt)
            raise
        return None

    def _settle_losers(self, running: Mapping["asyncio.Task[None]", Attempt]) -> None:
        """Another was faster. A trial goes on to its verdict, and a call that was asked beside one
        is given up.
        """
        for task, attempt in running.items():
            if task.done() and isinstance(
                error := task.exception(), ProviderError
            ):  # in the same moment
                attempt.end(error)
            elif attempt.kind == "trial":
                self.usages.append(AttemptUsage(candidate=attempt.candidate, usage=None))
                attempt.candidate.health.keep_trial(
                    asyncio.get_running_loop().create_task(finish_trial(task, attempt))
                )
            else:
                task.cancel()
                self._cancel(attempt, used=False)

    def close(self) -> None:
        """Gives back what is held. An answer that is not over is given up."""
        attempt = self._attempt
        if attempt is not None and not attempt.ended:
            is_over = attempt.whole is not None or self._finished
            attempt.end(cancelled=not is_over)
            self.usages.append(AttemptUsage(candidate=attempt.candidate, usage=attempt.usage))


async def finish_trial(task: "asyncio.Task[None]", trial: Attempt) -> None:
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


def failover_notices(first: Candidate, answers: Candidate) -> list[Notice]:
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
