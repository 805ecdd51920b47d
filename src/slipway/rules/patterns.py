"""Patterns: questions with slots, compiled for RE2, which matches in linear time.

`how far is [the] {city:branches} (branch|shop)`: `{name:type}` is a slot, `[…]` may be left out,
`(a|b)` is a choice. Case, width, spaces and punctuation do not count. A pattern between slashes is
a regular expression of RE2 with named groups as slots; what RE2 refuses could run for ever.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING, Any

from slipway.errors import SettingsError
from slipway.rules.normalising import has_han, in_one_width
from slipway.rules.rule import Rule
from slipway.rules.slots import Slot, SlotProblem, slot_of
from slipway.rules.tables import Table
from slipway.rules.values import Value
from slipway.types import Record

if TYPE_CHECKING:
    from types import ModuleType

MAX_PATTERN = 1000  # characters
MAX_DEPTH = 20
MAX_MEMORY = 4 * 1024 * 1024  # bytes that RE2 may take for one pattern
_SIGNS = r"[\s,;:.!?…\"'“”‘’()\[\]，。！？；：、-]"
_POLITE_START = rf"(?:(?:hi|hello|hey|please|excuse me|请问|你好|您好){_SIGNS}*)*"
_POLITE_END = rf"(?:{_SIGNS}*(?:please|thanks|thank you|谢谢))*{_SIGNS}*"
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_GROUP = re.compile(r"\(\?P?<([A-Za-z_][A-Za-z0-9_]*)>")
_BACKTRACKS = ("(?=", "(?!", "(?<=", "(?<!", "(?>", "(?P=", "(?(")


class PatternProblem(Exception):
    """A pattern is not valid; the message says why and how to write it."""


class Pattern(Record, frozen=True, kw_only=True):
    """A compiled pattern with its slots."""

    text: str
    regex: Any
    slots: tuple[Slot, ...]

    def match(self, question: str, today: date) -> dict[str, Value] | None:
        """Return the value of each slot, or None if the question is no such one."""
        found = self.regex.fullmatch(question)
        if found is None:
            return None
        values = dict[str, Value]()
        for slot in self.slots:
            text = found.group(slot.name)
            value = slot.read(text, today) if text is not None else None
            if value is None:
                return None
            values[slot.name] = value
        return values


def engine() -> "ModuleType":
    """Return RE2. Raises SettingsError without the extra `rules`."""
    try:
        import re2
    except ImportError:
        raise SettingsError(
            ["patterns of rules need the extra `rules`; run `pip install 'slipway[rules]'`"]
        ) from None
    return re2  # type: ignore[no-any-return]


def pattern_of(text: str, rule: Rule, tables: Mapping[str, Table]) -> Pattern:
    """Return a compiled pattern. Raises PatternProblem, and SettingsError without RE2."""
    if len(text) > MAX_PATTERN:
        raise PatternProblem(f"the pattern is longer than {MAX_PATTERN} characters; split it")
    given = rule.slots or {}
    try:
        if len(text) > 2 and text[0] == text[-1] == "/":
            slots = tuple(
                slot_of(name, None, given.get(name), tables)
                for name in dict.fromkeys(_GROUP.findall(text))
            )
            source = text[1:-1]
            check_linear(source)
        else:
            parser = _Parser(text, given, tables)
            source = f"{_POLITE_START}{parser.parsed()}{_POLITE_END}"
            slots = tuple(parser.slots.values())
            if not parser.has_words and all(slot.kind == "text" for slot in slots):
                raise PatternProblem("it fits every question; add words that must be there")
    except SlotProblem as problem:
        raise PatternProblem(str(problem)) from None
    check_given(given, slots, rule)
    return Pattern(text=text, regex=compiled(source), slots=slots)


def check_given(given: Iterable[str], slots: Sequence[Slot], rule: Rule) -> None:
    """Raise PatternProblem if `slots` names a slot that no pattern has."""
    here = {slot.name for slot in slots}
    for name in given:
        others = any(f"{{{name}" in text or f"<{name}>" in text for text in rule.patterns)
        if name not in here and not others:
            raise PatternProblem(f"no pattern has the slot `{name}`, which `slots` names")


def check_linear(source: str) -> None:
    """Raise PatternProblem for what only an engine that backtracks could match."""
    looks = next((sign for sign in _BACKTRACKS if sign in source), None)
    if looks is not None or re.search(r"\\[1-9]", source):
        what = f"`{looks}…`" if looks is not None else "a back-reference"
        raise PatternProblem(
            f"{what} could backtrack without end, so it is refused; write two patterns, or test "
            "for it with a slot"
        )


def compiled(source: str) -> Any:
    re2 = engine()
    options = re2.Options()
    options.case_sensitive, options.log_errors, options.max_mem = False, False, MAX_MEMORY
    try:
        return re2.compile(source, options)
    except re2.error as error:
        why = error.args[0] if error.args else error
        why = why.decode() if isinstance(why, bytes) else why
        raise PatternProblem(f"it is no regular expression that RE2 knows: {why}") from None


def cleaned(question: str) -> str:
    """Return a question as patterns see it."""
    return in_one_width(question)


class _Parser:
    """Turn one pattern into a regular expression."""

    def __init__(self, text: str, given: Mapping[str, Any], tables: Mapping[str, Table]) -> None:
        self.text, self.at = in_one_width(text), 0
        self.given, self.tables = given, tables
        self.slots: dict[str, Slot] = {}
        self.has_words = False

    def parsed(self) -> str:
        expression = self.sequence(0)
        if self.at < len(self.text):
            raise PatternProblem(f"`{self.text[self.at]}` closes nothing; write `\\` before it")
        if not expression:
            raise PatternProblem("the pattern is empty")
        return expression

    def sequence(self, depth: int) -> str:
        """Return the expression of the elements up to a closing sign."""
        if depth > MAX_DEPTH:
            raise PatternProblem("the brackets are nested too deeply")
        found, started, before = "", False, ""
        while self.at < len(self.text) and self.text[self.at] not in "])|":
            glue = self.space()
            if self.at >= len(self.text) or self.text[self.at] in "])|":
                break
            start = self.at
            optional = self.text[self.at] == "["
            element = self.element(depth)
            after = self.text[start]
            gap = between(before, after, spaced=glue) if started else ""
            before = self.text[self.at - 1]
            if not optional:
                found, started = f"{found}{gap}{element}", True
            elif started:
                found += f"(?:{gap}{element})?"
            else:
                found += f"(?:{element}{_SIGNS}*)?"
        return found

    def space(self) -> bool:
        start = self.at
        while self.at < len(self.text) and self.text[self.at].isspace():
            self.at += 1
        return self.at > start

    def element(self, depth: int) -> str:
        """Return the expression of a slot, a choice, a part in brackets, or a word."""
        sign = self.text[self.at]
        if sign == "{":
            return self.slot()
        if sign in "([":
            self.at += 1
            choices = [self.sequence(depth + 1)]
            while self.at < len(self.text) and self.text[self.at] == "|":
                self.at += 1
                choices.append(self.sequence(depth + 1))
            closing = {"(": ")", "[": "]"}[sign]
            if self.at >= len(self.text) or self.text[self.at] != closing:
                raise PatternProblem(f"`{sign}` is not closed; add `{closing}`")
            self.at += 1
            if not all(choices):
                raise PatternProblem("a choice is empty; write `[…]` for what may be left out")
            return f"(?:{'|'.join(choices)})"
        return self.word()

    def word(self) -> str:
        """Return the expression of signs up to a space or a special one."""
        found = ""
        while self.at < len(self.text):
            sign = self.text[self.at]
            if sign == "\\" and self.at + 1 < len(self.text):
                self.at += 1
                sign = self.text[self.at]
            elif sign.isspace() or sign in "{}[]()|":
                break
            found += sign
            self.at += 1
        if not found:
            raise PatternProblem(f"`{self.text[self.at]}` closes nothing; write `\\` before it")
        words = found.strip("?!.,;:。？！，；：、")
        self.has_words = self.has_words or bool(words)
        return re.escape(words) if words else f"{_SIGNS}*"

    def slot(self) -> str:
        end = self.text.find("}", self.at)
        if end < 0:
            raise PatternProblem("`{` is not closed; add `}`")
        name, colon, kind = self.text[self.at + 1 : end].partition(":")
        self.at = end + 1
        name, written = name.strip(), kind.strip() if colon else None
        if not _NAME.fullmatch(name):
            raise PatternProblem(
                f"`{name}` is not the name of a slot; write `{{name:type}}`, letters only"
            )
        if name in self.slots:
            raise PatternProblem(f"the slot `{name}` is there twice; give each its own name")
        self.slots[name] = slot_of(name, written, self.given.get(name), self.tables)
        return f"(?P<{name}>{self.slots[name].shape})"


def between(before: str, after: str, *, spaced: bool) -> str:
    """Return what may be between two elements: nothing but spaces and signs, at least one of
    them between words that are written apart.
    """
    if not spaced:
        return r"\s*" if "}" in before or after == "{" else ""
    if has_han(before) or has_han(after):
        return f"{_SIGNS}*"
    return f"{_SIGNS}+"
