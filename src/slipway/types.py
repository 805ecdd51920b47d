"""The types that pass between stages. This module imports nothing of ours.

They are msgspec structs: frozen like a frozen dataclass, created about ten times faster, and
encoded to JSON without conversion. Times are in seconds; `*_at` values are readings of the event
loop's monotonic clock.
"""

import os
import secrets
import time
from collections.abc import Callable
from typing import Annotated, Any, Literal

import msgspec

ServedBy = Literal["rule", "cache", "semantic", "model", "smaller", "stale", "quote"]
Role = Literal["primary", "twin", "smaller", "local"]
AttemptKind = Literal["first", "retry", "trial", "continue"]
CallKind = Literal["first", "retry", "trial", "continue", "side"]  # side: it wrote no answer
Stage = Literal["admit", "plan", "retrieve", "write"]
CacheWish = Literal["use", "off", "refresh", "only"]  # what a request wants of the cache
CacheState = Literal["hit", "semantic", "stale", "flight", "miss", "refresh"]  # what it did
Language = Literal["en", "zh"]  # the languages of error messages for people


MAX_SECTIONS = 8  # of an answer
_random: list[bytes] = []
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_random.clear)  # no two processes may use the same bytes


def new_id(prefix: str) -> str:
    """Return `prefix-` followed by 128 random bits in hexadecimal, so that ids cannot be guessed.

    Reads random bytes for 256 ids at a time, which is faster.
    """
    if not _random:
        _draw()
    return f"{prefix}-{_random.pop().hex()}"


def _draw() -> None:
    block = secrets.token_bytes(4096)
    _random.extend(block[i : i + 16] for i in range(0, 4096, 16))


def new_answer_id() -> str:
    """Return `ans-` followed by the time in milliseconds and 80 random bits, in hexadecimal.

    It cannot be guessed, and rows of a table that is indexed by it are appended to the index (as
    with UUIDv7, RFC 9562): with random ids, a large index is changed all over, and a row takes a
    database three times as long.
    """
    if not _random:
        _draw()
    return f"ans-{time.time_ns() // 1_000_000:012x}{_random.pop()[:10].hex()}"


def new_row_id(prefix: str) -> str:
    """Return `prefix-` followed by the time in microseconds and 64 random bits, in hexadecimal.

    As with `new_answer_id`, rows with such ids are appended to an index.
    """
    if not _random:
        _draw()
    return f"{prefix}-{time.time_ns() // 1000:014x}{_random.pop()[:8].hex()}"


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """The base class of the types here."""


class Asker(Record, frozen=True, kw_only=True):
    """The sender of a request, as its key identifies it.

    `owner` identifies the key without revealing it. `apps` lists the names it may call; None means
    all. `documents` is true if it may add and remove documents, `admin` if it may manage keys and see
    what all of them have spent. `everything` is true only for the operator at the machine: no access
    rule and no limit applies to it. A key is refused from `ends_at` on, in seconds since the epoch:
    it has `ended` (expired, revoked or replaced).
    """

    owner: str
    tenant: str = "default"
    groups: frozenset[str] = frozenset()
    apps: frozenset[str] | None = None
    documents: bool = False
    admin: bool = False
    everything: bool = False
    ends_at: float | None = None
    ended: str = ""


