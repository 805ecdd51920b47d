"""Build replies: from a chat completion request to bytes with the times at which they are due.

A `ReplyDraft` is what would be said, a `MockReply` the exact pieces that are sent and how it ends.
Faults change one or the other.
"""

import hashlib
import math
import random
import time
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import msgspec

from slipway.providers.mock import continuing, lies, words
from slipway.providers.mock.chat_request import ChatBody, split_partial
from slipway.providers.mock.invoice import CallBill
from slipway.providers.mock.settings import MockSettings

Ending = Literal[
    "keep", "cut", "hold", "reset"
]  # keep the connection, close it before the body's end, send nothing more, reset it

JSON = ("Content-Type", "application/json")
HTML = ("Content-Type", "text/html; charset=utf-8")
EVENTS = (("Content-Type", "text/event-stream; charset=utf-8"), ("Cache-Control", "no-cache"))
DONE = b"data: [DONE]\n\n"

encode = msgspec.json.encode
_with = msgspec.structs.replace


class ReplyDraft(msgspec.Struct, frozen=True, kw_only=True):
    """A reply before it has a form. `text` None means words from the seed, `tokens` of them;
    `limit` applies to both.

    With `partial`, only what follows it is said, in the way that `continues` names.
    """

    number: int
    model: str
    stream: bool
    choices: int
    asked: str
    partial: str
    continues: str
    text: str | None
    tokens: int
    limit: int | None
    prompt_tokens: int
    seed: str
    ttft_s: float
    tpot_s: float
    jitter: float
    usage_chunk: bool
    usage: bool = True
    finish: str | None = "stop"
    shredded: bool = False  # `text` comes in pieces of a few characters


class TimedWrite(NamedTuple):
    """Bytes of a body, due `at_s` after the request. `content` marks an event with text, `finish`
    one with a finish reason.
    """

    at_s: float
    data: bytes
    content: bool = False
    finish: bool = False


class MockReply(msgspec.Struct, frozen=True, kw_only=True):
    """The bytes of a reply. `length` is the declared Content-Length; None is a stream. The head is
    sent at `at_s`, or never if `head` is False. `bill` is what the call costs, if anything.
    """

    status: int = 200
    headers: tuple[tuple[str, str], ...] = (JSON,)
    writes: tuple[TimedWrite, ...] = ()
    length: int | None = None
    at_s: float = 0.0
    ending: Ending = "keep"
    head: bool = True
    bill: CallBill | None = None


def whole(
    data: bytes,
    *,
    status: int = 200,
    at_s: float = 0.0,
    headers: tuple[tuple[str, str], ...] = (JSON,),
) -> MockReply:
    """Return a reply that is sent in one piece."""
    return MockReply(
        status=status,
        headers=headers,
        writes=(TimedWrite(at_s, data),) if data else (),
        length=len(data),
        at_s=at_s,
    )


def envelope(message: str, kind: str, code: str | None, param: str | None = None) -> bytes:
    """Return OpenAI's error object as JSON."""
    return encode({"error": {"message": message, "type": kind, "param": param, "code": code}})


def draft_of(body: ChatBody, settings: MockSettings, number: int) -> ReplyDraft:
    """Draft the reply to a request. Equal seeds and messages give equal words and times, also if
    the request asks to continue; `number` is used in the reply's id only.
    """
    messages, partial = split_partial(body.messages)
    limits = [limit for limit in (body.max_tokens, body.max_completion_tokens) if limit is not None]
    seed = f"{settings.seed}:{hashlib.sha256(encode(messages)).hexdigest()}"
    prompt_tokens = tokens_in(sum(len(message.text()) for message in body.messages))
    rng = random.Random(f"{seed}:spread")  # noqa: S311 - repeatable on purpose
    longer, slower, later = (math.exp(rng.gauss(0, settings.spread)) for _ in range(3))
    return ReplyDraft(
        number=number,
        model=body.model,
        stream=bool(body.stream),
        choices=body.n or 1,
        asked=next(
            (message.text() for message in reversed(messages) if message.role == "user"), ""
        ),
        partial=partial,
        continues=settings.continues,
        text=settings.text,
        tokens=max(1, round(settings.tokens * longer)),
        limit=min(limits, default=None),
        prompt_tokens=prompt_tokens,
        seed=seed,
        ttft_s=settings.ttft_s * later
        + (prompt_tokens / settings.prefill if settings.prefill else 0.0),
        tpot_s=settings.tpot_s * slower,
        jitter=settings.jitter,
        usage_chunk=bool(body.stream_options and body.stream_options.include_usage),
    )


