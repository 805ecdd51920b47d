"""Recognise intents by their examples, and abstain unless that was measured to be right.

Every example is held out once and scored by the others. It is scored a second time as if its whole
intent did not exist: then any answer is wrong, as for a question about something else. On these
trials a small logistic regression learns how likely a match is right, and a threshold is chosen for
which the precision of what is served is above the bound, with 90 % confidence (Wilson 1927); an
intent that is wrong more often than the others gets a higher one. Without enough trials, nothing is served.
"""

import math
import random
from collections.abc import Sequence

from slipway.rules.guards import Names, foreign, objection
from slipway.rules.logistic import Logistic
from slipway.rules.similarity import ExampleIndex, IntentScore, words_of
from slipway.types import Record

MOST_TRIALS = 1500  # examples that are held out, drawn evenly if there are more
FOREIGN = 0.5  # how many questions about something else are expected for each about an intent
LEAST_NEGATIVE = 3  # trials in which every answer is wrong; fewer say nothing of precision
Z = 1.2816  # of a one-sided confidence of 90 %
NEVER = math.inf


class Trial(Record, frozen=True, kw_only=True):
    """A held-out question: what it was taken for, the features, and whether that is right."""

    intent: int
    features: tuple[float, ...]
    right: bool
    weight: float
    vetoed: bool


class IntentMeasure(Record, frozen=True, kw_only=True):
    """What was measured of an intent; `why_not` says why it is not used, if it is not."""

    examples: int
    held_out: int = 0
    served: int = 0  # held-out examples of it that would be answered
    wrong: float = 0.0  # weight of other questions that would be answered by it
    threshold: float = NEVER
    why_not: str = ""

    @property
    def precision(self) -> float | None:
        total = self.served + self.wrong
        return self.served / total if total else None


class Guess(Record, frozen=True, kw_only=True):
    """What a question was taken for: the intent, how likely that is right, and its example."""

    intent: int
    probability: float
    threshold: float
    example: str
    objection: str | None

    @property
    def serves(self) -> bool:
        return self.probability >= self.threshold and self.objection is None


