"""How a model continues an answer that was cut; one table row for each habit."""

import random
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType

from slipway.providers.mock import words

REPEATED = (5, 12)  # words
PREFACES = (
    "Sure, here is the rest of the answer:\n\n",
    "Continuing from where I left off:\n\n",
    "Certainly! Continuing the answer:\n",
    "Of course. I will go on exactly where I stopped.\n\n",
    "Here's the continuation:\n\n",
    "Apologies for the interruption. To continue: ",
    "(continued)\n\n",
    "...",
    "... continuing: ",
    "好的，接着上文继续：\n\n",
    "以下是剩余的内容：\n",
    "……（续）",
)
SPACE = re.compile(r"\s+")

Draw = random.Random
Habit = Callable[
    [str, str, Draw], str
]  # (what was said, the rest of the true answer) -> what is said now


def _repeat(partial: str, rest: str, rng: Draw) -> str:
    return "".join(words.split(partial)[-rng.randint(*REPEATED) :]) + rest


def _space(_: str, rest: str, rng: Draw) -> str:
    gap = SPACE.match(rest)
    return rest[gap.end() :] if gap else rng.choice((" ", "\n")) + rest


_HABITS: Mapping[str, tuple[str, Habit]] = {
    "exact": ("with the very next character", lambda _, rest, __: rest),
    "repeat": ("with the last 5 to 12 words once more", _repeat),
    "restart": ("from the beginning", lambda partial, rest, _: partial + rest),
    "preface": (
        'with a sentence such as "Sure, here is the rest of the answer:"',
        lambda _, rest, rng: rng.choice(PREFACES) + rest,
    ),
    "space": ("without the space that belongs there, or with one too many", _space),
}
CONTINUES: Mapping[str, str] = MappingProxyType(
    {name: meaning for name, (meaning, _) in _HABITS.items()}
)
"""Every habit by name, with how such a model continues."""


def continue_from(habit: str, partial: str, truth: str, rng: Draw) -> str:
    """Return what follows `partial`. If the mock never said `partial`, it begins again, whatever
    its habit; if nothing is left, it returns "".
    """
    if not truth.startswith(partial):
        return truth
    rest = truth[len(partial) :]
    return _HABITS[habit][1](partial, rest, rng) if rest else ""
