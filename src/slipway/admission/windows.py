"""Count what was used in the last minute, and how long it takes until more may be used."""

from collections import deque

MINUTE_S = 60.0
SLOT_S = 0.25  # what comes within it is counted together, so that a window holds few entries


class UsedAmount:
    """What was used in one slot; `amount` may be corrected later."""

    __slots__ = ("amount", "at")

    def __init__(self, at: float, amount: int) -> None:
        self.at, self.amount = at, amount


class SlidingWindow:
    """The amounts of the last 60 seconds: in no 60 seconds is more than the limit let through.

    Times are seconds of a monotonic clock. An amount is forgotten a slot late, never early.
    """

    __slots__ = ("_entries", "total")

    def __init__(self) -> None:
        self._entries = deque[UsedAmount]()
        self.total = 0

    def used(self, now: float) -> int:
        """Forget what is older than a minute, and return the rest."""
        entries = self._entries
        while entries and entries[0].at + SLOT_S + MINUTE_S <= now:
            self.total -= entries.popleft().amount
        return self.total

    def add(self, now: float, amount: int) -> UsedAmount:
        """Count an amount; the entry that is returned can be corrected."""
        self.total += amount
        entries = self._entries
        if entries and now < entries[-1].at + SLOT_S:
            entry = entries[-1]
            entry.amount += amount
        else:
            entry = UsedAmount(now, amount)
            entries.append(entry)
        return entry

    def correct(self, entry: UsedAmount, difference: int, now: float) -> None:
        """Change an amount that turned out to be another, unless it is forgotten already."""
        self.used(now)
        if self._entries and entry.at >= self._entries[0].at:
            entry.amount += difference
            self.total += difference

    def free_in(self, now: float, limit: int, amount: int) -> float:
        """Return after how many seconds an amount fits below a limit."""
        excess = self.used(now) + min(amount, limit) - limit
        for entry in self._entries:
            if excess <= 0:
                break
            excess -= entry.amount
            if excess <= 0:
                return entry.at + SLOT_S + MINUTE_S - now
        return 0.0

    def empty_in(self, now: float) -> float:
        """Return after how many seconds nothing is counted any more."""
        self.used(now)
        return self._entries[-1].at + SLOT_S + MINUTE_S - now if self._entries else 0.0
