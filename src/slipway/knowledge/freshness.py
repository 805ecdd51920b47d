"""Decide whether the stored text of a file is still current. Stamp and size identify a state of the
file; the version identifies its content.
"""

import os

from slipway.knowledge.document_store import Doc

FORMAT = 4  # raise it when readers change what they return: every file is then read again
UNSETTLED = -1  # a stamp that no file has: the file is read again at the next scan
# If a file changed less than this before it was read, it may change again with the same time stamp
_SETTLED_NS = 50_000_000
_SETTLED_COARSE_NS = 2_500_000_000  # if the file system keeps whole seconds, or every second one


def stamp(stat: os.stat_result) -> int:
    """Return a number that changes when the file changes.

    The modification time alone is not enough: programs may set it back, as reproducible builds do.
    The system sets the inode's change time (on Windows, the creation time) itself.
    """
    return stat.st_mtime_ns + stat.st_ctime_ns


def is_gone(error: OSError) -> bool:
    """Return whether the file is gone or closed to us; False if the disk does not answer."""
    return isinstance(error, FileNotFoundError | NotADirectoryError | PermissionError)


def is_settled(stat: os.stat_result, now_ns: int) -> bool:
    """Return whether any later change will give the file another stamp."""
    changed = max(stat.st_mtime_ns, stat.st_ctime_ns) if os.name == "nt" else stat.st_ctime_ns
    return abs(now_ns - changed) > (_SETTLED_NS if changed % 1_000_000_000 else _SETTLED_COARSE_NS)


def is_fresh(doc: Doc) -> bool:
    """Return whether the file is unchanged since it was read; True if the disk does not answer."""
    try:
        # os.stat, since this runs for every hit of every question
        stat = os.stat(doc.file, follow_symlinks=False)  # noqa: PTH116
    except OSError as error:
        return not is_gone(error)
    return stamp(stat) == doc.stamp and stat.st_size == doc.size


def changed_since(doc: Doc) -> bool:
    """Return whether the file changed, or went away, since its stamp was taken; False without a
    stamp.
    """
    try:
        stat = os.stat(doc.file, follow_symlinks=False)  # noqa: PTH116
    except OSError as error:
        return doc.state != "failed" or isinstance(error, FileNotFoundError)
    if not doc.stamp:
        return False
    return stat.st_size != doc.size or (doc.stamp != UNSETTLED and stamp(stat) != doc.stamp)


def is_same(known: Doc, doc: Doc) -> bool:
    """Return whether reading the file again would give the same result."""
    return known.state != "failed" and (
        (known.version, known.format, known.file, known.home)
        == (doc.version, doc.format, doc.file, doc.home)
    )


def version_of(digest: str) -> str:
    """Shorten a SHA-256 in hex to a document's version."""
    return digest[:16]
