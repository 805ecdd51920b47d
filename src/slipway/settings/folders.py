"""Folders for files that belong to the machine, not to a project."""

import os
from collections.abc import Mapping
from pathlib import Path


def cache(environ: Mapping[str, str] | None = None) -> Path:
    """Return the folder for files that can be downloaded again; it may not exist yet.

    `SLIPWAY_CACHE`, or `slipway` in the user's cache folder (XDG Base Directory Specification).
    """
    environ = os.environ if environ is None else environ
    if own := environ.get("SLIPWAY_CACHE"):
        return Path(own).expanduser()
    shared = environ.get("XDG_CACHE_HOME", "")
    return (
        Path(shared) if Path(shared).is_absolute() else Path("~/.cache").expanduser()
    ) / "slipway"
