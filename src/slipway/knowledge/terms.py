"""Words as the index keeps them, and how rare they are: what `abstention` weighs a question's words with."""

from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache
from threading import Lock

from slipway.knowledge.abstention import rarity
from slipway.knowledge.index import _analyzer
from slipway.types import Passage


class CountedTerms:
    """Counts once, over all passages, their headings and paths. May be used by any threads: an analyzer is not shared between two, hence the
    lock; it is held for microseconds.
    """

    def __init__(self, passages: Iterable[Passage]) -> None:
        self._all, self._telling, self._lock = _analyzer(), _analyzer(telling=True), Lock()
        self._counts, self._total = Counter[str](), 0
        for passage in passages:
            self._counts.update(set(self.words(" ".join([*passage.trail, passage.path.replace("-", " "), passage.text]))))
            self._total += 1
        self.words = lru_cache(4096)(self.words)  # type: ignore[method-assign]

    def words(self, text: str) -> Sequence[str]:
        with self._lock:
            return self._all.analyze(text.encode("utf-8", "ignore").decode())

    def telling(self, text: str) -> Sequence[str]:
        with self._lock:
            return list(dict.fromkeys(self._telling.analyze(text.encode("utf-8", "ignore").decode())))

    def rarity(self, word: str) -> float:
        return rarity(self._counts[word], self._total)
