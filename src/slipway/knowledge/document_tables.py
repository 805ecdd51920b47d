"""The SQLite tables of the document store."""

from typing import Any

from slipway.errors import SettingsError

_TABLES_VERSION = 2
_TABLES = """
CREATE TABLE IF NOT EXISTS collections (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, generation INTEGER NOT NULL DEFAULT 0, scanned INTEGER NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS documents (
    id INTEGER PRIMARY KEY AUTOINCREMENT, collection INTEGER NOT NULL, path TEXT NOT NULL, public TEXT NOT NULL UNIQUE,
    file BLOB NOT NULL, home TEXT NOT NULL, state TEXT NOT NULL, reason TEXT NOT NULL, page INTEGER, next TEXT NOT NULL,
    stamp INTEGER NOT NULL, size INTEGER NOT NULL, version TEXT NOT NULL, format INTEGER NOT NULL,
    title TEXT NOT NULL, date TEXT NOT NULL, tags TEXT NOT NULL, groups TEXT NOT NULL,
    passages INTEGER NOT NULL, generation INTEGER NOT NULL, read_at REAL NOT NULL, text TEXT NOT NULL,
    UNIQUE (collection, path));
CREATE INDEX IF NOT EXISTS documents_by_generation ON documents (collection, generation);
CREATE TABLE IF NOT EXISTS passages (
    id INTEGER PRIMARY KEY AUTOINCREMENT, document INTEGER NOT NULL REFERENCES documents (id) ON DELETE CASCADE,
    public TEXT NOT NULL UNIQUE, place INTEGER NOT NULL, start INTEGER NOT NULL, stop INTEGER NOT NULL, page INTEGER,
    heading TEXT NOT NULL, trail TEXT NOT NULL, text TEXT NOT NULL, key BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS passages_by_document ON passages (document);
CREATE INDEX IF NOT EXISTS passages_by_key ON passages (key);
CREATE TABLE IF NOT EXISTS gone (collection INTEGER NOT NULL, document INTEGER NOT NULL, generation INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS vectors (model TEXT NOT NULL, key BLOB NOT NULL, vector BLOB NOT NULL, PRIMARY KEY (model, key)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS models (model TEXT PRIMARY KEY, source TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS uploads (collection INTEGER NOT NULL, name TEXT NOT NULL, version TEXT NOT NULL, tags TEXT NOT NULL, groups TEXT,
    by TEXT NOT NULL, at REAL NOT NULL, PRIMARY KEY (collection, name, version)) WITHOUT ROWID;
"""


def create_tables(db: Any) -> None:
    """Create the tables that are missing. Raises SettingsError if a newer Slipway wrote the store."""
    _check_version(db, int(db.execute("PRAGMA user_version").fetchone()[0]))
    for statement in _TABLES.split(";"):
        db.execute(statement)
    db.execute(f"PRAGMA user_version = {_TABLES_VERSION}")


def _check_version(db: Any, version: int) -> None:
    """Drop the tables of an older version, so that files are read again; keep the vectors."""
    if version > _TABLES_VERSION:
        raise SettingsError(
            ["store: a newer Slipway wrote it; use that version, or set another `store:`"]
        )
    if version and version < _TABLES_VERSION:
        for table in ("passages", "documents", "gone", "uploads", "collections"):
            db.execute(f"DROP TABLE IF EXISTS {table}")
