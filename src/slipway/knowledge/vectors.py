"""Search vectors exactly, mostly with one byte per number.

Reading the rows from memory limits the speed of a search. So each row is stored twice: in float32,
and rounded to int8 with its own scale, a quarter of the bytes. A search compares all rows in int8
with a proven bound on the rounding error of each row, then compares in float32 the rows that can
still be among the nearest. The result is exact.
"""

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from slipway.knowledge.search_slots import SearchSlots

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Allowed = NDArray[np.bool_] | Collection[int]

_STEP = 1024  # rows by which memory grows and shrinks
# rows handled at once: their float64 copy, 0.8 MB, fits the processor's cache and does not fragment
# memory
_FEW = 256
_LEAST = 1e-30  # rows whose largest number is below this are rounded to zeros
# for the float32 arithmetic of the bound itself: fewer than 20 roundings of 2**-24 each, doubled
_SLACK = 4e-6


class _Rounded(NamedTuple):
    """Rows rounded to int8: `bytes * scale` differs from the row by a vector of at most length
    `error`; `length` is an upper bound for the length of `bytes * scale`.
    """

    bytes: "NDArray[np.int8]"
    scale: "Floats"
    error: "Floats"
    length: "Floats"


class Vectors:
    """Vectors of length 1, keyed by integer ids; threads may search and change them at once.
    Memory: 5 bytes per dimension and row.

    A search sees the state between two changes (`put` or `drop`). Rows that are not finite count as
    zeros. Raises ImportError without the extra `vectors`.
    """

    def __init__(self, dimensions: int = 384) -> None:
        import numpy as np
        import simsimd  # noqa: F401 - import it now rather than at the first question

        self.dimensions = dimensions
        self._ids = np.empty(0, np.int64)
        self._rows = np.empty((0, dimensions), np.float32)
        self._rounded = _Rounded(
            np.empty((0, dimensions), np.int8), *(np.empty(0, np.float32) for _ in range(3))
        )
        self._row_of: dict[int, int] = {}
        self._lock = SearchSlots(1)  # guards all of these; changes in a row must not block searches

    def __len__(self) -> int:
        return len(self._row_of)

    def __contains__(self, id: int) -> bool:  # noqa: A002
        return id in self._row_of

    @property
    def ids(self) -> set[int]:
        """Return the ids with a vector."""
        with self._lock:
            return set(self._row_of)

    def put(self, ids: Sequence[int], matrix: "Floats") -> None:
        """Add rows, or replace those with known ids. Raises ValueError if the shape is not
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
        """Remove rows; unknown ids are ignored."""
        with self._lock:
            for id_ in ids:
                if (row := self._row_of.pop(int(id_), None)) is not None:
                    self._fill(row, len(self._row_of))
            self._resize(len(self._row_of))

    def search(
        self, query: "Floats", limit: int, allowed: "Allowed | None" = None
    ) -> list[tuple[int, float]]:
        """Return the nearest ids with their cosines, best first; among equals, the smaller id
        first.

        `allowed` holds the ids that may be found, or is a mask over ids (`allowed[id]`; ids beyond
        its end may not be found). `query` must have length 1. Raises ValueError if it has another
        number of dimensions.
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
            least = (
                self._cosines(likely, query).min()
            )  # `limit` rows have at least this cosine, so rows below it are not among the nearest
            rows = np.flatnonzero(most >= least - _LEAST)
            cosines, ids = self._cosines(rows, query), self._ids[rows]
        best = np.lexsort((ids, -cosines))[:limit]
        return list(zip(ids[best].tolist(), cosines[best].tolist(), strict=True))

    def compare(self, query: "Floats", ids: Collection[int]) -> dict[int, float]:
        """Return the cosines of these ids, equal to those of a search, without unknown ids."""
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

    # Call the methods below with the lock held

    @property
    def _columns(self) -> "tuple[NDArray[Any], ...]":
        return (self._rows, *self._rounded, self._ids)

    def _resize(self, rows: int) -> None:
        """Resize the arrays in place; Linux moves pages instead of copying. Nothing outside refers
        to the arrays, so refcheck is off.
        """
        steps = -(-rows // _STEP) * _STEP
        if steps != len(
            self._ids
        ):  # ids are resized last: if memory runs out, the next call tries again
            for kept in self._columns:
                kept.resize((steps, *kept.shape[1:]), refcheck=False)

    def _fill(self, row: int, last: int) -> None:
        """Move the last row into the place of a removed one."""
        if row != last:
            for kept in self._columns:
                kept[row] = kept[last]
            self._row_of[int(self._ids[row])] = row

    def _bounds(self, query: _Rounded) -> "Floats":
        """Return an upper bound of each row's cosine.

        With x = s + e and q = t + f, with s and t rounded: x.q = s.t + e.q + s.f, and
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
        """Sum each row in float64 alone, so that a cosine depends on row and query only: equal rows
        get equal cosines.
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
