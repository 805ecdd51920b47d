"""Decide whether a failure is held against the model, or against the prompt or key it came with.

One client's prompts must not take a model away from the others. So a prompt that fails again and
again, while the model answers other prompts meanwhile, is to blame itself; and so is a key whose
prompts all fail, while other keys are answered.
"""

from collections import OrderedDict
from collections.abc import Hashable

from slipway.types import Record

MOST = 2048  # failing prompts and keys that are remembered
KEY_FAILURES = 3  # so many of a key's failures in a row are held against the model
REMEMBERED_S = 120.0


class Origin(Record, frozen=True, kw_only=True):
    """Where a call came from: the key that asked, and a hash of what it sent."""

    owner: str = ""
    prompt: int = 0


class Streak:
    """The failures in a row of a prompt or a key, and how many calls had succeeded before them."""

    __slots__ = ("began_at", "count", "successes")

    def __init__(self, began_at: float, successes: int) -> None:
        self.began_at, self.successes, self.count = began_at, successes, 0


class Blame:
    """What failed lately, by prompt and by key. Pure: the time is passed in."""

    def __init__(self) -> None:
        self._streaks = OrderedDict[Hashable, Streak]()
        self._successes = 0

    def succeeded(self, origin: Origin) -> None:
        """Record that the model answered: its prompt and its key have no failures in a row."""
        self._successes += 1
        if self._streaks:
            self._streaks.pop((origin.owner, origin.prompt), None)
            self._streaks.pop(origin.owner, None)

    def is_on_model(self, origin: Origin, now: float) -> bool:
        """Record a failure, and return whether the model is to blame for it."""
        prompt = self._streak((origin.owner, origin.prompt), now)
        key = self._streak(origin.owner, now)
        prompt.count += 1
        key.count += 1
        is_prompts = prompt.count > 1 and self._successes > prompt.successes
        is_keys = key.count > KEY_FAILURES and self._successes > key.successes
        return not (is_prompts or is_keys)

    def _streak(self, name: Hashable, now: float) -> Streak:
        streak = self._streaks.pop(name, None)
        if streak is None or now - streak.began_at > REMEMBERED_S:
            streak = Streak(now, self._successes)
        self._streaks[name] = streak
        if len(self._streaks) > MOST:
            self._streaks.popitem(last=False)
        return streak
