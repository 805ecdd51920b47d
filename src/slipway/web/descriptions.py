"""Describe a route beside its handler: what it does, takes and returns, in the words of OpenAPI."""

from typing import Any

import msgspec

from slipway.errors import SlipwayError
from slipway.types import Record

Schema = dict[str, Any]  # a JSON Schema, as OpenAPI 3.1 uses it
Shape = type | Schema  # what a body is like: a type that msgspec reads, or a schema

TEXT: Schema = {"type": "string"}
YES_NO: Schema = {"type": "boolean"}
WHOLE: Schema = {"type": "integer"}
NUMBER: Schema = {"type": "number"}
OBJECT: Schema = {"type": "object"}
ANYTHING: Schema = {}
JSON_TYPE = "application/json"
EVENTS_TYPE = "text/event-stream"
FORM_TYPE = "multipart/form-data"


class Parameter(Record, frozen=True, kw_only=True):
    """A parameter of the query, or a header."""

    name: str
    about: str
    schema: Schema = msgspec.field(default_factory=lambda: TEXT)


class Operation(Record, frozen=True, kw_only=True):
    """What one method of one path does.

    `about` follows the route in a table of docs/api.md. `body` is of type `takes`. A reply of 200
    has `returns` in one of the types of `sends`. `errors` are those that the handler raises; those
    of every request are added when the document is made. `also` maps other
    statuses that are no errors to the schema of their body, None for no body.
    """

    about: str
    query: tuple[Parameter, ...] = ()
    headers: tuple[Parameter, ...] = ()
    body: Shape | None = None
    body_is_needed: bool = True
    takes: str = JSON_TYPE
    returns: Shape = msgspec.field(default_factory=lambda: OBJECT)
    sends: tuple[str, ...] = (JSON_TYPE,)
    status: int = 200
    also: dict[int, Schema | None] = msgspec.field(default_factory=dict)
    errors: tuple[type[SlipwayError], ...] = ()
    passes_on_refusals: bool = False  # a provider's own 4xx reaches the client


def fields(**schemas: Schema) -> Schema:
    """Return the schema of an object that has these fields, and perhaps more."""
    return {"type": "object", "properties": schemas, "required": [*schemas]}


def list_of(schema: Schema) -> Schema:
    return {"type": "array", "items": schema}


def one_of(*values: str) -> Schema:
    return {"type": "string", "enum": [*values]}


def or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


DELETED = fields(id=TEXT, deleted=YES_NO)
