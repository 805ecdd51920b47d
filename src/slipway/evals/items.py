"""The items of an evaluation set: a question, what is right, and what belongs together."""

from collections.abc import Mapping
from hashlib import blake2b
from typing import Literal

import msgspec

from slipway.evals.questions import Gold
from slipway.types import Record

Style = Literal["direct", "reason"]


class Item(Record, frozen=True, kw_only=True):
    """One question. With `choices`, the reference is a letter. Items of one `cluster`, such as
    questions about one passage, are not independent of each other, and intervals know that.
    """

    id: str
    question: str
    reference: str = ""
    choices: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    cluster: str | None = None
    gold: tuple[Gold, ...] = ()

    @property
    def hash(self) -> str:
        return digest(msgspec.json.encode(self, order="deterministic"))


class EvalSet(Record, frozen=True, kw_only=True):
    """Items with the one scorer that counts for them. `style` says whether a model is asked to
    reason before it answers; `examples` are worked examples by the tag of the items that they are
    for.
    """

    name: str
    items: tuple[Item, ...]
    scorer: str
    style: Style = "direct"
    max_tokens: int = 1024
    title: str = ""
    source: str = ""
    licence: str = ""
    examples: Mapping[str, str] = {}

    @property
    def digest(self) -> str:
        return digest("\n".join([self.scorer, *(item.hash for item in self.items)]).encode())


def digest(data: bytes) -> str:
    return blake2b(data, digest_size=16).hexdigest()
