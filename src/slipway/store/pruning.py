"""Delete records that are old, a few thousand at a time, so that nobody waits for it."""

from collections.abc import Mapping

from slipway.store.database import Database
from slipway.types import Record

AT_ONCE = 5_000
_ENDED = """id IN (SELECT id FROM keys WHERE coalesce(revoked_at, expires_at) IS NOT NULL
    AND (revoked_at < :before OR expires_at < :before))"""


class Prunable(Record, frozen=True, kw_only=True):
    """What can be deleted by its age: the table, how a row is named, and which rows are old."""

    table: str
    name: str
    is_old: str = "at < :before"


PRUNABLE: Mapping[str, Prunable] = {
    "answers": Prunable(table="answers", name="id"),
    "feedback": Prunable(table="feedback", name="id"),
    "ledger": Prunable(table="ledger", name="id"),
    "shares": Prunable(table="shares", name="id"),
    "keys": Prunable(table="keys", name="id", is_old=_ENDED),
}


def prune(database: Database, what: str, before: float, *, dry_run: bool = False) -> int:
    """Delete the rows of one kind that are older than `before`; return how many.

    With `dry_run`, only count them. Raises StoreError.
    """
    each = PRUNABLE[what]
    if dry_run:
        count = f"SELECT count(*) FROM {each.table} WHERE {each.is_old}"  # noqa: S608 - names of ours
        with database.snapshot() as db:
            return int(db.execute(count, {"before": before}).fetchone()[0])
    delete = (
        f"DELETE FROM {each.table} WHERE {each.name} IN "  # noqa: S608
        f"(SELECT {each.name} FROM {each.table} WHERE {each.is_old} LIMIT {AT_ONCE})"
    )
    deleted = 0
    while True:
        with database.transaction() as db:
            count_now = db.execute(delete, {"before": before}).rowcount
            if what == "keys" and count_now:
                db.execute("DELETE FROM key_hashes WHERE key_id NOT IN (SELECT id FROM keys)")
                db.execute("UPDATE versions SET number = number + 1 WHERE name = 'keys'")
        deleted += count_now
        if count_now < AT_ONCE:
            return deleted
