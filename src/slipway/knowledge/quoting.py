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

import msgspec

from slipway.knowledge.answerability import without_chance_pairs
from slipway.knowledge.questions import asked_about, names_in
from slipway.knowledge.spans import (
    COMPLETE,
    FENCE,
    POINTER,
    QuotableSpan,
    ends_with_block,
    is_rule,
    lines_of,
    looks_like_code,
    spans_of,
    text_of,
)
from slipway.knowledge.stems import content_words, stem, terms_of, without_identifiers, words_of
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
_POINTER_FACTOR = 0.5  # for a sentence that only sends the reader elsewhere
_DUPLICATE_OVERLAP = 0.75  # shared words of the shorter span, to be a repeat
_LONG_NUMBER = 4  # digits
_NO_LETTERS = re.compile(r"[\W_]+")
_SHORT_TABLE = 8  # rows; of longer tables only matching rows are quoted

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

    @property
    def text(self) -> str:
        return text_of(self.source.text, self.span)


def quote(question: str, sources: Sequence[Source], limit: int = 4) -> Quote | None:
    """Return at most `limit` spans, grouped by source in the sources' order, in reading order
    within each. None if the sources do not answer.
    """
    asked = content_words(asked_about(question))
    if not asked or not _has_names(question, sources):
        return None
    candidates = [
        each
        for rank, source in enumerate(sources)
        for each in _candidates(rank, source, asked, shows=_asks_how(question))
    ]
    asked = _without_chance_pairs(question, asked, candidates)
    weights = _weights(asked, candidates)
    shares = _shares(weights, candidates)
    if not _answers(weights, candidates, shares):
        return None
    chosen = _choose(candidates, weights, shares, limit)
    return (
        _compose(sorted(chosen, key=lambda each: (each.rank, each.span.start))) if chosen else None
    )


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
    return _NO_LETTERS.sub("", text.casefold())


def _without_chance_pairs(
    question: str, asked: frozenset[str], candidates: Sequence["_Candidate"]
) -> frozenset[str]:
    """See `answerability.without_chance_pairs`."""
    words = [word for word in words_of(asked_about(question)) if stem(word) in asked]
    said = frozenset[str]().union(*(each.terms | each.named for each in candidates))
    kept = without_chance_pairs(words, lambda word: stem(word) in said)
    return frozenset(map(stem, kept))


# Choosing spans


def _candidates(
    rank: int, source: Source, asked: frozenset[str], *, shows: bool
) -> Iterator[_Candidate]:
    named = asked.intersection(terms_of(f"{source.heading} {source.path}"))
    for position, span in enumerate(
        _shorten_table(source.text, each, asked) for each in spans_of(source.text, shows=shows)
    ):
        text = text_of(source.text, span)
        words = terms_of(without_identifiers(text, asked))
        terms = asked.intersection(words)
        code = bool(FENCE.match(text)) or looks_like_code(text)
        scrap = position > 0 and not span.block and (code or len(words) < _FRAGMENT_WORDS)
        factor = (
            (1.2 if position == 0 else 0.4 if scrap else 1.0)
            / (1 + 0.15 * rank)
            / (1 + len(text) / 1500)
        )
        factor *= 1.0 if span.block or text.endswith(COMPLETE) else 0.7
        factor *= _POINTER_FACTOR if POINTER.match(text) else 1.0
        above = frozenset[str]() if scrap else named - terms
        yield _Candidate(
            source=source,
            span=span,
            rank=rank,
            terms=terms,
            above=above,
            named=named,
            factor=factor,
            code=code,
        )


def _shorten_table(text: str, span: QuotableSpan, asked: frozenset[str]) -> QuotableSpan:
    """Reduce a long table to its column names and the rows that share most words with the question;
    keep all of it if too many rows tie.
    """
    lines = list(lines_of(text, span))
    rule = next(
        (number for number, (start, end) in enumerate(lines) if is_rule(text[start:end])), 0
    )
    if (
        rule < 1
        or len(lines) - rule - 1 <= _SHORT_TABLE
        or any(FENCE.match(text, start) for start, _ in lines)
    ):
        return span
    overlaps = [
        len(asked.intersection(terms_of(text[start:end]))) for start, end in lines[rule + 1 :]
    ]
    best = [
        line
        for line, count in zip(lines[rule + 1 :], overlaps, strict=True)
        if count == max(overlaps)
    ]
    return (
        msgspec.structs.replace(span, rows=(*lines[: rule + 1], *best))
        if len(best) <= _SHORT_TABLE
        else span
    )


def _weights(asked: frozenset[str], candidates: Sequence[_Candidate]) -> Weights:
    """Weigh words by IDF over the spans; a word that no span has weighs most."""
    counts = Counter(term for each in candidates for term in each.terms)
    return {term: math.log(1 + len(candidates) / (counts[term] + 0.5)) for term in asked}


def _answers(
    weights: Weights, candidates: Sequence[_Candidate], shares: Mapping[int, float]
) -> bool:
    """Tell whether a source covers the question and one span covers much of it at once; example
    code is only a mention. A long number, such as an order's, that no source contains is unknown:
    its neighbours are no answer.
    """
    total = sum(weights.values())
    said = frozenset[str]().union(*(each.terms | each.named for each in candidates))
    if any(len(term) >= _LONG_NUMBER and term.isdecimal() and term not in said for term in weights):
        return False
    at_once = max(
        (
            _weight(weights, each.terms | each.above) / total
            for each in candidates
            if not (each.code and each.span.block)
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
        gain, best = max(zip(gains, left, strict=True), key=lambda pair: pair[0])
        if gain <= least:
            break
        chosen.append(best)
        known |= best.terms
        least = least or gain * _MIN_GAIN
        left = [
            each for each in left if not _repeats(each, best) and _is_about(each, chosen, weights)
        ]
    return chosen


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
    if (
        candidate.rank == chosen.rank
        and candidate.span.start < chosen.span.end
        and chosen.span.start < candidate.span.end
    ):
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
