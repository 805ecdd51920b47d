"""Backups of the records: one compressed file of lines, the same for every kind of database.

The first line says what it is, then each table follows with its columns and rows, and the last line
counts the rows, so that a file that was cut is noticed.
"""

import base64
import gzip
import json
import os
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import msgspec

import slipway
from slipway.errors import SettingsError
from slipway.store.database import Database, Transaction
from slipway.store.migrations import LATEST, migrate, schema_version, tables
from slipway.types import Record

FORMAT = 1
PAGE = 2_000  # rows read or written together
_OF_THE_STORE = frozenset({"migrations"})  # the migrations of the other store write these
_KEPT = "meta"  # what the other store has already stays: its documents depend on it


class BackupHead(Record, frozen=True, kw_only=True):
    """The first line of a backup."""

    slipway_backup: int  # the number of this format
    schema: int
    version: str
    made_at: float
    kind: str


def write_backup(database: Database, file: Path) -> dict[str, int]:
    """Write all records, as of one moment, into a file; return the number of rows by table.

    An older file of this name is replaced once the new one is whole. Raises SettingsError if the
    file cannot be written, StoreError.
    """
    unfinished = file.with_name(f"{file.name}.unfinished")
    try:
        with os.fdopen(
            os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb"
        ) as out:
            with gzip.open(out, "wt", encoding="utf-8") as lines:
                counts = _write(database, lines)
            out.flush()
            os.fsync(out.fileno())
        unfinished.replace(file)
    except OSError as error:
        raise SettingsError(
            [f"{file}: the backup cannot be written ({error.strerror or error})"]
        ) from None
    finally:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
    return counts


def _write(database: Database, lines: IO[str]) -> dict[str, int]:
    def put(value: Any) -> None:
        json.dump(value, lines, ensure_ascii=False, separators=(",", ":"), default=_in_json)
        lines.write("\n")

    counts = dict[str, int]()
    with database.snapshot() as db:
        schema = schema_version(db, database.kind)
        put(
            {
                "slipway_backup": FORMAT,
                "schema": schema,
                "version": slipway.__version__,
                "made_at": time.time(),
                "kind": database.kind,
            }
        )
        for table in tables(schema):
            columns = columns_of(db, database.kind, table)
            put({"table": table, "columns": columns})
            counts[table] = 0
            for row in rows_of(db, database.kind, table, columns):
                put(row)
                counts[table] += 1
    put({"end": True, "rows": counts})
    return counts


def restore_backup(database: Database, file: Path, *, replace: bool = False) -> dict[str, int]:
    """Write the rows of a backup into a store, in one transaction; return their number by table.

    An older backup is migrated, which needs a store that was never used. Raises SettingsError if
    the backup or the store is not fit for that, StoreError.
    """
    reader = BackupReader(file)
    head = reader.head()
    with database.snapshot() as db:
        there = schema_version(db, database.kind)
    if there > head.schema:
        if any(_filled(database, there).values()):
            raise SettingsError(
                [
                    (
                        f"{file}: this backup has schema {head.schema}, the store {there}: restore it "
                        "into a store that does not exist yet; it is migrated then"
                    )
                ]
            )
        _drop(database, there)
    migrate(database, head.schema)
    filled = {table: rows for table, rows in _filled(database, head.schema).items() if rows}
    if filled and not replace:
        held = ", ".join(f"{rows} in `{table}`" for table, rows in filled.items())
        raise SettingsError(
            [
                (
                    f"store: it holds rows already ({held}); restore into an empty store, or say "
                    "`--replace` to delete them"
                )
            ]
        )
    with database.transaction(durable=True) as db:
        for table in tables(head.schema):
            if table not in (_KEPT, *_OF_THE_STORE):
                db.execute(f"DELETE FROM {table}")  # noqa: S608 - a name of ours
        counts = reader.restore_into(db, set(tables(head.schema)))
    migrate(database)
    return counts


def _filled(database: Database, schema: int) -> dict[str, int]:
    """Return how many rows each table holds, without those that every store has."""
    with database.snapshot() as db:
        return {
            table: int(db.execute(f"SELECT count(*) FROM {table}").fetchone()[0])  # noqa: S608
            for table in tables(schema)
            if table not in (_KEPT, "versions", *_OF_THE_STORE)
        }


def _drop(database: Database, schema: int) -> None:
    """Take away the empty tables of a newer schema, so that those of the backup can be made."""
    with database.transaction() as db:
        for table in (*tables(schema), "migrations"):
            if table != _KEPT:
                db.execute(f"DROP TABLE IF EXISTS {table}")


