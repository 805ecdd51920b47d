"""The records: every statement about answers, feedback and timings."""

import json
import time
from collections.abc import Sequence
from typing import Any

import msgspec

from slipway.store.contract import (
    FeedbackFilter,
    FeedbackListing,
    FeedbackRow,
    SavedFeedback,
    SectionTiming,
)
from slipway.store.database import Database
from slipway.types import Answered, new_id

WHOLE = -1  # the section number of feedback on the whole answer
_ANSWER = ("id", "at", "tenant", "owner", "app", "model", "served_by", "prompt")
_NOTE = """INSERT INTO answers VALUES
    (:id, :at, :tenant, :owner, :app, :model, :served_by, :prompt)
    ON CONFLICT (id) DO UPDATE SET at = excluded.at, model = excluded.model,
    served_by = excluded.served_by, prompt = excluded.prompt WHERE excluded.at >= answers.at"""
_DROP_OLD = """DELETE FROM answers WHERE at < ?
    OR at < (SELECT at FROM answers ORDER BY at DESC LIMIT 1 OFFSET ?)"""
_FIND = "SELECT id, at, tenant, owner, app, model, served_by, prompt FROM answers WHERE id = ?"
_SAVE = """INSERT INTO feedback VALUES
    (:id, :answer, :kind, :section, :at, :tenant, :owner, :app, :model, :served_by, :prompt,
    :helpful, :reasons, :comment, :question, :text, :sources)
    ON CONFLICT (answer, kind, section) DO UPDATE SET at = excluded.at, model = excluded.model,
    served_by = excluded.served_by, prompt = excluded.prompt, helpful = excluded.helpful,
    reasons = excluded.reasons, comment = excluded.comment, question = excluded.question,
    text = excluded.text, sources = excluded.sources WHERE excluded.at >= feedback.at"""
_EARLIER = """SELECT id, question, text, sources FROM feedback
    WHERE answer = ? AND kind = ? AND section = ?"""
_WITHDRAW = "DELETE FROM feedback WHERE answer = ? AND kind = 'vote' AND at <= ?"
_FEEDBACK = (
    *("id", "answer", "kind", "section", *_ANSWER[1:]),
    *("helpful", "reasons", "comment", "question", "text", "sources"),
)
_LIST = f"SELECT {', '.join(_FEEDBACK)} FROM feedback "  # noqa: S608 - names, never values
_LIST += """WHERE (:app IS NULL OR app = :app) AND (:helpful IS NULL OR helpful = :helpful)
    AND at >= :since ORDER BY at DESC LIMIT :limit"""
# rows that hold no duration or length are left out: a file may have been edited or be damaged
_TIMINGS = """SELECT model, size, first_s, chars, write_s FROM pace
    WHERE size BETWEEN 0 AND 1e9 AND first_s BETWEEN 0 AND 1e9
    AND chars BETWEEN 1 AND 1e9 AND write_s BETWEEN 1e-3 AND 1e9 ORDER BY at"""
_MISSES = "SELECT model, share FROM pace_misses WHERE share BETWEEN 0.01 AND 0.4"
_SAVE_MISSES = """INSERT INTO pace_misses VALUES (?, ?)
    ON CONFLICT (model) DO UPDATE SET share = excluded.share"""
_DROP_TIMINGS = """DELETE FROM pace WHERE model = ? AND at <
    (SELECT at FROM pace WHERE model = ? ORDER BY at DESC LIMIT 1 OFFSET ?)"""
_TRIM_S = 60.0  # between two looks for answers that are too old or too many


class SqlRecords:
    """The contract `Records`, kept in the tables of a database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._trim_at = 0.0  # when answers are dropped the next time

    def note_answers(self, answers: Sequence[Answered], *, days: int, at_most: int) -> None:
        with self._database.transaction(durable=True) as db:
            db.executemany(_NOTE, [_answer_columns(answer) for answer in answers])
            if time.monotonic() >= self._trim_at:
                db.execute(_DROP_OLD, (time.time() - days * 86400, at_most - 1))
                self._trim_at = time.monotonic() + _TRIM_S

    def find_answer(self, answer_id: str) -> Answered | None:
        with self._database.snapshot() as db:
            row = db.execute(_FIND, (answer_id,)).fetchone()
        return Answered(**dict(zip(_ANSWER, row, strict=True))) if row else None

    def save_feedback(self, row: FeedbackRow) -> SavedFeedback:
        about, section = row.about, WHOLE if row.section is None else row.section
        with self._database.transaction(durable=True) as db:
            earlier = db.execute(_EARLIER, (about.id, row.kind, section)).fetchone()
            texts: tuple[Any, ...] = (None, None, None)
            if about.text is not None:
                sources = json.dumps(about.sources, ensure_ascii=False)
                texts = (about.question, about.text, sources)
            elif earlier is not None:
                texts = earlier[1:]  # the texts were still known when it was first voted on
            saved = SavedFeedback(
                id=earlier[0] if earlier else row.id or new_id("fb"),
                replaced=earlier is not None,
            )
            columns = {
                **_answer_columns(about),
                "id": saved.id,
                "answer": about.id,
                "kind": row.kind,
                "section": section,
                "at": row.at or time.time(),
                "helpful": row.helpful,
                "reasons": json.dumps(row.reasons),
                "comment": row.comment,
                **dict(zip(("question", "text", "sources"), texts, strict=True)),
            }
            db.execute(_SAVE, columns)
        return saved

    def withdraw_votes(self, answer_id: str, at: float) -> int:
        with self._database.transaction(durable=True) as db:
            return db.execute(_WITHDRAW, (answer_id, at)).rowcount

    def save_timings(
        self,
        timings: Sequence[tuple[str, float, SectionTiming]],
        misses: Sequence[tuple[str, float]],
        *,
        keep: int,
    ) -> None:
        with self._database.transaction() as db:
            db.executemany(
                "INSERT INTO pace VALUES (?, ?, ?, ?, ?, ?)",
                [(m, at, t.size, t.first_s, t.chars, t.write_s) for m, at, t in timings],
            )
            db.executemany(_SAVE_MISSES, misses)
            db.executemany(_DROP_TIMINGS, [(model, model, keep - 1) for model, _ in misses])

    def load_timings(self) -> tuple[list[tuple[str, SectionTiming]], list[tuple[str, float]]]:
        with self._database.snapshot() as db:
            timings = [
                (model, SectionTiming(size=size, first_s=first_s, chars=chars, write_s=write_s))
                for model, size, first_s, chars, write_s in db.execute(_TIMINGS)
            ]
            return timings, list(db.execute(_MISSES))

    def list_feedback(self, which: FeedbackFilter) -> FeedbackListing:
        with self._database.snapshot() as db:
            rows = db.execute(_LIST, msgspec.structs.asdict(which)).fetchall()
        return [_plain(dict(zip(_FEEDBACK, row, strict=True))) for row in rows]


def _answer_columns(about: Answered) -> dict[str, Any]:
    return {name: getattr(about, name) for name in _ANSWER}


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
