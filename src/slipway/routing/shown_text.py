"""The text that a reader was shown, prepared for comparison with what a model continues it with."""

import re
import unicodedata
from functools import cached_property

from slipway.routing.prefaces import Sentence

_WINDOW = 4000  # characters at the end of the shown text in which repeats are searched
# Characters that may be held back beyond the length of `shown`: a restart in other words may be
# longer
SLACK = 400
_ROUND = 12  # characters: a text that says this much again repeats itself
_MIDSENTENCE = 100  # characters: a longer repeat begins with a sentence or a line
MARKS = "“”\"'…."  # models put these before words that they repeat
_CJK = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_UNIT = re.compile(rf"[{_CJK}]|[^\W_{_CJK}]+")
_FENCE = re.compile(r"^ {0,3}(?P<marks>`{3,}|~{3,})[ \t]*(?P<info>[^\n`]*)$", re.MULTILINE)
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


class ShownText:
    """The text that was shown, prepared for comparison."""

    def __init__(self, text: str) -> None:
        self.text = text
        bare = text.rstrip()
        self.gap = text[len(bare) :]
        # Each run of white space is one space; one at the end matters only after a word
        spaced = " " if self.gap and is_letter(bare[-1:]) else ""
        self.words = (" ".join(bare.split()) + spaced).lstrip(MARKS + " ")
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
        starts = range(len(words) - 1, max(-1, len(words) - SLACK), -1)
        begins = (
            n for n in starts if n == 0 or not (is_letter(words[n - 1]) and is_letter(words[n]))
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
            and is_letter(again[0])
            and is_letter(again[-1])
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
        return "\n" in said + lead and before.strip(MARKS + " \t") == last.strip(MARKS + " \t")

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


def is_letter(character: str) -> bool:
    """Return whether the character belongs to a script that separates words with spaces."""
    return character.isalnum() and not re.match(f"[{_CJK}]", character)


def _is_long(said: str, *, words: int, columns: int) -> bool:
    """Return whether a text has enough different words and columns. A word weighs 5; a Chinese
    character weighs 3 and is two columns wide.
    """
    units = set(_UNIT.findall(said))
    weight = sum(3 if len(unit) == 1 and not is_letter(unit) else 5 for unit in units)
    return (
        weight >= 5 * words
        and sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in said.strip())
        >= columns
    )
