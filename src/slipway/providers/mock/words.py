"""The mock's vocabulary: text that resembles English, the same for the same seed, with characters
of two to four bytes.
"""

import random
import re

VOCABULARY: tuple[str, ...] = tuple(
    # One literal for each word would fill a page
    """the a harbour ship water answer question model system document page service team customer
    order value report network policy reader result engine signal window morning local small large
    quick steady clear careful common public early late moves keeps gives shows needs holds
    brings follows explains returns between after before under with without from into and but
    because where when café naïve 数据 Übersicht façade 🚢""".split()  # noqa: SIM905
)
SENTENCE = (6, 12)  # words
CITED = 0.6  # the share of sentences that cite; the first one always does

_PIECE = re.compile(r"\S+\s*|\s+")
_NUMBERED = re.compile(r"^\[(\d{1,4})\]", re.MULTILINE)


def split(text: str) -> tuple[str, ...]:
    """Return the tokens of `text`: words with the space after them. Joined, they are `text`
    exactly.
    """
    return tuple(_PIECE.findall(text))


def numbered_passages(text: str) -> tuple[int, ...]:
    """Return the numbers of lines that start with `[1]`, `[2]` …, each once, in order."""
    return tuple(dict.fromkeys(int(number) for number in _NUMBERED.findall(text)))


def write(rng: random.Random, tokens: int, cite: tuple[int, ...] = ()) -> tuple[str, ...]:
    """Return exactly `tokens` tokens of sentences. If there is something to cite, the first
    sentence and some others end in ` [n].`
    """
    pieces: list[str] = []
    while (left := tokens - len(pieces)) > 0:
        length = min(rng.randint(*SENTENCE), left)
        if left - length < 3:  # no stub of a sentence at the end
            length = left
        cited = (
            rng.choice(cite)
            if cite and length > 1 and (not pieces or rng.random() < CITED)
            else None
        )
        pieces += _sentence(rng, length, cited)
    if pieces:
        pieces[-1] = pieces[-1].rstrip()
    return tuple(pieces)


def _sentence(rng: random.Random, length: int, cited: int | None) -> list[str]:
    words = rng.choices(VOCABULARY, k=length if cited is None else length - 1)
    words[0] = words[0].capitalize()
    if cited is None:
        words[-1] += "."
    else:
        words.append(f"[{cited}].")
    return [f"{word} " for word in words]
