"""The records in SQLite: every statement about answers, feedback and timings."""

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slipway.errors import SettingsError
from slipway.store.contract import (
    FeedbackFilter,
    FeedbackListing,
    FeedbackRow,
    SavedFeedback,
    SectionTiming,
    StoreError,
)
from slipway.types import Answered, new_id

if TYPE_CHECKING:
    import sqlite3

    from slipway.store.sqlite import Store

WHOLE = -1  # the section number of feedback on the whole answer
_ANSWER = ("id", "at", "tenant", "owner", "app", "model", "served_by", "prompt")
_NOTE = """INSERT OR REPLACE INTO answers VALUES
    (:id, :at, :tenant, :owner, :app, :model, :served_by, :prompt)"""
_DROP_OLD = "DELETE FROM answers WHERE at < ? OR rowid <= (SELECT max(rowid) FROM answers) - ?"
_FIND = "SELECT id, at, tenant, owner, app, model, served_by, prompt FROM answers WHERE id = ?"
_SAVE = """INSERT OR REPLACE INTO feedback VALUES
    (:id, :answer, :kind, :section, :at, :tenant, :owner, :app, :model, :served_by, :prompt,
    :helpful, :reasons, :comment, :question, :text, :sources)"""
_EARLIER = """SELECT id, question, text, sources FROM feedback
    WHERE answer = ? AND kind = ? AND section = ?"""
_WITHDRAW = "DELETE FROM feedback WHERE answer = ? AND kind = 'vote'"
# the columns in their order: a store that is not migrated yet has one of another name
_FEEDBACK = (
    *("id", "answer", "kind", "section", *_ANSWER[1:]),
    *("helpful", "reasons", "comment", "question", "text", "sources"),
)
_LIST = """SELECT * FROM feedback
    WHERE (:app IS NULL OR app = :app) AND (:helpful IS NULL OR helpful = :helpful)
    AND at >= :since ORDER BY at DESC LIMIT :limit"""
# rows that hold no duration or length are left out: a file may have been edited or be damaged
_TIMINGS = """SELECT model, size, first_s, chars, write_s FROM pace
    WHERE size BETWEEN 0 AND 1e9 AND first_s BETWEEN 0 AND 1e9
    AND chars BETWEEN 1 AND 1e9 AND write_s BETWEEN 1e-3 AND 1e9 ORDER BY at"""
_MISSES = "SELECT model, share FROM pace_misses WHERE share BETWEEN 0.01 AND 0.4"
_DROP_TIMINGS = """DELETE FROM pace WHERE model = ? AND rowid NOT IN
    (SELECT rowid FROM pace WHERE model = ? ORDER BY at DESC LIMIT ?)"""


class SqliteRecords:
    """The contract `Records`, kept in the tables of a Store."""

    def __init__(self, store: "Store") -> None:
        self._store = store

    @contextmanager
    def _writing(self, *, durable: bool) -> Iterator["sqlite3.Connection"]:
        """Yield a transaction; if `durable`, it outlives a power cut once it has ended."""
        import sqlite3  # 1 MB, and only needed where there is a store

        try:
            if durable:
                self._store.reading().execute("PRAGMA synchronous=FULL")
            with self._store.writing() as db:
                yield db
        except sqlite3.Error as error:
            raise StoreError(str(error)) from error

    def note_answers(self, answers: Sequence[Answered], *, days: int, at_most: int) -> None:
        with self._writing(durable=True) as db:
            db.executemany(_NOTE, [_answer_columns(answer) for answer in answers])
            db.execute(_DROP_OLD, (time.time() - days * 86400, at_most))

    def find_answer(self, answer_id: str) -> Answered | None:
        with self._writing(durable=False) as db:
            row = db.execute(_FIND, (answer_id,)).fetchone()
        return Answered(**dict(zip(_ANSWER, row, strict=True))) if row else None

    def save_feedback(self, row: FeedbackRow) -> SavedFeedback:
        about, section = row.about, WHOLE if row.section is None else row.section
        with self._writing(durable=True) as db:
            earlier = db.execute(_EARLIER, (about.id, row.kind, section)).fetchone()
            texts: tuple[Any, ...] = (None, None, None)
            if about.text is not None:
                sources = json.dumps(about.sources, ensure_ascii=False)
                texts = (about.question, about.text, sources)
            elif earlier is not None:
                texts = earlier[1:]  # the texts were still known when it was first voted on
            saved = SavedFeedback(
                id=earlier[0] if earlier else new_id("fb"), replaced=earlier is not None
            )
            columns = {
                **_answer_columns(about),
                "id": saved.id,
                "answer": about.id,
                "kind": row.kind,
                "section": section,
                "at": time.time(),
                "helpful": row.helpful,
                "reasons": json.dumps(row.reasons),
                "comment": row.comment,
                **dict(zip(("question", "text", "sources"), texts, strict=True)),
            }
            db.execute(_SAVE, columns)
        return saved

    def withdraw_votes(self, answer_id: str) -> int:
        with self._writing(durable=True) as db:
            return db.execute(_WITHDRAW, (answer_id,)).rowcount

    def save_timings(
        self,
        timings: Sequence[tuple[str, float, SectionTiming]],
        misses: Sequence[tuple[str, float]],
        *,
        keep: int,
    ) -> None:
        with self._writing(durable=False) as db:
            db.executemany(
                "INSERT INTO pace VALUES (?, ?, ?, ?, ?, ?)",
                [(m, at, t.size, t.first_s, t.chars, t.write_s) for m, at, t in timings],
            )
            db.executemany("INSERT OR REPLACE INTO pace_misses VALUES (?, ?)", misses)
            db.executemany(_DROP_TIMINGS, [(model, model, keep) for model, _ in misses])

    def load_timings(self) -> tuple[list[tuple[str, SectionTiming]], list[tuple[str, float]]]:
        with self._writing(durable=False) as db:
            timings = [
                (model, SectionTiming(size=size, first_s=first_s, chars=chars, write_s=write_s))
                for model, size, first_s, chars, write_s in db.execute(_TIMINGS)
            ]
            return timings, list(db.execute(_MISSES))


def _answer_columns(about: Answered) -> dict[str, Any]:
    return {name: getattr(about, name) for name in _ANSWER}


def list_feedback(file: Path, which: FeedbackFilter) -> FeedbackListing:
    """Return saved feedback, latest first; a server may be using the store meanwhile.

    Raises SettingsError if the file is not a store.
    """
    import sqlite3

    if not file.exists():
        return []
    try:
        with sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True, timeout=30) as db:
            if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'feedback'").fetchone():
                return []
            rows = db.execute(
                _LIST,
                {
                    "app": which.app,
                    "helpful": which.helpful,
                    "since": which.since,
                    "limit": which.limit,
                },
            ).fetchall()
    except sqlite3.Error as error:
        raise SettingsError([f"store: {file} cannot be read ({error})"]) from None
    return [_plain(dict(zip(_FEEDBACK, row, strict=True))) for row in rows]


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """Turn the columns of a row into JSON values."""
    lists = {
        name: json.loads(row[name]) if row[name] is not None else None
        for name in ("reasons", "sources")
    }
    return {
        **row,
        **lists,
        "helpful": None if row["helpful"] is None else bool(row["helpful"]),
        "section": None if row["section"] == WHOLE else row["section"],
    }
