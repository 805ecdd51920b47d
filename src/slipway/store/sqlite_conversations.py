"""Conversations and shared links in SQLite: every statement about them."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from slipway.store.contract import SavedConversation, Shared, StoreError

if TYPE_CHECKING:
    import sqlite3

    from slipway.store.sqlite import Store

_LIST = """SELECT id, title, at, pinned, named, '' FROM conversations
    WHERE owner = ? ORDER BY pinned DESC, at DESC"""
_LOAD = """SELECT id, title, at, pinned, named, turns FROM conversations
    WHERE owner = ? AND id = ?"""
_SAVE = "INSERT OR REPLACE INTO conversations VALUES (?, ?, ?, ?, ?, ?, ?)"
_DELETE = "DELETE FROM conversations WHERE owner = ? AND id = ?"
_DROP = """DELETE FROM conversations WHERE owner = ?1 AND pinned = 0 AND id NOT IN
    (SELECT id FROM conversations WHERE owner = ?1 AND pinned = 0 ORDER BY at DESC LIMIT ?2)"""
_WORD = " AND (title || char(10) || turns) LIKE ? ESCAPE '\\'"


class SqliteConversations:
    """The contract `Conversations`, kept in the tables of a Store."""

    def __init__(self, store: "Store") -> None:
        self._store = store

    @contextmanager
    def _writing(self) -> Iterator["sqlite3.Connection"]:
        import sqlite3

        try:
            with self._store.writing() as db:
                yield db
        except sqlite3.Error as error:
            raise StoreError(str(error)) from error

    def save(self, owner: str, row: SavedConversation, *, at_most: int) -> None:
        values = (owner, row.id, row.title, row.at, row.pinned, row.named, row.turns)
        with self._writing() as db:
            db.execute(_SAVE, values)
            db.execute(_DROP, (owner, at_most))

    def find(self, owner: str, words: Sequence[str] = ()) -> list[SavedConversation]:
        query = _LIST.replace(" ORDER", _WORD * len(words) + " ORDER")
        with self._writing() as db:
            rows = db.execute(query, (owner, *(_like(word) for word in words))).fetchall()
        return [_row(row) for row in rows]

    def load(self, owner: str, conversation_id: str) -> SavedConversation | None:
        with self._writing() as db:
            row = db.execute(_LOAD, (owner, conversation_id)).fetchone()
        return _row(row) if row else None

    def delete(self, owner: str, conversation_id: str) -> bool:
        with self._writing() as db:
            return bool(db.execute(_DELETE, (owner, conversation_id)).rowcount)

    def save_share(self, share: Shared, *, days: int) -> None:
        values = (share.id, share.tenant, share.owner, time.time(), share.turns)
        with self._writing() as db:
            db.execute("DELETE FROM shares WHERE at < ?", (time.time() - days * 86400,))
            db.execute("INSERT INTO shares VALUES (?, ?, ?, ?, ?)", values)

    def load_share(self, share_id: str, *, days: int) -> Shared | None:
        query = "SELECT id, tenant, owner, turns FROM shares WHERE id = ? AND at >= ?"
        with self._writing() as db:
            row = db.execute(query, (share_id, time.time() - days * 86400)).fetchone()
        return Shared(id=row[0], tenant=row[1], owner=row[2], turns=row[3]) if row else None

    def delete_share(self, share_id: str, owner: str) -> bool:
        query = "DELETE FROM shares WHERE id = ? AND owner = ?"
        with self._writing() as db:
            return bool(db.execute(query, (share_id, owner)).rowcount)


def _like(word: str) -> str:
    for sign in "\\%_":
        word = word.replace(sign, f"\\{sign}")
    return f"%{word}%"


def _row(row: Sequence[object]) -> SavedConversation:
    number, title, at, pinned, named, turns = row
    return SavedConversation(
        id=str(number),
        title=str(title),
        at=float(str(at)),
        pinned=bool(pinned),
        named=bool(named),
        turns=str(turns),
    )
