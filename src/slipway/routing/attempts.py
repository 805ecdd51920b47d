"""Decide which model is asked next and when to stop: the state of one question on its way along a
route.

Pure: no clock and no I/O. Times are seconds of any monotonic clock, passed in by `calling.py`,
which carries out each step and reports the result.

    first      Ask each candidate in the route's order, without waiting. One that may not be asked
               now is skipped, and the reason is kept.
    once more  Before a weaker model is asked, a better one is asked again, once and only if its
               failure may be over in a moment.
    retry      Ask those again whose failure may pass, each after its pause: full jitter
               (Brooker, AWS 2015) or the time that Retry-After names.
    continue   Once words were shown, ask only candidates that can continue from them, starting
               with the one after the candidate that broke off.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import msgspec

from slipway.errors import (
    LimitReached,
    ModelBusy,
    ProviderCut,
    ProviderDown,
    ProviderError,
    ProviderLimit,
    ProviderSlow,
    ProviderTooLong,
)
from slipway.types import AttemptKind, Record, Role

FIRST_PAUSE_S = 0.25  # upper bound of the pause before the first retry; doubles with each
LONGEST_PAUSE_S = 8.0
MOST_INTERRUPTIONS = 4  # after more, an answer is not continued
SOON_S = 2.0  # a better model is asked once more before a weaker one if its pause is no longer
WEAKER = ("smaller", "local")
SHORTEST_S = 0.05  # no attempt begins with less time left


class Prefill(Record, frozen=True, kw_only=True):
    """The fields that a provider needs in the unfinished turn's message and in the request, so that
    it continues that turn.
    """

    message: dict[str, Any] = msgspec.field(default_factory=dict)
    request: dict[str, Any] = msgspec.field(default_factory=dict)


class ModelTraits(Record, frozen=True, kw_only=True):
    """What a route knows about a model. `context` and `max_output` are in tokens, None if unknown;
    `prefill` is set if the model continues its own unfinished turn.
    """

    name: str = ""
    retries: int = 2
    context: int | None = None
    max_output: int | None = None
    can_continue: bool = True
    prefill: Prefill | None = None
    role: Role = "primary"
    first_token_s: float | None = None
    total_s: float = 600.0


class Availability(Record, frozen=True, kw_only=True):
    """Whether a model may be asked now. `trial`: one question may test whether it has recovered.
    `until` is when this may change, if known.
    """

    state: Literal["ready", "trial", "away"]
    why: str = ""
    until: float | None = None
    # What the reader gets if no other model can be asked
    error: type[ProviderError] = ProviderDown


READY = Availability(state="ready")
TRIAL = Availability(state="trial")


class CallModel(Record, frozen=True, kw_only=True):
    """Ask this candidate now, and `alongside` at the same time, so that nobody waits for a trial.
    `may_wait`: no other candidate is left to ask instead.
    """

    index: int
    kind: AttemptKind
    alongside: int | None = None
    may_wait: bool = False


class WaitUntil(Record, frozen=True, kw_only=True):
    """Wait until this time, then ask for the next step."""

    until: float


class GiveUp(Record, frozen=True, kw_only=True):
    """Stop with this error."""

    error: ProviderError


Step = CallModel | WaitUntil | GiveUp


class Attempts:
    """The attempts of one question. A retry begins before `retry_until` or not at all; everything
    ends by `until`. `least_tokens` is a lower bound of the question's length.
    """

    __slots__ = (
        "_asked_again",
        "_due",
        "_first",
        "_fleeting",
        "_is_over",
        "_kind",
        "_left",
        "_too_long",
        "_traits",
        "_tried",
        "_until",
        "_waited",
        "_waiting",
        "count",
        "interruptions",
        "retry_until",
        "skipped",
    )

    def __init__(
        self,
        traits: Sequence[ModelTraits],
        *,
        retry_until: float,
        until: float = math.inf,
        least_tokens: int = 0,
    ) -> None:
        self._traits = traits
        self._waiting = deque(by_size(traits, least_tokens) if len(traits) > 1 else (0,))
        self._left = [each.retries for each in traits]
        self._due: dict[int, float] = {}  # candidate -> when it may be asked again
        self._first: ProviderError | None = None  # what the reader gets if every attempt fails
        # `set[int]()` takes twenty times as long as `set()`
        self._fleeting: set[int] = set()  # candidates whose failure may be over at once
        self._asked_again: set[int] = set()  # by `_once_more`
        self._is_over = False
        self._kind: type[ProviderError] | None = None  # the first skipped candidate's error
        self._too_long = 0  # the largest context that was too small
        self._tried: set[int] = set()
        self._waited: set[int] = set()
        self.retry_until, self._until = retry_until, until
        self.skipped: dict[str, str] = {}  # model name -> why it was last skipped
        self.count = 0
        self.interruptions = 0

    def next(
        self,
        now: float,
        availability: Callable[[int], Availability],
        may_retry: Callable[[int], bool],
    ) -> Step:
        """Return the next step. `may_retry` takes one retry from a model's budget if it returns
        True.
        """
        while self._waiting and now < self._until - SHORTEST_S:
            if self._fleeting and self._traits[self._waiting[0]].role in WEAKER:
                step = self._once_more(now, availability, may_retry)
                if step is not None:
                    return step
            index = self._waiting.popleft()
            any_may = not (self.interruptions or self._too_long)
            current = availability(index) if any_may else self._availability(index, availability)
            if current.state == "away":
                self._pass_over(index, current)
                continue
            kind: AttemptKind = (
                "continue"
                if self.interruptions
                else "trial"
                if current.state == "trial"
                else "first"
            )
            return self._try(
                index,
                kind,
                availability,
                alongside=self._take_ready(availability) if kind == "trial" else None,
            )
        return self._retry(now, availability, may_retry)

    def _try(
        self,
        index: int,
        kind: AttemptKind,
        availability: Callable[[int], Availability],
        alongside: int | None = None,
    ) -> CallModel:
        self.count += 1
        self._tried.add(index)
        if alongside is not None:
            self.count += 1
            self._tried.add(alongside)
        may_wait = alongside is None and (
            not self._waiting
            or all(
                self._availability(other, availability).state == "away" for other in self._waiting
            )
        )
        if may_wait:
            self._waited.add(index)
        return CallModel(index=index, kind=kind, alongside=alongside, may_wait=may_wait)

    def _availability(
        self, index: int, availability: Callable[[int], Availability]
    ) -> Availability:
        traits = self._traits[index]
        if self.interruptions and not traits.can_continue:
            return Availability(state="away", why="it cannot continue another model's answer")
        if self._too_long and traits.context is not None and traits.context <= self._too_long:
            return Availability(
                state="away", why="its context is no larger than one that was too small"
            )
        return availability(index)

    def _pass_over(self, index: int, current: Availability) -> None:
        self.skipped[self._traits[index].name] = current.why
        self._kind = self._kind or current.error
        if current.until is not None:
            self._due.setdefault(index, current.until)

    def _once_more(
        self,
        now: float,
        availability: Callable[[int], Availability],
        may_retry: Callable[[int], bool],
    ) -> Step | None:
        """Return the one retry of a better model before a weaker one is asked, if there is time."""
        for index in sorted(self._fleeting):
            due = self._due.get(index, math.inf)
            if due > min(now + SOON_S, self.retry_until - SHORTEST_S):
                self._fleeting.discard(index)
                continue
            if due > now:
                return WaitUntil(until=due)
            self._fleeting.discard(index)
            self._asked_again.add(index)
            is_ready = self._availability(index, availability).state == "ready"
            if is_ready and self._left[index] > 0 and may_retry(index):
                del self._due[index]
                self._left[index] -= 1
                return self._try(index, "retry", availability)
        return None

    def may_resend(self, index: int) -> bool:
        """Use up one of a candidate's retries to resend the request; False if none is left."""
        if self._left[index] < 1:
            return False
        self._left[index] -= 1
        return True

    def second(self, availability: Callable[[int], Availability]) -> int | None:
        """Return a candidate that is ready, to be asked as well since the first one is late."""
        index = self._take_ready(availability)
        if index is not None:
            self.count += 1
            self._tried.add(index)
        return index

    def _take_ready(self, availability: Callable[[int], Availability]) -> int | None:
        """Remove and return the next candidate that is ready, to answer while a trial runs."""
        for index in self._waiting:
            if self._availability(index, availability).state == "ready":
                self._waiting.remove(index)
                return index
        return None

    def _retry(
        self,
        now: float,
        availability: Callable[[int], Availability],
        may_retry: Callable[[int], bool],
    ) -> Step:
        """Return the retry that is due first, if it is due soon enough."""
        while self._due:
            index = min(self._due, key=lambda each: self._due[each])
            due = self._due[index]
            if due > self.retry_until - SHORTEST_S:
                break
            if due > now:
                return WaitUntil(until=due)
            del self._due[index]
            current = self._availability(index, availability)
            if current.state == "away":
                self._pass_over(index, current)
            elif index not in self._tried:  # it has recovered meanwhile
                return self._try(index, "continue" if self.interruptions else "first", availability)
            elif self._left[index] > 0 and may_retry(index):
                self._left[index] -= 1
                return self._try(index, "continue" if self.interruptions else "retry", availability)
        return GiveUp(error=self.error(now))

    def was_not_tried(self, index: int) -> bool:
        """Return whether this candidate was skipped, so that it may be asked if it has recovered. A
        candidate that was tried is asked again only by `_retry`.
        """
        return index not in self._tried

    def reconsider(self, indices: Iterable[int]) -> None:
        """Queue candidates that were skipped and may have recovered."""
        self._waiting.extend(indices)

    def failed(self, index: int, error: ProviderError, now: float, jitter: float) -> None:
        """Record that an attempt ended without a word. `jitter` is drawn from [0, 1)."""
        if self._is_over:
            return  # the other call of a race that is already decided
        if self._first is None or self._replaces_first(index, error):
            self._first = error
        if isinstance(error, ModelBusy):
            self._put_back(index, error, now)
        if isinstance(error, LimitReached):  # no call was made, and none will be later
            self.count -= 1
            self.skipped[self._traits[index].name] = error.what
            self._tried.discard(index)
        if isinstance(error, ProviderTooLong):
            self._too_long = max(self._too_long, self._traits[index].context or 0)
        if not error.another_may_help and (self._first is error or error.is_about_content):
            self._is_over = True
            # The request itself is wrong or unwanted: no other model is asked
            self._waiting.clear()
            self._due.clear()
            self._fleeting.clear()
            self._first = error
        elif error.retryable and self._left[index] > 0 and index in self._tried:
            self._due[index] = now + self._pause_s(index, error, jitter)
            is_better = self._traits[index].role not in WEAKER and index not in self._asked_again
            if is_better and is_fleeting(error):
                self._fleeting.add(index)

    def _replaces_first(self, index: int, error: ProviderError) -> bool:
        """Return whether this error explains more than the first one, which is a model that was
        busy and so was not called.
        """
        first = self._first
        return isinstance(first, ModelBusy) and (
            first.model == self._traits[index].name or not error.another_may_help
        )

    def _put_back(self, index: int, error: ModelBusy, now: float) -> None:
        """Undo the count of a call that a busy model did not take. If nobody waited for a slot,
        queue it behind the other candidates.
        """
        self.count -= 1
        self.skipped[self._traits[index].name] = error.what
        self._tried.discard(index)
        if index not in self._waited:
            self._due[index] = now

    def _pause_s(self, index: int, error: ProviderError, jitter: float) -> float:
        tried = self._traits[index].retries - self._left[index]
        pause_s: float = jitter * min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2**tried)
        return pause_s if error.retry_after_s is None else error.retry_after_s + pause_s

    def interrupted(self, index: int, error: ProviderError) -> bool:
        """Record that a stream broke off, and return whether another candidate may continue it. The
        one that broke off is asked last.
        """
        self.interruptions += 1
        self._first = error
        self._due.clear()
        self._fleeting.clear()
        self._tried.clear()
        self._left = [min(left, 1) for left in self._left]
        order = range(len(self._traits))
        self._waiting = (
            deque([*order[index + 1 :], *order[: index + 1]])
            if self.interruptions <= MOST_INTERRUPTIONS and len(order) > 1
            else deque()
        )
        return bool(self._waiting)

    def error(self, now: float) -> ProviderError:
        """Return the error for the reader: the first called model's own, with the earliest time at
        which trying again may help.
        """
        soonest = min((due - now for due in self._due.values()), default=None)
        if self._first is None and not self.skipped:
            return ProviderSlow("There was no time left to ask a model.")
        if self._first is None or (
            isinstance(self._first, ProviderTooLong) and self._larger_model_was_skipped()
        ):
            reasons = "; ".join(f"{name}: {why}" for name, why in self.skipped.items())
            return (self._kind or ProviderDown)(
                f"No model can be asked now ({reasons}).", retry_after_s=max(1.0, soonest or 1.0)
            )
        if soonest is not None and self._first.retryable and self._first.retry_after_s is None:
            self._first.retry_after_s = max(1.0, soonest)
        return self._first

    def _larger_model_was_skipped(self) -> bool:
        """Return whether a skipped model is known to have a larger context, so that the question is
        not too long for good.
        """
        passed = [
            each
            for index, each in enumerate(self._traits)
            if index not in self._tried and each.name in self.skipped
        ]
        return any(each.context is not None and each.context > self._too_long for each in passed)


def is_fleeting(error: ProviderError) -> bool:
    """Return whether a failure may be over in a moment: an error of the provider, or a rate limit
    with a short pause.
    """
    if isinstance(error, ProviderLimit):
        return error.retry_after_s is not None and error.retry_after_s <= SOON_S
    return isinstance(error, ProviderDown | ProviderCut) and not error.before_sending


def by_size(traits: Sequence[ModelTraits], least_tokens: int) -> list[int]:
    """Return the candidates in the route's order, with those last that are certainly too small for
    the question.
    """
    return sorted(
        range(len(traits)),
        key=lambda index: (context := traits[index].context) is not None and context < least_tokens,
    )
