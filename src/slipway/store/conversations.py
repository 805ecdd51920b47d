"""Conversations and shared links: every statement about them."""

import time
from collections.abc import Sequence

from slipway.store.contract import SavedConversation, Shared
from slipway.store.database import Database

_LIST = """SELECT id, title, at, pinned, named, '' FROM conversations
    WHERE owner = ? ORDER BY pinned DESC, at DESC"""
_LOAD = """SELECT id, title, at, pinned, named, turns FROM conversations
    WHERE owner = ? AND id = ?"""
_SAVE = """INSERT INTO conversations VALUES (?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (owner, id) DO UPDATE SET title = excluded.title, at = excluded.at,
    pinned = excluded.pinned, named = excluded.named, turns = excluded.turns"""
_DELETE = "DELETE FROM conversations WHERE owner = ? AND id = ?"
_DROP = """DELETE FROM conversations WHERE owner = ? AND pinned = 0 AND id NOT IN
    (SELECT id FROM conversations WHERE owner = ? AND pinned = 0 ORDER BY at DESC LIMIT ?)"""
_DROP_SHARES = """DELETE FROM shares WHERE owner = ? AND id NOT IN
    (SELECT id FROM shares WHERE owner = ? ORDER BY at DESC LIMIT ?)"""
_WORD = " AND lower(title || ? || turns) LIKE lower(?) ESCAPE '\\'"


class SqlConversations:
    """The contract `Conversations`, kept in the tables of a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def save(self, owner: str, row: SavedConversation, *, at_most: int) -> None:
        values = (owner, row.id, row.title, row.at, row.pinned, row.named, row.turns)
        with self._database.transaction() as db:
            db.execute(_SAVE, values)
            db.execute(_DROP, (owner, owner, at_most))

    def find(self, owner: str, words: Sequence[str] = ()) -> list[SavedConversation]:
        query = _LIST.replace(" ORDER", _WORD * len(words) + " ORDER")
        looked_for = [value for word in words for value in ("\n", _like(word))]
        with self._database.snapshot() as db:
            rows = db.execute(query, (owner, *looked_for)).fetchall()
        return [_row(row) for row in rows]

    def load(self, owner: str, conversation_id: str) -> SavedConversation | None:
        with self._database.snapshot() as db:
            row = db.execute(_LOAD, (owner, conversation_id)).fetchone()
        return _row(row) if row else None

    def delete(self, owner: str, conversation_id: str) -> bool:
        with self._database.transaction() as db:
            return bool(db.execute(_DELETE, (owner, conversation_id)).rowcount)

    def save_share(self, share: Shared, *, days: int, at_most: int) -> None:
        values = (share.id, share.tenant, share.owner, time.time(), share.turns)
        with self._database.transaction() as db:
            db.execute("DELETE FROM shares WHERE at < ?", (time.time() - days * 86400,))
            db.execute("INSERT INTO shares VALUES (?, ?, ?, ?, ?)", values)
            db.execute(_DROP_SHARES, (share.owner, share.owner, at_most))

    def load_share(self, share_id: str, *, days: int) -> Shared | None:
        query = "SELECT id, tenant, owner, turns FROM shares WHERE id = ? AND at >= ?"
        with self._database.snapshot() as db:
            row = db.execute(query, (share_id, time.time() - days * 86400)).fetchone()
        return Shared(id=row[0], tenant=row[1], owner=row[2], turns=row[3]) if row else None

    def delete_share(self, share_id: str, owner: str) -> bool:
        query = "DELETE FROM shares WHERE id = ? AND owner = ?"
        with self._database.transaction() as db:
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
