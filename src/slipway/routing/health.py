"""Learn from calls how a model is: whether it may be asked, how often it may be retried, and how
many calls it takes at once.

Kept by the model's name. It survives a reload of the settings unless the model itself was changed.
"""

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable

from slipway.errors import (
    ProviderDown,
    ProviderError,
    ProviderKey,
    ProviderLimit,
    ProviderRefused,
    ProviderTooLong,
)
from slipway.providers import Reachable
from slipway.routing.attempts import READY, TRIAL, Availability
from slipway.routing.blame import Blame, Origin
from slipway.routing.breaker import Breaker, RetryBudget
from slipway.routing.slots import ModelSlots
from slipway.routing.token_counts import TokenCounts
from slipway.routing.usual_times import UsualTimes
from slipway.types import Record

log = logging.getLogger("slipway")
PROBE_S = 0.5  # between two probes of a model whose breaker is open
# If a probe fails, after how long a model is tried all the same, by what the probe found. A model
# that cannot even be connected to is not tried
TRIED_AFTER_S = {"refused": 2.0, "silent": 5.0, "failing": 30.0}
KEY_TRIED_AFTER_S = 30.0  # a key that was refused seldom becomes good by itself
RECENTLY_S = 60.0
PROBE_WAIT_S = 0.3  # how long a question waits for a probe if no other model can answer
SOON_S = 0.1
FIRST_LIMIT_PAUSE_S, LONGEST_LIMIT_PAUSE_S = (
    1.0,
    30.0,
)  # of a model that limits us and does not say for how long; it doubles

Probe = Callable[[], Awaitable[Reachable]]


class HealthReport(Record, frozen=True, kw_only=True):
    """A model's health for people. `state` is closed, open or half-open; `why` and `for_s` say why
    it opened and how long ago. `rests_s` is how long it is left alone because of its rate limit.
    """

    state: str
    why: str | None = None
    for_s: float | None = None
    rests_s: float | None = None
    busy: int = 0
    waiting: int = 0
    oldest_s: float = 0.0  # how long the oldest of those has waited


