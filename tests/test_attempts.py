"""Test which model a route tries next, against every way in which models can behave."""

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import hypothesis.strategies as st
import pytest
from hypothesis import given

from slipway.errors import (
    ModelBusy,
    ProviderCut,
    ProviderDeclined,
    ProviderDown,
    ProviderError,
    ProviderKey,
    ProviderLimit,
    ProviderNonsense,
    ProviderRefused,
    ProviderSlow,
    ProviderTooLong,
)
from slipway.routing.attempts import (
    MOST_INTERRUPTIONS,
    READY,
    TRIAL,
    Attempts,
    Availability,
    CallModel,
    GiveUp,
    ModelTraits,
    Step,
    WaitUntil,
)
from slipway.routing.breaker import Breaker, RetryBudget

AWAY = Availability(state="away", why="it cannot be reached")
KINDS: dict[str, Callable[[], ProviderError]] = {
    "down": lambda: ProviderDown("down"),
    "slow": lambda: ProviderSlow("slow"),
    "nonsense": lambda: ProviderNonsense("nonsense"),
    "limit": lambda: ProviderLimit("limit", retry_after_s=3.0),
    "limit soon": lambda: ProviderLimit("limit", retry_after_s=0.1),
    "key": lambda: ProviderKey("key"),
    "busy": lambda: ModelBusy("busy", retry_after_s=2.0),
    "too long": lambda: ProviderTooLong("too long"),
    "refused": lambda: ProviderRefused("refused"),
    "declined": lambda: ProviderDeclined("declined"),
}
STANDINGS = st.sampled_from(
    [
        READY,
        READY,
        READY,
        TRIAL,
        AWAY,
        Availability(state="away", why="it is limiting us", until=1.0),
    ]
)


@dataclass
class World:
    """How models behave: what each try of each ends with (None: well), in turn, the last for ever;
    how each standing.
    """

    outcomes: list[list[str | None]]
    standings: list[Availability]
    retries: int = 2
    now: float = 0.0
    steps: list[Step] = field(default_factory=list)
    tried: Counter[int] = field(default_factory=Counter)
    errors: list[ProviderError] = field(default_factory=list)

    def outcome(self, index: int) -> ProviderError | None:
        kinds = self.outcomes[index]
        kind = kinds[min(self.tried[index], len(kinds) - 1)]
        self.tried[index] += 1
        error = KINDS[kind]() if kind is not None else None
        if error is not None:
            self.errors.append(error)
        return error

    def walk(self, attempts: Attempts, draw: random.Random) -> int | ProviderError:
        """Follow the steps of one question; return the model that answers, or the last step."""
        for _ in range(200):
            step = attempts.next(self.now, lambda index: self.standing_of(index), lambda _: True)
            self.steps.append(step)
            if isinstance(step, GiveUp):
                return step.error
            if isinstance(step, WaitUntil):
                assert step.until > self.now
                self.now = step.until
                continue
            for index in (step.index, step.alongside):
                if index is None:
                    continue
                if (error := self.outcome(index)) is None:
                    return index
                self.now += 0.01
                attempts.failed(index, error, self.now, draw.random())
        raise AssertionError("it does not end")

    def standing_of(self, index: int) -> Availability:
        standing = self.standings[index]
        return READY if standing.until is not None and standing.until <= self.now else standing


WORLDS = st.integers(1, 4).flatmap(
    lambda n: st.builds(
        World,
        st.lists(
            st.lists(st.sampled_from([None, *KINDS]), min_size=1, max_size=4),
            min_size=n,
            max_size=n,
        ),
        st.lists(STANDINGS, min_size=n, max_size=n),
        st.integers(0, 3),
    )
)


def names(world: World) -> list[ModelTraits]:
    return [ModelTraits(name=f"m{n}", retries=world.retries) for n in range(len(world.outcomes))]


