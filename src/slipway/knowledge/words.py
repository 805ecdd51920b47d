"""Turn texts into the words that the keyword index keeps: stemmed, without accents and capitals.

Scripts that put no space between words are kept as pairs of characters.
"""

import re
import unicodedata
from collections.abc import Sequence
from threading import Lock
from typing import TYPE_CHECKING

from slipway.bounded import BoundedCache
from slipway.knowledge.questions import asked_about
from slipway.knowledge.stems import other_words_for

if TYPE_CHECKING:
    from tantivy import TextAnalyzer

UNSPACED = re.compile(
    r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u9fff\ua000-\ua4cf\uac00-\ud7af\uf900-\ufaff"
    r"\U00020000-\U0003ffff]+"
)
# In addition to tantivy's own stop words (Lucene's 33): they show that something is asked, not
# what. Removed from questions, never from the index.
_ASKING = """
    about am any been can could did do does each explain from had has have he her here him his
    how i its just many may me might much must my our please she should so some tell than too us
    very we were what when where which who whom whose why would you your
"""
_LONGEST_WORD = 64
LONGEST_KEPT = 500  # characters of a text whose words are kept
KEPT_WORDS = BoundedCache[tuple[str, ...]](16 << 20)
_LINE_END = "7h3l1n33nd5"  # a word that no text has and the stemmer keeps
_QUERY_CHARACTERS = 8000


def pairs(text: str) -> list[str]:
    return [
        run[at : at + 2] for run in UNSPACED.findall(text) for at in range(max(len(run) - 1, 1))
    ]


def plain_text(text: str) -> str:
    """Normalise to NFKC; drop unpaired surrogates, which JSON can carry."""
    return unicodedata.normalize("NFKC", text.encode("utf-8", "ignore").decode())


class Words:
    """Turn texts into terms. An analyzer is not thread-safe, hence the lock; it is held for
    microseconds.
    """

    def __init__(self) -> None:
        self._content, self._all = analyzer(content_only=True), analyzer()
        self._lock = Lock()

    def all(self, text: str) -> tuple[str, ...]:
        """Return all words of a text and its pairs of characters; those of short ones are kept."""
        if len(text) > LONGEST_KEPT:
            return self._read(text)
        found = KEPT_WORDS.get(text)
        return found if found is not None else KEPT_WORDS.put(text, self._read(text))

    def _read(self, text: str) -> tuple[str, ...]:
        plain = plain_text(text)
        with self._lock:
            words = self._all.analyze(plain)
        return (*words, *pairs(plain))

    def spaced(self, text: str) -> Sequence[str]:
        """Return all words of a text without pairs of characters."""
        plain = plain_text(text)
        with self._lock:
            return self._all.analyze(plain)

    def each(self, texts: Sequence[str]) -> Sequence[Sequence[str]]:
        """Analyze many texts in one call: a call costs more than a line."""
        text = plain_text(f" {_LINE_END} ".join(texts))
        if UNSPACED.search(text):
            return [self.all(each) for each in texts]
        with self._lock:
            words = self._all.analyze(text)
        ends = [number for number, word in enumerate(words) if word == _LINE_END]
        if len(ends) != max(len(texts) - 1, 0):  # a text contains the separator
            return [self.all(each) for each in texts]
        return [
            words[start:stop]
            for start, stop in zip(
                [0, *(end + 1 for end in ends)], [*ends, len(words)], strict=True
            )
        ][: len(texts)]

    def content_terms(self, text: str) -> list[str]:
        plain = asked_about(plain_text(text[:_QUERY_CHARACTERS]))
        with self._lock:
            words = self._content.analyze(plain)
        return list(dict.fromkeys([*words, *pairs(plain)]))

    def of(self, text: str) -> dict[str, list[str]]:
        if len(text) > _QUERY_CHARACTERS:
            half = _QUERY_CHARACTERS // 2
            text = f"{text[:half]} {text[-half:]}"
        text = plain_text(text)
        with self._lock:
            words = self._content.analyze(text) or self._all.analyze(text)
            words += self._content.analyze(" ".join(other_words_for(text)))
        found = pairs(asked_about(text)) or pairs(text)
        return {"words": list(dict.fromkeys(words)), "pairs": list(dict.fromkeys(found))}


def analyzer(*, content_only: bool = False) -> "TextAnalyzer":
    """Build the analyzer of the index; with `content_only` it drops words that carry no content."""
    from tantivy import Filter, TextAnalyzerBuilder, Tokenizer

    filters = [Filter.remove_long(_LONGEST_WORD), Filter.lowercase(), Filter.ascii_fold()]
    filters += (
        [Filter.stopword("english"), Filter.custom_stopword(_ASKING.split())]
        if content_only
        else []
    )
    builder = TextAnalyzerBuilder(Tokenizer.simple())
    for each in [*filters, Filter.stemmer("english")]:
        builder = builder.filter(each)
    return builder.build()
