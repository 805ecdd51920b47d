"""The keyword index: passages in, ranked places out.

Each place (a heading of a document) is indexed twice: whole, and passage by passage. Its score is the mean of its own BM25 and its best
passage's: long sections that treat the matter throughout and short spots that answer it are both found. Measured by bench/retrieval.py.
The index lives in memory and is made again from the documents; any text is a valid query, because none goes through a query parser.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from threading import Lock
from typing import TYPE_CHECKING

from slipway.types import Hit, Passage

if TYPE_CHECKING:
    from tantivy import Query, TextAnalyzer

_BOOSTS = {"heading": 1.0, "trail": 0.5, "title": 0.25, "path": 0.25, "body": 1.0}
_PAIR_BOOSTS = {"heading_pairs": 1.0, "body_pairs": 1.0}  # scripts that put no space between words are indexed as pairs of characters
_UNSPACED = re.compile(
    r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u9fff\ua000-\ua4cf\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff]+"
)
# Beside tantivy's own stop words (Lucene's 33): they say that something is asked, not what. Left out of questions, never of the index.
_ASKING = """
    about am any been can could did do does each explain from had has have he her here him his how i its just may me might must my our
    please she should so some tell than too us very we were what when where which who whom whose why would you your
"""
_LONGEST_WORD = 64
_QUERY_CHARACTERS, _QUERY_TERMS = 8000, 64
_WRITER_BYTES = 50_000_000
_DEPTH = 100  # how many places are weighed for each that is wanted, at least

Row = dict[str, str]


class Index:
    """Ready when made; searches may run in several threads at once."""

    def __init__(self, passages: Iterable[Passage]) -> None:
        self._places: list[list[Passage]] = _by_place(passages)
        self._passages = [passage for place in self._places for passage in place]
        self._place_of = [number for number, place in enumerate(self._places) for _ in place]
        self._whole = _Table([_row(place[0], "\n".join(passage.text for passage in place)) for place in self._places])
        self._parts = _Table([_row(passage, passage.text) for passage in self._passages])
        self._words = _Words()

    def __len__(self) -> int:
        return len(self._passages)

    def search(self, text: str, limit: int) -> list[Hit]:
        """The best places, each with its best passage; empty where nothing matches. Never raises, whatever the text."""
        terms = self._words.of(text)
        if not any(terms.values()) or limit < 1:
            return []
        depth = _DEPTH + 4 * limit
        best: dict[int, tuple[float, Passage]] = {}
        for number, score in self._parts.search(terms, 2 * depth):
            best.setdefault(self._place_of[number], (score, self._passages[number]))
        hits = []
        for number, score in self._whole.search(terms, depth):
            part, passage = best.get(number, (0.0, self._places[number][0]))
            hits.append(Hit(passage=passage, score=(score + part) / 2))
        return sorted(hits, key=lambda hit: -hit.score)[:limit]


def _by_place(passages: Iterable[Passage]) -> list[list[Passage]]:
    places: dict[tuple[str, str], list[Passage]] = {}
    for passage in passages:
        places.setdefault((passage.path, passage.heading), []).append(passage)
    return list(places.values())


def _row(passage: Passage, body: str) -> Row:
    above = " ".join(passage.trail[:-1])
    row = {"heading": passage.heading, "trail": above, "title": passage.title, "path": passage.path, "body": body}
    row["heading_pairs"] = " ".join(_pairs(f"{passage.heading} {above} {passage.title}"))
    row["body_pairs"] = " ".join(_pairs(body))
    return row


def _pairs(text: str) -> list[str]:
    return [run[at : at + 2] for run in _UNSPACED.findall(text) for at in range(max(len(run) - 1, 1))]


def _plain(text: str) -> str:
    """Composed characters, one form of each; half of a surrogate pair, which JSON can carry, is no character."""
    return unicodedata.normalize("NFKC", text.encode("utf-8", "ignore").decode())


class _Words:
    """A question's terms for each group of fields. An analyzer is not shared between threads, hence the lock; it is held for microseconds."""

    def __init__(self) -> None:
        self._telling, self._all = _analyzer(telling=True), _analyzer()
        self._lock = Lock()

    def of(self, text: str) -> dict[str, list[str]]:
        if len(text) > _QUERY_CHARACTERS:
            half = _QUERY_CHARACTERS // 2
            text = f"{text[:half]} {text[-half:]}"
        text = _plain(text)
        with self._lock:
            words = self._telling.analyze(text) or self._all.analyze(text)
        return {"words": list(dict.fromkeys(words)), "pairs": list(dict.fromkeys(_pairs(text)))}


def _analyzer(*, telling: bool = False) -> "TextAnalyzer":
    """Words as the index keeps them; `telling` leaves out those that tell nothing."""
    from tantivy import Filter, TextAnalyzerBuilder, Tokenizer

    filters = [Filter.remove_long(_LONGEST_WORD), Filter.lowercase(), Filter.ascii_fold()]
    filters += [Filter.stopword("english"), Filter.custom_stopword(_ASKING.split())] if telling else []
    builder = TextAnalyzerBuilder(Tokenizer.simple())
    for each in [*filters, Filter.stemmer("english")]:
        builder = builder.filter(each)
    return builder.build()


class _Table:
    """Rows under a tantivy index of their own; a row is known by its number."""

    def __init__(self, rows: Sequence[Row]) -> None:
        import tantivy

        builder = tantivy.SchemaBuilder().add_integer_field("number", fast=True)
        for field in _BOOSTS:
            builder = builder.add_text_field(field, tokenizer_name="words", index_option="freq")
        for field in _PAIR_BOOSTS:
            builder = builder.add_text_field(field, tokenizer_name="pairs", index_option="freq")
        self._schema = builder.build()
        index = tantivy.Index(self._schema)
        index.register_tokenizer("words", _analyzer())
        index.register_tokenizer("pairs", tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.whitespace()).build())
        writer = index.writer(_WRITER_BYTES, 1)  # one thread: the same documents always get the same order
        for number, row in enumerate(rows):
            writer.add_document(tantivy.Document(number=number, **{field: _plain(text) for field, text in row.items()}))
        writer.commit()
        writer.wait_merging_threads()
        index.reload()
        self._searcher = index.searcher()

    def search(self, terms: dict[str, list[str]], limit: int) -> list[tuple[int, float]]:
        hits = self._searcher.search(self._query(terms), limit, count=False).hits
        numbers = self._searcher.fast_field_values("number", [address for _, address in hits])
        return [(int(number or 0), score) for number, (score, _) in zip(numbers, hits, strict=True)]

    def _query(self, terms: dict[str, list[str]]) -> "Query":
        from tantivy import Occur, Query

        wanted = [("body", _BOOSTS, terms["words"]), ("body_pairs", _PAIR_BOOSTS, terms["pairs"])]
        return Query.boolean_query(
            [
                (Occur.Should, Query.boost_query(Query.term_query(self._schema, field, term, "freq"), boost))
                for main, boosts, found in wanted
                for term in self._rarest(main, found)
                for field, boost in boosts.items()
            ]
        )

    def _rarest(self, field: str, terms: list[str]) -> list[str]:
        """The terms that tell most, where there are too many; those that no body has come last."""
        if len(terms) <= _QUERY_TERMS:
            return terms
        counts = {term: self._searcher.doc_freq(field, term) for term in terms}
        return sorted(terms, key=lambda term: (counts[term] == 0, counts[term]))[:_QUERY_TERMS]
