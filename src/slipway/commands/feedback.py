"""`slipway feedback`: what people said of answers."""

import json
import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from slipway.app.loading import load_settings
from slipway.app.stores import saved_records
from slipway.commands.options import CONFIG, JSON, counted
from slipway.errors import SettingsError
from slipway.settings import Flags
from slipway.settings.values import seconds
from slipway.store import FeedbackFilter

_SHOWN = 300  # characters of a question or answer
VOTES = {"yes": True, "no": False}


@click.group("feedback")
def command() -> None:
    """List what people said of answers."""


@command.command("list")
@CONFIG
@click.option("--app", help="Only feedback on this app.")
@click.option("--helpful", type=click.Choice(["yes", "no"]), help="Only votes that say this.")
@click.option("--since", metavar="DURATION", help="Only the last `7d`, `12h` …")
@click.option(
    "--limit", type=click.IntRange(1), default=50, show_default=True, help="Show at most N."
)
@JSON
def list_feedback(config: Path | None, as_json: bool, **which: Any) -> None:
    """Show the latest feedback; a running server need not be stopped.

    \b
    slipway feedback list --helpful no --since 7d
    """
    rows = read_feedback(Flags(config=config), **which)
    click.echo(
        json.dumps(rows, indent=2, ensure_ascii=False) if as_json else "\n".join(lines(rows))
    )


def read_feedback(
    flags: Flags, *, app: str | None, helpful: str | None, since: str | None, limit: int
) -> list[dict[str, Any]]:
    """Return the feedback in the store of these settings, latest first. Raises SettingsError."""
    try:
        earliest = time.time() - seconds(since) if since is not None else 0.0
    except ValueError as error:
        raise SettingsError([f"--since: {error}"]) from None
    vote = VOTES[helpful] if helpful is not None else None
    which = FeedbackFilter(app=app, helpful=vote, since=earliest, limit=limit)
    with saved_records(load_settings(flags).settings) as store:
        return store.records.list_feedback(which) if store is not None else []


def lines(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Yield the lines that a person reads."""
    if not rows:
        yield "No feedback has been saved here yet."
        return
    for row in rows:
        when = datetime.fromtimestamp(row["at"]).astimezone().strftime("%Y-%m-%d %H:%M")
        said = (
            "report" if row["kind"] == "report" else "helpful" if row["helpful"] else "not helpful"
        )
        about = f" (section {row['section']})" if row["section"] is not None else ""
        by = row["model"] or row["served_by"] or "no answer"
        yield f"{when}  {said}{about}  {row['app']}, {by}  {', '.join(row['reasons'])}".rstrip()
        for name, text in (
            ("asked", row["question"]),
            ("answer", row["text"]),
            ("says", row["comment"]),
        ):
            if text:
                yield f"  {name:7} {_line(text)}"
        yield f"  {row['answer']}"
    votes = [row["helpful"] for row in rows if row["kind"] == "vote"]
    share = f", {100 * sum(votes) / len(votes):.0f} % helpful" if votes else ""
    yield f"\n{counted(len(votes), 'vote')}{share}; {counted(len(rows) - len(votes), 'report')}"


def _line(text: str) -> str:
    """Return the text on one short line, without characters that control a terminal."""
    plain = "".join(c if c.isprintable() else " " for c in text[: 2 * _SHOWN])
    short = " ".join(plain.split())
    return short if len(short) <= _SHOWN else f"{short[: _SHOWN - 1]}…"
