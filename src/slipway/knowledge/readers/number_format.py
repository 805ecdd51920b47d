"""Show a number as a spreadsheet's format code does (ECMA-376, part 1, 18.8.31): percentages,
currencies and digits as written; dates and times in ISO 8601, which everybody reads alike.
"""

import datetime
import re
from functools import lru_cache

from slipway.types import Record

GENERAL = "General"
# the codes that files name by number only (18.8.30)
BUILT_IN = {
    0: GENERAL,
    1: "0",
    2: "0.00",
    3: "#,##0",
    4: "#,##0.00",
    9: "0%",
    10: "0.00%",
    14: "yyyy-mm-dd",
    15: "d-mmm-yy",
    16: "d-mmm",
    17: "mmm-yy",
    18: "h:mm",
    19: "h:mm:ss",
    20: "h:mm",
    21: "h:mm:ss",
    22: "yyyy-mm-dd h:mm",
    37: "#,##0",
    38: "#,##0",
    39: "#,##0.00",
    40: "#,##0.00",
    41: "#,##0",
    43: "#,##0.00",
    42: "$#,##0",
    44: "$#,##0.00",
    45: "mm:ss",
    46: "[h]:mm:ss",
    47: "mm:ss",
    49: "@",
}
_EAST_ASIAN_DATES = {**dict.fromkeys(range(27, 32), "yyyy-mm-dd"), 32: "h:mm", 33: "h:mm:ss"}
BUILT_IN |= _EAST_ASIAN_DATES | dict.fromkeys([34, 35, 36, *range(50, 59)], "yyyy-mm-dd")

_TOKEN = re.compile(
    r'"([^"]*)"|\\(.)|_.|\*.|\[\$([^\]-]*)(?:-[^\]]*)?\]|\[(h+|m+|s+)\]|\[[^\]]*\]'
    r"|(General)|(AM/PM|A/P)|([yYdDhHsSeEgGbB]+|[mM]+)|([0#?][0#?,.]*|\.[0#?]+)|(.)",
    re.DOTALL,
)
_LARGEST_DATE = 2_958_466  # 31 December 9999


class _Format(Record, frozen=True, kw_only=True):
    before: str = ""
    after: str = ""
    digits: str = ""  # such as `#,##0.00`; empty without digits
    percent: int = 0
    plain: bool = False  # shown without format: General, fractions, exponents
    date: bool = False
    time: bool = False
    seconds: bool = False
    elapsed: bool = False  # hours beyond 24, as in `[h]:mm`


def shown_number(value: float, code: str, *, since_1904: bool = False) -> str:
    """Return a number, or the date or time that it counts in days, in the format `code`."""
    sections = _sections(code)
    negative = value < 0 and len(sections) > 1
    section = (
        sections[1] if negative else sections[2] if not value and len(sections) > 2 else sections[0]
    )
    form = _parsed(section)
    if form.date or form.time:
        if 0 <= value < _LARGEST_DATE:
            return _moment(value, form, since_1904)
        return plain_number(value)
    if form.plain or not form.digits:
        return plain_number(value) if form.plain else f"{form.before}{form.after}".strip()
    number = _digits(abs(value) if negative else value, form)
    return f"{form.before}{number}{form.after}".strip()


def plain_number(value: float) -> str:
    """Format with 15 digits, as Excel does: 0.1 + 0.2 is 0.3."""
    short = f"{value:.15g}"
    return f"{value:.0f}" if "e+" in short and abs(value) < 1e21 else short


@lru_cache(512)
def _sections(code: str) -> list[str]:
    return re.findall(r'(?:"[^"]*"|\\.|\[[^\]]*\]|[^;])+', code)[:4] or [GENERAL]


@lru_cache(512)
def _parsed(section: str) -> _Format:
    before, after, digits, percent = list[str](), list[str](), "", 0
    letters, plain, elapsed = "", False, False
    for found in _TOKEN.finditer(section):
        quoted, escaped, currency, hours, general, _, moment, number, other = found.groups()
        literal = quoted or escaped or currency or (other if other not in ("@", "/") else "") or ""
        letters += moment or ""
        elapsed = elapsed or bool(hours)
        letters += "h" if hours else ""
        plain = plain or bool(general) or other == "/" or (bool(digits) and moment in ("E", "e"))
        percent += literal.count("%") if other else 0
        if number and not digits:
            digits = number
        else:
            (after if digits else before).append(literal)
    lowered = letters.lower()
    time = any(sign in lowered for sign in "hs")
    date = any(sign in lowered for sign in "yd") or ("m" in lowered and not time)
    return _Format(
        before="".join(before),
        after="".join(after),
        digits=digits,
        percent=percent,
        plain=plain or section == "@",
        date=date and not digits,
        time=time and (not digits or "0" in digits),
        seconds="s" in lowered,
        elapsed=elapsed,
    )


def _digits(value: float, form: _Format) -> str:
    whole, _, fraction = form.digits.partition(".")
    scale = 1000 ** (len(form.digits) - len(form.digits.rstrip(",")))
    value = value * 100**form.percent / scale
    least = fraction.count("0")
    most = sum(fraction.count(sign) for sign in "0#?")
    separator = "," if "," in whole.rstrip(",") else ""
    out = f"{value:{separator}.{most}f}"
    if most > least:
        out = (
            out.rstrip("0")
            if not least
            else out[: len(out) - most + least] + out[len(out) - most + least :].rstrip("0")
        )
        out = out.rstrip(".")
    wide = whole.count("0")
    sign, number = ("-", out[1:]) if out.startswith("-") else ("", out)
    head, dot, tail = number.partition(".")
    return f"{sign}{head.zfill(wide) if not separator else head}{dot}{tail}"


def _moment(value: float, form: _Format, since_1904: bool) -> str:
    seconds = round(value * 86400)
    if form.elapsed:
        hours, rest = divmod(seconds, 3600)
        return f"{hours}:{rest // 60:02}" + (f":{rest % 60:02}" if form.seconds else "")
    start = datetime.datetime(1904, 1, 1) if since_1904 else datetime.datetime(1899, 12, 30)  # noqa: DTZ001
    if not since_1904 and seconds < 60 * 86400 and form.date:
        start += datetime.timedelta(days=1)  # Excel counts a 29 February 1900
    moment = start + datetime.timedelta(seconds=seconds)
    clock = moment.strftime("%H:%M:%S" if form.seconds and moment.second else "%H:%M")
    if not form.date:
        return clock
    day = moment.date().isoformat()
    return f"{day} {clock}" if form.time else day
