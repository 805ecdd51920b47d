"""Answer without a model: quote the sentences of the sources that answer, verbatim and numbered, or
nothing.

Extractive and greedy. A question's content words are stemmed and weighted by how rare they are in
the sources (IDF). A span scores the weight of its words, and words that a chosen span already has
score less, as in maximal marginal relevance (Carbonell & Goldstein 1998). A heading adds its words
to the text below it. Markdown is quoted unchanged, so parts that belong together stay together: a
list item, a table, a fenced block, and the line with a colon that announces it.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

import msgspec

from slipway.knowledge.answerability import without_chance_pairs
from slipway.knowledge.languages import JOINING, is_form_of, language_of, without_accents
from slipway.knowledge.pointers import is_numbered, pointed_number, without_pointer
from slipway.knowledge.questions import (
    asked_about,
    asks_number,
    has_number,
    names_in,
)
from slipway.knowledge.spans import (
    COMPLETE,
    FENCE,
    POINTER,
    QuotableSpan,
    ends_with_block,
    is_row,
    is_rule,
    lines_of,
    looks_like_code,
    only_asks,
    spans_of,
    text_of,
)
from slipway.knowledge.stems import (
    WEAK_WORDS,
    content_words,
    stem,
    synonyms_of,
    terms_of,
    without_identifiers,
    words_of,
)
from slipway.types import Citation, Record, Source

# The least sum of two weighted shares of the question: what the best source covers, and what the
# best span covers
_MIN_COVERAGE = 0.75
_FRAGMENT_WORDS = 4
# Weight of a word that only the heading has, and of one that is quoted already
_HEADING_SHARE, _KNOWN_SHARE = 0.6, 0.4
_MIN_NEW_COVERAGE = 0.15  # share of the question that a further source must add
_BASE_TRUST = 0.2  # a span's weight in a source that covers nothing else of the question
_MIN_GAIN = 0.3  # of the first span's gain, for a further span
_COMPLETING = 0.4  # of that, for a span of the same source with a word that is missing yet
_POINTER_FACTOR = 0.5  # for a sentence that only sends the reader elsewhere
_DUPLICATE_OVERLAP = 0.75  # shared words of the shorter span, to be a repeat
_LONG_NUMBER = 4  # digits
_NO_LETTERS = re.compile(r"[\W_]+")
_MOST_ROWS = 8  # of a table that are quoted; if more rows answer equally well, all are
# Weight of a pair of words in the question's order: `model 3` is not `model 1 … 3 days`
_PAIR_WEIGHT = 0.4
_QUESTION_FACTOR = 0.3  # for a sentence that only asks
_WEAK = 0.5  # weight of words such as "another"
_SHOWING = 1.15  # for steps and code, if the question is how to do something
# Confidence that is needed if all words of the question are said, and more for unsaid ones:
# measured by bench/asking.py and bench/quotes.py
_CONFIDENCE, _UNSAID = 0.25, 0.45

Weights = Mapping[str, float]


class Quote(Record, frozen=True, kw_only=True):
    """Hold the answer; `citations` cover each quoted span with its marker, as offsets in `text`."""

    text: str
    citations: tuple[Citation, ...]


class _Candidate(Record, frozen=True, kw_only=True):
    source: Source
    span: QuotableSpan
    rank: int
    terms: frozenset[str]
    above: frozenset[str]  # words that only the heading or file name has
    named: frozenset[str]  # words of the heading and file name
    factor: float
    code: bool
    asks: bool  # a question says nothing

    @property
    def text(self) -> str:
        return text_of(self.source.text, self.span)

    def overlaps(self, other: "_Candidate") -> bool:
        """Tell whether both quote some of the same text."""
        return (
            self.rank == other.rank
            and self.span.start < other.span.end
            and other.span.start < self.span.end
        )


class _Asked:
    """What a question asks: its content words, and which of them follow each other."""

    def __init__(self, question: str) -> None:
        self.number = pointed_number(question)
        about = asked_about(without_pointer(question) if self.number else question)
        self.terms, self.shows = content_words(about), _asks_how(question)
        ordered = [term for term in map(stem, words_of(about)) if term in self.terms]
        self._pairs = frozenset(pairwise(ordered))
        self.counts = asks_number(question)
        language = language_of(question)
        self._same = {same: term for term in self.terms for same in synonyms_of(term)}
        self._bends, self._joins = language != "english", language in JOINING

    def said_in(self, words: Sequence[str]) -> frozenset[str]:
        """Return the question's words that a text has. In other languages than English, words
        with other endings count, and joined ones.
        """
        said = self.terms.intersection(words)
        said |= {term for same, term in self._same.items() if same in words}
        if not self._bends:
            return said
        others = {
            term
            for term in self.terms - said
            if any(is_form_of(word, term, joined=self._joins) for word in words)
        }
        return said | others

    def overlap(self, row: str) -> float:
        """Return how many words of the question a row of a table has, and how many in order."""
        words = terms_of(row)
        together = len(self._pairs.intersection(pairwise(words)))
        return len(self.said_in(words)) + _PAIR_WEIGHT * together


def quote(
    question: str, sources: Sequence[Source], limit: int = 4, confidence: float = 1.0
) -> Quote | None:
    """Return at most `limit` spans, grouped by source in the sources' order, in reading order
    within each. None if the sources do not answer.

    `confidence` is the search's estimate that the sources answer; the more of the question they do
    not say, the more of it is needed.
    """
    asked = _Asked(question)
    if asked.number:
        pointed = [each for each in sources if is_numbered(each.heading, asked.number)]
        if not asked.terms:
            return _whole_part(asked, pointed or sources, limit, is_named=bool(pointed))
        sources = pointed or sources
    if not asked.terms or not _has_names(question, sources):
        return None
    candidates = [
        each for rank, source in enumerate(sources) for each in _candidates(rank, source, asked)
    ]
    weights = _weights(_without_chance_pairs(question, asked.terms, candidates), candidates)
    if not sum(weights.values()):
        return None
    shares = _shares(weights, candidates)
    if not _answers(weights, candidates, shares):
        return None
    unsaid = 1 - _weight(weights, _said(candidates) & weights.keys()) / sum(weights.values())
    if confidence < _CONFIDENCE + _UNSAID * unsaid:
        return None
    chosen = _choose(candidates, weights, shares, limit)
    if not chosen or (asked.counts and not any(has_number(each.text) for each in chosen)):
        return None
    return _compose(sorted(chosen, key=lambda each: (each.rank, each.span.start)))


def _whole_part(
    asked: _Asked, sources: Sequence[Source], limit: int, *, is_named: bool
) -> Quote | None:
    """Quote the part that the question points at and asks nothing else of: a section with that
    number, else the paragraphs that begin with it.
    """
    for rank, source in enumerate(sources):
        chosen = [
            each
            for each in _candidates(rank, source, asked)
            if is_named or is_numbered(each.text, asked.number)
        ]
        apart = [each for n, each in enumerate(chosen) if not any(map(each.overlaps, chosen[:n]))]
        if apart:
            return _compose(apart[:limit])
    return None


def _has_names(question: str, sources: Sequence[Source]) -> bool:
    """Tell whether a name of the question is in a source: nothing else answers what is asked of
    Kubernetes or Java, whatever other words it shares.
    """
    names = names_in(question)
    if not names:
        return True
    said = _plain_letters("\n".join(f"{s.heading}\n{s.path}\n{s.text}" for s in sources))
    return any(_plain_letters(name).rstrip("s") in said for name in names)


def _plain_letters(text: str) -> str:
    return _NO_LETTERS.sub("", without_accents(text.casefold()))


def _without_chance_pairs(
    question: str, asked: frozenset[str], candidates: Sequence[_Candidate]
) -> frozenset[str]:
    """See `answerability.without_chance_pairs`."""
    words = [word for word in words_of(asked_about(question)) if stem(word) in asked]
    said = _said(candidates)
    kept = without_chance_pairs(words, lambda word: stem(word) in said)
    return frozenset(map(stem, kept))


def _said(candidates: Sequence[_Candidate]) -> frozenset[str]:
    """Return the question's words that the sources have, headings and names included."""
    return frozenset[str]().union(*(each.terms | each.named for each in candidates))


