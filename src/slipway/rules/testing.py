"""Run the tests that rules carry."""

from collections.abc import Iterator

from slipway.rules.book import RuleBook, RuleQuestion
from slipway.rules.ready import ReadyRule
from slipway.rules.rule import RuleMatch, RuleTest
from slipway.types import Asker, Record

_SHOWN = 120  # characters of an answer in a sentence


class RuleFailure(Record, frozen=True, kw_only=True):
    """A test of a rule that failed: where it is written, and what came instead."""

    rule: str
    place: str
    what: str

    @property
    def sentence(self) -> str:
        return f"{self.place}: {self.what}"


def failures_of(book: RuleBook) -> list[RuleFailure]:
    """Run the tests of every rule, and return those that fail."""
    return [failure for ready in book.rules for failure in failures_of_rule(book, ready)]


def failures_of_rule(book: RuleBook, ready: ReadyRule) -> Iterator[RuleFailure]:
    for n, test in enumerate(ready.rule.tests):
        if (what := failure(book, ready, test)) is not None:
            yield RuleFailure(
                rule=ready.rule.name,
                place=book.read.place(f"{ready.path}.tests[{n}]"),
                what=f"test of `{ready.rule.name}` failed: {what}",
            )


def failure(book: RuleBook, ready: ReadyRule, test: RuleTest) -> str | None:
    """Return how a test fails, or None if it passes. A shadow rule is tested as if it answered."""
    groups = ready.rule.groups if test.groups is None else test.groups
    asker = Asker(owner="test", groups=frozenset(groups))
    question = RuleQuestion(text=test.ask, asker=asker, today=test.on)
    came = first(book, ready, question)
    if came is None:
        return f"`{test.ask}` matches no rule" if test.matches else None
    mine = came.rule == ready.rule.name
    if not test.matches:
        return f"`{test.ask}` must not match this rule ({came.reason})" if mine else None
    if not mine:
        return f"`{test.ask}` is answered by `{came.rule}`, not by this rule"
    if test.answer is not None and came.text != test.answer:
        return f"`{test.ask}` is answered `{clipped(came.text)}`, not `{clipped(test.answer)}`"
    if test.contains is not None and test.contains not in came.text:
        return f"`{test.ask}` is answered `{clipped(came.text)}`, without `{test.contains}`"
    return None


def first(book: RuleBook, ready: ReadyRule, question: RuleQuestion) -> RuleMatch | None:
    """Return the first match that is live, or is of this rule."""
    return next(
        (
            match
            for match in book.matches(question)
            if not match.shadow or match.rule == ready.rule.name
        ),
        None,
    )


def clipped(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def turn_off_failing(book: RuleBook) -> list[RuleFailure]:
    """Turn off every rule with a failing test, and return the failures."""
    failed = failures_of(book)
    book.off = {each.rule: each.what for each in failed}
    return failed
