"""Room 4, plan: a broad question is answered in sections, each about a part of it; a narrow one in
one.

By rules alone: a question that holds several is taken apart where it says so; one that asks for the
whole of something ("Give me an overview of …") gets a section for each topic that was found: each
document that tells much of it, or, where that is one, each heading.
"""

import re
from collections.abc import Callable, Hashable, Sequence
from itertools import islice

from slipway.answer.draft import Part
from slipway.types import Hit

DEPTH = 8  # times the places of a narrow answer: so many are looked at for topics
_STANDS = 0.45  # a topic's best place must have this share of the best one's score
_LEAST = 2  # topics; with fewer it is one section
_UNUSED = 0xE000  # the first of 6,400 signs that mean nothing
_LETTERS = 3  # or more make a word that says something
_WORDS = 3  # of those make a clause that can stand by itself
_LONGEST = (
    1_000  # characters: what is longer holds pasted text, whose questions are not the reader's
)
_TITLE = 100  # characters

_HAN = re.compile(r"[\u4e00-\u9fff]")
_ITEM = re.compile(r"^\s*(?:[-*+•]|\(?\d{1,2}[.)、])\s*(?P<text>\S.*)$", re.MULTILINE)
_ASKS = r"(?:how|what|which|where|when|why|who|whom|whose|can|could|do|does|did|is|are|should|may|must|will)"
_STOP = re.compile(
    rf"(?<=？)(?![?？!！])\s*|(?<=[?？][!！])\s+|(?<=\?)(?:\s+|(?=[\u4e00-\u9fff])|(?={_ASKS}\s))",
    re.IGNORECASE,
)
# What is not the reader's own words, or stands beside them: code, quotations, addresses, brackets;
# and letters that nobody uses
_QUOTED = re.compile(
    r"```.*?(?:```|\Z)|~~~.*?(?:~~~|\Z)|`[^`\n]*`|^[ \t]*>[^\n]*|https?://[!-~]*[a-zA-Z0-9/#=&%_-]|\"[^\"]*\"|“[^”]*”|「[^」]*」|‘[^’]*’|(?<!\w)'[^'\n]*'(?!\w)"
    r"|\((?!\d{1,2}\))[^()]*\)|（[^（）]*）|[\ue000-\uf8ff]",
    re.DOTALL | re.MULTILINE,
)
_LED = re.compile(r"(?<=[.!:;])\s+|(?<=[。！：；])")
_TASK = re.compile(
    r"^\W*(?:(?:please|kindly|help me|(?:can|could|will|would) you|(?:i want|i need|i'd like) you to)\W+)*"
    r"(?:translate|proof-?read|rewrite|rephrase|reword|paraphrase|correct|spell-?check|polish|classify|transcribe|repeat)\b"
    r"|^.{0,12}(?:翻译|译成|改写|润色|校对|纠正)[^。？！?!\n]{0,12}[:：\n]",
    re.IGNORECASE,
)
_AND = re.compile(
    r",?\s+(?:and|also|then)\s+(?:also\s+)?(?=(?:how|what|which|where|when|why|who)\s+(?:\w+\s+){2,})|[,，；;]\s*(?:另外|还有|以及|并且)\s*",
    re.IGNORECASE,
)
_QUESTION = re.compile(
    rf"^\W*(?:(?:and|also|then|so|but|please)\W+)*{_ASKS}\b|[?？]\s*$|[吗呢么]\W*$|怎么|如何|什么|哪|多少|几|为什么",
    re.IGNORECASE,
)
_LEANS = re.compile(
    r"\b(?:it|its|they|them|their|this|these|those|one|ones|else|both|each|same|other|another)\b|[它其他她这那]"
    r"|\b(?:does|do|did|is|was|can|will|about|for|with|of|to|why)\s+that\b|\bthat\W*$",
    re.IGNORECASE,
)
_COMPARES = re.compile(
    r"\b(?:between|differ\w*|compare\w*|versus|vs)\b|区别|对比|比较", re.IGNORECASE
)
_BARE = re.compile(
    r"^\W*(?:and\s+)?(?:why|how|when|where|who|what)(?:\s+(?:so|not|else|then|exactly))?\W*$",
    re.IGNORECASE,
)
_FORM = r"\b(?:overview|summary|outline|introduction to|guide (?:to|on|for)|primer|run-?down|report on)\b"
_NARROW = re.compile(  # then a summary is what is asked about
    r"^\W*(?:(?:and|also|so|but|please|hi|hello)\W+)*(?:where|when|who|whom|whose|which|why|how|is|are|was|were|do|does|did|has|have|should|must"
    r"|(?:may|can|could) (?:i|we|it|they|one) (?!get|have|see)|what(?:'s| is| are| do| does| did| was))\b",
    re.IGNORECASE,
)
_WANTED = re.compile(
    rf"(?:^\W*(?:(?:please|an?|the|short|brief|quick|full|complete|detailed|high-level)\W+)*"
    rf"|\b(?:give|show|write|provide|get|have|see|need|want|like|make|create|prepare|draft)\b[^.?!\n]{{0,60}}){_FORM}",
    re.IGNORECASE,
)
_BROAD = re.compile(
    r"\b(?:summari[sz]e|introduce me|walk me through|"
    r"comprehensive|everything (?:about|on|there is|i (?:need|should|must))|all about|in (?:full )?detail|in depth|the basics of|the big picture|"
    r"all (?:the )?(?:ways|options|possibilities|features|kinds|types|aspects|steps|topics)|"
    r"(?:tell|teach) me (?:more )?about|explain (?:to me )?(?:all|everything)|what can (?:i|we|you|it|one) (?:all )?do with|best practices)\b"
    r"|概述|概览|总结|综述|概括|全面|详细(?:地)?(?:介绍|说明|解释|讲)|介绍一下|有哪些(?:方面|方法|功能|选项|步骤)|所有(?:的)?(?:方法|功能|选项|步骤)|从头到尾",
    re.IGNORECASE,
)
_ABOUT = re.compile(
    _FORM
    + r"|\b(?:please|(?:could|can|will|would) you|i(?:'d| would) like|i want|i need|give|tell|teach|provide|write|show|me|us|short|brief|quick|full"
    r"|complete|an?|the|of|about|on|for|to|with|in|there is|know)\b|[?？!.。]|请|给我|一下|关于|的|介绍",
    re.IGNORECASE,
)


