"""Write the report of `slipway eval answers` as one HTML file without network or scripts, for
light and dark screens and for print.
"""

import math
from collections.abc import Iterator, Sequence
from datetime import datetime

import slipway
from slipway.evals import charts, facts
from slipway.evals.answers import METRICS, AnswersReport, Case, ColumnAnswer, Kind
from slipway.evals.markup import Markup, joined, tag
from slipway.evals.reports import format_value, interval, is_sure, shown_metrics, spent
from slipway.evals.run_pages import page
from slipway.evals.statistics import Measured

KINDS: dict[Kind, str] = {
    "share": "Shares",
    "seconds": "Times",
    "tokens": "Tokens in an answer",
    "usd": "Cost of an answer",
}


def html(report: AnswersReport, at: datetime) -> str:
    """Return the whole page; `at` is when it was made."""
    columns = len(report.columns)
    title = f"{report.n} questions, {columns} column{'s' if columns > 1 else ''}"
    return page(
        f"Answers measured: {title}",
        _opening(report, title, at),
        _results(report),
        _differences(report),
        _times(report),
        _questions(report),
    )


def _opening(report: AnswersReport, title: str, at: datetime) -> Markup:
    columns = [
        tag(
            "tr",
            tag("th", name, scope="row"),
            tag("td", about),
            tag("td", spent(report.totals[name])),
        )
        for name, about in report.columns.items()
    ]
    names = tag(
        "tr",
        *(tag("th", each, scope="col") for each in ("Column", "What it is", "What came of it")),
    )
    return joined(
        tag("h1", "Answers, measured"),
        tag("p", f"{title}, {at:%Y-%m-%d %H:%M}, Slipway {slipway.__version__}", class_="soft"),
        _scrolled(tag("table", tag("thead", names), tag("tbody", *columns)), "Columns"),
        tag("ul", (tag("li", note) for note in report.notes), class_="notes")
        if report.notes
        else "",
    )


# The numbers


def _results(report: AnswersReport) -> Markup:
    metrics = shown_metrics(report.measured)
    names = list(report.columns)
    plots = [
        _plot(kind, [each for each in metrics if METRICS[each].kind == kind], report)
        for kind in KINDS
    ]
    return joined(
        tag("h2", "Results"),
        tag(
            "p",
            "Each dot is a column's value, the line its 95 % interval. Each number is followed by "
            "the "
            "number of questions it was measured on.",
        ),
        charts.key(names),
        *(plot for plot in plots if plot),
        _scrolled(
            tag(
                "table",
                _head(["", *names]),
                tag("tbody", (_row(each, report) for each in metrics)),
                class_="numbers",
            ),
            "Results",
        ),
    )


def _plot(kind: Kind, metrics: Sequence[str], report: AnswersReport) -> Markup:
    rows = [
        charts.Row(label=metric, values=_values([row[metric] for row in report.measured.values()]))
        for metric in metrics
    ]
    if not rows:
        return Markup()
    span = (0.0, 1.0) if kind == "share" else (0.0, 0.0)
    return tag(
        "figure",
        charts.intervals(KINDS[kind], rows, lambda value: _short(kind, value), span=span),
        tag("figcaption", KINDS[kind]),
    )


def _values(found: Sequence[Measured]) -> dict[int, Measured]:
    return {number: m for number, m in enumerate(found) if not math.isnan(m.value)}


def _short(kind: Kind, value: float) -> str:
    """Format a number for an axis."""
    return (
        f"{value:g}"
        if kind == "share"
        else f"${value:g}"
        if kind == "usd"
        else format_value(kind, value)
    )


def _row(metric: str, report: AnswersReport) -> Markup:
    each = METRICS[metric]
    cells = [
        tag(
            "td",
            format_value(each.kind, row[metric].value),
            " ",
            tag("small", _behind(each.kind, row[metric])),
        )
        for row in report.measured.values()
    ]
    about = tag("small", f"{each.meaning}; {each.better} is better")
    return tag("tr", tag("th", metric, tag("br"), about, scope="row"), *cells)


