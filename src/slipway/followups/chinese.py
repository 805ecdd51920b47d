"""Decide which Chinese questions need the history, and combine them with the question before."""

import re

_SIGNS = " \t\n？?！!。，,、"
_LONGEST_FRAGMENT = 14
_OPENER = re.compile(r"(?:那么|那|还有|以及|另外|然后|而且|但是|和)[，, ]?")
_COURTESY = re.compile(
    r"(?:(?:好的?|谢谢(?:你|您)?|多谢|明白了?|知道了|您好|你好|嗯|哦)[啊呀了]?[！!，,。.\s]*)+"
)
_POINTER = re.compile(
    r"[它牠她他]们?|(?<![在从到])[这那](?:个|些|样|种|段|里|边|款|项|时|次)|[这那](?=是)|其中|前者|后者|另一个|另外一个|第[一二三]个|上面|刚才"
)
_OTHER = re.compile(r"(?:另一个|另外一个|第[一二三]个|前者|后者|其他的?)(?:怎么样|呢)?")
_CLAUSE_END = re.compile(r"[，,。；;：:？?！!]")
_ASKING = re.compile(
    r"为什么|怎么样|怎么办|怎么|怎样|如何|什么时候|什么|哪里|哪些|哪个|哪|谁|多少|多久|多长|多大|多|几[天个次年月]?|是不是|有没有|能不能|可不可以|可以|需要|还有"
    r"|别的|其他|"
    r"更多|详细|请问|请|吗|呢|吧|啊|的|了|是|有|能|会|要|该|应该|我们?|你们?|您|就|都|也|还|在|再|一下|说明|告诉|钱"
)
_BARE_START = re.compile(r"(?:需要|可以|能不能|能|会|要|有没有|是不是|还有?|必须|应该)")
_HELPLESS = re.compile(r"[^A-Za-z]{0,3}怎么办")


def is_courtesy(text: str) -> bool:
    """Tell whether the text only greets or thanks."""
    return bool(_COURTESY.fullmatch(text))


def needs_history(text: str) -> bool:
    """Tell whether the question cannot be understood alone."""
    if is_courtesy(text):
        return False
    _, rest = _strip_opener(text)
    bare = rest.strip(_SIGNS)
    if not _content(bare) or _is_fragment(rest):
        return True
    if len(bare) <= 8 and (_BARE_START.match(bare) or _HELPLESS.fullmatch(bare)):
        return True
    return _unbound(rest) is not None


def may_refer_back(text: str) -> bool:
    """Tell whether any word could refer to the history."""
    opened, rest = _strip_opener(text)
    return opened or bool(_POINTER.search(rest)) or rest.strip(_SIGNS).endswith("呢")


def combine(text: str, before: str, answer: str) -> str:
    """Return the complete question; `before` is the question before."""
    _, rest = _strip_opener(text)
    if _OTHER.fullmatch(rest.strip(_SIGNS)):
        return before  # nobody says which other one: what is about both is searched
    if _is_fragment(rest):
        return _substitute(before, rest.strip(_SIGNS).removesuffix("呢"))
    topic = _topic(before)
    if (found := _unbound(rest)) is not None:
        return f"{rest[: found.start()]}{topic}{rest[found.end() :]}"
    return f"{topic} {rest}"


def _strip_opener(text: str) -> tuple[bool, str]:
    """Return whether the text starts with a connective (那, 还有), and the rest."""
    text = text.strip()
    if (found := _COURTESY.match(text)) and found.end() < len(text):
        text = text[found.end() :]
    if _POINTER.match(text):
        return False, text
    found = _OPENER.match(text)
    return bool(found), text[found.end() :] if found else text


def _content(text: str) -> str:
    return _ASKING.sub("", text).strip(_SIGNS)


def _is_fragment(text: str) -> bool:
    """Tell whether the text is `…呢？` with only a noun."""
    bare = text.strip(_SIGNS)
    return (
        bare.endswith("呢")
        and len(bare) <= _LONGEST_FRAGMENT
        and not _ASKING.search(bare[:-1])
        and not _POINTER.search(bare)
    )


def _unbound(text: str) -> re.Match[str] | None:
    """Find a pronoun that no earlier clause explains."""
    found = _POINTER.search(text)
    if found is None:
        return None
    clauses = _CLAUSE_END.split(text[: found.start()])[:-1]
    return None if any(len(_content(clause)) > 1 for clause in clauses) else found


def _topic(before: str) -> str:
    """Return the question before without its question words; its first clause that has content."""
    clauses = [_ASKING.split(clause) for clause in _CLAUSE_END.split(before)]
    return next(
        (topic for clause in clauses if (topic := "".join(clause).strip(_SIGNS))),
        before.strip(_SIGNS),
    )


def _substitute(before: str, new: str) -> str:
    """Replace a part of the question before that has the same length and shares its first or last
    character; otherwise put the fragment after its topic.
    """
    size = len(new)
    places = [n for n in range(len(before) - size + 1) if before[n : n + size] != new]
    for end in (-1, 0):
        for n in places:
            if before[n : n + size][end] == new[end]:
                return f"{before[:n]}{new}{before[n + size :]}"
    return f"{_topic(before)} {new}"
