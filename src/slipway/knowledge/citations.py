"""`[1]` in a model's text, as it streams: markers that name a source become citations, those that
name none are dropped.

**A marker** is a bracket (`[1]`, `【1】`, `［1］`, `[[1]]`) that holds numbers of up to nine digits,
full-width ones too: one, a list (`1, 2`, `1 and 2`, `1、2`) or a range (`1-3`, `1–3`), perhaps
behind `^` or a word (`Source 1`, `passage 2`, `来源1`), perhaps with OpenAI's tail (`【1:0†source】`).
It may stand anywhere in prose, lists, tables and headings, before a full stop or after it. What
leads to it goes with it where it is dropped: the space before it, a bracket with perhaps a word
(`(see [9])`), bold type, the comma or `and` between two markers.

**Text**, left as it is: code, fenced or inline (which a line's end ends); a link's text (`[1](…)`,
unless it leads to `/v1/passages/…`, which a model cannot know) and its definition (`[1]: https://…`
at a line's start); an index behind an identifier (`a[1]`, `my_list[2]`, `myList[2]`, `x.items[1]`,
`rows[0]`; an ordinary word, as in `so[1]`, is one that is cited behind); years (`[2024]`) that are
no source; intervals with zero or less (`[0, 1]`, `[-1]`); all other brackets.
"""

import re
from collections.abc import Callable, Iterator, Set

from slipway.types import Citation

Check = Callable[
    [str, Set[int]], tuple[str, ...]
]  # (a sentence, the sources that it cites) -> its words that they lack
Told = tuple[str, list[Citation]]

_KEPT = 2000  # characters: a sentence is looked for in no more of what was given out
_NEAR = (100, 400)  # characters: most sentences are found in so many, which saves time
_MARKS_MAX = 100  # characters of markers that may stand in a row behind a sentence
_PIECE = 4000  # a longer piece is read in parts
_AWAITED = 400  # characters behind a marker, after which its sentence counts as ended
_YEARS = range(1500, 2200)
_RANGE = 64  # numbers; a longer range is no range of sources, and counts as one that names none
_LONGEST_RUN = 16  # of backticks

_WORD = r"(?:sources?|passages?|documents?|docs?|references?|refs?|citations?|来源|资料|文档|段落|出处|参考|引用)[ .:：#]{0,2}"
_NUMBER = rf"(?:{_WORD})?\d{{1,9}}"
_NUMBERS = rf"{_NUMBER}(?: ?(?:[-–—~～,;，、；&]|and|und|和|及) ?{_NUMBER})*"
_BODY = re.compile(rf" ?\^?(?P<numbers>{_NUMBERS})(?::\d{{1,4}}(?=†))?(?:†.*)? ?", re.IGNORECASE)
_PARTS = re.compile(r"(\d+)(?: ?[-–—~～] ?\D*(\d+))?")
# All that _BODY takes, and no more of anything else than must be held back
_MAYBE = r" ?\^?(?:[a-z]{1,10}|[\u4e00-\u9fff]{1,2})?[ .:：#]{0,2}\d[^\[\]【】［］\n]{0,99}"
_BRACKET = re.compile(
    rf"[\[【［]{{2}}{_MAYBE}[\]】］]{{2}}|[\[【［]{_MAYBE}[\]】］]", re.IGNORECASE
)
_UNFINISHED = re.compile(
    rf"[\[【［]{{1,2}}(?:{_MAYBE}| ?\^?(?:[a-z]{{0,10}}|[\u4e00-\u9fff]{{0,2}})[ .:：#]{{0,2}})\Z|[\[【［]{{2}}{_MAYBE}[\]】］]\Z",
    re.IGNORECASE,
)
_DEFINES = re.compile(r":[ \t]{0,2}<?(?:https?:|www\.|[/#])")
_PASSAGE = re.compile(
    r"\((?:https?://[\w.:-]{1,60})?/v1/passages/[a-zA-Z0-9_-]{0,60}\)"
)  # what a model cannot know, and we say ourselves


def _begun(word: str, then: str = "") -> str:
    """A pattern of all that may become this word and what follows it."""
    for letter in reversed(word):
        then = f"(?:{re.escape(letter)}{then})?"
    return then


# What tells a marker from a link and its definition, as far as it came
_DEFINING = rf":[ \t]{{0,2}}<?(?:{_begun('https:')}|{_begun('www')})"
_HOST = _begun("http", _begun("s")) + "|https?" + _begun("://", r"[\w.:-]{0,60}")
_MAY_FOLLOW = re.compile(
    rf"(?:{_DEFINING}|\((?:{_HOST})?{_begun('/v1/passages/', '[a-zA-Z0-9_-]{0,60}')})?\Z"
)

