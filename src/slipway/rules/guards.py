"""Tell questions apart that look alike and differ in what matters: a number, a negation, an
opposite, a name, or who does what to whom.

No similarity score does that reliably, so an intent answers only if none of these objects to the
example that is nearest to the question.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence, Set

from slipway.rules.normalising import has_han
from slipway.rules.numerals import number_of

_NEGATIONS = frozenset(
    ["not", "no", "never", "none", "nobody", "nothing", "without", "nor", "neither", "unable"]
)
_HAN_NEGATIONS = ("不", "没", "無", "无", "未", "别", "非")
_PAIRS = """
    on off | before after | up down | add remove | add delete | with without | new old | open close
    open closed | in out | into out | first last | enable disable | enabled disabled | more less
    same different | able unable | send receive | sent received | buy sell | min max
    minimum maximum | deposit withdraw | activate deactivate | lock unlock | locked unlocked
    accept decline | accepted declined | allow block | allowed blocked | always never
    physical virtual | debit credit | incoming outgoing | increase decrease | raise lower
    start stop | start end | begin end | import export | upload download | login logout
    top bottom | left right | inside outside | cheap expensive | early late | earlier later
    fast slow | high low | higher lower | big small | long short | good bad | easy hard
    public private | win lose | find lose | lend borrow | pay receive | push pull | true false
    above below | over under | most least | yes no | mine yours | i you | can cannot
    success failure | successful unsuccessful | correct incorrect | legal illegal | valid invalid
    possible impossible | international domestic | foreign domestic | another same | any specific
"""
_OPPOSITES = {
    frozenset(pair.split())
    for line in _PAIRS.strip().splitlines()
    for pair in line.split("|")
    if len(pair.split()) == 2
}
_OPPOSITE_OF = {
    word: {o for p in _OPPOSITES if word in p for o in p} for p in _OPPOSITES for word in p
}
_HAN_PAIRS = (
    "开关",
    "前后",
    "上下",
    "增减",
    "买卖",
    "进出",
    "新旧",
    "大小",
    "多少",
    "高低",
    "早晚",
    "加删",
    "存取",
)
# words that may differ without changing what is asked
_FUNCTION = """
    a an the this that these those my your our his her its their some any i me we us you it is am
    are was were be been being do does did have has had can could may might will would shall should
    must please just also so then now there here and or of to for in at by as about really very
    actually hi hello hey thanks ok okay what which how why when where who if get got getting need
    want like know tell help
