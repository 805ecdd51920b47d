"""Write a run's report as one HTML file without network or scripts."""

import math
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from importlib.resources import files

from slipway.evals import charts
from slipway.evals.markup import Markup, html_page, joined, tag
from slipway.evals.run_reports import (
    judge_line,
    percent,
    probability,
    rows,
    seconds,
    share,
    usd,
    verdict,
)
from slipway.evals.statistics import Measured
from slipway.evals.summary import CandidateSummary, ScoredRow, Summary

ITEMS, TAGS = 60, 60  # shown at most
LONG = 4000  # characters of an output that are shown


def page(title: str, *parts: Markup | str) -> str:
    """Return a whole page in the style of all reports."""
    return html_page(title, (files("slipway.evals") / "report.css").read_text(), *parts)


def html(summary: Summary) -> str:
    """Return the report; the same logs give the same bytes."""
    names = list(summary.candidates)
    return page(
        f"Evaluation: {summary.run.set}",
        _opening(summary),
        tag("h2", "Results"),
        _plots(summary, names),
        grid(rows(summary), "Results"),
        _differences(summary),
        _speed(summary, names),
        _tags(summary, names),
        _items(summary, names),
        _made_of(summary),
    )


def grid(table: Sequence[Sequence[str | Markup]], label: str, class_: str = "numbers") -> Markup:
    """Return a table that scrolls by itself on a small screen; the first row is its head."""
    head, *body = table
    heads = (tag("th", each, scope="col") if each else tag("td") for each in head)
    lines = (
        tag("tr", tag("th", first, scope="row"), *(tag("td", each) for each in rest))
        for first, *rest in body
    )
    inner = tag("table", tag("thead", tag("tr", *heads)), tag("tbody", lines), class_=class_)
    return tag("div", inner, class_="scroller", tabindex=0, role="region", aria_label=label)


def _opening(summary: Summary) -> Markup:
    run = summary.run
    at = datetime.fromtimestamp(run.at, UTC)
    about = (
        f"{summary.n:,} of {summary.asked:,} items, {at:%Y-%m-%d %H:%M} UTC, Slipway {run.version}"
    )
    notes = [tag("li", note) for note in summary.notes]
    if summary.judge is not None:
        notes.insert(0, tag("li", f"{judge_line(summary)}."))
    candidates = [
        ["Candidate", "What it is"],
        *([name, each.about] for name, each in summary.candidates.items()),
    ]
    return joined(
        tag("h1", run.title or run.set),
        tag("p", about, class_="soft"),
        tag("p", tag("strong", conclusion(summary))),
        grid(candidates, "Candidates", "plain"),
        tag("ul", *notes, class_="notes"),
    )


def conclusion(summary: Summary) -> str:
    """Sum up the result in one sentence."""
    if summary.winner is not None:
        beaten = [each for each in summary.comparisons if summary.winner in (each.one, each.other)]
        least = min(abs(each.pair.difference.value) for each in beaten)
        return (
            f"{summary.winner} is better than every other candidate, by {percent(least)} of the "
            "items or more."
        )
    if not summary.comparisons:
        only = next(iter(summary.candidates.values()))
        return f"{only.name} scores {share(only.flexible)}."
    sure = [
        f"{each.better} beats {each.other if each.better == each.one else each.one}"
        for each in summary.comparisons
        if each.better
    ]
    rest = "" if not sure else f" Known: {'; '.join(sure)}."
    return f"No candidate is surely better than all others.{rest}"


def _plots(summary: Summary, names: Sequence[str]) -> Markup:
    each = list(summary.candidates.values())
    scores = [
        charts.Row(label="score", values=_there([one.flexible for one in each])),
        charts.Row(label="score, strict reading", values=_there([one.strict for one in each])),
    ]
    span = (0.0, 1.0)
    parts = [
        charts.key(names),
        _figure(
            charts.intervals("Scores", scores, lambda v: f"{v:.0%}", span=span),
            "Score, with its 95 % interval",
        ),
    ]
    spots = [
        charts.Spot(
            label=one.name,
            x=one.cost.value,
            y=one.flexible,
            series=number,
            strong=one.name in _front(each),
        )
        for number, one in enumerate(each)
        if not math.isnan(one.cost.value)
    ]
    if len(spots) > 1:
        picture = charts.scatter("Quality and cost", spots, usd, lambda v: f"{v:.0%}")
        parts.append(
            _figure(
                picture,
                "Score by the cost of an answer. Whoever is not on the line is beaten on both.",
            )
        )
    return joined(*parts)


