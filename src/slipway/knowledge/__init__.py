"""THE ROOM of what we know: files in, ranked places with exact character spans out, each asker's share of them.

`files` finds documents, `parsing` has a child process read them (`readers`), `passages` cuts them, `shelf` keeps them, `index` ranks them;
`collection` does all of that in batches that survive a crash, `keeper` does it again whenever a file changes, `access` says who may read what.
"""

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from secrets import token_hex
from typing import IO

from slipway.errors import Conflict, SettingsError
from slipway.knowledge import files, fusion
from slipway.knowledge.access import Access
from slipway.knowledge.collection import Collection, Done
from slipway.knowledge.dense import Dense
from slipway.knowledge.embedding import opened as embedder_of
from slipway.knowledge.keeper import Keeper
from slipway.knowledge.shelf import Doc, Row
from slipway.store import Store
from slipway.types import Asker, Hit, Passage, Record, Within

__all__ = ["Counts", "Done", "Knowledge", "check", "opened"]

_NEEDED = (
    "tantivy",
    "selectolax",
    "pypdfium2",
    "python_calamine",
    "watchfiles",
)  # the extra `knowledge`; imported where they are used, so that a gateway never loads them
OFF = "none"  # no embedding: search is by keywords only
_SPARE = 3  # places found beyond those wanted, for those that turn out to be gone
_REFRESHES = 3  # how often a question waits for files that changed


class Counts(Record, frozen=True, kw_only=True):
    documents: int
    failed: int
    passages: int


def check(sources: Sequence[Path]) -> None:
    """Raises SettingsError where a source does not exist or has nothing to read, or where the extra is not installed."""
    if missing := [name for name in _NEEDED if find_spec(name) is None]:
        raise SettingsError([f"knowledge needs the extra: pip install 'slipway[knowledge]' (missing: {', '.join(missing)})."])
    if problems := files.problems(sources):
        raise SettingsError(problems)


def opened(store: Store, sources: Sequence[Path], *, embedding: str = OFF, largest_mb: float = 50.0, deadline_s: float = 60.0) -> Keeper:
    """The documents of these folders and files as the store knows them, not yet looked at anew. Raises SettingsError, as `check` does."""
    check(sources)
    collection = Collection(store, sources, largest_mb=largest_mb, deadline_s=deadline_s)
    return Keeper(collection, None if embedding == OFF else Dense(collection, embedding, embedder_of))


