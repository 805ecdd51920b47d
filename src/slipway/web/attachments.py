"""The routes of files that are attached to a conversation."""

import asyncio
import unicodedata

from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import Response

from slipway.answer import Current
from slipway.errors import BadRequest, NotFound, TooLarge
from slipway.knowledge.attachments import Attachment, Attachments
from slipway.types import Asker
from slipway.web.descriptions import DELETED, FORM_TYPE, TEXT, WHOLE, Operation, fields
from slipway.web.responses import reply
from slipway.web.routes import ApiRoute
from slipway.web.upload_forms import upload_form

READ_AT_ONCE = 2
LONGEST_NAME = 150


class AttachmentRoutes:
    def __init__(self, current: Current, attachments: Attachments) -> None:
        self.current, self.attachments = current, attachments
        self.few = asyncio.Semaphore(READ_AT_ONCE)

    async def add(self, request: Request) -> Response:
        """Read one file from a multipart form."""
        asker: Asker = request.scope["slipway.asker"]
        async with upload_form(request, self.current.settings.limits.document_mb) as form:
            upload = form.get("file")
            if not isinstance(upload, UploadFile):
                raise BadRequest("`file` is missing.", "Send one file as `file`.", param="file")
            name = unicodedata.normalize("NFC", upload.filename or "").replace("\\", "/")
            name = name.rpartition("/")[2].strip()
            if not name or len(name) > LONGEST_NAME or not name.isprintable():
                raise BadRequest("The file needs a name.", "Rename it.", param="file")
            async with self.few:  # the others wait on the disk, not in memory
                file = await self.read(asker.owner, name, upload)
        return reply({"id": file.id, "name": file.name, "passages": len(file.passages)})

    async def read(self, owner: str, name: str, upload: UploadFile) -> Attachment:
        limit_s = self.current.settings.limits.document_time
        add, data = self.attachments.add, await upload.read()
        return await asyncio.to_thread(add, owner, name, data, limit_s)

    async def forget(self, request: Request) -> Response:
        asker: Asker = request.scope["slipway.asker"]
        self.attachments.forget(asker.owner, request.path_params["id"])
        return reply({"id": request.path_params["id"], "deleted": True})

    def paths(self) -> list[ApiRoute]:
        return [
            ApiRoute(
                "/v1/attachments",
                self.add,
                methods=["POST"],
                does=Operation(
                    about="reads a file for one conversation: a form with `file`",
                    takes=FORM_TYPE,
                    body=fields(file={"type": "string", "format": "binary"}),
                    returns=fields(id=TEXT, name=TEXT, passages=WHOLE),
                    errors=(TooLarge,),
                ),
            ),
            ApiRoute(
                "/v1/attachments/{id}",
                self.forget,
                methods=["DELETE"],
                does=Operation(about="forgets it", returns=DELETED, errors=(NotFound,)),
            ),
        ]
