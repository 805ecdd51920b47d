"""The chat page: static files under a strict policy, and Markdown made clean on the server."""

import hashlib
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response

from slipway.errors import NotFound
from slipway.web.routes import ApiRoute

if TYPE_CHECKING:
    from markdown_it import MarkdownIt

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; font-src 'self'; "
    "manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
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
    ".webmanifest": "application/manifest+json",
}
TAGS = {
    *(
        "p",
        "br",
        "hr",
        "h1",
        "h2",
        "h3",
        "h4",
        "h5",
        "h6",
        "ul",
        "ol",
        "li",
        "blockquote",
        "pre",
        "code",
        "em",
        "strong",
        "del",
        "a",
    ),
    *("table", "thead", "tbody", "tr", "th", "td"),
}
ATTRIBUTES = {
    "a": {"href", "title"},
    "code": {"class"},
    "ol": {"start"},
    "th": {"align"},
    "td": {"align"},
}


@cache
def markdown() -> "MarkdownIt":
    """Without definitions of links: one for `[1]` would turn every citation of source 1 into a link
    of the model's choice.
    """
    from markdown_it import MarkdownIt

    return (
        MarkdownIt("commonmark", {"html": False, "linkify": False})
        .enable(["table", "strikethrough"])
        .disable("reference")
    )


def only_web_links(tag: str, name: str, value: str) -> str | None:
    """A relative link of a document would lead to a path of this server."""
    return None if name == "href" and not value.startswith(("http://", "https://")) else value


def clean_html(text: str) -> str:
    """Markdown -> HTML in which model and document text is only data: no scripts, no images,
    http(s) links only, opened apart.
    """
    import nh3  # 2 MB with MarkdownIt, which only the page asks for

    return nh3.clean(
        markdown().render(text),
        tags=TAGS,
        attributes=ATTRIBUTES,
        url_schemes={"http", "https"},
        attribute_filter=only_web_links,
        link_rel="noopener noreferrer nofollow",
        set_tag_attribute_values={"a": {"target": "_blank"}},
    )


def settled(text: str) -> int:
    """Return how many characters of an unfinished text make whole blocks: what comes
    before the last blank line outside of code.
    """
    end = at = 0
    fence = ""
    for line in text.splitlines(keepends=True):
        at += len(line)
        mark = line.lstrip()[:3]
        if mark in ("```", "~~~") and fence in ("", mark):
            fence = "" if fence else mark
        elif not fence and not line.strip():
            end = at
    return end


@cache
def content(name: str) -> tuple[bytes, str]:
    """A static file and its ETag. NotFound for what is none."""
    file = files("slipway.web") / "static" / name
    if "/" in name or kind_of(name) not in KINDS or not file.is_file():
        raise NotFound(f"There is no `/static/{name[:100]}`.")
    data = file.read_bytes()
    return data, f'"{hashlib.sha256(data).hexdigest()[:16]}"'


def kind_of(name: str) -> str:
    return "." + name.rpartition(".")[2]


def static(request: Request, name: str) -> Response:
    data, tag = content(name)
    headers = {**HEADERS, "etag": tag}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(data, media_type=KINDS[kind_of(name)], headers=headers)


async def index(request: Request) -> Response:
    return static(request, "index.html")


async def favicon(request: Request) -> Response:
    return static(request, "icon.svg")


async def static_file(request: Request) -> Response:
    return static(request, request.path_params["name"])


def page_paths() -> list[ApiRoute]:
    return [
        ApiRoute("/", index, methods=["GET"]),
        ApiRoute("/favicon.ico", favicon, methods=["GET"]),
        ApiRoute("/static/{name}", static_file, methods=["GET"]),
    ]
