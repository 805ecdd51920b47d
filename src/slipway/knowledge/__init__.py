"""THE ROOM of what we know: files in, ranked places with exact character spans out.

`files` finds them, `readers` turn bytes into text with headings (in a child process: `parsing`), `passages` cut it, `index` ranks. This
first form keeps everything in memory.
"""

import hashlib
import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from slipway.errors import SettingsError
from slipway.knowledge import files
from slipway.knowledge.parsing import Parser
from slipway.knowledge.passages import passages
from slipway.knowledge.readers import Unreadable
from slipway.types import Hit, Passage, Record

if TYPE_CHECKING:
    from slipway.knowledge.index import Index

__all__ = ["FileReport", "Knowledge"]

_LARGEST_FILE = 20_000_000
_NEEDED = (
    "tantivy",
    "selectolax",
    "pypdfium2",
    "python_calamine",
)  # the extra `knowledge`; imported where they are used, so that a gateway never loads them


class FileReport(Record, frozen=True, kw_only=True):
    """What became of a file; `reason` says what is wrong and what to do, and is empty where it is done."""

    path: str
    state: Literal["done", "failed"]
    reason: str = ""


class Knowledge:
    """What an app knows. `build` once, in a thread; until then, and where nothing could be read, searches find nothing.

    Raises SettingsError where a source does not exist or has nothing to read, or where the extra is not installed.
    """

    def __init__(self, sources: Sequence[Path]) -> None:
        missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
        if missing:
            raise SettingsError([f"knowledge needs the extra: pip install 'slipway[knowledge]' (missing: {', '.join(missing)})."])
        if problems := files.problems(sources):
            raise SettingsError(problems)
        self._sources = tuple(sources)
        self._index: Index | None = None
        self._passages: dict[str, Passage] = {}
        self.ready = False
        self.failed = False  # the building itself ended in an error: nothing will ever be found
        self.built = (0, 0)  # files done, of how many
        self.documents = 0
        self.reports: list[FileReport] = []

    @property
    def passages(self) -> int:
        return len(self._passages)

    def build(self, progress: Callable[[int, int], None] = lambda done, total: None) -> None:
        """Reads every file and makes the index; blocks. `progress(done, total)` counts files. A bad file is reported and ends nothing."""
        try:
            self._build(progress)
        except BaseException:
            self.failed = True
            raise

    def _build(self, progress: Callable[[int, int], None]) -> None:
        from slipway.knowledge.index import Index

        found = files.find(self._sources)
        reports, known = list[FileReport](), list[Passage]()
        with Parser() as parser:
            for done, each in enumerate([None, *found]):
                if each:
                    report, cut = _read(each, parser)
                    reports.append(report)
                    known += cut
                self.built = (done, len(found))
                progress(done, len(found))
        self._index = Index(known)
        self._passages = {passage.id: passage for passage in known}
        self.reports, self.documents = reports, sum(report.state == "done" for report in reports)
        self.ready = True

    def search(self, text: str, limit: int = 5) -> list[Hit]:
        """The places, distinct by path and heading, best first, each with its best passage. Blocks for about a millisecond; takes any text."""
        return self._index.search(text, limit) if self._index else []

    def examples(self, limit: int = 3) -> list[str]:
        """Headings that are questions, the first of each document: what could be asked."""
        found: dict[str, str] = {}
        for p in self._passages.values():
            if p.heading.endswith(("?", "？")) and len(p.heading) <= 80:
                found.setdefault(p.path, p.heading)
        return list(found.values())[:limit]

    def passage(self, id: str) -> Passage | None:  # noqa: A002 - the field's name on the wire
        return self._passages.get(id)


def _read(found: files.Found, parser: Parser) -> tuple[FileReport, list[Passage]]:
    try:
        data = _bytes(found)
        cut = passages(parser.parse(data, found.path), found.path, hashlib.sha256(data).hexdigest()[:16])
    except Unreadable as error:
        return FileReport(path=found.path, state="failed", reason=str(error)), []
    return FileReport(path=found.path, state="done"), cut


def _bytes(found: files.Found) -> bytes:
    """Raises Unreadable."""
    if found.refused:
        raise Unreadable(found.refused)
    try:
        size = found.file.stat().st_size
        if size > _LARGEST_FILE:
            raise Unreadable(f"It has {size / 1e6:.0f} MB, and {_LARGEST_FILE / 1e6:.0f} MB is the limit", "split it into smaller files")
        return found.file.read_bytes()
    except OSError as error:
        raise Unreadable(f"It cannot be read ({error.strerror})", "let the server's user read it") from None
