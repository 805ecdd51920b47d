"""Decode the JSON body of a request; an error names the invalid field and the fix."""

import re
from typing import Any

import msgspec

from slipway.errors import BadRequest

PLACE = re.compile(r" - at `\$\.?(.*)`$")
MISSING = re.compile(r"Object missing required field `(\w+)`")
UNKNOWN = re.compile(r"Object contains unknown field `([^`]+)`")
TOO_LONG = re.compile(r"Expected `(str|array)` of length <= (\d+)")
MAX_ECHO = 300  # characters of what a client sent that an error message repeats
WRONG_TYPE = re.compile(r"Expected `([^`]+)`, got `([^`]+)`")
KINDS = {
    "array": "a list",
    "object": "an object",
    "str": "a string",
    "bool": "true or false",
    "int": "a whole number",
    "null": "null",
    "float": "a number",
}
FIXES = {
    "messages": 'Send a list, such as `"messages": [{"role": "user", "content": "Hello"}]`.',
    "model": 'Name a model, such as `"model": "NAME"`; GET /v1/models lists them.',
    "stream": "Send `true` or `false`.",
    "answer": "Send the id of an answer, such as `ans-…`.",
    "kind": "Send `vote` or `report`.",
    "helpful": "Send `true` or `false`.",
    "reasons": 'Send a list, such as `"reasons": ["wrong"]`.',
    "section": "Send the index of a section, from 0; leave it out for the whole answer.",
    "within": 'Send any of `{"path": "guide/**", "tags": ["a"], '
    '"since": "2026-01-01", "until": "2026-12-31"}`.',
}


def parse_json(body: bytes, decode: Any, encoding: str = "utf-8") -> Any:
    """Return the decoded body. Raise BadRequest that names the invalid field and the fix."""
    try:
        if not body.isascii():
            body.decode(encoding)  # msgspec does not look into text that it only passes on
        return decode(body)
    except msgspec.ValidationError as error:
        raise bad_request_from(clipped(str(error))) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        what = (
            "The body is empty."
            if not body.strip()
            else f"The body is not valid JSON: {str(error).replace('JSON is malformed: ', '')}."
        )
        raise BadRequest(what, "Send a JSON object in UTF-8.") from None
    except RecursionError:
        raise BadRequest(
            "The JSON of the body is nested too deeply.", "Send a flatter object."
        ) from None


def clipped(text: str, longest: int = MAX_ECHO) -> str:
    """Return a text without its middle if it is too long: a client may send long field names."""
    return text if len(text) <= longest else f"{text[: longest // 2]}…{text[-longest // 2 :]}"


def bad_request_from(message: str) -> BadRequest:
    """Turn a message of msgspec into an error that names the field and the fix."""
    place = PLACE.search(message)
    param = place[1] if place else ""
    what = PLACE.sub("", message)
    if found := MISSING.search(what):
        param = f"{param}.{found[1]}" if param else found[1]
        what = f"`{param}` is missing."
    elif found := UNKNOWN.search(what):
        param = f"{param}.{found[1]}" if param else found[1]
        what = f"There is no field `{param}`."
    elif found := WRONG_TYPE.search(what):
        expected, got = (
            " or ".join(KINDS.get(k, k) for k in g.split(" | ")) for g in found.groups()
        )
        what = (
            f"`{param}` must be {expected}, not {got}."
            if param
            else f"The body must be {expected}, not {got}."
        )
    elif found := TOO_LONG.search(what):
        unit = "characters" if found[1] == "str" else "items"
        what = f"`{param}` is longer than {found[2]} {unit}."
    elif param.endswith("role"):
        what = f"`{param}` is not a role; known: system, developer, user, assistant, tool."
    else:
        what = f"`{param}`: {what}." if param else f"{what}."
    return BadRequest(what, FIXES.get(param.split("[")[0].split(".")[0]), param=param or None)
