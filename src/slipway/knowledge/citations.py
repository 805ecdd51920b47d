"""Turn `[1]` in a model's streamed text into citations; drop markers that name no source.

**A marker** is a bracket (`[1]`, `【1】`, `［1］`, `[[1]]`) that holds numbers of up to nine digits,
full-width ones too: one, a list (`1, 2`, `1 and 2`, `1、2`) or a range (`1-3`, `1–3`), perhaps after
`^` or a word (`Source 1`, `passage 2`, `来源1`), perhaps with OpenAI's tail (`【1:0†source】`). It may
appear anywhere in prose, lists, tables and headings, before a full stop or after it. When a marker
is dropped, what leads to it is dropped too: the space before it, a bracket with perhaps a word
(`(see [9])`), bold type, the comma or `and` between two markers.

**Text**, left unchanged: code, fenced or inline (which the end of a line closes); a link's text
(`[1](…)`, unless it points to `/v1/passages/…`, which a model cannot know) and its definition
(`[1]: https://…` at the start of a line); an index after an identifier (`a[1]`, `my_list[2]`,
`myList[2]`, `x.items[1]`, `rows[0]`; an ordinary word, as in `so[1]`, carries a citation); years
(`[2024]`) that are no source; intervals with zero or less (`[0, 1]`, `[-1]`); all other brackets.
"""

import re
from collections.abc import Callable, Iterator, Set

from slipway.types import Citation

# (a sentence, the sources that it cites) -> its claims that they lack
ClaimCheck = Callable[[str, Set[int]], tuple[str, ...]]
MarkedText = tuple[str, list[Citation]]

_HISTORY = 2000  # characters of shown text in which a sentence's start is searched
_NEAR = (100, 400)  # characters that contain most sentences, tried first
_MARKS_MAX = 100  # characters of consecutive markers after a sentence
_PIECE = 4000  # a longer piece is parsed in parts
_MAX_WAIT = 400  # characters after a marker, after which its sentence has ended
_YEARS = range(1500, 2200)
_RANGE = 64  # numbers; a longer range names no sources
_LONGEST_RUN = 16  # of backticks

_WORD = (
    r"(?:sources?|passages?|documents?|docs?|references?|refs?|citations?|来源|资料|文档|段落|出处|参考|引用)[ "
    r".:：#]{0,2}"
)
_NUMBER = rf"(?:{_WORD})?\d{{1,9}}"
_NUMBERS = rf"{_NUMBER}(?: ?(?:[-–—~～,;，、；&]|and|und|和|及) ?{_NUMBER})*"
_BODY = re.compile(rf" ?\^?(?P<numbers>{_NUMBERS})(?::\d{{1,4}}(?=†))?(?:†.*)? ?", re.IGNORECASE)
_PARTS = re.compile(r"(\d+)(?: ?[-–—~～] ?\D*(\d+))?")
# Everything that _BODY matches, and little else, since it is held back
_MAYBE = r" ?\^?(?:[a-z]{1,10}|[\u4e00-\u9fff]{1,2})?[ .:：#]{0,2}\d[^\[\]【】［］\n]{0,99}"
_BRACKET = re.compile(
    rf"[\[【［]{{2}}{_MAYBE}[\]】］]{{2}}|[\[【［]{_MAYBE}[\]】］]", re.IGNORECASE
)
_UNFINISHED = re.compile(
    rf"[\[【［]{{1,2}}(?:{_MAYBE}| ?\^?(?:[a-z]{{0,10}}|[\u4e00-\u9fff]{{0,2}})[ .:：#]{{0,2}})\Z"
    rf"|[\[【［]{{2}}{_MAYBE}[\]】］]\Z",
    re.IGNORECASE,
)
_DEFINES = re.compile(r":[ \t]{0,2}<?(?:https?:|www\.|[/#])")
# A link that no model can know: we add it ourselves
_PASSAGE = re.compile(r"\((?:https?://[\w.:-]{1,60})?/v1/passages/[a-zA-Z0-9_-]{0,60}\)")


