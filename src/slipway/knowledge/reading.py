"""Read one file for the store: parse its bytes in a child process, cut the text into passages, and
find out who may read it.
"""

import hashlib
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from queue import LifoQueue
from stat import S_ISREG
from typing import Any

import msgspec

from slipway.knowledge import files
from slipway.knowledge.access import as_written
from slipway.knowledge.document_store import Doc, DocumentStore, ReadDocument
from slipway.knowledge.freshness import FORMAT, UNSETTLED, is_same, is_settled, stamp, version_of
from slipway.knowledge.fusion import embedded_text
from slipway.knowledge.parsing import Parser, ParseTimeout
from slipway.knowledge.passages import passages
from slipway.knowledge.readers import Loss, ParsedDocument, UnreadableFile
from slipway.knowledge.readers.ocr import MEMORY_MB
from slipway.knowledge.uploads import UnknownAccess, Uploads
from slipway.types import Passage

_MOST_LOSSES = 4  # that a sentence names
_MEMORY_MB = 1024
_OCR_FORMAT = 1000
_AT_ONCE = 3  # files parsed at once, each in its own process


class NeedsMoreTime(Exception):
    """The file needs more than the short first deadline; read it again with the full one."""


class _CannotOpen(UnreadableFile):
    """The file cannot be opened now; it may work the next time."""


