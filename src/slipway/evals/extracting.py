"""Extract the answer from a model's output: the letter, number or words that a scorer compares with
the reference.

Every extractor returns two readings. **Strict**: the output has the requested form, a last line
`Answer: …`, or is nothing but the answer. **Flexible**: the answer that a careful reader would
find, in any form. The gap between the two shows how much of a score is about the form. None means
that there is no answer, or more than one.
"""

import re
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import NamedTuple

VERSION = 1  # of the rules below; a report names it, and a change of a rule changes it


class Extracted(NamedTuple):
    """The two readings of one output."""

    strict: str | None
    flexible: str | None


Extractor = Callable[
    [str, Sequence[str]], Extracted
]  # (output, the choices' texts) -> what it answers

_THOUGHT = re.compile(
    r"<think(?:ing)?>.*?</think(?:ing)?>|^.*</think(?:ing)?>", re.DOTALL | re.IGNORECASE
)
_ANSWER_LINE = re.compile(r"^Answer:[ \t]*(\S.*?)[ \t]*$", re.IGNORECASE | re.MULTILINE)
# "the answer is", "answer:", "final answer =", "答案是", "故选": what is behind the last of them counts
_LEAD = re.compile(
    r"(?:\bthe\s+(?:correct|right|best|final|most\s+\w+)?\s*(?:answer|option|choice)"
    r"(?:\s+(?:to|for|here)\b[^.:\n]{0,80}?)?\s*"
    r"(?:\bis\b|would\s+be|must\s+be|should\s+be|will\s+be|:|=|→)"
    r"|\b(?:final\s+)?ans(?:wer)?[\"']?\s*(?::|=|is\b|→|[-–—]\s)"
    r"|\bcorrect\s+(?:option|choice)\s*(?::|is\b)"
    r"|\bI(?:'d|\s+would)?\s+(?:choose|pick|select|go\s+with|answer)\b|####"
    r"|正?确?的?(?:答案|选项)\s*(?:应该?)?(?:是|为|选|：|:)|故?应?该?选(?:择)?\s*(?:项)?)\s*:?",
    re.IGNORECASE,
)
_BOXED = re.compile(r"\\(?:boxed|fbox)\s*\{((?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*)\}")
_MARKS = re.compile(r"[*_`]{1,3}(?=\S)|(?<=\S)[*_`]{1,3}")
_LATEX = re.compile(r"\\(?:text|mathrm|textbf|mathbf|mbox)\s*\{([^{}]*)\}")


def _said(output: str) -> str:
    """Return the output without a model's thoughts."""
    return _THOUGHT.sub("", output).strip()


def _plain(text: str) -> str:
    """Remove the marks of Markdown and the commands of LaTeX that only change the look."""
    text = _LATEX.sub(
        r"\1", text.replace("\\(", "").replace("\\)", "").replace("\\[", "").replace("\\]", "")
    )
    text = text.replace("（", "(").replace("）", ")").replace("：", ":")
    return "\n".join(_MARKS.sub("", line) for line in text.split("\n"))


def _declared(said: str) -> str | None:
    """Return what the last line `Answer: …` says; nothing of substance may follow it."""
    found = list(_ANSWER_LINE.finditer(said))
    return found[-1][1] if found and not said[found[-1].end() :].strip() else None


def _led(said: str) -> str | None:
    """Return what follows the last words that announce an answer, to the end of its line or
    paragraph.
    """
    found = list(_LEAD.finditer(said))
    if not found:
        return None
    rest = said[found[-1].end() :].lstrip(" \t\n:$")
    return rest.split("\n", 1)[0] if rest.strip() else None


# Letters

_LETTER_ALONE = re.compile(r"\(?([A-Za-z])\)?[.):]?")
_LETTER_FIRST = re.compile(
    r"(?:(?:option|choice|answer|letter)\s+)?(?:\(\s*([A-Za-z])\s*\)|([A-Z])(?!['’]?[A-Za-z]))",
    re.IGNORECASE,
)
_OTHER = re.compile(
    r"\s*(?:[.):,]\s*)?(?:\b(?:or|and)\b|/|&|,)\s*"
    r"(?:also\s+)?(?:option\s+)?\(?([A-Z])\)?(?![A-Za-z'’])"
)
_LETTER_LINE = re.compile(
    r"^\s*(?:[>*•-]\s+)?(?:(?:(?:Option|Choice|Answer|Letter)\s*[:=-]?|It(?:['’]s|\s+is))\s+)?"
    r"\(?([A-Z])(?:\)[.:]?|[.:)!])?\s*$",
    re.MULTILINE,
)
_LETTER_OPENS = re.compile(r"^\s*(?:\(([A-Za-z])\)|([A-Z])\s*[.):、])\s*\S")
_LETTER_IS = re.compile(
    r"(?:option\s+)?\(?\b([A-Z])\)?\s+is\s+(?:the\s+)?(?:\w+\s+)?(?:correct|right|answer|true)",
    re.IGNORECASE,
)
_LETTER_IN = re.compile(r"\(([A-Z])\)")
_DENIED = re.compile(
    r"\b(?:not|isn['’]t|never|except|cannot\s+be|can['’]t\s+be|rather\s+than)\W+(?:option\s+)?$",
    re.IGNORECASE,
)


