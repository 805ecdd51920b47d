"""Bound how many wrong answers a semantic cache has served, whatever questions come.

A question that resembles a kept one closely enough is a *would-be hit*. A coin decides whether it
is served, or checked: then the model answers, and the answers are compared. So each wrong would-be
hit was either served, unnoticed, or found by a check, with known probabilities, and the number
found bounds the number served. Nothing is assumed about the questions, the scores or the order.

Let q be the probability of a check. For every c in (0, 1), the product over all wrong would-be hits
of

    (1 - q) ** -c  if it was served,  (1 - (1 - q) ** (1 - c)) / q  if it was checked,

is a martingale that starts at 1: its factors have mean 1 under the coin. So is a mixture over
several c, and by Ville's inequality it ever reaches 1 / alpha with probability alpha at most. Hence
with confidence 1 - alpha, *at all times together*, fewer wrong answers were served than it takes
for the mixture to reach 1 / alpha. (Ville 1939; the method of mixtures: Robbins 1970; a survey of
such bounds: Howard, Ramdas, McAuliffe and Sekhon 2021, Annals of Statistics 49.)
"""

import math
import random
from bisect import bisect_right
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from slipway.types import Record

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Verdict = Literal["shadow", "check", "serve"]
Per = Literal["hit", "request"]
CONFIDENCE = 0.95
LEVELS = (0.6, 0.7, 0.8, 0.86, 0.9, 0.93, 0.95, 0.965, 0.975, 0.985, 0.99, 0.995)
SHARES = (1 / 20, 1 / 8, 1 / 3)  # of would-be hits checked
# c: its share of the mixture
_MIXTURE = {0.96: 0.4, 0.8: 0.2, 0.6: 0.15, 0.45: 0.1, 0.3: 0.08, 0.2: 0.05, 0.1: 0.02}
_BETS = (0.05, 0.15, 0.3, 0.5, 0.7, 0.9)  # how much of the wealth a bet may lose
_LIMITS = (0.25, 0.4, 0.6, 0.8, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0)  # by max_error: tested error rates
_STARTS = (0.86, 0.95, 0.985)  # levels from which lower ones are tested in turn
_WINDOWS = 3  # the latest measurements that count
_GROWTH = 3  # how many times as many checks as before until the next one begins
_PARTS = (0.1, 0.25, 0.25, 0.2)  # of alpha, for the first measurements; later ones halve the rest
_LEARNING = 50  # checks before anything counts: the scorer is still learning
_COMFORT = 0.7  # of the allowed error: what no check could find, for fewer checks
_FORECAST = 0.7  # of the allowed error: what a threshold may be expected to need
_RECENT = 40  # checks that the alarm looks at
_ALARM = 0.001


class BoundState(Record, frozen=True, kw_only=True):
    """What is known of the error now.

    `threshold` is that of the score, or in shadow the one that is nearest to being allowed; `above`
    it were so many checks, `wrong_above` of them wrong, and the error rate is below `per_hit`.
    `wrong_served_at_most` and `per_request` bound the wrong answers served, whatever was asked.
    """

    serving: bool
    threshold: float
    share: float  # of would-be hits that are checked; 1 in shadow
    requests: int
    served: int
    checked: int
    wrong: int
    reported: int
    above: int
    wrong_above: float
    per_hit: float
    wrong_served_at_most: float
    per_request: float
    max_error: float
    per: Per
    alarms: int


class ServedErrors:
    """Bound the number of wrong answers served, from those found by checks.

    Each share of checks has a martingale of its own, and an equal part of alpha.
    """

    def __init__(self, alpha: float) -> None:
        self._wanted = -math.log(alpha / len(SHARES))
        # for each c: minus the log of the factors of what was found
        self._found = {share: [0.0] * len(_MIXTURE) for share in SHARES}
        self._most = {share: self._solved(share) for share in SHARES}
        self._first = dict(self._most)
        self._used = set[float]()

    def serve(self, share: float) -> None:
        self._used.add(share)

    def found(self, share: float) -> None:
        """Count a wrong would-be hit that was checked with probability `share`."""
        self._found[share] = [
            sum_ - math.log((1 - (1 - share) ** (1 - c)) / share)
            for c, sum_ in zip(_MIXTURE, self._found[share], strict=True)
        ]
        self._most[share] = self._solved(share)

    def at_most(self, share: float | None = None) -> float:
        """Return the bound, or what it would be if the next one were served at this share."""
        return sum(self._most[each] for each in self._used | ({share} if share else set()))

    def at_most_unfound(self, share: float) -> float:
        """Return what the bound would be if no check had found anything."""
        return sum(self._first[each] for each in self._used | {share})

    @property
    def served(self) -> bool:
        return bool(self._used)

    def _solved(self, share: float) -> float:
        """Return the number served at which the mixture reaches 1 / alpha."""
        each = -math.log1p(-share)
        low, high = 0.0, 1.0
        while self._log_mixture(share, high * each) < self._wanted:
            low, high = high, high * 2
        while high - low > 1e-4 * high:
            middle = (low + high) / 2
            is_high = self._log_mixture(share, middle * each) >= self._wanted
            low, high = (low, middle) if is_high else (middle, high)
        return high

    def _log_mixture(self, share: float, weight: float) -> float:
        logs = [
            math.log(part) + c * weight - found
            for (c, part), found in zip(_MIXTURE.items(), self._found[share], strict=True)
        ]
        top = max(logs)
        return top + math.log(sum(math.exp(log - top) for log in logs))


