"""A SQLite file as a database: a connection for each thread, one writer at a time.

Write-ahead logging: readers never wait for the writer, and a process killed at any moment leaves
the last committed state. Several processes may use the file.
"""

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from slipway.store.contract import RowError, StoreError
from slipway.store.database import Kind, Transaction

if TYPE_CHECKING:
    import sqlite3

MEMORY_KB = 1024  # of a connection's page cache
_PAUSE_S = 0.02
BUSY_S = 30.0  # how long a writer waits for another process


class SqliteDatabase:
    """The contract `Database`, in a file. `busy_s` is how long it waits for other writers."""

    kind: Kind = "sqlite"

    def __init__(self, file: Path, *, busy_s: float = BUSY_S) -> None:
        self.file, self._busy_s = file, busy_s
        self._local = threading.local()
        self._connections: dict[threading.Thread, sqlite3.Connection] = {}
        self._connecting = threading.Lock()
        self._writer = threading.RLock()
        self._writing = 0

    @contextlib.contextmanager
    def transaction(self, *, durable: bool = False) -> Iterator[Transaction]:
        import sqlite3  # 1 MB, and only needed if there is a store

        try:
            if durable and not self.reading().in_transaction:
                self.reading().execute("PRAGMA synchronous=FULL")
            with self.writing() as db:
                yield db
        except (sqlite3.DataError, sqlite3.IntegrityError, OverflowError, UnicodeError) as error:
            raise RowError(str(error)) from error
        except sqlite3.Error as error:
            raise StoreError(str(error)) from error

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[Transaction]:
        """Yield a transaction that only reads; it waits for nobody."""
        import sqlite3

        try:
            db = self.reading()
            if db.in_transaction:  # this thread writes: its own view is wanted
                yield db
                return
            db.execute("BEGIN")
            try:
                yield db
            finally:
                db.execute("ROLLBACK")
        except sqlite3.Error as error:
            raise StoreError(str(error)) from error

    @contextlib.contextmanager
    def writing(self) -> Iterator["sqlite3.Connection"]:
        """Yield a transaction, committed at the end and rolled back by any exception.

        One thread at a time; the same thread may nest transactions.
        """
        with self._writer:
            db = self.reading()
            self._writing += 1
            try:
                if self._writing == 1:
                    db.execute("BEGIN IMMEDIATE")
                yield db
                if self._writing == 1:
                    db.execute("COMMIT")
            except BaseException:
                if self._writing == 1 and db.in_transaction:
                    db.execute("ROLLBACK")
                raise
            finally:
                self._writing -= 1

    def reading(self) -> "sqlite3.Connection":
        """Return this thread's connection; it is closed some time after the thread has ended."""
        db: sqlite3.Connection = getattr(self._local, "db", None) or self._connect()
        return db

    def _connect(self) -> "sqlite3.Connection":
        import sqlite3

        db = self._local.db = sqlite3.connect(
            self.file, isolation_level=None, check_same_thread=False, timeout=self._busy_s
        )
        with self._connecting:
            for thread in [thread for thread in self._connections if not thread.is_alive()]:
                self._connections.pop(thread).close()
            self._connections[threading.current_thread()] = db
        self._log_ahead(db)
        for pragma in (
            "synchronous=NORMAL",
            "foreign_keys=ON",
            f"cache_size=-{MEMORY_KB}",
        ):
            db.execute(f"PRAGMA {pragma}")
        return db

    def _log_ahead(self, db: "sqlite3.Connection") -> None:
        """Set the mode of the file. SQLite does not wait for its lock here, so we do."""
        import sqlite3

        ends_at = time.monotonic() + self._busy_s
        while True:
            try:
                db.execute("PRAGMA journal_mode=WAL")
            except sqlite3.OperationalError:
                if time.monotonic() > ends_at:
                    raise
                time.sleep(_PAUSE_S)
            else:
                return

    def close(self) -> None:
        for db in self._connections.values():
            db.close()
        self._connections.clear()
        self._local = threading.local()


def make_private(file: Path) -> None:
    """Create the file if it is missing, readable by its owner only, whatever the folder allows.

    SQLite gives its other files (`-wal`, `-shm`) the same permissions. A file that exists is not
    opened: closing it again would end the locks of SQLite's own connections in this process, and
    another process would take away the log that they write (sqlite.org/howtocorrupt.html, 2.2).
    """
    with contextlib.suppress(FileExistsError):
        os.close(os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    for each in (file, *(file.with_name(f"{file.name}{end}") for end in ("-wal", "-shm"))):
        with contextlib.suppress(FileNotFoundError, PermissionError):  # another user's file
            each.chmod(0o600)
