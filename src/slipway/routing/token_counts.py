"""Count the tokens of calls whose provider does not report them, as well as it can be done without
the model's own tokenizer.

The prompt has four characters in a token, or one in Chinese, Japanese and Korean; a stream has one
token in each event, or four characters if its events are long. What a provider reports of its other
calls corrects both: how many tokens this model counts for such a prompt, and how many it sends in
an event, thoughts included that it does not show.
"""

from typing import Any, Literal

import msgspec

# The upper bytes of Chinese, Japanese and Korean characters, which are a token each
DENSE_ROWS = bytes([*range(0x2E, 0xA0), *range(0xAC, 0xD8), 0xF9, 0xFA, 0xFF])
CHARS_A_TOKEN = 4
LONG_EVENT = 12  # characters; longer events hold several tokens
IMAGE_TOKENS = 800  # of an image in a prompt; what it really takes depends on its size
AUDIO_CHARS = 150  # of base64 for a token at least: 32 tokens a second, at 32 kbit/s
WAV_CHARS = 1000  # the same without compression
FILE_TOKENS = 10_000  # of a file that the provider has already
FEW_TOKENS = 200  # prompts that are shorter teach less: each has some tokens that nobody counts
LEARNED_FROM = 16  # calls after which old ones count less and less
SAMPLED = 64  # of so many calls, the prompt of one is counted to learn from it


NONE = msgspec.Raw()  # what a field is that a request does not have


class _PromptMessage(msgspec.Struct):
    content: str | list[dict[str, Any]] | None = None
    tool_calls: msgspec.Raw = NONE  # false if it is not sent
    function_call: Any = None
    reasoning_content: Any = None
    reasoning: Any = None
    thinking_blocks: Any = None


class _PromptBody(msgspec.Struct):
    messages: list[_PromptMessage] = []
    tools: msgspec.Raw = NONE
    functions: msgspec.Raw = NONE
    response_format: msgspec.Raw = NONE
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    n: int | None = None
    modalities: Any = None
    prediction: Any = None


_decode = msgspec.json.Decoder(_PromptBody).decode
# numbers as text, and with a point: some servers take them
_decode_loosely = msgspec.json.Decoder(_PromptBody, strict=False).decode


class RequestSize(msgspec.Struct, frozen=True):
    """What a request may take at most: counted input tokens, and output tokens if it limits them.

    `other` are tokens of the input that were not counted but cannot be more, `audio` those of them
    that are audio. `makes` says what is made beside text. If not `is_text`, what a provider reports
    says nothing about how it counts text.
    """

    input: int
    output: int | None
    choices: int = 1
    other: int = 0
    audio: int = 0
    makes: Literal["text", "audio", "images"] = "text"
    is_text: bool = True


