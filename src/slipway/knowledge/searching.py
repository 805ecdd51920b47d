"""Run one search: keywords and vectors into ranked places, at one state of the collection."""

from collections.abc import Mapping, Sequence

import msgspec

from slipway.knowledge import fusion
from slipway.knowledge.best_passage import PLACES_READ, choose_best_passages
from slipway.knowledge.collection import Collection, KnownDocuments
from slipway.knowledge.dense import Dense
from slipway.knowledge.document_store import Doc, StoredPassage
from slipway.knowledge.fusion import FusedPlace, Ranked
from slipway.knowledge.index import FoundPlace, Index
from slipway.knowledge.keyword_table import DocumentFilter
from slipway.knowledge.pointers import is_numbered, pointed_number
from slipway.knowledge.reader_index import ReaderIndex


class SearchResult:
    """What a search found. `documents` are those of all passages found, by passage id.

    `is_complete` is false if documents were replaced meanwhile: then old and new are mixed, and the
    search should run again.
    """

    def __init__(
        self, ranked: list[Ranked], documents: Mapping[str, Doc], *, is_complete: bool
    ) -> None:
        self.ranked, self.documents, self.is_complete = ranked, documents, is_complete

    def document_of(self, each: Ranked) -> Doc:
        return self.documents[each.passage.id]


class Search:
    """One search of `text` over the `visible` documents. Blocks for a few milliseconds."""

    def __init__(
        self,
        text: str,
        limit: int,
        collection: Collection,
        known: KnownDocuments,
        index: Index | ReaderIndex,
        dense: Dense | None,
        visible: DocumentFilter | None,
    ) -> None:
        self._text, self._limit, self._visible = text, limit, visible
        self._store, self._known = collection.document_store, known
        self._index, self._dense = index, dense

    def run(self) -> SearchResult:
        places = self._by_keywords()
        passages = {place.number: place.passages for place in places}
        cosines = self._cosines([number for some in passages.values() for number in some])
        place_of = self._places_of(places, cosines)
        chosen = self._fused(places, cosines, place_of)
        others = [
            [n for n in passages.get(place_of[each.passage], ()) if n != each.passage]
            for each in chosen[:PLACES_READ]
        ]
        wanted = [*(each.passage for each in chosen), *(n for some in others for n in some)]
        rows = self._store.passages(wanted)
        located = {*cosines, *(number for some in passages.values() for number in some)}
        complete = len(rows) == len(wanted) and len(place_of) == len(located)
        ranked = self._with_named_first(_ranked(chosen, rows))
        if complete:
            more = [[(rows[n].passage, cosines.get(n, 0.0)) for n in some] for some in others]
            ranked = choose_best_passages(self._text, ranked, more, self._index)
        documents = {row.passage.id: self._known.documents[row.document] for row in rows.values()}
        return SearchResult(ranked, documents, is_complete=complete)

    def _by_keywords(self) -> list[FoundPlace]:
        depth = max(self._limit, fusion.KEYWORD_DEPTH)
        return self._index.search(self._text, depth, self._visible)

    def _cosines(self, found: Sequence[int]) -> dict[int, float]:
        """Return the cosines of the nearest passages and of those that keywords found."""
        if self._dense is None:
            return {}
        depth = max(self._limit, fusion.DENSE_DEPTH)
        return self._dense.nearest(self._text, depth, found, self._visible)

    def _places_of(
        self, places: Sequence[FoundPlace], cosines: Mapping[int, float]
    ) -> dict[int, int]:
        """Return the place of each passage found, without documents that are gone or hidden."""
        located = {
            number: (place.number, place.document) for place in places for number in place.passages
        }
        located |= self._store.locations([number for number in cosines if number not in located])
        return {
            number: place
            for number, (place, document) in located.items()
            if document in self._known.documents
            and (self._visible is None or document in self._visible)
        }

    def _with_named_first(self, ranked: list[Ranked]) -> list[Ranked]:
        """Put places first whose heading is the question itself, apart from signs and endings, or
        has the number that the question points at ("clause 2.2").
        """
        asked = tuple(self._index.words(self._text))
        named = [each for each in ranked if tuple(self._index.words(each.passage.heading)) == asked]
        if not named and (number := pointed_number(self._text)):
            named = [each for each in ranked if is_numbered(each.passage.heading, number)]
        if not asked or not named or named[0] is ranked[0]:
            return ranked
        best = ranked[0].score
        first = [msgspec.structs.replace(each, score=best) for each in named]
        return first + [each for each in ranked if each not in named]

    def _fused(
        self,
        places: Sequence[FoundPlace],
        cosines: Mapping[int, float],
        place_of: Mapping[int, int],
    ) -> list[FusedPlace[int]]:
        return fusion.fuse_keys(
            [
                (place.number, place.passage, place.score)
                for place in places
                if place.passage in place_of
            ],
            [(place_of[n], n, cosine) for n, cosine in cosines.items() if n in place_of],
            self._limit,
        )


def _ranked(chosen: Sequence[FusedPlace[int]], rows: Mapping[int, StoredPassage]) -> list[Ranked]:
    return [
        Ranked(
            passage=rows[each.passage].passage,
            score=each.score,
            keyword=each.keyword,
            cosine=each.cosine,
        )
        for each in chosen
        if each.passage in rows
    ]
