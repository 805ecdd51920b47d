"""What metrics counted over time, and the state of alerts: every statement about them."""

from collections.abc import Mapping, Sequence

from slipway.store.contract import HistoryRow
from slipway.store.database import Database

_SAVE = """INSERT INTO history VALUES (?, ?, ?, ?)
    ON CONFLICT (source, step_s, at) DO UPDATE SET counts = excluded.counts"""
_DROP = "DELETE FROM history WHERE step_s = ? AND at < ?"
_LOAD = "SELECT step_s, at, counts FROM history WHERE source = ? AND at >= ? ORDER BY at"
_SAVE_ALERT = """INSERT INTO alerts VALUES (?, ?, ?)
    ON CONFLICT (source, id) DO UPDATE SET state = excluded.state"""


class SqlHistoryRows:
    """The contract `HistoryRows`, kept in tables of a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def save(
        self, source: str, rows: Sequence[HistoryRow], *, drop_before: Mapping[int, float]
    ) -> None:
        with self._database.transaction() as db:
            db.executemany(_SAVE, [(source, row.step_s, row.at, row.counts) for row in rows])
            for step_s, before in drop_before.items():
                db.execute(_DROP, (step_s, before))

    def load(self, source: str, since: float) -> list[HistoryRow]:
        with self._database.snapshot() as db:
            return [
                HistoryRow(step_s=int(step_s), at=at, counts=bytes(counts))
                for step_s, at, counts in db.execute(_LOAD, (source, since))
            ]

    def save_alerts(self, source: str, states: Mapping[str, bytes]) -> None:
        with self._database.transaction() as db:
            known = db.execute("SELECT id FROM alerts WHERE source = ?", (source,)).fetchall()
            gone = [(source, id_) for (id_,) in known if id_ not in states]
            db.executemany("DELETE FROM alerts WHERE source = ? AND id = ?", gone)
            db.executemany(_SAVE_ALERT, [(source, id_, each) for id_, each in states.items()])

    def load_alerts(self, source: str) -> dict[str, bytes]:
        with self._database.snapshot() as db:
            found = db.execute("SELECT id, state FROM alerts WHERE source = ?", (source,))
            return {id_: bytes(state) for id_, state in found}
