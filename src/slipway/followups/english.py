"""Decide which English questions need the history, and combine them with the question before."""

import re
from collections.abc import Sequence
from itertools import pairwise

import msgspec

from slipway.followups.english_substitution import substitute
from slipway.followups.english_words import (
    ACTORS,
    ASKS,
    AUXILIARIES,
    DETERMINERS,
    ENTITIES,
    IMPERATIVES,
    JOINTS,
    POINTERS,
    PREPOSITIONS,
    TIMES,
    EnglishWord,
    is_verb,
    words_of,
)
from slipway.types import Record

_TOPIC = 14  # most words taken from an earlier question
_NAMED = 2  # most words taken from an answer
_ENOUGH = 5  # content words; so many make a complete question

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
    content = sum(word.is_content for word in words_of(rest))
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
        fragment and (opened or words_of(rest)[0].low in PREPOSITIONS)
    )


def may_refer_back(text: str) -> bool:
    """Tell whether any word could refer to the history."""
    opened, rest = _strip_opener(text)
    return opened or not (ENTITIES | POINTERS).isdisjoint(word.low for word in words_of(rest))


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
        return substitute(before, rest)
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


# Detecting


def _is_fragment(text: str) -> bool:
    """Tell whether the text is no sentence: a phrase, or a clause that depends on another one."""
    words = words_of(text)
    if not words or words[0].low in AUXILIARIES | ENTITIES | POINTERS | ACTORS | IMPERATIVES:
        return False
    if words[0].low in ASKS or words[0].low in JOINTS:
        return (
            words[0].low in ("when", "if", "where", "while")
            and len(words) > 1
            and words[1].low not in AUXILIARIES
        )
    return not any(word.low in AUXILIARIES | ASKS for word in words)


def _pronoun(text: str) -> _Pronoun | None:
    """Find the first pronoun that no earlier clause explains."""
    text = _EXPLETIVE.sub(lambda found: " " * len(found.group()), text)
    free = _free(text)
    words = words_of(free)
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
        words = words_of(text[start:end])
        fronted = (
            bool(words)
            and words[0].low in PREPOSITIONS - {"after", "before", "until"}
            and len(clauses) > 1
        )
        if not fronted and any(word.is_content for word in words):
            return text[:end]
    return text


def _clauses(text: str) -> list[tuple[int, int]]:
    cuts = [0, *(found.end() for found in _CLAUSE_END.finditer(text)), len(text)]
    return [(start, end) for start, end in pairwise(cuts) if text[start:end].strip()]


def _pronoun_at(words: Sequence[EnglishWord], place: int) -> _Pronoun | None:
    word, before = words[place], words[place - 1].low if place else ""
    after = words[place + 1] if place + 1 < len(words) else None
    found = _Pronoun(start=word.start, end=word.end)
    if word.low in ENTITIES:
        own = after is not None and (
            after.low == "own" or (word.low in ("its", "their") and words[0].is_content)
        )
        has = (
            any(each.low in ("have", "has") for each in words[:place]) and before in PREPOSITIONS
        )  # `do cards have limits on them`
        return (
            None
            if (own or has) and any(each.is_content for each in words[: min(place, 4)])
            else _done(found, words, place)
        )
    if word.low == "there":
        there = before not in PREPOSITIONS
        return (
            None
            if before in AUXILIARIES or (after is not None and after.low in AUXILIARIES)
            else msgspec.structs.replace(found, there=there)
        )
    if word.low not in POINTERS:
        return None
    if after is None or after.low in PREPOSITIONS:
        return _done(found, words, place)
    if (
        word.low == "that"
        and before
        and (words[place - 1].is_content or after.low in DETERMINERS | ACTORS | ENTITIES)
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
        None if after.low in TIMES else msgspec.structs.replace(found, noun=after.text, does=verb)
    )


def _done(pronoun: _Pronoun, words: Sequence[EnglishWord], place: int) -> _Pronoun:
    """Mark a pronoun for an action (`do that`, `that`) rather than a thing (`it`)."""
    last = place + 1 == len(words) or words[place + 1].low in PREPOSITIONS
    doing = last and place > 0 and words[place - 1].low == "do"
    start = words[place - 1].start if doing else pronoun.start
    return msgspec.structs.replace(pronoun, start=start, does=doing or words[place].low in POINTERS)


# Resolving


def _named(pronoun: _Pronoun, before: str, answer: str) -> str:
    """Return what a pronoun refers to. Of an answer only a few words are taken, since it may be
    wrong.
    """
    if pronoun.there:
        return f"in {_topic(before)}"
    if not pronoun.noun:
        return _topic(before, verb=pronoun.does)
    words = words_of(answer)
    place = next((n for n, word in enumerate(words) if word.low == pronoun.noun.lower()), 0)
    return " ".join(
        word.text for word in words[max(place - _NAMED, 0) : place] if word.is_content
    ) or _topic(before)


def _topic(before: str, *, verb: bool = False) -> str:
    """Return what a question is about: a thing up to the next auxiliary; with `verb` all that is
    said of it and done with it.
    """
    words = words_of(before)
    content = [n for n, word in enumerate(words) if word.is_content]
    if not content:
        return ""
    start = next((n for n in content if verb or not is_verb(words, n)), content[0])
    end = min(content[-1] + 1, start + _TOPIC)
    if verb:
        start = next((n for n in range(start, 0, -1) if words[n - 1].low in ACTORS), start)
    else:
        end = next(
            (
                n
                for n in range(start + 1, end)
                if words[n].low in AUXILIARIES | JOINTS | ACTORS - {"to"}
            ),
            end,
        )
    if start and words[start - 1].low in DETERMINERS:
        start -= 1
    return before[words[start].start : words[end - 1].end]
