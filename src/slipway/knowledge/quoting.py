"""Answer without a model: quote the sentences of the sources that answer, verbatim and numbered, or
nothing.

Extractive and greedy. A question's content words are stemmed and weighted by how rare they are in
the sources (IDF). A span scores the weight of its words, and words that a chosen span already has
score less, as in maximal marginal relevance (Carbonell & Goldstein 1998). A heading adds its words
to the text below it. Markdown is quoted unchanged, so parts that belong together stay together: a
list item, a table, a fenced block, and the line with a colon that announces it.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache

import msgspec

from slipway.knowledge.answerability import without_chance_pairs
from slipway.knowledge.questions import asked_about, names_in
from slipway.types import Citation, Record, Source

# The least sum of two weighted shares of the question: what the best source covers, and what the
# best span covers
_MIN_COVERAGE = 0.75
_FRAGMENT_WORDS = 4
# Weight of a word that only the heading has, and of one that is quoted already
_HEADING_SHARE, _KNOWN_SHARE = 0.6, 0.4
_MIN_NEW_COVERAGE = 0.15  # share of the question that a further source must add
_BASE_TRUST = 0.2  # a span's weight in a source that covers nothing else of the question
_MIN_GAIN = 0.3  # of the first span's gain, for a further span
_POINTER_FACTOR = 0.5  # for a sentence that only sends the reader elsewhere
_DUPLICATE_OVERLAP = 0.75  # shared words of the shorter span, to be a repeat
_LONGEST_SENTENCE, _LONGEST_BLOCK = 800, 1500
_LONG_NUMBER = 4  # digits
_SHORT_TABLE = 8  # rows; of longer tables only matching rows are quoted

Weights = Mapping[str, float]


class Quote(Record, frozen=True, kw_only=True):
    """Hold the answer; `citations` cover each quoted span with its marker, as offsets in `text`."""

    text: str
    citations: tuple[Citation, ...]


class _Span(Record, frozen=True, kw_only=True):
    """Mark [start, end) of a text that can be quoted by itself. A block needs lines of its own;
    `item` marks list items.

    `lead` is the end of the sentence that leads to a block, `start` if there is none. `rows` are
    the quoted lines of a long table.
    """

    start: int
    end: int
    block: bool = False
    item: bool = False
    lead: int = 0
    rows: tuple[tuple[int, int], ...] = ()


class _Candidate(Record, frozen=True, kw_only=True):
    source: Source
    span: _Span
    rank: int
    terms: frozenset[str]
    above: frozenset[str]  # words that only the heading or file name has
    named: frozenset[str]  # words of the heading and file name
    factor: float
    code: bool

    @property
    def text(self) -> str:
        return _text_of(self.source.text, self.span)


def quote(question: str, sources: Sequence[Source], limit: int = 4) -> Quote | None:
    """Return at most `limit` spans, grouped by source in the sources' order, in reading order
    within each. None if the sources do not answer.
    """
    asked = content_words(asked_about(question))
    if not asked or not _has_names(question, sources):
        return None
    candidates = [
        each
        for rank, source in enumerate(sources)
        for each in _candidates(rank, source, asked, shows=_asks_how(question))
    ]
    asked = _without_chance_pairs(question, asked, candidates)
    weights = _weights(asked, candidates)
    shares = _shares(weights, candidates)
    if not _answers(weights, candidates, shares):
        return None
    chosen = _choose(candidates, weights, shares, limit)
    return (
        _compose(sorted(chosen, key=lambda each: (each.rank, each.span.start))) if chosen else None
    )


def _has_names(question: str, sources: Sequence[Source]) -> bool:
    """Tell whether a name of the question is in a source: nothing else answers what is asked of
    Kubernetes or Java, whatever other words it shares.
    """
    names = names_in(question)
    if not names:
        return True
    said = _plain_letters("\n".join(f"{s.heading}\n{s.path}\n{s.text}" for s in sources))
    return any(_plain_letters(name).rstrip("s") in said for name in names)


def _plain_letters(text: str) -> str:
    return _NO_LETTERS.sub("", text.casefold())


def _without_chance_pairs(
    question: str, asked: frozenset[str], candidates: Sequence["_Candidate"]
) -> frozenset[str]:
    """See `answerability.without_chance_pairs`."""
    words = [word for word in _words(asked_about(question)) if _stem(word) in asked]
    said = frozenset[str]().union(*(each.terms | each.named for each in candidates))
    kept = without_chance_pairs(words, lambda word: _stem(word) in said)
    return frozenset(map(_stem, kept))


# Choosing spans


def _candidates(
    rank: int, source: Source, asked: frozenset[str], *, shows: bool
) -> Iterator[_Candidate]:
    named = asked.intersection(_terms(f"{source.heading} {source.path}"))
    for position, span in enumerate(
        _shorten_table(source.text, each, asked) for each in _spans(source.text, shows=shows)
    ):
        text = _text_of(source.text, span)
        words = _terms(_without_identifiers(text, asked))
        terms = asked.intersection(words)
        code = bool(_FENCE.match(text)) or _looks_like_code(text)
        scrap = position > 0 and not span.block and (code or len(words) < _FRAGMENT_WORDS)
        factor = (
            (1.2 if position == 0 else 0.4 if scrap else 1.0)
            / (1 + 0.15 * rank)
            / (1 + len(text) / 1500)
        )
        factor *= 1.0 if span.block or text.endswith(_COMPLETE) else 0.7
        factor *= _POINTER_FACTOR if _POINTER.match(text) else 1.0
        above = frozenset[str]() if scrap else named - terms
        yield _Candidate(
            source=source,
            span=span,
            rank=rank,
            terms=terms,
            above=above,
            named=named,
            factor=factor,
            code=code,
        )


def _text_of(text: str, span: _Span) -> str:
    return (
        "\n".join(text[start:end] for start, end in span.rows)
        if span.rows
        else text[span.start : span.end]
    )


def _shorten_table(text: str, span: _Span, asked: frozenset[str]) -> _Span:
    """Reduce a long table to its column names and the rows that share most words with the question;
    keep all of it if too many rows tie.
    """
    lines = list(_lines(text, span))
    rule = next(
        (number for number, (start, end) in enumerate(lines) if _is_rule(text[start:end])), 0
    )
    if (
        rule < 1
        or len(lines) - rule - 1 <= _SHORT_TABLE
        or any(_FENCE.match(text, start) for start, _ in lines)
    ):
        return span
    overlaps = [
        len(asked.intersection(_terms(text[start:end]))) for start, end in lines[rule + 1 :]
    ]
    best = [
        line
        for line, count in zip(lines[rule + 1 :], overlaps, strict=True)
        if count == max(overlaps)
    ]
    return (
        msgspec.structs.replace(span, rows=(*lines[: rule + 1], *best))
        if len(best) <= _SHORT_TABLE
        else span
    )


def _lines(text: str, span: _Span) -> Iterator[tuple[int, int]]:
    start = span.start
    for line in text[span.start : span.end].split("\n"):
        yield start, start + len(line)
        start += len(line) + 1


def _is_rule(line: str) -> bool:
    return "|" in line and bool(_TABLE_RULE.match(line))


def _looks_like_code(text: str) -> bool:
    return len(_CODE_SIGN.findall(text)) > 0.04 * len(text)


def _weights(asked: frozenset[str], candidates: Sequence[_Candidate]) -> Weights:
    """Weigh words by IDF over the spans; a word that no span has weighs most."""
    counts = Counter(term for each in candidates for term in each.terms)
    return {term: math.log(1 + len(candidates) / (counts[term] + 0.5)) for term in asked}


def _answers(
    weights: Weights, candidates: Sequence[_Candidate], shares: Mapping[int, float]
) -> bool:
    """Tell whether a source covers the question and one span covers much of it at once; example
    code is only a mention. A long number, such as an order's, that no source contains is unknown:
    its neighbours are no answer.
    """
    total = sum(weights.values())
    said = frozenset[str]().union(*(each.terms | each.named for each in candidates))
    if any(len(term) >= _LONG_NUMBER and term.isdecimal() and term not in said for term in weights):
        return False
    at_once = max(
        (
            _weight(weights, each.terms | each.above) / total
            for each in candidates
            if not (each.code and each.span.block)
        ),
        default=0.0,
    )
    return max(shares.values(), default=0.0) + at_once >= _MIN_COVERAGE


def _shares(weights: Weights, candidates: Sequence[_Candidate]) -> dict[int, float]:
    """Return, by source rank, how much of the question its text, heading or file name covers; 0 for
    a single word of several. Words that occur only in code score half: an example is often about
    something else.
    """
    covered: dict[int, dict[str, float]] = {}
    for each in candidates:
        terms = covered.setdefault(each.rank, dict.fromkeys(each.named, 1.0))
        terms.update(
            {term: max(0.5 if each.code else 1.0, terms.get(term, 0.0)) for term in each.terms}
        )
    total = sum(weights.values())
    return {
        rank: sum(weights[term] * sure for term, sure in terms.items()) / total
        if sum(terms.values()) >= min(2, len(weights))
        else 0.0
        for rank, terms in covered.items()
    }


def _weight(weights: Weights, terms: frozenset[str] | set[str]) -> float:
    return sum(weights[term] for term in terms)


def _choose(
    candidates: Sequence[_Candidate], weights: Weights, shares: Mapping[int, float], limit: int
) -> list[_Candidate]:
    chosen: list[_Candidate] = []
    known: set[str] = set()
    left, least = [each for each in candidates if each.terms or each.above], 0.0
    while left and len(chosen) < limit:
        gains = [(_BASE_TRUST + shares[each.rank]) * _gain(each, weights, known) for each in left]
        gain, best = max(zip(gains, left, strict=True), key=lambda pair: pair[0])
        if gain <= least:
            break
        chosen.append(best)
        known |= best.terms
        least = least or gain * _MIN_GAIN
        left = [
            each for each in left if not _repeats(each, best) and _is_about(each, chosen, weights)
        ]
    return chosen


def _is_about(candidate: _Candidate, chosen: Sequence[_Candidate], weights: Weights) -> bool:
    """Tell whether a further span is worth quoting: another source must share more than one word of
    a question that has several, and must add a new one.
    """
    if candidate.rank in {each.rank for each in chosen}:
        return True
    terms = candidate.terms | candidate.above
    return len(terms) >= min(2, len(weights)) and _weight(
        weights, candidate.terms - _covered(chosen)
    ) >= _MIN_NEW_COVERAGE * sum(weights.values())


def _covered(chosen: Sequence[_Candidate]) -> frozenset[str]:
    return frozenset[str]().union(*(each.terms for each in chosen))


def _gain(candidate: _Candidate, weights: Weights, known: set[str]) -> float:
    own = _weight(weights, candidate.terms - known) + _KNOWN_SHARE * _weight(
        weights, candidate.terms & known
    )
    above = _weight(weights, candidate.above - known) + _KNOWN_SHARE * _weight(
        weights, candidate.above & known
    )
    return candidate.factor * (own + _HEADING_SHARE * above)


def _repeats(candidate: _Candidate, chosen: _Candidate) -> bool:
    if (
        candidate.rank == chosen.rank
        and candidate.span.start < chosen.span.end
        and chosen.span.start < candidate.span.end
    ):
        return True
    mine, theirs = frozenset(_terms(candidate.text)), frozenset(_terms(chosen.text))
    return len(mine & theirs) >= _DUPLICATE_OVERLAP * min(len(mine), len(theirs))


# Writing


def _compose(chosen: Sequence[_Candidate]) -> Quote:
    text, citations = "", []
    for index, each in enumerate(chosen):
        text += _separator(chosen[index - 1], each) if index else ""
        start, lead = len(text), each.span.lead - each.span.start
        if _ends_with_block(each.text) and lead > 0:
            text += f"{each.text[:lead]} [{each.source.n}]"
            citations.append(Citation(n=each.source.n, start=start, end=len(text)))
            text += each.text[lead:]
        else:
            text += f"{each.text}{_before_marker(each.text)}[{each.source.n}]"
            citations.append(Citation(n=each.source.n, start=start, end=len(text)))
    return Quote(text=text, citations=tuple(citations))


def _separator(before: _Candidate, after: _Candidate) -> str:
    if before.rank != after.rank:
        return "\n\n"
    if before.span.item and after.span.item:
        return "\n"
    return "\n\n" if before.span.block or after.span.block else " "


def _before_marker(text: str) -> str:
    return "\n\n" if _ends_with_block(text) else " "


def _ends_with_block(text: str) -> bool:
    """Tell whether the text ends with code or a table: a marker there would break it, and goes to
    the sentence before or on its own line.
    """
    last = text.rsplit("\n", 1)[-1]
    return bool(_FENCE.match(last)) or "|" in last or last.startswith(("    ", "\t"))


# Parsing a text into sentences and blocks

_FENCE = re.compile(r"\s*(?P<marks>`{3,}|~{3,})")
_ITEM = re.compile(r"(?P<indent>\s*)(?:[-*+]|\d{1,9}[.)])\s+\S")
_QUOTED = re.compile(r"\s{0,3}>")
_TABLE_RULE = re.compile(r"\s*\|?\s*:?-+:?\s*(?:\|\s*:?-+:?\s*)*\|?\s*$")
_NOISE = re.compile(
    r"\s*(?:#{1,6}\s|!!!|\?\?\?|:::|///|<!--|<[^>]*>\s*$|={3,}\s*$|(?:[-*_]\s*){3,}$|\[[^\]]+\]:\s)"
)
_POINTER = re.compile(
    r"(?:\W*)(?:see|read|learn|check out|visit|explore|refer to|for more|to learn more"
    r"|follow)\b[^\n]{0,160}\Z",
    re.IGNORECASE,
)
_CODE_SIGN = re.compile(r"[{}<>=;\\]|\"[,:]|[(\[]\"")
_CODE = re.compile(r"(?: {4}|\t)\s*\S")
_STOP = re.compile(r"(?P<stop>[.!?…])[\"')\]*_”’]*\s+(?=[^\sa-z])|[。！？][」』”’)]*|\n")
_ABBREVIATED = re.compile(
    r"(?:\b(?:e\.g|i\.e|etc|vs|cf|approx|fig|mr|mrs|dr|st|[A-Z])|(?:^|\n)\s*\d+)$", re.IGNORECASE
)
_PAIRED = ("`", "**", "__")
_COMPLETE = (".", "!", "?", "…", "。", "！", "？", ":", "：", ")", "*", "`", '"', "”")
_WRAPPED_LINE = 50  # such a line without a stop continues in the next


def _spans(text: str, *, shows: bool) -> list[_Span]:
    """Return spans in reading order; they overlap if an announcement may be quoted with what it
    announces. With `shows`, code is joined with what follows it.
    """
    simple = list(_simple_spans(text))
    spans = []
    for index, span in enumerate(simple):
        spans.append(
            _with_lead(text, simple, index) or _with_announced(text, simple, index, shows=shows)
        )
        if (
            spans[-1] is not span
            and not span.block
            and not text[span.start : span.end].endswith((":", "："))
        ):
            spans.append(span)
    return [
        span
        for span in spans
        if span.end - span.start <= (_LONGEST_BLOCK if span.block else _LONGEST_SENTENCE)
    ]


def _with_announced(text: str, spans: Sequence[_Span], index: int, *, shows: bool) -> _Span:
    """Join a span that ends with a colon or question mark with the block, list or sentence that
    follows.
    """
    span = spans[index]
    following = spans[index + 1 : index + 2]
    announces = not span.block and text[span.start : span.end].rstrip("*_").endswith(
        (":", "：", "?", "？")
    )
    shown = (
        shows
        and bool(following)
        and bool(_FENCE.match(text, following[0].start))
        and not _FENCE.match(text, span.start)
    )
    if not following or not (announces or shown):
        return span
    last = index + 1
    while last + 1 < len(spans) and _continues(text, spans[last], spans[last + 1]):
        last += 1
    end = spans[last].end
    return (
        _Span(start=span.start, end=end, block=spans[last].block, lead=span.end)
        if end - span.start <= _LONGEST_BLOCK
        else span
    )


def _with_lead(text: str, spans: Sequence[_Span], index: int) -> _Span | None:
    """Join code or a table with the sentence before it: by itself it says little and has no place
    for a marker.
    """
    span, before = spans[index], spans[index - 1] if index else None
    if (
        before is None
        or before.block
        or not _ends_with_block(text[span.start : span.end])
        or span.end - before.start > _LONGEST_BLOCK
    ):
        return None
    return _Span(start=before.start, end=span.end, block=True, lead=before.end)


def _continues(text: str, span: _Span, following: _Span) -> bool:
    """Tell whether two spans are items of one list, or lines of one paragraph, as in lists that
    lost their markup.
    """
    return (span.item and following.item) or (
        not span.block
        and not following.block
        and text[span.end : following.start] == "\n"
        and text[following.end - 1] != ":"
    )


def _simple_spans(text: str) -> Iterator[_Span]:
    rows, at, number = text.split("\n"), 0, 0
    while number < len(rows):
        kind, count = _block(rows, number)
        end = at + sum(len(row) + 1 for row in rows[number : number + count]) - 1
        if kind == "paragraph":
            yield from _sentences(text, at, end)
        elif kind != "noise" and _is_whole(text[at:end]):
            yield _Span(
                start=at, end=at + len(text[at:end].rstrip()), block=True, item=kind == "item"
            )
        at, number = end + 1, number + count


def _block(rows: Sequence[str], first: int) -> tuple[str, int]:
    """Return the kind of the block that starts in this row and its number of rows."""
    if not rows[first].strip() or _NOISE.match(rows[first]):
        return "noise", 1
    for kind, (starts, last) in _BLOCKS.items():
        if starts(rows, first):
            return kind, last(rows, first) + 1 - first
    last_row = first
    while last_row + 1 < len(rows) and not _interrupts(rows, last_row + 1):
        last_row += 1
    return "paragraph", last_row + 1 - first


def _interrupts(rows: Sequence[str], number: int) -> bool:
    row = rows[number]
    return (
        not row.strip()
        or bool(_NOISE.match(row))
        or any(starts(rows, number) for starts, _ in _BLOCKS.values())
    )


def _fence_end(rows: Sequence[str], first: int) -> int:
    opened = _FENCE.match(rows[first])
    marks = opened["marks"] if opened else ""
    for number in range(first + 1, len(rows)):
        if rows[number].strip().startswith(marks) and not rows[number].strip().strip(marks[:1]):
            return number
    return len(rows) - 1


def _item_end(rows: Sequence[str], first: int) -> int:
    """Return an item's last row; deeper rows and rows without a blank one before belong to it."""
    indent, last = _indent(rows[first]), first
    for number in range(first + 1, len(rows)):
        row = rows[number]
        outside = _indent(row) <= indent
        if (
            row.strip()
            and outside
            and (
                not rows[number - 1].strip()
                or _ITEM.match(row)
                or _FENCE.match(row)
                or _NOISE.match(row)
            )
        ):
            break
        last = number if row.strip() else last
    return last


