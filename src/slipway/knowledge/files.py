"""Which files of the knowledge folders are read, under which path they are known, and why others are not."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from stat import S_ISDIR, S_ISREG

import msgspec

from slipway.knowledge.readers import READERS
from slipway.types import Record


class Found(Record, frozen=True, kw_only=True):
    """`path` is what people see: relative to the knowledge folder, with `/`, unique. `refused` says why the file must not be read.

    `mtime_ns` and `size` are 0 where they could not be had.
    """

    path: str
    file: str
    refused: str = ""
    mtime_ns: int = 0
    size: int = 0


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
    known: dict[str, tuple[str, Found]] = {}
    for source in sources:
        folder = source if source.is_dir() else source.parent
        for found in _walk(source) if source.is_dir() else [_look(source, source.resolve().parent, source.name)]:
            known.setdefault(found.file, (folder.resolve().name, found))
    shared = Counter(found.path for _, found in known.values())
    named: dict[str, Found] = {}
    for owner, found in known.values():
        path = next(each for each in _names(owner, found.path, alone=shared[found.path] == 1) if each not in named)
        named[path] = found if path == found.path else msgspec.structs.replace(found, path=path)
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
    """Names with a leading dot are skipped; a link is followed to a file inside the folder, and refused if it leads out. Links come after
    the files, so that a file is known by its own name.
    """
    inside, links, closed = root.resolve(), list[Found](), list[Found]()
    folders = [""]
    while folders:
        above = folders.pop()
        try:
            with os.scandir(inside / above) as entries:
                found = sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
        except OSError as error:
            closed.append(
                Found(
                    path=_shown(above) or ".",
                    file=str(inside / above),
                    refused=f"It cannot be opened ({error.strerror}); let the server's user read it.",
                )
            )
            continue
        below = [entry for entry in found if entry.is_dir(follow_symlinks=False)]
        folders += [f"{above}{entry.name}/" for entry in reversed(below)]
        for entry in found:
            readable = os.path.splitext(entry.name)[1].lower() in READERS  # noqa: PTH122 - ten times faster than a Path
            if entry.is_symlink() and (readable or entry.is_dir()):
                links.append(_look(Path(entry.path), inside, above + entry.name))
            elif readable and entry not in below:
                yield _seen(entry, above + entry.name)
    yield from (link for link in links if link.refused or Path(link.file).is_file())
    yield from closed


def _seen(entry: os.DirEntry[str], path: str) -> Found:
    try:
        stat = entry.stat(follow_symlinks=False)
    except OSError:
        return Found(path=_shown(path), file=entry.path, refused=_GONE)
    refused = "" if S_ISREG(stat.st_mode) else "It is not a regular file; remove it."
    return Found(path=_shown(path), file=entry.path, refused=refused, mtime_ns=stat.st_mtime_ns, size=stat.st_size)


_GONE = "It is gone, or a link to nothing; mend or remove it."


def _look(file: Path, inside: Path, path: str) -> Found:
    try:
        real = file.resolve(strict=True)
        stat = real.stat()
    except (OSError, RuntimeError):  # RuntimeError: links in a circle, before Python 3.13
        return Found(path=_shown(path), file=str(file), refused=_GONE)
    if not real.is_relative_to(inside):
        return Found(
            path=_shown(path), file=str(file), refused="It is a link that leads out of the folder; copy the document into the folder."
        )
    if not S_ISREG(stat.st_mode) and not S_ISDIR(stat.st_mode):
        return Found(path=_shown(path), file=str(file), refused="It is not a regular file; remove it.")
    return Found(path=_shown(path), file=str(real), mtime_ns=stat.st_mtime_ns, size=stat.st_size)


def _shown(path: str) -> str:
    return os.fsencode(path).decode(errors="replace")
