"""Compare the continuation of a text with what was shown of it, character by character."""

from collections import deque
from typing import Literal

from slipway.routing.shown_text import MARKS, ShownText, is_letter

Compared = Literal["repeat", "restart", "diverged"]

_ENDS = 4  # nested repeats to remember; the longest that cannot be chance is used
_SHORTEST = 8  # characters: nothing shorter is a repeat between separate words


class ContinuationComparison:
    """Compares a continuation with what was shown, character by character. All white space is
    equal.

    While `open`, more must be seen. Then `found` says what was found, and `taken` how many
    characters of the continuation were shown before; if it diverged, how many until there.
    """

    def __init__(self, shown: ShownText, *, prefilled: bool) -> None:
        self.open = bool(shown.words)
        self.found: Compared | None = None
        self.taken = 0
        self._shown = shown
        self._prefilled = prefilled
        self._read = 0  # characters of the continuation
        self._lead = ""  # white space and marks before its first word
        self._said = 0  # characters compared
        self._last = ""
        self._along = True  # so far it is what `shown` begins with
        # the first place in the window that matches the continuation's beginning; -1 for none
        self._at = 0
        self._begun = ""  # the continuation's beginning, while a place matches
        self._ends = deque[tuple[int, int]](
            maxlen=_ENDS
        )  # (compared, read) each time the end of `shown` was reached
        self._parted = 0  # characters read when it differed from `shown` after a sure restart
        self._tail = ""  # the last characters since
        self._anchor = ""

    def step(self, character: str) -> None:
        self._read += 1
        if not self.open or self._skips(character):
            return
        self._last = " " if character.isspace() else character
        self._said += 1
        self._follow()
        self._look()
        self._judge()

    def end(self) -> None:
        """Decide now that nothing follows: a repeat may be all there is, and a long restart that
        was cut again is one.
        """
        along = self._along
        if self._last.strip():
            self.step(" ")
        self._along, self._at = False, -1
        if (
            along
            and not self._ends
            and self._shown.is_surely(self._shown.words[: self._said].rstrip())
        ):
            self._close("restart", self._read)
        if self.open:
            self._judge()
        if self.open:
            self._close("diverged", self._parted)

    def _skips(self, character: str) -> bool:
        if self._last:
            return character.isspace() and self._last == " "
        if character.isspace() or character in MARKS:
            self._lead += character
            return True
        return False

    def _follow(self) -> None:
        """Compare with the beginning of `shown`."""
        words, n = self._shown.words, self._said
        if not self._along:
            return
        if words[n - 1 : n] != self._last:
            self._along = False
            if (
                self._shown.is_midline
                and "\n" not in self._lead
                and self._shown.is_surely(words[: n - 1])
            ):
                self._parted = self._read - 1
                self._anchor = self._shown.anchor
        elif n == len(words):
            self._along = False
            self._ends.append((n, self._read - (self._last == " ")))

    def _look(self) -> None:
        """Find the places in the window that match; the first one is the longest repeat."""
        if self._at < 0:
            return
        window, n = self._shown.window, self._said
        self._begun += self._last
        if window[self._at + n - 1 : self._at + n] != self._last:
            self._at = self._next(self._at + 1)
        if window.endswith(self._begun):
            self._ends.append((n, self._read - (self._last == " ")))
        if self._at + n >= len(window):
            self._at = -1

    def _next(self, start: int) -> int:
        window = self._shown.window
        while (at := window.find(self._begun, start)) >= 0 and len(window) - at >= (
            _SHORTEST if self._lead else 3
        ):
            if at == 0 or not (is_letter(window[at - 1]) and is_letter(window[at])):
                return at
            start = at + 1
        return -1

    def _judge(self) -> None:
        if self._along or self._at >= 0:
            return
        while self._ends:
            said, read = self._ends.pop()
            if self._shown.is_repeat(said, self._lead, prefilled=self._prefilled):
                self._close("restart" if said == len(self._shown.words) else "repeat", read)
                return
        if not self._parted:
            self.open = False
        elif self._anchor:
            self._tail = (self._tail + self._last)[-len(self._anchor) :]
            if self._tail == self._anchor:
                self._close("restart", self._read)

    def _close(self, found: Compared, taken: int) -> None:
        self.open, self.found, self.taken = False, found, taken
