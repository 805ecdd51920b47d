"""Documents that an app knows: read files, keep passages, and find ranked places for an asker.

`files` lists documents, `reading` turns each into passages (in a child process: `parsing`,
`readers`), `document_store` keeps them, and `index` ranks them. `collection` does all of that in
batches that survive a crash, `sync` repeats it when files change, and `access` decides who may read
what.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

from slipway.errors import Conflict, SettingsError
from slipway.knowledge import answerability, files, fusion
from slipway.knowledge.access import Access, without_mark
from slipway.knowledge.collection import Collection, ScanProgress
from slipway.knowledge.dense import Dense
from slipway.knowledge.document_store import Doc, StoredPassage
from slipway.knowledge.documents_state import DocumentsState
from slipway.knowledge.embedding import EMBEDDERS, is_folder
from slipway.knowledge.embedding import opened as embedder_of
from slipway.knowledge.fusion import Ranked
from slipway.knowledge.index import Index
from slipway.knowledge.reader_index import ReaderIndex, reader_index
from slipway.knowledge.readers.ocr import EXTRA as OCR_EXTRA
from slipway.knowledge.readers.ocr import is_installed
from slipway.knowledge.search_slots import SearchSlots
from slipway.knowledge.searching import Search, SearchResult
from slipway.knowledge.sync import Synchronizer
from slipway.knowledge.versions import Versions
from slipway.settings.environment import core_count
from slipway.store import Store
from slipway.types import Asker, Hit, Passage, Record, Within

__all__ = ["OFF", "DocumentCounts", "Findings", "Knowledge", "ScanProgress", "check", "opened"]

EXTRA = "slipway[knowledge]"
# What it installs; imported by the modules that use them, so that a gateway never loads them
_NEEDED = ("chardet", "tantivy", "selectolax", "pypdfium2", "python_calamine", "watchfiles")
OFF = "none"  # no embedding: search is by keywords only
_RERANK_S = 1.0  # how long a reranker may take
# For all searches in this process; one more than cores, since each waits a little for the others
_SEARCH_SLOTS = SearchSlots(core_count() + 1)
_REFRESHES = 3  # how often a question waits for changed files


Rerank = Callable[[str, Sequence[str]], Sequence[float]]
log = logging.getLogger("slipway")


@cache
def _rerankers() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(2, thread_name_prefix="slipway rerank")


class Findings(Record, frozen=True, kw_only=True):
    """Hold what a search found. `confidence` is the probability, 0 to 1, that the places answer the
    question, assuming that half of all questions have an answer.
    """

    hits: list[Hit]
    confidence: float


class DocumentCounts(Record, frozen=True, kw_only=True):
    """Count an asker's documents, those that could not be read, and passages."""

    documents: int
    failed: int
    passages: int


def check(sources: Sequence[Path], embedding: str = OFF, *, ocr: bool = False) -> None:
    """Raise SettingsError if a source is missing or has nothing to read, the extra is not
    installed, or the embedding is unknown. Its weights need not be on this machine yet.
    """
    if missing := [name for name in _NEEDED if find_spec(name) is None]:
        raise SettingsError(
            [f"knowledge needs the extra: pip install '{EXTRA}' (missing: {', '.join(missing)})."]
        )
    if ocr and not is_installed():
        raise SettingsError([f"ocr: true needs the extra: pip install '{OCR_EXTRA}'"])
    if problems := files.problems(sources):
        raise SettingsError(problems)
    if embedding not in (OFF, *EMBEDDERS) and not is_folder(embedding):
        known = ", ".join(EMBEDDERS)
        raise SettingsError(
            [
                f"embedding: `{embedding}` is unknown; write {known}, a folder such as ./model, or {OFF}"
            ]
        )


def opened(
    store: Store,
    sources: Sequence[Path],
    *,
    embedding: str = OFF,
    largest_mb: float = 50.0,
    deadline_s: float = 60.0,
    ocr: bool = False,
) -> Synchronizer:
    """Open the documents of these folders and files as the store knows them; read no file yet.
    Raise SettingsError as `check` does.
    """
    check(sources, embedding, ocr=ocr)
    with store.sound():
        collection = Collection(
            store, sources, largest_mb=largest_mb, deadline_s=deadline_s, ocr=ocr
        )
    return Synchronizer(
        collection, None if embedding == OFF else Dense(collection, embedding, embedder_of)
    )


