"""The routes of documents: list them with their state, upload and remove them."""

import asyncio
import logging
import re
import time
import unicodedata
from pathlib import PurePath
from typing import Any

from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException
from starlette.requests import Request
from starlette.responses import Response

from slipway.answer import Current, Pipeline
from slipway.errors import (
    BadRequest,
    Conflict,
    Forbidden,
    NotFound,
    NotKept,
    StorageFull,
    TooLarge,
)
from slipway.knowledge import Knowledge
from slipway.knowledge.document_store import Doc
from slipway.knowledge.readers import READERS
from slipway.knowledge.reading import failure_text
from slipway.types import Asker, Record
from slipway.web.descriptions import (
    DELETED,
    FORM_TYPE,
    OBJECT,
    TEXT,
    YES_NO,
    Operation,
    Parameter,
    fields,
    list_of,
    one_of,
)
from slipway.web.responses import reply
from slipway.web.routes import ApiRoute

log = logging.getLogger("slipway")
# An upload's reply waits this long for the document to be read, before it says `reading`
_WAIT_S = 2.0
_MAX_NAME = 150
_FIELDS = ("file", "app", "tags", "groups")
_MAX_FILES = 100
_MAX_TAGS, _MAX_TAG = 50, 100
FILTERS = (
    Parameter(name="app", about="only documents of this app"),
    Parameter(
        name="state",
        about="only documents in this state",
        schema=one_of("done", "partly", "failed", "reading"),
    ),
)
FORM = {
    "type": "object",
    "properties": {
        "file": {"type": "array", "items": {"type": "string", "format": "binary"}},
        **dict.fromkeys(("app", "tags", "groups"), TEXT),
    },
    "required": ["file"],
}
DOCUMENT = fields(id=TEXT, app=TEXT, path=TEXT, state=TEXT)
_PARALLEL_READS = 2  # uploads read at the same time


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


