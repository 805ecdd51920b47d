"""Cut a text into spans that can be quoted by themselves: sentences, list items, tables and code.

Markdown is quoted unchanged, so parts that belong together stay together: a list item, a table, a
fenced block, and the line with a colon that announces it.
"""

import re
from collections.abc import Callable, Iterator, Sequence

from slipway.knowledge.sentences import STOP, ends_sentence
from slipway.types import Record

_LONGEST_SENTENCE, _LONGEST_BLOCK = 800, 1500


class QuotableSpan(Record, frozen=True, kw_only=True):
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


FENCE = re.compile(r"\s*(?P<marks>`{3,}|~{3,})")
_ITEM = re.compile(
    r"(?P<indent>\s*)(?:[-*+]|\d{1,9}[.)]|\d{1,3}(?:\.\d{1,3}){1,3}\.?(?=\s+[^\W\d]))\s+\S"
)
_QUOTED = re.compile(r"\s{0,3}>")
_TABLE_RULE = re.compile(r"\s*\|?\s*:?-+:?\s*(?:\|\s*:?-+:?\s*)*\|?\s*$")
_NOISE = re.compile(
    r"\s*(?:#{1,6}\s|!!!|\?\?\?|:::|///|<!--|<[^>]*>\s*$|={3,}\s*$|(?:[-*_]\s*){3,}$|\[[^\]]+\]:\s)"
)
POINTER = re.compile(
    r"(?:\W*)(?:see|read|learn|check out|visit|explore|refer to|for more|to learn more"
    r"|follow)\b[^\n]{0,160}\Z",
    re.IGNORECASE,
)
_CODE_SIGN = re.compile(r"[{}<>=;\\]|\"[,:]|[(\[]\"")
_INLINE_CODE = re.compile(r"`[^`]*`")
_CODE = re.compile(r"(?: {4}|\t)\s*\S")
_PAIRED = ("`", "**", "__")
COMPLETE = (".", "!", "?", "…", "。", "！", "？", ":", "：", ")", "*", "`", '"', "”")
_WRAPPED_LINE = 50  # such a line without a stop continues in the next


def spans_of(text: str, *, shows: bool) -> list[QuotableSpan]:
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


def _with_announced(
    text: str, spans: Sequence[QuotableSpan], index: int, *, shows: bool
) -> QuotableSpan:
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
        and bool(FENCE.match(text, following[0].start))
        and not FENCE.match(text, span.start)
    )
    if not following or not (announces or shown):
        return span
    last = index + 1
    while last + 1 < len(spans) and _continues(text, spans[last], spans[last + 1]):
        last += 1
    end = spans[last].end
    return (
        QuotableSpan(start=span.start, end=end, block=spans[last].block, lead=span.end)
        if end - span.start <= _LONGEST_BLOCK
        else span
    )


def _leads(text: str, before: QuotableSpan, span: QuotableSpan) -> bool:
    """Tell whether a sentence leads to a block: a title above a table does not."""
    return not is_table(text[span.start : span.end]) or text[before.start : before.end].rstrip(
        "*_"
    ).endswith((".", "!", ":", "。", "：", "?", "？"))


def _with_lead(text: str, spans: Sequence[QuotableSpan], index: int) -> QuotableSpan | None:
    """Join code or a table with the sentence before it: by itself it says little and has no place
    for a marker.
    """
    span, before = spans[index], spans[index - 1] if index else None
    if (
        before is None
        or before.block
        or not ends_with_block(text[span.start : span.end])
        or span.end - before.start > _LONGEST_BLOCK
        or not _leads(text, before, span)
    ):
        return None
    return QuotableSpan(start=before.start, end=span.end, block=True, lead=before.end)


def _continues(text: str, span: QuotableSpan, following: QuotableSpan) -> bool:
    """Tell whether two spans are items of one list, or lines of one paragraph, as in lists that
    lost their markup.
    """
    return (span.item and following.item) or (
        not span.block
        and not following.block
        and text[span.end : following.start] == "\n"
        and text[following.end - 1] != ":"
    )


def _simple_spans(text: str) -> Iterator[QuotableSpan]:
    rows = text.split("\n")
    number = _end_of_cut_code(rows)
    at = sum(len(row) + 1 for row in rows[:number])
    while number < len(rows):
        kind, count = _block(rows, number)
        end = at + sum(len(row) + 1 for row in rows[number : number + count]) - 1
        if kind == "paragraph":
            yield from _sentences(text, at, end)
        elif kind != "noise" and _is_whole(text[at:end]):
            yield QuotableSpan(
                start=at, end=at + len(text[at:end].rstrip()), block=True, item=kind == "item"
            )
        at, number = end + 1, number + count


