"""Check what a sentence claims that can be looked up (numbers, dates, versions, amounts,
quotations, code, names) against its sources.

This checks words, not meaning: a sentence may have all its words in its source and still be wrong.
It looks up:

- **numbers**, in readings for thousands and decimals (`1,000`, `1.000`, `0,5`), with magnitudes (`5
  million`, `200K`), as words (`two`, `三`), months and dates; a percent sign or a currency is
  flagged only if the source has that number in another role;
- **versions and times** (`1.2.3`, `10:30`), **identifiers** (`max_tokens`, `--docs`, `/v1/answers`,
  `gpt-4o`) and inline code, by their tokens;
- **quotations**, word for word, ignoring case, space, markup and the final stop;
- **names**: capitalised words that do not start a sentence; also by their initials. In Chinese and
  Japanese, only Latin words.
"""

import re
from collections.abc import Iterator, Mapping, Sequence, Set
from functools import lru_cache

from slipway.types import Record, Source

_MAX_FLAGS = 8  # for one sentence
_LONG_QUOTE = 5  # words; so long a quotation may omit signs but add no word

_NUMBER = re.compile(r"\d+(?:[.,:'’\u202f\u00a0 ](?=\d{3}(?!\d))\d{3}|[.,:]\d+)*", re.ASCII)
_MAGNITUDE = re.compile(r"[ \u00a0-]?(thousand|million|billion|trillion|万|亿|[kKMB](?![a-zA-Z]))")
_MAGNITUDES = {
    "k": 1e3,
    "thousand": 1e3,
    "m": 1e6,
    "million": 1e6,
    "b": 1e9,
    "billion": 1e9,
    "trillion": 1e12,
    "万": 1e4,
    "亿": 1e8,
}
_ROLES = {  # role -> pattern before the number, pattern after it
    "percent": (r"百分之\s*\Z", r"\s?(?:%|％|per ?cent|pct|percentage)"),
    "money": (r"[$€£¥]\s?\Z", r"\s?(?:[$€£¥]|USD|EUR|dollars?|euros?|元|美元|cents?)"),
}
_ROLE = {
    name: (re.compile(before), re.compile(behind, re.IGNORECASE))
    for name, (before, behind) in _ROLES.items()
}
_UP_TO_NINETEEN = (
    "zero no none, one once single first, two twice both second pair, three third triple, four "
    "fourth quarter, five fifth, six sixth, "
    "seven seventh, eight eighth, nine ninth, ten tenth, eleven, twelve dozen, thirteen, fourteen, "
    "fifteen, sixteen, seventeen, eighteen, nineteen"
)
_WORDED = {
    name: number
    for number, names in enumerate(_UP_TO_NINETEEN.split(","))
    for name in names.split()
}
_WORDED |= {
    name: 10 * ten
    for ten, name in enumerate(
        ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety", "hundred"], 2
    )
}
_WORDED |= {"thousand": 1000}
_MONTH_LIST = (
    "january february march april may june july august september october november december"
)
_MONTHS = {name: number for number, name in enumerate(_MONTH_LIST.split(), 1)}
_MONTHS |= {name[:3]: number for name, number in _MONTHS.items()}
_DATED = re.compile(rf"(?<!\w)({'|'.join(_MONTHS)})(?=\.? \d)", re.IGNORECASE)
_ISO_DATE = re.compile(r"(?<!\d)\d{4}-(0[1-9]|1[0-2])-\d\d(?!\d)")
_HAN = {digit: number for number, digit in enumerate("零一二三四五六七八九十")} | {"两": 2}
_HAN_NUMBER = re.compile(
    r"([一二三四五六七八九])?十([一二三四五六七八九])?|[零一二三四五六七八九两]"
)

_MARKUP = re.compile(
    r"\*\*|__|(?<!\w)[*_](?=\S)|(?<=\S)[*_](?!\w)|^\s*(?:#{1,6}\s|>\s?|[-*+]\s|\d{1,3}[.)]\s)",
    re.MULTILINE,
)
_COUNTED = re.compile(r"(?<![\w.])\(?\d{1,2}\)(?=\s)")
_CODE = re.compile(r"`([^`\n]+)`")
_QUOTED = re.compile(
    r"[\"“]([^\"“”\n]{2,200})[\"”]|(?<!\w)[‘']([^'‘’\n]{2,200})[’'](?!\w)"
    r"|[「『《«]([^」』》»\n]{1,200})[」』》»]"
)
_IDENTIFIER = re.compile(
    r"(?<![\w/.-])(?:--?[a-z][\w-]+|(?:/[\w{}.-]+){2,}|[A-Za-z]\w*(?:[._]\w+)+(?:\(\))?"
    r"|[a-z]+[A-Z]\w*|[A-Za-z]+-?\d[\w.-]*\w|[A-Z]\d)",
    re.ASCII,
)
_NAME = re.compile(r"(?<![\w@/.-])[^\W\d_a-z][^\W\d_]+(?:[-'’][^\W\d_]+)*")
_BEGINS = re.compile(
    r"(?:\A|[.!?:;]\s|[.!?:;][\"'”’)]\s|[\n(\[|]|[–—-]\s|[。！？：；，])[\s\"'“‘(\[*_]*\Z"
)
_WORD = re.compile(r"[^\W_]+", re.ASCII)
_ANY_WORD = re.compile(r"[^\W\d_]+")
_HAN_TEXT = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]")
_NO_NAMES = frozenset(
    (
        "i",
        "ok",
        "the",
        "a",
        "an",
        "api",
        "apis",
        "faq",
        "id",
        "ids",
        "url",
        "urls",
        "yes",
        "no",
        "note",
    )
)


