"""Compare a text with a gold answer by facts: the gold answer's content words and numbers, stemmed,
without those of the question.

This compares words, not meaning: the same fact in other words scores too low, and a wrong sentence
in the right words too high.
"""

import re
from collections.abc import Iterator

from slipway.knowledge.stems import content_words

_MARKER = re.compile(r"\[\d+\]")
_WORD = re.compile(r"[^\W_]+")


def said(text: str) -> frozenset[str]:
    """Return the content words of an answer, without its `[n]`."""
    return content_words(_MARKER.sub("", text))


def facts(answer: str, question: str) -> frozenset[str]:
    return said(answer) - said(question)


def covered(text: str, answer: str, question: str) -> float | None:
    """Return the share of the gold answer's facts that `text` has; None if the gold answer adds no
    fact to the question.
    """
    wanted = facts(answer, question)
    return len(wanted & said(text)) / len(wanted) if wanted else None


def precision(text: str, answer: str, question: str) -> float | None:
    """Return the share of the content words of `text` that the gold answer or the question has;
    None if `text` has no content words.
    """
    words = said(text)
    return len(words & (said(answer) | said(question))) / len(words) if words else None


def pieces(text: str, wanted: frozenset[str]) -> Iterator[tuple[str, bool]]:
    """Split the whole text into pieces, each with whether it is a word that is `wanted`."""
    at = 0
    for found in _WORD.finditer(text):
        if wanted & content_words(found[0]):
            yield text[at : found.start()], False
            yield found[0], True
            at = found.end()
    yield text[at:], False


def words_of(text: str, wanted: frozenset[str]) -> list[str]:
    """Return the words of `text` that are `wanted`, as they are written there, each once."""
    return list(dict.fromkeys(word for word, is_wanted in pieces(text, wanted) if is_wanted))
