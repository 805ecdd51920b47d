"""Score a question against the examples of intents, by words: fast, and without a model.

Two views are kept for each intent: how much more often its examples have the question's words and
pairs of words than all others do (log-odds of presence, smoothed), and how similar its nearest
examples are (cosine of TF-IDF). Both can leave one example out at no cost, for cross-validation.
"""

import heapq
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

from slipway.rules.normalising import has_han, normal_form
from slipway.types import Record

NEAREST = 5  # examples of an intent whose similarity counts
SMOOTHING = 0.3
CANDIDATES = 8  # intents that are looked at closely
ODDS_WEIGHT, SIMILARITY_WEIGHT = 0.5, 10.0  # bring both views to about the same scale
_ENDINGS = ("ings", "ing", "ied", "ies", "ed", "es", "s", "ly")
_LEAST_STEM = 3


class IntentScore(Record, frozen=True, kw_only=True):
    """An intent's scores for one question, and its nearest examples (indices, nearest first)."""

    intent: int
    odds: float
    similarity: float  # mean of the nearest examples
    nearest: tuple[int, ...]
    top: float  # similarity of the nearest one

    @property
    def score(self) -> float:
        return ODDS_WEIGHT * self.odds + SIMILARITY_WEIGHT * self.similarity


def words_of(text: str) -> list[str]:
    """Return the words of a question; Chinese as single characters."""
    return [
        part
        for word in normal_form(text).split()
        for part in (list(word) if has_han(word) else [word])
    ]


def stem(word: str) -> str:
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= _LEAST_STEM:
            return word[: -len(ending)]
    return word


def pairs_of(stems: Sequence[str]) -> list[str]:
    return [*stems, *(f"{one} {two}" for one, two in pairwise(stems))]