class DocumentRoutes:
    """The handlers."""

    def __init__(self, current: Current) -> None:
        self.current = current
        self.reading: set[asyncio.Task[None]] = set()
        self.few = asyncio.Semaphore(_PARALLEL_READS)

    @property
    def pipeline(self) -> Pipeline:
        """Return the pipeline in force."""
        return self.current.pipeline

    @property
    def largest_mb(self) -> float:
        """Return the size limit of a document in MiB."""
        return self.current.settings.limits.document_mb

    @property
    def largest(self) -> int:
        """Return the size limit of a document in bytes."""
        return int(self.largest_mb * 1024 * 1024)

    async def listed(self, request: Request) -> Response:
        """List the documents that the asker may read."""
        asker: Asker = request.scope["slipway.asker"]
        known = [each.name for each in FILTERS]
        if unknown := next((key for key in request.query_params if key not in known), None):
            raise BadRequest(
                f"There is no query parameter `{unknown[:50]}`.",
                f"Known: {', '.join(known)}.",
                param=unknown[:50],
            )
        apps = self.apps(asker, request.query_params.get("app"))
        state = request.query_params.get("state")
        if state not in (None, "done", "partly", "failed", "reading"):
            raise BadRequest(
                f"There is no state `{state[:50]}`.",
                "Choose done, failed or reading.",
                param="state",
            )
        found = await asyncio.to_thread(
            lambda: [
                view for name, knowledge in apps.items() for view in views(name, knowledge, asker)
            ]
        )
        data = [document for document in found if state in (None, document.state)]
        return reply(
            {
                "object": "list",
                "data": data,
                "may_add": asker.documents,
                "kinds": list(READERS),
                "largest_mb": self.largest_mb,
            }
        )

    async def one(self, request: Request) -> Response:
        """Return one document."""
        asker: Asker = request.scope["slipway.asker"]
        name, knowledge, document, waits = self.find(request)
        return reply(view_for(name, knowledge, document, asker, waits=waits))

    async def remove(self, request: Request) -> Response:
        """Remove an uploaded document. Raise Conflict while it is being read."""
        asker: Asker = request.scope["slipway.asker"]
        name, knowledge, document, waits = self.find(request)
        require_documents_key(asker)
        if waits:
            raise Conflict(
                "This document is still being read.", "Remove it afterwards.", param="id"
            )
        await asyncio.to_thread(knowledge.remove, document)
        log.info("tenant %s removed %s from %s", asker.tenant, document.path, name)
        return reply({"id": document.public, "object": "document", "deleted": True})

    async def add(self, request: Request) -> Response:
        """Add documents from a multipart form: `file` (one or several), `app`, `tags`, `groups`.

        `tags` and `groups` are names separated by commas. The files are stored before the reply and
        read in the background.
        """
        asker: Asker = request.scope["slipway.asker"]
        require_documents_key(asker)
        async with self.form(request) as form:
            app = text_of(form, "app")
            (name, knowledge), *others = self.apps(asker, app).items()
            if others:
                known = ", ".join(f"`{n}`" for n in [name, *(n for n, _ in others)])
                raise BadRequest("`app` is missing.", f"Name one of: {known}.", param="app")
            if not knowledge.keeps_uploads:
                raise NotKept(
                    "Documents cannot be added: another process uses the store, or it cannot be "
                    "written.",
                    "Tell the operator: stop the other process, or set another `store:`.",
                )
            uploads = [(file_name_of(upload), upload.file) for upload in files_of(form)]
            said = tags_and_groups(form, asker)
            added, tasks = list[tuple[str, str]](), list[asyncio.Task[None]]()
            for n, file in uploads:
                added.append(await asyncio.to_thread(knowledge.add, n, file, asker, *said))
                tasks.append(self.read(knowledge, added[-1][1]))
        await asyncio.wait(tasks, timeout=_WAIT_S)
        paths = ", ".join(path for _, path in added)
        log.info("tenant %s added %s to %s", asker.tenant, paths, name)
        data = [self.state_of(name, knowledge, id_, path, asker) for id_, path in added]
        return reply({"object": "list", "data": data}, 201)

    def form(self, request: Request) -> Any:
        """Return a context manager that reads the form. Raise TooLarge or BadRequest."""
        length = request.headers.get("content-length", "")
        if length.isdigit() and int(length) > self.largest + 1_000_000:
            raise self.too_large()
        if not request.headers.get("content-type", "").startswith("multipart/form-data"):
            raise BadRequest(
                "The body is not a multipart form.",
                "Send it as multipart/form-data: curl -F file=@report.pdf …",
                param="Content-Type",
            )
        counted = LimitedBody(request, self.largest + 1_000_000, self.too_large)
        return UploadForm(counted, max_files=_MAX_FILES, max_fields=20)

    def too_large(self) -> TooLarge:
        return TooLarge(
            f"The upload is larger than {self.largest_mb:g} MiB.",
            "Split it, or ask the operator to raise `limits.document_mb`.",
        )

    def read(self, knowledge: Knowledge, path: str) -> "asyncio.Task[None]":
        """Read an upload in the background; from now on its state is `reading`.

        Only a few are read at a time, so that threads remain for questions.
        """

        async def read() -> None:
            async with self.few:
                await asyncio.to_thread(knowledge.read, path)

        task = asyncio.create_task(read())
        self.reading.add(task)
        task.add_done_callback(self.done)
        return task

    def done(self, task: "asyncio.Task[None]") -> None:
        """Log an unexpected error of a finished read."""
        self.reading.discard(task)
        error = None if task.cancelled() else task.exception()
        if StorageFull.explains(error):
            log.warning("an upload waits to be read: the disk is full")
        elif error is not None:
            log.error("an upload could not be read", exc_info=error)

    def state_of(
        self, app: str, knowledge: Knowledge, id_: str, path: str, asker: Asker
    ) -> DocumentView:
        waits = path in knowledge.waiting  # read first: see `find`
        doc = knowledge.document(id_, asker)
        return (
            view_for(app, knowledge, doc, asker, waits=waits)
            if doc
            else DocumentView(id=id_, app=app, path=path, state="reading", uploaded=True)
        )

    async def scan(self, request: Request) -> Response:
        """Start a scan of the folders, for askers who may change documents."""
        asker: Asker = request.scope["slipway.asker"]
        require_documents_key(asker)
        for knowledge in self.apps(asker, None).values():
            knowledge.synchronizer.scan_soon()
        return await self.scanned(request)

    async def scanned(self, request: Request) -> Response:
        """Return the progress of the scan, for askers who may change documents."""
        asker: Asker = request.scope["slipway.asker"]
        require_documents_key(asker)
        distinct = {
            id(knowledge.synchronizer): (name, knowledge)
            for name, knowledge in self.apps(asker, None).items()
        }
        return reply(
            {
                "data": [
                    {"app": name, **knowledge.status(asker)}
                    for name, knowledge in distinct.values()
                ]
            }
        )

    def apps(self, asker: Asker, name: str | None) -> dict[str, Knowledge]:
        """Return the apps with documents that the asker may call, or only the one with this name.

        Raise NotFound if there is none.
        """
        mine = {
            n: a.knowledge
            for n, a in self.pipeline.apps.items()
            if a.knowledge is not None and self.pipeline.admission.may_call(asker, n)
        }
        if name is None and mine:
            return mine
        if name in mine:
            return {name: mine[name]}
        known = f"There are: {', '.join(mine)}." if mine else "Start the server with --docs FOLDER."
        what = (
            f"There is no app `{name[:100]}` with documents."
            if name
            else "There is no app with documents."
        )
        raise NotFound(what, known, param="app")

    def find(self, request: Request) -> tuple[str, Knowledge, Doc, bool]:
        """Return (app, knowledge, document, is_pending) of the document in the path.

        `waiting` is read before the look-up: a document that is read in between is then found in
        its new state, never in its old one. Raise NotFound.
        """
        asker: Asker = request.scope["slipway.asker"]
        wanted = request.path_params["id"]
        for name, knowledge in self.apps(asker, None).items():
            waiting, coming = knowledge.waiting, knowledge.pending_uploads(asker)
            if doc := knowledge.document(wanted, asker) or next(
                (d for d in coming if d.public == wanted), None
            ):
                return name, knowledge, doc, doc.path in waiting
        raise NotFound(
            "There is no document with this id.", "GET /v1/documents lists them.", param="id"
        )

    def paths(self) -> list[ApiRoute]:
        return [
            ApiRoute(
                "/v1/documents",
                self.listed,
                methods=["GET"],
                does=Operation(
                    about="the documents that this key may read, with their state; `?state=failed`, `?app=NAME`",
                    query=FILTERS,
                    returns=fields(object=one_of("list"), data=list_of(DOCUMENT), may_add=YES_NO),
                    errors=(NotFound,),
                ),
            ),
            ApiRoute(
                "/v1/documents",
                self.add,
                methods=["POST"],
                does=Operation(
                    about="adds documents: a form with `file`, and perhaps `app`, `tags`, `groups`",
                    takes=FORM_TYPE,
                    body=FORM,
                    returns=fields(object=one_of("list"), data=list_of(DOCUMENT)),
                    status=201,
                    errors=(Forbidden, NotFound, TooLarge, NotKept, StorageFull),
                ),
            ),
            ApiRoute(
                "/v1/documents/scan",
                self.scan,
                methods=["POST"],
                does=Operation(
                    about="has the folders looked at now",
                    returns=fields(data=list_of(OBJECT)),
                    errors=(Forbidden, NotFound),
                ),
            ),
            ApiRoute(
                "/v1/documents/scan",
                self.scanned,
                methods=["GET"],
                does=Operation(
                    about="how far that is",
                    returns=fields(data=list_of(OBJECT)),
                    errors=(Forbidden, NotFound),
                ),
            ),
            ApiRoute(
                "/v1/documents/{id}",
                self.one,
                methods=["GET"],
                does=Operation(about="one of them", returns=DOCUMENT, errors=(NotFound,)),
            ),
            ApiRoute(
                "/v1/documents/{id}",
                self.remove,
                methods=["DELETE"],
                does=Operation(
                    about="removes one that was added",
                    returns=DELETED,
                    errors=(Forbidden, NotFound, Conflict, NotKept),
                ),
            ),
        ]


