"""Decode the bytes of text files: the declared encoding if there is one, else UTF-8, else a
detected one.

What is declared is believed: a byte order mark (the Unicode standard, 23.8), an HTML `meta` or XML
declaration (the WHATWG Encoding standard names the labels). Else chardet guesses among the
encodings of today's web. A guess whose text is not plausible (control characters, private use) is
refused, since wrong characters are worse than an error.
"""

import codecs
import contextlib
import re
import unicodedata
from collections.abc import Mapping, Sequence

from slipway.knowledge.readers.document import Loss, UnreadableFile
from slipway.types import Record

_SAMPLE = 200_000  # bytes that the detection reads
_FEW_DAMAGED = 1000  # at most one damaged character in so many is replaced
_SURE = 0.1  # chardet's confidence below which plain Western text is preferred
_SAVE = "save it as UTF-8"

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
# labels whose real meaning is a larger set of characters (WHATWG Encoding, 4.2)
_LARGER: Mapping[str, str] = {
    "ascii": "cp1252",
    "iso8859-1": "cp1252",
    "iso8859-9": "cp1254",
    "iso8859-11": "cp874",
    "tis-620": "cp874",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "shift_jis": "cp932",
    "euc_kr": "cp949",
    "big5": "big5hkscs",
}
_WESTERN = frozenset("äöüÄÖÜßéèêëÉÈàâÀçÇîïôûùœŒæÆñÑáíóúÁÍÓÚåÅøØãõ¿¡£€§°±µ–—‘’“”„…«»·•©®™½¼¾×\u00a0")
_DECLARED = re.compile(
    rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([\w.:-]{2,40})"
    rb"|<\?xml[^>]{0,100}?encoding\s*=\s*[\"']([\w.:-]{2,40})",
    re.IGNORECASE,
)
_DECLARED_WITHIN = 4096  # bytes
_UTF16_WITHIN, _LEAST_UTF16 = 4096, 4  # bytes, characters
_ISO_2022 = re.compile(rb"\x1b\$[@B]|\x1b\(J")
# joined letters, such as `ﬁ`, and Arabic letters by their place in the word, as PDF files have
_FORMS = re.compile("[\ufb00-\ufb06\ufb50-\ufdff\ufe70-\ufefc]+")
_INVISIBLE = re.compile("[\u00ad\u200b\u2060\ufeff\u180e]")


class Decoded(Record, frozen=True, kw_only=True):
    """`text` has line ends as `\\n`, composed accents (NFC), and no invisible characters."""

    text: str
    losses: tuple[Loss, ...] = ()


def decoded(data: bytes, *, markup: bool = False) -> Decoded:
    """Decode a text file; `markup` also believes the declarations of HTML and XML.

    Raises UnreadableFile if it is not text, or its encoding cannot be determined.
    """
    text, losses = _decoded(data, markup)
    if "\0" in text:
        raise UnreadableFile(
            "It is not text (it has zero bytes)", "export it as Markdown, HTML or text"
        )
    return Decoded(text=cleaned(text.replace("\r\n", "\n").replace("\r", "\n")), losses=losses)


def cleaned(text: str) -> str:
    """Compose accents (NFC), split joined letters and drop invisible characters, so that words are
    found as people type them. Joiners stay: they change words of Persian and Indian scripts, and
    emoji.
    """
    if text.isascii():
        return text
    text = _FORMS.sub(lambda found: unicodedata.normalize("NFKC", found[0]), text)
    return unicodedata.normalize("NFC", _INVISIBLE.sub("", text))


def _decoded(data: bytes, markup: bool) -> tuple[str, tuple[Loss, ...]]:
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return _replaced(data[len(mark) :], encoding)
    if markup and (encoding := _declared(data)):
        with contextlib.suppress(UnreadableFile):  # the declaration is wrong
            return _replaced(data, encoding)
    if _ISO_2022.search(data[:_SAMPLE]):
        return _replaced(data, "iso2022_jp_ext")
    if encoding := _utf16(data):
        return _replaced(data, encoding)
    try:
        return data.decode(), ()
    except UnicodeDecodeError:
        pass
    if text := _mostly_utf8(data):
        return text
    return _guessed(data), ()


