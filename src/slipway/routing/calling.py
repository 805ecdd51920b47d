"""Run one answer along a route: start calls, race and wait for them, and continue streams that
break off, as `attempts.py` decides.
"""

import asyncio
import random
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from slipway.errors import LimitReached, ProviderError, ProviderLimit
from slipway.providers import Call, Completion
from slipway.routing.attempt import Attempt, AttemptUsage, CallContext, finish_trial
from slipway.routing.attempts import Attempts, Availability, CallModel, GiveUp, WaitUntil
from slipway.routing.blame import prompt_of
from slipway.routing.continuation import Splice, can_be_continued, continuation, least_tokens
from slipway.routing.routes import Candidate, Route
from slipway.types import AttemptKind, Notice, Piece, ServedBy

CONTINUED = Notice(
    code="continued", text="The model stopped in the middle; another one continued from there."
)


class RoutedAnswer:
    """An answer from a route: `open` it, take its `pieces` or its `whole`, and `close` it in any
    case. All methods raise ProviderError.

    `model` and `served_by` describe the candidate that writes now. `usages` lists what was or may
    have been billed. `notices` are for the reader.
    """

    _attempt: Attempt | None = None
    # The stream's first events: a continuation keeps their id
    _opening: Sequence[Piece] = ()
    _finished = _probed = False
    is_limited = False  # a call was refused, since a limit of the asker is reached
    _is_plain = True  # no part of a tool call or of audio was shown
    _splice: Splice | None = None

    def __init__(self, route: Route, call: Call, context: CallContext) -> None:
        if route.has_canary:
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
        self._text: list[str] = []

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
        if attempt.candidate is not self.route.candidates[0]:
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
            for piece in pieces:
                attempt.note(piece)
        return self._note(pieces)

    def push(self, take: Callable[[bytes], bool]) -> None:
        """Hand usual events to `take` as they arrive, while `pieces` waits. Those that it refuses,
        and all other events, are returned by `pieces`.
        """
        attempt, text = self.attempt, self._text if len(self.route.candidates) > 1 else None

        def passed_on(data: bytes, texts: list[str]) -> bool:
            if self._splice is not None or not take(data):
                return False
            attempt.events += len(texts)
            attempt.chars += len(texts[0]) if len(texts) == 1 else sum(map(len, texts))
            if text is not None:  # another model may have to continue it
                text.extend(texts)
            return True

        attempt.reply.push_usual(passed_on)

    def _note(self, pieces: list[Piece]) -> list[Piece]:
        for piece in pieces:
            if piece.finish is not None:
                self._finished = True
            self._is_plain = self._is_plain and piece.is_plain
        if self._splice is not None:
            pieces = self._splice.pieces(pieces)
        if len(self.route.candidates) > 1:  # another one may have to continue it
            self._text += [piece.text for piece in pieces if piece.text]
        return pieces

    async def _continue(self, error: ProviderError) -> list[Piece]:
        """Return the first events of the model that continues; raise `error` if none can."""
        broken = self.attempt
        broken.end(error)
        self._keep(broken)
        if (
            self._finished
            or not self._is_plain
            or error.is_about_content
            or not can_be_continued(self.call)
            or not self.attempts.interrupted(broken.index, error)
        ):
            raise error
        shown = "".join(self._text)
        while (attempt := await self._next_attempt(self.call, shown)) is None:
            pass  # until then, the model that broke off has written the answer
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
            await attempt.open(
                call,
                may_wait=step.may_wait,
                others=not step.may_wait,
                may_resend=partial(self.attempts.may_resend, attempt.index),
            )
        except ProviderError as error:
            self._failed(attempt, error)
            return None
        except BaseException:
            self._cancel(attempt)
            raise
        return attempt

    def _cancel(self, attempt: Attempt, *, used: bool = True) -> None:
        """Cancel the attempt. What it took is kept, since it may be billed."""
        attempt.end(cancelled=True, used=used)
        self._keep(attempt)

    def _keep(self, attempt: Attempt) -> None:
        """Keep what a call took that ended; one that is not charged took nothing."""
        if attempt.took is not None and attempt.took.is_charged:
            self.usages.append(attempt.took)

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
        shown = sum(map(len, self._text)) if self._text else 0
        return Attempt(index, self.asking, kind, self.context, shown, prompt_of(self.call.body))

    def _failed(self, attempt: Attempt, error: ProviderError) -> None:
        attempt.end(error)
        if isinstance(error, LimitReached):
            self.is_limited = True
        rests_until = self._availability(attempt.index).until
        if (
            isinstance(error, ProviderLimit)
            and error.retry_after_s is None
            and rests_until is not None
        ):
            # The provider does not say for how long: report our own pause
            error.retry_after_s = max(0.0, rests_until - time.monotonic())
        self._keep(attempt)
        # The jitter spreads load; it needs no secure randomness
        self.attempts.failed(attempt.index, error, time.monotonic(), random.random())  # noqa: S311

    def _availability(self, index: int) -> Availability:
        return self.route.candidates[index].health.availability(time.monotonic())

    def _may_retry(self, index: int) -> bool:
        return self.route.candidates[index].health.budget.spend()

    async def _open(self, attempt: Attempt, call: Call) -> None:
        """Open an attempt that another one may overtake."""
        await attempt.open(
            call,
            may_wait=False,
            others=True,
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
                self._keep(attempt)
            elif attempt.kind == "trial":  # what it takes until its verdict is only in the ledger
                self.usages.append(
                    AttemptUsage(candidate=attempt.candidate, usage=attempt.estimated_usage())
                )
                attempt.candidate.health.keep_trial(
                    asyncio.get_running_loop().create_task(finish_trial(task, attempt))
                )
            elif attempt.is_late():
                task.cancel()
                attempt.end(attempt.late_error(), used=False)
                self._keep(attempt)
            else:
                task.cancel()
                self._cancel(attempt, used=False)

    def close(self) -> None:
        """Release what is held. An unfinished answer is cancelled."""
        attempt = self._attempt
        if attempt is not None and not attempt.ended:
            is_over = attempt.whole is not None or self._finished
            attempt.end(cancelled=not is_over)
            self._keep(attempt)


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
