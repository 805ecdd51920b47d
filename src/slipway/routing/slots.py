"""Limit how many calls a model works on at once. Waiting askers take turns; each one's own calls
keep their order.

A call that cannot get a slot before its deadline, or within the model's longest wait, is refused at
once, with the time after which there will be a free slot.
"""

import asyncio
import math
import time
from collections import OrderedDict, deque

from slipway.errors import ModelBusy

GUESS_S = 1.0  # assumed duration of a call until the first one has ended
_SHARE = 0.1  # weight of each new call in the average duration


class ModelSlots:
    """`most` slots, and a wait of `longest_s` at most. Times are readings of the event loop's
    clock.
    """

    def __init__(self, name: str, most: int, longest_s: float) -> None:
        self.name, self.most, self.longest_s = name, most, longest_s
        self.busy = 0
        self.takes_s = GUESS_S  # a call, on average
        self._is_guess = True
        # Owner -> waiting calls; the first owner is next
        self._queues: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()
        self._since: dict[asyncio.Future[None], float] = {}  # waiting call -> when it came
        self.waiting = 0

    def same_limits(self, other: "ModelSlots | None") -> bool:
        """Return whether `other` is for the same model and has the same limits."""
        return other is not None and (self.name, self.most, self.longest_s) == (
            other.name,
            other.most,
            other.longest_s,
        )

    @property
    def free(self) -> bool:
        return self.busy < self.most

    def oldest_s(self) -> float:
        """Return how long the oldest waiting call has waited; 0 if none waits."""
        since = next(iter(self._since.values()), None)
        return 0.0 if since is None else time.monotonic() - since

    async def enter(self, owner: str, within_s: float) -> None:
        """Wait for a slot; `leave` releases it. Raises ModelBusy, immediately if waiting cannot
        help.
        """
        if self.free and not self.waiting:
            self.busy += 1
            return
        within_s = min(within_s, self.longest_s)
        if (expected_s := self._expected_s(owner)) > within_s:
            raise self._full(expected_s)
        turn = asyncio.get_running_loop().create_future()
        self._queues.setdefault(owner, deque()).append(turn)
        self._since[turn] = time.monotonic()
        self.waiting += 1
        try:
            async with asyncio.timeout(within_s):
                await turn
        except TimeoutError:
            if turn.done() and not turn.cancelled():  # it got its slot in the same moment
                return
            raise self._full(max(self.takes_s, 1.0)) from None
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.leave()
            raise
        finally:
            self._since.pop(turn, None)
            if not turn.done() or turn.cancelled():
                self._forget(owner, turn)

    def _expected_s(self, owner: str) -> float:
        """Estimate the longest wait of one more call of this owner: other owners' calls go first
        only as often as its own, `most` at a time.
        """
        mine = len(self._queues.get(owner, ())) + 1
        ahead = (
            sum(min(len(queue), mine) for each, queue in self._queues.items() if each != owner)
            + mine
        )
        return self.takes_s * math.ceil(ahead / self.most)

    def _full(self, after_s: float) -> ModelBusy:
        what = f"{self.name} is busy with {self.most} other calls, and {self.waiting} more wait."
        return ModelBusy(what, model=self.name, retry_after_s=max(1.0, after_s))

    def _forget(self, owner: str, turn: "asyncio.Future[None]") -> None:
        queue = self._queues.get(owner)
        if queue is not None and turn in queue:
            queue.remove(turn)
            self.waiting -= 1
            if not queue:
                del self._queues[owner]

    def leave(self, took_s: float | None = None) -> None:
        """Release a slot. `took_s` is the duration of the call if it ended normally."""
        if took_s is not None:
            self.takes_s += (1.0 if self._is_guess else _SHARE) * (took_s - self.takes_s)
            self._is_guess = False
        self.busy -= 1
        while self._queues and self.free:
            owner, queue = self._queues.popitem(last=False)
            turn = queue.popleft()
            self.waiting -= 1
            if queue:
                self._queues[owner] = queue  # after the others
            if not turn.done():
                self.busy += 1
                turn.set_result(None)
