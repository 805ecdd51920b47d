"""Which files of the knowledge folders are read, under which path they are known, and why others
are not.
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


class Found(Record, frozen=True, kw_only=True):
    """`path` is what people see: relative to the knowledge folder, with `/`, unique. `refused` says
    why the file must not be read.

    `unreachable` is a folder that does not answer: nothing is known of what is in it. `home` is the
    path behind its folder's name, where there are several folders: it stays when `path` changes
    with what other folders hold. `stamp` and `size` tell one state of the file from another; they
    are 0 where they could not be had.
    """

    path: str
    file: str
    home: str = ""
    refused: str = ""
    stamp: int = 0
    size: int = 0
    unreachable: bool = False


def opened(file: str) -> int:
    """The file descriptor of a file by its real path. Raises OSError where a link has taken the
    place of the file or of a folder above.
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
    """A sentence for each source that cannot be knowledge."""
    return [problem for source in sources if (problem := _problem(source))]


def _problem(source: Path) -> str:
    kinds = ", ".join(READERS)
    if not source.exists():
        return f"{source} does not exist; name a folder or a file of documents with --docs."
    if not source.is_dir():
        return (
            ""
            if source.suffix.lower() in READERS
            else f"{source} is not a kind of document that can be read; the kinds are {kinds}."
        )
    refused = ""
    for found in _walk(source):
        if not found.refused:
            return ""
        if found.path == ".":
            return f"{source}: {found.refused}"
        refused = refused or f" ({found.path}: {found.refused})"
    return f"{source} has no {kinds} files; put documents there or name another folder with --docs.{refused}"


def find(sources: Sequence[Path], lost: Mapping[Path, Sequence[str]] | None = None) -> list[Found]:
    """In a stable order, each file once, however many ways lead to it. The same path under several
    sources gets the folder's name before it.

    Of the sources that are `lost` just now, the files that were known still count when names are
    given; they are not found.
    """
    lost = lost or {}
    known: dict[str, tuple[str, Found, bool]] = {}
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
    named: dict[str, Found | None] = {}
    for owner, found, here in known.values():
        path = next(
            each
            for each in _names(owner, found.path, alone=shared[found.path] == 1)
            if each not in named
        )
        home = f"{owner}/{found.path}" if len(sources) > 1 else ""
        named[path] = msgspec.structs.replace(found, path=path, home=home) if here else None
    return [found for found in named.values() if found is not None]


def _of(source: Path, folder: Path) -> Iterator[Found]:
    if source.is_dir():
        return _walk(source)
    return iter([_look(source, folder, source.name)])


def _known(file: str, folder: Path) -> Found:
    return Found(path=_shown(os.path.relpath(file, folder).replace(os.sep, "/")), file=file)


def _names(folder: str, path: str, *, alone: bool) -> Iterator[str]:
    if alone:
        yield path
    yield f"{folder}/{path}"
    number = 2
    while True:
        yield f"{folder}-{number}/{path}"
        number += 1


def _walk(root: Path) -> Iterator[Found]:
    """Names with a leading dot are skipped; a link is followed to a file inside the folder, and
    refused if it leads out. Links come after the files, so that a file is known by its own name.
    """
    inside, links, closed = root.resolve(), list[Found](), list[Found]()
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
                Found(
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
            # Ten times faster than a Path
            readable = os.path.splitext(entry.name)[1].lower() in READERS  # noqa: PTH122
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
    return Found(
        path=_shown(path), file=entry.path, refused=refused, stamp=stamp(stat), size=stat.st_size
    )


_GONE = "It is gone, or a link to nothing; mend or remove it."


def _look(file: Path, inside: Path, path: str) -> Found:
    try:
        real = file.resolve(strict=True)
        stat = real.stat()
    except (OSError, RuntimeError):  # RuntimeError: links in a circle, before Python 3.13
        return Found(path=_shown(path), file=str(file), refused=_GONE)
    if not real.is_relative_to(inside):
        return Found(
            path=_shown(path),
            file=str(file),
            refused="It is a link that leads out of the folder; copy the document into the folder.",
        )
    if not S_ISREG(stat.st_mode) and not S_ISDIR(stat.st_mode):
        return Found(
            path=_shown(path), file=str(file), refused="It is not a regular file; remove it."
        )
    return Found(path=_shown(path), file=str(real), stamp=stamp(stat), size=stat.st_size)


def _shown(path: str) -> str:
    return os.fsencode(path).decode(errors="replace")