class RunningCalls:
    """How many calls a model works on now."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0


class LimitPause:
    """How long a model that limits our rate is left alone."""

    __slots__ = ("pause_s", "until")

    def __init__(self) -> None:
        self.until = self.pause_s = 0.0


class Health:
    """A model's breaker, retry budget, rate-limit pause and slots, with the probes that close the
    breaker again.
    """

    def __init__(
        self,
        name: str = "",
        probe: Probe | None = None,
        slots: ModelSlots | None = None,
        previous: "Health | None" = None,
    ) -> None:
        """`probe` asks, without cost, whether the model can be reached. The new object takes over
        what `previous` has learnt, and its slots if the limits are the same.
        """
        self.name, self.probe = name, probe
        self.slots: ModelSlots | None = (
            previous.slots if previous and slots and slots.same_limits(previous.slots) else slots
        )
        self.breaker: Breaker = previous.breaker if previous is not None else Breaker()
        self.budget: RetryBudget = previous.budget if previous is not None else RetryBudget()
        self.limit_pause: LimitPause = (
            previous.limit_pause if previous is not None else LimitPause()
        )
        self.blame: Blame = previous.blame if previous is not None else Blame()
        self.first_words: UsualTimes = previous.first_words if previous else UsualTimes()
        self.whole_answers: UsualTimes = previous.whole_answers if previous else UsualTimes()
        self.token_counts: TokenCounts = previous.token_counts if previous else TokenCounts()
        self.running: RunningCalls = previous.running if previous else RunningCalls()
        self._succeeded_at = -math.inf
        self._probe_loop: asyncio.Task[None] | None = None
        self._probe_task: asyncio.Task[None] | None = None
        self._probed_at = -math.inf
        self._trials = set[asyncio.Task[None]]()
        self._retired = False

    def start(self) -> None:
        """Resume probing if the breaker that was taken over is open."""
        if self.breaker.state == "open":
            self._start_probing()

    def availability(self, now: float) -> Availability:
        """Return whether the model may be asked now."""
        if now < self.limit_pause.until:
            return Availability(
                state="away",
                why="it is limiting us",
                until=self.limit_pause.until,
                error=ProviderLimit,
            )
        if self.breaker.state == "closed":
            return READY
        if self.breaker.state == "open":
            # A call of the previous Health may have opened it, so nobody probes yet
            self._start_probing()
            return Availability(state="away", why=self.breaker.why, error=self.breaker.kind)
        return (
            Availability(state="away", why="it is being tried", until=now + SOON_S)
            if self.breaker.on_trial(now)
            else TRIAL
        )

    def began(self, *, is_retry: bool) -> int:
        """Record that a call began, and return its number."""
        if not is_retry:
            self.budget.asked()
        if self.breaker.state == "half-open":
            self.breaker.begin_trial(time.monotonic())
        return self.breaker.began()

    def succeeded(self, began_at: float, origin: Origin) -> None:
        """Record that the model produced words in time. The stream may still break off later."""
        self._succeeded_at = now = time.monotonic()
        self.blame.succeeded(origin, now)
        if self.breaker.state == "closed":  # as nearly always
            self.limit_pause.pause_s = 0.0
            self.breaker.succeeded()
        else:
            self._is_well(began_at)

    def _is_well(self, began_at: float) -> None:
        self.limit_pause.pause_s = 0.0
        if self.breaker.state == "closed":
            self.breaker.succeeded()
        elif (
            began_at >= self.breaker.opened_at
        ):  # a call that began before it opened says nothing about now
            log.info("model %s answers again and is back in use", self.name)
            self.breaker.succeeded()

    def failed(
        self,
        error: ProviderError,
        began_at: float,
        origin: Origin,
        call_number: int | None = None,
    ) -> bool:
        """Record that a call failed, and return whether the model is not called any more after it.
        `call_number` is set if it ended without a word.
        """
        now = time.monotonic()
        if isinstance(error, ProviderLimit):
            self._pause(error, now)
            return False
        if self.breaker.state == "half-open" and began_at < self.breaker.opened_at:
            return False
        if is_request_error(error):
            self._is_well(began_at)
            return False
        if not (error.before_sending or self.blame.is_on_model(origin, now)):
            self.breaker.release_trial()
            return False
        at_once = self._is_sure(error, now)
        if not self.breaker.failed(now, call_number=call_number, at_once=at_once):
            return False
        self.breaker.why, self.breaker.kind = (
            error.ours,
            ProviderKey if isinstance(error, ProviderKey) else ProviderDown,
        )
        log.warning(
            "model %s is taken out of use until a probe reaches it: %s", self.name, error.ours
        )
        self._start_probing()
        return True

    def _is_sure(self, error: ProviderError, now: float) -> bool:
        """Return whether one failure is enough to know: our key is refused. A 403 of a model that
        has just answered may be about the prompt.
        """
        is_forbidden = error.upstream_status == 403 and now - self._succeeded_at < RECENTLY_S
        return isinstance(error, ProviderKey) and not is_forbidden

    def _pause(self, error: ProviderError, now: float) -> None:
        self.breaker.release_trial()
        self.limit_pause.pause_s = min(
            LONGEST_LIMIT_PAUSE_S, 2 * self.limit_pause.pause_s or FIRST_LIMIT_PAUSE_S
        )
        wait_s = self.limit_pause.pause_s if error.retry_after_s is None else error.retry_after_s
        self.limit_pause.until = max(self.limit_pause.until, now + wait_s)

    def release_trial(self) -> None:
        """Record that a call ended without a verdict, such as one that was cancelled."""
        self.breaker.release_trial()

    def _start_probing(self) -> None:
        if not self._retired and (self._probe_loop is None or self._probe_loop.done()):
            self._probe_loop = asyncio.get_running_loop().create_task(self._probe_until_reached())

    async def _probe_until_reached(self) -> None:
        while self.breaker.state == "open":
            await asyncio.sleep(PROBE_S)
            await self._probe_once()

    async def _probe_once(self) -> None:
        if self.probe is not None:
            found, now = await self.probe(), time.monotonic()
            if found == "well":
                self.breaker.reached(now)
            elif found in TRIED_AFTER_S:
                is_key = self.breaker.kind is ProviderKey
                self.breaker.waited(now, KEY_TRIED_AFTER_S if is_key else TRIED_AFTER_S[found])
        self._probed_at = time.monotonic()

    async def probe_now(self) -> bool:
        """Probe once, shared by concurrent callers; return True if the model may be tried."""
        if self.breaker.state == "open" and time.monotonic() - self._probed_at > SOON_S:
            if self._probe_task is None or self._probe_task.done():
                self._probe_task = asyncio.get_running_loop().create_task(self._probe_once())
            await asyncio.wait({self._probe_task}, timeout=PROBE_WAIT_S)
        return self.breaker.state != "open"

    def keep_trial(self, trial: "asyncio.Task[None]") -> None:
        """Keep a reference to a trial that nobody waits for, until it has its verdict."""
        self._trials.add(trial)
        trial.add_done_callback(self._trials.discard)

    def report(self) -> HealthReport:
        """Return this model's health for people."""
        slots, breaker, now = self.slots, self.breaker, time.monotonic()
        is_well = breaker.state == "closed"
        return HealthReport(
            state=breaker.state,
            why=None if is_well else breaker.why,
            for_s=None if is_well else round(now - breaker.opened_at, 1),
            rests_s=round(self.limit_pause.until - now, 1)
            if now < self.limit_pause.until
            else None,
            busy=slots.busy if slots is not None else self.running.count,
            waiting=slots.waiting if slots is not None else 0,
            oldest_s=round(slots.oldest_s(), 3) if slots is not None else 0.0,
        )

    def retire(self) -> None:
        """Stop probing; the replacement Health takes over."""
        self._retired = True
        if self._probe_loop is not None:
            self._probe_loop.cancel()

    async def close(self) -> None:
        """Cancel all probes and trials."""
        tasks = [
            task for task in (self._probe_loop, self._probe_task, *self._trials) if task is not None
        ]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def is_request_error(error: ProviderError) -> bool:
    """Return whether the error is the request's fault and says nothing about the model. A provider
    that does not know the model's name is the model's fault.
    """
    return isinstance(error, ProviderTooLong) or (
        isinstance(error, ProviderRefused) and not error.another_may_help
    )
