"""The routes of passages: one, with those beside it, and the file that it is from."""

import asyncio
import os
from pathlib import Path, PurePosixPath

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from slipway.answer import Current
from slipway.errors import NotFound
from slipway.knowledge import Knowledge
from slipway.knowledge import files as knowledge_files
from slipway.knowledge.attachments import Attachments
from slipway.types import Asker, Passage
from slipway.web.descriptions import TEXT, YES_NO, Operation, fields
from slipway.web.responses import reply
from slipway.web.routes import ApiRoute

OPENED = {".pdf": "application/pdf"}  # kinds of files that a browser shows at a page
FILE_POLICY = "sandbox; default-src 'none'; frame-ancestors 'none'"


class PassageRoutes:
    """A passage is found by its id alone, and only by who may read its document."""

    def __init__(self, current: Current, attachments: Attachments) -> None:
        self.current, self.attachments = current, attachments

    async def one(self, request: Request) -> Response:
        asker: Asker = request.scope["slipway.asker"]
        attached = self.attachments.passage(asker.owner, request.path_params["id"])
        if attached is not None:
            return passage_reply(attached, before=None, after=None, has_file=False)
        knowledge, passage = await self.found(request)
        before, after = await asyncio.to_thread(knowledge.neighbours, passage.id, asker)
        has_file = suffix(passage.path) in OPENED
        return passage_reply(passage, before=before, after=after, has_file=has_file)

    async def file(self, request: Request) -> Response:
        """Send the document's own file, for kinds that a browser can show."""
        knowledge, passage = await self.found(request)
        asker: Asker = request.scope["slipway.asker"]
        path = await asyncio.to_thread(knowledge.original, passage.id, asker)
        kind = OPENED.get(suffix(passage.path))
        if path is None or kind is None:
            raise NotFound("This document has no file that can be opened here.", param="id")
        headers = {
            "content-disposition": "inline",
            "content-security-policy": FILE_POLICY,
            "x-content-type-options": "nosniff",
            "cache-control": "no-store",
        }
        return Response(
            await asyncio.to_thread(read, path, self.largest), media_type=kind, headers=headers
        )

    @property
    def largest(self) -> int:
        return int(self.current.settings.limits.document_mb * 1024 * 1024)

    async def found(self, request: Request) -> tuple[Knowledge, Passage]:
        """Return the passage and the knowledge that has it. Raises NotFound."""
        asker: Asker = request.scope["slipway.asker"]
        pipeline, wanted = self.current.pipeline, request.path_params["id"]
        for app in pipeline.apps.values():
            if app.knowledge is None or not pipeline.admission.may_call(asker, app.name):
                continue
            # In a thread: if the file has changed, it is read again.
            passage = await asyncio.to_thread(app.knowledge.passage, wanted, asker)
            if passage is not None:
                return app.knowledge, passage
        raise NotFound(
            "There is no passage of that id.",
            "Ask again: a passage gets a new id when its document changes.",
            param="id",
        )

    def paths(self) -> list[ApiRoute]:
        return [
            ApiRoute(
                "/v1/passages/{id}",
                self.one,
                methods=["GET"],
                does=Operation(
                    about="a passage of a document, and the ids of those before and after it",
                    returns=fields(id=TEXT, path=TEXT, text=TEXT, has_file=YES_NO),
                    errors=(NotFound,),
                ),
            ),
            ApiRoute(
                "/v1/passages/{id}/file",
                self.file,
                methods=["GET"],
                does=Operation(
                    about="the PDF that a passage is from",
                    sends=("application/pdf",),
                    returns=TEXT,
                    errors=(NotFound,),
                ),
            ),
        ]


def passage_reply(passage: Passage, **more: str | bool | None) -> Response:
    return reply({**msgspec.to_builtins(passage), **more})


def suffix(path: str) -> str:
    return PurePosixPath(path).suffix.lower()


def read(path: Path, largest: int) -> bytes:
    """Read a document's own file. Raises NotFound if it is gone."""
    try:
        with os.fdopen(knowledge_files.opened(str(path)), "rb") as file:
            return file.read(largest)
    except OSError:
        raise NotFound("The document's file is not there any more.", param="id") from None
