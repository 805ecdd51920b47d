"""Write a run's report for the terminal, in Markdown, and as data."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from slipway.evals.statistics import Measured
from slipway.evals.summary import CandidateSummary, Comparison, Summary

_LINES: tuple[tuple[str, str], ...] = (
    ("score", "score"),
    ("score, strict", "strict"),
    ("detectable difference", "detectable"),
    ("TTFT p50", "ttft_p50"),
    ("TTFT p95", "ttft_p95"),
    ("TPOT p50", "tpot_p50"),
    ("TPOT p95", "tpot_p95"),
    ("cost of an answer", "cost"),
    ("tokens in / out", "tokens"),
    ("spent", "spent"),
)


def percent(value: float, sign: str = "") -> str:
    return "-" if math.isnan(value) else f"{100 * value:{sign}.1f} %"


def share(m: Measured, sign: str = "") -> str:
    if math.isnan(m.value):
        return "-"
    if math.isnan(m.low):
        return percent(m.value, sign)
    return f"{percent(m.value, sign)} [{100 * m.low:{sign}.1f}, {100 * m.high:{sign}.1f}]"


def seconds(value: float) -> str:
    if math.isnan(value):
        return "-"
    return f"{value:.2f} s" if value >= 1 else f"{1000 * value:.{1 if value < 0.01 else 0}f} ms"


def time(m: Measured) -> str:
    behind = "" if math.isnan(m.low) else f" [{seconds(m.low)}, {seconds(m.high)}]"
    return f"{seconds(m.value)}{behind}"


def usd(value: float) -> str:
    return (
        "not known"
        if math.isnan(value)
        else f"${value:.6f}".rstrip("0").rstrip(".")
        if value
        else "$0"
    )


def cell(each: CandidateSummary, what: str) -> str:
    """Return one number of one candidate, as people read it."""
    match what:
        case "score":
            return share(each.flexible)
        case "strict":
            return share(each.strict)
        case "detectable":
            return percent(each.detectable)
        case "cost":
            return usd(each.cost.value)
        case "tokens":
            return (
                "-"
                if math.isnan(each.output_tokens)
                else f"{each.input_tokens:,.0f} / {each.output_tokens:,.0f}"
            )
        case "spent":
            return f"${each.total_usd}" if each.unpriced < each.n else "not known"
        case _:
            found: Measured = getattr(each, what)
            return time(found)


def rows(summary: Summary) -> list[list[str]]:
    """Return the table of candidates: a header, then a row for each number that there is."""
    each = list(summary.candidates.values())
    table = [[f"{summary.n:,} items", *(one.name for one in each)]]
    for label, what in _LINES:
        cells = [cell(one, what) for one in each]
        if any(found not in ("-", "not known") for found in cells) or what in ("cost", "score"):
            table.append([label, *cells])
    return table


def aligned(table: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for first, *rest in table:
        cells = [
            f"{first:{widths[0]}}",
            *(f"{c:>{w}}" for c, w in zip(rest, widths[1:], strict=True)),
        ]
        yield "  ".join(cells).rstrip()


def verdict(each: Comparison) -> str:
    if each.better is None:
        return "no difference that chance would not give"
    return f"{each.better} is better"


def probability(p: float) -> str:
    return "< 0.0001" if p < 0.0001 else f"{p:.4f}"


def as_text(summary: Summary) -> Iterator[str]:
    run = summary.run
    yield (
        f"{run.set}: {run.title or run.set} ({summary.n:,} of {summary.asked:,} items), with 95 % "
        "intervals"
    )
    yield from aligned(rows(summary))
    if summary.comparisons:
        yield ""
        yield from compared_text(summary)
    if summary.judge is not None:
        yield ""
        yield judge_line(summary)
    yield ""
    yield from (f"Note: {note}" for note in summary.notes)


def judge_line(summary: Summary) -> str:
    if summary.judge is None:
        return ""
    found = summary.judge
    return (
        f"The judge says the same in both orders on {share(found.share)} of the answers; Cohen's "
        f"kappa {kappa(found.kappa)}"
    )


def kappa(value: float) -> str:
    return (
        "is not defined, since all verdicts are the same" if math.isnan(value) else f"{value:.2f}"
    )


def compared_text(summary: Summary) -> Iterator[str]:
    table = [
        [
            "difference",
            "",
            "wins / losses",
            "p (Holm)",
            "p, whenever looked",
            "detectable difference",
            "verdict",
        ]
    ]
    table += [
        [
            f"{each.one} - {each.other}",
            share(each.pair.difference, "+"),
            f"{each.pair.wins} / {each.pair.losses}",
            probability(each.p),
            probability(each.p_always),
            percent(each.pair.detectable),
            verdict(each) + (f", known after {each.decided_at} items" if each.decided_at else ""),
        ]
        for each in summary.comparisons
    ]
    yield from aligned(table)
    yield (
        f"Tests: {', '.join(dict.fromkeys(each.pair.test for each in summary.comparisons))}, on "
        "the same items."
    )


def as_markdown(summary: Summary) -> Iterator[str]:
    run = summary.run
    yield f"# {run.set}: {run.title or run.set}"
    yield ""
    yield f"{summary.n:,} of {summary.asked:,} items, 95 % intervals, Slipway {run.version}."
    yield ""
    yield from _markdown(rows(summary))
    if summary.comparisons:
        yield ""
        yield "## Differences"
        yield ""
        table = [["", "difference", "wins / losses", "p (Holm)", "verdict"]]
        table += [
            [
                f"{each.one} - {each.other}",
                share(each.pair.difference, "+"),
                f"{each.pair.wins} / {each.pair.losses}",
                probability(each.p),
                verdict(each),
            ]
            for each in summary.comparisons
        ]
        yield from _markdown(table)
    yield ""
    yield "## Notes"
    yield ""
    if summary.judge is not None:
        yield f"- {judge_line(summary)}."
    yield from (f"- {note}" for note in summary.notes)


def _markdown(table: Sequence[Sequence[str]]) -> Iterator[str]:
    head, *body = [[each.replace("|", "\\|") for each in row] for row in table]
    yield f"| {' | '.join(head)} |"
    yield f"|{'|'.join([' --- '] + [' ---: '] * (len(head) - 1))}|"
    yield from (f"| {' | '.join(row)} |" for row in body)


def as_data(summary: Summary) -> dict[str, Any]:
    """Return the summary as plain data; what was not measured is null."""
    return {
        "set": summary.run.set,
        "digest": summary.run.digest,
        "n": summary.n,
        "asked": summary.asked,
        "winner": summary.winner,
        "candidates": {
            name: _plain(msgspec.to_builtins(each)) for name, each in summary.candidates.items()
        },
        "comparisons": [
            {**_plain(msgspec.to_builtins(each)), "better": each.better}
            for each in summary.comparisons
        ],
        "judge": _plain(msgspec.to_builtins(summary.judge)) if summary.judge is not None else None,
        "notes": list(summary.notes),
        "run": msgspec.to_builtins(msgspec.structs.replace(summary.run, order=())),
    }


def _plain(value: Any) -> Any:
    """Replace NaN by null, and round numbers to their meaningful digits."""
    if isinstance(value, float):
        return None if math.isnan(value) else round(value, 9)
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list) else value