def asked_for(text: str, most: int) -> list[Part]:
    """The questions in one, in their order, at most `most`: one that leans on the one before it
    stays with it, what is too much joins the last. What is quoted asks nothing.
    """
    if most < 2 or len(text) > _LONGEST or _TASK.search(text):
        return [Part(text=text)]
    masked, quoted = _masked(text)
    found = [part.strip().translate(quoted) for part in _items(masked) or _sentences(masked)]
    told: list[str] = []
    for part in filter(None, found):
        if told and (not _QUESTION.search(part) or _leans(part)):
            told[-1] = f"{told[-1]} {part}"
        elif len(told) == 1 and (
            _BARE.match(told[0]) or not _QUESTION.search(told[0])
        ):  # what comes before the first question belongs to it
            told[0] = f"{told[0]} {part}"
        else:
            told.append(part)
    told = list(
        {re.sub(r"\W+", " ", part).casefold().strip(): part for part in told}.values()
    )  # each once
    if len(told) < 2:
        return [Part(text=text)]
    told = told if len(told) <= most else [*told[: most - 1], " ".join(told[most - 1 :])]
    return [Part(text=part, title=_titled(part)) for part in told]


def _masked(text: str) -> tuple[str, dict[int, str]]:
    """The text with a sign that nobody uses for each thing that is quoted, and what these signs
    stand for, as `str.translate` takes it.
    """
    quoted = {_UNUSED + n: found[0] for n, found in enumerate(_QUOTED.finditer(text))}
    signs = map(chr, quoted)
    return _QUOTED.sub(lambda _: next(signs), text), quoted


