"""Remove from a text what identifies a person or opens a lock: keys, e-mail addresses, phone numbers
and card numbers.

Patterns find what looks like one; they may take too much (an order number of twelve digits looks
like a phone number) rather than too little. Names, addresses and everything else stay.
"""

import re
from collections.abc import Callable

_KEYS = (
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)",
    r"\b(?:Bearer|Basic)\s+[A-Za-z0-9._~+/=-]{6,}",
    r"\beyJ[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]{5,}(?:\.[A-Za-z0-9_-]*)?",  # JSON Web Tokens
    r"\b(?:sk|pk|rk|ak|sw|key|api|token|secret|hf|glpat|npm|pypi|xox[a-z]|gh[pousr])[-_][\w-]{6,}",
    r"\b(?:AKIA|ASIA|AIza|ya29)[\w.-]{12,}",
    # any long word with both letters and digits, except ids of ours and of OpenAI's protocol
    r"(?<![\w-])(?!(?:ans|ref|chatcmpl|call|file|batch)-)(?=[A-Za-z_+/=-]*\d)(?=[\d_+/=-]*[A-Za-z])[A-Za-z0-9_+/=-]{32,}",
)
_PASSWORD = re.compile(r"(?<=://)[^/\s:@]+:[^/\s@]+(?=@)")
_KEY = re.compile("|".join(_KEYS), re.ASCII)  # Chinese text may touch a key
_EMAIL = re.compile(r"[A-Za-z0-9_.%+'-]{1,64}@[\w-]+(?:\.[\w-]+)+")
_DIGITS = re.compile(r"(?<![A-Za-z0-9_.])[+(]?\d(?:[ ().\u00a0/-]{0,2}\d){7,21}(?![A-Za-z0-9_])")
_DATE = re.compile(r"\d{4}[-/.]\d{1,2}[-/.]\d{1,2}\Z|\d{1,2}[-/.]\d{1,2}[-/.]\d{4}\Z")
CARD_DIGITS, PHONE_DIGITS = range(13, 20), range(8, 16)


def redacted(text: str) -> str:
    """Return the text with `[key]`, `[e-mail]`, `[card]` and `[phone]` in place of what was found."""
    text = _PASSWORD.sub("[key]", text)
    text = _KEY.sub("[key]", text)
    text = _EMAIL.sub("[e-mail]", text)
    return _DIGITS.sub(_number, text)


def _number(found: re.Match[str]) -> str:
    """Return what replaces a number, or the number itself."""
    shown = found[0]
    digits = re.sub(r"\D", "", shown)
    if len(digits) in CARD_DIGITS and is_card(digits):
        return "[card]"
    if _DATE.match(shown) or len(digits) not in PHONE_DIGITS:
        return shown
    return "[phone]"


def is_card(digits: str) -> bool:
    """Return whether the last digit is the check digit of a card (Luhn, ISO/IEC 7812-1)."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (1 + place % 2)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def redactor(secrets: "set[str]") -> Callable[[str], str]:
    """Return a function that also removes these secrets, such as the keys of the settings."""
    known = sorted((each for each in secrets if len(each) >= 4), key=len, reverse=True)
    if not known:
        return redacted
    exact = re.compile("|".join(map(re.escape, known)))
    return lambda text: redacted(exact.sub("[key]", text))
