"""Translate between OpenAI's JSON and SSE and our types. Fields that we do not need are passed on
unchanged.
"""

import re
import time
from collections.abc import Iterable
from typing import Any, Literal

import msgspec

from slipway.catalogue import reader_sentences
from slipway.errors import BadRequest, SlipwayError
from slipway.providers import Call, encode_json
from slipway.types import (
    Citation,
    Delta,
    Done,
    Event,
    Failed,
    Language,
    Message,
    Notice,
    Progress,
    ReaderText,
    Record,
    SectionState,
    Source,
    SourceFound,
    Usage,
    UsageReport,
    Within,
)

Roles = Literal["system", "developer", "user", "assistant", "tool", "function"]
CONTENT_STARTS = frozenset(b'"[n')  # a string, a list of parts, null
SLIPWAY_FIELDS = frozenset(
    {"model", "messages", "stream", "stream_options", "within"}
)  # fields of a chat request that are not model parameters


class ChatMessageBody(msgspec.Struct):
    role: Roles
    content: msgspec.Raw = msgspec.Raw()


class ChatRequest(msgspec.Struct):
    """The fields that are read of a chat request. `content` stays raw: a proxy never needs it."""

    model: str
    messages: list[ChatMessageBody]
    stream: bool | None = None
    stream_options: dict[str, Any] | msgspec.UnsetType | None = msgspec.UNSET
    n: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class AnswerRequest(msgspec.Struct, forbid_unknown_fields=True):
    question: str | None = None
    messages: list[dict[str, Any]] | None = None
    app: str | None = None
    stream: bool = False
    within: Within | None = None
    attachments: tuple[str, ...] = ()


decode_chat = msgspec.json.Decoder(ChatRequest).decode
decode_answer = msgspec.json.Decoder(AnswerRequest).decode
decode_content = msgspec.json.Decoder(str | list[dict[str, Any]] | None).decode
PLACE = re.compile(r" - at `\$\.?(.*)`$")
MISSING = re.compile(r"Object missing required field `(\w+)`")
UNKNOWN = re.compile(r"Object contains unknown field `([^`]+)`")
TOO_LONG = re.compile(r"Expected `(str|array)` of length <= (\d+)")
MAX_ECHO = 300  # characters of what a client sent that an error message repeats
WRONG_TYPE = re.compile(r"Expected `([^`]+)`, got `([^`]+)`")
KINDS = {
    "array": "a list",
    "object": "an object",
    "str": "a string",
    "bool": "true or false",
    "int": "a whole number",
    "null": "null",
    "float": "a number",
}
FIXES = {
    "messages": 'Send a list, such as `"messages": [{"role": "user", "content": "Hello"}]`.',
    "model": 'Name a model, such as `"model": "NAME"`; GET /v1/models lists them.',
    "stream": "Send `true` or `false`.",
    "answer": "Send the id of an answer, such as `ans-…`.",
    "kind": "Send `vote` or `report`.",
    "helpful": "Send `true` or `false`.",
    "reasons": 'Send a list, such as `"reasons": ["wrong"]`.',
    "section": "Send the index of a section, from 0; leave it out for the whole answer.",
    "within": 'Send any of `{"path": "guide/**", "tags": ["a"], '
    '"since": "2026-01-01", "until": "2026-12-31"}`.',
}


def parse_json(body: bytes, decode: Any, encoding: str = "utf-8") -> Any:
    """Return the decoded body. Raise BadRequest that names the invalid field and the fix."""
    try:
        if not body.isascii():
            body.decode(encoding)  # msgspec does not look into text that it only passes on
        return decode(body)
    except msgspec.ValidationError as error:
        raise bad_request_from(clipped(str(error))) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        what = (
            "The body is empty."
            if not body.strip()
            else f"The body is not valid JSON: {str(error).replace('JSON is malformed: ', '')}."
        )
        raise BadRequest(what, "Send a JSON object in UTF-8.") from None
    except RecursionError:
        raise BadRequest(
            "The JSON of the body is nested too deeply.", "Send a flatter object."
        ) from None


