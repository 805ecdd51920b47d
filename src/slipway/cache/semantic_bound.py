"""Bound how many wrong answers a semantic cache has served, whatever questions come.

A question that resembles a kept one closely enough is a *would-be hit*. A coin decides whether it
is served, or checked: then the model answers, and the answers are compared. So each wrong would-be
hit was either served, unnoticed, or found by a check, with known probabilities, and the number
found bounds the number served. Nothing is assumed about the questions, the scores or the order.

Let q be the probability of a check at the time of a wrong would-be hit, and v = -ln(1 - q). For
every c in (0, 1), the product over all wrong would-be hits of

    (1 - q) ** -c  if it was served,  (1 - (1 - q) ** (1 - c)) / q  if it was checked,

is a martingale that starts at 1: its factors have mean 1 under the coin. So is a mixture over
several c, and by Ville's inequality it ever reaches 1 / alpha with probability alpha at most. Hence
with confidence 1 - alpha, *at all times together*, the sum of v over the served wrong answers is
below the W at which the mixture reaches 1 / alpha. (Ville 1939; the method of mixtures: Robbins
1970; a survey of such bounds: Howard, Ramdas, McAuliffe and Sekhon 2021, Annals of Statistics 49.)
"""

import math
import random
from bisect import bisect_right
from collections import deque
from collections.abc import Callable
from typing import Literal

from slipway.types import Record

Verdict = Literal["shadow", "check", "serve"]
Per = Literal["hit", "request"]
CONFIDENCE = 0.95
LEVELS = (0.6, 0.7, 0.8, 0.86, 0.9, 0.93, 0.95, 0.965, 0.975, 0.985, 0.99, 0.995)
SHARES = (1 / 20, 1 / 16, 1 / 12, 1 / 8, 1 / 6, 1 / 4, 1 / 3, 1 / 2)  # of would-be hits checked
# c: its share of the mixture
_MIXTURE = {0.96: 0.4, 0.8: 0.2, 0.6: 0.15, 0.45: 0.1, 0.3: 0.08, 0.2: 0.05, 0.1: 0.02}
_RATES = (0.02, 0.1, 0.2, 0.35, 0.5, 0.7)  # error rates, as parts of the limit, that are mixed
_LEARNING = 100  # checks before anything counts: the scorer is still learning
_COMFORT = 0.5  # how much of the allowed error may be used up before fewer are checked
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
    wrong_above: int
    per_hit: float
    wrong_served_at_most: float
    per_request: float
    max_error: float
    per: Per
    restarts: int


class ServedErrors:
    """Bound the number of wrong answers served, from those found by checks."""

    def __init__(self, alpha: float) -> None:
        self._alpha = alpha
        self._found = [0.0] * len(_MIXTURE)  # for each c: minus the log of the factors of checks
        self._lowest = math.inf  # the smallest v at which anything was served
        self._weight: float | None = None
        self._first = self._most_weight()

    def serve(self, share: float) -> None:
        self._lowest = min(self._lowest, _weight_of(share))

    def at_most_unfound(self, share: float) -> float:
        """Return what the bound would be if no check had found anything."""
        return self._first / min(self._lowest, _weight_of(share))

    @property
    def served(self) -> bool:
        return self._lowest < math.inf

    def found(self, share: float) -> None:
        """Count a wrong would-be hit that was checked with probability `share`."""
        self._found = [
            sum_ - math.log((1 - (1 - share) ** (1 - c)) / share)
            for c, sum_ in zip(_MIXTURE, self._found, strict=True)
        ]
        self._weight = None

    def at_most(self, share: float | None = None) -> float:
        """Return the bound, or what it would be if the next one were served at this share."""
        lowest = self._lowest if share is None else min(self._lowest, _weight_of(share))
        return self._most_weight() / lowest

    def _most_weight(self) -> float:
        """Return the W at which the mixture reaches 1 / alpha."""
        if self._weight is None:
            wanted = -math.log(self._alpha)
            low, high = 0.0, 1.0
            while self._log_sum(high) < wanted:
                low, high = high, high * 2
            while high - low > 1e-4 * high:
                middle = (low + high) / 2
                low, high = (low, middle) if self._log_sum(middle) >= wanted else (middle, high)
            self._weight = high
        return self._weight

    def _log_sum(self, weight: float) -> float:
        logs = [
            math.log(share) + c * weight - found
            for (c, share), found in zip(_MIXTURE.items(), self._found, strict=True)
        ]
        top = max(logs)
        return top + math.log(sum(math.exp(log - top) for log in logs))