_TOKEN = re.compile(r"[\[【［`~]")
_SPECIAL = re.compile(r"[\[【［`~(（*]")
_RUN = re.compile(r"`{1,16}|~{1,16}")
_OPENS = re.compile(r"[(（*]")
_CLOSES = {"(": ")）", "（": ")）", "*": "*"}
_LEADS = re.compile(
    r" ?(?:[(（](?:(?:see|cf\.?|from|sources?|passages?|参见|见|来源)[ :：]{0,2})?|\*{1,2})\Z| \Z",
    re.IGNORECASE,
)
_MAY_LEAD = re.compile(
    r" ?(?:[(（](?:[a-z.]{0,9}|[\u4e00-\u9fff]{0,2})[ :：]{0,2}|\*{1,2})\Z| \Z", re.IGNORECASE
)
_BETWEEN = re.compile(r" ?(?:[,;，、；&]|and|und|和|及)? ?", re.IGNORECASE)
_MAY_BE_BETWEEN = re.compile(r" ?(?:[,;，、；&]|an?d?|un?d?|和|及)? ?", re.IGNORECASE)
_IDENTIFIER = re.compile(
    r"(?:(?<![^\W_])[a-z]|_\w+|\w_|(?<![^\W_])[a-z]{2,}[A-Z][a-z]\w*|\w\.[a-z]\w*)(?:\[\w{1,9}\])*\Z",
    re.ASCII,
)
_LINE_START = re.compile(r"[ \t>]*(?:[-*+] +|\d{1,3}[.)] +)?")
SENTENCE_ENDS = re.compile(
    r"(?:(?<!\be\.g)(?<!\bi\.e)(?<!\betc)(?<!\bvs)(?<!\bapprox)[.!?][\"')*_”’]*\s+|\n\s*|[。！？][」』”’)]*\s*|\|\s*)(?:\[\d+\]\s*)*",
    re.IGNORECASE,
)
_STOPPED = re.compile(r"(?:[.!?。！？][\"')*_”’」』]*|\n)\s*\Z")
_MARKER = re.compile(r" ?\[\d+\]")
_MARKS = re.compile(r"(?:[ (（]*\[\d+\][)）,;、]*)+\s*\Z")
_LISTED = re.compile(r"[\s>*+-]*\[\d+\]")


