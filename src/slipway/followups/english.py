"""Decide which English questions need the history, and combine them with the question before."""

import re
from collections.abc import Sequence
from itertools import pairwise

import msgspec

from slipway.types import Record

_TOPIC = 14  # most words taken from an earlier question
_NAMED = 2  # most words taken from an answer
_ENOUGH = 5  # content words; so many make a complete question


def _some(words: str) -> frozenset[str]:
    return frozenset(words.split())


_WORD = re.compile(r"/?\w+(?:[-'’./@]\w+)*")
_PREPOSITIONS = _some(
    "about after against at before behind below besides between by during for from in inside into "
    "like of on over per through to under until via "
    "with without"
)
# A phrase that begins so belongs to the word before it and is not replaced by another
_KEPT = _some("of to like about")
_ASKS = _some("how what when where which who whom whose why")
_AUXILIARIES = _some(
    "am are be been can can't could did didn't do does doesn't don't had has have is isn't may "
    "might must shall should was were will won't "
    "would"
)
_JOINTS = _some("although and because but if or that when where whether which while who")
_ENTITIES = _some("it its itself they them their theirs themselves")
_POINTERS = _some("this that these those")
_SHORTENED = _some("it that there what where who how when")
_ACTORS = _some("i you we to")  # a verb follows
_STOP_WORDS = """
    a all also an another any anything as both called came come each else ever every example
    explain few first get give given go happen happens hello help here instead just kind kinds
    know let long look lot made make makes many me mean means more most much my name need needs
    no not now off ok okay one ones only other others our out please possible same say second
    several show so some something sort still such take takes tell than the then there thing
    things too two up us use used using very want way ways well work works yes your
"""
_SMALL = (
    _PREPOSITIONS
    | _ASKS
    | _AUXILIARIES
    | _JOINTS
    | _ENTITIES
    | _POINTERS
    | _ACTORS
    | _some(_STOP_WORDS)
)
_IMPERATIVES = _some("compare describe explain give go help list name show tell")
_DETERMINERS = _some("a an the my your our")
_TIMES = _some(
    "version way case time year month week weekend day morning evening moment page server machine"
)  # `this version` needs no antecedent

_COURTESY = re.compile(
    r"(?:(?:ok(?:ay)?|thanks?(?: you)?(?: (?:a lot|so much|very much))?|great|good|nice|perfect"
    r"|right|cool|i see|yes|no|hm+|oh|hello|hi|hey|please|so|well)\b"
    r"[\s,.!:–-]*)+",
    re.IGNORECASE,
)
_OPENER = re.compile(
    r"(?:(?:and|but|or|also|then)\b[\s,]*)*(?:what|how)\s+about\s+|(?:(?:and|but|or|also"
    r"|then)\b[\s,]*)+",
    re.IGNORECASE,
)
_EXPLETIVE = re.compile(  # `it` without a meaning
    r"\bit(?:'s| has| had)? (?=been\b|appears\b|seems\b|looks like\b)"
    r"|\b(?:is|was|be|make|makes|find|would) it(?= \w+(?: \w+)? (?:to|that|if|whether|for)\b)"
    r"|\bit(?= (?:is|was|seems|takes) \w+(?: \w+)? (?:to|that|if)\b)"
    r"|\b(?:does|did|will|would|should|can) it (?=(?:take|cost)\b[^,;.?!]* to\b|(?:matter|mean)(?: "
    r"\w+)? (?:if|when|that|whether|which|where|how)\b)",
    re.IGNORECASE,
)
_CLAUSE_END = re.compile(
    r"[,;:.?!](?=\s)|\s(?=(?:if|when|because|so that|while|where|whether|although|and|but|or|which"
    r"|who)\b)"
    r"|\s(?=(?:after|before|until|once|since|as|though|so|unless|that)\s(?:can |do |does )?(?:it"
    r"|its|they|their|i|you|we)\b)"
    r"|(?<=\w{3})\s(?=that \w+ (?:it|them)\b)",
    re.IGNORECASE,
)
_REST = re.compile(
    r"\b(?:the|an)?other ones?\b|\bthe (?:other|former|latter|second|first|last|third)(?= ones?\b"
    r"|\s*\?|\s*\Z| (?:over|with|in|for|from|on|by)\b)"
    r"|\bdo the same\b|\b(?:any|some)(?:thing|where)? else\b|\bwhat else\b|\A(?:tell me "
    r"|any(?:thing)? |show me |some )?more\b(?! \w+ \w+ \w+ \w+)",
    re.IGNORECASE,
)
_OTHER = re.compile(  # `for the other one`, and nothing else
    r"(?:\w+ )?(?:the |an)?other(?: ones?)?|(?:\w+ )?the (?:former|latter|second|first|last|third)"
    r"(?: ones?)?",
    re.IGNORECASE,
)
_MORE = re.compile(r"\b(?:more|else)\b", re.IGNORECASE)  # asks for something new: replace nothing
_ONE = re.compile(
    r"\bones\b|(?<=\w )one(?=\s*\?|\s*\Z| (?:to|be|is|are|for|in|with|from)\b)|(?<=\bdo )one\b"
    r"|(?<=\b(?:can|did) )one\b|(?<=\bdoes )one\b",
    re.IGNORECASE,
)
_WHICH = re.compile(
    r"which (?:is|are|was|were|do|does|can|of)\b(?! (?:the|a|an|my|your|our)\b)(?: "
    r"\w+){0,2}\s*\?*\Z",
    re.IGNORECASE,
)


