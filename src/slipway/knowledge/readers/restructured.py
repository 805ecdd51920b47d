"""Read reStructuredText, with the directives of Sphinx, and write it as Markdown: code in fences,
notes as sentences, tables as rows. What only steers the layout is left out.
"""

import csv
import io
import re
from collections.abc import Callable, Iterator, Sequence

from slipway.knowledge.readers.document import (
    DocumentBuilder,
    OnPage,
    ParsedDocument,
    one_line,
    write_grid,
)
from slipway.knowledge.readers.encoding import decoded
from slipway.knowledge.readers.front_matter import front_matter_of_text
from slipway.knowledge.readers.restructured_inline import inline
from slipway.types import Record

_RULE = re.compile(r"([!-/:-@\[-`{-~])\1{2,}[ \t]*$")
_DIRECTIVE = re.compile(r"\.\. +(?:\|[^|]+\| +)?(?P<name>[\w:.+-]+?):: *(?P<argument>.*)$")
_EXPLICIT = re.compile(r"\.\.(?:\s|$)|__\s")
_FOOTNOTE = re.compile(r"\.\. \[(?P<label>#?[^\]\s]*|\*)\] ")
_OPTION = re.compile(r":(?P<name>[\w-]+):(?: +(?P<value>.*)|$)")
_FIELD = re.compile(r":(?P<name>[^:\s][^:]*):(?: +|$)(?=\S|$)")
_ITEM = re.compile(r"(?P<mark>[-*+•]|(?P<number>\(?(?:\d{1,3}|#|[a-zA-Z])[.)]))(?P<space> +)(?=\S)")
_SIMPLE_RULE = re.compile(r"=+(?: +=+)+ *$")
_DEEPEST = 20  # blocks within blocks
_SHORTEST_RULE = 4  # signs below a longer title
_REPLACEMENT = re.compile(r"^\.\. (\|[^|\n]+\|) replace:: *(.+)$", re.MULTILINE)

_CODE_LIST = """
    code code-block sourcecode parsed-literal prompt ipython doctest testcode testoutput
    productionlist console
"""
_CODE = frozenset(_CODE_LIST.split())
_NOTES = {
    **{
        name: name.capitalize()
        for name in [
            "note",
            "warning",
            "tip",
            "hint",
            "important",
            "caution",
            "danger",
            "attention",
            "error",
        ]
    },
    "seealso": "See also",
    "versionadded": "Added in version",
    "versionchanged": "Changed in version",
    "deprecated": "Deprecated since version",
    "deprecated-removed": "Deprecated since version",
    "versionremoved": "Removed in version",
}
_VERSIONED = frozenset(["versionadded", "versionchanged", "deprecated", "versionremoved"])
_LEFT_OUT_LIST = """
    toctree index contents raw highlight currentmodule module py:module py:currentmodule
    include literalinclude meta role default-role default-domain tabularcolumns sectionauthor
    codeauthor unicode replace graphviz digraph plot todo todolist image program sectnum
    header footer target-notes highlightlang date
"""
_LEFT_OUT = frozenset(_LEFT_OUT_LIST.split())
_OBJECTS_LIST = """
    function class method attribute data exception option cmdoption confval envvar describe
    object decorator staticmethod classmethod property macro type var member struct enum
    setting templatetag templatefilter fieldlookup django-admin django-admin-option
"""
_OBJECTS = frozenset(_OBJECTS_LIST.split())


class _Heading(Record, frozen=True, kw_only=True):
    level: int
    text: str


class _Rows(Record, frozen=True, kw_only=True):
    grid: list[list[str]]
    heads: int


RstBlock = str | _Heading | _Rows


def restructured(data: bytes, fallback: str, _: OnPage) -> ParsedDocument:
    """Read reStructuredText. Headings are underlined, perhaps overlined too; a style's level is the
    order in which it first appears.
    """
    file = decoded(data)
    front = front_matter_of_text(file.text)
    builder = DocumentBuilder()
    lines = _replaced(file.text[front.end :].expandtabs(8)).split("\n")
    for block in _RestructuredReading().blocks(lines, top=True):
        if isinstance(block, _Heading):
            builder.heading(block.level, block.text)
        elif isinstance(block, _Rows):
            write_grid(builder, block.grid, block.heads)
        else:
            builder.block(block)
    builder.losses += file.losses
    title = builder.headings[0].text if builder.headings else fallback
    return builder.document(title, front.meta)


def _replaced(text: str) -> str:
    """Return the text with what its substitutions stand for."""
    said = dict(_REPLACEMENT.findall(text))
    if not said:
        return text
    names = "|".join(map(re.escape, said))
    return re.sub(rf"(?<!\.\. )(?:{names})", lambda found: said[found[0]], text)


