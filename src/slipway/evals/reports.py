"""Run `slipway eval knowledge`, and write the reports of `slipway eval` as text and JSON."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from slipway.admission import OPERATOR
from slipway.evals import answers
from slipway.evals.answers import METRICS, AnswersReport, Case, Kind
from slipway.evals.facts import facts, said, words_of
from slipway.evals.knowledge import Search, SearchReport, Sureness, measure
from slipway.evals.questions import questions_in
from slipway.evals.statistics import Measured
from slipway.knowledge import Knowledge

KEYWORDS_ONLY = (
    "Only keyword search was measured: search by meaning needs weights that are not here. "
    "Fetch them with: slipway weights pull minilm"
)


def of_knowledge(knowledge: Knowledge, questions: Path) -> SearchReport:
    """Measure keyword search, and the fused search if there are vectors. `knowledge` must be read
    and embedded. Raises SettingsError.
    """
    asked = [
        each
        for each in questions_in(questions, knowledge.places(OPERATOR))
        if not each.unanswerable
    ]

    def searched(*, by_meaning: bool) -> tuple[Search, Sureness]:
        return (
            lambda question, limit: knowledge.ranked(
                question, OPERATOR, limit, by_meaning=by_meaning
            ),
            lambda question, ranked: knowledge.confidence(question, ranked, by_meaning=by_meaning),
        )

    searches = {"keyword": searched(by_meaning=False)}
    if knowledge.has_vectors:
        searches["fused"] = searched(by_meaning=True)
    return measure(asked, searches)


def as_json(report: SearchReport) -> dict[str, Any]:
    values = {
        name: {metric: round(m.value, 4) for metric, m in rows.items()}
        for name, rows in report.measured.items()
    }
    intervals = {
        name: {metric: _interval(m) for metric, m in rows.items()}
        for name, rows in report.measured.items()
    }
    differences = {
        metric: {"value": round(m.value, 4), "interval": _interval(m)}
        for metric, m in report.differences.items()
    }
    return {**values, "n": report.n, "intervals": intervals, "differences": differences}


def as_text(report: SearchReport) -> Iterator[str]:
    yield (
        f"{report.n} questions"
        + "".join(f"{name:>26}" for name in report.measured)
        + (f"{'difference':>26}" if report.differences else "")
    )
    for metric in next(iter(report.measured.values())):
        cells = [_cell(rows[metric]) for rows in report.measured.values()]
        cells += [_cell(report.differences[metric], "+")] if metric in report.differences else []
        yield f"{metric:{len(str(report.n)) + 10}}" + "".join(f"{cell:>26}" for cell in cells)
    yield (
        "Each value is followed by its 95 % interval. abstention_auroc: how often the confidence "
        "is "
        "higher with the gold places than without them."
    )


def _cell(m: Measured, sign: str = "") -> str:
    return f"{m.value:{sign}.3f} [{m.low:{sign}.3f}, {m.high:{sign}.3f}]"


def _interval(m: Measured) -> list[float]:
    return [round(m.low, 4), round(m.high, 4)]


# Answers


def format_value(kind: Kind, value: float, sign: str = "") -> str:
    """Format a number of this kind for people."""
    if math.isnan(value):
        return "-"
    if kind == "seconds":
        return f"{value:{sign}.1f} s" if abs(value) >= 1 else f"{1000 * value:{sign}.0f} ms"
    return {
        "share": f"{value:{sign}.3f}",
        "tokens": f"{value:{sign},.0f}",
        "usd": f"${value:{sign}.6f}",
    }[kind]


def interval(kind: Kind, m: Measured, sign: str = "") -> str:
    return (
        ""
        if math.isnan(m.low)
        else f"[{format_value(kind, m.low, sign)}, {format_value(kind, m.high, sign)}]"
    )


def shown_metrics(rows: Mapping[str, Mapping[str, Measured]]) -> list[str]:
    """Return the metrics that could be measured in at least one column."""
    return [
        metric
        for metric in METRICS
        if any(not math.isnan(row[metric].value) for row in rows.values())
    ]


def answers_as_text(report: AnswersReport) -> Iterator[str]:
    yield f"{report.n} questions, with 95 % intervals"
    yield from _rows(report.measured)
    if report.differences:
        yield ""
        yield (
            f"differences to {report.against}, question by question; * if the interval excludes 0"
        )
        yield from _rows(report.differences, "+")
    yield ""
    for name, total in report.totals.items():
        yield f"{name}: {spent(total)}"
    for note in report.notes:
        yield f"Note: {note}"


def spent(total: answers.Total) -> str:
    served_by = ", ".join(
        f"{count} by {served_by}" if served_by != "failed" else f"{count} failed"
        for served_by, count in total.served_by.items()
    )
    tokens = (
        f"; {total.input_tokens:,} tokens in, {total.output_tokens:,} out"
        if total.input_tokens or total.output_tokens
        else ""
    )
    cost = f"; ${total.cost_usd}" if float(total.cost_usd) else ""
    return f"{total.asked} answers ({served_by}){tokens}{cost}"


def is_sure(difference: Measured) -> bool:
    return difference.low > 0 or difference.high < 0


def _rows(rows: Mapping[str, Mapping[str, Measured]], sign: str = "") -> Iterator[str]:
    metrics = shown_metrics(rows)
    cells = [
        ["", *rows],
        *(
            [each, *(_with_interval(METRICS[each].kind, row[each], sign) for row in rows.values())]
            for each in metrics
        ),
    ]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for first, *rest in cells:
        yield "  ".join(
            [
                f"{first:{widths[0]}}",
                *(f"{cell:>{width}}" for cell, width in zip(rest, widths[1:], strict=True)),
            ]
        ).rstrip()


def _with_interval(kind: Kind, m: Measured, sign: str) -> str:
    mark = (" *" if is_sure(m) else "  ") if sign else ""
    return f"{format_value(kind, m.value, sign)} {interval(kind, m, sign)}{mark}".rstrip(
        "" if sign else None
    )


def answers_as_json(report: AnswersReport) -> dict[str, Any]:
    """Return the report as JSON data; values that were not measured are null."""
    questions: Sequence[Case] = report.cases[report.against]
    return {
        "n": report.n,
        "against": report.against,
        "columns": report.columns,
        "measured": {name: _values(row) for name, row in report.measured.items()},
        "differences": {name: _values(row) for name, row in report.differences.items()},
        "totals": msgspec.to_builtins(report.totals),
        "notes": list(report.notes),
        "questions": [
            {
                "id": case.question.id,
                "question": case.question.question,
                "answers": {name: _judged(rows[number]) for name, rows in report.cases.items()},
            }
            for number, case in enumerate(questions)
        ],
    }


def _values(row: Mapping[str, Measured]) -> dict[str, Any]:
    return {metric: None if math.isnan(m.value) else _value(m) for metric, m in row.items()}


def _value(m: Measured) -> dict[str, Any]:
    """Return a value as JSON data; the interval is null if there were too few questions for one."""
    edges = None if math.isnan(m.low) else [round(m.low, 6), round(m.high, 6)]
    return {"value": round(m.value, 6), "interval": edges, "n": m.n}


def _judged(case: Case) -> dict[str, Any]:
    parts = {metric: each.of(case) for metric, each in METRICS.items()}
    scores = {
        metric: None if part is None or not part[1] else round(part[0] / part[1], 6)
        for metric, part in parts.items()
    }
    answer, question, withheld = case.answer, case.question, case.without_gold
    wanted = facts(question.answer, question.question)
    has = wanted & said(answer.text) if answer.answers else frozenset[str]()
    return {
        "text": answer.text,
        "served_by": answer.served_by,
        "model": answer.model,
        "abstained": answer.abstained,
        "error": answer.error or None,
        "scores": scores,
        "facts": {
            "found": words_of(question.answer, has),
            "missing": words_of(question.answer, wanted - has),
        },
        "cited": [
            {"path": each.path, "heading": each.heading, "right": case.is_gold(each)}
            for each in case.cited
        ],
        "without_gold": withheld
        and {
            "text": withheld.text,
            "abstained": withheld.abstained,
            "error": withheld.error or None,
        },
    }