def letter(output: str, choices: Sequence[str]) -> Extracted:
    """Return the letter of a choice."""
    last = chr(ord("A") + (len(choices) or 26) - 1)

    def known(found: str | None) -> str | None:
        up = found.upper() if found else None
        return up if up is not None and "A" <= up <= last else None

    said = _said(output)
    form = _declared(said) or (said if len(said) <= 4 else None)
    alone = _LETTER_ALONE.fullmatch(form.strip()) if form else None
    strict = known(alone[1]) if alone else None
    return Extracted(strict, strict or known(_letter_meant(_plain(said), choices)))


def _letter_meant(said: str, choices: Sequence[str]) -> str | None:
    boxed = _BOXED.findall(said)
    if boxed and (found := _LETTER_ALONE.fullmatch(boxed[-1].strip())):
        return found[1]
    led = _led(said)
    if led is not None:
        led = led.strip(" []{}\"'")
        found = _LETTER_FIRST.match(led)
        if found and (found[1] or found[2].isupper() or _LETTER_ALONE.fullmatch(led)):
            other = _OTHER.match(led, found.end())
            one = (found[1] or found[2]).upper()
            return None if other and other[1] != one else one
        if by_text := _choice_in(led, choices):
            return by_text
    if found := _LETTER_ALONE.fullmatch(said):
        return found[1]
    if found := _LETTER_OPENS.match(said):
        return _opening(said, found)
    return _letter_elsewhere(said, choices)


def _opening(said: str, found: re.Match[str]) -> str | None:
    """Return the letter that opens the output, unless it lists several choices."""
    lines = _LETTER_OPENS.match
    letters = {m[1] or m[2] for line in said.split("\n") if (m := lines(line))}
    return (found[1] or found[2]) if len(letters | {found[1] or found[2]}) == 1 else None


def _letter_elsewhere(said: str, choices: Sequence[str]) -> str | None:
    if alone := set(_LETTER_LINE.findall(said)):
        return alone.pop() if len(alone) == 1 else None
    affirmed = [
        m[1]
        for m in _LETTER_IS.finditer(said)
        if m[1].isupper() and not _DENIED.search(said[: m.start()])
    ]
    if affirmed:
        return str(affirmed[-1])
    last = said.rsplit("\n", 1)[-1]
    named = {m[1] for m in _LETTER_IN.finditer(last) if not _DENIED.search(last[: m.start()])}
    if len(named) == 1:
        return named.pop()
    return _choice_in(last, choices) if not named else None


def _choice_in(text: str, choices: Sequence[str]) -> str | None:
    """Return the letter of the one choice that the text names in its own words."""
    text = f" {_words(text)} "
    found = [
        i for i, choice in enumerate(choices) if (words := _words(choice)) and f" {words} " in text
    ]
    longest = [
        i
        for i in found
        if not any(i != j and _words(choices[i]) in _words(choices[j]) for j in found)
    ]
    return chr(ord("A") + longest[0]) if len(longest) == 1 else None


def _words(text: str) -> str:
    return " ".join(re.findall(r"[^\W_]+", text.casefold()))


# Numbers

_DIGITS = r"(?:\d{1,3}(?:[,，  ]\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+"
_NUMBER = re.compile(
    rf"(?<![\w.])(-|−|–(?=\d))?\s?[$€£¥]?\s?({_DIGITS})(?:[eE]([+-]?\d+))?"
    r"(?:\s*/\s*(\d+(?:\.\d+)?)(?![\d/]))?(?!\d|[A-Za-z]*\d)"
)
_FRACTION = re.compile(r"(-|−)?\s*\\[dt]?frac\s*\{\s*(-?\d+)\s*\}\s*\{\s*(\d+)\s*\}")
_NUMBER_ALONE = re.compile(
    rf"(-|−)?\s?[$€£¥]?\s?(?:{_DIGITS})(?:[eE][+-]?\d+)?(?:\s*/\s*\d+)?\s?%?\.?"
)
_SIGNED = re.compile(r"(?<=[\d)])\s*[-−–]\s*(?=\d)")


def number(output: str, choices: Sequence[str] = ()) -> Extracted:
    """Return the number, written plainly: `1,200.50` is `1200.50`, `3/4` stays a fraction."""
    said = _said(output)
    declared = _declared(said)
    form = declared if declared is not None else said
    strict = _first_number(form) if _NUMBER_ALONE.fullmatch(form.strip()) else None
    return Extracted(strict, strict if strict is not None else _number_meant(said))


def _number_meant(said: str) -> str | None:
    boxed = _BOXED.findall(said)
    if boxed and (found := _last_number(boxed[-1])) is not None:
        return found
    plain = _plain(said)
    led = _led(plain)
    if led is not None and (found := _result(led)) is not None:
        return found
    last = re.split(r"\n|(?<=[^\d\s])\.\s|(?<=\d)\.\s+(?=[A-Z])", plain.strip())[-1]
    if "=" in last and (found := _first_number(last.rsplit("=", 1)[1])) is not None:
        return found  # of `17 + 13 = 30 people after 13 new ones`, what comes of it
    return _last_number(plain)


