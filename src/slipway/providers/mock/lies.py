"""Answers with false citations, from a seed: markers in every form that models write, of passages
that exist and that do not, markers in odd places, and passages' sentences with changed numbers.
"""

import random
import re
from collections.abc import Callable

from slipway.providers.mock import words

SENTENCES = (2, 9)
NOWHERE = (0, 6, 7, 9, 10, 42, 99, 123, 4711, 99999, 123456789)
Draw = random.Random

_SENTENCE = re.compile(r"[^\s\[<][^\n.!?。！？\[\]`<]{8,120}[.!?。！？]")
_DIGITS = re.compile(r"\d+")
_FULL = str.maketrans("0123456789", "０１２３４５６７８９")

# How models cite passages a and b; each marker follows a sentence's last word
MARKERS: tuple[Callable[[int, int], str], ...] = (
    lambda a, b: f" [{a}]",
    lambda a, b: f"[{a}]",
    lambda a, b: f" [{a}, {b}]",
    lambda a, b: f" [{a}][{b}]",
    lambda a, b: f" [{a}] [{b}]",
    lambda a, b: f" [{a}], [{b}]",
    lambda a, b: f" [{a}] and [{b}]",
    lambda a, b: f" [{a}-{b}]",
    lambda a, b: f" [{min(a, b)}–{max(a, b)}]",
    lambda a, b: f" [{a};{b}]",
    lambda a, b: f" [Source {a}]",
    lambda a, b: f" [passage {a}, passage {b}]",
    lambda a, b: f" (see [{a}])",
    lambda a, b: f" ([{a}], [{b}])",
    lambda a, b: f"【{a}】",
    lambda a, b: f"【{a}†source】",
    lambda a, b: f"【{a}:{b % 100}†source】",
    lambda a, b: f" [^{a}]",
    lambda a, b: f" ［{str(a).translate(_FULL)}］",
    lambda a, b: f" [0{a}]" if a < 10**8 else f" [{a}]",
    lambda a, b: f" [[{a}]]",
    lambda a, b: f" [ {a} ]",
    lambda a, b: f" <sup>[{a}]</sup>",
    lambda a, b: f" **[{a}]**",
    lambda a, b: f"（见[{a}]）",
    lambda a, b: f" [来源{a}]",
)
# What looks like a marker but is not one, or is damaged
DECOYS: tuple[Callable[[int, int], str], ...] = (
    lambda a, b: f" `[{a}]`",
    lambda a, b: f" ``x`[{a}]``",
    lambda a, b: f"\n\n```py\nrows[{a}] = [{b}]\n```\n\n",
    lambda a, b: f"\n\n~~~\n[{a}]\n```\n[{b}]\n~~~\n\n",
    lambda a, b: f" [{a}](/v1/passages/psg-{b:032x})",
    lambda a, b: f" [{a}](https://evil.invalid/{b})",
    lambda a, b: f"\n\n[{a}]: https://evil.invalid/{b}\n\n",
    lambda a, b: f"\n\n[{a}]: guide.md\n\n",
    lambda a, b: f" my_list[{a}]",
    lambda a, b: " [2024]",
    lambda a, b: f" [-{a}]",
    lambda a, b: " [x] [ ]",
    lambda a, b: f" [{a}",
    lambda a, b: f" {a}]",
    lambda a, b: f" [[{a}] more]",
    lambda a, b: f" [a [{b}] b]",
    lambda a, b: f'<a href="/v1/passages/{a}">[{b}]</a>',
)
FRAMES = (
    "{}",
    "{}",
    "{}",
    "\n- {}",
    "\n\n## {}\n\n",
    "\n\n| {} | [1] |\n|---|---|\n| x | y |\n\n",
    "\n\n> {}\n\n",
    "\n{}\n",
    "**Note**: {}",
)


def write(rng: Draw, passages: tuple[int, ...], asked: str) -> str:
    """Return an answer. `passages` are the numbers that were sent, `asked` the message with their
    text.
    """
    said = [found[0] for found in _SENTENCE.finditer(asked)]
    return (
        " ".join(
            _frame(rng, _sentence(rng, passages, said)) for _ in range(rng.randint(*SENTENCES))
        ).strip()
        or "[1]"
    )


def _frame(rng: Draw, sentence: str) -> str:
    return rng.choice(FRAMES).format(sentence)


def _sentence(rng: Draw, passages: tuple[int, ...], said: list[str]) -> str:
    sentence = (
        _altered(rng, rng.choice(said))
        if said and rng.random() < 0.5
        else "".join(words.write(rng, rng.randint(3, 9)))
    )
    stop, body = sentence[-1], sentence[:-1]
    mark = rng.choice(DECOYS if rng.random() < 0.3 else MARKERS)(
        _number(rng, passages), _number(rng, passages)
    )
    return rng.choice((f"{body}{mark}{stop}", f"{body}{stop}{mark}", f"{mark} {body}{stop}"))


def _altered(rng: Draw, sentence: str) -> str:
    """Return the sentence, half of the time with another number in it."""
    return _DIGITS.sub(
        lambda found: str(int(found[0]) + rng.randint(1, 99)) if rng.random() < 0.5 else found[0],
        sentence,
    )


def _number(rng: Draw, passages: tuple[int, ...]) -> int:
    return rng.choice(passages) if passages and rng.random() < 0.5 else rng.choice(NOWHERE)


def shred(rng: Draw, text: str) -> tuple[str, ...]:
    """Split the text into pieces of one to five characters, which cut markers anywhere."""
    pieces = []
    while text:
        size = rng.randint(1, 5)
        pieces.append(text[:size])
        text = text[size:]
    return tuple(pieces)
