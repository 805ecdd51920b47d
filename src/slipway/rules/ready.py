"""Rules that are ready to answer: their version, their templates, and who may get them."""

import hashlib

import msgspec

from slipway.rules.normalising import has_han
from slipway.rules.patterns import Pattern, pattern_of
from slipway.rules.reading import ReadRules
from slipway.rules.rule import Rule
from slipway.rules.templates import Template, template_of
from slipway.types import Asker, Record


class ReadyRule(Record, frozen=True, kw_only=True):
    """A rule that is ready to answer; `path` is its place in the file."""

    rule: Rule
    path: str
    version: str
    answers: dict[str, Template]  # by language; "" for all others
    patterns: tuple[Pattern, ...] = ()

    def visible_to(self, asker: Asker) -> bool:
        """Return whether the asker may get this answer."""
        groups = self.rule.groups
        return (
            not groups or "*" in groups or asker.everything or not asker.groups.isdisjoint(groups)
        )

    def template(self, question: str) -> Template:
        """Return the answer in the language of the question, or the first one."""
        language = "zh" if has_han(question) else "en"
        return self.answers.get(language) or next(iter(self.answers.values()))


def ready_rules(read: ReadRules) -> tuple[ReadyRule, ...]:
    """Return the rules of a file that was checked."""
    return tuple(
        ReadyRule(
            rule=rule,
            path=f"rules[{i}]",
            version=version_of(rule, read),
            answers={language: template_of(text) for language, text in answers_of(rule).items()},
            patterns=tuple(pattern_of(text, rule, read.tables) for text in rule.patterns),
        )
        for i, rule in enumerate(read.content.rules)
    )


def answers_of(rule: Rule) -> dict[str, str]:
    return rule.answer if isinstance(rule.answer, dict) else {"": rule.answer}


def version_of(rule: Rule, read: ReadRules) -> str:
    """Return a short hash that changes with the rule, and with the tables if it uses slots."""
    content = msgspec.json.encode(rule, order="deterministic")
    tables = read.tables_digest if rule.patterns else ""
    return hashlib.sha256(content + tables.encode()).hexdigest()[:8]