class Knowledge:
    """What an app knows, as its askers may see it: everything here is about the documents that `asker` may read, as if there were no others."""

    def __init__(self, keeper: Keeper, access: Access | None = None) -> None:
        self.keeper, self.access = keeper, access or Access()

    @property
    def ready(self) -> bool:
        return self.keeper.ready

    @property
    def failed(self) -> bool:
        return self.keeper.failed

    @property
    def read_share(self) -> float:
        """How far the first reading is, 0 to 1. It tells no number of documents, which not everybody may know."""
        progress = self.keeper.collection.progress
        return progress.seen / progress.total if progress.total else 0.0

    def build(self, tell: Callable[[Done], None] = lambda done: None) -> Done:
        return self.keeper.build(tell)

    def search(self, text: str, asker: Asker, limit: int = 5, within: Within | None = None) -> list[Hit]:
        """The places, distinct by path and heading, best first, each with its best passage. Blocks for a few milliseconds; takes any text.

        Nothing is served from a file that has changed since it was read: it is read again first, or left out.
        """
        collection = self.keeper.collection
        looked_at = set[str]()  # documents, by path, that were read again for this question
        for _ in range(_REFRESHES):
            hits, docs = self._search(text, asker, limit, within)
            stale = [doc for doc in collection.stale(docs) if doc.path not in looked_at]
            if not stale:
                return hits
            looked_at |= collection.refresh(stale)
        hits, docs = self._search(text, asker, limit + _SPARE, within)
        stale_now = {doc.path for doc in collection.stale(docs)} - looked_at
        return [hit for hit, doc in zip(hits, docs, strict=True) if doc.path not in stale_now][:limit]

    def _search(self, text: str, asker: Asker, limit: int, within: Within | None) -> tuple[list[Hit], list[Doc]]:
        collection, dense = self.keeper.collection, self.keeper.dense
        known = collection.known
        reach = self.access.reach(asker, within, known.documents, known.epoch)
        places = collection.index.search(text, fusion.KEYWORD_DEPTH, reach)
        near = dense.near(text, fusion.DENSE_DEPTH, [place.passage for place in places], reach) if dense else {}
        rows = collection.shelf.passages(list({*(place.passage for place in places), *near}))
        rows = {n: row for n, row in rows.items() if row.document in known.documents and (reach is None or row.document in reach)}
        keyword = [Hit(passage=rows[place.passage].passage, score=place.score) for place in places if place.passage in rows]
        ranked = fusion.fuse(keyword, [(rows[n].passage, cosine) for n, cosine in near.items() if n in rows], limit)
        documents = {row.passage.id: known.documents[row.document] for row in rows.values()}
        return [Hit(passage=each.passage, score=each.score) for each in ranked], [documents[each.passage.id] for each in ranked]

    def passage(self, id: str, asker: Asker) -> Passage | None:  # noqa: A002 - the field's name on the wire
        row = self.keeper.collection.shelf.passage(id)
        return row.passage if row is not None and self._readable(row, asker) else None

    def _readable(self, row: Row, asker: Asker) -> bool:
        doc = self.keeper.collection.documents.get(row.document)
        return doc is not None and self.access.may_read(asker, doc)

    def documents(self, asker: Asker) -> list[Doc]:
        """Those that failed are for who may do something about them: who may read them is not known, since that may stand in them."""
        documents = self.keeper.collection.documents.values()
        keeps = asker.documents or asker.everything
        return sorted((d for d in documents if (keeps or d.state == "done") and self.access.may_read(asker, d)), key=lambda doc: doc.path)

    def document(self, id: str, asker: Asker) -> Doc | None:  # noqa: A002 - the field's name on the wire
        return next((doc for doc in self.documents(asker) if doc.public == id), None)

    def add(self, name: str, content: IO[bytes], asker: Asker, tags: frozenset[str], groups: frozenset[str] | None) -> tuple[str, str]:
        """Keeps an uploaded file; (the id of its document, its path). It is read by `read`, and lost in no case. It takes the place of an
        upload of the same name that this asker may read; another's, of which nothing must be told, stays.
        """
        collection = self.keeper.collection
        before = collection.by_path.get(collection.path_of(name))
        if before is not None and not self.access.may_read(asker, before):
            stem, dot, kind = name.rpartition(".")
            name = f"{stem}-{token_hex(4)}{dot}{kind}"
        path = collection.upload(name, content, tags, groups, asker.owner)
        return collection.shelf.public(path), path

    @property
    def waiting(self) -> list[str]:
        """Uploads that are being read, by their paths."""
        return list(self.keeper.collection.waiting)

    def expect(self, path: str) -> None:
        """Says of an upload that it will be read."""
        self.keeper.collection.expect(path)

    def coming(self, asker: Asker) -> list[Doc]:
        """Uploads that are being read for the first time, for those who may change them: their paths, and no more."""
        collection = self.keeper.collection
        docs = (collection.unread(path) for path in self.waiting if asker.documents and path not in collection.by_path)
        return [doc for doc in docs if self.access.may_read(asker, doc)]

    def read(self, path: str) -> None:
        """Reads an uploaded file into the index; blocks."""
        self.keeper.collection.take(path, path.rsplit("/", 1)[-1])

    def remove(self, doc: Doc) -> None:
        """Raises Conflict for a document that was not uploaded."""
        if not self.keeper.collection.is_upload(doc.file):
            raise Conflict(
                f"`{doc.path}` is a file of the knowledge folder.", "Remove the file there; it is gone from the answers at once."
            )
        self.keeper.collection.remove(doc)

    def counts(self, asker: Asker) -> Counts:
        mine = self.documents(asker)
        failed = sum(doc.state == "failed" for doc in mine)
        return Counts(documents=len(mine) - failed, failed=failed, passages=sum(doc.passages for doc in mine))

    def dense_state(self, asker: Asker) -> str:
        """How many passages are found by their meaning; as a share to those who may not know how many there are."""
        known = self.keeper.collection.known
        return self.keeper.dense_state(counted=self.access.reach(asker, None, known.documents, known.epoch) is None)

    def examples(self, asker: Asker, limit: int = 3) -> list[str]:
        """Headings that are questions, the first of each document: what could be asked."""
        asked = self.keeper.collection.shelf.asked()
        return [asked[doc.id] for doc in self.documents(asker) if doc.id in asked][:limit]
