"""The route `GET /openapi.json`: the OpenAPI 3.1 description of all routes, made from the description
beside each of them.
"""

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from slipway import __version__
from slipway.errors import (
    BadRequest,
    Forbidden,
    HeadTooLarge,
    InternalError,
    KeysUnavailable,
    Overloaded,
    SlipwayError,
    Stopping,
    TooLarge,
    Unauthorized,
    UnsupportedMedia,
)
from slipway.web.descriptions import (
    EVENTS_TYPE,
    JSON_TYPE,
    TEXT,
    YES_NO,
    Operation,
    Parameter,
    Schema,
    fields,
    one_of,
    or_null,
)
from slipway.web.guard import OPEN
from slipway.web.responses import reply
from slipway.web.routes import ApiRoute

REFERENCE = "#/components/schemas/{name}"
PARAMETER = re.compile(r"{(\w+)(?::\w+)?}")
ALWAYS = (BadRequest, Forbidden, HeadTooLarge, InternalError, Overloaded, Stopping)
WITH_KEY = (Unauthorized, KeysUnavailable)
WITH_BODY = (UnsupportedMedia, TooLarge)
KEYS: dict[str, Schema] = {
    "key": {"type": "http", "scheme": "bearer"},
    "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
    "api-key": {"type": "apiKey", "in": "header", "name": "api-key"},
    "session": {"type": "apiKey", "in": "cookie", "name": "slipway_session"},
}
READER = fields(what=TEXT, next=TEXT, language=one_of("en", "zh"))
ERROR = fields(
    error=fields(
        message=TEXT,
        type=TEXT,
        param=or_null(TEXT),
        code=TEXT,
        slipway=fields(
            what=TEXT,
            next=TEXT,
            retryable=YES_NO,
            retry_after_s=or_null({"type": "number"}),
            ref=TEXT,
            reader=READER,
        ),
    )
)
ABOUT = (
    "Slipway speaks OpenAI's API: the name of an app, a route or a model is the `model` of a chat "
    "completion. Paths under `/v1` can also be called without `/v1`, and with a `/` at the end. "
    "Every error has the form `Error`; `x-slipway-codes` lists the codes of a status. A server "
    "without keys takes requests without one."
)
ROUTE = Operation(about="this list, as OpenAPI 3.1", returns=fields(openapi=TEXT, paths={}))


class OpenApiRoutes:
    """Handles `GET /openapi.json`; the document is made when it is first asked for."""

    def __init__(self, operations: Callable[[], Iterable[tuple[str, str, Operation]]]) -> None:
        """`operations` yields the method, the path and the description of each route."""
        self.operations = operations
        self.encoded: dict[str, Any] | None = None

    async def document(self, request: Request) -> Response:
        if self.encoded is None:
            self.encoded = document(self.operations())
        return reply(self.encoded)

    def paths(self) -> list[ApiRoute]:
        return [ApiRoute("/openapi.json", self.document, methods=["GET"], does=ROUTE)]


def described(
    fast: Mapping[str, Operation], routes: Iterable[ApiRoute]
) -> Iterable[tuple[str, str, Operation]]:
    """Yield the method, the path and the description of each route; `fast` maps the paths of POST
    requests that are called directly.
    """
    for path, operation in fast.items():
        yield "POST", path, operation
    for route in routes:
        yield route.method, PARAMETER.sub(r"{\1}", route.path), route.does or by_docstring(route)


def by_docstring(route: ApiRoute) -> Operation:
    """Describe a route by the first sentence of its handler's docstring."""
    said = inspect.getdoc(route.endpoint) or route.path
    first = " ".join(said.split("\n\n")[0].split()).removesuffix(".")
    return Operation(about=first[:1].lower() + first[1:])