def _weight_of(share: float) -> float:
    return -math.log1p(-share)


def rate_bound(n: int, k: int, alpha: float) -> float:
    """Return an upper bound of an error rate after `k` errors in `n` checks. With confidence
    1 - alpha, all the bounds of a growing series of checks hold together.

    It is the rate that a mixture of likelihood ratios rejects at level alpha (Robbins 1970).
    """
    low, high = k / n if n else 0.0, 1.0
    while high - low > 1e-5:
        middle = (low + high) / 2
        low, high = (low, middle) if is_below(middle, n, k, alpha) else (middle, high)
    return high


def is_below(limit: float, n: int, k: int, alpha: float) -> bool:
    """Tell whether the error rate is below `limit`, with confidence 1 - alpha, at any time."""
    if limit >= 1:
        return True
    logs = [
        k * math.log(part) + (n - k) * (math.log1p(-limit * part) - math.log1p(-limit))
        for part in _RATES
    ]
    top = max(logs)
    return top + math.log(sum(math.exp(log - top) for log in logs) / len(logs)) >= -math.log(alpha)


class ErrorBound:
    """Decide which would-be hits are served, so that the error stays below `max_error`.

    What is bounded, with 95 % confidence, at all times together:

    - `per="request"`: the wrong answers served are at most `max_error` of all requests, whatever
      the questions are.
    - `per="hit"`: the wrong answers served are at most `max_error` of the answers served, plus a
      number that is known from the start (about three by the share that is checked), whatever the
      questions are. Besides, nothing is served above a threshold until the error rate of the
      would-be hits above it, found by checks, is below `max_error` (confidence 95 % for all
      thresholds together, if those that are not checked are like those that are).

    A restart forgets the counts, so that what was learned long ago does not excuse what is served
    now; each measurement in which something was served takes 70 % of what is left of the 5 %.
    """

    def __init__(
        self, max_error: float, per: Per = "hit", coin: Callable[[], float] = random.random
    ) -> None:
        self.max_error, self.per, self._coin = max_error, per, coin
        self.requests, self.served, self.checked, self.restarts = 0, 0, 0, 0
        self.wrong, self.reported = 0, 0
        self._owed = False
        self._next_restart = 0
        self._level: int | None = None  # of what is served, an index of LEVELS
        self._share = 1.0
        self._begin()
        self._errors = ServedErrors(self._alpha())

    def _begin(self) -> None:
        self._n, self._k = [0] * len(LEVELS), [0] * len(LEVELS)  # checked, and wrong among them
        self._k_weighted = [0.0] * len(LEVELS)  # each wrong one by the chance of its check
        self._requests_since = self._served_since = self._reported_since = 0
        self._recent: deque[bool] = deque(maxlen=_RECENT)

    def _alpha(self) -> float:
        """Return this measurement's part of the 5 %: 70 % of what the earlier ones left."""
        return (1 - CONFIDENCE) * 0.7 * 0.3**self.restarts

    # deciding

    def miss(self) -> None:
        """Count a request without any candidate."""
        self.requests += 1
        self._requests_since += 1

    def decide(self, score: float) -> tuple[Verdict, float]:
        """Return what to do with a candidate, and with which probability it is checked."""
        self.requests += 1
        self._requests_since += 1
        level = bisect_right(LEVELS, score) - 1
        if self._level is None or level < self._level:
            return "shadow", 1.0
        if self._owed:
            return "check", 1.0
        if self._coin() < self._share:
            return "check", self._share
        self._errors.serve(self._share)
        self.served += 1
        self._served_since += 1
        self._adjust()
        return "serve", self._share

    def undecided(self, verdict: Verdict) -> None:
        """Take note that a check brought no answer to compare. Nothing is served until one does."""
        self._owed = self._owed or verdict == "check"

    def learn(self, score: float, wrong: bool, verdict: Verdict, share: float) -> None:
        """Count a checked candidate."""
        self.checked += 1
        self.wrong += wrong
        self._owed = self._owed and verdict != "check"
        if self.checked <= _LEARNING:
            return
        for each in range(bisect_right(LEVELS, score)):
            self._n[each] += 1
            self._k[each] += wrong
            self._k_weighted[each] += wrong / share
        if verdict == "check":
            self._recent.append(wrong)
            if wrong and share < 1:
                self._errors.found(share)
            if self._is_alarming():
                self._restart()
        self._adjust()

    def report(self, score: float) -> None:
        """Count a served answer that a reader called wrong, in addition to what is bounded."""
        self.reported += 1
        self._reported_since += 1
        for each in range(bisect_right(LEVELS, score)):
            self._n[each] += 1
            self._k[each] += 1
            self._k_weighted[each] += 1
        self._adjust()

    # measuring

    def _adjust(self) -> None:
        """Choose what is served from now on, and how much of it is checked."""
        self._level = next(
            (each for each in range(len(LEVELS)) if self._allows(each, SHARES[-1])), None
        )
        if self._level is None:
            self._share = 1.0
            if self.checked >= 2 * max(self._next_restart, _LEARNING):
                self._restart()
            return
        self._share = next(
            (share for share in SHARES if self._allows(self._level, share, _COMFORT)), SHARES[-1]
        )

    def _allows(self, level: int, share: float, part: float = 1.0) -> bool:
        """Tell whether hits above this level may be served while `share` of them are checked.

        With a `part` below 1, only that part of the allowed errors may be used up.
        """
        n, k, errors = self._n[level], self._k[level], self._errors_at_most(share)
        if self.per == "request":
            forecast = (self._k_weighted[level] + 1) / max(self._requests_since, 1)
            return (
                errors <= self.max_error * part * self.requests
                and forecast <= _FORECAST * self.max_error
            )
        unknown = self._errors.at_most_unfound(share)
        if part < 1 and unknown > part * self.max_error * (n + self._served_since):
            return False
        return (
            is_below(self.max_error, n, k, (1 - CONFIDENCE) / len(LEVELS))
            and errors <= self.max_error * self._served_since + unknown
        )

    def _errors_at_most(self, share: float | None = None) -> float:
        return self._errors.at_most(share) + self._reported_since

    def _is_alarming(self) -> bool:
        """Tell whether the last checks found more errors than chance explains."""
        n, k = len(self._recent), sum(self._recent)
        if self.per == "request" or k < 2:
            return False
        p = self.max_error
        tail = sum(math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k, n + 1))
        return tail < _ALARM

    def _restart(self) -> None:
        self._next_restart = self.checked
        self._begin()
        if self.per == "hit" and self._errors.served:
            self.restarts += 1
            self._errors = ServedErrors(self._alpha())
        self._level, self._share = None, 1.0

    def state(self) -> BoundState:
        shown = self._level if self._level is not None else self._nearest_level()
        n, k = self._n[shown], self._k[shown]
        errors = self._errors_at_most() if self._errors.served else 0.0
        return BoundState(
            serving=self._level is not None,
            threshold=LEVELS[shown],
            share=self._share,
            requests=self.requests,
            served=self.served,
            checked=self.checked,
            wrong=self.wrong,
            reported=self.reported,
            above=n,
            wrong_above=k,
            per_hit=rate_bound(n, k, (1 - CONFIDENCE) / len(LEVELS)),
            wrong_served_at_most=errors,
            per_request=errors / max(self.requests, 1),
            max_error=self.max_error,
            per=self.per,
            restarts=self.restarts,
        )

    def _nearest_level(self) -> int:
        """Return the level whose bound is lowest."""
        alpha = (1 - CONFIDENCE) / len(LEVELS)
        return min(range(len(LEVELS)), key=lambda at: rate_bound(self._n[at], self._k[at], alpha))
