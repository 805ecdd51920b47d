"""How the documents of a collection are as a whole: how many, and how old what is known of them is."""

import time
from collections import Counter

from slipway.knowledge.collection import Collection
from slipway.types import Record


class DocumentsState(Record, frozen=True, kw_only=True):
    """Count all documents by state, whoever may read them, and passages.

    `checked_s` is how long ago all files were compared with what was read of them, and `changed_s`
    how long ago anything changed, in seconds; None if there never was a document.
    """

    read: int
    partly: int
    failed: int
    passages: int
    checked_s: float
    changed_s: float | None


class DocumentsCount:
    """Counts the documents of a collection, again only after a change."""

    def __init__(self, collection: Collection) -> None:
        self._collection = collection
        self._epoch, self._passages = -1, 0
        self._states: Counter[str] = Counter()

    def read(self) -> DocumentsState:
        """Return the state now."""
        collection, now = self._collection, time.time()
        known = collection.known
        if self._epoch != known.epoch:
            self._states = Counter(doc.state for doc in known.documents.values())
            self._passages = sum(doc.passages for doc in known.documents.values())
            self._epoch = known.epoch
        changed_at = collection.changed_at
        return DocumentsState(
            read=self._states["done"],
            partly=self._states["partly"],
            failed=self._states["failed"],
            passages=self._passages,
            checked_s=max(0.0, now - collection.checked_at),
            changed_s=max(0.0, now - changed_at) if changed_at else None,
        )