def _prefixes_of(word: str, then: str = "") -> str:
    """Return a pattern that matches every prefix of this word and of what follows it."""
    for letter in reversed(word):
        then = f"(?:{re.escape(letter)}{then})?"
    return then


# Every prefix of what tells a marker from a link and its definition
_DEFINING = rf":[ \t]{{0,2}}<?(?:{_prefixes_of('https:')}|{_prefixes_of('www')})"
_HOST = _prefixes_of("http", _prefixes_of("s")) + "|https?" + _prefixes_of("://", r"[\w.:-]{0,60}")
_MAY_FOLLOW = re.compile(
    rf"(?:{_DEFINING}|\((?:{_HOST})?{_prefixes_of('/v1/passages/', '[a-zA-Z0-9_-]{0,60}')})?\Z"
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
    r"(?:(?<![^\W_])[a-z]|_\w+|\w_|(?<![^\W_])[a-z]{2,}[A-Z][a-z]\w*"
    r"|\w\.[a-z]\w*)(?:\[\w{1,9}\])*\Z",
    re.ASCII,
)
_LINE_START = re.compile(r"[ \t>]*(?:[-*+] +|\d{1,3}[.)] +)?")
SENTENCE_ENDS = re.compile(
    r"(?:(?<!\be\.g)(?<!\bi\.e)(?<!\betc)(?<!\bvs)(?<!\bapprox)[.!?][\"')*_”’]*\s+|\n\s*"
    r"|[。！？][」』”’)]*\s*|\|\s*)(?:\[\d+\]\s*)*",
    re.IGNORECASE,
)
_STOPPED = re.compile(r"(?:[.!?。！？][\"')*_”’」』]*|\n)\s*\Z")
_MARKER = re.compile(r" ?\[\d+\]")
_MARKS = re.compile(r"(?:[ (（]*\[\d+\][)）,;、]*)+\s*\Z")
_LISTED = re.compile(r"[\s>*+-]*\[\d+\]")