def _items(text: str) -> list[str]:
    """The lines of a list, where each of them asks; not where they are the choices of a question
    before them.
    """
    first = _ITEM.search(text)
    if first is not None and re.search(r"[?？]\s*\Z", text[: first.start()]):
        return [text]
    items = [found["text"] for found in _ITEM.finditer(text)]
    return items if len(items) > 1 and all(map(_QUESTION.search, items)) else []


def _sentences(text: str) -> list[str]:
    return [part for sentence in _STOP.split(text) for part in _clauses(sentence)]


def _clauses(sentence: str) -> list[str]:
    """`How do I … and what is …?` as two; not where what stands before `and` asks nothing by
    itself, or compares.
    """
    parts = _AND.split(sentence)
    apart = all(
        _QUESTION.search(part) and _says(part, _WORDS) for part in parts
    ) and not _COMPARES.search(sentence)
    return parts if apart else [sentence]


def _leans(part: str) -> bool:
    """Whether it cannot be understood without the question before it."""
    return bool(_BARE.match(part) or _LEANS.search(part)) or not _says(part)


def _says(part: str, words: int = 2) -> bool:
    told = sum(len(word) >= _LETTERS for word in re.findall(r"[^\W\u4e00-\u9fff]+", part))
    return told + len(_HAN.findall(part)) // 2 >= words


def _titled(part: str) -> str:
    """The question as a title: without what leads to it, from a capital letter."""
    title = re.sub(
        r"^\W*(?:(?:and|also|then|so|but|please)\W+)+", "", part, flags=re.IGNORECASE
    ).strip()
    title = " ".join(title.split())
    if asked := re.match(
        r".*[?？][?？!！\"')”’」）]*(?=\s|\Z|[\u4e00-\u9fff])", title
    ):  # what is said behind it is no part of the question
        title = asked[0]
    if len(title) > _TITLE:
        title = _LED.split(title)[-1]
    return _cut(title[:1].upper() + title[1:])


def _cut(title: str) -> str:
    """On one line, and short enough for a heading."""
    title = " ".join(title.split())
    return title if len(title) <= _TITLE else f"{title[:_TITLE].rsplit(' ', 1)[0]}…"


def is_broad(text: str) -> bool:
    """Whether it asks for the whole of something."""
    own = _masked(text)[0] if len(text) <= _LONGEST else ""
    return bool(_BROAD.search(own) or (_WANTED.search(own) and not _NARROW.search(own)))


def subject(text: str) -> str:
    """What a broad question is about, without the words that ask for all of it; as it is where
    nothing else is left.
    """
    left = _ABOUT.sub(" ", _BROAD.sub(" ", text))
    return " ".join(left.split()) if _says(left, 1) else text


def topics(
    text: str, hits: Sequence[Hit], sureness: float, *, most: int, passages: int
) -> list[Part]:
    """What was found, by document, or, where one document tells all, by heading: best first. One
    part where there is but one topic.
    """
    for key, name in ((_by_document, _document), (_by_heading, _heading)):
        groups = _grouped(hits, key)
        if len(groups) >= _LEAST:
            return [
                Part(
                    text=text,
                    title=_cut(name(group[0])),
                    hits=tuple(islice(group, passages)),
                    sureness=sureness,
                )
                for group in groups[:most]
            ]
    return [Part(text=text, hits=tuple(hits[:passages]), sureness=sureness)]


def _grouped(hits: Sequence[Hit], key: Callable[[Hit], Hashable]) -> list[list[Hit]]:
    """Groups that stand beside the best one, each in the order of its places, the group of the best
    first.
    """
    groups: dict[Hashable, list[Hit]] = {}
    for hit in hits:
        groups.setdefault(key(hit), []).append(hit)
    least = _STANDS * max((hit.score for hit in hits), default=0.0)
    return [group for group in groups.values() if group[0].score >= least]


def _by_document(hit: Hit) -> Hashable:
    return hit.passage.path


def _document(hit: Hit) -> str:
    return hit.passage.title.strip() or hit.passage.heading.strip() or hit.passage.path


def _by_heading(hit: Hit) -> Hashable:
    return hit.passage.path, hit.passage.heading


def _heading(hit: Hit) -> str:
    return hit.passage.heading.strip() or hit.passage.path
