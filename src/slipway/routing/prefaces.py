"""Recognise what models say before they continue an answer that broke off: "Sure, here is the
rest:", "好的，接着上文：".

A closed grammar: each form is a row of slots, each slot the words that may fill it. It knows
whether an unfinished text can still become a preface, so that nothing else is held back. A preface
begins with a capital letter or with dots, speaks of continuing, and ends with a colon, an ellipsis,
a bracket or the end of its line; with a full stop only if nobody would say it of anything else.
"Continuing from where it stopped, the server sends" is no preface.

An answer may itself be about continuing. So fewer forms are accepted after a whole sentence, and
fewer still at the start of a list item, under a heading or after a colon.
"""

import re
from collections.abc import Iterator, Mapping
from itertools import product
from types import MappingProxyType
from typing import Literal

Slot = tuple[str, ...]
Form = tuple[Slot, ...]
Sentence = Literal["open", "over", "none"]
"""How a text ends: within a sentence, after one, or at the start of something (an item, a row, what
a colon announces).
"""


def _each(*slots: Slot) -> Slot:
    return tuple(map("".join, product(*slots)))


_APOLOGIES = _each(
    ("sorry", "apologies", "my apologies", "i apologize", "i apologise"),
    (
        *(
            "",
            " about that",
            " for that",
            ", i was cut off",
            ", i got cut off",
            ", that was cut off",
        ),
        *_each((" about", " for"), (" the interruption", " the cut-off", " the cutoff")),
    ),
)
_YES = (
    (
        *(
            "",
            "sure",
            "sure thing",
            "certainly",
            "of course",
            "absolutely",
            "okay",
            "ok",
            "alright",
            "all right",
            "yes",
            "got it",
            "understood",
        ),
        *("no problem", "thank you", "thanks"),
        *_APOLOGIES,
    ),
    ("", ",", "!", ".", ":", " -", " –", " —"),
    ("", " ", "\n", "\n\n"),
)
_AGREES = (_YES[0][1:], *_YES[1:])
_APOLOGIZES = (_APOLOGIES, *_YES[1:])
_HERE = ("here is", "here's", "here are", "below is", "this is", "the following is")
_REST = (
    _HERE,
    (" the", " my", " your"),
    ("", " remaining", " missing", " next", " continued", " complete", " full"),
    (
        " rest",
        " remainder",
        " continuation",
        " completion",
        " part",
        " portion",
        " text",
        " answer",
        " response",
        " content",
        " message",
    ),
)
_OF = (
    ("", " of", " of the", " of my", " of your", " of that", " of this", " of it"),
    ("", " previous", " last", " original", " unfinished", " interrupted"),
    (
        "",
        " answer",
        " response",
        " reply",
        " message",
        " text",
        " sentence",
        " paragraph",
        " explanation",
        " document",
        " list",
        " table",
        " code",
    ),
)
_CONTINUATION = (
    _HERE,
    (" the", " my"),
    (" continuation", " continued answer", " continued response"),
)
_REST_OF_IT = (
    (
        "the rest",
        "rest",
        "the remainder",
        "remainder",
        "the remaining part",
        "the continuation",
        "continuation",
    ),
    (" of the", " of my"),
    ("", " previous", " last", " original", " unfinished", " interrupted"),
    (" answer", " response", " reply", " text"),
    ("", " follows", " is as follows", " is below"),
)
_GOING_ON = (
    ("", ",", " -", " –", " —"),
    ("", " continuing", " resuming", " picking up", " starting"),
)
_GO_ON = ("continue", "go on", "carry on", "resume", "pick up", "proceed")
_CONTINUING = (
    (
        *_each(
            ("", "now ", "i'm ", "i am "),
            ("continuing", "going on", "resuming", "picking up", "carrying on"),
        ),
        *_each(
            ("i'll ", "i will ", "let me ", "let's ", "let us ", "allow me to ", "i'm going to "),
            _GO_ON,
        ),
    ),
    (
        "",
        " the answer",
        " my answer",
        " the response",
        " my response",
        " my previous answer",
        " my previous response",
        " the text",
        " with it",
    ),
)
_TO_GO_ON = (_each(("to ",), _GO_ON),)
_WHERE = (
    ("", " exactly", " right", " directly"),
    ("", " from", " at"),
    ("", " exactly", " right"),
    (" where", " the point where", " the exact point where", " the place where"),
    (
        " i",
        " we",
        " you",
        " it",
        " the text",
        " the answer",
        " my answer",
        " the response",
        " my response",
        " the previous response",
    ),
    (
        " left off",
        " had left off",
        " stopped",
        " had stopped",
        " was cut off",
        " were cut off",
        " got cut off",
        " broke off",
        " was interrupted",
    ),
)
_FROM = (
    (
        *(" from the last sentence", " from above", " from before", " from there"),
        *_each(
            (" from ",),
            ("", "the ", "my "),
            ("previous ", "last "),
            ("message", "response", "answer", "reply", "turn"),
        ),
    ),
)
_DOTS = (("...", "…", "……"), ("", " "))
_OPENED = (("", "**", "*", "_", "(", "[", "（", "【", "> ", "# ", "## ", "### "),)
_CLOSED = (
    ("", "**", "*", "_", ")", "]", "）", "】", ".", "!", "。"),
    ("", ":", "：", "...", "…", "……", " ..."),
    ("", "**", "*", "_", ")"),
)

