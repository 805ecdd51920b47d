"""One set of documents: the files of some folders and what was uploaded beside them, kept on a shelf, indexed, and kept true.

`scan` brings the shelf to what the files say: new and changed files are read, gone ones dropped, the rest is left alone. Everything goes in
batches: one transaction of the store, then one commit of the index, so that an end at any moment leaves the shelf whole and the index at
most one batch behind it, which the next start makes good.
"""

import hashlib
import logging
import os
import time
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from queue import LifoQueue
from secrets import token_hex
from shutil import copyfileobj
from stat import S_ISREG
from threading import RLock
from typing import IO, Literal

import msgspec

from slipway.knowledge import files
from slipway.knowledge.fusion import embedded_text
from slipway.knowledge.index import Index
from slipway.knowledge.parsing import Parser, TooSlow
from slipway.knowledge.passages import passages
from slipway.knowledge.readers import Document, Unreadable
from slipway.knowledge.shelf import Doc, Fresh, Shelf
from slipway.store import Store
from slipway.types import Passage, Record

log = logging.getLogger("slipway")
FORMAT = 1  # of what is made of a file: another number has every file read again
UPLOADS = "uploads"
_BATCH_FILES, _BATCH_PASSAGES, _BATCH_S = 64, 2000, 1.0
_QUICK_S = 5.0  # a file that takes longer waits until the others are read
_SETTLED_NS = 50_000_000  # a file changed less than this before it was read may change again under the same time stamp
NOTHING_SAID: tuple[frozenset[str], frozenset[str] | None] = (frozenset(), None)
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


