"""One set of documents: the files of some folders and the uploads, stored and indexed.

`scan` makes the store match the files: it reads new and changed files, drops deleted ones, and
leaves the rest alone. It works in batches: one transaction of the store, then one commit of the
index. If the process ends at any moment, the store is whole and the index at most one batch behind;
the next start makes up for that.
"""

import hashlib
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from threading import Lock, RLock
from typing import Literal

import msgspec

from slipway.knowledge import files
from slipway.knowledge.document_store import Doc, DocumentStore, ReadDocument
from slipway.knowledge.freshness import changed_since, is_fresh, is_gone, stamp
from slipway.knowledge.index import Index
from slipway.knowledge.reading import FileReader, NeedsMoreTime, failure_text
from slipway.knowledge.uploads import Uploads
from slipway.store import Store
from slipway.types import Record

log = logging.getLogger("slipway")
_BATCH_FILES, _BATCH_PASSAGES, _BATCH_S = 256, 2000, 1.0
_QUICK_S = 5.0  # a file that takes longer is read after the others


class ScanProgress(Record, frozen=True, kw_only=True):
    """How far a scan is and what it did, in counts of files."""

    total: int = 0
    seen: int = 0
    read: int = 0
    failed: int = 0
    unchanged: int = 0
    dropped: int = 0


class KnownDocuments(Record, frozen=True, kw_only=True):
    """A snapshot of the documents by number and by path. It is replaced, never changed; each has
    another `epoch`.
    """

    epoch: int
    documents: Mapping[int, Doc]
    by_path: Mapping[str, Doc]


