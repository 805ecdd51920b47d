"""Estimate whether the places found answer the question, or only mention the same things.

A logistic model over six cheap signals. The strongest is a place that is near *and* has the
question's words, rare ones first: similarity alone cannot tell a section that answers from a
neighbour that does not. Next come its headings, its best sentence, and its lead over the other
places, which would be first without it. Measured by bench/abstention.py, which also fits the
weights: docs/decisions/006.
"""

import math
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

from slipway.knowledge.fusion import Ranked
from slipway.knowledge.languages import JOINING, is_form_of, language_of
from slipway.knowledge.sentences import sentences_of
from slipway.knowledge.stems import SAME
from slipway.knowledge.words import UNSPACED
from slipway.types import Record

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Embed = Callable[[str], NDArray[np.float32]]

DEPTH = 20  # places that the signals look at
# Of them: compared with the question, used for their headings, used for their sentences
_NEAR, _HEADINGS, _READ = 10, 5, 3
_RIVALS = 5
# Share of an unknown word's weight, added to the total: a question of one word is not answered by
# every place that has the word
_DOUBT = 0.3
_EMBEDDED = 2  # sentences to embed; each costs about 6 ms
_RULE = re.compile(r"\s*\|?[\s:|-]*--[\s:|-]*\|[\s:|-]*")  # the line below a table's column names
_SHORTEST, _LONGEST = 20, 400


class Terms(Protocol):
    """Describe the index's view of words, which the signals need."""

    def words(self, text: str) -> Sequence[str]:
        """Return all words of a text, stemmed."""

    def words_of_each(self, texts: Sequence[str]) -> Sequence[Sequence[str]]:
        """Return all words of each of many short texts, stemmed."""

    def content_terms(self, text: str) -> Sequence[str]:
        """Return a question's content words, stemmed; may be empty."""

    def idf(self, word: str) -> float:
        """Return a word's inverse document frequency: high if few passages have it. The empty word
        means one that no passage has.
        """


class Signals(Record, frozen=True, kw_only=True):
    """Hold the inputs of the model. Each is between 0 and about 1, and a high value suggests an
    answer.
    """

    # the best place's cosine times the root of its coverage of the question's words, by IDF
    match: float = 0.0
    lead: float = 0.0  # how far that is ahead of the next places
    heading_coverage: float = 0.0  # best coverage by a heading
    heading_precision: float = 0.0  # share of the first place's heading in the question
    sentence_cosine: float = 0.0  # of the best sentence
    sentence_coverage: float = 0.0  # of the best sentence with its headings


class AnswerabilityModel(Record, frozen=True, kw_only=True):
    """Hold a logistic model: probability = 1 / (1 + exp(-(weights · signals + bias))), assuming
    that half of all questions have an answer.
    """

    weights: Signals
    bias: float
    threshold: float


WITH_VECTORS = AnswerabilityModel(
    weights=Signals(
        match=0.32,
        lead=6.84,
        heading_coverage=1.56,
        heading_precision=1.04,
        sentence_cosine=0.95,
        sentence_coverage=2.57,
    ),
    bias=-3.65,
    threshold=0.25,
)
KEYWORDS_ONLY = AnswerabilityModel(
    weights=Signals(
        match=1.16, lead=5.12, heading_coverage=1.34, heading_precision=1.61, sentence_coverage=3.39
    ),
    bias=-4.04,
    threshold=0.3,
)


def answer_probability(
    question: str, ranked: Sequence[Ranked], terms: Terms, embed: "Embed | None" = None
) -> float:
    """Return the probability, 0 to 1, that the places answer; below `threshold(embed)` it is better
    to abstain. Return 0 if nothing was found or the question has no content words.

    `ranked` holds the first `DEPTH` places of `fuse`, fused without a smaller limit: the later ones
    show how far the first are ahead. `embed` returns a text's vector (`Embedder.embed_query`); None
    if search is by keywords only. Takes about 10 ms with `embed`, below 1 ms without.
    """
    if not ranked or not terms.content_terms(question):
        return 0.0
    model, found = WITH_VECTORS if embed else KEYWORDS_ONLY, signals(question, ranked, terms, embed)
    weighed = sum(
        getattr(model.weights, name) * getattr(found, name) for name in Signals.__struct_fields__
    )
    return 1 / (1 + math.exp(-(weighed + model.bias)))


def threshold(embed: "Embed | None" = None) -> float:
    """Return the probability below which it is better to abstain."""
    return (WITH_VECTORS if embed else KEYWORDS_ONLY).threshold