class FileReader:
    """Read files of at most `largest_mb`, each within `deadline_s`. Safe for any number of threads."""

    def __init__(
        self,
        document_store: DocumentStore,
        uploads: Uploads,
        *,
        largest_mb: float,
        deadline_s: float,
        ocr: bool = False,
    ) -> None:
        self._document_store, self._uploads = document_store, uploads
        self.set_size_limit(largest_mb)
        self._deadline_s = deadline_s
        # files are read again if recognising is switched on or off
        self.format = FORMAT + _OCR_FORMAT * ocr
        memory_mb = MEMORY_MB if ocr else _MEMORY_MB
        self._all_parsers = [Parser(deadline_s, memory_mb, ocr=ocr) for _ in range(_AT_ONCE)]
        self._parsers: LifoQueue[Parser] = LifoQueue()
        for parser in self._all_parsers:
            self._parsers.put(parser)

    def set_size_limit(self, largest_mb: float) -> None:
        """Set the largest size of a file, for files read from now on."""
        self._largest = int(largest_mb * 1024 * 1024)

    def read(
        self, found: files.FoundFile, known: Doc | None, within_s: float | None = None
    ) -> ReadDocument | Doc:
        """Read a file; if its content is that of the `known` document, return that with a new
        stamp.

        A file that cannot be read gives a ReadDocument whose state is `failed`. Raises
        NeedsMoreTime if it takes longer than `within_s` and the full deadline is longer.
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
            format=self.format,
        )
        try:
            data, state = self._bytes(found)
            doc = msgspec.structs.replace(doc, version=_version(data), stamp=state, size=len(data))
            said = self._uploads.info(doc)
            doc = msgspec.structs.replace(
                doc, tags=said.tags, groups=() if said.groups is None else (said.groups,)
            )
            if (
                known and not self._uploads.holds(doc.file) and is_same(known, doc)
            ):  # an upload's tags and groups may have changed
                return msgspec.structs.replace(known, stamp=state, size=len(data))
            return self._cut(doc, self._parsed(data, as_written(found.path), within_s))
        except _CannotOpen as error:  # try again at the next scan
            return ReadDocument(doc=_failed(msgspec.structs.replace(doc, stamp=UNSETTLED), error))
        except UnknownAccess as error:
            return ReadDocument(
                doc=_failed(msgspec.structs.replace(doc, groups=(frozenset(),)), error)
            )
        except UnreadableFile as error:
            return ReadDocument(doc=_failed(doc, error))

    def reread(self, doc: Doc) -> ReadDocument:
        """Read a document's file again, without the tags and groups of an upload.

        Raises UnreadableFile.
        """
        data, _ = self._bytes(files.FoundFile(path=doc.path, file=doc.file))
        return self._cut(
            msgspec.structs.replace(doc, version=_version(data), groups=()),
            self._parsed(data, as_written(doc.path)),
        )

    def _parsed(self, data: bytes, path: str, within_s: float | None = None) -> ParsedDocument:
        parser = self._parsers.get()
        try:
            return parser.parse(data, path, within_s)
        except ParseTimeout:
            if within_s is not None and within_s < self._deadline_s:
                raise NeedsMoreTime from None
            raise
        finally:
            self._parsers.put(parser)

    def _cut(self, doc: Doc, document: ParsedDocument) -> ReadDocument:
        """Raises UnreadableFile."""
        meta = {name.casefold(): said for name, said in document.meta.items()}
        doc = msgspec.structs.replace(
            doc,
            title=document.title,
            date=_day(meta.get("date")),
            tags=doc.tags | _names(meta.get("tags"), "tags"),
            groups=(*doc.groups, *_groups(document.meta)),
            **_missing(document.losses),
        )
        cut = [self._with_id(each) for each in passages(document, doc.path, doc.version)]
        return ReadDocument(
            doc=doc, text=document.text, passages=cut, keys=[embedding_key(each) for each in cut]
        )

    def _with_id(self, passage: Passage) -> Passage:
        return msgspec.structs.replace(
            passage,
            id=self._document_store.passage_id(
                passage.path, passage.start, passage.end, passage.version
            ),
        )

    def _bytes(self, found: files.FoundFile) -> tuple[bytes, int]:
        """Return the bytes and their stamp. Raises UnreadableFile."""
        if found.refused:
            what, _, fix = found.refused.rpartition("; ")
            raise UnreadableFile(what, fix)
        try:
            with os.fdopen(files.opened(found.file), "rb") as file:
                read_at, stat = time.time_ns(), os.fstat(file.fileno())
                if not S_ISREG(stat.st_mode):
                    raise UnreadableFile("It is not a regular file", "remove it")
                if stat.st_size > self._largest:
                    raise self._too_large(stat.st_size)
                data = file.read(self._largest + 1)
        except OSError as error:
            raise _CannotOpen(
                f"It cannot be read ({error.strerror})", "let the server's user read it"
            ) from None
        if len(data) > self._largest:
            raise self._too_large(len(data))
        return data, stamp(stat) if is_settled(stat, read_at) and len(
            data
        ) == stat.st_size else UNSETTLED

    def _too_large(self, size: int) -> UnreadableFile:
        limit = self._largest / 1024 / 1024
        return UnreadableFile(
            f"It has {size / 1024 / 1024:.0f} MB, and {limit:g} MB is the limit",
            "split it into smaller files, or raise `limits.document_mb`",
        )

    def stop_idle(self) -> None:
        """End the idle child processes; the next file starts them again."""
        parsers = [self._parsers.get() for _ in range(_AT_ONCE)]
        for parser in parsers:
            parser.close()
            self._parsers.put(parser)

    def interrupt(self) -> None:
        """Kill the child processes; files that are being read fail. Only call this while stopping."""
        for parser in self._all_parsers:
            parser.kill()


def failure_text(doc: Doc) -> str:
    """Return why a document failed, on which page, or what is missing of it, and what to do."""
    page = f" (page {doc.page})" if doc.page else ""
    return f"{doc.reason.rstrip('.')}{page}. {doc.next}".rstrip()


def _failed(doc: Doc, error: UnreadableFile) -> Doc:
    return msgspec.structs.replace(
        doc,
        state="failed",
        reason=_sentence(error.what),
        page=error.page,
        next=_sentence(error.fix),
    )


def _missing(losses: Sequence[Loss]) -> dict[str, Any]:
    """Return the fields of a document that was read `partly`; none without losses."""
    if not losses:
        return {}
    whats = list(dict.fromkeys(loss.what for loss in losses))
    fixes = dict.fromkeys(loss.fix for loss in losses if loss.fix)
    rest = len(whats) - _MOST_LOSSES
    shown = [*whats[:_MOST_LOSSES], *([f"{rest} other things are missing"] if rest > 0 else [])]
    return {
        "state": "partly",
        "reason": _sentence("; ".join(shown)),
        "next": " ".join(_sentence(fix) for fix in [*fixes][:_MOST_LOSSES]),
    }


def _version(data: bytes) -> str:
    return version_of(hashlib.sha256(data).hexdigest())


def embedding_key(passage: Passage) -> bytes:
    """Return the key of a passage's vector: a hash of the text that is embedded."""
    return hashlib.sha256(embedded_text(passage).encode("utf-8", "surrogatepass")).digest()[:16]


def _day(value: object) -> str:
    """Return the day (2026-01-31) of a date from front matter or file properties; else empty."""
    text = str(value or "")[:10]
    return (
        text
        if len(text) == 10 and text[4] == text[7] == "-" and text.replace("-", "").isdigit()
        else ""
    )


def _groups(meta: Mapping[str, object]) -> Iterator[frozenset[str]]:
    """Yield the groups that a document's own metadata limits it to, one set for each field.

    Raises UnreadableFile if a field cannot be understood: access is never guessed.
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
        raise UnreadableFile(
            f"`{field}` of its front matter is not a list of names",
            f"write it as `{field}: [one, two]`",
        )
    return frozenset(str(each).strip() for each in said if str(each).strip())


def _sentence(words: str) -> str:
    return f"{words[:1].upper()}{words[1:].rstrip('.')}." if words else ""
