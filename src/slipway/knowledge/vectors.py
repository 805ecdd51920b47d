"""Exact search over vectors: every row is compared, nothing is approximate.

Rows lie in blocks, so that growing copies nothing and shrinking gives memory back. Comparing a query with all rows is bound by reading the
rows from memory: whoever comes to search first compares for all who wait by then, block by block, so that a block is read once for them all.
"""

from collections.abc import Collection, Sequence
from threading import Lock
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Allowed = NDArray[np.bool_] | Collection[int]

_BLOCK_ROWS = 1024  # 1.5 MB: small enough for a processor's cache, large enough that Python's part does not count
_AT_ONCE = 32  # queries in one product: the scores of more would need memory of their own


class _Search:
    """A search until it is served: `found` is None before. `turn` is released when it is served, or when it shall serve all who wait."""

    __slots__ = ("allowed", "error", "found", "limit", "query", "turn")

    def __init__(self, query: "Floats", limit: int, allowed: "Allowed | None") -> None:
        self.query, self.limit, self.allowed = query, limit, allowed
        self.found: list[tuple[int, float]] | None = None
        self.error: Exception | None = None
        self.turn = Lock()
        self.turn.acquire()


class Vectors:
    """Vectors of length 1 by a number of yours; may be searched and changed by any threads. Memory: 4 bytes a dimension and row, in blocks.

    A search sees a state between two changes, each `put` and `drop` being one change. Raises ImportError without the extra `vectors`.
    Making one limits numpy to one thread for each product, in the whole process: BLAS threads spin where other threads have work to do
    (measured with eight searches at once on two cores, embedding and all: 59 ms with two threads each, 44 ms with one).
    """

    def __init__(self, dimensions: int = 384) -> None:
        import numpy as np
        from threadpoolctl import threadpool_limits

        threadpool_limits(limits=1, user_api="blas")

        self.dimensions = dimensions
        self._blocks: list[Floats] = []
        self._ids = np.empty(0, np.int64)
        self._row_of: dict[int, int] = {}
        self._lock = Lock()  # of the matrix
        self._waiting: list[_Search] = []
        self._served = False  # somebody serves; it is handed on, so that nobody overtakes
        self._gate = Lock()  # of these two

    def __len__(self) -> int:
        return len(self._row_of)

    def __contains__(self, id: int) -> bool:  # noqa: A002
        return id in self._row_of

    @property
    def ids(self) -> set[int]:
        with self._lock:
            return set(self._row_of)

    def put(self, ids: Sequence[int], matrix: "Floats") -> None:
        """Adds rows, or replaces those whose id is known. Raises ValueError where the shape is not [len(ids), dimensions]."""
        if matrix.shape != (len(ids), self.dimensions):
            raise ValueError(f"{len(ids)} ids of {self.dimensions} dimensions, but the matrix is {matrix.shape}")
        with self._lock:
            self._make_room(len(self._row_of) + sum(int(id_) not in self._row_of for id_ in dict.fromkeys(ids)))
            for id_, vector in zip(ids, matrix, strict=True):
                row = self._row_of.setdefault(int(id_), len(self._row_of))
                self._ids[row] = id_
                self._blocks[row // _BLOCK_ROWS][row % _BLOCK_ROWS] = vector

    def drop(self, ids: Collection[int]) -> None:
        """Unknown ids are passed over."""
        with self._lock:
            for id_ in ids:
                if (row := self._row_of.pop(int(id_), None)) is not None:
                    self._fill(row, len(self._row_of))
            del self._blocks[-(-len(self._row_of) // _BLOCK_ROWS) :]

    def search(self, query: "Floats", limit: int, allowed: "Allowed | None" = None) -> list[tuple[int, float]]:
        """The nearest ids with their cosine, best first; of equals, the smaller id first.

        `allowed` are the ids that may be found, or a mask over all ids (`allowed[id]`; ids behind its end may not). `query` has length 1.
        Raises ValueError where it has not as many dimensions.
        """
        if query.shape != (self.dimensions,):
            raise ValueError(f"a query has {self.dimensions} dimensions, and this one {query.shape}")
        mine = _Search(query, limit, allowed)
        with self._gate:
            self._waiting.append(mine)
            waits, self._served = self._served, True
        if waits:
            mine.turn.acquire()
        if mine.found is None:
            self._serve()
        if mine.error:
            raise mine.error
        return mine.found or []

    def compare(self, query: "Floats", ids: Collection[int]) -> dict[int, float]:
        """The cosines of these ids; unknown ones are left out. For a few: each is fetched by itself."""
        with self._lock:
            rows = {id_: row for id_ in ids if (row := self._row_of.get(int(id_))) is not None}
            return {id_: float(self._blocks[row // _BLOCK_ROWS][row % _BLOCK_ROWS] @ query) for id_, row in rows.items()}

    def _serve(self) -> None:
        """All who wait at this moment; then whoever came meanwhile serves the next."""
        with self._gate:
            served, self._waiting = self._waiting[:_AT_ONCE], self._waiting[_AT_ONCE:]
        try:
            with self._lock:
                self._answer(served)
        except Exception as error:  # noqa: BLE001 - whoever's search it was, nobody may wait for ever
            for each in served:
                if each.found is None:
                    each.error, each.found = error, []
        for each in served[1:]:
            each.turn.release()
        with self._gate:
            self._served = bool(self._waiting)
            if self._waiting:
                self._waiting[0].turn.release()

    # All below: with the lock held

    def _make_room(self, rows: int) -> None:
        import numpy as np

        while len(self._blocks) * _BLOCK_ROWS < rows:
            self._blocks.append(np.empty((_BLOCK_ROWS, self.dimensions), np.float32))
        if len(self._ids) < rows:
            self._ids = np.concatenate([self._ids, np.empty(max(rows, _BLOCK_ROWS), np.int64)])

    def _fill(self, row: int, last: int) -> None:
        """The last row moves to the place of one that is gone."""
        if row != last:
            self._blocks[row // _BLOCK_ROWS][row % _BLOCK_ROWS] = self._blocks[last // _BLOCK_ROWS][last % _BLOCK_ROWS]
            self._ids[row] = moved = int(self._ids[last])
            self._row_of[moved] = row

    def _answer(self, searches: Sequence[_Search]) -> None:
        for scores, each in zip(self._scores([each.query for each in searches]), searches, strict=True):
            each.found = self._best(scores, each)

    def _scores(self, queries: Sequence["Floats"]) -> "Floats":
        """[queries, rows]. A block is read once from memory, and for the further queries from the processor's cache."""
        import numpy as np

        count = len(self._row_of)
        columns = [np.ascontiguousarray(query, np.float32) for query in queries]
        scores = np.empty((len(columns), count), np.float32)
        for number, block in enumerate(self._blocks):
            start, end = number * _BLOCK_ROWS, min((number + 1) * _BLOCK_ROWS, count)
            for row, column in enumerate(columns):
                np.matmul(block[: end - start], column, out=scores[row, start:end])
        return scores

    def _best(self, scores: "Floats", wanted: _Search) -> list[tuple[int, float]]:
        import numpy as np

        ids = self._ids[: len(scores)]
        if wanted.allowed is not None:
            rows = np.flatnonzero(_may(ids, wanted.allowed))
            ids, scores = ids[rows], scores[rows]
        limit = min(wanted.limit, len(ids))
        if limit < 1:
            return []
        least = np.partition(scores, len(scores) - limit)[len(scores) - limit]
        rows = np.flatnonzero(scores >= least)  # more than `limit` where there are equals
        rows = rows[np.lexsort((ids[rows], -scores[rows]))][:limit]
        return [(int(ids[row]), float(scores[row])) for row in rows]


def _may(ids: "NDArray[np.int64]", allowed: "Allowed") -> "NDArray[np.bool_]":
    import numpy as np

    if isinstance(allowed, np.ndarray) and allowed.dtype == np.bool_:
        inside = (ids >= 0) & (ids < len(allowed))
        return inside & allowed[np.where(inside, ids, 0)] if len(allowed) else inside
    return np.isin(ids, np.fromiter(allowed, np.int64, len(allowed)))
