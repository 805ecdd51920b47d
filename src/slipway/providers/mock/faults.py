"""Faults: what can go wrong with a provider, one table row each.

A row changes the draft (what is said) or the reply (how it is sent). Several faults at once apply
in the order of their stages: what is said, what replaces it, which events are missing or wrong, how
the bytes are cut up and timed.
"""

import email.utils
import math
import random
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Generic, TypeVar

import msgspec

from slipway.providers.mock import cuts, lies, words
from slipway.providers.mock.refusals import failed, refusal
from slipway.providers.mock.reply import (
    DONE,
    HTML,
    Ending,
    MockReply,
    ReplyDraft,
    TimedWrite,
    sse,
    whole,
)

OTHER_MODEL = "another-model"
BROKEN = b'data: {"id":"chatcmpl-broken","choices":[{"index":0,"del\n\n'
PAGE = (
    b"<!doctype html><html><head><title>502 Bad Gateway</title></head><body><h1>Bad "
    b"Gateway</h1></body></html>\n"
)
INJECTION = (
    'Hello <script>alert("injected")</script> and <img src="http://evil.invalid/x.png" '
    "onerror=alert(1)> and "
    "![x](http://evil.invalid/y.png) and [click](javascript:alert(1)) and "
    "http://evil.invalid/plain end."
)


class Fault(msgspec.Struct, frozen=True):
    """A fault by name, with all its arguments; missing ones have their defaults."""

    name: str
    args: tuple[float, ...] = ()


class FaultContext(msgspec.Struct, frozen=True):
    """What a fault may depend on. `number` and `age_s` count calls and seconds since the script
    began; `seed` is the same for the same request.

    `passed` is what faults remember between calls: the times of the latest calls that passed a
    limit, by limit.
    """

    seed: str
    number: int = 0
    age_s: float = 0.0
    passed: dict[float, deque[float]] = {}
    args: tuple[float, ...] = ()

    @property
    def first(self) -> float:
        return self.args[0]

    @property
    def count(self) -> int:
        return int(self.args[0])


DraftChange = Callable[[ReplyDraft, FaultContext], ReplyDraft]
ReplyChange = Callable[[MockReply, FaultContext], MockReply]
Act = TypeVar("Act")
_with = msgspec.structs.replace


# What is said


def _lie(draft: ReplyDraft, context: FaultContext) -> ReplyDraft:
    # Repeatable on purpose
    rng = random.Random(f"{context.seed}:{context.count or draft.number}:lies")  # noqa: S311
    return _with(
        draft,
        text=lies.write(rng, words.numbered_passages(draft.asked), draft.asked),
        shredded=True,
    )


# What replaces the reply


def _status(_: MockReply, context: FaultContext) -> MockReply:
    code, retry_after_s = context.count, context.args[1]
    return failed(code, f"{retry_after_s:g}" if retry_after_s else "")


def _statusdate(_: MockReply, context: FaultContext) -> MockReply:
    code, retry_after_s = context.count, context.args[1]
    return failed(code, email.utils.formatdate(math.ceil(time.time() + retry_after_s), usegmt=True))


def _limit(reply: MockReply, context: FaultContext) -> MockReply:
    """Limit calls in a sliding window of one second; refused calls do not count."""
    passed = context.passed.setdefault(context.first, deque())
    while passed and passed[0] <= context.age_s - 1:
        passed.popleft()
    if len(passed) >= context.count:
        return failed(429, "1")
    passed.append(context.age_s)
    return reply


def _flap(reply: MockReply, context: FaultContext) -> MockReply:
    down = context.age_s // context.first % 2 == 1
    return refusal(503, "The mock provider is in a bad phase.") if down else reply


def _policy(_: MockReply, __: FaultContext) -> MockReply:
    return refusal(
        400, "Your request was rejected by our safety system.", code="content_policy_violation"
    )


def _context(_: MockReply, __: FaultContext) -> MockReply:
    message = (
        "This model's maximum context length is 8192 tokens. Please reduce the length of the "
        "messages."
    )
    return refusal(400, message, code="context_length_exceeded", param="messages")


def _empty(reply: MockReply, _: FaultContext) -> MockReply:
    return _with(reply, writes=(), length=None if reply.length is None else 0)


def _error200(_: MockReply, __: FaultContext) -> MockReply:
    return _with(refusal(500, "The mock provider failed, and says so with status 200."), status=200)


def _redirect(_: MockReply, __: FaultContext) -> MockReply:
    return _with(
        whole(b"", status=307), headers=(("Location", "http://evil.invalid/v1/chat/completions"),)
    )


# Which events are missing or wrong


def _with_ending(
    reply: MockReply, writes: tuple[TimedWrite, ...], ending: Ending = "cut"
) -> MockReply:
    return _with(reply, writes=writes, ending=ending)


def _cutany(reply: MockReply, context: FaultContext) -> MockReply:
    # Repeatable on purpose
    rng = random.Random(f"{context.seed}:{context.number}:cutany")  # noqa: S311
    length = sum(len(write.data) for write in reply.writes)
    return _with_ending(reply, cuts.at_byte(reply, rng.randrange(max(length, 1))))


