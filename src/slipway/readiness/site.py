"""The server that is looked at from outside, and what was learned of it so far."""

import asyncio
import ipaddress
from typing import Any

from slipway.readiness.proxies import Proxy, Topic, fixes, proxies_in
from slipway.readiness.raw_http import Address, RawResponse
from slipway.types import Record


class Wish(Record, frozen=True, kw_only=True):
    """What a person wants to be tried."""

    seconds: float = 4.0  # length of the measured stream
    every_ms: float = 250.0
    silence_s: float = 12.0
    app: str | None = None
    model: str | None = None


class Site:
    """The server, what it said at first, and the proxies in front of it."""

    def __init__(
        self, address: Address, wish: Wish, said: dict[str, Any], seen: list[RawResponse]
    ) -> None:
        self.address, self.wish, self.said, self.seen = address, wish, said, seen
        self.streamed = asyncio.Event()  # the measured stream has ended

    @property
    def proxies(self) -> list[Proxy]:
        return proxies_in(self.seen)

    def fixes(self, topic: Topic) -> tuple[str, ...]:
        """Return what to change in the proxies that were seen."""
        return fixes(topic, self.proxies)

    @property
    def is_local(self) -> bool:
        """Return whether the address is of this machine."""
        try:
            return ipaddress.ip_address(self.address.host.strip("[]")).is_loopback
        except ValueError:
            return self.address.host == "localhost"

    @property
    def heartbeat_s(self) -> float:
        return float(self.said.get("heartbeat_s", 10.0))
