"""The records of a deployment: what outlives the process, in one database."""

import secrets
from pathlib import Path

from slipway.errors import SettingsError
from slipway.settings.tree import SQLITE
from slipway.store.contract import Conversations, Keys, Ledger, Records, RuleRows, StoreError
from slipway.store.conversations import SqlConversations
from slipway.store.database import Database
from slipway.store.keys import SqlKeys
from slipway.store.ledger_rows import SqlLedger
from slipway.store.migrations import migrate
from slipway.store.records import SqlRecords
from slipway.store.rule_rows import SqlRuleRows
from slipway.store.sqlite_database import SqliteDatabase, make_private

RECORDS_BUSY_S = 2.0  # how long records wait for another writer; the journal keeps them meanwhile


class RecordStore:
    """The records of one database: each attribute is a contract of `contract.py`."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.records: Records = SqlRecords(database)
        self.conversations: Conversations = SqlConversations(database)
        self.ledger: Ledger = SqlLedger(database)
        self.keys: Keys = SqlKeys(database)
        self.rules: RuleRows = SqlRuleRows(database)

    def secret(self) -> bytes:
        """Return the secret that cookies are signed with; all servers of this store share it."""
        find = "SELECT value FROM meta WHERE key = 'secret'"
        make = "INSERT INTO meta (key, value) VALUES ('secret', ?) ON CONFLICT (key) DO NOTHING"
        with self.database.transaction() as db:
            db.execute(make, (secrets.token_bytes(32),))
            return bytes(db.execute(find).fetchone()[0])

    def close(self) -> None:
        self.database.close()


def open_records(url: str) -> RecordStore:
    """Open the records of a `store:` setting, and bring their schema up to date.

    Raises SettingsError if that will not help to try again, StoreError if it may.
    """
    store = RecordStore(database_of(url))
    try:
        migrate(store.database)
    except StoreError as error:
        store.close()
        if is_broken(error):
            raise SettingsError(
                [f"store: {file_of(url)} cannot be used ({error}); move it away"]
            ) from None
        raise
    except SettingsError:
        store.close()
        raise
    return store


def is_broken(error: StoreError) -> bool:
    """Return whether the file is no SQLite database, or a damaged one."""
    import sqlite3

    cause = error.__cause__
    return isinstance(cause, sqlite3.DatabaseError) and not isinstance(
        cause, sqlite3.OperationalError
    )


def database_of(url: str) -> Database:
    """Return the database that a `store:` setting names. Raises SettingsError, StoreError."""
    return sqlite_records(file_of(url))


def sqlite_records(file: Path) -> SqliteDatabase:
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
    return SqliteDatabase(file, busy_s=RECORDS_BUSY_S)


def file_of(url: str) -> Path:
    """Return the path of `sqlite:///RELATIVE` or `sqlite:////ABSOLUTE`."""
    return Path(url.removeprefix(SQLITE)).expanduser()
