"""Exact search over vectors, most of it in a byte a number.

Comparing a query with all rows is bound by reading the rows from memory. So each row is kept twice:
in float32, and rounded to int8 with a scale of its own, a quarter of the bytes. A search compares
all rows in int8, where the most that the rounding can have changed is known for each row; whatever
might still be among the nearest is compared again in full. Nothing is approximate: the bound is
proved, not hoped for.
"""

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from slipway.knowledge.search_slots import SearchSlots

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Allowed = NDArray[np.bool_] | Collection[int]

_STEP = 1024  # rows: of memory that is taken and given back
# rows handled at once: a copy of them in float64, 0.8 MB, stays in the processor's cache and leaves
# no holes in the memory
_FEW = 256
_LEAST = 1e-30  # the largest number of a row that is not rounded to zeros
# the float32 arithmetic of the bound itself: fewer than 20 roundings of 2**-24 each, and as many
# again
_SLACK = 4e-6


class _Rounded(NamedTuple):
    """`bytes * scale` is the row but for a vector no longer than `error`; `length` is the most that
    `bytes * scale` can have.
    """

    bytes: "NDArray[np.int8]"
    scale: "Floats"
    error: "Floats"
    length: "Floats"


class Vectors:
    """Vectors of length 1 by a number of yours; may be searched and changed by any threads. Memory:
    5 bytes a dimension and row.

    A search sees a state between two changes, each `put` and `drop` being one change. A row that is
    not finite counts as zeros. Raises ImportError without the extra `vectors`.
    """

    def __init__(self, dimensions: int = 384) -> None:
        import numpy as np
        import simsimd  # noqa: F401 - here rather than with the first question

        self.dimensions = dimensions
        self._ids = np.empty(0, np.int64)
        self._rows = np.empty((0, dimensions), np.float32)
        self._rounded = _Rounded(
            np.empty((0, dimensions), np.int8), *(np.empty(0, np.float32) for _ in range(3))
        )
        self._row_of: dict[int, int] = {}
        self._lock = SearchSlots(
            1
        )  # of all these; a change after the other must not keep searches out

    def __len__(self) -> int:
        return len(self._row_of)

    def __contains__(self, id: int) -> bool:  # noqa: A002
        return id in self._row_of

    @property
    def ids(self) -> set[int]:
        with self._lock:
            return set(self._row_of)

    def put(self, ids: Sequence[int], matrix: "Floats") -> None:
        """Adds rows, or replaces those whose id is known. Raises ValueError where the shape is not
        [len(ids), dimensions].
        """
        import numpy as np

        if matrix.shape != (len(ids), self.dimensions):
            raise ValueError(
                f"{len(ids)} ids of {self.dimensions} dimensions, but the matrix is {matrix.shape}"
            )
        with self._lock:
            self._resize(len(self._row_of) + len({int(id_) for id_ in ids} - self._row_of.keys()))
            rows = np.array(
                [self._row_of.setdefault(int(id_), len(self._row_of)) for id_ in ids], np.intp
            )
            numbers = np.array(ids, np.int64)
            for start in range(0, len(rows), _FEW):
                part = slice(start, start + _FEW)
                few = np.where(
                    np.isfinite(matrix[part]).all(axis=1, keepdims=True),
                    matrix[part],
                    np.float32(0),
                )
                new: tuple[NDArray[Any], ...] = (few, *_round(few), numbers[part])
                for kept, column in zip(self._columns, new, strict=True):
                    kept[rows[part]] = column

    def drop(self, ids: Collection[int]) -> None:
        """Unknown ids are passed over."""
        with self._lock:
            for id_ in ids:
                if (row := self._row_of.pop(int(id_), None)) is not None:
                    self._fill(row, len(self._row_of))
            self._resize(len(self._row_of))

    def search(
        self, query: "Floats", limit: int, allowed: "Allowed | None" = None
    ) -> list[tuple[int, float]]:
        """The nearest ids with their cosine, best first; of equals, the smaller id first.

        `allowed` are the ids that may be found, or a mask over all ids (`allowed[id]`; ids behind
        its end may not). `query` has length 1. Raises ValueError where it has not as many
        dimensions.
        """
        import numpy as np

        if query.shape != (self.dimensions,):
            raise ValueError(
                f"a query has {self.dimensions} dimensions, and this one {query.shape}"
            )
        rounded = _round(np.asarray(query, np.float32).reshape(1, -1))
        with self._lock:
            most = self._bounds(rounded)
            if allowed is not None:
                may = _may(self._ids[: len(most)], allowed)
                most[~may] = -np.inf
                limit = min(limit, int(np.count_nonzero(may)))
            if (limit := min(limit, len(most))) < 1:
                return []
            likely = np.argpartition(most, len(most) - limit)[len(most) - limit :]
            least = self._cosines(
                likely, query
            ).min()  # `limit` rows have at least that, so no row that has less is found
            rows = np.flatnonzero(most >= least - _LEAST)
            cosines, ids = self._cosines(rows, query), self._ids[rows]
        best = np.lexsort((ids, -cosines))[:limit]
        return list(zip(ids[best].tolist(), cosines[best].tolist(), strict=True))

    def compare(self, query: "Floats", ids: Collection[int]) -> dict[int, float]:
        """The cosines of these ids, the same as a search has; unknown ones are left out."""
        import numpy as np

        with self._lock:
            rows = {id_: row for id_ in ids if (row := self._row_of.get(int(id_))) is not None}
            return dict(
                zip(
                    rows,
                    self._cosines(np.fromiter(rows.values(), np.intp, len(rows)), query).tolist(),
                    strict=True,
                )
            )

    # All below: with the lock held

    @property
    def _columns(self) -> "tuple[NDArray[Any], ...]":
        return (self._rows, *self._rounded, self._ids)

    def _resize(self, rows: int) -> None:
        """Where the system moves pages instead of bytes (Linux), nothing is copied. Nobody outside
        has these arrays, so no reference is checked.
        """
        steps = -(-rows // _STEP) * _STEP
        if steps != len(
            self._ids
        ):  # which come last: where memory did not suffice, the next one starts again
            for kept in self._columns:
                kept.resize((steps, *kept.shape[1:]), refcheck=False)

    def _fill(self, row: int, last: int) -> None:
        """The last row moves to the place of one that is gone."""
        if row != last:
            for kept in self._columns:
                kept[row] = kept[last]
            self._row_of[int(self._ids[row])] = row

    def _bounds(self, query: _Rounded) -> "Floats":
        """The most that each row's cosine can be.

        With x = s + e and q = t + f, where s and t are the rounded ones: x.q = s.t + e.q + s.f, and
        Cauchy-Schwarz bounds the last two.
        """
        import numpy as np
        import simsimd

        count = len(self._row_of)
        if not count:
            return np.empty(0, np.float32)
        bytes_, scale, error, length = (each[:count] for each in self._rounded)
        most = np.asarray(
            simsimd.cdist(bytes_, query.bytes, metric="dot", out_dtype="f32")
        ).reshape(count)
        most *= scale
        most *= query.scale
        most += error * query.length
        most += length * query.error
        return most

    def _cosines(self, rows: "NDArray[np.intp]", query: "Floats") -> "NDArray[np.float64]":
        """Each summed in float64 by itself, so that a cosine depends on nothing but the row and the
        query: equal rows have equal ones.
        """
        import numpy as np

        wide = query.astype(np.float64)
        parts = (rows[start : start + _FEW] for start in range(0, len(rows), _FEW))
        return np.concatenate(
            [np.empty(0), *((self._rows[part] * wide).sum(axis=1) for part in parts)]
        )


def _round(matrix: "Floats") -> _Rounded:
    import numpy as np

    largest = np.abs(matrix).max(axis=1, initial=0)
    scale = np.where(largest > _LEAST, largest / np.float32(127), np.float32(0))
    rounded = np.rint(matrix / np.where(scale > 0, scale, np.inf)[:, None]).astype(np.int8)
    near = rounded * scale[:, None].astype(np.float64)
    error, length = np.linalg.norm(matrix - near, axis=1), np.linalg.norm(near, axis=1)
    error = error + _SLACK * (length + error) + _LEAST
    return _Rounded(rounded, scale, error.astype(np.float32), (length + error).astype(np.float32))


def _may(ids: "NDArray[np.int64]", allowed: "Allowed") -> "NDArray[np.bool_]":
    import numpy as np

    if isinstance(allowed, np.ndarray) and allowed.dtype == np.bool_:
        inside = (ids >= 0) & (ids < len(allowed))
        return inside & allowed[np.where(inside, ids, 0)] if len(allowed) else inside
    return np.isin(ids, np.fromiter(allowed, np.int64, len(allowed)))
