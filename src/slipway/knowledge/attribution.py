"""Find which source a sentence rests on by its words, for small models that write well enough but
do not name their sources.

As text streams, add ` [n]` after each prose sentence without a marker if one source contains most
of it: all numbers, names and code that can be looked up (`claims`), and at least MIN_SHARE of its
content words, weighted by how few sources have them. Otherwise add nothing.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence, Set

from slipway.knowledge.citations import SENTENCE_ENDS
from slipway.knowledge.stems import content_words
from slipway.types import Source

MIN_SHARE = 0.6  # of the weight of a sentence's words
MIN_WORDS = 3  # content words; too few to decide otherwise
_OPEN_END = re.compile(r"(?:[.!?。！？][\"')*_”’」』]*)?\s*\Z")
_MARKED = re.compile(r"\[(\d{1,4})\]")
_FENCE = re.compile(r"\s*(?:```|~~~)")


class Attributor:
    """Take text as it streams and return it with markers added. Hold back only a possible end of a
    sentence.
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
        self._sentence = ""  # its part that was returned already
        self._fenced = False
        self.marked = 0  # sentences

    def feed(self, text: str) -> str:
        """Take the next piece; return what can be shown."""
        text = self._held + text
        out, at = list[str](), 0
        for end in SENTENCE_ENDS.finditer(text):
            if end[0].startswith("|"):
                continue  # a table cell
            if end.end() == len(text):
                break  # more may belong to it
            said = text[at : end.start()] + end[0].rstrip()
            out += [said, self._mark(self._sentence + said), end[0][len(end[0].rstrip()) :]]
            self._sentence, at = "", end.end()
        # It always matches, at least the empty end
        cut = at + _OPEN_END.search(text[at:]).start()  # type: ignore[union-attr]
        out.append(text[at:cut])
        self._sentence += text[at:cut]
        self._held = text[cut:]
        return "".join(out)

    def end(self) -> str:
        """Return what was held back; no more text follows."""
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
        if len(wanted) < MIN_WORDS:
            return None
        whole = sum(self._weights.get(word, 1.0) for word in wanted)
        shares = {
            n: sum(self._weights[word] for word in wanted & words) / whole
            for n, words in self._words.items()
        }
        likely = sorted(
            (n for n, share in shares.items() if share >= MIN_SHARE), key=lambda n: -shares[n]
        )
        return next((n for n in likely if not self._lacking(sentence, frozenset((n,)))), None)
