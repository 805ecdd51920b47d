"""OpenAI's JSON and SSE <-> our words. A body is parsed once; what is not ours to read is passed on
as it came.
"""

import re
import time
from collections.abc import Iterable
from typing import Any, Literal

import msgspec

from slipway.catalogue import sentences
from slipway.errors import BadRequest, SlipwayError
from slipway.providers import Call, encode_json
from slipway.types import (
    Citation,
    Delta,
    Done,
    Event,
    Failed,
    ForReader,
    Language,
    Message,
    Notice,
    Progress,
    Record,
    SectionState,
    Source,
    SourceFound,
    Usage,
    UsageReport,
    Within,
)

Roles = Literal["system", "developer", "user", "assistant", "tool", "function"]
OURS = frozenset(
    {"model", "messages", "stream", "stream_options", "within"}
)  # the fields of a chat request that a model's parameters are not


class WireMessage(msgspec.Struct):
    role: Roles
    content: msgspec.Raw = msgspec.Raw()


class ChatRequest(msgspec.Struct):
    """What is read of a chat request. `content` stays raw: a bare model's proxy never looks into
    it.
    """

    model: str
    messages: list[WireMessage]
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None


class AnswerRequest(msgspec.Struct, forbid_unknown_fields=True):
    question: str | None = None
    messages: list[dict[str, Any]] | None = None
    app: str | None = None
    stream: bool = False
    within: Within | None = None


decode_chat = msgspec.json.Decoder(ChatRequest).decode
decode_answer = msgspec.json.Decoder(AnswerRequest).decode
decode_content = msgspec.json.Decoder(str | list[dict[str, Any]] | None).decode
PLACE = re.compile(r" - at `\$\.?(.*)`$")
MISSING = re.compile(r"Object missing required field `(\w+)`")
UNKNOWN = re.compile(r"Object contains unknown field `(\w+)`")
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
    "within": 'Send any of `{"path": "guide/**", "tags": ["a"], "since": "2026-01-01", "until": "2026-12-31"}`.',
}


def parse_json(body: bytes, decode: Any, encoding: str = "utf-8") -> Any:
    """The decoded body, or a BadRequest that names the field and the fix."""
    try:
        return decode(body)
    except msgspec.ValidationError as error:
        raise invalid(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        what = (
            "The body is empty."
            if not body.strip()
            else f"The body is not valid JSON: {str(error).replace('JSON is malformed: ', '')}."
        )
        raise BadRequest(what, "Send a JSON object in UTF-8.") from None
    except RecursionError:
        raise BadRequest(
            "The body's JSON is nested too deeply.", "Send a flatter object."
        ) from None


def invalid(message: str) -> BadRequest:
    """msgspec's finding, as a sentence that names the field and the fix."""
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
    elif param.endswith("role"):
        what = f"`{param}` is not a role; known: system, developer, user, assistant, tool."
    else:
        what = f"`{param}`: {what}." if param else f"{what}."
    return BadRequest(what, FIXES.get(param.split("[")[0].split(".")[0]), param=param or None)


class Chat(Record, frozen=True, kw_only=True):
    """A chat request, checked: for a bare model the `call` is all there is to know."""

    model: str
    request: ChatRequest
    call: Call
    progress_wanted: bool


def parse_chat(body: bytes) -> Chat:
    request: ChatRequest = parse_json(body, decode_chat)
    messages = request.messages
    if not messages:
        raise BadRequest("`messages` is empty.", FIXES["messages"], param="messages")
    for i, message in enumerate(messages):
        raw = (
            bytes(message.content[:1])
            if isinstance(message.content, bytes)
            else memoryview(message.content)[:1].tobytes()
        )
        if raw not in (b'"', b"[", b"n", b""):
            raise BadRequest(
                f"`messages[{i}].content` must be a string or a list of parts.",
                FIXES["messages"],
                param=f"messages[{i}].content",
            )
    options, usage_wanted, progress_wanted = request.stream_options, False, False
    if options is not None:
        body = without(body, "stream_options")
        options = dict(options)
        usage_wanted = bool(options.pop("include_usage", False))
        progress_wanted = bool(options.pop("include_progress", False))
    body, name_at = name_place(body, request.model)
    call = Call(
        body=body,
        name_at=name_at,
        stream=bool(request.stream),
        usage_wanted=usage_wanted,
        stream_options=options or {},
    )
    return Chat(model=request.model, request=request, call=call, progress_wanted=progress_wanted)


def without(body: bytes, field: str) -> bytes:
    fields = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    fields.pop(field, None)
    return encode_json(fields)


def name_place(body: bytes, model: str) -> tuple[bytes, tuple[int, int]]:
    """Where in the body the model's name stands, so that it can be replaced without encoding the
    rest again.

    Only where it cannot be mistaken is the client's own text used: the key occurs once, and no
    letter is written as an escape. Else the body is encoded again, which also settles a key given
    twice (the last counts, as it did when we read it).
    """
    at = body.find(b'"model"')
    if at >= 0 and body.find(b'"model"', at + 7) < 0 and b"\\u00" not in body:
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
    """The messages of a chat request, as an app reads them."""
    return tuple(
        Message(role=m.role, content=content_of(i, m)) for i, m in enumerate(request.messages)
    )


def content_of(i: int, message: WireMessage) -> str | list[dict[str, Any]] | None:
    try:
        return decode_content(message.content) if bytes(message.content) else None
    except msgspec.ValidationError:
        what = f"`messages[{i}].content` must be a string or a list of parts, each an object."
        raise BadRequest(what, FIXES["messages"], param=f"messages[{i}].content") from None


def asked(messages: Iterable[Message]) -> str:
    """The text of the last user turn, which is the question."""
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
        "The last user message holds no text.", "Ask something in it.", param="messages"
    )