class _RestructuredReading:
    """Turns lines into blocks. Blocks within blocks are read the same way."""

    def __init__(self) -> None:
        self._ranks: dict[tuple[str, bool], int] = {}
        self._depth = 0

    def blocks(self, lines: Sequence[str], *, top: bool = False) -> Iterator[RstBlock]:
        """Yield the blocks of these lines; headings only at the `top`."""
        at = 0
        while at < len(lines):
            if not lines[at].strip():
                at += 1
                continue
            used, found = self._block(lines, at, top=top)
            yield from found
            at += max(used, 1)

    def _inner(self, lines: Sequence[str]) -> list[str]:
        """Return the blocks of a part as texts."""
        if self._depth >= _DEEPEST:
            return ["\n".join(lines)]
        self._depth += 1
        found = [_as_text(block) for block in self.blocks(_dedented(lines))]
        self._depth -= 1
        return [text for text in found if text]

    def _block(self, lines: Sequence[str], at: int, *, top: bool) -> tuple[int, Sequence[RstBlock]]:
        """Return how many lines the block takes, and what it says."""
        line = lines[at]
        if top and (heading := self._heading(lines, at)):
            return heading
        if _EXPLICIT.match(line):
            end = _end_of_part(lines, at + 1)
            return end - at, self._explicit(lines[at], lines[at + 1 : end])
        if line.startswith("+-") and "+" in line[1:]:
            return _while(lines, at, lambda row: row[:1] in ("+", "|"), _grid_table)
        if _SIMPLE_RULE.match(line):
            return _simple_table(lines, at)
        if _RULE.match(line) and len(line.strip()) > 3:
            return 1, ()
        if line.startswith(">>>"):
            return _while(lines, at, str.strip, lambda rows: [_fence("python", rows)])
        if line.startswith("| "):
            return _while(
                lines, at, str.strip, lambda rows: ["\n".join(inline(r[2:]) for r in rows)]
            )
        if line[0] == " ":
            end = _end_of_part(lines, at)
            return end - at, self._inner(lines[at:end])
        return self._text(lines, at)

    def _heading(self, lines: Sequence[str], at: int) -> tuple[int, Sequence[RstBlock]] | None:
        over = bool(_RULE.match(lines[at]))
        name = lines[at + over] if at + over < len(lines) else ""
        rule = lines[at + over + 1].rstrip() if at + over + 1 < len(lines) else ""
        underlined = bool(_RULE.match(rule)) and not _RULE.match(name) and bool(name.strip())
        # As docutils does: it only warns of a rule that is too short, from 4 signs on
        long_enough = len(rule) >= min(len(name.strip()), _SHORTEST_RULE)
        if not underlined or not long_enough or (not over and name[0] == " "):
            return None
        if over and lines[at].rstrip() != rule:
            return None
        level = self._ranks.setdefault((rule[0], over), len(self._ranks) + 1)
        text = one_line(inline(name).replace("`", ""))
        return 2 + over, [_Heading(level=level, text=text)]

    def _text(self, lines: Sequence[str], at: int) -> tuple[int, Sequence[RstBlock]]:
        """Read a paragraph, a list, or terms with their definitions."""
        if _ITEM.match(lines[at]):
            end = _end_of_list(lines, at)
            return end - at, ["\n".join(self._items(lines[at:end]))]
        if field := _FIELD.match(lines[at]):
            end = _end_of_part(lines, at + 1)
            said = self._inner(
                [lines[at][field.end() :], *_dedented(lines[at + 1 : end], keep_blank=True)]
            )
            return end - at, _named(inline(field["name"]), said) if said else ()
        following = lines[at + 1] if at + 1 < len(lines) else ""
        if following[:1] == " " and following.strip() and not lines[at].endswith("::"):
            end = _end_of_part(lines, at + 1)
            return end - at, _named(inline(lines[at].strip()), self._inner(lines[at + 1 : end]))
        last = at
        while last + 1 < len(lines) and lines[last + 1].strip():
            if _EXPLICIT.match(lines[last + 1]):
                break
            last += 1
        text = "\n".join(line.rstrip() for line in lines[at : last + 1])
        if not text.endswith("::"):
            return last + 1 - at, [inline(text)]
        text = text[:-2].rstrip() if text.endswith(" ::") or text == "::" else text[:-1]
        end = _end_of_part(lines, last + 1)
        code = _dedented(lines[last + 1 : end])
        return end - at, [*([inline(text)] if text else []), *([_fence("", code)] if code else [])]

    def _items(self, lines: Sequence[str]) -> Iterator[str]:
        """Yield the lines of a list, each item with what belongs to it."""
        starts = [(n, item) for n, line in enumerate(lines) if (item := _ITEM.match(line))]
        ends = [*(start for start, _ in starts[1:]), len(lines)]
        count = 0
        for (start, item), end in zip(starts, ends, strict=True):
            count += bool(item["number"])
            mark = (item["number"] or "-").replace("#", str(count))
            below = _dedented(lines[start + 1 : end], keep_blank=True, most=item.end())
            inside = self._inner([lines[start][item.end() :], *below])
            text = "\n\n".join(inside).replace("\n", "\n" + " " * (len(mark) + 1))
            yield re.sub(r"\n +(?=\n)", "\n", f"{mark} {text}")

    def _explicit(self, line: str, body: Sequence[str]) -> Sequence[RstBlock]:
        """Read what begins with `..`: a directive, a note, a target, a comment."""
        if note := _FOOTNOTE.match(line):
            return self._inner([line[note.end() :], *_dedented(body, keep_blank=True)])
        found = _DIRECTIVE.match(line)
        if found is None:
            return ()
        name, argument = found["name"].lower(), found["argument"].strip()
        if name in _LEFT_OUT or "|" in line[: found.start("name")]:
            return _alternative(body) if name == "image" else ()
        options, content, more = _options(body)
        kind = name.rsplit(":", 1)[-1]
        if name in _CODE:
            return [_fence(argument.split(" ")[0], [*content])] if any(content) else ()
        if name in _NOTES:
            return self._note(name, " ".join([argument, *more]).strip(), content)
        if name in ("csv-table", "list-table", "table"):
            return self._table(name, argument, options, content)
        if kind in _OBJECTS or name.startswith("auto"):
            signatures = "`, `".join(one_line(each) for each in [argument, *more] if each.strip())
            return _named(f"`{signatures}`", self._inner(content))
        if name == "figure":
            return [*_alternative(body), *self._inner(content)]
        if name == "math":
            return ["$$\n" + "\n".join([argument, *more, *content]).strip() + "\n$$"]
        title = inline(" ".join([argument, *more]).strip())
        return [*([title] if title else []), *self._inner(content)]

    def _note(self, name: str, argument: str, content: Sequence[str]) -> Sequence[RstBlock]:
        title = _NOTES[name]
        if name not in _VERSIONED:
            return _named(title, self._inner([argument, *content]))
        version, _, said = argument.partition(" ")
        return _named(f"{title} {version}", self._inner([said, *content]))

    def _table(
        self, name: str, title: str, options: dict[str, str], content: Sequence[str]
    ) -> Sequence[RstBlock]:
        before = [inline(title)] if title else []
        if name == "table":
            return [*before, *self.blocks(_dedented(content))]
        if name == "csv-table":
            rows = list(csv.reader(io.StringIO("\n".join(content)), skipinitialspace=True))
            head = next(csv.reader([options.get("header", "")], skipinitialspace=True), [])
            heads = 1 if head else int(options.get("header-rows") or 0)
            grid = [*([head] if head else []), *(row for row in rows if row)]
        else:
            heads, grid = int(options.get("header-rows") or 0), self._listed_rows(content)
        said = [[inline(one_line(cell)) for cell in row] for row in grid]
        return [*before, _Rows(grid=said, heads=heads)] if said else before

    def _listed_rows(self, content: Sequence[str]) -> list[list[str]]:
        """Return the rows of a `list-table`: a list of lists."""
        rows = list[list[str]]()
        for line in _dedented(content):
            if line.startswith("* -"):
                rows.append([line[3:].strip()])
            elif re.match(r"  -(?: |$)", line) and rows:
                rows[-1].append(line[3:].strip())
            elif line.strip() and rows:
                rows[-1][-1] += f" {line.strip()}"
        return rows