class CitationParser:
    """Parse text as it streams; return the text to show and its citations, with offsets in all text
    returned so far.

    A citation's span is the sentence that the marker closes, including the marker as shown, `[n]`.
    A citation is reported once its sentence is over, flagged with the words that `check` does not
    find in the sentence's sources. At most about 230 characters are held back, and only if they may
    become a marker; the work for a piece does not grow with the answer. `dropped` counts numbers
    that named no source; `flags` holds the flags of all citations.
    """

    def __init__(self, known: Set[int], check: ClaimCheck = lambda sentence, cited: ()) -> None:
        self.known, self.check = known, check
        self.held = ""
        self.shown = ""  # the end of the text returned so far, long enough for a sentence
        self.before = 0  # characters returned before that
        self.code = _CodeState()
        self.adjacent = False  # only markers since the last one
        self.cited_from: tuple[int | None] | None = None  # where their sentence begins
        self.pending_lead: str | None = None  # the lead of the marker dropped last
        # Citations of a sentence that may continue, with its text
        self.open: list[tuple[Citation, str]] = []
        self.text_after = ""  # text after the last of them
        self.dropped = 0
        self.flags: dict[str, None] = {}  # of all citations so far, without repeats
        self._text: list[str] = []
        self._citations: list[Citation] = []

    def feed(self, text: str) -> MarkedText:
        """Take the next piece of text; return what can be shown now, and the citations that are
        complete.
        """
        text = self.held + text
        if not (self.adjacent or self.open or _SPECIAL.search(text)):
            cut = len(text) - text.endswith(" ")
            self.held = text[cut:]
            self._record(text[:cut])
            return text[:cut], []
        for start in range(0, len(text), _PIECE) if len(text) > _PIECE else (0,):
            part = (self.held if start else "") + text[start : start + _PIECE]
            self.held = part[self._read(part, last=False) :]
        return self._flush()

    def end(self) -> MarkedText:
        """Return what was held back; no more text follows."""
        self._read(self.held, last=True)
        self.held = ""
        self._close()
        return self._flush()

    def _flush(self) -> MarkedText:
        text, citations = "".join(self._text), self._citations
        self._text, self._citations = [], []
        return text, citations

    # Parsing

    def _read(self, text: str, *, last: bool) -> int:
        """Emit what can be decided, and return the offset of the rest."""
        at = look = 0  # text before `at` is emitted; text before `look` has no marker
        cut = len(text)
        while found := _TOKEN.search(text, look):
            start = found.start()
            end = self._extent(text, start, last=last)
            if end is None:
                cut = start
                break
            look = end
            if self.adjacent:  # what follows a marker decides how it ends
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
            cut = at + self._lead_candidate(text[at:cut])
        self._plain(text[at:cut])
        return cut

    def _extent(self, text: str, start: int, *, last: bool) -> int | None:
        """Return where the token that starts here ends, with what tells a marker from a link; None
        if that cannot be known yet.
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
        """Return the numbers that a bracket names; empty if the bracket is text."""
        found = _BODY.fullmatch(_PASSAGE.sub("", bracket).strip("[]【】［］"))
        if found is None or (after[:1] == "(" and bracket[-1] != ")") or self.code.holds(before):
            return []
        line = (self._line() + (self.pending_lead or "") + before).rpartition("\n")[2]
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
        """Return where the marker's lead begins in the text before it."""
        if self.adjacent and _BETWEEN.fullmatch(before):
            return 0
        found = _LEADS.search(before)
        return found.start() if found else len(before)

    def _lead_candidate(self, text: str) -> int:
        """Return where a possible lead of a marker begins at the end of the text."""
        if self.adjacent and _MAY_BE_BETWEEN.fullmatch(text):
            return 0
        found = _MAY_LEAD.search(text)
        return found.start() if found else len(text)

    # Emitting

    def _record(self, text: str) -> None:
        self.shown += text
        if "\n" in text:
            self.code.new_line()
        if len(self.shown) > 2 * _HISTORY:
            self.before += len(self.shown) - _HISTORY
            self.shown = self.shown[-_HISTORY:]

    def _emit(self, text: str) -> None:
        self._record(text)
        self._text.append(text)

    def _plain(self, text: str) -> None:
        if text and self.adjacent:
            text = self._settled(text)
        if not text:
            return
        self.adjacent, self.pending_lead = False, None
        self._emit(text)
        if self.open:
            self.text_after += text
            if self._is_over():
                self._close()

    def _settled(self, text: str) -> str:
        """Return the text after a marker. If the marker was dropped, remove the bracket around it
        and keep the space that words need between them.
        """
        pending_lead = self.pending_lead
        if pending_lead is None:
            return text
        while text and (opened := _OPENS.search(pending_lead)):
            if text[0] not in _CLOSES[opened[0]]:
                return (
                    pending_lead + text[text.startswith(" ") :]
                    if opened[0] == "*"
                    else (pending_lead if text[0].isalnum() else pending_lead.rstrip()) + text
                )
            self.pending_lead = pending_lead = (
                pending_lead[:-1] if opened[0] == "*" else pending_lead[: opened.start()]
            )
            text = text[1:]
        if text[:1].isalnum():
            return pending_lead + text
        if text.startswith(" ") and pending_lead == "" and not self._line():
            self.adjacent, text = False, text[1:]
        return text

    def _mark(self, lead: str, numbers: list[int]) -> None:
        known = [n for n in dict.fromkeys(numbers) if n in self.known]
        self.dropped += sum(n not in self.known for n in set(numbers))
        opens = bool(_OPENS.search(lead))
        if self.adjacent and self.pending_lead is not None and not opens:
            lead = self.pending_lead
        if known:
            if not self.adjacent or self.cited_from is None:
                self.cited_from = (self._sentence(),)
            (start,) = self.cited_from  # markers in a row close the same sentence
            self._emit(lead)
            for n in known:
                self._emit(f"[{n}]")
                self._cite(
                    n, start if start is not None else self.before + len(self.shown) - len(f"[{n}]")
                )
            self.pending_lead = None
        elif not self.adjacent or self.pending_lead is not None or opens:
            self.pending_lead = lead
            if not self.adjacent:
                self.cited_from = None
        else:
            self.pending_lead = ""
        self.adjacent = True

    # Sentences

    def _cite(self, n: int, start: int) -> None:
        end = self.before + len(self.shown)
        if self.open and self.open[0][0].start != start:
            self._close()
        self.open.append(
            (Citation(n=n, start=start, end=end), self.shown[max(0, start - self.before) :])
        )
        self.text_after = ""

    def _close(self) -> None:
        """End the sentence: report its citations."""
        cited = frozenset(citation.n for citation, _ in self.open)
        for citation, sentence in self.open:
            flags = self.check(_MARKER.sub("", sentence), cited)
            self.flags.update(dict.fromkeys(flags))
            self._citations.append(
                Citation(n=citation.n, start=citation.start, end=citation.end, flags=flags)
                if flags
                else citation
            )
        self.open, self.text_after = [], ""

    def _is_over(self) -> bool:
        """Tell whether the text after a marker belongs to the next sentence."""
        if len(self.text_after) > _MAX_WAIT:
            return True
        if _STOPPED.search(_MARKS.sub("", self.open[0][1])):
            return bool(self.text_after.strip())
        end = SENTENCE_ENDS.search(self.text_after)
        return bool(end and self.text_after[end.end() :].strip())

    def _line(self, but: int = 0) -> str:
        """Return the current line so far, without its last `but` characters."""
        return self.shown[self.shown.rfind("\n") + 1 : len(self.shown) - but]

    def _sentence(self) -> int | None:
        """Return where the sentence that a marker here closes begins; markers of one sentence share
        it. None if there is no sentence.
        """
        line = self._line()
        if _LINE_START.fullmatch(line) and (
            line.strip() or _LISTED.match(self.shown.rstrip().rpartition("\n")[2])
        ):
            return None
        shown = self.shown[-_HISTORY:]
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
    """Return where the last sentence of text[start:end] begins; 0 if it begins earlier."""
    return max(
        (
            found.end()
            for found in SENTENCE_ENDS.finditer(text, max(0, start), end)
            if found.end() < end
        ),
        default=0,
    )


