"""Which model is asked next, and when it is enough: the state of one question on its way along a
route.

Pure: it has no clock and does no I/O. Times are seconds of any monotonic clock, handed in.
`calling.py` does what it says, and tells it what became of it.

    first    every candidate in the route's order, without waiting: one that is away is passed over,
    and why is kept again    those whose failure a later try may mend, each after its pause: full
    jitter (Brooker, AWS 2015) or what Retry-After says go on    once words were shown, only a
    candidate that can go on from them, the one behind the one that broke off first
"""

import math
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import msgspec

from slipway.errors import ModelBusy, ProviderDown, ProviderError, ProviderSlow, ProviderTooLong
from slipway.types import AttemptKind, Record

FIRST_PAUSE_S = (
    0.25  # the longest first pause before another try of the same model; it doubles with each
)
LONGEST_PAUSE_S = 8.0
MOST_BREAKS = 4  # an answer that broke off so often is not gone on with
SHORTEST_S = 0.05  # no try is begun that has less time left


class Prefill(Record, frozen=True, kw_only=True):
    """What a provider wants to have beside an unfinished turn, in the turn's message and in the
    request, to go on with it.
    """

    message: dict[str, Any] = msgspec.field(default_factory=dict)
    request: dict[str, Any] = msgspec.field(default_factory=dict)


class Traits(Record, frozen=True, kw_only=True):
    """What a route knows of a model. `context` is in tokens, None where it is not known; `prefill`
    where it goes on with its own unfinished turn.
    """

    name: str = ""
    retries: int = 2
    context: int | None = None
    goes_on: bool = True
    prefill: Prefill | None = None
    first_token_s: float | None = None
    total_s: float = 600.0


class Standing(Record, frozen=True, kw_only=True):
    """Whether a model may be asked now. `trial`: one question may try whether it is well again.
    `until` is when that may change, if known.
    """

    state: Literal["ready", "trial", "away"]
    why: str = ""
    until: float | None = None
    error: type[ProviderError] = (
        ProviderDown  # what a reader is told of it, where nobody else can be asked
    )


READY = Standing(state="ready")
TRIAL = Standing(state="trial")


class Try(Record, frozen=True, kw_only=True):
    """Ask this candidate now; `beside` at the same time, where a trial must keep nobody waiting.
    `waits`: no other is left to ask instead.
    """

    index: int
    kind: AttemptKind
    beside: int | None = None
    waits: bool = False


class Wait(Record, frozen=True, kw_only=True):
    until: float


class Stop(Record, frozen=True, kw_only=True):
    error: ProviderError


Step = Try | Wait | Stop


