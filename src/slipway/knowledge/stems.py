"""Compare words by their stems: the content words of a question and of the texts that may answer."""

import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache

_UNSPACED = (
    r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u9fff\ua000-\ua4cf\uac00-\ud7af\uf900-\ufaff"
    r"\U00020000-\U0003ffff"
)
_WORD = re.compile(
    rf"\d+(?:\.\d+)+|(?P<run>(?:(?=[{_UNSPACED}])[^\W_])+)|(?:(?![{_UNSPACED}])[^\W_])+"
)
_IDENTIFIER = re.compile(r"(?<![^\W_])[A-Za-z][A-Za-z0-9]*(?:_[A-Za-z0-9]+)+(?![^\W_])", re.ASCII)
_ACCENTS = re.compile("[\u0300-\u036f]")
_SHORT_STEM = re.compile(r"(?:[^aeiouy]|qu)*[aeiouy][^aeiouywx]$")
# longest first
_SUFFIX_LIST = (
    "ations ation ators ator ating ated ates ate ments ment ions ion ings ing edly ed ly ies es s "
    "e y"
)
_SUFFIXES = tuple(_SUFFIX_LIST.split())
_VOWELS = frozenset("aeiouy")
_SMALL_WORDS = """
    a about according all also am an and any are as at be been but by can cannot could did do
    does doing done each either else explain for from get give had happen happens has have he
    hello her here hey hi him his how i if in instead into is it its just kind kinds let like
    many may me might mine more most much must my no not of off on one only or other our out
    please possible same say several shall she should show so some such tell than thank thanks
    that the their them then there these they thing things this those three through to too two
    under up us use used using very want was way ways we were what when where whether which
    while who whom whose why will with within without would you your
"""
_STOP_WORDS = frozenset(_SMALL_WORDS.split())


def words_of(text: str) -> Iterator[str]:
    """Yield lower-case words without accents; pairs of characters in scripts without spaces. A
    number such as 2.2.1 is one word.
    """
    for found in _WORD.finditer(without_accents(text.lower())):
        word = found[0]
        if found["run"] and len(word) > 1:
            yield from (word[at : at + 2] for at in range(len(word) - 1))
        else:
            yield word


def terms_of(text: str) -> list[str]:
    """Return the stems of all words, and of `2.2.1` also `2.2`: whoever asks for a part means
    what belongs to it as well.
    """
    return [term for word in words_of(text) for term in (stem(word), *_beginnings(word))]


def _beginnings(word: str) -> Iterator[str]:
    parts = word.split(".")
    yield from (".".join(parts[:count]) for count in range(1, len(parts)))


def without_accents(text: str) -> str:
    """Return the text as people type it without accents: `café` as `cafe`."""
    if text.isascii():
        return text
    return unicodedata.normalize("NFC", _ACCENTS.sub("", unicodedata.normalize("NFD", text)))


def without_identifiers(text: str, asked: frozenset[str]) -> str:
    """Blank identifiers of which only a part is asked for: `format_price` says no price."""

    def kept(found: re.Match[str]) -> str:
        parts = [stem(part) for part in found[0].lower().split("_")]
        return found[0] if asked.issuperset(parts) else " " * len(found[0])

    return _IDENTIFIER.sub(kept, text)


def content_words(text: str) -> frozenset[str]:
    """Return the stems of a text's content words and numbers."""
    return frozenset(stem(word) for word in words_of(text) if word not in _STOP_WORDS)


@lru_cache(maxsize=20_000)
def stem(word: str) -> str:
    """Return the stem: up to two English suffixes are removed, leaving three letters and a vowel.
    `configure`, `configuring` and `configurations` become one term; 1000 stays apart from 100.
    """
    return word if word.isdecimal() else _cut(_cut(word))


def _cut(word: str) -> str:
    for suffix in _SUFFIXES:
        left = word.removesuffix(suffix)
        if (
            left != word
            and len(left) >= 3
            and not _VOWELS.isdisjoint(left)
            and (suffix != "y" or left[-1] not in _VOWELS)
            and not (suffix in ("e", "es") and _SHORT_STEM.fullmatch(left))
        ):
            word = f"{left}e" if suffix in ("ing", "ed") and _SHORT_STEM.fullmatch(left) else left
            break
    return word[:-1] if len(word) > 2 and word[-1] == word[-2] else word
