"""Which source a sentence rests on, found by its words: for small models, which write well enough
but do not name their sources.

As a text streams, ` [n]` is put behind each sentence of prose that has no marker of its own, where
one source has most of what it tells: all numbers, names and code that can be looked up (`claims`),
and at least SHARE of its content words, each weighed by how few of the sources have it. A sentence
that no source has enough of gets none.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence, Set

from slipway.knowledge.citations import SENTENCE_ENDS
from slipway.knowledge.quoting import content_words
from slipway.types import Source

SHARE = 0.6  # of the weight of a sentence's words
LEAST = 3  # content words; of fewer, nothing can be told
_OPEN_END = re.compile(r"(?:[.!?。！？][\"')*_”’」』]*)?\s*\Z")
_MARKED = re.compile(r"\[(\d{1,4})\]")
_FENCE = re.compile(r"\s*(?:```|~~~)")


class Attributor:
    """Feed it text as it comes; it gives the text back with markers in it. Held back is only what
    may be a sentence's end.
    """

    def __init__(
        self, sources: Sequence[Source], lacking: Callable[[str, Set[int]], Sequence[str]]
    ) -> None:
        self._words = {
            source.n: content_words(f"{source.heading}\n{source.text}") for source in sources
        }
        had = Counter(word for words in self._words.values() for word in words)
        self._weights = {word: 1 / math.log2(1 + count) for word, count in had.items()}
        self._lacking = lacking
        self._held = ""
        self._sentence = ""  # what was given out of it
        self._fenced = False
        self.marked = 0  # sentences

    def feed(self, text: str) -> str:
        text = self._held + text
        out, at = list[str](), 0
        for end in SENTENCE_ENDS.finditer(text):
            if end[0].startswith("|"):
                continue  # a cell
            if end.end() == len(text):
                break  # what follows may belong to it
            said = text[at : end.start()] + end[0].rstrip()
            out += [said, self._mark(self._sentence + said), end[0][len(end[0].rstrip()) :]]
            self._sentence, at = "", end.end()
        cut = at + _OPEN_END.search(text[at:]).start()  # type: ignore[union-attr]  # it matches the empty end too
        out.append(text[at:cut])
        self._sentence += text[at:cut]
        self._held = text[cut:]
        return "".join(out)

    def end(self) -> str:
        """What was held back, now that nothing follows."""
        held, self._held = self._held, ""
        stop = held.rstrip()
        return stop + self._mark(self._sentence + stop) + held[len(stop) :]

    def _mark(self, sentence: str) -> str:
        if _FENCE.match(sentence):
            self._fenced = not self._fenced
        if (
            self._fenced
            or _FENCE.match(sentence)
            or sentence.lstrip().startswith(("#", "|"))
            or sentence.endswith((":", "："))
        ):
            return ""
        if any(int(n) in self._words for n in _MARKED.findall(sentence)):
            return ""
        n = self._best(sentence)
        self.marked += n is not None
        return "" if n is None else f" [{n}]"

    def _best(self, sentence: str) -> int | None:
        wanted = content_words(sentence)
        if len(wanted) < LEAST:
            return None
        whole = sum(self._weights.get(word, 1.0) for word in wanted)
        shares = {
            n: sum(self._weights[word] for word in wanted & words) / whole
            for n, words in self._words.items()
        }
        likely = sorted(
            (n for n, share in shares.items() if share >= SHARE), key=lambda n: -shares[n]
        )
        return next((n for n in likely if not self._lacking(sentence, frozenset((n,)))), None)