class Collection:
    """`sources` are folders and files; `uploads` is a folder of our own."""

    def __init__(self, store: Store, sources: Sequence[Path], *, largest_mb: float = 50.0, deadline_s: float = 60.0) -> None:
        self.sources, self.store = tuple(sources), store
        name = "\0".join(str(source.resolve()) for source in sources)
        self.shelf = Shelf(store, name)
        home = store.folder.resolve() / "knowledge" / hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:16]
        self.uploads = home / UPLOADS
        owner = hashlib.sha256(store.secret).hexdigest()[:16]
        self.index = Index(home / "index", owner)
        self.known = Known(epoch=0, documents={}, by_path={})
        self.progress = Done()
        self.changed: Callable[[Sequence[Doc], Sequence[int]], None] = lambda put, dropped: None  # told of each batch: who embeds, listens
        self._largest, self._deadline_s = int(largest_mb * 1024 * 1024), deadline_s
        self._change = RLock()
        self.waiting: dict[str, float] = {}  # uploads that are being read, by path: since when
        self._parsers: LifoQueue[Parser] = LifoQueue()
        for _ in range(_AT_ONCE):
            self._parsers.put(Parser(deadline_s))
        self._catch_up()

    # from the store

    def _catch_up(self) -> None:
        """What the shelf knows, and the index brought up to it."""
        self._know(self.shelf.documents())
        at = self.index.generation
        if at > self.shelf.generation or (at == 0 and len(self.index)):
            self.index.clear()
            at = 0
        behind = [doc.id for doc in self.shelf.documents(since=at)] if at else list(self.documents)
        if behind or at < self.shelf.generation:
            for some in _batches(behind, _BATCH_PASSAGES // 10):
                self.index.update(self.shelf.rows(some), some, at)
            self.index.update((), self.shelf.gone(at), self.shelf.generation)

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
        here = [source for source in self.sources if source.exists()]
        found = files.find(here)
        if self.uploads.is_dir():
            taken = {each.path for each in found}
            found += [msgspec.structs.replace(each, path=_free(each.path, taken)) for each in files.find([self.uploads])]
        return found

    def scan(self, tell: Callable[[Done], None] = lambda done: None, stop: Callable[[], bool] = lambda: False) -> Done:
        """Brings the shelf to what the files say; blocks. `tell` hears how far it is; `stop` is asked between files."""
        found = self.found()
        there = {each.path for each in found}
        lost = [str(source.resolve()) for source in self.sources if not source.exists()]
        gone = [doc.id for doc in self.by_path.values() if doc.path not in there and not _is_under(doc.file, lost)]
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
        if doc is None or (doc.mtime_ns, doc.size, doc.file, doc.format) != (found.mtime_ns, found.size, found.file, FORMAT):
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
            self.shelf.touched(batch.touched)
            with self._change:
                self._know({**self.documents, **{doc.id: doc for doc in batch.touched if doc.id in self.documents}}.values())
        batch.clear()

    def _put(self, fresh: Sequence[Fresh], gone: Sequence[int]) -> None:
        """The only way into shelf and index. What was read before the file changed again is left out: it is read anew."""
        with self._change:
            fresh = [each for each in fresh if not _changed_since(each.doc)]
            if not fresh and not gone:
                return
            out = {*gone, *(self.by_path[each.doc.path].id for each in fresh if each.doc.path in self.by_path)}
            put = self.shelf.put(fresh, gone)
            kept = (doc for doc in self.documents.values() if doc.id not in out)
            self._know([*kept, *put])
            generation = self.shelf.generation
            self.index.update(self.shelf.rows([doc.id for doc in put if doc.passages]), sorted(out), generation)
            self.shelf.caught_up(generation)
        for doc in put:
            if doc.state == "failed":
                log.warning("%s was left out: %s", doc.path, failure(doc))
        self.changed(put, sorted(out))

    def stale(self, docs: Iterable[Doc]) -> list[Doc]:
        """Those whose files are no longer what was read. Where a whole source cannot be reached, what was read of it still counts."""
        return [doc for doc in docs if not _is_fresh(doc) and self._reachable(doc)]

    def _reachable(self, doc: Doc) -> bool:
        return not _is_under(doc.file, [str(source.resolve()) for source in self.sources if not source.exists()])

    def refresh(self, stale: Iterable[Doc], deadline_s: float = 2.0) -> set[str]:
        """Reads these documents again, now; those whose files are gone are dropped. The paths of those that could be read in that time."""
        batch, gone, read = _Batch(), list[int](), set[str]()
        for doc in stale:
            try:
                stat = os.stat(doc.file, follow_symlinks=False)  # noqa: PTH116
                found = files.Found(path=doc.path, file=doc.file, mtime_ns=stat.st_mtime_ns, size=stat.st_size)
                batch.add(self._read(found, deadline_s))
                read.add(doc.path)
            except OSError:
                gone.append(doc.id)
            except _Slow:
                log.info("%s is being read again", doc.path)
        self._put((), gone)
        self._flush(batch)
        return read

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
            with part.open("wb") as file:
                copyfileobj(content, file, 1 << 20)
                file.flush()
                os.fsync(file.fileno())
            self.shelf.put_upload(name, tags, groups, by)
            part.replace(self.uploads / name)
        finally:
            part.unlink(missing_ok=True)
        _synced(self.uploads)
        return path

    def expect(self, path: str) -> None:
        self.waiting[path] = time.time()

    def unread(self, path: str) -> Doc:
        """An upload of which nothing is known yet but what its sender said."""
        name = path.rsplit("/", 1)[-1]
        tags, groups = self.shelf.uploads().get(name, NOTHING_SAID)
        file = str(self.uploads / name)
        doc = Doc(
            id=0, public=self.shelf.public(path), path=path, file=file, state="failed", mtime_ns=-1, size=0, version="", format=FORMAT
        )
        return msgspec.structs.replace(doc, tags=tags, groups=() if groups is None else (groups,))

    def take(self, path: str, name: str) -> None:
        """Reads an upload now, however long it may take."""
        file = self.uploads / name
        self.expect(path)
        try:
            stat = file.stat()
            self._put_now(files.Found(path=path, file=str(file), mtime_ns=stat.st_mtime_ns, size=stat.st_size))
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
        Path(doc.file).unlink(missing_ok=True)
        _synced(self.uploads)
        self.shelf.drop_upload(Path(doc.file).name)
        self._put((), [doc.id])

    # one file

    def _read(self, found: files.Found, deadline_s: float) -> "Fresh | Doc":
        """What the file says now; or its document with new times, where it says what it said. Raises _Slow."""
        read_at = time.time_ns()
        mtime_ns = found.mtime_ns if read_at - found.mtime_ns > _SETTLED_NS else -1
        known = self.by_path.get(found.path)
        doc = Doc(
            id=0, public="", path=found.path, file=found.file, state="done", mtime_ns=mtime_ns, size=found.size, version="", format=FORMAT
        )  # fmt: skip
        try:
            data = self._bytes(found)
            version = hashlib.sha256(data).hexdigest()[:16]
            uploaded = self.is_upload(found.file)  # its sender may have said something else of it this time
            if known and not uploaded and (known.version, known.format, known.state, known.file) == (version, FORMAT, "done", found.file):
                return msgspec.structs.replace(known, mtime_ns=mtime_ns, size=found.size)
            doc = msgspec.structs.replace(doc, version=version)
            return self._fresh(doc, self._parsed(data, found.path, deadline_s))
        except Unreadable as error:
            doc = msgspec.structs.replace(doc, state="failed", reason=_sentence(error.what), page=error.page, next=_sentence(error.fix))
            _, groups = self._sender_said(doc)  # what stands in the file is not known, but this is
            return Fresh(doc=msgspec.structs.replace(doc, groups=() if groups is None else (groups,)))

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
        tags, groups = self._sender_said(doc)
        meta = {name.casefold(): said for name, said in document.meta.items()}
        doc = msgspec.structs.replace(
            doc,
            title=document.title,
            date=_day(meta.get("date")),
            tags=tags | _names(meta.get("tags"), "tags"),
            groups=tuple(each for each in (groups, _groups(meta)) if each is not None),
        )
        cut = [self._with_id(each) for each in passages(document, doc.path, doc.version)]
        return Fresh(doc=doc, text=document.text, passages=cut, keys=[embedding_key(each) for each in cut])

    def _sender_said(self, doc: Doc) -> tuple[frozenset[str], frozenset[str] | None]:
        """The tags and groups that an upload came with."""
        return self.shelf.uploads().get(Path(doc.file).name, NOTHING_SAID) if self.is_upload(doc.file) else NOTHING_SAID

    def _with_id(self, passage: Passage) -> Passage:
        return msgspec.structs.replace(passage, id=self.shelf.passage_id(passage.path, passage.start, passage.end, passage.version))

    def _bytes(self, found: files.Found) -> bytes:
        """Raises Unreadable."""
        if found.refused:
            what, _, fix = found.refused.rpartition("; ")
            raise Unreadable(what, fix)
        try:
            with os.fdopen(os.open(found.file, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)), "rb") as file:
                stat = os.fstat(file.fileno())
                if not S_ISREG(stat.st_mode):
                    raise Unreadable("It is not a regular file", "remove it")
                if stat.st_size > self._largest:
                    raise self._too_large(stat.st_size)
                data = file.read(self._largest + 1)
        except OSError as error:
            raise Unreadable(f"It cannot be read ({error.strerror})", "let the server's user read it") from None
        if len(data) > self._largest:
            raise self._too_large(len(data))
        return data

    def _too_large(self, size: int) -> Unreadable:
        limit = self._largest / 1024 / 1024
        return Unreadable(
            f"It has {size / 1024 / 1024:.0f} MB, and {limit:g} MB is the limit",
            "split it into smaller files, or raise `limits.document_mb`",
        )

    def rest(self) -> None:
        """Ends the child processes; the next file to be read starts one anew."""
        parsers = [self._parsers.get() for _ in range(_AT_ONCE)]
        for parser in parsers:
            parser.close()
            self._parsers.put(parser)


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
        stat = os.stat(doc.file)  # noqa: PTH116 - for every hit of every question
    except OSError as error:
        return not isinstance(error, FileNotFoundError)
    return stat.st_mtime_ns == doc.mtime_ns and stat.st_size == doc.size


