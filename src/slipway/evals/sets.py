"""Read evaluation sets from JSONL or CSV: those that come with Slipway, and the operator's own."""

import codecs
import csv
import gzip
import io
import json
import lzma
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import msgspec

from slipway.errors import SettingsError
from slipway.evals.items import EvalSet, Item, Style
from slipway.evals.questions import Gold
from slipway.evals.scoring import SCORERS, tokens
from slipway.types import Record

FOLDER = Path(".slipway") / "evals" / "sets"  # the operator's own sets, by their names
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


# Packed sets


class Packed(Record, frozen=True, kw_only=True):
    """A set that comes with Slipway: items of these files whose first tag is among `tags`, or all
    of them.
    """

    title: str
    files: tuple[str, ...]
    scorer: str
    style: Style
    source: str
    licence: str = "MIT"
    tags: tuple[str, ...] = ()
    max_tokens: int = 1024


_MMLU, _GSM8K = "https://github.com/hendrycks/test", "https://github.com/openai/grade-school-math"
PACKED: dict[str, Packed] = {
    "bbh": Packed(
        title="BIG-Bench Hard: 27 tasks that need reasoning",
        files=("bbh",),
        scorer="reference",
        style="reason",
        source="https://github.com/suzgunmirac/BIG-Bench-Hard",
    ),
    "mmlu": Packed(
        title="MMLU: knowledge of 57 subjects, the test items",
        files=("mmlu",),
        scorer="letter",
        style="direct",
        source=_MMLU,
        max_tokens=64,
    ),
    "gsm8k": Packed(
        title="GSM8K: word problems for school children",
        files=("gsm8k",),
        scorer="number",
        style="reason",
        source=_GSM8K,
    ),
    "law": Packed(
        title="Law: the items of MMLU's three law subjects",
        files=("mmlu",),
        scorer="letter",
        style="direct",
        source=_MMLU,
        tags=("professional_law", "international_law", "jurisprudence"),
        max_tokens=64,
    ),
    "medicine": Packed(
        title="Medicine: the items of MMLU's six medical subjects",
        files=("mmlu",),
        scorer="letter",
        style="direct",
        source=_MMLU,
        tags=(
            "professional_medicine",
            "clinical_knowledge",
            "college_medicine",
            "medical_genetics",
            "anatomy",
            "virology",
        ),
        max_tokens=64,
    ),
    "maths": Packed(
        title="Mathematics: GSM8K and the items of MMLU's five subjects",
        files=("gsm8k", "mmlu"),
        scorer="reference",
        style="reason",
        source=f"{_GSM8K}, {_MMLU}",
        tags=(
            "gsm8k",
            "abstract_algebra",
            "college_mathematics",
            "elementary_mathematics",
            "high_school_mathematics",
            "high_school_statistics",
        ),
    ),
}


def packed(name: str) -> EvalSet:
    row = PACKED[name]
    items = tuple(
        item
        for file in row.files
        for item in _unpacked(file)
        if not row.tags or item.tags[0] in row.tags
    )
    return EvalSet(
        name=name,
        items=items,
        scorer=row.scorer,
        style=row.style,
        max_tokens=row.max_tokens,
        title=row.title,
        source=row.source,
        licence=row.licence,
        examples=_examples(),
    )


@lru_cache(maxsize=2)
def _unpacked(file: str) -> tuple[Item, ...]:
    data = lzma.decompress((files("slipway.evals") / "packed" / f"{file}.jsonl.xz").read_bytes())
    return tuple(msgspec.json.decode(line, type=Item) for line in data.splitlines())


@lru_cache(maxsize=1)
def _examples() -> Mapping[str, str]:
    data = lzma.decompress((files("slipway.evals") / "packed" / "examples.json.xz").read_bytes())
    return msgspec.json.decode(data, type=dict[str, str])


# The operator's


def named(name: str, scorer: str | None = None) -> EvalSet:
    """Return the set of that name, or in that file. Raises SettingsError."""
    if name in PACKED:
        return packed(name)
    kept = FOLDER / f"{name}.jsonl"
    if _NAME.fullmatch(name) and kept.exists():
        return read(kept, name=name, scorer=scorer)
    if Path(name).exists():
        return read(Path(name), scorer=scorer)
    own = sorted(file.stem for file in FOLDER.glob("*.jsonl"))
    raise SettingsError(
        [
            (
                f"--set: there is no set or file `{name}`; packed: {', '.join(PACKED)}; your own: "
                f"{', '.join(own) or 'none'}"
            )
        ]
    )


