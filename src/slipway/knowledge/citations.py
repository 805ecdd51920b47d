"""`[1]` in a model's text, as it streams: markers that name a source become citations, those that name none are dropped."""

import re
from collections.abc import Set

from slipway.types import Citation

UNSURE = re.compile(r" ?\[[\d, ]{0,24}\]?$| $")  # may still become a marker, or turn out to be a link
WHOLE = re.compile(r"( ?)\[(\d{1,3}(?:\s?,\s?\d{1,3})*)\](?!\()")
KEPT = 4000
SENTENCE_START = re.compile(r"(?:[.!?。！？]['\")\]]*\s+|\n+\s*|[。！？])")


class Marker:
    """Feed it text as it comes; it gives out the text to show and the citations in it, with offsets in all the text given out so far.

    A citation's span is the sentence that the marker closes, marker included. Code (fenced or inline) and Markdown links
    are left as they are. `dropped` counts the markers that named no source.
    """

    def __init__(self, known: Set[int]) -> None:
        self.known = known
        self.held = ""
        self.shown = ""  # the end of what was given out: from a line's start, and far enough back for a sentence
        self.before = 0  # characters given out before that
        self.fences = 0  # and code fences among them
        self.dropped = 0

    def feed(self, text: str) -> tuple[str, list[Citation]]:
        text = self.held + text
        unsure = UNSURE.search(text)
        cut = unsure.start() if unsure else len(text)
        self.held = text[cut:]
        return self._mark(text[:cut])

    def end(self) -> tuple[str, list[Citation]]:
        """What was held back, now that nothing follows."""
        text, self.held = self.held, ""
        return self._mark(text)

    def _mark(self, text: str) -> tuple[str, list[Citation]]:
        self._forget()
        before, citations, at = len(self.shown), list[Citation](), 0
        for found in WHOLE.finditer(text):
            self.shown += text[at : found.start()]
            at = found.end()
            if self._in_code():
                self.shown += found[0]
                continue
            numbers = [int(n) for n in found[2].split(",")]
            known = [n for n in dict.fromkeys(numbers) if n in self.known]
            self.dropped += sum(n not in self.known for n in numbers)
            if known:
                self.shown += found[1] + "".join(f"[{n}]" for n in known)
                end = self.before + len(self.shown)
                citations += [Citation(n=n, start=self.before + self._sentence(), end=end) for n in known]
        self.shown += text[at:]
        return self.shown[before:], citations

    def _forget(self) -> None:
        """Drops whole lines from the start of a long text, so that the work for each piece does not grow with what came before."""
        cut = self.shown.rfind("\n", 0, len(self.shown) - KEPT) + 1 if len(self.shown) > 2 * KEPT else 0
        self.fences += self.shown.count("```", 0, cut)
        self.before += cut
        self.shown = self.shown[cut:]

    def _in_code(self) -> bool:
        if (self.fences + self.shown.count("```")) % 2:
            return True
        return self.shown[self.shown.rfind("\n") + 1 :].replace("```", "").count("`") % 2 == 1

    def _sentence(self) -> int:
        """Where the sentence before the marker begins: markers of one sentence share their start."""
        text = self.shown.rstrip()
        while text.endswith("]") and (opening := text.rfind("[")) >= 0 and text[opening + 1 : -1].isdigit():
            text = text[:opening].rstrip()
        starts = [m.end() for m in SENTENCE_START.finditer(text) if m.end() < len(text)]
        return starts[-1] if starts else 0
