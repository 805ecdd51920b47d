"""Which files of the knowledge folders are read, under which path they are known, and why others are not."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from slipway.knowledge.readers import READERS
from slipway.types import Record


class Found(Record, frozen=True, kw_only=True):
    """`path` is what people see: relative to the knowledge folder, with `/`, unique. `refused` says why the file must not be read."""

    path: str
    file: Path
    refused: str = ""


def problems(sources: Sequence[Path]) -> list[str]:
    """A sentence for each source that cannot be knowledge."""
    return [problem for source in sources if (problem := _problem(source))]


def _problem(source: Path) -> str:
    kinds = ", ".join(READERS)
    if not source.exists():
        return f"{source} does not exist; name a folder or a file of documents with --docs."
    if not source.is_dir():
        return "" if source.suffix.lower() in READERS else f"{source} is not a kind of document that can be read; the kinds are {kinds}."
    refused = ""
    for found in _walk(source):
        if not found.refused:
            return ""
        refused = refused or f" ({found.path}: {found.refused})"
    return f"{source} has no {kinds} files; put documents there or name another folder with --docs.{refused}"


def find(sources: Sequence[Path]) -> list[Found]:
    """In a stable order, each file once, however many ways lead to it. The same path under several sources gets the folder's name before it."""
    known: dict[Path, tuple[str, Found]] = {}
    for source in sources:
        folder = source if source.is_dir() else source.parent
        for found in _walk(source) if source.is_dir() else [_look(source, source.resolve().parent, source.name)]:
            known.setdefault(found.file, (folder.resolve().name, found))
    shared = Counter(found.path for _, found in known.values())
    named: dict[str, Found] = {}
    for owner, found in known.values():
        path = next(each for each in _names(owner, found.path, alone=shared[found.path] == 1) if each not in named)
        named[path] = Found(path=path, file=found.file, refused=found.refused)
    return list(named.values())


def _names(folder: str, path: str, *, alone: bool) -> Iterator[str]:
    if alone:
        yield path
    yield f"{folder}/{path}"
    number = 2
    while True:
        yield f"{folder}-{number}/{path}"
        number += 1


def _walk(root: Path) -> Iterator[Found]:
    """Names with a leading dot are skipped; a link is followed to a file inside the folder, and refused if it leads out."""
    inside, links, closed = root.resolve(), list[Found](), list[OSError]()
    for folder, folders, names in os.walk(root, onerror=closed.append):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        linked = [name for name in folders if (Path(folder) / name).is_symlink()]
        documents = [name for name in names if not name.startswith(".") and Path(name).suffix.lower() in READERS]
        for name in sorted([*linked, *documents]):
            file = Path(folder) / name
            found = _look(file, inside, file.relative_to(root).as_posix())
            if file.is_symlink():
                links.append(found)  # after the files, so that a file is known by its own name
            else:
                yield found
    yield from (link for link in links if link.refused or link.file.is_file())
    for error in closed:
        path = Path(error.filename).relative_to(root).as_posix()
        yield Found(
            path=_shown(path), file=Path(error.filename), refused=f"It cannot be opened ({error.strerror}); let the server's user read it."
        )


def _look(file: Path, inside: Path, path: str) -> Found:
    try:
        real = file.resolve(strict=True)
    except (OSError, RuntimeError):  # RuntimeError: links in a circle, before Python 3.13
        return Found(path=_shown(path), file=file, refused="It is gone, or a link to nothing; mend or remove it.")
    if not real.is_relative_to(inside):
        return Found(path=_shown(path), file=file, refused="It is a link that leads out of the folder; copy the document into the folder.")
    if not real.is_file() and not real.is_dir():
        return Found(path=_shown(path), file=file, refused="It is not a regular file; remove it.")
    return Found(path=_shown(path), file=real)


def _shown(path: str) -> str:
    return os.fsencode(path).decode(errors="replace")
