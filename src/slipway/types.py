"""The words that rooms hand to each other. This module imports nothing of ours.

They are msgspec structs: frozen like a frozen dataclass, made about ten times faster, and encoded
to JSON as they stand. Times are seconds; `*_at` values are readings of the event loop's monotonic
clock.
"""

import secrets
from collections.abc import Callable
from typing import Any, Literal

import msgspec

ServedBy = Literal["rule", "cache", "semantic", "model", "smaller", "stale", "quote"]
Role = Literal["primary", "twin", "smaller", "local"]
AttemptKind = Literal["first", "retry", "trial", "continue"]
Stage = Literal["admit", "plan", "retrieve", "write"]
Language = Literal["en", "zh"]  # in which people are told of errors


_random: list[bytes] = []


def new_id(prefix: str) -> str:
    """`prefix-` and 128 random bits in hexadecimal: nobody can guess another's answer. Random bytes
    are fetched for 256 ids at once.
    """
    if not _random:
        block = secrets.token_bytes(4096)
        _random.extend(block[i : i + 16] for i in range(0, 4096, 16))
    return f"{prefix}-{_random.pop().hex()}"


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """The base of all words here."""


class Asker(Record, frozen=True, kw_only=True):
    """Who asks. `owner` names the key without revealing it; `apps` is None where every name may be
    called. `documents` may be added and removed by it; to `everything`, the operator at the machine
    itself, no access rule applies.
    """

    owner: str
    tenant: str = "default"
    groups: frozenset[str] = frozenset()
    apps: frozenset[str] | None = None
    documents: bool = False
    everything: bool = False


class Within(Record, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a question is limited to: documents under a path (`guide/**`), with all of these tags,
    of these days (2026-01-31, both included).
    """

    path: str = ""
    tags: tuple[str, ...] = ()
    since: str = ""
    until: str = ""


class Message(Record, frozen=True, kw_only=True):
    """One turn of a conversation. `content` is text, OpenAI content parts, or None (an assistant
    turn of tool calls only).
    """

    role: str
    content: str | list[dict[str, Any]] | None = None


class Question(Record, frozen=True, kw_only=True):
    """One request for an answer, frozen once parsed. `text` is what is asked now: the last user
    turn.
    """

    id: str
    app: str
    text: str
    messages: tuple[Message, ...]
    asker: Asker
    asked_at: float
    options: dict[
        str, Any
    ] = {}  # the client's model parameters, passed through to the model untouched
    within: Within | None = None
    language: Language = "en"


class Passage(Record, frozen=True, kw_only=True):
    """A span of a document. `start` and `end` are character offsets in the document's text; `text`
    is exactly that span.

    `heading` is the nearest heading's own text (the document's title where there is none), `trail`
    the headings above it, outermost first, the nearest last. A passage never crosses a heading.
    """

    id: str
    path: str
    title: str
    heading: str
    trail: tuple[str, ...]
    start: int
    end: int
    text: str
    version: str
    page: int | None = None


class Hit(Record, frozen=True, kw_only=True):
    """A passage that a search found; higher scores are better, comparable within one search only."""

    passage: Passage
    score: float


class Source(Record, frozen=True, kw_only=True):
    """A retrieved place as the reader sees it: `n` is the number that `[n]` in an answer means."""

    n: int
    id: str
    path: str
    heading: str
    start: int
    end: int
    text: str
    version: str
    page: int | None = None
    cited: bool = False


class Usage(Record, frozen=True, kw_only=True):
    """Tokens of one answer; `estimated` where the provider did not say."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    estimated: bool = False


class Piece(Record, frozen=True, kw_only=True):
    """One event of a model's stream: its original bytes, and the few fields read from them.

    `spoke` is true where the event carries anything that the model generated: text, reasoning, a
    tool call.
    """

    raw: bytes
    text: str = ""
    spoke: bool = False
    finish: str | None = None
    usage: Usage | None = None
    is_plain: bool = True  # no part of a tool call or of audio, which no other model can continue
    left_out: int = 0  # fields of the event that could not be read


# What flows out while an answer is made. `event` tags each in JSON; the tables of fields are in
# docs/api.md.


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """The base of all events."""


class Progress(Event, frozen=True, kw_only=True):
    """`eta_s` is the time left until the end, as a range that it falls in nine times of ten; None
    where that is not known well enough.
    """

    stage: Stage
    label: str
    done: int
    total: int
    unit: str
    elapsed_s: float
    eta_s: tuple[float, float] | None = None