def _end_of_cut_code(rows: Sequence[str]) -> int:
    """Return where the code ends that a passage begins in the middle of; 0 if it does not: then the
    first fence has a language, or text before it.
    """
    fences = [number for number, row in enumerate(rows) if FENCE.match(row)]
    if len(fences) % 2 == 0 or rows[fences[0]].strip().strip("`~"):
        return 0
    return fences[0] + 1 if looks_like_code("\n".join(rows[: fences[0]])) else 0


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
    opened = FENCE.match(rows[first])
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
                or FENCE.match(row)
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


def _code_end(rows: Sequence[str], first: int) -> int:
    """Return the last row of indented code, which may have blank rows."""
    last = first
    for number in range(first + 1, len(rows)):
        if _CODE.match(rows[number]):
            last = number
        elif rows[number].strip():
            break
    return last


def _rows_end(rows: Sequence[str], first: int) -> int:
    while first + 1 < len(rows) and is_row(rows[first + 1]):
        first += 1
    return first


def _is_table(rows: Sequence[str], number: int) -> bool:
    return "|" in rows[number] and number + 1 < len(rows) and is_rule(rows[number + 1])


def _is_code(rows: Sequence[str], number: int) -> bool:
    return bool(_CODE.match(rows[number])) and (number == 0 or not rows[number - 1].strip())


Extent = Callable[[Sequence[str], int], int]  # (rows, first row) -> last row
_BLOCKS: dict[str, tuple[Callable[[Sequence[str], int], bool], Extent]] = {
    "fence": (lambda rows, number: bool(FENCE.match(rows[number])), _fence_end),
    "table": (_is_table, _run_end(re.compile(r".*\|"))),
    "code": (_is_code, _code_end),
    "rows": (lambda rows, number: is_row(rows[number]), _rows_end),
    "item": (lambda rows, number: bool(_ITEM.match(rows[number])), _item_end),
    "quoted": (lambda rows, number: bool(_QUOTED.match(rows[number])), _run_end(_QUOTED)),
}


def _is_whole(block: str) -> bool:
    """Tell whether every fence that is opened is closed."""
    return sum(bool(FENCE.match(row)) for row in block.split("\n")) % 2 == 0


def _sentences(text: str, start: int, end: int) -> Iterator[QuotableSpan]:
    """Yield sentences, cut after stops and after lines too short to have been wrapped; never inside
    code, bold type or a link's text.
    """
    paired = all(_is_paired(text[start:end], mark) for mark in _PAIRED)
    begin = start
    for found in STOP.finditer(text, start, end):
        piece = text[begin : found.start()]
        line = text[text.rfind("\n", 0, found.start()) + 1 : found.start()]
        if found.group() == "\n" and len(line) >= _WRAPPED_LINE and not line.endswith((":", "：")):
            continue
        stop, after = found["stop"], text[found.end() : min(found.end() + 20, end)]
        if stop and (after[:1].islower() or (stop == "." and not ends_sentence(piece, after))):
            continue
        if piece.count("[") > piece.count("]"):
            continue
        if paired and not all(_is_paired(piece + found.group(), mark) for mark in _PAIRED):
            continue
        yield from _stripped(text, begin, found.end())
        begin = found.end()
    yield from _stripped(text, begin, end)


def _is_paired(text: str, mark: str) -> bool:
    return text.count(mark) % 2 == 0


def _stripped(text: str, start: int, end: int) -> Iterator[QuotableSpan]:
    part = text[start:end]
    if part.strip():
        yield QuotableSpan(
            start=start + len(part) - len(part.lstrip()), end=start + len(part.rstrip())
        )


def text_of(text: str, span: QuotableSpan) -> str:
    return (
        "\n".join(text[start:end] for start, end in span.rows)
        if span.rows
        else text[span.start : span.end]
    )


def lines_of(text: str, span: QuotableSpan) -> Iterator[tuple[int, int]]:
    start = span.start
    for line in text[span.start : span.end].split("\n"):
        yield start, start + len(line)
        start += len(line) + 1


def is_rule(line: str) -> bool:
    return "|" in line and bool(_TABLE_RULE.match(line))


def is_row(line: str) -> bool:
    """Tell whether a line is a row of a table."""
    plain = _INLINE_CODE.sub("", line)
    return " | " in plain or plain.strip().startswith("|")


def only_asks(text: str) -> bool:
    """Tell whether a sentence is a question."""
    return text.rstrip("*_ ").endswith(("?", "？", "؟"))


def is_table(text: str) -> bool:
    return is_row(text.split("\n", 1)[0])


def looks_like_code(text: str) -> bool:
    return len(_CODE_SIGN.findall(text)) > 0.04 * len(text)


def ends_with_block(text: str) -> bool:
    """Tell whether the text ends with code or a table: a marker there would break it, and goes to
    the sentence before or on its own line.
    """
    last = text.rsplit("\n", 1)[-1]
    return bool(FENCE.match(last)) or is_row(last) or last.startswith(("    ", "\t"))
