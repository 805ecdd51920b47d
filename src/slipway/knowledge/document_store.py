"""What the store knows of one collection of documents: each document with its state, version and
access, its passages, their vectors.

A document's row is never changed, only replaced under a new number: whatever was derived from an
older version (index entries, search results under way) finds nothing any more. `generation` counts
the transactions; what is derived says up to which one it has come. Vectors are kept by the hash of
the text that they stand for, so that the same text is never embedded twice.
"""

import hashlib
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import msgspec

from slipway.errors import SettingsError
from slipway.knowledge.fusion import embedded_text, place
from slipway.store import Store
from slipway.types import Passage, Record

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
_NUMBERS = msgspec.json.Decoder(list[tuple[int, int, int]])
_AT_ONCE = 500  # parameters of one statement

State = Literal["done", "failed"]


class Doc(Record, frozen=True, kw_only=True):
    """A document as it was last read. `groups` are the sets of groups that it is kept to, by its
    own word and by its sender's: a reader must be in one of each. `reason`, `page` and `next` say
    why it failed, and what to do. `home` and `stamp`: see `files.Found`.
    """

    id: int
    public: str
    path: str
    file: str
    state: State
    stamp: int
    size: int
    version: str
    format: int
    home: str = ""
    title: str = ""
    date: str = ""
    tags: frozenset[str] = frozenset()
    groups: tuple[frozenset[str], ...] = ()
    passages: int = 0
    reason: str = ""
    page: int | None = None
    next: str = ""
    read_at: float = 0.0


class Fresh(Record, frozen=True, kw_only=True):
    """A document to be put: what was read of it. `passages` carry their numbers among the
    document's places in `places`.
    """

    doc: Doc
    text: str = ""
    passages: Sequence[Passage] = ()
    keys: Sequence[bytes] = ()


class Said(Record, frozen=True, kw_only=True):
    """What the sender of an upload said of it: its tags, and the groups that it is kept to."""

    tags: frozenset[str] = frozenset()
    groups: frozenset[str] | None = None


class Row(Record, frozen=True, kw_only=True):
    """A passage and its numbers: its own, its document's, and that of the first passage under its
    heading.
    """

    id: int
    document: int
    place: int
    passage: Passage


