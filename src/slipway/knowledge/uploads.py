"""Uploaded files: a folder inside the store, with the tags and groups that the sender gave."""

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
from slipway.knowledge.access import UPLOADS, as_written, marked
from slipway.knowledge.document_store import Doc, DocumentStore, UploadInfo
from slipway.knowledge.freshness import FORMAT, stamp, version_of
from slipway.knowledge.readers import UnreadableFile


class UnknownAccess(UnreadableFile):
    """The record of who may read an upload is lost."""


class Uploads:
    """The uploads of one collection. Hold `changing` while you change a file and its record, so
    that both change together.
    """

    def __init__(self, home: Path, document_store: DocumentStore) -> None:
        self.folder = home / UPLOADS
        self.changing = Lock()
        self.waiting: dict[str, Doc] = {}  # uploads that are not read yet, by path
        self._document_store = document_store

    def holds(self, file: str) -> bool:
        """Return whether the file is an upload."""
        return Path(file).parent == self.folder

    def named(self, name: str, known: Mapping[str, Doc]) -> dict[str, list[Doc]]:
        """Return the uploads that their senders gave this name, by the names of their files: the
        versions that are read and those that wait.
        """
        path, found = f"{UPLOADS}/{name}", dict[str, list[Doc]]()
        for doc in (*known.values(), *self.waiting.values()):
            if as_written(doc.path) == path and self.holds(doc.file):
                found.setdefault(Path(doc.file).name, []).append(doc)
        return found

    def is_of(self, doc: Doc, owner: str) -> bool:
        """Return whether this key has sent the present version of an upload."""
        said = self._document_store.upload(Path(doc.file).name, doc.version)
        return said is not None and said.by == owner

    def free_name(self, name: str) -> str:
        """Return a name with a mark that no file has."""
        while (self.folder / (free := marked(name))).exists():
            pass
        return free

    def path_of(self, name: str, known: Mapping[str, Doc]) -> str:
        """Return the path of the upload with that name; for a new name, a path that no `known`
        document has.
        """
        file = str(self.folder / name)
        return next(
            (doc.path for doc in known.values() if doc.file == file), _free_path(name, known)
        )

    def found(self, taken: Container[str]) -> list[files.FoundFile]:
        """List the uploaded files on disk, under paths that are not `taken`."""
        if not self.folder.is_dir():
            return []
        return [
            msgspec.structs.replace(each, path=_free_path(each.path, taken))
            for each in files.find([self.folder])
        ]

    def locate(self, path: str, name: str) -> files.FoundFile:
        """Return one upload with its present stamp and size. Raises FileNotFoundError."""
        file = self.folder / name
        stat = file.stat()
        return files.FoundFile(path=path, file=str(file), stamp=stamp(stat), size=stat.st_size)

    def info(self, doc: Doc) -> UploadInfo:
        """Return the tags and groups of an upload; an empty record for other files.

        Raises UnknownAccess if the record is lost (for example with the store): then nobody may
        read the file.
        """
        if not self.holds(doc.file):
            return UploadInfo()
        said = self._document_store.upload(Path(doc.file).name, doc.version)
        if said is None:
            raise UnknownAccess(
                "It was uploaded, and who may read it is not known any more", "upload it again"
            )
        return said

    def save(
        self,
        name: str,
        path: str,
        content: IO[bytes],
        tags: frozenset[str],
        groups: frozenset[str] | None,
        by: str,
    ) -> None:
        """Save a file, replacing the upload of that name. The file is safe on disk when this
        returns; it is read later.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        for private in (self.folder, self.folder.parent):  # whatever the umask is
            private.chmod(0o700)
        part = self.folder / f".{token_hex(8)}.part"
        try:
            with os.fdopen(os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600), "w+b") as file:
                copyfileobj(content, file, 1 << 20)
                file.flush()
                os.fsync(file.fileno())
                file.seek(0)
                version = version_of(hashlib.file_digest(file, "sha256").hexdigest())
            self._document_store.put_upload(name, version, tags, groups, by)
            part.replace(self.folder / name)
        finally:
            part.unlink(missing_ok=True)
        _sync_folder(self.folder)
        self._document_store.drop_upload(name, but=version)
        self.waiting[path] = msgspec.structs.replace(
            self.described(path, name, tags, groups), version=version
        )

    def described(
        self, path: str, name: str, tags: frozenset[str], groups: frozenset[str] | None
    ) -> Doc:
        """Return an upload as a document that was not read yet."""
        return Doc(
            id=0,
            public=self._document_store.public(path),
            path=path,
            file=str(self.folder / name),
            state="done",
            stamp=0,
            size=0,
            version="",
            format=FORMAT,
            tags=tags,
            groups=() if groups is None else (groups,),
        )

    def forget_waiting(self, docs: Iterable[Doc]) -> None:
        """Stop waiting for uploads that were read in exactly these versions."""
        for doc in docs:
            if (new := self.waiting.get(doc.path)) and new.version == doc.version:
                del self.waiting[doc.path]

    def drop(self, file: str) -> None:
        """Delete an upload and its record."""
        Path(file).unlink(missing_ok=True)
        _sync_folder(self.folder)
        self._document_store.drop_upload(Path(file).name)


def _free_path(name: str, taken: Container[str]) -> str:
    path = f"{UPLOADS}/{name}"
    while path in taken:
        path = f"{UPLOADS}/{path}"
    return path


def _sync_folder(folder: Path) -> None:
    """Write the folder's entries to disk, so that a renamed file survives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