class Collection:
    """The documents of `sources` (folders and files). Hold `changing` to see store, index and
    `known` in one consistent state.
    """

    def __init__(
        self,
        store: Store,
        sources: Sequence[Path],
        *,
        largest_mb: float = 50.0,
        deadline_s: float = 60.0,
        ocr: bool = False,
    ) -> None:
        self.sources, self.store = tuple(sources), store
        name = os.fsencode("\0".join(str(source.resolve()) for source in sources)).decode(
            "utf-8", "backslashreplace"
        )
        self.document_store = DocumentStore(store, name)
        home = store.folder.resolve() / "knowledge" / hashlib.sha256(name.encode()).hexdigest()[:16]
        self.uploads = Uploads(home, self.document_store)
        self.reader = FileReader(
            self.document_store,
            self.uploads,
            largest_mb=largest_mb,
            deadline_s=deadline_s,
            ocr=ocr,
        )
        owner = hashlib.sha256(store.secret).hexdigest()[:16]
        self.index = Index(home / "index", owner)
        self.known = KnownDocuments(epoch=0, documents={}, by_path={})
        self.progress = ScanProgress()
        self.on_change: Callable[[Sequence[Doc], Sequence[int]], None] = lambda put, dropped: (
            None
        )  # called after each batch; the embedding thread subscribes
        self.changing = RLock()
        self._refreshing = Lock()  # so that a changed file is read once for several questions
        self._examples: tuple[int, Mapping[int, str]] = (-1, {})
        self._slow: dict[str, int] = {}  # path -> stamp of files that a question could not wait for
        # Seconds since the epoch. Before the first scan ends, it counts from now
        self.checked_at = time.time()
        self._set_known(self.document_store.documents())
        self.changed_at = max((doc.read_at for doc in self.documents.values()), default=0.0)
        self._update_index()

    # from the store

    def _update_index(self) -> None:
        """Bring the index up to the store, for example after a crash or a full disk between the
        two.
        """
        at, to = self.index.generation, self.document_store.generation
        if at > to or (at == 0 and len(self.index)):
            self.index.clear()
            at = 0
        if at == to:
            return
        for some in _batches(
            [doc.id for doc in self.document_store.documents(since=at)]
            if at
            else list(self.documents),
            _BATCH_PASSAGES // 10,
        ):
            self.index.update(self.document_store.rows(some), some, at)
        self.index.update((), self.document_store.dropped_since(at), to)
        self.document_store.forget_dropped(to)

    def _set_known(self, documents: Iterable[Doc]) -> None:
        by_number = {doc.id: doc for doc in documents}
        self.known = KnownDocuments(
            epoch=self.known.epoch + 1,
            documents=by_number,
            by_path={doc.path: doc for doc in by_number.values()},
        )

    @property
    def documents(self) -> Mapping[int, Doc]:
        return self.known.documents

    @property
    def by_path(self) -> Mapping[str, Doc]:
        return self.known.by_path

    @property
    def scanned(self) -> bool:
        return self.document_store.scanned

    # from the files

    def found(self) -> list[files.FoundFile]:
        """List the files there are now, without those of sources that cannot be reached now."""
        lost = self._unreachable()
        found = files.find(
            self.sources,
            {
                source: [d.file for d in self.documents.values() if _is_under(d.file, [real])]
                for source, real in lost
            },
        )
        return found + self.uploads.found({each.path for each in found})

    def _unreachable(self) -> list[tuple[Path, str]]:
        """List the sources that cannot be reached now, each with its real path."""
        return [(source, str(source.resolve())) for source in self.sources if not _is_there(source)]

    def scan(
        self,
        report: Callable[[ScanProgress], None] = lambda done: None,
        stop: Callable[[], bool] = lambda: False,
    ) -> ScanProgress:
        """Make the store match the files; block until done. `report` is called with the progress;
        `stop` is checked between files.
        """
        with self.changing:
            self._update_index()
        known, lost = (
            self.by_path,
            [real for _, real in self._unreachable()],
        )  # read before the files are listed: a file that arrives meanwhile is not gone
        found = self.found()
        there = {each.path for each in found}
        lost += [real for _, real in self._unreachable()] + [
            each.file for each in found if each.unreachable
        ]
        gone = [
            doc.id
            for doc in known.values()
            if doc.path not in there and not _is_under(doc.file, lost)
        ]
        new = [each for each in found if not self._is_known(each)]
        done = ScanProgress(
            total=len(found),
            seen=len(found) - len(new),
            unchanged=len(found) - len(new),
            dropped=len(gone),
        )
        self._report(done, report)
        if gone:
            self._put((), gone)
        done, slow = self._read_all(new, done, _QUICK_S, report, stop)
        if not stop():
            self.document_store.mark_scanned() if not self.scanned else None
            done, _ = self._read_all(slow, done, None, report, stop)
        if not stop() and not lost:
            self.checked_at = time.time()
        return done

    def _is_known(self, found: files.FoundFile) -> bool:
        doc = self.by_path.get(found.path)
        if doc is None or (doc.stamp, doc.size, doc.file, doc.home, doc.format) != (
            found.stamp,
            found.size,
            found.file,
            found.home,
            self.reader.format,
        ):
            return False
        return not found.refused or doc.state == "failed"

    def _read_all(
        self,
        new: Sequence[files.FoundFile],
        done: ScanProgress,
        within_s: float | None,
        report: Callable[[ScanProgress], None],
        stop: Callable[[], bool],
    ) -> tuple[ScanProgress, list[files.FoundFile]]:
        """Read files and store them in batches. Return those that need more than `within_s`, to be
        read later.
        """
        batch, slow = _Batch(), list[files.FoundFile]()
        for each in new:
            if stop():
                break
            try:
                outcome = self.reader.read(each, self.by_path.get(each.path), within_s)
            except NeedsMoreTime:
                slow.append(each)
                continue
            if stop():  # reading fails when the process stops; that is not a fault of the file
                break
            batch.add(outcome)
            done = _counted(done, outcome)
            if batch.full:
                self._flush(batch)
            self._report(done, report)
        self._flush(batch)
        self._report(done, report)
        return done, slow

    def _report(self, done: ScanProgress, report: Callable[[ScanProgress], None]) -> None:
        self.progress = done
        report(done)

    def _flush(self, batch: "_Batch") -> None:
        self._put(batch.fresh, ())
        if batch.touched:
            with self.changing:
                self.document_store.update_stamps(batch.touched)
                self._set_known(
                    {
                        **self.documents,
                        **{doc.id: doc for doc in batch.touched if doc.id in self.documents},
                    }.values()
                )
        batch.clear()

    def _put(self, fresh: Sequence[ReadDocument], gone: Sequence[int]) -> None:
        """Write a batch to store and index; nothing else does. Documents whose file changed again
        meanwhile are left out, since they are read again.
        """
        with self.changing:
            fresh = [each for each in fresh if not changed_since(each.doc)]
            if not fresh and not gone:
                return
            known = {
                (doc.path, doc.reason) for each in fresh if (doc := self.by_path.get(each.doc.path))
            }
            out = {
                *gone,
                *(
                    self.by_path[each.doc.path].id
                    for each in fresh
                    if each.doc.path in self.by_path
                ),
            }
            put = self.document_store.put(fresh, gone)
            self.changed_at = time.time()
            kept = (doc for doc in self.documents.values() if doc.id not in out)
            try:
                self._index(put, sorted(out))
            finally:
                self.on_change(put, sorted(out))
                self._set_known([*kept, *put])
                self.uploads.forget_waiting(put)
        for doc in put:
            if doc.state != "done" and (doc.path, doc.reason) not in known:
                how = "left out" if doc.state == "failed" else "read only in part"
                log.warning("%s was %s: %s", doc.path, how, failure_text(doc))

    def _index(self, put: Sequence[Doc], out: Sequence[int]) -> None:
        generation = self.document_store.generation
        if self.index.generation < generation - 1:
            self._update_index()
            return
        self.index.update(
            self.document_store.rows([doc.id for doc in put if doc.passages]), out, generation
        )
        self.document_store.forget_dropped(generation)

    def wait_for_changes(self) -> None:
        """Wait until a running change is complete in store, index and vectors."""
        with self.changing:
            pass

    def example_questions(self) -> Mapping[int, str]:
        """Return `DocumentStore.example_questions`, cached until documents change: it reads all
        passages.
        """
        epoch, asked = self._examples
        if epoch != self.known.epoch:
            epoch = self.known.epoch
            asked = self.document_store.example_questions()
            self._examples = (epoch, asked)
        return asked

    def stale(self, docs: Iterable[Doc]) -> list[Doc]:
        """Return the documents whose files changed since they were read. Documents of a source that
        cannot be reached count as unchanged.
        """
        return [doc for doc in docs if not is_fresh(doc) and self._reachable(doc)]

    def _reachable(self, doc: Doc) -> bool:
        return not _is_under(doc.file, [real for _, real in self._unreachable()])

    def refresh(self, stale: Iterable[Doc], within_s: float = 2.0) -> set[str]:
        """Read changed documents again and drop deleted ones. Return the paths of those that could
        be read within `within_s`.
        """
        batch, gone, read = _Batch(), list[int](), set[str]()
        with self._refreshing:
            for doc in stale:
                now = self.by_path.get(doc.path)
                if now is None or (
                    now is not doc and is_fresh(now)
                ):  # another question has refreshed it
                    continue
                try:
                    stat = os.stat(doc.file, follow_symlinks=False)  # noqa: PTH116
                    found = files.FoundFile(
                        path=doc.path,
                        file=doc.file,
                        home=doc.home,
                        stamp=stamp(stat),
                        size=stat.st_size,
                    )
                    if self._slow.get(doc.path) != found.stamp:
                        batch.add(self.reader.read(found, now, within_s))
                        read.add(doc.path)
                except OSError as error:
                    gone += [now.id] if is_gone(error) else []
                except NeedsMoreTime:
                    self._slow[doc.path] = found.stamp
                    log.info("%s is being read again", doc.path)
            self._put((), gone)
            self._flush(batch)
        return read

    # uploads

    def read_upload(self, path: str, name: str) -> None:
        """Read an upload now, with the full deadline."""
        batch = _Batch()
        try:
            batch.add(self.reader.read(self.uploads.locate(path, name), self.by_path.get(path)))
            self._flush(batch)
        except FileNotFoundError:
            log.info("%s was removed before it was read", path)
        finally:
            self.uploads.waiting.pop(path, None)

    def remove(self, doc: Doc) -> None:
        """Delete an upload: its file, and at once its passages."""
        with self.uploads.changing:
            self.uploads.drop(doc.file)
            self._put((), [now.id] if (now := self.by_path.get(doc.path)) else [])

    def release(self) -> None:
        """End the child processes and give memory back; the next file starts them again."""
        with self.changing:
            self.index.rest()
        self.reader.stop_idle()