_HAO = (
    (
        *(
            "",
            "当然",
            "当然可以",
            "好的",
            "好",
            "没问题",
            "可以",
            "明白",
            "明白了",
            "收到",
            "嗯",
            "是的",
            "抱歉",
            "对不起",
            "非常抱歉",
        ),
        *("很抱歉", "抱歉中断了", "不好意思"),
    ),
    ("", "，", ",", "。", "！", "!", "：", " "),
    ("", "\n", "\n\n"),
)
_AGREES_ZH = (_HAO[0][1:], *_HAO[1:])
# With a mark: without one, "you can go on" begins in the same way
_AGREES_FIRST_ZH = (_HAO[0][1:], _HAO[1][1:-1], _HAO[2])
_REST_ZH = (
    ("以下是", "下面是", "这是", "以下为", "下面为", "这里是"),
    (
        "",
        "我",
        "我的",
        "回答",
        "答案",
        "上文",
        "前文",
        "文本",
        "上一条回答",
        "之前回答",
        "刚才回答",
    ),
    ("", "的"),
    ("剩余", "剩下", "余下", "其余", "后续", "接续", "未完成", "未完", "后面", "续写"),
    ("", "的"),
    ("部分", "内容", "回答", "答案", "文本", "文字", "正文"),
)
_CONTINUATION_ZH = (
    _REST_ZH[0],
    ("", "我的"),
    ("剩余", "剩下", "余下", "接续", "续写"),
    ("", "的"),
    ("内容", "回答", "答案", "正文"),
)
_REST_OF_ANSWER_ZH = (
    _REST_ZH[0],
    ("回答", "我的回答", "答案", "上文", "上一条回答", "之前回答", "刚才回答"),
    *_REST_ZH[2:],
)
_CONTINUING_ZH = (
    ("", "我", "让我", "我来", "我们", "下面", "现在", "那么"),
    ("", "将", "会", "来"),
    ("接着", "接", "紧接", "紧接着", "承接", "继续", "从", "接着从", "继续从", "续"),
    (
        *(
            "上文",
            "前文",
            "上面",
            "前面",
            "刚才",
            "之前",
            "上次",
            "上一段",
            "中断处",
            "断开处",
            "上文中断处",
            "刚才中断处",
        ),
        *(
            "中断的地方",
            "断开的地方",
            "停下的地方",
            "刚才中断的地方",
            "刚才停下的地方",
            "上次中断的地方",
        ),
    ),
    ("", "的内容", "的回答", "的部分"),
    ("", "继续", "继续回答", "继续说", "继续写", "接着说", "接着写", "往下写", "往下说", "开始"),
)
_WHO_ZH = ("我", "让我", "我来", "下面", "现在", "那么我"), ("", "将", "会", "来")
_GO_ON_ZH = (
    *_WHO_ZH,
    ("继续", "接着"),
    ("回答", "说", "写", "作答", "往下写", "往下说", "刚才的回答", "之前的回答", "完成回答"),
)
_KEEP_ON_ZH = (
    ("", *_WHO_ZH[0]),
    _WHO_ZH[1],
    ("继续", "接着", "接着说", "续", "续上"),
)
_CONTINUED = (("continued", "continuation", "continuing", "续", "接上文"),)
_CONTINUED_APART = (
    _each(
        ("(", "[", "（", "【", "(...", "(…", "（…", "（……"),
        (*_CONTINUED[0], "cont.", "cont'd", "继续", "接续", "续上文", "上接"),
    ),
)

Row = tuple[Form, re.Pattern[str]]  # the words, and how they must end


def _rows(closes: re.Pattern[str], *forms: Form) -> tuple[Row, ...]:
    return tuple(((*_OPENED, *form, *_CLOSED), closes) for form in forms)


_MARKED = re.compile(r"(?:[:：…)\]）】]|\.\.\.)[*_)]{0,2}\n?\Z")
_BROKEN = re.compile(_MARKED.pattern + r"|\n\Z")
_STOPPED = re.compile(_BROKEN.pattern + r"|[.!。][*_)]{0,2}\Z")
_ALONE = re.compile(r"(?:[:：…)\]）】]|\.\.\.)[*_)]{0,2}\n\Z")

