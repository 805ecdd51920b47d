"""The older `/v1/completions`: a prompt in, a text out, translated to and from chat completions."""

from collections.abc import Iterator
from typing import Any

import msgspec

from slipway.answer import Facts
from slipway.errors import BadRequest
from slipway.providers import encode_json
from slipway.providers.sse import Framer, data_of
from slipway.web.descriptions import TEXT, YES_NO, or_null
from slipway.web.event_stream import sse
from slipway.web.request_json import parse_json
from slipway.web.response_writer import HttpResponseWriter

UNSUPPORTED = ("suffix", "echo", "logprobs")  # chat completions have nothing like these


class CompletionRequest(msgspec.Struct):
    model: str
    prompt: str | list[Any] | None = None


COMPLETION_BODY = {
    "type": "object",
    "properties": {"model": TEXT, "prompt": TEXT, "stream": or_null(YES_NO)},
    "required": ["model", "prompt"],
}
decode_request = msgspec.json.Decoder(CompletionRequest).decode
decode_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def chat_body_of(body: bytes) -> bytes:
    """Return the chat request that is equivalent to a completion request. Raise BadRequest."""
    request: CompletionRequest = parse_json(body, decode_request)
    prompt = request.prompt
    if isinstance(prompt, list) and len(prompt) == 1:
        prompt = prompt[0]
    if not isinstance(prompt, str):
        raise BadRequest(
            "`prompt` must be one text.",
            "Send one string; token lists and several prompts are not supported.",
            param="prompt",
        )
    fields = decode_fields(body)
    for name in UNSUPPORTED:
        if bytes(fields.pop(name, msgspec.Raw(b"null"))) not in (b"null", b"false", b'""'):
            raise BadRequest(
                f"`{name}` is not supported here.",
                "Leave it out, or use /v1/chat/completions.",
                param=name,
            )
    if bytes(fields.pop("best_of", msgspec.Raw(b"null"))) not in (b"null", b"1"):
        raise BadRequest("`best_of` must be 1.", "Leave it out.", param="best_of")
    fields["prompt"] = msgspec.Raw(encode_json([{"role": "user", "content": prompt}]))
    return encode_json({"messages" if k == "prompt" else k: v for k, v in fields.items()})


class CompletionWriter(HttpResponseWriter):
    """Writes a chat answer in the form of `/v1/completions`."""

    __slots__ = ("framer",)

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.framer = Framer()

    def whole_body(self, body: bytes) -> bytes:
        """Return a chat completion as a text completion."""
        answer = msgspec.json.decode(body)
        return encode_json(text_completion(answer, "message"))

    def whole(self, body: bytes, facts: Facts) -> None:
        """Send a whole chat completion as a text completion."""
        super().whole(self.whole_body(body), facts)

    def take(self, events: bytes) -> bool:
        """Send encoded chat events as text completion events, as the base does."""
        if self.link.write_paused:  # they are translated once
            return False
        return super().take(b"".join(self.translated(events)))

    def translated(self, events: bytes) -> Iterator[bytes]:
        """Yield the events that are whole; comments, errors and `[DONE]` stay as they are."""
        for event in self.framer.feed(events):
            data = data_of(event)
            try:
                chunk = msgspec.json.decode(data) if data else None
            except msgspec.DecodeError:
                chunk = None
            if isinstance(chunk, dict) and "choices" in chunk:
                yield sse(text_completion(chunk, "delta"))
            else:
                yield event


def text_completion(answer: dict[str, Any], part: str) -> dict[str, Any]:
    """Return a chat completion (`part` is `message`) or chunk (`delta`) as a text completion."""
    choices = [
        {
            "index": choice.get("index", 0),
            "text": (choice.get(part) or {}).get("content") or "",
            "logprobs": None,
            "finish_reason": choice.get("finish_reason"),
        }
        for choice in answer["choices"] or ()
    ]
    return {**answer, "object": "text_completion", "choices": choices}
