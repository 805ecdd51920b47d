"""What the records need of a database: transactions that run statements.

Statements are written once, in the SQL that SQLite and PostgreSQL share, with SQLite's
placeholders (`?` or `:name`). What differs is a method of the transaction.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal, Protocol

Values = Sequence[Any] | Mapping[str, Any]
Kind = Literal["sqlite", "postgresql"]


class Rows(Protocol):
    """The result of a statement."""

    @property
    def rowcount(self) -> int: ...

    def fetchone(self) -> Any: ...

    def fetchall(self) -> list[Any]: ...

    def __iter__(self) -> Iterator[Any]: ...


class Transaction(Protocol):
    """A transaction in progress."""

    def execute(self, statement: str, values: Values = (), /) -> Rows: ...

    def executemany(self, statement: str, rows: Iterable[Values], /) -> object:
        """Run a statement for each row; what it returns is not used."""


class Database(Protocol):
    """A database that holds records. One object serves all threads of a process."""

    kind: Kind

    def transaction(self, *, durable: bool = False) -> AbstractContextManager[Transaction]:
        """Yield a transaction: committed at the end, rolled back by any exception.

        If `durable`, it outlives a power cut once it has ended. Raises StoreError.
        """

    def snapshot(self) -> AbstractContextManager[Transaction]:
        """Yield a transaction that only reads, as of one moment. Raises StoreError."""

    def close(self) -> None: ...