class _StatedNumber(Record, frozen=True, kw_only=True):
    text: str
    readings: frozenset[float]
    role: str


class _SourceFacts(Record, frozen=True, kw_only=True):
    """Hold what can be found in a source: its words, its numbers with their roles, and its text
    without markup and without signs.
    """

    plain: str
    letters: str
    words: frozenset[str]
    numbers: Mapping[float, frozenset[str]]
    initials: str


class Claims:
    """Find what a sentence claims that neither its cited sources nor the question contain. A source
    is parsed when it is first cited.
    """

    def __init__(self, sources: Sequence[Source], question: str) -> None:
        self._sources = {source.n: source for source in sources}
        self._question = question
        self._read: dict[int, _SourceFacts] = {}

    def lacking(self, sentence: str, cited: Set[int]) -> tuple[str, ...]:
        """Return the claims of this sentence that are in none of the cited sources, at most
        `_MAX_FLAGS`.
        """
        if 0 not in self._read:
            self._read[0] = _facts_in(self._question)  # not kept: it may be very long
        texts = [self._read[0], *(self._text_of(n) for n in sorted(cited))]
        return tuple(dict.fromkeys(_lacking(sentence, texts)))[:_MAX_FLAGS]

    def _text_of(self, n: int) -> _SourceFacts:
        if n not in self._read:
            source = self._sources[n]
            self._read[n] = kept_facts(f"{source.heading}\n{source.path}\n{source.text}")
        return self._read[n]


# Facts of a source


def _facts_in(text: str) -> _SourceFacts:
    words = {form for word in _ANY_WORD.findall(text) for form in _forms(word)} | {
        word.lower() for word in _WORD.findall(text)
    }
    words |= {
        name
        for month in _ISO_DATE.findall(text)
        for name, number in _MONTHS.items()
        if number == int(month)
    }
    numbers: dict[float, set[str]] = {}
    for number in _numbers(text):
        for reading in number.readings:
            numbers.setdefault(reading, set()).add(number.role)
    for value in _worded(text):
        numbers.setdefault(value, set()).add("")
    initials = "".join(word[0] for word in _ANY_WORD.findall(text)).lower()
    plain = _plain(text)
    return _SourceFacts(
        plain=plain,
        letters=_letters(plain),
        words=frozenset(words),
        numbers={n: frozenset(r) for n, r in numbers.items()},
        initials=initials,
    )


kept_facts = lru_cache(maxsize=64)(_facts_in)  # of the latest passages


def _forms(word: str) -> Iterator[str]:
    """Yield a word in lower case, without plural endings, and the parts of camelCase."""
    yield from (
        part.lower() for part in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", word) if part != word
    )
    low = word.lower()
    yield low
    for ending in ("es", "s", "n", "ian", "ish"):
        if low.endswith(ending) and len(low) - len(ending) >= 3:
            yield low.removesuffix(ending)


def _plain(text: str) -> str:
    """Return lower-case text without markup and with single spaces, to compare quotations."""
    return re.sub(r"[\s*_`\"'“”‘’\\]+", " ", text).lower().strip()


def _letters(text: str) -> str:
    return re.sub(r"[\W_]+", "", text)


def _worded(text: str) -> Iterator[float]:
    for word in _ANY_WORD.findall(text):
        low = word.lower()
        if low in _WORDED:
            yield float(_WORDED[low])
    for month in _DATED.findall(text):
        yield float(_MONTHS[month.lower()])
    for found in _HAN_NUMBER.finditer(text):
        tens, ones = found.groups()
        yield float(
            _HAN[found[0]]
            if found[0] in _HAN
            else (_HAN[tens] if tens else 1) * 10 + (_HAN[ones] if ones else 0)
        )