# Bytes kept of a body's end: its last boundary, and what some clients write after it
_TAIL = 1_000


class LimitedBody:
    """Counts a request's body while it is read, and raises TooLarge above the limit."""

    def __init__(self, request: Request, most: int, too_large: Any) -> None:
        self.request, self.most, self.too_large, self.size, self.tail = (
            request,
            most,
            too_large,
            0,
            b"",
        )

    async def receive(self) -> Any:
        message = await self.request.receive()
        self.request.scope["extensions"]["slipway"].keep_reading()
        body = message.get("body", b"")
        self.size += len(body)
        self.tail = (self.tail + body)[-_TAIL:]
        if self.size > self.most:
            raise self.too_large()
        return message


class UploadForm:
    """Reads the form of a request and closes its files at the end.

    The parser would silently drop an incomplete last part, so a form without its final boundary is
    rejected.
    """

    def __init__(self, counted: LimitedBody, max_files: int, max_fields: int) -> None:
        self.counted = counted
        self.request = Request(counted.request.scope, counted.receive)
        self.most = {"max_files": max_files, "max_fields": max_fields}
        self.form: FormData | None = None

    async def __aenter__(self) -> FormData:
        try:
            self.form = await self.request.form(**self.most)
        except MultiPartException as error:
            raise BadRequest(
                f"The form is invalid: {error.message}",
                "Send it as curl does: curl -F file=@report.pdf …",
            ) from None
        if not self.is_whole():
            await self.form.close()
            raise BadRequest(
                "The form ends in the middle of a part.",
                "Send all of it, up to the boundary followed by `--`.",
            )
        return self.form

    def is_whole(self) -> bool:
        """Return whether the form ends with its final boundary (RFC 2046, 5.1.1)."""
        boundary = re.search(r"boundary=\"?([^\";,]+)", self.request.headers["content-type"])
        return (
            boundary is not None
            and f"--{boundary[1].strip()}--".encode("latin-1") in self.counted.tail
        )

    async def __aexit__(self, *_: object) -> None:
        if self.form is not None:
            await self.form.close()


