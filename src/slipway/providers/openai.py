"""Any endpoint that speaks OpenAI's chat-completions protocol."""

import asyncio
import contextlib
import time
from urllib.parse import urlencode

import slipway
from slipway.errors import ProviderError, ProviderNonsense, ProviderSlow
from slipway.providers import Call, Reachable, encode_json
from slipway.providers.client import Client, HttpReply, Timeouts, head_of
from slipway.providers.failures import ErrorReader
from slipway.providers.http import Pool
from slipway.providers.lenient_json import BrokenJson, read_json
from slipway.providers.replies import OpenAIReply
from slipway.providers.waiting_times import reset_s, wait_s
from slipway.settings import ModelSettings

PROBE_S = 3.0
ERROR_BODY_S = 2.0  # how long the body of an error may take after its head
LARGEST_ERROR = 1024 * 1024  # bytes of an error's body that are read
USAGE = b'"stream_options":{"include_usage":true},'


class OpenAIProvider:
    """One model behind one endpoint. Created at load time; the first call opens its connections."""

    parallel: int | None = None
    state: str | None = None

    def __init__(self, name: str, model: ModelSettings, kind: str) -> None:
        self.name, self.kind, self.zone, self.price = name, kind, model.zone, model.price
        self.parallel: int | None = None
        self.model = model
        self.url = f"{model.base_url}/chat/completions" + (
            f"?{urlencode(model.query)}" if model.query else ""
        )
        self.upstream_name = encode_json(model.name)
        headers = {
            "User-Agent": f"slipway/{slipway.__version__}",
            "Accept-Encoding": "identity",
            "Content-Type": "application/json",
        }
        if model.api_key:
            headers["Authorization"] = f"Bearer {model.api_key}"
        self.error_reader = ErrorReader(name, model.context, model.api_key)
        self.head = head_of("POST", self.url, {**headers, **model.headers})
        self.probe_head = head_of("GET", f"{model.base_url}/models", {**headers, **model.headers})
        self._client: Client | None = None
        self._retired = False

    def client(self) -> Client:
        if self._client is None:
            self._client = connect(self.model, f"The provider of {self.name}")
            if self._retired:
                self._client.retire()
        return self._client

    def body(self, call: Call) -> bytes:
        """Return the client's bytes with the upstream's model name, asking for usage in streams."""
        start, end = call.name_at
        if not call.stream or not (
            self.model.stream_usage or call.stream_options or call.usage_wanted
        ):
            return b"%b%b%b" % (call.body[:start], self.upstream_name, call.body[end:])
        options = USAGE
        if call.stream_options or not self.model.stream_usage:
            asked = {"include_usage": True} if self.model.stream_usage or call.usage_wanted else {}
            options = b'"stream_options":%b,' % encode_json({**call.stream_options, **asked})
        return b"{%b%b%b%b" % (
            options,
            call.body[call.body.index(b"{") + 1 : start],
            self.upstream_name,
            call.body[end:],
        )

    def start(self) -> None:
        """Do nothing: a remote endpoint needs no preparation."""

    async def chat(self, call: Call) -> OpenAIReply:
        try:
            reply = await self.client().send(
                self.head + call.trace if call.trace else self.head,
                self.body(call),
                call.words_by,
                may_resend=call.may_resend,
            )
        except ProviderError as error:
            error.model = self.name
            raise
        if reply.status == 200:
            return OpenAIReply(self.error_reader, reply, call, self.model.connection.between_bytes)
        try:
            body = await body_of_error(reply, call.words_by)
            raise self.error_reader.error(body, reply.status, lambda: waits_for(reply))
        except ProviderError as error:
            error.upstream_status = reply.status
            raise
        finally:
            reply.close()

    async def probe(self) -> Reachable:
        """Ask for the list of models. Not every endpoint that answers questions has one."""
        until = asyncio.get_running_loop().time() + PROBE_S
        try:
            reply = await self.client().send(self.probe_head, b"", until)
        except ProviderError as error:
            if error.before_sending:
                return "unreachable"
            return "silent" if isinstance(error, ProviderSlow) else "failing"
        reply.close()
        if reply.status >= 500:
            return "failing"
        return "refused" if reply.status in (401, 402, 403, 429) else "well"

    def retire(self) -> None:
        if self._client is not None:
            self._client.retire()
        self._retired = True

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()


async def body_of_error(reply: HttpReply, until: float) -> bytes:
    """Return the body of an error, or as much of it as arrives in ERROR_BODY_S: the status alone
    says what is to be done.
    """
    reply.limit(min(until, asyncio.get_running_loop().time() + ERROR_BODY_S))
    parts, size = list[bytes](), 0
    with contextlib.suppress(ProviderError):
        while size < LARGEST_ERROR and (part := await reply.chunk()):
            parts.append(part)
            size += len(part)
    return b"".join(parts)


def waits_for(reply: HttpReply) -> float | None:
    """Return for how many seconds the provider wants to be left alone, from a reply's headers."""
    asked_s = wait_s(reply.header, time.time)
    return reset_s(reply.header, time.time) if asked_s is None else asked_s


def connect(model: ModelSettings, who: str) -> Client:
    """Return the client for one endpoint: our own, or httpx's if a proxy is set."""
    c = model.connection
    timeouts = Timeouts(c.connect, c.first_byte, c.between_bytes)
    if c.proxy:
        from slipway.providers.proxied import (
            ProxiedClient,
        )  # httpx is imported only if a proxy is set

        return ProxiedClient(model.base_url, who, c.proxy, timeouts, most=c.max, ca_file=c.ca_file)
    return Pool(
        model.base_url, who, timeouts, keep_alive_s=c.keep_alive, most=c.max, ca_file=c.ca_file
    )


async def models_at(model: ModelSettings, within_s: float = 3.0) -> list[str]:
    """Return the names that an endpoint's `/models` lists. Raises ProviderError if it does not
    answer with a list.
    """
    client = connect(model, model.base_url)
    headers = {
        "Accept-Encoding": "identity",
        **({"Authorization": f"Bearer {model.api_key}"} if model.api_key else {}),
        **model.headers,
    }
    try:
        async with asyncio.timeout(within_s):
            reply = await client.send(head_of("GET", f"{model.base_url}/models", headers), b"")
            body = await reply.read()
        listed = read_json(body)
        models = listed.get("data") if isinstance(listed, dict) else None
        return [str(each["id"]) for each in models] if isinstance(models, list) else []
    except TimeoutError:
        raise ProviderSlow(f"{model.base_url} did not answer within {within_s:g} s.") from None
    except (BrokenJson, KeyError, TypeError):
        raise ProviderNonsense(
            f"{model.base_url}/models did not answer with a list of models."
        ) from None
    finally:
        await client.close()
