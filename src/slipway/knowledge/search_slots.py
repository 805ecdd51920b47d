"""Who comes first is served first: a few at once, the others in the order in which they came."""

from collections import deque
from threading import Lock
from types import TracebackType


class SearchSlots:
    """`with turns:` waits for its turn; `at_once` have one at the same time. Threads that only
    compute gain nothing by being more than there are cores, and one that came early may be passed
    by all others: a semaphore of `threading` lets newcomers by.
    """

    def __init__(self, at_once: int) -> None:
        self._free, self._lock = at_once, Lock()
        self._waiting: deque[Lock] = deque()

    def __enter__(self) -> None:
        with self._lock:
            if self._free:
                self._free -= 1
                return
            turn = Lock()
            turn.acquire()
            self._waiting.append(turn)
        turn.acquire()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._lock:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._free += 1
