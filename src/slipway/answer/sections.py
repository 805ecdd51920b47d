"""Split a broad question into sections; a narrow one has a single section.

Rules decide. A question that contains several is split if its text shows where. A question about
the whole of something ("Give me an overview of …") gets a section for each topic found: each
document that covers it, or if only one does, each of its headings.
"""

import re
from collections.abc import Callable, Hashable, Sequence
from itertools import islice

from slipway.answer.draft import Part
from slipway.types import Hit

DEPTH = 8  # times the places of a narrow answer, searched for topics
_MIN_TOPIC_SHARE = 0.45  # of the best score, for a topic's best place
_MIN_TOPICS = 2  # with fewer, the answer is one section
_PLACEHOLDER = 0xE000  # the first of 6,400 private-use characters
_LETTERS = 3  # a word of so many letters carries meaning
_WORDS = 3  # so many such words make a complete clause
# Characters; a longer text contains pasted text, whose questions are not the reader's
_LONGEST = 1_000
_TITLE = 100  # characters

_HAN = re.compile(r"[\u4e00-\u9fff]")
_ITEM = re.compile(r"^\s*(?:[-*+•]|\(?\d{1,2}[.)、])\s*(?P<text>\S.*)$", re.MULTILINE)
_ASKS = (
    r"(?:how|what|which|where|when|why|who|whom|whose|can|could|do|does|did|is|are|should|may|must"
    r"|will)"
)
_STOP = re.compile(
    rf"(?<=？)(?![?？!！])\s*|(?<=[?？][!！])\s+|(?<=\?)(?:\s+|(?=[\u4e00-\u9fff])|(?={_ASKS}\s))",
    re.IGNORECASE,
)
# Text that is not the reader's own words: code, quotations, addresses, brackets, and private-use
# characters
_QUOTED = re.compile(
    r"```.*?(?:```|\Z)|~~~.*?(?:~~~|\Z)|`[^`\n]*`|^[ \t]*>[^\n]*|https?://[!-~]*[a-zA-Z0-9/#=&%_-]"
    r"|\"[^\"]*\"|“[^”]*”|「[^」]*」|‘[^’]*’|(?<!\w)'[^'\n]*'(?!\w)"
    r"|\((?!\d{1,2}\))[^()]*\)|（[^（）]*）|[\ue000-\uf8ff]",
    re.DOTALL | re.MULTILINE,
)
_LED = re.compile(r"(?<=[.!:;])\s+|(?<=[。！：；])")
_TASK = re.compile(
    r"^\W*(?:(?:please|kindly|help me|(?:can|could|will|would) you|(?:i want|i need|i'd like) you "
    r"to)\W+)*"
    r"(?:translate|proof-?read|rewrite|rephrase|reword|paraphrase|correct|spell-?check|polish"
    r"|classify|transcribe|repeat)\b"
    r"|^.{0,12}(?:翻译|译成|改写|润色|校对|纠正)[^。？！?!\n]{0,12}[:：\n]",
    re.IGNORECASE,
)
_AND = re.compile(
    r",?\s+(?:and|also|then)\s+(?:also\s+)?(?=(?:how|what|which|where|when|why"
    r"|who)\s+(?:\w+\s+){2,})|[,，；;]\s*(?:另外|还有|以及|并且)\s*",
    re.IGNORECASE,
)
_VERBS = r"(?:do|does|did|is|are|was|were|can|could|should|will|would|has|have|must|may)"
# Questions in a row, each with its verb before its subject: `when I travel` is none
_LISTED = re.compile(rf"(?:,\s+(?:and\s+)?|\s+and\s+)(?={_ASKS}\s)", re.IGNORECASE)
_INVERTED = re.compile(
    rf"^\W*(?:(?:when|where|why|how|who|what)\s+{_VERBS}\b|who\s+\w+s\b"
    rf"|(?:what|which|whose|how)\s+(?:\w+\s+){{1,4}}?{_VERBS}\b|{_VERBS}\s+\w+)",
    re.IGNORECASE,
)
_QUESTION = re.compile(
    rf"^\W*(?:(?:and|also|then|so|but|please)\W+)*{_ASKS}\b|[?？]\s*$|[吗呢么]\W*$|怎么|如何|什么|哪|多少|几|为什么",
    re.IGNORECASE,
)
_REFERS_BACK = re.compile(
    r"\b(?:it|its|they|them|their|this|these|those|one|ones|else|both|each|same|other|another)\b"
    r"|[它其他她这那]"
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
_FORM = (
    r"\b(?:overview|summary|outline|introduction to|guide (?:to|on|for)|primer|run-?down|report "
    r"on)\b"
)
_NARROW = re.compile(  # asks about a summary, not for one
    r"^\W*(?:(?:and|also|so|but|please|hi|hello)\W+)*(?:where|when|who|whom|whose|which|why|how|is"
    r"|are|was|were|do|does|did|has|have|should|must"
    r"|(?:may|can|could) (?:i|we|it|they|one) (?!get|have|see)|what(?:'s| is| are| do| does| did| "
    r"was))\b",
    re.IGNORECASE,
)
_WANTED = re.compile(
    rf"(?:^\W*(?:(?:please|an?|the|short|brief|quick|full|complete|detailed|high-level)\W+)*"
    rf"|\b(?:give|show|write|provide|get|have|see|need|want|like|make|create|prepare"
    rf"|draft)\b[^.?!\n]{{0,60}}){_FORM}",
    re.IGNORECASE,
)
_BROAD = re.compile(
    r"\b(?:summari[sz]e|introduce me|walk me through|"
    r"comprehensive|everything (?:about|on|there is|i (?:need|should|must))|all about|in (?:full "
    r")?detail|in depth|the basics of|the big picture|"
    r"all (?:the )?(?:ways|options|possibilities|features|kinds|types|aspects|steps|topics)|"
    r"(?:tell|teach) me (?:more )?about|explain (?:to me )?(?:all|everything)|what can (?:i|we|you"
    r"|it|one) (?:all )?do with|best practices)\b"
    r"|概述|概览|总结|综述|概括|全面|详细(?:地)?(?:介绍|说明|解释|讲)|介绍一下|有哪些(?:方面|方法|功能|选项|步骤)|所有(?:的)?(?:方法|功能|选项|步骤)"
    r"|从头到尾",
    re.IGNORECASE,
)
_ABOUT = re.compile(
    _FORM + r"|\b(?:please|(?:could|can|will|would) you|i(?:'d| would) like|i want|i need|give|tell"
    r"|teach|provide|write|show|me|us|short|brief|quick|full"
    r"|complete|an?|the|of|about|on|for|to|with|in|there is|know)\b|[?？!.。]|请|给我|一下|关于|的|介绍",
    re.IGNORECASE,
)


def split_questions(text: str, most: int) -> list[Part]:
    """Return the questions in the text, in order, at most `most`. One that refers to the previous
    one stays with it; surplus ones join the last. Quoted text is never split.
    """
    if most < 2 or len(text) > _LONGEST or _TASK.search(text):
        return [Part(text=text)]
    masked, quoted = _masked(text)
    found = [part.strip().translate(quoted) for part in _items(masked) or _sentences(masked)]
    parts: list[str] = []
    for part in filter(None, found):
        if parts and (not _QUESTION.search(part) or _needs_previous(part)):
            parts[-1] = f"{parts[-1]} {part}"
        elif len(parts) == 1 and (
            _BARE.match(parts[0]) or not _QUESTION.search(parts[0])
        ):  # what comes before the first question belongs to it
            parts[0] = f"{parts[0]} {part}"
        else:
            parts.append(part)
    parts = list(
        {re.sub(r"\W+", " ", part).casefold().strip(): part for part in parts}.values()
    )  # each once
    if len(parts) < 2:
        return [Part(text=text)]
    parts = parts if len(parts) <= most else [*parts[: most - 1], " ".join(parts[most - 1 :])]
    return [Part(text=part, title=_title_of(part)) for part in parts]


def _masked(text: str) -> tuple[str, dict[int, str]]:
    """Replace each quoted part by a placeholder character; return the text, and the table with
    which `str.translate` restores it.
    """
    quoted = {_PLACEHOLDER + n: found[0] for n, found in enumerate(_QUOTED.finditer(text))}
    signs = map(chr, quoted)
    return _QUOTED.sub(lambda _: next(signs), text), quoted


def _items(text: str) -> list[str]:
    """Return the items of a list if each of them asks; not if they are the choices of a question
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
    """Split `How do I … and what is …?` in two, and `How do I …, can I …, who …?` in three; not if
    a part is no complete question, or if the sentence compares.
    """
    listed = _LISTED.split(sentence)
    if len(listed) > 2 and all(map(_INVERTED.match, listed)) and not _COMPARES.search(sentence):
        return listed
    parts = _AND.split(sentence)
    apart = all(
        _QUESTION.search(part) and _has_words(part, _WORDS) for part in parts
    ) and not _COMPARES.search(sentence)
    return parts if apart else [sentence]


def _needs_previous(part: str) -> bool:
    """Tell whether the part cannot be understood without the question before it."""
    return bool(_BARE.match(part) or _REFERS_BACK.search(part)) or not _has_words(part)


def _has_words(part: str, words: int = 2) -> bool:
    """Tell whether the part has at least `words` words that carry meaning."""
    parts = sum(len(word) >= _LETTERS for word in re.findall(r"[^\W\u4e00-\u9fff]+", part))
    return parts + len(_HAN.findall(part)) // 2 >= words


def _title_of(part: str) -> str:
    """Return the question as a title: without its introduction, starting with a capital letter."""
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
    """Return the title on one line, short enough for a heading."""
    title = " ".join(title.split())
    return title if len(title) <= _TITLE else f"{title[:_TITLE].rsplit(' ', 1)[0]}…"


def is_broad(text: str) -> bool:
    """Tell whether the text asks for the whole of something."""
    own = _masked(text)[0] if len(text) <= _LONGEST else ""
    return bool(_BROAD.search(own) or (_WANTED.search(own) and not _NARROW.search(own)))


def subject_of(text: str) -> str:
    """Return what a broad question is about, without the words that ask for all of it; unchanged if
    nothing else is left.
    """
    left = _ABOUT.sub(" ", _BROAD.sub(" ", text))
    return " ".join(left.split()) if _has_words(left, 1) else text


def topics(
    text: str, hits: Sequence[Hit], confidence: float, *, most: int, passages: int
) -> list[Part]:
    """Group what was found by document, or by heading if one document covers all, best first.
    Return one part if there is only one topic.
    """
    for key, name in ((_by_document, _document), (_by_heading, _heading)):
        groups = _groups(hits, key)
        if len(groups) >= _MIN_TOPICS:
            return [
                Part(
                    text=text,
                    title=_cut(name(group[0])),
                    hits=tuple(islice(group, passages)),
                    confidence=confidence,
                )
                for group in groups[:most]
            ]
    return [Part(text=text, hits=tuple(hits[:passages]), confidence=confidence)]


def _groups(hits: Sequence[Hit], key: Callable[[Hit], Hashable]) -> list[list[Hit]]:
    """Return groups that score close to the best one, each in the order of its places, the best
    group first.
    """
    groups: dict[Hashable, list[Hit]] = {}
    for hit in hits:
        groups.setdefault(key(hit), []).append(hit)
    least = _MIN_TOPIC_SHARE * max((hit.score for hit in hits), default=0.0)
    return [group for group in groups.values() if group[0].score >= least]


def _by_document(hit: Hit) -> Hashable:
    return hit.passage.path


def _document(hit: Hit) -> str:
    return hit.passage.title.strip() or hit.passage.heading.strip() or hit.passage.path


def _by_heading(hit: Hit) -> Hashable:
    return hit.passage.path, hit.passage.heading


def _heading(hit: Hit) -> str:
    return hit.passage.heading.strip() or hit.passage.path
