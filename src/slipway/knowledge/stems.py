"""Compare words by their stems: the content words of a question and of the texts that may answer."""

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache

from slipway.knowledge.languages import without_accents

_UNSPACED = (
    r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u9fff\ua000-\ua4cf\uac00-\ud7af\uf900-\ufaff"
    r"\U00020000-\U0003ffff"
)
_WORD = re.compile(
    rf"\d+(?:\.\d+)+|(?P<run>(?:(?=[{_UNSPACED}])[^\W_])+)|(?:(?![{_UNSPACED}])[^\W_])+"
)
_IDENTIFIER = re.compile(r"(?<![^\W_])[A-Za-z][A-Za-z0-9]*(?:_[A-Za-z0-9]+)+(?![^\W_])", re.ASCII)
_SHORT_STEM = re.compile(r"(?:[^aeiouy]|qu)*[aeiouy][^aeiouywx]$")
# longest first
_SUFFIX_LIST = (
    "ations ation ators ator ating ated ates ate ments ment ions ion ings ing edly ed ly ies es s "
    "e y"
)
_SUFFIXES = tuple(_SUFFIX_LIST.split())
LONGEST_KEPT = 40  # characters of a word whose stem is kept: a question may be one long word
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
# They say little of what is asked about: "my own command", "another port"
WEAK_WORDS = frozenset(["own", "another", "new", "other", "different", "certain", "specific"])
_STOP_WORDS = frozenset(_SMALL_WORDS.split())


# Verbs of two words, as one: "turn on" says what "enable" says
_PHRASES = (
    (re.compile(r"\b(?:turn|switch)(?:s|es|ed|ing)? on\b"), "enable"),
    (re.compile(r"\b(?:turn|switch)(?:s|es|ed|ing)? off\b"), "disable"),
    (re.compile(r"\b(?:carr(?:y|ies|ied|ying)|roll(?:s|ed|ing)?)[ -]over\b"), "carryover"),
    (re.compile(r"\b(?:log|sign)(?:s|ged|ned|ging|ning|ing|ed)?[ -]in\b"), "login"),
    (re.compile(r"\b(?:log|sign)(?:s|ged|ned|ging|ning|ing|ed)?[ -]out\b"), "logout"),
    (re.compile(r"\bset(?:s|ting)?[ -]up\b"), "setup"),
)
_HAS_PHRASE = re.compile(r" (?:on|off|over|in|out|up)\b|-over|-in|-out|-up")


def _joined_phrases(text: str) -> str:
    if _HAS_PHRASE.search(text):
        for phrase, word in _PHRASES:
            text = phrase.sub(word, text)
    return text


def words_of(text: str) -> Iterator[str]:
    """Yield lower-case words without accents; pairs of characters in scripts without spaces. A
    number such as 2.2.1 is one word.
    """
    for found in _WORD.finditer(_joined_phrases(without_accents(text.lower()))):
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


def without_identifiers(text: str, asked: frozenset[str]) -> str:
    """Blank identifiers of which only a part is asked for: `format_price` says no price."""

    def kept(found: re.Match[str]) -> str:
        parts = [stem(part) for part in found[0].lower().split("_")]
        return found[0] if asked.issuperset(parts) else " " * len(found[0])

    return _IDENTIFIER.sub(kept, text)


# Words for the same thing in one line. Those behind `>` have other meanings too: they may answer
# who asks for the others, but who asks for them may mean something else
_SAME_LINES = """
    vacation holiday pto > leave
    delete remove erase
    enable activate
    disable deactivate
    price cost fee > charge
    salary wage > pay
    buy purchase
    email mail
    phone telephone
    supervisor manager boss
    begin start
    forbid prohibit
    allow permit
"""


def _groups() -> Iterator[tuple[list[str], list[str]]]:
    for line in filter(None, _SAME_LINES.split("\n")):
        asked, _, also = line.partition(">")
        yield asked.split(), [*asked.split(), *also.split()]


SAME = {
    word: [each for each in said if each != word] for group, said in _groups() for word in group
}


def synonyms_of(term: str) -> Sequence[str]:
    """Return the stems of words that say the same as this stem."""
    return _SAME_STEMS.get(term, ())


def other_words_for(question: str) -> list[str]:
    """Return words that say the same as those of a question."""
    asked = frozenset(map(stem, words_of(question)))
    found = {each for word, said in SAME.items() if stem(word) in asked for each in said}
    return sorted(word for word in found if stem(word) not in asked)


def content_words(text: str) -> frozenset[str]:
    """Return the stems of a text's content words and numbers."""
    return frozenset(stem(word) for word in words_of(text) if word not in _STOP_WORDS)


def stem(word: str) -> str:
    """Return the stem: up to two English suffixes are removed, leaving three letters and a vowel.
    `configure`, `configuring` and `configurations` become one term; 1000 stays apart from 100.
    """
    return kept_stem(word) if len(word) <= LONGEST_KEPT else _stem(word)


def _stem(word: str) -> str:
    return word if word.isdecimal() else _cut(_cut(word))


kept_stem = lru_cache(maxsize=20_000)(_stem)


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


_SAME_STEMS = {stem(word): list(map(stem, others)) for word, others in SAME.items()}
