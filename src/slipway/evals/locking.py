"""Lock the file of `--save`, so that only one run writes to it."""

from pathlib import Path
from typing import BinaryIO

from slipway.errors import SettingsError

try:
    import fcntl
except ImportError:  # Windows: two runs may then ask the same
    fcntl = None  # type: ignore[assignment]


def lock(out: BinaryIO, file: Path) -> None:
    """Lock the open file until it is closed. Raise SettingsError if another run has locked it."""
    try:
        if fcntl is not None:
            fcntl.flock(out, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        what = f"--save: another run is writing to {file}; wait for it, or name another file"
        raise SettingsError([what]) from None