def _changed_since(doc: Doc) -> bool:
    """Whether the file changed between being looked at and now; what failed is put in any case."""
    try:
        stat = os.stat(doc.file)  # noqa: PTH116
    except OSError:
        return doc.state == "done"
    return doc.state == "done" and (stat.st_size != doc.size or (doc.mtime_ns >= 0 and stat.st_mtime_ns != doc.mtime_ns))


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


def _groups(meta: dict[str, object]) -> frozenset[str] | None:
    """The groups that a document is kept to by its own word. Raises Unreadable where that word cannot be understood: it is not guessed at."""
    said = next((meta[name] for name in ("access", "groups") if name in meta), None)
    if isinstance(said, dict):
        said = said.get("groups")
    if said is None and not {"access", "groups"} & set(meta):
        return None
    return _names(said, "access")


def _names(said: object, field: str) -> frozenset[str]:
    if isinstance(said, str):
        said = [each.strip() for each in said.split(",")]
    if said is None and field == "tags":
        return frozenset()
    if not isinstance(said, (list, tuple)) or not all(isinstance(each, str) for each in said):
        raise Unreadable(f"`{field}` of its front matter is not a list of names", f"write it as `{field}: [one, two]`")
    return frozenset(each.strip() for each in said if each.strip())


def _sentence(words: str) -> str:
    return f"{words[:1].upper()}{words[1:].rstrip('.')}." if words else ""


def _is_under(file: str, folders: Sequence[str]) -> bool:
    return any(file == folder or file.startswith(folder.rstrip(os.sep) + os.sep) for folder in folders)


def _batches(numbers: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    yield from (numbers[at : at + size] for at in range(0, len(numbers), size))
