"""The schema of the records, as numbered steps. A step that has been released never changes.

Documents are not part of it: they are read again if their tables change.
"""

import time
from typing import TYPE_CHECKING

from slipway.errors import SettingsError

if TYPE_CHECKING:
    import sqlite3

# number -> statements. Stores older than these numbers hold some of the tables already, hence
# IF NOT EXISTS in the first two.
MIGRATIONS: dict[int, tuple[str, ...]] = {
    1: (
        """CREATE TABLE IF NOT EXISTS answers (
            id TEXT NOT NULL UNIQUE, at REAL NOT NULL, tenant TEXT NOT NULL, owner TEXT NOT NULL,
            app TEXT NOT NULL, model TEXT, served_by TEXT, prompt TEXT
        )""",
        """CREATE TABLE IF NOT EXISTS feedback (
            id TEXT NOT NULL, answer TEXT NOT NULL, kind TEXT NOT NULL, section INTEGER NOT NULL,
            at REAL NOT NULL, tenant TEXT NOT NULL, owner TEXT NOT NULL, app TEXT NOT NULL,
            model TEXT, served_by TEXT, prompt TEXT, helpful INTEGER, reasons TEXT NOT NULL,
            comment TEXT NOT NULL, question TEXT, text TEXT, sources TEXT,
            PRIMARY KEY (answer, kind, section)
        )""",
        "CREATE INDEX IF NOT EXISTS feedback_at ON feedback (at)",
    ),
    2: (
        """CREATE TABLE IF NOT EXISTS pace (
            model TEXT, at REAL, size INTEGER, first_s REAL, chars INTEGER, write_s REAL
        )""",
        "CREATE TABLE IF NOT EXISTS pace_misses (model TEXT PRIMARY KEY, share REAL)",
    ),
    3: (),  # see _name_served_by
    4: (
        """CREATE TABLE conversations (
            owner TEXT NOT NULL, id TEXT NOT NULL, title TEXT NOT NULL, at REAL NOT NULL,
            pinned INTEGER NOT NULL, named INTEGER NOT NULL, turns TEXT NOT NULL,
            PRIMARY KEY (owner, id)
        )""",
        """CREATE TABLE shares (
            id TEXT PRIMARY KEY, tenant TEXT NOT NULL, owner TEXT NOT NULL, at REAL NOT NULL,
            turns TEXT NOT NULL
        )""",
    ),
    5: (  # cost is in picodollars, NULL if unknown
        """CREATE TABLE ledger (
            id TEXT PRIMARY KEY, answer TEXT NOT NULL, at REAL NOT NULL, owner TEXT NOT NULL,
            tenant TEXT NOT NULL, app TEXT NOT NULL, model TEXT NOT NULL, provider TEXT NOT NULL,
            zone TEXT NOT NULL, kind TEXT NOT NULL, endpoint TEXT NOT NULL, upstream TEXT NOT NULL,
            error TEXT, cost INTEGER, price_source TEXT NOT NULL, estimated INTEGER NOT NULL,
            input_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL,
            cached_tokens INTEGER NOT NULL, cache_write_tokens INTEGER NOT NULL,
            audio_input_tokens INTEGER NOT NULL, image_input_tokens INTEGER NOT NULL,
            reasoning_tokens INTEGER NOT NULL, audio_output_tokens INTEGER NOT NULL,
            image_output_tokens INTEGER NOT NULL, images INTEGER NOT NULL,
            audio_ms INTEGER NOT NULL
        )""",
        "CREATE INDEX ledger_at ON ledger (at)",
        "CREATE INDEX ledger_answer ON ledger (answer)",
    ),
}
SERVED_BY_AT = {"answers": 6, "feedback": 9}  # position of the column `served_by`
LATEST = max(MIGRATIONS)


def migrate(db: "sqlite3.Connection") -> None:
    """Bring the records' schema up to date; call it inside a transaction.

    Raises SettingsError for a store that a newer Slipway has written.
    """
    db.execute("CREATE TABLE IF NOT EXISTS migrations (number INTEGER PRIMARY KEY, at REAL)")
    done = schema_version(db)
    if done > LATEST:
        raise SettingsError(
            [
                (
                    f"store: a newer Slipway wrote it (schema {done}; this one knows {LATEST}); "
                    "install that version, or set another `store:`"
                )
            ]
        )
    for number in range(done + 1, LATEST + 1):
        for statement in MIGRATIONS[number]:
            db.execute(statement)
        if number == 3:
            _name_served_by(db)
        db.execute("INSERT INTO migrations VALUES (?, ?)", (number, time.time()))


def _name_served_by(db: "sqlite3.Connection") -> None:
    """Rename the column that says what answered; the first stores had another name for it."""
    for table, position in SERVED_BY_AT.items():
        name = column_names(db, table)[position]
        if name != "served_by":
            db.execute(f'ALTER TABLE {table} RENAME COLUMN "{name}" TO served_by')


def column_names(db: "sqlite3.Connection", table: str) -> list[str]:
    return [row[1] for row in db.execute(f"PRAGMA table_info({table})")]


def schema_version(db: "sqlite3.Connection") -> int:
    """Return the number of the last migration; 0 for a store without any."""
    if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'migrations'").fetchone():
        return 0
    return int(db.execute("SELECT coalesce(max(number), 0) FROM migrations").fetchone()[0])
