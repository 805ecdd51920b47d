"""Faults: what can go wrong with a provider, one table row each.

A row shapes the draft (what is said) or bends the reply (how it goes out). Several faults at once
apply in the order of their stages: what is said, what replaces it, which events are missing or
wrong, how the bytes are cut up and timed.
"""

import difflib
import email.utils
import math
import random
import re
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Generic, TypeVar

import msgspec

from slipway.providers.mock import cuts, lies, words
from slipway.providers.mock.reply import (
    DONE,
    HTML,
    JSON,
    Draft,
    Ending,
    Reply,
    Write,
    envelope,
    sse,
    whole,
)

OTHER_MODEL = "another-model"
BROKEN = b'data: {"id":"chatcmpl-broken","choices":[{"index":0,"del\n\n'
PAGE = b"<!doctype html><html><head><title>502 Bad Gateway</title></head><body><h1>Bad Gateway</h1></body></html>\n"
INJECTION = (
    'Hello <script>alert("injected")</script> and <img src="http://evil.invalid/x.png" onerror=alert(1)> and '
    "![x](http://evil.invalid/y.png) and [click](javascript:alert(1)) and http://evil.invalid/plain end."
)
KINDS = {  # status -> OpenAI's type and code
    400: ("invalid_request_error", "bad_request"),
    401: ("authentication_error", "invalid_api_key"),
    403: ("permission_error", "forbidden"),
    404: ("invalid_request_error", "not_found"),
    413: ("invalid_request_error", "too_large"),
    429: ("rate_limit_error", "rate_limit_exceeded"),
}


class Fault(msgspec.Struct, frozen=True):
    """A fault by name, with all its arguments: those not given have their defaults."""

    name: str
    args: tuple[float, ...] = ()


class Given(msgspec.Struct, frozen=True):
    """What a fault may go by. `number` and `age_s` count calls and seconds since the script began;
    `seed` is the same for the same request.

    `passed` is what faults remember from call to call: when the latest calls passed a limit, for
    each limit.
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


Shape = Callable[[Draft, Given], Draft]
Bend = Callable[[Reply, Given], Reply]
Act = TypeVar("Act")
_with = msgspec.structs.replace


def refusal(
    status: int, message: str, *, kind: str = "", code: str = "", param: str | None = None
) -> Reply:
    """An error with OpenAI's envelope; type and code follow from the status where they are not
    given.
    """
    usual = KINDS.get(status) or (("server_error", "server_error") if status >= 500 else KINDS[400])
    return whole(envelope(message, kind or usual[0], code or usual[1], param), status=status)


# What is said


def _lies(draft: Draft, given: Given) -> Draft:
    # Repeatable on purpose
    rng = random.Random(f"{given.seed}:{given.count or draft.number}:lies")  # noqa: S311
    return _with(
        draft,
        text=lies.write(rng, words.numbered_passages(draft.asked), draft.asked),
        shredded=True,
    )


# What replaces the reply


def _status(_: Reply, given: Given) -> Reply:
    code, retry_after_s = given.count, given.args[1]
    return failed(code, f"{retry_after_s:g}" if retry_after_s else "")


def _statusdate(_: Reply, given: Given) -> Reply:
    code, retry_after_s = given.count, given.args[1]
    return failed(code, email.utils.formatdate(math.ceil(time.time() + retry_after_s), usegmt=True))


def failed(code: int, retry_after: str = "") -> Reply:
    """`retry_after` is the header's value."""
    reply = refusal(code, f"The mock provider was asked to fail with {code}.")
    return _with(reply, headers=(JSON, ("Retry-After", retry_after))) if retry_after else reply


def _limit(reply: Reply, given: Given) -> Reply:
    """Over any second, as a sliding window; refused calls do not count."""
    passed = given.passed.setdefault(given.first, deque())
    while passed and passed[0] <= given.age_s - 1:
        passed.popleft()
    if len(passed) >= given.count:
        return failed(429, "1")
    passed.append(given.age_s)
    return reply


def _flap(reply: Reply, given: Given) -> Reply:
    down = given.age_s // given.first % 2 == 1
    return refusal(503, "The mock provider is in a bad phase.") if down else reply


