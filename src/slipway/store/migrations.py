"""The schema of the records, as numbered steps. A step that has been released never changes.

Steps are written for SQLite; `in_dialect` writes the types of columns as PostgreSQL has them.

Documents are not part of it: they are read again if their tables change.
"""

import re
import time

from slipway.errors import SettingsError
from slipway.store.database import Database, Kind, Transaction

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
    6: (
        """CREATE TABLE keys (
            id TEXT PRIMARY KEY, name TEXT NOT NULL, tenant TEXT NOT NULL, groups TEXT NOT NULL,
            apps TEXT, models TEXT, documents INTEGER NOT NULL, admin INTEGER NOT NULL,
            created_at REAL NOT NULL, expires_at REAL, revoked_at REAL
        )""",
        """CREATE TABLE key_hashes (
            hash TEXT PRIMARY KEY, key_id TEXT NOT NULL, hint TEXT NOT NULL,
            created_at REAL NOT NULL, ends_at REAL
        )""",
        # changes with every change of the keys, so that servers notice
        "CREATE TABLE versions (name TEXT PRIMARY KEY, number INTEGER NOT NULL)",
        "INSERT INTO versions VALUES ('keys', 0)",
        "CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value BLOB)",
        "CREATE INDEX answers_at ON answers (at)",
    ),
    7: (
        """CREATE TABLE rule_hits (
            answer TEXT NOT NULL, at REAL NOT NULL, app TEXT NOT NULL, rule TEXT NOT NULL,
            version TEXT NOT NULL, kind TEXT NOT NULL, shadow INTEGER NOT NULL,
            PRIMARY KEY (answer, rule)
        )""",
        "CREATE INDEX rule_hits_at ON rule_hits (at)",
        """CREATE TABLE collected (
            answer TEXT PRIMARY KEY, at REAL NOT NULL, app TEXT NOT NULL, tenant TEXT NOT NULL,
            question TEXT NOT NULL, text TEXT NOT NULL, groups TEXT NOT NULL, sources TEXT NOT NULL
        )""",
        "CREATE INDEX collected_at ON collected (at)",
    ),
    8: (
        """CREATE TABLE history (
            source TEXT NOT NULL, step_s INTEGER NOT NULL, at REAL NOT NULL, counts BLOB NOT NULL,
            PRIMARY KEY (source, step_s, at)
        )""",
        """CREATE TABLE alerts (
            source TEXT NOT NULL, id TEXT NOT NULL, state BLOB NOT NULL, PRIMARY KEY (source, id)
        )""",
    ),
    9: (
        "ALTER TABLE keys ADD COLUMN limits TEXT",  # JSON; NULL if there are none
        "ALTER TABLE ledger ADD COLUMN cache_write_1h_tokens INTEGER NOT NULL DEFAULT 0",
    ),
}
SERVED_BY_AT = {"answers": 6, "feedback": 9}  # position of the column `served_by`
LATEST = max(MIGRATIONS)


# types of columns in SQLite -> in PostgreSQL, where REAL has 4 bytes
POSTGRES_TYPES = {"REAL": "DOUBLE PRECISION", "INTEGER": "BIGINT", "BLOB": "BYTEA"}
_TYPES = re.compile(rf"\b({'|'.join(POSTGRES_TYPES)})\b")
_TABLE = re.compile(r"\s*CREATE TABLE (?:IF NOT EXISTS )?(\w+)")
_MIGRATING = 7_310_001  # the number of PostgreSQL's advisory lock while a store is migrated


def migrate(database: Database, up_to: int = LATEST) -> list[int]:
    """Bring the records' schema up to date; return the numbers of the steps that were run.

    Raises SettingsError for a store that a newer Slipway has written, StoreError.
    """
    with database.snapshot() as db:
        done = schema_version(db, database.kind)
    check_version(done)
    if done >= up_to:
        return []
    with database.transaction(durable=True) as db:
        if database.kind == "postgresql":
            db.execute("SELECT pg_advisory_xact_lock(?)", (_MIGRATING,))
        db.execute(
            in_dialect(
                "CREATE TABLE IF NOT EXISTS migrations (number INTEGER PRIMARY KEY, at REAL)",
                database.kind,
            )
        )
        done = schema_version(db, database.kind)  # another process may have been faster
        check_version(done)
        steps = list(range(done + 1, up_to + 1))
        for number in steps:
            for statement in MIGRATIONS[number]:
                db.execute(in_dialect(statement, database.kind))
            if number == 3 and database.kind == "sqlite":
                _name_served_by(db)
            db.execute("INSERT INTO migrations VALUES (?, ?)", (number, time.time()))
    return steps


def tables(up_to: int = LATEST) -> list[str]:
    """Return the tables of the records."""
    statements = [each for number in range(1, up_to + 1) for each in MIGRATIONS[number]]
    found = [_TABLE.match(statement) for statement in statements]
    return list(dict.fromkeys(each[1] for each in found if each))


def in_dialect(statement: str, kind: Kind) -> str:
    """Return a statement of the schema, written for SQLite, for this kind of database."""
    if kind == "sqlite":
        return statement
    return _TYPES.sub(lambda found: POSTGRES_TYPES[found[0]], statement)


def check_version(version: int) -> None:
    """Raise SettingsError for a schema that a newer Slipway has written."""
    if version > LATEST:
        raise SettingsError(
            [
                (
                    f"store: a newer Slipway wrote it (schema {version}; this one knows {LATEST}); "
                    "install that version, or set another `store:`"
                )
            ]
        )


def _name_served_by(db: Transaction) -> None:
    """Rename the column that says what answered; the first stores had another name for it."""
    for table, position in SERVED_BY_AT.items():
        name = column_names(db, table)[position]
        if name != "served_by":
            db.execute(f'ALTER TABLE {table} RENAME COLUMN "{name}" TO served_by')


def column_names(db: Transaction, table: str) -> list[str]:
    return [row[1] for row in db.execute(f"PRAGMA table_info({table})")]


def schema_version(db: Transaction, kind: Kind) -> int:
    """Return the number of the last migration; 0 for a store without any."""
    there = (
        "SELECT 1 FROM sqlite_master WHERE name = 'migrations'"
        if kind == "sqlite"
        else "SELECT 1 WHERE to_regclass('migrations') IS NOT NULL"
    )
    if not db.execute(there).fetchone():
        return 0
    return int(db.execute("SELECT coalesce(max(number), 0) FROM migrations").fetchone()[0])