def listed() -> Iterator[EvalSet]:
    """Return the packed sets, then the operator's."""
    yield from map(packed, PACKED)
    for file in sorted(FOLDER.glob("*.jsonl")):
        yield read(file, name=file.stem)


def add(found: EvalSet, name: str) -> Path:
    """Keep a set under this name. Raises SettingsError."""
    if name in PACKED or not _NAME.fullmatch(name):
        raise SettingsError(
            [
                (
                    f"--name: `{name}` is taken by a packed set, or is no name: use letters, "
                    "digits, `.`, `_` and `-`"
                )
            ]
        )
    file = FOLDER / f"{name}.jsonl"
    try:
        FOLDER.mkdir(parents=True, exist_ok=True)
        file.write_bytes(written(found))
    except OSError as error:
        raise SettingsError(
            [f"{file} cannot be written: {(error.strerror or str(error)).lower()}"]
        ) from None
    return file


def written(found: EvalSet) -> bytes:
    """Return a set as JSONL: a first line that says how it is scored, then an item on each."""
    head = {
        "set": {
            "scorer": found.scorer,
            "style": found.style,
            "max_tokens": found.max_tokens,
            "title": found.title,
        }
    }
    lines = [json.dumps(head, ensure_ascii=False).encode(), *map(msgspec.json.encode, found.items)]
    return b"\n".join(lines) + b"\n"


class _Head(msgspec.Struct, forbid_unknown_fields=True):
    scorer: str | None = None
    style: Style | None = None
    max_tokens: int | None = None
    title: str = ""


# Reading


def read(file: Path, *, name: str | None = None, scorer: str | None = None) -> EvalSet:
    """Return a set from JSONL or CSV, packed by gzip or not. Raises SettingsError that names each
    line and field that cannot be used.
    """
    rows = list(_rows(file))
    head = _head(file, rows[0][1]) if rows and set(rows[0][1]) == {"set"} else _Head()
    rows = [row for row in rows if set(row[1]) != {"set"}]
    problems, items, seen = list[str](), list[Item](), dict[str, int]()
    for number, row in rows:
        try:
            item = _item(row, number)
        except ValueError as error:
            problems.append(f"{file}:{number}: {error}")
            continue
        if (before := seen.setdefault(item.id, number)) != number:
            problems.append(
                f"{file}:{number}: id: `{item.id}` is already used in line {before}; give each "
                "item its own id, or leave ids out"
            )
        items.append(item)
    if not items and not problems:
        problems.append(
            f'{file}: there are no items in it; a line is {{"question": "…", "reference": "…"}}'
        )
    scorer = scorer or head.scorer or (_likely(items) if items else "exact")
    if scorer not in SCORERS:
        problems.append(f"{file}: scorer: there is no `{scorer}`; known: {', '.join(SCORERS)}")
    elif not problems:
        problems += list(_unusable(file, items, scorer))
    if problems:
        raise SettingsError(
            problems[:20]
            + ([f"… and {len(problems) - 20} more lines"] if len(problems) > 20 else [])
        )
    return EvalSet(
        name=name or file.name.split(".")[0],
        items=tuple(items),
        scorer=scorer,
        style=head.style or ("reason" if scorer in ("number", "reference") else "direct"),
        max_tokens=head.max_tokens or 1024,
        title=head.title or str(file.name),
        source=str(file),
    )


def _head(file: Path, row: Mapping[str, Any]) -> _Head:
    try:
        return msgspec.convert(row["set"], _Head)
    except msgspec.ValidationError as error:
        raise SettingsError([f"{file}:1: set: {str(error).lower()}"]) from None


