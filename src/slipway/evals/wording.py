"""Write the messages for an item: the question, its choices, and the form of the answer."""

from collections.abc import Sequence
from typing import Any

from slipway.evals.items import EvalSet, Item, Style
from slipway.evals.scoring import SCORERS, scorer_of

VERSION = 1
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_REASON = "Think step by step."
_DIRECT = {
    "letter": "Reply with one line of the form `Answer: X` and nothing else, "
    "where X is the letter of the right choice.",
    "number": "Reply with one line of the form `Answer: N` and nothing else, "
    "where N is the number alone.",
}


def messages(
    found: EvalSet, item: Item, style: Style, *, examples: bool = False
) -> list[dict[str, Any]]:
    """Write the OpenAI messages for one item; with `examples`, worked ones stand before it if the
    set has any for it.
    """
    parts = [_worked(found, item)] if examples else []
    scorer = scorer_of(found.scorer, item)
    parts += [_asked(item, scorer), form(scorer, item, style)]
    return [{"role": "user", "content": "\n\n".join(part for part in parts if part)}]


def form(scorer: str, item: Item, style: Style) -> str:
    """Return how the answer should end; nothing is said for scorers that take any text."""
    asks = SCORERS[scorer].asks.format(choices=", ".join(item.choices))
    if not asks:
        return ""
    return f"{_REASON} {asks}" if style == "reason" else _DIRECT.get(scorer, asks)


def _asked(item: Item, scorer: str) -> str:
    if scorer != "letter" or not item.choices or "(A)" in item.question:
        return item.question
    return f"{item.question}\n{lettered(item.choices)}"


def lettered(choices: Sequence[str]) -> str:
    return "\n".join(
        f"{letter}. {choice}" for letter, choice in zip(_LETTERS, choices, strict=False)
    )


def _worked(found: EvalSet, item: Item) -> str:
    known = next((found.examples[tag] for tag in item.tags if tag in found.examples), "")
    return f"Worked examples:\n\n{known}\n\nNow this one:" if known else ""