# Choosing spans


def _candidates(rank: int, source: Source, asked: _Asked) -> Iterator[_Candidate]:
    named = asked.said_in(terms_of(f"{source.heading} {source.path}"))
    for position, span in enumerate(
        _shorten_table(source.text, each, asked)
        for each in spans_of(source.text, shows=asked.shows)
    ):
        text = text_of(source.text, span)
        words = terms_of(without_identifiers(text, asked.terms))
        terms = asked.said_in(words)
        code = bool(FENCE.match(text)) or looks_like_code(text)
        scrap = position > 0 and not span.block and (code or len(words) < _FRAGMENT_WORDS)
        asks = only_asks(text)
        factor = (
            (1.2 if position == 0 else 0.4 if scrap else 1.0)
            / (1 + 0.15 * rank)
            / (1 + len(text) / 1500)
        )
        factor *= 1.0 if span.block or text.endswith(COMPLETE) else 0.7
        factor *= _POINTER_FACTOR if POINTER.match(text) else 1.0
        factor *= _QUESTION_FACTOR if asks else 1.0
        factor *= _SHOWING if asked.shows and span.block else 1.0
        yield _Candidate(
            source=source,
            span=span,
            rank=rank,
            terms=terms,
            above=frozenset[str]() if scrap else named - terms,
            named=named,
            factor=factor,
            code=code,
            asks=asks,
        )


