"""The fields that are read from a reply, and which of them are too odd to be passed on."""

from typing import Any

import msgspec

from slipway.providers.lenient_json import LARGEST_INT
from slipway.providers.reshaping import as_list
from slipway.types import Usage

NO_END = frozenset({"", "null", "none"})  # finish reasons that some servers send in every chunk
THINKING = ("reasoning_content", "reasoning", "reasoning_details", "thinking")
NOT_TEXT = ("tool_calls", "function_call", "audio")  # another model cannot continue these
COUNTS = ("prompt_tokens", "completion_tokens", "total_tokens")
SAID = (*THINKING, *NOT_TEXT, "content", "refusal")


# Unknown fields are skipped, and wrong ones are no error here.
class WireDelta(msgspec.Struct):
    content: Any = None
    reasoning_content: Any = None
    reasoning: Any = None
    reasoning_details: Any = None
    thinking: Any = None
    refusal: Any = None
    tool_calls: Any = None
    function_call: Any = None
    audio: Any = None


class WireChunkChoice(msgspec.Struct):
    delta: WireDelta | None = None
    finish_reason: Any = None
    index: Any = None


class WireChunk(msgspec.Struct):
    choices: list[WireChunkChoice] | None = None
    usage: Any = None
    error: Any = None


decode_chunk = msgspec.json.Decoder(WireChunk).decode


class ChoiceEnds:
    """Which choices of an answer have begun, and which have a finish reason."""

    __slots__ = ("_begun", "_ended")

    def __init__(self) -> None:
        self._begun: set[int] = set()
        self._ended: set[int] = set()

    def add(self, index: int) -> None:
        self._begun.add(index)

    def end(self, index: int) -> None:
        self._ended.add(index)

    @property
    def any(self) -> bool:
        return bool(self._ended)

    @property
    def all(self) -> bool:
        """Return whether at least one choice has begun and each one has ended."""
        return bool(self._ended) and self._begun <= self._ended


def usage_in(sent: dict[str, Any] | None) -> Usage | None:
    """Return the usage in an object whose counts are integers."""
    if sent is None:
        return None
    details = sent.get("prompt_tokens_details") or {}
    return Usage(
        input_tokens=sent.get("prompt_tokens") or 0,
        output_tokens=sent.get("completion_tokens") or 0,
        cached_tokens=details.get("cached_tokens") or 0,
    )


def is_odd_usage(sent: Any) -> bool:
    """Return whether a usage object has a field that must be mended."""
    if type(sent) is not dict:
        return sent is not None
    details = sent.get("prompt_tokens_details")
    if details is not None and type(details) is not dict:
        return True
    counts = [sent.get(name) for name in COUNTS]
    counts.append(details.get("cached_tokens") if details else None)
    return any(
        each is not None and not (type(each) is int and 0 <= each <= LARGEST_INT) for each in counts
    )


def is_odd(chunk: WireChunk) -> bool:
    """Return whether a chunk has a field that must be mended or left out."""
    if is_odd_usage(chunk.usage):
        return True
    for choice in chunk.choices or ():
        reason = choice.finish_reason
        if reason is not None and (type(reason) is not str or reason.lower() in NO_END):
            return True
    return False


def wire_choice(value: Any) -> WireChunkChoice:
    """Read a choice of any shape."""
    if not isinstance(value, dict):
        value = {"text": value}
    delta = next((value[name] for name in ("delta", "message") if value.get(name)), None)
    if isinstance(delta, str):
        delta = {"content": delta}
    if not isinstance(delta, dict):
        delta = {"content": value.get("text")}
    read = WireDelta(**{name: delta.get(name) for name in SAID})
    return WireChunkChoice(
        delta=read, finish_reason=value.get("finish_reason"), index=value.get("index")
    )


def text_of(content: Any) -> str:
    """Return the text of a message's content, which may come in parts."""
    if isinstance(content, str):
        return content
    return "".join(
        str(part.get("text", ""))
        for part in as_list(content)
        if isinstance(part, dict) and part.get("type") == "text"
    )