class RateEvidence:
    """Evidence that the error rate above each level is below some limits, since a point in time.

    Whoever bets on every would-be hit that its error is below the limit m cannot win if the rate is
    m or more: the wealth is then a supermartingale, and reaches 1 / alpha with probability alpha at
    most (Waudby-Smith and Ramdas 2024, Journal of the Royal Statistical Society B 86). A would-be
    hit counts as wrong by 1 / q if a check, made with probability q, found it wrong, and as right
    otherwise; its mean is its error. Bets are a part of q, so that none can lose more than all.
    """

    def __init__(self, max_error: float, number: int) -> None:
        import numpy as np

        later = (1 - sum(_PARTS)) / 2 ** (number - len(_PARTS) + 1) if number else 0.0
        part = _PARTS[number] if number < len(_PARTS) else later
        self.alpha = (1 - CONFIDENCE) * part / len(_STARTS)
        self.requests = 0
        self._limits = np.array([min(max_error * part, 0.99) for part in _LIMITS])
        self._bets = np.array(_BETS)
        self._logs = np.zeros((len(LEVELS), len(_LIMITS), len(_BETS)))
        self.hits, self.wrong = np.zeros(len(LEVELS)), np.zeros(len(LEVELS))  # estimated

    def see(self, count: int, wrong: float, share: float) -> None:
        """Count a would-be hit above the first `count` levels that is `wrong` by this much, while
        `share` of what is served is checked.
        """
        import numpy as np

        bets = self._bets[None, :] * share
        self._logs[:count] += np.log1p(bets * (self._limits[:, None] - wrong))
        self.hits[:count] += 1
        self.wrong[:count] += wrong

    def bounds(self) -> "NDArray[np.float64]":
        """Return an upper bound of the error rate above each level; 1 if there is none yet."""
        import numpy as np

        top = self._logs.max(axis=2, keepdims=True)
        wealth = top[:, :, 0] + np.log(np.exp(self._logs - top).mean(axis=2))
        is_below = wealth >= -math.log(self.alpha)
        found: NDArray[np.float64] = np.where(is_below, self._limits, 1.0).min(axis=1)
        return found

    def earned(self, limit: float) -> list[int]:
        """Return the levels above which the error rate is at most `limit`.

        From each of a few levels, lower ones are tested in turn until one fails, so that each of
        these series needs a part of alpha, not each level (a fixed sequence of tests: Maurer,
        Hothorn and Lehmacher 1995).
        """
        passed, found = (self.bounds() <= limit).tolist(), set[int]()
        for start in _STARTS:
            level = LEVELS.index(start)
            while level >= 0 and passed[level]:
                found.add(level)
                level -= 1
        return sorted(found)


