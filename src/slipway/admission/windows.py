"""Count what was used in the last minute, and how long it takes until more may be used."""

from collections import deque

MINUTE_S = 60.0
SLOT_S = 0.25  # what comes within it is counted together, so that a window holds few entries
KEPT_S = MINUTE_S + SLOT_S  # from the beginning of a slot until it is forgotten


class UsedAmount:
    """What was used in one slot; `amount` may be corrected later."""

    __slots__ = ("amount", "at")

    def __init__(self, at: float, amount: int) -> None:
        self.at, self.amount = at, amount


class SlidingWindow:
    """The amounts of the last 60 seconds: in no 60 seconds is more than the limit let through.

    Times are seconds of a monotonic clock. An amount is forgotten a slot late, never early.
    """

    __slots__ = ("_entries", "_latest", "total")

    def __init__(self) -> None:
        self._entries = deque[UsedAmount]()
        self._latest = UsedAmount(-KEPT_S, 0)  # the last entry, or one that is forgotten already
        self.total = 0

    def used(self, now: float) -> int:
        """Forget what is older than a minute, and return the rest."""
        entries = self._entries
        while entries and entries[0].at + KEPT_S <= now:
            self.total -= entries.popleft().amount
        return self.total

    def add(self, now: float, amount: int) -> UsedAmount:
        """Count an amount; the entry that is returned can be corrected."""
        self.total += amount
        entry = self._latest
        if now < entry.at + SLOT_S:
            entry.amount += amount
            return entry
        self._latest = entry = UsedAmount(now, amount)
        self._entries.append(entry)
        return entry

    def correct(self, entry: UsedAmount, difference: int) -> None:
        """Change an amount that turned out to be another, unless it is forgotten already."""
        entries = self._entries
        if entries and entry.at >= entries[0].at:
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
                return entry.at + KEPT_S - now
        return 0.0

    def empty_in(self, now: float) -> float:
        """Return after how many seconds nothing is counted any more."""
        left_s = self._latest.at + KEPT_S - now
        return left_s if left_s > 0 else 0.0
