"""Any endpoint that speaks OpenAI's chat-completions protocol."""

import asyncio
import re
import time
from typing import Any
from urllib.parse import urlencode

import msgspec

import slipway
from slipway.errors import (
    ProviderCut,
    ProviderDeclined,
    ProviderDown,
    ProviderError,
    ProviderKey,
    ProviderLimit,
    ProviderNonsense,
    ProviderRefused,
    ProviderSlow,
    ProviderTooLong,
)
from slipway.providers import Call, Whole, encode_json
from slipway.providers.http import Client, Pool, Reply, Timeouts, head_of, retry_after_s
from slipway.providers.sse import Framer, data_of
from slipway.settings import Model
from slipway.types import Piece, Usage

SECRET = re.compile(r"\b(sk|key|pk|api)[-_][A-Za-z0-9_\-*]{6,}")
CODE = re.compile(r"[\w.-]{1,64}", re.ASCII)  # what else stands there is no code of an error
PROBE_S = 1.0
AT_A_TIME = 16  # events; to read them takes 30 µs, and to write them as those of an app about 1 ms
# What providers say of a question that is too long, and of one that they will not answer: OpenAI,
# Azure, llama.cpp, vLLM, Anthropic; OpenAI, Azure, DashScope
TOO_LONG = re.compile(
    rb"context_length_exceeded|exceed_context_size_error|maximum context length|context window|prompt is too long",
    re.IGNORECASE,
)
DECLINED = re.compile(
    rb"content_policy|content_filter|content management policy|ResponsibleAIPolicyViolation|data_inspection_failed",
    re.IGNORECASE,
)
BROKEN_OFF = frozenset(
    {"error", "abort", "network_error", "insufficient_system_resource"}
)  # finish reasons that tell of no end
USAGE = b'"stream_options":{"include_usage":true},'


# What is read of a reply. Unknown fields are skipped, so that a provider may add what it likes.
class Details(msgspec.Struct):
    cached_tokens: int | None = None


class WireUsage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: Details | None = None

    def usage(self) -> Usage:
        cached = self.prompt_tokens_details.cached_tokens if self.prompt_tokens_details else None
        return Usage(
            input_tokens=self.prompt_tokens or 0,
            output_tokens=self.completion_tokens or 0,
            cached_tokens=cached or 0,
        )


class WireDelta(msgspec.Struct):
    content: str | list[Any] | None = None
    reasoning_content: Any = None
    tool_calls: Any = None


class WireChunkChoice(msgspec.Struct):
    delta: WireDelta | None = None
    finish_reason: str | None = None


class WireChunk(msgspec.Struct):
    choices: list[WireChunkChoice] | None = None
    usage: WireUsage | None = None
    error: Any = None


class WireMessage(msgspec.Struct):
    content: str | list[Any] | None = None


class WireChoice(msgspec.Struct):
    message: WireMessage
    finish_reason: str | None = None


class WireCompletion(msgspec.Struct):
    choices: list[WireChoice] | None = None
    usage: WireUsage | None = None
    error: Any = None


decode_chunk = msgspec.json.Decoder(WireChunk).decode
decode_completion = msgspec.json.Decoder(WireCompletion).decode


