"""How long a model usually takes, and so how long it is waited for if another one can be asked."""

from collections import deque

SHORTEST_S, LONGEST_S = 10.0, 30.0
DEFAULT_S = 20.0  # until enough answers were seen
ENOUGH = 5
KEPT = 50
SHARE = 0.9  # nine of ten answers took no longer than the usual time
FACTOR = 4.0  # an answer is late after so many times the usual time


class UsualTimes:
    """The times that a model's last answers took. Pure."""

    __slots__ = ("_limit_s", "_times")

    def __init__(self) -> None:
        self._times = deque[float](maxlen=KEPT)
        self._limit_s: float | None = DEFAULT_S

    def add(self, took_s: float) -> None:
        """Record an answer's time; that of a late one is the time for which it was waited."""
        self._times.append(took_s)
        self._limit_s = None

    @property
    def limit_s(self) -> float:
        """After how many seconds an answer is late: never under 10, never over 30."""
        if self._limit_s is None:
            self._limit_s = self._computed_s()
        return self._limit_s

    def _computed_s(self) -> float:
        if len(self._times) < ENOUGH:
            return DEFAULT_S
        usual_s = sorted(self._times)[int(SHARE * (len(self._times) - 1))]
        return min(LONGEST_S, max(SHORTEST_S, FACTOR * usual_s))
