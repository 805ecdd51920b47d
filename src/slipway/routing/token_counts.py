"""Count the tokens of calls whose provider does not report them, as well as it can be done without
the model's own tokenizer.

The prompt has four characters in a token, or one in Chinese, Japanese and Korean; a stream has one
token in each event, or four characters if its events are long. What a provider reports of its other
calls corrects both: how many tokens this model counts for such a prompt, and how many it sends in
an event, thoughts included that it does not show.
"""

from typing import Any

import msgspec

# The upper bytes of Chinese, Japanese and Korean characters, which are a token each
DENSE_ROWS = bytes([*range(0x2E, 0xA0), *range(0xAC, 0xD8), 0xF9, 0xFA, 0xFF])
CHARS_A_TOKEN = 4
LONG_EVENT = 12  # characters; longer events hold several tokens
IMAGE_TOKENS = 800  # of an image in a prompt; what it really takes depends on its size
LEARNED_FROM = 16  # calls after which old ones count less and less
SAMPLED = 64  # of so many calls, the prompt of one is counted to learn from it


NONE = msgspec.Raw()  # what a field is that a request does not have


class _PromptMessage(msgspec.Struct):
    content: str | list[dict[str, Any]] | None = None
    tool_calls: msgspec.Raw = NONE  # false if it is not sent


class _PromptBody(msgspec.Struct):
    messages: list[_PromptMessage] = []
    tools: msgspec.Raw = NONE
    functions: msgspec.Raw = NONE
    response_format: msgspec.Raw = NONE
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    n: int | None = None


_decode = msgspec.json.Decoder(_PromptBody).decode


class RequestSize(msgspec.Struct, frozen=True):
    """What a request may take at most: counted input tokens, and output tokens if it limits them."""

    input: int
    output: int | None
    choices: int = 1


def size_of(body: bytes) -> RequestSize:
    """Count the tokens in a chat request. A body that cannot be read has a token in four bytes."""
    try:
        request = _decode(body)
    except (msgspec.MsgspecError, RecursionError):
        return RequestSize(-(-len(body) // CHARS_A_TOKEN), None)
    texts: list[str] = []
    more = 0
    for message in request.messages:
        content = message.content
        if isinstance(content, str):
            texts.append(content)
        elif content is not None:
            more += _part_tokens(content, texts)
        if message.tool_calls:
            more += _raw_tokens(message.tool_calls)
    for raw in (request.tools, request.functions, request.response_format):
        if raw:
            more += _raw_tokens(raw)
    most, choices = _most_output(request), request.n or 1
    if choices != 1:
        choices = max(1, choices)
        most = None if most is None else most * choices
    return RequestSize(tokens_in("".join(texts)) + more, most, choices)


def _part_tokens(parts: list[dict[str, Any]], texts: list[str]) -> int:
    """Add the texts of a message's parts to `texts`; return the tokens of the others."""
    more = 0
    for part in parts:
        if isinstance(text := part.get("text"), str):
            texts.append(text)
        elif part.get("type") == "image_url":
            more += IMAGE_TOKENS
    return more


def _most_output(request: _PromptBody) -> int | None:
    """Return the smaller of the two limits that a request may set; None if it sets none."""
    most, other = request.max_tokens, request.max_completion_tokens
    if other is not None and other > 0 and (most is None or most <= 0 or other < most):
        most = other
    return most if most is not None and most > 0 else None


def tokens_in(text: str) -> int:
    """Return about how many tokens a text has. It may have 15 MB, and others wait meanwhile."""
    if text.isascii():
        return -(-len(text) // CHARS_A_TOKEN)
    rows = text.encode("utf-16-le", "surrogatepass")[1::2]
    dense = len(rows) - len(rows.translate(None, DENSE_ROWS))
    return dense - (-(len(text) - dense) // CHARS_A_TOKEN)


def _raw_tokens(raw: msgspec.Raw) -> int:
    return -(-len(bytes(raw)) // CHARS_A_TOKEN)


class TokenCounts:
    """What a model's calls taught about its tokens."""

    __slots__ = ("_event_calls", "_prompt_calls", "_seen", "per_event", "prompt")

    def __init__(self) -> None:
        self.prompt = 1.0  # reported prompt tokens for each counted one
        self.per_event: float | None = None  # reported output tokens for each event of a stream
        self._prompt_calls = self._event_calls = self._seen = 0

    def wants_prompt(self) -> bool:
        """Return whether the prompt of this call should be counted: of a few, to learn from."""
        self._seen += 1
        return self._prompt_calls < 4 or self._seen % SAMPLED == 0

    def learn_prompt(self, counted: int, reported: int) -> None:
        if counted > 0 and reported > 0:
            self._prompt_calls += 1
            share = 1 / min(self._prompt_calls, LEARNED_FROM)
            self.prompt += share * (reported / counted - self.prompt)

    def learn_events(self, events: int, reported: int) -> None:
        if events > 0 and reported > 0:
            self._event_calls += 1
            share = 1 / min(self._event_calls, LEARNED_FROM)
            before = reported / events if self.per_event is None else self.per_event
            self.per_event = before + share * (reported / events - before)

    def input_tokens(self, counted: int) -> int:
        return round(counted * self.prompt)

    def output_tokens(self, events: int, chars: int) -> int:
        """Return about how many tokens a stream had that sent so many events and characters."""
        if self.per_event is not None:
            return round(events * self.per_event)
        return -(-chars // CHARS_A_TOKEN) if chars > LONG_EVENT * events else events
