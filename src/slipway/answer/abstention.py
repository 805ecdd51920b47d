"""Recognise when a model says that the documents do not answer, and write what the reader sees
then.
"""

import re
from collections.abc import Sequence

from slipway.types import Source

SENTINEL = "NOT IN THE DOCUMENTS"  # prompt/documents.md asks for it
_ENGLISH = ("The documents do not say.", " Nearest pages: ", ", ", "{} ({})", ".")
_CHINESE = ("文档中没有说明。", "最相关的页面：", "、", "{}（{}）", "。")
_ONLY_RULES = {
    True: "这个问题没有现成的答案。",
    False: "There is no prepared answer to this question.",
}
_NEAREST = 3

# The sentinel, its Chinese variants, and our own sentences, which the model may have read in the
# conversation
_SENTINELS = (
    *(SENTINEL.lower(), SENTINEL.lower().removesuffix("s"), "the documents do not say"),
    *(
        f"{noun}中{verb}"
        for noun in ("文档", "文件", "资料", "文檔")
        for verb in ("没有", "没有答案", "没有说明", "没有提到", "未提及", "沒有")
    ),
    *("不在文档中", "不在文檔中"),
)
_SIGNS = re.compile(r"[\s*_#>\"'“”‘’「『【\[(（`~-]{0,12}")  # may come before it
_CLOSING = " \t*_\"'”’」』】])）`"
_STOPS = (".", "。", "!", "！", ":", "：", ",", "，", ";", "；", "—", "–", "\n")
_HAN, _OTHER_EAST = re.compile(r"[\u4e00-\u9fff]"), re.compile(r"[\u3040-\u30ff\uac00-\ud7af]")


class AbstentionDetector:
    """Hold back the beginning of a model's text while it may become the sentinel: mostly until the
    first word.

    Once the model has written it, `abstained` is true and all that follows is dropped. Later in an
    answer it is ordinary text.
    """

    def __init__(self, *, listens: bool = True) -> None:
        self.abstained = False
        self._held: str | None = "" if listens else None

    def feed(self, text: str) -> str:
        """Take the next piece; return what can be shown."""
        if self._held is None:
            return "" if self.abstained else text
        self._held += text
        return "" if _may_become(self._held) else self.end()

    def end(self) -> str:
        """Return what was held back; no more text follows."""
        text, self._held = self._held or "", None
        self.abstained = self.abstained or _is_sentinel(text)
        return "" if self.abstained else text


def abstention_text(question: str, sources: Sequence[Source], *, only_rules: bool = False) -> str:
    """Return the answer if there is none: a sentence and the nearest pages; in Chinese if the
    question is, else in English. `only_rules` if the app has neither documents nor a model.
    """
    chinese = bool(_HAN.search(question)) and not _OTHER_EAST.search(question)
    if only_rules:
        return _ONLY_RULES[chinese]
    sentence, nearest, comma, page, stop = _CHINESE if chinese else _ENGLISH
    pages = list(dict.fromkeys(page.format(source.heading, source.path) for source in sources))[
        :_NEAREST
    ]
    return f"{sentence}{nearest}{comma.join(pages)}{stop}" if pages else sentence


def _may_become(text: str) -> bool:
    core = _core(text)
    return any(
        said.startswith(core) or (core.startswith(said) and not core[len(said) :].strip(_CLOSING))
        for said in _SENTINELS
    )


def _is_sentinel(text: str) -> bool:
    """Tell whether the text is the sentinel: in capitals before any sign, otherwise only as a whole
    sentence or line.
    """
    core = _core(text)
    if (
        _SIGNS.sub("", text, count=1).startswith(SENTINEL)
        and not core[len(SENTINEL) : len(SENTINEL) + 1].isalnum()
    ):
        return True
    rests = [core[len(said) :].lstrip(_CLOSING) for said in _SENTINELS if core.startswith(said)]
    return any(not rest or rest.startswith(_STOPS) for rest in rests)


def _core(text: str) -> str:
    return _SIGNS.sub("", text, count=1).lower()
