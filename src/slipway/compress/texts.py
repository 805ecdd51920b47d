"""Text to measure and to distil on: documents, their split, and proof that the two never share
text.

Text is compared by runs of thirteen words (GPT-3's contamination check, Brown et al. 2020). Two
documents share text if more than a fifth of the shorter one's runs are in the other: one run alone
may be a form of words ("which of the following is the most likely cause of this"). A text of 8 to
12 words, such as a question, shares text with one that has it whole. A split never parts such
documents: people copy, and passages repeat.
"""

import hashlib
import json
import random
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from slipway.compress.refusals import refused

FEWEST_WORDS = 4_000  # below this, a model learns the text by heart
_RUN = 13  # words
_SHORTEST = 8  # words of a text that is shorter than a run; below it, others say the same by chance
_MUCH = 0.2  # of the shorter document's runs
_FORM = 200  # documents; what more of them say is a form of words
_TEST_SHARE = 0.1
_FEWEST_DOCUMENTS = 10

# written without spaces: each character counts as a word (Thai, Lao, Khmer, Japanese, Chinese)
_LETTERS = r"\u0e00-\u0eff\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\U00020000-\U0003ffff"
_WORD = re.compile(rf"[{_LETTERS}]|[^\W_{_LETTERS}]+")
_UNSEEN = re.compile(r"[\u00ad\u200b-\u200f\u2060\ufeff]")

Run = tuple[str, ...]

_KINDS = (".txt", ".md", ".jsonl")
_FIELDS = ("text", "question", "answer", "prompt", "completion")


def documents_in(path: Path, flag: str) -> list[str]:
    """The documents of a file or folder. A line of JSONL is one, and so is a file of a folder; a
    text file alone is split at lines of `---`, or at blank lines if it has none.

    Raises SettingsError, which begins with `flag`.
    """
    if not path.exists():
        raise refused(f"{flag}: there is no file or folder {path}")
    files = sorted(f for f in path.rglob("*") if f.is_file()) if path.is_dir() else [path]
    files = [file for file in files if file.suffix.lower() in _KINDS]
    if not files:
        raise refused(f"{flag}: {path} has no text; give .txt, .md or .jsonl files")
    found = [text for file in files for text in _read(file, flag, alone=not path.is_dir())]
    return [text for text in found if text.strip()]


def _read(file: Path, flag: str, *, alone: bool) -> Iterator[str]:
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise refused(f"{flag}: {file} is not UTF-8 text; save it as that") from None
    except OSError as error:
        raise refused(f"{flag}: {file} cannot be read: {error.strerror}") from None
    if file.suffix.lower() == ".jsonl":
        yield from _rows(file, text, flag)
    elif not alone:
        yield text
    else:
        yield from re.split(r"\n---+\n" if re.search(r"\n---+\n", text) else r"\n\s*\n", text)


def _rows(file: Path, text: str, flag: str) -> Iterator[str]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise refused(f"{flag}: {file}:{number} is not JSON ({error.msg})") from None
        parts = [str(row[f]) for f in _FIELDS if row.get(f)] if isinstance(row, dict) else []
        if not parts:
            known = ", ".join(f"`{each}`" for each in _FIELDS)
            raise refused(f"{flag}: {file}:{number} has no text; give a field of {known}")
        yield "\n".join(parts)


def digest_of(path: Path) -> str:
    """The sha256 of a file, or of all files in a folder, at any depth, and their names."""
    whole = hashlib.sha256()
    files = sorted(f for f in path.rglob("*") if f.is_file()) if path.is_dir() else [path]
    for file in files:
        with file.open("rb") as opened:
            content = hashlib.file_digest(opened, "sha256").hexdigest()
        whole.update(f"{file.relative_to(path)} {content}\n".encode())
    return whole.hexdigest()


def check_enough(documents: Sequence[str], flag: str) -> None:
    words = sum(len(words_of(text)) for text in documents)
    if words < FEWEST_WORDS or len(documents) < _FEWEST_DOCUMENTS:
        raise refused(
            f"{flag}: {len(documents)} documents with {words:,} words are too little to learn "
            f"from; give at least {_FEWEST_DOCUMENTS} documents and {FEWEST_WORDS:,} words"
        )


def words_of(text: str) -> list[str]:
    """Its words, whatever their case, their form in Unicode, and what stands between them."""
    plain = unicodedata.normalize("NFKC", _UNSEEN.sub("", text)).casefold()
    return _WORD.findall(plain)


