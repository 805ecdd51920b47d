"""The control channel between the supervisor and its workers: calls, as JSON lines.

A line is a call `{"call": 7, "to": "others", "verb": "prepare", "body": …}`, or the answer to one:
`{"answer": 7, "body": …}`, with `"error": "…"` if it failed. `to` is `supervisor`, `first` (the
worker that keeps the documents) or `others` (all workers but the caller, whose answers come as a
list). The supervisor passes on what is not for itself. A verb is a row in a table on each side, so
that a further one, such as a limit that all workers share, needs no other change.
"""

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, Literal

import msgspec

log = logging.getLogger("slipway")
CALL_S = 30.0  # how long an answer is waited for, if the caller does not say
LARGEST_LINE = 16 * 1024 * 1024

To = Literal["supervisor", "first", "others"]
Verb = Callable[[Any], Awaitable[Any]]


class ChannelError(Exception):
    """A call failed: there, on its way, or because nobody answered in time."""


class Line(msgspec.Struct, omit_defaults=True):
    """A call or an answer, as it is sent."""

    call: int | None = None
    to: To = "supervisor"
    verb: str = ""
    answer: int | None = None
    body: Any = None
    error: str | None = None


decode = msgspec.json.Decoder(Line).decode


def encode(line: Line) -> bytes:
    return msgspec.json.encode(line) + b"\n"


class Channel:
    """A worker's end. `verbs` are what others may call here; `lost` is called if the supervisor
    is gone.
    """

    def __init__(
        self, end: socket.socket, verbs: Mapping[str, Verb], lost: Callable[[], None]
    ) -> None:
        self._end, self._verbs, self._lost = end, verbs, lost
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._number = 0
        self._writer: asyncio.StreamWriter | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        reader, self._writer = await asyncio.open_connection(sock=self._end, limit=LARGEST_LINE)
        self._keep(self._read(reader))

    async def call(self, to: To, verb: str, body: Any = None, *, within_s: float = CALL_S) -> Any:
        """Return the answer. Raise ChannelError if there is none, or if it is an error."""
        self._number += 1
        number = self._number
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        try:
            self._send(Line(call=number, to=to, verb=verb, body=body))
            async with asyncio.timeout(within_s):
                return await answer
        except TimeoutError:
            raise ChannelError(f"`{verb}` was not answered within {within_s:g} s") from None
        finally:
            del self._waiting[number]

    def _send(self, line: Line) -> None:
        if self._writer is None or self._writer.is_closing():
            raise ChannelError("the supervisor has ended")
        self._writer.write(encode(line))

    async def _read(self, reader: asyncio.StreamReader) -> None:
        with suppress(OSError):  # the supervisor was killed
            while data := await reader.readline():
                line = decode(data)
                if line.answer is not None:
                    self._take(line)
                else:
                    self._keep(self._do(line))
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(ChannelError("the supervisor has ended"))
        self._lost()

    def _take(self, line: Line) -> None:
        answer = self._waiting.get(line.answer or 0)
        if answer is None or answer.done():  # its caller did not wait for it
            return
        if line.error is None:
            answer.set_result(line.body)
        else:
            answer.set_exception(ChannelError(line.error))

    async def _do(self, line: Line) -> None:
        try:
            verb = self._verbs.get(line.verb)
            if verb is None:
                raise ChannelError(f"there is no `{line.verb}` here")  # noqa: TRY301
            answer = Line(answer=line.call, body=await verb(line.body))
        except Exception as error:  # the caller waits for an answer, whatever it is
            if not isinstance(error, ChannelError):
                log.exception("bug: `%s` of a worker failed", line.verb)
            answer = Line(answer=line.call, error=str(error) or type(error).__name__)
        with suppress(ChannelError):  # nobody waits for the answer any more
            self._send(answer)

    def _keep(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        if self._writer is not None:
            self._writer.close()
