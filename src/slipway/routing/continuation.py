"""Going on with an answer that broke off: what the next model is asked, and how its stream becomes
the rest of the first one.

Where it declares `prefill`, it gets the text so far as its own unfinished turn; where `prompt`, as
a turn and a request to go on.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from slipway.providers import Call, encode_json
from slipway.providers.sse import data_of
from slipway.routing.attempts import Traits
from slipway.routing.overlap import Joint
from slipway.types import Notice, Piece

# A new message seldom begins with the white space that belongs at the joint. Words that stand on
# both sides of it tell, and are taken out by the joint
GO_ON = (
    "Your last message was cut off by a broken connection. Go on exactly where you stopped: write its last six words again, letter for letter "
    "(in Chinese or Japanese, its last twelve characters), and then what follows. Say nothing before them, leave nothing out, and keep its language and form."
)
BYTES_A_TOKEN = 8  # hardly any text has more, so that a body of N bytes has at least N / 8 tokens
CHARS_A_TOKEN = 4
LIMITS = ("max_tokens", "max_completion_tokens")
NOT_PLAIN = ("tools", "functions", "logprobs", "audio", "prediction")


def least_tokens(body: bytes) -> int:
    return len(body) // BYTES_A_TOKEN


def is_plain(call: Call) -> bool:
    """Whether it asks for a stream of one text, which another model can go on with: no tools, JSON,
    logprobs, audio, or several choices.
    """
    if not call.stream:
        return False
    asked = msgspec.json.decode(call.body)
    form = asked.get("response_format")
    is_text = form is None or (isinstance(form, dict) and form.get("type") == "text")
    return (
        is_text
        and asked.get("n") in (None, 1)
        and not any(asked.get(name) for name in NOT_PLAIN)
        and asked.get("modalities") in (None, ["text"])
    )


def continuation(call: Call, shown: str, traits: Traits) -> Call:
    """The call for what follows `shown`."""
    asked: dict[str, Any] = msgspec.json.decode(call.body)
    messages = list(asked["messages"])
    if messages[-1].get("role") == "assistant" and isinstance(
        messages[-1].get("content"), str
    ):  # the client had begun the answer itself
        shown = messages.pop()["content"] + shown
    turn: dict[str, Any] = {"role": "assistant", "content": shown}
    if traits.prefill is not None:
        messages.append({**turn, **traits.prefill.message})
        asked |= traits.prefill.request
    else:
        messages += [turn, {"role": "user", "content": GO_ON}]
    for limit in LIMITS:
        if isinstance(asked.get(limit), int):
            asked[limit] = max(1, asked[limit] - len(shown) // CHARS_A_TOKEN)
    asked.pop("model", None)
    return msgspec.structs.replace(
        call, body=encode_json({"model": "", **asked, "messages": messages}), name_at=(9, 11)
    )


class Splice:
    """The pieces of the model that goes on, as the first stream's: under its id, with nothing said
    twice. `model` names who really writes.
    """

    def __init__(
        self, opening: Sequence[Piece], shown: str, *, prefilled: bool, notice: Notice
    ) -> None:
        """`opening` is how the stream that broke off began; the first chunk that says something
        carries the notice.
        """
        self._head = head_of(opening)
        self._joint = Joint(shown, prefilled=prefilled)
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
            )  # held back, or nothing but a role
        chunk["choices"] = [{**choice, "delta": delta}]
        return msgspec.structs.replace(piece, raw=self._told(chunk), text=text)

    def _joined(self, piece: Piece) -> str:
        text = self._joint.feed(piece.text) if piece.text else ""
        return text if piece.finish is None else text + self._joint.end()

    def _told(self, chunk: dict[str, Any]) -> bytes:
        notice, self._notice = self._notice, None
        return event(chunk if notice is None else {**chunk, "slipway": {"notices": [notice]}})


def event(chunk: dict[str, Any]) -> bytes:
    return b"data: %b\n\n" % encode_json(chunk)


def head_of(opening: Sequence[Piece]) -> dict[str, Any]:
    """What all chunks of a stream share."""
    for data in map(data_of, (piece.raw for piece in opening)):
        if (
            data and data != b"[DONE]" and (first := msgspec.json.decode(data)).get("choices")
        ):  # what stands before them may have no id
            return {name: first[name] for name in ("id", "created") if name in first}
    return {}
