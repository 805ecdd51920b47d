"""`slipway eval sets from-feedback`: a set of what people called helpful."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from slipway.commands.feedback import read_feedback
from slipway.errors import SettingsError
from slipway.evals import sets
from slipway.evals.items import EvalSet, Item, digest
from slipway.evals.questions import Gold
from slipway.settings import Flags

_MOST = 100_000


def collected(config: Path | None, app: str | None, since: str | None, name: str) -> Iterator[str]:
    """Keeps the set, and says what it is made of. Raises SettingsError if there is nothing."""
    rows = read_feedback(Flags(config=config), app=app, helpful=None, since=since, limit=_MOST)
    liked = [row for row in rows if row["helpful"] and row["question"] and row["text"]]
    items = list({item.id: item for item in map(_item, liked)}.values())
    if not items:
        raise SettingsError(
            ["there is no helpful vote with a question and an answer yet: slipway feedback list"]
        )
    found = EvalSet(
        name=name, items=tuple(items), scorer="f1", title="Answers that people called helpful"
    )
    file = sets.add(found, name)
    disliked = sum(row["helpful"] is False for row in rows)
    yield f"{len(items)} items, scorer f1: {file}"
    if disliked:
        yield (
            f"{disliked} votes say not helpful: write the right answers to those by hand, as "
            f"lines of {file}"
        )


def _item(row: dict[str, Any]) -> Item:
    sources = row["sources"] or []
    gold = {
        (each["path"], each.get("heading") or None): None for each in sources if each.get("path")
    }
    return Item(
        id=digest(row["question"].encode())[:12],
        question=row["question"],
        reference=row["text"],
        tags=(row["app"],),
        gold=tuple(Gold(page=path, heading=heading) for path, heading in gold),
    )
