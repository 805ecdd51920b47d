"""Remove what a continuing model repeats, says first or spaces differently, so that its text
follows what was shown.

Models that are asked to continue a text do so exactly, or repeat its last words, or begin again, or
first say that they continue. An exact continuation is never changed: a repeat is removed only if it
is too long to be chance and reaches the very end of what was shown, and white space is changed only
if no text has it so. What cannot be known stays as it is: a missing space between two words looks
like a word that was cut.
"""

import re
import unicodedata
from collections import deque
from functools import cached_property
from typing import Literal

from slipway.routing.prefaces import Sentence, preface

Found = Literal["exact", "repeat", "restart", "diverged", "preface", "fence", "space"]

_WINDOW = 4000  # characters at the end of the shown text in which repeats are searched
# Characters that may be held back beyond the length of `shown`: a restart in other words may be
# longer
_SLACK = 400
_ENDS = 4  # nested repeats to remember; the longest that cannot be chance is used
_SHORTEST = 8  # characters: nothing shorter is a repeat between separate words
_ROUND = 12  # characters: a text that says this much again repeats itself
_MIDSENTENCE = 100  # characters: a longer repeat begins with a sentence or a line
_MARKS = "“”\"'…."  # models put these before words that they repeat

_CJK = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_UNIT = re.compile(rf"[{_CJK}]|[^\W_{_CJK}]+")
_FENCE = re.compile(r"^ {0,3}(?P<marks>`{3,}|~{3,})[ \t]*(?P<info>[^\n`]*)$", re.MULTILINE)
_LAST_SENTENCE = re.compile(r".*(?:[.!?][\"')*_”’]*\s+|[。！？][」』”’)]*\s*|\n\s*)", re.DOTALL)
_ELLIPSIS = re.compile(r"(?:…|\.{3})(?=[^\W\d_])")
_WORD_THEN_SPACE = re.compile(r"\w \Z")
_SENTENCE_THEN_SPACE = re.compile(r"[^.…\s][.!?][\"')*_”’]*\s+\Z")
_OPENS = re.compile(
    r"(?:\A|[.!?][\"')*_”’]*\s+|\n\s*|[。！？]\s*)(?:[-*+>] +|\d+[.)] +)?[\"'“(*]*\Z"
)
_CLOSED = "[\"'*_)\\]”’」』）]*"
# How a text ends; anything that matches no row is open
_SENTENCE: tuple[tuple[Sentence, re.Pattern[str]], ...] = (
    (
        "none",
        re.compile(r"(?:\A|\n)[ \t]*(?:[-+>#|]+|\*|\d+[.)])[ \t]*[*_]*\Z"),
    ),  # the start of an item, a heading, a row
    ("over", re.compile(rf"[.!?…。！？]{_CLOSED}\s*\Z")),
    ("none", re.compile(rf"[:：]{_CLOSED}\s*\Z|\n\s*\Z|\|\s*\Z|[\"'*_(\[“‘「『（]\Z")),
)


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
        self._shown = _ShownText(shown)
        self._prefilled = prefilled
        self._overlap = _Overlap(self._shown, prefilled=prefilled)
        self._held = list[str]()  # characters
        self._most = len(shown) + _SLACK
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
        self._overlap = _Overlap(self._shown, prefilled=False)
        self._held = []
        settled_text = self.feed(rest)
        if self.settled:
            return settled_text
        return self.end() if last else None


class _Overlap:
    """Compares a continuation with what was shown, character by character. All white space is
    equal.

    While `open`, more must be seen. Then `found` says what was found, and `taken` how many
    characters of the continuation were shown before; if it diverged, how many until there.
    """

    def __init__(self, shown: "_ShownText", *, prefilled: bool) -> None:
        self.open = bool(shown.words)
        self.found: Found | None = None
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
        if character.isspace() or character in _MARKS:
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
            if at == 0 or not (_is_letter(window[at - 1]) and _is_letter(window[at])):
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

    def _close(self, found: Found, taken: int) -> None:
        self.open, self.found, self.taken = False, found, taken