def _indent(row: str) -> int:
    return len(row) - len(row.lstrip())


def _run_end(pattern: re.Pattern[str]) -> "Extent":
    def last(rows: Sequence[str], first: int) -> int:
        while first + 1 < len(rows) and pattern.match(rows[first + 1]):
            first += 1
        return first

    return last


def _is_table(rows: Sequence[str], number: int) -> bool:
    return "|" in rows[number] and number + 1 < len(rows) and _is_rule(rows[number + 1])


def _is_code(rows: Sequence[str], number: int) -> bool:
    return bool(_CODE.match(rows[number])) and (number == 0 or not rows[number - 1].strip())


Extent = Callable[[Sequence[str], int], int]  # (rows, first row) -> last row
_BLOCKS: dict[str, tuple[Callable[[Sequence[str], int], bool], Extent]] = {
    "fence": (lambda rows, number: bool(_FENCE.match(rows[number])), _fence_end),
    "table": (_is_table, _run_end(re.compile(r".*\|"))),
    "code": (_is_code, _run_end(_CODE)),
    "item": (lambda rows, number: bool(_ITEM.match(rows[number])), _item_end),
    "quoted": (lambda rows, number: bool(_QUOTED.match(rows[number])), _run_end(_QUOTED)),
}


def _is_whole(block: str) -> bool:
    """Tell whether every fence that is opened is closed."""
    return sum(bool(_FENCE.match(row)) for row in block.split("\n")) % 2 == 0


