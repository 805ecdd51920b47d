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
from slipway.providers import Call, Completion, encode_json
from slipway.providers.http import Client, HttpReply, Pool, Timeouts, head_of, retry_after_s
from slipway.providers.sse import Framer, data_of
from slipway.settings import ModelSettings
from slipway.types import Piece, Usage

SECRET = re.compile(r"\b(sk|key|pk|api)[-_][A-Za-z0-9_\-*]{6,}")
CODE = re.compile(r"[\w.-]{1,64}", re.ASCII)  # anything else is not passed on as an error code
PROBE_S = 1.0
AT_A_TIME = 16  # events; reading them takes 30 µs, writing them as an app's events about 1 ms
# How providers report that a question is too long (OpenAI, Azure, llama.cpp, vLLM, Anthropic), and
# that they will not answer it (OpenAI, Azure, DashScope)
TOO_LONG = re.compile(
    rb"context_length_exceeded|exceed_context_size_error|maximum context length|context "
    rb"window|prompt is too long",
    re.IGNORECASE,
)
DECLINED = re.compile(
    rb"content_policy|content_filter|content management "
    rb"policy|ResponsibleAIPolicyViolation|data_inspection_failed",
    re.IGNORECASE,
)
BROKEN_OFF = frozenset(
    {"error", "abort", "network_error", "insufficient_system_resource"}
)  # finish reasons that mean a failure
USAGE = b'"stream_options":{"include_usage":true},'


# The fields that are read from a reply. Unknown ones are skipped.
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


class CompletionMessage(msgspec.Struct):
    content: str | list[Any] | None = None


class CompletionChoice(msgspec.Struct):
    message: CompletionMessage
    finish_reason: str | None = None


class WireCompletion(msgspec.Struct):
    choices: list[CompletionChoice] | None = None
    usage: WireUsage | None = None
    error: Any = None


decode_chunk = msgspec.json.Decoder(WireChunk).decode
decode_completion = msgspec.json.Decoder(WireCompletion).decode


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

    async def chat(self, call: Call) -> "OpenAIReply":
        try:
            reply = await self.client().send(self.head, self.body(call), call.words_by)
        except ProviderError as error:
            error.model = self.name
            raise
        if reply.status == 200:
            return OpenAIReply(self, reply, call)
        try:
            raise self.error_from_status(reply, await reply.read())
        finally:
            reply.close()

    def error_from_status(self, reply: HttpReply, body: bytes) -> ProviderError:
        """Return the error that a status other than 200 means."""
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
        return self.request_error(status, said, param, code, body)

    def request_error(
        self, status: int, said: str, param: str | None, code: str | None, body: bytes
    ) -> ProviderError:
        """Return the error for a refused request, with the provider's words, status and code."""
        if TOO_LONG.search(body):
            fits = f", {self.model.context} tokens" if self.model.context else ""
            what = (
                "The question with its sources and history does not fit into the context of "
                f"{self.name}{fits}."
            )
            return ProviderTooLong(what, model=self.name, upstream_status=status)
        kind = ProviderDeclined if DECLINED.search(body) else ProviderRefused
        ours = f"The provider of {self.name} refused the request ({status})."
        request_error = kind(
            said or ours, ours=ours, param=param, model=self.name, upstream_status=status
        )
        request_error.status, request_error.code = (
            status,
            code if code and CODE.fullmatch(code) else request_error.code,
        )
        request_error.another_may_help = status == 404  # it does not know the model's name
        return request_error

    async def probe(self) -> bool:
        """Ask for the list of models. An endpoint without one still proves that it can be reached;
        one that refuses our key or fails is not healthy.
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
        """Return the text on one line, without keys: providers may echo ours, or what looks like
        one.
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
    """An answer in progress. See ModelReply."""

    def __init__(self, provider: OpenAIProvider, reply: HttpReply, call: Call) -> None:
        self.provider, self.reply = provider, reply
        self.framer = Framer()
        self.hide_usage = not call.usage_wanted
        self.ends_by = call.ends_by
        self.waits_for_words = True
        self.events: list[bytes] = []  # whole events that were not read yet
        self.broken: ProviderError | None = None
        self.finished = self.ended = False

    async def whole(self) -> Completion:
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
        return Completion(
            raw=raw,
            text=text_of(choice.message.content),
            finish=choice.finish_reason,
            usage=usage.usage() if usage is not None else None,
        )

    async def pieces(self) -> list[Piece]:
        """Return a few events of a block at a time, so that other tasks can run in between. Events
        before a broken one are returned first.
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
        if self.waits_for_words and any(piece.spoke or piece.finish for piece in found):
            self.waits_for_words = False
            self.reply.limit(self.ends_by)
        return found

    async def more(self) -> None:
        """Wait until there are whole events, or the end was read."""
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
        """Return the error of an `{"error": ...}` object inside a 200 or a stream."""
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
    """Return the text of a message's content, which may come in parts."""
    if isinstance(content, str):
        return content
    return "".join(
        str(p.get("text", ""))
        for p in content or ()
        if isinstance(p, dict) and p.get("type") == "text"
    )


def with_theirs(ours: str, said: str) -> str:
    """Return our sentence followed by the provider's words, if it sent any."""
    return f"{ours.removesuffix('.')}: {said}" if said else ours


def error_words(body: bytes) -> tuple[str, str | None, str | None]:
    """Return (message, param, code) of an error body in OpenAI's form, or in a similar one."""
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