def clipped(text: str, longest: int = MAX_ECHO) -> str:
    """Return a text without its middle if it is too long: a client may send long field names."""
    return text if len(text) <= longest else f"{text[: longest // 2]}…{text[-longest // 2 :]}"


def bad_request_from(message: str) -> BadRequest:
    """Turn a message of msgspec into an error that names the field and the fix."""
    place = PLACE.search(message)
    param = place[1] if place else ""
    what = PLACE.sub("", message)
    if found := MISSING.search(what):
        param = f"{param}.{found[1]}" if param else found[1]
        what = f"`{param}` is missing."
    elif found := UNKNOWN.search(what):
        param = f"{param}.{found[1]}" if param else found[1]
        what = f"There is no field `{param}`."
    elif found := WRONG_TYPE.search(what):
        expected, got = (
            " or ".join(KINDS.get(k, k) for k in g.split(" | ")) for g in found.groups()
        )
        what = (
            f"`{param}` must be {expected}, not {got}."
            if param
            else f"The body must be {expected}, not {got}."
        )
    elif found := TOO_LONG.search(what):
        unit = "characters" if found[1] == "str" else "items"
        what = f"`{param}` is longer than {found[2]} {unit}."
    elif param.endswith("role"):
        what = f"`{param}` is not a role; known: system, developer, user, assistant, tool."
    else:
        what = f"`{param}`: {what}." if param else f"{what}."
    return BadRequest(what, FIXES.get(param.split("[")[0].split(".")[0]), param=param or None)


class Chat(Record, frozen=True, kw_only=True):
    """A checked chat request. For a model or route, `call` is all that is needed."""

    model: str
    request: ChatRequest
    call: Call
    progress_wanted: bool


def parse_chat(body: bytes) -> ChatRequest:
    """Return the fields that are read of a chat request. Raise BadRequest for an invalid one."""
    request: ChatRequest = parse_json(body, decode_chat)
    messages = request.messages
    if not messages:
        raise BadRequest("`messages` is empty.", FIXES["messages"], param="messages")
    for i, message in enumerate(messages):
        content = memoryview(message.content)
        if content and content[0] not in CONTENT_STARTS:
            raise BadRequest(
                f"`messages[{i}].content` must be a string or a list of parts.",
                FIXES["messages"],
                param=f"messages[{i}].content",
            )
    return request


def prepare_chat(request: ChatRequest, body: bytes) -> Chat:
    """Return a checked request with the call that a model gets."""
    options, usage_wanted, progress_wanted = request.stream_options, False, False
    if options is not msgspec.UNSET:  # also if it is null: the model must get it only once
        body = without_field(body, "stream_options")
    if options:
        options = dict(options)
        usage_wanted = bool(options.pop("include_usage", False))
        progress_wanted = bool(options.pop("include_progress", False))
    body, name_at = locate_model_name(body, request.model)
    call = Call(
        body=body,
        name_at=name_at,
        stream=bool(request.stream),
        usage_wanted=usage_wanted,
        stream_options=options or {},
        is_single=request.n is msgspec.UNSET,
    )
    return Chat(model=request.model, request=request, call=call, progress_wanted=progress_wanted)


def without_field(body: bytes, field: str) -> bytes:
    """Return a JSON object's text without one of its fields."""
    fields = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    fields.pop(field, None)
    return encode_json(fields)


def locate_model_name(body: bytes, model: str) -> tuple[bytes, tuple[int, int]]:
    """Return the body and the place (start, end) of the model's name in it.

    A route can then replace the name without encoding the body again. The client's own bytes are
    used only if the key occurs once and no character is written as an escape. Otherwise the body is
    encoded again, which also resolves a duplicate key: the last one wins, as in our decoder.
    """
    at = body.find(b'"model"')
    # from the end, since CPython then finds it in half the time. No name without escapes has \\u006,
    # by which each letter of `model` can be escaped
    if at >= 0 and body.rfind(b'"model"') == at and body.rfind(b"\\u006") < 0:
        start = at + 7
        while body[start] in b" \t\r\n:":
            start += 1
        name = encode_json(model)
        if body.startswith(name, start):
            return body, (start, start + len(name))
    fields = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    fields.pop("model", None)
    name = encode_json(model)
    rest = encode_json(fields)
    return b'{"model":%b%b%b' % (name, b"," if fields else b"", rest[1:]), (9, 9 + len(name))


