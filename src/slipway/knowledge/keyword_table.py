"""Keep rows of texts in tantivy, and score them by BM25 for words in any of their fields."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from slipway.knowledge.document_store import StoredPassage
from slipway.knowledge.languages import SHORTEST_PART, is_form_of
from slipway.knowledge.words import UNSPACED, analyzer, pairs, plain_text
from slipway.types import Record

if TYPE_CHECKING:
    from tantivy import IndexWriter, Query, Searcher

BOOSTS = {"heading": 1.0, "trail": 0.5, "title": 0.25, "path": 0.25, "body": 1.0}
# Scripts without spaces between words are indexed as pairs of characters
PAIR_BOOSTS = {"heading_pairs": 1.0, "body_pairs": 1.0}
FIELDS = (*BOOSTS.items(), *PAIR_BOOSTS.items())
_QUERY_TERMS = 64
_WRITER_BYTES = 50_000_000
_FORM_ROWS, _FORMS = 40, 6  # rows that are read for the forms of a word; forms to search for
_FIELDS_SAID = ("body", "heading")
_NUMBERS = ("passage", "place", "document")

Fields = dict[str, str]
Weights = list[tuple[str, str, float]]  # (field, term, weight)
TermCounts = list[dict[str, int]]  # of each of FIELDS; `""` is the field's length
_COUNTS = msgspec.msgpack.Decoder(TermCounts)


class DocumentFilter(Record, frozen=True, kw_only=True):
    """Name the documents that a search may find: those with these numbers, or with `excludes` all
    but those.
    """

    documents: frozenset[int]
    excludes: bool = False

    def __contains__(self, document: int) -> bool:
        return (document in self.documents) != self.excludes


def fields_by_name(row: StoredPassage, body: str) -> Fields:
    passage = row.passage
    above = " ".join(passage.trail[:-1])
    fields = {
        "heading": passage.heading,
        "trail": above,
        "title": passage.title,
        "path": passage.path,
        "body": body,
    }
    fields["heading_pairs"] = " ".join(pairs(f"{passage.heading} {above} {passage.title}"))
    fields["body_pairs"] = " ".join(pairs(body))
    return fields


def fields_of(term: str) -> Sequence[str]:
    """Return the fields in which a term counts as said: the text and the headings."""
    return ("body_pairs", "heading_pairs") if UNSPACED.match(term) else ("body", "heading", "trail")


def idf(count: int, total: int) -> float:
    """Return the inverse document frequency of a term as in BM25 (Robertson & Zaragoza 2009)."""
    return math.log(1 + (total - min(count, total) + 0.5) / (count + 0.5))


class KeywordTable:
    """Hold one tantivy index whose rows carry their numbers."""

    def __init__(self, folder: Path | None) -> None:
        import tantivy

        builder = tantivy.SchemaBuilder()
        for number in _NUMBERS:
            builder = builder.add_integer_field(number, fast=True, indexed=True)
        for field in BOOSTS:
            builder = builder.add_text_field(field, tokenizer_name="words", index_option="freq")
        for field in PAIR_BOOSTS:
            builder = builder.add_text_field(field, tokenizer_name="pairs", index_option="freq")
        builder = builder.add_bytes_field("counts", stored=True)
        self._schema = builder.build()
        self._index = (
            tantivy.Index(self._schema, path=str(folder)) if folder else tantivy.Index(self._schema)
        )
        self._index.register_tokenizer("words", analyzer())
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
        """Count the rows that have it, in their text or in a heading."""
        return max(int(searcher.doc_freq(field, term)) for field in fields_of(term))

    def update(
        self, rows: Iterable[tuple[StoredPassage, str, TermCounts]], dropped: Iterable[int]
    ) -> None:
        import tantivy

        writer, self._writer = (
            self._writer,
            None,
        )  # one that failed, on a full disk say, is not used again
        if writer is None:
            writer = self._index.writer(
                _WRITER_BYTES, 1
            )  # one thread: the same documents always get the same order
        for number in dropped:
            writer.delete_documents_by_term("document", number)
        for row, body, counts in rows:
            fields = {field: plain_text(text) for field, text in fields_by_name(row, body).items()}
            document = tantivy.Document(
                passage=row.id, place=row.place, document=row.document, **fields
            )
            document.add_bytes("counts", msgspec.msgpack.encode(counts))
            writer.add_document(document)
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
        query = self._query(_weights(searcher, terms))
        hits = searcher.search(self._within(query, visible), limit, count=False).hits
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

    def counts(
        self,
        searcher: "Searcher",
        weights: Weights,
        limit: int,
        visible: DocumentFilter | None,
    ) -> Iterator[tuple[int, int, int, TermCounts]]:
        """Yield (passage, place, document, term counts) of about the best rows."""
        query = self._within(self._query(weights), visible)
        addresses = [address for _, address in searcher.search(query, limit, count=False).hits]
        columns = [searcher.fast_field_values(name, addresses) for name in _NUMBERS]
        for passage, place, document, address in zip(*columns, addresses, strict=True):
            stored: Any = searcher.doc(address).get_first("counts")
            yield int(passage), int(place), int(document), _COUNTS.decode(bytes(stored))

    def forms_of(
        self, searcher: "Searcher", word: str, visible: DocumentFilter | None, *, joined: bool
    ) -> Sequence[str]:
        """Return the words of visible rows that are a form of this one, the most frequent first:
        with another ending, or joined with other nouns (see `languages.is_form_of`).
        """
        from tantivy import Occur, Query

        if len(word) < SHORTEST_PART or not word.isalpha():
            return ()
        pattern = f".*{word}.*" if joined else f"{word[: max(SHORTEST_PART + 1, len(word) - 2)]}.*"
        query = Query.boolean_query(
            [
                (Occur.Should, Query.regex_query(self._schema, field, pattern))
                for field in _FIELDS_SAID
            ]
        )
        hits = searcher.search(self._within(query, visible), _FORM_ROWS, count=False).hits
        found = Counter[str]()
        for _, address in hits:
            stored: Any = searcher.doc(address).get_first("counts")
            for counts in _COUNTS.decode(bytes(stored))[: len(BOOSTS)]:
                found.update(each for each in counts if is_form_of(each, word, joined=joined))
        return [each for each, _ in found.most_common(_FORMS) if each != word]

    def documents_with(self, searcher: "Searcher", field: str, term: str) -> Sequence[int]:
        """Return the document of each row that has the term in the field."""
        from tantivy import Query

        rows = int(searcher.doc_freq(field, term))
        if not rows:
            return ()
        query = Query.const_score_query(Query.term_query(self._schema, field, term), 1.0)
        hits = searcher.search(query, rows, count=False).hits
        return [
            int(number or 0)
            for number in searcher.fast_field_values("document", [address for _, address in hits])
        ]

    def _query(self, weights: Weights) -> "Query":
        from tantivy import Occur, Query

        return Query.boolean_query(
            [
                (
                    Occur.Should,
                    Query.boost_query(Query.term_query(self._schema, field, term, "freq"), weight),
                )
                for field, term, weight in weights
            ]
        )


def _weights(searcher: "Searcher", terms: dict[str, list[str]]) -> Weights:
    """Return each term in each field with the field's boost; tantivy multiplies with its own IDF."""
    found: Weights = []
    for main, boosts, kind in (("body", BOOSTS, "words"), ("body_pairs", PAIR_BOOSTS, "pairs")):
        for term in rarest(terms[kind], partial(searcher.doc_freq, main)):
            found += [(field, term, boost) for field, boost in boosts.items()]
    return found


def rarest(terms: Sequence[str], count: Callable[[str], int]) -> Sequence[str]:
    """Return the rarest terms if there are too many; those that no body has come last."""
    if len(terms) <= _QUERY_TERMS:
        return terms
    counts = {term: count(term) for term in terms}
    return sorted(terms, key=lambda term: (counts[term] == 0, counts[term]))[:_QUERY_TERMS]