class SourceFound(Event, frozen=True, kw_only=True):
    source: Source


class SectionState(Event, frozen=True, kw_only=True):
    """`started` again after a failure: what this section had said is said again. `served_by` and `model`
    tell what wrote it, once it is done.
    """

    index: int
    title: str
    state: Literal["started", "done", "failed"]
    served_by: ServedBy | None = None
    model: str | None = None


class Delta(Event, frozen=True, kw_only=True):
    text: str
    section: int = 0


class Citation(Event, frozen=True, kw_only=True):
    """The source numbered `n` is cited at [start, end) of its section's text (character offsets).

    `flags` are words of that sentence, such as numbers and names, that the sources it cites do not
    have.
    """

    n: int
    start: int
    end: int
    section: int = 0
    flags: tuple[str, ...] = ()


class Notice(Event, frozen=True, kw_only=True):
    """`section` where it is about one of several."""

    code: str
    text: str
    section: int | None = None


class UsageReport(Event, frozen=True, kw_only=True):
    model: str
    usage: Usage
    cost_usd: str | None = None  # None where the price is unknown


class ForReader(Record, frozen=True, kw_only=True):
    """What a person who asked is told of an error: what happened, and what to do."""

    what: str
    next: str
    language: Language


class Failed(Event, frozen=True, kw_only=True):
    """`what` and `next` are for who builds on the API or runs the server, `reader` for the person
    who asked.
    """

    code: str
    what: str
    next: str
    retryable: bool
    ref: str
    retry_after_s: float | None = None
    section: int | None = None
    reader: ForReader | None = None


class Done(Event, frozen=True, kw_only=True):
    id: str
    served_by: ServedBy | None
    model: str | None
    attempts: int
    abstained: bool
    duration_s: float
    ttft_s: float | None = None
    prompt: str | None = None  # the version of what the model was told, where one wrote


class Beside(Record, frozen=True, kw_only=True):
    """What a call took beside those of the model that an answer is called by: to understand it, or
    to write a section by another model.
    """

    model: str
    provider: str
    usage: Usage


class AnswerDone(Record, frozen=True, kw_only=True):
    """The one record of a finished question, for metrics, log and alerts. `error` is the error's
    code, None where it was answered.

    `usage` is of the model that it is called by; what others took is `beside` it. Citations are
    counted once: kept, flagged (kept as well, but with words that their sources lack), or dropped
    (they named no source).
    """

    id: str
    endpoint: str  # chat | answers
    app: str
    model: str | None
    provider: str
    served_by: ServedBy | None
    streamed: bool
    error: str | None
    duration_s: float
    ttft_s: float | None
    usage: Usage | None
    tenant: str
    owner: str = ""
    citations_kept: int = 0
    citations_flagged: int = 0
    citations_dropped: int = 0
    beside: tuple[Beside, ...] = ()
    skipped: tuple[tuple[str, str], ...] = ()  # models that were passed over, and why


class AttemptDone(Record, frozen=True, kw_only=True):
    """The one record of a call to a model: `error` is the code of what it ended with, `cancelled`
    where it was given up, None where it was well; `why` says it in words. `shown_chars` of the
    answer had been shown when it began. An unneeded trial was not `used`.
    """

    answer_id: str
    model: str
    provider: str
    zone: str
    status: int | None
    error: str | None
    duration_s: float
    ttft_s: float | None
    role: Role = "primary"
    kind: AttemptKind = "first"
    why: str | None = None
    shown_chars: int = 0
    used: bool = True
    left_out: int = 0  # fields of the reply that could not be read


class Answered(Record, frozen=True, kw_only=True):
    """An answer that has ended, as feedback needs it. `text` is None where only that it was given
    is still known.
    """

    id: str
    at: float  # seconds since the epoch
    tenant: str
    owner: str
    app: str
    model: str | None
    served_by: str | None
    prompt: str | None
    question: str | None = None
    text: str | None = None
    sources: tuple[dict[str, Any], ...] = ()  # those that it cites

    @property
    def size(self) -> int:
        """Characters, roughly."""
        return 500 + len(self.question or "") + len(self.text or "") + 200 * len(self.sources)


class FeedbackGiven(Record, frozen=True, kw_only=True):
    """The one record of a vote or report that was kept; none for one that replaced another."""

    app: str
    kind: str
    helpful: bool | None


Emit = Callable[[AnswerDone | AttemptDone], None]
