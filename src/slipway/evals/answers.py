"""Compare answers with gold answers: what they say, what they cite, and whether they abstain when
they should.

Each question is answered once in every **column**: an app, an app with another model, or the
documents quoted without a model. A metric returns a fraction (over, under) for each answer, so that
a share of all citations is not a mean of shares; None if it does not apply.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from itertools import pairwise
from typing import Literal

import msgspec

from slipway import ledger
from slipway.evals.facts import covered, precision, said
from slipway.evals.questions import GoldQuestion
from slipway.evals.statistics import (
    Measured,
    Statistic,
    all_or_none,
    compared,
    measured,
    quantile,
    ratio,
)
from slipway.knowledge.citations import SENTENCE_ENDS
from slipway.types import Citation, Record, Usage

Parts = tuple[float, float] | None
Kind = Literal["share", "seconds", "tokens", "usd"]

# The fewest questions for an interval: between the lowest and the highest of five values, the true
# median lies only 94 times in 100
FEWEST = 6
_SENTENCE = 2  # content words; a sentence with fewer needs no source


class At(Record, frozen=True, kw_only=True):
    """A source of an answer, by the number that its citations use."""

    n: int
    path: str
    heading: str


class ColumnAnswer(Record, frozen=True, kw_only=True):
    """The answer to one question in one column.

    `made` is a hash of the settings and documents that it was made with; `error` says what failed.
    `dangling` counts markers that named no source; None if the server does not report it.
    `degraded`: the documents were quoted, since no model could be reached.
    """

    column: str
    made: str
    question: str
    without_gold: bool = False
    text: str = ""
    error: str = ""
    abstained: bool = False
    degraded: bool = False
    served_by: str | None = None
    model: str | None = None
    sources: tuple[At, ...] = ()
    citations: tuple[Citation, ...] = ()
    dangling: int | None = None
    ttft_s: float | None = None
    duration_s: float | None = None
    usage: Usage | None = None
    cost_usd: str | None = None

    @property
    def answers(self) -> bool:
        return not self.error and not self.abstained


class Case(Record, frozen=True, kw_only=True):
    """A question with its answer in one column, and the answer with the gold pages withheld."""

    question: GoldQuestion
    answer: ColumnAnswer
    without_gold: ColumnAnswer | None = None

    @property
    def answerable(self) -> bool:
        return not self.question.unanswerable

    @property
    def right(self) -> list[bool]:
        """Return for each citation whether it points to a gold place."""
        sources = {source.n: source for source in self.answer.sources}
        return [self.is_gold(sources[c.n]) for c in self.answer.citations if c.n in sources]

    @property
    def cited(self) -> list[At]:
        numbers = {citation.n for citation in self.answer.citations}
        return [source for source in self.answer.sources if source.n in numbers]

    def is_gold(self, source: At) -> bool:
        return any(gold.is_at((source.path, source.heading, None)) for gold in self.question.gold)

    @property
    def covered(self) -> float | None:
        if not self.answerable or not self.question.answer:
            return None
        share = covered(self.answer.text, self.question.answer, self.question.question)
        return share if share is None or self.answer.answers else 0.0


# What is measured of an answer


def _facts(case: Case) -> Parts:
    return None if case.covered is None else (case.covered, 1)


def _precision(case: Case) -> Parts:
    if not case.answer.answers or not case.answerable or not case.question.answer:
        return None
    share = precision(case.answer.text, case.question.answer, case.question.question)
    return None if share is None else (share, 1)


def _right(case: Case) -> Parts:
    return (sum(case.right), len(case.right)) if case.answer.answers and case.answerable else None


def _any_right(case: Case) -> Parts:
    return (any(case.right), 1) if case.answer.answers and case.answerable else None


def _flagged(case: Case) -> Parts:
    return (
        (sum(bool(each.flags) for each in case.answer.citations), len(case.answer.citations))
        if case.answer.answers
        else None
    )


def _dangling(case: Case) -> Parts:
    lost = case.answer.dangling
    return None if lost is None else (lost, lost + len(case.answer.citations))


def _uncited(case: Case) -> Parts:
    if not case.answer.answers:
        return None
    found = list(sentences(case.answer.text))
    return sum(
        not any(c.start < end and start < c.end for c in case.answer.citations)
        for start, end in found
    ), len(found)


def _false_abstention(case: Case) -> Parts:
    return (case.answer.abstained, 1) if case.answerable and not case.answer.error else None


def _false_answer(case: Case) -> Parts:
    return (case.answer.answers, 1) if not case.answerable and not case.answer.error else None


def _false_without_gold(case: Case) -> Parts:
    found = case.without_gold
    return (found.answers, 1) if found is not None and not found.error else None


def _tokens(count: Callable[[Usage], int]) -> Callable[[Case], Parts]:
    return lambda case: (count(case.answer.usage), 1) if case.answer.usage else None


def _cost(case: Case) -> Parts:
    return (float(case.answer.cost_usd), 1) if case.answer.cost_usd is not None else None


class Metric(Record, frozen=True, kw_only=True):
    """A number that is measured of answers. `better` is the direction of improvement; with `q` it
    is a quantile of the values, otherwise a ratio of sums.
    """

    kind: Kind
    better: Literal["more", "less"]
    meaning: str
    of: Callable[[Case], Parts]
    q: float | None = None

    def statistic(self, cases: Sequence[Case]) -> Statistic:
        parts = [self.of(case) for case in cases]
        return (
            ratio(parts)
            if self.q is None
            else quantile(self.q, [None if part is None else part[0] for part in parts])
        )

    def counted(self, cases: Sequence[Case]) -> int:
        """Count the questions that it could be measured on."""
        return sum(bool(part and part[1]) for part in map(self.of, cases))


def _seconds(q: float, meaning: str, of: Callable[[ColumnAnswer], float | None]) -> Metric:
    def parts(case: Case) -> Parts:
        value = None if case.answer.error else of(case.answer)
        return None if value is None else (value, 1)

    return Metric(kind="seconds", better="less", q=q, meaning=meaning, of=parts)


METRICS: dict[str, Metric] = {
    "fact overlap": Metric(
        kind="share",
        better="more",
        of=_facts,
        meaning="of the gold answer's facts, the answer has; 0 for no answer",
    ),
    "precision": Metric(
        kind="share",
        better="more",
        of=_precision,
        meaning="of an answer's words, the gold answer or the question has",
    ),
    "right citations": Metric(
        kind="share", better="more", of=_right, meaning="of all citations, point to a gold place"
    ),
    "answers rightly cited": Metric(
        kind="share",
        better="more",
        of=_any_right,
        meaning="of the answers have a citation of a gold place",
    ),
    "dangling citations": Metric(
        kind="share",
        better="less",
        of=_dangling,
        meaning="of all citations named no source, and were removed",
    ),
    "flagged citations": Metric(
        kind="share",
        better="less",
        of=_flagged,
        meaning="of all citations have words that their source lacks",
    ),
    "uncited sentences": Metric(
        kind="share",
        better="less",
        of=_uncited,
        meaning="of the answers' sentences have no citation",
    ),
    "false abstentions": Metric(
        kind="share",
        better="less",
        of=_false_abstention,
        meaning="of the questions with an answer got none",
    ),
    "false answers": Metric(
        kind="share",
        better="less",
        of=_false_answer,
        meaning="of the unanswerable questions were answered",
    ),
    "false answers without gold": Metric(
        kind="share",
        better="less",
        of=_false_without_gold,
        meaning="of the questions were answered though their gold pages were withheld",
    ),
    "failed": Metric(
        kind="share",
        better="less",
        of=lambda case: (bool(case.answer.error), 1),
        meaning="of the questions got an error",
    ),
    "TTFT p50": _seconds(
        0.5, "until the first words; half of the answers took longer", lambda answer: answer.ttft_s
    ),
    "TTFT p95": _seconds(
        0.95,
        "until the first words; one answer in twenty took longer",
        lambda answer: answer.ttft_s,
    ),
    "total p50": _seconds(
        0.5,
        "until the last word; half of the answers took longer",
        lambda answer: answer.duration_s,
    ),
    "total p95": _seconds(
        0.95,
        "until the last word; one answer in twenty took longer",
        lambda answer: answer.duration_s,
    ),
    "input tokens": Metric(
        kind="tokens",
        better="less",
        of=_tokens(lambda usage: usage.input_tokens),
        meaning="in an answer whose model reported them",
    ),
    "output tokens": Metric(
        kind="tokens",
        better="less",
        of=_tokens(lambda usage: usage.output_tokens),
        meaning="in an answer whose model reported them",
    ),
    "cost": Metric(
        kind="usd", better="less", of=_cost, meaning="for an answer whose price is known"
    ),
}


def sentences(text: str) -> Iterator[tuple[int, int]]:
    """Yield the sentences that need a source, as (start, end): not code, headings, or the line that
    introduces a list. A row of a table is one sentence.
    """
    at, fenced = 0, False
    for line in text.splitlines(keepends=True):
        bare = line.strip()
        fence = bare.startswith(("```", "~~~"))
        fenced = fenced != fence
        if not (fenced or fence or bare.startswith("#") or bare.endswith((":", "："))):
            cuts = (
                []
                if bare.startswith("|")
                else [found.end() for found in SENTENCE_ENDS.finditer(line)]
            )
            edges = pairwise(sorted({0, *cuts, len(line)}))
            yield from (
                (at + start, at + end)
                for start, end in edges
                if len(said(line[start:end])) >= _SENTENCE
            )
        at += len(line)


# What comes out


class Total(Record, frozen=True, kw_only=True):
    """The totals of a column, including answers with gold withheld. `cost_usd` is the exact sum of
    the answers whose price is known; `unpriced` counts the others.
    """

    asked: int
    failed: int
    degraded: int
    served_by: Mapping[str, int]
    input_tokens: int
    output_tokens: int
    cost_usd: str
    unpriced: int


class AnswersReport(Record, frozen=True, kw_only=True):
    """Results by column, then by metric. `differences` are to the column `against`, on the same
    questions.
    """

    n: int
    against: str
    columns: Mapping[str, str]  # with what each is
    cases: Mapping[str, Sequence[Case]]
    measured: Mapping[str, Mapping[str, Measured]]
    differences: Mapping[str, Mapping[str, Measured]]
    totals: Mapping[str, Total]
    notes: Sequence[str]


def report(
    columns: Mapping[str, str], cases: Mapping[str, Sequence[Case]], against: str
) -> AnswersReport:
    """Measure all columns. `cases` has the same questions in the same order for each column."""
    n = len(cases[against])
    values = {
        name: {metric: _measured(each, rows, None, n) for metric, each in METRICS.items()}
        for name, rows in cases.items()
    }
    differences = {
        name: {metric: _measured(each, rows, cases[against], n) for metric, each in METRICS.items()}
        for name, rows in cases.items()
        if name != against
    }
    totals = {name: _total(rows) for name, rows in cases.items()}
    return AnswersReport(
        n=n,
        against=against,
        columns=columns,
        cases=cases,
        measured=values,
        differences=differences,
        totals=totals,
        notes=list(_notes(cases, totals, values, differences)),
    )


def _measured(
    metric: Metric, cases: Sequence[Case], than: Sequence[Case] | None, n: int
) -> Measured:
    statistic = metric.statistic(cases)
    found = measured(statistic if than is None else compared(statistic, metric.statistic(than)), n)
    counted = min(metric.counted(each) for each in (cases, than) if each is not None)
    found = msgspec.structs.replace(found, n=counted)
    if metric.kind == "share" and than is None and found.value in (0, 1):
        return all_or_none(found)
    return (
        found if counted >= FEWEST else msgspec.structs.replace(found, low=math.nan, high=math.nan)
    )


def _total(cases: Sequence[Case]) -> Total:
    answers = [
        answer
        for case in cases
        for answer in (case.answer, case.without_gold)
        if answer is not None
    ]
    usages = [answer.usage for answer in answers if answer.usage is not None]
    costs = [Decimal(answer.cost_usd) for answer in answers if answer.cost_usd is not None]
    return Total(
        asked=len(answers),
        failed=sum(bool(answer.error) for answer in answers),
        degraded=sum(answer.degraded for answer in answers),
        served_by=dict(Counter(answer.served_by or "failed" for answer in answers)),
        input_tokens=sum(usage.input_tokens for usage in usages),
        output_tokens=sum(usage.output_tokens for usage in usages),
        cost_usd=ledger.format_usd(sum(costs, Decimal())) or "0",
        unpriced=sum(
            answer.cost_usd is None and (answer.model is not None or bool(answer.error))
            for answer in answers
        ),
    )


def _notes(
    cases: Mapping[str, Sequence[Case]],
    totals: Mapping[str, Total],
    values: Mapping[str, Mapping[str, Measured]],
    differences: Mapping[str, Mapping[str, Measured]],
) -> Iterator[str]:
    for name, total in totals.items():
        if total.failed:
            first = next(
                a.error
                for c in cases[name]
                for a in (c.answer, c.without_gold)
                if a is not None and a.error
            )
            yield (
                f"{name}: {total.failed} of {total.asked} answers failed and count as none; the "
                "first "
                f"error: {first}"
            )
        if total.degraded:
            yield (
                f"{name}: {total.degraded} of {total.asked} answers are quotes, since the model "
                "could "
                "not be reached: they are not its own."
            )
        if total.unpriced:
            yield (
                f"{name}: the cost of {total.unpriced} of {total.asked} answers is unknown: their "
                "model "
                "has no `price`, or they ended before it reported its tokens."
            )
    rows = next(iter(cases.values()))
    if all(case.answerable and case.without_gold is None for case in rows):
        yield (
            'False answers are not measured: no question is marked `"unanswerable": true`. '
            "With --without-gold each is asked once more while its gold pages are withheld."
        )
    if wordless := sum(case.answerable and case.covered is None for case in rows):
        yield (
            f"{wordless} of {len(rows)} questions have no gold `answer` that says more than the "
            "question: fact overlap leaves them out."
        )
    if any(
        not math.isnan(each.value) and math.isnan(each.low)
        for row in (*values.values(), *differences.values())
        for each in row.values()
    ):
        yield (
            f"Metrics with fewer than {FEWEST} questions have no interval: too few to generalise."
        )
    count = sum(not math.isnan(each.low) for row in differences.values() for each in row.values())
    if count > 1:
        yield (
            f"{count} differences are shown. Even if none were real, about "
            f"{max(1, round(count / 20))} of them would seem certain by chance."
        )
