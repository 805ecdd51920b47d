"""Find what a question points at by its number: a clause, a section, an article."""

import re
from functools import lru_cache

_NUMBER = r"\d{1,4}(?:\.\d{1,3}){0,8}[a-z]?"
_POINTED = re.compile(
    r"(?:\b(?:clauses?|sections?|chapters?|articles?|paragraphs?|appendix|annex|schedule|rule|item"
    r"|point|step|abschnitt|kapitel|artikel|absatz|ziffer|punkt|klausel|art[ií]culo|cl[aá]usula"
    r"|secci[oó]n|cap[ií]tulo|section|article|chapitre)\s+(?:no\.?\s*|nr\.?\s*)?|§+\s*)"
    rf"(?P<number>{_NUMBER})(?![\w.]*\w)"
    rf"|第\s*(?P<ordinal>{_NUMBER}|[一二三四五六七八九十百零〇]{1, 8})\s*[条條章节節款项項]",
    re.IGNORECASE,
)


# What a part of a document does: who asks no more wants the part itself
_SAYS = re.compile(
    r"\b(?:says?|states?|contains?|regulates?|requires?|provides?|covers?|means?|reads?|about"
    r"|steht|sagt|besagt|regelt|enth[aä]lt|bedeutet|lautet|dice|establece|contiene|dit|pr[eé]voit)\b"
    r"|规定|規定|写|内容|说明|说",
    re.IGNORECASE,
)


def pointed_number(question: str) -> str:
    """Return the number of the part that the question points at ("2.2" of "clause 2.2"), else ""."""
    found = _POINTED.search(question)
    return (found["number"] or found["ordinal"]).casefold() if found else ""


def without_pointer(question: str) -> str:
    """Return the question without the part that it points at, and without "say" and the like."""
    return _SAYS.sub(" ", _POINTED.sub(" ", question))


def is_numbered(text: str, number: str) -> bool:
    """Tell whether a heading or paragraph begins with this number: "2.2 Fees", "§ 4 Rent"."""
    return bool(_beginning(number).match(text))


@lru_cache(256)
def _beginning(number: str) -> re.Pattern[str]:
    return re.compile(
        rf"[\W_]*(?:第\s*|§+\s*|[^\W\d_]+\s+)?{re.escape(number)}(?=[.)]?(?:[\s:：、]|$)|[条條章节節款项項])",
        re.IGNORECASE,
    )
