"""Signed values for cookies: nobody but this server can make or change one."""

import hashlib
import hmac
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Protocol, TypeVar

import msgspec


class SessionEnds(Protocol):
    """A value that counts `until` a time; its `id` can be taken back before."""

    @property
    def until(self) -> float: ...

    @property
    def id(self) -> str: ...


Value = TypeVar("Value", bound=SessionEnds)
MOST_ENDED = 10_000  # sessions that were signed out and have not expired yet


class Sealer:
    """Sign values with a key of the store, and refuse those that have ended."""

    def __init__(self, secret: bytes, ended: dict[str, float] | None = None) -> None:
        """`ended` has when each value would have expired that ended before, by id; others are added
        to it.
        """
        self._key = hmac.digest(secret, b"login", "sha256")
        self._ended = {} if ended is None else ended

    def seal(self, value: SessionEnds) -> str:
        data = urlsafe_b64encode(msgspec.json.encode(value)).rstrip(b"=")
        return f"{data.decode()}.{self._sign(type(value).__name__, data)}"

    def open(self, sealed: str, kind: type[Value]) -> Value | None:
        """Return the value; None if it is not ours, has expired, or was ended."""
        data, _, signature = sealed.partition(".")
        if not data.isascii() or not signature.isascii():
            return None
        expected = self._sign(kind.__name__, data.encode())
        if not hmac.compare_digest(signature, expected):
            return None
        try:
            raw = urlsafe_b64decode(data + "=" * (-len(data) % 4))
            value = msgspec.json.decode(raw, type=kind)
        except (ValueError, msgspec.MsgspecError):
            return None
        return value if value.until > time.time() and value.id not in self._ended else None

    def end(self, value: SessionEnds) -> None:
        """Refuse this value from now on, such as after signing out or after its one use."""
        now = time.time()
        if len(self._ended) >= MOST_ENDED:
            for each in [each for each, until in self._ended.items() if until <= now]:
                del self._ended[each]
        self._ended[value.id] = value.until

    def _sign(self, kind: str, data: bytes) -> str:
        digest = hmac.digest(self._key, kind.encode() + b"\n" + data, hashlib.sha256)
        return urlsafe_b64encode(digest).rstrip(b"=").decode()
