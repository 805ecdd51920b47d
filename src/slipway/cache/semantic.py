"""Find an answer that was given to a question of the same meaning.

An index of questions beside the exact cache, which holds the answers: an entry here is a question,
its vector, and the key of its answer there. Entries whose answers were found to be the same share a
group, so that many ways to ask lead to one answer. Only questions of the same partition (tenant,
app, readable groups, and whatever else the caller puts into it) are ever compared.
"""

from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Sequence
from itertools import islice
from math import exp
from threading import Lock
from typing import TYPE_CHECKING, Any

from slipway.cache.semantic_bound import ErrorBound, Verdict
from slipway.cache.semantic_guards import likeness, read, refusal
from slipway.cache.semantic_scoring import PairFacts, PairScorer, TrackRecord
from slipway.types import Record

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

NEAREST = 10  # kept questions that a question is compared with
_FLOOR = 0.5  # the least similarity of a candidate
_SHARPNESS = 15  # of votes: how much more a nearer question counts
_TWIN = 0.5  # likeness from which a refused question speaks against those that are less alike
_NAMES = 5_000  # words of which it is remembered whether they are names
_OFTEN = 2


class NearQuestion(Record, frozen=True, kw_only=True):
    """A kept question near the asked one; `refused` names the guard that refuses it."""

    key: Hashable
    text: str
    group: int
    similarity: float
    refused: str | None


class LookUp(Record, frozen=True, kw_only=True):
    """What was found for a question. `best` is the one whose answer would be served."""

    text: str
    partition: Hashable
    vector: Any
    near: tuple[NearQuestion, ...] = ()
    best: NearQuestion | None = None
    facts: PairFacts | None = None
    score: float = 0.0
    verdict: Verdict = "shadow"
    share: float = 1.0

    @property
    def groups(self) -> list[NearQuestion]:
        """Return the nearest question of each group, the best one first."""
        first = {each.group: each for each in reversed(self.near)}
        rest = [each for each in first.values() if self.best and each.group != self.best.group]
        return [self.best, *sorted(rest, key=lambda e: -e.similarity)] if self.best else []


class _KeptQuestion:
    __slots__ = ("group", "key", "partition", "row", "text")

    def __init__(self, key: Hashable, text: str, partition: Hashable, group: int, row: int) -> None:
        self.key, self.text, self.partition, self.group, self.row = key, text, partition, group, row


class _QuestionVectors:
    """The questions of one partition, and their vectors as rows of one matrix."""

    def __init__(self, dimensions: int) -> None:
        import numpy as np

        self.rows = np.empty((16, dimensions), np.float32)
        self.entries: list[_KeptQuestion] = []

    def add(self, entry: _KeptQuestion, vector: "Floats") -> None:
        import numpy as np

        if entry.row == len(self.rows):
            self.rows = np.concatenate([self.rows, np.empty_like(self.rows)])
        self.rows[entry.row] = vector
        self.entries.append(entry)

    def remove(self, entry: _KeptQuestion) -> None:
        """Remove an entry; the last one takes its row."""
        last = self.entries.pop()
        if last is not entry:
            self.rows[entry.row] = self.rows[last.row]
            self.entries[entry.row], last.row = last, entry.row

    def nearest(self, vector: "Floats", count: int) -> list[tuple[_KeptQuestion, float]]:
        import numpy as np

        if not self.entries:
            return []
        similar = self.rows[: len(self.entries)] @ vector
        best = (
            np.argpartition(-similar, count - 1)[:count]
            if count < len(similar)
            else np.arange(len(similar))
        )
        ranked = best[np.argsort(-similar[best], kind="stable")]
        return [(self.entries[row], float(similar[row])) for row in ranked]


class SeenNames:
    """Remember which words are written with a capital inside sentences: they are names."""

    def __init__(self) -> None:
        self._named, self._seen = Counter[str](), Counter[str]()

    def see(self, text: str) -> None:
        if len(self._seen) > _NAMES:
            self._named.clear()
            self._seen.clear()
        reading = read(text)
        self._seen.update(reading.all)
        self._named.update(reading.names)

    def among(self, *texts: str) -> frozenset[str]:
        words = frozenset[str]().union(*(read(text).all for text in texts))
        return frozenset(
            word for word in words if self._named[word] >= max(_OFTEN, 0.3 * self._seen[word])
        )


