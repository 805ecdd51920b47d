"""Read the form of an upload: its files, tags and groups, within the size that is allowed."""

import re
import unicodedata
from pathlib import PurePath
from typing import Any

from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException
from starlette.requests import Request

from slipway.errors import BadRequest, Forbidden, TooLarge
from slipway.knowledge.readers import READERS
from slipway.types import Asker

_MAX_NAME = 150
_FIELDS = ("file", "app", "tags", "groups")
_MAX_FILES = 100
_MAX_TAGS, _MAX_TAG = 50, 100
# Bytes kept of a body's end: its last boundary, and what some clients write after it
_TAIL = 1_000
_BESIDE_FILES = 1_000_000  # bytes of a form that are not files


def upload_form(request: Request, largest_mb: float) -> "UploadForm":
    """Return the form of a request, to be read in an `async with`. Raise TooLarge or BadRequest."""
    body = LimitedBody(request, largest_mb)
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length) > body.most:
        raise body.too_large()
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise BadRequest(
            "The body is not a multipart form.",
            "Send it as multipart/form-data: curl -F file=@report.pdf …",
            param="Content-Type",
        )
    return UploadForm(body, max_files=_MAX_FILES, max_fields=20)


class LimitedBody:
    """Counts a request's body while it is read, and raises TooLarge above the limit."""

    def __init__(self, request: Request, largest_mb: float) -> None:
        self.request, self.largest_mb = request, largest_mb
        self.most = int(largest_mb * 1024 * 1024) + _BESIDE_FILES
        self.size, self.tail = 0, b""

    async def receive(self) -> Any:
        message = await self.request.receive()
        self.request.scope["extensions"]["slipway"].keep_reading()
        body = message.get("body", b"")
        self.size += len(body)
        self.tail = (self.tail + body)[-_TAIL:]
        if self.size > self.most:
            raise self.too_large()
        return message

    def too_large(self) -> TooLarge:
        return TooLarge(
            f"The upload is larger than {self.largest_mb:g} MiB.",
            "Split it, or ask the operator to raise `limits.document_mb`.",
        )


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
