"""Run one answer along a route: start calls, race and wait for them, and continue streams that
break off, as `attempts.py` decides.
"""

import asyncio
import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from slipway.errors import ModelBusy, ProviderError, ProviderLimit, ProviderSlow
from slipway.providers import Call, Completion, ModelReply
from slipway.routing.attempts import Attempts, Availability, CallModel, GiveUp, WaitUntil
from slipway.routing.blame import Origin
from slipway.routing.continuation import Splice, can_be_continued, continuation, least_tokens
from slipway.routing.routes import Candidate, Route
from slipway.types import AttemptDone, AttemptKind, Emit, Notice, Piece, Record, ServedBy, Usage

CANCELLED = "cancelled"
# A timeout is not held against a model that had less time than this left
FAIR_TIME_S = 5.0
CONTINUED = Notice(
    code="continued", text="The model stopped in the middle; another one continued from there."
)


class CallContext(Record, frozen=True, kw_only=True):
    """Who asks, and how much time there is (event loop's clock): the answer ends by `until`, and no
    retry begins after `retry_until`.
    """

    answer_id: str
    emit: Emit
    owner: str = ""
    until: float = math.inf
    retry_until: float = math.inf


class AttemptUsage(Record, frozen=True, kw_only=True):
    """The usage of a call that wrote something, or may have; None if the provider reported none."""

    candidate: Candidate
    usage: Usage | None


Resend = Callable[[], bool]


