"""The records of a deployment: what outlives the process, in one database."""

import secrets
import time
from pathlib import Path

from slipway.errors import SettingsError
from slipway.settings import Settings
from slipway.settings.tree import SQLITE, without_password
from slipway.store.contract import (
    Conversations,
    HistoryRows,
    Keys,
    Ledger,
    Records,
    RuleRows,
    StoreError,
)
from slipway.store.conversations import SqlConversations
from slipway.store.database import Database, Transaction
from slipway.store.history_rows import SqlHistoryRows
from slipway.store.keys import SqlKeys
from slipway.store.ledger_rows import SqlLedger
from slipway.store.migrations import migrate, schema_version
from slipway.store.postgres import ANSWER_S, PostgresDatabase, mistake_in
from slipway.store.records import SqlRecords
from slipway.store.rule_rows import SqlRuleRows
from slipway.store.sqlite_database import SqliteDatabase, make_private

RECORDS_BUSY_S = 2.0  # how long records wait for another writer; the journal keeps them meanwhile
_ENDED = "ended session "  # begins the keys of sessions that were signed out
PATIENT_S = 60.0  # the same for a command, and the longest wait for a reply of PostgreSQL


class RecordStore:
    """The records of one database: each attribute is a contract of `contract.py`."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.records: Records = SqlRecords(database)
        self.conversations: Conversations = SqlConversations(database)
        self.ledger: Ledger = SqlLedger(database)
        self.keys: Keys = SqlKeys(database)
        self.rules: RuleRows = SqlRuleRows(database)
        self.history: HistoryRows = SqlHistoryRows(database)

    def secret(self) -> bytes:
        """Return the secret that cookies are signed with; all servers of this store share it."""
        find = "SELECT value FROM meta WHERE key = 'secret'"
        make = "INSERT INTO meta (key, value) VALUES ('secret', ?) ON CONFLICT (key) DO NOTHING"
        with self.database.transaction() as db:
            db.execute(make, (secrets.token_bytes(32),))
            return bytes(db.execute(find).fetchone()[0])

    def end_session(self, session_id: str, until: float) -> None:
        """Note that somebody signed out of a session that would have lasted `until` a time."""
        add = "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO NOTHING"
        with self.database.transaction() as db:
            for each, its_end in _ended_sessions(db).items():
                if its_end <= time.time():
                    db.execute("DELETE FROM meta WHERE key = ?", (f"{_ENDED}{each}",))
            db.execute(add, (f"{_ENDED}{session_id}", repr(until).encode()))

    def ended_sessions(self) -> dict[str, float]:
        """Return the sessions that somebody signed out of, with the times they would have lasted to."""
        with self.database.snapshot() as db:
            return _ended_sessions(db)

    def schema(self) -> int:
        """Return the number of the schema's last step."""
        with self.database.snapshot() as db:
            return schema_version(db, self.database.kind)

    def note_backup(self, at: float) -> None:
        """Record that a backup was made at this time, in seconds since the epoch."""
        put = (
            "INSERT INTO meta (key, value) VALUES ('backup_at', ?) "
            "ON CONFLICT (key) DO UPDATE SET value = excluded.value"
        )
        with self.database.transaction() as db:
            db.execute(put, (repr(at).encode(),))

    def last_backup(self) -> float | None:
        """Return when the last backup was made; None if there was none."""
        with self.database.snapshot() as db:
            row = db.execute("SELECT value FROM meta WHERE key = 'backup_at'").fetchone()
        return float(bytes(row[0])) if row else None

    def close(self) -> None:
        self.database.close()


def _ended_sessions(db: Transaction) -> dict[str, float]:
    find = "SELECT key, value FROM meta WHERE substr(key, 1, ?) = ?"
    rows = db.execute(find, (len(_ENDED), _ENDED)).fetchall()
    return {key.removeprefix(_ENDED): float(bytes(value)) for key, value in rows}


def open_records(settings: Settings, *, patient: bool = False) -> RecordStore:
    """Open the records of a `store:` setting, and bring their schema up to date.

    Commands are `patient`: they wait longer for other writers, and for the reply to a question.
    Raises SettingsError if it does not help to try again, StoreError if it may.
    """
    store = RecordStore(database_of(settings, patient=patient))
    try:
        migrate(store.database)
    except StoreError as error:
        store.close()
        if (problem := problem_in(error, settings)) is not None:
            raise SettingsError([problem]) from None
        raise
    except SettingsError:
        store.close()
        raise
    return store


def problem_in(error: StoreError, settings: Settings) -> str | None:
    """Return what a person must change; None if the store may work later."""
    if is_local(settings):
        if is_broken(error):
            return f"store: {file_of(settings)} cannot be used ({error}); move it away"
        return None
    what = mistake_in(error)
    if what is None:
        return None
    return f"store: PostgreSQL refuses {without_password(settings.store)}: {what}; correct `store`"


def is_broken(error: StoreError) -> bool:
    """Return whether the file is no SQLite database, or a damaged one."""
    import sqlite3

    cause = error.__cause__
    return isinstance(cause, sqlite3.DatabaseError) and not isinstance(
        cause, sqlite3.OperationalError
    )


def database_of(settings: Settings, *, patient: bool = False) -> Database:
    """Return the database that a `store:` setting names. Raises SettingsError."""
    if is_local(settings):
        return sqlite_records(file_of(settings), PATIENT_S if patient else RECORDS_BUSY_S)
    return PostgresDatabase(settings.store, answer_s=PATIENT_S if patient else ANSWER_S)


def sqlite_records(file: Path, busy_s: float) -> SqliteDatabase:
    """Return the database in this file, which is created if it is missing."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        make_private(file)
    except OSError as error:
        raise SettingsError(
            [
                (
                    f"store: {file.parent} cannot be written ({error.strerror}); "
                    f"set `store: {SQLITE}PATH`"
                )
            ]
        ) from None
    return SqliteDatabase(file, busy_s=busy_s)


def file_of(settings: Settings) -> Path:
    """Return the SQLite file of this machine: that of `store`, or the one beside PostgreSQL, which
    holds the documents only.
    """
    if is_local(settings):
        return Path(settings.store.removeprefix(SQLITE)).expanduser()
    return Path(settings.data).expanduser() / "slipway.db"


def is_local(settings: Settings) -> bool:
    """Return whether the records are in a file of this machine."""
    return settings.store.startswith(SQLITE)
