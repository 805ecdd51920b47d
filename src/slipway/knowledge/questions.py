"""Find the words of a question that say what it is about, in any language."""

import re

from slipway.knowledge.languages import language_of, without_small_words

# Chinese words that have a sign of `_ASKING` in them, and are asked about
_WHOLE = (
    "请假|请求|申请|邀请|请客|费用|用户|应用|用途|专用|通用|用量|作用|利用|引用|调用|可用|启用|禁用|停用|信用|用品|用法|用户名|"
    "功能|性能|智能|技能|能力|能量|能源|节能|可能性|会议|会员|社会|机会|工会|委员会|年会|会计|重要|主要|要求|摘要|概要|要素|要点|"
    "对象|对比|对应|应对|对话|对接|核对|了解|目的|标的|所有|有效|有限|有关|拥有|私有|公有|国有|在线|存在|在职|和解|共和|总和|"
    "给予|供给|被动|把握|就业|成就|或者|都市|还款|归还|还原|偿还|使用者|使用权|使用率|与会|参与|赠与|我国|自我|哪吒"
)
# What only asks, in languages without spaces between words. Longer words first
_ASKING = re.compile(
    f"(?P<whole>{_WHOLE})|"
    "多长时间|什么时候|的时候|时候|什么地方|有没有|是不是|能不能|可不可以|会不会|要不要|为什么|怎么样|怎么办|哪一个|"
    "(?:多少|几)(?:天|个|次|年|月|周|元|块|钱|人|台|条|项|种|小时|分钟)?|什么|怎么|怎样|如何|哪些|哪个|哪里|哪儿|多久|多长|多大|"
    "是否|能否|可否|请问|请|可以|能够|需要|应该|应当|必须|告诉|说明一下|一下|一起|我们|你们|您|我|你|"
    "吗|呢|吧|啊|的|了|是|有|在|会|能|要|用|把|被|给|对|和|与|及|或|也|都|还|就|谁|哪|设为|使用|进行|"
    # Japanese
    "どうやって|どのように|どうすれば|なんですか|何ですか|ですか|ますか|でしょうか|ください|どこ|いつ|どれ|どの|なぜ|"
    "しますか|します|しました|されます|どう|いくら|いくつ|とは|から|まで|には|では|です|ます|する|した|して|できる|は|が|を|に|で|と|も|の|か|へ|"
    # Korean
    "어떻게|무엇입니까|무엇인가요|무엇|얼마나|얼마|언제|어디|왜|누가|입니까|인가요|하나요|합니까|할 수 있나요|있나요|습니까"
)
_UNSPACED = re.compile(r"[\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff]")
# "How long does it last?" asks for a time, not for what is long or lasts
_MEASURED = re.compile(
    r"\bhow (?:long|much|many|often|far|big|large|soon|fast)\b|\b(?:last|lasts|take|takes|cost|costs)(?=\s*[?.!]*\s*$)"
    r"|\bwie ?viele? (?:tage|stunden|wochen|monate|jahre)\b|\bcu[aá]nt[oa]s (?:d[ií]as|horas|semanas|meses|a[nñ]os) de\b"
    r"|\bcombien de (?:jours|heures|semaines|mois|ans) de\b",
    re.IGNORECASE,
)
_NUMBER_ASKED = re.compile(
    r"\bhow many\b|\bhow much (?:money|does|is|are|do)\b.*\b(?:cost|pay|price|fee|charge)|"
    r"\bwhat (?:is|are|does|do|did|will)\b.*\b(?:cost|price|fee)s?(?=\s*[?.!]*\s*$|\s+(?:of|for|per|in)\b)|多少(?:钱|元|块|美元|个|人|天)|几(?:个|天|人|块)"
    r"|\bwie ?viele?\b|\bwas kostet|\bcu[aá]nt[oa]s?\b|いくら|いくつ|何(?:日|人|個|円)|얼마|몇",
    re.IGNORECASE,
)
_NUMBER = re.compile(
    r"\d|[一二两三四五六七八九十百千万半零无免]|\b(?:one|two|three|four|five|six|seven|eight|nine|ten|eleven"
    r"|twelve|dozens?|hundreds?|thousands?|millions?|half|both|none|no|zero|single|unlimited|free"
    r"|eine?r?|zwei|drei|vier|fünf|kein\w*|kostenlos|uno?|una|dos|tres|gratis)\b|하나|없",
    re.IGNORECASE,
)
_FIRST = re.compile(r"(?:^|[.?!:]\s+)[\W_]*\w+")
_NAME = re.compile(r"[A-Z][\w+#.-]*\w|\b\w+[A-Z]\w*\b")
_LATIN = re.compile(r"[A-Za-z][\w+#.-]*\w")
_NO_NAMES = frozenset(["i", "i'm", "i've", "i'd", "ok", "faq", "id"])


def _kept(found: re.Match[str]) -> str:
    return found["whole"] or " "


def asked_about(question: str) -> str:
    """Return the question with a space in place of words that only ask, and of how much is asked."""
    text = _MEASURED.sub(" ", question)
    return (
        _ASKING.sub(_kept, text)
        if _UNSPACED.search(text)
        else without_small_words(text, language_of(question))
    )


def names_in(question: str) -> list[str]:
    """Return the names that the question is about: capitalised words that do not begin a sentence,
    and Latin words in a text without spaces between words.
    """
    if _UNSPACED.search(question):
        found = _LATIN.findall(question)
    else:
        found = _NAME.findall(_FIRST.sub(lambda first: " " * len(first[0]), question))
        first = (each.split()[-1].strip("\"'([") for each in _FIRST.findall(question))
        found += [word for word in first if len(word) > 1 and word.isupper()]
    return [name for name in found if name.casefold() not in _NO_NAMES]


def asks_number(question: str) -> bool:
    """Tell whether the question asks for a number: how many, or what something costs."""
    return bool(_NUMBER_ASKED.search(question))


def has_number(text: str) -> bool:
    """Tell whether a text has a number, in figures or words."""
    return bool(_NUMBER.search(text))
