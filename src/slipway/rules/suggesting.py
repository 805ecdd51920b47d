"""Propose rules from questions that are asked again and again and always answered the same.

A person decides: an accepted proposal is written into the rules file, and nothing else is.
"""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

import yaml

from slipway.errors import SettingsError
from slipway.rules.book import RuleBook
from slipway.rules.normalising import normal_form
from slipway.rules.reading import read_rules
from slipway.rules.similarity import words_of
from slipway.store import CollectedAnswer
from slipway.terminal import printable
from slipway.types import Record

AT_LEAST = 3  # times that a question must have been asked
SAME_SHARE = 0.8  # share of the answers that must be the same
MOST_VARIANTS = 20  # questions of one proposed rule
_MARKER = re.compile(r"\s*\[\d+\](?:\(#[^)]*\))?")
_NAME_WORDS = 5


class Suggestion(Record, frozen=True, kw_only=True):
    """A proposed rule, with what speaks for it."""

    name: str
    questions: tuple[str, ...]
    answer: str
    groups: tuple[str, ...]
    count: int
    tenants: tuple[str, ...]
    sources: tuple[str, ...]

    def yaml(self, indent: int = 0) -> str:
        """Return the rule as an item of `rules:`, indented by so many spaces."""
        lines = [
            f"# asked {self.count} times by {commented(self.tenants)}"
            + (f"; from {commented(self.sources)}" if self.sources else ""),
            f"- name: {self.name}",
            "  questions:",
            *(f"    - {quoted(question)}" for question in self.questions),
            f"  answer: {quoted(self.answer.replace('{', '{{').replace('}', '}}'))}",
        ]
        if self.groups:
            lines.append(f"  groups: [{', '.join(map(quoted, self.groups))}]")
        lines += ["  tests:", f"    - {quoted(self.questions[0])}"]
        return "".join(f"{' ' * indent}{line}\n" for line in lines)


def commented(names: Sequence[str]) -> str:
    """Return names for a comment, which no line end of theirs may close."""
    return ", ".join("".join(c if c.isprintable() else "?" for c in name) for name in names)


def quoted(text: str) -> str:
    """Return a text as YAML reads it back, on one line; JSON's strings are YAML's, and so are the
    escapes of control characters, which would steer the terminal.
    """
    return printable(json.dumps(text, ensure_ascii=False))


class Asked(Record, frozen=True, kw_only=True):
    """One question, however it was written, with all of its answers."""

    rows: tuple[CollectedAnswer, ...]

    @property
    def question(self) -> str:
        """Return the most frequent way of writing it."""
        return Counter(row.question.strip() for row in self.rows).most_common(1)[0][0]

    def usual_answer(self) -> str | None:
        """Return the answer that nearly all of them have; None if there is no such one."""
        counts = Counter(plain(row.text) for row in self.rows)
        answer, count = counts.most_common(1)[0]
        return answer if count >= SAME_SHARE * len(self.rows) else None


def plain(text: str) -> str:
    """Return an answer without the markers of its sources, which a rule does not have."""
    return _MARKER.sub("", text).strip()


def suggestions(
    rows: Sequence[CollectedAnswer], book: RuleBook, at_least: int = AT_LEAST
) -> list[Suggestion]:
    """Return proposals, those that would have answered most first. Questions that a rule claims
    already are left out, and so is every question of which an answer was voted down.
    """
    by_form = defaultdict[str, list[CollectedAnswer]](list)
    for row in rows:
        by_form[normal_form(row.question)].append(row)
    known = {
        normal_form(text) for r in book.rules for text in (*r.rule.questions, *r.rule.examples)
    }
    by_answer = defaultdict[str, list[Asked]](list)
    for form, found in by_form.items():
        asked = Asked(rows=tuple(found))
        answer = asked.usual_answer()
        often = len(found) >= at_least  # else a general refusal would join unrelated questions
        if often and form not in known and answer and not any(row.unhelpful for row in found):
            by_answer[answer].append(asked)
    names = {ready.rule.name for ready in book.rules}
    proposed = list[Suggestion]()
    for answer, variants in by_answer.items():
        one = suggestion(answer, variants, names)
        if one is not None:
            names.add(one.name)
            proposed.append(one)
    return sorted(proposed, key=lambda each: -each.count)


def suggestion(answer: str, variants: Sequence[Asked], names: set[str]) -> Suggestion | None:
    """Return a proposal with all questions that have this answer; None if no group may read it."""
    rows = [row for asked in variants for row in asked.rows]
    # who got another answer may not be allowed to read what this one was written from
    groups = groups_of([row for row in rows if plain(row.text) == answer])
    if groups is None:
        return None
    questions = [a.question for a in sorted(variants, key=lambda a: -len(a.rows))][:MOST_VARIANTS]
    return Suggestion(
        name=name_for(questions[0], names),
        questions=tuple(questions),
        answer=answer,
        groups=groups,
        count=len(rows),
        tenants=tuple(sorted({row.tenant for row in rows})),
        sources=tuple(sorted({source for row in rows for source in row.sources})),
    )


def groups_of(rows: Sequence[CollectedAnswer]) -> tuple[str, ...] | None:
    """Return the groups that may get the answer: nobody's in particular if somebody without a
    group got it, else each group that was the only one of somebody who got it. An asker with
    several does not show which of them the documents are for, so None if all askers have several.
    """
    if any(not row.groups for row in rows):
        return ()
    return tuple(sorted({row.groups[0] for row in rows if len(row.groups) == 1})) or None


def name_for(question: str, names: set[str]) -> str:
    """Return a name made of the question's words that no other rule has."""
    base = "-".join(words_of(question)[:_NAME_WORDS]) or "rule"
    name, number = base, 2
    while name in names:
        name, number = f"{base}-{number}", number + 1
    return name


def with_rules(text: str, file: Path, accepted: Sequence[Suggestion]) -> str:
    """Return the text of a rules file with proposals behind its last rule; all else is unchanged.

    Raises SettingsError if the file is not written as a block.
    """
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    if root is None:
        return text.rstrip() + "\nrules:\n" + "".join(each.yaml(2) for each in accepted)
    rules = next(
        (
            value
            for key, value in (root.value if isinstance(root, yaml.MappingNode) else ())
            if key.value == "rules"
        ),
        None,
    )
    if not isinstance(rules, yaml.SequenceNode) or rules.flow_style:
        raise SettingsError(
            [f"{file}: `rules` is not a list with one `- name:` under the other; add rules by hand"]
        )
    lines = text.splitlines(keepends=True)
    at = rules.end_mark.line if rules.end_mark.index < len(text) else len(lines)
    while at > 0 and not lines[at - 1].strip():
        at -= 1
    if not lines[at - 1].endswith("\n"):
        lines[at - 1] += "\n"
    new = "".join(each.yaml(rules.start_mark.column) for each in accepted)
    return "".join([*lines[:at], new, *lines[at:]])


def add_rules(file: Path, accepted: Sequence[Suggestion]) -> None:
    """Add rules to a file, which keeps its other content; it is replaced in one step.

    Raises SettingsError if it would not be valid then.
    """
    new = file.with_name(f".{file.name}.new")
    try:
        new.write_text(with_rules(file.read_text("utf-8"), file, accepted), encoding="utf-8")
        read_rules(new)
        new.replace(file)
    except OSError as error:
        raise SettingsError([f"{file}: it cannot be written: {error.strerror}"]) from None
    finally:
        new.unlink(missing_ok=True)
