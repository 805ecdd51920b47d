"""Rank places by keywords.

Each place (a heading of a document) is indexed twice: whole, and passage by passage. Its score is
the mean of its own BM25 and its best passage's, so that both long sections about the topic and
short passages that answer are found. Measured by bench/retrieval.py. The index is derived from the
document_store and records up to which of its generations it has come. Any text is a valid query,
because none goes through a query parser.
"""

import hashlib
import json
import logging
import shutil
import zlib
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, Any

from slipway.knowledge.document_store import StoredPassage
from slipway.knowledge.keyword_table import (
    BOOSTS,
    FIELDS,
    PAIR_BOOSTS,
    DocumentFilter,
    KeywordTable,
    TermCounts,
    fields_by_name,
    idf,
)
from slipway.knowledge.languages import JOINING, language_of
from slipway.knowledge.words import Words, plain_text
from slipway.types import Record

if TYPE_CHECKING:
    from tantivy import Searcher

log = logging.getLogger("slipway")
SMALL_COLLECTION = 1000  # passages
_CACHED_NUMBERS = 1_000_000  # of documents; 8 bytes each
DEPTH = 50  # places scored beyond the requested ones; twice as many passages

PASSAGES_PER_PLACE = 8  # passages of a place that are read

_WORDS_WITH_FORMS = 12  # words of a question
_TABLES = ("places", "passages")
_SEGMENT_FILES, _MARK = ("idx", "term", "pos", "fast", "fieldnorm", "store"), 1337


class FoundPlace(Record, frozen=True, kw_only=True):
    """Hold a place: its number (its first passage's), its document's, and its best passages, at
    most `PASSAGES_PER_PLACE`, best first. `score` is comparable within one search.
    """

    number: int
    document: int
    passages: tuple[int, ...]
    score: float

    @property
    def passage(self) -> int:
        return self.passages[0]


class Index:
    """Keep the keyword index in `folder`, or in memory if None. Several threads may search while
    one updates.

    A folder that is broken, or was made by another version or for another store (`owner`), is
    replaced by an empty index.
    """

    def __init__(self, folder: Path | None, owner: str = "") -> None:
        self._folder, self._owner = folder, owner
        self.generation, self._home = _recorded(folder, owner) if folder else (0, "")
        if folder is None or (
            self.generation and all(_is_whole(folder / self._home / name) for name in _TABLES)
        ):
            self._open()
        else:
            if self.generation:
                log.warning(
                    "The keyword index is broken; it is built again from the stored documents."
                )
            self.clear()
        self._words = Words()

    def _open(self) -> None:
        home = self._folder / self._home if self._folder else None
        self._whole, self._parts = (KeywordTable(home / name if home else None) for name in _TABLES)
        self._snapshot()

    def _snapshot(self) -> None:
        self._searchers = self._whole.searcher(), self._parts.searcher()
        self.state = IndexState(self._whole, self._parts, *self._searchers)

    def clear(self) -> None:
        """Start an empty index in a new folder, since files of the old one may still be open."""
        if self._folder is not None:
            self._home = token_hex(4)
            for name in _TABLES:
                (self._folder / self._home / name).mkdir(parents=True)
        self._record(0)
        for other in self._folder.iterdir() if self._folder else ():
            if other.is_dir() and other.name != self._home:
                shutil.rmtree(other, ignore_errors=True)
        self._open()

    def update(self, put: Iterable[StoredPassage], dropped: Sequence[int], generation: int) -> None:
        """Remove the documents `dropped`, add the passages `put` (whole documents), and record the
        generation. Repeating an update after a crash changes nothing.
        """
        rows = list(put)
        documents = {row.document for row in rows}
        places: dict[int, list[StoredPassage]] = {}
        for row in rows:
            places.setdefault(row.place, []).append(row)
        out = [*dropped, *documents]
        counted = {row.id: self._counts(row, row.passage.text) for row in rows}
        self._parts.update([(row, row.passage.text, counted[row.id]) for row in rows], out)
        self._whole.update(
            [
                (
                    some[0],
                    "\n".join(row.passage.text for row in some),
                    _joined([counted[row.id] for row in some]),
                )
                for some in places.values()
            ],
            out,
        )
        self._snapshot()
        self._record(generation)

    def _counts(self, row: StoredPassage, body: str) -> TermCounts:
        """Count the terms of each field, for readers of a part of the documents."""
        fields = fields_by_name(row, body)
        found = [Counter(self.words_only(fields[name])) for name in BOOSTS]
        found += [Counter(plain_text(fields[name]).split()) for name in PAIR_BOOSTS]
        return [{**each, "": each.total()} for each in found]

    def words_only(self, text: str) -> Sequence[str]:
        """Return all words of a text without pairs of characters; see `words`."""
        return self._words.spaced(text)

    def query_terms(self, text: str, visible: DocumentFilter | None = None) -> dict[str, list[str]]:
        """Return what is searched for: `words`, and `pairs` of characters. In languages that bend
        or join words, also the forms that visible documents have.
        """
        terms, language = self._words.of(text), language_of(text)
        if language != "english":
            terms["words"] = self._words.content_terms(text) or terms["words"]
            for word in terms["words"][:_WORDS_WITH_FORMS]:
                terms["words"] += self._parts.forms_of(
                    self._searchers[1], word, visible, joined=language in JOINING
                )
        return terms

    def _record(self, generation: int) -> None:
        self.generation = generation
        if self._folder is not None:
            written = self._folder / "generation.new"
            self._folder.mkdir(parents=True, exist_ok=True)
            written.write_text(
                json.dumps(
                    {"format": _format(self._owner), "generation": generation, "home": self._home}
                )
            )
            written.replace(self._folder / "generation")

    def __len__(self) -> int:
        """Return the number of passages."""
        return int(self._searchers[1].num_docs)

    def rest(self) -> None:
        """Release the writers' memory and their lock on the folder; updates open new ones."""
        for table in (self._parts, self._whole):
            table.rest()

    def numbers(self) -> tuple[list[int], list[int]]:
        """Return the numbers of all indexed passages, and of all places."""
        whole, parts = self._searchers
        return self._parts.numbers(parts, "passage"), self._whole.numbers(whole, "place")

    def words(self, text: str) -> Sequence[str]:
        """Return all words of a text, stemmed as the index keeps them."""
        return self._words.all(text)

    def words_of_each(self, texts: Sequence[str]) -> Sequence[Sequence[str]]:
        """Return all words of each of many short texts."""
        return self._words.each(texts)

    def content_terms(self, text: str) -> Sequence[str]:
        """Return the content words of a question; may be empty."""
        return self._words.content_terms(text)

    def idf(self, word: str) -> float:
        """Return a word's inverse document frequency. The empty word means one that no passage has.
        A small collection is weighted as if it had more passages without the word: in a handful, a
        word that all have may still be what is asked about.
        """
        count = self._parts.count_of(self._searchers[1], word) if word else 0
        return idf(count, max(len(self), SMALL_COLLECTION))

    def search(
        self, text: str, limit: int, visible: DocumentFilter | None = None
    ) -> list[FoundPlace]:
        """Return the best places, each with its best passages; empty if nothing matches. Never
        raises, whatever the text.
        """
        terms = self.query_terms(text, visible)
        if not any(terms.values()) or limit < 1:
            return []
        (whole, parts), depth = self._searchers, DEPTH + limit
        best_passages: dict[int, list[int]] = {}
        best: dict[int, float] = {}
        for passage, place, score in self._parts.search(
            parts, terms, ("passage", "place"), 2 * depth, visible
        ):
            best_passages.setdefault(place, []).append(passage)
            best.setdefault(place, score)
        whole_scores = self._whole.search(whole, terms, ("place", "document"), depth, visible)
        found = sorted(
            (-(score + best.get(place, 0.0)) / 2, place, document)
            for place, document, score in whole_scores
        )
        return [
            FoundPlace(
                number=place,
                document=document,
                passages=tuple(best_passages.get(place, (place,))[:PASSAGES_PER_PLACE]),
                score=-score,
            )
            for score, place, document in found[:limit]
        ]