class Intents:
    """The intents of a rules file. Those in `answering` may answer; all others only compete."""

    def __init__(
        self, examples: Sequence[tuple[str, int]], answering: frozenset[int], bound: float
    ) -> None:
        self.index, self.bound = ExampleIndex(examples), bound
        self.answering = answering
        self._known = self.index.vocabularies()
        self._names = Names([text for text, _ in self.index.examples], self.index.words)
        trials = self._trials()
        self._model = Logistic.fitted(
            [(t.features, t.right, t.weight) for t in trials] if trials else []
        )
        self.overall, self.measures = self._thresholds(trials)

    def guess(self, text: str) -> Guess | None:
        """Return what the question is taken for, whether it is served or not."""
        words = words_of(text)
        found = self.index.candidates(words)
        if not found or found[0].intent not in self.answering:
            return None
        best = found[0]
        return Guess(
            intent=best.intent,
            probability=self._model.probability(features(best, found)),
            threshold=self.measures[best.intent].threshold,
            example=self.index.examples[best.nearest[0]][0],
            objection=self._objection(words, best, None),
        )

    def _objection(
        self, words: Sequence[str], best: IntentScore, left_out: int | None
    ) -> str | None:
        nearest = [self.index.words[number] for number in best.nearest if number != left_out]
        if not nearest:
            return None
        known = self._known[best.intent]
        if left_out is not None and self.index.examples[left_out][1] == best.intent:
            known = known - self.index.only_in(left_out)
        return foreign(words, known) or objection(words, nearest, self._names)

    def _trials(self) -> list[Trial]:
        numbers = list(range(len(self.index.examples)))
        if len(numbers) > MOST_TRIALS:
            numbers = sorted(random.Random(0).sample(numbers, MOST_TRIALS))  # noqa: S311
        trials = list[Trial]()
        for number in numbers:
            words, own = self.index.words[number], self.index.examples[number][1]
            found = self.index.candidates(words, number)
            if self.index.sizes[own] > 1:
                trials += self._trial(number, found, 1.0)
            others = [candidate for candidate in found if candidate.intent != own]
            trials += self._trial(number, others, FOREIGN)
        return trials

    def _trial(self, number: int, found: Sequence[IntentScore], weight: float) -> list[Trial]:
        """Return the trial of the best intent that may answer. If another one is better, the
        question would not be answered, but it still shows what a wrong match looks like.
        """
        best = next((each for each in found if each.intent in self.answering), None)
        if best is None:
            return []
        words, own = self.index.words[number], self.index.examples[number][1]
        return [
            Trial(
                intent=best.intent,
                features=features(best, found),
                right=best.intent == own,
                weight=weight,
                vetoed=best is not found[0] or self._objection(words, best, number) is not None,
            )
        ]

    def _thresholds(self, trials: Sequence[Trial]) -> tuple[str, dict[int, IntentMeasure]]:
        """Return why nothing is served (empty if something is), and each intent's measure."""
        scored = sorted(
            ((self._model.probability(t.features), t) for t in trials if not t.vetoed),
            key=lambda pair: -pair[0],
        )
        why = self._too_few(trials)
        common = NEVER if why else lowest(scored, self.bound, sure=True)
        if not why and common == NEVER:
            needed = math.ceil(Z * Z * self.bound / (1 - self.bound))
            right = sum(trial.right for _, trial in scored)
            why = (
                f"a precision of {self.bound:.1%} cannot be shown: that takes {needed} held-out "
                f"examples recognised without a mistake, or more with few, and {right} were "
                "recognised in all; add examples, or lower `precision`"
            )
        return why, {
            intent: self._measure(intent, scored, trials, common, why)
            for intent in sorted(self.answering)
        }

    def _too_few(self, trials: Sequence[Trial]) -> str:
        if sum(not trial.right for trial in trials) < LEAST_NEGATIVE:
            return (
                "its precision cannot be measured without questions that must not match; add "
                "`counter_examples` or other rules with questions"
            )
        return ""

    def _measure(
        self,
        intent: int,
        scored: Sequence[tuple[float, Trial]],
        trials: Sequence[Trial],
        common: float,
        why: str,
    ) -> IntentMeasure:
        mine = [(score, trial) for score, trial in scored if trial.intent == intent]
        threshold = max(common, lowest(mine, self.bound, sure=False))
        served = [trial for score, trial in mine if score >= threshold]
        right = sum(trial.right for trial in served)
        if not why and not right:
            threshold, why = NEVER, "none of its held-out examples was recognised surely enough"
        return IntentMeasure(
            examples=self.index.sizes[intent],
            held_out=sum(t.intent == intent and t.right for t in trials),
            served=right,
            wrong=sum(trial.weight for trial in served if not trial.right),
            threshold=threshold,
            why_not=why,
        )


def lowest(scored: Sequence[tuple[float, Trial]], bound: float, *, sure: bool) -> float:
    """Return the lowest threshold above which the share of right trials reaches the bound; if
    `sure`, its lower confidence limit. `scored` are sorted, best first.
    """
    right = total = 0.0
    found = NEVER
    for at, (score, trial) in enumerate(scored):
        right += trial.weight * trial.right
        total += trial.weight
        last = at + 1 == len(scored) or scored[at + 1][0] < score
        if last and (lower_limit(right, total) if sure else right / total) >= bound - 1e-9:
            found = score
    return found


def lower_limit(right: float, total: float) -> float:
    """Return Wilson's lower limit of a share, with the confidence of Z."""
    share = right / total
    middle = share + Z * Z / (2 * total)
    spread = Z * math.sqrt(share * (1 - share) / total + Z * Z / (4 * total * total))
    return (middle - spread) / (1 + Z * Z / total)


def features(best: IntentScore, found: Sequence[IntentScore]) -> tuple[float, ...]:
    """Return what the probability is computed from: an intent's scores, and its lead over the best
    of the others.
    """
    second = next((each for each in found if each is not best), None)
    odds = best.odds - (second.odds if second is not None else min(best.odds, 0.0))
    similarity = best.similarity - (second.similarity if second is not None else 0.0)
    score = best.score - (second.score if second is not None else 0.0)
    return (best.odds, best.similarity, best.top, odds, similarity, score)