class ExampleIndex:
    """Examples, each of an intent (a number from 0), sorted by intent."""

    def __init__(self, examples: Sequence[tuple[str, int]]) -> None:
        self.examples = sorted(examples, key=lambda example: example[1])
        self.words = [words_of(text) for text, _ in self.examples]
        self.intents = 1 + max((intent for _, intent in self.examples), default=-1)
        self.sizes = [0] * self.intents
        for _, intent in self.examples:
            self.sizes[intent] += 1
        starts = [sum(self.sizes[:intent]) for intent in range(self.intents + 1)]
        self._slices = list(pairwise(starts))
        stems = [[stem(word) for word in words] for words in self.words]
        self._rare = WordWeights(stems)
        self._rare_pairs = WordWeights(map(pairs_of, stems))
        self._postings = self._index(stems)
        self._counts, self._totals = self._count(stems)
        self._gains = self._gain()
        self._base = [self._unseen(size) for size in self.sizes]

    def _index(
        self, stems: Sequence[Sequence[str]]
    ) -> dict[str, dict[int, list[tuple[int, float]]]]:
        """Return (example, weight) of each word, by intent."""
        found = defaultdict[str, dict[int, list[tuple[int, float]]]](dict)
        for number, each in enumerate(stems):
            intent = self.examples[number][1]
            for word, weight in self._rare.unit(each).items():
                found[word].setdefault(intent, []).append((number, weight))
        return dict(found)

    def _count(
        self, stems: Sequence[Sequence[str]]
    ) -> tuple[dict[str, dict[int, int]], dict[str, int]]:
        """Return in how many examples of each intent, and of all, a word or pair is."""
        counts = defaultdict[str, dict[int, int]](dict)
        for each, (_, intent) in zip(stems, self.examples, strict=True):
            for feature in set(pairs_of(each)):
                counts[feature][intent] = counts[feature].get(intent, 0) + 1
        return dict(counts), {feature: sum(found.values()) for feature, found in counts.items()}

    def _gain(self) -> dict[str, tuple[float, list[tuple[int, float]]]]:
        """Return, for each word or pair, the logarithm of its total, and what each intent that has
        it gains over one that does not.
        """
        found = dict[str, tuple[float, list[tuple[int, float]]]]()
        for feature, counts in self._counts.items():
            total = self._totals[feature]
            common = math.log(total + SMOOTHING)
            found[feature] = (
                common,
                [
                    (
                        intent,
                        math.log((count + SMOOTHING) / SMOOTHING)
                        + common
                        - math.log(total - count + SMOOTHING),
                    )
                    for intent, count in counts.items()
                ],
            )
        return found

    def _unseen(self, size: int) -> float:
        rest = len(self.examples) - size
        return math.log(SMOOTHING / (size + 2 * SMOOTHING)) + math.log(rest + 2 * SMOOTHING)

    def vocabularies(self) -> list[frozenset[str]]:
        """Return the words of all examples of each intent."""
        return [
            frozenset(word for words in self.words[start:end] for word in words)
            for start, end in self._slices
        ]

    def only_in(self, number: int) -> frozenset[str]:
        """Return the words of an example that no other one of its intent has."""
        intent = self.examples[number][1]
        return frozenset(
            word
            for word in self.words[number]
            if self._counts.get(stem(word), {}).get(intent, 0) <= 1
        )

    def candidates(self, words: Sequence[str], left_out: int | None = None) -> list[IntentScore]:
        """Return the most likely intents, best first; `left_out` is an example to ignore."""
        stems = [stem(word) for word in words]
        odds = self._odds(stems, left_out)
        likely = heapq.nlargest(CANDIDATES, range(self.intents), key=odds.__getitem__)
        similar = self._similar(stems, likely, left_out)
        found = [self._candidate(intent, odds[intent], similar) for intent in likely]
        return sorted(found, key=lambda candidate: (-candidate.score, candidate.intent))

    def _candidate(self, intent: int, odds: float, similar: Mapping[int, float]) -> IntentScore:
        start, end = self._slices[intent]
        nearest = heapq.nlargest(
            NEAREST, range(start, end), key=lambda number: similar.get(number, 0.0)
        )
        values = [max(similar.get(number, 0.0), 0.0) for number in nearest]
        return IntentScore(
            intent=intent,
            odds=odds,
            similarity=sum(values) / len(values),
            nearest=tuple(nearest),
            top=values[0],
        )

    def _odds(self, stems: Sequence[str], left_out: int | None) -> list[float]:
        weights = {
            feature: weight
            for feature, weight in self._rare_pairs.unit(pairs_of(stems)).items()
            if feature in self._totals
        }
        common = sum(weight * self._gains[feature][0] for feature, weight in weights.items())
        mass = sum(weights.values())
        found = [mass * base - common for base in self._base]
        for feature, weight in weights.items():
            for intent, gain in self._gains[feature][1]:
                found[intent] += weight * gain
        if left_out is not None:
            own = self.examples[left_out][1]
            found[own] = self._odds_without_one(weights, own)
        return found

    def _odds_without_one(self, weights: dict[str, float], own: int) -> float:
        """Return the odds of an intent, as if one of its examples with all these words was not
        there.
        """
        size, rest = self.sizes[own] - 1, len(self.examples) - self.sizes[own]
        scale = math.log((rest + 2 * SMOOTHING) / (size + 2 * SMOOTHING))
        found = 0.0
        for feature, weight in weights.items():
            count, total = self._counts[feature].get(own, 1) - 1, self._totals[feature] - 1
            ratio = (count + SMOOTHING) / (total - count + SMOOTHING)
            found += weight * (math.log(ratio) + scale)
        return found

    def _similar(
        self, stems: Sequence[str], intents: Sequence[int], left_out: int | None
    ) -> dict[int, float]:
        """Return the similarity of each example of these intents that shares a word."""
        found = dict[int, float]()
        for word, weight in self._rare.unit(stems).items():
            by_intent = self._postings.get(word)
            if by_intent is None:
                continue
            for intent in intents:
                for number, theirs in by_intent.get(intent, ()):
                    found[number] = found.get(number, 0.0) + weight * theirs
        if left_out is not None:
            found[left_out] = -1.0
        return found


class WordWeights:
    """How much each word says: rare ones most (TF-IDF), unknown ones as much as the rarest."""

    def __init__(self, texts: Iterable[Sequence[str]]) -> None:
        found, count = Counter[str](), 0
        for text in texts:
            found.update(set(text))
            count += 1
        self._idf = {word: math.log((1 + count) / (1 + n)) + 1 for word, n in found.items()}
        self._unknown = math.log(1 + count) + 1

    def unit(self, words: Sequence[str]) -> dict[str, float]:
        """Return the weight of each word, as a vector of length 1."""
        counts = Counter(words)
        weights = {
            word: (1 + math.log(n)) * self._idf.get(word, self._unknown)
            for word, n in counts.items()
        }
        length = math.sqrt(sum(weight * weight for weight in weights.values())) or 1.0
        return {word: weight / length for word, weight in weights.items()}
