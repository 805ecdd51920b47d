"""The same Client through an HTTP proxy, by httpx: right with every kind of proxy, and fast enough where one stands between."""

import asyncio
import math
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import httpx

from slipway.errors import ProviderCut, ProviderDown, ProviderNonsense, ProviderSlow
from slipway.providers.http import LARGEST_REPLY, Reply, Timeouts, tls_context


class ProxiedReply:
    def __init__(self, response: httpx.Response, client: "ProxiedClient") -> None:
        self.status = response.status_code
        self.response, self.client, self.until = response, client, math.inf
        self._chunks: AsyncIterator[bytes] = response.aiter_raw()

    def header(self, name: bytes) -> bytes | None:
        value = self.response.headers.get(name.decode())
        return value.encode("latin-1") if value is not None else None

    async def read(self) -> bytes:
        parts, size = [], 0
        while part := await self.chunk():
            parts.append(part)
            size += len(part)
            if size > LARGEST_REPLY:
                raise ProviderNonsense(f"{self.client.who} sent a reply that is too large.")
        return b"".join(parts)

    async def chunk(self) -> bytes:
        who, silence_s = self.client.who, self.client.timeouts.between_bytes_s
        left_s = self.until - asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(min(silence_s, left_s)):
                return await anext(self._chunks, b"")
        except TimeoutError:
            if left_s <= silence_s:
                raise ProviderSlow(f"{who} took too long.") from None
            raise ProviderSlow(f"{who} fell silent for {silence_s:g} s in the middle of its answer.") from None
        except httpx.HTTPError:
            raise ProviderCut(f"{who} ended the connection in the middle of its answer.") from None

    def limit(self, until: float) -> None:
        self.until = until

    def close(self, *, nearly_done: bool = False) -> None:
        self.client.closing_soon(self.response)


class ProxiedClient:
    def __init__(self, url: str, who: str, proxy: str, timeouts: Timeouts, ca_file: str | None = None) -> None:
        parts = urlsplit(url)
        self.origin, self.who = f"{parts.scheme}://{parts.netloc}", who
        self.timeouts = timeouts
        limits = httpx.Timeout(None, connect=timeouts.connect_s)
        verify = tls_context(ca_file) if parts.scheme == "https" else False
        self.http = httpx.AsyncClient(proxy=proxy, verify=verify, timeout=limits, follow_redirects=False, trust_env=False)
        self._closing: set[asyncio.Task[None]] = set()

    async def send(self, head: bytes, body: bytes, until: float = math.inf) -> Reply:
        first, *lines = head.decode("latin-1").splitlines()
        method, target, _ = first.split(" ")
        headers = [(k, v) for k, _, v in (line.partition(": ") for line in lines) if k.lower() != "host"]
        request = self.http.build_request(method, self.origin + target, headers=headers, content=body)
        try:
            left_s = until - asyncio.get_running_loop().time()
            async with asyncio.timeout(min(self.timeouts.connect_s + self.timeouts.first_byte_s, left_s)):
                reply = ProxiedReply(await self.http.send(request, stream=True), self)
                reply.limit(until)
                return reply
        except TimeoutError:
            raise ProviderSlow(f"{self.who} did not begin to answer within {self.timeouts.first_byte_s:g} s.") from None
        except httpx.TimeoutException:
            raise ProviderSlow(f"{self.who} could not be reached within {self.timeouts.connect_s:g} s.") from None
        except httpx.HTTPError as error:
            raise ProviderDown(f"{self.who} cannot be reached through the proxy: {error}.") from None

    def closing_soon(self, response: httpx.Response) -> None:
        """httpx closes in a coroutine only, and a reply may be let go of where nothing can be awaited."""
        task = asyncio.get_running_loop().create_task(response.aclose())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        await asyncio.gather(*self._closing)
        await self.http.aclose()