def conversation(request: ChatRequest) -> tuple[Message, ...]:
    """Return the messages of a chat request with decoded content, as an app needs them."""
    return tuple(
        Message(role=m.role, content=content_of(i, m)) for i, m in enumerate(request.messages)
    )


def content_of(i: int, message: ChatMessageBody) -> str | list[dict[str, Any]] | None:
    """Return the decoded content of message `i`. Raise BadRequest."""
    try:
        return decode_content(message.content) if bytes(message.content) else None
    except msgspec.ValidationError:
        what = f"`messages[{i}].content` must be a string or a list of parts, each an object."
        raise BadRequest(what, FIXES["messages"], param=f"messages[{i}].content") from None


def question_text(messages: Iterable[Message]) -> str:
    """Return the text of the last user turn. Raise BadRequest if it has none."""
    for message in reversed(tuple(messages)):
        if message.role == "user":
            content = message.content
            if isinstance(content, list):
                content = "\n".join(
                    str(p.get("text") or "") for p in content if p.get("type") == "text"
                )
            if content and content.strip():
                return content.strip()
            break
    raise BadRequest(
        "The last user message has no text.", "Write a question in it.", param="messages"
    )


# Errors


def envelope(error: SlipwayError, ref: str, language: Language) -> dict[str, Any]:
    """Return an error in OpenAI's form, with our fields under `slipway`.

    `language` is the language of the person who asked.
    """
    return {
        "error": {
            "message": f"{error.what} {error.next}".strip(),
            "type": error.type,
            "param": error.param,
            "code": error.code,
            "slipway": {
                "what": error.what,
                "next": error.next,
                "retryable": error.retryable,
                "retry_after_s": error.retry_after_s,
                "ref": ref,
                "reader": reader_text(error, language),
            },
        }
    }


def reader_text(error: SlipwayError, language: Language) -> ReaderText:
    """Return the error message for the person who asked."""
    what, then = reader_sentences(error, language)
    return ReaderText(what=what, next=then, language=language)


def failed_event(
    error: SlipwayError, ref: str, language: Language, section: int | None = None
) -> Failed:
    return Failed(
        code=error.code,
        what=error.what,
        next=error.next,
        retryable=error.retryable,
        retry_after_s=error.retry_after_s,
        ref=ref,
        section=section,
        reader=reader_text(error, language),
    )


def sse(data: Any) -> bytes:
    """Return data as one server-sent event."""
    return b"data: %b\n\n" % encode_json(data)


# Our own events

EVENT_NAMES: dict[type[Event], str] = {
    Progress: "progress",
    SourceFound: "source",
    SectionState: "section",
    Delta: "delta",
    Citation: "citation",
    Notice: "notice",
    UsageReport: "usage",
    Failed: "error",
    Done: "done",
}


def event_data(event: Event) -> Any:
    """Return an event's data, as the table of events in docs/api.md shows it."""
    if isinstance(event, SourceFound):
        return event.source
    if isinstance(event, UsageReport):
        return {
            "model": event.model,
            **msgspec.structs.asdict(event.usage),
            "cost_usd": event.cost_usd,
        }
    return event


def event_sse(number: int, event: Event) -> bytes:
    """Return one of our own events as a server-sent event with its number as id."""
    return b"id: %d\nevent: %b\ndata: %b\n\n" % (
        number,
        EVENT_NAMES[type(event)].encode(),
        encode_json(event_data(event)),
    )


# An app's answer as OpenAI would give it


def section_heading(title: str, *, first: bool) -> str:
    """Return what precedes a section's text if all sections are joined into one text."""
    return ("" if first else "\n\n") + (f"## {title}\n\n" if title else "")


