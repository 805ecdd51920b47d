"""One set of documents: the files of some folders and what was uploaded beside them, kept on a shelf, indexed, and kept true.

`scan` brings the shelf to what the files say: new and changed files are read, gone ones dropped, the rest is left alone. Everything goes in
batches: one transaction of the store, then one commit of the index, so that an end at any moment leaves the shelf whole and the index at
most one batch behind it, which the next start makes good.
"""

import hashlib
import logging
import os
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from collections.abc import Collection as Collected
from pathlib import Path
from queue import LifoQueue
from secrets import token_hex
from shutil import copyfileobj
from stat import S_ISREG
from threading import Lock, RLock
from typing import IO, Literal

import msgspec

from slipway.knowledge import files
from slipway.knowledge.fusion import embedded_text
from slipway.knowledge.index import Index
from slipway.knowledge.parsing import Parser, TooSlow
from slipway.knowledge.passages import passages
from slipway.knowledge.readers import Document, Unreadable
from slipway.knowledge.shelf import Doc, Fresh, Row, Said, Shelf
from slipway.store import Store
from slipway.types import Passage, Record

log = logging.getLogger("slipway")
FORMAT = 1  # of what is made of a file: another number has every file read again
UPLOADS = "uploads"
_BATCH_FILES, _BATCH_PASSAGES, _BATCH_S = 256, 2000, 1.0
_QUICK_S = 5.0  # a file that takes longer waits until the others are read
_SETTLED_NS = 50_000_000  # a file changed less than this before it was read may change again under the same time stamp
_SETTLED_COARSE_NS = 2_500_000_000  # the same where times are kept in whole seconds, or even ones
_UNSETTLED = -1  # a stamp that no file has
_AT_ONCE = 3  # files parsed at once, each in its own process


class Done(Record, frozen=True, kw_only=True):
    """How far a scan is, and what it has done: counts of files."""

    total: int = 0
    seen: int = 0
    read: int = 0
    failed: int = 0
    unchanged: int = 0
    dropped: int = 0


class Known(Record, frozen=True, kw_only=True):
    """What is known at one moment: documents by their numbers and by their paths. It is replaced, never changed; `epoch` tells one from another."""

    epoch: int
    documents: Mapping[int, Doc]
    by_path: Mapping[str, Doc]


class _Slow(Exception):
    """The file was not read in the short time; it gets its long time later."""


class _Unread(Unreadable):
    """The file's bytes could not be had this time."""


class _Unsaid(Unreadable):
    """Who may read an upload is not known."""