class DocumentStore:
    """The documents of the collection `name`. Raises SettingsError for a store of a newer Slipway."""

    def __init__(self, store: Store, name: str) -> None:
        self.store, self.name = store, name
        with store.writing() as db:
            _check_version(db, int(db.execute("PRAGMA user_version").fetchone()[0]))
            for statement in _TABLES.split(";"):
                db.execute(statement)
            db.execute(f"PRAGMA user_version = {_TABLES_VERSION}")
            db.execute("INSERT OR IGNORE INTO collections (name) VALUES (?)", (name,))
        self.id = int(
            db.execute("SELECT id FROM collections WHERE name = ?", (name,)).fetchone()[0]
        )

    @property
    def _db(self) -> Any:
        return self.store.reading()

    # what is known

    @property
    def generation(self) -> int:
        return self._number("SELECT generation FROM collections WHERE id = ?")

    @property
    def scanned(self) -> bool:
        """Whether all its files were read once."""
        return bool(self._number("SELECT scanned FROM collections WHERE id = ?"))

    def _number(self, query: str, *more: object) -> int:
        row = self._db.execute(query, (self.id, *more)).fetchone()
        return int(row[0] or 0) if row else 0

    def documents(self, since: int = -1) -> Iterator[Doc]:
        """Those put after the generation `since`."""
        query = f"SELECT {_DOC} FROM documents WHERE collection = ? AND generation > ? ORDER BY id"
        yield from (_doc(row) for row in self._db.execute(query, (self.id, since)).fetchall())

    def gone(self, since: int) -> list[int]:
        """Numbers of documents replaced or dropped after the generation `since`."""
        rows = self._db.execute(
            "SELECT document FROM gone WHERE collection = ? AND generation > ?", (self.id, since)
        )
        return [int(row[0]) for row in rows]

    def rows(self, documents: Sequence[int]) -> Iterator[Row]:
        """The passages of these documents, in reading order."""
        for some in _slices(documents):
            query = f"SELECT {_ROW} {_FROM} WHERE p.document IN ({_marks(some)}) ORDER BY p.id"
            yield from (_row(row) for row in self._db.execute(query, some).fetchall())

    def passages(self, numbers: Sequence[int]) -> dict[int, Row]:
        """By their numbers; those that are gone are missing."""
        found = {}
        for some in _slices(numbers):
            for row in self._db.execute(
                f"SELECT {_ROW} {_FROM} WHERE p.id IN ({_marks(some)})", some
            ).fetchall():
                found[int(row[0])] = _row(row)
        return found

    def stands(self, numbers: Sequence[int]) -> dict[int, tuple[int, int]]:
        """Where passages stand: the numbers of their place and their document. Those that are gone
        are missing.
        """
        found = dict[int, tuple[int, int]]()
        for some in _slices(numbers):
            query = f"SELECT json_group_array(json_array(id, place, document)) FROM passages WHERE id IN ({_marks(some)})"
            rows = _NUMBERS.decode(
                self._db.execute(query, some).fetchone()[0]
            )  # as one row: at each, Python's lock would be given away
            found |= {number: (place_, document) for number, place_, document in rows}
        return found

    def passage(self, public: str) -> Row | None:
        query = f"SELECT {_ROW} {_FROM} WHERE p.public = ? AND d.collection = ?"
        row = self._db.execute(query, (public, self.id)).fetchone()
        return _row(row) if row else None

    def neighbours(self, number: int, document: int) -> tuple[str | None, str | None]:
        """Return the ids of the passages before and after passage `number` of its document."""
        before = "SELECT public FROM passages WHERE document = ? AND id < ? ORDER BY id DESC LIMIT 1"
        after = "SELECT public FROM passages WHERE document = ? AND id > ? ORDER BY id LIMIT 1"
        found = [self._db.execute(q, (document, number)).fetchone() for q in (before, after)]
        first, second = (str(row[0]) if row else None for row in found)
        return first, second

    def text(self, document: int) -> str:
        row = self._db.execute("SELECT text FROM documents WHERE id = ?", (document,)).fetchone()
        return str(row[0]) if row else ""

    def asked(self) -> dict[int, str]:
        """For each document that has one: the first heading that is a question, short enough to be
        shown.
        """
        query = """SELECT p.document, p.heading FROM passages p JOIN documents d ON d.id = p.document
                   WHERE d.collection = ? AND (p.heading LIKE '%?' OR p.heading LIKE '%？') AND length(p.heading) <= 80 ORDER BY p.id DESC"""
        return {
            int(document): str(heading)
            for document, heading in self._db.execute(query, (self.id,)).fetchall()
        }

    # what changes

    def put(self, fresh: Sequence[Fresh], dropped: Iterable[int] = ()) -> list[Doc]:
        """One transaction: each document takes the place of the one at its path; `dropped` are
        numbers of documents that are gone.
        """
        with self.store.writing() as db:
            generation = self.generation + 1
            db.execute("UPDATE collections SET generation = ? WHERE id = ?", (generation, self.id))
            paths = [each.doc.path for each in fresh]
            replaced = [
                int(r[0])
                for some in _slices(paths)
                for r in db.execute(
                    f"SELECT id FROM documents WHERE collection = ? AND path IN ({_marks(some)})",
                    (self.id, *some),
                )
            ]
            for number in {*replaced, *dropped}:
                db.execute("DELETE FROM documents WHERE id = ?", (number,))
                db.execute("INSERT INTO gone VALUES (?, ?, ?)", (self.id, number, generation))
            return [self._put(db, each, generation) for each in fresh]

    def _put(self, db: Any, fresh: Fresh, generation: int) -> Doc:
        d = fresh.doc
        groups = json.dumps([sorted(each) for each in d.groups])
        values = (
            self.id,
            d.path,
            self.public(d.path),
            os.fsencode(d.file),
            d.home,
            d.state,
            d.reason,
            d.page,
            d.next,
            d.stamp,
            d.size,
            d.version,
            d.format,
            d.title,
            d.date,
            json.dumps(sorted(d.tags)),
            groups,
            len(fresh.passages),
            generation,
            time.time(),
            fresh.text,
        )
        number = db.execute(
            f"INSERT INTO documents ({_PUT}) VALUES ({_marks(values)})", values
        ).lastrowid
        first: dict[object, int] = {}
        for passage, key in zip(fresh.passages, fresh.keys, strict=True):
            p = passage
            row = (
                number,
                p.id,
                0,
                p.start,
                p.end,
                p.page,
                p.heading,
                json.dumps(p.trail, ensure_ascii=False),
                p.text,
                key,
            )
            own = db.execute(
                f"INSERT INTO passages ({_PUT_PASSAGE}) VALUES ({_marks(row)})", row
            ).lastrowid
            db.execute(
                "UPDATE passages SET place = ? WHERE id = ?", (first.setdefault(place(p), own), own)
            )
        row = db.execute(f"SELECT {_DOC} FROM documents WHERE id = ?", (number,)).fetchone()
        return _doc(row)

    def touched(self, docs: Iterable[Doc]) -> None:
        """Files that have new times and the old content."""
        with self.store.writing() as db:
            db.executemany(
                "UPDATE documents SET stamp = ?, size = ? WHERE id = ?",
                [(d.stamp, d.size, d.id) for d in docs],
            )

    def complete(self) -> None:
        with self.store.writing() as db:
            db.execute("UPDATE collections SET scanned = 1 WHERE id = ?", (self.id,))

    def caught_up(self, generation: int) -> None:
        """What is derived has come to this generation: the dropped documents before it need not be
        remembered.
        """
        with self.store.writing() as db:
            db.execute(
                "DELETE FROM gone WHERE collection = ? AND generation <= ?", (self.id, generation)
            )

    # ids

    def public(self, path: str) -> str:
        """A document's id, the same for all its versions."""
        return f"doc-{self._keyed(path)}"

    def passage_id(self, path: str, start: int, end: int, version: str) -> str:
        """128 bits that nobody can compute without the store's secret: a passage is reached by
        asking, not by guessing.
        """
        return f"psg-{self._keyed(path, str(start), str(end), version)}"

    def _keyed(self, *parts: str) -> str:
        name = "\0".join([self.name, *parts]).encode("utf-8", "surrogatepass")
        return hashlib.blake2b(name, digest_size=16, key=self.store.secret).hexdigest()

    # vectors

    def without_vector(self, model: str, after: int, limit: int) -> list[tuple[int, bytes, str]]:
        """Passages behind the number `after` whose text has no vector of this model yet: number,
        key, text to be embedded.
        """
        query = f"""SELECT {_ROW}, p.key {_FROM} WHERE d.collection = ? AND p.id > ? AND NOT EXISTS
                    (SELECT 1 FROM vectors v WHERE v.model = ? AND v.key = p.key) ORDER BY p.id LIMIT ?"""
        rows = self._db.execute(query, (self.id, after, model, limit)).fetchall()
        return [
            (int(row[0]), bytes(row[-1]), embedded_text(_row(row[:-1]).passage)) for row in rows
        ]

    def spans(self, documents: Sequence[int] | None = None) -> dict[int, tuple[int, int]]:
        """Of all documents, or of these, that have passages: the first one's number, and how many;
        they follow one another.
        """
        query = "SELECT p.document, min(p.id), count(*) FROM passages p JOIN documents d ON d.id = p.document WHERE d.collection = ?"
        if documents is None:
            rows = self._db.execute(f"{query} GROUP BY p.document", (self.id,)).fetchall()
        else:
            each = f"{query} AND d.id IN ({{}}) GROUP BY p.document"
            rows = [
                row
                for some in _slices(documents)
                for row in self._db.execute(each.format(_marks(some)), (self.id, *some)).fetchall()
            ]
        return {int(document): (int(first), int(count)) for document, first, count in rows}

    def vector_keys(self) -> tuple[int, int]:
        """How many vectors there are that no passage has, and how many whose length is not that of
        the others of their model.
        """
        alone = "SELECT count(*) FROM vectors v WHERE NOT EXISTS (SELECT 1 FROM passages p WHERE p.key = v.key)"
        odd = """SELECT count(*) FROM vectors v WHERE length(v.vector) % 4 OR
                 length(v.vector) != (SELECT length(w.vector) FROM vectors w WHERE w.model = v.model LIMIT 1)"""
        return int(self._db.execute(alone).fetchone()[0]), int(self._db.execute(odd).fetchone()[0])

    def damage(self) -> list[str]:
        """What SQLite itself finds broken in the file."""
        return [str(row[0]) for row in self._db.execute("PRAGMA quick_check(20)") if row[0] != "ok"]

    def note_model(self, model: str, source: str) -> None:
        """How the settings named the model whose vectors are kept."""
        with self.store.writing() as db:
            db.execute("INSERT OR REPLACE INTO models VALUES (?, ?)", (model, source))

    def models_before(self, model: str) -> list[tuple[str, str]]:
        """The other models that there are vectors of, the one with the most first: model, and how
        the settings named it.
        """
        query = """SELECT v.model, m.source FROM vectors v JOIN models m ON m.model = v.model WHERE v.model != ?
                   GROUP BY v.model ORDER BY count(*) DESC"""
        return [
            (str(name), str(source))
            for name, source in self._db.execute(query, (model,)).fetchall()
        ]

    def put_vectors(self, model: str, vectors: Mapping[bytes, bytes]) -> None:
        with self.store.writing() as db:
            db.executemany(
                "INSERT OR REPLACE INTO vectors VALUES (?, ?, ?)",
                [(model, key, vector) for key, vector in vectors.items()],
            )

    def vectors(
        self, model: str, documents: Sequence[int] | None = None
    ) -> Iterator[tuple[int, bytes]]:
        """(passage number, float32 bytes) of what is embedded, of all documents or of these;
        streamed.
        """
        query = "SELECT p.id, v.vector FROM passages p JOIN documents d ON d.id = p.document JOIN vectors v ON v.key = p.key"
        wanted: Iterable[tuple[str, Sequence[object]]] = [("d.collection = ?", (self.id,))]
        if documents is not None:
            wanted = [(f"p.document IN ({_marks(some)})", some) for some in _slices(documents)]
        for where, values in wanted:
            for row in self._db.cursor().execute(
                f"{query} WHERE {where} AND v.model = ?", (*values, model)
            ):
                yield int(row[0]), row[1]

    def forget_vectors(self, kept_model: str) -> int:
        """Deletes the vectors of other models, and of texts that no passage has; how many."""
        with self.store.writing() as db:
            query = "DELETE FROM vectors WHERE model != ? OR NOT EXISTS (SELECT 1 FROM passages p WHERE p.key = vectors.key)"
            return int(db.execute(query, (kept_model,)).rowcount)

    # uploads: what their senders said of them

    def put_upload(
        self, name: str, version: str, tags: frozenset[str], groups: frozenset[str] | None, by: str
    ) -> None:
        """What is said holds for this version of the file only: it never opens what was there
        before to others.
        """
        said = (
            self.id,
            name,
            version,
            json.dumps(sorted(tags)),
            None if groups is None else json.dumps(sorted(groups)),
            by,
            time.time(),
        )
        with self.store.writing() as db:
            db.execute("INSERT OR REPLACE INTO uploads VALUES (?, ?, ?, ?, ?, ?, ?)", said)

    def drop_upload(self, name: str, but: str = "") -> None:
        """Forgets all versions `but` this one."""
        with self.store.writing() as db:
            db.execute(
                "DELETE FROM uploads WHERE collection = ? AND name = ? AND version != ?",
                (self.id, name, but),
            )

    def upload(self, name: str, version: str) -> Said | None:
        row = self._db.execute(
            "SELECT tags, groups FROM uploads WHERE collection = ? AND name = ? AND version = ?",
            (self.id, name, version),
        )
        found = row.fetchone()
        return Said(tags=_set(found[0]) or frozenset(), groups=_set(found[1])) if found else None