class _Word(Record, frozen=True, kw_only=True):
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


class _Pronoun(Record, frozen=True, kw_only=True):
    """Hold the position of a pronoun without an antecedent; `noun` follows a demonstrative (`that
    object`).
    """

    start: int
    end: int
    noun: str = ""
    there: bool = False
    does: bool = False  # for an action, not a thing


def is_courtesy(text: str) -> bool:
    """Tell whether the text only greets or thanks."""
    found = _COURTESY.match(text)
    return (
        found is not None and "?" not in text and (found.end() == len(text) or text.endswith("!"))
    )


def needs_history(text: str) -> bool:
    """Tell whether the question cannot be understood alone."""
    if is_courtesy(text) or re.search(r"\bi mean\b", text, re.IGNORECASE):
        return False
    opened, rest = _strip_opener(text)
    content = sum(word.is_content for word in _words(rest))
    if content >= _ENOUGH:
        return False
    if (
        content == 0
        or _REST.search(_free(rest))
        or _WHICH.match(rest)
        or _pronoun(rest) is not None
    ):
        return True
    fragment = _is_fragment(rest)
    asks = fragment and rest.rstrip().endswith("?")  # one word alone is searched unchanged
    return (content <= 1 and (opened or asks)) or (
        fragment and (opened or _words(rest)[0].low in _PREPOSITIONS)
    )


def may_refer_back(text: str) -> bool:
    """Tell whether any word could refer to the history."""
    opened, rest = _strip_opener(text)
    return opened or not (_ENTITIES | _POINTERS).isdisjoint(word.low for word in _words(rest))


def combine(text: str, before: str, answer: str) -> str:
    """Return the complete question; `before` is the question before, `answer` the answer to it."""
    before = _sentence(before)
    _, rest = _strip_opener(text)
    if _OTHER.fullmatch(rest.strip(" ?.!")):
        return before  # nobody says which other one: what is about both is searched
    pronoun = _pronoun(rest)
    noun = pronoun.noun.lower() if pronoun is not None else ""
    if noun and noun not in f"{before} {answer}".lower():
        if pronoun is None or not pronoun.does:
            return text  # `this card` is the one in front of the reader
        pronoun = msgspec.structs.replace(pronoun, noun="")
    elif noun and noun in before.lower():
        pronoun = None
    if (
        _is_fragment(rest)
        and not _MORE.search(rest)
        and (pronoun is None or rest[pronoun.start : pronoun.end].lower().startswith("one"))
    ):
        return _substitute(before, rest)
    if pronoun is not None and (found := _named(pronoun, before, answer)):
        return f"{rest[: pronoun.start]}{found}{rest[pronoun.end :]}"
    topic = _topic(before, verb=True)
    return f"{rest.rstrip(' ?.')} ({topic})" if topic else text


def _sentence(text: str) -> str:
    """Return the last sentence that asks, or the last one."""
    sentences = re.split(r"(?<=[.!?])\s+", text.strip())
    return next((each for each in reversed(sentences) if each.endswith("?")), sentences[-1])


def _strip_opener(text: str) -> tuple[bool, str]:
    """Return whether the text starts with a connective (`and …`, `what about …`), and the rest."""
    text = text.strip()
    if (found := _COURTESY.match(text)) and found.end() < len(text):
        text = text[found.end() :]
    found = _OPENER.match(text)
    return bool(found), text[found.end() :] if found else text


def _words(text: str) -> list[_Word]:
    return [
        _Word(text=found.group(), start=found.start(), end=found.end())
        for found in _WORD.finditer(text)
    ]


# Detecting


def _is_fragment(text: str) -> bool:
    """Tell whether the text is no sentence: a phrase, or a clause that depends on another one."""
    words = _words(text)
    if not words or words[0].low in _AUXILIARIES | _ENTITIES | _POINTERS | _ACTORS | _IMPERATIVES:
        return False
    if words[0].low in _ASKS or words[0].low in _JOINTS:
        return (
            words[0].low in ("when", "if", "where", "while")
            and len(words) > 1
            and words[1].low not in _AUXILIARIES
        )
    return not any(word.low in _AUXILIARIES | _ASKS for word in words)