def signals(
    question: str, ranked: Sequence[Ranked], terms: Terms, embed: "Embed | None" = None
) -> Signals:
    """Compute the model's inputs for these places."""
    asked = WeightedQuestion(question, terms)
    matches = [_match(each, asked, vectors=embed is not None) for each in ranked[:_NEAR]]
    best, *rivals = sorted(matches, reverse=True)
    headings = [frozenset(terms.words(" ".join(_headings(each)))) for each in ranked[:_HEADINGS]]
    sentences = sorted(_sentences(ranked[:_READ], asked), key=lambda each: -each.own)
    return Signals(
        match=best,
        lead=best - sum(rivals[:_RIVALS]) / _RIVALS,
        heading_coverage=max(asked.coverage(heading) for heading in headings),
        heading_precision=asked.precision(frozenset(terms.words(ranked[0].passage.heading))),
        sentence_cosine=_nearest(question, sentences[:_EMBEDDED], embed) if embed else 0.0,
        sentence_coverage=max((each.all for each in sentences), default=0.0),
    )


def without_chance_pairs(words: Sequence[str], is_known: Callable[[str], bool]) -> list[str]:
    """Leave out pairs of characters that are the end of one word and the beginning of the next:
    nobody has them, and the pair before or behind them is known.
    """
    kept = []
    for n, word in enumerate(words):
        beside = [
            each
            for each in (words[n - 1] if n else "", words[n + 1] if n + 1 < len(words) else "")
            if len(each) == len(word) == 2 and UNSPACED.match(each)
        ]
        overlaps = [each for each in beside if word[0] == each[1] or word[1] == each[0]]
        if not (
            UNSPACED.match(word)
            and overlaps
            and not is_known(word)
            and any(map(is_known, overlaps))
        ):
            kept.append(word)
    return kept


class WeightedQuestion:
    """Hold the question's content words, weighted by how rare they are among the passages."""

    def __init__(self, question: str, terms: Terms) -> None:
        self.terms = terms
        self._words = frozenset(terms.words(question))
        self._idf = {
            word: terms.idf(word)
            for word in without_chance_pairs(
                terms.content_terms(question), lambda word: terms.idf(word) < terms.idf("")
            )
        }
        self._same = {
            terms.words(other)[0]: stem
            for word, others in SAME.items()
            if (stem := terms.words(word)[0]) in self._idf
            for other in others
        }
        language = language_of(question)
        self._bends, self._joins = language != "english", language in JOINING
        self._total = sum(self._idf.values()) + _DOUBT * terms.idf("")

    def coverage(self, words: Iterable[str]) -> float:
        """Return the weighted share of the question's words that are among `words`."""
        words = frozenset(words)
        said = self._idf.keys() & words
        said |= {self._same[word] for word in self._same.keys() & words}
        if self._bends:
            said |= {
                term
                for term in self._idf.keys() - said
                if any(is_form_of(word, term, joined=self._joins) for word in words)
            }
        return sum(self._idf[word] for word in said) / self._total

    def precision(self, words: Collection[str]) -> float:
        """Return the weighted share of `words` that the question contains."""
        weights = {word: self.terms.idf(word) for word in words}
        return sum(rarity for word, rarity in weights.items() if word in self._words) / (
            sum(weights.values()) or 1.0
        )


class _Sentence(Record, frozen=True, kw_only=True):
    text: str
    heading: str
    own: float  # its coverage of the question's words
    all: float  # the same with the headings above it


def _headings(each: Ranked) -> Sequence[str]:
    """Return the headings below the title, which all places of a document share."""
    return each.passage.trail[1:] or each.passage.trail


def _match(each: Ranked, asked: WeightedQuestion, *, vectors: bool) -> float:
    text = " ".join([*each.passage.trail, each.passage.path.replace("-", " "), each.passage.text])
    near = max(each.cosine, 0.0) if vectors else 1.0
    return near * math.sqrt(asked.coverage(frozenset(asked.terms.words(text))))


def sentences(text: str) -> Iterator[str]:
    """Yield the sentences and lines of a text; of a table, each row below its column names, without
    which a row says little.
    """
    names, before = "", ""
    for line in text.split("\n"):
        if _RULE.fullmatch(line):
            names = before
        elif names and "|" in line:
            yield f"{names}\n{line}"
        else:
            names = ""
            yield from sentences_of(line)
        before = line


def _sentences(ranked: Sequence[Ranked], asked: WeightedQuestion) -> list[_Sentence]:
    found = []
    for each in ranked:
        above = frozenset(asked.terms.words(" ".join(each.passage.trail)))
        for text in sentences(each.passage.text):
            if len(text) >= _SHORTEST:
                words = frozenset(asked.terms.words(text[:_LONGEST]))
                found.append(
                    _Sentence(
                        text=text[:_LONGEST],
                        heading=each.passage.heading,
                        own=asked.coverage(words),
                        all=asked.coverage(words | above),
                    )
                )
    return found


def _nearest(question: str, sentences: Sequence[_Sentence], embed: "Embed") -> float:
    asked = embed(question)
    return max(
        (float(embed(f"{each.heading}\n{each.text}") @ asked) for each in sentences), default=0.0
    )
