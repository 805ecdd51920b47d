"""Decide whether a failure is held against the model, or against the prompt or key it came with.

One client's prompts must not take a model away from the others. So a prompt that fails again is to
blame itself if the model answers other prompts; and so is a key that fails again and again, while
other keys are answered.
"""

from collections import OrderedDict
from collections.abc import Hashable

from slipway.types import Record

MOST = 2048  # failing prompts and keys that are remembered
PROMPT_FAILURES = 1  # so many of a prompt's failures in a row are held against the model,
KEY_FAILURES = 2  # and of a key's
RECENTLY_S = 10.0  # a model that answered others so lately is thought to be well
REMEMBERED_S = 120.0


class Origin(Record, frozen=True, kw_only=True):
    """Where a call came from: the key that asked, and a hash of what it sent."""

    owner: str = ""
    prompt: int = 0


def prompt_of(body: bytes) -> int:
    """Return a hash of a request, from its length, its beginning and its end: enough to tell
    prompts apart, and cheap for long ones.
    """
    return hash((len(body), body[:1024], body[-4096:]))


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
        self._prompts, self._owners = LastTwo(), LastTwo()  # that were answered

    def succeeded(self, origin: Origin, now: float) -> None:
        """Record that the model answered: its prompt and its key have no failures in a row."""
        self._successes += 1
        owner = origin.owner
        prompt = owner, origin.prompt
        self._prompts.add(prompt, now)
        if self._owners.latest == owner:
            self._owners.at = now
        else:
            self._owners.add(owner, now)
        if self._streaks:
            self._streaks.pop(prompt, None)
            self._streaks.pop(owner, None)

    def is_on_model(self, origin: Origin, now: float) -> bool:
        """Record a failure, and return whether the model is to blame for it."""
        prompt = origin.owner, origin.prompt
        streak, keys_streak = self._streak(prompt, now), self._streak(origin.owner, now)
        streak.count += 1
        keys_streak.count += 1
        is_prompts = streak.count > PROMPT_FAILURES and (
            self._successes > streak.successes or self._prompts.has_other(prompt, now)
        )
        is_keys = keys_streak.count > KEY_FAILURES and (
            self._successes > keys_streak.successes or self._owners.has_other(origin.owner, now)
        )
        return not (is_prompts or is_keys)

    def _streak(self, name: Hashable, now: float) -> Streak:
        streak = self._streaks.pop(name, None)
        if streak is None or now - streak.began_at > REMEMBERED_S:
            streak = Streak(now, self._successes)
        self._streaks[name] = streak
        if len(self._streaks) > MOST:
            self._streaks.popitem(last=False)
        return streak


class LastTwo:
    """The last two different names that were answered, and when."""

    __slots__ = ("at", "before", "before_at", "latest")

    def __init__(self) -> None:
        self.latest: Hashable = None
        self.before: Hashable = None
        self.at = self.before_at = 0.0

    def add(self, name: Hashable, now: float) -> None:
        if self.latest != name:
            self.before, self.before_at = self.latest, self.at
        self.latest, self.at = name, now

    def has_other(self, name: Hashable, now: float) -> bool:
        """Return whether another name than this one was answered lately."""
        return any(
            each is not None and each != name and now - at <= RECENTLY_S
            for each, at in ((self.latest, self.at), (self.before, self.before_at))
        )