class SemanticIndex:
    """Look questions up, decide about them, and learn from comparisons.

    Safe for threads. `alive` tells whether the answer of a key is still there.
    """

    def __init__(
        self,
        bound: ErrorBound,
        *,
        alive: Callable[[Hashable], bool] = lambda key: True,
    ) -> None:
        self.bound, self.scorer, self.names = bound, PairScorer(), SeenNames()
        self._alive, self._lock = alive, Lock()
        self._partitions: dict[Hashable, _QuestionVectors] = {}
        self._entries: OrderedDict[Hashable, _KeptQuestion] = OrderedDict()
        self._next_group, self._record = 0, TrackRecord()

    def __len__(self) -> int:
        return len(self._entries)

    def drop_oldest(self, count: int) -> int:
        """Drop the questions that were used least recently; return how many that were."""
        with self._lock:
            keys = list(islice(self._entries, count))
            for key in keys:
                self._remove(key)
        return len(keys)

    def find(self, text: str, vector: "Floats", partition: Hashable) -> LookUp:
        """Return what is near the question, without deciding or counting anything."""
        with self._lock:
            near = self._near(text, vector, partition)
        nothing = LookUp(text=text, partition=partition, vector=vector, near=near)
        best = _best(text, near)
        if best is None:
            return nothing
        facts = self._facts(text, best, near)
        return LookUp(
            text=text,
            partition=partition,
            vector=vector,
            near=near,
            best=best,
            facts=facts,
            score=self.scorer.score(facts),
        )

    def decide(self, found: LookUp) -> LookUp:
        """Count the request, and decide whether its candidate is served, checked or only learned
        from.
        """
        from msgspec.structs import replace

        with self._lock:
            if found.best is None:
                self.bound.miss()
                return found
            verdict, share = self.bound.decide(found.score)
            if verdict == "serve" and found.best.key in self._entries:
                self._entries.move_to_end(found.best.key)
        return replace(found, verdict=verdict, share=share)

    def undecided(self, verdict: Verdict) -> None:
        """Take note that no answer came to compare with."""
        with self._lock:
            self.bound.undecided(verdict)

    def learn(self, found: LookUp, same: Sequence[bool | None], key: Hashable) -> None:
        """Learn from a fresh answer, and keep its question under `key`.

        `same` says of each of `found.groups` whether its answer is the same as the fresh one; None,
        or a list that is too short, means that it was not compared.
        """
        with self._lock:
            verdicts = dict(zip((each.group for each in found.groups), same, strict=False))
            if found.best is not None and found.facts is not None:
                first = verdicts.get(found.best.group)
                if first is None:
                    self.bound.undecided(found.verdict)
                else:
                    self.bound.learn(found.score, not first, found.verdict, found.share)
                    self.scorer.learn(found.facts, first)
                    self._note(found.best, found.near, first)
            joined = next((group for group, is_same in verdicts.items() if is_same), None)
            self._add(found, key, joined)

    def report(self, key: Hashable, score: float) -> None:
        """Count a served answer that a reader called wrong, and remove its question."""
        with self._lock:
            self.bound.report(score)
            self._remove(key)

    def remove(self, key: Hashable) -> None:
        with self._lock:
            self._remove(key)

    def _near(self, text: str, vector: "Floats", partition: Hashable) -> tuple[NearQuestion, ...]:
        kept = self._partitions.get(partition)
        nearest = kept.nearest(vector, NEAREST) if kept else []
        for gone in [entry for entry, _ in nearest if not self._alive(entry.key)]:
            self._remove(gone.key)
        known = self.names.among(text, *(entry.text for entry, _ in nearest))
        return tuple(
            NearQuestion(
                key=entry.key,
                text=entry.text,
                group=entry.group,
                similarity=similarity,
                refused=refusal(text, entry.text, known),
            )
            for entry, similarity in nearest
            if similarity >= _FLOOR and entry.key in self._entries
        )

    def _facts(self, text: str, best: NearQuestion, near: Sequence[NearQuestion]) -> PairFacts:
        asked, kept = read(text), read(best.text)
        mine = [each for each in near if each.group == best.group]
        rival = _rival(best, near)
        lengths = sorted((len(asked.words), len(kept.words)))
        return PairFacts(
            similarity=best.similarity,
            rival=rival.similarity if rival else _FLOOR,
            agreement=len(mine) / len(near),
            support=len(mine),
            vote=sum(map(_vote, mine)) / sum(map(_vote, near)),
            likeness=likeness(asked, kept),
            length=lengths[0] / max(lengths[1], 1),
            words=len(asked.words),
            refused=sum(each.refused is not None for each in mine) / len(mine),
            answer=self._record.of(best.group),
            question=self._record.of(best.key),
            rivalry=self._record.of((best.group, rival.group if rival else None)),
        )

    def _note(self, best: NearQuestion, near: Sequence[NearQuestion], right: bool) -> None:
        rival = _rival(best, near)
        for key in (best.group, best.key, (best.group, rival.group if rival else None)):
            self._record.note(key, right)

    def _add(self, found: LookUp, key: Hashable, group: int | None) -> None:
        self._remove(key)
        self.names.see(found.text)
        if group is None:
            group, self._next_group = self._next_group, self._next_group + 1
        kept = self._partitions.get(found.partition)
        if kept is None:
            kept = self._partitions[found.partition] = _QuestionVectors(len(found.vector))
        entry = _KeptQuestion(key, found.text, found.partition, group, len(kept.entries))
        kept.add(entry, found.vector)
        self._entries[key] = entry

    def _remove(self, key: Hashable) -> None:
        if (entry := self._entries.pop(key, None)) is None:
            return
        kept = self._partitions[entry.partition]
        kept.remove(entry)
        if not kept.entries:
            del self._partitions[entry.partition]


def _best(text: str, near: Sequence[NearQuestion]) -> NearQuestion | None:
    """Return the nearest question that no guard refuses.

    If a guard refuses one that has mostly the same words, the asked question is a changed form of
    that one: then only a question that shares as many words may answer it.
    """
    asked = read(text)
    shared = {each.key: likeness(asked, read(each.text)) for each in near}
    twin = max((shared[each.key] for each in near if each.refused), default=0.0)
    least = twin if twin >= _TWIN else 0.0
    return next((e for e in near if not e.refused and shared[e.key] >= least), None)


def _vote(near: NearQuestion) -> float:
    return exp(_SHARPNESS * near.similarity)


def _rival(best: NearQuestion, near: Sequence[NearQuestion]) -> NearQuestion | None:
    return next((each for each in near if each.group != best.group), None)
