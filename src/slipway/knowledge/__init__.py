"""THE ROOM of what we know: files in, ranked places with exact character spans out, each asker's
share of them.

`files` finds documents, `reading` turns each into passages (in a child process: `parsing`,
`readers`), `document_store` keeps them, `index` ranks them; `collection` does all of that in batches that
survive a crash, `synchronizer` does it again whenever a file changes, `access` says who may read what.
"""

import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from secrets import token_hex
from typing import IO, Any

from slipway.errors import Conflict, SettingsError
from slipway.knowledge import answerability as answerable
from slipway.knowledge import files, fusion
from slipway.knowledge.access import Access
from slipway.knowledge.best_passage import READ, spotted
from slipway.knowledge.collection import Collection, Done
from slipway.knowledge.dense import Dense
from slipway.knowledge.document_store import Doc, Row
from slipway.knowledge.embedding import EMBEDDERS, is_folder
from slipway.knowledge.embedding import opened as embedder_of
from slipway.knowledge.fusion import Ranked
from slipway.knowledge.search_slots import SearchSlots
from slipway.knowledge.sync import Synchronizer
from slipway.store import Store
from slipway.types import Asker, Hit, Passage, Record, Within

__all__ = ["OFF", "Counts", "Done", "Findings", "Knowledge", "check", "opened"]

_NEEDED = (
    "tantivy",
    "selectolax",
    "pypdfium2",
    "python_calamine",
    "watchfiles",
)  # the extra `knowledge`; imported where they are used, so that a gateway never loads them
OFF = "none"  # no embedding: search is by keywords only
_RERANK_S = 1.0  # how long a reranker may take
_TURNS = SearchSlots(
    (os.cpu_count() or 1) + 1
)  # of all searches in this process; one more than cores, since each waits a little for the others
_REFRESHES = 3  # how often a question waits for files that changed


Rerank = Callable[[str, Sequence[str]], Sequence[float]]
log = logging.getLogger("slipway")


@cache
def _rerankers() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(2, thread_name_prefix="slipway rerank")


class Findings(Record, frozen=True, kw_only=True):
    """`sureness` is the probability, from 0 to 1, that the places answer, where half of the
    questions have an answer.
    """

    hits: list[Hit]
    sureness: float


class Counts(Record, frozen=True, kw_only=True):
    documents: int
    failed: int
    passages: int


def check(sources: Sequence[Path], embedding: str = OFF) -> None:
    """Raises SettingsError where a source does not exist or has nothing to read, where the extra is
    not installed, or where there is no such embedding; its weights need not be here yet.
    """
    if missing := [name for name in _NEEDED if find_spec(name) is None]:
        raise SettingsError(
            [
                f"knowledge needs the extra: pip install 'slipway[knowledge]' (missing: {', '.join(missing)})."
            ]
        )
    if problems := files.problems(sources):
        raise SettingsError(problems)
    if embedding not in (OFF, *EMBEDDERS) and not is_folder(embedding):
        raise SettingsError(
            [
                f"embedding: `{embedding}` is not known; write {', '.join(EMBEDDERS)}, a folder such as ./model, or {OFF}"
            ]
        )


def opened(
    store: Store,
    sources: Sequence[Path],
    *,
    embedding: str = OFF,
    largest_mb: float = 50.0,
    deadline_s: float = 60.0,
) -> Synchronizer:
    """The documents of these folders and files as the store knows them, not yet looked at again.
    Raises SettingsError, as `check` does.
    """
    check(sources, embedding)
    with store.sound():
        collection = Collection(store, sources, largest_mb=largest_mb, deadline_s=deadline_s)
    return Synchronizer(
        collection, None if embedding == OFF else Dense(collection, embedding, embedder_of)
    )