def _shorten_table(text: str, span: QuotableSpan, asked: _Asked) -> QuotableSpan:
    """Reduce a table to its column names and the rows that share most words with the question; keep
    all of it if too many rows tie, or if no row has any of its words.
    """
    lines = list(lines_of(text, span))
    rule = next(
        (number for number, (start, end) in enumerate(lines) if is_rule(text[start:end])), -1
    )
    headless = rule < 0 and all(is_row(text[start:end]) for start, end in lines)
    if (rule < 1 and not headless) or any(FENCE.match(text, start) for start, _ in lines):
        return span
    overlaps = [asked.overlap(text[start:end]) for start, end in lines[rule + 1 :]]
    highest = max(overlaps, default=0.0)
    best = [
        line for line, share in zip(lines[rule + 1 :], overlaps, strict=True) if share == highest
    ]
    if not highest or len(best) > _MOST_ROWS:
        return span
    return msgspec.structs.replace(span, rows=(*lines[: rule + 1], *best))


def _weights(asked: frozenset[str], candidates: Sequence[_Candidate]) -> Weights:
    """Weigh words by IDF over the spans; a word that no span has weighs most."""
    counts = Counter(term for each in candidates for term in each.terms)
    return {
        term: math.log(1 + len(candidates) / (counts[term] + 0.5))
        * (_WEAK if term in WEAK_WORDS else 1.0)
        for term in asked
    }


def _answers(
    weights: Weights, candidates: Sequence[_Candidate], shares: Mapping[int, float]
) -> bool:
    """Tell whether a source covers the question and one span covers much of it at once; example
    code is only a mention. A long number, such as an order's, that no source contains is unknown:
    its neighbours are no answer.
    """
    total = sum(weights.values())
    said = _said(candidates)
    if any(len(term) >= _LONG_NUMBER and term.isdecimal() and term not in said for term in weights):
        return False
    at_once = max(
        (
            _weight(weights, each.terms | each.above) / total
            for each in candidates
            if not (each.code and each.span.block) and not each.asks
        ),
        default=0.0,
    )
    return max(shares.values(), default=0.0) + at_once >= _MIN_COVERAGE


def _shares(weights: Weights, candidates: Sequence[_Candidate]) -> dict[int, float]:
    """Return, by source rank, how much of the question its text, heading or file name covers; 0 for
    a single word of several. Words that occur only in code score half: an example is often about
    something else.
    """
    covered: dict[int, dict[str, float]] = {}
    for each in candidates:
        terms = covered.setdefault(each.rank, dict.fromkeys(each.named, 1.0))
        terms.update(
            {term: max(0.5 if each.code else 1.0, terms.get(term, 0.0)) for term in each.terms}
        )
    total = sum(weights.values())
    return {
        rank: sum(weights[term] * sure for term, sure in terms.items()) / total
        if sum(terms.values()) >= min(2, len(weights))
        else 0.0
        for rank, terms in covered.items()
    }