def _sentences(text: str, start: int, end: int) -> Iterator[_Span]:
    """Yield sentences, cut after stops and after lines too short to have been wrapped; never inside
    code, bold type or a link's text.
    """
    paired = all(_is_paired(text[start:end], mark) for mark in _PAIRED)
    begin = start
    for found in _STOP.finditer(text, start, end):
        piece = text[begin : found.start()]
        line = text[text.rfind("\n", 0, found.start()) + 1 : found.start()]
        if found.group() == "\n" and len(line) >= _WRAPPED_LINE and not line.endswith((":", "：")):
            continue
        if (found["stop"] == "." and _ABBREVIATED.search(piece)) or piece.count("[") > piece.count(
            "]"
        ):
            continue
        if paired and not all(_is_paired(piece + found.group(), mark) for mark in _PAIRED):
            continue
        yield from _stripped(text, begin, found.end())
        begin = found.end()
    yield from _stripped(text, begin, end)


def _is_paired(text: str, mark: str) -> bool:
    return text.count(mark) % 2 == 0


def _stripped(text: str, start: int, end: int) -> Iterator[_Span]:
    part = text[start:end]
    if part.strip():
        yield _Span(start=start + len(part) - len(part.lstrip()), end=start + len(part.rstrip()))


# Words

_WORD = re.compile(r"[^\W_]+")
_IDENTIFIER = re.compile(r"(?<![^\W_])[A-Za-z][A-Za-z0-9]*(?:_[A-Za-z0-9]+)+(?![^\W_])", re.ASCII)
_NO_LETTERS = re.compile(r"[\W_]+")
_SHORT_STEM = re.compile(r"(?:[^aeiouy]|qu)*[aeiouy][^aeiouywx]$")
_UNSPACED = re.compile(
    r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u9fff\ua000-\ua4cf\uac00-\ud7af\uf900-\ufaff"
    r"\U00020000-\U0003ffff]{2,}"
)
# longest first
_SUFFIX_LIST = (
    "ations ation ators ator ating ated ates ate ments ment ions ion ings ing edly ed ly ies es s "
    "e y"
)
_SUFFIXES = tuple(_SUFFIX_LIST.split())
_VOWELS = frozenset("aeiouy")
_SMALL_WORDS = """
    a about according all also am an and any are as at be been but by can cannot could did do
    does doing done each either else explain for from get give had happen happens has have he
    hello her here hey hi him his how i if in instead into is it its just kind kinds let like
    many may me might mine more most much must my no not of off on one only or other our out
    please possible same say several shall she should show so some such tell than thank thanks
    that the their them then there these they thing things this those three through to too two
    under up us use used using very want was way ways we were what when where whether which
    while who whom whose why will with within without would you your
"""
_STOP_WORDS = frozenset(_SMALL_WORDS.split())