class Collection:
    """`sources` are folders and files; `uploads` is a folder of our own."""

    def __init__(self, store: Store, sources: Sequence[Path], *, largest_mb: float = 50.0, deadline_s: float = 60.0) -> None:
        self.sources, self.store = tuple(sources), store
        name = os.fsencode("\0".join(str(source.resolve()) for source in sources)).decode("utf-8", "backslashreplace")
        self.shelf = Shelf(store, name)
        home = store.folder.resolve() / "knowledge" / hashlib.sha256(name.encode()).hexdigest()[:16]
        self.uploads = home / UPLOADS
        owner = hashlib.sha256(store.secret).hexdigest()[:16]
        self.index = Index(home / "index", owner)
        self.known = Known(epoch=0, documents={}, by_path={})
        self.progress = Done()
        self.changed: Callable[[Sequence[Doc], Sequence[int]], None] = lambda put, dropped: None  # told of each batch: who embeds, listens
        self._largest, self._deadline_s = int(largest_mb * 1024 * 1024), deadline_s
        self._change = RLock()
        self.uploading = Lock()  # what is said of an upload, and its file, are changed together
        self.waiting: dict[str, Doc] = {}  # uploads that are not yet read, by path: what is known of them
        self._refreshing = Lock()  # a file that several questions hit is read once
        self._asked: tuple[int, Mapping[int, str]] = (-1, {})
        self._slow: dict[str, int] = {}  # files, by path, that were too slow for a question, with their stamps
        self._all_parsers = [Parser(deadline_s) for _ in range(_AT_ONCE)]
        self._parsers: LifoQueue[Parser] = LifoQueue()
        for parser in self._all_parsers:
            self._parsers.put(parser)
        self._know(self.shelf.documents())
        self._bring_index()

    # from the store

    def _bring_index(self) -> None:
        """The index brought up to the shelf: after an end, or an error such as a full disk, between the two."""
        at, to = self.index.generation, self.shelf.generation
        if at > to or (at == 0 and len(self.index)):
            self.index.clear()
            at = 0
        if at == to:
            return
        for some in _batches([doc.id for doc in self.shelf.documents(since=at)] if at else list(self.documents), _BATCH_PASSAGES // 10):
            self.index.update(self.shelf.rows(some), some, at)
        self.index.update((), self.shelf.gone(at), to)
        self.shelf.caught_up(to)

    def _know(self, documents: Iterable[Doc]) -> None:
        by_number = {doc.id: doc for doc in documents}
        self.known = Known(epoch=self.known.epoch + 1, documents=by_number, by_path={doc.path: doc for doc in by_number.values()})

    @property
    def documents(self) -> Mapping[int, Doc]:
        return self.known.documents

    @property
    def by_path(self) -> Mapping[str, Doc]:
        return self.known.by_path

    @property
    def scanned(self) -> bool:
        return self.shelf.scanned

    # from the files

    def found(self) -> list[files.Found]:
        """The files there are now. Sources that cannot be reached just now are left out, with all that was read from them."""
        lost = self._lost()
        found = files.find(
            self.sources, {source: [d.file for d in self.documents.values() if _is_under(d.file, [real])] for source, real in lost}
        )
        if self.uploads.is_dir():
            taken = {each.path for each in found}
            found += [msgspec.structs.replace(each, path=_free(each.path, taken)) for each in files.find([self.uploads])]
        return found

    def _lost(self) -> list[tuple[Path, str]]:
        """The sources that cannot be reached just now, each with its real path."""
        return [(source, str(source.resolve())) for source in self.sources if not _is_there(source)]

    def scan(self, tell: Callable[[Done], None] = lambda done: None, stop: Callable[[], bool] = lambda: False) -> Done:
        """Brings the shelf to what the files say; blocks. `tell` hears how far it is; `stop` is asked between files."""
        with self._change:
            self._bring_index()
        known, lost = self.by_path, [real for _, real in self._lost()]  # first: what comes while the files are looked for is not gone
        found = self.found()
        there = {each.path for each in found}
        lost += [real for _, real in self._lost()] + [each.file for each in found if each.unreachable]
        gone = [doc.id for doc in known.values() if doc.path not in there and not _is_under(doc.file, lost)]
        new = [each for each in found if not self._is_known(each)]
        done = Done(total=len(found), seen=len(found) - len(new), unchanged=len(found) - len(new), dropped=len(gone))
        self._tell(done, tell)
        if gone:
            self._put((), gone)
        done, slow = self._read_all(new, done, _QUICK_S, tell, stop)
        if not stop():
            self.shelf.complete() if not self.scanned else None
            done, _ = self._read_all(slow, done, self._deadline_s, tell, stop)
        return done

    def _is_known(self, found: files.Found) -> bool:
        doc = self.by_path.get(found.path)
        if doc is None or (doc.stamp, doc.size, doc.file, doc.home, doc.format) != (
            found.stamp, found.size, found.file, found.home, FORMAT,
        ):  # fmt: skip
            return False
        return not found.refused or doc.state == "failed"

    def _read_all(
        self, new: Sequence[files.Found], done: Done, deadline_s: float, tell: Callable[[Done], None], stop: Callable[[], bool]
    ) -> tuple[Done, list[files.Found]]:
        """Reads these and puts them in batches; those that took too long come back where a longer time is left for them."""
        batch, slow = _Batch(), list[files.Found]()
        for each in new:
            if stop():
                break
            try:
                outcome = self._read(each, deadline_s)
            except _Slow:
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
            with self._change:
                self.shelf.touched(batch.touched)
                self._know({**self.documents, **{doc.id: doc for doc in batch.touched if doc.id in self.documents}}.values())
        batch.clear()

    def _put(self, fresh: Sequence[Fresh], gone: Sequence[int]) -> None:
        """The only way into shelf and index. What was read before the file changed again is left out: it is read anew."""
        with self._change:
            fresh = [each for each in fresh if not _changed_since(each.doc)]
            if not fresh and not gone:
                return
            known = {(doc.path, doc.reason) for each in fresh if (doc := self.by_path.get(each.doc.path))}
            out = {*gone, *(self.by_path[each.doc.path].id for each in fresh if each.doc.path in self.by_path)}
            put = self.shelf.put(fresh, gone)
            kept = (doc for doc in self.documents.values() if doc.id not in out)
            try:
                self._index(put, sorted(out))
            finally:
                self.changed(put, sorted(out))
                self._know([*kept, *put])
                for doc in put:
                    if (new := self.waiting.get(doc.path)) and new.version == doc.version:
                        del self.waiting[doc.path]
        for doc in put:
            if doc.state == "failed" and (doc.path, doc.reason) not in known:
                log.warning("%s was left out: %s", doc.path, failure(doc))

    def _index(self, put: Sequence[Doc], out: Sequence[int]) -> None:
        generation = self.shelf.generation
        if self.index.generation < generation - 1:
            self._bring_index()
            return
        self.index.update(self.shelf.rows([doc.id for doc in put if doc.passages]), out, generation)
        self.shelf.caught_up(generation)

    def settle(self) -> None:
        """Waits until the change that is under way is complete in shelf, index and vectors."""
        with self._change:
            pass

    def asked(self) -> Mapping[int, str]:
        """See `Shelf.asked`; kept until something changes, since it looks through all passages."""
        epoch, asked = self._asked
        if epoch != self.known.epoch:
            epoch = self.known.epoch
            asked = self.shelf.asked()
            self._asked = (epoch, asked)
        return asked

    def stale(self, docs: Iterable[Doc]) -> list[Doc]:
        """Those whose files are no longer what was read. Where a whole source cannot be reached, what was read of it still counts."""
        return [doc for doc in docs if not _is_fresh(doc) and self._reachable(doc)]

    def _reachable(self, doc: Doc) -> bool:
        return not _is_under(doc.file, [real for _, real in self._lost()])

    def refresh(self, stale: Iterable[Doc], deadline_s: float = 2.0) -> set[str]:
        """Reads these documents again, now; those whose files are gone are dropped. The paths of those that could be read in that time."""
        batch, gone, read = _Batch(), list[int](), set[str]()
        with self._refreshing:
            for doc in stale:
                now = self.by_path.get(doc.path)
                if now is None or (now is not doc and _is_fresh(now)):  # another question has seen to it
                    continue
                try:
                    stat = os.stat(doc.file, follow_symlinks=False)  # noqa: PTH116
                    found = files.Found(path=doc.path, file=doc.file, home=doc.home, stamp=files.stamp(stat), size=stat.st_size)
                    if self._slow.get(doc.path) != found.stamp:
                        batch.add(self._read(found, deadline_s))
                        read.add(doc.path)
                except OSError as error:
                    gone += [now.id] if files.is_gone(error) else []
                except _Slow:
                    self._slow[doc.path] = found.stamp
                    log.info("%s is being read again", doc.path)
            self._put((), gone)
            self._flush(batch)
        return read

    # checked

    def verify(self) -> list[str]:
        """What does not fit together, a sentence each: shelf, index and vectors against each other, and the shelf against unchanged files."""
        with self._change:
            rows = {row.id: row for row in self.shelf.rows(list(self.documents))}
            parts, places = self.index.numbers()
            wrong = [f"The store is damaged: {each}" for each in self.shelf.damage()]
            wrong += _uneven("passages", parts, rows) + _uneven("places", places, {row.place for row in rows.values()})
            if {doc.id: doc for doc in self.shelf.documents()} != dict(self.documents):
                wrong.append("What the process knows is not what the store has.")
            counted = Counter(row.document for row in rows.values())
            wrong += [f"{doc.path} has {counted[doc.id]} passages, not {doc.passages}." for doc in self.documents.values()
                      if counted[doc.id] != doc.passages]  # fmt: skip
            if odd := self.shelf.vector_keys()[1]:
                wrong.append(f"{odd} vectors have another length than the others.")
        by_document = defaultdict[int, list[Row]](list)
        for row in rows.values():
            by_document[row.document].append(row)
        return wrong + [
            f"{doc.path} is not what its file says." for doc in list(self.documents.values()) if self._differs(doc, by_document)
        ]

    def _differs(self, doc: Doc, rows: Mapping[int, Sequence[Row]]) -> bool:
        """Whether an unchanged file says something else than what is kept of it."""
        if doc.state == "failed" or not _is_fresh(doc):
            return False
        try:
            data, _ = self._bytes(files.Found(path=doc.path, file=doc.file))
            fresh = self._fresh(msgspec.structs.replace(doc, version=_version(hashlib.sha256(data).hexdigest()), groups=()),
                                self._parsed(data, doc.path, self._deadline_s))  # fmt: skip
        except Unreadable:
            return True
        return not _is_fresh(doc) or [row.passage for row in rows[doc.id]] != list(fresh.passages)

    # uploads

    def is_upload(self, file: str) -> bool:
        return Path(file).parent == self.uploads

    def path_of(self, name: str) -> str:
        """Where an upload of that name is, or would be."""
        file = str(self.uploads / name)
        return next((doc.path for doc in self.documents.values() if doc.file == file), _free(name, self.by_path))

    def upload(self, name: str, content: IO[bytes], tags: frozenset[str], groups: frozenset[str] | None, by: str) -> str:
        """Keeps a file beside those of the folders, in place of an upload of that name; it is on the disk when this returns. Its path."""
        path = self.path_of(name)
        self.uploads.mkdir(parents=True, exist_ok=True)
        part = self.uploads / f".{token_hex(8)}.part"
        try:
            with part.open("w+b") as file:
                copyfileobj(content, file, 1 << 20)
                file.flush()
                os.fsync(file.fileno())
                file.seek(0)
                version = _version(hashlib.file_digest(file, "sha256").hexdigest())
            self.shelf.put_upload(name, version, tags, groups, by)
            part.replace(self.uploads / name)
        finally:
            part.unlink(missing_ok=True)
        _synced(self.uploads)
        self.shelf.drop_upload(name, but=version)
        said = () if groups is None else (groups,)
        self.waiting[path] = Doc(
            id=0, public=self.shelf.public(path), path=path, file=str(self.uploads / name), state="done", stamp=0, size=0, version=version,
            format=FORMAT, tags=tags, groups=said,
        )  # fmt: skip
        return path

    def take(self, path: str, name: str) -> None:
        """Reads an upload now, however long it may take."""
        file = self.uploads / name
        try:
            stat = file.stat()
            self._put_now(files.Found(path=path, file=str(file), stamp=files.stamp(stat), size=stat.st_size))
        except FileNotFoundError:
            log.info("%s was removed before it was read", path)
        finally:
            self.waiting.pop(path, None)

    def _put_now(self, found: files.Found) -> None:
        batch = _Batch()
        batch.add(self._read(found, self._deadline_s))
        self._flush(batch)

    def remove(self, doc: Doc) -> None:
        """Deletes an upload: its file, and at once what was read of it."""
        with self.uploading:
            Path(doc.file).unlink(missing_ok=True)
            _synced(self.uploads)
            self.shelf.drop_upload(Path(doc.file).name)
            self._put((), [now.id] if (now := self.by_path.get(doc.path)) else [])

    # one file

    def _read(self, found: files.Found, deadline_s: float) -> "Fresh | Doc":
        """What the file says now; or its document with a new stamp, where it says what it said. Raises _Slow."""
        known = self.by_path.get(found.path)
        doc = Doc(
            id=0, public="", path=found.path, file=found.file, home=found.home, state="done", stamp=found.stamp, size=found.size,
            version="", format=FORMAT,
        )  # fmt: skip
        try:
            data, stamp = self._bytes(found)
            version = _version(hashlib.sha256(data).hexdigest())
            doc = msgspec.structs.replace(doc, version=version, stamp=stamp, size=len(data))
            said = self._said(doc)
            doc = msgspec.structs.replace(doc, tags=said.tags, groups=() if said.groups is None else (said.groups,))
            if known and not self.is_upload(doc.file) and _is_same(known, doc):  # an upload's sender may have said something else of it
                return msgspec.structs.replace(known, stamp=stamp, size=len(data))
            return self._fresh(doc, self._parsed(data, found.path, deadline_s))
        except _Unread as error:  # it may be had the next time
            doc = msgspec.structs.replace(doc, stamp=_UNSETTLED, state="failed", reason=_sentence(error.what), next=_sentence(error.fix))
            return Fresh(doc=doc)
        except _Unsaid as error:
            doc = msgspec.structs.replace(
                doc, groups=(frozenset(),), state="failed", reason=_sentence(error.what), next=_sentence(error.fix)
            )
            return Fresh(doc=doc)
        except Unreadable as error:
            doc = msgspec.structs.replace(doc, state="failed", reason=_sentence(error.what), page=error.page, next=_sentence(error.fix))
            return Fresh(doc=doc)

    def _said(self, doc: Doc) -> Said:
        """What its sender said of an upload. Raises _Unsaid where that is lost, with the store say: then nobody can tell who may read it."""
        if not self.is_upload(doc.file):
            return Said()
        said = self.shelf.upload(Path(doc.file).name, doc.version)
        if said is None:
            raise _Unsaid("It was uploaded, and who may read it is not known any more", "upload it again")
        return said

    def _parsed(self, data: bytes, path: str, deadline_s: float) -> Document:
        parser = self._parsers.get()
        try:
            return parser.parse(data, path, deadline_s)
        except TooSlow:
            if deadline_s < self._deadline_s:
                raise _Slow from None
            raise
        finally:
            self._parsers.put(parser)

    def _fresh(self, doc: Doc, document: Document) -> Fresh:
        """Raises Unreadable."""
        meta = {name.casefold(): said for name, said in document.meta.items()}
        doc = msgspec.structs.replace(
            doc,
            title=document.title,
            date=_day(meta.get("date")),
            tags=doc.tags | _names(meta.get("tags"), "tags"),
            groups=(*doc.groups, *_groups(document.meta)),
        )
        cut = [self._with_id(each) for each in passages(document, doc.path, doc.version)]
        return Fresh(doc=doc, text=document.text, passages=cut, keys=[embedding_key(each) for each in cut])

    def _with_id(self, passage: Passage) -> Passage:
        return msgspec.structs.replace(passage, id=self.shelf.passage_id(passage.path, passage.start, passage.end, passage.version))

    def _bytes(self, found: files.Found) -> tuple[bytes, int]:
        """And the stamp of what was read. Raises Unreadable."""
        if found.refused:
            what, _, fix = found.refused.rpartition("; ")
            raise Unreadable(what, fix)
        try:
            with os.fdopen(files.opened(found.file), "rb") as file:
                read_at, stat = time.time_ns(), os.fstat(file.fileno())
                if not S_ISREG(stat.st_mode):
                    raise Unreadable("It is not a regular file", "remove it")
                if stat.st_size > self._largest:
                    raise self._too_large(stat.st_size)
                data = file.read(self._largest + 1)
        except OSError as error:
            raise _Unread(f"It cannot be read ({error.strerror})", "let the server's user read it") from None
        if len(data) > self._largest:
            raise self._too_large(len(data))
        return data, files.stamp(stat) if _is_settled(stat, read_at) and len(data) == stat.st_size else _UNSETTLED

    def _too_large(self, size: int) -> Unreadable:
        limit = self._largest / 1024 / 1024
        return Unreadable(
            f"It has {size / 1024 / 1024:.0f} MB, and {limit:g} MB is the limit",
            "split it into smaller files, or raise `limits.document_mb`",
        )

    def rest(self) -> None:
        """Ends the child processes, and gives memory back; the next file to be read starts them anew."""
        with self._change:
            self.index.rest()
        parsers = [self._parsers.get() for _ in range(_AT_ONCE)]
        for parser in parsers:
            parser.close()
            self._parsers.put(parser)

    def interrupt(self) -> None:
        """Ends the child processes at once: what they are reading fails. For who has told `stop` to say so."""
        for parser in self._all_parsers:
            parser.kill()


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
        return files >= _BATCH_FILES or self._passages >= _BATCH_PASSAGES or time.monotonic() - self._since > _BATCH_S


def _uneven(what: str, indexed: Iterable[int], known: Collected[int]) -> list[str]:
    counts = Counter(indexed)
    sets = {
        "missing from the index": sum(1 for number in known if number not in counts),
        "in the index though they are gone": sum(1 for number in counts if number not in known),
        "in the index more than once": sum(1 for times in counts.values() if times > 1),
    }
    return [f"{count} {what} are {how}." for how, count in sets.items() if count]


def _free(name: str, taken: Container[str]) -> str:
    path = f"{UPLOADS}/{name}"
    while path in taken:
        path = f"{UPLOADS}/{path}"
    return path


def _synced(folder: Path) -> None:
    """The folder's entries are on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def failure(doc: Doc) -> str:
    """Why it failed, where, and what to do, as one sentence or two."""
    page = f" (page {doc.page})" if doc.page else ""
    return f"{doc.reason.rstrip('.')}{page}. {doc.next}".rstrip()


def _is_fresh(doc: Doc) -> bool:
    """Whether the file still is what was read; also where that cannot be told because the disk does not answer."""
    try:
        stat = os.stat(doc.file, follow_symlinks=False)  # noqa: PTH116 - for every hit of every question
    except OSError as error:
        return not files.is_gone(error)
    return files.stamp(stat) == doc.stamp and stat.st_size == doc.size


def _is_there(source: Path) -> bool:
    try:
        return source.exists()
    except OSError:
        return False


def _is_settled(stat: os.stat_result, now_ns: int) -> bool:
    """Whether a change from now on would get another stamp."""
    changed = max(stat.st_mtime_ns, stat.st_ctime_ns) if os.name == "nt" else stat.st_ctime_ns
    return abs(now_ns - changed) > (_SETTLED_NS if changed % 1_000_000_000 else _SETTLED_COARSE_NS)


def _changed_since(doc: Doc) -> bool:
    """Whether the file changed between being looked at and now, or is gone; of one that was never looked at, nothing can be told."""
    try:
        stat = os.stat(doc.file, follow_symlinks=False)  # noqa: PTH116
    except OSError as error:
        return doc.state == "done" or isinstance(error, FileNotFoundError)
    if not doc.stamp:
        return False
    return stat.st_size != doc.size or (doc.stamp != _UNSETTLED and files.stamp(stat) != doc.stamp)


def _is_same(known: Doc, doc: Doc) -> bool:
    """Whether reading the file would come to what is known."""
    return (known.version, known.format, known.state, known.file, known.home) == (doc.version, FORMAT, "done", doc.file, doc.home)


def _version(digest: str) -> str:
    return digest[:16]


def _counted(done: Done, outcome: Fresh | Doc) -> Done:
    failed = isinstance(outcome, Fresh) and outcome.doc.state == "failed"
    kind: Literal["failed", "read", "unchanged"] = "failed" if failed else "read" if isinstance(outcome, Fresh) else "unchanged"
    return msgspec.structs.replace(done, seen=done.seen + 1, **{kind: getattr(done, kind) + 1})


def embedding_key(passage: Passage) -> bytes:
    return hashlib.sha256(embedded_text(passage).encode("utf-8", "surrogatepass")).digest()[:16]


def _day(value: object) -> str:
    """The day of a date as front matter or a file's own properties give it: 2026-01-31."""
    text = str(value or "")[:10]
    return text if len(text) == 10 and text[4] == text[7] == "-" and text.replace("-", "").isdigit() else ""


def _groups(meta: Mapping[str, object]) -> Iterator[frozenset[str]]:
    """The groups that a document is kept to by its own word; where it has several words, by each. Raises Unreadable where one cannot be
    understood: it is not guessed at.
    """
    for name, said in meta.items():
        if name.strip().casefold() in ("access", "groups"):
            yield _names(said.get("groups") if isinstance(said, dict) else said, "access")


def _names(said: object, field: str) -> frozenset[str]:
    if isinstance(said, str):
        said = [each.strip() for each in said.split(",")]
    if said is None and field == "tags":
        return frozenset()
    said = [said] if isinstance(said, (int, float)) else said
    if not isinstance(said, (list, tuple)) or not all(isinstance(each, (str, int, float)) and not isinstance(each, bool) for each in said):
        raise Unreadable(f"`{field}` of its front matter is not a list of names", f"write it as `{field}: [one, two]`")
    return frozenset(str(each).strip() for each in said if str(each).strip())


def _sentence(words: str) -> str:
    return f"{words[:1].upper()}{words[1:].rstrip('.')}." if words else ""


def _is_under(file: str, folders: Sequence[str]) -> bool:
    return any(file == folder or file.startswith(folder.rstrip(os.sep) + os.sep) for folder in folders)


def _batches(numbers: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    yield from (numbers[at : at + size] for at in range(0, len(numbers), size))