class Attempts:
    """`patient_until` is how long a later try is waited for, and `until` when all must be over;
    `least_tokens` is what the question has at the very least.
    """

    __slots__ = (
        "_due",
        "_first",
        "_is_over",
        "_kind",
        "_left",
        "_too_long",
        "_traits",
        "_tried",
        "_until",
        "_waited",
        "_waiting",
        "breaks",
        "count",
        "patient_until",
        "skipped",
    )

    def __init__(
        self,
        traits: Sequence[Traits],
        *,
        patient_until: float,
        until: float = math.inf,
        least_tokens: int = 0,
    ) -> None:
        self._traits = traits
        self._waiting = deque(in_order(traits, least_tokens) if len(traits) > 1 else (0,))
        self._left = [each.retries for each in traits]
        self._due: dict[int, float] = {}  # by candidate: when it may be tried again
        self._first: ProviderError | None = None  # what the reader is told, where nothing helps
        self._is_over = False
        self._kind: type[ProviderError] | None = None  # of the first that was passed over
        self._too_long = 0  # the largest context that was too small
        self._tried, self._waited = set[int](), set[int]()
        self.patient_until, self._until = patient_until, until
        self.skipped: dict[str, str] = {}  # name -> why it was passed over the last time
        self.count = 0
        self.breaks = 0

    def next(
        self, now: float, standing: Callable[[int], Standing], may_retry: Callable[[int], bool]
    ) -> Step:
        """What to do now. `may_retry` spends from a model's retry budget where it says yes."""
        while self._waiting and now < self._until - SHORTEST_S:
            index = self._waiting.popleft()
            stands = self._standing(index, standing)
            if stands.state == "away":
                self._pass_over(index, stands)
                continue
            kind: AttemptKind = (
                "continue" if self.breaks else "trial" if stands.state == "trial" else "first"
            )
            return self._try(
                index, kind, standing, beside=self._spare(standing) if kind == "trial" else None
            )
        return self._again(now, standing, may_retry)

    def _try(
        self,
        index: int,
        kind: AttemptKind,
        standing: Callable[[int], Standing],
        beside: int | None = None,
    ) -> Try:
        for each in (index, beside):
            if each is not None:
                self.count += 1
                self._tried.add(each)
        waits = beside is None and all(
            self._standing(other, standing).state == "away" for other in self._waiting
        )
        if waits:
            self._waited.add(index)
        return Try(index=index, kind=kind, beside=beside, waits=waits)

    def _standing(self, index: int, standing: Callable[[int], Standing]) -> Standing:
        traits = self._traits[index]
        if self.breaks and not traits.goes_on:
            return Standing(state="away", why="it cannot go on from another's words")
        if traits.context is not None and traits.context <= self._too_long:
            return Standing(
                state="away", why="its context is no larger than one that was too small"
            )
        return standing(index)

    def _pass_over(self, index: int, stands: Standing) -> None:
        self.skipped[self._traits[index].name] = stands.why
        self._kind = self._kind or stands.error
        if stands.until is not None:
            self._due.setdefault(index, stands.until)

    def _spare(self, standing: Callable[[int], Standing]) -> int | None:
        """Who answers meanwhile: the next that is ready."""
        for index in self._waiting:
            if self._standing(index, standing).state == "ready":
                self._waiting.remove(index)
                return index
        return None

    def _again(
        self, now: float, standing: Callable[[int], Standing], may_retry: Callable[[int], bool]
    ) -> Step:
        """The soonest of those that may be tried again, if that is soon enough."""
        while self._due:
            index = min(self._due, key=lambda each: self._due[each])
            due = self._due[index]
            if due > self.patient_until - SHORTEST_S:
                break
            if due > now:
                return Wait(until=due)
            del self._due[index]
            stands = self._standing(index, standing)
            if stands.state == "away":
                self._pass_over(index, stands)
            elif index not in self._tried:  # it was away, and is not any more
                return self._try(index, "continue" if self.breaks else "first", standing)
            elif self._left[index] > 0 and may_retry(index):
                self._left[index] -= 1
                return self._try(index, "continue" if self.breaks else "retry", standing)
        return Stop(error=self.error(now))

    def may_be_back(self, index: int) -> bool:
        """Whether it was passed over, and would be asked if it were well again. One that was tried
        is tried again only as `_again` says.
        """
        return index not in self._tried

    def look_again(self, indices: Iterable[int]) -> None:
        """Some that were away may be well again."""
        self._waiting.extend(indices)

    def failed(self, index: int, error: ProviderError, now: float, jitter: float) -> None:
        """An attempt ended without a word. `jitter` is drawn from [0, 1)."""
        if self._is_over:
            return  # what was called beside a trial that settled it
        if self._first is None or self._says_more(index, error):
            self._first = error
        if isinstance(error, ModelBusy):
            self._stands_back(index, error, now)
        if isinstance(error, ProviderTooLong):
            self._too_long = max(self._too_long, self._traits[index].context or 0)
        if not error.another_may_help and (self._first is error or error.is_about_content):
            self._is_over = True
            # the request itself is wrong, or what it asks for: no other model is asked
            self._waiting.clear()
            self._due.clear()
            self._first = error
        elif error.retryable and self._left[index] > 0 and index in self._tried:
            self._due[index] = now + self._pause_s(index, error, jitter)

    def _says_more(self, index: int, error: ProviderError) -> bool:
        """A model that was busy was not asked: what it says later counts, and that the request
        itself is wrong.
        """
        first = self._first
        return isinstance(first, ModelBusy) and (
            first.model == self._traits[index].name or not error.another_may_help
        )

    def _stands_back(self, index: int, error: ModelBusy, now: float) -> None:
        """It was not called. Where it was not waited for, it is once the others cannot answer
        either.
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

    def broke(self, index: int, error: ProviderError) -> bool:
        """An answer broke off in the middle. Whether others may go on with it: they are asked in
        their order, the one that broke off last.
        """
        self.breaks += 1
        self._first = error
        self._due.clear()
        self._tried.clear()
        self._left = [min(left, 1) for left in self._left]
        order = range(len(self._traits))
        self._waiting = (
            deque([*order[index + 1 :], *order[: index + 1]])
            if self.breaks <= MOST_BREAKS and len(order) > 1
            else deque()
        )
        return bool(self._waiting)

    def error(self, now: float) -> ProviderError:
        """What the reader is told: what the first model that was asked said, and when trying again
        may help at the soonest.
        """
        soonest = min((due - now for due in self._due.values()), default=None)
        if self._first is None and not self.skipped:
            return ProviderSlow("There was no time left to ask a model.")
        if self._first is None or (
            isinstance(self._first, ProviderTooLong) and self._has_room_elsewhere()
        ):
            reasons = "; ".join(f"{name}: {why}" for name, why in self.skipped.items())
            return (self._kind or ProviderDown)(
                f"No model can be asked now ({reasons}).", retry_after_s=max(1.0, soonest or 1.0)
            )
        if soonest is not None and self._first.retryable and self._first.retry_after_s is None:
            self._first.retry_after_s = max(1.0, soonest)
        return self._first

    def _has_room_elsewhere(self) -> bool:
        """Whether a model that is known to hold more was passed over: then the question is not too
        long for ever.
        """
        passed = [
            each
            for index, each in enumerate(self._traits)
            if index not in self._tried and each.name in self.skipped
        ]
        return any(each.context is not None and each.context > self._too_long for each in passed)


def in_order(traits: Sequence[Traits], least_tokens: int) -> list[int]:
    """The route's order; those that the question surely does not fit into come last."""
    return sorted(
        range(len(traits)),
        key=lambda index: (context := traits[index].context) is not None and context < least_tokens,
    )
