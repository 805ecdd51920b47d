"""A cache that is bounded in bytes, whatever texts its keys and values are made of."""

import sys
from threading import Lock
from typing import Any, Generic, TypeVar

Value = TypeVar("Value")
ENTRY_BYTES = 200  # of the table, for each entry
_PLAIN = frozenset({str, bytes, int, float, bool, type(None)})


class BoundedCache(Generic[Value]):
    """Values by text, in `most_bytes` at most. Any thread may use it.

    Once the newer half is full, the older half is dropped, and the newer one becomes the older; what
    is found in the older half goes into the newer one. So a look-up costs no more than in a dict.
    """

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self._newer, self._older = dict[str, Value](), dict[str, Value]()
        self.bytes = 0  # of the newer half
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._newer.keys() | self._older.keys())

    def clear(self) -> None:
        """Forget all values."""
        with self._lock:
            self._newer, self._older, self.bytes = {}, {}, 0

    def get(self, text: str) -> Value | None:
        found = self._newer.get(text)
        if found is None and (found := self._older.get(text)) is not None:
            self.put(text, found)
        return found

    def put(self, text: str, value: Value) -> Value:
        """Keep a value, unless it takes more than half of all. Return it."""
        size, half = ENTRY_BYTES + size_of(text) + size_of(value), self.most_bytes // 2
        if size > half:
            return value
        with self._lock:
            if self.bytes + size > half:
                self._older, self._newer, self.bytes = self._newer, {}, 0
            self._newer[text] = value
            self.bytes += size
        return value


def size_of(value: Any) -> int:
    """Return how many bytes a value of texts, numbers, tuples, sets, dicts and records takes at most:
    what it holds twice is counted twice.
    """
    size, kind = sys.getsizeof(value), type(value)
    if kind in _PLAIN:
        return size
    if kind is tuple or kind is frozenset:
        return size + sum(map(size_of, value))
    if kind is dict:
        return size + sum(size_of(key) + size_of(each) for key, each in value.items())
    return size + sum(size_of(getattr(value, name)) for name in value.__struct_fields__)
