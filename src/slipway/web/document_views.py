"""Show documents as the API does: with their state, as this asker may see them."""

import time

from slipway.knowledge import Knowledge
from slipway.knowledge.document_store import Doc
from slipway.knowledge.reading import failure_text
from slipway.types import Asker, Record


class DocumentView(Record, frozen=True, kw_only=True):
    """A document as the API shows it. If it failed, `error` says why and `page` on which page."""

    id: str
    app: str
    path: str
    state: str  # done | partly | failed | reading
    title: str = ""
    passages: int = 0
    version: str = ""
    size: int = 0
    date: str = ""
    tags: tuple[str, ...] = ()
    uploaded: bool = False
    read_at: float | None = None
    error: str | None = None
    reason: str | None = None
    page: int | None = None
    next: str | None = None


def views(app: str, knowledge: Knowledge, asker: Asker) -> list[DocumentView]:
    """Return all documents of an app that the asker may see."""
    # read first: see `DocumentRoutes.find`
    waiting, coming = knowledge.waiting, knowledge.pending_uploads(asker)
    known = {doc.path: doc for doc in knowledge.documents(asker)}
    docs = [*known.values(), *(doc for doc in coming if doc.path not in known)]
    return [view_for(app, knowledge, doc, asker, waits=doc.path in waiting) for doc in docs]


def view_for(
    app: str, knowledge: Knowledge, doc: Doc, asker: Asker, *, waits: bool
) -> DocumentView:
    """Return a document as this asker sees it.

    While it is being read, askers who may change documents see the state `reading`; the others see
    its previous state.
    """
    if asker.documents and waits:
        return DocumentView(id=doc.public, app=app, path=doc.path, state="reading", uploaded=True)
    return view(app, knowledge, doc)


def view(app: str, knowledge: Knowledge, doc: Doc) -> DocumentView:
    """Return a document with its stored state."""
    uploaded = knowledge.synchronizer.collection.uploads.holds(doc.file)
    failed = doc.state == "failed"
    return DocumentView(
        id=doc.public,
        app=app,
        path=doc.path,
        state=doc.state,
        title=doc.title,
        passages=doc.passages,
        version=doc.version,
        size=doc.size,
        date=doc.date,
        tags=tuple(sorted(doc.tags)),
        uploaded=uploaded,
        read_at=doc.read_at or time.time(),
        error=failure_text(doc) if failed else None,
        reason=doc.reason or None,
        page=doc.page,
        next=doc.next or None,
    )