def _pronoun(text: str) -> _Pronoun | None:
    """Find the first pronoun that no earlier clause explains."""
    text = _EXPLETIVE.sub(lambda found: " " * len(found.group()), text)
    free = _free(text)
    words = _words(free)
    found = next(
        (pronoun for n in range(len(words)) if (pronoun := _pronoun_at(words, n)) is not None), None
    )
    one = _ONE.search(text[: len(free) + 1], 0, len(free)) if found is None else None
    return found if one is None else _Pronoun(start=one.start(), end=one.end())


def _free(text: str) -> str:
    """Return the text up to the end of its first clause with content, which later pronouns can
    refer to.
    """
    clauses = _clauses(text)
    for start, end in clauses:
        words = _words(text[start:end])
        fronted = (
            bool(words)
            and words[0].low in _PREPOSITIONS - {"after", "before", "until"}
            and len(clauses) > 1
        )
        if not fronted and any(word.is_content for word in words):
            return text[:end]
    return text


def _clauses(text: str) -> list[tuple[int, int]]:
    cuts = [0, *(found.end() for found in _CLAUSE_END.finditer(text)), len(text)]
    return [(start, end) for start, end in pairwise(cuts) if text[start:end].strip()]


def _pronoun_at(words: Sequence[_Word], place: int) -> _Pronoun | None:
    word, before = words[place], words[place - 1].low if place else ""
    after = words[place + 1] if place + 1 < len(words) else None
    found = _Pronoun(start=word.start, end=word.end)
    if word.low in _ENTITIES:
        own = after is not None and (
            after.low == "own" or (word.low in ("its", "their") and words[0].is_content)
        )
        has = (
            any(each.low in ("have", "has") for each in words[:place]) and before in _PREPOSITIONS
        )  # `do cards have limits on them`
        return (
            None
            if (own or has) and any(each.is_content for each in words[: min(place, 4)])
            else _done(found, words, place)
        )
    if word.low == "there":
        there = before not in _PREPOSITIONS
        return (
            None
            if before in _AUXILIARIES or (after is not None and after.low in _AUXILIARIES)
            else msgspec.structs.replace(found, there=there)
        )
    if word.low not in _POINTERS:
        return None
    if after is None or after.low in _PREPOSITIONS:
        return _done(found, words, place)
    if (
        word.low == "that"
        and before
        and (words[place - 1].is_content or after.low in _DETERMINERS | _ACTORS | _ENTITIES)
    ):
        return None  # `the port that the server listens on`, `is it possible that I …`
    if not after.is_content or (word.low == "that" and before in ("is", "are", "was", "were")):
        return msgspec.structs.replace(found, does=True)
    verb = word.low == "that" and before in (
        "does",
        "did",
        "will",
        "would",
        "can",
        "could",
    )  # perhaps: `does that cut answers?`
    return (
        None if after.low in _TIMES else msgspec.structs.replace(found, noun=after.text, does=verb)
    )


def _done(pronoun: _Pronoun, words: Sequence[_Word], place: int) -> _Pronoun:
    """Mark a pronoun for an action (`do that`, `that`) rather than a thing (`it`)."""
    last = place + 1 == len(words) or words[place + 1].low in _PREPOSITIONS
    doing = last and place > 0 and words[place - 1].low == "do"
    start = words[place - 1].start if doing else pronoun.start
    return msgspec.structs.replace(
        pronoun, start=start, does=doing or words[place].low in _POINTERS
    )


# Resolving


def _named(pronoun: _Pronoun, before: str, answer: str) -> str:
    """Return what a pronoun refers to. Of an answer only a few words are taken, since it may be
    wrong.
    """
    if pronoun.there:
        return f"in {_topic(before)}"
    if not pronoun.noun:
        return _topic(before, verb=pronoun.does)
    words = _words(answer)
    place = next((n for n, word in enumerate(words) if word.low == pronoun.noun.lower()), 0)
    return " ".join(
        word.text for word in words[max(place - _NAMED, 0) : place] if word.is_content
    ) or _topic(before)


def _topic(before: str, *, verb: bool = False) -> str:
    """Return what a question is about: a thing up to the next auxiliary; with `verb` all that is
    said of it and done with it.
    """
    words = _words(before)
    content = [n for n, word in enumerate(words) if word.is_content]
    if not content:
        return ""
    start = next((n for n in content if verb or not _is_verb(words, n)), content[0])
    end = min(content[-1] + 1, start + _TOPIC)
    if verb:
        start = next((n for n in range(start, 0, -1) if words[n - 1].low in _ACTORS), start)
    else:
        end = next(
            (
                n
                for n in range(start + 1, end)
                if words[n].low in _AUXILIARIES | _JOINTS | _ACTORS - {"to"}
            ),
            end,
        )
    if start and words[start - 1].low in _DETERMINERS:
        start -= 1
    return before[words[start].start : words[end - 1].end]


