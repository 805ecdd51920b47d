"""What `slipway eval` runs and prints."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from slipway.admission import OPERATOR
from slipway.evals.knowledge import Report, Search, Sureness, measure
from slipway.evals.questions import questions_in
from slipway.evals.statistics import Measured
from slipway.knowledge import Knowledge

KEYWORDS_ONLY = (
    "Only keyword search was measured: its other half needs weights that are not here. Fetch them with: slipway weights pull minilm"
)


def of_knowledge(knowledge: Knowledge, questions: Path) -> Report:
    """Keyword search, and beside it the fused search where there are vectors. `knowledge` is read and embedded. Raises SettingsError."""
    asked = [each for each in questions_in(questions, knowledge.places(OPERATOR)) if not each.unanswerable]

    def searched(*, by_meaning: bool) -> tuple[Search, Sureness]:
        return (
            lambda question, limit: knowledge.ranked(question, OPERATOR, limit, by_meaning=by_meaning),
            lambda question, ranked: knowledge.sureness(question, ranked, by_meaning=by_meaning),
        )

    searches = {"keyword": searched(by_meaning=False)}
    if knowledge.has_vectors:
        searches["fused"] = searched(by_meaning=True)
    return measure(asked, searches)


def as_json(report: Report) -> dict[str, Any]:
    values = {name: {metric: round(m.value, 4) for metric, m in rows.items()} for name, rows in report.measured.items()}
    intervals = {name: {metric: _interval(m) for metric, m in rows.items()} for name, rows in report.measured.items()}
    differences = {metric: {"value": round(m.value, 4), "interval": _interval(m)} for metric, m in report.differences.items()}
    return {**values, "n": report.n, "intervals": intervals, "differences": differences}


def as_text(report: Report) -> Iterator[str]:
    yield (
        f"{report.n} questions" + "".join(f"{name:>26}" for name in report.measured) + (f"{'difference':>26}" if report.differences else "")
    )
    for metric in next(iter(report.measured.values())):
        cells = [_cell(rows[metric]) for rows in report.measured.values()]
        cells += [_cell(report.differences[metric], "+")] if metric in report.differences else []
        yield f"{metric:{len(str(report.n)) + 10}}" + "".join(f"{cell:>26}" for cell in cells)
    yield "Behind each value its 95 % interval. abstention_auroc: how often a question is held for answered rather with its gold than without."


def _cell(m: Measured, sign: str = "") -> str:
    return f"{m.value:{sign}.3f} [{m.low:{sign}.3f}, {m.high:{sign}.3f}]"


def _interval(m: Measured) -> list[float]:
    return [round(m.low, 4), round(m.high, 4)]
