"""The vectors of a collection: those that the store has, in memory, and a thread that makes those
that are missing.

Where another model is wanted than the vectors are of, the old ones serve until the new ones are
complete. New passages are found by their words until they have a vector.
"""

import logging
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING

from slipway.knowledge.collection import Collection
from slipway.knowledge.document_store import Doc
from slipway.knowledge.embedding import Embedder
from slipway.knowledge.index import DocumentFilter
from slipway.types import Record

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from slipway.knowledge.vectors import Vectors

log = logging.getLogger("slipway")
_BATCH = 32  # passages embedded between two transactions
_NICE = 10  # how far the background thread stands back behind questions
_LOADED = 4096  # vectors brought into memory at once
_MASKS = 64
_FORGET_AFTER = 5000  # vectors made; forgetting reads all that there are
_OPEN_AGAIN_S = 30.0  # for weights that were fetched meanwhile

Opener = Callable[
    [str], Embedder
]  # raises WeightsError, SettingsError, ImportError where the model cannot be had


class Served(Record, frozen=True, kw_only=True):
    """A model and the vectors that are of it."""

    embedder: Embedder
    vectors: "Vectors"


class Dense:
    """`wanted` names a model as the settings do; `opener` makes its embedder. `off` says why there
    are no vectors, empty where there are.
    """

    def __init__(self, collection: Collection, wanted: str, opener: Opener) -> None:
        self.collection, self.wanted = collection, wanted
        self.off = ""
        self._opener = opener
        self._serving: Served | None = None
        self._filled: list[
            Served
        ] = []  # all that are told of changes: those two, and one that is being filled
        self._coming: Served | None = None  # where it is another than the one that serves
        self._masks: dict[int, tuple[DocumentFilter, NDArray[np.bool_]]] = {}
        self._first: dict[
            int, tuple[int, int]
        ] = {}  # a document's passages: the first one's number, and how many
        self._alive: set[int] = set()  # the passages that there are
        self._lock = threading.Lock()  # of the three above
        self._made = (
            _FORGET_AFTER - 1
        )  # vectors made since those were forgotten that nothing needs: the first time soon
        self._stop, self._more = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None
        collection.changed = self._changed

    # asked

    def near(
        self, text: str, limit: int, also: Iterable[int], visible: DocumentFilter | None
    ) -> dict[int, float]:
        """Cosines to the question: of the nearest `limit` passages within visible, and of those
        `also` asked for. Empty where nothing is known.
        """
        serving = self._serving
        if serving is None or not len(serving.vectors) or not serving.embedder.reads(text):
            return {}
        query = serving.embedder.embed_query(text)
        found = dict(
            serving.vectors.search(query, limit, None if visible is None else self._mask(visible))
        )
        return found | serving.vectors.compare(
            query, [number for number in also if number not in found]
        )

    @property
    def serves(self) -> bool:
        return self._serving is not None

    def embedder(self, text: str) -> "Callable[[str], NDArray[np.float32]] | None":
        """What gives texts like this one their vectors; None where the model that serves cannot
        read it, and where there is none.
        """
        serving = self._serving
        return (
            serving.embedder.embed_query
            if serving is not None and serving.embedder.reads(text)
            else None
        )

    def _mask(self, visible: DocumentFilter) -> "NDArray[np.bool_]":
        """Over all passages' numbers: whether they are within visible. Kept as long as the same visible
        is asked for.
        """
        import numpy as np

        with self._lock:
            kept = self._masks.get(id(visible))
            if kept is not None and kept[0] is visible:
                return kept[1]
            end = max((first + count for first, count in self._first.values()), default=0)
            mask = np.full(end, visible.excludes)
            for document in visible.documents:
                first, count = self._first.get(document, (0, 0))
                mask[first : first + count] = not visible.excludes
            if len(self._masks) >= _MASKS:
                self._masks.clear()
            self._masks[id(visible)] = (visible, mask)
            return mask

    def state(self, *, counted: bool) -> str:
        """`120/232`: how many passages are found by their meaning; not `counted`, as a share. Or
        why none is.
        """
        serving, coming = self._serving, self._coming
        if self.off or serving is None:
            return self.off or "starting"
        total = sum(doc.passages for doc in self.collection.documents.values())
        parts = [
            f"{len(each.vectors)}/{total}" if counted else f"{_percent(len(each.vectors), total)} %"
            for each in (serving, coming)
            if each
        ]
        return (
            parts[0]
            if coming is None
            else f"{parts[0]} by the model before, {parts[1]} by the new one"
        )

    @property
    def loaded(self) -> set[int]:
        """The numbers of the passages whose vectors of the wanted model are in memory."""
        served = self._coming or self._serving
        return served.vectors.ids if served else set()

    # kept

    def start(self) -> None:
        self._thread = threading.Thread(target=self._keep, name="slipway embedding", daemon=True)
        self._thread.start()

    def _keep(self) -> None:
        with suppress(OSError, AttributeError):  # where threads have no priorities of their own
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
        while not self.open():
            if self._stop.wait(_OPEN_AGAIN_S):
                return
        while not self._stop.is_set():
            self._more.clear()
            try:
                self.embed(threads=1)
            except Exception:  # the thread must live: what is missing is made with the next batch
                log.exception("passages could not be embedded")
            self._more.wait()

    def open(self) -> bool:
        """The model that is wanted, and the vectors that there are. False where it cannot be had:
        `off` says why.
        """
        from slipway.errors import SlipwayError

        try:
            wanted = self._load(self._opener(self.wanted))
        except Exception as error:  # noqa: BLE001 - whatever is in the file of a model, or is not
            why = (
                f"{error.what} {error.next}".strip()
                if isinstance(error, SlipwayError)
                else f"{self.wanted} cannot be used ({error})"
            )
            if self.off != (off := f"off: {why}"):
                log.warning("search is by keywords only: %s", why)
            self.off = off
            return False
        self.off = ""
        before = None if self._is_complete(wanted) else self._before(wanted)
        self._serving, self._coming = (before, wanted) if before else (wanted, None)
        self._filled = [each for each in (before, wanted) if each]
        self.collection.document_store.note_model(wanted.embedder.model, self.wanted)
        return True

    def _load(self, embedder: Embedder) -> Served:
        from slipway.knowledge.vectors import Vectors

        served = Served(embedder=embedder, vectors=Vectors(embedder.dimensions))
        with self._lock:
            self._first = self.collection.document_store.spans()
            self._alive = {number for span in self._first.values() for number in _numbers(span)}
            self._filled = [*self._filled, served]
        self._fill(served, None)
        return served

    def _fill(self, served: Served, documents: Sequence[int] | None) -> None:
        import numpy as np

        numbers, rows = list[int](), list[bytes]()

        def flush() -> None:
            self._take(
                served,
                dict(
                    zip(
                        numbers,
                        np.frombuffer(b"".join(rows), np.float32).reshape(
                            -1, served.embedder.dimensions
                        ),
                        strict=True,
                    )
                ),
            )
            numbers.clear()
            rows.clear()

        for number, row in self.collection.document_store.vectors(served.embedder.model, documents):
            numbers.append(number)
            rows.append(row)
            if len(numbers) >= _LOADED:
                flush()
        flush()

    def _is_complete(self, served: Served) -> bool:
        return not self.collection.document_store.without_vector(served.embedder.model, 0, 1)

    def _before(self, wanted: Served) -> Served | None:
        """The vectors of another model, where there are more of them and that model can still be
        had.
        """
        for model, source in self.collection.document_store.models_before(wanted.embedder.model):
            with suppress(Exception):  # whatever it is, the model before is only a stopgap
                embedder = self._opener(source)
                if embedder.model == model:
                    served = self._load(embedder)
                    if len(served.vectors) > len(wanted.vectors):
                        log.info(
                            "vectors of %s serve until those of %s are made",
                            model,
                            wanted.embedder.model,
                        )
                        return served
        return None

    def embed(
        self, tell: Callable[[int, int], None] = lambda done, total: None, *, threads: int = 1
    ) -> int:
        """Makes the vectors that are missing; blocks. How many were made. `tell(done, total)`
        counts passages.
        """
        served = self._coming or self._serving
        if served is None:
            return 0
        document_store, after, made = self.collection.document_store, 0, 0
        total = sum(doc.passages for doc in self.collection.documents.values())
        with ThreadPoolExecutor(threads, thread_name_prefix="slipway embedding") as pool:
            while not self._stop.is_set() and (
                missing := document_store.without_vector(
                    served.embedder.model, after, _BATCH * threads
                )
            ):
                after = missing[-1][0]
                texts = {key: text for _, key, text in missing}
                rows = dict(
                    zip(
                        texts,
                        pool.map(lambda text: served.embedder.embed([text])[0], texts.values()),
                        strict=True,
                    )
                )
                document_store.put_vectors(
                    served.embedder.model, {key: row.tobytes() for key, row in rows.items()}
                )
                self._take(served, {number: rows[key] for number, key, _ in missing})
                made += len(missing)
                tell(len(served.vectors), total)
        if len(served.vectors) < len(self._alive):
            self._fill(served, None)  # passages with a text that another one has
        if not self._stop.is_set() and self._coming is served and self._is_complete(served):
            self._serving, self._coming, self._filled = served, None, [served]
            log.info("vectors of %s serve now", served.embedder.model)
            self._made = _FORGET_AFTER
        self._made += made
        if self._made >= _FORGET_AFTER and not self._stop.is_set() and self._coming is None:
            self._made = 0
            document_store.forget_vectors(served.embedder.model)
        return made

    def _take(self, served: Served, rows: "dict[int, NDArray[np.float32]]") -> None:
        """Only what is still there: a document may have been dropped meanwhile."""
        import numpy as np

        with self._lock:
            known = [number for number in rows if number in self._alive]
            if known:
                served.vectors.put(known, np.stack([rows[number] for number in known]))

    def _changed(self, put: Sequence[Doc], dropped: Sequence[int]) -> None:
        """A batch was put on the document_store: vectors that are known are taken from there, the others are
        made soon.
        """
        spans = self.collection.document_store.spans([doc.id for doc in put])
        with self._lock:
            out = [self._first.pop(document) for document in dropped if document in self._first]
            gone = [number for span in out for number in _numbers(span)]
            self._first |= spans
            self._alive.difference_update(gone)
            self._alive.update(number for span in spans.values() for number in _numbers(span))
            self._masks.clear()
            for served in self._filled:
                served.vectors.drop(gone)
        for served in self._filled:
            self._fill(served, list(spans))
        self._more.set()

    def close(self) -> None:
        self._stop.set()
        self._more.set()
        if self._thread is not None:
            self._thread.join(5)


def _numbers(span: tuple[int, int]) -> range:
    return range(span[0], span[0] + span[1])


def _percent(part: int, whole: int) -> int:
    return 100 * part // whole if whole else 100