def _malformed(reply: MockReply, context: FaultContext) -> MockReply:
    if reply.length is not None:
        half = cuts.at_chunk(reply, 0)
        return _with(reply, writes=half, length=sum(len(write.data) for write in half))
    broken = cuts.content(reply)[context.count : context.count + 1]
    return _with(
        reply,
        writes=tuple(
            w._replace(data=BROKEN) if i in broken else w for i, w in enumerate(reply.writes)
        ),
    )


def _errorevent(reply: MockReply, context: FaultContext) -> MockReply:
    if reply.length is not None:
        return refusal(500, "The mock provider failed while it was writing.")
    kept = cuts.at_chunk(reply, context.count)
    error = {
        "message": "The mock provider failed while it was writing.",
        "type": "server_error",
        "param": None,
        "code": "server_error",
    }
    return _with(
        reply,
        writes=(*kept, TimedWrite(kept[-1].at_s if kept else reply.at_s, sse({"error": error}))),
    )


def _nodone(reply: MockReply, _: FaultContext) -> MockReply:
    return _with(reply, writes=tuple(write for write in reply.writes if write.data != DONE))


# How the bytes are cut up and timed


def _slow(reply: MockReply, context: FaultContext) -> MockReply:
    later = context.first - reply.at_s
    return _with(
        reply,
        at_s=context.first,
        writes=tuple(write._replace(at_s=write.at_s + later) for write in reply.writes),
    )


def _drip(reply: MockReply, context: FaultContext) -> MockReply:
    gap_s = context.first / 1000
    body = b"".join(write.data for write in reply.writes)
    return _with(
        reply,
        writes=tuple(
            TimedWrite(reply.at_s + index * gap_s, body[index : index + 1])
            for index in range(len(body))
        ),
    )


def _split(reply: MockReply, context: FaultContext) -> MockReply:
    rng = random.Random(context.seed)  # noqa: S311 - repeatable on purpose
    parts = (
        TimedWrite(write.at_s, part)
        for write in reply.writes
        for part in _parts(write.data, context.count, rng)
    )
    return _with(reply, writes=tuple(parts))


def _parts(data: bytes, longest: int, rng: random.Random) -> Iterator[bytes]:
    while data:
        size = rng.randint(1, longest)
        yield data[:size]
        data = data[size:]


def _packed(reply: MockReply, context: FaultContext) -> MockReply:
    size = max(context.count, 1)
    groups = [reply.writes[start : start + size] for start in range(0, len(reply.writes), size)]
    return _with(
        reply,
        writes=tuple(
            TimedWrite(group[-1].at_s, b"".join(write.data for write in group)) for group in groups
        ),
    )


class FaultRow(msgspec.Struct, Generic[Act], frozen=True):
    """`args` are the defaults, and their number is the most arguments; the first must lie in
    `limits`. `by_time`: applies to the whole server, not to one call.
    """

    meaning: str
    act: Act
    args: tuple[float, ...] = ()
    limits: tuple[float, float] = (0, 1_000_000)
    by_time: bool = False


