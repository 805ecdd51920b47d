"""A kept answer, and how long it may be served."""

from collections.abc import Sequence
from sys import getsizeof
from typing import Literal

import msgspec

from slipway.types import Record, Usage

OVERHEAD = 900  # bytes of memory beside the answer itself
Form = Literal["stream", "whole", "events"]
Age = Literal["fresh", "refresh", "error", "expired"]


class Lifetime(Record, frozen=True, kw_only=True):
    """For how many seconds an answer is `fresh`; after that, for how many it may be served while it
    is written again (`refresh`), and for how many if no model answers (`error`).
    """

    fresh: float
    refresh: float = 0.0
    error: float = 0.0

    @property
    def total(self) -> float:
        return self.fresh + max(self.refresh, self.error)


class SearchedSection(Record, frozen=True, kw_only=True):
    """What was searched for one section of an answer, and the ids of the passages found, in order.

    If a later search finds the same, the model would read the same.
    """

    text: str
    title: str
    passages: tuple[str, ...]
    is_asked: bool  # whether the search was sure enough to ask a model or to quote


def _size_of(searched: SearchedSection) -> int:
    """Return about how many bytes it takes in memory."""
    texts = getsizeof(searched.text) + getsizeof(searched.title)
    return 200 + texts + 100 * len(searched.passages)


class KeptAnswer(Record, frozen=True, kw_only=True):
    """A complete answer with its key.

    `body` is the answer: the events of a stream without `[DONE]` and the one about usage, which is
    in `usage_event`; a whole completion; or the events of an app's answer. `knowledge` is the
    version of the documents for which `searched` was last found to be what a search finds, and
    `understood` the complete question that was searched. `documents` are the paths of all documents
    that the model read.
    """

    key: str
    app: str
    tenant: str
    kept_at: float  # seconds since the epoch
    lifetime: Lifetime
    form: Form
    body: bytes
    usage_event: bytes = b""
    model: str | None = None
    usage: Usage | None = None
    cost_usd: str | None = None
    tags: tuple[str, ...] = ()
    documents: tuple[str, ...] = ()
    knowledge: str = ""
    understood: str = ""
    searched: tuple[SearchedSection, ...] = ()

    def age_s(self, now: float) -> float:
        return max(0.0, now - self.kept_at)

    def state(self, now: float) -> Age:
        """Return how the entry may be used at this time. An age below zero, since the clock was set
        back, counts as fresh.
        """
        age, lifetime = now - self.kept_at, self.lifetime
        if age < lifetime.fresh:
            return "fresh"
        if age < lifetime.fresh + lifetime.refresh:
            return "refresh"
        return "error" if age < lifetime.fresh + lifetime.error else "expired"

    @property
    def size(self) -> int:
        """Return about how many bytes it takes in memory."""
        body = len(self.body) + len(self.usage_event)
        names = (self.key, self.understood, *self.tags, *self.documents)
        return OVERHEAD + body + sum(map(getsizeof, names)) + sum(map(_size_of, self.searched))


class Selection(Record, frozen=True, kw_only=True):
    """Which kept answers to remove: those that match every field that is set.

    `tenant` is set for callers who may only change their own tenant's answers, `apps` for those who
    may only call some names.
    """

    app: str | None = None
    tag: str | None = None
    document: str | None = None
    key: str | None = None
    tenant: str | None = None
    apps: frozenset[str] | None = None

    def may_change(self, app: str, tenant: str) -> bool:
        """Return whether the caller may remove answers of this app and tenant."""
        return self.tenant in (None, tenant) and (self.apps is None or app in self.apps)

    def matches(self, entry: KeptAnswer) -> bool:
        return (
            self.may_change(entry.app, entry.tenant)
            and self.app in (None, entry.app)
            and self.key in (None, entry.key)
            and (self.tag is None or self.tag in entry.tags)
            and (self.document is None or self.document in entry.documents)
        )

    def names(self) -> Sequence[tuple[str, str]]:
        """Return the fields that are set, as (field, value)."""
        fields = {name: getattr(self, name) for name in ("app", "tag", "document", "key")}
        return [(name, value) for name, value in fields.items() if value]


encode_entry = msgspec.msgpack.Encoder().encode
decode_entry = msgspec.msgpack.Decoder(KeptAnswer).decode
