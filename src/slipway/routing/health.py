"""How a model is, learnt from its calls: whether it may be asked, how often it may be tried again,
how many calls it works on at once.

It is kept by the model's name and outlives a reload of the settings, unless the model itself is
another one then.
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
from slipway.routing.attempts import READY, TRIAL, Standing
from slipway.routing.breaker import Breaker, RetryBudget
from slipway.routing.slots import ModelSlots
from slipway.types import Record

log = logging.getLogger("slipway")
PROBE_S = 0.5  # between two looks whether a model that failed can be reached again
LOOK_S = 0.3  # how long a question that nobody else can answer waits for a look
SOON_S = 0.1
FIRST_REST_S, LONGEST_REST_S = (
    1.0,
    30.0,
)  # of a model that limits us and does not say for how long; it doubles

Probe = Callable[[], Awaitable[bool]]


class Shown(Record, frozen=True, kw_only=True):
    """How a model is, for people: `state` is closed, open or half-open; `why` it was opened, and
    for how long it is. `rests_s` is how long it is left alone because it limits us.
    """

    state: str
    why: str | None = None
    for_s: float | None = None
    rests_s: float | None = None
    busy: int = 0
    waiting: int = 0


class Rest:
    """How long a model that limits us is left alone."""

    __slots__ = ("pause_s", "until")

    def __init__(self) -> None:
        self.until = self.pause_s = 0.0


class Health:
    def __init__(
        self,
        name: str = "",
        probe: Probe | None = None,
        turns: ModelSlots | None = None,
        before: "Health | None" = None,
    ) -> None:
        """`probe` asks, for free, whether the model can be reached. What `before` has learnt counts
        on, and who has a turn there keeps it.
        """
        self.name, self.probe = name, probe
        self.turns: ModelSlots | None = (
            before.turns if before is not None and before.turns == turns else turns
        )
        self.breaker: Breaker = before.breaker if before is not None else Breaker()
        self.budget: RetryBudget = before.budget if before is not None else RetryBudget()
        self.rest: Rest = before.rest if before is not None else Rest()
        self._probing: asyncio.Task[None] | None = None
        self._looking: asyncio.Task[None] | None = None
        self._looked_at = -math.inf
        self._trials = set[asyncio.Task[None]]()
        self._retired = False

    def start(self) -> None:
        if self.breaker.state == "open":
            self._keep_looking()

    def standing(self, now: float) -> Standing:
        if now < self.rest.until:
            return Standing(
                state="away", why="it is limiting us", until=self.rest.until, error=ProviderLimit
            )
        if self.breaker.state == "closed":
            return READY
        if self.breaker.state == "open":
            # it may be one from before that opened it, by a call that it was still on
            self._keep_looking()
            return Standing(state="away", why=self.breaker.why, error=self.breaker.kind)
        return (
            Standing(state="away", why="it is being tried", until=now + SOON_S)
            if self.breaker.on_trial
            else TRIAL
        )

    def began(self, *, again: bool) -> int:
        """The call's number."""
        if not again:
            self.budget.asked()
        if self.breaker.state == "half-open":
            self.breaker.begin_trial()
        return self.breaker.began()

    def succeeded(self, began_at: float) -> None:
        """It spoke in time. What comes after may still break off."""
        self.rest.pause_s = 0.0
        if self.breaker.state == "closed":
            self.breaker.succeeded()
        elif (
            began_at >= self.breaker.opened_at
        ):  # one that began before it was opened says nothing of now
            log.info("model %s answers again", self.name)
            self.breaker.succeeded()

    def failed(self, error: ProviderError, began_at: float, number: int | None = None) -> None:
        """`number` is that of a call that ended without a word."""
        now = time.monotonic()
        if isinstance(error, ProviderLimit):
            self._rest(error, now)
            return
        if self.breaker.state == "half-open" and began_at < self.breaker.opened_at:
            return
        if is_of_the_request(error):
            self.succeeded(began_at)
            return
        if self.breaker.failed(now, number=number, at_once=isinstance(error, ProviderKey)):
            self.breaker.why, self.breaker.kind = (
                error.ours,
                ProviderKey if isinstance(error, ProviderKey) else ProviderDown,
            )
            log.warning(
                "model %s is not asked until it can be reached again: %s", self.name, error.what
            )
            self._keep_looking()

    def _rest(self, error: ProviderError, now: float) -> None:
        self.breaker.give_back()
        self.rest.pause_s = min(LONGEST_REST_S, 2 * self.rest.pause_s or FIRST_REST_S)
        wait_s = self.rest.pause_s if error.retry_after_s is None else error.retry_after_s
        self.rest.until = max(self.rest.until, now + wait_s)

    def given_back(self) -> None:
        """A call ended that says nothing of it, such as one that we gave up."""
        self.breaker.give_back()

    def _keep_looking(self) -> None:
        if not self._retired and (self._probing is None or self._probing.done()):
            self._probing = asyncio.get_running_loop().create_task(self._until_reached())

    async def _until_reached(self) -> None:
        while self.breaker.state == "open":
            await asyncio.sleep(PROBE_S)
            await self._look()

    async def _look(self) -> None:
        if self.probe is not None and await self.probe():
            self.breaker.reached(time.monotonic())
        self._looked_at = time.monotonic()

    async def look(self) -> bool:
        """For a question that nobody else can answer: whether it may be tried now. All who ask at
        the same time share one look.
        """
        if self.breaker.state == "open" and time.monotonic() - self._looked_at > SOON_S:
            if self._looking is None or self._looking.done():
                self._looking = asyncio.get_running_loop().create_task(self._look())
            await asyncio.wait({self._looking}, timeout=LOOK_S)
        return self.breaker.state != "open"

    def watch(self, trial: "asyncio.Task[None]") -> None:
        """A trial that nobody waits for goes on to its verdict."""
        self._trials.add(trial)
        trial.add_done_callback(self._trials.discard)

    def shown(self) -> Shown:
        turns, breaker, now = self.turns, self.breaker, time.monotonic()
        is_well = breaker.state == "closed"
        return Shown(
            state=breaker.state,
            why=None if is_well else breaker.why,
            for_s=None if is_well else round(now - breaker.opened_at, 1),
            rests_s=round(self.rest.until - now, 1) if now < self.rest.until else None,
            busy=turns.busy if turns is not None else 0,
            waiting=turns.waiting if turns is not None else 0,
        )

    def retire(self) -> None:
        """Another looks on, where there is one and it is asked for."""
        self._retired = True
        if self._probing is not None:
            self._probing.cancel()

    async def close(self) -> None:
        tasks = [task for task in (self._probing, self._looking, *self._trials) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def is_of_the_request(error: ProviderError) -> bool:
    """Whether it says nothing against the model. That its provider does not know it by its name
    does.
    """
    return isinstance(error, ProviderTooLong) or (
        isinstance(error, ProviderRefused) and not error.another_may_help
    )