def _rows(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        data = file.read_bytes()
        data = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
        text = data.removeprefix(codecs.BOM_UTF8).decode()
    except OSError as error:
        raise SettingsError(
            [f"--set: {file} cannot be read: {(error.strerror or str(error)).lower()}"]
        ) from None
    except UnicodeDecodeError:
        raise SettingsError([f"--set: {file} is not UTF-8 text; save it as UTF-8"]) from None
    if file.name.removesuffix(".gz").endswith(".csv"):
        reader = csv.DictReader(io.StringIO(text))
        yield from (
            (reader.line_num, {key: value for key, value in row.items() if key and value})
            for row in reader
        )
        return
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                row = msgspec.json.decode(line.encode())
            except msgspec.DecodeError as error:
                raise SettingsError([f"{file}:{number}: this is no JSON: {error}"]) from None
            if not isinstance(row, dict):
                raise SettingsError([f"{file}:{number}: this is no JSON object"])
            yield number, row


def _first(row: Mapping[str, Any], *names: str) -> Any:
    """Return the first of these fields that there is: published sets call the same thing by
    different names.
    """
    return next((row[name] for name in names if row.get(name) not in (None, "", [], {})), None)


def _item(row: Mapping[str, Any], number: int) -> Item:
    """Return the item of a row. Raises ValueError that names the field."""
    question = _first(row, "question", "input", "prompt")
    if not isinstance(question, str):
        message = "question: it is missing; it must be a text"
        raise ValueError(message)  # noqa: TRY004 - one kind of mistake
    if passage := _first(row, "passage", "context"):
        question = f"{passage}\n\n{question}"
    choices = _choices(row)
    reference = _reference(
        _first(row, "reference", "answer_idx", "label", "target", "answer"), choices
    )
    tags = _first(row, "tags", "subject", "task", "category") or ()
    try:
        gold = msgspec.convert(row.get("gold") or (), tuple[Gold, ...])
    except msgspec.ValidationError as error:
        raise ValueError(f"gold: {error}") from None
    return Item(
        id=str(
            _first(row, "id", "realidx") if _first(row, "id", "realidx") is not None else number
        ),
        question=question.strip(),
        reference=reference,
        choices=choices,
        tags=tuple(re.split(r"\s*[;|]\s*", tags))
        if isinstance(tags, str)
        else tuple(map(str, tags)),
        cluster=str(row["cluster"])
        if row.get("cluster")
        else (str(passage)[:200] if passage else None),
        gold=gold,
    )


def _choices(row: Mapping[str, Any]) -> tuple[str, ...]:
    found = _first(row, "choices", "options")
    if found is None and row.get("A") and row.get("B"):  # a CSV with a column for each
        found = [row[each] for each in _LETTERS if row.get(each)]
    if isinstance(found, str):
        found = re.split(r"\s*\|\s*", found)
    if isinstance(found, dict):
        found = [found[key] for key in sorted(found)]
    texts = [re.sub(r"^\(?[A-Z]\)\s*", "", str(each).strip()) for each in found or ()]
    if len(texts) == 1 or len(texts) > len(_LETTERS):
        raise ValueError(
            f"choices: there are {len(texts)}; give 2 to {len(_LETTERS)}, as a list, or separated "
            "by `|`"
        )
    return tuple(texts)


def _reference(found: Any, choices: tuple[str, ...]) -> str:
    if isinstance(found, bool) or not isinstance(found, str | int | float | None):
        raise ValueError("reference: it must be a text or a number")  # noqa: TRY004
    text = "" if found is None else str(found).strip()
    if "\n####" in text:  # GSM8K: the working, then the number
        text = text.rsplit("####", 1)[1].strip().replace(",", "")
    if not choices:
        return text
    letter = text.strip("() .")
    if len(letter) == 1 and letter.upper() in _LETTERS[: len(choices)]:
        return letter.upper()
    same = [i for i, choice in enumerate(choices) if choice.casefold() == text.casefold()]
    if len(same) != 1:
        raise ValueError(
            f"reference: `{text}` is neither a letter up to {_LETTERS[len(choices) - 1]} nor one "
            "of the choices"
        )
    return _LETTERS[same[0]]


def _likely(items: Iterable[Item]) -> str:
    """Return the scorer that a file without one probably means."""
    items = list(items)
    if all(item.choices for item in items):
        return "letter"
    if all(item.gold and not item.reference for item in items):
        return "cited"
    if any(item.choices for item in items):
        return "reference"
    if all(re.fullmatch(r"[-−]?[$€£]?[\d.,/]+%?", item.reference) for item in items):
        return "number"
    return "contains" if all(len(tokens(item.reference)) <= 5 for item in items) else "f1"


def _unusable(file: Path, items: Iterable[Item], scorer: str) -> Iterator[str]:
    needs: dict[str, tuple[Callable[[Item], object], str]] = {
        "letter": (
            lambda item: item.choices and item.reference,
            "choices: scorer `letter` needs choices and a reference",
        ),
        "cited": (
            lambda item: item.gold,
            'gold: scorer `cited` needs places: [{"page": "…", "heading": "…"}]',
        ),
        "word": (
            lambda item: item.choices and item.reference,
            "choices: scorer `word` needs the words to choose from",
        ),
    }
    fits, sentence = needs.get(
        scorer,
        (lambda item: item.reference, f"reference: it is empty, and scorer `{scorer}` needs one"),
    )
    yield from (f"{file}: item {item.id}: {sentence}" for item in items if not fits(item))
