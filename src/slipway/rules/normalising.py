"""Write questions that mean the same alike: case, punctuation, width, spaces, contractions, and
courtesies at either end do not count.

Signs that carry meaning stay: `C++` is not `C`, `-5` is not `5`, `1.5` is not `15`.
"""

import re
import unicodedata

_QUOTES = str.maketrans({"\u2018": "'", "\u2019": "'", "\u02bc": "'", "`": "'", "\u2212": "-"})


def _characters(*categories: str) -> str:
    """Return the characters of these Unicode categories, as ranges of a regular expression."""
    found, start = list[str](), None
    for code in range(0x80, 0x1_1000):
        inside = unicodedata.category(chr(code)) in categories
        if inside and start is None:
            start = code
        elif not inside and start is not None:
            found.append(f"{chr(start)}-{chr(code - 1)}")
            start = None
    return "".join(found)


# Letters with the marks that belong to them: without its vowel signs, a Hindi word is another one
_WORD = rf"(?:[^\W\d_][{_characters('Mn', 'Mc', 'Me')}\u200c\u200d]*)+"
# numbers with their inner signs, words with inner apostrophes, and signs that carry meaning
_TOKEN = re.compile(
    r"(?:(?<!\w)-)?\d+(?:[.,:/-]\d+)*"
    rf"|{_WORD}(?:'{_WORD})*"
    rf"|[#%&@*/+=<>$°^|~{_characters('Sm', 'Sc')}]"
)
_THOUSANDS = re.compile(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?")
_HAN = re.compile(r"[\u3400-\u9fff]")
_BETWEEN_HAN = re.compile(r"(?<=[\u3400-\u9fff]) (?=[\u3400-\u9fff])")
_CHINESE_OPENING = re.compile(r"^(?:你好|您好|嗨|请问一下|请问|麻烦问一下|想问一下|问一下)+")
_CHINESE_CLOSING = re.compile(r"(?:谢谢你|谢谢您|谢谢|多谢)+$")
_OPENINGS = ("hi", "hello", "hey", "please", "excuse me", "good morning", "good afternoon")
_CLOSINGS = ("please", "thanks", "thank you", "many thanks", "thx")
_CONTRACTED = {
    "can't": "can not",
    "cannot": "can not",
    "won't": "will not",
    "shan't": "shall not",
    "let's": "let us",
    "what's": "what is",
    "where's": "where is",
    "who's": "who is",
    "how's": "how is",
    "when's": "when is",
    "it's": "it is",
    "that's": "that is",
    "there's": "there is",
    "here's": "here is",
}
_ENDINGS = {"n't": " not", "'re": " are", "'ve": " have", "'ll": " will", "'m": " am"}
# the same, written without the apostrophe, if that is no other word
_BARE = {
    word.replace("'", ""): word
    for word in (
        *("don't", "doesn't", "didn't", "isn't", "aren't", "wasn't", "weren't", "hasn't"),
        *("haven't", "hadn't", "couldn't", "wouldn't", "shouldn't", "can't", "won't", "what's"),
        *("where's", "that's", "i'm", "i've", "there's", "you're", "they're"),
    )
}


def has_han(text: str) -> bool:
    """Return whether a text has Chinese characters."""
    return bool(_HAN.search(text))


def in_one_width(text: str) -> str:
    """Return the text with full-width characters made normal, quotes alike, and single spaces."""
    return " ".join(unicodedata.normalize("NFKC", text).translate(_QUOTES).split())


def tokens_of(text: str) -> list[str]:
    """Return the words, numbers and meaningful signs of a question, in lower case."""
    found = list[str]()
    for token in _TOKEN.findall(in_one_width(text).casefold()):
        if token[0].isdigit() or token[0] == "-":
            found.append(token.replace(",", "") if _THOUSANDS.fullmatch(token) else token)
        else:
            found += expanded(token).split()
    return found


def expanded(word: str) -> str:
    """Return a contraction written out: `what's` as `what is`, `don't` as `do not`."""
    word = _BARE.get(word, word)
    if word in _CONTRACTED:
        return _CONTRACTED[word]
    for ending, full in _ENDINGS.items():
        if word.endswith(ending) and len(word) > len(ending):
            return word[: -len(ending)] + full
    return word


def normal_form(text: str) -> str:
    """Return what all variants of a question share. Empty for a text without words."""
    form = _BETWEEN_HAN.sub("", " ".join(tokens_of(text)))
    return without_courtesies(form) or form


def without_courtesies(form: str) -> str:
    """Return a normal form without `hello`, `please` or `谢谢` at its ends."""
    form = _CHINESE_CLOSING.sub("", _CHINESE_OPENING.sub("", form))
    before = None
    while before != form:
        before = form
        for word in _OPENINGS:
            form = form.removeprefix(f"{word} ")
        for word in _CLOSINGS:
            form = form.removesuffix(f" {word}")
    return form.strip()
