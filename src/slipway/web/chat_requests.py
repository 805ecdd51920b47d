"""Check chat requests, and prepare the call that a model gets. Fields that we do not need are passed
on unchanged.
"""

from collections.abc import Iterable
from typing import Any, Literal

import msgspec

from slipway.errors import BadRequest
from slipway.providers import Call, encode_json
from slipway.types import Message, Record
from slipway.web.request_json import FIXES, parse_json

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


decode_chat = msgspec.json.Decoder(ChatRequest).decode
decode_content = msgspec.json.Decoder(str | list[dict[str, Any]] | None).decode


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
