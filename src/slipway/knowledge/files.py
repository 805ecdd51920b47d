"""Find the files of the knowledge folders: which are read, under which path, and why others are
not.
"""

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from stat import S_ISDIR, S_ISREG

import msgspec

from slipway.knowledge.freshness import is_gone, stamp
from slipway.knowledge.readers import READERS
from slipway.types import Record


class FoundFile(Record, frozen=True, kw_only=True):
    """A file of a knowledge folder.

    `path` is what people see: unique, relative to the knowledge folder, with `/`. `home` is the
    folder's name and the path in it if there are several folders; unlike `path`, it doesn't depend
    on what the other folders hold. `refused` says why the file must not be read. `unreachable`
    marks a folder that does not answer, so that its contents are unknown. `stamp` and `size`
    identify a state of the file; they are 0 if unknown.
    """

    path: str
    file: str
    home: str = ""
    refused: str = ""
    stamp: int = 0
    size: int = 0
    unreachable: bool = False


def opened(file: str) -> int:
    """Open a file by its real path and return the descriptor. Raises OSError if a link has
    replaced the file or a folder above it.
    """
    flags = (
        os.O_RDONLY
        | getattr(os, "O_NOFOLLOW", 0)
        | getattr(os, "O_NONBLOCK", 0)
        | getattr(os, "O_CLOEXEC", 0)
    )
    if os.open not in os.supports_dir_fd:
        return os.open(file, flags)
    top, *names = Path(file).parts
    *above, name = names
    folder = os.open(top, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for each in above:
            inner = os.open(
                each,
                getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC,
                dir_fd=folder,
            )
            os.close(folder)
            folder = inner
        return os.open(name, flags, dir_fd=folder)
    finally:
        os.close(folder)


def problems(sources: Sequence[Path]) -> list[str]:
    """Return one sentence for each source that has no readable document."""
    return [problem for source in sources if (problem := _problem(source))]


def _problem(source: Path) -> str:
    kinds = ", ".join(READERS)
    if not source.exists():
        return f"{source} does not exist; name a folder or a file of documents with --docs."
    if not source.is_dir():
        return (
            ""
            if source.suffix.lower() in READERS
            else f"{source} is not a kind of document that Slipway reads; it reads {kinds}."
        )
    refused = ""
    for found in _walk(source):
        if not found.refused:
            return ""
        if found.path == ".":
            return f"{source}: {found.refused}"
        refused = refused or f" ({found.path}: {found.refused})"
    return f"{source} has no {kinds} files; put documents there or name another folder with --docs.{refused}"


def find(
    sources: Sequence[Path], lost: Mapping[Path, Sequence[str]] | None = None
) -> list[FoundFile]:
    """List the files in a stable order, each file once even if several links lead to it. If
    several sources have the same path, the folder's name is put before it.

    `lost` maps sources that cannot be reached now to the files known from them. Those files keep
    their names reserved, but are not returned.
    """
    lost = lost or {}
    known: dict[str, tuple[str, FoundFile, bool]] = {}
    for source in sources:
        real = source.resolve()
        here, single = (
            source not in lost,
            real.is_file() or list(lost.get(source, ())) == [str(real)],
        )
        folder = real.parent if single else real
        for found in (
            _of(source, folder) if here else (_known(file, folder) for file in lost[source])
        ):
            known.setdefault(found.file, (folder.name, found, here))
    shared = Counter(found.path for _, found, _ in known.values())
    named: dict[str, FoundFile | None] = {}
    for owner, found, here in known.values():
        path = next(
            each
            for each in _names(owner, found.path, alone=shared[found.path] == 1)
            if each not in named
        )
        home = f"{owner}/{found.path}" if len(sources) > 1 else ""
        named[path] = msgspec.structs.replace(found, path=path, home=home) if here else None
    return [found for found in named.values() if found is not None]


def _of(source: Path, folder: Path) -> Iterator[FoundFile]:
    if source.is_dir():
        return _walk(source)
    return iter([_inspect(source, folder, source.name)])


def _known(file: str, folder: Path) -> FoundFile:
    return FoundFile(path=_shown(os.path.relpath(file, folder).replace(os.sep, "/")), file=file)


def _names(folder: str, path: str, *, alone: bool) -> Iterator[str]:
    if alone:
        yield path
    yield f"{folder}/{path}"
    number = 2
    while True:
        yield f"{folder}-{number}/{path}"
        number += 1


def _walk(root: Path) -> Iterator[FoundFile]:
    """Yield the files of a folder. Skip names with a leading dot; follow links inside the folder
    and refuse those that lead out. Links come last, so that a file is known by its own name.
    """
    inside, links, closed = root.resolve(), list[FoundFile](), list[FoundFile]()
    folders = [""]
    while folders:
        above = folders.pop()
        try:
            with os.scandir(inside / above) as entries:
                found = sorted(
                    (entry for entry in entries if not entry.name.startswith(".")),
                    key=lambda entry: entry.name,
                )
        except OSError as error:
            closed.append(
                FoundFile(
                    path=_shown(above) or ".",
                    file=str(inside / above),
                    refused=f"It cannot be opened ({error.strerror}); let the server's user read it.",
                    unreachable=not is_gone(error),
                )
            )
            continue
        below = [entry for entry in found if entry.is_dir(follow_symlinks=False)]
        folders += [f"{above}{entry.name}/" for entry in reversed(below)]
        for entry in found:
            # os.path is ten times faster than a Path here
            readable = os.path.splitext(entry.name)[1].lower() in READERS  # noqa: PTH122
            if entry.is_symlink() and (readable or entry.is_dir()):
                links.append(_inspect(Path(entry.path), inside, above + entry.name))
            elif readable and entry not in below:
                yield _seen(entry, above + entry.name)
    yield from (link for link in links if link.refused or Path(link.file).is_file())
    yield from closed


def _seen(entry: os.DirEntry[str], path: str) -> FoundFile:
    try:
        stat = entry.stat(follow_symlinks=False)
    except OSError:
        return FoundFile(path=_shown(path), file=entry.path, refused=_GONE)
    refused = "" if S_ISREG(stat.st_mode) else "It is not a regular file; remove it."
    return FoundFile(
        path=_shown(path), file=entry.path, refused=refused, stamp=stamp(stat), size=stat.st_size
    )


_GONE = "It is gone, or a link to a file that does not exist; fix or remove it."


def _inspect(file: Path, inside: Path, path: str) -> FoundFile:
    try:
        real = file.resolve(strict=True)
        stat = real.stat()
    except (OSError, RuntimeError):  # RuntimeError: links in a circle, before Python 3.13
        return FoundFile(path=_shown(path), file=str(file), refused=_GONE)
    if not real.is_relative_to(inside):
        return FoundFile(
            path=_shown(path),
            file=str(file),
            refused="It is a link that leads out of the folder; copy the document into the folder.",
        )
    if not S_ISREG(stat.st_mode) and not S_ISDIR(stat.st_mode):
        return FoundFile(
            path=_shown(path), file=str(file), refused="It is not a regular file; remove it."
        )
    return FoundFile(path=_shown(path), file=str(real), stamp=stamp(stat), size=stat.st_size)


def _shown(path: str) -> str:
    return os.fsencode(path).decode(errors="replace")