class ErrorBound:
    """Decide which would-be hits are served, so that the error stays below `max_error`.

    What is bounded, with 95 % confidence, at all times together:

    - `per="request"`: the wrong answers served are at most `max_error` of all requests, whatever
      the questions are.
    - `per="hit"`: the wrong answers served are at most `max_error` of the would-be hits above the
      threshold (served and checked), plus a number that is known from the start (about four by the
      share that is checked), whatever the questions are. Besides, nothing is served above a
      threshold until the error rate of the would-be hits above it is proved to be below
      `max_error`, if what comes next is like what came since the measurement began.

    Measurements begin at 50, 150, 450, 1350… checks, and the latest three count, so that what the
    scorer did before it had learned is forgotten. If the latest checks find more errors than chance
    explains, all of them are forgotten.
    """

    def __init__(
        self, max_error: float, per: Per = "hit", coin: Callable[[], float] = random.random
    ) -> None:
        self.max_error, self.per, self._coin = max_error, per, coin
        self.requests = self.served = self.checked = self.wrong = self.reported = self.alarms = 0
        self._owed = False  # a check brought no answer to compare
        self._level: int | None = None  # of what is served, an index of LEVELS
        self._share = 1.0
        self._errors = ServedErrors(1 - CONFIDENCE)
        self._credit = [0] * len(LEVELS)  # would-be hits above each level, served and checked
        self._windows: list[RateEvidence] = []
        self._opened, self._next_window = 0, _LEARNING
        self._recent: deque[bool] = deque(maxlen=_RECENT)

    # deciding

    def miss(self) -> None:
        """Count a request without any candidate."""
        self.requests += 1
        for window in self._windows:
            window.requests += 1

    def decide(self, score: float) -> tuple[Verdict, float]:
        """Return what to do with a candidate, and with which probability it is checked."""
        self.miss()
        count = bisect_right(LEVELS, score)
        if self._level is None or count <= self._level:
            return "shadow", 1.0
        if self._owed:
            return "check", 1.0
        if self._coin() < self._share:
            return "check", self._share
        self._errors.serve(self._share)
        self.served += 1
        self._see(count, 0.0)
        return "serve", self._share

    def undecided(self, verdict: Verdict) -> None:
        """Take note that a check brought no answer to compare. Nothing is served until one does."""
        self._owed = self._owed or verdict == "check"

    def learn(self, score: float, wrong: bool, verdict: Verdict, share: float) -> None:
        """Count a checked candidate."""
        self.checked += 1
        self.wrong += wrong
        self._owed = self._owed and verdict != "check"
        if verdict == "check":
            self._recent.append(wrong)
            if wrong and share < 1:
                self._errors.found(share)
        self._see(bisect_right(LEVELS, score), wrong / share)
        if self._is_alarming():
            self.alarms += 1
            self._windows.clear()
            self._recent.clear()
            self._next_window = self.checked
            self._adjust()
        if self.checked >= self._next_window:
            self._open_window()

    def report(self, score: float) -> None:
        """Count a served answer that a reader called wrong, in addition to what is bounded."""
        self.reported += 1
        self._see(bisect_right(LEVELS, score), 1.0)

    # measuring

    def _see(self, count: int, wrong: float) -> None:
        """Count a would-be hit, and adjust what is served."""
        share = min(self._share, 1 / wrong) if wrong else self._share
        for window in self._windows:
            window.see(count, wrong, share)
        for level in range(count):
            self._credit[level] += 1
        self._adjust()

    def _open_window(self) -> None:
        self._windows = [*self._windows[1 - _WINDOWS :], RateEvidence(self.max_error, self._opened)]
        self._opened += 1
        self._next_window = max(_GROWTH * self.checked, _LEARNING)

    def _adjust(self) -> None:
        """Choose what is served from now on, and how much of it is checked."""
        levels = self._earned() if self._windows else []
        self._level = next((each for each in levels if self._affords(each, SHARES[-1])), None)
        if self._level is None:
            self._share = 1.0
            return
        level = self._level
        self._share = next((s for s in SHARES if self._affords(level, s, _COMFORT)), SHARES[-1])

    def _earned(self) -> list[int]:
        """Return the levels above which the error is low enough, by any of the latest windows."""
        found = set[int]()
        for window in self._windows:
            if self.per == "hit":
                levels, among = window.earned(self.max_error), window.hits
            else:
                levels, among = list(range(len(LEVELS))), window.hits * 0 + window.requests
            expected = (window.wrong + 1) <= _FORECAST * self.max_error * among
            found.update(level for level in levels if expected[level])
        return sorted(found)

    def _affords(self, level: int, share: float, part: float = 1.0) -> bool:
        """Tell whether more may be served above this level while `share` of it is checked.

        With a `part` below 1, only that part of the allowed errors may be what is never known.
        """
        errors = self._errors.at_most(share) + self.reported
        unknown = self._errors.at_most_unfound(share)
        allowed = self.max_error * (self.requests if self.per == "request" else self._credit[level])
        if part < 1 and unknown > part * allowed:
            return False
        return errors <= allowed + (unknown if self.per == "hit" else 0.0)

    def _is_alarming(self) -> bool:
        """Tell whether the last checks found more errors than chance explains."""
        n, k = len(self._recent), sum(self._recent)
        if self.per == "request" or k < 2:
            return False
        p = self.max_error
        tail = sum(math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k, n + 1))
        return tail < _ALARM

    def state(self) -> BoundState:
        bounds = [window.bounds().tolist() for window in self._windows] or [[1.0] * len(LEVELS)]
        best = [min(each) for each in zip(*bounds, strict=True)]
        shown = self._level if self._level is not None else best.index(min(best))
        window = self._windows[0] if self._windows else RateEvidence(self.max_error, 0)
        errors = self._errors.at_most() if self._errors.served else 0.0
        return BoundState(
            serving=self._level is not None,
            threshold=LEVELS[shown],
            share=self._share,
            requests=self.requests,
            served=self.served,
            checked=self.checked,
            wrong=self.wrong,
            reported=self.reported,
            above=int(window.hits[shown]),
            wrong_above=round(float(window.wrong[shown]), 1),
            per_hit=best[shown],
            wrong_served_at_most=errors,
            per_request=errors / max(self.requests, 1),
            max_error=self.max_error,
            per=self.per,
            alarms=self.alarms,
        )