class _ShownText:
    """The text that was shown, prepared for comparison."""

    def __init__(self, text: str) -> None:
        self.text = text
        bare = text.rstrip()
        self.gap = text[len(bare) :]
        # Each run of white space is one space; one at the end matters only after a word
        spaced = " " if self.gap and _is_letter(bare[-1:]) else ""
        self.words = (" ".join(bare.split()) + spaced).lstrip(_MARKS + " ")
        self.window = self.words[-_WINDOW:]
        self.is_midline = "\n" not in self.gap

    @cached_property
    def fence(self) -> tuple[str, str] | None:
        """Return the marks and the language of the code block that is open at the end."""
        opened: tuple[str, str] | None = None
        for found in _FENCE.finditer(self.text):
            marks, info = found["marks"], found["info"].strip()
            if opened is None:
                opened = marks, info.split(" ")[0].lower()
            elif marks.startswith(opened[0]) and not info:
                opened = None
        return opened

    @cached_property
    def is_row(self) -> bool:
        return self.text.rstrip().rpartition("\n")[2].lstrip().startswith("|")

    @cached_property
    def is_code(self) -> bool:
        return self.fence is not None or self.text.rpartition("\n")[2].count("`") % 2 == 1

    @cached_property
    def sentence(self) -> Sentence:
        if self.is_code:
            return "none"
        return next((state for state, stops in _SENTENCE if stops.search(self.text[-100:])), "open")

    @cached_property
    def anchor(self) -> str:
        """Return the last words, enough of them that a match cannot be chance."""
        words = self.words
        starts = range(len(words) - 1, max(-1, len(words) - _SLACK), -1)
        begins = (
            n for n in starts if n == 0 or not (_is_letter(words[n - 1]) and _is_letter(words[n]))
        )
        return next((words[n:] for n in begins if _is_long(words[n:], words=3, columns=16)), "")

    def is_surely(self, said: str) -> bool:
        """Return whether this text is too long to be repeated by chance, even if a mistake would
        cost much.
        """
        return _is_long(said, words=8, columns=48)

    def is_repeat(self, said: int, lead: str, *, prefilled: bool) -> bool:
        """Return whether the last `said` characters are too many to be repeated by chance.

        Less is enough if it is everything that was shown, or if a continuation would run two words
        into one.
        """
        again = self.words[-said:]
        whole = said == len(self.words)
        if whole and self.is_surely(again):
            return True
        if lead.count(".") not in (0, 3) or self._is_natural(again, lead, whole=whole):
            return False
        if prefilled:
            return self.is_surely(again)
        if _is_long(again, words=3, columns=16) or (whole and _is_long(again, words=2, columns=6)):
            return True
        runs_on = (
            not lead
            and not self.gap
            and _is_letter(again[0])
            and _is_letter(again[-1])
            and not self.is_code
        )
        return runs_on and (
            _is_long(again, words=2, columns=4)
            or (again.isalpha() and len(again) > 4)
            or self._opens_sentence(again)
        )

    def _is_natural(self, again: str, lead: str, *, whole: bool) -> bool:
        """Return whether a text may well say this twice itself."""
        start = self._start(again)
        if len(again) > _MIDSENTENCE and not self._begins_at(start):
            return True
        if whole and not (self.is_code or self.is_row):
            return False
        return self._goes_round(again) or self._is_lines(start, lead)

    def _opens_sentence(self, again: str) -> bool:
        return again.istitle() and len(again) > 2 and self._begins_at(self._start(again))

    def _begins_at(self, start: int) -> bool:
        """Return whether a sentence or a line begins there."""
        return bool(_OPENS.search(self.text[max(0, start - 20) : start]))

    def _goes_round(self, again: str) -> bool:
        """Return whether the words before the repeat end the same way: then the text repeats
        itself.
        """
        return self.words[: -len(again)].rstrip().endswith(again.rstrip()[-_ROUND:])

    def _is_lines(self, start: int, lead: str) -> bool:
        """Return whether the repeat is whole lines, which may come twice: table rows, code,
        refrains.
        """
        before, said = self.text[:start].rpartition("\n")[2], self.text[start:]
        last = "" if "\n" in lead else said.rpartition("\n")[2]
        return "\n" in said + lead and before.strip(_MARKS + " \t") == last.strip(_MARKS + " \t")

    def _start(self, again: str) -> int:
        """Return where these last words begin in the text."""
        left, n = len(again) - again.count(" "), len(self.text)
        while left:
            n -= 1
            left -= not self.text[n].isspace()
        return n

    def reopened(self, text: str, *, last: bool) -> int | None:
        """Return how many characters open the open code block again; None if more must be seen."""
        if self.fence is None or not self.fence[1] or self.fence[1] in ("markdown", "md"):
            return 0
        opening = "".join(self.fence)
        start = len(text) - len(text.lstrip("\n"))
        line, broken, _ = text[start:].partition("\n")
        if broken:
            return start + len(line) + 1 if line.strip().lower() == opening else 0
        return (
            None
            if not last and (opening.startswith(line.lower()) or line.strip().lower() == opening)
            else 0
        )

    def ellipsis(self, text: str) -> int:
        """Return the length of the dots that stand for all that was said before. In "wait ... so",
        `f(a, ...rest)` and "...or so." they are text.
        """
        found = _ELLIPSIS.match(text)
        if not found or self.is_code:
            return 0
        opens = text[found.end()].isupper() and _SENTENCE_THEN_SPACE.search(self.text[-100:])
        return found.end() if opens or _WORD_THEN_SPACE.search(self.text[-2:]) else 0

    def spaced(self, text: str, *, last: bool) -> str | None:
        """Return `text` with the white space at its start corrected; None if more must be seen."""
        if self.is_code or self.is_row:
            return text
        if self.gap:
            if not text.strip() and not last:
                return None
            return next(
                (text.lstrip() for row in _TOO_MUCH if self._has_too_much(text, *row)), text
            )
        for ends, openers in _TOO_LITTLE:
            if ends.search(self.text[-100:]):
                if not last and any(word.startswith(text) for word in openers):
                    return None
                return " " + text if text.startswith(openers) else text
        return text

    def _has_too_much(
        self, text: str, ends: re.Pattern[str], begins: re.Pattern[str], usual: re.Pattern[str]
    ) -> bool:
        return bool(ends.search(self.text[-10:]) and begins.match(text)) and not usual.search(
            self.text
        )


