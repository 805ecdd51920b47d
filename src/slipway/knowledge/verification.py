"""Check that documents, index and vectors of a collection agree (`slipway ingest --verify`)."""

from collections import Counter, defaultdict
from collections.abc import Collection as Collected
from collections.abc import Iterable, Sequence

from slipway.knowledge.collection import Collection
from slipway.knowledge.document_store import Doc, StoredPassage
from slipway.knowledge.freshness import is_fresh
from slipway.knowledge.readers import UnreadableFile
from slipway.knowledge.reading import FileReader


def inconsistencies(collection: Collection) -> list[str]:
    """Return one sentence for each disagreement: store, index and vectors with each other, and the
    store with files that are unchanged.
    """
    document_store = collection.document_store
    with collection.changing:
        rows = {row.id: row for row in document_store.rows(list(collection.documents))}
        parts, places = collection.index.numbers()
        wrong = [f"The store is damaged: {each}" for each in document_store.damage()]
        wrong += _mismatches("passages", parts, rows) + _mismatches(
            "places", places, {row.place for row in rows.values()}
        )
        if {doc.id: doc for doc in document_store.documents()} != dict(collection.documents):
            wrong.append("The documents in memory differ from those in the store.")
        counted = Counter(row.document for row in rows.values())
        wrong += [
            f"{doc.path} has {counted[doc.id]} passages, not {doc.passages}."
            for doc in collection.documents.values()
            if counted[doc.id] != doc.passages
        ]
        if odd := document_store.vector_keys()[1]:
            wrong.append(f"{odd} vectors have another length than the others.")
    by_document = defaultdict[int, list[StoredPassage]](list)
    for row in rows.values():
        by_document[row.document].append(row)
    documents = list(collection.documents.values())
    return wrong + [
        f"{doc.path} differs from its file."
        for doc in documents
        if _differs_from_file(collection.reader, doc, by_document[doc.id])
    ]


def _differs_from_file(reader: FileReader, doc: Doc, rows: Sequence[StoredPassage]) -> bool:
    """Return whether reading an unchanged file gives other passages than the stored ones."""
    if doc.state == "failed" or not is_fresh(doc):
        return False
    try:
        fresh = reader.reread(doc)
    except UnreadableFile:
        return True
    return not is_fresh(doc) or [row.passage for row in rows] != list(fresh.passages)


def _mismatches(what: str, indexed: Iterable[int], known: Collected[int]) -> list[str]:
    counts = Counter(indexed)
    sets = {
        "missing from the index": sum(1 for number in known if number not in counts),
        "in the index though they were dropped": sum(1 for number in counts if number not in known),
        "in the index more than once": sum(1 for times in counts.values() if times > 1),
    }
    return [f"{count} {what} are {how}." for how, count in sets.items() if count]