def _is_verb(words: Sequence[_Word], place: int) -> bool:
    return place > 0 and (
        words[place - 1].low in _ACTORS or words[place - 1].low in ("who", "what")
    )


def _substitute(before: str, fragment: str) -> str:
    """Return the question before with the fragment in place of its counterpart."""
    fragment, before = fragment.strip().rstrip("?!. "), before.strip().rstrip("?!. ")
    words, new = _words(before), _words(fragment)
    if not new or not words:
        return f"{before} {fragment}"
    if new[0].low in _JOINTS or new[0].low in _PREPOSITIONS:
        start, end = _phrase_like(words, new[0].low)
        same = start < end and words[start].low == new[0].low
        repeated = len(new) > 1 and any(word.low == new[-1].low for word in words[1:])
        # "for the Silver plan" replaces "the Gold plan", not "in Asia"
        if not same and repeated and new[-1].is_content:
            start, end = _like(words, new[1:])
            fragment = fragment[new[1].start :]
    else:
        start, end = _like(words, new)
        if new[-1].low in ("one", "ones"):
            fragment, end = (
                " ".join(word.text for word in new[:-1] if word.low not in _DETERMINERS),
                start + 1,
            )
    if start == end:
        return f"{before} {fragment}?"
    return f"{before[: words[start].start]}{fragment}{before[words[end - 1].end :]}?"


def _phrase_like(words: Sequence[_Word], first: str) -> tuple[int, int]:
    """Find the last phrase that begins with the same word, or else with another preposition; (0, 0)
    if there is none.
    """
    starts = [n for n, word in enumerate(words) if word.low == first and n > 0]
    if not starts and first in _PREPOSITIONS - _KEPT:
        starts = [n for n, word in enumerate(words) if word.low in _PREPOSITIONS - _KEPT and n > 0]
    if not starts:
        return 0, 0
    if first in _JOINTS:
        return starts[-1], len(words)
    return starts[-1], _phrase_end(words, starts[-1] + 1)


def _phrase_end(words: Sequence[_Word], place: int) -> int:
    while (
        place < len(words)
        and words[place].low not in (_PREPOSITIONS - {"of"}) | _AUXILIARIES | _JOINTS
    ):
        place += 1
    return place


def _like(words: Sequence[_Word], new: Sequence[_Word]) -> tuple[int, int]:
    """Find the phrase most like the new one: a number, a path, a name, a word that begins alike; or
    else the object.
    """
    content = [word for word in new if word.is_content] or list(new)
    head = next((n for n in range(len(words) - 1, 0, -1) if words[n].low == content[-1].low), 0)
    other = any(word.low in ("other", "another") for word in new)
    if head and (other or len(content) > 1):  # `the Team plan` for `the Basic plan`
        start = head
        while start > 1 and words[start - 1].is_content and not _is_verb(words, start - 1):
            start -= 1
        return start - (words[start - 1].low in _DETERMINERS), head + 1
    for kind in _KINDS:
        wanted = kind(content[-1], content[-1]) and kind
        places = [
            n
            for n, word in enumerate(words)
            if n > 0 and wanted and any(kind(word, each) for each in content)
        ]
        if places:
            start = end = places[-1]
            while kind is _both_names and start > 1 and words[start - 1].is_name:
                start -= 1
            return start, end + 1
    return _object(words)


def _object(words: Sequence[_Word]) -> tuple[int, int]:
    start = next(
        (n for n, word in enumerate(words) if word.is_content and not _is_verb(words, n)), 0
    )
    end = start
    while (
        end < len(words)
        and words[end].low not in _PREPOSITIONS | _AUXILIARIES | _JOINTS | _DETERMINERS
    ):
        end += 1
    return start - (start > 0 and words[start - 1].low in _DETERMINERS), end


def _both_numbers(word: _Word, other: _Word) -> bool:
    return word.text.isdecimal() and other.text.isdecimal()


def _both_paths(word: _Word, other: _Word) -> bool:
    return "/" in word.text and "/" in other.text


def _begin_alike(word: _Word, other: _Word) -> bool:
    return (
        len(word.text) > 3
        and word.low[:3] == other.low[:3]
        and any(each.isdecimal() for each in word.text + other.text)
    )


def _both_names(word: _Word, other: _Word) -> bool:
    return word.is_name and other.is_name


_KINDS = (_both_numbers, _both_paths, _begin_alike, _both_names)