class BackupReader:
    """Reads a backup from its beginning to its end."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def head(self) -> BackupHead:
        """Return the first line. Raises SettingsError if this Slipway cannot read the backup."""
        first = next(self._lines(), None)
        if not isinstance(first, dict) or "slipway_backup" not in first:
            raise SettingsError(
                [f"{self.file}: this is no backup; `slipway store backup FILE` makes one"]
            )
        values = {name: first.get(name, 0) for name in BackupHead.__struct_fields__}
        try:
            head = msgspec.convert(values, BackupHead)
        except msgspec.ValidationError:
            raise SettingsError(
                [f"{self.file}: this is no backup, or it is damaged (its first line)"]
            ) from None
        if head.slipway_backup != FORMAT or head.schema > LATEST:
            raise SettingsError(
                [
                    (
                        f"{self.file}: Slipway {head.version} made this backup (schema {head.schema}); "
                        f"this one knows {LATEST}: install that version"
                    )
                ]
            )
        return head

    def restore_into(self, db: Transaction, known: set[str]) -> dict[str, int]:
        """Insert all rows; return their number by table. Raises SettingsError for a cut file."""
        counts, insert, page = dict[str, int](), "", list[list[Any]]()
        table, ended = "", False
        for line in self._lines():
            if isinstance(line, list):
                page.append([_from_json(each) for each in line])
                counts[table] += 1
                if len(page) == PAGE:
                    db.executemany(insert, page)
                    page.clear()
                continue
            if page:
                db.executemany(insert, page)
                page.clear()
            if line.get("end"):
                ended = line["rows"] == counts
            elif "table" in line:
                table = line["table"]
                if table not in known:
                    raise SettingsError([f"{self.file}: there is no table `{table[:50]}`"])
                counts[table] = 0
                insert = _insert(table, line["columns"])
        if not ended:
            raise SettingsError([f"{self.file}: the backup is cut or damaged: its end is missing"])
        return counts

    def _lines(self) -> Iterator[Any]:
        try:
            with gzip.open(self.file, "rt", encoding="utf-8") as lines:
                for line in lines:
                    yield json.loads(line)
        except FileNotFoundError:
            raise SettingsError([f"{self.file}: there is no such file"]) from None
        except (gzip.BadGzipFile, zlib.error, UnicodeDecodeError, json.JSONDecodeError):
            raise SettingsError(
                [
                    (
                        f"{self.file}: this is no backup, or it is damaged; `slipway store backup FILE` "
                        "makes one"
                    )
                ]
            ) from None
        except EOFError:
            raise SettingsError(
                [f"{self.file}: the backup is cut or damaged: its end is missing"]
            ) from None
        except OSError as error:
            raise SettingsError([f"{self.file}: it cannot be read ({error.strerror})"]) from None


def _insert(table: str, columns: Sequence[str]) -> str:
    if not all(name.isidentifier() for name in columns):
        raise SettingsError([f"the backup names odd columns in `{table}`"])
    places = ", ".join("?" * len(columns))
    keep = " ON CONFLICT DO NOTHING" if table == _KEPT else ""
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({places}){keep}"  # noqa: S608


def columns_of(db: Transaction, kind: str, table: str) -> list[str]:
    """Return the names of a table's columns, in their order."""
    if kind == "sqlite":
        return [row[1] for row in db.execute(f"PRAGMA table_info({table})")]
    found = db.execute(
        "SELECT column_name FROM information_schema.columns WHERE table_name = ? "
        "AND table_schema = current_schema() ORDER BY ordinal_position",
        (table,),
    )
    return [row[0] for row in found]


def rows_of(db: Transaction, kind: str, table: str, columns: Sequence[str]) -> Iterator[list[Any]]:
    """Yield the rows of a table; a large one is read page by page."""
    select = f"SELECT {', '.join(columns)} FROM {table}"  # noqa: S608 - names of ours
    if kind == "sqlite":
        yield from map(list, db.execute(select))
        return
    db.execute(f"DECLARE rows_of_{table} NO SCROLL CURSOR FOR {select}")
    while page := db.execute(f"FETCH {PAGE} FROM rows_of_{table}").fetchall():
        yield from map(list, page)
    db.execute(f"CLOSE rows_of_{table}")


def _in_json(value: object) -> object:
    if isinstance(value, bytes | memoryview):
        return {"base64": base64.b64encode(bytes(value)).decode()}
    raise TypeError(f"a {type(value).__name__} cannot be kept in a backup")


def _from_json(value: Any) -> Any:
    return base64.b64decode(value["base64"]) if isinstance(value, dict) else value
