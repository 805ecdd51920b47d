"""Turn a whole completion into the chunks of a stream, and a stream's chunks into a completion, for
providers that send one where the other was requested.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from slipway.providers.lenient_json import encode_any

DONE = b"data: [DONE]\n\n"
SHARED = ("id", "created", "model", "system_fingerprint", "service_tier")
LEFT_OUT = ("message", "text", "delta")


def event_of(value: Any) -> bytes:
    """Encode one chunk as a server-sent event."""
    return b"data: %b\n\n" % encode_any(value)


def chunks_of(completion: dict[str, Any]) -> Iterator[bytes]:
    """Yield the events of a stream that says what the completion says."""
    head = {
        "object": "chat.completion.chunk",
        **{name: completion[name] for name in SHARED if name in completion},
    }
    choices = [each for each in as_list(completion.get("choices")) if isinstance(each, dict)]
    for position, choice in enumerate(choices):
        index = choice.get("index", position)
        delta = message_of(choice)
        calls = as_list(delta.get("tool_calls"))
        if calls:
            delta["tool_calls"] = [
                {"index": n, **call} for n, call in enumerate(calls) if isinstance(call, dict)
            ]
        yield event_of(
            {**head, "choices": [{"index": index, "delta": delta, "finish_reason": None}]}
        )
    for position, choice in enumerate(choices):
        rest = {name: value for name, value in choice.items() if name not in LEFT_OUT}
        yield event_of({**head, "choices": [{"index": position, **rest, "delta": {}}]})
    if completion.get("usage") is not None:
        yield event_of({**head, "choices": [], "usage": completion["usage"]})
    yield DONE


def message_of(choice: dict[str, Any]) -> dict[str, Any]:
    """Return a copy of what a choice says: its message, its delta, or its plain text."""
    for name in ("message", "delta"):
        if isinstance(choice.get(name), dict):
            return dict(choice[name])
    return {"role": "assistant", "content": str(choice.get("text") or "")}


def completion_of(chunks: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Return the completion that says what a stream's chunks said."""
    completion: dict[str, Any] = {"object": "chat.completion"}
    choices = dict[int, dict[str, Any]]()
    for chunk in chunks:
        for name in SHARED:
            if completion.get(name) is None and chunk.get(name) is not None:
                completion[name] = chunk[name]
        if chunk.get("usage") is not None:
            completion["usage"] = chunk["usage"]
        for position, choice in enumerate(as_list(chunk.get("choices"))):
            if isinstance(choice, dict):
                _add(choices, choice, position)
    completion["choices"] = [choices[index] for index in sorted(choices)]
    return completion


def _add(choices: dict[int, dict[str, Any]], choice: dict[str, Any], position: int) -> None:
    index = choice.get("index")
    index = index if isinstance(index, int) else position
    whole = choices.setdefault(
        index, {"index": index, "message": {"role": "assistant", "content": None}}
    )
    for name, value in choice.items():
        if name not in LEFT_OUT and value is not None:
            whole[name] = value
    whole.setdefault("finish_reason", None)
    _merge(whole["message"], message_of(choice))


def _merge(whole: dict[str, Any], delta: dict[str, Any]) -> None:
    """Add a delta to a message: texts are joined, tool calls are joined by their index, anything
    else replaces what was there.
    """
    for name, value in delta.items():
        if value is None:
            continue
        before = whole.get(name)
        if name == "tool_calls":
            whole[name] = _with_calls(as_list(before), as_list(value))
        elif name in ("role", "type", "id"):
            whole[name] = value
        elif isinstance(before, str) and isinstance(value, str):
            whole[name] = before + value
        elif isinstance(before, dict) and isinstance(value, dict):
            _merge(before, value)
        elif isinstance(before, list) and isinstance(value, list):
            whole[name] = before + value
        else:
            whole[name] = dict(value) if isinstance(value, dict) else value


def _with_calls(before: list[Any], calls: list[Any]) -> list[Any]:
    for position, call in enumerate(calls):
        if not isinstance(call, dict):
            continue
        rest = {name: value for name, value in call.items() if name != "index"}
        index = call.get("index", position)
        if isinstance(index, int) and 0 <= index < len(before):
            _merge(before[index], rest)
        else:
            before.append(rest)
    return before


def as_list(value: Any) -> list[Any]:
    """Return a list as it is, an object as a list of one, and anything else as an empty list."""
    if isinstance(value, list):
        return value
    return [value] if isinstance(value, dict) else []
