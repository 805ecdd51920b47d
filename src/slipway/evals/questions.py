"""Read questions whose answers are known from a JSONL file."""

import codecs
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from slipway.errors import SettingsError
from slipway.knowledge.fusion import PlaceKey
from slipway.types import Record


class Gold(Record, frozen=True, kw_only=True):
    """A place that answers: a page, by its path or the last part of it; anywhere on the page if no
    heading is named.
    """

    page: str
    heading: str | None = None

    def is_at(self, place: PlaceKey) -> bool:
        path, heading, *_ = place
        return (path == self.page or path.endswith(f"/{self.page}")) and self.heading in (
            None,
            heading,
        )


class GoldQuestion(Record, frozen=True, kw_only=True):
    """A question whose answer is known. `answer` is a right answer in free words, or empty. An
    `unanswerable` question has no gold, since the documents do not answer it.
    """

    id: str
    question: str
    gold: tuple[Gold, ...]
    answer: str = ""
    unanswerable: bool = False


def questions_in(file: Path, places: Sequence[PlaceKey] | None = None) -> list[GoldQuestion]:
    """Read the questions of a JSONL file. Raises SettingsError that names each bad line and its
    field, and gold that is not among `places`, if they are given.
    """
    problems, found, lines = list[str](), list[GoldQuestion](), dict[str, int]()
    for number, line in _numbered(file):
        try:
            question = _parsed(line, number)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            problems.append(f"{file}:{number}: {_field(str(error))}")
            continue
        problems += [f"{file}:{number}: {problem}" for problem in _problems(question, places)]
        if (before := lines.setdefault(question.id, number)) != number:
            problems.append(
                f"{file}:{number}: id: `{question.id}` is already used in line {before}; "
                "give each question its own id, or leave ids out"
            )
        found.append(question)
    if not found and not problems:
        problems.append(
            f"{file}: there are no questions in it; a line is "
            '{"question": "…", "gold": [{"page": "…", "heading": "…"}]}'
        )
    if problems:
        raise SettingsError(problems)
    return found


class _Line(msgspec.Struct):
    question: str
    gold: list[Gold] = []
    answer: str = ""
    unanswerable: bool = False
    id: str | int | None = None


def _parsed(line: bytes, number: int) -> GoldQuestion:
    read_ = msgspec.json.decode(line, type=_Line)
    return GoldQuestion(
        id=str(read_.id if read_.id is not None else number),
        question=read_.question,
        gold=tuple(read_.gold),
        answer=read_.answer,
        unanswerable=read_.unanswerable,
    )


def _numbered(file: Path) -> Iterator[tuple[int, bytes]]:
    try:
        lines = file.read_bytes().removeprefix(codecs.BOM_UTF8).splitlines()
    except OSError as error:
        raise SettingsError(
            [f"--questions: {file} cannot be read: {(error.strerror or str(error)).lower()}"]
        ) from None
    return ((number, line) for number, line in enumerate(lines, 1) if line.strip())


def _field(error: str) -> str:
    """Put the field first in msgspec's sentence: "Expected `str`, got `int` - at `$.gold[0].page`"
    -> "gold[0].page: expected …".
    """
    what, _, where = error.partition(" - at `$")
    what = what[:1].lower() + what[1:] if what[1:2].islower() else what
    return f"{where.strip('.`')}: {what}" if where.strip(".`") else what


def _problems(question: GoldQuestion, places: Sequence[PlaceKey] | None) -> Iterator[str]:
    if not question.question.strip():
        yield "question: it is empty"
    if not question.gold and not question.unanswerable:
        yield (
            "gold: it names no place; name the places that answer the question, "
            'or write `"unanswerable": true`'
        )
    if question.gold and question.unanswerable:
        yield "unanswerable: it has gold places too; leave out one of them"
    for number, gold in enumerate(question.gold):
        if places is not None and not any(gold.is_at(place) for place in places):
            on_page = any(Gold(page=gold.page).is_at(place) for place in places)
            field, what = (
                ("heading", f"`{gold.heading}` is no heading of {gold.page}")
                if on_page
                else ("page", f"`{gold.page}` is not there")
            )
            yield f"gold[{number}].{field}: {what}"
