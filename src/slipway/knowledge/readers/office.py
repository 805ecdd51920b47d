"""Open Word, PowerPoint and Excel files: zip archives of XML parts, checked before unpacking.

This uses the standard library: python-docx and python-pptx would bring lxml, Pillow and XlsxWriter
(over 20 MB), and walking the elements is all that is needed.
"""

import contextlib
import io
import posixpath
import zipfile
import zlib
from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree
from xml.parsers import expat

from slipway.knowledge.readers.document import UnreadableFile, described

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element
    from zipfile import ZipFile

_OLE = bytes.fromhex("d0cf11e0a1b11ae1")  # OLE container: encrypted files, and formats before 2007
_ENTRIES, _UNPACKED, _RATIO, _SMALL = 10_000, 500_000_000, 150, 20_000_000
_SAVE = "open it in the program that made it and save it again"
_DAMAGED = "It is damaged: "

_RELATIONS = "{http://schemas.openxmlformats.org/package/2006/relationships}Relationship"
_DUBLIN, _TERMS = "{http://purl.org/dc/elements/1.1/}", "{http://purl.org/dc/terms/}"


class OfficePackage:
    """The parts of an office file. Raises UnreadableFile if it is no archive, is encrypted, or
    would unpack to far more than its size.
    """

    def __init__(self, data: bytes) -> None:
        self._zip = _opened(data)
        self._names = {
            name.lower(): name for name in self._zip.namelist()
        }  # part names ignore case (ECMA-376, part 2)

    def __contains__(self, name: str) -> bool:
        return name.lower() in self._names

    def xml(self, name: str, page: int | None = None) -> "Element":
        """Return the part's root. Raises UnreadableFile if it is missing, damaged, or declares a
        document type (office files never do).
        """
        try:
            return _parsed(self._zip.read(self._names[name.lower()]))
        except KeyError:
            raise UnreadableFile(f"{_DAMAGED}its part {name} is missing", _SAVE, page) from None
        except ElementTree.ParseError:
            raise UnreadableFile(
                f"{_DAMAGED}its part {name} is not valid XML", _SAVE, page
            ) from None
        except Exception as error:  # zipfile and zlib raise a dozen classes for damaged archives
            if isinstance(error, UnreadableFile | MemoryError | RecursionError):
                raise
            raise UnreadableFile(
                f"{_DAMAGED}its part {name} cannot be unpacked", _SAVE, page
            ) from None

    def rows(self, name: str, *wanted: str) -> Iterator["Element"]:
        """Yield the elements with the `wanted` local names, one at a time, so that a large part
        takes little memory. Raises UnreadableFile as `xml` does.
        """
        try:
            data = self._zip.read(self._names[name.lower()])
            _refuse_doctype(data)
            parents = list["Element"]()
            for event, element in ElementTree.iterparse(io.BytesIO(data), ("start", "end")):  # noqa: S314
                if event == "start":
                    parents.append(element)
                    continue
                parents.pop()
                if local(element) in wanted:
                    yield element
                    if parents:
                        parents[-1].remove(element)
        except ElementTree.ParseError:
            raise UnreadableFile(f"{_DAMAGED}its part {name} is not valid XML", _SAVE) from None
        except (KeyError, zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError):
            raise UnreadableFile(f"{_DAMAGED}its part {name} cannot be unpacked", _SAVE) from None

    def bytes(self, name: str) -> bytes:
        """Return a part as it is. Raises UnreadableFile if it is missing or damaged."""
        try:
            return self._zip.read(self._names[name.lower()])
        except Exception as error:  # zipfile and zlib raise a dozen classes for damaged archives
            if isinstance(error, MemoryError):
                raise
            raise UnreadableFile(f"{_DAMAGED}its part {name} cannot be unpacked", _SAVE) from None

    def names(self) -> list[str]:
        """Return the names of all parts."""
        return list(self._names.values())

    def relations(self, name: str) -> dict[str, tuple[str, str]]:
        """Return the part's relations: id -> (kind, name of the other part)."""
        folder, file = posixpath.split(name)
        listed = f"{folder}/_rels/{file}.rels".lstrip("/")
        if listed not in self:
            return {}
        found = (
            each.attrib
            for each in self.xml(listed).iter(_RELATIONS)
            if each.get("TargetMode") != "External"
        )
        return {
            each.get("Id", ""): (
                each.get("Type", "").rpartition("/")[2],
                _joined(folder, each.get("Target", "")),
            )
            for each in found
        }

    def main(self, default: str) -> str:
        """Return the name of the main part."""
        return next(
            (part for kind, part in self.relations("").values() if kind == "officeDocument"),
            default,
        )

    def meta(self) -> dict[str, Any]:
        """Return title, author and date; empty if that part is missing or damaged."""
        try:
            name = next(
                (part for kind, part in self.relations("").values() if kind == "core-properties"),
                "docProps/core.xml",
            )
            root = self.xml(name)
        except UnreadableFile:
            return {}
        said = (root.findtext(f"{_DUBLIN}title"), root.findtext(f"{_DUBLIN}creator"))
        return described(
            *said, root.findtext(f"{_TERMS}modified") or root.findtext(f"{_TERMS}created")
        )


