"""What models say before they go on with an answer that broke off: "Sure, here is the rest:", "好的，接着上文：".

A closed grammar: each form is a row of slots, each slot the words that may stand there. It knows of a text that is not whole yet whether
it may still become a preface, so that nothing else is held back. A preface begins with a capital letter, speaks of going on, and closes
with a colon, an ellipsis, a bracket or the end of its line: "Continuing from where it stopped, the server sends" is none.
"""

import re
from collections.abc import Iterator

Slot = tuple[str, ...]
Form = tuple[Slot, ...]

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
        *("no problem", "sorry", "sorry about that", "my apologies", "apologies", "thank you", "thanks"),
        *("sorry for the interruption", "apologies for the interruption", "i apologize for the interruption"),
    ),
    ("", ",", "!", ".", ":", " -", " –", " —"),
    ("", " ", "\n", "\n\n"),
)
_AGREES = (_YES[0][1:], *_YES[1:])
_REST = (
    ("here is", "here's", "here are", "below is", "this is", "the following is"),
    (" the", " my", " your"),
    ("", " remaining", " missing", " next", " continued", " complete", " full"),
    (" rest", " remainder", " continuation", " completion", " part", " portion", " text", " answer", " response", " content", " message"),
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
_GOING_ON = ("", ",", " -", " –", " —"), ("", " continuing", " resuming", " picking up", " starting")
_CONTINUING = (
    (
        *("continuing", "resuming", "picking up", "carrying on", "now continuing", "i'm continuing", "i am continuing"),
        *("i'll continue", "i will continue", "let me continue", "let's continue", "allow me to continue", "i'll go on", "let me go on"),
        *("i'll resume", "i will resume", "let me resume", "i'll pick up", "i will pick up", "let me pick up", "let's pick up"),
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
_WHERE = (
    ("", " exactly", " right", " directly"),
    ("", " from", " at"),
    ("", " exactly", " right"),
    (" where", " the point where", " the exact point where", " the place where"),
    (" i", " we", " you", " it", " the text", " the answer", " my answer", " the response", " my response", " the previous response"),
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
_FROM = ((" from the last sentence", " from the previous message", " from my last message", " from above", " from before", " from there"),)
_OPENED = (("", "**", "*", "_", "(", "[", "（", "【", "> ", "# ", "## ", "### "),)
_CLOSED = (("", "**", "*", "_", ")", "]", "）", "】", ".", "!", "。"), ("", ":", "：", "...", "…", "……", " ..."), ("", "**", "*", "_", ")"))

_HAO = (
    (
        *("", "当然", "当然可以", "好的", "好", "没问题", "可以", "明白", "明白了", "收到", "嗯", "是的", "抱歉", "对不起", "非常抱歉"),
        *("很抱歉", "抱歉中断了", "不好意思"),
    ),
    ("", "，", ",", "。", "！", "!", "：", " "),
    ("", "\n", "\n\n"),
)
_AGREES_ZH = (_HAO[0][1:], *_HAO[1:])
_REST_ZH = (
    ("以下是", "下面是", "这是", "以下为", "下面为", "这里是"),
    ("", "我", "我的", "回答", "答案", "上文", "前文", "文本", "上一条回答", "之前回答", "刚才回答"),
    ("", "的"),
    ("剩余", "剩下", "余下", "其余", "后续", "接续", "未完成", "未完", "后面", "续写"),
    ("", "的"),
    ("部分", "内容", "回答", "答案", "文本", "文字", "正文"),
)
_CONTINUING_ZH = (
    ("", "我", "让我", "我来", "我们", "下面", "现在", "那么"),
    ("", "将", "会", "来"),
    ("接着", "接", "紧接", "紧接着", "承接", "继续", "从", "接着从", "继续从", "续"),
    (
        *("上文", "前文", "上面", "前面", "刚才", "之前", "上次", "上一段", "中断处", "断开处", "上文中断处", "刚才中断处"),
        *("中断的地方", "断开的地方", "停下的地方", "刚才中断的地方", "刚才停下的地方", "上次中断的地方"),
    ),
    ("", "的内容", "的回答", "的部分"),
    ("", "继续", "继续回答", "继续说", "继续写", "接着说", "接着写", "往下写", "往下说", "开始"),
)
_GO_ON_ZH = (
    ("我", "让我", "我来", "下面", "现在", "那么我"),
    ("", "将", "会", "来"),
    ("继续", "接着"),
    ("回答", "说", "写", "作答", "往下写", "往下说", "刚才的回答", "之前的回答", "完成回答"),
)
_CONTINUED = (("continued", "continuation", "continuing", "续", "接上文"),)

# Said where an answer may as well go on so ("Here is the rest of the list:"): a preface only where a sentence is open
_DOUBTFUL: tuple[Form, ...] = (
    (*_REST, *_OF),
    _REST_ZH,
    _CONTINUED,
    _CONTINUING,
    _GO_ON_ZH,
)
_CERTAIN: tuple[Form, ...] = (
    (*_AGREES, *_REST, *_OF),
    (*_YES, *_REST, *_OF, *_GOING_ON, *_WHERE),
    (*_AGREES, *_CONTINUING),
    (*_YES, *_CONTINUING, *_WHERE),
    (*_YES, *_CONTINUING, *_FROM),
    (*_AGREES_ZH, *_REST_ZH),
    (*_HAO, *_CONTINUING_ZH),
    (*_AGREES_ZH, *_GO_ON_ZH),
)
_SPEAKS = re.compile(
    r"\b(?:rest|remain|remaining|remainder|continu\w+|resum\w+|complet\w+|missing|full|next|pick\w*|go on)\b|[剩余续后接]|未完|中断|断开"
)
_CLOSES = re.compile(r"(?:[:：…)\]）】]|\.\.\.)[*_)]{0,2}\Z")
# White space that sets it apart; more of it may belong to the answer
_BEHIND = re.compile(r"[ \t]*\n{1,2}(?:-{3,}\n{1,2})?|(?<![：…）】]) |")
_SMALL = re.compile(r"[^\w(\[]*[a-z]")


def preface(text: str, *, sentence_open: bool, last: bool) -> int | None:
    """How many characters of a preface `text` begins with, the white space that sets it apart among them; None where more must be seen.

    `sentence_open`: what was shown stops within a sentence. `last`: nothing follows.
    """
    start = len(text) - len(text.lstrip())
    low = text.lower()
    if _SMALL.match(text, start) or len(low) != len(text):
        return 0
    found = 0
    for form in (*_CERTAIN, *_DOUBTFUL) if sentence_open else _CERTAIN:
        for end in _ends(low, start, (*_OPENED, *form, *_CLOSED)):
            if not last and (end is None or not low[end:].strip(" \n-")):
                return None
            if end is not None and _speaks_and_closes(low[start:end], low[end:]):
                found = max(found, end)
    behind = _BEHIND.match(text, found) if found else None
    return behind.end() if behind else 0


def _ends(text: str, start: int, form: Form) -> Iterator[int | None]:
    """Where `form` may end in `text`; None where the text ends before it does."""
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


def _speaks_and_closes(said: str, behind: str) -> bool:
    return bool(_SPEAKS.search(said)) and bool(_CLOSES.search(said) or behind.lstrip(" \t").startswith("\n"))