class Knowledge:
    """What an app knows, as its askers may see it: everything here is about the documents that
    `asker` may read, as if there were no others.
    """

    def __init__(
        self, synchronizer: Synchronizer, access: Access | None = None, rerank: Rerank | None = None
    ) -> None:
        """`rerank` scores texts for a question; the places found are put into the order of its
        scores.
        """
        self.synchronizer, self.access, self._rerank = synchronizer, access or Access(), rerank

    def under(self, access: Access) -> "Knowledge":
        """The same documents under other rules."""
        return Knowledge(self.synchronizer, access, self._rerank)

    @property
    def ready(self) -> bool:
        return self.synchronizer.ready

    @property
    def failed(self) -> bool:
        return self.synchronizer.failed

    @property
    def read_share(self) -> float:
        """How far the first reading is, 0 to 1. It tells no number of documents, which not
        everybody may know.
        """
        progress = self.synchronizer.collection.progress
        return progress.seen / progress.total if progress.total else 0.0

    def build(self, tell: Callable[[Done], None] = lambda done: None) -> Done:
        return self.synchronizer.build(tell)

    def find(
        self, text: str, asker: Asker, limit: int = 5, within: Within | None = None
    ) -> Findings:
        """What `search` finds, and how sure it is that it answers. Takes about 15 ms more."""
        ranked = self._fresh(text, asker, limit, within)
        return Findings(
            hits=_hits(self._reranked(text, ranked)[:limit]), sureness=self.sureness(text, ranked)
        )

    def search(
        self, text: str, asker: Asker, limit: int = 5, within: Within | None = None
    ) -> list[Hit]:
        """The places, distinct by path, heading and page, best first, each with its best passage.
        Blocks for a few milliseconds; takes any text.

        Nothing is served from a file that has changed since it was read: it is read again first, or
        left out.
        """
        return _hits(self._reranked(text, self._fresh(text, asker, limit, within))[:limit])

    def _fresh(self, text: str, asker: Asker, limit: int, within: Within | None) -> list[Ranked]:
        """At least `limit` places, if there are as many, and those behind them that tell how far
        the first ones stand out.
        """
        if limit < 1:
            return []
        collection = self.synchronizer.collection
        looked_at = set[str]()  # documents, by path, that were read again for this question
        for last in (*[False] * _REFRESHES, True):
            ranked, documents = self._ranked(text, asker, max(limit, answerable.DEPTH), within)
            docs = {doc.path: doc for each in ranked for doc in [documents[each.passage.id]]}
            stale = [doc for doc in collection.stale(docs.values()) if doc.path not in looked_at]
            if last or not stale:
                break
            looked_at |= collection.refresh(stale)
        left_out = {doc.path for doc in stale}
        return [each for each in ranked if each.passage.path not in left_out]

    def _reranked(self, text: str, ranked: list[Ranked]) -> list[Ranked]:
        """In the order of the reranker's scores; as they were, where it fails or takes too long: it
        is a help, not a condition.
        """
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
        except Exception as error:  # noqa: BLE001 - it is somebody else's code
            log.warning(
                "the reranker failed (%s: %s): the order is kept", type(error).__name__, error
            )
            return ranked

    def _ranked(
        self, text: str, asker: Asker, limit: int, within: Within | None, *, by_meaning: bool = True
    ) -> tuple[list[Ranked], dict[str, Doc]]:
        """Places, best first; and the documents of what was found, by the passages' ids. Where
        documents are replaced meanwhile, what was found of them is neither the old nor the new:
        then it is searched again.
        """
        for _ in range(_REFRESHES):
            with _TURNS:
                ranked, documents, whole = self._searched(text, asker, limit, within, by_meaning)
            if whole:
                break
            self.synchronizer.collection.settle()
        return ranked, documents

    def _searched(
        self, text: str, asker: Asker, limit: int, within: Within | None, by_meaning: bool
    ) -> tuple[list[Ranked], dict[str, Doc], bool]:
        """And whether all that was found is still there."""
        collection, dense = (
            self.synchronizer.collection,
            self.synchronizer.dense if by_meaning else None,
        )
        known = collection.known
        reach = self.access.reach(asker, within, known.documents, known.epoch)
        places = collection.index.search(text, max(limit, fusion.KEYWORD_DEPTH), reach)
        spots = {place.number: place.passages for place in places}
        near = (
            dense.near(
                text,
                max(limit, fusion.DENSE_DEPTH),
                [number for some in spots.values() for number in some],
                reach,
            )
            if dense
            else {}
        )
        stands = {
            number: (place.number, place.document) for place in places for number in place.passages
        }
        stands |= collection.document_store.stands(
            [number for number in near if number not in stands]
        )
        mine = {
            n: place
            for n, (place, document) in stands.items()
            if document in known.documents and (reach is None or document in reach)
        }
        chosen = fusion.order(
            [
                (place.number, place.passage, place.score)
                for place in places
                if place.passage in mine
            ],
            [(mine[n], n, cosine) for n, cosine in near.items() if n in mine],
            limit,
        )
        more = [
            [n for n in spots.get(mine[each.passage], ()) if n != each.passage]
            for each in chosen[:READ]
        ]
        rows = collection.document_store.passages(
            [*(each.passage for each in chosen), *(n for some in more for n in some)]
        )
        ranked = [
            Ranked(
                passage=rows[each.passage].passage,
                score=each.score,
                keyword=each.keyword,
                cosine=each.cosine,
            )
            for each in chosen
            if each.passage in rows
        ]
        whole = len(rows) == len(chosen) + sum(map(len, more)) and len(mine) == len(
            {*near, *stands}
        )
        if whole:
            ranked = spotted(
                text,
                ranked,
                [[(rows[n].passage, near.get(n, 0.0)) for n in some] for some in more],
                collection.index,
            )
        return (
            ranked,
            {row.passage.id: known.documents[row.document] for row in rows.values()},
            whole,
        )

    def ranked(
        self, text: str, asker: Asker, limit: int, *, by_meaning: bool = True
    ) -> list[Ranked]:
        """The places with what speaks for each, for measuring; `by_meaning` off leaves the vectors
        out.
        """
        return self._ranked(text, asker, limit, None, by_meaning=by_meaning)[0]

    def places(self, asker: Asker) -> list[fusion.Place]:
        """All places that there are."""
        document_store, mine = (
            self.synchronizer.collection.document_store,
            [doc.id for doc in self.documents(asker)],
        )
        return list(dict.fromkeys(fusion.place(row.passage) for row in document_store.rows(mine)))

    @property
    def has_vectors(self) -> bool:
        return self.synchronizer.dense is not None and self.synchronizer.dense.serves

    def sureness(self, text: str, ranked: Sequence[Ranked], *, by_meaning: bool = True) -> float:
        """How sure it is, from 0 to 1, that these places answer; told by their words alone until
        all of them have vectors.
        """
        near = by_meaning and all(each.cosine for each in ranked)
        embed = self.synchronizer.dense.embedder(text) if near and self.synchronizer.dense else None
        return answerable.answerable(text, ranked, self.synchronizer.collection.index, embed)

    # The field's name on the wire
    def passage(self, id: str, asker: Asker) -> Passage | None:  # noqa: A002
        """As it is now: None where its document has changed, or may not be read any more."""
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

    def _readable(self, row: Row, asker: Asker) -> bool:
        doc = self.synchronizer.collection.documents.get(row.document)
        return doc is not None and self.access.may_read(asker, doc)

    def documents(self, asker: Asker) -> list[Doc]:
        """Those that failed are for who may do something about them: who may read them is not
        known, since that may stand in them.
        """
        return sorted(self._mine(asker), key=lambda doc: doc.path)

    def _mine(self, asker: Asker) -> list[Doc]:
        known = self.synchronizer.collection.known
        reach = self.access.reach(asker, None, known.documents, known.epoch)
        keeps = asker.documents or asker.everything
        return [
            doc
            for n, doc in known.documents.items()
            if (keeps or doc.state == "done") and (reach is None or n in reach)
        ]

    # The field's name on the wire
    def document(self, id: str, asker: Asker) -> Doc | None:  # noqa: A002
        return next((doc for doc in self._mine(asker) if doc.public == id), None)

    def add(
        self,
        name: str,
        content: IO[bytes],
        asker: Asker,
        tags: frozenset[str],
        groups: frozenset[str] | None,
    ) -> tuple[str, str]:
        """Keeps an uploaded file; (the id of its document, its path). It is read by `read`, and
        lost in no case. It takes the place of an upload of the same name that this asker may read;
        another's, of which nothing must be told, stays.
        """
        collection, uploads = self.synchronizer.collection, self.synchronizer.collection.uploads
        with uploads.changing:
            path = uploads.path_of(name, collection.by_path)
            before = [
                doc
                for doc in (collection.by_path.get(path), uploads.waiting.get(path))
                if doc is not None
            ]
            if not all(self.access.may_read(asker, doc) for doc in before):
                stem, dot, kind = name.rpartition(".")
                name = f"{stem}-{token_hex(4)}{dot}{kind}"
                path = uploads.path_of(name, collection.by_path)
            uploads.keep(name, path, content, tags, groups, asker.owner)
        return collection.document_store.public(path), path

    @property
    def waiting(self) -> list[str]:
        """Uploads that are being read, by their paths."""
        return list(self.synchronizer.collection.uploads.waiting)

    def coming(self, asker: Asker) -> list[Doc]:
        """Uploads that are being read for the first time, for those who may change them: their
        paths, and no more.
        """
        collection = self.synchronizer.collection
        docs = [
            doc
            for doc in list(collection.uploads.waiting.values())
            if asker.documents and doc.path not in collection.by_path
        ]
        return [doc for doc in docs if self.access.may_read(asker, doc)]

    def read(self, path: str) -> None:
        """Reads an uploaded file into the index; blocks."""
        self.synchronizer.collection.take(path, path.rsplit("/", 1)[-1])

    def remove(self, doc: Doc) -> None:
        """Raises Conflict for a document that was not uploaded."""
        if not self.synchronizer.collection.uploads.holds(doc.file):
            raise Conflict(
                f"`{doc.path}` is a file of the knowledge folder.",
                "Remove the file there; it is gone from the answers at once.",
            )
        self.synchronizer.collection.remove(doc)

    def counts(self, asker: Asker) -> Counts:
        mine = self._mine(asker)
        failed = sum(doc.state == "failed" for doc in mine)
        return Counts(
            documents=len(mine) - failed, failed=failed, passages=sum(doc.passages for doc in mine)
        )

    def dense_state(self, asker: Asker) -> str:
        """How many passages are found by their meaning; as a share to those who may not know how
        many there are.
        """
        return self.synchronizer.dense_state(counted=self._may_count(asker))

    def _may_count(self, asker: Asker) -> bool:
        known = self.synchronizer.collection.known
        return self.access.reach(asker, None, known.documents, known.epoch) is None

    def status(self, asker: Asker) -> dict[str, Any]:
        """How far the reading is; in percent to those who may not know how many documents there
        are.
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
        """Headings that are questions, the first of each document: what could be asked."""
        asked = self.synchronizer.collection.asked()
        return [asked[doc.id] for doc in self.documents(asker) if doc.id in asked][:limit]


def _hits(ranked: Sequence[Ranked]) -> list[Hit]:
    return [Hit(passage=each.passage, score=each.score) for each in ranked]
