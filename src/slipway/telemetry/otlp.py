"""Write records as spans of OpenTelemetry, in the binary form of OTLP (opentelemetry-proto 1.x).

Spans are written from finished records, in batches, so that a span takes a few microseconds; the
message classes of `opentelemetry-proto` take 25 to 50 (docs/decisions/019-traces.md). Attributes
follow the semantic conventions for generative AI: the answer of an app is a workflow, a search is a
`retrieval`, and each call of a model is a `chat`.
"""

import struct
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

from slipway.prices import PICO
from slipway.telemetry.trace_files import TimedRecord
from slipway.types import AnswerDone, AttemptDone, StageTaken, TraceContext, new_id

INTERNAL, SERVER, CLIENT = 1, 2, 3  # SpanKind
ERROR = b"\x7a\x02\x18\x02"  # status: {code: STATUS_CODE_ERROR}
APP_STAGES = frozenset({"rules", "planning", "knowledge", "prompt"})
NANO = 1_000_000_000
Value = str | int | float | bool

_times = struct.Struct("<cQcQ").pack  # start (field 7) and end (field 8), each fixed64
_double = struct.Struct("<d").pack


def varint(number: int) -> bytes:
    """Write a number of seven bits a byte, the lowest first."""
    if 0 <= number < 0x80:
        return bytes((number,))
    if 0 <= number < 0x4000:
        return bytes((number & 0x7F | 0x80, number >> 7))
    found = bytearray()
    number &= (1 << 64) - 1
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    found.append(number)
    return bytes(found)


def message(tag: int, content: bytes) -> bytes:
    """Write a field whose value has a length: a text, bytes, or a message."""
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    return bytes((tag,)) + varint(size) + content


class AttributeKey:
    """A key whose values are written often: what is before the value is written once."""

    def __init__(self, key: str) -> None:
        self._key = message(0x0A, key.encode())
        size = len(self._key) + 11  # a double, its tag, and the tag and size of AnyValue
        self._double = b"\x4a%c%b\x12\x09\x21" % (size, self._key)
        self._size = len(self._key)

    def number(self, value: float) -> bytes:
        return self._double + _double(value)

    def count(self, value: int) -> bytes:
        written = varint(value)
        size = len(written) + 1
        before = bytes((0x4A, self._size + size + 2)) + self._key
        return before + bytes((0x12, size, 0x18)) + written

    def text(self, value: str) -> bytes:
        written = value.encode()
        size = len(written)
        if self._size + size + 4 >= 0x80:
            return message(0x4A, self._key + message(0x12, message(0x0A, written)))
        before = bytes((0x4A, self._size + size + 4)) + self._key
        return before + bytes((0x12, size + 2, 0x0A, size)) + written


ANSWER_ID, COST = AttributeKey("slipway.answer.id"), AttributeKey("slipway.cost_usd")
FIRST_TOKEN = AttributeKey("slipway.time_to_first_token")
FIRST_CHUNK = AttributeKey("gen_ai.response.time_to_first_chunk")
INPUT = AttributeKey("gen_ai.usage.input_tokens")
OUTPUT = AttributeKey("gen_ai.usage.output_tokens")
CACHED = AttributeKey("gen_ai.usage.cache_read.input_tokens")
RESPONSE_ID = AttributeKey("gen_ai.response.id")


def attribute(key: str, value: Value, tag: int = 0x4A) -> bytes:
    """Write a KeyValue; the tag is that of `attributes` in a span (field 9)."""
    if isinstance(value, str):
        written = message(0x0A, value.encode())
    elif isinstance(value, bool):
        written = b"\x10" + varint(value)
    elif isinstance(value, int):
        written = b"\x18" + varint(value)
    else:
        written = b"\x21" + _double(value)
    return message(tag, message(0x0A, key.encode()) + message(0x12, written))


def span(
    trace: TraceContext,
    span_id: bytes,
    parent_id: bytes,
    *,
    name: str,
    kind: int,
    ended_at: float,
    duration_s: float,
    attributes: Sequence[bytes],
    is_error: bool,
) -> bytes:
    """Write a Span as an entry of `spans` (field 2 of ScopeSpans)."""
    end = int(ended_at * NANO)
    start = end - int(duration_s * NANO)
    state = message(0x1A, trace.state.encode()) if trace.state else b""
    parts = (
        b"\x0a\x10" + bytes.fromhex(trace.trace_id) + b"\x12\x08" + span_id + state,
        b"\x22\x08" + parent_id if parent_id else b"",
        named(name, kind),
        _times(b"\x39", start, b"\x41", end),
        *attributes,
        ERROR if is_error else b"",
    )
    return message(0x12, b"".join(parts))


@lru_cache(maxsize=10_000)
def named(name: str, kind: int) -> bytes:
    """Write the name and the kind of a span."""
    return message(0x2A, name.encode()) + bytes((0x30, kind))


def spans_of(records: Iterable[TimedRecord]) -> list[bytes]:
    """Return the spans of all records that belong to a sampled trace."""
    found = list[bytes]()
    for ended_at, record in records:
        if isinstance(record, AnswerDone) and record.trace is not None:
            found += answer_spans(ended_at, record, record.trace)
        elif isinstance(record, AttemptDone) and record.trace is not None and record.span:
            found.append(chat_span(ended_at, record, record.trace))
    return found


