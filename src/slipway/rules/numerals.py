"""Read numbers as people type them: digits, English words up to 99, Chinese numerals."""

import re
from fractions import Fraction

_ONES = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
]
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_WORDS = {
    **{word: n for n, word in enumerate(_ONES)},
    **{word: 10 * n for n, word in enumerate(_TENS, 2)},
    "a dozen": 12,
}
_CHINESE_DIGITS = {c: n for n, c in enumerate("零一二三四五六七八九")} | {"两": 2, "〇": 0}
_CHINESE_UNITS = {"十": 10, "百": 100, "千": 1000}
_TEN_THOUSAND = 10_000
_DIGITS = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d{1,15})(?:\.\d{1,12})?")
# what a pattern looks for; `number_of` decides
SHAPE = r"[-+]?\d[\d,]*(?:\.\d+)?|[零〇一二两三四五六七八九十百千万]+|[a-z]+(?:[ -][a-z]+)?"


def number_of(text: str) -> Fraction | None:
    """Return the number that a text is, or None.

    `1,000` is a thousand; `1,5` is no number, since it could be meant in two ways.
    """
    plain = text.strip().lower()
    if _DIGITS.fullmatch(plain):
        return Fraction(plain.replace(",", ""))
    if plain and all(c in _CHINESE_DIGITS or c in _CHINESE_UNITS or c == "万" for c in plain):
        return chinese_number(plain)
    return in_words(plain)


def in_words(text: str) -> Fraction | None:
    if text in _WORDS:
        return Fraction(_WORDS[text])
    ten, _, one = text.replace("-", " ").partition(" ")
    if ten in _TENS and 0 < _WORDS.get(one, 0) < 10:
        return Fraction(_WORDS[ten] + _WORDS[one])
    return None


def chinese_number(text: str) -> Fraction | None:
    """Return the value of a Chinese numeral such as 一万二千三百, or None if it is malformed."""
    if all(c in _CHINESE_DIGITS for c in text):
        digits = "".join(str(_CHINESE_DIGITS[c]) for c in text)
        return Fraction(int(digits)) if len(digits) in (1, 4) else None  # 二〇二六 is a year
    above, _, below = text.rpartition("万")
    high, low = below_ten_thousand(above) if above else 0, below_ten_thousand(below)
    if high is None or low is None or ("万" in text and not above):
        return None
    return Fraction(high * _TEN_THOUSAND + low)


def below_ten_thousand(text: str) -> int | None:
    total, digit, last = 0, None, _TEN_THOUSAND
    for c in text.replace("零", "").replace("〇", ""):
        if c in _CHINESE_DIGITS:
            if digit is not None:
                return None
            digit = _CHINESE_DIGITS[c]
        elif c in _CHINESE_UNITS and _CHINESE_UNITS[c] < last:
            last = _CHINESE_UNITS[c]
            total += (1 if digit is None else digit) * last
            digit = None
        else:
            return None
    return total + (digit or 0)
