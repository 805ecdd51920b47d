"""Hold the vectors of a collection in memory, and make missing ones in a background thread.

If the settings name another model than the stored vectors have, the old vectors are used until the
new ones are complete. New passages are found by keywords until they have a vector.
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
from slipway.knowledge.keyword_table import DocumentFilter
from slipway.types import Record

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from slipway.knowledge.vectors import Vectors

log = logging.getLogger("slipway")
_BATCH = 32  # passages embedded in one transaction
_NICE = 10  # priority of the background thread, below that of questions
_LOADED = 4096  # vectors loaded into memory at once
_MASKS = 64
_FORGET_AFTER = 5000  # after so many new vectors, unused ones are deleted, which reads them all
_OPEN_AGAIN_S = 30.0  # seconds between two tries to open the weights

Opener = Callable[
    [str], Embedder
]  # raises WeightsError, SettingsError or ImportError if the model is not available


class ModelVectors(Record, frozen=True, kw_only=True):
    """A model with its vectors."""

    embedder: Embedder
    vectors: "Vectors"


class Dense:
    """`wanted` names a model as the settings do; `opener` makes its embedder. `off` says why there
    are no vectors; it is empty if there are.
    """

    def __init__(self, collection: Collection, wanted: str, opener: Opener) -> None:
        self.collection, self.wanted = collection, wanted
        self.off = ""
        self._opener = opener
        self._serving: ModelVectors | None = None
        self._filled: list[
            ModelVectors
        ] = []  # models that receive changes: serving, coming, and one being loaded
        self._coming: ModelVectors | None = None  # set while another model serves
        self._masks: dict[int, tuple[DocumentFilter, NDArray[np.bool_]]] = {}
        self._first: dict[
            int, tuple[int, int]
        ] = {}  # document -> (number of its first passage, count)
        self._alive: set[int] = set()  # numbers of the existing passages
        self._lock = threading.Lock()  # of the three above
        self._made = (
            _FORGET_AFTER - 1
        )  # vectors made since unused ones were deleted; the first deletion comes soon
        self._stop, self._more = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None
        collection.on_change = self._on_change

    # asked

    def nearest(
        self, text: str, limit: int, also: Iterable[int], visible: DocumentFilter | None
    ) -> dict[int, float]:
        """Return cosines of the `limit` nearest passages within visible, and of those in `also`;
        empty if no model serves or it does not know the question's script.
        """
        serving = self._serving
        if serving is None or not len(serving.vectors) or not serving.embedder.understands(text):
            return {}
        query = serving.embedder.embed_query(text)
        found = dict(
            serving.vectors.search(query, limit, None if visible is None else self._mask(visible))
        )
        return found | serving.vectors.compare(
            query, [number for number in also if number not in found]
        )

    @property
    def is_ready(self) -> bool:
        """Return whether a model with vectors serves."""
        return self._serving is not None

    @property
    def version(self) -> str:
        """Name the model that serves, and how many passages it can find."""
        serving = self._serving
        return f"{self.wanted}:{len(serving.vectors)}" if serving is not None else ""

    def embedder(self, text: str) -> "Callable[[str], NDArray[np.float32]] | None":
        """Return the function that embeds texts like this one; None without a model, or if the
        model does not know its script.
        """
        serving = self._serving
        return (
            serving.embedder.embed_query
            if serving is not None and serving.embedder.understands(text)
            else None
        )

    def _mask(self, visible: DocumentFilter) -> "NDArray[np.bool_]":
        """Return a mask over passage numbers: whether each is within visible. Cached by visible."""
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
        """Return `120/232` (passages with a vector; a percentage if not `counted`), or why there
        are none.
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
            else f"{parts[0]} by the previous model, {parts[1]} by the new one"
        )

    @property
    def loaded(self) -> set[int]:
        """Numbers of the passages whose vectors of the wanted model are in memory."""
        served = self._coming or self._serving
        return served.vectors.ids if served else set()

    # kept

    def start(self) -> None:
        """Start the background thread."""
        self._thread = threading.Thread(target=self._run, name="slipway embedding", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with suppress(OSError, AttributeError):  # systems without priorities for threads
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
        while not self.open():
            if self._stop.wait(_OPEN_AGAIN_S):
                return
        while not self._stop.is_set():
            self._more.clear()
            try:
                self.embed(threads=1)
            except Exception:  # keep the thread alive: the next batch makes what is missing
                log.exception("Passages could not be embedded; trying again with the next change")
            self._more.wait()

    def open(self) -> bool:
        """Open the wanted model and load its vectors. Return False if it is not available; `off`
        then says why.
        """
        from slipway.errors import SlipwayError

        try:
            wanted = self._load(self._opener(self.wanted))
        except Exception as error:  # noqa: BLE001 - damaged model files raise anything
            why = (
                f"{error.what} {error.next}".strip()
                if isinstance(error, SlipwayError)
                else f"{self.wanted} cannot be used ({error})"
            )
            if self.off != (off := f"off: {why}"):
                log.warning("Search uses keywords only: %s", why)
            self.off = off
            return False
        self.off = ""
        before = None if self._is_complete(wanted) else self._before(wanted)
        self._serving, self._coming = (before, wanted) if before else (wanted, None)
        self._filled = [each for each in (before, wanted) if each]
        self.collection.document_store.note_model(wanted.embedder.model, self.wanted)
        return True

    def _load(self, embedder: Embedder) -> ModelVectors:
        from slipway.knowledge.vectors import Vectors

        served = ModelVectors(embedder=embedder, vectors=Vectors(embedder.dimensions))
        with self._lock:
            self._first = self.collection.document_store.spans()
            self._alive = {number for span in self._first.values() for number in _numbers(span)}
            self._filled = [*self._filled, served]
        self._fill(served, None)
        return served

    def _fill(self, served: ModelVectors, documents: Sequence[int] | None) -> None:
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

    def _is_complete(self, served: ModelVectors) -> bool:
        return not self.collection.document_store.without_vector(served.embedder.model, 0, 1)

    def _before(self, wanted: ModelVectors) -> ModelVectors | None:
        """Return another model that has more vectors and is still available; None if there is none."""
        for model, source in self.collection.document_store.models_before(wanted.embedder.model):
            with suppress(Exception):  # the earlier model is only a stopgap
                embedder = self._opener(source)
                if embedder.model == model:
                    served = self._load(embedder)
                    if len(served.vectors) > len(wanted.vectors):
                        log.info(
                            "Vectors of %s are used until those of %s are complete",
                            model,
                            wanted.embedder.model,
                        )
                        return served
        return None

    def embed(
        self, report: Callable[[int, int], None] = lambda done, total: None, *, threads: int = 1
    ) -> int:
        """Make the missing vectors; block until done. Return how many were made. `report(done,
        total)` counts passages.
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
                report(len(served.vectors), total)
        if len(served.vectors) < len(self._alive):
            self._fill(served, None)  # passages with the same text as another one
        if not self._stop.is_set() and self._coming is served and self._is_complete(served):
            self._serving, self._coming, self._filled = served, None, [served]
            log.info("Vectors of %s are in use now", served.embedder.model)
            self._made = _FORGET_AFTER
        self._made += made
        if self._made >= _FORGET_AFTER and not self._stop.is_set() and self._coming is None:
            self._made = 0
            document_store.forget_vectors(served.embedder.model)
        return made

    def _take(self, served: ModelVectors, rows: "dict[int, NDArray[np.float32]]") -> None:
        """Add vectors of passages that still exist; a document may have been dropped meanwhile."""
        import numpy as np

        with self._lock:
            known = [number for number in rows if number in self._alive]
            if known:
                served.vectors.put(known, np.stack([rows[number] for number in known]))

    def _on_change(self, put: Sequence[Doc], dropped: Sequence[int]) -> None:
        """Take over a stored batch: load the vectors that exist, and have the others made soon."""
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
        """Stop the background thread; wait at most 5 s."""
        self._stop.set()
        self._more.set()
        if self._thread is not None:
            self._thread.join(5)


def _numbers(span: tuple[int, int]) -> range:
    return range(span[0], span[0] + span[1])


def _percent(part: int, whole: int) -> int:
    return 100 * part // whole if whole else 100
