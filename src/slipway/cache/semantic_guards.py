"""Refuse pairs of questions that look alike but must not share an answer.

A guard compares two questions and gives a reason to refuse, or none. Guards see words, not meaning:
they catch a changed number, unit, date, negation, opposite, name, order, language, or one changed
word in an otherwise equal question. They know English and Chinese.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence, Set
from difflib import SequenceMatcher

from slipway.bounded import BoundedCache
from slipway.cache.semantic_words import (
    CHINESE_OPPOSITES,
    DATES,
    FUNCTION_WORDS,
    LANGUAGES,
    NEGATIONS,
    NUMBER_WORDS,
    OPPOSITES,
    PREFIXES,
    REVERSING,
    UNITS,
)
from slipway.types import Record

_HAN = "\u2e80-\u2fdf\u3007\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_TOKEN = re.compile(
    rf"\d+(?:[.,:/-]\d+)*|[{_HAN}]|[^\W\d_{_HAN}]+(?:['’][^\W\d_{_HAN}]+)*|[$€£¥%°]"
)
_SCRIPTS = {
    "han": re.compile(f"[{_HAN}]"),
    "kana": re.compile("[\u3040-\u30ff]"),
    "hangul": re.compile("[\u1100-\u11ff\uac00-\ud7af]"),
    "cyrillic": re.compile("[\u0400-\u052f]"),
    "arabic": re.compile("[\u0600-\u06ff]"),
    "devanagari": re.compile("[\u0900-\u097f]"),
    "thai": re.compile("[\u0e00-\u0e7f]"),
    "latin": re.compile("[A-Za-z\u00c0-\u024f]"),
}
_CODE = re.compile(r"(?<![\w])(?=\w*[a-zA-Z])(?=\w*\d)\w+(?:[-.]\w+)*")  # gpt4, A320, v1
_HAN_NUMBER = re.compile("[零〇一二两三四五六七八九十百千万亿]+")
_HAN_DIGITS = {d: n for n, d in enumerate("零一二三四五六七八九")} | {"〇": 0, "两": 2}
_HAN_SCALES = {"十": 10, "百": 100, "千": 1000, "万": 10_000, "亿": 100_000_000}
_HAN_NEGATION = re.compile("不|没|無|无|未|别|非|勿|莫")
_HAN_NOT_NEGATIVE = re.compile(
    "不过|不仅|不但|不管|是不是|能不能|可不可以|有没有|要不要|会不会|非常|别人|别的"
)
_HAN_DATE = re.compile("|".join(word for word in DATES if re.match(f"[{_HAN}]{{2}}", word)))
_HAN_FUNCTION = frozenset(
    "的了吗呢吧啊呀么是在我你您他她它们这那个请问怎么样如何什为可以能会要想有没和与及"
)
LONGEST_KEPT = 300  # characters of a question whose reading is kept
KEPT_READINGS = BoundedCache["QuestionWords"](32 << 20)
_ENDINGS = ("ing", "ed", "es", "s")
_SAME_FRAME = 1 / 3  # the share of equal words from which one changed word counts
_CAPITALS = 0.6  # the share of capitalised words above which capitals mean nothing
_SAME_WORDS = 0.75  # the share of equal words above which their order counts


class QuestionWords(Record, frozen=True, kw_only=True):
    """What the guards read in one question. `content` holds stems in order, without the words that
    only hold a sentence together; `names` are lower-case.
    """

    words: tuple[str, ...]
    all: frozenset[str]
    content: tuple[str, ...]
    about: frozenset[str]  # the content words
    stems: frozenset[str]  # of all words
    unprefixed: frozenset[str]  # stems of words without their `un-`, `in-`, `de-`, …
    numbers: tuple[tuple[float, str], ...]
    dates: frozenset[str]
    negations: int
    reverses: bool
    names: frozenset[str]
    language: str


def read(text: str) -> QuestionWords:
    """Read a question once for all guards. What was read of short ones is kept."""
    if len(text) > LONGEST_KEPT:
        return _read(text)
    found = KEPT_READINGS.get(text)
    return found if found is not None else KEPT_READINGS.put(text, _read(text))


def _read(text: str) -> QuestionWords:
    plain = unicodedata.normalize("NFKC", text.encode("utf-8", "ignore").decode())
    tokens = _TOKEN.findall(plain)
    words = tuple(token.lower().replace("’", "'") for token in tokens)
    content = tuple(_stem(word) for word in words if _is_content(word))
    stems = frozenset(map(_stem, words))
    return QuestionWords(
        words=words,
        stems=stems,
        unprefixed=frozenset(_unprefixed(stems)),
        all=frozenset(words),
        content=content,
        about=frozenset(content),
        numbers=tuple(sorted((*_numbers(words), *_han_numbers(_HAN_DATE.sub(" ", plain))))),
        dates=frozenset(_dates(plain, words)),
        negations=_negations(plain, words),
        reverses=_reverses(plain, words),
        names=frozenset(_names(plain)),
        language=_language(plain, words),
    )


def refusal(asked: str, kept: str, known: Set[str] = frozenset()) -> str | None:
    """Return the first guard that refuses the pair, or None.

    `known` holds lower-case words that are names even if they are not capitalised here.
    """
    one, other = read(asked), read(kept)
    return next((name for name, guard in GUARDS.items() if guard(one, other, known)), None)


def likeness(one: QuestionWords, other: QuestionWords) -> float:
    """Return the share of equal content words (Jaccard)."""
    either = len(one.about | other.about)
    return len(one.about & other.about) / either if either else 1.0


# The guards: each returns whether it refuses the pair.


def _other_language(one: QuestionWords, other: QuestionWords, known: Set[str]) -> bool:
    return one.language != other.language


def _other_numbers(one: QuestionWords, other: QuestionWords, known: Set[str]) -> bool:
    return [value for value, _ in one.numbers] != [value for value, _ in other.numbers]


def _other_units(one: QuestionWords, other: QuestionWords, known: Set[str]) -> bool:
    """Refuse `5 days` beside `5 weeks`; a number without a unit fits any."""
    return any(
        left != right and left and right
        for (_, left), (_, right) in zip(one.numbers, other.numbers, strict=False)
    )


def _other_dates(one: QuestionWords, other: QuestionWords, known: Set[str]) -> bool:
    return one.dates != other.dates


def _other_negation(one: QuestionWords, other: QuestionWords, known: Set[str]) -> bool:
    return one.negations != other.negations


def _opposites(one: QuestionWords, other: QuestionWords, known: Set[str]) -> bool:
    if one.reverses != other.reverses:
        return True
    left, right = one.all - other.all, other.all - one.all
    if any(OPPOSITES.get(word, frozenset()) & right for word in left):
        return True
    if (one.stems - other.stems) & other.unprefixed or (other.stems - one.stems) & one.unprefixed:
        return True
    return one.language == "han" and _chinese_opposites("".join(one.words), "".join(other.words))


def _chinese_opposites(left: str, right: str) -> bool:
    return any(
        (a in left and b in right and a not in right and b not in left)
        or (b in left and a in right and b not in right and a not in left)
        for a, b in CHINESE_OPPOSITES
    )


def _other_names(one: QuestionWords, other: QuestionWords, known: Set[str]) -> bool:
    """Refuse if one question has a name that the other one lacks, or has it more often."""
    names = one.names | other.names | {word for word in known if word in one.all | other.all}
    return any(one.words.count(name) != other.words.count(name) for name in names)


def _other_order(one: QuestionWords, other: QuestionWords, known: Set[str]) -> bool:
    """Refuse the same words in another order: `from A to B` beside `from B to A`."""
    if likeness(one, other) < _SAME_WORDS:
        return False
    shared = {word for word, n in Counter(one.content).items() if n == 1} & {
        word for word, n in Counter(other.content).items() if n == 1
    }
    return [w for w in one.content if w in shared] != [w for w in other.content if w in shared]


def _one_word_changed(one: QuestionWords, other: QuestionWords, known: Set[str]) -> bool:
    """Refuse an equal question in which one word is another one: `a Visa card`, `a debit card`."""
    if one.content == other.content or likeness(one, other) < _SAME_FRAME:
        return False
    parts = SequenceMatcher(None, one.content, other.content, autojunk=False).get_opcodes()
    changes = [part for part in parts if part[0] != "equal"]
    if len(changes) != 1:
        return False
    kind, a, b, c, d = changes[0]
    longest = 4 if one.language == "han" else 1
    return kind == "replace" and max(b - a, d - c) <= longest


GUARDS: dict[str, Callable[[QuestionWords, QuestionWords, Set[str]], bool]] = {
    "language": _other_language,
    "number": _other_numbers,
    "unit": _other_units,
    "date": _other_dates,
    "negation": _other_negation,
    "opposite": _opposites,
    "name": _other_names,
    "order": _other_order,
    "word": _one_word_changed,
}


# Reading


def _is_content(word: str) -> bool:
    """Tell whether a word says what is asked; numbers have a guard of their own."""
    is_number = word[0].isdigit() or word in NUMBER_WORDS
    return not (is_number or word in FUNCTION_WORDS or word in _HAN_FUNCTION)


def _stem(word: str) -> str:
    """Cut the commonest English endings; other scripts stay as they are."""
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= 3 and not word.endswith("ss"):
            word = word.removesuffix(ending)
            return word[:-1] if len(word) > 3 and word[-1] == word[-2] else word.removesuffix("e")
    return word.removesuffix("e") if len(word) > 3 else word


def _unprefixed(stems: Set[str]) -> Iterator[str]:
    for stem in stems:
        for prefix in PREFIXES:
            if stem.startswith(prefix) and len(stem) - len(prefix) >= 4:
                yield stem.removeprefix(prefix)


def _numbers(words: Sequence[str]) -> Iterator[tuple[float, str]]:
    """Yield each number with its unit: the word behind it, or the sign on either side."""
    for at, word in enumerate(words):
        values = (
            [_value(part) for part in re.split(r"[:/-]", word)]
            if word[0].isdigit()
            else [NUMBER_WORDS[word]]
            if word in NUMBER_WORDS
            else []
        )
        beside = (*words[at + 1 : at + 2], *words[max(at - 1, 0) : at])
        unit = next((UNITS[near] for near in beside if near in UNITS), "")
        for value in values:
            yield value, unit


def _value(digits: str) -> float:
    if re.fullmatch(r"\d{1,3}(,\d{3})+(\.\d+)?", digits):
        digits = digits.replace(",", "")
    parts = digits.replace(",", ".").split(".")
    return float(f"{parts[0]}.{''.join(parts[1:])}" if len(parts) > 1 else parts[0])


def _han_numbers(text: str) -> Iterator[tuple[float, str]]:
    for found in _HAN_NUMBER.finditer(text):
        total, part, digit = 0, 0, 0
        for sign in found[0]:
            if sign in _HAN_DIGITS:
                digit = _HAN_DIGITS[sign]
            elif _HAN_SCALES[sign] >= 10_000:
                total, part, digit = (total + part + digit) * _HAN_SCALES[sign], 0, 0
            else:
                part, digit = part + (digit or 1) * _HAN_SCALES[sign], 0
        behind = text[found.end() : found.end() + 1]
        yield float(total + part + digit), UNITS.get(behind, "")


def _dates(text: str, words: Sequence[str]) -> Iterator[str]:
    yield from (DATES[word] for word in words if word in DATES)
    yield from (
        DATES[word]
        for word in DATES
        if len(word) > 1 and _SCRIPTS["han"].match(word) and word in text
    )


def _negations(text: str, words: Sequence[str]) -> int:
    """Count negations, modulo 2: two of them cancel."""
    count = sum(word in NEGATIONS or word.endswith("n't") for word in words)
    return (count + len(_HAN_NEGATION.findall(_HAN_NOT_NEGATIVE.sub("", text)))) % 2


def _reverses(text: str, words: Sequence[str]) -> bool:
    han = _SCRIPTS["han"].match
    return not REVERSING.isdisjoint(words) or any(each in text for each in REVERSING if han(each))


def _names(text: str) -> Iterator[str]:
    """Yield capitalised words that do not start a sentence, and codes with letters and digits.

    A text in capitals, or with every word capitalised, shows no names this way.
    """
    yield from (found[0].lower() for found in _CODE.finditer(text))
    words = re.findall(r"[^\W\d_]+", text)
    if sum(word[0].isupper() for word in words) > _CAPITALS * len(words):
        return
    for found in re.finditer(r"(?<![\w'’])[A-Z][^\W\d_]+", text):
        before = text[: found.start()].rstrip(" \"'“‘(")
        inside = bool(before) and before[-1] not in ".!?:;\n。！？：；"
        if (inside or found[0].isupper()) and found[0].lower() not in FUNCTION_WORDS:
            yield found[0].lower()


def _language(text: str, words: Sequence[str]) -> str:
    """Return the script with most letters; Latin script is split by its commonest words."""
    counts = {name: len(pattern.findall(text)) for name, pattern in _SCRIPTS.items()}
    if counts["kana"]:
        return "kana"
    counts["han"] *= 3  # one character is a word
    script = max(counts, key=lambda name: counts[name])
    if script != "latin":
        return script
    votes = {name: sum(word in common for word in words) for name, common in LANGUAGES.items()}
    best = max(votes, key=lambda name: votes[name])
    return best if votes[best] >= 2 and votes[best] > votes["english"] else "english"
