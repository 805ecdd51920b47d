"""Find the texts in a request and in a response, for an access log with content.

The parts of a stream are joined before anything is removed from them: an address may be cut in two.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec

MOST = 20_000  # characters of each text in a line
MOST_KEPT = 256 * 1024  # bytes of a response that are kept for the line
Redact = Callable[[str], str]


def sent_in(body: bytes, redact: Redact) -> Any:
    """Return what a request asked: its body with every text cleaned and cut."""
    try:
        return cleaned(msgspec.json.decode(body), redact)
    except (msgspec.MsgspecError, RecursionError):
        return clean(body.decode("utf-8", "replace"), redact)


def cleaned(value: Any, redact: Redact) -> Any:
    if isinstance(value, str):
        return clean(value, redact)
    if isinstance(value, list):
        return [cleaned(each, redact) for each in value]
    if isinstance(value, dict):
        return {clean(key, redact): cleaned(each, redact) for key, each in value.items()}
    return value


def clean(text: str, redact: Redact) -> str:
    """Return a text without what must not be logged; a data URL is an image or a file."""
    if text.startswith("data:"):
        return f"(data of {len(text)} characters)"
    found = redact(text[: 2 * MOST])
    return found if len(found) <= MOST else f"{found[:MOST]}…"


def said_in(parts: Sequence[bytes], redact: Redact) -> Any:
    """Return what a response said: the joined text of a stream, else its body."""
    said = b"".join(parts)
    if b"data:" not in said[:4096] or said[:1] in (b"{", b"["):
        return sent_in(said, redact)
    return clean("".join(texts_in(said)), redact)


def texts_in(stream: bytes) -> Iterator[str]:
    """Yield the texts of a stream's events, of OpenAI's chunks and of ours."""
    name = ""
    for line in stream.decode("utf-8", "replace").splitlines():
        if line.startswith("event:"):
            name = line[6:].strip()
        if not line.startswith("data:"):
            continue
        try:
            event = msgspec.json.decode(line[5:].strip().encode())
        except msgspec.MsgspecError:
            continue
        if isinstance(event, dict):
            yield from texts_of(event, is_delta=name == "delta")


def texts_of(event: dict[str, Any], *, is_delta: bool) -> Iterator[str]:
    if is_delta and isinstance(event.get("text"), str):
        yield event["text"]
    for choice in event.get("choices") or ():
        delta = choice.get("delta") if isinstance(choice, dict) else None
        text = delta.get("content") if isinstance(delta, dict) else None
        if isinstance(text, str):
            yield text
        if isinstance(choice, dict) and isinstance(choice.get("text"), str):
            yield choice["text"]