_DRAFT_FAULTS: dict[str, FaultRow[DraftChange]] = {
    "say": FaultRow(
        "say-N: the reply is N tokens long; also a model without `fault-`",
        lambda d, g: _with(d, text=None, tokens=g.count),
        (48,),
    ),
    "echo": FaultRow(
        "echo: the reply is the last user message; also a model without `fault-`",
        lambda d, _: _with(d, text=d.asked),
    ),
    "inject": FaultRow(
        "inject: the reply carries a script, images and links that must not work",
        lambda d, _: _with(d, text=INJECTION),
    ),
    "lies": FaultRow(
        "lies-N: false citations, in all forms and odd places, in pieces of 1 to 5 "
        "characters; N selects a variant, "
        "0 is a new one each time",
        _lie,
        (0,),
    ),
    "wrongmodel": FaultRow(
        "wrongmodel: the reply names another model", lambda d, _: _with(d, model=OTHER_MODEL)
    ),
    "nousage": FaultRow(
        "nousage: no usage, even if it was requested", lambda d, _: _with(d, usage=False)
    ),
    "filter": FaultRow(
        "filter: the finish reason is content_filter",
        lambda d, _: _with(d, finish="content_filter"),
    ),
    "badfinish": FaultRow(
        "badfinish: the finish reason is error, then [DONE]", lambda d, _: _with(d, finish="error")
    ),
    "nofinish": FaultRow(
        "nofinish: [DONE] without a finish reason (not streamed: null)",
        lambda d, _: _with(d, finish=None),
    ),
}
_REPLY_FAULTS: dict[str, FaultRow[ReplyChange]] = {
    "refuse": FaultRow(
        "refuse: the whole server refuses connections and drops the open ones; needs a time, "
        "such as refuse@5s-10s",
        lambda _, __: MockReply(head=False, ending="reset"),
        by_time=True,
    ),
    "down": FaultRow(
        "down: 503; by time or always, on every route except those that control the mock",
        lambda _, __: failed(503),
    ),
    "limit": FaultRow(
        "limit-N: 429 with a Retry-After of 1 second for all but N calls in any second; 0 for all",
        _limit,
        (1,),
    ),
    "flap": FaultRow(
        "flap-S: healthy for S seconds, then 503 for S seconds, by the server's clock",
        _flap,
        (3,),
        (0.001, 1_000_000),
    ),
    "empty": FaultRow("empty: status 200 and an empty body", _empty),
    "html": FaultRow("html: status 200 and a web page", lambda _, __: whole(PAGE, headers=(HTML,))),
    "error200": FaultRow("error200: status 200 and an error object", _error200),
    "redirect": FaultRow("redirect: 307 to another host", _redirect),
    "context": FaultRow("context: 400 context_length_exceeded", _context),
    "policy": FaultRow("policy: 400 content_policy_violation", _policy),
    "status": FaultRow(
        "status-CODE[-R]: fails with this status; with R, a Retry-After of R seconds",
        _status,
        (500, 0),
        (400, 599),
    ),
    "statusdate": FaultRow(
        "statusdate-CODE[-R]: fails with this status, with a Retry-After date R seconds from now",
        _statusdate,
        (503, 2),
        (400, 599),
    ),
    "hang": FaultRow(
        "hang: accepts the request and never answers",
        lambda _, __: MockReply(head=False, ending="hold"),
    ),
    "reset": FaultRow(
        "reset: resets the connection (RST) once the request is read",
        lambda _, __: MockReply(head=False, ending="reset"),
    ),
}
_EVENT_FAULTS: dict[str, FaultRow[ReplyChange]] = {
    "malformed": FaultRow(
        "malformed-N: the chunk after N content chunks is broken JSON (not streamed: half of "
        "the JSON)",
        _malformed,
        (3,),
    ),
    "errorevent": FaultRow(
        "errorevent-N: an error event after N content chunks, then a clean end (not streamed: 500)",
        _errorevent,
        (3,),
    ),
    "nodone": FaultRow("nodone: all chunks but no [DONE], and a clean end", _nodone),
    "cut": FaultRow(
        "cut-N: the connection closes after N content chunks (not streamed: after half of "
        "the body)",
        lambda r, g: _with_ending(r, cuts.at_chunk(r, g.count)),
        (5,),
    ),
    "cutat": FaultRow(
        "cutat-B: the connection closes after B bytes of the body",
        lambda r, g: _with_ending(r, cuts.at_byte(r, g.count)),
        (500,),
    ),
    "cutany": FaultRow(
        "cutany: the connection closes after any number of bytes, a different one for each call",
        _cutany,
    ),
    "cutchar": FaultRow(
        "cutchar-N: the connection closes inside the first multi-byte character after N "
        "content chunks, or inside a chunk",
        lambda r, g: _with_ending(r, cuts.in_character(r, g.count)),
        (0,),
    ),
    "cutend": FaultRow(
        "cutend: the connection closes after the finish reason (not streamed: before the "
        "last byte)",
        lambda r, _: _with_ending(r, cuts.behind_finish(r)),
    ),
    "stall": FaultRow(
        "stall-N: nothing more after N content chunks, the connection stays open (not "
        "streamed: after half)",
        lambda r, g: _with_ending(r, cuts.at_chunk(r, g.count), "hold"),
        (5,),
    ),
}
_BYTE_FAULTS: dict[str, FaultRow[ReplyChange]] = {
    "packed": FaultRow("packed-N: N events in one write", _packed, (4,), (1, 1_000_000)),
    "split": FaultRow(
        "split-N: written in pieces of 1 to N bytes, also inside characters",
        _split,
        (7,),
        (1, 1_000_000),
    ),
    "drip": FaultRow(
        "drip-MS: the body comes one byte at a time, MS milliseconds apart", _drip, (5,)
    ),
    "slow": FaultRow("slow-S: the first byte comes after S seconds", _slow, (3,)),
}
_REPLY_STAGES = (_REPLY_FAULTS, _EVENT_FAULTS, _BYTE_FAULTS)
ROWS: dict[str, FaultRow[DraftChange] | FaultRow[ReplyChange]] = {
    **_DRAFT_FAULTS,
    **_REPLY_FAULTS,
    **_EVENT_FAULTS,
    **_BYTE_FAULTS,
}

FAULTS: Mapping[str, str] = MappingProxyType({name: row.meaning for name, row in ROWS.items()})
"""Every fault by name, with its arguments and meaning in one line."""


def change_draft(draft: ReplyDraft, faults: Sequence[Fault], context: FaultContext) -> ReplyDraft:
    """Apply the faults that change what is said."""
    for fault in faults:
        if row := _DRAFT_FAULTS.get(fault.name):
            draft = row.act(draft, _with(context, args=fault.args))
    return draft


def change_reply(reply: MockReply, faults: Sequence[Fault], context: FaultContext) -> MockReply:
    """Apply the faults that change how the reply is sent, stage by stage."""
    for stage in _REPLY_STAGES:
        for fault in faults:
            if row := stage.get(fault.name):
                reply = row.act(reply, _with(context, args=fault.args))
    return reply