def require_documents_key(asker: Asker) -> None:
    """Raise Forbidden if the asker may not change documents."""
    if not asker.documents:
        raise Forbidden(
            "This key may not add or remove documents.",
            "Ask the operator to set `documents: true` for it.",
        )


def views(app: str, knowledge: Knowledge, asker: Asker) -> list[DocumentView]:
    """Return all documents of an app that the asker may see."""
    waiting, coming = knowledge.waiting, knowledge.pending_uploads(asker)  # read first: see `find`
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


def files_of(form: FormData) -> list[UploadFile]:
    """Return the files of a form. Raise BadRequest for other fields or missing files."""
    if unknown := next((key for key in form if key not in _FIELDS), None):
        raise BadRequest(
            f"There is no field `{unknown[:50]}`.",
            f"Known: {', '.join(_FIELDS)}.",
            param=unknown[:50],
        )
    files = [value for value in form.getlist("file") if isinstance(value, UploadFile)]
    if len(files) < len(form.getlist("file")):
        raise BadRequest(
            "`file` must be a file, not text.",
            "With curl, write an @ before its name: curl -F file=@report.pdf …",
            param="file",
        )
    if not files:
        raise BadRequest(
            "`file` is missing.", "Send at least one file: curl -F file=@report.pdf …", param="file"
        )
    return files


def file_name_of(upload: UploadFile) -> str:
    """Return the file's name without folders and control characters. Raise BadRequest."""
    name = unicodedata.normalize("NFC", PurePath((upload.filename or "").replace("\\", "/")).name)
    name = "".join(c for c in name if c.isprintable()).strip().lstrip(".")
    kind = PurePath(name).suffix.lower()
    if not name:
        raise BadRequest(
            "A file has no name.",
            f"Send a file name that ends in one of {', '.join(READERS)}.",
            param="file",
        )
    if kind not in READERS:
        raise BadRequest(
            f"`{name[:100]}` has a file type that is not supported.",
            f"Supported types: {', '.join(READERS)}.",
            param="file",
        )
    if len(name.encode()) > _MAX_NAME:
        raise BadRequest(
            f"The name `{name[:40]}…` is longer than {_MAX_NAME} bytes.",
            "Give the file a shorter name.",
            param="file",
        )
    return name


def text_of(form: FormData, name: str) -> str | None:
    """Return a text field of a form. Raise BadRequest if it is a file."""
    value = form.get(name)
    if isinstance(value, UploadFile):
        raise BadRequest(f"`{name}` must be text, not a file.", param=name)
    return value or None


def tags_and_groups(form: FormData, asker: Asker) -> tuple[frozenset[str], frozenset[str] | None]:
    """Return the tags, and the groups that may read the document (None: no restriction).

    Raise Forbidden for a group that the asker is not in.
    """
    tags, groups = (
        frozenset(part.strip() for part in (text_of(form, name) or "").split(",") if part.strip())
        for name in ("tags", "groups")
    )
    if len(tags) > _MAX_TAGS or any(len(tag) > _MAX_TAG for tag in tags):
        raise BadRequest(
            f"`tags` has more than {_MAX_TAGS} tags, or one has over {_MAX_TAG} characters.",
            "Send fewer or shorter tags.",
            param="tags",
        )
    if strange := sorted(groups - asker.groups):
        yours = ", ".join(sorted(asker.groups)) or "none"
        raise Forbidden(
            f"This key is not in the group `{strange[0][:50]}`.",
            f"Its groups: {yours}.",
            param="groups",
        )
    return tags, groups or None