def _result(text: str) -> str | None:
    """Return what follows the last sign of equality, as in `5 + 13 = 18 dollars`; else the first
    number.
    """
    sentence = re.split(
        r"(?<=[^\d\s])\.\s|(?<=\d)\.\s+(?=[A-Z])|[;!?]\s|,\s+(?:which|since|because|as)\b", text
    )[0]
    if "=" in sentence and (found := _first_number(sentence.rsplit("=", 1)[1])) is not None:
        return found
    return _first_number(sentence)


def _first_number(text: str) -> str | None:
    found = _numbers(text)
    return found[0] if found else None


def _last_number(text: str) -> str | None:
    found = _numbers(text)
    return found[-1] if found else None


def _numbers(text: str) -> list[str]:
    text = _FRACTION.sub(lambda m: f" {m[1] or ''}{m[2]}/{m[3]} ", text)
    text = _SIGNED.sub(" - ", text)  # `5-3` is a difference, not 5 and -3
    found = []
    for m in _NUMBER.finditer(text):
        sign = "-" if m[1] and not re.search(r"[\d)]\s*$", text[: m.start()]) else ""
        digits = re.sub(r"[,，  ]", "", m[2])
        found.append(f"{sign}{digits}{f'e{m[3]}' if m[3] else ''}{f'/{m[4]}' if m[4] else ''}")
    return found


def value_of(text: str) -> Fraction | None:
    """Return the number that a text is, exactly; None if it is none."""
    over, _, under = text.replace(",", "").strip().strip("$€£¥%").partition("/")
    try:
        return Fraction(over) / (Fraction(under) if under else 1)
    except (ValueError, ZeroDivisionError):
        return None


# Words out of a few, such as yes and no


def word(output: str, choices: Sequence[str]) -> Extracted:
    """Return one of a few words: `yes` or `no`, `valid` or `invalid`."""
    said = _said(output)
    known = {each.casefold(): each for each in choices}
    declared = _declared(said)
    strict = known.get((declared if declared is not None else said).strip().rstrip(".").casefold())
    return Extracted(strict, strict or _word_meant(_plain(said), known))


def _word_meant(said: str, known: dict[str, str]) -> str | None:
    if not known:
        return None
    pattern = re.compile(
        rf"(\bnot\s+)?\b({'|'.join(sorted(map(re.escape, known), key=len, reverse=True))})\b",
        re.IGNORECASE,
    )
    boxed = _BOXED.findall(said)
    led = boxed[-1] if boxed else _led(said)
    if led is not None and (found := pattern.search(led)):
        return _not(found, known)
    if found := re.match(
        rf"\W*({'|'.join(map(re.escape, known))})\b\s*(?:[.,;:!\n]|[-–—]|$)", said, re.IGNORECASE
    ):
        return known[found[1].casefold()]
    all_ = list(pattern.finditer(said))
    return _not(all_[-1], known) if all_ else None


def _not(found: re.Match[str], known: dict[str, str]) -> str | None:
    """Read `not valid` as the other of two words."""
    one = found[2].casefold()
    if not found[1]:
        return known[one]
    others = [each for each in known if each != one]
    return known[others[0]] if len(others) == 1 else None


# Words of one's own


def text(output: str, choices: Sequence[str] = ()) -> Extracted:
    """Return the answer in words of its own: the line that declares or announces it, else the last
    line.
    """
    said = _said(output)
    declared = _declared(said)
    short = said if "\n" not in said and len(said) <= 200 and not _LEAD.search(said) else None
    strict = declared if declared is not None else short
    plain = _plain(said)
    boxed = _BOXED.findall(said)
    lines = [line for line in plain.split("\n") if line.strip()]
    flexible = (
        strict or (boxed[-1] if boxed else None) or _led(plain) or (lines[-1] if lines else None)
    )
    return Extracted(_bare(strict), _bare(_plain(flexible) if flexible else None))


def whole(output: str, choices: Sequence[str] = ()) -> Extracted:
    """Return all that was said."""
    said = _said(output)
    return Extracted(said or None, said or None)


def _bare(found: str | None) -> str | None:
    if found is None:
        return None
    found = found.strip().strip("\"'“”‘’`*").strip()
    return found.rstrip(".").strip() or None


_LETTERED = re.compile(r"\(([A-Z])\)")


def by_reference(reference: str) -> str:
    """Return which extractor a reference of BIG-Bench Hard asks for, by its form."""
    if _LETTERED.fullmatch(reference):
        return "letter"
    if re.fullmatch(r"-?\d+", reference):
        return "number"
    return (
        "word"
        if reference.casefold() in ("true", "false", "yes", "no", "valid", "invalid")
        else "text"
    )


EXTRACTORS: dict[str, Extractor] = {
    "letter": letter,
    "number": number,
    "word": word,
    "text": text,
    "whole": whole,
}