def _declared(data: bytes) -> str:
    """Return the encoding that the markup declares; empty if none, or if it is unknown."""
    found = _DECLARED.search(data[:_DECLARED_WITHIN])
    if found is None:
        return ""
    return _known((found[1] or found[2]).decode("ascii", "ignore"))


def _known(label: str) -> str:
    try:
        name = codecs.lookup(label).name
    except LookupError:
        return ""
    if name.startswith("utf-16"):  # the declaration itself was readable as ASCII (HTML, 12.2.3.2)
        return "utf-8"
    return _LARGER.get(name, name) if codecs.lookup(label)._is_text_encoding else ""


def _replaced(data: bytes, encoding: str) -> tuple[str, tuple[Loss, ...]]:
    """Decode, with U+FFFD for damaged characters, which are reported as lost.

    Raises UnreadableFile if too many are damaged.
    """
    try:
        return data.decode(encoding), ()
    except UnicodeDecodeError as error:
        text = data.decode(encoding, "replace")
        damaged = text.count("\ufffd")
        if damaged * _FEW_DAMAGED > len(text) and damaged > 1:
            raise UnreadableFile(
                f"It is not whole {encoding.upper()} text (byte {error.start} does not fit)",
                _SAVE,
            ) from None
        return text, (_damaged(damaged),)


def _damaged(count: int) -> Loss:
    what = "1 character is" if count == 1 else f"{count} characters are"
    return Loss(what=f"{what} damaged in the file", fix="repair them, and save it as UTF-8")


def _utf16(data: bytes) -> str:
    """Recognise UTF-16 without byte order mark by the zero bytes of its ASCII characters."""
    sample = data[:_UTF16_WITHIN]
    half = len(sample) // 2
    if half < _LEAST_UTF16 or len(data) % 2:
        return ""
    if sample[1::2].count(0) > 0.3 * half and sample[::2].count(0) < 0.05 * half:
        return "utf-16-le"
    if sample[::2].count(0) > 0.3 * half and sample[1::2].count(0) < 0.05 * half:
        return "utf-16-be"
    return ""


def _mostly_utf8(data: bytes) -> tuple[str, tuple[Loss, ...]] | None:
    """Decode UTF-8 with a few damaged bytes; None if it is something else."""
    text = data.decode("utf-8", "replace")
    damaged = text.count("\ufffd")
    valid = sum(character > "\x7f" for character in text) - damaged
    if damaged * _FEW_DAMAGED > len(text) or valid < 10 * damaged:
        return None
    return text, (_damaged(damaged),)


def _guessed(data: bytes) -> str:
    """Raises UnreadableFile if no encoding gives plausible text."""
    import chardet  # loads its model in 0.1 s, and is needed for few files

    sample = data[:_SAMPLE]
    guess = chardet.detect(sample, encoding_era=chardet.EncodingEra.MODERN_WEB)
    first = _known(guess["encoding"] or "")
    western = guess["confidence"] < _SURE and _is_western(sample)
    for encoding in dict.fromkeys(["cp1252", first] if western else [first, "cp1252"]):
        try:
            text = data.decode(encoding) if encoding else ""
        except UnicodeDecodeError:
            continue
        if text and _is_plausible(text):
            return text
    raise UnreadableFile("Its encoding could not be determined", _SAVE)


def _is_western(sample: bytes) -> bool:
    """Return whether Windows-1252 gives only letters and signs of Western languages."""
    text = sample.decode("cp1252", "replace")
    return all(character < "\x7f" or character in _WESTERN for character in text)


def _is_plausible(text: str) -> bool:
    """Return whether text has hardly any control, private or unassigned characters, and no
    symbols inside words, as wrongly decoded text has.
    """
    strange: Sequence[str] = [
        character
        for character in text
        if character not in "\t\n\r\f"
        and (character < " " or character > "\x7e")
        and unicodedata.category(character) in ("Cc", "Co", "Cn")
    ]
    odd_words = len(_SYMBOLS_IN_WORD.findall(text))
    foreign = sum(character > "\x7f" for character in text)
    return len(strange) * 200 <= len(text) and odd_words * 4 <= foreign


_SYMBOLS_IN_WORD = re.compile(r"(?<=[^\W\d_])[¤¦¨¬¯²³¶¸¹º¼½¾¿¡×÷»«±](?=[^\W\d_])")