def is_wanted(record: object) -> bool:
    """Return whether a record becomes a span."""
    trace = getattr(record, "trace", None)
    return trace is not None and trace.is_sampled and trace.is_exported


def answer_spans(ended_at: float, a: AnswerDone, trace: TraceContext) -> list[bytes]:
    """Return the span of an answer, and those of its stages."""
    is_app = a.endpoint == "answers" or any(each.name in APP_STAGES for each in a.stages)
    own = bytes.fromhex(trace.span_id)
    attributes = [
        answer_facts(a.app, a.endpoint, a.tenant, a.served_by, a.cache, a.error, is_app=is_app),
        ANSWER_ID.text(a.id),
        COST.number(a.cost / PICO) if a.cost is not None else b"",
        FIRST_TOKEN.number(a.ttft_s) if a.ttft_s is not None else b"",
    ]
    whole = span(
        trace,
        own,
        bytes.fromhex(trace.parent_id),
        name=f"{'invoke_workflow' if is_app else 'proxy'} {a.app}",
        kind=SERVER,
        ended_at=ended_at,
        duration_s=a.duration_s,
        attributes=attributes,
        is_error=a.error is not None,
    )
    if not a.stages:
        return [whole]
    began_at = ended_at - a.duration_s
    return [whole, *(stage_span(began_at, s, a.app, trace, own) for s in a.stages)]


@lru_cache(maxsize=10_000)
def answer_facts(
    app: str,
    endpoint: str,
    tenant: str,
    served_by: str | None,
    cache: str | None,
    error: str | None,
    *,
    is_app: bool,
) -> bytes:
    """Return the attributes that many answers share."""
    what: dict[str, Value | None] = {
        "slipway.app": app,
        "slipway.endpoint": endpoint,
        "slipway.tenant": tenant,
        "slipway.served_by": served_by,
        "slipway.cache": cache,
        "error.type": error,
    }
    if is_app:
        what |= {"gen_ai.operation.name": "invoke_workflow", "gen_ai.workflow.name": app}
    return attributes_of(what)


def attributes_of(what: Mapping[str, Value | None]) -> bytes:
    return b"".join(attribute(key, value) for key, value in what.items() if value is not None)


def stage_span(
    began_at: float, s: StageTaken, app: str, trace: TraceContext, parent_id: bytes
) -> bytes:
    """Return the span of a stage."""
    attributes = [
        attribute(f"slipway.{s.name}.{key}", value) for key, value in s.facts if value is not None
    ]
    is_search = s.name == "knowledge"
    if is_search:
        search: dict[str, Value | None] = {"gen_ai.operation.name": "retrieval"}
        attributes.append(attributes_of({**search, "gen_ai.data_source.id": app}))
    if s.error is not None:
        attributes.append(attribute("error.type", s.error))
    return span(
        trace,
        bytes.fromhex(new_id("")[1:17]),
        parent_id,
        name=f"retrieval {app}" if is_search else s.name,
        kind=INTERNAL,
        ended_at=began_at + s.began_s + s.duration_s,
        duration_s=s.duration_s,
        attributes=attributes,
        is_error=s.error is not None,
    )


def chat_span(ended_at: float, a: AttemptDone, trace: TraceContext) -> bytes:
    """Return the span of a call to a model."""
    attributes = [
        chat_facts(a.provider, a.model, a.zone, a.role, a.kind, a.error, a.status, used=a.used),
        COST.number(a.cost / PICO) if a.cost is not None else b"",
        RESPONSE_ID.text(a.upstream) if a.upstream else b"",
        FIRST_CHUNK.number(a.ttft_s) if a.ttft_s is not None else b"",
    ]
    if a.usage is not None:
        attributes += [INPUT.count(a.usage.input_tokens), OUTPUT.count(a.usage.output_tokens)]
        if a.usage.cached_tokens:
            attributes.append(CACHED.count(a.usage.cached_tokens))
    return span(
        trace,
        bytes.fromhex(a.span),
        bytes.fromhex(trace.span_id),
        name=f"chat {a.model}",
        kind=CLIENT,
        ended_at=ended_at,
        duration_s=a.duration_s,
        attributes=attributes,
        is_error=a.error is not None,
    )


@lru_cache(maxsize=10_000)
def chat_facts(
    provider: str,
    model: str,
    zone: str,
    role: str,
    kind: str,
    error: str | None,
    status: int | None,
    *,
    used: bool,
) -> bytes:
    """Return the attributes that many calls share."""
    return attributes_of(
        {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": provider,
            "gen_ai.request.model": model,
            "gen_ai.response.model": model,
            "slipway.zone": zone,
            "slipway.role": role,
            "slipway.attempt": kind,
            "slipway.used": used,
            "http.response.status_code": status,
            "error.type": error,
        }
    )


def request_of(spans: Sequence[bytes], resource: bytes, scope: bytes) -> bytes:
    """Return an ExportTraceServiceRequest."""
    return message(0x0A, resource + message(0x12, scope + b"".join(spans)))


def resource_of(attributes: Mapping[str, str]) -> bytes:
    """Return a Resource as the field of ResourceSpans."""
    return message(0x0A, b"".join(attribute(key, value, 0x0A) for key, value in attributes.items()))


def scope_of(name: str, version: str) -> bytes:
    """Return an InstrumentationScope as the field of ScopeSpans."""
    return message(0x0A, message(0x0A, name.encode()) + message(0x12, version.encode()))