class Within(Record, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A filter on the documents that a question is answered from.

    Documents match if they are under `path` (`guide/**`), have all `tags`, and are dated between
    `since` and `until` (2026-01-31, both days included). Empty fields match everything.
    """

    path: Annotated[str, msgspec.Meta(max_length=500)] = ""
    tags: Annotated[
        tuple[Annotated[str, msgspec.Meta(max_length=100)], ...], msgspec.Meta(max_length=50)
    ] = ()
    since: Annotated[str, msgspec.Meta(max_length=32)] = ""
    until: Annotated[str, msgspec.Meta(max_length=32)] = ""


class Message(Record, frozen=True, kw_only=True):
    """One turn of a conversation.

    `content` is text, a list of OpenAI content parts, or None if an assistant turn holds only tool
    calls.
    """

    role: str
    content: str | list[dict[str, Any]] | None = None


class Question(Record, frozen=True, kw_only=True):
    """One request for an answer, frozen once parsed. `text` is the text of the last user turn."""

    id: str
    app: str
    text: str
    messages: tuple[Message, ...]
    asker: Asker
    asked_at: float
    options: dict[str, Any] = {}  # the client's model parameters, passed to the model unchanged
    within: Within | None = None
    language: Language = "en"
    cache: CacheWish = "use"
    attached: "tuple[Passage, ...]" = ()  # of files that belong to this conversation alone


class Passage(Record, frozen=True, kw_only=True):
    """A span of a document. `start` and `end` are character offsets in the document's text, and
    `text` is exactly that span.

    `heading` is the text of the nearest heading, or the document's title if there is none. `trail`
    holds the headings above it, outermost first, nearest last. A passage never crosses a heading.
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
    """A passage found by a search. A higher score is better; compare scores of one search only."""

    passage: Passage
    score: float


class Source(Record, frozen=True, kw_only=True):
    """A retrieved passage as the reader sees it. `[n]` in an answer refers to its number `n`."""

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


class Usage(Record, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """What a provider charges for. `estimated` is true if the provider did not report all of it.

    `input_tokens` and `output_tokens` are totals. The other token counts are parts of them: tokens
    read from the provider's cache, written to it, or given as audio or images are input tokens, and
    those written for an hour (`cache_write_1h_tokens`) are among those written (`cache_write_tokens`);
    reasoning, and audio or images as tokens, are output tokens. `images` were generated and priced
    by the piece; `audio_ms` is the length of audio that is priced by the time.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    cache_write_1h_tokens: int = 0
    audio_input_tokens: int = 0
    image_input_tokens: int = 0
    reasoning_tokens: int = 0
    audio_output_tokens: int = 0
    image_output_tokens: int = 0
    images: int = 0
    audio_ms: int = 0
    estimated: bool = False


class Piece(Record, frozen=True, kw_only=True):
    """One event of a model's stream: its original bytes, and the few fields read from them.

    `spoke` is true if the event carries any output of the model: text, reasoning or a tool call.
    """

    raw: bytes
    text: str = ""
    spoke: bool = False
    finish: str | None = None
    usage: Usage | None = None
    is_plain: bool = True  # no part of a tool call or of audio, which no other model can continue
    left_out: int = 0  # fields of the event that could not be read


# The events sent while an answer is written. docs/api.md lists their fields.


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """The base of all events."""


class Progress(Event, frozen=True, kw_only=True):
    """`eta_s` is a range for the time left: nine of ten answers end within it. None if unknown."""

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
    """The state of a section. A second `started` means that it is written again from its beginning.

    `served_by` and `model` name what wrote it, once it is done.
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
    """A citation of source `n` at [start, end) of its section's text (character offsets).

    `flags` are words of the cited sentence, such as numbers and names, that are missing in its
    sources.
    """

    n: int
    start: int
    end: int
    section: int = 0
    flags: tuple[str, ...] = ()


class Notice(Event, frozen=True, kw_only=True):
    """A remark on the answer. `section` is set if it is about one section only."""

    code: str
    text: str
    section: int | None = None


class Saved(Record, frozen=True, kw_only=True):
    """What an answer would have cost if a model had written it for this question alone.

    `by` says what saved it. `usd` is None if the price is unknown, `usage` if nobody can know it.
    """

    by: Literal["rule", "cache", "semantic", "stale", "flight"]
    usage: Usage | None = None
    usd: str | None = None


class CacheFacts(Record, frozen=True, kw_only=True):
    """What the cache did for an answer.

    `state` is `hit` or `stale` (a kept answer), `semantic` (the kept answer of a similar
    `question`, with the cosine of both), `flight` (the call of an identical question that was in
    progress), `miss` or `refresh`. `age_s` is the age of a kept answer. `key` names
    the kept answer in `POST /v1/cache/invalidate`.
    """

    state: CacheState
    key: str | None = None
    age_s: float | None = None
    saved: Saved | None = None
    similarity: float | None = None
    question: str | None = None


class CacheStats(Record, frozen=True, kw_only=True):
    """What the cache of this process holds. `shared` is the state of Redis, or `off`."""

    entries: int = 0
    bytes: int = 0
    budget: int = 0
    flights: int = 0
    shared: str = "off"


class UsageReport(Event, frozen=True, kw_only=True):
    model: str
    usage: Usage
    cost_usd: str | None = None  # None if the price is unknown


class ReaderText(Record, frozen=True, kw_only=True):
    """An error message for the person who asked: what happened, and what to do next."""

    what: str
    next: str
    language: Language


class Failed(Event, frozen=True, kw_only=True):
    """The error that ended an answer.

    `what` and `next` are for developers and operators, `reader` for the person who asked.
    """

    code: str
    what: str
    next: str
    retryable: bool
    ref: str
    retry_after_s: float | None = None
    section: int | None = None
    reader: ReaderText | None = None


class Done(Event, frozen=True, kw_only=True):
    id: str
    served_by: ServedBy | None
    model: str | None
    attempts: int
    abstained: bool
    duration_s: float
    ttft_s: float | None = None
    prompt: str | None = None  # the version of the prompt, if a model wrote the answer
    cache: CacheFacts | None = None  # None if no cache was asked


class OtherModelUsage(Record, frozen=True, kw_only=True):
    """The usage of another model that took part in an answer: for example, it understood the
    question or wrote one of the sections.
    """

    model: str
    provider: str
    usage: Usage


class TraceContext(Record, frozen=True, kw_only=True):
    """An answer's place in a trace of several services (W3C Trace Context): its span's id, and that
    of the client's span, if any. `is_exported` is true if our spans are sent to a collector.
    """

    trace_id: str
    span_id: str
    parent_id: str = ""
    is_sampled: bool = True
    state: str = ""
    is_exported: bool = False


class StageTaken(Record, frozen=True, kw_only=True):
    """What one stage of an answer did, for its trace; it began `began_s` after the question.

    `facts` are numbers and words that describe the work, never text of a question or a document.
    """

    name: str
    began_s: float
    duration_s: float
    facts: tuple[tuple[str, str | int | float | bool | None], ...] = ()
    error: str | None = None


Sourced = Literal["sourced", "unsourced", "abstained"]


class AnswerDone(Record, frozen=True, kw_only=True, gc=False):
    """The one record of a finished question, for metrics, logs and alerts.

    `error` is the error's code, or None for success. `usage` belongs to `model`; `other_usage`
    lists the other models. Each citation is counted once: as kept, flagged (shown, but its sources
    lack words of the sentence) or dropped (it named no source). `sourced` says whether an app's
    answer names a source; None if it has no documents, or a rule answered. `cost` is that of all
    calls in picodollars, None if one of them is unknown; `admission_s` is how long admission took.
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
    other_usage: tuple[OtherModelUsage, ...] = ()
    skipped: tuple[tuple[str, str], ...] = ()  # (model, reason) of each model not tried
    saved: Saved | None = None
    cache: CacheState | None = None  # None if no cache was asked
    cost: int | None = 0
    admission_s: float = 0.0
    stages: tuple[StageTaken, ...] = ()
    trace: TraceContext | None = None
    sourced: Sourced | None = None
    degraded: bool = False  # the documents are quoted since a model failed


class AttemptDone(Record, frozen=True, kw_only=True, gc=False):
    """The one record of a call to a model.

    `error` is the code of its error, `cancelled` if it was given up, None for success; `why` is the
    error in words. `shown_chars` is how much of the answer was already shown when the call began.
    `used` is false for a trial whose answer was not needed. `place` is that of the model in the
    order of the route, from 0. `waited_s` is how long the call waited for a free place before it
    began, None if the model takes any number of calls. `opened_breaker` is true if this failure was
    the one after which the model is not called for a while. `cost` is in picodollars, None if it is
    unknown.
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
    usage: Usage | None = None  # None if the call is not charged
    cost: int | None = 0
    upstream: str = ""  # the provider's own id of the call
    trace: TraceContext | None = None  # of its answer
    span: str = ""  # its own id in that trace
    place: int = 0
    waited_s: float | None = None
    opened_breaker: bool = False


class RuleUsed(Record, frozen=True, kw_only=True):
    """The record of a rule that recognised a question: it answered, or was only in `shadow`.

    `reason` is for the trace; it may hold words of the rules file, never of the question.
    """

    answer_id: str
    app: str
    rule: str
    version: str
    kind: Literal["question", "pattern", "intent"]
    reason: str
    shadow: bool
    at: float = 0.0  # seconds since the epoch


class Answered(Record, frozen=True, kw_only=True):
    """A finished answer, as feedback needs it. `text` is None if its text is no longer kept."""

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
    sources: tuple[dict[str, Any], ...] = ()  # the cited ones
    sections: int = MAX_SECTIONS  # how many it has; the most there can be if that is unknown
    groups: tuple[str, ...] = ()  # of the asker
    is_whole: bool = False  # the first question of a conversation, answered to its end

    @property
    def size(self) -> int:
        """Return the approximate size in characters."""
        texts = len(self.question or "") + len(self.text or "")
        return 1500 + texts + 600 * len(self.sources)


class StoreState(Record, frozen=True, kw_only=True):
    """How the store is: `reason` says why it cannot be used now, None if it can. `waiting` rows are
    not in it yet; `lost` counts those that could be kept nowhere.
    """

    waiting: int = 0
    lost: int = 0
    reason: str | None = None


class FeedbackGiven(Record, frozen=True, kw_only=True):
    """The record of a stored vote or report. A vote that replaces another emits none."""

    app: str
    kind: str
    helpful: bool | None
    answer: str = ""  # its id


class SemanticLooked(Record, frozen=True, kw_only=True):
    """The record of a look-up of similar questions, or of a comparison of two answers.

    `outcome` is `none` (no candidate), `shadow`, `check` or `serve`; or `same`, `different` or
    `unknown`. `refused` names the guards that refused near questions.
    """

    app: str
    outcome: str
    refused: tuple[str, ...] = ()


PipelineRecord = AnswerDone | AttemptDone | RuleUsed | SemanticLooked
Emit = Callable[[PipelineRecord], None]
