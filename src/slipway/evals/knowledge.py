"""How well the knowledge room finds what answers."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from slipway.knowledge import files
from slipway.knowledge.passages import passages
from slipway.knowledge.readers import Unreadable, read
from slipway.types import Passage


def passages_of(docs: Sequence[Path]) -> list[Passage]:
    """All that can be read in these folders, cut as for serving; what cannot be read is left out."""
    found = []
    for each in files.find(docs):
        if not each.refused:
            try:
                data = Path(each.file).read_bytes()
                found += passages(read(data, each.path), each.path, hashlib.sha256(data).hexdigest()[:16])
            except (OSError, Unreadable):
                continue
    return found