def _joined(folder: str, target: str) -> str:
    return posixpath.normpath(
        target.lstrip("/") if target.startswith("/") else posixpath.join(folder, target)
    )


def _opened(data: bytes) -> "ZipFile":

    if data.startswith(_OLE):
        raise UnreadableFile(
            "It is protected by a password, or in the format before 2007",
            "save it without a password in today's format",
        )
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
    except (zipfile.BadZipFile, ValueError, OverflowError, NotImplementedError, EOFError):
        raise UnreadableFile(
            f"{_DAMAGED}it is not a whole office file, or another kind of file under this name",
            _SAVE,
        ) from None
    infos = archive.infolist()
    unpacked = sum(info.file_size for info in infos)
    if len(infos) > _ENTRIES:
        raise UnreadableFile(
            f"It has {len(infos)} parts, and {_ENTRIES} is the limit", "split it into smaller files"
        )
    if unpacked > _UNPACKED or unpacked > max(_SMALL, _RATIO * len(data)):
        raise UnreadableFile(
            f"It would unpack to {unpacked / 1e6:.0f} MB, which is too much for its size",
            "remove it, or save it in a simpler form",
        )
    if any(info.flag_bits & 1 for info in infos):
        raise UnreadableFile("It is protected by a password", "save it without one")
    return archive


class _Rooted(Exception):
    """The parser reached the root element."""


def _parsed(part: bytes) -> "Element":
    _refuse_doctype(part)
    return ElementTree.fromstring(part)  # noqa: S314


def _refuse_doctype(part: bytes) -> None:
    """Raise UnreadableFile for a document type, which could declare entities that grow without end
    or read files. It can only be before the root.
    """

    def refuse(*_: object) -> None:
        raise UnreadableFile(
            "Its XML declares entities, which no office program writes",
            "remove it, or save it again",
        )

    def stop(*_: object) -> None:
        raise _Rooted

    prolog = expat.ParserCreate()
    prolog.StartDoctypeDeclHandler, prolog.StartElementHandler = refuse, stop
    # ElementTree raises errors of the rest
    with contextlib.suppress(_Rooted, expat.ExpatError):
        prolog.Parse(part, True)


def local(element: "Element") -> str:
    """Return the element's name without namespace: strict and transitional files differ only in
    namespaces.
    """
    return _local(element.tag) if isinstance(element.tag, str) else ""


@lru_cache(4096)
def _local(name: str) -> str:
    return name.rpartition("}")[2]


def attribute(element: "Element", name: str) -> str | None:
    """Return an attribute by its local name; whether it has a namespace depends on the version."""
    for key, value in element.attrib.items():
        if _local(key) == name:
            return value
    return None


def child(element: "Element | None", *names: str) -> "Element | None":
    """Follow a path of local names; None if a step is missing."""
    for name in names:
        if element is None:
            return None
        for each in element:
            if local(each) == name:
                element = each
                break
        else:
            return None
    return element


def descend(
    element: "Element", wanted: frozenset[str], unread: frozenset[str] = frozenset()
) -> Iterator["Element"]:
    """Yield the outermost elements with `wanted` names, in order. Of alternatives for older
    programs, only the first is followed.
    """
    stack = [element]
    while stack:
        node = stack.pop()
        name = local(node)
        if name in wanted and node is not element:
            yield node
        elif name == "AlternateContent":
            stack.extend(list(node)[:1])
        elif name not in unread:
            stack.extend(reversed(node))
