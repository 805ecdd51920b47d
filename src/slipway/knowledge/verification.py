"""Whether what is kept of a collection fits together."""

from collections import Counter, defaultdict
from collections.abc import Collection as Collected
from collections.abc import Iterable, Sequence

from slipway.knowledge.collection import Collection
from slipway.knowledge.document_store import Doc, Row
from slipway.knowledge.freshness import is_fresh
from slipway.knowledge.readers import Unreadable
from slipway.knowledge.reading import FileReader


def misfits(collection: Collection) -> list[str]:
    """What does not fit together, a sentence each: document_store, index and vectors against each other, and
    the document_store against unchanged files.
    """
    document_store = collection.document_store
    with collection.changing:
        rows = {row.id: row for row in document_store.rows(list(collection.documents))}
        parts, places = collection.index.numbers()
        wrong = [f"The store is damaged: {each}" for each in document_store.damage()]
        wrong += _uneven("passages", parts, rows) + _uneven(
            "places", places, {row.place for row in rows.values()}
        )
        if {doc.id: doc for doc in document_store.documents()} != dict(collection.documents):
            wrong.append("What the process knows is not what the store has.")
        counted = Counter(row.document for row in rows.values())
        wrong += [
            f"{doc.path} has {counted[doc.id]} passages, not {doc.passages}."
            for doc in collection.documents.values()
            if counted[doc.id] != doc.passages
        ]
        if odd := document_store.vector_keys()[1]:
            wrong.append(f"{odd} vectors have another length than the others.")
    by_document = defaultdict[int, list[Row]](list)
    for row in rows.values():
        by_document[row.document].append(row)
    documents = list(collection.documents.values())
    return wrong + [
        f"{doc.path} is not what its file says."
        for doc in documents
        if _differs(collection.reader, doc, by_document[doc.id])
    ]


def _differs(reader: FileReader, doc: Doc, rows: Sequence[Row]) -> bool:
    """Whether an unchanged file says something else than what is kept of it."""
    if doc.state == "failed" or not is_fresh(doc):
        return False
    try:
        fresh = reader.again(doc)
    except Unreadable:
        return True
    return not is_fresh(doc) or [row.passage for row in rows] != list(fresh.passages)


def _uneven(what: str, indexed: Iterable[int], known: Collected[int]) -> list[str]:
    counts = Counter(indexed)
    sets = {
        "missing from the index": sum(1 for number in known if number not in counts),
        "in the index though they are gone": sum(1 for number in counts if number not in known),
        "in the index more than once": sum(1 for times in counts.values() if times > 1),
    }
    return [f"{count} {what} are {how}." for how, count in sets.items() if count]
