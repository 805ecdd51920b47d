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
import math
import re
import shutil
import unicodedata
import zlib
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from secrets import token_hex
from threading import Lock
from typing import TYPE_CHECKING, Any

from slipway.knowledge.document_store import StoredPassage
from slipway.types import Record

if TYPE_CHECKING:
    from tantivy import IndexWriter, Query, Searcher, TextAnalyzer

log = logging.getLogger("slipway")
_BOOSTS = {"heading": 1.0, "trail": 0.5, "title": 0.25, "path": 0.25, "body": 1.0}
# Scripts without spaces between words are indexed as pairs of characters
_PAIR_BOOSTS = {"heading_pairs": 1.0, "body_pairs": 1.0}
_UNSPACED = re.compile(
    r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u9fff\ua000-\ua4cf\uac00-\ud7af\uf900-\ufaff"
    r"\U00020000-\U0003ffff]+"
)
# In addition to tantivy's own stop words (Lucene's 33): they show that something is asked, not
# what. Removed from questions, never from the index.
_ASKING = """
    about am any been can could did do does each explain from had has have he her here him his
    how i its just many may me might much must my our please she should so some tell than too us
    very we were what when where which who whom whose why would you your
"""
_LONGEST_WORD = 64
_LINE_END = "7h3l1n33nd5"  # a word that no text has and the stemmer keeps
_QUERY_CHARACTERS, _QUERY_TERMS = 8000, 64
_WRITER_BYTES = 50_000_000
_SMALL_COLLECTION = 1000  # passages
_DEPTH = 50  # places scored beyond the requested ones; twice as many passages

PASSAGES_PER_PLACE = 8  # passages of a place that are read

_NUMBERS = ("passage", "place", "document")
_TABLES = ("places", "passages")
_SEGMENT_FILES, _MARK = ("idx", "term", "pos", "fast", "fieldnorm", "store"), 1337

Fields = dict[str, str]


class DocumentFilter(Record, frozen=True, kw_only=True):
    """Name the documents that a search may find: those with these numbers, or with `excludes` all
    but those.
    """

    documents: frozenset[int]
    excludes: bool = False

    def __contains__(self, document: int) -> bool:
        return (document in self.documents) != self.excludes


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
        self._words = _Words()

    def _open(self) -> None:
        home = self._folder / self._home if self._folder else None
        self._whole, self._parts = (_Table(home / name if home else None) for name in _TABLES)
        self._searchers = self._whole.searcher(), self._parts.searcher()

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
        self._parts.update([(row, row.passage.text) for row in rows], out)
        self._whole.update(
            [(some[0], "\n".join(row.passage.text for row in some)) for some in places.values()],
            out,
        )
        self._searchers = self._whole.searcher(), self._parts.searcher()
        self._record(generation)

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
        """Return a word's weight as in BM25 (Robertson & Zaragoza 2009): high if few passages have
        it. The empty word means one that no passage has. A small collection is weighted as if it
        had more passages without the word: in a handful, a word that all have may still be what is
        asked about.
        """
        count, total = (
            self._parts.count_of(self._searchers[1], word) if word else 0,
            max(len(self), _SMALL_COLLECTION),
        )
        return math.log(1 + (total - min(count, total) + 0.5) / (count + 0.5))

    def search(
        self, text: str, limit: int, visible: DocumentFilter | None = None
    ) -> list[FoundPlace]:
        """Return the best places, each with its best passages; empty if nothing matches. Never
        raises, whatever the text.
        """
        terms = self._words.of(text)
        if not any(terms.values()) or limit < 1:
            return []
        (whole, parts), depth = self._searchers, _DEPTH + limit
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


def _format(owner: str) -> str:
    """Return a hash of everything that an index must have been made with to be usable."""
    made = f"1 {owner} {version('tantivy')} {_BOOSTS} {_PAIR_BOOSTS}"
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


