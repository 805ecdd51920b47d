"""Words that tell how an English question is built, and a text as a list of words."""

import re
from collections.abc import Sequence

from slipway.types import Record


def _some(words: str) -> frozenset[str]:
    return frozenset(words.split())


_WORD = re.compile(r"/?\w+(?:[-'’./@]\w+)*")
PREPOSITIONS = _some(
    "about after against at before behind below besides between by during for from in inside into "
    "like of on over per through to under until via "
    "with without"
)
ASKS = _some("how what when where which who whom whose why")
AUXILIARIES = _some(
    "am are be been can can't could did didn't do does doesn't don't had has have is isn't may "
    "might must shall should was were will won't "
    "would"
)
JOINTS = _some("although and because but if or that when where whether which while who")
ENTITIES = _some("it its itself they them their theirs themselves")
POINTERS = _some("this that these those")
_SHORTENED = _some("it that there what where who how when")
ACTORS = _some("i you we to")  # a verb follows
_STOP_WORDS = """
    a all also an another any anything as both called came come each else ever every example
    explain few first get give given go happen happens hello help here instead just kind kinds
    know let long look lot made make makes many me mean means more most much my name need needs
    no not now off ok okay one ones only other others our out please possible same say second
    several show so some something sort still such take takes tell than the then there thing
    things too two up us use used using very want way ways well work works yes your
"""
_SMALL = (
    PREPOSITIONS | ASKS | AUXILIARIES | JOINTS | ENTITIES | POINTERS | ACTORS | _some(_STOP_WORDS)
)
IMPERATIVES = _some("compare describe explain give go help list name show tell")
DETERMINERS = _some("a an the my your our")
TIMES = _some(
    "version way case time year month week weekend day morning evening moment page server machine"
)  # `this version` needs no antecedent


class EnglishWord(Record, frozen=True, kw_only=True):
    text: str
    start: int
    end: int

    @property
    def low(self) -> str:
        """Return the word in lower case; `it's` becomes `it`."""
        low = self.text.lower().replace("’", "'")
        return low.removesuffix("'s") if low.removesuffix("'s") in _SHORTENED else low

    @property
    def is_content(self) -> bool:
        """Tell whether the word says what a question is about."""
        return self.low.removesuffix("'s") not in _SMALL

    @property
    def is_name(self) -> bool:
        """Tell whether the word has a capital letter and is not `I`."""
        return (
            self.text != "I"
            and not self.text.islower()
            and any(each.isupper() for each in self.text)
        )


def words_of(text: str) -> list[EnglishWord]:
    return [
        EnglishWord(text=found.group(), start=found.start(), end=found.end())
        for found in _WORD.finditer(text)
    ]


def is_verb(words: Sequence[EnglishWord], place: int) -> bool:
    """Tell whether the word at this place is a verb: it follows an actor, `who` or `what`."""
    return place > 0 and (words[place - 1].low in ACTORS or words[place - 1].low in ("who", "what"))
