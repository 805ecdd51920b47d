"""A Redis that several servers share. It answers within a few milliseconds, or is left alone.

Commands of all callers go out together over one connection. A command that is not answered in time
gives None, and whoever sent it goes on without: nothing may wait for Redis, and nothing may fail
because of it. While Redis does not answer, no command is sent; a task in the background tries to
reach it. Each change of state is one line in the log.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal

from slipway.errors import SettingsError

if TYPE_CHECKING:
    from redis.asyncio import Redis

EXTRA = "slipway[redis]"
LIMIT_S = 0.02  # for an answer
CONNECT_S = 1.0
RETRY_S = 0.5  # between two tries to reach it
FULL_S = 2.0  # after a command that it had no memory for, how long writing is left out
MOST = 64  # callers whose commands are sent together
LATE_S = 0.005  # if our own process was late by more than this, Redis is not to blame
MOST_LATE = 20  # callers in a row who got no answer in time, until it is lost
STALL_S = 0.1  # after so long without any answer it is lost as well
SLOW_S, SLOW_TIMES, REST_S = 10.0, 3, 3.0  # lost so many times in so many seconds: a rest
log = logging.getLogger("slipway")

Command = tuple[Any, ...]
State = Literal["starting", "up", "down"]


def check_installed() -> None:
    """Raise SettingsError if the extra is missing."""
    if find_spec("redis") is None:
        raise SettingsError([f"shared: Redis needs the extra: pip install '{EXTRA}'"])


class SharedRedis:
    """One Redis server. Call `start` on the loop; until it answers, every command gives None.

    `on_up` are called each time it can be reached, before any other command is sent.
    """

    def __init__(self, url: str, limit_s: float = LIMIT_S) -> None:
        check_installed()
        self.url, self.limit_s = url, limit_s
        self.state: State = "starting"
        self.is_full = False
        self.on_up: list[Callable[[], Awaitable[None]]] = []
        self._client: Redis | None = None
        self._waiting: deque[tuple[Sequence[Command], asyncio.Future[Any]]] = deque()
        self._sender: asyncio.Task[None] | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._lost = asyncio.Event()
        self._full_until = 0.0
        self._lates = 0  # callers in a row who got no answer in time
        self._slow: deque[float] = deque(maxlen=SLOW_TIMES)  # when it was lost for being slow

    # asked

    async def run(self, *commands: Command, writes: bool = False) -> list[Any] | None:
        """Return the results of commands, in order; None if Redis cannot be asked now.

        `writes`: they need memory there, so that they are left out for a while if it is full. A
        result may be an exception, if Redis refused one of several commands.
        """
        loop = asyncio.get_running_loop()
        if self.state != "up" or (writes and self._full_until > loop.time()):
            return None
        answer: asyncio.Future[list[Any] | None] = loop.create_future()
        self._waiting.append((commands, answer))
        if self._sender is None or self._sender.done():
            self._sender = loop.create_task(self._send_all())
        timer = _Timer(self.limit_s, partial(self._late, answer))
        try:
            results = await answer
        finally:
            timer.close()
        if results is not None:
            self._lates = 0
            if writes:
                self._note_space(results)
        return results

    def _late(self, answer: "asyncio.Future[list[Any] | None]") -> None:
        """Let a caller go on without an answer. After so many of them, Redis is lost."""
        if answer.done():
            return
        answer.set_result(None)
        self._lates += 1
        if self._lates >= MOST_LATE and self._sender is not None:
            self._sender.cancel()

    def _note_space(self, results: Sequence[Any]) -> None:
        """Leave writing out for a while after a command that Redis had no memory for."""
        is_full = any(
            (isinstance(each, Exception) and "OOM" in f"{type(each).__name__} {each}".upper())
            or type(each).__name__ == "OutOfMemoryError"
            for each in results
        )
        if is_full:
            self._full_until = asyncio.get_running_loop().time() + FULL_S
        if is_full and not self.is_full:
            log.warning(
                "%s is full: nothing new is kept there. Raise its `maxmemory`, or set a "
                "`maxmemory-policy` that evicts.",
                self.name,
            )
        elif self.is_full and not is_full:
            log.info("%s has memory again", self.name)
        self.is_full = is_full

    @property
    def name(self) -> str:
        """Return what the log calls it: its address without user and password."""
        scheme, mark, rest = self.url.partition("://")
        return f"Redis at {scheme}{mark}{rest.rpartition('@')[2]}"

    # sending

    async def _send_all(self) -> None:
        """Send what waits, all of it together, until nothing does.

        What is late may still come, and others may ask meanwhile; after STALL_S, or if this task is
        cancelled, the connection is lost.
        """
        answers = list[asyncio.Future[Any]]()
        try:
            while self._waiting:
                some = [self._waiting.popleft() for _ in range(min(MOST, len(self._waiting)))]
                answers = [answer for _, answer in some]
                commands = [command for commands, _ in some for command in commands]
                async with asyncio.timeout(STALL_S):
                    results = await self._execute(commands)
                for own, answer in some:
                    mine, results = results[: len(own)], results[len(own) :]
                    if not answer.done():
                        answer.set_result(mine)
        except asyncio.CancelledError:
            self._lose(answers, TimeoutError())
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, we go on without Redis
            self._lose(answers, error)

    async def _execute(self, commands: Sequence[Command]) -> list[Any]:
        if self._client is None:
            raise ConnectionError
        if len(commands) == 1:
            from redis.exceptions import ResponseError

            try:
                return [await self._client.execute_command(*commands[0])]  # type: ignore[no-untyped-call]
            except ResponseError as error:
                return [error]
        pipeline = self._client.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        results: list[Any] = await pipeline.execute(raise_on_error=False)
        return results

    def _lose(self, answers: "Sequence[asyncio.Future[Any]]", error: BaseException) -> None:
        """Give None to all who wait, and reach for Redis again: the connection is in no known
        state.
        """
        waiting = [*answers, *(answer for _, answer in self._waiting)]
        self._waiting.clear()
        self._lates = 0
        for answer in waiting:
            if not answer.done():
                answer.set_result(None)
        if isinstance(error, TimeoutError):
            self._slow.append(asyncio.get_running_loop().time())
        if self.state == "up":
            self.state = "starting"
            self._lost.set()

    # reaching it

    def start(self) -> None:
        """Begin to reach for it, in the background."""
        self._keeper = asyncio.get_running_loop().create_task(self._keep())

    async def _keep(self) -> None:
        """Reach for Redis whenever it is lost, and say so once if that fails."""
        is_known = False  # whether the log has said that it is reached
        while True:
            try:
                await self._reach()
            except Exception as error:  # noqa: BLE001 - whatever it is, we try again
                if self.state != "down":
                    self.state, is_known = "down", False
                    log.warning("%s %s; it is left out until then", self.name, reason(error))
                await asyncio.sleep(RETRY_S)
                continue
            if not is_known:
                is_known = True
                log.info("%s answers", self.name)
            self.state = "up"
            self._lost.clear()
            await self._lost.wait()

    async def _reach(self) -> None:
        """Connect, and see that it answers in time. Raises what is wrong."""
        from redis.asyncio import Redis
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff

        now = asyncio.get_running_loop().time()
        if len(self._slow) == SLOW_TIMES and now - self._slow[0] < SLOW_S:
            if now - self._slow[-1] < REST_S:
                raise TimeoutError
            self._slow.clear()
        await self._disconnect()
        self._client = Redis.from_url(
            self.url,
            socket_connect_timeout=CONNECT_S,
            socket_timeout=None,
            retry=Retry(NoBackoff(), 0),
            max_connections=2,
        )
        async with asyncio.timeout(CONNECT_S):
            await self._client.ping()
        for _ in range(2):
            async with asyncio.timeout(self.limit_s):
                await self._client.ping()
        for each in self.on_up:
            async with asyncio.timeout(CONNECT_S):
                await each()

    async def ask_now(self, *commands: Command) -> list[Any]:
        """Send commands from `on_up`, when nobody else may send. Raises if Redis fails."""
        return await self._execute(commands)

    async def _disconnect(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            with suppress(Exception):
                async with asyncio.timeout(CONNECT_S):
                    await client.aclose()
                    await client.connection_pool.disconnect(inuse_connections=True)

    async def close(self) -> None:
        """Stop reaching for it, and disconnect."""
        self.state = "down"
        for task in (self._keeper, self._sender):
            if task is not None:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
        await self._disconnect()


class _Timer:
    """Call something after so many seconds; a little later if the event loop itself is late, since
    then what is waited for may be here already.
    """

    __slots__ = ("_handle", "_loop", "_more_s", "_then", "_until")

    def __init__(self, within_s: float, then: Callable[[], None]) -> None:
        self._loop, self._then, self._more_s = asyncio.get_running_loop(), then, within_s / 4
        self._until = self._loop.time() + within_s
        self._handle = self._loop.call_at(self._until, self._expire)

    def _expire(self) -> None:
        late_s = self._loop.time() - self._until
        if late_s > LATE_S and self._more_s:
            self._handle = self._loop.call_later(self._more_s, self._expire)
            self._until, self._more_s = self._until + late_s + self._more_s, 0.0
        else:
            self._then()

    def close(self) -> None:
        self._handle.cancel()


def reason(error: BaseException) -> str:
    """Say why Redis cannot be used, and what to do."""
    text = str(error)
    if "WRONGPASS" in text or "NOAUTH" in text or type(error).__name__ == "AuthenticationError":
        return "rejected the user or password: correct them in `shared`"
    if type(error).__name__ in ("InvalidResponse", "ProtocolError") or "Protocol Error" in text:
        return "does not speak the protocol of Redis: correct host and port in `shared`"
    if isinstance(error, TimeoutError) or type(error).__name__ == "TimeoutError":
        return f"does not answer within {LIMIT_S * 1000:g} ms: check its load and the network"
    if "invalid DB index" in text or "DB index is out of range" in text:
        return "has no database of this number: correct it in `shared`"
    if type(error).__name__ == "BusyLoadingError":
        return "is loading its data"
    return (
        f"cannot be reached ({(text or type(error).__name__)[:200]}): start it, or correct `shared`"
    )


async def check(url: str) -> str | None:
    """Return a warning if a Redis server cannot be reached now. Raises SettingsError if it rejects
    what the settings say.
    """
    shared = SharedRedis(url, limit_s=CONNECT_S)
    try:
        await shared._reach()
    except Exception as error:  # noqa: BLE001 - the sentence says what it is
        why = f"shared: {shared.name} {reason(error)}"
        if "correct" in why and "start it" not in why:
            raise SettingsError([why]) from None
        return why
    finally:
        await shared.close()
    return None


async def measured(url: str) -> tuple[str | None, float]:
    """Return what is wrong with a Redis server, None if nothing is, and the seconds of a ping."""
    shared = SharedRedis(url, limit_s=CONNECT_S)
    try:
        await shared._reach()
        began_at = time.monotonic()
        await shared.ask_now(("PING",))
        return None, time.monotonic() - began_at
    except Exception as error:  # noqa: BLE001 - the sentence says what it is
        return f"{shared.name} {reason(error)}", 0.0
    finally:
        await shared.close()