def document(operations: Iterable[tuple[str, str, Operation]]) -> dict[str, Any]:
    """Return the OpenAPI document."""
    found = list(operations)
    types = {
        shape
        for _, _, each in found
        for shape in (each.body, each.returns)
        if isinstance(shape, type)
    }
    _, components = msgspec.json.schema_components(
        sorted(types, key=lambda each: each.__name__), ref_template=REFERENCE
    )
    paths: dict[str, dict[str, Any]] = {}
    for method, path, operation in found:
        paths.setdefault(path, {})[method.lower()] = entry(method, path, operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Slipway",
            "version": __version__,
            "description": ABOUT,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{name: []} for name in KEYS] + [{}],
        "paths": paths,
        "components": {
            "schemas": {**components, "Error": ERROR},
            "securitySchemes": KEYS,
        },
    }


def entry(method: str, path: str, operation: Operation) -> dict[str, Any]:
    """Return the operation object of one method of a path."""
    words = [PARAMETER.sub(r"\1", part) for part in path.split("/") if part not in ("", "v1")]
    written: dict[str, Any] = {
        "operationId": "_".join([method.lower(), *words]).replace("-", "_").replace(".", "_"),
        "summary": operation.about[:1].upper() + operation.about[1:],
        "tags": [words[0] if words else "page"],
        "parameters": [
            *(place("path", Parameter(name=n, about=f"`{n}`")) for n in PARAMETER.findall(path)),
            *(place("query", each) for each in operation.query),
            *(place("header", each) for each in operation.headers),
        ],
        "responses": responses(path, operation),
    }
    if is_open(path):
        written["security"] = []
    if operation.body is not None:
        written["requestBody"] = {
            "required": operation.body_is_needed,
            "content": {operation.takes: {"schema": schema_of(operation.body)}},
        }
    return written


def is_open(path: str) -> bool:
    """Return whether a path needs no key, as the guard decides."""
    return path in OPEN or path.startswith("/static/")


def place(where: str, parameter: Parameter) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "in": where,
        "required": where == "path",
        "description": parameter.about,
        "schema": parameter.schema,
    }


def schema_of(shape: type | Schema) -> Schema:
    if isinstance(shape, type):
        return {"$ref": REFERENCE.format(name=shape.__name__)}
    return shape


def responses(path: str, operation: Operation) -> dict[str, Any]:
    """Return the response objects: the reply, and for each status the errors that it may be."""
    shape = schema_of(operation.returns)
    content = {kind: {"schema": shape if kind == JSON_TYPE else TEXT} for kind in operation.sends}
    if EVENTS_TYPE in content:  # each event has a name of its own: docs/api.md lists them
        content[EVENTS_TYPE] = {}
    written: dict[str, Any] = {
        str(operation.status): {"description": "Done", **({"content": content} if content else {})}
    }
    for status, codes in codes_by_status(path, operation).items():
        written[str(status)] = refusal(status, codes)
    if operation.passes_on_refusals:
        about = "The model's provider refused the request; status and code are its own."
        written["4XX"] = {**refusal(0, ()), "description": about}
    for status, also in operation.also.items():
        known = written.get(str(status), {"description": "Nothing new"})
        if also is not None:
            old = known.get("content", {}).get(JSON_TYPE, {}).get("schema")
            schema = {"anyOf": [also, old]} if old else also
            known = {**known, "content": {JSON_TYPE: {"schema": schema}}}
        written[str(status)] = known
    return written


def codes_by_status(path: str, operation: Operation) -> dict[int, tuple[str, ...]]:
    """Return the codes of the errors that an operation may answer with, by their HTTP status."""
    raised: list[type[SlipwayError]] = [*operation.errors, *ALWAYS]
    if not is_open(path):
        raised += WITH_KEY
    if operation.body is not None:
        raised += WITH_BODY
    found: dict[int, list[str]] = {}
    for error in sorted(set(raised), key=lambda each: (each.status, each.code)):
        found.setdefault(error.status, []).append(error.code)
    return {status: tuple(dict.fromkeys(codes)) for status, codes in found.items()}


def refusal(status: int, codes: Iterable[str]) -> dict[str, Any]:
    """Return the response object of errors with one status."""
    listed = [*codes]
    written: dict[str, Any] = {
        "description": f"An error: {', '.join(f'`{code}`' for code in listed)}.",
        "content": {JSON_TYPE: {"schema": {"$ref": REFERENCE.format(name="Error")}}},
    }
    return {**written, "x-slipway-codes": listed} if listed else written