def _as_text(block: RstBlock) -> str:
    if isinstance(block, _Rows):
        builder = DocumentBuilder()
        write_grid(builder, block.grid, block.heads)
        return builder.document("", {}).text.strip()
    return block.text if isinstance(block, _Heading) else block.strip("\n")


def _named(name: str, said: Sequence[str]) -> list[RstBlock]:
    """Join a term with the paragraph that explains it."""
    if not said:
        return [name]
    begins_block = said[0].startswith(("```", "- ", "|", "1. "))
    first = [f"{name}:", said[0]] if begins_block else [f"{name}: {said[0]}"]
    return [*first, *said[1:]]


def _fence(language: str, lines: Sequence[str]) -> str:
    code = "\n".join(line.rstrip() for line in lines).strip("\n")
    marks = "````" if "```" in code else "```"
    return f"{marks}{language}\n{code}\n{marks}"


def _alternative(body: Sequence[str]) -> Sequence[str]:
    """Return the text that stands for an image."""
    alt = _options(body)[0].get("alt", "")
    return [inline(alt)] if alt else ()


def _options(body: Sequence[str]) -> tuple[dict[str, str], list[str], list[str]]:
    """Return a directive's options, its content, and the further lines of its argument. Options and
    argument end at the first blank line.
    """
    lines, top = _dedented(body, keep_blank=True), list[str]()
    while lines and lines[0].strip():
        top.append(lines.pop(0))
    options, more, name = dict[str, str](), list[str](), ""
    for line in top:
        if found := _OPTION.match(line):
            name = found["name"]
            options[name] = found["value"] or ""
        elif name:
            options[name] += f" {line.strip()}"
        else:
            more.append(line.rstrip())
    return options, _dedented(lines), more


