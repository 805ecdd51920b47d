"""What people say of answers: votes and reports, each kept beside the answer that it is about.

Of every answer of an app a small row is noted in the store (no text), so that it can be voted on
for KEPT_DAYS; the texts of the latest are held in memory, and go into the store only with the vote.
One thread writes: a vote is acknowledged once it is on the disk.
"""

import asyncio
import json
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, TypeVarTuple

from slipway.errors import NotFound, NotKept, SettingsError
from slipway.store import Store
from slipway.types import Answered, Asker, FeedbackGiven, Record, new_id

if TYPE_CHECKING:
    import sqlite3

Arguments = TypeVarTuple("Arguments")
Result = TypeVar("Result")
log = logging.getLogger("slipway")
REASONS = {
    "wrong": "something in it is not true",
    "incomplete": "something that matters is missing",
    "outdated": "it was true once",
    "wrong_source": "a source does not say what it is cited for",
    "unclear": "it is hard to understand",
    "too_long": "it says more than was asked",
    "slow": "it took too long",
    "harmful": "it could do harm, or should not have been shown",
    "other": "anything else, best with a comment",
}
LONGEST_COMMENT = 4000  # characters
KEPT_DAYS = 30
MOST_NOTED = 200_000  # answers that can be voted on; the oldest go first
TEXTS = 16 * 1024 * 1024  # characters of questions and answers in memory
MOST_OWED = 10_000  # notes that wait for a store that cannot be written now
WRITE_S = 1.0  # notes wait so long for others, to be written together
_NEXT = "Tell the operator: start the server with a `store:` of its own that can be written, or end the other process."
_TABLES = """
CREATE TABLE IF NOT EXISTS answers (
    id TEXT NOT NULL UNIQUE, at REAL NOT NULL, tenant TEXT NOT NULL, owner TEXT NOT NULL, app TEXT NOT NULL, model TEXT, served_by TEXT, prompt TEXT
);
CREATE TABLE IF NOT EXISTS feedback (
    id TEXT NOT NULL, answer TEXT NOT NULL, kind TEXT NOT NULL, section INTEGER NOT NULL, at REAL NOT NULL,
    tenant TEXT NOT NULL, owner TEXT NOT NULL, app TEXT NOT NULL, model TEXT, served_by TEXT, prompt TEXT,
    helpful INTEGER, reasons TEXT NOT NULL, comment TEXT NOT NULL, question TEXT, text TEXT, sources TEXT,
    PRIMARY KEY (answer, kind, section)
);
CREATE INDEX IF NOT EXISTS feedback_at ON feedback (at);
"""
_NOTE = "INSERT OR REPLACE INTO answers VALUES (:id, :at, :tenant, :owner, :app, :model, :served_by, :prompt)"
_OLD = "DELETE FROM answers WHERE at < ? OR rowid <= (SELECT max(rowid) FROM answers) - ?"
_KNOWN = "SELECT id, at, tenant, owner, app, model, served_by, prompt FROM answers WHERE id = ?"
_KEEP = """INSERT OR REPLACE INTO feedback VALUES (:id, :answer, :kind, :section, :at, :tenant, :owner, :app, :model, :served_by, :prompt,
    :helpful, :reasons, :comment, :question, :text, :sources)"""
_BEFORE = (
    "SELECT id, question, text, sources FROM feedback WHERE answer = ? AND kind = ? AND section = ?"
)
_LISTED = """SELECT * FROM feedback WHERE (:app IS NULL OR app = :app) AND (:helpful IS NULL OR helpful = :helpful) AND at >= :since
    ORDER BY at DESC LIMIT :limit"""
WHOLE = -1  # the section of what is said of the whole answer


class Said(Record, frozen=True, kw_only=True):
    """What somebody says of an answer, checked."""

    answer: str
    kind: Literal["vote", "report"] = "vote"
    helpful: bool | None = None
    reasons: tuple[str, ...] = ()
    comment: str = ""
    section: int | None = None


class Kept(Record, frozen=True, kw_only=True):
    """What was kept. `replaced` where the same asker had said something of it before."""

    id: str
    answer: str
    kind: str
    replaced: bool


