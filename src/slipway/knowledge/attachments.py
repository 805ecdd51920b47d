"""Files that somebody attached to a conversation: read once, held in memory, and forgotten with it.

They are found by their owner alone, and never become part of an app's documents.
"""

import re
import threading
import time
from collections.abc import Sequence
from pathlib import PurePosixPath

import msgspec

from slipway.errors import BadRequest, NotFound, Overloaded, TooLarge
from slipway.knowledge.parsing import Parser
from slipway.knowledge.passages import passages
from slipway.knowledge.readers import READERS, UnreadableFile
from slipway.types import Hit, Passage, Record, new_id

MOST = 20  # files of one owner
MOST_CHARS = 50_000_000  # text of all files of all owners
MOST_OWN_CHARS = 10_000_000  # of one owner, who could leave no space for others
KEPT_S = 24 * 3600.0  # after the last question that used it
MOST_AT_ONCE = 10  # files of one question
_WORD = re.compile(r"[^\W_]{3,}|[\u3400-\u9fff]")
_GONE = "The attached file is not there any more."


class Attachment(Record, frozen=True, kw_only=True):
    """A file that was read. Its passages have ids of their own."""

    id: str
    owner: str
    name: str
    passages: tuple[Passage, ...]

    @property
    def chars(self) -> int:
        return sum(len(passage.text) for passage in self.passages)


class Attachments:
    """Hold the attached files of all owners. Methods may be called from any thread."""

    def __init__(self) -> None:
        self._held: dict[str, tuple[Attachment, float]] = {}  # id -> file, when it expires
        self._lock = threading.Lock()

    def add(self, owner: str, name: str, data: bytes, deadline_s: float) -> Attachment:
        """Read a file and hold it. Blocks. Raises BadRequest for one that cannot be read."""
        suffix = PurePosixPath(name).suffix.lower()
        if suffix not in READERS:
            raise BadRequest(
                f"`{name[:100]}` cannot be read.", f"Known: {', '.join(READERS)}.", param="file"
            )
        try:
            with Parser(deadline_s) as parser:
                document = parser.parse(data, name)
        except UnreadableFile as error:
            raise BadRequest(f"{name[:100]}: {error}.", param="file") from None
        found = [
            msgspec.structs.replace(passage, id=new_id("psg"))
            for passage in passages(document, name, "attached")
        ]
        file = Attachment(id=new_id("att"), owner=owner, name=name, passages=tuple(found))
        with self._lock:
            self._make_room(file)
            self._held[file.id] = (file, time.monotonic() + KEPT_S)
        return file

    def _make_room(self, file: Attachment) -> None:
        """Drop what has expired, and the owner's oldest files. Raises TooLarge."""
        if file.chars > MOST_OWN_CHARS:
            what = f"{file.name[:100]} has more than {MOST_OWN_CHARS:,} characters of text."
            raise TooLarge(what, "Split it into smaller files.", param="file")
        now = time.monotonic()
        self._held = {n: held for n, held in self._held.items() if held[1] > now}
        mine = [each for each, _ in self._held.values() if each.owner == file.owner]
        own = sum(each.chars for each in mine) + file.chars
        while len(mine) >= MOST or own > MOST_OWN_CHARS:
            oldest = mine.pop(0)
            own -= oldest.chars
            del self._held[oldest.id]
        if sum(each.chars for each, _ in self._held.values()) + file.chars > MOST_CHARS:
            raise Overloaded("Too many files are attached at the moment.", retry_after_s=600.0)

    def get(self, owner: str, ids: Sequence[str]) -> tuple[Passage, ...]:
        """Return the passages of these files of the owner. Raises NotFound."""
        if len(ids) > MOST_AT_ONCE:
            raise BadRequest(f"`attachments` names more than {MOST_AT_ONCE}.", param="attachments")
        found: list[Passage] = []
        with self._lock:
            for wanted in ids:
                file, until = self._held.get(wanted, (None, 0.0))
                if file is None or file.owner != owner or until <= time.monotonic():
                    raise NotFound(_GONE, "Attach it again.", param="attachments")
                self._held[wanted] = (file, time.monotonic() + KEPT_S)
                found += file.passages
        return tuple(found)

    def forget(self, owner: str, wanted: str) -> None:
        """Drop a file. Raises NotFound if the owner has none of this id."""
        with self._lock:
            file, _ = self._held.get(wanted, (None, 0.0))
            if file is None or file.owner != owner:
                raise NotFound(_GONE, param="id")
            del self._held[wanted]

    def passage(self, owner: str, wanted: str) -> Passage | None:
        with self._lock:
            mine = [file for file, _ in self._held.values() if file.owner == owner]
        return next((p for file in mine for p in file.passages if p.id == wanted), None)


def best(attached: Sequence[Passage], text: str, most: int) -> list[Hit]:
    """Return the attached passages that share most words with the question, the rarest words
    counting most; the first ones if none does.
    """
    words = set(_WORD.findall(text.lower()))
    known = [set(_WORD.findall(f"{each.heading} {each.text}".lower())) for each in attached]
    weight = {word: 1 / (1 + sum(word in each for each in known)) for word in words}
    scores = [sum(weight[word] for word in words & each) for each in known]
    order = sorted(range(len(attached)), key=lambda n: (-scores[n], n))[:most]
    return [Hit(passage=attached[n], score=scores[n]) for n in sorted(order)]