def size_of(body: bytes) -> RequestSize:
    """Count the tokens in a chat request. A body that cannot be read has a token in four bytes."""
    request = _read(body)
    if request is None:
        return RequestSize(-(-len(body) // CHARS_A_TOKEN), None, is_text=False)
    texts: list[str] = []
    parts: list[dict[str, Any]] = []
    more = 0
    for message in request.messages:
        content = message.content
        if isinstance(content, str):
            texts.append(content)
        elif content is not None:
            more += _part_tokens(content, texts, parts)
        if message.tool_calls:
            more += _raw_tokens(message.tool_calls)
        if (
            message.function_call is not None
            or message.reasoning_content is not None
            or message.reasoning is not None
            or message.thinking_blocks is not None
        ):
            more += _unseen_tokens(message)
    if request.tools or request.functions or request.response_format:
        raws = (request.tools, request.functions, request.response_format)
        more += sum(_raw_tokens(raw) for raw in raws if raw)
    most, choices = _most_output(request), request.n or 1
    if choices != 1:
        most, choices = _for_all(most, choices)
    size = RequestSize(tokens_in("".join(texts)) + more, most, choices)
    if not parts and request.modalities is None and request.prediction is None:  # nearly always
        return size
    return _with_other(size, parts, request)


def _for_all(most: int | None, choices: int) -> tuple[int | None, int]:
    choices = max(1, choices)
    return None if most is None else most * choices, choices


def _read(body: bytes) -> _PromptBody | None:
    try:
        return _decode(body)
    except (msgspec.MsgspecError, RecursionError):
        pass
    try:
        return _decode_loosely(body)
    except (msgspec.MsgspecError, RecursionError):
        return None


def _with_other(
    size: RequestSize, parts: list[dict[str, Any]], request: _PromptBody
) -> RequestSize:
    """Return a size with what is not text."""
    audio, most, made = sum(map(_audio_tokens, parts)), size.output, str(request.modalities)
    if request.prediction and most is not None:  # what of it is not used is paid like output
        most += _json_tokens(request.prediction)
    return msgspec.structs.replace(
        size,
        output=most,
        other=audio + sum(map(_other_tokens, parts)),
        audio=audio,
        makes="audio" if "audio" in made else "images" if "image" in made else "text",
        is_text=not parts,
    )


def _part_tokens(
    content: list[dict[str, Any]], texts: list[str], others: list[dict[str, Any]]
) -> int:
    """Add the texts of a message's parts to `texts`, and the other parts to `others`; return the
    tokens of images.
    """
    more = 0
    for part in content:
        if isinstance(text := part.get("text"), str):
            texts.append(text)
            continue
        others.append(part)
        if is_image(part):
            more += IMAGE_TOKENS
    return more


def is_image(part: dict[str, Any]) -> bool:
    """Return whether a part is an image: `image_url`, `image` or `input_image`."""
    return "image" in str(part.get("type"))


def _audio_tokens(part: dict[str, Any]) -> int:
    """Return how many tokens the audio of a part has at most; 0 if it is no audio."""
    audio = part.get("input_audio")
    if not isinstance(audio, dict):
        return 0
    chars = WAV_CHARS if audio.get("format") in ("wav", "pcm16") else AUDIO_CHARS
    return -(-len(str(audio.get("data", ""))) // chars)


def _other_tokens(part: dict[str, Any]) -> int:
    """Return how many tokens a part has at most that is neither text nor image nor audio."""
    if is_image(part) or isinstance(part.get("input_audio"), dict):
        return 0
    if "video" in str(part.get("type")):  # its sound and some pictures a second
        return -(-len(msgspec.json.encode(part)) // AUDIO_CHARS)
    file = part.get("file")
    known = FILE_TOKENS if isinstance(file, dict) and "file_data" not in file else 0
    return max(known, _json_tokens(part))


def _most_output(request: _PromptBody) -> int | None:
    """Return the larger of the two limits that a request may set, since servers differ in which one
    they use; None if it sets none.
    """
    most, other = request.max_tokens, request.max_completion_tokens
    if other is not None and other > 0 and (most is None or most <= 0 or other > most):
        most = other
    return most if most is not None and most > 0 else None


def tokens_in(text: str) -> int:
    """Return about how many tokens a text has. It may have 15 MB, and others wait meanwhile."""
    if text.isascii():
        return -(-len(text) // CHARS_A_TOKEN)
    rows = text.encode("utf-16-le", "surrogatepass")[1::2]
    dense = len(rows) - len(rows.translate(None, DENSE_ROWS))
    return dense - (-(len(text) - dense) // CHARS_A_TOKEN)


def _unseen_tokens(message: _PromptMessage) -> int:
    """Return the tokens of what people do not see of a message."""
    parts = (message.function_call, message.reasoning_content, message.reasoning)
    return sum(_json_tokens(part) for part in (*parts, message.thinking_blocks) if part)


def _json_tokens(value: Any) -> int:
    return -(-len(msgspec.json.encode(value)) // CHARS_A_TOKEN)


def _raw_tokens(raw: msgspec.Raw) -> int:
    return -(-len(bytes(raw)) // CHARS_A_TOKEN)


class TokenCounts:
    """What a model's calls taught about its tokens."""

    __slots__ = (
        *("_counted", "_event_calls", "_prompt_calls", "_reported", "_seen"),
        *("per_event", "prompt"),
    )

    def __init__(self) -> None:
        self.prompt = 1.0  # reported prompt tokens for each counted one
        self.per_event: float | None = None  # reported output tokens for each event of a stream
        self._prompt_calls = self._event_calls = self._seen = 0
        self._counted = self._reported = 0.0  # of late prompts together

    def wants_prompt(self) -> bool:
        """Return whether the prompt of this call should be counted: of a few, to learn from."""
        self._seen += 1
        return self._prompt_calls < 4 or self._seen % SAMPLED == 0

    def learn_prompt(self, counted: int, reported: int) -> None:
        if counted > 0 and reported > 0:
            self._prompt_calls += 1
            kept = 1 - 1 / LEARNED_FROM
            self._counted = kept * self._counted + counted
            self._reported = kept * self._reported + reported
            self.prompt = (FEW_TOKENS + self._reported) / (FEW_TOKENS + self._counted)

    def learn_events(self, events: int, reported: int) -> None:
        if events > 0 and reported > 0:
            self._event_calls += 1
            share = 1 / min(self._event_calls, LEARNED_FROM)
            before = reported / events if self.per_event is None else self.per_event
            self.per_event = before + share * (reported / events - before)

    def input_tokens(self, counted: int) -> int:
        return round(counted * self.prompt)

    def output_tokens(self, events: int, chars: int, most: int) -> int:
        """Return about how many tokens a stream had that sent so many events and characters, and
        that could have `most`.
        """
        if self.per_event is not None:
            return min(most, round(events * self.per_event))
        return min(most, -(-chars // CHARS_A_TOKEN) if chars > LONG_EVENT * events else events)
