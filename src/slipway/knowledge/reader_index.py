"""Search as if the documents that an asker may not read did not exist.

The scores of an index depend on all of its documents: a word that a hidden document has counts for
less, and that changes the order of what an asker does see. Whoever may add documents could confirm
any word of a hidden one that way. Here all statistics come from the documents that the asker may
read; the length of a usual text is a constant. tantivy proposes candidates, and their scores are
computed again from the term counts that are stored beside them.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial

from slipway.knowledge.document_store import Doc
from slipway.knowledge.index import (
    DEPTH,
    PASSAGES_PER_PLACE,
    SMALL_COLLECTION,
    FoundPlace,
    Index,
    IndexState,
)
from slipway.knowledge.keyword_table import (
    FIELDS,
    DocumentFilter,
    TermCounts,
    Weights,
    fields_of,
    idf,
    rarest,
)

_READERS = 32  # kept for one state of the index
_COUNTS = 2000  # words whose counts a reader keeps
_K1, _B = 1.2, 0.75  # of BM25, as in tantivy
_PAIRS = tuple(field for field, _ in FIELDS if field.endswith("_pairs"))
_FIELD_NUMBERS = {field: n for n, (field, _) in enumerate(FIELDS)}
_BOOSTS = dict(FIELDS)
# Usual lengths of the fields, in terms
_LENGTHS = {"heading": 4, "trail": 5, "title": 4, "path": 4, "heading_pairs": 8}
_BODY = {"passages": 100, "places": 250}


def reader_index(
    index: Index, readable: DocumentFilter | None, documents: Mapping[int, Doc]
) -> "Index | ReaderIndex":
    """Return the index as an asker may see it. `readable` are the documents that it may read, all
    if None; `documents` are all that there are.
    """
    if readable is None:
        return index
    state = index.state
    kept = state.readers.get(id(readable))
    if kept is None or kept.readable is not readable:
        if len(state.readers) >= _READERS:
            state.readers.clear()
        total = sum(doc.passages for number, doc in documents.items() if number in readable)
        kept = state.readers[id(readable)] = ReaderIndex(index, state, readable, total)
    return kept


class ReaderIndex:
    """The part of an index that some asker may read. It answers as `Index` does, and is used by any
    threads.
    """

    def __init__(
        self, index: Index, state: IndexState, readable: DocumentFilter, passages: int
    ) -> None:
        self.readable = readable
        self._index, self._state, self._passages = index, state, passages
        self._counts: dict[tuple[str, str, str], int] = {}

    def words(self, text: str) -> Sequence[str]:
        return self._index.words(text)

    def words_of_each(self, texts: Sequence[str]) -> Sequence[Sequence[str]]:
        return self._index.words_of_each(texts)

    def content_terms(self, text: str) -> Sequence[str]:
        return self._index.content_terms(text)

    def idf(self, word: str) -> float:
        """See `Index.idf`."""
        counts = [self._count("passages", field, word) for field in fields_of(word)] if word else []
        return idf(max(counts, default=0), max(self._passages, SMALL_COLLECTION))

    def _count(self, table: str, field: str, term: str) -> int:
        """Return in how many readable rows a field has the term."""
        key = (table, field, term)
        found = self._counts.get(key)
        if found is None:
            documents = self._state.documents_with(table, field, term)
            if len(self._counts) >= _COUNTS:
                self._counts.clear()
            found = self._counts[key] = sum(document in self.readable for document in documents)
        return found

    def search(
        self, text: str, limit: int, visible: DocumentFilter | None = None
    ) -> list[FoundPlace]:
        """See `Index.search`. `visible` are readable documents: all, or those that the question is
        limited to.
        """
        visible = visible or self.readable
        terms = self._index.query_terms(text, visible)
        if not any(terms.values()) or limit < 1:
            return []
        depth = DEPTH + limit
        passages = defaultdict[int, list[tuple[float, int]]](list)
        for score, passage, place, _ in self._rows("passages", terms, 2 * depth, visible):
            passages[place].append((-score, passage))
        found = []
        for score, _, place, document in self._rows("places", terms, depth, visible):
            best = sorted(passages[place])
            own = -best[0][0] if best else 0.0
            found.append((-(score + own) / 2, place, document, tuple(n for _, n in best)))
        return [
            FoundPlace(
                number=place,
                document=document,
                passages=(best or (place,))[:PASSAGES_PER_PLACE],
                score=-score,
            )
            for score, place, document, best in sorted(found)[:limit]
        ]

    def _rows(
        self,
        table: str,
        terms: Mapping[str, Sequence[str]],
        limit: int,
        visible: DocumentFilter,
    ) -> list[tuple[float, int, int, int]]:
        """Return (score, passage, place, document) of the best rows."""
        rows, searcher = self._state.tables[table]
        weights = self._weights(table, terms)
        total = max(int(searcher.num_docs), 1)
        # tantivy multiplies with an IDF of all documents; divided by that, its best rows are about
        # the best ones by ours
        proposing = [
            (field, term, weight / idf(int(searcher.doc_freq(field, term)), total))
            for field, term, weight in weights
        ]
        return [
            (_score(counts, weights, _BODY[table]), passage, place, document)
            for passage, place, document, counts in rows.counts(searcher, proposing, limit, visible)
        ]

    def _weights(self, table: str, terms: Mapping[str, Sequence[str]]) -> Weights:
        found: Weights = []
        for kind, main in (("words", "body"), ("pairs", "body_pairs")):
            fields = [f for f, _ in FIELDS if (f in _PAIRS) == (kind == "pairs")]
            for term in rarest(terms[kind], partial(self._count, table, main)):
                for field in fields:
                    if count := self._count(table, field, term):
                        weight = _BOOSTS[field] * idf(count, max(self._passages, count))
                        found.append((field, term, weight))
        return found


def _score(counts: TermCounts, weights: Weights, body: int) -> float:
    """Return a row's BM25 score (Robertson & Zaragoza 2009)."""
    score = 0.0
    for field, term, weight in weights:
        of_field = counts[_FIELD_NUMBERS[field]]
        if often := of_field.get(term):
            length = of_field[""] / _LENGTHS.get(field, body)
            score += weight * (_K1 + 1) * often / (often + _K1 * (1 - _B + _B * length))
    return score