@given(WORLDS, st.integers(0, 1000), st.sampled_from([0.0, 2.0, 60.0]))
def test_whatever_models_do(world: World, seed: int, patience_s: float) -> None:
    attempts = Attempts(names(world), retry_until=patience_s)
    ended = world.walk(attempts, random.Random(seed))
    tries = [step for step in world.steps if isinstance(step, CallModel)]
    busy = {index for index, kinds in enumerate(world.outcomes) if "busy" in kinds}
    for index, count in world.tried.items():  # no model is tried more often than it may be
        assert count <= 1 + world.retries + (index in busy)
    again = [n for n, step in enumerate(tries) if step.kind == "retry"]
    if again:  # all who could be were asked before one was asked again
        asked = {index for step in tries[: again[0]] for index in (step.index, step.alongside)}
        assert asked >= {
            n for n, standing in enumerate(world.standings) if standing in (READY, TRIAL)
        }
    for step in tries:
        assert step.alongside is None or (step.kind == "trial" and step.alongside != step.index)
    for n, standing in enumerate(world.standings):
        if standing is AWAY:
            assert n not in world.tried
    may_wait = [step.until for step in world.steps if isinstance(step, WaitUntil)]
    assert all(until <= patience_s for until in may_wait)
    if isinstance(ended, ProviderError):
        assert ended in world.errors or not world.tried
        if not world.tried:
            assert all(f"m{n}" in ended.what for n in range(len(world.outcomes)))
    else:
        assert (
            world.outcomes[ended][min(world.tried[ended], len(world.outcomes[ended])) - 1] is None
        )


@given(WORLDS)
def test_a_ready_and_healthy_model_is_always_found(world: World) -> None:
    well = [
        n
        for n, kinds in enumerate(world.outcomes)
        if kinds[0] is None and world.standings[n] is READY
    ]
    forbids = any(kinds[0] in ("refused", "declined") for kinds in world.outcomes)
    ended = world.walk(Attempts(names(world), retry_until=60.0), random.Random(1))
    if well and not forbids:
        assert isinstance(ended, int)


def test_a_question_refused_for_its_content_is_not_sent_to_other_models() -> None:
    for first in ("declined", "refused"):
        world = World([[first], [None]], [READY, READY])
        assert isinstance(
            world.walk(Attempts(names(world), retry_until=9.0), random.Random(1)), ProviderRefused
        )
        assert world.tried == {0: 1}
    world = World([["down"], ["declined"], [None]], [READY] * 3)
    assert isinstance(
        world.walk(Attempts(names(world), retry_until=9.0), random.Random(1)), ProviderDeclined
    )
    assert world.tried[2] == 0


def test_a_fallback_that_refuses_does_not_hide_the_error_of_the_first_model() -> None:
    world = World([["down"], ["refused"]], [READY, READY], retries=0)
    ended = world.walk(Attempts(names(world), retry_until=9.0), random.Random(1))
    assert isinstance(ended, ProviderDown)


@pytest.mark.parametrize("kind", ["key", "refused", "declined", "too long"])
def test_errors_that_a_retry_cannot_fix_are_not_retried(kind: str) -> None:
    world = World([[kind]], [READY])
    world.walk(Attempts(names(world), retry_until=9.0), random.Random(1))
    assert world.tried == {0: 1}


def test_a_short_retry_after_is_waited_out_and_a_long_one_is_reported() -> None:
    world = World([["limit", None]], [READY])
    assert world.walk(Attempts(names(world), retry_until=9.0), random.Random(1)) == 0
    assert world.now >= 3.0
    world = World([["limit", None]], [READY])
    ended = world.walk(Attempts(names(world), retry_until=2.0), random.Random(1))
    assert isinstance(ended, ProviderLimit)
    assert ended.retry_after_s == 3.0
    assert world.tried == {0: 1}


def test_pauses_are_drawn_from_all_of_a_range_that_doubles() -> None:
    highest = list[float]()
    for jitter in (0.0, 0.999):
        attempts, now = Attempts([ModelTraits(name="a", retries=4)], retry_until=100.0), 0.0
        pauses = list[float]()
        for _ in range(5):
            step = attempts.next(now, lambda _: READY, lambda _: True)
            if isinstance(step, WaitUntil):
                pauses.append(step.until - now)
                now = step.until
                step = attempts.next(now, lambda _: READY, lambda _: True)
            attempts.failed(0, ProviderDown("down"), now, jitter)
        highest = pauses or highest
    assert [round(pause, 2) for pause in highest] == [0.25, 0.5, 1.0, 2.0]


