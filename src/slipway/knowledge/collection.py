"""One set of documents: the files of some folders and what was uploaded beside them, kept on a
document_store, indexed, and kept true.

`scan` brings the document_store to what the files say: new and changed files are read, gone ones dropped,
the rest is left alone. Everything goes in batches: one transaction of the store, then one commit of
the index, so that an end at any moment leaves the document_store whole and the index at most one batch
behind it, which the next start makes good.
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
from slipway.knowledge.document_store import Doc, DocumentStore, Fresh
from slipway.knowledge.freshness import FORMAT, changed_since, is_fresh, is_gone, stamp
from slipway.knowledge.index import Index
from slipway.knowledge.reading import FileReader, Slow, failure
from slipway.knowledge.uploads import Uploads
from slipway.store import Store
from slipway.types import Record

log = logging.getLogger("slipway")
_BATCH_FILES, _BATCH_PASSAGES, _BATCH_S = 256, 2000, 1.0
_QUICK_S = 5.0  # a file that takes longer waits until the others are read


class Done(Record, frozen=True, kw_only=True):
    """How far a scan is, and what it has done: counts of files."""

    total: int = 0
    seen: int = 0
    read: int = 0
    failed: int = 0
    unchanged: int = 0
    dropped: int = 0


class Known(Record, frozen=True, kw_only=True):
    """What is known at one moment: documents by their numbers and by their paths. It is replaced,
    never changed; `epoch` tells one from another.
    """

    epoch: int
    documents: Mapping[int, Doc]
    by_path: Mapping[str, Doc]


class Collection:
    """`sources` are folders and files. Whoever holds `changing` sees document_store, index and what is known
    at one moment.
    """

    def __init__(
        self,
        store: Store,
        sources: Sequence[Path],
        *,
        largest_mb: float = 50.0,
        deadline_s: float = 60.0,
    ) -> None:
        self.sources, self.store = tuple(sources), store
        name = os.fsencode("\0".join(str(source.resolve()) for source in sources)).decode(
            "utf-8", "backslashreplace"
        )
        self.document_store = DocumentStore(store, name)
        home = store.folder.resolve() / "knowledge" / hashlib.sha256(name.encode()).hexdigest()[:16]
        self.uploads = Uploads(home, self.document_store)
        self.reader = FileReader(
            self.document_store, self.uploads, largest_mb=largest_mb, deadline_s=deadline_s
        )
        owner = hashlib.sha256(store.secret).hexdigest()[:16]
        self.index = Index(home / "index", owner)
        self.known = Known(epoch=0, documents={}, by_path={})
        self.progress = Done()
        self.changed: Callable[[Sequence[Doc], Sequence[int]], None] = lambda put, dropped: (
            None
        )  # told of each batch: who embeds, listens
        self.changing = RLock()
        self._refreshing = Lock()  # a file that several questions hit is read once
        self._asked: tuple[int, Mapping[int, str]] = (-1, {})
        self._slow: dict[
            str, int
        ] = {}  # files, by path, that were too slow for a question, with their stamps
        self._know(self.document_store.documents())
        self._bring_index()

    # from the store

    def _bring_index(self) -> None:
        """The index brought up to the document_store: after an end, or an error such as a full disk, between
        the two.
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
        self.index.update((), self.document_store.gone(at), to)
        self.document_store.caught_up(to)

    def _know(self, documents: Iterable[Doc]) -> None:
        by_number = {doc.id: doc for doc in documents}
        self.known = Known(
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

    def found(self) -> list[files.Found]:
        """The files there are now. Sources that cannot be reached just now are left out, with all
        that was read from them.
        """
        lost = self._lost()
        found = files.find(
            self.sources,
            {
                source: [d.file for d in self.documents.values() if _is_under(d.file, [real])]
                for source, real in lost
            },
        )
        return found + self.uploads.found({each.path for each in found})

    def _lost(self) -> list[tuple[Path, str]]:
        """The sources that cannot be reached just now, each with its real path."""
        return [(source, str(source.resolve())) for source in self.sources if not _is_there(source)]

    def scan(
        self,
        tell: Callable[[Done], None] = lambda done: None,
        stop: Callable[[], bool] = lambda: False,
    ) -> Done:
        """Brings the document_store to what the files say; blocks. `tell` hears how far it is; `stop` is
        asked between files.
        """
        with self.changing:
            self._bring_index()
        known, lost = (
            self.by_path,
            [real for _, real in self._lost()],
        )  # first: what comes while the files are looked for is not gone
        found = self.found()
        there = {each.path for each in found}
        lost += [real for _, real in self._lost()] + [
            each.file for each in found if each.unreachable
        ]
        gone = [
            doc.id
            for doc in known.values()
            if doc.path not in there and not _is_under(doc.file, lost)
        ]
        new = [each for each in found if not self._is_known(each)]
        done = Done(
            total=len(found),
            seen=len(found) - len(new),
            unchanged=len(found) - len(new),
            dropped=len(gone),
        )
        self._tell(done, tell)
        if gone:
            self._put((), gone)
        done, slow = self._read_all(new, done, _QUICK_S, tell, stop)
        if not stop():
            self.document_store.complete() if not self.scanned else None
            done, _ = self._read_all(slow, done, None, tell, stop)
        return done

    def _is_known(self, found: files.Found) -> bool:
        doc = self.by_path.get(found.path)
        if doc is None or (doc.stamp, doc.size, doc.file, doc.home, doc.format) != (
            found.stamp,
            found.size,
            found.file,
            found.home,
            FORMAT,
        ):
            return False
        return not found.refused or doc.state == "failed"

    def _read_all(
        self,
        new: Sequence[files.Found],
        done: Done,
        within_s: float | None,
        tell: Callable[[Done], None],
        stop: Callable[[], bool],
    ) -> tuple[Done, list[files.Found]]:
        """Reads these and puts them in batches; those that took too long come back where a longer
        time is left for them.
        """
        batch, slow = _Batch(), list[files.Found]()
        for each in new:
            if stop():
                break
            try:
                outcome = self.reader.read(each, self.by_path.get(each.path), within_s)
            except Slow:
                slow.append(each)
                continue
            if stop():  # what ended because we end is not the file's fault
                break
            batch.add(outcome)
            done = _counted(done, outcome)
            if batch.full:
                self._flush(batch)
            self._tell(done, tell)
        self._flush(batch)
        self._tell(done, tell)
        return done, slow

    def _tell(self, done: Done, tell: Callable[[Done], None]) -> None:
        self.progress = done
        tell(done)

    def _flush(self, batch: "_Batch") -> None:
        self._put(batch.fresh, ())
        if batch.touched:
            with self.changing:
                self.document_store.touched(batch.touched)
                self._know(
                    {
                        **self.documents,
                        **{doc.id: doc for doc in batch.touched if doc.id in self.documents},
                    }.values()
                )
        batch.clear()

    def _put(self, fresh: Sequence[Fresh], gone: Sequence[int]) -> None:
        """The only way into document_store and index. What was read before the file changed again is left
        out: it is read again.
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
            kept = (doc for doc in self.documents.values() if doc.id not in out)
            try:
                self._index(put, sorted(out))
            finally:
                self.changed(put, sorted(out))
                self._know([*kept, *put])
                self.uploads.arrived(put)
        for doc in put:
            if doc.state == "failed" and (doc.path, doc.reason) not in known:
                log.warning("%s was left out: %s", doc.path, failure(doc))

    def _index(self, put: Sequence[Doc], out: Sequence[int]) -> None:
        generation = self.document_store.generation
        if self.index.generation < generation - 1:
            self._bring_index()
            return
        self.index.update(
            self.document_store.rows([doc.id for doc in put if doc.passages]), out, generation
        )
        self.document_store.caught_up(generation)

    def settle(self) -> None:
        """Waits until the change that is under way is complete in document_store, index and vectors."""
        with self.changing:
            pass

    def asked(self) -> Mapping[int, str]:
        """See `DocumentStore.asked`; kept until something changes, since it looks through all passages."""
        epoch, asked = self._asked
        if epoch != self.known.epoch:
            epoch = self.known.epoch
            asked = self.document_store.asked()
            self._asked = (epoch, asked)
        return asked

    def stale(self, docs: Iterable[Doc]) -> list[Doc]:
        """Those whose files are no longer what was read. Where a whole source cannot be reached,
        what was read of it still counts.
        """
        return [doc for doc in docs if not is_fresh(doc) and self._reachable(doc)]

    def _reachable(self, doc: Doc) -> bool:
        return not _is_under(doc.file, [real for _, real in self._lost()])

    def refresh(self, stale: Iterable[Doc], within_s: float = 2.0) -> set[str]:
        """Reads these documents again, now; those whose files are gone are dropped. The paths of
        those that could be read in that time.
        """
        batch, gone, read = _Batch(), list[int](), set[str]()
        with self._refreshing:
            for doc in stale:
                now = self.by_path.get(doc.path)
                if now is None or (
                    now is not doc and is_fresh(now)
                ):  # another question has seen to it
                    continue
                try:
                    stat = os.stat(doc.file, follow_symlinks=False)  # noqa: PTH116
                    found = files.Found(
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
                except Slow:
                    self._slow[doc.path] = found.stamp
                    log.info("%s is being read again", doc.path)
            self._put((), gone)
            self._flush(batch)
        return read

    # uploads

    def take(self, path: str, name: str) -> None:
        """Reads an upload now, however long it may take."""
        batch = _Batch()
        try:
            batch.add(self.reader.read(self.uploads.look(path, name), self.by_path.get(path)))
            self._flush(batch)
        except FileNotFoundError:
            log.info("%s was removed before it was read", path)
        finally:
            self.uploads.waiting.pop(path, None)

    def remove(self, doc: Doc) -> None:
        """Deletes an upload: its file, and at once what was read of it."""
        with self.uploads.changing:
            self.uploads.drop(doc.file)
            self._put((), [now.id] if (now := self.by_path.get(doc.path)) else [])

    def rest(self) -> None:
        """Ends the child processes, and gives memory back; the next file to be read starts them
        again.
        """
        with self.changing:
            self.index.rest()
        self.reader.rest()


class _Batch:
    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.fresh: list[Fresh] = []
        self.touched: list[Doc] = []
        self._passages, self._since = 0, time.monotonic()

    def add(self, outcome: Fresh | Doc) -> None:
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


def _counted(done: Done, outcome: Fresh | Doc) -> Done:
    failed = isinstance(outcome, Fresh) and outcome.doc.state == "failed"
    kind: Literal["failed", "read", "unchanged"] = (
        "failed" if failed else "read" if isinstance(outcome, Fresh) else "unchanged"
    )
    return msgspec.structs.replace(done, seen=done.seen + 1, **{kind: getattr(done, kind) + 1})


def _is_under(file: str, folders: Sequence[str]) -> bool:
    return any(
        file == folder or file.startswith(folder.rstrip(os.sep) + os.sep) for folder in folders
    )


def _batches(numbers: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    yield from (numbers[at : at + size] for at in range(0, len(numbers), size))
