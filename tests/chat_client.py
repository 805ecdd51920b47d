"""Read a chat completion as a client does, and say in one word how it ended.

This works for streams and whole replies, of Slipway and of any other endpoint.
"""

import asyncio
import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import msgspec

ENVELOPE = {"message", "type", "param", "code"}


class ChatReply(msgspec.Struct, kw_only=True):
    """`broken` says how it ended where it did not come to an end of HTTP's own; `last_at` and
    `gap_s` are about text alone.

    `gap_s` is the time from the last characters before another model went on to the first behind
    them; None where there were none.
    """

    status: int = 0
    headers: dict[str, str] = {}
    streamed: bool = False
    text: str = ""
    finish: str | None = None
    usage: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    is_done: bool = False
    ids: list[str] = []
    models: list[str] = []
    notices: list[str] = []
    facts: dict[str, Any] = {}
    broken: str | None = None
    began_at: float = msgspec.field(default_factory=time.monotonic)
    took_s: float = 0.0
    first_s: float | None = None
    last_at: float = 0.0
    gap_s: float | None = None

    @property
    def word(self) -> str:
        """`whole`, `continued`, `quote`, `error 502`, `error event`; and what must never be: `cut,
        no error`, `hang`, `false success`…
        """
        if self.broken is not None:
            return self.broken
        if self.status != 200:
            return f"error {self.status}"
        if self.error is not None:
            return (
                "error and an end"
                if self.is_done
                else "error event"
                if self.streamed
                else "error in a 200"
            )
        if not self.is_done:
            return "no end, no error"
        if self.finish == "error" or (self.finish is None and self.streamed):
            return "false success"
        if self.facts.get("served_by") == "quote":
            return "quote"
        return "continued" if "continued" in self.notices else "whole"

    @property
    def has_envelope(self) -> bool:
        """Return whether its error has OpenAI's form, with our fields beside it."""
        return (
            self.error is not None
            and self.error.keys() >= ENVELOPE
            and {"what", "next", "ref"} <= self.error.get("slipway", {}).keys()
        )

    def say(self, text: str) -> None:
        """Note that text has arrived."""
        if not text:
            return
        now = time.monotonic()
        if self.first_s is None:
            self.first_s = now - self.began_at
        if "continued" in self.notices and self.gap_s is None and self.last_at:
            self.gap_s = now - self.last_at
        self.text, self.last_at = self.text + text, now


async def ask(
    client: httpx.AsyncClient, url: str, body: dict[str, Any], *, patience_s: float = 20.0
) -> ChatReply:
    """POSTs to `url`/chat/completions and reads what comes, however it ends. Nothing is raised for
    what the other side does wrong.
    """
    seen = ChatReply(streamed=bool(body.get("stream")))
    try:
        async with (
            asyncio.timeout(patience_s),
            client.stream("POST", f"{url}/chat/completions", json=body, timeout=None) as reply,
        ):
            seen.status, seen.headers = reply.status_code, dict(reply.headers)
            if (
                seen.streamed
                and reply.status_code == 200
                and "event-stream" in reply.headers.get("content-type", "")
            ):
                async for line in reply.aiter_lines():
                    _take_line(seen, line)
            else:
                _take_whole(seen, await reply.aread())
    except TimeoutError:
        seen.broken = "hang"
    except httpx.ConnectError:
        seen.broken = "no connection"
    except httpx.TransportError:
        seen.broken = "cut"
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        seen.broken = "nonsense"
    seen.took_s = time.monotonic() - seen.began_at
    return seen


def _take_line(seen: ChatReply, line: str) -> None:
    if not line.startswith("data: "):
        return
    if line == "data: [DONE]":
        seen.is_done = True
        return
    _take_chunk(seen, json.loads(line[6:]))


def _take_chunk(seen: ChatReply, chunk: dict[str, Any]) -> None:
    if "error" in chunk:
        seen.error = chunk["error"]
        return
    seen.ids += [each for each in [chunk["id"]] if each not in seen.ids]
    seen.models += [each for each in [chunk["model"]] if seen.models[-1:] != [each]]
    seen.usage = chunk.get("usage") or seen.usage
    reported = chunk.get("slipway", {})
    seen.facts |= reported
    seen.notices += [notice["code"] for notice in reported.get("notices", [])]
    for choice in first_of(chunk):
        seen.finish = choice["finish_reason"] or seen.finish
        seen.say(choice["delta"].get("content") or "")


def first_of(chunk: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Return the first choice of a chunk."""
    return (choice for choice in chunk["choices"] if choice["index"] == 0)


def _take_whole(seen: ChatReply, body: bytes) -> None:
    if seen.status != 200 and not body.startswith(b"{"):
        return
    said = json.loads(body)
    if "error" in said:
        seen.error = said["error"]
        return
    choice = next(first_of(said))
    seen.text, seen.finish, seen.usage = (
        choice["message"]["content"],
        choice["finish_reason"],
        said.get("usage"),
    )
    seen.ids, seen.models, seen.is_done = [said["id"]], [said["model"]], True
    seen.facts = said.get("slipway", {})
    seen.notices = [notice["code"] for notice in seen.facts.get("notices", [])]
