"""Show the rows of a run to a person, and write them for programs."""

import sys
import textwrap
from collections.abc import Iterator
from typing import Any

import click
import msgspec

from slipway.readiness.rows import STATES, CheckRow, CheckState, Readiness
from slipway.terminal import printable

COLOURS: dict[CheckState, str] = {"red": "red", "amber": "yellow", "green": "green", "skipped": ""}
TITLES: dict[CheckState, str] = {
    "red": "Red: change this before users come",
    "amber": "Amber: know this, and change it if you can",
    "green": "Green",
    "skipped": "Skipped",
}
WIDTH = 110  # of lines in a terminal; elsewhere a sentence is one line, so that it can be found
ENDLESS = 10_000


def lines(found: Readiness) -> Iterator[str]:
    """Yield the lines for a person, the worst last, so that it is on the screen at the end."""
    width = WIDTH if sys.stdout.isatty() else ENDLESS
    for state in reversed(STATES):
        rows = [row for row in found.rows if row.state == state]
        if not rows:
            continue
        yield click.style(f"{TITLES[state]} ({len(rows)})", fg=COLOURS[state] or None, bold=True)
        for row in rows:
            yield from _row(row, width)
        yield ""
    yield summary(found)


def _row(row: CheckRow, width: int) -> Iterator[str]:
    name = f"  {row.name:16} "
    said = textwrap.wrap(printable(row.says), width - len(name), break_on_hyphens=False) or [""]
    yield f"{name}{said[0]}"
    for line in said[1:]:
        yield f"{' ' * len(name)}{line}"
    for thing in row.do:
        yield from textwrap.wrap(
            printable(thing),
            width,
            initial_indent=f"{' ' * len(name)}-> ",
            subsequent_indent=f"{' ' * len(name)}   ",
            break_long_words=False,
            break_on_hyphens=False,
        )


def summary(found: Readiness) -> str:
    """Return the last line: the state of all, and how many rows are in each."""
    counts = found.counts()
    said = ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state])
    verdict = {
        "red": "not ready",
        "amber": "ready, with what is amber above",
        "green": "ready",
        "skipped": "ready",
    }[found.state]
    colour = COLOURS[found.state] or None
    return click.style(f"{found.of}: {verdict} ({said})", fg=colour, bold=True)


def as_json(found: Readiness) -> dict[str, Any]:
    """Return the run as JSON values."""
    fields: dict[str, Any] = msgspec.to_builtins(found)
    return {"of": found.of, "state": found.state, "counts": found.counts(), **fields}
