"""Remove what a continuing model repeats, says first or spaces differently, so that its text
follows what was shown.

Models that are asked to continue a text do so exactly, or repeat its last words, or begin again, or
first say that they continue. An exact continuation is never changed: a repeat is removed only if it
is too long to be chance and reaches the very end of what was shown, and white space is changed only
if no text has it so. What cannot be known stays as it is: a missing space between two words looks
like a word that was cut.
"""

import re
from typing import Literal

from slipway.routing.comparison import ContinuationComparison
from slipway.routing.prefaces import preface
from slipway.routing.shown_text import SLACK, ShownText

Found = Literal["exact", "repeat", "restart", "diverged", "preface", "fence", "space"]
_LAST_SENTENCE = re.compile(r".*(?:[.!?][\"')*_”’]*\s+|[。！？][」』”’)]*\s*|\n\s*)", re.DOTALL)


class OverlapFilter:
    """Feed it the continuation of `shown` as it arrives; it returns what the reader is to see after
    `shown`.

    It holds back only text that may still become a repeat, a restart or a preface: a few words as a
    rule, and never more than `shown` is long plus 400 characters. How the continuation is cut into
    pieces makes no difference. Once `settled`, `feed` returns what it gets.

    `prefilled`: the model continued its own unfinished turn, token by token. It writes no preface,
    and only a long repeat is taken for one.

    `found` names the last correction:

    - `exact`: nothing was changed.
    - `repeat`: it repeated the last words. `restart`: it began again from the start and reached
      the end of `shown`.
    - `diverged`: it began again in other words and never reached the last words shown. The two
      texts cannot be joined: what follows is its text from the sentence that differs, as a
      paragraph of its own. The reader may see some facts twice.
    - `preface`: it said that it continues. `fence`: it opened the open code block again.
    - `space`: it had a space too many, or lacked one after a full stop or comma.
    """

    def __init__(self, shown: str, *, prefilled: bool = False) -> None:
        self.settled = not shown.strip()
        self.found: Found = "exact"
        self._shown = ShownText(shown)
        self._prefilled = prefilled
        self._overlap = ContinuationComparison(self._shown, prefilled=prefilled)
        self._held = list[str]()  # characters
        self._most = len(shown) + SLACK
        self._behind_repeat = False

    def feed(self, text: str) -> str:
        """Return the text that can be shown now."""
        if self.settled:
            return text
        for n, character in enumerate(text, 1):
            self._held.append(character)
            if not self._behind_repeat:
                self._overlap.step(character)
            settled_text = self._decide(last=False) if len(self._held) < self._most else self.end()
            if settled_text is not None:
                return settled_text + text[n:]
        return ""

    def end(self) -> str:
        """Return what was held back, since nothing follows."""
        if self.settled:
            return ""
        if not self._behind_repeat:
            self._overlap.end()
        return self._decide(last=True) or ""

    def _decide(self, *, last: bool) -> str | None:
        """Return the text to show, which settles the filter; None while more must be seen."""
        if self._behind_repeat:
            return self._gap(last=last)
        if self._overlap.open:
            return None
        if self._overlap.found is not None:
            return self._joined(self._overlap.found, last=last)
        held = "".join(self._held)
        if self._prefilled:
            return self._settle(held)
        skipped, found = self._preface_length(held, last=last)
        if skipped is None:
            return None
        if skipped:
            self.found = found
            return self._again(held[skipped:], last=last)
        spaced = self._shown.spaced(held, last=last)
        if spaced is None:
            return None
        if spaced != held and self.found == "exact":
            self.found = "space"
        return self._settle(spaced)

    def _settle(self, text: str) -> str:
        self.settled = True
        self._held = []
        return text

    def _joined(self, found: Found, *, last: bool) -> str | None:
        self.found = found
        if found == "diverged":
            held = "".join(self._held)
            sentence = _LAST_SENTENCE.match(held, 0, self._overlap.taken)
            return self._settle("\n\n" + held[sentence.end() if sentence else 0 :].lstrip())
        self._held = self._held[self._overlap.taken :]
        self._behind_repeat = True
        return self._gap(last=last)

    def _gap(self, *, last: bool) -> str | None:
        """Return the white space after a repeat, without what `shown` already ends with."""
        rest = "".join(self._held)
        gap = self._shown.gap
        words = rest.lstrip()
        if not gap:
            return self._settle(rest)
        if not words and not last:
            return None
        space = rest[: len(rest) - len(words)]
        more = (
            space[len(gap) :]
            if space.startswith(gap)
            else "\n" * (space.count("\n") - gap.count("\n"))
        )
        return self._settle(more + words)

    def _preface_length(self, held: str, *, last: bool) -> tuple[int | None, Found]:
        reopened = self._shown.reopened(held, last=last)
        if reopened != 0:
            return reopened, "fence"
        said = preface(held, sentence=self._shown.sentence, last=last)
        return (self._shown.ellipsis(held) if said == 0 else said), "preface"

    def _again(self, rest: str, *, last: bool) -> str | None:
        """Look for a repeat or a restart in what follows a preface."""
        self._overlap = ContinuationComparison(self._shown, prefilled=False)
        self._held = []
        settled_text = self.feed(rest)
        if self.settled:
            return settled_text
        return self.end() if last else None