def _fields(row: StoredPassage, body: str) -> Fields:
    passage = row.passage
    above = " ".join(passage.trail[:-1])
    fields = {
        "heading": passage.heading,
        "trail": above,
        "title": passage.title,
        "path": passage.path,
        "body": body,
    }
    fields["heading_pairs"] = " ".join(_pairs(f"{passage.heading} {above} {passage.title}"))
    fields["body_pairs"] = " ".join(_pairs(body))
    return fields


def _pairs(text: str) -> list[str]:
    return [
        run[at : at + 2] for run in _UNSPACED.findall(text) for at in range(max(len(run) - 1, 1))
    ]


def _plain(text: str) -> str:
    """Normalise to NFKC; drop unpaired surrogates, which JSON can carry."""
    return unicodedata.normalize("NFKC", text.encode("utf-8", "ignore").decode())


class _Words:
    """Turn texts into terms. An analyzer is not thread-safe, hence the lock; it is held for
    microseconds.
    """

    def __init__(self) -> None:
        self._content, self._all = _analyzer(content_only=True), _analyzer()
        self._lock = Lock()

    @lru_cache(4096)  # noqa: B019 - an index lives as long as its process
    def all(self, text: str) -> tuple[str, ...]:
        plain = _plain(text)
        with self._lock:
            words = self._all.analyze(plain)
        return (*words, *_pairs(plain))

    def each(self, texts: Sequence[str]) -> Sequence[Sequence[str]]:
        """Analyze many texts in one call: a call costs more than a line."""
        text = _plain(f" {_LINE_END} ".join(texts))
        if _UNSPACED.search(text):
            return [self.all(each) for each in texts]
        with self._lock:
            words = self._all.analyze(text)
        ends = [number for number, word in enumerate(words) if word == _LINE_END]
        if len(ends) != max(len(texts) - 1, 0):  # a text contains the separator
            return [self.all(each) for each in texts]
        return [
            words[start:stop]
            for start, stop in zip(
                [0, *(end + 1 for end in ends)], [*ends, len(words)], strict=True
            )
        ][: len(texts)]

    def content_terms(self, text: str) -> list[str]:
        plain = _plain(text[:_QUERY_CHARACTERS])
        with self._lock:
            words = self._content.analyze(plain)
        return list(dict.fromkeys([*words, *_pairs(plain)]))

    def of(self, text: str) -> dict[str, list[str]]:
        if len(text) > _QUERY_CHARACTERS:
            half = _QUERY_CHARACTERS // 2
            text = f"{text[:half]} {text[-half:]}"
        text = _plain(text)
        with self._lock:
            words = self._content.analyze(text) or self._all.analyze(text)
        return {"words": list(dict.fromkeys(words)), "pairs": list(dict.fromkeys(_pairs(text)))}


def _analyzer(*, content_only: bool = False) -> "TextAnalyzer":
    """Build the analyzer of the index; with `content_only` it drops words that carry no content."""
    from tantivy import Filter, TextAnalyzerBuilder, Tokenizer

    filters = [Filter.remove_long(_LONGEST_WORD), Filter.lowercase(), Filter.ascii_fold()]
    filters += (
        [Filter.stopword("english"), Filter.custom_stopword(_ASKING.split())]
        if content_only
        else []
    )
    builder = TextAnalyzerBuilder(Tokenizer.simple())
    for each in [*filters, Filter.stemmer("english")]:
        builder = builder.filter(each)
    return builder.build()