class Knowledge:
    """Search and list the documents of one app. Every method sees only the documents that `asker`
    may read, as if no others existed.
    """

    def __init__(
        self, synchronizer: Synchronizer, access: Access | None = None, rerank: Rerank | None = None
    ) -> None:
        """`rerank` scores texts for a question; found places are sorted by its scores."""
        self.synchronizer, self.access, self._rerank = synchronizer, access or Access(), rerank
        self._versions = Versions()

    def with_access(self, access: Access) -> "Knowledge":
        """Return the same documents under other access rules."""
        return Knowledge(self.synchronizer, access, self._rerank)

    @property
    def ready(self) -> bool:
        return self.synchronizer.ready

    @property
    def failed(self) -> bool:
        return self.synchronizer.failed

    @property
    def read_share(self) -> float:
        """Return how far the first reading is, 0 to 1. Not a count: how many documents there are is
        not for everybody to know.
        """
        progress = self.synchronizer.collection.progress
        return progress.seen / progress.total if progress.total else 0.0

    def build(self, tell: Callable[[ScanProgress], None] = lambda done: None) -> ScanProgress:
        """Read all files now and call `tell` after each one; block until done."""
        return self.synchronizer.build(tell)

    def find(
        self, text: str, asker: Asker, limit: int = 5, within: Within | None = None
    ) -> Findings:
        """Search, and also estimate how likely it is that the places answer; takes about 15 ms more
        than `search`.
        """
        ranked = self._fresh(text, asker, limit, within)
        return Findings(
            hits=_hits(self._reranked(text, ranked)[:limit]),
            confidence=self.confidence(text, ranked, asker),
        )

    def search(
        self, text: str, asker: Asker, limit: int = 5, within: Within | None = None
    ) -> list[Hit]:
        """Return places, distinct by path, heading and page, best first, each with its best
        passage. Block for a few milliseconds; accept any text.

        Never serve a file that has changed since it was read: read it again first, or leave it out.
        """
        return _hits(self._reranked(text, self._fresh(text, asker, limit, within))[:limit])

    def _fresh(self, text: str, asker: Asker, limit: int, within: Within | None) -> list[Ranked]:
        """Return at least `limit` places if there are that many, and the ones behind them, which
        show how far the first ones are ahead.
        """
        if limit < 1:
            return []
        collection = self.synchronizer.collection
        reread = set[str]()  # paths of documents that were read again for this question
        for last in (*[False] * _REFRESHES, True):
            found = self._ranked(text, asker, max(limit, answerability.DEPTH), within)
            docs = {doc.path: doc for doc in map(found.document_of, found.ranked)}
            stale = [doc for doc in collection.stale(docs.values()) if doc.path not in reread]
            if last or not stale:
                break
            reread |= collection.refresh(stale)
        left_out = {doc.path for doc in stale}
        return [each for each in found.ranked if each.passage.path not in left_out]

    def _reranked(self, text: str, ranked: list[Ranked]) -> list[Ranked]:
        """Sort by the reranker's scores; keep the order if the reranker fails or takes too long."""
        if self._rerank is None or len(ranked) < 2:
            return ranked
        texts = [fusion.embedded_text(each.passage) for each in ranked]
        try:
            scores = [
                float(score)
                for score in _rerankers().submit(self._rerank, text, texts).result(_RERANK_S)
            ]
            return [
                each
                for _, each in sorted(zip(scores, ranked, strict=True), key=lambda pair: -pair[0])
            ]
        except Exception as error:  # noqa: BLE001 - the reranker is somebody else's code
            log.warning(
                "The reranker failed (%s: %s); the order of the search is kept.",
                type(error).__name__,
                error,
            )
            return ranked

    def _ranked(
        self, text: str, asker: Asker, limit: int, within: Within | None, *, by_meaning: bool = True
    ) -> SearchResult:
        """Search, again if documents were replaced meanwhile."""
        collection = self.synchronizer.collection
        dense = self.synchronizer.dense if by_meaning else None
        for _ in range(_REFRESHES):
            known = collection.known
            visible = self.access.document_filter(asker, within, known.documents, known.epoch)
            index = self._index_for(asker)
            with _SEARCH_SLOTS:
                found = Search(text, limit, collection, known, index, dense, visible).run()
            if found.is_complete:
                break
            collection.wait_for_changes()
        return found

    def _index_for(self, asker: Asker) -> "Index | ReaderIndex":
        """Return the index with the word statistics of what this asker may read."""
        collection = self.synchronizer.collection
        known = collection.known
        readable = self.access.document_filter(asker, None, known.documents, known.epoch)
        return reader_index(collection.index, readable, known.documents)

    def ranked(
        self, text: str, asker: Asker, limit: int, *, by_meaning: bool = True
    ) -> list[Ranked]:
        """Return places with their scores, for measuring; ignore vectors unless `by_meaning`."""
        return self._ranked(text, asker, limit, None, by_meaning=by_meaning).ranked

    def places(self, asker: Asker) -> list[fusion.PlaceKey]:
        """Return the keys of all places of this asker's documents."""
        document_store, mine = (
            self.synchronizer.collection.document_store,
            [doc.id for doc in self.documents(asker)],
        )
        return list(dict.fromkeys(fusion.place(row.passage) for row in document_store.rows(mine)))

    @property
    def has_vectors(self) -> bool:
        """Tell whether search by meaning is on and its weights are loaded."""
        return self.synchronizer.dense is not None and self.synchronizer.dense.is_ready

    def confidence(
        self,
        text: str,
        ranked: Sequence[Ranked],
        asker: Asker | None = None,
        *,
        by_meaning: bool = True,
    ) -> float:
        """Return the probability, 0 to 1, that these places answer; judged by words alone until all
        of them have vectors.
        """
        near = by_meaning and all(each.cosine for each in ranked)
        embed = self.synchronizer.dense.embedder(text) if near and self.synchronizer.dense else None
        index = self._index_for(asker) if asker else self.synchronizer.collection.index
        return answerability.answer_probability(text, ranked, index, embed)

    # What an answer rests on

    def version(self, asker: Asker) -> str:
        """Return a name for all that a search of this asker can find; it changes with any of it,
        and is the same in every process that read the same files.
        """
        known = self.synchronizer.collection.known
        visible = self.access.document_filter(asker, None, known.documents, known.epoch)
        dense = self.synchronizer.dense
        found = self._versions.version(known, visible)
        return found if dense is None else f"{found}:{dense.version}"

    def groups_that_matter(self, asker: Asker) -> list[str]:
        """Return the asker's groups that any rule or document names, and so decide what it reads."""
        known = self.synchronizer.collection.known
        named = self.access.named_groups(known.documents, known.epoch)
        return (
            ["*everything", *sorted(asker.groups & named)]
            if asker.everything
            else sorted(asker.groups & named)
        )

    def are_current(self, paths: Iterable[str], asker: Asker) -> bool:
        """Return whether these documents are there, unchanged since they were read, and readable."""
        collection = self.synchronizer.collection
        known = collection.known
        docs = [known.by_path.get(path) for path in paths]
        readable = [
            doc
            for doc in docs
            if doc is not None and self.access.may_read(asker, doc, known.documents)
        ]
        return len(readable) == len(docs) and not collection.stale(readable)

    @property
    def name(self) -> str:
        """Return a name of the store of these documents, whose secret makes the ids of passages."""
        return self.synchronizer.collection.document_store.public("")

    # The field's name on the wire
    def passage(self, id: str, asker: Asker) -> Passage | None:  # noqa: A002
        """Return the passage as it is now; None if its document has changed or may not be read."""
        collection = self.synchronizer.collection
        row = collection.document_store.passage(id)
        if row is not None and (
            stale := collection.stale(filter(None, [collection.documents.get(row.document)]))
        ):
            row = collection.document_store.passage(id) if collection.refresh(stale) else None
        return row.passage if row is not None and self._readable(row, asker) else None

    def neighbours(self, id: str, asker: Asker) -> tuple[str | None, str | None]:  # noqa: A002
        """Return the ids of the passages before and after this one in its document."""
        store = self.synchronizer.collection.document_store
        row = store.passage(id)
        if row is None or not self._readable(row, asker):
            return None, None
        return store.neighbours(row.id, row.document)

    def original(self, id: str, asker: Asker) -> Path | None:  # noqa: A002
        """Return the file of the passage's document, if the asker may read it."""
        collection = self.synchronizer.collection
        row = collection.document_store.passage(id)
        if row is None or not self._readable(row, asker):
            return None
        doc = collection.documents.get(row.document)
        return Path(doc.file) if doc is not None else None

    def _readable(self, row: StoredPassage, asker: Asker) -> bool:
        documents = self.synchronizer.collection.documents
        doc = documents.get(row.document)
        return doc is not None and self.access.may_read(asker, doc, documents)

    def documents(self, asker: Asker) -> list[Doc]:
        """Return the asker's documents by path. Failed ones are listed only for those who may
        change documents: an unreadable file may hold access rules.
        """
        return sorted(self._mine(asker), key=lambda doc: doc.path)

    def _mine(self, asker: Asker) -> list[Doc]:
        known = self.synchronizer.collection.known
        visible = self.access.document_filter(asker, None, known.documents, known.epoch)
        keeps = asker.documents or asker.everything
        return [
            doc
            for n, doc in known.documents.items()
            if (keeps or doc.state != "failed") and (visible is None or n in visible)
        ]

    # The field's name on the wire
    def document(self, id: str, asker: Asker) -> Doc | None:  # noqa: A002
        """Return the asker's document with this public id, or None."""
        return next((doc for doc in self._mine(asker) if doc.public == id), None)

    def add(
        self,
        name: str,
        content: IO[bytes],
        asker: Asker,
        tags: frozenset[str],
        groups: frozenset[str] | None,
    ) -> tuple[str, str]:
        """Keep an uploaded file and return (id of its document, its path); `read` reads it later.

        Replace an earlier upload of the same name if this asker may read it; others stay.
        """
        collection, uploads = self.synchronizer.collection, self.synchronizer.collection.uploads
        with uploads.changing:
            name = self._stored_name(without_mark(name), asker)
            path = uploads.path_of(name, collection.by_path)
            uploads.save(name, path, content, tags, groups, asker.owner)
        return collection.document_store.public(path), path

    def _stored_name(self, name: str, asker: Asker) -> str:
        """Return the name of the file whose place an upload takes, or a new one.

        Of several that the asker may read, its own is replaced, else the one without a mark, else
        none. Every new name has a random mark, also if nothing has that name: only then does it not
        tell whether there is an upload that the asker may not read.
        """
        collection, uploads = self.synchronizer.collection, self.synchronizer.collection.uploads
        readable = {
            stored: docs
            for stored, docs in uploads.named(name, collection.by_path).items()
            if all(self.access.may_read(asker, doc, collection.documents) for doc in docs)
        }
        own = [each for each, docs in readable.items() if uploads.is_of(docs[-1], asker.owner)]
        if own:
            return own[0]
        if name in readable:
            return name
        return next(iter(readable)) if len(readable) == 1 else uploads.free_name(name)

    @property
    def keeps_uploads(self) -> bool:
        """Return whether uploads outlive this process: a temporary store would lose them."""
        return self.synchronizer.collection.document_store.store.lasting

    @property
    def waiting(self) -> list[str]:
        """Return the paths of uploads that are being read."""
        return list(self.synchronizer.collection.uploads.waiting)

    def pending_uploads(self, asker: Asker) -> list[Doc]:
        """Return uploads that are being read for the first time, for those who may change
        documents; only their paths are known yet.
        """
        collection = self.synchronizer.collection
        docs = [
            doc
            for doc in list(collection.uploads.waiting.values())
            if asker.documents and doc.path not in collection.by_path
        ]
        return [doc for doc in docs if self.access.may_read(asker, doc, collection.documents)]

    def read(self, path: str) -> None:
        """Read an uploaded file into the index; block until done."""
        self.synchronizer.collection.read_upload(path, path.rsplit("/", 1)[-1])

    def remove(self, doc: Doc) -> None:
        """Remove an uploaded document; raise Conflict for a file of the knowledge folder."""
        if not self.synchronizer.collection.uploads.holds(doc.file):
            raise Conflict(
                f"`{doc.path}` is a file of the knowledge folder.",
                "Delete the file there; answers stop using it at once.",
            )
        self.synchronizer.collection.remove(doc)

    def counts(self, asker: Asker) -> DocumentCounts:
        """Count the documents and passages that this asker may read."""
        mine = self._mine(asker)
        failed = sum(doc.state == "failed" for doc in mine)
        return DocumentCounts(
            documents=len(mine) - failed, failed=failed, passages=sum(doc.passages for doc in mine)
        )

    def state(self) -> DocumentsState:
        """Return how all documents are, whoever may read them, for metrics."""
        return self.synchronizer.state.read()

    def dense_state(self, asker: Asker) -> str:
        """Return how many passages are searchable by meaning; as a percentage for those who may not
        know how many there are.
        """
        return self.synchronizer.dense_state(counted=self._may_count(asker))

    def _may_count(self, asker: Asker) -> bool:
        known = self.synchronizer.collection.known
        return self.access.document_filter(asker, None, known.documents, known.epoch) is None

    def status(self, asker: Asker) -> dict[str, Any]:
        """Return how far the reading is; in percent for those who may not know how many documents
        there are.
        """
        status = self.synchronizer.status()
        if asker.everything:
            return status
        del status["sources"]
        if self._may_count(asker):
            return status
        share = {"total": 100, "seen": int(100 * self.read_share)}
        return {
            "ready": status["ready"],
            "scanning": status["scanning"],
            "dense": self.dense_state(asker),
            **share,
        }

    def examples(self, asker: Asker, limit: int = 3) -> list[str]:
        """Return headings that are questions, the first of each document, as suggestions."""
        asked = self.synchronizer.collection.example_questions()
        return [asked[doc.id] for doc in self.documents(asker) if doc.id in asked][:limit]


def _hits(ranked: Sequence[Ranked]) -> list[Hit]:
    return [Hit(passage=each.passage, score=each.score) for each in ranked]
