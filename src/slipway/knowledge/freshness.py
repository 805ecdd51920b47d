"""Whether what was read of a file still holds: the file's stamp and size tell one state of it from
another, its version one content.
"""

import os

from slipway.knowledge.document_store import Doc

FORMAT = 2  # of what is made of a file: another number has every file read again
UNSETTLED = -1  # a stamp that no file has
# a file changed less than this before it was read may change again under the same time stamp
_SETTLED_NS = 50_000_000
_SETTLED_COARSE_NS = 2_500_000_000  # the same where times are kept in whole seconds, or even ones


def stamp(stat: os.stat_result) -> int:
    """Differs where a file was changed. The time of the last change is not enough: whoever writes
    may set it back, as reproducible builds do; the time of the entry's change (on Windows, of its
    making) is the system's own.
    """
    return stat.st_mtime_ns + stat.st_ctime_ns


def is_gone(error: OSError) -> bool:
    """Whether there is no such file any more, or none for us; otherwise, the disk does not answer."""
    return isinstance(error, FileNotFoundError | NotADirectoryError | PermissionError)


def is_settled(stat: os.stat_result, now_ns: int) -> bool:
    """Whether a change from now on would get another stamp."""
    changed = max(stat.st_mtime_ns, stat.st_ctime_ns) if os.name == "nt" else stat.st_ctime_ns
    return abs(now_ns - changed) > (_SETTLED_NS if changed % 1_000_000_000 else _SETTLED_COARSE_NS)


def is_fresh(doc: Doc) -> bool:
    """Whether the file still is what was read; also where that cannot be told because the disk does
    not answer.
    """
    try:
        # For every hit of every question
        stat = os.stat(doc.file, follow_symlinks=False)  # noqa: PTH116
    except OSError as error:
        return not is_gone(error)
    return stamp(stat) == doc.stamp and stat.st_size == doc.size


def changed_since(doc: Doc) -> bool:
    """Whether the file changed between being looked at and now, or is gone; of one that was never
    looked at, nothing can be told.
    """
    try:
        stat = os.stat(doc.file, follow_symlinks=False)  # noqa: PTH116
    except OSError as error:
        return doc.state == "done" or isinstance(error, FileNotFoundError)
    if not doc.stamp:
        return False
    return stat.st_size != doc.size or (doc.stamp != UNSETTLED and stamp(stat) != doc.stamp)


def is_same(known: Doc, doc: Doc) -> bool:
    """Whether reading the file would come to what is known."""
    return (known.version, known.format, known.state, known.file, known.home) == (
        doc.version,
        FORMAT,
        "done",
        doc.file,
        doc.home,
    )


def version_of(digest: str) -> str:
    return digest[:16]