class OpenAIProvider:
    """One model behind one endpoint. Made at load time; its connections are opened by the first
    call.
    """

    parallel: int | None = None
    state: str | None = None

    def __init__(self, name: str, model: Model, kind: str) -> None:
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
        """The client's bytes with the upstream's name of the model in them, and usage asked for in
        streams.
        """
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
        """There is nothing to begin."""

    async def chat(self, call: Call) -> "OpenAIReply":
        try:
            reply = await self.client().send(self.head, self.body(call), call.words_by)
        except ProviderError as error:
            error.model = self.name
            raise
        if reply.status == 200:
            return OpenAIReply(self, reply, call)
        try:
            raise self.refusal(reply, await reply.read())
        finally:
            reply.close()

    def refusal(self, reply: Reply, body: bytes) -> ProviderError:
        """What a status other than 200 means: for the client, for us, or for the moment."""
        status = reply.status
        said, param, code = error_words(body)
        said = self.redacted(said)
        who = f"The provider of {self.name}"
        if status in (401, 402, 403):
            ours = f"{who} did not accept our key ({status})."
            return ProviderKey(
                with_theirs(ours, said), ours=ours, model=self.name, upstream_status=status
            )
        if status in (408, 504):
            return ProviderSlow(
                f"{who} says that it ran out of time.", model=self.name, upstream_status=status
            )
        if status == 429 or status >= 500:
            kind, did = (
                (ProviderLimit, "is limiting us")
                if status == 429
                else (ProviderDown, f"failed ({status})")
            )
            wait_s = retry_after_s(reply.header(b"retry-after"), time.time)
            ours = f"{who} {did}."
            return kind(
                with_theirs(ours, said),
                ours=ours,
                retry_after_s=wait_s,
                model=self.name,
                upstream_status=status,
            )
        if status < 400:
            what = f"{who} answered with status {status}, which is not followed."
            return ProviderNonsense(what, model=self.name, upstream_status=status)
        return self.refused(status, said, param, code, body)

    def refused(
        self, status: int, said: str, param: str | None, code: str | None, body: bytes
    ) -> ProviderError:
        """The request's own fault, in the provider's words and with its status and code."""
        if TOO_LONG.search(body):
            fits = f", {self.model.context} tokens" if self.model.context else ""
            what = f"The question with its sources and history does not fit into the context of {self.name}{fits}."
            return ProviderTooLong(what, model=self.name, upstream_status=status)
        kind = ProviderDeclined if DECLINED.search(body) else ProviderRefused
        ours = f"The provider of {self.name} refused the request ({status})."
        refused = kind(
            said or ours, ours=ours, param=param, model=self.name, upstream_status=status
        )
        refused.status, refused.code = (
            status,
            code if code and CODE.fullmatch(code) else refused.code,
        )
        refused.another_may_help = status == 404  # it does not know the name that we call it by
        return refused

    async def probe(self) -> bool:
        """Asks for the list of models. Who has none answers all the same; who does not take our
        key, or fails, is not well.
        """
        try:
            reply = await self.client().send(
                self.probe_head, b"", asyncio.get_running_loop().time() + PROBE_S
            )
        except ProviderError:
            return False
        reply.close()
        return reply.status < 500 and reply.status not in (401, 402, 403, 429)

    def redacted(self, text: str) -> str:
        """Provider errors may echo keys: ours, or what looks like one. On one line, as the log has
        it.
        """
        if self.model.api_key:
            text = text.replace(self.model.api_key, "[key]")
        return SECRET.sub("[key]", " ".join(text.split()))[:2000]

    def retire(self) -> None:
        if self._client is not None:
            self._client.retire()
        self._retired = True

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()


class OpenAIReply:
    """An answer under way. See ModelReply."""

    def __init__(self, provider: OpenAIProvider, reply: Reply, call: Call) -> None:
        self.provider, self.reply = provider, reply
        self.framer = Framer()
        self.hide_usage = not call.usage_wanted
        self.ends_by = call.ends_by
        self.silent = True
        self.events: list[bytes] = []  # whole ones that were not looked at yet
        self.broken: ProviderError | None = None
        self.finished = self.ended = False

    async def whole(self) -> Whole:
        try:
            raw = await self.reply.read()
        except ProviderError as error:
            raise self.named(error) from None
        try:
            completion = decode_completion(raw)
        except (msgspec.MsgspecError, RecursionError):
            raise self.nonsense("did not answer with a completion") from None
        if completion.error is not None:
            raise self.failure(raw)
        if not completion.choices:
            raise self.nonsense("answered with no choices")
        choice, usage = completion.choices[0], completion.usage
        if choice.finish_reason is None:
            raise self.cut()
        if choice.finish_reason in BROKEN_OFF:
            raise self.named(
                ProviderCut(f"{self.provider.name} broke off its answer ({choice.finish_reason}).")
            )
        return Whole(
            raw=raw,
            text=text_of(choice.message.content),
            finish=choice.finish_reason,
            usage=usage.usage() if usage is not None else None,
        )

    async def pieces(self) -> list[Piece]:
        """A few at a time of what came in one block, so that others go in between. What stands
        before something broken is given first.
        """
        if self.broken is not None:
            raise self.broken
        if self.events:
            await asyncio.sleep(0)
        found: list[Piece] = []
        try:
            await self.more()
            some, self.events = self.events[:AT_A_TIME], self.events[AT_A_TIME:]
            found.extend(
                self.piece(event) for event in some if not self.ended
            )  # keeps those before one that raises
        except ProviderError as error:
            self.broken = self.named(error)
            if not found:
                raise
        if self.silent and any(piece.spoke or piece.finish for piece in found):
            self.silent = False
            self.reply.limit(self.ends_by)
        return found

    async def more(self) -> None:
        """Waits until there are whole events, or the end was there."""
        while not self.events and not self.ended:
            data = await self.reply.chunk()
            if not data:
                raise self.cut()
            try:
                self.events = self.framer.feed(data)
            except ValueError:
                raise self.nonsense("sent an event that is too large") from None

    def piece(self, event: bytes) -> Piece:
        data = data_of(event)
        if data == b"[DONE]":
            if not self.finished:
                raise ProviderCut(f"{self.provider.name} ended its answer without saying why.")
            self.ended = True
            self.events = []
            return Piece(raw=event)
        if not data:
            return Piece(raw=event)
        try:
            chunk = decode_chunk(data)
        except (msgspec.MsgspecError, RecursionError):
            raise self.nonsense("sent an event that cannot be read") from None
        if chunk.error is not None:
            raise self.failure(data)
        usage = chunk.usage.usage() if chunk.usage is not None else None
        if not chunk.choices:
            hidden = usage is not None and self.hide_usage
            return Piece(raw=b"" if hidden else event, usage=usage)
        return self.said(event, chunk.choices, usage)

    def said(self, event: bytes, choices: list[WireChunkChoice], usage: Usage | None) -> Piece:
        text, finish, spoke = "", None, False
        for choice in choices:
            if choice.finish_reason is not None:
                finish = self.finish(choice.finish_reason)
            if (delta := choice.delta) is not None:
                text += text_of(delta.content) if delta.content else ""
                spoke = spoke or bool(delta.content or delta.reasoning_content or delta.tool_calls)
        return Piece(raw=event, text=text, spoke=spoke, finish=finish, usage=usage)

    def finish(self, reason: str) -> str:
        if reason in BROKEN_OFF:
            raise ProviderCut(f"{self.provider.name} broke off its answer ({reason}).")
        self.finished = True
        return reason

    def cut(self) -> ProviderError:
        if self.framer.rest or self.finished:
            return ProviderCut(f"{self.provider.name} ended its answer before its end.")
        return ProviderCut(f"{self.provider.name} ended its answer without saying why.")

    def failure(self, data: bytes) -> ProviderError:
        """`{"error": …}` where an answer should be: in a 200, or inside a stream."""
        ours = f"The provider of {self.provider.name} failed."
        said = self.provider.redacted(error_words(data)[0])
        return ProviderDown(with_theirs(ours, said), ours=ours, model=self.provider.name)

    def nonsense(self, what: str) -> ProviderError:
        return ProviderNonsense(
            f"The provider of {self.provider.name} {what}.", model=self.provider.name
        )

    def named(self, error: ProviderError) -> ProviderError:
        error.model = self.provider.name
        return error

    def close(self) -> None:
        self.reply.close(nearly_done=self.ended)