def _behind(kind: Kind, m: Measured) -> str:
    """Return the interval and the number of questions that it was measured on."""
    return f"{interval(kind, m)} of {m.n}".strip() if m.n else ""


def _differences(report: AnswersReport) -> Markup:
    if not report.differences:
        return Markup()
    numbers = {name: number for number, name in enumerate(report.columns)}
    metrics = shown_metrics(report.differences)
    shares = [each for each in metrics if METRICS[each].kind == "share"]
    rows = [
        charts.Row(
            label=metric,
            values={
                numbers[name]: row[metric]
                for name, row in report.differences.items()
                if not math.isnan(row[metric].value)
            },
        )
        for metric in shares
    ]
    title = f"Differences to {report.against}"
    plot = (
        charts.intervals(
            title, rows, lambda value: f"{value:+g}" if value else "0", span=(-0.1, 0.1)
        )
        if rows
        else Markup()
    )
    cells = (
        tag(
            "tr",
            tag("th", metric, scope="row"),
            *(
                _difference(METRICS[metric].kind, row[metric])
                for row in report.differences.values()
            ),
        )
        for metric in metrics
    )
    return joined(
        tag("h2", title),
        tag(
            "p",
            "On the same questions. A line that does not touch 0 is a difference that chance "
            "hardly "
            "explains; those are bold below. Shares of answers, citations and sentences count only "
            "what a column answered: one that abstains from hard questions has an advantage there.",
        ),
        tag("figure", plot, tag("figcaption", "To the right is more, which is not always better."))
        if rows
        else "",
        _scrolled(
            tag("table", _head(["", *report.differences]), tag("tbody", cells), class_="numbers"),
            title,
        ),
    )


def _difference(kind: Kind, m: Measured) -> Markup:
    value = format_value(kind, m.value, "+")
    return tag(
        "td",
        tag("strong", value) if is_sure(m) else value,
        " ",
        tag("small", interval(kind, m, "+")),
    )


def _times(report: AnswersReport) -> Markup:
    found = list[Markup]()
    for title, times in (
        (
            "Seconds to the first words",
            [
                [case.answer.ttft_s for case in cases if not case.answer.error]
                for cases in report.cases.values()
            ],
        ),
        (
            "Seconds to the last word",
            [
                [case.answer.duration_s for case in cases if not case.answer.error]
                for cases in report.cases.values()
            ],
        ),
    ):
        series = {
            n: there
            for n, each in enumerate(times)
            if (there := [time for time in each if time is not None])
        }
        if series:
            caption = f"{title}: the share of answers that took at most so long"
            found.append(
                tag(
                    "figure",
                    charts.curves(title, series, lambda value: format_value("seconds", value)),
                    tag("figcaption", caption),
                )
            )
    return (
        joined(tag("h2", "How long answers took"), charts.key(list(report.columns)), *found)
        if found
        else Markup()
    )


# The questions


def _questions(report: AnswersReport) -> Markup:
    rows = zip(*report.cases.values(), strict=True)
    return joined(
        tag("h2", "Questions"),
        tag("p", "Words of the gold answer that an answer has are ", tag("mark", "marked"), "."),
        *(_question(list(report.columns), cases) for cases in rows),
    )


def _question(names: Sequence[str], cases: Sequence[Case]) -> Markup:
    question = cases[0].question
    gold = ", ".join(
        f"{each.page}: {each.heading}" if each.heading else each.page for each in question.gold
    )
    verdicts = (
        tag("span", f"{name}: {_verdict(case)}", class_=_colour(case))
        for name, case in zip(names, cases, strict=True)
    )
    about = joined(
        tag(
            "p",
            tag("b", "Gold"),
            f" {question.answer}" if question.answer else " no answer is written down",
            class_="gold",
        )
        if not question.unanswerable
        else tag("p", "The documents do not answer this.", class_="gold"),
        tag("p", gold, class_="soft") if gold else "",
    )
    answers = tag(
        "div",
        *(_answer(name, case) for name, case in zip(names, cases, strict=True)),
        class_="answers",
    )
    return tag(
        "details",
        tag("summary", tag("span", question.question, class_="asked"), *verdicts),
        about,
        answers,
    )


