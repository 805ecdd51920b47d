"""Read JSON as providers really send it, and return only values that any JSON client can read.

Providers send bytes that are not UTF-8, halves of surrogate pairs, `NaN`, and numbers of thousands
of digits. None of these may cost an answer: what has no meaning in JSON becomes null, what has no
meaning in Unicode becomes U+FFFD.
"""

import json
import math
import re
from typing import Any

import msgspec

LARGEST_INT = 2**63 - 1
LONG_NUMBER = b"0" * 400
_DIGITS = bytes.maketrans(b"123456789", b"0" * 9)
LONG_EVENT = 400  # bytes; a shorter one cannot hold a long number
HALF_PAIR = re.compile("[\ud800-\udfff]")
BOM = b"\xef\xbb\xbf"

encode_json = msgspec.json.Encoder().encode


class BrokenJson(ValueError):
    """The bytes are not JSON, however leniently they are read."""


def read_json(data: bytes) -> Any:
    """Return the value in `data`, cleaned if necessary. Raises BrokenJson."""
    return read_json_and_check(data)[0]


def read_json_and_check(data: bytes) -> tuple[Any, bool]:
    """Return the value in `data`, and whether any JSON client can read the bytes themselves. Raises
    BrokenJson.
    """
    if is_clean(data):
        try:
            return msgspec.json.decode(data), True
        except (ValueError, RecursionError):  # msgspec's own errors are ValueErrors
            pass
    return clean(read_raw(data)), False


def read_raw(data: bytes) -> Any:
    """Return the value in `data` with lone surrogates kept. Raises BrokenJson."""
    text = data.removeprefix(BOM).decode("utf-8", "replace")
    try:
        return json.loads(
            text, strict=False, parse_constant=_nothing, parse_int=_int, parse_float=_float
        )
    except (ValueError, RecursionError) as error:
        raise BrokenJson(str(error)) from None


def is_clean(data: bytes) -> bool:
    """Return whether the bytes are UTF-8 without numbers that no client can read."""
    if len(data) > LONG_EVENT and LONG_NUMBER in data.translate(_DIGITS):
        return False
    if data.isascii():
        return True
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def clean(value: Any) -> Any:
    """Return the value with each lone surrogate replaced. Raises BrokenJson if it is nested too
    deeply.
    """
    try:
        return _clean(value)
    except RecursionError:
        raise BrokenJson("it is nested too deeply") from None


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, list):
        return [_clean(each) for each in value]
    if isinstance(value, dict):
        return {clean_text(key): _clean(each) for key, each in value.items()}
    return value


def clean_text(text: str) -> str:
    """Return the text with surrogate pairs joined, and U+FFFD in place of lone halves."""
    if not HALF_PAIR.search(text):
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def encode_any(value: Any) -> bytes:
    """Encode a value, also one with integers of more than 64 bits."""
    try:
        return encode_json(value)
    except OverflowError:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def count_of(value: Any) -> int | None:
    """Return a count of tokens, sent as an int, a float or a text; None if it is no count."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if 0 <= value <= LARGEST_INT and math.isfinite(value) else None


def _nothing(_: str) -> None:
    """Stand for NaN and the infinities."""


def _int(digits: str) -> int | float | None:
    if len(digits) > 20:
        return None
    number = int(digits)
    return number if abs(number) <= LARGEST_INT else float(number)


def _float(digits: str) -> float | None:
    number = float(digits)
    return number if math.isfinite(number) else None
