"""The chat page and the operations page: static files under a strict content security policy."""

import gzip
import hashlib
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import NamedTuple

from msgspec.structs import replace
from starlette.requests import Request
from starlette.responses import Response

from slipway.answer import Current
from slipway.errors import NotFound
from slipway.web.descriptions import TEXT, Operation, Schema
from slipway.web.routes import ApiRoute

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "font-src 'self'; manifest-src 'self'; frame-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types dompurify"
)
# Mermaid writes style elements. Its frame has no origin of its own and may load nothing else.
DIAGRAM_POLICY = (
    "sandbox allow-scripts; default-src 'none'; script-src 'self'; style-src 'unsafe-inline'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)
POLICIES = {"diagram.html": DIAGRAM_POLICY}
HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-cache",
}
KINDS = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".woff2": "font/woff2",
    ".webmanifest": "application/manifest+json",
}
PACKED = frozenset({".html", ".css", ".js", ".svg", ".webmanifest"})  # worth compressing

COMMENTED = frozenset({".js", ".css"})  # our own files, whose comments are for developers


UNCHANGED: dict[int, Schema | None] = {304: None}


class StaticFile(NamedTuple):
    data: bytes
    packed: bytes | None  # the same, compressed
    tag: str


@cache
def file_names() -> frozenset[str]:
    """Return the path of every file that may be served, such as `vendor/purify.js`."""

    def walk(folder: Traversable, prefix: str) -> set[str]:
        found: set[str] = set()
        for each in folder.iterdir():
            if each.is_dir():
                found |= walk(each, f"{prefix}{each.name}/")
            elif kind_of(each.name) in KINDS:
                found.add(prefix + each.name)
        return found

    return frozenset(walk(files("slipway.web") / "static", ""))


@cache
def content(name: str) -> StaticFile:
    """Read a static file. Raises NotFound if there is none of this name."""
    if name not in file_names():
        raise NotFound(f"There is no `/static/{name[:100]}`.")
    data = files("slipway.web").joinpath("static", *name.split("/")).read_bytes()
    if kind_of(name) in COMMENTED and not name.startswith("vendor/"):
        data = without_comments(data)
    packed = gzip.compress(data, mtime=0) if kind_of(name) in PACKED else None
    return StaticFile(data, packed, f'"{hashlib.sha256(data).hexdigest()[:16]}"')


def without_comments(data: bytes) -> bytes:
    """Leave out lines that hold only a comment, so that the first load stays small."""
    kept, inside = list[bytes](), False
    for line in data.splitlines(keepends=True):
        bare = line.strip()
        if inside or bare.startswith(b"/*"):
            inside = not bare.endswith(b"*/")
        elif not bare.startswith(b"//"):
            kept.append(line)
    return b"".join(kept)


def kind_of(name: str) -> str:
    return "." + name.rpartition(".")[2]


def accepts_gzip(request: Request) -> bool:
    offered = request.headers.get("accept-encoding", "").split(",")
    return any(each.partition(";")[0].strip() == "gzip" for each in offered)


def static(request: Request, name: str) -> Response:
    file = content(name)
    policy = POLICIES.get(name, POLICY)
    headers = {**HEADERS, "content-security-policy": policy, "vary": "Accept-Encoding"}
    headers["etag"] = file.tag
    if request.headers.get("if-none-match") == file.tag:
        return Response(status_code=304, headers=headers)
    data = file.data
    if file.packed is not None and accepts_gzip(request):
        headers["content-encoding"] = "gzip"
        data = file.packed
    return Response(data, media_type=KINDS[kind_of(name)], headers=headers)


async def index(request: Request) -> Response:
    return static(request, "index.html")


async def operations(request: Request) -> Response:
    """Return the operations page. Its links are relative: with a `/` at the end they would miss."""
    raw_path: bytes = request.scope["raw_path"]
    if raw_path.endswith(b"/"):
        query = f"?{request.url.query}" if request.url.query else ""
        return Response(status_code=307, headers={**HEADERS, "location": f"../ops{query}"})
    return static(request, "ops/index.html")


async def embed_script(request: Request) -> Response:
    return static(request, "embed.js")


class EmbedPage:
    """The page in a frame of another site, for the origins that `listen.allowed_origins` names."""

    def __init__(self, current: Current) -> None:
        self.current = current

    async def index(self, request: Request) -> Response:
        reply = static(request, "index.html")
        origins = " ".join(self.current.settings.listen.allowed_origins) or "'none'"
        policy = POLICY.replace("frame-ancestors 'none'", f"frame-ancestors {origins}")
        reply.headers["content-security-policy"] = policy
        return reply


async def favicon(request: Request) -> Response:
    return static(request, "icon.svg")


async def static_file(request: Request) -> Response:
    return static(request, request.path_params["name"])


def sent(kind: str, about: str) -> Operation:
    """Describe a route that sends a file of this media type."""
    return Operation(about=about, sends=(kind,), returns=TEXT, also=UNCHANGED)


PAGE = sent("text/html", "the chat page")
OPERATIONS = replace(sent("text/html", "the operations page"), also={**UNCHANGED, 307: None})
EMBED = sent("text/html", "the chat page in a frame of another site")
EMBED_SCRIPT = sent("text/javascript", "the script that puts it there")
ICON = sent("image/svg+xml", "the icon of the page")
STATIC = replace(sent("*/*", "a file of the page"), errors=(NotFound,))


def page_paths(current: Current) -> list[ApiRoute]:
    return [
        ApiRoute("/", index, methods=["GET"], does=PAGE),
        ApiRoute("/ops", operations, methods=["GET"], does=OPERATIONS),
        ApiRoute("/embed", EmbedPage(current).index, methods=["GET"], does=EMBED),
        ApiRoute("/embed.js", embed_script, methods=["GET"], does=EMBED_SCRIPT),
        ApiRoute("/favicon.ico", favicon, methods=["GET"], does=ICON),
        ApiRoute("/static/{name:path}", static_file, methods=["GET"], does=STATIC),
    ]
