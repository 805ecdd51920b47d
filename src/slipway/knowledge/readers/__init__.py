"""Turn a file's bytes into a `ParsedDocument`: its text, with headings and block starts as offsets.

For Markdown, reStructuredText and plain text, the text is the decoded file without byte order mark
and with line ends as `\\n`. For other kinds it is the readable text, with tables as in Markdown. To
add a kind of document, add a row to `READERS`.
"""

import re
from collections.abc import Callable
from importlib import import_module
from pathlib import PurePosixPath
from typing import Any, cast

import msgspec

from slipway.knowledge.readers.document import (
    Heading,
    Loss,
    OnPage,
    ParsedDocument,
    UnreadableFile,
    one_line,
)

__all__ = ["READERS", "Heading", "Loss", "ParsedDocument", "Reader", "UnreadableFile", "read"]

_LONGEST_TEXT = 20_000_000

# (bytes, fallback title, progress) -> document
Reader = Callable[[bytes, str, OnPage], ParsedDocument]

# suffix -> (module, function), imported with its library at the first such file
READERS: dict[str, tuple[str, str]] = {
    ".md": (".markdown", "markdown"),
    ".markdown": (".markdown", "markdown"),
    ".mdx": (".markdown", "mdx"),
    ".ipynb": (".notebook", "notebook"),
    ".html": (".html", "html"),
    ".htm": (".html", "html"),
    ".txt": (".text", "plain"),
    ".rst": (".restructured", "restructured"),
    ".pdf": (".pdf", "pdf"),
    ".docx": (".docx", "docx"),
    ".pptx": (".pptx", "pptx"),
    ".xlsx": (".xlsx", "xlsx"),
    ".xls": (".xlsx", "calamine"),
    ".xlsb": (".xlsx", "calamine"),
    ".odt": (".opendocument", "odt"),
    ".odp": (".opendocument", "odp"),
    ".ods": (".opendocument", "ods"),
    ".eml": (".mail", "mail"),
    ".epub": (".epub", "epub"),
    ".csv": (".separated", "separated"),
    ".tsv": (".separated", "separated"),
}


def read(data: bytes, path: str, on_page: OnPage = lambda page: None) -> ParsedDocument:
    """Read a file by its suffix, in this process; use `parsing` for files that you don't trust.

    Raises UnreadableFile.
    """
    if not data.strip():
        raise UnreadableFile("It is empty", "add text, or remove the file")
    module, function = READERS[PurePosixPath(path).suffix.lower()]
    reader = cast(Reader, getattr(import_module(module, __package__), function))
    document = _encodable(reader(data, _humanised(path), on_page))
    if not document.text[document.body :].strip():
        raise UnreadableFile("It has no readable text", "add some, or remove the file")
    if len(document.text) > _LONGEST_TEXT:
        raise UnreadableFile(
            f"It has more than {_LONGEST_TEXT / 1e6:.0f} million characters of text",
            "split it into smaller files",
        )
    return document


def _encodable(document: ParsedDocument) -> ParsedDocument:
    """Replace lone surrogates, which some PDF fonts and office files hold: no text with them can be
    stored.
    """
    try:
        msgspec.msgpack.encode(document)
    except UnicodeEncodeError:
        plain = msgspec.to_builtins(document)
        return msgspec.convert(_replaced(plain), ParsedDocument)
    return document


def _replaced(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {key: _replaced(each) for key, each in value.items()}
    return [_replaced(each) for each in value] if isinstance(value, list | tuple) else value


def _humanised(path: str) -> str:
    words = one_line(re.sub(r"[-_.]+", " ", PurePosixPath(path).stem))
    return words[:1].upper() + words[1:] or path
