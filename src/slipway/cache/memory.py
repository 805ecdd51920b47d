"""Kept answers in memory, within a budget of bytes: the least recently used are dropped first."""

from collections import OrderedDict
from collections.abc import Callable, Iterator

from slipway.cache.entries import KeptAnswer, Selection

Dropped = Callable[[KeptAnswer, str], None]  # (entry, cause)


class MemoryEntries:
    """Entries by key. `dropped` is called with each entry that leaves, and the cause."""

    def __init__(self, budget: int, dropped: Dropped = lambda entry, cause: None) -> None:
        self.budget, self.bytes = budget, 0
        self._entries: OrderedDict[str, KeptAnswer] = OrderedDict()
        self._by_name: dict[tuple[str, str], set[str]] = {}  # (field, value) -> keys
        self._dropped = dropped

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[KeptAnswer]:
        return iter(list(self._entries.values()))

    def get(self, key: str) -> KeptAnswer | None:
        entry = self._entries.get(key)
        if entry is not None:
            self._entries.move_to_end(key)
        return entry

    def put(self, entry: KeptAnswer) -> None:
        """Keep an entry in place of an earlier one with its key; drop others if the budget asks."""
        self._forget(entry.key)
        if entry.size > self.budget:
            return
        self._entries[entry.key] = entry
        self.bytes += entry.size
        for name in names_of(entry):
            self._by_name.setdefault(name, set()).add(entry.key)
        self.shrink()

    def replace(self, entry: KeptAnswer) -> None:
        """Put an entry in the place of the one with its key, if that is still there."""
        before = self._entries.get(entry.key)
        if before is not None:
            self.bytes += entry.size - before.size
            self._entries[entry.key] = entry

    def shrink(self) -> None:
        """Drop the least recently used entries until the rest fits the budget."""
        while self.bytes > self.budget:
            oldest = next(iter(self._entries))
            self.drop(oldest, "evicted")

    def drop(self, key: str, cause: str) -> bool:
        """Drop an entry. Return False if it is not here."""
        entry = self._forget(key)
        if entry is not None:
            self._dropped(entry, cause)
        return entry is not None

    def select(self, selection: Selection) -> list[KeptAnswer]:
        """Return the entries that a selection matches."""
        names = selection.names()
        if not names:
            found = list(self._entries.values())
        elif selection.key is not None:
            found = [self._entries[selection.key]] if selection.key in self._entries else []
        else:
            fewest = min((self._by_name.get(name, set()) for name in names), key=len)
            found = [self._entries[key] for key in fewest]
        return [entry for entry in found if selection.matches(entry)]

    def clear(self, cause: str) -> int:
        """Drop everything, and return how many entries that were."""
        keys = list(self._entries)
        for key in keys:
            self.drop(key, cause)
        return len(keys)

    def _forget(self, key: str) -> KeptAnswer | None:
        entry = self._entries.pop(key, None)
        if entry is None:
            return None
        self.bytes -= entry.size
        for name in names_of(entry):
            keys = self._by_name[name]
            keys.discard(key)
            if not keys:
                del self._by_name[name]
        return entry


def names_of(entry: KeptAnswer) -> set[tuple[str, str]]:
    """Return the names by which an entry can be found: its app, tags and documents."""
    return {
        ("app", entry.app),
        *(("tag", tag) for tag in entry.tags),
        *(("document", path) for path in entry.documents),
    }