def test_without_a_budget_nothing_is_retried() -> None:
    attempts = Attempts([ModelTraits(name="a")], retry_until=100.0)
    assert isinstance(attempts.next(0, lambda _: READY, lambda _: False), CallModel)
    attempts.failed(0, ProviderDown("down"), 0.0, 0.0)
    assert isinstance(attempts.next(0, lambda _: READY, lambda _: False), GiveUp)


def test_a_question_that_is_too_long_goes_to_a_model_with_a_larger_context() -> None:
    small, unknown, same, large = (
        ModelTraits(name=n, context=c)
        for n, c in (("s", 1000), ("u", None), ("t", 1000), ("l", 9000))
    )
    attempts = Attempts([small, same, unknown, large], retry_until=9.0)
    order = []
    for _ in range(3):
        step = attempts.next(0, lambda _: READY, lambda _: True)
        assert isinstance(step, CallModel)
        order.append(step.index)
        attempts.failed(step.index, ProviderTooLong("too long"), 0.0, 0.0)
    assert order == [0, 2, 3]  # the second has no larger context than the first
    assert "context" in attempts.skipped["t"]
    surely = Attempts([small, large], retry_until=9.0, least_tokens=2000)
    step = surely.next(0, lambda _: READY, lambda _: True)
    assert isinstance(step, CallModel)
    assert step.index == 1


def test_a_question_is_not_too_long_for_ever_where_a_larger_model_is_away() -> None:
    traits = [ModelTraits(name="large", context=9000), ModelTraits(name="small", context=1000)]
    attempts = Attempts(traits, retry_until=9.0)
    step = attempts.next(0, lambda index: (AWAY, READY)[index], lambda _: True)
    assert isinstance(step, CallModel)
    attempts.failed(step.index, ProviderTooLong("too long"), 0.0, 0.0)
    step = attempts.next(0, lambda index: (AWAY, READY)[index], lambda _: True)
    assert isinstance(step, GiveUp)
    assert isinstance(step.error, ProviderDown)
    assert step.error.retryable


def test_a_trial_delays_no_question() -> None:
    attempts = Attempts(
        [ModelTraits(name="a"), ModelTraits(name="b"), ModelTraits(name="c")], retry_until=9.0
    )
    step = attempts.next(0, lambda index: (TRIAL, AWAY, READY)[index], lambda _: True)
    assert step == CallModel(index=0, kind="trial", alongside=2, may_wait=False)


def test_a_model_is_waited_for_where_the_others_are_away() -> None:
    attempts = Attempts([ModelTraits(name="a"), ModelTraits(name="b")], retry_until=9.0)
    assert attempts.next(0, lambda index: (READY, AWAY)[index], lambda _: True) == CallModel(
        index=0, kind="first", may_wait=True
    )


def test_no_model_is_asked_when_there_is_no_time_left() -> None:
    attempts = Attempts([ModelTraits(name="a"), ModelTraits(name="b")], retry_until=1.0, until=1.0)
    assert isinstance(attempts.next(0.0, lambda _: READY, lambda _: True), CallModel)
    slow = ProviderSlow("slow")
    attempts.failed(0, slow, 1.0, 0.5)
    assert attempts.next(1.0, lambda _: READY, lambda _: True) == GiveUp(error=slow)
    late = Attempts([ModelTraits(name="a")], retry_until=1.0, until=1.0).next(
        1.0, lambda _: READY, lambda _: True
    )
    assert isinstance(late, GiveUp)
    assert isinstance(late.error, ProviderSlow)


def test_a_model_that_is_busy_does_not_hide_that_the_request_is_wrong() -> None:
    world = World([["busy"], ["refused"], [None]], [READY] * 3)
    assert isinstance(
        world.walk(Attempts(names(world), retry_until=9.0), random.Random(1)), ProviderRefused
    )
    assert world.tried == {0: 1, 1: 1}