class WholeAnswer:
    """The state of an answer after all events that `take` received."""

    def __init__(self) -> None:
        self.texts: dict[int, list[str]] = {}
        self.citations: list[Citation] = []
        self.sources: dict[int, Source] = {}
        self.sections: dict[int, SectionState] = {}
        self.notices: list[Notice] = []
        self.usage: UsageReport | None = None
        self.done: Done | None = None

    def take(self, event: Event) -> None:
        """Apply an event."""
        if isinstance(event, Delta):
            self.texts.setdefault(event.section, []).append(event.text)
        elif isinstance(event, Citation):
            self.citations.append(event)
        elif isinstance(event, SourceFound):
            self.sources[event.source.n] = event.source
        elif isinstance(event, SectionState):
            self.section(event)
        elif isinstance(event, Notice):
            self.notices.append(event)
        elif isinstance(event, UsageReport):
            self.usage = event
        elif isinstance(event, Done):
            self.done = event

    def section(self, event: SectionState) -> None:
        """Apply a section's state; a section that starts again begins empty."""
        if event.state == "started":
            self.texts[event.index] = []
            self.citations = [c for c in self.citations if c.section != event.index]
            self.notices = [n for n in self.notices if n.section != event.index]
        self.sections[event.index] = event

    def whole(self) -> tuple[str, dict[int, tuple[int, int]]]:
        """Return the joined text, and (start, end) of each section's own text in it."""
        text, places = "", dict[int, tuple[int, int]]()
        for index in sorted(self.texts):
            own = "".join(self.texts[index])
            state = self.sections.get(index)
            if own:
                text += section_heading(state.title if state else "", first=not text)
            places[index] = (len(text), len(text) + len(own))
            text += own
        return text, places


def whole_answer(answer_id: str, events: Iterable[Event]) -> dict[str, Any]:
    """Return an answer as JSON from its events: the body of `/v1/answers` without streaming.

    Here the offsets of citations count from the beginning of the whole text.
    """
    folding = WholeAnswer()
    for event in events:
        folding.take(event)
    usage, done = folding.usage, folding.done
    text, places = folding.whole()
    cited = {c.n for c in folding.citations}
    return {
        "id": answer_id,
        "text": text,
        "served_by": done.served_by if done else None,
        "model": done.model if done else None,
        "abstained": done.abstained if done else False,
        "sources": [
            msgspec.structs.replace(s, cited=s.n in cited) for s in folding.sources.values()
        ],
        "citations": [shift_citation(c, places[c.section][0]) for c in folding.citations],
        "sections": [
            section_wire(section, *places.get(section.index, (0, 0)))
            for section in folding.sections.values()
        ],
        "usage": usage.usage if usage else None,
        "cost_usd": usage.cost_usd if usage else None,
        "notices": folding.notices,
        "attempts": done.attempts if done else 0,
        "ttft_s": done.ttft_s if done else None,
        "prompt": done.prompt if done else None,
        "duration_s": done.duration_s if done else None,
        "cache": done.cache if done else None,
    }


def shift_citation(citation: Citation, by: int) -> Citation:
    """Return a citation with its offsets moved by `by` characters."""
    return (
        msgspec.structs.replace(citation, start=citation.start + by, end=citation.end + by)
        if by
        else citation
    )


def section_wire(section: SectionState, start: int, end: int) -> dict[str, Any]:
    return {**msgspec.structs.asdict(section), "start": start, "end": end}


def annotations(citations: Iterable[Any], sources: Iterable[Source]) -> list[dict[str, Any]]:
    """Return citations in OpenAI's form; flags are added under `slipway`."""
    by_n = {s.n: s for s in sources}
    return [
        {
            "type": "url_citation",
            "url_citation": {
                "start_index": c.start,
                "end_index": c.end,
                "url": f"/v1/passages/{by_n[c.n].id}",
                "title": f"{by_n[c.n].path} - {by_n[c.n].heading}",
            },
            **({"slipway": {"flags": c.flags}} if c.flags else {}),
        }
        for c in citations
    ]


def chat_completion(answer: dict[str, Any], app: str) -> dict[str, Any]:
    """Return an answer of `whole_answer` as a `chat.completion`."""
    return {
        "id": answer["id"],
        "object": "chat.completion",
        "created": int(time.time()),
        "model": answer["model"] or app,
        "choices": [
            {
                "index": 0,
                "finish_reason": finish_reason(answer["notices"]),
                "logprobs": None,
                "message": {
                    "role": "assistant",
                    "content": answer["text"],
                    "refusal": None,
                    "annotations": annotations(answer["citations"], answer["sources"]),
                },
            }
        ],
        "usage": usage_wire(answer["usage"]),
        "slipway": {
            k: answer[k]
            for k in (
                *("id", "served_by", "model", "abstained", "attempts", "cost_usd", "notices"),
                "cache",
            )
        }
        | {"sources": answer["sources"]},
    }


