"""`slipway feedback`: what people said of answers, in the terminal."""

import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from slipway import feedback
from slipway.errors import SettingsError
from slipway.settings import Flags
from slipway.settings.tree import seconds
from slipway.store import file_of

_SHOWN = 300  # characters of a question or answer
VOTES = {"yes": True, "no": False}


def heard(
    flags: Flags, *, app: str | None, helpful: str | None, since: str | None, limit: int
) -> list[dict[str, Any]]:
    """What the store of these settings has, the latest first. Raises SettingsError."""
    from slipway.app import loaded

    try:
        earliest = time.time() - seconds(since) if since is not None else 0.0
    except ValueError as error:
        raise SettingsError([f"--since: {error}"]) from None
    vote = VOTES[helpful] if helpful is not None else None
    return feedback.read(
        file_of(loaded(flags).settings.store), app=app, helpful=vote, since=earliest, limit=limit
    )


def lines(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """What a person reads."""
    if not rows:
        yield "No feedback is kept here yet."
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
    yield f"\n{_counted(len(votes), 'vote')}{share}; {_counted(len(rows) - len(votes), 'report')}"


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _line(text: str) -> str:
    """On one line, short, and with nothing in it that a terminal would obey."""
    plain = "".join(c if c.isprintable() else " " for c in text[: 2 * _SHOWN])
    short = " ".join(plain.split())
    return short if len(short) <= _SHOWN else f"{short[: _SHOWN - 1]}…"
