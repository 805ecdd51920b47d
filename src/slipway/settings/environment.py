"""Read the environment for other packages: what child processes get of it, and how many threads it
allows.
"""

import os
import sys


def for_child(passed: tuple[str, ...] | None = None) -> dict[str, str]:
    """Return the environment of a child process that runs our own code.

    It has the variables whose names begin with one of `passed` (None: all variables), and a
    PYTHONPATH with the folders that this process imports from.
    """
    found = {
        name: value
        for name, value in os.environ.items()
        if passed is None or name.startswith(passed)
    }
    return {**found, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def core_count() -> int:
    """Return how many cores this process may use; on systems that do not say, such as macOS, how
    many there are.
    """
    usable = getattr(os, "sched_getaffinity", None)
    return len(usable(0)) if usable is not None else os.cpu_count() or 1


def thread_count() -> int:
    """Return OMP_NUM_THREADS if it is set, as numerical libraries do; else `core_count()`."""
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    return int(wanted) if wanted.isdigit() and int(wanted) else core_count()
