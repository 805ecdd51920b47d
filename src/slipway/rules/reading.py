"""Read a rules file: every problem with its file, line and field."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from slipway.errors import SettingsError
from slipway.rules.normalising import normal_form
from slipway.rules.patterns import PatternProblem, pattern_of
from slipway.rules.rule import Rule, RuleFile
from slipway.rules.slots import PARTS, Slot
from slipway.rules.tables import Table, TableProblem, read_table
from slipway.rules.templates import TODAY, Template, TemplateProblem, template_of
from slipway.settings.reading import InvalidValue, Reader, parse
from slipway.types import Record

MAX_QUESTION = 1000  # characters of a question that rules look at
LANGUAGES = ("en", "zh")  # that rules recognise in a question
MAX_MB = 20  # of a rules file


class RulesReader(Reader):
    """Reads a rules file. Variables are not filled in: an answer must not show the environment."""

    root = RuleFile

    def with_variables(self, value: Any, path: str) -> Any:
        return value


class ReadRules(Record, frozen=True, kw_only=True):
    """A rules file that is valid: its rules, tables, and the line of each field."""

    file: Path
    content: RuleFile
    tables: dict[str, Table]
    lines: dict[str, int]
    digest: str  # changes with the file and its tables
    tables_digest: str

    @property
    def files(self) -> tuple[Path, ...]:
        """Return the files whose change changes the rules."""
        return (self.file, *table_files(self.file, self.content))

    def place(self, path: str) -> str:
        """Return `FILE:LINE: FIELD`."""
        return f"{self.file}:{self.lines.get(path, 1)}: {path}"


def table_files(file: Path, content: RuleFile) -> Iterator[Path]:
    for table in (content.tables or {}).values():
        yield file.parent / table.file


def read_rules(file: Path) -> ReadRules:
    """Return the rules of a file. Raises SettingsError with every problem found."""
    text = text_of(file)
    reader = RulesReader(str(file), {})
    root = parse(text, str(file), reader)
    content = RuleFile()
    if root is not None:
        try:
            content = reader.value(root, RuleFile, "")
        except InvalidValue:
            content = RuleFile()
    tables, digest = dict[str, Table](), hashlib.sha256()
    for name, table in (content.tables or {}).items():
        path = file.parent / table.file
        try:
            tables[name] = read_table(name, path, table.key, table.also)
            digest.update(path.read_bytes())
        except TableProblem as problem:
            reader.problem(f"tables.{name}", str(problem))
        except OSError as error:
            reader.problem(f"tables.{name}", f"`{path}` cannot be read: {error}")
    if not reader.problems:
        check(content, tables, reader)
    if reader.problems:
        raise SettingsError(reader.problems)
    return ReadRules(
        file=file,
        content=content,
        tables=tables,
        lines=reader.lines,
        digest=hashlib.sha256(f"{digest.hexdigest()}{text}".encode()).hexdigest(),
        tables_digest=digest.hexdigest(),
    )


def text_of(file: Path) -> str:
    """Return the text of the file. Raises SettingsError."""
    try:
        if file.stat().st_size > MAX_MB * 1024 * 1024:
            raise SettingsError([f"{file}: the rules file is larger than {MAX_MB} MiB"])
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise SettingsError([f"{file}: this is not UTF-8 text; save it as UTF-8"]) from None
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise SettingsError([f"{file}: the rules file cannot be read: {why}"]) from None


def check(content: RuleFile, tables: Mapping[str, Table], reader: Reader) -> None:
    """Report what the types cannot: names twice, questions twice, rules that match nothing."""
    if content.timezone is not None:
        check_timezone(content.timezone, reader)
    seen = dict[str, int]()
    for i, rule in enumerate(content.rules):
        path = f"rules[{i}]"
        if rule.name in seen:
            reader.problem(
                f"{path}.name",
                f"`{rule.name}` is already the name of the rule on line "
                f"{reader.lines.get(f'rules[{seen[rule.name]}]', 1)}; rename one",
            )
        seen.setdefault(rule.name, i)
        check_rule(rule, path, reader)
        check_answer(rule, path, tables, reader)
    check_claims(content.rules, reader)


def check_timezone(name: str, reader: Reader) -> None:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        reader.problem("timezone", f"`{name}` is not a time zone; write one such as `Europe/Paris`")


def check_rule(rule: Rule, path: str, reader: Reader) -> None:
    if not (rule.questions or rule.patterns or rule.examples):
        reader.problem(
            path, f"`{rule.name}` matches nothing; add `questions`, `patterns` or `examples`"
        )
    if rule.counter_examples and not rule.examples:
        reader.problem(
            f"{path}.counter_examples", "counter-examples need `examples`; add them, or remove it"
        )
    for field in ("questions", "patterns", "examples", "counter_examples"):
        for n, text in enumerate(getattr(rule, field)):
            if not normal_form(text):
                at = written_at(f"{path}.{field}[{n}]", reader)
                reader.problem(at, f"`{text}` has no words; write a question")
            elif len(text) > MAX_QUESTION:
                reader.problem(
                    f"{path}.{field}[{n}]",
                    f"this is longer than {MAX_QUESTION} characters; rules look at no more",
                )


def check_answer(rule: Rule, path: str, tables: Mapping[str, Table], reader: Reader) -> None:
    """Check the answer, the patterns, and that each pattern has the slots that the answer uses."""
    templates = templates_of(rule, f"{path}.answer", reader)
    used = set[str]().union(*(template.names for template in templates)) - {TODAY}
    columns = {part for template in templates for part in template.columns}
    for name, column in sorted(columns):
        if name == TODAY:
            reader.problem(f"{path}.answer", f"`{TODAY}` is a date and has no `.{column}`")
    if used and (rule.questions or rule.examples):
        reader.problem(
            f"{path}.answer",
            f"the answer uses `{{{min(used)}}}`, which only `patterns` can fill; give `questions` "
            "and `examples` a rule of their own",
        )
    for n, text in enumerate(rule.patterns):
        at = written_at(f"{path}.patterns[{n}]", reader)
        try:
            slots = pattern_of(text, rule, tables).slots
            check_slots(slots, used, {part for part in columns if part[0] != TODAY})
        except PatternProblem as problem:
            reader.problem(at, str(problem))
        except SettingsError as error:
            reader.problem(at, error.problems[0])


def templates_of(rule: Rule, path: str, reader: Reader) -> list[Template]:
    """Return the templates of an answer that are valid; report the others."""
    by_language = {"": rule.answer} if isinstance(rule.answer, str) else rule.answer
    if not by_language or not all(text.strip() for text in by_language.values()):
        reader.problem(path, "the answer is empty; write what people should read")
    found = list[Template]()
    for language, text in by_language.items():
        if language not in ("", *LANGUAGES):
            reader.problem(
                path,
                f"`{language}` is no language that rules recognise; write `en` or `zh`, or one text",
            )
        try:
            found.append(template_of(text))
        except TemplateProblem as problem:
            reader.problem(path, str(problem))
    return found


def check_slots(slots: Sequence[Slot], used: Set[str], columns: Set[tuple[str, str]]) -> None:
    """Raise PatternProblem if the answer uses a slot or a column that is not there."""
    known = {slot.name: slot for slot in slots}
    if missing := sorted(used - set(known)):
        raise PatternProblem(
            f"the answer uses `{{{missing[0]}}}`, and this pattern has no such slot; its slots: "
            f"{', '.join(known) or 'none'}"
        )
    for name, column in sorted(columns):
        slot = known[name]
        parts = PARTS.get(slot.kind, slot.columns)
        if column not in parts:
            raise PatternProblem(
                f"the answer uses `{{{name}.{column}}}`, and the {slot.kind} `{name}` has no "
                f"`{column}`; it has: {', '.join(parts) or 'nothing'}"
            )


class Claim(Record, frozen=True, kw_only=True):
    """A question that a rule answers, and where it is written."""

    path: str
    text: str
    rule: Rule
    counter: bool = False


def claims(rules: Sequence[Rule]) -> Iterator[Claim]:
    """Yield every full question of the rules, their examples and counter-examples."""
    for i, rule in enumerate(rules):
        for field in ("questions", "examples", "counter_examples"):
            for n, text in enumerate(getattr(rule, field)):
                yield Claim(
                    path=f"rules[{i}].{field}[{n}]",
                    text=text,
                    rule=rule,
                    counter=field == "counter_examples",
                )


def check_claims(rules: Sequence[Rule], reader: Reader) -> None:
    """Report two rules that claim the same question, unless the first is for other groups."""
    seen = dict[str, Claim]()
    counters = {(c.rule.name, normal_form(c.text)) for c in claims(rules) if c.counter}
    for claim in claims(rules):
        form = normal_form(claim.text)
        if claim.counter:
            continue
        if (claim.rule.name, form) in counters:
            reader.problem(
                written_at(claim.path, reader),
                f"`{claim.text}` is an example and a counter-example of `{claim.rule.name}`; "
                "remove one",
            )
        before = seen.setdefault(form, claim)
        if before.rule is claim.rule or is_for_others(before.rule, claim.rule):
            continue
        line = reader.lines.get(written_at(before.path, reader), 1)
        reader.problem(
            written_at(claim.path, reader),
            f"`{claim.text}` is claimed by two rules: `{claim.rule.name}` here, and "
            f"`{before.rule.name}` on line {line}; remove it from one",
        )


def written_at(path: str, reader: Reader) -> str:
    """Return the path of an item as it is written: one alone may be written without a list."""
    return path if path in reader.lines else path[: path.rindex("[")]


def is_for_others(first: Rule, second: Rule) -> bool:
    """Return whether the second rule still answers somebody, since the first is for other groups."""
    return bool(first.groups) and first.groups != second.groups
