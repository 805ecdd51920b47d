"""The same Client through an HTTP proxy, by httpx: correct with every kind of proxy, and fast
enough there.
"""

import asyncio
import math
from collections.abc import AsyncIterator, Coroutine
from typing import Any
from urllib.parse import urlsplit

import httpx

from slipway.errors import ModelBusy, ProviderCut, ProviderDown, ProviderNonsense, ProviderSlow
from slipway.providers.client import (
    LARGEST_REPLY,
    HttpReply,
    MayResend,
    Sink,
    Timeouts,
    always,
    unsent,
)
from slipway.providers.tls import tls_context


class ProxiedReply:
    """An HttpReply of httpx."""

    def __init__(self, response: httpx.Response, client: "ProxiedClient") -> None:
        self.status = response.status_code
        self.response, self.client, self.until = response, client, math.inf
        self.closed = False
        self._chunks: AsyncIterator[bytes] = response.aiter_raw()

    def header(self, name: bytes) -> bytes | None:
        value = self.response.headers.get(name.decode())
        return value.encode("latin-1") if value is not None else None

    def headers_with(self, prefix: bytes) -> list[tuple[bytes, bytes]]:
        return [
            (name.lower(), value)
            for name, value in self.response.headers.raw
            if name.lower().startswith(prefix)
        ]

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
            raise ProviderSlow(
                f"{who} fell silent for {silence_s:g} s in the middle of its answer."
            ) from None
        except httpx.HTTPError:
            raise ProviderCut(f"{who} ended the connection in the middle of its answer.") from None

    @property
    def is_complete(self) -> bool:
        return False

    def divert(self, sink: Sink | None) -> None:
        """Do nothing: httpx gives out bytes only to its reader."""

    def limit(self, until: float) -> None:
        self.until = until

    def close(self, *, nearly_done: bool = False) -> None:
        if not self.closed:
            self.closed = True
            self.client.close_in_background(self.response)


class ProxiedClient:
    """A Client that sends every request through one proxy."""

    def __init__(
        self,
        url: str,
        who: str,
        proxy: str,
        timeouts: Timeouts,
        *,
        most: int,
        ca_file: str | None = None,
    ) -> None:
        parts = urlsplit(url)
        self.origin, self.who = f"{parts.scheme}://{parts.netloc}", who
        self.timeouts, self.most = timeouts, most
        self._proxy, self._verify = (
            proxy,
            tls_context(ca_file) if parts.scheme == "https" else False,
        )
        self.http = self._new_client()
        self._calls = 0
        self._retired = False
        self._closing: set[asyncio.Task[None]] = set()

    def _new_client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            proxy=self._proxy,
            verify=self._verify,
            timeout=httpx.Timeout(
                None, connect=self.timeouts.connect_s, pool=self.timeouts.connect_s
            ),
            limits=httpx.Limits(max_connections=self.most),
            follow_redirects=False,
            trust_env=False,
        )

    async def send(
        self, head: bytes, body: bytes, until: float = math.inf, *, may_resend: MayResend = always
    ) -> HttpReply:
        self._calls += 1
        try:
            reply = ProxiedReply(await self._send(head, body, until), self)
        except BaseException:
            self._call_ended()
            raise
        reply.limit(until)
        return reply

    async def _send(self, head: bytes, body: bytes, until: float) -> httpx.Response:
        first, *lines = head.decode("latin-1").splitlines()
        method, target, _ = first.split(" ")
        headers = [
            (k, v) for k, _, v in (line.partition(": ") for line in lines) if k.lower() != "host"
        ]
        request = self.http.build_request(
            method, self.origin + target, headers=headers, content=body
        )
        try:
            left_s = until - asyncio.get_running_loop().time()
            async with asyncio.timeout(
                min(self.timeouts.connect_s + self.timeouts.first_byte_s, left_s)
            ):
                return await self.http.send(request, stream=True)
        except TimeoutError:
            raise ProviderSlow(
                f"{self.who} did not begin to answer within {self.timeouts.first_byte_s:g} s."
            ) from None
        except httpx.PoolTimeout:
            raise ModelBusy(
                f"{self.who} has no connection free: all {self.most} are in use.", retry_after_s=1.0
            ) from None
        except httpx.TimeoutException:
            what = f"{self.who} could not be reached within {self.timeouts.connect_s:g} s."
            raise unsent(ProviderSlow(what)) from None
        except httpx.HTTPError as error:
            failed = ProviderDown(f"{self.who} cannot be reached through the proxy: {error}.")
            failed.before_sending = isinstance(error, httpx.ConnectError | httpx.ProxyError)
            raise failed from None

    def close_in_background(self, response: httpx.Response) -> None:
        """Close a response in a task, because httpx closes only in a coroutine and the caller
        cannot wait.
        """
        self._in_background(self._close_response(response))

    async def _close_response(self, response: httpx.Response) -> None:
        try:
            await response.aclose()
        finally:
            self._call_ended()

    def _call_ended(self) -> None:
        self._calls -= 1
        self._replace_if_retired()

    def _replace_if_retired(self) -> None:
        """Replace httpx's client once no call uses it, which is how it ends kept connections."""
        if self._retired and not self._calls:
            before, self.http = self.http, self._new_client()
            self._in_background(before.aclose())

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def retire(self) -> None:
        self._retired = True
        self._replace_if_retired()

    async def close(self) -> None:
        while self._closing:
            await asyncio.gather(*self._closing)
        await self.http.aclose()