def _dedented(lines: Sequence[str], *, keep_blank: bool = False, most: int = 1000) -> list[str]:
    """Return the lines without their common indentation, of at most so many columns."""
    indents = (len(line) - len(line.lstrip()) for line in lines if line.strip())
    depth = min([*indents, most])
    found = [line[depth:] for line in lines]
    while found and not found[0].strip() and not keep_blank:
        del found[0]
    while found and not found[-1].strip():
        del found[-1]
    return found


def _end_of_part(lines: Sequence[str], start: int) -> int:
    """Return where the indented lines from `start` on end."""
    end = start
    while end < len(lines) and (not lines[end].strip() or lines[end][0] == " "):
        end += 1
    return end


def _end_of_list(lines: Sequence[str], start: int) -> int:
    end = start + 1
    while end < len(lines):
        outside = lines[end].strip() and lines[end][0] != " " and not _ITEM.match(lines[end])
        if outside and (not lines[end - 1].strip() or _EXPLICIT.match(lines[end])):
            break
        end += 1
    return end


def _while(
    lines: Sequence[str],
    at: int,
    belongs: Callable[[str], object],
    read: Callable[[Sequence[str]], Sequence[RstBlock]],
) -> tuple[int, Sequence[RstBlock]]:
    end = at
    while end < len(lines) and belongs(lines[end]):
        end += 1
    return end - at, read(lines[at:end])


# Tables


def _grid_table(lines: Sequence[str]) -> Sequence[RstBlock]:
    """Read a table drawn with `+---+` and `|`."""
    edges = sorted(
        {n for line in lines if line[0] == "+" for n, sign in enumerate(line) if sign == "+"}
    )
    rows, row, heads = list[list[str]](), list[str](), 0
    for line in lines:
        if line[0] == "+":
            if any(row):
                rows.append([inline(one_line(cell)) for cell in row])
            heads = len(rows) if "=" in line else heads
            row = []
            continue
        cells = _cells(line, edges)
        row = [f"{old}\n{new}" for old, new in zip(row, cells, strict=True)] if row else cells
    return [_Rows(grid=rows, heads=heads)] if rows else ()


def _cells(line: str, edges: Sequence[int]) -> list[str]:
    """Return the cells of a line; one that covers several columns is repeated in each."""
    cells, start = list[str](), edges[0]
    while start < edges[-1]:
        end = next(
            (edge for edge in edges if edge > start and line[edge : edge + 1] == "|"), edges[-1]
        )
        cells += [line[start + 1 : end].strip()] * sum(start < edge <= end for edge in edges)
        start = end
    return cells


def _simple_table(lines: Sequence[str], at: int) -> tuple[int, Sequence[RstBlock]]:
    """Read a table whose columns are under `====  ====`; a line that begins with a gap continues
    the row above it.
    """
    columns = [found.span() for found in re.finditer("=+", lines[at])]
    rules = list[int]()
    for number in range(at, len(lines)):
        if _SIMPLE_RULE.match(lines[number]):
            rules.append(number)
            following = lines[number + 1] if number + 1 < len(lines) else ""
            if len(rules) > 1 and not following.strip():
                break
    rows, heads = list[list[str]](), 0
    for number in range(at + 1, rules[-1]):
        line = lines[number]
        if _SIMPLE_RULE.match(line):
            heads = len(rows)
        elif line.strip() and not _RULE.match(line.replace(" ", "")):
            ends = [*(start for start, _ in columns[1:]), len(line)]
            cells = [line[start:end].strip() for (start, _), end in zip(columns, ends, strict=True)]
            if not cells[0] and rows:
                rows[-1] = [one_line(f"{a} {b}") for a, b in zip(rows[-1], cells, strict=True)]
            else:
                rows.append(cells)
    said = [[inline(cell) for cell in row] for row in rows]
    used = rules[-1] + 1 - at
    return used, [_Rows(grid=said, heads=heads)] if said else ()