def _is_index(before: str, numbers: list[int]) -> bool:
    """Tell whether a bracket after this text is an index: after an identifier, or `[0]` after any
    word.
    """
    return bool(_IDENTIFIER.search(before)) or (
        numbers == [0] and before[-1:].isascii() and before[-1:].isalnum()
    )


class _CodeState:
    """Track whether the text is inside code: fenced, or inline, which the end of a line closes."""

    def __init__(self) -> None:
        self.fence = ""  # the marks that opened it
        self.fenced_here = False  # opened in this line
        self.ticks = 0  # backticks that opened inline code

    def holds(self, text: str) -> bool:
        """Tell whether what follows this text is code."""
        return bool(self.fence) or (self.ticks > 0 and "\n" not in text)

    def new_line(self) -> None:
        self.ticks, self.fenced_here = 0, False

    def run(self, marks: str, line: str) -> None:
        """Take a run of backticks or tildes; `line` is the part of its line before it."""
        first = bool(_LINE_START.fullmatch(line))
        if self.fence:
            if marks.startswith(self.fence) and (first or self.fenced_here):
                self.fence = ""
        elif first and len(marks) >= 3:
            self.fence, self.fenced_here = marks, True
        elif marks[0] == "`":
            self.ticks = 0 if self.ticks == len(marks) else self.ticks or len(marks)


def _each(numbers: str) -> Iterator[int]:
    """Yield the numbers of a list with ranges. A range too long for sources yields only its two
    ends.
    """
    for first, last in _PARTS.findall(numbers):
        low, high = int(first), int(last or first)
        yield from range(low, high + 1) if 0 <= high - low < _RANGE else (low, high)