class Feedback:
    """The store is opened by the first answer that is noted, in the thread that writes."""

    def __init__(self, store: Callable[[], Store], emit: Callable[[FeedbackGiven], None]) -> None:
        self._store, self._emit = store, emit
        self._thread = ThreadPoolExecutor(1, "feedback")
        self._ready: Store | None = None
        self._texts: OrderedDict[str, Answered] = OrderedDict()
        self._held = 0
        self._pending: list[Answered] = []  # on the loop
        self._owed: list[Answered] = []  # in the thread: what could not be written
        self._timer: asyncio.TimerHandle | None = None
        self._warned = False

    @property
    def opened(self) -> bool:
        return self._ready is not None

    # answers that may be voted on

    def note(self, answered: Answered) -> None:
        """Remembers an answer that has ended, however it ended."""
        if before := self._texts.pop(answered.id, None):
            self._held -= before.size
        self._texts[answered.id] = answered
        self._held += answered.size
        while self._held > TEXTS:
            self._held -= self._texts.popitem(last=False)[1].size
        self._pending.append(answered)
        self._timer = self._timer or asyncio.get_running_loop().call_later(WRITE_S, self._later)

    def _later(self) -> None:
        self._timer = None
        notes, self._pending = self._pending, []
        self._thread.submit(self._write_notes, notes)

    def _write_notes(self, notes: list[Answered]) -> None:
        self._owed += notes
        try:
            with self._writing() as db:
                db.executemany(_NOTE, [_columns(note) for note in self._owed])
                db.execute(_OLD, (time.time() - KEPT_DAYS * 86400, MOST_NOTED))
            self._owed, self._warned = [], False
        except NotKept as error:
            del self._owed[:-MOST_OWED]
            if not self._warned:
                log.warning(
                    "answers can be voted on only for a while, and no vote is kept: %s", error.what
                )
            self._warned = True

    @contextmanager
    def _writing(self) -> "Iterator[sqlite3.Connection]":
        """A transaction in a store that lasts, on the disk at its end. Raises NotKept."""
        import sqlite3  # 1 MB, and only needed where there is a store

        try:
            store = self._ready or self._open()
            with store.writing() as db:
                yield db
        except SettingsError as error:
            raise NotKept(f"Feedback cannot be kept: {error.problems[0]}.", _NEXT) from None
        except sqlite3.Error as error:
            raise NotKept(
                f"Feedback cannot be kept: the store cannot be written ({error})."
            ) from None

    def _open(self) -> Store:
        store = self._store()
        if not store.lasting:
            raise NotKept(
                "Feedback cannot be kept: the store is in use by another process, or cannot be written.",
                _NEXT,
            )
        store.reading().execute(
            "PRAGMA synchronous=FULL"
        )  # this thread's connection: what is acknowledged outlives a power cut
        store.reading().executescript(_TABLES)
        self._ready = store
        return store

    # what is said of them

    async def give(self, said: Said, asker: Asker) -> Kept:
        """Keeps it, in the place of what the same asker said before. Raises NotFound for an answer
        of nobody or another, and NotKept.
        """
        kept = await self._in_thread(self._keep, said, asker)
        if not kept.replaced:
            self._emit(FeedbackGiven(app=kept.app, kind=said.kind, helpful=said.helpful))
        return Kept(id=kept.id, answer=said.answer, kind=said.kind, replaced=kept.replaced)

    async def withdraw(self, answer_id: str, asker: Asker) -> int:
        """Takes back the votes on an answer, not what was reported: how many there were."""
        return await self._in_thread(self._withdraw, answer_id, asker)

    async def _in_thread(
        self, function: Callable[[*Arguments], Result], *arguments: *Arguments
    ) -> Result:
        """To its end, also where the client is gone."""
        return await asyncio.shield(
            asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)
        )

    def _answered(self, db: "sqlite3.Connection", answer_id: str, owner: str) -> Answered:
        found = self._texts.get(answer_id)
        if found is None and (row := db.execute(_KNOWN, (answer_id,)).fetchone()):
            found = Answered(
                **dict(
                    zip(
                        ("id", "at", "tenant", "owner", "app", "model", "served_by", "prompt"),
                        row,
                        strict=True,
                    )
                )
            )
        if found is None or found.owner != owner:
            raise NotFound(
                "There is no answer of that id to vote on.",
                f"Check the id: answers belong to the key that asked, and take votes for {KEPT_DAYS} days.",
                param="answer",
            )
        return found

    def _keep(self, said: Said, asker: Asker) -> "_Row":
        with self._writing() as db:
            about = self._answered(db, said.answer, asker.owner)
            section = WHOLE if said.section is None else said.section
            before = db.execute(_BEFORE, (said.answer, said.kind, section)).fetchone()
            texts = (
                (about.question, about.text, json.dumps(about.sources, ensure_ascii=False))
                if about.text is not None
                else (None,) * 3
            )
            if about.text is None and before is not None:
                texts = before[1:]  # it was voted on when they were still known
            row = {
                **_columns(about),
                "id": before[0] if before else new_id("fb"),
                "answer": said.answer,
                "kind": said.kind,
                "section": section,
                "at": time.time(),
                "helpful": said.helpful,
                "reasons": json.dumps(said.reasons),
                "comment": said.comment,
                **dict(zip(("question", "text", "sources"), texts, strict=True)),
            }
            db.execute(_KEEP, row)
        return _Row(id=row["id"], app=about.app, replaced=before is not None)

    def _withdraw(self, answer_id: str, asker: Asker) -> int:
        with self._writing() as db:
            self._answered(db, answer_id, asker.owner)
            return db.execute(
                "DELETE FROM feedback WHERE answer = ? AND kind = 'vote'", (answer_id,)
            ).rowcount

    async def close(self) -> None:
        """Writes what was noted last."""
        if self._timer is not None:
            self._timer.cancel()
            self._later()
        await asyncio.to_thread(self._thread.shutdown)


class _Row(Record, frozen=True, kw_only=True):
    id: str
    app: str
    replaced: bool


def _columns(about: Answered) -> dict[str, Any]:
    names = ("id", "at", "tenant", "owner", "app", "model", "served_by", "prompt")
    return {name: getattr(about, name) for name in names}


def read(
    file: Path, *, app: str | None, helpful: bool | None, since: float, limit: int
) -> list[dict[str, Any]]:
    """What is kept, the latest first, also while a server uses the store. Raises SettingsError for
    a file that is no store.
    """
    import sqlite3

    if not file.exists():
        return []
    try:
        with sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True, timeout=30) as db:
            db.row_factory = sqlite3.Row
            if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'feedback'").fetchone():
                return []
            rows = db.execute(
                _LISTED, {"app": app, "helpful": helpful, "since": since, "limit": limit}
            ).fetchall()
    except sqlite3.Error as error:
        raise SettingsError([f"store: {file} cannot be read ({error})"]) from None
    return [_plain(dict(row)) for row in rows]


def _plain(row: dict[str, Any]) -> dict[str, Any]:
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
