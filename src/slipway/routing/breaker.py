"""A circuit breaker, and a retry budget: both pure, with the time handed in.

    closed      questions are asked; FAILURES in a row, or half of the last WINDOW, open it. In a
    row are also calls that began one after the other,
                whatever slower ones that began before say meanwhile
    open        none is; whoever holds it probes for free until the model can be reached
    (`reached`), a trial's pause at the soonest after one that failed
    half-open   one question tries it: well, it closes; not, it opens, and its pause doubles

(Nygard, Release It!, 2007; the budget as in Finagle: retries are a share of the requests, so that
they cannot multiply an outage.)
"""

from collections import deque
from typing import Literal, get_args

from slipway.errors import ProviderDown, ProviderError

FAILURES = 3
WINDOW = 20
SHARE = 0.5
ENOUGH = 10  # of the window, before the share counts
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0

State = Literal["closed", "open", "half-open"]
STATES = get_args(State)


class Breaker:
    __slots__ = (
        "_begun",
        "_failed",
        "_in_a_row",
        "_last",
        "_pause_s",
        "_trial_at",
        "kind",
        "on_trial",
        "opened_at",
        "state",
        "why",
    )

    def __init__(self) -> None:
        self.state: State = "closed"
        self.why = ""  # it was opened, in words, and as a kind of error
        self.kind: type[ProviderError] = ProviderDown
        self.on_trial = False
        self.opened_at = 0.0
        self._begun = 0
        self._failed = deque[int](
            maxlen=FAILURES
        )  # the numbers of those that failed last without a word
        self._in_a_row = 0
        self._last = deque[bool](maxlen=WINDOW)
        self._pause_s = 0.0
        self._trial_at = 0.0

    def began(self) -> int:
        """A call's number."""
        self._begun += 1
        return self._begun

    def succeeded(self) -> None:
        """A model spoke in time, or refused for a reason of the request. It closes an open one too:
        what works, works.
        """
        self._in_a_row = 0
        if self.state == "closed":
            self._last.append(True)
        else:
            self.state, self.on_trial, self._pause_s = "closed", False, 0.0
            self._last.clear()

    def failed(self, now: float, *, number: int | None = None, at_once: bool = False) -> bool:
        """Whether this opened it. `number` is that of a call that failed without a word; `at_once`:
        no second failure is needed to know.
        """
        if self.state == "open":
            return False
        self._in_a_row += 1
        if number is not None:
            self._failed.append(number)
        self._last.append(False)
        if self.state == "half-open":
            self._pause_s = min(LONGEST_PAUSE_S, 2 * self._pause_s or FIRST_PAUSE_S)
        elif not (
            at_once
            or self._in_a_row >= FAILURES
            or self._neighbours_failed()
            or self._mostly_fails()
        ):
            return False
        self.state, self.on_trial, self.opened_at = "open", False, now
        self._trial_at = now + self._pause_s
        return True

    def _neighbours_failed(self) -> bool:
        return (
            len(self._failed) == FAILURES and max(self._failed) - min(self._failed) == FAILURES - 1
        )

    def _mostly_fails(self) -> bool:
        return len(self._last) >= ENOUGH and self._last.count(False) >= SHARE * len(self._last)

    def reached(self, now: float) -> bool:
        """A probe came through. Whether one question may try it now."""
        if self.state == "open" and now >= self._trial_at:
            self.state = "half-open"
        return self.state != "open"

    def begin_trial(self) -> None:
        self.on_trial = True

    def give_back(self) -> None:
        """The trial ended without a verdict."""
        self.on_trial = False


class RetryBudget:
    """Each first call earns less than a tenth of a retry; a few are there from the start."""

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
