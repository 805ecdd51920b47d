"""The fields that are read from a reply, and which of them are too odd to be passed on."""

from typing import Annotated, Any

import msgspec

from slipway.providers.lenient_json import LARGEST_INT
from slipway.providers.reshaping import as_list
from slipway.types import Usage

NO_END = frozenset({"", "null", "none"})  # finish reasons that some servers send in every chunk
THINKING = ("reasoning_content", "reasoning", "reasoning_details", "thinking")
NOT_TEXT = ("tool_calls", "function_call", "audio")  # another model cannot continue these
COUNTS = ("prompt_tokens", "completion_tokens", "total_tokens")
TOTALS = frozenset({*COUNTS, "input_tokens", "output_tokens"})
ASKED = ("prompt_tokens_details", "input_tokens_details")
MADE = ("completion_tokens_details", "output_tokens_details")
# what providers call tokens read from their cache, and written to it
CACHED = ("cached_tokens", "prompt_cache_hit_tokens", "cache_read_input_tokens")
WRITTEN = (*("cache_write_tokens", "cache_creation_tokens", "cache_creation_input_tokens"),)
# where Anthropic and LiteLLM part the written tokens by how long they are kept
PARTED = ("cache_creation", "cache_creation_token_details")
KEPT_5M, KEPT_1H = "ephemeral_5m_input_tokens", "ephemeral_1h_input_tokens"
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


# A chunk that holds some text of the only choice, and nothing that needs thought; any other is an
# error here, or has no content. Strict types cost less than to look at each field afterwards
Nothing = Annotated[list[msgspec.Raw], msgspec.Meta(max_length=0)] | None


class UsualDelta(msgspec.Struct, gc=False):
    content: str | None = None
    tool_calls: Nothing = None
    function_call: None = None
    audio: None = None


class UsualChoice(msgspec.Struct, gc=False):
    delta: UsualDelta
    finish_reason: str | None = None


class UsualChunk(msgspec.Struct, gc=False):
    choices: Annotated[list[UsualChoice], msgspec.Meta(min_length=1, max_length=1)]
    usage: None = None
    error: None = None


decode_usual = msgspec.json.Decoder(UsualChunk).decode


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
    """Return the usage in an object whose counts are integers.

    Providers differ in what their totals include, so the names and the sum decide: Anthropic's
    `input_tokens` exclude what was read from the cache or written to it; xAI's and Gemini's
    `completion_tokens` exclude thoughts, which only `total_tokens` includes.
    """
    if sent is None:
        return None
    prompt, output = sent.get("prompt_tokens"), sent.get("completion_tokens")
    if (
        len(sent) == len(COUNTS)
        and prompt
        and output
        and sent.get("total_tokens") == prompt + output
    ):
        return Usage(input_tokens=prompt, output_tokens=output)  # as most report it
    by_anthropic = prompt is None and "input_tokens" in sent
    if by_anthropic:
        prompt, output = count(sent, "input_tokens"), count(sent, "output_tokens")
    prompt, output, total = prompt or 0, output or 0, sent.get("total_tokens") or 0
    asked, made = (details(sent, names) for names in (ASKED, MADE))
    if asked is None and made is None and sent.keys() <= TOTALS:
        thoughts = max(0, total - prompt - output) if total and prompt else 0
        return Usage(
            input_tokens=prompt, output_tokens=output + thoughts, reasoning_tokens=thoughts
        )
    asked, made = asked or {}, made or {}
    cached = first_count((asked, "cached_tokens"), *((sent, name) for name in CACHED))
    written = first_count(*((at, name) for at in (asked, sent) for name in WRITTEN))
    parted = details(sent, PARTED) or details(asked, PARTED) or {}
    for_an_hour = count(parted, KEPT_1H)
    written = written or count(parted, KEPT_5M) + for_an_hour
    if by_anthropic and any(name in sent for name in (*CACHED, *WRITTEN, *PARTED)):
        prompt += cached + written
    thoughts = count(made, "reasoning_tokens")
    beyond = total - prompt - output if total and prompt else 0
    if beyond > 0 and thoughts in (0, beyond):
        output, thoughts = output + beyond, beyond
    return Usage(
        input_tokens=prompt,
        output_tokens=output,
        cached_tokens=min(cached, prompt),
        cache_write_tokens=min(written, prompt),
        cache_write_1h_tokens=min(for_an_hour, written, prompt),
        audio_input_tokens=count(asked, "audio_tokens"),
        image_input_tokens=count(asked, "image_tokens"),
        reasoning_tokens=min(thoughts, output),
        audio_output_tokens=count(made, "audio_tokens"),
        image_output_tokens=count(made, "image_tokens"),
    )


def details(sent: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any] | None:
    """Return the first of these fields that is an object."""
    for name in names:
        found = sent.get(name)
        if type(found) is dict:
            return found
    return None


def count(holder: dict[str, Any], name: str) -> int:
    """Return a count of a usage object; 0 if it is missing, or no count."""
    value = holder.get(name)
    return value if type(value) is int and 0 <= value <= LARGEST_INT else 0


def first_count(*places: tuple[dict[str, Any], str]) -> int:
    """Return the first count that is not 0."""
    return next((found for place in places if (found := count(*place))), 0)


def is_odd_usage(sent: Any) -> bool:
    """Return whether a usage object has a field that must be mended."""
    if type(sent) is not dict:
        return sent is not None
    details = sent.get("prompt_tokens_details")
    if details is not None and (
        type(details) is not dict or is_odd_count(details.get("cached_tokens"))
    ):
        return True
    for name in COUNTS:
        count = sent.get(name)
        if (type(count) is not int or not 0 <= count <= LARGEST_INT) and count is not None:
            return True
    return False


def is_odd_count(sent: Any) -> bool:
    return sent is not None and not (type(sent) is int and 0 <= sent <= LARGEST_INT)


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