def _policy(_: Reply, __: Given) -> Reply:
    return refusal(
        400, "Your request was rejected by our safety system.", code="content_policy_violation"
    )


def _context(_: Reply, __: Given) -> Reply:
    message = "This model's maximum context length is 8192 tokens. Please reduce the length of the messages."
    return refusal(400, message, code="context_length_exceeded", param="messages")


def _empty(reply: Reply, _: Given) -> Reply:
    return _with(reply, writes=(), length=None if reply.length is None else 0)


def _error200(_: Reply, __: Given) -> Reply:
    return _with(refusal(500, "The mock provider failed, and says so with status 200."), status=200)


def _redirect(_: Reply, __: Given) -> Reply:
    return _with(
        whole(b"", status=307), headers=(("Location", "http://evil.invalid/v1/chat/completions"),)
    )


# Which events are missing or wrong


def _ends(reply: Reply, writes: tuple[Write, ...], ending: Ending = "cut") -> Reply:
    return _with(reply, writes=writes, ending=ending)


def _cutany(reply: Reply, given: Given) -> Reply:
    rng = random.Random(f"{given.seed}:{given.number}:cutany")  # noqa: S311 - repeatable on purpose
    length = sum(len(write.data) for write in reply.writes)
    return _ends(reply, cuts.at_byte(reply, rng.randrange(max(length, 1))))


def _malformed(reply: Reply, given: Given) -> Reply:
    if reply.length is not None:
        half = cuts.at_chunk(reply, 0)
        return _with(reply, writes=half, length=sum(len(write.data) for write in half))
    broken = cuts.content(reply)[given.count : given.count + 1]
    return _with(
        reply,
        writes=tuple(
            w._replace(data=BROKEN) if i in broken else w for i, w in enumerate(reply.writes)
        ),
    )


def _errorevent(reply: Reply, given: Given) -> Reply:
    if reply.length is not None:
        return refusal(500, "The mock provider failed while it was writing.")
    kept = cuts.at_chunk(reply, given.count)
    error = {
        "message": "The mock provider failed while it was writing.",
        "type": "server_error",
        "param": None,
        "code": "server_error",
    }
    return _with(
        reply, writes=(*kept, Write(kept[-1].at_s if kept else reply.at_s, sse({"error": error})))
    )


def _nodone(reply: Reply, _: Given) -> Reply:
    return _with(reply, writes=tuple(write for write in reply.writes if write.data != DONE))


# How the bytes are cut up and timed


def _slow(reply: Reply, given: Given) -> Reply:
    later = given.first - reply.at_s
    return _with(
        reply,
        at_s=given.first,
        writes=tuple(write._replace(at_s=write.at_s + later) for write in reply.writes),
    )


def _drip(reply: Reply, given: Given) -> Reply:
    gap_s = given.first / 1000
    body = b"".join(write.data for write in reply.writes)
    return _with(
        reply,
        writes=tuple(
            Write(reply.at_s + index * gap_s, body[index : index + 1]) for index in range(len(body))
        ),
    )


def _split(reply: Reply, given: Given) -> Reply:
    rng = random.Random(given.seed)  # noqa: S311 - repeatable on purpose
    parts = (
        Write(write.at_s, part)
        for write in reply.writes
        for part in _parts(write.data, given.count, rng)
    )
    return _with(reply, writes=tuple(parts))


def _parts(data: bytes, longest: int, rng: random.Random) -> Iterator[bytes]:
    while data:
        size = rng.randint(1, longest)
        yield data[:size]
        data = data[size:]


def _packed(reply: Reply, given: Given) -> Reply:
    size = max(given.count, 1)
    groups = [reply.writes[start : start + size] for start in range(0, len(reply.writes), size)]
    return _with(
        reply,
        writes=tuple(
            Write(group[-1].at_s, b"".join(write.data for write in group)) for group in groups
        ),
    )


class _Row(msgspec.Struct, Generic[Act], frozen=True):
    """`args` are the defaults, and so the greatest number of arguments; the first must lie in
    `limits`. `by_time`: no call has it alone.
    """

    meaning: str
    act: Act
    args: tuple[float, ...] = ()
    limits: tuple[float, float] = (0, 1_000_000)
    by_time: bool = False


