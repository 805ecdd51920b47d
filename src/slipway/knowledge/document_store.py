"""Store one collection of documents in SQLite: each document with its state, version and access,
its passages, and their vectors.

A document's row is never changed, only replaced under a new number, so index entries and search
results of an older version find nothing. `generation` counts the transactions; the index records up
to which one it is complete. Vectors are keyed by the hash of their text, so that no text is
embedded twice.
"""

import hashlib
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import msgspec

from slipway.knowledge.document_tables import create_tables
from slipway.knowledge.fusion import embedded_text, place
from slipway.store import Store
from slipway.types import Passage, Record

_NUMBERS = msgspec.json.Decoder(list[tuple[int, int, int]])
_AT_ONCE = 500  # parameters of one statement

State = Literal["done", "partly", "failed"]


class Doc(Record, frozen=True, kw_only=True):
    """A document as it was last read.

    `groups` holds sets of groups, from the document itself and from its sender; a reader must be in
    at least one group of each set. `reason`, `page` and `next` say why it
    failed, or what is missing if it was read `partly`, and what to do. See
    `files.FoundFile` for `home` and `stamp`.
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


class ReadDocument(Record, frozen=True, kw_only=True):
    """A document to be stored: its text, its passages, and the vector key of each passage."""

    doc: Doc
    text: str = ""
    passages: Sequence[Passage] = ()
    keys: Sequence[bytes] = ()


class UploadInfo(Record, frozen=True, kw_only=True):
    """The tags that the sender gave an upload, the groups that may read it (None: everybody), and
    the sender's key.
    """

    tags: frozenset[str] = frozenset()
    groups: frozenset[str] | None = None
    by: str = ""


class StoredPassage(Record, frozen=True, kw_only=True):
    """A passage with the numbers of itself, its document, and the first passage under its heading
    (`place`).
    """

    id: int
    document: int
    place: int
    passage: Passage


class DocumentStore:
    """The documents of the collection `name`. Raises SettingsError for a store that a newer Slipway
    wrote.
    """

    def __init__(self, store: Store, name: str) -> None:
        self.store, self.name = store, name
        with store.writing() as db:
            create_tables(db)
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
        """Return the number of transactions so far."""
        return self._number("SELECT generation FROM collections WHERE id = ?")

    @property
    def scanned(self) -> bool:
        """Return whether all files were read once."""
        return bool(self._number("SELECT scanned FROM collections WHERE id = ?"))

    def _number(self, query: str, *more: object) -> int:
        row = self._db.execute(query, (self.id, *more)).fetchone()
        return int(row[0] or 0) if row else 0

    def documents(self, since: int = -1) -> Iterator[Doc]:
        """Yield the documents stored after the generation `since`."""
        query = f"SELECT {_DOC} FROM documents WHERE collection = ? AND generation > ? ORDER BY id"
        yield from (_doc(row) for row in self._db.execute(query, (self.id, since)).fetchall())

    def dropped_since(self, since: int) -> list[int]:
        """Return the numbers of documents replaced or dropped after the generation `since`."""
        rows = self._db.execute(
            "SELECT document FROM gone WHERE collection = ? AND generation > ?", (self.id, since)
        )
        return [int(row[0]) for row in rows]

    def rows(self, documents: Sequence[int]) -> Iterator[StoredPassage]:
        """Yield the passages of these documents, in reading order."""
        for some in _slices(documents):
            query = f"SELECT {_ROW} {_FROM} WHERE p.document IN ({_marks(some)}) ORDER BY p.id"
            yield from (_row(row) for row in self._db.execute(query, some).fetchall())

    def passages(self, numbers: Sequence[int]) -> dict[int, StoredPassage]:
        """Return passages by their numbers, without those that are gone."""
        found = {}
        for some in _slices(numbers):
            for row in self._db.execute(
                f"SELECT {_ROW} {_FROM} WHERE p.id IN ({_marks(some)})", some
            ).fetchall():
                found[int(row[0])] = _row(row)
        return found

    def locations(self, numbers: Sequence[int]) -> dict[int, tuple[int, int]]:
        """Map passage numbers to (place, document), without passages that are gone."""
        found = dict[int, tuple[int, int]]()
        for some in _slices(numbers):
            query = f"SELECT json_group_array(json_array(id, place, document)) FROM passages WHERE id IN ({_marks(some)})"
            rows = _NUMBERS.decode(
                self._db.execute(query, some).fetchone()[0]
            )  # as one row: Python would release its lock at every row
            found |= {number: (place_, document) for number, place_, document in rows}
        return found

    def passage(self, public: str) -> StoredPassage | None:
        """Return the passage with that public id; None if there is none."""
        query = f"SELECT {_ROW} {_FROM} WHERE p.public = ? AND d.collection = ?"
        row = self._db.execute(query, (public, self.id)).fetchone()
        return _row(row) if row else None

    def neighbours(self, number: int, document: int) -> tuple[str | None, str | None]:
        """Return the ids of the passages before and after passage `number` of its document."""
        before = (
            "SELECT public FROM passages WHERE document = ? AND id < ? ORDER BY id DESC LIMIT 1"
        )
        after = "SELECT public FROM passages WHERE document = ? AND id > ? ORDER BY id LIMIT 1"
        found = [self._db.execute(q, (document, number)).fetchone() for q in (before, after)]
        first, second = (str(row[0]) if row else None for row in found)
        return first, second

    def text(self, document: int) -> str:
        """Return a document's text; empty if it is gone."""
        row = self._db.execute("SELECT text FROM documents WHERE id = ?", (document,)).fetchone()
        return str(row[0]) if row else ""

    def example_questions(self) -> dict[int, str]:
        """Map documents to their first heading that is a question of at most 80 characters."""
        query = """SELECT p.document, p.heading FROM passages p JOIN documents d ON d.id = p.document
                   WHERE d.collection = ? AND (p.heading LIKE '%?' OR p.heading LIKE '%？') AND length(p.heading) <= 80 ORDER BY p.id DESC"""
        return {
            int(document): str(heading)
            for document, heading in self._db.execute(query, (self.id,)).fetchall()
        }

    # what changes

    def put(self, fresh: Sequence[ReadDocument], dropped: Iterable[int] = ()) -> list[Doc]:
        """Store documents in one transaction, replacing those of the same path, and drop the
        documents with the numbers `dropped`. Return the stored documents.
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

    def _put(self, db: Any, fresh: ReadDocument, generation: int) -> Doc:
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
        self._put_passages(db, number, fresh)
        row = db.execute(f"SELECT {_DOC} FROM documents WHERE id = ?", (number,)).fetchone()
        return _doc(row)

    def _put_passages(self, db: Any, number: int, fresh: ReadDocument) -> None:
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

    def update_stamps(self, docs: Iterable[Doc]) -> None:
        """Store new stamps and sizes of files whose content is unchanged."""
        with self.store.writing() as db:
            db.executemany(
                "UPDATE documents SET stamp = ?, size = ? WHERE id = ?",
                [(d.stamp, d.size, d.id) for d in docs],
            )

    def mark_scanned(self) -> None:
        """Record that all files were read once."""
        with self.store.writing() as db:
            db.execute("UPDATE collections SET scanned = 1 WHERE id = ?", (self.id,))

    def forget_dropped(self, generation: int) -> None:
        """Forget which documents were dropped up to this generation; the index is complete so far."""
        with self.store.writing() as db:
            db.execute(
                "DELETE FROM gone WHERE collection = ? AND generation <= ?", (self.id, generation)
            )

    # ids

    def public(self, path: str) -> str:
        """Return a document's public id, the same for all its versions."""
        return f"doc-{self._keyed(path)}"

    def passage_id(self, path: str, start: int, end: int, version: str) -> str:
        """Return a passage's id: 128 bits that nobody can compute without the store's secret, so
        that ids cannot be guessed.
        """
        return f"psg-{self._keyed(path, str(start), str(end), version)}"

    def _keyed(self, *parts: str) -> str:
        name = "\0".join([self.name, *parts]).encode("utf-8", "surrogatepass")
        return hashlib.blake2b(name, digest_size=16, key=self.store.secret).hexdigest()

    # vectors

    def without_vector(self, model: str, after: int, limit: int) -> list[tuple[int, bytes, str]]:
        """Return (number, key, text to embed) of passages after the number `after` that have no
        vector of this model.
        """
        query = f"""SELECT {_ROW}, p.key {_FROM} WHERE d.collection = ? AND p.id > ? AND NOT EXISTS
                    (SELECT 1 FROM vectors v WHERE v.model = ? AND v.key = p.key) ORDER BY p.id LIMIT ?"""
        rows = self._db.execute(query, (self.id, after, model, limit)).fetchall()
        return [
            (int(row[0]), bytes(row[-1]), embedded_text(_row(row[:-1]).passage)) for row in rows
        ]

    def spans(self, documents: Sequence[int] | None = None) -> dict[int, tuple[int, int]]:
        """Map documents with passages (these or all) to (number of the first passage, count); a
        document's passages are numbered in sequence.
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
        """Count the vectors that no passage uses, and those whose length differs from the others of
        their model.
        """
        alone = "SELECT count(*) FROM vectors v WHERE NOT EXISTS (SELECT 1 FROM passages p WHERE p.key = v.key)"
        odd = """SELECT count(*) FROM vectors v WHERE length(v.vector) % 4 OR
                 length(v.vector) != (SELECT length(w.vector) FROM vectors w WHERE w.model = v.model LIMIT 1)"""
        return int(self._db.execute(alone).fetchone()[0]), int(self._db.execute(odd).fetchone()[0])

    def damage(self) -> list[str]:
        """Return what SQLite's own check finds broken in the file."""
        return [str(row[0]) for row in self._db.execute("PRAGMA quick_check(20)") if row[0] != "ok"]

    def note_model(self, model: str, source: str) -> None:
        """Record how the settings name the model of the stored vectors."""
        with self.store.writing() as db:
            db.execute("INSERT OR REPLACE INTO models VALUES (?, ?)", (model, source))

    def models_before(self, model: str) -> list[tuple[str, str]]:
        """Return (model, name in the settings) of other models with vectors, most vectors first."""
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
        """Yield (passage number, float32 bytes) of the embedded passages of these or all documents."""
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
        """Delete vectors of other models and of texts that no passage has; return how many."""
        with self.store.writing() as db:
            query = "DELETE FROM vectors WHERE model != ? OR NOT EXISTS (SELECT 1 FROM passages p WHERE p.key = vectors.key)"
            return int(db.execute(query, (kept_model,)).rowcount)

    # uploads: the tags and groups that their senders gave

    def put_upload(
        self, name: str, version: str, tags: frozenset[str], groups: frozenset[str] | None, by: str
    ) -> None:
        """Record tags and groups of an upload, for this version of the file only: an earlier
        version never becomes readable to others.
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
        """Forget all versions of an upload `but` this one."""
        with self.store.writing() as db:
            db.execute(
                "DELETE FROM uploads WHERE collection = ? AND name = ? AND version != ?",
                (self.id, name, but),
            )

    def upload(self, name: str, version: str) -> UploadInfo | None:
        """Return the record of an upload in that version; None if there is none."""
        row = self._db.execute(
            "SELECT tags, groups, by FROM uploads WHERE collection = ? AND name = ? AND version = ?",
            (self.id, name, version),
        )
        found = row.fetchone()
        if not found:
            return None
        tags = _set(found[0]) or frozenset()
        return UploadInfo(tags=tags, groups=_set(found[1]), by=found[2])


_DOC = "id, public, path, file, home, state, stamp, size, version, format, title, date, tags, groups, passages, reason, page, next, read_at"
_PUT = """collection, path, public, file, home, state, reason, page, next, stamp, size, version, format, title, date, tags, groups,
          passages, generation, read_at, text"""
_PUT_PASSAGE = "document, public, place, start, stop, page, heading, trail, text, key"
_ROW = "p.id, p.document, p.place, p.public, d.path, d.title, p.heading, p.trail, p.start, p.stop, p.text, d.version, p.page"
_FROM = "FROM passages p JOIN documents d ON d.id = p.document"


_trail = msgspec.json.Decoder(tuple[str, ...]).decode  # decodes about 200 rows for each question


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


def _row(row: Sequence[Any]) -> StoredPassage:
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
    return StoredPassage(id=number, document=document, place=place, passage=passage)


def _slices(values: Sequence[Any]) -> Iterator[Sequence[Any]]:
    values = list(values)
    yield from (values[at : at + _AT_ONCE] for at in range(0, len(values), _AT_ONCE))


def _marks(values: Sequence[object]) -> str:
    return ", ".join("?" * len(values))