# (end of the shown text, start of the continuation, usual form): the white space between is too
# much unless the text has the usual form elsewhere
_TOO_MUCH = (
    (re.compile(r"\S \Z"), re.compile(r" \w"), re.compile(r"\S  +\S")),
    (re.compile(r"[\w,] \Z"), re.compile(r"\n+[a-z]"), re.compile(r"\S +\n")),
    (re.compile(r"\n\Z"), re.compile(r" [A-Z]"), re.compile(r"\n \S")),
)

_LINKING = (
    "and but or nor so yet which who whose where while because although though if when then as "
    "unless until"
)
_OPENING = """The This That These Those It Its In If You Your We Our They Their There Here For To
A An And But Or So When Where While However Then Both Each Every Most Many Some Such
As At By On With Without After Before Because Although Once Also Finally First
Second Next He She His Her I My"""
# (end of a clause, words that only a sentence continues with): a space is missing between
_TOO_LITTLE = (
    (
        re.compile(r"(?:\A|\s)[\"'“(*]*[^\s`/_@=]*\w[\"'”)*]*[.!?][\"'”)*]*\Z"),
        tuple(f"{word} " for word in _OPENING.split()),
    ),
    (
        re.compile(r"(?:\A|\s)[\"'“(*]*[^\s`/_@=]*\w[\"'”)*]*[,;:]\Z"),
        tuple(f"{word} " for word in (_LINKING + " " + _OPENING).split()),
    ),
)


def _is_letter(character: str) -> bool:
    """Return whether the character belongs to a script that separates words with spaces."""
    return character.isalnum() and not re.match(f"[{_CJK}]", character)


def _is_long(said: str, *, words: int, columns: int) -> bool:
    """Return whether a text has enough different words and columns. A word weighs 5; a Chinese
    character weighs 3 and is two columns wide.
    """
    units = set(_UNIT.findall(said))
    weight = sum(3 if len(unit) == 1 and not _is_letter(unit) else 5 for unit in units)
    return (
        weight >= 5 * words
        and sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in said.strip())
        >= columns
    )
