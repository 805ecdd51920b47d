"""How much of a gold answer another text has: its facts are its content words and numbers, stemmed,
without those of the question.

It is a measure of words, not of meaning: who says the same in other words gets less than is due,
and a wrong sentence in the right words more.
"""

import re
from collections.abc import Iterator

from slipway.knowledge.quoting import content_words

_MARKER = re.compile(r"\[\d+\]")
_WORD = re.compile(r"[^\W_]+")


def said(text: str) -> frozenset[str]:
    """The content words of an answer, without its `[n]`."""
    return content_words(_MARKER.sub("", text))


def facts(answer: str, question: str) -> frozenset[str]:
    return said(answer) - said(question)


def covered(text: str, answer: str, question: str) -> float | None:
    """The share of the gold answer's facts that `text` has; None where it has none that the
    question has not.
    """
    wanted = facts(answer, question)
    return len(wanted & said(text)) / len(wanted) if wanted else None


def precision(text: str, answer: str, question: str) -> float | None:
    """The share of the content words of `text` that the gold answer or the question has; None where
    it has none.
    """
    words = said(text)
    return len(words & (said(answer) | said(question))) / len(words) if words else None


def pieces(text: str, wanted: frozenset[str]) -> Iterator[tuple[str, bool]]:
    """The whole text in pieces, each with whether it is a word that is `wanted`."""
    at = 0
    for found in _WORD.finditer(text):
        if wanted & content_words(found[0]):
            yield text[at : found.start()], False
            yield found[0], True
            at = found.end()
    yield text[at:], False


def words_of(text: str, wanted: frozenset[str]) -> list[str]:
    """The words of `text` that are `wanted`, as they are written there, each once."""
    return list(dict.fromkeys(word for word, is_wanted in pieces(text, wanted) if is_wanted))
