"""The routes of documents: list them with their state, upload and remove them."""

import asyncio
import logging

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
from slipway.types import Asker
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
from slipway.web.document_views import DocumentView, view_for, views
from slipway.web.responses import reply
from slipway.web.routes import ApiRoute
from slipway.web.upload_forms import (
    file_name_of,
    files_of,
    tags_and_groups,
    text_of,
    upload_form,
)

log = logging.getLogger("slipway")
# An upload's reply waits this long for the document to be read, before it says `reading`
_WAIT_S = 2.0
_PARALLEL_READS = 2  # uploads read at the same time

DOCUMENT = fields(id=TEXT, app=TEXT, path=TEXT, state=TEXT)
STATES = ("done", "partly", "failed", "reading")
FILTERS = (
    Parameter(name="app", about="only documents of this app"),
    Parameter(name="state", about="only documents in this state", schema=one_of(*STATES)),
)
FORM = {
    "type": "object",
    "properties": {
        "file": {"type": "array", "items": {"type": "string", "format": "binary"}},
        **dict.fromkeys(("app", "tags", "groups"), TEXT),
    },
    "required": ["file"],
}
LIST = Operation(
    about="the documents that this key may read, with their state; `?state=failed`, `?app=NAME`",
    query=FILTERS,
    returns=fields(object=one_of("list"), data=list_of(DOCUMENT), may_add=YES_NO),
    errors=(NotFound,),
)
ADD = Operation(
    about="adds documents: a form with `file`, and perhaps `app`, `tags`, `groups`",
    takes=FORM_TYPE,
    body=FORM,
    returns=fields(object=one_of("list"), data=list_of(DOCUMENT)),
    status=201,
    errors=(Forbidden, NotFound, TooLarge, NotKept, StorageFull),
)
SCAN = Operation(
    about="has the folders looked at now",
    returns=fields(data=list_of(OBJECT)),
    errors=(Forbidden, NotFound),
)
SCANNED = Operation(
    about="how far that is",
    returns=fields(data=list_of(OBJECT)),
    errors=(Forbidden, NotFound),
)
READ = Operation(about="one of them", returns=DOCUMENT, errors=(NotFound,))
REMOVE = Operation(
    about="removes one that was added",
    returns=DELETED,
    errors=(Forbidden, NotFound, Conflict, NotKept),
)


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
        if state not in (None, *STATES):
            raise BadRequest(
                f"There is no state `{state[:50]}`.",
                f"Known: {', '.join(STATES)}.",
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
        async with upload_form(request, self.largest_mb) as form:
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
        all_, scan, one = "/v1/documents", "/v1/documents/scan", "/v1/documents/{id}"
        return [
            ApiRoute(all_, self.listed, methods=["GET"], does=LIST),
            ApiRoute(all_, self.add, methods=["POST"], does=ADD),
            ApiRoute(scan, self.scan, methods=["POST"], does=SCAN),
            ApiRoute(scan, self.scanned, methods=["GET"], does=SCANNED),
            ApiRoute(one, self.one, methods=["GET"], does=READ),
            ApiRoute(one, self.remove, methods=["DELETE"], does=REMOVE),
        ]


def require_documents_key(asker: Asker) -> None:
    """Raise Forbidden if the asker may not change documents."""
    if not asker.documents:
        raise Forbidden(
            "This key may not add or remove documents.",
            "Ask the operator to set `documents: true` for it.",
        )