def _front(each: Sequence[CandidateSummary]) -> set[str]:
    return {
        one.name
        for one in each
        if not any(
            other.cost.value <= one.cost.value
            and other.flexible.value >= one.flexible.value
            and (other.cost.value, other.flexible.value) != (one.cost.value, one.flexible.value)
            for other in each
        )
    }


def _there(found: Sequence[Measured]) -> dict[int, Measured]:
    return {number: m for number, m in enumerate(found) if not math.isnan(m.value)}


def _figure(picture: Markup, caption: str) -> Markup:
    return tag("figure", picture, tag("figcaption", caption))


def _differences(summary: Summary) -> Markup:
    if not summary.comparisons:
        return Markup()
    plotted = [
        charts.Row(label=f"{each.one} - {each.other}", values={number: each.pair.difference})
        for number, each in enumerate(summary.comparisons)
    ]
    table: list[list[str]] = [
        [
            "",
            "Difference",
            "Wins / losses",
            "p (Holm)",
            "p, whenever looked",
            "Detectable difference",
            "Verdict",
        ]
    ]
    for each in summary.comparisons:
        known = f", known after {each.decided_at} items" if each.decided_at else ""
        table.append(
            [
                f"{each.one} - {each.other}",
                share(each.pair.difference, "+"),
                f"{each.pair.wins} / {each.pair.losses}",
                probability(each.p),
                probability(each.p_always),
                percent(each.pair.detectable),
                verdict(each) + known,
            ]
        )
    picture = charts.intervals(
        "Differences", plotted, lambda v: f"{v:+.0%}" if v else "0", span=(-0.1, 0.1)
    )
    return joined(
        tag("h2", "Who is better"),
        tag(
            "p",
            "On the same items. A line that does not touch 0 is a difference that chance hardly "
            "explains.",
        ),
        _figure(picture, "Difference of the scores, with its 95 % interval"),
        grid(table, "Differences", "plain"),
    )


def _speed(summary: Summary, names: Sequence[str]) -> Markup:
    found = []
    for title, values in (
        (
            "Seconds to the first token (TTFT)",
            [[_fresh(row, "ttft_s") for row in each] for each in summary.rows.values()],
        ),
        (
            "Seconds for each further token (TPOT)",
            [[_fresh(row, "tpot_s") for row in each] for each in summary.rows.values()],
        ),
    ):
        series = {
            n: known
            for n, each in enumerate(values)
            if (known := [v for v in each if v is not None])
        }
        if series:
            found.append(
                _figure(
                    charts.curves(title, series, seconds),
                    f"{title}: the share of answers that took at most so long",
                )
            )
    return joined(tag("h2", "How fast"), charts.key(names), *found) if found else Markup()


def _fresh(row: ScoredRow, what: str) -> float | None:
    value: float | None = getattr(row.answer.reply, what)
    return None if row.answer.cached or row.failed else value


def _tags(summary: Summary, names: Sequence[str]) -> Markup:
    tags = list(dict.fromkeys(name for each in summary.candidates.values() for name in each.tags))
    if len(tags) < 2:
        return Markup()
    shown = sorted(
        tags,
        key=lambda name: (
            -max(c.tags[name].n for c in summary.candidates.values() if name in c.tags)
        ),
    )[:TAGS]
    table = [["", *names]]
    table += [
        [name, *(_tag_cell(each, name) for each in summary.candidates.values())]
        for name in sorted(shown)
    ]
    more = (
        f" The {len(tags) - TAGS} smallest of {len(tags)} are left out." if len(tags) > TAGS else ""
    )
    return joined(
        tag("h2", "By tag"),
        tag(
            "p",
            "An average hides what a candidate is good at. Of many rows, some differ by "
            f"chance.{more}",
        ),
        grid(table, "By tag"),
    )