def finish_reason(notices: Iterable[Notice]) -> str:
    """Return OpenAI's finish reason: `length` or `content_filter` if a notice has this code."""
    return next(
        (notice.code for notice in notices if notice.code in ("length", "content_filter")), "stop"
    )


def usage_wire(usage: Usage | None) -> dict[str, Any]:
    """Return usage in OpenAI's form."""
    usage = usage or Usage()
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }


class ChunkWriter:
    """Turns an app's events into the chunks of an OpenAI stream."""

    def __init__(
        self, answer_id: str, app: str, *, usage_wanted: bool, progress_wanted: bool
    ) -> None:
        self.id, self.app, self.usage_wanted, self.progress_wanted = (
            answer_id,
            app,
            usage_wanted,
            progress_wanted,
        )
        self.created = int(time.time())
        self.sources: list[Source] = []
        self.citations: list[Citation] = []
        self.notices: list[Notice] = []
        self.usage: Usage | None = None
        self.titles: dict[int, str] = {}
        self.section = -1  # the current section
        self.sent = 0  # characters of the text sent so far
        self.starts = 0  # offset of the current section's own text

    def chunk(self, choices: list[dict[str, Any]], **more: Any) -> bytes:
        head = {
            "id": self.id,
            "object": "chat.completion.chunk",
            "created": self.created,
            "model": self.app,
        }
        return sse({**head, "choices": choices, **more})

    def delta(self, delta: dict[str, Any], finish: str | None = None, **more: Any) -> bytes:
        return self.chunk(
            [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}], **more
        )

    def begin(self) -> bytes:
        """Return the first chunk, which names the role."""
        return self.delta({"role": "assistant", "content": ""})

    def event(self, event: Event) -> bytes:
        """Return the chunks of an event; empty if OpenAI has no form for it."""
        if isinstance(event, Delta):
            return self.delta({"content": self.text(event)})
        if isinstance(event, SectionState):
            self.titles[event.index] = event.title
            return self.chunk([], slipway={"section": event}) if self.progress_wanted else b""
        if isinstance(event, Progress):
            return self.chunk([], slipway={"progress": event}) if self.progress_wanted else b""
        if isinstance(event, SourceFound):
            self.sources.append(event.source)
            return self.chunk([], slipway={"source": event.source}) if self.progress_wanted else b""
        if isinstance(event, Citation):
            self.citations.append(shift_citation(event, self.starts))
        elif isinstance(event, Notice):
            self.notices.append(event)
        elif isinstance(event, UsageReport):
            self.usage = event.usage
        elif isinstance(event, Done):
            return self.end(event)
        return b""

    def text(self, event: Delta) -> str:
        """Return the text of a delta, with the section's title before its first words."""
        text = event.text
        if event.section != self.section:
            title = section_heading(self.titles.get(event.section, ""), first=not self.sent)
            self.section, self.starts = event.section, self.sent + len(title)
            text = title + text
        self.sent += len(text)
        return text

    def end(self, done: Done) -> bytes:
        """Return the last chunks: annotations and sources, usage if it was asked for, `[DONE]`."""
        marks, cited = annotations(self.citations, self.sources), {c.n for c in self.citations}
        sources = [msgspec.structs.replace(s, cited=s.n in cited) for s in self.sources]
        facts = {
            "id": done.id,
            "served_by": done.served_by,
            "model": done.model,
            "abstained": done.abstained,
            "attempts": done.attempts,
            "cache": done.cache,
        }
        why = finish_reason(self.notices)
        last = self.delta(
            {"annotations": marks} if marks else {},
            why,
            slipway={**facts, "notices": self.notices, "sources": sources},
        )
        usage = self.chunk([], usage=usage_wire(self.usage)) if self.usage_wanted else b""
        return last + usage + b"data: [DONE]\n\n"
