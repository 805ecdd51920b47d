"""Kept answers in Redis, so that several servers serve each other's.

Each entry is one key. The keys of an app, a tag or a document are in a set, by which they are found
when they are invalidated. Invalidations are also added to a log that every server reads, so that
each removes them from its own memory within POLL_S.
"""

import asyncio
import hashlib
import logging
import secrets
import time
from collections import deque
from collections.abc import Callable

import msgspec

from slipway.cache.entries import KeptAnswer, Selection, decode_entry, encode_entry
from slipway.cache.memory import names_of
from slipway.store.redis import SharedRedis

PREFIX = "slipway:cache:"
LOG = f"{PREFIX}log"
POLL_S = 0.5  # between two looks at the log
LOGGED = 10_000  # invalidations that the log keeps
SET_MS = 30 * 86_400_000  # how long the set of an app's keys is kept after the last one
AGAIN_S = 60.0  # invalidations of this long before Redis was lost are sent again
log = logging.getLogger("slipway")
encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder(Selection).decode


class SharedEntries:
    """Entries in Redis. `invalidated` is called with what other servers invalidate."""

    def __init__(self, redis: SharedRedis, invalidated: Callable[[Selection], object]) -> None:
        self.redis, self._invalidated = redis, invalidated
        self._me = secrets.token_hex(8).encode()  # this server's name in the log
        self._seen = b"0-0"  # the last entry of the log that we know
        self._sent: deque[tuple[float, Selection]] = deque(maxlen=1000)
        self._poller: asyncio.Task[None] | None = None
        redis.on_up.append(self._on_up)

    async def get(self, key: str) -> KeptAnswer | None:
        """Return an entry; None if there is none, or Redis does not answer in time."""
        results = await self.redis.run(("GET", PREFIX + key))
        found = results[0] if results else None
        if not isinstance(found, bytes):
            return None
        try:
            return decode_entry(found)
        except msgspec.MsgspecError:  # of another version of Slipway
            return None

    async def put(self, entry: KeptAnswer, now: float) -> None:
        """Keep an entry until it has expired for every use."""
        lasts_ms = int(1000 * (entry.lifetime.total - entry.age_s(now)))
        if lasts_ms <= 0:
            return
        commands: list[tuple[object, ...]] = [
            ("SET", PREFIX + entry.key, encode_entry(entry), "PX", lasts_ms)
        ]
        for name in names_of(entry):
            commands += [
                ("SADD", set_of(name), entry.key),
                ("PEXPIRE", set_of(name), max(SET_MS, 2 * lasts_ms)),
            ]
        await self.redis.run(*commands, writes=True)

    async def drop(self, key: str) -> None:
        await self.redis.run(("DEL", PREFIX + key))

    async def invalidate(self, selection: Selection) -> int | None:
        """Remove what a selection matches, and tell the other servers. Return how many entries
        were removed; None if Redis does not answer, which is made up for as soon as it does.
        """
        self._sent.append((time.monotonic(), selection))
        keys = await self._keys_of(selection)
        if keys is None:
            return None
        results = await self.redis.run(
            *(("DEL", PREFIX + key.decode()) for key in keys), self._logged(selection)
        )
        if results is None:
            return None
        return sum(result for result in results[:-1] if isinstance(result, int))

    def _logged(self, selection: Selection) -> tuple[object, ...]:
        return ("XADD", LOG, "MAXLEN", "~", LOGGED, "*", "by", self._me, "what", encode(selection))

    async def _keys_of(self, selection: Selection) -> list[bytes] | None:
        names = [name for name in selection.names() if name[0] != "key"]
        keys = [selection.key.encode()] if selection.key is not None else []
        if names:
            results = await self.redis.run(("SINTER", *(set_of(name) for name in names)))
            if not results or isinstance(results[0], Exception):
                return None
            found = set(results[0])
            keys = [key for key in keys if key in found] if selection.key is not None else [*found]
        if (selection.tenant is None and selection.apps is None) or not keys:
            return keys
        entries = await self.redis.run(*(("GET", PREFIX + key.decode()) for key in keys))
        if entries is None:
            return None
        return [
            key
            for key, entry in zip(keys, entries, strict=True)
            if isinstance(entry, bytes) and selection.matches(decode_entry(entry))
        ]

    # what other servers invalidate

    def start(self) -> None:
        self._poller = asyncio.get_running_loop().create_task(self._poll())

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(POLL_S)
            results = await self.redis.run(("XRANGE", LOG, b"(" + self._seen, "+", "COUNT", 100))
            if results and isinstance(results[0], list):
                self._apply(results[0])

    def _apply(self, entries: list[tuple[bytes, object]]) -> None:
        for number, fields in entries:
            self._seen = number
            named = fields if isinstance(fields, dict) else pairs(fields)
            if named.get(b"by") != self._me:
                self._invalidated(decode(named[b"what"]))

    async def _on_up(self) -> None:
        """Send our latest invalidations again, which Redis may not have or have lost; then remember
        where the log ends, or forget where it was if Redis begins with an empty one.
        """
        since = time.monotonic() - AGAIN_S
        again = [selection for at, selection in self._sent if at >= since]
        for selection in again:
            names = [name for name in selection.names() if name[0] != "key"]
            if names:
                found = await self.redis.ask_now(("SINTER", *(set_of(name) for name in names)))
                keys = [] if isinstance(found[0], Exception) else list(found[0])
            else:
                keys = [(selection.key or "").encode()]
            await self.redis.ask_now(
                *(("DEL", PREFIX + key.decode()) for key in keys), self._logged(selection)
            )
        last = (await self.redis.ask_now(("XREVRANGE", LOG, "+", "-", "COUNT", 1)))[0]
        is_new = not isinstance(last, list) or not last
        if is_new or self._seen == b"0-0" or order_of(last[0][0]) < order_of(self._seen):
            self._seen = b"0-0" if is_new else last[0][0]

    async def close(self) -> None:
        if self._poller is not None:
            self._poller.cancel()
            await asyncio.wait([self._poller])


def set_of(name: tuple[str, str]) -> str:
    """Return the key of the set for an app, a tag or a document."""
    field, value = name
    return f"{PREFIX}{field}:{hashlib.blake2b(value.encode(), digest_size=16).hexdigest()}"


def order_of(number: bytes) -> tuple[int, int]:
    """Return a number of the log, such as `1712-3`, in the form in which it can be compared."""
    first, _, second = number.partition(b"-")
    return int(first), int(second or 0)


def pairs(fields: object) -> dict[bytes, bytes]:
    flat = list(fields) if isinstance(fields, list | tuple) else []
    return dict(zip(flat[::2], flat[1::2], strict=True))