class Attempt:
    """One call to a model. It releases what it holds when it ends, and emits one AttemptDone."""

    def __init__(
        self,
        index: int,
        candidate: Candidate,
        kind: AttemptKind,
        context: CallContext,
        shown: int,
        prompt: int,
    ) -> None:
        """Prepare a call. `index` is the candidate's position in the route, `shown` the number of
        characters that the reader has already seen, `prompt` a hash of the client's request.
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
        self.left_out = 0  # fields of the reply that could not be read
        self.began = self.ended = self._holds_slot = False
        self._usual = candidate.health.first_words
        self._origin = Origin(owner=context.owner, prompt=prompt)

    @property
    def reply(self) -> ModelReply:
        if self._reply is None:
            raise RuntimeError("this attempt has not begun")
        return self._reply

    async def open(self, call: Call, *, may_wait: bool, others: bool, may_resend: Resend) -> None:
        """Call the model and return when its first words are here, or the whole answer if it is not
        streamed.

        `others`: another candidate can be asked if this one is late. Raises ProviderError.
        """
        candidate, health = self.candidate, self.candidate.health
        if health.slots is not None:
            await health.slots.enter(
                self.context.owner, self.context.until - time.monotonic() if may_wait else 0.0
            )
            self._holds_slot = True
        # The call begins here: waiting for a slot is not part of it
        self.began, self.started_at = True, time.monotonic()
        self.call_number = health.began(is_retry=self.kind == "retry")
        self._usual = health.first_words if call.stream else health.whole_answers
        words_by, ends_by = candidate.deadlines(time.monotonic(), self.context.until, others=others)
        call = Call(
            body=call.body,
            name_at=call.name_at,
            stream=call.stream,
            usage_wanted=call.usage_wanted,
            stream_options=call.stream_options,
            patient=may_wait,
            may_resend=may_resend,
            words_by=words_by if call.stream else ends_by,
            ends_by=ends_by,
        )
        self._reply = await candidate.model.chat(call)
        if call.stream:
            await self._read_first_words(self._reply)
        else:
            self.whole = await self._reply.whole()
            self.usage, self.left_out = self.whole.usage, self.whole.left_out
        self.first_at = time.monotonic()
        self._usual.add(self.first_at - self.started_at)
        health.succeeded(self.started_at, self._origin)

    async def _read_first_words(self, reply: ModelReply) -> None:
        """Buffer events until the first words, so that nothing is shown of a model that may still
        be replaced.
        """
        while not any(piece.spoke or piece.finish for piece in self.first):
            pieces = await reply.pieces()
            if not pieces:
                return
            self.first += pieces

    def end(
        self, error: ProviderError | None = None, *, cancelled: bool = False, used: bool = True
    ) -> None:
        """Release the slot and the connection, update the model's health and emit the record. A
        second call does nothing.
        """
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
            number = self.call_number if self.first_at is None else None
            health.failed(error, self.started_at, self._origin, number)
            if isinstance(error, ProviderSlow) and number is not None:
                self._usual.add(now - self.started_at)
        elif self.began and self.first_at is None:
            health.release_trial()
        if self.began and not isinstance(error, ModelBusy):
            self.context.emit(self._record(error, CANCELLED if cancelled else None, used=used))

    def _is_no_evidence(self, error: ProviderError, now: float) -> bool:
        """Return whether the failure says nothing about the model: it was not called, or the
        question left it too little time.
        """
        was_short = self.first_at is not None or now - self.started_at < FAIR_TIME_S
        return isinstance(error, ModelBusy) or (
            isinstance(error, ProviderSlow) and now >= self.context.until and was_short
        )

    def is_late(self) -> bool:
        """Return whether an answer that is not streamed takes longer than this model usually does."""
        return time.monotonic() - self.started_at >= self.candidate.late_after_s

    def late_error(self) -> ProviderSlow:
        """Return the error of a model that was late, while another one answered."""
        name, late_s = self.candidate.model.name, self.candidate.late_after_s
        return ProviderSlow(f"{name} did not answer within {late_s:g} s.", model=name)

    def may_be_billed(self, error: ProviderError) -> bool:
        """Return whether the provider may charge for this failed call."""
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
            left_out=self.left_out,
        )


class RoutedAnswer:
    """An answer from a route: `open` it, take its `pieces` or its `whole`, and `close` it in any
    case. All methods raise ProviderError.

    `model` and `served_by` describe the candidate that writes now. `usages` lists what was or may
    have been billed. `notices` are for the reader.
    """

    def __init__(self, route: Route, call: Call, context: CallContext) -> None:
        route = route.drawn(random.random())  # noqa: S311 - which question a canary gets
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
        self.asking = candidates[0]  # the candidate that was called last
        self._attempt: Attempt | None = None
        # The stream's first events: a continuation keeps their id
        self._opening: Sequence[Piece] = ()
        self._text: list[str] = []
        self._finished = self._probed = False
        self._is_plain = True  # no part of a tool call or of audio was shown
        self._splice: Splice | None = None

    # Which candidate answers
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

    def rate_limits(self) -> Sequence[tuple[bytes, bytes]]:
        """Return the `x-ratelimit-*` headers of the model that answers."""
        return self.attempt.reply.rate_limits()

    @property
    def was_continued(self) -> bool:
        """Return whether more than one model wrote the answer."""
        return self._splice is not None

    # The calls
    async def open(self) -> None:
        """Return when a model has begun to answer or, if the answer is not
        streamed, has answered.
        """
        while (attempt := await self._next_attempt(self.call)) is None:
            pass
        self._attempt = attempt
        self._opening = attempt.first
        self.notices += failover_notices(self.route.candidates[0], attempt.candidate)

    async def pieces(self) -> list[Piece]:
        """Return the next events; an empty list is the proper end. If a stream breaks off and
        another model can continue it, it does.
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
            self._is_plain = self._is_plain and piece.is_plain
            self.attempt.left_out += piece.left_out
        if self._splice is not None:
            pieces = self._splice.pieces(pieces)
        if len(self.route.candidates) > 1:  # another one may have to continue it
            self._text += [piece.text for piece in pieces if piece.text]
        return pieces

    async def _continue(self, error: ProviderError) -> list[Piece]:
        """Return the first events of the model that continues; raise `error` if none can."""
        broken = self.attempt
        broken.end(error)
        self.usages.append(AttemptUsage(candidate=broken.candidate, usage=broken.usage))
        self._attempt = None
        if (
            self._finished
            or not self._is_plain
            or error.is_about_content
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
        """Take one step: return the attempt that began to answer, or None if there is more to do.
        Raises the final error.
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
        if not call.stream and not step.may_wait:
            return await self._open_or_hedge(attempt, call)
        try:
            await self._open(attempt, call, may_wait=step.may_wait)
        except ProviderError as error:
            self._failed(attempt, error)
            return None
        except BaseException:
            self._cancel(attempt)
            raise
        return attempt

    def _cancel(self, attempt: Attempt, *, used: bool = True) -> None:
        """Cancel the attempt; record unknown usage, since it may be billed."""
        if attempt.began:
            self.usages.append(AttemptUsage(candidate=attempt.candidate, usage=None))
        attempt.end(cancelled=True, used=used)

    async def _probe_all(self) -> bool:
        """Probe the skipped candidates once before giving up, and return whether
        any has recovered.
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
        shown = sum(map(len, self._text))
        return Attempt(index, self.asking, kind, self.context, shown, hash(self.call.body))

    def _failed(self, attempt: Attempt, error: ProviderError) -> None:
        attempt.end(error)
        rests_until = self._availability(attempt.index).until
        if (
            isinstance(error, ProviderLimit)
            and error.retry_after_s is None
            and rests_until is not None
        ):
            # The provider does not say for how long: report our own pause
            error.retry_after_s = max(0.0, rests_until - time.monotonic())
        if attempt.may_be_billed(error):
            self.usages.append(AttemptUsage(candidate=attempt.candidate, usage=attempt.usage))
        # The jitter spreads load; it needs no secure randomness
        self.attempts.failed(attempt.index, error, time.monotonic(), random.random())  # noqa: S311

    def _availability(self, index: int) -> Availability:
        return self.route.candidates[index].health.availability(time.monotonic())

    def _may_retry(self, index: int) -> bool:
        return self.route.candidates[index].health.budget.spend()

    async def _open(self, attempt: Attempt, call: Call, *, may_wait: bool = False) -> None:
        await attempt.open(
            call,
            may_wait=may_wait,
            others=not may_wait,
            may_resend=partial(self.attempts.may_resend, attempt.index),
        )

    async def _race(self, step: CallModel, alongside: int, call: Call) -> Attempt | None:
        """Call the recovering model and the next one concurrently; return the first to produce
        words. The trial continues in the background until its verdict.
        """
        attempts = (
            self._new_attempt(step.index, "trial"),
            self._new_attempt(alongside, "first"),
        )
        return await self._first_of({self._task(each, call): each for each in attempts})

    async def _open_or_hedge(self, attempt: Attempt, call: Call) -> Attempt | None:
        """Call a model for an answer that is not streamed. If it is late, ask another one as well,
        and return the first to answer: nobody knows whether the first one is slow or stuck.
        """
        running = {self._task(attempt, call): attempt}
        try:
            done, _ = await asyncio.wait(running, timeout=attempt.candidate.late_after_s)
        except BaseException:
            self._cancel_all(running)
            raise
        if not done and (index := self.attempts.second(self._availability)) is not None:
            other = self._new_attempt(index, "first")
            running[self._task(other, call)] = other
        return await self._first_of(running)

    def _task(self, attempt: Attempt, call: Call) -> "asyncio.Task[None]":
        return asyncio.get_running_loop().create_task(self._open(attempt, call))

    async def _first_of(self, running: "dict[asyncio.Task[None], Attempt]") -> Attempt | None:
        """Return the first attempt that answers, and settle the others; None if all fail."""
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
            self._cancel_all(running)
            raise
        return None

    def _cancel_all(self, running: Mapping["asyncio.Task[None]", Attempt]) -> None:
        for task, attempt in running.items():
            task.cancel()
            self._cancel(attempt)

    def _settle_losers(self, running: Mapping["asyncio.Task[None]", Attempt]) -> None:
        """Cancel the slower call of a race; let a trial continue until its verdict."""
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
            elif attempt.is_late():
                task.cancel()
                self.usages.append(AttemptUsage(candidate=attempt.candidate, usage=None))
                attempt.end(attempt.late_error(), used=False)
            else:
                task.cancel()
                self._cancel(attempt, used=False)

    def close(self) -> None:
        """Release what is held. An unfinished answer is cancelled."""
        attempt = self._attempt
        if attempt is not None and not attempt.ended:
            is_over = attempt.whole is not None or self._finished
            attempt.end(cancelled=not is_over)
            self.usages.append(AttemptUsage(candidate=attempt.candidate, usage=attempt.usage))


async def finish_trial(task: "asyncio.Task[None]", trial: Attempt) -> None:
    """Wait for a trial's first words, then end it."""
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
    """Return the notices that tell the reader that another model than the route's first one
    answers.
    """
    if answers is first:
        return []
    if answers.served_by == "smaller":
        return [
            Notice(
                code="smaller",
                text="The model that usually answers was not available, so a smaller one "
                "answered: check what matters.",
            )
        ]
    return [
        Notice(
            code="failover",
            text="The model that usually answers was not available, so another one answered.",
        )
    ]
