"""A PostgreSQL database: a few connections that all threads share, none waited for without end.

A server that is stopped or unreachable costs a call at most CONNECT_S + ANSWER_S, then it fails
with StoreError. Calls of the next DOWN_S fail at once, and later ones connect again.
"""

import contextlib
import re
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from slipway.errors import SettingsError
from slipway.store.contract import RowError, StoreError
from slipway.store.database import Kind, Rows, Transaction, Values

if TYPE_CHECKING:
    from psycopg import ClientCursor, Connection

EXTRA = "pip install 'slipway[postgres]'"
CONNECT_S = 2  # libpq takes no less
ANSWER_S = 2.0  # the longest wait for the reply to a statement
CHECK_AFTER_S = 1.0  # an idle connection is asked whether it still works after this long
DOWN_S = 0.5  # how long calls fail at once after one that got no connection or no reply
IDLE = 4  # connections that are kept
_PLACEHOLDER = re.compile(r"\?|(?<![:\w]):(\w+)")
# what the server says of a mistake in the settings; trying again does not help
_MISTAKES = re.compile(
    r"password authentication failed|no password supplied|role \"[^\"]*\" does not exist|"
    r"database \"[^\"]*\" does not exist|no pg_hba\.conf entry|permission denied|"
    r"invalid (?:connection option|URI|port|percent)|could not translate host name"
)


@lru_cache(maxsize=500)
def in_format(statement: str) -> str:
    """Return a statement with psycopg's placeholders instead of SQLite's."""
    return _PLACEHOLDER.sub(
        lambda found: f"%({found[1]})s" if found[1] else "%s", statement.replace("%", "%%")
    )


def value(each: Any) -> Any:
    """Return a value as SQLite would keep it: no booleans, and text without the character NUL."""
    if isinstance(each, bool):
        return int(each)
    if isinstance(each, str) and "\0" in each:
        return each.replace("\0", "\N{REPLACEMENT CHARACTER}")
    return each


def adapted(values: Values) -> Any:
    if isinstance(values, Mapping):
        return {name: value(each) for name, each in values.items()}
    return [value(each) for each in values]


class PostgresTransaction:
    """The contract `Transaction`, on one connection."""

    def __init__(self, connection: "Connection[Any]", cursor: "ClientCursor[Any]") -> None:
        self._connection, self._cursor = connection, cursor

    def execute(self, statement: str, values: Values = (), /) -> Rows:
        return self._cursor.execute(in_format(statement).encode(), adapted(values))

    def executemany(self, statement: str, rows: Iterable[Values], /) -> None:
        """Run a statement for each row, in one round trip."""
        many = self._connection.cursor()
        many.executemany(in_format(statement).encode(), [adapted(row) for row in rows])


class PostgresDatabase:
    """The contract `Database`, at an address `postgresql://…`."""

    kind: Kind = "postgresql"

    def __init__(self, url: str, *, answer_s: float = ANSWER_S) -> None:
        """Connect to nothing yet. Raises SettingsError if psycopg is not installed."""
        if find_spec("psycopg") is None:
            raise SettingsError([f"store: PostgreSQL needs an extra; install it: {EXTRA}"])
        self.url, self._answer_s = url, answer_s
        self._idle: list[tuple[float, Connection[Any]]] = []
        self._lock = threading.Lock()
        self._down_until, self._why_down = 0.0, ""

    @contextlib.contextmanager
    def transaction(self, *, durable: bool = False) -> Iterator[Transaction]:
        with self._begun("BEGIN; SET LOCAL synchronous_commit TO on" if durable else "BEGIN") as db:
            yield db

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[Transaction]:
        with self._begun("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY") as db:
            yield db

    @contextlib.contextmanager
    def _begun(self, begin: str) -> Iterator[Transaction]:
        import psycopg  # 3 MB, and only needed with this kind of store

        if time.monotonic() < self._down_until:
            raise StoreError(self._why_down)
        try:
            with self._connected() as connection:
                cursor = psycopg.ClientCursor(connection)
                cursor.execute(begin.encode())
                try:
                    yield PostgresTransaction(connection, cursor)
                    cursor.execute(b"COMMIT")
                except BaseException:
                    self._roll_back(connection)
                    raise
        except (psycopg.DataError, psycopg.IntegrityError, UnicodeError) as error:
            raise RowError(sentence(error)) from error
        except psycopg.Error as error:
            raise StoreError(sentence(error)) from error

    def _is_down(self, error: Exception) -> None:
        """Let calls fail at once for a moment: threads that wait are missed elsewhere."""
        self._why_down = sentence(error)
        self._down_until = time.monotonic() + DOWN_S

    def _roll_back(self, connection: "Connection[Any]") -> None:
        """End a transaction that failed; a connection that does not answer is closed instead."""
        import psycopg

        try:
            connection.execute(b"ROLLBACK")
        except psycopg.Error as error:
            connection.close()
            self._is_down(error)

    @contextlib.contextmanager
    def _connected(self) -> Iterator["Connection[Any]"]:
        from psycopg.pq import TransactionStatus

        connection = self._taken()
        try:
            yield connection
        finally:
            is_fit = not connection.closed and (
                connection.info.transaction_status == TransactionStatus.IDLE
            )
            with self._lock:
                is_kept = is_fit and len(self._idle) < IDLE
                if is_kept:
                    self._idle.append((time.monotonic(), connection))
            if not is_kept:
                connection.close()

    def _taken(self) -> "Connection[Any]":
        """Return a connection that works, an idle one if there is one."""
        import psycopg

        while True:
            with self._lock:
                if not self._idle:
                    break
                since, connection = self._idle.pop()
            if time.monotonic() - since < CHECK_AFTER_S and not connection.closed:
                return connection
            try:
                connection.execute(b"SELECT 1")
            except psycopg.Error:
                connection.close()
                self._forget_idle()  # the server was restarted, or is gone: they all are
            else:
                return connection
        return self._connect()

    def _connect(self) -> "Connection[Any]":
        import psycopg

        answer_s = self._answer_s

        class PatientConnection(psycopg.Connection[Any]):
            """A connection that waits for a reply for `answer_s` at most."""

            def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
                return super().wait(gen, interval, answer_s if timeout is None else timeout)

        try:
            return PatientConnection.connect(
                self.url,
                autocommit=True,
                prepare_threshold=None,  # poolers such as PgBouncer may know no prepared statements
                connect_timeout=CONNECT_S,
                application_name="slipway",
                keepalives_idle=10,
                keepalives_interval=5,
                keepalives_count=3,
            )
        except psycopg.Error as error:
            self._is_down(error)
            raise

    def _forget_idle(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        for _, connection in idle:
            connection.close()

    def close(self) -> None:
        self._forget_idle()


def sentence(error: Exception) -> str:
    """Return what an error says, on one line."""
    said = " ".join(str(error).split()) or type(error).__name__
    return "it does not answer" if said.endswith("timeout expired") else said


def mistake_in(error: StoreError) -> str | None:
    """Return what is wrong with the settings of the store, if the server said so."""
    found = _MISTAKES.search(str(error))
    return str(error) if found else None
