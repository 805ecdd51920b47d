"""What a rules file holds: rules with their questions, answers and tests, and tables."""

from datetime import date
from decimal import Decimal
from typing import Annotated, ClassVar, Literal

from msgspec import Meta

from slipway.settings.values import Branch
from slipway.types import Record

Kind = Literal["question", "pattern", "intent"]  # how a rule recognised a question


class RuleTest(Branch, frozen=True, kw_only=True):
    """A question with what must happen to it. A text alone must be answered by its rule."""

    shorthand: ClassVar[str | None] = "ask"
    ask: Annotated[str, Meta(min_length=1, description="the question")]
    answer: Annotated[str | None, Meta(description="the whole answer that must come")] = None
    contains: Annotated[str | None, Meta(description="a text that the answer must contain")] = None
    matches: Annotated[
        bool, Meta(description="`false` if this rule must not answer the question")
    ] = True
    on: Annotated[date | None, Meta(description="the date that is `today`")] = None
    groups: Annotated[
        tuple[str, ...] | None,
        Meta(description="groups of the asker; the rule's own if left out"),
    ] = None


class SlotSettings(Branch, frozen=True, kw_only=True):
    """A slot of a pattern, if more than its type is needed."""

    shorthand: ClassVar[str | None] = "type"
    type: Annotated[
        str | None,
        Meta(description="`number`, `date`, `money`, `unit`, `unit_name`, `formula` or `text`"),
    ] = None
    values: Annotated[
        dict[str, tuple[str, ...]] | None,
        Meta(description="the allowed values, each with other words for it"),
    ] = None
    table: Annotated[str | None, Meta(description="a table whose keys are the values")] = None
    min: Annotated[Decimal | None, Meta(description="the least number")] = None
    max: Annotated[Decimal | None, Meta(description="the greatest number")] = None


class TableSettings(Branch, frozen=True, kw_only=True):
    """A CSV table, with a header line."""

    shorthand: ClassVar[str | None] = "file"
    file: Annotated[str, Meta(min_length=1, description="CSV file, relative to the rules file")]
    key: Annotated[str | None, Meta(description="column of the keys; default: the first")] = None
    also: Annotated[
        str | None, Meta(description="column with other names of the key, separated by `|`")
    ] = None


class Rule(Branch, frozen=True, kw_only=True):
    """One rule: how it recognises a question, and what it answers."""

    name: Annotated[str, Meta(min_length=1, max_length=80, description="the rule's own name")]
    questions: Annotated[
        tuple[str, ...], Meta(description="questions in full; case and punctuation do not count")
    ] = ()
    patterns: Annotated[
        tuple[str, ...], Meta(description="questions with slots: `price of {count:number} tickets`")
    ] = ()
    examples: Annotated[
        tuple[str, ...],
        Meta(description="example questions of an intent; similar questions match"),
    ] = ()
    counter_examples: Annotated[
        tuple[str, ...], Meta(description="questions that resemble the examples and must not match")
    ] = ()
    slots: Annotated[
        dict[str, SlotSettings] | None, Meta(description="slots that need more than a type")
    ] = None
    answer: Annotated[
        str | dict[str, str],
        Meta(description="the answer, with `{slot}`; or one for each language: `{en: …, zh: …}`"),
    ]
    groups: Annotated[
        tuple[str, ...], Meta(description="groups that get this answer; everybody if left out")
    ] = ()
    shadow: Annotated[
        bool, Meta(description="only count and trace what it would have answered")
    ] = False
    tests: Annotated[tuple[RuleTest, ...], Meta(description="questions that check the rule")] = ()


class RuleFile(Branch, frozen=True, kw_only=True):
    """A rules file."""

    timezone: Annotated[
        str | None, Meta(description="where `today` is, such as `Asia/Shanghai`; default: here")
    ] = None
    tables: Annotated[dict[str, TableSettings] | None, Meta(description="CSV tables by name")] = (
        None
    )
    rules: Annotated[tuple[Rule, ...], Meta(description="the rules; the first match answers")] = ()


class RuleMatch(Record, frozen=True, kw_only=True):
    """A rule that recognised a question, why, and its answer."""

    rule: str
    version: str
    kind: Kind
    reason: str
    text: str
    shadow: bool = False