@given(st.integers(2, 4), st.lists(st.booleans(), min_size=4, max_size=4), st.integers(0, 3))
def test_a_broken_answer_goes_to_later_models_first_and_only_to_ones_that_can_continue(
    n: int, can_continue: list[bool], first: int
) -> None:
    traits = [ModelTraits(name=f"m{i}", can_continue=can_continue[i]) for i in range(n)]
    attempts, at, seen = Attempts(traits, retry_until=9.0), first % n, []
    for _ in range(at + 1):
        attempts.next(0, lambda _: READY, lambda _: True)
    for _ in range(MOST_INTERRUPTIONS + 3):
        if not attempts.interrupted(at, ProviderCut("cut")):
            break
        step = attempts.next(0, lambda _: READY, lambda _: True)
        if isinstance(step, GiveUp):
            assert not any(can_continue[:n])
            return
        assert isinstance(step, CallModel)
        assert step.kind == "continue"
        assert can_continue[step.index]
        behind = [i for i in [*range(at + 1, n), *range(at + 1)] if can_continue[i]]
        assert step.index == behind[0]
        at = step.index
        seen.append(at)
    assert len(seen) == MOST_INTERRUPTIONS  # and not for ever


# The breaker and the budget


@given(st.lists(st.sampled_from(["well", "fails", "reached", "trial"]), max_size=60))
def test_a_breaker_is_always_in_one_of_its_states_and_lets_one_trial_through(
    events: list[str],
) -> None:
    breaker, now = Breaker(), 0.0
    for event in events:
        now += 0.6
        before = breaker.state
        if event == "well" and before != "open":
            breaker.succeeded()
            assert breaker.state == "closed"
        elif event == "fails" and before != "open":
            opened = breaker.failed(now)
            assert opened == (breaker.state == "open")
            assert breaker.state == "open" or before == "closed"
        elif event == "reached":
            breaker.reached(now)
            assert breaker.state in ({"half-open", "open"} if before == "open" else {before})
        elif event == "trial" and before == "half-open" and not breaker.on_trial(now):
            breaker.begin_trial(now)
        assert not (breaker.on_trial(now) and breaker.state != "half-open")


def test_three_failures_in_a_row_open_it_and_half_of_many_do_too() -> None:
    breaker = Breaker()
    assert [breaker.failed(0.0) for _ in range(3)] == [False, False, True]
    breaker = Breaker()
    for _ in range(20):
        breaker.succeeded()
    opened = False
    for n in range(40):
        opened = opened or breaker.failed(float(n))
        if breaker.state == "closed":
            breaker.succeeded()
    assert opened
    assert Breaker().failed(0.0, at_once=True)


def test_slower_calls_from_before_do_not_hide_an_outage() -> None:
    breaker = Breaker()
    numbers = [breaker.began() for _ in range(9)]
    opened = list[bool]()
    for number in numbers[4:7]:  # refused at once, while those before still answer
        opened.append(breaker.failed(0.0, call_number=number))
        breaker.succeeded()
    assert opened == [False, False, True]


def test_failures_here_and_there_do_not_open_it() -> None:
    breaker = Breaker()
    for _ in range(200):
        breaker.failed(0.0, call_number=breaker.began())
        for _ in range(2):
            breaker.began()
            breaker.succeeded()
    assert breaker.state == "closed"


def test_a_trial_that_fails_doubles_the_pause() -> None:
    breaker, now, pauses = Breaker(), 0.0, []
    breaker.failed(now, at_once=True)
    for _ in range(9):
        began = now
        while not breaker.reached(now):
            now += 0.125
        pauses.append(now - began)
        breaker.begin_trial(now)
        breaker.failed(now)
    assert pauses == [0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]


def test_retries_are_a_tenth_of_the_requests() -> None:
    budget, retries = RetryBudget(), 0
    for _ in range(1000):
        budget.asked()
        retries += budget.spend()
    assert retries <= 0.1 * 1000 + budget.MOST