class IndexState:
    """The index between two updates. It caches which documents have a term; used by any threads."""

    def __init__(
        self,
        whole: KeywordTable,
        parts: KeywordTable,
        of_whole: "Searcher",
        of_parts: "Searcher",
    ) -> None:
        self.tables = {"places": (whole, of_whole), "passages": (parts, of_parts)}
        self.readers: dict[int, Any] = {}  # see `reader_index`
        self._documents: dict[tuple[str, str, str], Sequence[int]] = {}
        self._cached = 0

    def documents_with(self, table: str, field: str, term: str) -> Sequence[int]:
        """Return the document of each row that has the term."""
        key = (table, field, term)
        found = self._documents.get(key)
        if found is None:
            rows, searcher = self.tables[table]
            found = array("q", rows.documents_with(searcher, field, term))
            if self._cached > _CACHED_NUMBERS:
                self._documents, self._cached = {}, 0
            self._documents[key] = found
            self._cached += len(found) + 32
        return found


def _joined(counts: Sequence[TermCounts]) -> TermCounts:
    """Return the counts of a place: its passages' bodies together, one heading."""
    if len(counts) == 1:
        return counts[0]
    joined = list(counts[0])
    for n, (field, _) in enumerate(FIELDS):
        if field.startswith("body"):
            total = Counter[str]()
            for each in counts:
                total.update(each[n])
            joined[n] = dict(total)
    return joined


def _format(owner: str) -> str:
    """Return a hash of everything that an index must have been made with to be usable."""
    made = f"2 {owner} {version('tantivy')} {BOOSTS} {PAIR_BOOSTS}"
    return hashlib.sha256(made.encode()).hexdigest()[:16]


def _recorded(folder: Path, owner: str) -> tuple[int, str]:
    """Return the recorded generation and the folder's name; (0, "") if there is no index of this
    format.
    """
    try:
        record = json.loads((folder / "generation").read_text())
        return (
            (int(record["generation"]), str(record["home"]))
            if record["format"] == _format(owner)
            else (0, "")
        )
    except (OSError, ValueError, KeyError, TypeError):
        return 0, ""


def _is_whole(folder: Path) -> bool:
    """Tell whether all files of a tantivy index are complete: opening a broken one panics, or
    silently finds nothing.

    Each file ends with a JSON that holds the CRC-32 of what is before it, that JSON's length, and a
    magic number (tantivy's directory/footer.rs).
    """
    try:
        # `.managed.json` lists the files that tantivy may delete
        json.loads((folder / ".managed.json").read_text())
        for segment in json.loads((folder / "meta.json").read_text())["segments"]:
            name = segment["segment_id"].replace("-", "")
            gone = segment.get("deletes")
            kinds = [*_SEGMENT_FILES, *([f"{gone['opstamp']}.del"] if gone else [])]
            if not all(_is_sound((folder / f"{name}.{kind}").read_bytes()) for kind in kinds):
                return False
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return True


def _is_sound(data: bytes) -> bool:
    length, mark = int.from_bytes(data[-8:-4], "little"), int.from_bytes(data[-4:], "little")
    return (
        mark == _MARK
        and zlib.crc32(data[: -8 - length]) == json.loads(data[-8 - length : -8])["crc"]
    )
