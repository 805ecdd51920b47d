"""The fields of a chat completion request that the mock reads."""

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec

GO_ON = "Go on exactly where you stopped"

Positive = Annotated[int, msgspec.Meta(ge=1)]
Choices = Annotated[int, msgspec.Meta(ge=1, le=8)]


class StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class ChatMessage(msgspec.Struct):
    role: str
    content: str | list[dict[str, Any]] | None = None

    def text(self) -> str:
        if isinstance(self.content, list):
            return "\n".join(
                part["text"] for part in self.content if isinstance(part.get("text"), str)
            )
        return self.content or ""


class ChatBody(msgspec.Struct):
    model: str
    messages: list[ChatMessage]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Choices | None = None
    max_tokens: Positive | None = None
    max_completion_tokens: Positive | None = None


def split_partial(messages: Sequence[ChatMessage]) -> tuple[Sequence[ChatMessage], str]:
    """Return the messages to answer, and the partial answer to continue: empty unless the request
    asks for that.

    It asks in one of two ways: the last message is the assistant's, or a user's message with
    `GO_ON` in it follows one.
    """
    at = len(messages) - 1
    if at > 0 and messages[at].role == "user" and GO_ON in messages[at].text():
        at -= 1
    if at >= 0 and messages[at].role == "assistant":
        return messages[:at], messages[at].text()
    return messages, ""
