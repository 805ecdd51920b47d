"""Continue an answer that broke off: build the next model's request, and turn its stream into the
rest of the first one.

A model with `prefill` gets the text so far as its own unfinished turn; any other gets it as a
finished turn and a request to continue.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from slipway.providers import Call, encode_json
from slipway.providers.sse import data_of
from slipway.routing.attempts import ModelTraits
from slipway.routing.overlap import OverlapFilter
from slipway.types import Notice, Piece

# A new message seldom begins with the white space that belongs there. The repeated words show
# where the answer continues; OverlapFilter removes them
GO_ON = (
    "Your last message was cut off by a broken connection. Go on exactly where you stopped: "
    "write its last six words again, letter for letter "
    "(in Chinese or Japanese, its last twelve characters), and then what follows. Say "
    "nothing before them, leave nothing out, and keep its language and form."
)
BYTES_A_TOKEN = 8  # hardly any text has more: a body of N bytes has at least N / 8 tokens
CHARS_A_TOKEN = 4
LIMITS = ("max_tokens", "max_completion_tokens")
NOT_PLAIN = ("tools", "functions", "logprobs", "audio", "prediction")


def least_tokens(body: bytes) -> int:
    """Return a lower bound of the tokens in a request of this size."""
    return len(body) // BYTES_A_TOKEN


def can_be_continued(call: Call) -> bool:
    """Return whether another model can continue this call: a stream of one text, without tools,
    JSON, logprobs, audio or several choices.
    """
    if not call.stream:
        return False
    request = msgspec.json.decode(call.body)
    form = request.get("response_format")
    is_text = form is None or (isinstance(form, dict) and form.get("type") == "text")
    return (
        is_text
        and request.get("n") in (None, 1)
        and not any(request.get(name) for name in NOT_PLAIN)
        and request.get("modalities") in (None, ["text"])
    )


def continuation(call: Call, shown: str, traits: ModelTraits) -> Call:
    """Return the call that asks for what follows `shown`."""
    request: dict[str, Any] = msgspec.json.decode(call.body)
    messages = list(request["messages"])
    if messages[-1].get("role") == "assistant" and isinstance(
        messages[-1].get("content"), str
    ):  # the client began the answer itself
        shown = messages.pop()["content"] + shown
    turn: dict[str, Any] = {"role": "assistant", "content": shown}
    if traits.prefill is not None:
        messages.append({**turn, **traits.prefill.message})
        request |= traits.prefill.request
    else:
        messages += [turn, {"role": "user", "content": GO_ON}]
    for limit in LIMITS:
        if isinstance(request.get(limit), int):
            request[limit] = max(1, request[limit] - len(shown) // CHARS_A_TOKEN)
    request.pop("model", None)
    return msgspec.structs.replace(
        call, body=encode_json({"model": "", **request, "messages": messages}), name_at=(9, 11)
    )


class Splice:
    """Rewrites the continuing model's events as part of the first stream: same id, no text twice.
    `model` still names who writes.
    """

    def __init__(
        self, opening: Sequence[Piece], shown: str, *, prefilled: bool, notice: Notice
    ) -> None:
        """`opening` holds the first events of the stream that broke off. The first chunk with text
        carries the notice.
        """
        self._head = head_of(opening)
        self._overlap = OverlapFilter(shown, prefilled=prefilled)
        self._notice: Notice | None = notice

    def pieces(self, pieces: Sequence[Piece]) -> list[Piece]:
        return [self._piece(piece) for piece in pieces]

    def _piece(self, piece: Piece) -> Piece:
        data = data_of(piece.raw)
        if not data or data == b"[DONE]":
            return piece
        chunk = {**msgspec.json.decode(data), **self._head}
        if not chunk.get("choices"):
            return msgspec.structs.replace(piece, raw=event(chunk) if piece.raw else b"")
        choice = chunk["choices"][0]
        delta = {
            name: value for name, value in (choice.get("delta") or {}).items() if name != "role"
        }
        text = self._joined(piece)
        if piece.text or text:
            delta["content"] = text
        if not text and piece.finish is None and not any(delta.values()):
            return msgspec.structs.replace(
                piece, raw=b"", text="", spoke=False
            )  # the text is held back, or the chunk has only a role
        chunk["choices"] = [{**choice, "delta": delta}]
        return msgspec.structs.replace(piece, raw=self._with_notice(chunk), text=text)

    def _joined(self, piece: Piece) -> str:
        text = self._overlap.feed(piece.text) if piece.text else ""
        return text if piece.finish is None else text + self._overlap.end()

    def _with_notice(self, chunk: dict[str, Any]) -> bytes:
        notice, self._notice = self._notice, None
        return event(chunk if notice is None else {**chunk, "slipway": {"notices": [notice]}})


def event(chunk: dict[str, Any]) -> bytes:
    """Encode one chunk as a server-sent event."""
    return b"data: %b\n\n" % encode_json(chunk)


def head_of(opening: Sequence[Piece]) -> dict[str, Any]:
    """Return the fields that all chunks of a stream share."""
    for data in map(data_of, (piece.raw for piece in opening)):
        if (
            data and data != b"[DONE]" and (first := msgspec.json.decode(data)).get("choices")
        ):  # earlier events may have no id
            return {name: first[name] for name in ("id", "created") if name in first}
    return {}