"""
FUNCTION = frozenset(_FUNCTION.split())
DIRECTIONS = frozenset(["from", "to", "than", "before", "after", "by", "into", "between", "over"])
MOST_DIFFERENT = 2  # words on either side; more are another sentence, not a swap
LEAST_SHARED = 0.5
LEAST_KNOWN = 0.5  # share of a question's words that the examples of its intent must have
LEAST_WORDS = 2  # of those words
_SAME_STEM = 4  # letters that two forms of a word share at least

_CAPITAL = re.compile(r"(?<=[^\W\d_] )([A-Z][\w&]*|[A-Z]{2,})")
_WORD = re.compile(r"[^\W\d_]{2,}")
Words = Sequence[str]


class Names:
    """The names of things that the examples mention: words that are mostly written with a capital
    inside a sentence. A word that no example has may be one, too.
    """

    def __init__(self, texts: Sequence[str], words: Sequence[Words]) -> None:
        inside, seen = Counter[str](), Counter[str]()
        for text, each in zip(texts, words, strict=True):
            inside.update(capitals_in(text))
            seen.update(set(each))
        self._names = frozenset(w for w, n in inside.items() if 2 * n >= seen[w])
        self._known = frozenset(seen)

    def is_name(self, word: str) -> bool:
        return word in self._names or (word not in self._known and not word[0].isdigit())


def capitals_in(text: str) -> set[str]:
    """Return the words with a capital that do not begin the text, in lower case."""
    return {found.casefold() for found in _CAPITAL.findall(text)} - {"i"}


def objection(question: Words, examples: Sequence[Words], names: Names) -> str | None:
    """Return what makes the question another one than the examples that resemble it, or None.

    `examples` are of one intent, the nearest first.
    """
    for check in GUARDS:
        if (why := check(question, examples[0])) is not None:
            return why
    for number, example in enumerate(examples):
        most = MOST_DIFFERENT if number == 0 else 1
        if (why := swapped(question, example, names, most)) is not None:
            return why
    return None


def foreign(question: Words, known: Set[str]) -> str | None:
    """Object if most of what the question is about is in no example of the intent.

    `known` are the words of all of its examples.
    """
    about = [word for word in question if word not in FUNCTION]
    shared = sum(word in known for word in about)
    if shared < LEAST_KNOWN * len(about):
        return "most of its words are in none of the examples"
    if shared < LEAST_WORDS:
        return "it shares too few words with the examples"
    return None


def numbers(question: Words, example: Words) -> str | None:
    mine, theirs = numbers_in(question), numbers_in(example)
    if mine and mine != theirs:
        return "it has other numbers"
    return None


def numbers_in(words: Words) -> Counter[str]:
    found = Counter[str]()
    for word in words:
        if word[0].isdigit() or word[0] == "-":
            found[word] += 1
        elif word != "one" and (number := number_of(word)) is not None:
            found[str(number)] += 1
        else:
            found.update(c for c in word if c in "一二三四五六七八九十百千万" and has_han(word))
    return found


def negation(question: Words, example: Words) -> str | None:
    if negations_in(question) % 2 != negations_in(example) % 2:
        return "one of them is negated"
    return None


def negations_in(words: Words) -> int:
    return sum(
        (word in _NEGATIONS) + sum(word.count(sign) for sign in _HAN_NEGATIONS) for word in words
    )


def opposites(question: Words, example: Words) -> str | None:
    mine, theirs = Counter(question) - Counter(example), Counter(example) - Counter(question)
    for word in mine:
        if not _OPPOSITE_OF.get(word, frozenset()).isdisjoint(theirs):
            return f"`{word}` is the opposite of a word in the example"
    for pair in _HAN_PAIRS:
        one, other = pair[0], pair[1]
        text, known = "".join(question), "".join(example)
        if (one in text) != (one in known) and (other in text) != (other in known):
            return f"`{one}` and `{other}` are opposites"
    return None


def swapped(question: Words, example: Words, names: Names, most: int) -> str | None:
    """Object if they share their words but for at most so many on either side, of which one is a
    name or the opposite of another; of Chinese, where names have no capitals, whatever they are.
    """
    mine, theirs = Counter(question), Counter(example)
    shared = sum((mine & theirs).values())
    added, missing = content(mine - theirs), content(theirs - mine)
    for word in list(added):
        twin = next((other for other in missing if is_same_stem(word, other)), None)
        if twin is not None:
            added.remove(word)
            missing.remove(twin)
    if not added or not missing or shared < LEAST_SHARED * max(len(question), len(example)):
        return None
    matters = any(has_han(word) or names.is_name(word) for word in (*added, *missing)) or any(
        other in _OPPOSITE_OF.get(word, ()) for word in added for other in missing
    )
    if matters and len(added) <= most and len(missing) <= most:
        return f"it has `{added[0]}` where the example has `{missing[0]}`"
    return None


def content(words: Counter[str]) -> list[str]:
    return [word for word in words.elements() if word not in FUNCTION]


def is_same_stem(one: str, other: str) -> bool:
    """Return whether two words look like forms of one: `transfer`, `transferred`."""
    if has_han(one) or has_han(other):
        return False
    short, long = sorted((one, other), key=len)
    return len(short) >= _SAME_STEM and long.startswith(short[: max(_SAME_STEM, len(short) - 2)])


def order(question: Words, example: Words) -> str | None:
    """Object to the same words in another order if one of them gives a direction: `from A to B`
    and `from B to A`.
    """
    if not any(word in DIRECTIONS or has_han(word) for word in question):
        return None
    mine = [word for word in question if word not in FUNCTION or word in DIRECTIONS]
    theirs = [word for word in example if word not in FUNCTION or word in DIRECTIONS]
    if mine != theirs and Counter(mine) == Counter(theirs):
        return "its words are in another order"
    return None


GUARDS: tuple[Callable[[Words, Words], str | None], ...] = (
    numbers,
    negation,
    opposites,
    order,
)