_SAID: dict[str, _Row[Shape]] = {
    "say": _Row(
        "say-N: the reply is N tokens long; also a model without `fault-`",
        lambda d, g: _with(d, text=None, tokens=g.count),
        (48,),
    ),
    "echo": _Row(
        "echo: the reply is the last user message; also a model without `fault-`",
        lambda d, _: _with(d, text=d.asked),
    ),
    "inject": _Row(
        "inject: the reply carries a script, images and links that must not work",
        lambda d, _: _with(d, text=INJECTION),
    ),
    "lies": _Row(
        "lies-N: citations of passages that there are not, in all forms and odd places, in pieces of 1 to 5 characters; lie N of a question, "
        "0 is another each time",
        _lies,
        (0,),
    ),
    "wrongmodel": _Row(
        "wrongmodel: the reply names another model", lambda d, _: _with(d, model=OTHER_MODEL)
    ),
    "nousage": _Row(
        "nousage: no usage, even where it was asked for", lambda d, _: _with(d, usage=False)
    ),
    "filter": _Row(
        "filter: the finish reason is content_filter",
        lambda d, _: _with(d, finish="content_filter"),
    ),
    "badfinish": _Row(
        "badfinish: the finish reason is error, then [DONE]", lambda d, _: _with(d, finish="error")
    ),
    "nofinish": _Row(
        "nofinish: [DONE] without a finish reason (not streamed: null)",
        lambda d, _: _with(d, finish=None),
    ),
}
_REPLACED: dict[str, _Row[Bend]] = {
    "refuse": _Row(
        "refuse: the whole server refuses connections and drops those there are; goes by time, such as refuse@5s-10s",
        lambda _, __: Reply(head=False, ending="reset"),
        by_time=True,
    ),
    "down": _Row(
        "down: 503; by time or always, every route but those that steer the mock",
        lambda _, __: failed(503),
    ),
    "limit": _Row(
        "limit-N: 429 with a Retry-After of 1 second for all but N calls in any second; 0 for all",
        _limit,
        (1,),
    ),
    "flap": _Row(
        "flap-S: healthy for S seconds, then 503 for S seconds, by the server's clock",
        _flap,
        (3,),
        (0.001, 1_000_000),
    ),
    "empty": _Row("empty: status 200 and an empty body", _empty),
    "html": _Row("html: status 200 and a web page", lambda _, __: whole(PAGE, headers=(HTML,))),
    "error200": _Row("error200: status 200 and an error object", _error200),
    "redirect": _Row("redirect: 307 to another host", _redirect),
    "context": _Row("context: 400 context_length_exceeded", _context),
    "policy": _Row("policy: 400 content_policy_violation", _policy),
    "status": _Row(
        "status-CODE[-R]: fails with this status; with R, a Retry-After of R seconds",
        _status,
        (500, 0),
        (400, 599),
    ),
    "statusdate": _Row(
        "statusdate-CODE[-R]: fails with this status, and a Retry-After that is the date R seconds ahead",
        _statusdate,
        (503, 2),
        (400, 599),
    ),
    "hang": _Row(
        "hang: accepts the request and never answers",
        lambda _, __: Reply(head=False, ending="hold"),
    ),
    "reset": _Row(
        "reset: resets the connection (RST) once the request is read",
        lambda _, __: Reply(head=False, ending="reset"),
    ),
}
_INCOMPLETE: dict[str, _Row[Bend]] = {
    "malformed": _Row(
        "malformed-N: the chunk after N content chunks is broken JSON (not streamed: half of the JSON)",
        _malformed,
        (3,),
    ),
    "errorevent": _Row(
        "errorevent-N: an error event after N content chunks, then a clean end (not streamed: 500)",
        _errorevent,
        (3,),
    ),
    "nodone": _Row("nodone: all chunks but no [DONE], and a clean end", _nodone),
    "cut": _Row(
        "cut-N: the connection closes after N content chunks (not streamed: after half of the body)",
        lambda r, g: _ends(r, cuts.at_chunk(r, g.count)),
        (5,),
    ),
    "cutat": _Row(
        "cutat-B: the connection closes after B bytes of the body",
        lambda r, g: _ends(r, cuts.at_byte(r, g.count)),
        (500,),
    ),
    "cutany": _Row(
        "cutany: the connection closes after any number of bytes, another for each call", _cutany
    ),
    "cutchar": _Row(
        "cutchar-N: the connection closes inside the first character of several bytes after N content chunks, or inside a chunk",
        lambda r, g: _ends(r, cuts.in_character(r, g.count)),
        (0,),
    ),
    "cutend": _Row(
        "cutend: the connection closes after the finish reason (not streamed: before the last byte)",
        lambda r, _: _ends(r, cuts.behind_finish(r)),
    ),
    "stall": _Row(
        "stall-N: nothing more after N content chunks, the connection stays open (not streamed: after half)",
        lambda r, g: _ends(r, cuts.at_chunk(r, g.count), "hold"),
        (5,),
    ),
}
_BYTES: dict[str, _Row[Bend]] = {
    "packed": _Row("packed-N: N events in one write", _packed, (4,), (1, 1_000_000)),
    "split": _Row(
        "split-N: written in pieces of 1 to N bytes, also inside characters",
        _split,
        (7,),
        (1, 1_000_000),
    ),
    "drip": _Row("drip-MS: the body comes one byte at a time, MS milliseconds apart", _drip, (5,)),
    "slow": _Row("slow-S: the first byte comes after S seconds", _slow, (3,)),
}
_BENDS = (_REPLACED, _INCOMPLETE, _BYTES)
_ROWS: dict[str, _Row[Shape] | _Row[Bend]] = {**_SAID, **_REPLACED, **_INCOMPLETE, **_BYTES}