def tokens_in(characters: int) -> int:
    """Estimate tokens: four characters each, rounded up."""
    return -(-characters // 4)


def render(draft: ReplyDraft) -> MockReply:
    """Turn a draft into a reply."""
    said = [_say(draft, index) for index in range(draft.choices)]
    times = _times(draft, max(len(choice.pieces) for choice in said))
    if not draft.stream:
        return whole(_completion(draft, said), at_s=times[-1])
    return MockReply(headers=EVENTS, writes=tuple(_events(draft, said, times)), at_s=times[0])


def bill_of(draft: ReplyDraft) -> CallBill:
    """Return what a reply costs if all of it is sent."""
    said = sum(len(_say(draft, index).pieces) for index in range(draft.choices))
    return CallBill(f"chatcmpl-mock-{draft.number}", draft.model, draft.prompt_tokens, said)


def truth(draft: ReplyDraft) -> str:
    """Return everything that a draft says, including its partial answer."""
    return "".join(_say(_with(draft, partial=""), 0).pieces)


class _Said(NamedTuple):
    pieces: tuple[str, ...]
    finish: str | None


def _say(draft: ReplyDraft, index: int) -> _Said:
    pieces = _rest(draft, index) if draft.partial else _pieces(draft, index)
    if draft.limit is not None and len(pieces) > draft.limit:
        return _Said(pieces[: draft.limit], "length" if draft.finish == "stop" else draft.finish)
    return _Said(pieces, draft.finish)


def _pieces(draft: ReplyDraft, index: int) -> tuple[str, ...]:
    if draft.text is not None:
        return _split(draft, draft.text, index)
    return words.write(
        _rng(draft, f"choice {index}"), draft.tokens, words.numbered_passages(draft.asked)
    )


def _rest(draft: ReplyDraft, index: int) -> tuple[str, ...]:
    joint = _rng(draft, f"joint {index} {draft.partial}")
    return _split(
        draft,
        continuing.continue_from(
            draft.continues, draft.partial, "".join(_pieces(draft, index)), joint
        ),
        index,
    )


def _split(draft: ReplyDraft, text: str, index: int) -> tuple[str, ...]:
    return lies.shred(_rng(draft, f"pieces {index}"), text) if draft.shredded else words.split(text)


def _rng(draft: ReplyDraft, purpose: str) -> random.Random:
    return random.Random(f"{draft.seed}:{purpose}")  # noqa: S311 - repeatable on purpose


def _times(draft: ReplyDraft, count: int) -> list[float]:
    """Return when each token is due; at least one time, so that an empty reply has one too."""
    rng = _rng(draft, "times")
    times = [draft.ttft_s * (1 + draft.jitter * rng.uniform(-1, 1))]
    for _ in range(count - 1):
        times.append(times[-1] + draft.tpot_s * (1 + draft.jitter * rng.uniform(-1, 1)))
    return times


def _usage(draft: ReplyDraft, said: list[_Said]) -> dict[str, Any]:
    completion = sum(len(choice.pieces) for choice in said)
    return {
        "prompt_tokens": draft.prompt_tokens,
        "completion_tokens": completion,
        "total_tokens": draft.prompt_tokens + completion,
        "prompt_tokens_details": {"cached_tokens": 0},
    }


def _completion(draft: ReplyDraft, said: list[_Said]) -> bytes:
    body: dict[str, Any] = {
        "id": f"chatcmpl-mock-{draft.number}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": draft.model,
        "choices": [
            {
                "index": index,
                "message": {"role": "assistant", "content": "".join(pieces)},
                "logprobs": None,
                "finish_reason": finish,
            }
            for index, (pieces, finish) in enumerate(said)
        ],
    }
    if draft.usage:
        body["usage"] = _usage(draft, said)
    return encode(body)


def _events(draft: ReplyDraft, said: list[_Said], times: list[float]) -> Iterator[TimedWrite]:
    """Yield the role of each choice, the tokens of all choices in turn, their finishes, the usage
    if requested, and [DONE].
    """
    base = {
        "id": f"chatcmpl-mock-{draft.number}",
        "object": "chat.completion.chunk",
        "created": int(time.time()),
        "model": draft.model,
    }
    usage_chunk = draft.usage_chunk and draft.usage
    no_usage_yet = {"usage": None} if usage_chunk else {}

    def event(index: int, delta: dict[str, str], finish: str | None = None) -> bytes:
        return sse(
            {
                **base,
                "choices": [
                    {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}
                ],
                **no_usage_yet,
            }
        )

    for index in range(len(said)):
        yield TimedWrite(times[0], event(index, {"role": "assistant", "content": ""}))
    for turn, at_s in enumerate(times):
        for index, choice in enumerate(said):
            if turn < len(choice.pieces):
                yield TimedWrite(at_s, event(index, {"content": choice.pieces[turn]}), content=True)
    for index, choice in enumerate(said):
        if choice.finish:
            yield TimedWrite(times[-1], event(index, {}, choice.finish), finish=True)
    if usage_chunk:
        yield TimedWrite(times[-1], sse({**base, "choices": [], "usage": _usage(draft, said)}))
    yield TimedWrite(times[-1], DONE)


def sse(value: dict[str, Any]) -> bytes:
    """Encode one server-sent event."""
    return b"data: " + encode(value) + b"\n\n"
