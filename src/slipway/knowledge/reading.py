"""One file into what is kept of it: its bytes, parsed in a child process, cut into passages, with
who may read them.
"""

import hashlib
import os
import time
from collections.abc import Iterator, Mapping
from queue import LifoQueue
from stat import S_ISREG

import msgspec

from slipway.knowledge import files
from slipway.knowledge.document_store import Doc, DocumentStore, Fresh
from slipway.knowledge.freshness import FORMAT, UNSETTLED, is_same, is_settled, stamp, version_of
from slipway.knowledge.fusion import embedded_text
from slipway.knowledge.parsing import Parser, TooSlow
from slipway.knowledge.passages import passages
from slipway.knowledge.readers import Document, Unreadable
from slipway.knowledge.uploads import Unsaid, Uploads
from slipway.types import Passage

_AT_ONCE = 3  # files parsed at once, each in its own process


class Slow(Exception):
    """The file was not read in the short time that it had."""


class _Unread(Unreadable):
    """The file's bytes could not be had this time."""


class FileReader:
    """Used by any number of threads. A file may take `deadline_s`, and have `largest_mb`."""

    def __init__(
        self,
        document_store: DocumentStore,
        uploads: Uploads,
        *,
        largest_mb: float,
        deadline_s: float,
    ) -> None:
        self._document_store, self._uploads = document_store, uploads
        self.allow(largest_mb)
        self._deadline_s = deadline_s
        self._all_parsers = [Parser(deadline_s) for _ in range(_AT_ONCE)]
        self._parsers: LifoQueue[Parser] = LifoQueue()
        for parser in self._all_parsers:
            self._parsers.put(parser)

    def allow(self, largest_mb: float) -> None:
        """Files that are read from now on may be as large."""
        self._largest = int(largest_mb * 1024 * 1024)

    def read(
        self, found: files.Found, known: Doc | None, within_s: float | None = None
    ) -> Fresh | Doc:
        """What the file says now; or the `known` document with a new stamp, where it says what it
        said. Raises Slow where it takes longer than `within_s`, and might be read in the time that
        a file may take.
        """
        doc = Doc(
            id=0,
            public="",
            path=found.path,
            file=found.file,
            home=found.home,
            state="done",
            stamp=found.stamp,
            size=found.size,
            version="",
            format=FORMAT,
        )
        try:
            data, state = self._bytes(found)
            doc = msgspec.structs.replace(doc, version=_version(data), stamp=state, size=len(data))
            said = self._uploads.said(doc)
            doc = msgspec.structs.replace(
                doc, tags=said.tags, groups=() if said.groups is None else (said.groups,)
            )
            if (
                known and not self._uploads.holds(doc.file) and is_same(known, doc)
            ):  # an upload's sender may have said something else of it
                return msgspec.structs.replace(known, stamp=state, size=len(data))
            return self._fresh(doc, self._parsed(data, found.path, within_s))
        except _Unread as error:  # it may be had the next time
            return Fresh(doc=_failed(msgspec.structs.replace(doc, stamp=UNSETTLED), error))
        except Unsaid as error:
            return Fresh(doc=_failed(msgspec.structs.replace(doc, groups=(frozenset(),)), error))
        except Unreadable as error:
            return Fresh(doc=_failed(doc, error))

    def again(self, doc: Doc) -> Fresh:
        """What the file of a document says, whatever was read of it before, and without what an
        upload's sender said. Raises Unreadable.
        """
        data, _ = self._bytes(files.Found(path=doc.path, file=doc.file))
        return self._fresh(
            msgspec.structs.replace(doc, version=_version(data), groups=()),
            self._parsed(data, doc.path),
        )

    def _parsed(self, data: bytes, path: str, within_s: float | None = None) -> Document:
        parser = self._parsers.get()
        try:
            return parser.parse(data, path, within_s)
        except TooSlow:
            if within_s is not None and within_s < self._deadline_s:
                raise Slow from None
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
        return Fresh(
            doc=doc, text=document.text, passages=cut, keys=[embedding_key(each) for each in cut]
        )

    def _with_id(self, passage: Passage) -> Passage:
        return msgspec.structs.replace(
            passage,
            id=self._document_store.passage_id(
                passage.path, passage.start, passage.end, passage.version
            ),
        )

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
            raise _Unread(
                f"It cannot be read ({error.strerror})", "let the server's user read it"
            ) from None
        if len(data) > self._largest:
            raise self._too_large(len(data))
        return data, stamp(stat) if is_settled(stat, read_at) and len(
            data
        ) == stat.st_size else UNSETTLED

    def _too_large(self, size: int) -> Unreadable:
        limit = self._largest / 1024 / 1024
        return Unreadable(
            f"It has {size / 1024 / 1024:.0f} MB, and {limit:g} MB is the limit",
            "split it into smaller files, or raise `limits.document_mb`",
        )

    def rest(self) -> None:
        """Ends the child processes; the next file to be read starts them again."""
        parsers = [self._parsers.get() for _ in range(_AT_ONCE)]
        for parser in parsers:
            parser.close()
            self._parsers.put(parser)

    def interrupt(self) -> None:
        """Ends the child processes at once: what they are reading fails. For who has told `stop` to
        say so.
        """
        for parser in self._all_parsers:
            parser.kill()


def failure(doc: Doc) -> str:
    """Why it failed, where, and what to do, as one sentence or two."""
    page = f" (page {doc.page})" if doc.page else ""
    return f"{doc.reason.rstrip('.')}{page}. {doc.next}".rstrip()


def _failed(doc: Doc, error: Unreadable) -> Doc:
    return msgspec.structs.replace(
        doc,
        state="failed",
        reason=_sentence(error.what),
        page=error.page,
        next=_sentence(error.fix),
    )


def _version(data: bytes) -> str:
    return version_of(hashlib.sha256(data).hexdigest())


def embedding_key(passage: Passage) -> bytes:
    return hashlib.sha256(embedded_text(passage).encode("utf-8", "surrogatepass")).digest()[:16]


def _day(value: object) -> str:
    """The day of a date as front matter or a file's own properties give it: 2026-01-31."""
    text = str(value or "")[:10]
    return (
        text
        if len(text) == 10 and text[4] == text[7] == "-" and text.replace("-", "").isdigit()
        else ""
    )


def _groups(meta: Mapping[str, object]) -> Iterator[frozenset[str]]:
    """The groups that a document is kept to by its own word; where it has several words, by each.
    Raises Unreadable where one cannot be understood: it is not guessed at.
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
    if not isinstance(said, (list, tuple)) or not all(
        isinstance(each, (str, int, float)) and not isinstance(each, bool) for each in said
    ):
        raise Unreadable(
            f"`{field}` of its front matter is not a list of names",
            f"write it as `{field}: [one, two]`",
        )
    return frozenset(str(each).strip() for each in said if str(each).strip())


def _sentence(words: str) -> str:
    return f"{words[:1].upper()}{words[1:].rstrip('.')}." if words else ""
