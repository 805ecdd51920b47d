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
            if not completion.get(name) and chunk.get(name) is not None:
                completion[name] = chunk[name]  # Azure's first chunk has an empty id
        if chunk.get("usage") is not None:
            completion["usage"] = chunk["usage"]
        for position, choice in enumerate(as_list(chunk.get("choices"))):
            if isinstance(choice, dict):
                _add(choices, choice, position)
    completion["choices"] = [choices[index] for index in sorted(choices)]
    for choice in completion["choices"]:
        for call in choice["message"].get("tool_calls") or ():
            call.pop("index", None)  # whole tool calls have none
    return completion


def _add(choices: dict[int, dict[str, Any]], choice: dict[str, Any], position: int) -> None:
    index = choice.get("index")
    index = index if isinstance(index, int) else position
    whole = choices.setdefault(
        index, {"index": index, "message": {"role": "assistant", "content": None}}
    )
    for name, value in choice.items():
        if name in LEFT_OUT or value is None:
            continue
        if isinstance(value, dict) and isinstance(whole.get(name), dict):
            _merge(whole[name], value)  # log probabilities: each chunk has those of its tokens
        else:
            whole[name] = value
    whole.setdefault("finish_reason", None)
    _merge(whole["message"], message_of(choice))


def _merge(whole: dict[str, Any], delta: dict[str, Any]) -> None:
    """Add a delta to a message: texts and lists are joined, tool calls are joined by their index,
    anything else replaces what was there. An empty id, role or type replaces nothing: DashScope
    sends one in each part of a tool call but the first.
    """
    for name, value in delta.items():
        if value is None:
            continue
        before = whole.get(name)
        if name == "tool_calls":
            whole[name] = _with_calls(as_list(before), as_list(value))
        elif name in ("role", "type", "id"):
            whole[name] = value or before or value
        elif isinstance(before, str) and isinstance(value, str):
            whole[name] = before + value
        elif isinstance(before, dict) and isinstance(value, dict):
            _merge(before, value)
        elif isinstance(before, list) and isinstance(value, list):
            whole[name] = before + value
        else:
            whole[name] = dict(value) if isinstance(value, dict) else value


def _with_calls(before: list[Any], calls: list[Any]) -> list[Any]:
    for call in calls:
        if not isinstance(call, dict):
            continue
        begun = _begun_call(before, call)
        if begun is None:
            before.append(call)
        else:
            _merge(begun, call)
    return before


def _begun_call(before: list[dict[str, Any]], call: dict[str, Any]) -> dict[str, Any] | None:
    """Return the tool call that this is a part of; None if it begins one.

    Indices may begin at 1 and come in any order. Some providers send none, or the same one for
    all calls, which then differ in their ids and names.
    """
    index, id_ = call.get("index"), call.get("id")
    for each in reversed(before):
        if isinstance(index, int) and each.get("index") != index:
            continue
        function = call.get("function")
        is_named = isinstance(function, dict) and bool(function.get("name"))
        return None if is_named and id_ and id_ != each.get("id") else each
    return None


def as_list(value: Any) -> list[Any]:
    """Return a list as it is, an object as a list of one, and anything else as an empty list."""
    if isinstance(value, list):
        return value
    return [value] if isinstance(value, dict) else []