def _tag_cell(each: CandidateSummary, name: str) -> Markup:
    found = each.tags.get(name)
    return (
        tag("span", "-")
        if found is None
        else joined(share(found), " ", tag("small", f"of {found.n}"))
    )


# Items


def _items(summary: Summary, names: Sequence[str]) -> Markup:
    by_item: dict[str, dict[str, ScoredRow]] = {}
    for name, each in summary.rows.items():
        for row in each:
            by_item.setdefault(row.item.id, {})[name] = row

    def telling(rows_: dict[str, ScoredRow]) -> tuple[int, float]:
        scores = [row.scored.flexible for row in rows_.values()]
        return (0 if max(scores) != min(scores) else 1, min(scores))

    shown = sorted(by_item.values(), key=telling)[:ITEMS]
    more = (
        f"{len(shown)} of {len(by_item):,}: those on which candidates differ first, then those "
        "that are wrong. The log has all."
    )
    return joined(tag("h2", "Items"), tag("p", more), *(_item(names, each) for each in shown))


def _item(names: Sequence[str], found: dict[str, ScoredRow]) -> Markup:
    item = next(iter(found.values())).item
    verdicts = (
        tag(
            "span",
            f"{name}: {_worth(found[name])}",
            class_=f"verdict {'good' if found[name].scored.flexible >= 0.5 else 'bad'}",
        )
        for name in names
        if name in found
    )
    right = item.reference or "; ".join(f"{gold.page}: {gold.heading or ''}" for gold in item.gold)
    if item.choices and len(right) == 1:
        right = (
            f"{right}. {item.choices[ord(right) - 65]}"
            if ord(right) - 65 < len(item.choices)
            else right
        )
    about = tag("p", tag("b", "Right"), f" {right}", class_="gold")
    outputs = tag(
        "div", *(_output(name, found[name]) for name in names if name in found), class_="answers"
    )
    question = item.question if len(item.question) <= 160 else f"{item.question[:160]}…"
    whole = tag("p", item.question, class_="text") if question != item.question else ""
    return tag(
        "details",
        tag("summary", tag("span", question, class_="asked"), *verdicts),
        whole,
        about,
        outputs,
    )


def _worth(row: ScoredRow) -> str:
    if row.failed:
        return "failed"
    return {0.0: "wrong", 1.0: "right"}.get(row.scored.flexible, f"{row.scored.flexible:.2f}")


def _output(name: str, row: ScoredRow) -> Markup:
    reply = row.answer.reply
    text = (
        reply.text
        if len(reply.text) <= LONG
        else f"{reply.text[:LONG]}… ({len(reply.text):,} characters)"
    )
    reads = [
        f"read strictly: {row.scored.read_strict or 'nothing'}",
        f"flexibly: {(row.scored.read_flexible or 'nothing')[:200]}",
    ]
    known = [
        None if reply.ttft_s is None else f"first token {seconds(reply.ttft_s)}",
        None
        if reply.output_tokens is None
        else f"{reply.input_tokens:,} tokens in, {reply.output_tokens:,} out",
        None if reply.cost_usd is None else f"${reply.cost_usd}",
        "from the cache" if row.answer.cached else None,
    ]
    return tag(
        "section",
        tag("h3", name),
        tag("p", f"Failed: {reply.error}", class_="bad") if reply.error else "",
        tag("p", text, class_="text") if text else "",
        tag("p", "; ".join(reads), class_="soft"),
        tag("p", ", ".join(each for each in known if each), class_="soft"),
    )


def _made_of(summary: Summary) -> Markup:
    return joined(tag("h2", "What this is made of"), tag("dl", *_facts(summary)))


def _facts(summary: Summary) -> Iterator[Markup]:
    run = summary.run
    for name, value in (
        ("set", f"{run.set}, digest {run.digest}"),
        ("scorer", f"{run.scorer}, version {run.extractor} of the extractors"),
        (
            "prompt",
            (
                f"{run.style}{' with worked examples' if run.examples else ''}, version "
                f"{run.wording} of the wording"
            ),
        ),
        (
            "parameters",
            ", ".join(f"{key}={value}" for key, value in run.parameters.items()) or "none",
        ),
        ("budget", "none" if run.budget_usd is None else f"${run.budget_usd:g}"),
    ):
        yield tag("dt", name)
        yield tag("dd", value)
