"""Where files go that belong to the machine, not to a project."""

import os
from collections.abc import Mapping
from pathlib import Path


def cache(environ: Mapping[str, str] | None = None) -> Path:
    """What can be fetched again: `SLIPWAY_CACHE`, else `slipway` in the user's cache folder (XDG
    base directories). It may not exist yet.
    """
    environ = os.environ if environ is None else environ
    if own := environ.get("SLIPWAY_CACHE"):
        return Path(own).expanduser()
    shared = environ.get("XDG_CACHE_HOME", "")
    return (
        Path(shared) if Path(shared).is_absolute() else Path("~/.cache").expanduser()
    ) / "slipway"
