"""The ledger: every statement about its rows."""

from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import Any, Literal

import msgspec

from slipway.ledger import LedgerRow
from slipway.store.contract import Grouping, LedgerFilter, LedgerSum
from slipway.store.database import Database
from slipway.types import Usage

ROW = tuple(name for name in LedgerRow.__struct_fields__ if name != "usage")
USAGE = Usage.__struct_fields__
COLUMNS = (*ROW, *USAGE)
SPLIT = 10**6  # sums are added in two parts: the databases' integers have 64 bits
_BOOK = (
    f"INSERT INTO ledger ({', '.join(COLUMNS)}) "  # noqa: S608 - names, never values
    f"VALUES ({', '.join('?' for _ in COLUMNS)}) ON CONFLICT (id) DO NOTHING"
)
_WHERE = """WHERE at >= :since AND (:until IS NULL OR at < :until)
    AND (:owner IS NULL OR owner = :owner) AND (:tenant IS NULL OR tenant = :tenant)
    AND (:app IS NULL OR app = :app) AND (:model IS NULL OR model = :model)
    AND (:answer IS NULL OR answer = :answer)"""
GROUPS: dict[str, str] = {
    "key": "owner",
    "tenant": "tenant",
    "app": "app",
    "model": "model",
}
DAY = {
    "sqlite": "date(at, 'unixepoch')",
    "postgresql": "to_char(to_timestamp(at) AT TIME ZONE 'UTC', 'YYYY-MM-DD')",
}
_COST = f"sum(cost / {SPLIT}), sum(cost % {SPLIT})"
_TOKENS = LedgerSum.__struct_fields__[-5:]
_AFTER = "AND (at, id) > (SELECT at, id FROM ledger WHERE id = :after)"


class SqlLedger:
    """The contract `Ledger`, kept in a table of a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def book(self, rows: Sequence[LedgerRow]) -> None:
        with self._database.transaction(durable=True) as db:
            db.executemany(_BOOK, [columns(row) for row in rows])

    def spent(
        self, by: Literal["key", "tenant", "app"], since: float, until: float | None = None
    ) -> dict[str, int]:
        group = GROUPS[by]
        found = self._read(
            f"SELECT {group}, {_COST} FROM ledger "  # noqa: S608
            "WHERE at >= :since AND (:until IS NULL OR at < :until) GROUP BY 1",
            {"since": since, "until": until},
        )
        return {name: joined(high, low) for name, high, low in found}

    def sums(self, by: Grouping, which: LedgerFilter) -> list[LedgerSum]:
        return self.sums_by((by,), which)[by]

    def sums_by(
        self, groupings: Sequence[Grouping], which: LedgerFilter
    ) -> dict[Grouping, list[LedgerSum]]:
        groups = [DAY[self._database.kind] if by == "day" else GROUPS[by] for by in groupings]
        with_tokens = ", ".join(f"sum({name})" for name in _TOKENS)
        found = self._read(
            f"SELECT {', '.join(groups)}, count(*), count(error), "  # noqa: S608
            f"count(*) - count(cost), sum(estimated), {_COST}, {with_tokens} FROM ledger {_WHERE} "
            f"GROUP BY {', '.join(str(n + 1) for n in range(len(groups)))}",
            msgspec.structs.asdict(which),
        )
        return {
            by: summed((row[place], row[len(groups) :]) for row in found)
            for place, by in enumerate(groupings)
        }

    def rows(self, which: LedgerFilter, *, limit: int, after: str = "") -> list[LedgerRow]:
        found = self._read(
            f"SELECT {', '.join(COLUMNS)} FROM ledger {_WHERE} "  # noqa: S608
            f"{_AFTER if after else ''} ORDER BY at, id LIMIT :limit",
            {**msgspec.structs.asdict(which), "limit": limit, "after": after},
        )
        return [row_of(values) for values in found]

    def drop_rows(self, before: float) -> int:
        with self._database.transaction() as db:
            return db.execute("DELETE FROM ledger WHERE at < ?", (before,)).rowcount

    def _read(self, statement: str, values: dict[str, Any]) -> "list[tuple[Any, ...]]":
        with self._database.snapshot() as db:
            return db.execute(statement, values).fetchall()


def summed(rows: Iterable[tuple[str, Sequence[Any]]]) -> list[LedgerSum]:
    """Return the sums of each group from rows of (group, numbers), ordered by the group."""
    sums: dict[str, list[int]] = {}
    for group, numbers in rows:
        calls, failed, unknown, estimated, high, low, *tokens = numbers
        row = [calls, failed, unknown, estimated, joined(high, low), *tokens]
        known = sums.get(group)
        sums[group] = (
            list(map(int, row))
            if known is None
            else [one + int(other) for one, other in zip(known, row, strict=True)]
        )
    names = LedgerSum.__struct_fields__[1:]
    return [
        LedgerSum(group=group, **dict(zip(names, sums[group], strict=True)))
        for group in sorted(sums)
    ]


def joined(high: Any, low: Any) -> int:
    """Return a sum that was added in two parts; None is the sum of no known costs."""
    return int(high or 0) * SPLIT + int(low or 0)


_row_values, _usage_values = attrgetter(*ROW), attrgetter(*USAGE)


def columns(row: LedgerRow) -> tuple[Any, ...]:
    """Return a row's values in the order of the columns."""
    values: tuple[Any, ...] = _row_values(row) + _usage_values(row.usage)
    return values


def row_of(values: Sequence[Any]) -> LedgerRow:
    """Return the row that was saved as these values."""
    found = dict(zip(COLUMNS, values, strict=True))
    usage = Usage(**{name: found.pop(name) for name in USAGE})
    return LedgerRow(**found, usage=msgspec.structs.replace(usage, estimated=bool(usage.estimated)))
