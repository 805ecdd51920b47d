"""The rules of an app: find the one that answers a question."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from datetime import date, datetime
from zoneinfo import ZoneInfo

from slipway.rules.normalising import normal_form
from slipway.rules.reading import MAX_QUESTION, ReadRules
from slipway.rules.ready import ReadyRule, ready_rules
from slipway.rules.rule import Kind, RuleMatch
from slipway.rules.templates import TODAY, TemplateProblem
from slipway.rules.values import Value
from slipway.types import Asker, Record


class RuleQuestion(Record, frozen=True, kw_only=True):
    """What rules need of a question; `today` is the date to use instead of the real one."""

    text: str
    asker: Asker
    today: date | None = None


class MatchedRules(Record, frozen=True, kw_only=True):
    """The rule that answers, and the shadow rules that would have answered before it."""

    match: RuleMatch | None = None
    shadows: tuple[RuleMatch, ...] = ()


class RuleBook:
    """The rules of one file, ready to match. `off` holds why a rule is not used, by its name."""

    def __init__(self, read: ReadRules) -> None:
        self.read, self.rules = read, ready_rules(read)
        self.off: Mapping[str, str] = {}
        self._zone = ZoneInfo(read.content.timezone) if read.content.timezone else None
        self._exact = exact_index(self.rules)

    @property
    def blocks(self) -> bool:
        """Return whether matching takes so long that it belongs in a thread."""
        return False

    def match(self, question: RuleQuestion) -> MatchedRules:
        """Return the first rule that answers this asker, and shadow rules before it."""
        shadows = list[RuleMatch]()
        if len(question.text) <= MAX_QUESTION:
            for match in self.matches(question):
                if not match.shadow:
                    return MatchedRules(match=match, shadows=tuple(shadows))
                shadows.append(match)
        return MatchedRules(shadows=tuple(shadows))

    def matches(self, question: RuleQuestion) -> Iterator[RuleMatch]:
        """Yield every match: full questions first, then patterns, then intents."""
        for ready, written in self._exact.get(normal_form(question.text), ()):
            yield from self._answer(ready, question, "question", f"asked as `{written}`", {})

    def _answer(
        self,
        ready: ReadyRule,
        question: RuleQuestion,
        kind: Kind,
        reason: str,
        values: Mapping[str, Value],
    ) -> Iterator[RuleMatch]:
        """Yield the match with its answer, if the asker may get it and it can be computed."""
        if ready.rule.name in self.off or not ready.visible_to(question.asker):
            return
        try:
            text = ready.template(question.text).filled({TODAY: self.today(question), **values})
        except TemplateProblem:
            return
        yield RuleMatch(
            rule=ready.rule.name,
            version=ready.version,
            kind=kind,
            reason=reason,
            text=text,
            shadow=ready.rule.shadow,
        )

    def today(self, question: RuleQuestion) -> date:
        return question.today or datetime.now(self._zone).astimezone(self._zone).date()


def exact_index(rules: tuple[ReadyRule, ...]) -> dict[str, list[tuple[ReadyRule, str]]]:
    """Return, for each normal form, the rules that answer it with the question as written."""
    found = defaultdict[str, list[tuple[ReadyRule, str]]](list)
    for ready in rules:
        for written in (*ready.rule.questions, *ready.rule.examples):
            found[normal_form(written)].append((ready, written))
    return dict(found)