def _numbers(text: str) -> Iterator[_StatedNumber]:
    for found in _NUMBER.finditer(text):
        behind = _MAGNITUDE.match(text, found.end())
        readings = set(_readings(found[0]))
        if behind:
            readings = {
                round(reading * _MAGNITUDES[behind[1].lower()], 6) for reading in readings
            } | (readings if behind[1] in "mMbB" else set())
        role = next(
            (
                name
                for name, (before, after) in _ROLE.items()
                if after.match(text, found.end()) or before.search(text[: found.start()][-6:])
            ),
            "",
        )
        yield _StatedNumber(text=found[0], readings=frozenset(readings), role=role)


def _readings(digits: str) -> Iterator[float]:
    """Yield the possible values: `1.234` may be a thousand or a little more than one; `1.2.3` and
    `10:30` yield their parts.
    """
    bare = re.sub(r"['’\u202f\u00a0 ]", "", digits)
    marks = [mark for mark in bare if mark in ".,"]
    if ":" in bare or (
        len(set(marks)) == 1 < len(marks) and not re.fullmatch(r"\d{1,3}(?:[.,]\d{3})+", bare)
    ):
        yield from (float(part) for part in re.split(r"[.:,]", bare) if part)
        return
    if not marks:
        yield float(bare)
        return
    if re.fullmatch(r"\d{1,3}(?:[.,]\d{3})+(?:[.,]\d+)?", bare):
        whole, _, rest = bare.rpartition(marks[-1]) if len(set(marks)) > 1 else (bare, "", "")
        yield float(re.sub(r"[.,]", "", whole) + ("." + rest if rest else ""))
    if len(marks) == 1:
        yield float(bare.replace(",", "."))


# Claims of a sentence


def _lacking(sentence: str, texts: Sequence[_SourceFacts]) -> Iterator[str]:
    sentence = _COUNTED.sub(" ", sentence)
    rest = sentence
    for pattern, lacks in ((_CODE, _lacks_code), (_QUOTED, _lacks_quote)):
        for found in pattern.finditer(rest):
            yield from lacks(next(filter(None, found.groups())), texts)
        rest = pattern.sub(_blank, rest)
    rest = _MARKUP.sub("", rest)
    for found in _IDENTIFIER.finditer(rest):
        yield from _lacks_code(found[0], texts)
    rest = _IDENTIFIER.sub(" \u25a1 ", rest)
    yield from (number.text for number in _numbers(rest) if not _has_number(number, texts))
    yield from _lacks_names(rest, texts)


def _blank(found: re.Match[str]) -> str:
    """Replace a match but keep its final stop: what follows begins a sentence."""
    return " \u25a1. " if found[0][-2] in ".!?。！？" else " \u25a1 "


def _has_number(number: _StatedNumber, texts: Sequence[_SourceFacts]) -> bool:
    """Tell whether a source has the number in the same role or an unknown one; a version must match
    as a whole, a number in any reading.
    """
    parts = number.readings
    together = re.fullmatch(r"\d+(?:[.:]\d+){2,}|\d+:\d+", number.text)
    if together:
        return any(number.text in text.plain for text in texts)
    roles = [
        text.numbers[reading] for reading in parts for text in texts if reading in text.numbers
    ]
    return any(not number.role or number.role in has or has == {""} for has in roles)


def _lacks_code(code: str, texts: Sequence[_SourceFacts]) -> Iterator[str]:
    if any(_plain(code) in text.plain for text in texts):
        return
    if re.fullmatch(r"[\w.()-]+", code):
        if not any(_letters(code.lower()) in text.letters for text in texts):
            yield code
        return
    for token in re.findall(r"[^\W_]+", code, re.ASCII):
        number = token.isdigit() and any(float(token) in text.numbers for text in texts)
        if not number and not any(
            token.lower() in text.words or token.lower() in text.plain for text in texts
        ):
            yield code
            return


def _lacks_quote(quoted: str, texts: Sequence[_SourceFacts]) -> Iterator[str]:
    wanted = _plain(quoted).strip(" .,;:!?。，；：！？…")
    if not wanted or any(wanted in text.plain for text in texts):
        return
    words = _WORD.findall(wanted)
    if len(words) < _LONG_QUOTE or not any(text.words.issuperset(words) for text in texts):
        yield quoted


def _lacks_names(text: str, texts: Sequence[_SourceFacts]) -> Iterator[str]:
    east_asian = bool(_HAN_TEXT.search(text))
    for found in _NAME.finditer(text):
        if not east_asian and _BEGINS.search(text[: found.start()][-8:]):
            continue
        name = re.sub(r"['’]s\Z", "", found[0])
        if _HAN_TEXT.search(name) or name.lower() in _NO_NAMES:
            continue
        if not all(
            _knows(part, texts) for part in re.findall(r"[^\W\d_]+", name) if part[0].isupper()
        ):
            yield name


def _knows(name: str, texts: Sequence[_SourceFacts]) -> bool:
    forms = set(_forms(name))
    low = name.lower()
    if any(forms & text.words for text in texts):
        return True
    return name.isupper() and any(low in text.initials for text in texts)
