"""The ledger in SQLite: every statement about its rows."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from slipway.ledger import LedgerRow
from slipway.store.contract import Grouping, LedgerFilter, LedgerSum, StoreError
from slipway.types import Usage

if TYPE_CHECKING:
    from slipway.store.sqlite import Store

ROW = tuple(name for name in LedgerRow.__struct_fields__ if name != "usage")
USAGE = Usage.__struct_fields__
COLUMNS = (*ROW, *USAGE)
SPLIT = 10**6  # sums are added in two parts: SQLite's integers have 64 bits
_BOOK = (
    f"INSERT OR IGNORE INTO ledger ({', '.join(COLUMNS)}) "  # noqa: S608 - names, never values
    f"VALUES ({', '.join(f':{name}' for name in COLUMNS)})"
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
    "day": "date(at, 'unixepoch')",
}
_COST = f"sum(cost / {SPLIT}), sum(cost % {SPLIT})"
_TOKENS = LedgerSum.__struct_fields__[-5:]
_AFTER = "AND rowid > coalesce((SELECT rowid FROM ledger WHERE id = :after), 0)"


class SqliteLedger:
    """The contract `Ledger`, kept in a table of a Store."""

    def __init__(self, store: "Store") -> None:
        self._store = store

    def book(self, rows: Sequence[LedgerRow]) -> None:
        import sqlite3  # 1 MB, and only needed where there is a store

        try:
            self._store.reading().execute("PRAGMA synchronous=FULL")
            with self._store.writing() as db:
                db.executemany(_BOOK, [columns(row) for row in rows])
        except sqlite3.Error as error:
            raise StoreError(str(error)) from error

    def spent(self, by: Literal["key", "tenant", "app"], since: float) -> dict[str, int]:
        group = GROUPS[by]
        found = self._read(
            f"SELECT {group}, {_COST} FROM ledger WHERE at >= :since GROUP BY 1",  # noqa: S608
            {"since": since},
        )
        return {name: joined(high, low) for name, high, low in found}

    def sums(self, by: Grouping, which: LedgerFilter) -> list[LedgerSum]:
        with_tokens = ", ".join(f"sum({name})" for name in _TOKENS)
        found = self._read(
            f"SELECT {GROUPS[by]}, count(*), count(error), sum(cost IS NULL), "  # noqa: S608
            f"sum(estimated), {_COST}, {with_tokens} FROM ledger {_WHERE} GROUP BY 1 ORDER BY 1",
            msgspec.structs.asdict(which),
        )
        return [
            LedgerSum(
                group=group,
                calls=calls,
                failed=failed,
                unknown=unknown,
                estimated=estimated,
                cost=joined(high, low),
                **dict(zip(_TOKENS, tokens, strict=True)),
            )
            for group, calls, failed, unknown, estimated, high, low, *tokens in found
        ]

    def rows(self, which: LedgerFilter, *, limit: int, after: str = "") -> list[LedgerRow]:
        found = self._read(
            f"SELECT {', '.join(COLUMNS)} FROM ledger {_WHERE} {_AFTER} "  # noqa: S608
            "ORDER BY rowid LIMIT :limit",
            {**msgspec.structs.asdict(which), "limit": limit, "after": after},
        )
        return [row_of(values) for values in found]

    def drop_rows(self, before: float) -> int:
        import sqlite3

        try:
            with self._store.writing() as db:
                return db.execute("DELETE FROM ledger WHERE at < ?", (before,)).rowcount
        except sqlite3.Error as error:
            raise StoreError(str(error)) from error

    def _read(self, statement: str, values: dict[str, Any]) -> "list[tuple[Any, ...]]":
        import sqlite3

        try:
            found: list[tuple[Any, ...]] = (
                self._store.reading().execute(statement, values).fetchall()
            )
        except sqlite3.Error as error:
            raise StoreError(str(error)) from error
        return found


def joined(high: int | None, low: int | None) -> int:
    """Return a sum that was added in two parts; None is the sum of no known costs."""
    return (high or 0) * SPLIT + (low or 0)


def columns(row: LedgerRow) -> dict[str, Any]:
    """Return a row's values by column."""
    values = {name: getattr(row, name) for name in ROW}
    return values | {name: getattr(row.usage, name) for name in USAGE}


def row_of(values: Sequence[Any]) -> LedgerRow:
    """Return the row that was saved as these values."""
    found = dict(zip(COLUMNS, values, strict=True))
    usage = Usage(**{name: found.pop(name) for name in USAGE})
    return LedgerRow(**found, usage=msgspec.structs.replace(usage, estimated=bool(usage.estimated)))