class Marker:
    """Feed it text as it comes; it gives out the text to show and the citations in it, with offsets
    in all the text given out so far.

    A citation's span is the sentence that the marker closes, and ends with the marker as it is
    shown, `[n]`. It is told once its sentence is over, with the words that `check` does not find in
    the sentence's sources as its flags. At most about 230 characters are held back, and only where
    they may still become a marker; the work for a piece does not depend on the answer's length.
    `dropped` counts the numbers that named no source, `flags` holds the flags of all citations.
    """

    def __init__(self, known: Set[int], check: Check = lambda sentence, cited: ()) -> None:
        self.known, self.check = known, check
        self.held = ""
        self.shown = ""  # the end of what was given out, long enough for a sentence
        self.before = 0  # characters given out before that
        self.code = _Code()
        self.adjacent = False  # nothing but markers since the last one
        self.owed: str | None = None  # what led to the marker that was dropped last
        self.open: list[
            tuple[Citation, str]
        ] = []  # citations of a sentence that may go on, with its text
        self.since = ""  # what came behind the last of them
        self.dropped = 0
        self.flags: dict[str, None] = {}  # of all citations so far, each once
        self._out: list[str] = []
        self._told: list[Citation] = []

    def feed(self, text: str) -> Told:
        text = self.held + text
        if not (self.adjacent or self.open or _SPECIAL.search(text)):
            cut = len(text) - text.endswith(" ")
            self.held = text[cut:]
            self._give(text[:cut])
            return text[:cut], []
        for start in range(0, len(text), _PIECE) if len(text) > _PIECE else (0,):
            part = (self.held if start else "") + text[start : start + _PIECE]
            self.held = part[self._read(part, last=False) :]
        return self._taken()

    def end(self) -> Told:
        """What was held back, now that nothing follows."""
        self._read(self.held, last=True)
        self.held = ""
        self._close()
        return self._taken()

    def _taken(self) -> Told:
        out, told = "".join(self._out), self._told
        self._out, self._told = [], []
        return out, told

    # Reading: what is a marker

    def _read(self, text: str, *, last: bool) -> int:
        """Gives out what can be told apart, and returns where the rest begins."""
        at = look = 0  # what is before `at` was given out; what is before `look` is no marker
        cut = len(text)
        while found := _TOKEN.search(text, look):
            start = found.start()
            end = self._extent(text, start, last=last)
            if end is None:
                cut = start
                break
            look = end
            if self.adjacent:  # what follows a marker decides how that one ends
                lead = at + self._lead(text[at:start])
                self._plain(text[at:lead])
                at = lead
            if text[start] in "`~":
                self._plain(text[at:end])
                self.code.run(text[start:end], self._line(end - start))
                at = end
            elif numbers := self._numbers(text[at:start], text[start:end], text[end : end + 12]):
                lead = at + self._lead(text[at:start])
                self._plain(text[at:lead])
                self._mark(text[lead:start], numbers)
                at = end
        if not last:
            cut = at + self._may_lead(text[at:cut])
        self._plain(text[at:cut])
        return cut

    def _extent(self, text: str, start: int, *, last: bool) -> int | None:
        """Where the token ends that starts here, with what tells a marker from a link; None where
        that cannot be known yet.
        """
        if run := _RUN.match(text, start):
            return (
                None
                if run.end() == len(text) and run.end() - start < _LONGEST_RUN and not last
                else run.end()
            )
        found = _BRACKET.match(text, start)
        if not last and (
            _UNFINISHED.match(text, start) or (found and _MAY_FOLLOW.match(text, found.end()))
        ):
            return None
        linked = _PASSAGE.match(text, found.end()) if found else None
        return linked.end() if linked else found.end() if found else start + 1

    def _numbers(self, before: str, bracket: str, after: str) -> list[int]:
        """What a bracket names; nothing where it is text."""
        found = _BODY.fullmatch(_PASSAGE.sub("", bracket).strip("[]【】［］"))
        if found is None or (after[:1] == "(" and bracket[-1] != ")") or self.code.holds(before):
            return []
        line = (self._line() + (self.owed or "") + before).rpartition("\n")[2]
        if not line.strip() and _DEFINES.match(after):
            return []
        numbers = list(_each(found["numbers"]))
        worded = not found["numbers"][0].isdigit()
        if not worded and all(n in _YEARS and n not in self.known for n in numbers):
            return []
        if 0 in numbers and len(numbers) > 1:
            return []
        return [] if bracket[0] == "[" and _is_index(line[-60:], numbers) else numbers

    def _lead(self, before: str) -> int:
        """Where what leads to a marker begins in the text before it."""
        if self.adjacent and _BETWEEN.fullmatch(before):
            return 0
        found = _LEADS.search(before)
        return found.start() if found else len(before)

    def _may_lead(self, text: str) -> int:
        """Where what may lead to a marker begins at the text's end."""
        if self.adjacent and _MAY_BE_BETWEEN.fullmatch(text):
            return 0
        found = _MAY_LEAD.search(text)
        return found.start() if found else len(text)

    # Giving out

    def _give(self, text: str) -> None:
        self.shown += text
        if "\n" in text:
            self.code.new_line()
        if len(self.shown) > 2 * _KEPT:
            self.before += len(self.shown) - _KEPT
            self.shown = self.shown[-_KEPT:]

    def _say(self, text: str) -> None:
        self._give(text)
        self._out.append(text)

    def _plain(self, text: str) -> None:
        if text and self.adjacent:
            text = self._settled(text)
        if not text:
            return
        self.adjacent, self.owed = False, None
        self._say(text)
        if self.open:
            self.since += text
            if self._is_over():
                self._close()

    def _settled(self, text: str) -> str:
        """The text behind a marker; where that was dropped, without the bracket around it, and with
        the space that words need between them.
        """
        owed = self.owed
        if owed is None:
            return text
        while text and (opened := _OPENS.search(owed)):
            if text[0] not in _CLOSES[opened[0]]:
                return (
                    owed + text[text.startswith(" ") :]
                    if opened[0] == "*"
                    else (owed if text[0].isalnum() else owed.rstrip()) + text
                )
            self.owed = owed = owed[:-1] if opened[0] == "*" else owed[: opened.start()]
            text = text[1:]
        if text[:1].isalnum():
            return owed + text
        if text.startswith(" ") and owed == "" and not self._line():
            self.adjacent, text = False, text[1:]
        return text

    def _mark(self, lead: str, numbers: list[int]) -> None:
        known = [n for n in dict.fromkeys(numbers) if n in self.known]
        self.dropped += sum(n not in self.known for n in set(numbers))
        opens = bool(_OPENS.search(lead))
        if self.adjacent and self.owed is not None and not opens:
            lead = self.owed
        if known:
            start = self._sentence()
            self._say(lead)
            for n in known:
                self._say(f"[{n}]")
                self._cite(
                    n, start if start is not None else self.before + len(self.shown) - len(f"[{n}]")
                )
            self.owed = None
        elif not self.adjacent or self.owed is not None or opens:
            self.owed = lead
        else:
            self.owed = ""
        self.adjacent = True

    # Sentences

    def _cite(self, n: int, start: int) -> None:
        end = self.before + len(self.shown)
        if self.open and self.open[0][0].start != start:
            self._close()
        self.open.append(
            (Citation(n=n, start=start, end=end), self.shown[max(0, start - self.before) :])
        )
        self.since = ""

    def _close(self) -> None:
        """The sentence is over: its citations are told."""
        cited = frozenset(citation.n for citation, _ in self.open)
        for citation, sentence in self.open:
            flags = self.check(_MARKER.sub("", sentence), cited)
            self.flags.update(dict.fromkeys(flags))
            self._told.append(
                Citation(n=citation.n, start=citation.start, end=citation.end, flags=flags)
                if flags
                else citation
            )
        self.open, self.since = [], ""

    def _is_over(self) -> bool:
        """Whether what came behind a marker belongs to the next sentence."""
        if len(self.since) > _AWAITED:
            return True
        if _STOPPED.search(_MARKS.sub("", self.open[0][1])):
            return bool(self.since.strip())
        end = SENTENCE_ENDS.search(self.since)
        return bool(end and self.since[end.end() :].strip())

    def _line(self, but: int = 0) -> str:
        """The line so far, without its last `but` characters."""
        return self.shown[self.shown.rfind("\n") + 1 : len(self.shown) - but]

    def _sentence(self) -> int | None:
        """Where the sentence begins that a marker here closes; markers of one sentence share it.
        None where there is no sentence.
        """
        line = self._line()
        if _LINE_START.fullmatch(line) and (
            line.strip() or _LISTED.match(self.shown.rstrip().rpartition("\n")[2])
        ):
            return None
        shown = self.shown[-_KEPT:]
        end = len(_MARKS.sub("", shown[-_MARKS_MAX:]).rstrip()) + max(0, len(shown) - _MARKS_MAX)
        if end == 0:
            return None
        starts = (_begins(shown, end - size, end) for size in (*_NEAR, end))
        return (
            self.before
            + len(self.shown)
            - len(shown)
            + next((start for start in starts if start), 0)
        )


