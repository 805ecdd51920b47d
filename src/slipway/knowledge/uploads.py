"""The files that were sent to us: a folder of our own, and what their senders said of them."""

import hashlib
import os
from collections.abc import Container, Iterable, Mapping
from pathlib import Path
from secrets import token_hex
from shutil import copyfileobj
from threading import Lock
from typing import IO

import msgspec

from slipway.knowledge import files
from slipway.knowledge.document_store import Doc, DocumentStore, Said
from slipway.knowledge.freshness import FORMAT, stamp, version_of
from slipway.knowledge.readers import Unreadable

UPLOADS = "uploads"


class Unsaid(Unreadable):
    """Who may read an upload is not known."""


class Uploads:
    """The uploads of one collection. A file and what is said of it are changed together: whoever
    changes them holds `changing`.
    """

    def __init__(self, home: Path, document_store: DocumentStore) -> None:
        self.folder = home / UPLOADS
        self.changing = Lock()
        self.waiting: dict[
            str, Doc
        ] = {}  # those that are not yet read, by path: what is known of them
        self._document_store = document_store

    def holds(self, file: str) -> bool:
        return Path(file).parent == self.folder

    def path_of(self, name: str, known: Mapping[str, Doc]) -> str:
        """Where an upload of that name is, or would be, beside the documents that are `known` by
        their paths.
        """
        file = str(self.folder / name)
        return next((doc.path for doc in known.values() if doc.file == file), _free(name, known))

    def found(self, taken: Container[str]) -> list[files.Found]:
        """The files there are now, under paths that are not `taken`."""
        if not self.folder.is_dir():
            return []
        return [
            msgspec.structs.replace(each, path=_free(each.path, taken))
            for each in files.find([self.folder])
        ]

    def look(self, path: str, name: str) -> files.Found:
        """One of them as it is now. Raises FileNotFoundError."""
        file = self.folder / name
        stat = file.stat()
        return files.Found(path=path, file=str(file), stamp=stamp(stat), size=stat.st_size)

    def said(self, doc: Doc) -> Said:
        """What its sender said of an upload. Raises Unsaid where that is lost, with the store say:
        then nobody can tell who may read it.
        """
        if not self.holds(doc.file):
            return Said()
        said = self._document_store.upload(Path(doc.file).name, doc.version)
        if said is None:
            raise Unsaid(
                "It was uploaded, and who may read it is not known any more", "upload it again"
            )
        return said

    def keep(
        self,
        name: str,
        path: str,
        content: IO[bytes],
        tags: frozenset[str],
        groups: frozenset[str] | None,
        by: str,
    ) -> None:
        """Keeps a file, in place of an upload of that name; it is on the disk when this returns,
        and waits to be read.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        part = self.folder / f".{token_hex(8)}.part"
        try:
            with part.open("w+b") as file:
                copyfileobj(content, file, 1 << 20)
                file.flush()
                os.fsync(file.fileno())
                file.seek(0)
                version = version_of(hashlib.file_digest(file, "sha256").hexdigest())
            self._document_store.put_upload(name, version, tags, groups, by)
            part.replace(self.folder / name)
        finally:
            part.unlink(missing_ok=True)
        _synced(self.folder)
        self._document_store.drop_upload(name, but=version)
        said = () if groups is None else (groups,)
        self.waiting[path] = Doc(
            id=0,
            public=self._document_store.public(path),
            path=path,
            file=str(self.folder / name),
            state="done",
            stamp=0,
            size=0,
            version=version,
            format=FORMAT,
            tags=tags,
            groups=said,
        )

    def arrived(self, docs: Iterable[Doc]) -> None:
        """These documents were read: who waited for just these versions waits no more."""
        for doc in docs:
            if (new := self.waiting.get(doc.path)) and new.version == doc.version:
                del self.waiting[doc.path]

    def drop(self, file: str) -> None:
        Path(file).unlink(missing_ok=True)
        _synced(self.folder)
        self._document_store.drop_upload(Path(file).name)


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
