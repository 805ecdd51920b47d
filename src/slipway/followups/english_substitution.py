"""Put a fragment, such as "for the Silver plan?", into the question before, in place of its
counterpart there.
"""

from collections.abc import Sequence

from slipway.followups.english_words import (
    AUXILIARIES,
    DETERMINERS,
    JOINTS,
    PREPOSITIONS,
    EnglishWord,
    is_verb,
    words_of,
)

# A phrase that begins so belongs to the word before it and is not replaced by another
_KEPT = frozenset({"of", "to", "like", "about"})


def substitute(before: str, fragment: str) -> str:
    """Return the question before with the fragment in place of its counterpart."""
    fragment, before = fragment.strip().rstrip("?!. "), before.strip().rstrip("?!. ")
    words, new = words_of(before), words_of(fragment)
    if not new or not words:
        return f"{before} {fragment}"
    if new[0].low in JOINTS or new[0].low in PREPOSITIONS:
        start, end = _phrase_like(words, new[0].low)
        same = start < end and words[start].low == new[0].low
        repeated = len(new) > 1 and any(word.low == new[-1].low for word in words[1:])
        # "for the Silver plan" replaces "the Gold plan", not "in Asia"
        if not same and repeated and new[-1].is_content:
            start, end = _like(words, new[1:])
            fragment = fragment[new[1].start :]
    else:
        start, end = _like(words, new)
        if new[-1].low in ("one", "ones"):
            fragment, end = (
                " ".join(word.text for word in new[:-1] if word.low not in DETERMINERS),
                start + 1,
            )
    if start == end:
        return f"{before} {fragment}?"
    return f"{before[: words[start].start]}{fragment}{before[words[end - 1].end :]}?"


def _phrase_like(words: Sequence[EnglishWord], first: str) -> tuple[int, int]:
    """Find the last phrase that begins with the same word, or else with another preposition; (0, 0)
    if there is none.
    """
    starts = [n for n, word in enumerate(words) if word.low == first and n > 0]
    if not starts and first in PREPOSITIONS - _KEPT:
        starts = [n for n, word in enumerate(words) if word.low in PREPOSITIONS - _KEPT and n > 0]
    if not starts:
        return 0, 0
    if first in JOINTS:
        return starts[-1], len(words)
    return starts[-1], _phrase_end(words, starts[-1] + 1)


def _phrase_end(words: Sequence[EnglishWord], place: int) -> int:
    while (
        place < len(words)
        and words[place].low not in (PREPOSITIONS - {"of"}) | AUXILIARIES | JOINTS
    ):
        place += 1
    return place


def _like(words: Sequence[EnglishWord], new: Sequence[EnglishWord]) -> tuple[int, int]:
    """Find the phrase most like the new one: a number, a path, a name, a word that begins alike; or
    else the object.
    """
    content = [word for word in new if word.is_content] or list(new)
    head = next((n for n in range(len(words) - 1, 0, -1) if words[n].low == content[-1].low), 0)
    other = any(word.low in ("other", "another") for word in new)
    if head and (other or len(content) > 1):  # `the Team plan` for `the Basic plan`
        start = head
        while start > 1 and words[start - 1].is_content and not is_verb(words, start - 1):
            start -= 1
        return start - (words[start - 1].low in DETERMINERS), head + 1
    for kind in _KINDS:
        wanted = kind(content[-1], content[-1]) and kind
        places = [
            n
            for n, word in enumerate(words)
            if n > 0 and wanted and any(kind(word, each) for each in content)
        ]
        if places:
            start = end = places[-1]
            while kind is _both_names and start > 1 and words[start - 1].is_name:
                start -= 1
            return start, end + 1
    return _object(words)


def _object(words: Sequence[EnglishWord]) -> tuple[int, int]:
    start = next(
        (n for n, word in enumerate(words) if word.is_content and not is_verb(words, n)), 0
    )
    end = start
    while (
        end < len(words) and words[end].low not in PREPOSITIONS | AUXILIARIES | JOINTS | DETERMINERS
    ):
        end += 1
    return start - (start > 0 and words[start - 1].low in DETERMINERS), end


def _both_numbers(word: EnglishWord, other: EnglishWord) -> bool:
    return word.text.isdecimal() and other.text.isdecimal()


def _both_paths(word: EnglishWord, other: EnglishWord) -> bool:
    return "/" in word.text and "/" in other.text


def _begin_alike(word: EnglishWord, other: EnglishWord) -> bool:
    return (
        len(word.text) > 3
        and word.low[:3] == other.low[:3]
        and any(each.isdecimal() for each in word.text + other.text)
    )


def _both_names(word: EnglishWord, other: EnglishWord) -> bool:
    return word.is_name and other.is_name


_KINDS = (_both_numbers, _both_paths, _begin_alike, _both_names)
