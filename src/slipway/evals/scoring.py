"""Score outputs against references. A set declares one scorer; each output gets two scores, one for
its strict and one for its flexible reading.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence

from slipway.evals.extracting import EXTRACTORS, Extracted, by_reference, value_of
from slipway.evals.items import Item
from slipway.types import Record

_CLOSE = 10**-6  # relative: 0.333333 is a third
_ARTICLES = frozenset({"a", "an", "the"})
_TOKEN = re.compile(r"[㐀-鿿぀-ヿ가-힯]|[^\W_]+(?:[.,]\d+)*")


class Cited(Record, frozen=True, kw_only=True):
    """A place that an answer cites."""

    path: str
    heading: str = ""


class Scored(Record, frozen=True, kw_only=True):
    """What one output is worth, from 0 to 1, and what was read in it."""

    strict: float
    flexible: float
    read_strict: str | None = None
    read_flexible: str | None = None


class Scorer(Record, frozen=True, kw_only=True):
    """`extractor` reads an output; `worth` compares what it read with the reference. `asks` is how
    a prompt asks for that form.
    """

    meaning: str
    extractor: str
    worth: Callable[[str, Item], float]
    asks: str = ""


def _letter(read: str, item: Item) -> float:
    return float(read.upper() == item.reference.strip("() ").upper())


def _number(read: str, item: Item) -> float:
    one, other = value_of(read), value_of(item.reference)
    return float(one is not None and other is not None and abs(one - other) <= abs(other) * _CLOSE)


def _word(read: str, item: Item) -> float:
    return float(read.casefold() == item.reference.casefold())


def _exact(read: str, item: Item) -> float:
    return float(_same(read) == _same(item.reference))


def _same(text: str) -> str:
    """Remove case, spacing and punctuation; what has no letters or digits at all, such as
    brackets, without spacing alone.
    """
    text = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(re.findall(r"[^\W_]+(?:&[^\W_]+)*", text)) or re.sub(r"\s+", "", text)


def _contains(read: str, item: Item) -> float:
    return float(
        f" {_same(item.reference)} " in f" {_same(read)} "
        or _joined(item.reference) in _joined(read)
    )


def _joined(text: str) -> str:
    """Join the signs of languages that write no spaces; others are compared word by word."""
    return "".join(_same(text).split()) if re.search(r"[㐀-鿿぀-ヿ]", text) else f" {_same(text)} "


def _f1(read: str, item: Item) -> float:
    one, other = Counter(tokens(read)), Counter(tokens(item.reference))
    shared = sum((one & other).values())
    return 2 * shared / (one.total() + other.total()) if shared else 0.0


def tokens(text: str) -> list[str]:
    """Split into words without articles; each Chinese, Japanese or Korean sign is a word."""
    return [
        each
        for each in _TOKEN.findall(unicodedata.normalize("NFKC", text).casefold())
        if each not in _ARTICLES
    ]


def _unmeasured(read: str, item: Item) -> float:
    raise AssertionError("this scorer does not read the text")


_LETTER = "End with one line of the form `Answer: X`, where X is the letter of the right choice."
_NUMBER = "End with one line of the form `Answer: N`, where N is the number alone."
_WORD = "End with one line of the form `Answer: W`, where W is one of: {choices}."
_TEXT = "End with one line of the form `Answer: …`, with the answer alone."

SCORERS: dict[str, Scorer] = {
    "letter": Scorer(
        meaning="the letter of the right choice", extractor="letter", worth=_letter, asks=_LETTER
    ),
    "number": Scorer(meaning="the same number", extractor="number", worth=_number, asks=_NUMBER),
    "word": Scorer(
        meaning="the right one of a few words", extractor="word", worth=_word, asks=_WORD
    ),
    "exact": Scorer(meaning="the same words", extractor="text", worth=_exact, asks=_TEXT),
    "contains": Scorer(
        meaning="the reference's words are in the output", extractor="whole", worth=_contains
    ),
    "f1": Scorer(
        meaning="how many words output and reference share (F1)", extractor="text", worth=_f1
    ),
    "cited": Scorer(
        meaning="a gold place is cited; strict: nothing else is",
        extractor="whole",
        worth=_unmeasured,
    ),
    "judge": Scorer(
        meaning="another model says whether it is right", extractor="whole", worth=_unmeasured
    ),
    "reference": Scorer(
        meaning="letter, number, word or words, by the reference's form",
        extractor="",
        worth=_unmeasured,
    ),
}
_OF_EXTRACTOR = {"letter": "letter", "number": "number", "word": "word", "text": "exact"}


def scorer_of(name: str, item: Item) -> str:
    """Return the scorer that counts for this item: `reference` means one by the form of the
    item's reference.
    """
    if name != "reference":
        return name
    if item.choices and re.fullmatch(r"[A-Z]", item.reference):
        return "letter"
    return _OF_EXTRACTOR[by_reference(item.reference)]


def score(
    name: str, output: str, item: Item, cited: Sequence[Cited] = (), verdict: bool | None = None
) -> Scored:
    """Return the two scores of one output. `verdict` is the judge's, if there is one."""
    name = scorer_of(name, item)
    if name == "cited":
        return _score_cited(item, cited)
    if name == "judge":
        return Scored(strict=float(bool(verdict)), flexible=float(bool(verdict)))
    scorer = SCORERS[name]
    read = EXTRACTORS[scorer.extractor](output, item.choices)
    if name == "f1":  # a long answer is compared as a whole, unless a line declares it
        read = Extracted(read.strict, read.strict or output)
    return Scored(
        strict=0.0 if read.strict is None else scorer.worth(read.strict, item),
        flexible=0.0 if read.flexible is None else scorer.worth(read.flexible, item),
        read_strict=read.strict,
        read_flexible=read.flexible,
    )


def _score_cited(item: Item, cited: Sequence[Cited]) -> Scored:
    right = [
        any(gold.is_at((each.path, each.heading, None)) for gold in item.gold) for each in cited
    ]
    return Scored(
        strict=float(bool(right) and all(right)),
        flexible=float(any(right)),
        read_flexible="; ".join(f"{each.path}: {each.heading}" for each in cited) or None,
    )
