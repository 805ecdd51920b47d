"""Limit how many searches run at once, first come, first served."""

from collections import deque
from threading import Lock
from types import TracebackType


class SearchSlots:
    """Limit concurrency: `with slots:` waits for a free slot. Waiting threads are served in the
    order in which they came; `threading.Semaphore` lets newcomers overtake. More threads than cores
    would gain nothing, since they only compute.
    """

    def __init__(self, at_once: int) -> None:
        self._free, self._lock = at_once, Lock()
        self._waiting: deque[Lock] = deque()

    def __enter__(self) -> None:
        with self._lock:
            if self._free:
                self._free -= 1
                return
            slot = Lock()
            slot.acquire()
            self._waiting.append(slot)
        slot.acquire()

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