def _weight(weights: Weights, terms: frozenset[str] | set[str]) -> float:
    return sum(weights[term] for term in terms)


def _choose(
    candidates: Sequence[_Candidate], weights: Weights, shares: Mapping[int, float], limit: int
) -> list[_Candidate]:
    chosen: list[_Candidate] = []
    known: set[str] = set()
    left, least = [each for each in candidates if each.terms or each.above], 0.0
    while left and len(chosen) < limit:
        gains = [(_BASE_TRUST + shares[each.rank]) * _gain(each, weights, known) for each in left]
        worth = [
            (gain, each)
            for gain, each in zip(gains, left, strict=True)
            if gain > least
            or (gain > least * _COMPLETING and _completes(each, chosen[0], weights, known))
        ]
        if not worth:
            break
        gain, best = max(worth, key=lambda pair: pair[0])
        chosen.append(best)
        known |= best.terms
        least = least or gain * _MIN_GAIN
        left = [
            each for each in left if not _repeats(each, best) and _is_about(each, chosen, weights)
        ]
    return chosen


def _completes(candidate: _Candidate, first: _Candidate, weights: Weights, known: set[str]) -> bool:
    """Tell whether a span of the first one's source says a word that is asked for and not quoted
    yet: "Total due: 340 EUR", some lines below the name on an invoice.
    """
    new = candidate.terms - known
    return (
        candidate.rank == first.rank
        and not candidate.asks
        and _weight(weights, new) >= _MIN_NEW_COVERAGE * sum(weights.values())
    )


def _is_about(candidate: _Candidate, chosen: Sequence[_Candidate], weights: Weights) -> bool:
    """Tell whether a further span is worth quoting: another source must share more than one word of
    a question that has several, and must add a new one.
    """
    if candidate.rank in {each.rank for each in chosen}:
        return True
    terms = candidate.terms | candidate.above
    return len(terms) >= min(2, len(weights)) and _weight(
        weights, candidate.terms - _covered(chosen)
    ) >= _MIN_NEW_COVERAGE * sum(weights.values())


def _covered(chosen: Sequence[_Candidate]) -> frozenset[str]:
    return frozenset[str]().union(*(each.terms for each in chosen))


def _gain(candidate: _Candidate, weights: Weights, known: set[str]) -> float:
    own = _weight(weights, candidate.terms - known) + _KNOWN_SHARE * _weight(
        weights, candidate.terms & known
    )
    above = _weight(weights, candidate.above - known) + _KNOWN_SHARE * _weight(
        weights, candidate.above & known
    )
    return candidate.factor * (own + _HEADING_SHARE * above)


def _repeats(candidate: _Candidate, chosen: _Candidate) -> bool:
    if candidate.overlaps(chosen):
        return True
    mine, theirs = frozenset(terms_of(candidate.text)), frozenset(terms_of(chosen.text))
    return len(mine & theirs) >= _DUPLICATE_OVERLAP * min(len(mine), len(theirs))


# Writing


def _compose(chosen: Sequence[_Candidate]) -> Quote:
    text, citations = "", []
    for index, each in enumerate(chosen):
        text += _separator(chosen[index - 1], each) if index else ""
        start, lead = len(text), each.span.lead - each.span.start
        if ends_with_block(each.text) and lead > 0:
            text += f"{each.text[:lead]} [{each.source.n}]"
            citations.append(Citation(n=each.source.n, start=start, end=len(text)))
            text += each.text[lead:]
        else:
            text += f"{each.text}{_before_marker(each.text)}[{each.source.n}]"
            citations.append(Citation(n=each.source.n, start=start, end=len(text)))
    return Quote(text=text, citations=tuple(citations))


def _separator(before: _Candidate, after: _Candidate) -> str:
    if before.rank != after.rank:
        return "\n\n"
    if before.span.item and after.span.item:
        return "\n"
    return "\n\n" if before.span.block or after.span.block else " "


def _before_marker(text: str) -> str:
    return "\n\n" if ends_with_block(text) else " "


def _asks_how(question: str) -> bool:
    return "how" in question.lower().split()
