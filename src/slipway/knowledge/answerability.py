"""Whether what was found answers the question, or only speaks of the same things.

Six signals, each cheap, in a logistic model. What tells most is a place that is near *and* has the
question's words, rare ones first: similarity alone cannot tell a section that answers from its
neighbour that does not. Then come its headings, its best sentence, and how far it is ahead of the
others, which would be first if it were not there. Measured by bench/abstention.py, which also fits
the weights: docs/decisions/006.
"""

import math
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

from slipway.knowledge.fusion import Ranked
from slipway.types import Record

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Embed = Callable[[str], NDArray[np.float32]]

DEPTH = 20  # places that are worth handing over
_NEAR, _HEADINGS, _READ = (
    10,
    5,
    3,
)  # of them: that may match, whose headings count, whose sentences are read
_RIVALS = 5
# of the weight of a word that nothing has: a question of one word is not answered by each place
# that has it
_DOUBT = 0.3
_EMBEDDED = 2  # sentences; each costs about 6 ms
_END = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])")
_RULE = re.compile(r"\s*\|?[\s:|-]*--[\s:|-]*\|[\s:|-]*")  # below the names of a table's columns
_SHORTEST, _LONGEST = 20, 400


class Terms(Protocol):
    """Words as the index knows them."""

    def words(self, text: str) -> Sequence[str]:
        """All words of a text, stemmed."""

    def words_of_each(self, texts: Sequence[str]) -> Sequence[Sequence[str]]:
        """The same of many short texts."""

    def telling(self, text: str) -> Sequence[str]:
        """Those of a question that say what is asked, stemmed; there may be none."""

    def rarity(self, word: str) -> float:
        """High where few passages have it; the empty word is one that none has."""


class Signals(Record, frozen=True, kw_only=True):
    """Each is between 0 and about 1, and speaks for an answer where it is high."""

    # the best place's cosine times the root of its share of the question's words, weighed by rarity
    match: float = 0.0
    lead: float = 0.0  # how far that is ahead of the next places
    heading: float = 0.0  # the best heading's share of the question's words
    named: float = 0.0  # the share of the first place's heading that the question says
    sentence: float = 0.0  # the cosine of the best sentence
    spoken: float = 0.0  # the best sentence's share of the question's words, headings included


class Model(Record, frozen=True, kw_only=True):
    """Probability = 1 / (1 + exp(-(weights · signals + bias))), where half of the questions have an
    answer.
    """

    weights: Signals
    bias: float
    threshold: float


WITH_VECTORS = Model(
    weights=Signals(match=0.32, lead=6.84, heading=1.56, named=1.04, sentence=0.95, spoken=2.57),
    bias=-3.65,
    threshold=0.25,
)
KEYWORDS_ONLY = Model(
    weights=Signals(match=1.16, lead=5.12, heading=1.34, named=1.61, spoken=3.39),
    bias=-4.04,
    threshold=0.3,
)


def answerable(
    question: str, ranked: Sequence[Ranked], terms: Terms, embed: "Embed | None" = None
) -> float:
    """How sure it is, from 0 to 1, that the places answer the question; below `threshold(embed)` it
    is better to say that they do not.

    `ranked` are the first `DEPTH` places that `fuse` gives, asked for without a smaller limit:
    those behind the first ones tell how much the first ones stand out. `embed` gives a text's
    vector (`Embedder.embed_query`); None where search is by keywords only. Nothing found, and a
    question whose words tell nothing, are 0. Takes about 10 ms with `embed`, below 1 ms without.
    """
    if not ranked or not terms.telling(question):
        return 0.0
    model, found = WITH_VECTORS if embed else KEYWORDS_ONLY, signals(question, ranked, terms, embed)
    weighed = sum(
        getattr(model.weights, name) * getattr(found, name) for name in Signals.__struct_fields__
    )
    return 1 / (1 + math.exp(-(weighed + model.bias)))


def threshold(embed: "Embed | None" = None) -> float:
    return (WITH_VECTORS if embed else KEYWORDS_ONLY).threshold


def signals(
    question: str, ranked: Sequence[Ranked], terms: Terms, embed: "Embed | None" = None
) -> Signals:
    asked = Asked(question, terms)
    matches = [_match(each, asked, vectors=embed is not None) for each in ranked[:_NEAR]]
    best, *rivals = sorted(matches, reverse=True)
    headings = [frozenset(terms.words(" ".join(_headings(each)))) for each in ranked[:_HEADINGS]]
    sentences = sorted(_sentences(ranked[:_READ], asked), key=lambda each: -each.own)
    return Signals(
        match=best,
        lead=best - sum(rivals[:_RIVALS]) / _RIVALS,
        heading=max(asked.share(heading) for heading in headings),
        named=asked.part(frozenset(terms.words(ranked[0].passage.heading))),
        sentence=_nearest(question, sentences[:_EMBEDDED], embed) if embed else 0.0,
        spoken=max((each.all for each in sentences), default=0.0),
    )


class Asked:
    """The question's words, weighed by how rare they are among the passages."""

    def __init__(self, question: str, terms: Terms) -> None:
        self.terms = terms
        self._said = frozenset(terms.words(question))
        self._rarity = {word: terms.rarity(word) for word in terms.telling(question)}
        self._total = sum(self._rarity.values()) + _DOUBT * terms.rarity("")

    def share(self, words: Iterable[str]) -> float:
        """How much of the question these words have."""
        return sum(self._rarity[word] for word in self._rarity.keys() & words) / self._total

    def part(self, words: Collection[str]) -> float:
        """How much of these words the question has."""
        rarities = {word: self.terms.rarity(word) for word in words}
        return sum(rarity for word, rarity in rarities.items() if word in self._said) / (
            sum(rarities.values()) or 1.0
        )


class _Sentence(Record, frozen=True, kw_only=True):
    text: str
    heading: str
    own: float  # its share of the question's words
    all: float  # the same with the headings above it


def _headings(each: Ranked) -> Sequence[str]:
    """Those below the title, which stands above all of a document's places alike."""
    return each.passage.trail[1:] or each.passage.trail


def _match(each: Ranked, asked: Asked, *, vectors: bool) -> float:
    text = " ".join([*each.passage.trail, each.passage.path.replace("-", " "), each.passage.text])
    near = max(each.cosine, 0.0) if vectors else 1.0
    return near * math.sqrt(asked.share(frozenset(asked.terms.words(text))))


def sentences(text: str) -> Iterator[str]:
    """And lines; of a table each row, below the names of its columns, without which it says little."""
    names, before = "", ""
    for line in text.split("\n"):
        if _RULE.fullmatch(line):
            names = before
        elif names and "|" in line:
            yield f"{names}\n{line}"
        else:
            names = ""
            yield from _END.split(line)
        before = line


def _sentences(ranked: Sequence[Ranked], asked: Asked) -> list[_Sentence]:
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
                        own=asked.share(words),
                        all=asked.share(words | above),
                    )
                )
    return found


def _nearest(question: str, sentences: Sequence[_Sentence], embed: "Embed") -> float:
    asked = embed(question)
    return max(
        (float(embed(f"{each.heading}\n{each.text}") @ asked) for each in sentences), default=0.0
    )