class _Table:
    """Hold one tantivy index whose rows carry their numbers."""

    def __init__(self, folder: Path | None) -> None:
        import tantivy

        builder = tantivy.SchemaBuilder()
        for number in _NUMBERS:
            builder = builder.add_integer_field(number, fast=True, indexed=True)
        for field in _BOOSTS:
            builder = builder.add_text_field(field, tokenizer_name="words", index_option="freq")
        for field in _PAIR_BOOSTS:
            builder = builder.add_text_field(field, tokenizer_name="pairs", index_option="freq")
        self._schema = builder.build()
        self._index = (
            tantivy.Index(self._schema, path=str(folder)) if folder else tantivy.Index(self._schema)
        )
        self._index.register_tokenizer("words", _analyzer())
        self._index.register_tokenizer(
            "pairs", tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.whitespace()).build()
        )
        self._writer: IndexWriter | None = None

    def rest(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.wait_merging_threads()

    def searcher(self) -> "Searcher":
        """Over what there is now: it sees no later update."""
        return self._index.searcher()

    @staticmethod
    def count_of(searcher: "Searcher", term: str) -> int:
        """How many rows have it, in their text or in a heading."""
        fields = (
            ("body", "heading", "trail")
            if not _UNSPACED.match(term)
            else ("body_pairs", "heading_pairs")
        )
        return max(int(searcher.doc_freq(field, term)) for field in fields)

    def update(self, rows: Iterable[tuple[StoredPassage, str]], dropped: Iterable[int]) -> None:
        import tantivy

        writer, self._writer = (
            self._writer,
            None,
        )  # one that failed, on a full disk say, is not used again
        if writer is None:
            writer = self._index.writer(
                _WRITER_BYTES, 1
            )  # one thread: the same documents always get the same order
        for document in dropped:
            writer.delete_documents_by_term("document", document)
        for row, body in rows:
            fields = {field: _plain(text) for field, text in _fields(row, body).items()}
            writer.add_document(
                tantivy.Document(passage=row.id, place=row.place, document=row.document, **fields)
            )
        writer.commit()
        self._writer = writer
        self._index.reload()

    @staticmethod
    def numbers(searcher: "Searcher", name: str) -> list[int]:
        from tantivy import Query

        hits = searcher.search(Query.all_query(), max(searcher.num_docs, 1), count=False).hits
        return [
            int(number or 0)
            for number in searcher.fast_field_values(name, [address for _, address in hits])
        ]

    def search(
        self,
        searcher: "Searcher",
        terms: dict[str, list[str]],
        names: Sequence[str],
        limit: int,
        visible: DocumentFilter | None,
    ) -> Iterator[tuple[Any, ...]]:
        """Yield the requested columns of the best rows, with their scores."""
        hits = searcher.search(
            self._within(self._query(searcher, terms), visible), limit, count=False
        ).hits
        scores, addresses = [score for score, _ in hits], [address for _, address in hits]
        columns = [searcher.fast_field_values(name, addresses) for name in names]
        return zip(*columns, scores, strict=True)

    def _within(self, query: "Query", visible: DocumentFilter | None) -> "Query":
        from tantivy import Occur, Query

        if visible is None:
            return query
        named = Query.const_score_query(
            Query.term_set_query(self._schema, "document", list(visible.documents)), 0.0
        )
        return Query.boolean_query(
            [(Occur.Must, query), (Occur.MustNot if visible.excludes else Occur.Must, named)]
        )

    def _query(self, searcher: "Searcher", terms: dict[str, list[str]]) -> "Query":
        from tantivy import Occur, Query

        wanted = [("body", _BOOSTS, terms["words"]), ("body_pairs", _PAIR_BOOSTS, terms["pairs"])]
        return Query.boolean_query(
            [
                (
                    Occur.Should,
                    Query.boost_query(Query.term_query(self._schema, field, term, "freq"), boost),
                )
                for main, boosts, found in wanted
                for term in _rarest(searcher, main, found)
                for field, boost in boosts.items()
            ]
        )


def _rarest(searcher: "Searcher", field: str, terms: list[str]) -> list[str]:
    """Return the rarest terms if there are too many; those that no body has come last."""
    if len(terms) <= _QUERY_TERMS:
        return terms
    counts = {term: searcher.doc_freq(field, term) for term in terms}
    return sorted(terms, key=lambda term: (counts[term] == 0, counts[term]))[:_QUERY_TERMS]