def _words(text: str) -> Iterator[str]:
    """Yield lower-case words; pairs of characters in scripts without spaces."""
    for word in _WORD.findall(text.lower()):
        run = _UNSPACED.match(word)
        yield from (word[at : at + 2] for at in range(len(word) - 1)) if run else (word,)


def _terms(text: str) -> list[str]:
    return [_stem(word) for word in _words(text)]


def _without_identifiers(text: str, asked: frozenset[str]) -> str:
    """Blank identifiers of which only a part is asked for: `format_price` says no price."""

    def kept(found: re.Match[str]) -> str:
        parts = [_stem(part) for part in _WORD.findall(found[0].lower())]
        return found[0] if asked.issuperset(parts) else " " * len(found[0])

    return _IDENTIFIER.sub(kept, text)


def content_words(text: str) -> frozenset[str]:
    """Return the stems of a text's content words and numbers."""
    return frozenset(_stem(word) for word in _words(text) if word not in _STOP_WORDS)


@lru_cache(maxsize=20_000)
def _stem(word: str) -> str:
    """Return the stem: up to two English suffixes are removed, leaving three letters and a vowel.
    `configure`, `configuring` and `configurations` become one term; 1000 stays apart from 100.
    """
    return word if word.isdecimal() else _cut(_cut(word))


def _cut(word: str) -> str:
    for suffix in _SUFFIXES:
        left = word.removesuffix(suffix)
        if (
            left != word
            and len(left) >= 3
            and not _VOWELS.isdisjoint(left)
            and (suffix != "y" or left[-1] not in _VOWELS)
            and not (suffix in ("e", "es") and _SHORT_STEM.fullmatch(left))
        ):
            word = f"{left}e" if suffix in ("ing", "ed") and _SHORT_STEM.fullmatch(left) else left
            break
    return word[:-1] if len(word) > 2 and word[-1] == word[-2] else word


def _asks_how(question: str) -> bool:
    return "how" in question.lower().split()