# Errors


def envelope(error: SlipwayError, ref: str, language: Language) -> dict[str, Any]:
    """OpenAI's error envelope, with our fields beside its own; `language` is that of the person who
    asked.
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
                "reader": for_reader(error, language),
            },
        }
    }


def for_reader(error: SlipwayError, language: Language) -> ForReader:
    what, then = sentences(error, language)
    return ForReader(what=what, next=then, language=language)


def failed(error: SlipwayError, ref: str, language: Language, section: int | None = None) -> Failed:
    return Failed(
        code=error.code,
        what=error.what,
        next=error.next,
        retryable=error.retryable,
        retry_after_s=error.retry_after_s,
        ref=ref,
        section=section,
        reader=for_reader(error, language),
    )


def sse(data: Any) -> bytes:
    return b"data: %b\n\n" % encode_json(data)


# Our own events

NAMES: dict[type[Event], str] = {
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
    """An event's data as the table of design section 5 has it."""
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
    return b"id: %d\nevent: %b\ndata: %b\n\n" % (
        number,
        NAMES[type(event)].encode(),
        encode_json(event_data(event)),
    )


# An app's answer as OpenAI would give it


def heading(title: str, *, first: bool) -> str:
    """What stands before a section's text where the whole is one text."""
    return ("" if first else "\n\n") + (f"## {title}\n\n" if title else "")


class Folding:
    """What the events so far come to."""

    def __init__(self) -> None:
        self.texts: dict[int, list[str]] = {}
        self.citations: list[Citation] = []
        self.sources: dict[int, Source] = {}
        self.sections: dict[int, SectionState] = {}
        self.notices: list[Notice] = []
        self.usage: UsageReport | None = None
        self.done: Done | None = None

    def take(self, event: Event) -> None:
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
        if event.state == "started":  # begun again after a failure: what it had said is said again
            self.texts[event.index] = []
            self.citations = [c for c in self.citations if c.section != event.index]
            self.notices = [n for n in self.notices if n.section != event.index]
        self.sections[event.index] = event

    def whole(self) -> tuple[str, dict[int, tuple[int, int]]]:
        """The text, and where in it each section's own stands."""
        text, places = "", dict[int, tuple[int, int]]()
        for index in sorted(self.texts):
            own = "".join(self.texts[index])
            state = self.sections.get(index)
            if own:
                text += heading(state.title if state else "", first=not text)
            places[index] = (len(text), len(text) + len(own))
            text += own
        return text, places


def fold(answer_id: str, events: Iterable[Event]) -> dict[str, Any]:
    """A whole answer from its events: the body of `/v1/answers` when it is not streamed. Citations
    are offsets in the whole text here.
    """
    folding = Folding()
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
        "citations": [moved(c, places[c.section][0]) for c in folding.citations],
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
    }


def moved(citation: Citation, by: int) -> Citation:
    return (
        msgspec.structs.replace(citation, start=citation.start + by, end=citation.end + by)
        if by
        else citation
    )


def section_wire(section: SectionState, start: int, end: int) -> dict[str, Any]:
    return {**msgspec.structs.asdict(section), "start": start, "end": end}


def annotations(citations: Iterable[Any], sources: Iterable[Source]) -> list[dict[str, Any]]:
    """OpenAI's form of citations; where one has flags, they stand beside it under `slipway`."""
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


def completion(answer: dict[str, Any], app: str) -> dict[str, Any]:
    """A folded answer as a `chat.completion`."""
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
            for k in ("id", "served_by", "model", "abstained", "attempts", "cost_usd", "notices")
        }
        | {"sources": answer["sources"]},
    }


def finish_reason(notices: Iterable[Notice]) -> str:
    """Why the text ended, as the model's provider said: the notices that tell of it are called like
    that.
    """
    return next(
        (notice.code for notice in notices if notice.code in ("length", "content_filter")), "stop"
    )


def usage_wire(usage: Usage | None) -> dict[str, Any]:
    usage = usage or Usage()
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }


class ChunkWriter:
    """An app's events -> the chunks that an OpenAI client reads."""

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
        self.section, self.said, self.starts = (
            -1,
            0,
            0,
        )  # the section that is written, the characters said, and where its text starts

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
        return self.delta({"role": "assistant", "content": ""})

    def event(self, event: Event) -> bytes:
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
            self.citations.append(moved(event, self.starts))
        elif isinstance(event, Notice):
            self.notices.append(event)
        elif isinstance(event, UsageReport):
            self.usage = event.usage
        elif isinstance(event, Done):
            return self.end(event)
        return b""

    def text(self, event: Delta) -> str:
        """With the section's title before its first words."""
        text = event.text
        if event.section != self.section:
            title = heading(self.titles.get(event.section, ""), first=not self.said)
            self.section, self.starts = event.section, self.said + len(title)
            text = title + text
        self.said += len(text)
        return text

    def end(self, done: Done) -> bytes:
        marks, cited = annotations(self.citations, self.sources), {c.n for c in self.citations}
        sources = [msgspec.structs.replace(s, cited=s.n in cited) for s in self.sources]
        facts = {
            "id": done.id,
            "served_by": done.served_by,
            "model": done.model,
            "abstained": done.abstained,
            "attempts": done.attempts,
        }
        why = finish_reason(self.notices)
        last = self.delta(
            {"annotations": marks} if marks else {},
            why,
            slipway={**facts, "notices": self.notices, "sources": sources},
        )
        usage = self.chunk([], usage=usage_wire(self.usage)) if self.usage_wanted else b""
        return last + usage + b"data: [DONE]\n\n"
