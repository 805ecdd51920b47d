"""The keys made at run time: every statement about them."""

import json
from typing import Any

import msgspec

from slipway.settings import Allowance
from slipway.store.contract import KeyHash, SavedKey
from slipway.store.database import Database, Transaction

_COLUMNS = (
    *("id", "name", "tenant", "groups", "apps", "models", "documents", "admin"),
    *("created_at", "expires_at", "revoked_at", "limits"),
)
_ADD = (
    f"INSERT INTO keys ({', '.join(_COLUMNS)}) "  # noqa: S608 - names, never values
    f"VALUES ({', '.join(f':{name}' for name in _COLUMNS)})"
)
_ADD_HASH = """INSERT INTO key_hashes (hash, key_id, hint, created_at, ends_at)
    VALUES (?, ?, ?, ?, NULL)"""
_LOAD = f"SELECT {', '.join(_COLUMNS)} FROM keys ORDER BY created_at, id"  # noqa: S608
_HASHES = "SELECT hash, key_id, ends_at, hint FROM key_hashes ORDER BY created_at, hash"
_END_OTHERS = """UPDATE key_hashes SET ends_at = ?
    WHERE key_id = ? AND (ends_at IS NULL OR ends_at > ?)"""
_REVOKE = "UPDATE keys SET revoked_at = ? WHERE id = ? AND revoked_at IS NULL"
_LIMIT = "UPDATE keys SET limits = ? WHERE id = ? AND revoked_at IS NULL"
_VERSION = "SELECT number FROM versions WHERE name = 'keys'"
_CHANGED = "UPDATE versions SET number = number + 1 WHERE name = 'keys'"


class SqlKeys:
    """The contract `Keys`, kept in the tables of a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def version(self) -> int:
        with self._database.snapshot() as db:
            return _version(db)

    def load(self) -> tuple[int, list[SavedKey], list[KeyHash]]:
        with self._database.snapshot() as db:
            version = _version(db)
            rows = db.execute(_LOAD).fetchall()
            hashes = db.execute(_HASHES).fetchall()
        hints = {key_id: hint for _, key_id, _, hint in hashes}  # the latest one's
        keys = [_key(dict(zip(_COLUMNS, row, strict=True)), hints.get(row[0], "")) for row in rows]
        return version, keys, [KeyHash(hash=h, key_id=k, ends_at=end) for h, k, end, _ in hashes]

    def add(self, key: SavedKey, digest: str) -> None:
        row = {name: getattr(key, name) for name in _COLUMNS}
        row |= {
            "groups": json.dumps(key.groups, ensure_ascii=False),
            "apps": _text(key.apps),
            "models": _text(key.models),
            "documents": int(key.documents),
            "admin": int(key.admin),
            "limits": _limits_text(key.limits),
        }
        with self._database.transaction(durable=True) as db:
            db.execute(_ADD, row)
            db.execute(_ADD_HASH, (digest, key.id, key.hint, key.created_at))
            db.execute(_CHANGED)

    def replace_hash(
        self, key_id: str, digest: str, hint: str, *, at: float, old_ends_at: float
    ) -> bool:
        known = "SELECT 1 FROM keys WHERE id = ? AND revoked_at IS NULL"
        with self._database.transaction(durable=True) as db:
            if not db.execute(known, (key_id,)).fetchone():
                return False
            db.execute(_END_OTHERS, (old_ends_at, key_id, old_ends_at))
            db.execute(_ADD_HASH, (digest, key_id, hint, at))
            db.execute(_CHANGED)
        return True

    def set_limits(self, key_id: str, limits: Allowance | None) -> bool:
        with self._database.transaction(durable=True) as db:
            changed: bool = db.execute(_LIMIT, (_limits_text(limits), key_id)).rowcount > 0
            if changed:
                db.execute(_CHANGED)
        return changed

    def revoke(self, key_id: str, at: float) -> bool:
        with self._database.transaction(durable=True) as db:
            if not db.execute("SELECT 1 FROM keys WHERE id = ?", (key_id,)).fetchone():
                return False
            db.execute(_REVOKE, (at, key_id))
            db.execute(_CHANGED)
        return True


def _version(db: Transaction) -> int:
    return int(db.execute(_VERSION).fetchone()[0])


def _text(names: tuple[str, ...] | None) -> str | None:
    return None if names is None else json.dumps(names, ensure_ascii=False)


def _names(text: str | None) -> tuple[str, ...] | None:
    return None if text is None else tuple(json.loads(text))


def _limits_text(limits: Allowance | None) -> str | None:
    return None if limits is None else msgspec.json.encode(limits).decode()


def _limits(text: str | None) -> Allowance | None:
    return None if text is None else msgspec.json.decode(text, type=Allowance)


def _key(row: dict[str, Any], hint: str) -> SavedKey:
    lists = {"groups": _names(row["groups"]) or (), "apps": _names(row["apps"])}
    return SavedKey(
        **{
            **row,
            **lists,
            "models": _names(row["models"]),
            "documents": bool(row["documents"]),
            "admin": bool(row["admin"]),
            "hint": hint,
            "limits": _limits(row["limits"]),
        }
    )
