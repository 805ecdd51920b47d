"""W3C Trace Context: the `traceparent` and `tracestate` of a request, and of the calls that it causes.

The guard sets `incoming` for the task that answers a request; whoever begins an answer reads it.
https://www.w3.org/TR/trace-context/
"""

import random
import re
from contextvars import ContextVar

from slipway.types import Record, TraceContext, new_id

TRACEPARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
STATE = re.compile(rb"[\x20-\x7e\t]{1,512}")
NO_TRACE, NO_SPAN = b"0" * 32, b"0" * 16
SAMPLED = 1


class TraceParent(Record, frozen=True, kw_only=True):
    """What a request says of the trace that it belongs to; the ids are empty if it says nothing.

    `is_exported` is true if spans of ours are sent to a collector, so that calls have our spans as
    their parents, and not the client's.
    """

    trace_id: str = ""
    span_id: str = ""
    is_sampled: bool = True
    state: str = ""
    is_exported: bool = False


incoming: ContextVar[TraceParent | None] = ContextVar("incoming", default=None)


def parsed(headers: dict[bytes, bytes], share: float | None) -> TraceParent | None:
    """Return what a request's headers say; None if they say nothing and nothing is exported.

    `share` is the share of requests that are sampled if the client does not decide it; None if
    nothing is exported. An invalid `traceparent` counts as none, as the standard wants it.
    """
    found = TRACEPARENT.fullmatch(headers.get(b"traceparent", b""))
    if found is None or not is_valid(found):
        if share is None:
            return None
        is_sampled = share >= 1 or random.random() < share  # noqa: S311 - it only spreads load
        return TraceParent(is_sampled=is_sampled, is_exported=True)
    state = headers.get(b"tracestate", b"")
    return TraceParent(
        trace_id=found[2].decode(),
        span_id=found[3].decode(),
        is_sampled=bool(int(found[4], 16) & SAMPLED),
        state=state.decode() if STATE.fullmatch(state) else "",
        is_exported=share is not None,
    )


def is_valid(found: re.Match[bytes]) -> bool:
    """Return whether the ids may be used; version 00 has no more fields, and ff is forbidden."""
    version, more = found[1], found[5]
    if version == b"ff" or (version == b"00" and more):
        return False
    return found[2] != NO_TRACE and found[3] != NO_SPAN


def begun(answer_id: str) -> TraceContext | None:
    """Return the place of an answer that begins now; None if nobody follows it.

    Without a client's trace, the trace's id is that of the answer, so that either finds the other.
    """
    parent = incoming.get()
    if parent is None:
        return None
    return TraceContext(
        trace_id=parent.trace_id or answer_id.partition("-")[2],
        span_id=new_span_id() if parent.is_exported else "",
        parent_id=parent.span_id,
        is_sampled=parent.is_sampled,
        state=parent.state,
        is_exported=parent.is_exported,
    )


def new_span_id() -> str:
    return new_id("")[1:17]


def headers_for(trace: TraceContext, span_id: str) -> bytes:
    """Return the header lines of a call whose span has this id.

    If no spans are exported, the client's own is passed on.
    """
    span_id = span_id or trace.parent_id
    flags = "01" if trace.is_sampled else "00"
    line = f"traceparent: 00-{trace.trace_id}-{span_id}-{flags}\r\n"
    return (f"{line}tracestate: {trace.state}\r\n" if trace.state else line).encode()