# These can be nothing but a preface
_CERTAIN = (
    *_rows(_BROKEN, (*_AGREES, *_REST, *_OF)),
    *_rows(_BROKEN, (*_YES, *_REST, *_OF, *_GOING_ON, *_WHERE)),
    *_rows(
        _MARKED, _CONTINUATION, (_HERE, (" ",), *_REST_OF_IT), _CONTINUATION_ZH, _REST_OF_ANSWER_ZH
    ),
    *_rows(
        _BROKEN,
        (*_AGREES, *_CONTINUING),
        (*_YES, *_CONTINUING, *_WHERE),
        (*_YES, *_CONTINUING, *_FROM),
    ),
    *_rows(_STOPPED, (*_AGREES, *_CONTINUING, *_WHERE), (*_AGREES, *_CONTINUING, *_FROM)),
    *_rows(_MARKED, (*_APOLOGIZES, *_TO_GO_ON), (*_YES, *_TO_GO_ON, *_WHERE)),
    *_rows(_BROKEN, (*_AGREES_ZH, *_REST_ZH), (*_HAO, *_CONTINUING_ZH), (*_AGREES_ZH, *_GO_ON_ZH)),
    *_rows(_STOPPED, (*_AGREES_FIRST_ZH, *_CONTINUING_ZH)),
    *_rows(_MARKED, (*_AGREES_FIRST_ZH, *_KEEP_ON_ZH)),
)
# "The state is over. Continued: 3": after a sentence only on a line of its own, or after dots
_BEHIND_A_SENTENCE = (
    *_rows(
        _MARKED,
        _REST_OF_IT,
        (*_DOTS, *_CONTINUED),
        (*_DOTS, *_CONTINUED_APART),
        (*_DOTS, *_CONTINUED, *_FROM),
        (*_DOTS, *_CONTINUING, *_WHERE),
    ),
    *_rows(_ALONE, _CONTINUED, _CONTINUED_APART, _CONTINUING, _GO_ON_ZH),
)
# "Here is the rest of the list:", "To continue:" may begin a sentence of the answer
_WITHIN_A_SENTENCE = (
    *_rows(_BROKEN, (*_REST, *_OF), _REST_ZH, _CONTINUED, _CONTINUING, _GO_ON_ZH),
    *_rows(_MARKED, _TO_GO_ON),
)
_WHERE_TEXT_IS: Mapping[Sentence, tuple[Row, ...]] = MappingProxyType(
    {
        "none": _CERTAIN,
        "over": (*_CERTAIN, *_BEHIND_A_SENTENCE),
        "open": (*_CERTAIN, *_BEHIND_A_SENTENCE, *_WITHIN_A_SENTENCE),
    }
)
_SPEAKS = re.compile(
    r"\b(?:rest|remain|remaining|remainder|continu\w+|cont|resum\w+|complet\w+|missing|full"
    r"|next|pick\w*|(?:go|going|carry\w*) on|proceed)\b"
    r"|[剩余续后接]|未完|中断|断开"
)
# White space that separates it; any more may belong to the answer
_BEHIND = re.compile(r"[ \t]*\n{1,2}(?:-{3,}\n{1,2})?|(?<![：。…）】]) |")
_SMALL = re.compile(r"(?!\.\.\.|…)[^\w(\[]*[a-z]")


def preface(text: str, *, sentence: Sentence, last: bool) -> int | None:
    """Return the length of the preface that `text` begins with, with the white space after it; None
    if more must be seen.

    `sentence`: how the shown text ends. `last`: nothing follows.
    """
    start = len(text) - len(text.lstrip())
    low = text.lower()
    if _SMALL.match(text, start) or len(low) != len(text):
        return 0
    found = 0
    for form, closes in _WHERE_TEXT_IS[sentence]:
        for end in _ends(low, start, form):
            if not last and (end is None or not low[end:].strip(" \n-")):
                return None
            if end is not None and _speaks_and_closes(low[start:end], low[end:], closes):
                found = max(found, end)
    behind = _BEHIND.match(text, found) if found else None
    return behind.end() if behind else 0


def _ends(text: str, start: int, form: Form) -> Iterator[int | None]:
    """Yield each place where `form` may end in `text`; None if the text ends before the
    form does.
    """
    at = {start}
    for slot in form:
        reached = set[int]()
        for n in at:
            for word in slot:
                if text.startswith(word, n):
                    reached.add(n + len(word))
                elif word.startswith(text[n:]):
                    yield None
        at = reached
    yield from at


def _speaks_and_closes(said: str, behind: str, closes: re.Pattern[str]) -> bool:
    line = said + "\n" if behind.lstrip(" \t").startswith("\n") else said
    return bool(_SPEAKS.search(said)) and bool(closes.search(line))