def text_of(content: str | list[Any] | None) -> str:
    """The text of a message's content, which may come in parts."""
    if isinstance(content, str):
        return content
    return "".join(
        str(p.get("text", ""))
        for p in content or ()
        if isinstance(p, dict) and p.get("type") == "text"
    )


def with_theirs(ours: str, said: str) -> str:
    """Our sentence with the provider's words behind it, where it said any."""
    return f"{ours.removesuffix('.')}: {said}" if said else ours


def error_words(body: bytes) -> tuple[str, str | None, str | None]:
    """(message, param, code) of an error body in OpenAI's form, or in one near enough."""
    try:
        found = msgspec.json.decode(body)
    except (msgspec.MsgspecError, RecursionError):
        return "", None, None
    error = found.get("error", found) if isinstance(found, dict) else None
    if isinstance(error, str):
        return error, None, None
    if not isinstance(error, dict):
        return "", None, None
    message, param, code = error.get("message"), error.get("param"), error.get("code")
    return (
        str(message or ""),
        param if isinstance(param, str) else None,
        code if isinstance(code, str) else None,
    )


def connect(model: Model, who: str) -> Client:
    """The client for one endpoint: our own, or the library's where a proxy stands between."""
    c = model.connection
    timeouts = Timeouts(c.connect, c.first_byte, c.between_bytes)
    if c.proxy:
        from slipway.providers.proxied import (
            ProxiedClient,
        )  # httpx is imported only where a proxy is set

        return ProxiedClient(model.base_url, who, c.proxy, timeouts, most=c.max, ca_file=c.ca_file)
    return Pool(
        model.base_url, who, timeouts, keep_alive_s=c.keep_alive, most=c.max, ca_file=c.ca_file
    )


async def models_at(model: Model, within_s: float = 3.0) -> list[str]:
    """The names that an endpoint's `/models` lists. ProviderError where it does not answer so."""
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
        listed = msgspec.json.decode(body, type=dict[str, Any]).get("data")
        return [str(m["id"]) for m in listed] if isinstance(listed, list) else []
    except TimeoutError:
        raise ProviderSlow(f"{model.base_url} did not answer within {within_s:g} s.") from None
    except (msgspec.MsgspecError, KeyError, TypeError):
        raise ProviderNonsense(
            f"{model.base_url}/models did not answer with a list of models."
        ) from None
    finally:
        await client.close()