def runs_of(text: str) -> set[Run]:
    """Every thirteen words in a row; a shorter text is one run."""
    words = words_of(text)
    return set(_rows_of(words, min(_RUN, len(words)))) if words else set()


def _rows_of(words: Sequence[str], length: int) -> Iterator[Run]:
    return (tuple(words[n : n + length]) for n in range(len(words) - length + 1))


def _whole_in(short: Sequence[str], texts: Sequence[str]) -> Iterator[tuple[int, int, Run]]:
    """Which of the short texts are found whole in which texts: both numbers, and the words."""
    wanted = defaultdict[int, dict[Run, list[int]]](dict)
    for number, text in enumerate(short):
        words = words_of(text)
        if _SHORTEST <= len(words) < _RUN:
            wanted[len(words)].setdefault(tuple(words), []).append(number)
    for other, text in enumerate(texts if wanted else ()):
        words = words_of(text)
        for length, known in wanted.items():
            for run in known.keys() & set(_rows_of(words, length)):
                yield from ((number, other, run) for number in known[run])


def shared(training: Sequence[str], test: Iterable[str]) -> list[tuple[int, str]]:
    """Which training documents share text with the test, each with the words that they share."""
    test = list(test)
    held = [runs_of(text) for text in test]
    index = _index(held)
    found = {number: " ".join(run) for _, number, run in _whole_in(test, training)}
    found |= {number: " ".join(run) for number, _, run in _whole_in(training, test)}
    for number, text in enumerate(training):
        mine = runs_of(text)
        common = Counter(other for run in mine for other in index.get(run, ()))
        for other, count in common.most_common():
            if count > _MUCH * min(len(mine), len(held[other])):
                found[number] = " ".join(min(mine & held[other]))
                break
    return sorted(found.items())


def _index(runs: Sequence[set[Run]]) -> dict[Run, list[int]]:
    """The numbers of the documents that each run is in; forms of words are left out."""
    index = defaultdict[Run, list[int]](list)
    for number, mine in enumerate(runs):
        for run in mine:
            index[run].append(number)
    return {run: numbers for run, numbers in index.items() if len(numbers) <= _FORM}


def refuse_shared(training: Sequence[str], test: Iterable[str], flag: str) -> None:
    """Raise SettingsError if training text is in the test: the result would prove nothing."""
    if found := shared(training, test):
        number, words = found[0]
        raise refused(
            f"{flag}: {len(found)} of {len(training)} training documents share text with the "
            f"test, the first is document {number + 1} (“{words}”); take them out of "
            f"one of the two, or leave {flag} out and let Slipway split the text"
        )


def split(
    documents: Sequence[str], flag: str = "--distil", seed: int = 0
) -> tuple[list[str], list[str]]:
    """Training and test documents, about nine to one. Documents that share text stay together."""
    groups = _groups(documents)
    random.Random(seed).shuffle(groups)  # noqa: S311
    wanted = _TEST_SHARE * sum(len(text) for text in documents)
    test, size = list[int](), 0
    for group in groups:
        length = sum(len(documents[n]) for n in group)
        if size + length <= 1.5 * wanted and size < wanted:
            test += group
            size += length
    if not test:
        raise refused(
            f"{flag}: its documents all share text, so none can be kept for the test; "
            "name other text to test on with --test"
        )
    held = set(test)
    return [d for n, d in enumerate(documents) if n not in held], [documents[n] for n in test]


def _groups(documents: Sequence[str]) -> list[list[int]]:
    """Numbers of documents that share text, directly or through others."""
    parent = list(range(len(documents)))

    def root(number: int) -> int:
        while parent[number] != number:
            parent[number] = parent[parent[number]]
            number = parent[number]
        return number

    runs = [runs_of(text) for text in documents]
    index = _index(runs)
    for number, mine in enumerate(runs):
        common = Counter(other for run in mine for other in index.get(run, ()) if other < number)
        for other, count in common.items():
            if count > _MUCH * min(len(mine), len(runs[other])):
                parent[root(number)] = root(other)
    for number, other, _ in _whole_in(documents, documents):
        parent[root(number)] = root(other)
    found = defaultdict[int, list[int]](list)
    for number in range(len(documents)):
        found[root(number)].append(number)
    return list(found.values())


def windows(documents: Iterable[Sequence[int]], length: int, most: int) -> list[list[int]]:
    """Pieces of equal length from all tokens in a row, at most so many, spread over the whole."""
    row = [token for document in documents for token in document]
    found = [row[n : n + length] for n in range(0, len(row) - length + 1, length)]
    if len(found) <= most:
        return found
    return [found[n * len(found) // most] for n in range(most)]