def _begins(text: str, start: int, end: int) -> int:
    """Where the last sentence of text[start:end] begins; 0 where that is not in there."""
    return max(
        (
            found.end()
            for found in SENTENCE_ENDS.finditer(text, max(0, start), end)
            if found.end() < end
        ),
        default=0,
    )


def _is_index(before: str, numbers: list[int]) -> bool:
    """Whether a bracket behind this is an index: behind an identifier, or `[0]` behind any word."""
    return bool(_IDENTIFIER.search(before)) or (
        numbers == [0] and before[-1:].isascii() and before[-1:].isalnum()
    )


class _Code:
    """Whether we are in code: fenced, or inline, which a line's end ends."""

    def __init__(self) -> None:
        self.fence = ""  # the marks that opened it
        self.fenced_here = False  # in this very line
        self.ticks = 0  # how many opened inline code

    def holds(self, text: str) -> bool:
        """Whether what follows this text is in code."""
        return bool(self.fence) or (self.ticks > 0 and "\n" not in text)

    def new_line(self) -> None:
        self.ticks, self.fenced_here = 0, False

    def run(self, marks: str, line: str) -> None:
        """A run of backticks or tildes, behind this part of its line."""
        first = bool(_LINE_START.fullmatch(line))
        if self.fence:
            if marks.startswith(self.fence) and (first or self.fenced_here):
                self.fence = ""
        elif first and len(marks) >= 3:
            self.fence, self.fenced_here = marks, True
        elif marks[0] == "`":
            self.ticks = 0 if self.ticks == len(marks) else self.ticks or len(marks)


def _each(numbers: str) -> Iterator[int]:
    """The numbers of a list with ranges. A range too long for sources gives its ends, which name
    none where they are not known.
    """
    for first, last in _PARTS.findall(numbers):
        low, high = int(first), int(last or first)
        yield from range(low, high + 1) if 0 <= high - low < _RANGE else (low, high)