def _verdict(case: Case) -> str:
    answer = case.answer
    if answer.error:
        return "failed"
    if answer.abstained:
        return "no answer"
    return "answered" if case.covered is None else f"{case.covered:.0%} of the facts"


def _colour(case: Case) -> str:
    good = (
        case.question.unanswerable == case.answer.abstained
        and not case.answer.error
        and (case.covered is None or case.covered >= 0.5)
    )
    return "verdict good" if good else "verdict bad"


def _answer(name: str, case: Case) -> Markup:
    answer, question = case.answer, case.question
    wanted = facts.facts(question.answer, question.question) if case.answerable else frozenset()
    missing = facts.words_of(question.answer, wanted - facts.said(answer.text))
    pieces = (
        tag("mark", text) if is_wanted else text
        for text, is_wanted in facts.pieces(answer.text, wanted)
    )
    return tag(
        "section",
        tag("h3", name),
        tag("p", f"Failed: {answer.error}", class_="bad") if answer.error else "",
        tag("p", pieces, class_="text") if answer.text else "",
        tag("p", tag("b", "Missing"), f" {', '.join(missing)}")
        if missing and answer.answers
        else "",
        tag("ul", cited, class_="citations") if (cited := joined(_citations(case))) else "",
        tag("p", _about(answer), class_="soft"),
        _withheld(case),
    )


def _citations(case: Case) -> Iterator[Markup]:
    """Yield each cited source once, with whether it is a gold place; then how many named none."""
    for source in case.cited:
        flags = dict.fromkeys(
            word
            for citation in case.answer.citations
            if citation.n == source.n
            for word in citation.flags
        )
        doubt = f"; not in it: {', '.join(flags)}" if flags else ""
        right = case.is_gold(source)
        verdict = (
            tag("span", "right" if right else "another place", class_="good" if right else "bad")
            if case.answerable
            else ""
        )
        yield tag("li", f"[{source.n}] {source.path}: {source.heading} ", verdict, doubt)
    if case.answer.dangling:
        yield tag(
            "li",
            f"{case.answer.dangling} more named ",
            tag("span", "no source", class_="bad"),
            ", and were removed",
        )
    if case.answer.answers and not case.cited:
        yield tag("li", "no source is cited")


def _about(answer: ColumnAnswer) -> str:
    known = [
        answer.served_by and f"by {answer.model or answer.served_by}",
        "since the model could not be reached" if answer.degraded else None,
        None if answer.ttft_s is None else f"first words {format_value('seconds', answer.ttft_s)}",
        None if answer.duration_s is None else f"all {format_value('seconds', answer.duration_s)}",
        answer.usage
        and f"{answer.usage.input_tokens:,} tokens in, {answer.usage.output_tokens:,} out",
        None if answer.cost_usd is None else f"${answer.cost_usd}",
    ]
    return ", ".join(each for each in known if each)


def _withheld(case: Case) -> Markup:
    found = case.without_gold
    if found is None:
        return Markup()
    words = (
        f"failed: {found.error}"
        if found.error
        else ("rightly no answer" if found.abstained else f"answered: {found.text}")
    )
    return tag("p", tag("b", "Gold withheld"), f" {words}", class_="text")


def _head(names: Sequence[str]) -> Markup:
    return tag(
        "thead", tag("tr", *(tag("th", name, scope="col") if name else tag("td") for name in names))
    )


def _scrolled(table: Markup, label: str) -> Markup:
    return tag("div", table, class_="scroller", tabindex=0, role="region", aria_label=label)
