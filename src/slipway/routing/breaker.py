"""A circuit breaker and a retry budget. Both are pure: the time is passed in.

    closed      Calls are made. FAILURES in a row, or half of the last WINDOW, open it. Calls that
                began one after the other count as a row too, even if slower calls that began
                earlier succeed meanwhile.
    open        No calls are made. The owner probes for free until the model can be reached
                (`reached`), and after a failed trial not before its pause is over. If probes fail,
                time alone allows a trial (`waited`): a probe asks another path than calls do.
    half-open   One call is the trial. If it succeeds, the breaker closes; if it fails, it opens
                again and the pause doubles.

Sources: Nygard, Release It!, 2007; the budget follows Finagle: retries are a share of the requests,
so that they cannot multiply an outage.
"""

from collections import deque
from typing import Literal, get_args

from slipway.errors import ProviderDown, ProviderError

FAILURES = 3
WINDOW = 20
SHARE = 0.5
ENOUGH = 10  # calls in the window before SHARE applies
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0
TRIAL_S = 5.0  # a trial that takes longer does not keep another one from beginning

State = Literal["closed", "open", "half-open"]
STATES = get_args(State)


class Breaker:
    __slots__ = (
        "_begun",
        "_failed",
        "_in_a_row",
        "_outcomes",
        "_pause_s",
        "_trial_at",
        "_trial_began_at",
        "kind",
        "opened_at",
        "state",
        "why",
    )

    def __init__(self) -> None:
        self.state: State = "closed"
        self.why = ""  # why it opened, as a sentence, and as a kind of error below
        self.kind: type[ProviderError] = ProviderDown
        self.opened_at = 0.0
        self._trial_began_at: float | None = None
        self._begun = 0
        # The numbers of the last calls that failed without a word
        self._failed = deque[int](maxlen=FAILURES)
        self._in_a_row = 0
        self._outcomes = deque[bool](maxlen=WINDOW)
        self._pause_s = 0.0
        self._trial_at = 0.0

    def began(self) -> int:
        """Count a call and return its number."""
        self._begun += 1
        return self._begun

    def succeeded(self) -> None:
        """Record that the model produced words in time, or refused for a reason of the request.
        This closes an open breaker too.
        """
        self._in_a_row = 0
        if self.state == "closed":
            self._outcomes.append(True)
        else:
            self.state, self._trial_began_at, self._pause_s = "closed", None, 0.0
            self._outcomes.clear()

    def failed(self, now: float, *, call_number: int | None = None, at_once: bool = False) -> bool:
        """Record a failure and return whether it opened the breaker.

        `call_number` is set if the call failed without a word. `at_once` opens the breaker on the
        first failure.
        """
        if self.state == "open":
            return False
        self._in_a_row += 1
        if call_number is not None:
            self._failed.append(call_number)
        self._outcomes.append(False)
        if self.state == "half-open":
            self._pause_s = min(LONGEST_PAUSE_S, 2 * self._pause_s or FIRST_PAUSE_S)
        elif not (
            at_once
            or self._in_a_row >= FAILURES
            or self._consecutive_calls_failed()
            or self._mostly_fails()
        ):
            return False
        self.state, self._trial_began_at, self.opened_at = "open", None, now
        self._trial_at = now + self._pause_s
        return True

    def _consecutive_calls_failed(self) -> bool:
        return (
            len(self._failed) == FAILURES and max(self._failed) - min(self._failed) == FAILURES - 1
        )

    def _mostly_fails(self) -> bool:
        return len(self._outcomes) >= ENOUGH and self._outcomes.count(False) >= SHARE * len(
            self._outcomes
        )

    def reached(self, now: float) -> bool:
        """Record that a probe succeeded, and return whether one call may be the trial now."""
        if self.state == "open" and now >= self._trial_at:
            self.state = "half-open"
        return self.state != "open"

    def waited(self, now: float, first_s: float) -> None:
        """Allow a trial, although no probe succeeded, once the breaker has been open for `first_s`;
        after failed trials for twice as long each time, 30 s at most.
        """
        pause_s = max(first_s, min(LONGEST_PAUSE_S, self._pause_s / FIRST_PAUSE_S * first_s))
        if self.state == "open" and now >= self.opened_at + pause_s:
            self.state = "half-open"

    def on_trial(self, now: float) -> bool:
        """Return whether a trial is in progress that another one must wait for."""
        began_at = self._trial_began_at
        return began_at is not None and now - began_at < TRIAL_S

    def begin_trial(self, now: float) -> None:
        self._trial_began_at = now

    def release_trial(self) -> None:
        """End a trial without a verdict."""
        self._trial_began_at = None


class RetryBudget:
    """Retries that a model has left. Each first call earns 0.08 of one, up to 3; 3 are there at the
    start.
    """

    EARNED, MOST = 0.08, 3.0

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = self.MOST

    def asked(self) -> None:
        self.left = min(self.MOST, self.left + self.EARNED)

    def spend(self) -> bool:
        if self.left < 1:
            return False
        self.left -= 1
        return True
