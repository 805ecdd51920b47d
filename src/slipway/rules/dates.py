"""Read dates as people type them, in English and Chinese, also relative to today.

A date that could be meant in two ways, such as 3/4/2026, is not read.
"""

import re
from collections.abc import Callable
from datetime import date, timedelta

from slipway.rules.numerals import number_of

_MONTHS = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
]
_MONTH = {name[:n]: at for at, name in enumerate(_MONTHS, 1) for n in (3, len(name))} | {"sept": 9}
_DAYS = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]
_DAY = {name[:n]: at for at, name in enumerate(_DAYS) for n in (3, len(name))}
_CHINESE_DAYS = "一二三四五六日"
_RELATIVE = {
    "today": 0,
    "tomorrow": 1,
    "yesterday": -1,
    "the day after tomorrow": 2,
    "day after tomorrow": 2,
    "the day before yesterday": -2,
    "今天": 0,
    "今日": 0,
    "明天": 1,
    "明日": 1,
    "后天": 2,
    "大后天": 3,
    "昨天": -1,
    "昨日": -1,
    "前天": -2,
}
_SPAN = {"day": 1, "week": 7, "天": 1, "日": 1, "周": 7, "星期": 7, "个星期": 7}
_LONGEST = 40  # characters
MOST_DAYS = 366 * 1000


def date_of(text: str, today: date) -> date | None:
    """Return the date that a text means on the day `today`, or None if it is not clearly one."""
    plain = " ".join(text.lower().replace(",", " ").split()).removeprefix("on ")
    if not 0 < len(plain) <= _LONGEST:
        return None
    if plain in _RELATIVE:
        return today + timedelta(days=_RELATIVE[plain])
    for pattern, read in _FORMS:
        if found := pattern.fullmatch(plain):
            try:
                return read(found, today)
            except (ValueError, OverflowError):
                return None
    return None


def _year(found: str | None, month: int, day: int, today: date) -> date:
    """Return the date in the year given, or the next such day from today."""
    if found:
        return date(int(found), month, day)
    this = date(today.year, month, day)
    return this if this >= today else date(today.year + 1, month, day)


def _iso(found: re.Match[str], today: date) -> date:
    return date(int(found[1]), int(found[2]), int(found[3]))


def _dotted(found: re.Match[str], today: date) -> date:
    return date(int(found[3]), int(found[2]), int(found[1]))


def _slashed(found: re.Match[str], today: date) -> date | None:
    """Read 25/12/2026 and 12/25/2026; 3/4/2026 could be either, unless both are the same day."""
    one, two = int(found[1]), int(found[2])
    if one <= 12 and two <= 12 and one != two:
        return None
    day, month = (one, two) if two <= 12 else (two, one)
    return date(int(found[3]), month, day)


def _day_month(found: re.Match[str], today: date) -> date:
    return _year(found[3], _MONTH[found[2]], int(found[1]), today)


def _month_day(found: re.Match[str], today: date) -> date:
    return _year(found[3], _MONTH[found[1]], int(found[2]), today)


def _chinese(found: re.Match[str], today: date) -> date:
    return _year(found[1], int(found[2]), int(found[3]), today)


def _weekday(found: re.Match[str], today: date) -> date:
    """Return the next such day; `next Monday` is in the week that begins with the next Monday."""
    day = _DAY[found[2]]
    if found[1] == "next":
        return today + timedelta(days=7 - today.weekday() + day)
    return today + timedelta(days=(day - today.weekday()) % 7)


def _chinese_weekday(found: re.Match[str], today: date) -> date:
    """Weeks begin with Monday; 周三 alone is the one of this week."""
    day = _CHINESE_DAYS.index(found[2].replace("天", "日"))
    weeks = {"下": 1, "下个": 1, "上": -1, "上个": -1}.get(found[1], 0)
    return today + timedelta(days=day - today.weekday() + 7 * weeks)


def _span(found: re.Match[str], today: date) -> date | None:
    return _moved(found[1], found[2], 1, today)


def _ago(found: re.Match[str], today: date) -> date | None:
    return _moved(found[1], found[2], -1, today)


def _chinese_span(found: re.Match[str], today: date) -> date | None:
    return _moved(found[1], found[2], -1 if found[3].endswith("前") else 1, today)


def _moved(count: str, unit: str, sign: int, today: date) -> date | None:
    number = number_of({"a": "one", "an": "one"}.get(count, count))
    if number is None or number.denominator != 1 or not 0 <= number <= MOST_DAYS:
        return None
    return today + timedelta(days=sign * int(number) * _SPAN[unit])


_NAMES = "|".join(sorted(_MONTH, key=len, reverse=True))
_DAY_NAMES = "|".join(sorted(_DAY, key=len, reverse=True))
_ORDINAL = r"(\d{1,2})(?:st|nd|rd|th)?"
_FORMS: tuple[tuple[re.Pattern[str], Callable[[re.Match[str], date], date | None]], ...] = (
    (re.compile(r"(\d{4})-(\d{1,2})-(\d{1,2})"), _iso),
    (re.compile(r"(\d{1,2})\. ?(\d{1,2})\. ?(\d{4})"), _dotted),
    (re.compile(r"(\d{1,2})/(\d{1,2})/(\d{4})"), _slashed),
    (re.compile(rf"(?:the )?{_ORDINAL}(?: of)? ({_NAMES})\.?(?: (\d{{4}}))?"), _day_month),
    (re.compile(rf"({_NAMES})\.? (?:the )?{_ORDINAL}(?: (\d{{4}}))?"), _month_day),
    (re.compile(r"(?:(\d{4})年)?(\d{1,2})月(\d{1,2})[日号]"), _chinese),
    (re.compile(rf"(?:(this|next) )?({_DAY_NAMES})"), _weekday),
    (
        re.compile(r"(本|这|这个|下|下个|上|上个)?(?:周|星期|礼拜)([一二三四五六日天])"),
        _chinese_weekday,
    ),
    (re.compile(r"in ([a-z-]+|\d+) (day|week)s?"), _span),
    (re.compile(r"([a-z-]+|\d+) (day|week)s? from (?:now|today)"), _span),
    (re.compile(r"([a-z-]+|\d+) (day|week)s? ago"), _ago),
    (
        re.compile(r"(\d+|[一二两三四五六七八九十百]+)(天|日|周|星期|个星期)(之?[后前]|以[后前])"),
        _chinese_span,
    ),
)
