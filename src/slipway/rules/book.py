"""The rules of an app: find the one that answers a question, and say why."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime
from zoneinfo import ZoneInfo

from slipway.rules.intents import Guess, IntentMeasure, Intents
from slipway.rules.normalising import normal_form
from slipway.rules.patterns import cleaned
from slipway.rules.reading import MAX_QUESTION, ReadRules
from slipway.rules.ready import ReadyRule, ready_rules
from slipway.rules.rule import Kind, RuleMatch
from slipway.rules.templates import TODAY, TemplateProblem
from slipway.rules.values import Value
from slipway.types import Asker, Record

PRECISION = 0.98  # of intents, if nothing else is asked for


class RuleQuestion(Record, frozen=True, kw_only=True):
    """What rules need of a question; `today` is the date to use instead of the real one."""

    text: str
    asker: Asker
    today: date | None = None


class MatchedRules(Record, frozen=True, kw_only=True):
    """The rule that answers, and the shadow rules that would have answered before it."""

    match: RuleMatch | None = None
    shadows: tuple[RuleMatch, ...] = ()


class Recognised(Record, frozen=True, kw_only=True):
    """A rule that recognised a question; `no_answer` says why it does not answer, if so."""

    rule: str
    version: str
    kind: Kind
    reason: str
    text: str = ""
    shadow: bool = False
    no_answer: str = ""


class RuleBook:
    """The rules of one file, ready to match. `off` holds why a rule is not used, by its name."""

    def __init__(self, read: ReadRules, precision: float = PRECISION) -> None:
        """Learn the intents; that takes about 2 s for thousands of examples."""
        self.read, self.precision, self.rules = read, precision, ready_rules(read)
        self.off: Mapping[str, str] = {}
        self._zone = ZoneInfo(read.content.timezone) if read.content.timezone else None
        self._exact = exact_index(self.rules)
        self._with_patterns = [ready for ready in self.rules if ready.patterns]
        self._intents, self._by_intent = intents_of(self.rules, precision)

    def ask(self, text: str, asker: Asker) -> MatchedRules:
        """Return what answers a text today."""
        return self.match(RuleQuestion(text=text, asker=asker))

    def match(self, question: RuleQuestion) -> MatchedRules:
        """Return the first rule that answers this asker, and shadow rules before it."""
        shadows = list[RuleMatch]()
        for match in self.matches(question):
            if not match.shadow:
                return MatchedRules(match=match, shadows=tuple(shadows))
            shadows.append(match)
        return MatchedRules(shadows=tuple(shadows))

    def matches(self, question: RuleQuestion) -> Iterator[RuleMatch]:
        """Yield every rule that answers, those in shadow among them."""
        for found in self.recognised(question):
            if not found.no_answer:
                yield RuleMatch(
                    rule=found.rule,
                    version=found.version,
                    kind=found.kind,
                    reason=found.reason,
                    text=found.text,
                    shadow=found.shadow,
                )

    def recognised(self, question: RuleQuestion) -> Iterator[Recognised]:
        """Yield every rule that recognises the question: full questions first, then patterns,
        then intents.
        """
        if len(question.text) > MAX_QUESTION:
            return
        for ready, written in self._exact.get(normal_form(question.text), ()):
            yield self._answer(ready, question, "question", f"it is `{written}`", {})
        text, today = cleaned(question.text), self.today(question)
        for ready in self._with_patterns:
            for pattern in ready.patterns:
                if (values := pattern.match(text, today)) is not None:
                    reason = f"it fits `{pattern.text}`"
                    yield self._answer(ready, question, "pattern", reason, values)
                    break
        guess = self.guess(question)
        if guess is not None and guess.serves:
            ready = self._by_intent[guess.intent]
            yield self._answer(ready, question, "intent", reason_of(guess), {})

    def _answer(
        self,
        ready: ReadyRule,
        question: RuleQuestion,
        kind: Kind,
        reason: str,
        values: Mapping[str, Value],
    ) -> Recognised:
        text, no_answer = "", self.off.get(ready.rule.name, "")
        if not ready.visible_to(question.asker):
            no_answer = f"only for the groups {', '.join(ready.rule.groups)}"
        elif not no_answer:
            try:
                named = {TODAY: self.today(question), **values}
                text = ready.template(question.text).filled(named)
            except TemplateProblem as problem:
                no_answer = f"the answer cannot be computed: {problem}"
        return Recognised(
            rule=ready.rule.name,
            version=ready.version,
            kind=kind,
            reason=reason,
            text=text,
            shadow=ready.rule.shadow,
            no_answer=no_answer,
        )

    def guess(self, question: RuleQuestion) -> Guess | None:
        """Return the intent that the question is taken for, whether that is sure or not."""
        return self._intents.guess(question.text) if self._intents is not None else None

    def rule_of(self, guess: Guess) -> str:
        return self._by_intent[guess.intent].rule.name

    def measure(self, name: str) -> IntentMeasure | None:
        """Return what was measured of a rule's examples, if it has any."""
        if self._intents is None:
            return None
        return next(
            (
                measure
                for intent, measure in self._intents.measures.items()
                if self._by_intent[intent].rule.name == name
            ),
            None,
        )

    def today(self, question: RuleQuestion) -> date:
        return question.today or datetime.now(self._zone).astimezone(self._zone).date()


def reason_of(guess: Guess) -> str:
    return (
        f"it resembles `{guess.example}` ({guess.probability:.3f}, at least "
        f"{guess.threshold:.3f} is needed)"
    )


def exact_index(rules: Sequence[ReadyRule]) -> dict[str, list[tuple[ReadyRule, str]]]:
    """Return, for each normal form, the rules that answer it with the question as written."""
    found = defaultdict[str, list[tuple[ReadyRule, str]]](list)
    for ready in rules:
        for written in (*ready.rule.questions, *ready.rule.examples):
            found[normal_form(written)].append((ready, written))
    return dict(found)


def intents_of(
    rules: Sequence[ReadyRule], precision: float
) -> tuple[Intents | None, dict[int, ReadyRule]]:
    """Return the intents, and the rule of each. Full questions of other rules, and the
    counter-examples of each rule, are intents that never answer.
    """
    if not any(ready.rule.examples for ready in rules):
        return None, {}
    examples, by_intent, answering = list[tuple[str, int]](), dict[int, ReadyRule](), set[int]()
    intent = 0
    for ready in rules:
        mine = {normal_form(text): text for text in (*ready.rule.examples, *ready.rule.questions)}
        others = {normal_form(text): text for text in ready.rule.counter_examples}
        for texts in (mine, others):
            if texts:
                examples += [(text, intent) for text in texts.values()]
                by_intent[intent] = ready
                if texts is mine and ready.rule.examples:
                    answering.add(intent)
                intent += 1
    return Intents(examples, frozenset(answering), precision), by_intent
