"""Find where sentences end: not behind an abbreviation, an initial or an ordinal number."""

import re
from collections.abc import Iterator

# A sentence stop with the closing signs behind it. Scripts without spaces need none behind it.
STOP = re.compile(r"(?P<stop>[.!?…؟۔।])[\"')\]*_”’»]*\s+(?=\S)|[。！？][」』”’)]*|\n")
_ABBREVIATED = re.compile(
    r"(?:\b(?:e\.\s?g|i\.\s?e|vs|cf|approx|mr|mrs|ms|dr|st|prof|al|incl|excl|resp|dept"
    r"|z\.\s?B|d\.\s?h|u\.\s?a|o\.\s?ä|i\.\s?d\.\s?R|bzw|ca|ggf|evtl|inkl|exkl|zzgl|vgl|sog|bspw"
    r"|mind|sr|sra|ud|uds|p\.\s?ej|p\.\s?ex|mme|mlle|env|[^\W\d_])|(?:^|\n)\s*\d+)$",
    re.IGNORECASE,
)
# Before a number only: "No. 5", but "The answer is no."
_BEFORE_NUMBER = re.compile(
    r"\b(?:no|nos|nr|fig|figs|art|abs|abb|sec|ch|vol|p|pp|tel|ext|eq|ver|max|min|pos|tab|núm|pág"
    r"|s|st|§)$",
    re.IGNORECASE,
)
# These may end a sentence: they do if an usual first word follows
_AT_THE_END = re.compile(r"\b(?:etc|usw|ltd|inc|corp|co|llc|jr|sr|bros|a\.m|p\.m)$", re.IGNORECASE)
_FIRST_WORD = re.compile(
    r"(?:the|an?|it|its|he|she|we|they|you|i|this|that|these|those|there|in|on|at|for|from|if|when"
    r"|please|our|your|to|as|by|all|each|der|die|das|es|er|sie|wir|ihr|ein|eine|im|am|bei|wenn)\b",
    re.IGNORECASE,
)
# "ab dem 3. Mai", "im 2. Stock": the full stop makes the number an ordinal
_ORDINAL = re.compile(r"(?:^|[^\w.,])(?P<before>[^\W\d_]*)\s*\(?\d{1,3}$")
_MONTH = re.compile(
    r"(?:jan|feb|mär|mar|apr|mai|maj|jun|jul|aug|sep|okt|oct|nov|dez|dec|des)\w*", re.IGNORECASE
)
_BEFORE_ORDINAL_LIST = """
    der die das dem den des am im ab vom bis zum zur beim seit ein eine einem einer einen
    jeder jede jedes jeden jedem dieser dieses diesem diesen unser unsere ihr ihre seine
    seinem und oder nach vor von zu ins ans den det
"""
_BEFORE_ORDINAL = frozenset(_BEFORE_ORDINAL_LIST.split())


def ends_sentence(before: str, after: str) -> bool:
    """Tell whether a full stop between these texts ends a sentence. `before` has no stop at its
    end; `after` begins with the next word.
    """
    if after[:1].islower() or _ABBREVIATED.search(before):
        return False
    if after[:1].isdigit() and _BEFORE_NUMBER.search(before):
        return False
    if _AT_THE_END.search(before) and not _FIRST_WORD.match(after):
        return False
    number = _ORDINAL.search(before)
    return number is None or not (
        number["before"].casefold() in _BEFORE_ORDINAL or _MONTH.match(after)
    )


def sentences_of(text: str) -> Iterator[str]:
    """Yield the sentences of a line."""
    begin = 0
    for found in STOP.finditer(text):
        before = text[max(begin, found.start() - 40) : found.start()]
        if found["stop"] == "." and not ends_sentence(before, text[found.end() : found.end() + 20]):
            continue
        yield text[begin : found.end()]
        begin = found.end()
    if begin < len(text):
        yield text[begin:]