_DOC = "id, public, path, file, home, state, stamp, size, version, format, title, date, tags, groups, passages, reason, page, next, read_at"
_PUT = """collection, path, public, file, home, state, reason, page, next, stamp, size, version, format, title, date, tags, groups,
          passages, generation, read_at, text"""
_PUT_PASSAGE = "document, public, place, start, stop, page, heading, trail, text, key"
_ROW = "p.id, p.document, p.place, p.public, d.path, d.title, p.heading, p.trail, p.start, p.stop, p.text, d.version, p.page"
_FROM = "FROM passages p JOIN documents d ON d.id = p.document"


_trail = msgspec.json.Decoder(tuple[str, ...]).decode  # for some 200 rows of each question


def _doc(row: Sequence[Any]) -> Doc:
    values = dict(zip(_DOC.split(", "), row, strict=True))
    groups = tuple(frozenset(each) for each in json.loads(values["groups"]))
    return Doc(
        **{
            **values,
            "file": os.fsdecode(values["file"]),
            "tags": frozenset(json.loads(values["tags"])),
            "groups": groups,
        }
    )


def _set(text: str | None) -> frozenset[str] | None:
    return None if text is None else frozenset(json.loads(text))


def _row(row: Sequence[Any]) -> Row:
    (
        number,
        document,
        place,
        public,
        path,
        title,
        heading,
        trail,
        start,
        stop,
        text,
        version,
        page,
    ) = row
    passage = Passage(
        id=public,
        path=path,
        title=title,
        heading=heading,
        trail=_trail(trail),
        start=start,
        end=stop,
        text=text,
        version=version,
        page=page,
    )
    return Row(id=number, document=document, place=place, passage=passage)


def _slices(values: Sequence[Any]) -> Iterator[Sequence[Any]]:
    values = list(values)
    yield from (values[at : at + _AT_ONCE] for at in range(0, len(values), _AT_ONCE))


def _marks(values: Sequence[object]) -> str:
    return ", ".join("?" * len(values))


def _check_version(db: Any, version: int) -> None:
    """What an older Slipway kept of the files is read again; the vectors stay."""
    if version > _TABLES_VERSION:
        raise SettingsError(
            ["store: it was written by a newer Slipway; use that one, or set another `store:`"]
        )
    if version and version < _TABLES_VERSION:
        for table in ("passages", "documents", "gone", "uploads", "collections"):
            db.execute(f"DROP TABLE IF EXISTS {table}")