FAULTS: Mapping[str, str] = MappingProxyType({name: row.meaning for name, row in _ROWS.items()})
"""Every fault by name, with its arguments and meaning in one line."""

_FAULT = re.compile(r"(?:fault-)?(?P<name>[a-z][a-z0-9]*)(?P<args>(?:-\d+(?:\.\d+)?)*)")
_BARE = re.compile(r"say-\d+|echo")


def parse_fault(text: str) -> Fault:
    """`cut-20` or `fault-cut-20`. Raises ValueError with the nearest and all known faults, or with
    what its arguments must be.
    """
    match = _FAULT.fullmatch(text)
    row = _ROWS.get(match["name"]) if match else None
    if match is None or row is None:
        raise ValueError(_unknown(text))
    args = tuple(float(arg) for arg in match["args"].split("-")[1:])
    if len(args) > len(row.args):
        raise ValueError(f"Fault {text!r} has too many arguments. {row.meaning}.")
    args += row.args[len(args) :]
    if args and not row.limits[0] <= args[0] <= row.limits[1]:
        raise ValueError(
            f"Fault {text!r}: the first argument must lie between {row.limits[0]:g} and {row.limits[1]:g}. {row.meaning}."
        )
    return Fault(match["name"], args)


def _unknown(text: str) -> str:
    name = text.removeprefix("fault-").partition("-")[0]
    near = difflib.get_close_matches(name, _ROWS, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"There is no fault {text!r}.{hint} Known faults: {', '.join(sorted(_ROWS))}."


def fault_of_model(model: str) -> Fault | None:
    """The fault that a model's name asks for, None for an ordinary name. Raises ValueError like
    `parse_fault`.
    """
    if not model.startswith("fault-") and not _BARE.fullmatch(model):
        return None
    fault = parse_fault(model)
    if goes_by_time(fault):
        raise ValueError(
            f"Fault {fault.name!r} is the whole server's, and stands in a script. {FAULTS[fault.name]}."
        )
    return fault


def goes_by_time(fault: Fault) -> bool:
    """Whether it is the whole server's, so that no call can have it alone."""
    return _ROWS[fault.name].by_time


def shape(draft: Draft, faults: Sequence[Fault], given: Given) -> Draft:
    for fault in faults:
        if row := _SAID.get(fault.name):
            draft = row.act(draft, _with(given, args=fault.args))
    return draft


def bend(reply: Reply, faults: Sequence[Fault], given: Given) -> Reply:
    for stage in _BENDS:
        for fault in faults:
            if row := stage.get(fault.name):
                reply = row.act(reply, _with(given, args=fault.args))
    return reply