class _Batch:
    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.fresh: list[ReadDocument] = []
        self.touched: list[Doc] = []
        self._passages, self._since = 0, time.monotonic()

    def add(self, outcome: ReadDocument | Doc) -> None:
        if isinstance(outcome, Doc):
            self.touched.append(outcome)
        else:
            self.fresh.append(outcome)
            self._passages += len(outcome.passages)

    @property
    def full(self) -> bool:
        files = len(self.fresh) + len(self.touched)
        return (
            files >= _BATCH_FILES
            or self._passages >= _BATCH_PASSAGES
            or time.monotonic() - self._since > _BATCH_S
        )


def _is_there(source: Path) -> bool:
    try:
        return source.exists()
    except OSError:
        return False


def _counted(done: ScanProgress, outcome: ReadDocument | Doc) -> ScanProgress:
    failed = isinstance(outcome, ReadDocument) and outcome.doc.state == "failed"
    kind: Literal["failed", "read", "unchanged"] = (
        "failed" if failed else "read" if isinstance(outcome, ReadDocument) else "unchanged"
    )
    return msgspec.structs.replace(done, seen=done.seen + 1, **{kind: getattr(done, kind) + 1})


def _is_under(file: str, folders: Sequence[str]) -> bool:
    return any(
        file == folder or file.startswith(folder.rstrip(os.sep) + os.sep) for folder in folders
    )


def _batches(numbers: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    yield from (numbers[at : at + size] for at in range(0, len(numbers), size))
