"""Read a provider's reply: strict about its end, lenient about everything else.

An answer has ended well only if each of its choices has a finish reason, and the stream then has
`[DONE]` or closes cleanly. What cannot be read beside that, such as a token count that is no
number, is left out and counted; it never costs the answer. A chunk that cannot be read at all is a
failure, since words may be lost with it.
"""

import asyncio
import re
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec

from slipway.errors import ProviderCut, ProviderError, ProviderNonsense, ProviderSlow
from slipway.providers import Call, Completion
from slipway.providers.client import LARGEST_REPLY, HttpReply
from slipway.providers.failures import ErrorReader, is_failure
from slipway.providers.fields import (
    COUNTS,
    NO_END,
    NOT_TEXT,
    SAID,
    ChoiceEnds,
    WireChunkChoice,
    decode_chunk,
    decode_usual,
    is_odd,
    is_odd_usage,
    text_of,
    usage_in,
    wire_choice,
)
from slipway.providers.lenient_json import (
    BOM,
    LARGEST_INT,
    LONG_EVENT,
    BrokenJson,
    clean,
    clean_text,
    count_of,
    encode_any,
    is_clean,
    read_json,
    read_json_and_check,
    read_raw,
)
from slipway.providers.reshaping import DONE, as_list, chunks_of, completion_of, event_of
from slipway.providers.sse import Framer, data_lines, data_of, name_of
from slipway.types import Piece, Usage

LARGE_EVENT = 1024 * 1024  # bytes
RATE_LIMIT = b"x-ratelimit-"
USUAL_ENDS = ("stop", "length")
AT_A_TIME = 16  # events; reading them takes 30 µs, writing them as an app's events about 1 ms
BROKEN_OFF = frozenset(
    {"error", "abort", "network_error", "insufficient_system_resource"}
)  # finish reasons that mean a failure
HEARTBEAT = re.compile(rb"[\w .:+-]{0,40}", re.ASCII)  # data that is a word, such as `ping`
TakeUsual = Callable[[bytes, list[str]], bool]
EVENT_STARTS = (b"data:", b"event:", b"id:", b"retry:", b":")
POSSIBLE_STARTS = frozenset(  # with more bytes, they may become one of these, or a byte order mark
    start[:size] for start in (*EVENT_STARTS, BOM) for size in range(len(start))
)
HIGH_HALVES = ("\ud800", "\udbff")


class OpenAIReply:
    """An answer in progress. See ModelReply."""

    events: Sequence[bytes] = ()  # whole events that were not read yet
    half = ""  # the first half of a surrogate pair, whose second half may follow
    left_out = 0
    waits_for_words = is_first_block = True
    ended = False
    is_limited = False  # the wait for the next bytes ends with the silence
    begun = b""  # what was read to see what it is, and not handled yet
    quiet_since: float | None = None
    broken: ProviderError | None = None
    take: TakeUsual | None = None

    def __init__(
        self, error_reader: ErrorReader, reply: HttpReply, call: Call, silence_s: float
    ) -> None:
        """`silence_s` is how long a stream that has begun may send nothing but comments."""
        self.error_reader, self.reply = error_reader, reply
        self._rate_limits = reply.headers_with(RATE_LIMIT)
        self.hide_usage = not (call.usage_wanted or call.keep_usage)
        self.is_single = call.is_single or b'"n"' not in call.body
        self.ends_by, self.silence_s = call.ends_by, silence_s
        self.framer = Framer()
        self.ends = ChoiceEnds()

    def rate_limits(self) -> list[tuple[bytes, bytes]]:
        return self._rate_limits

    # A whole answer

    async def whole(self) -> Completion:
        try:
            raw = await self.reply.chunk()
            if raw[:1] != b"{" or not self.reply.is_complete:
                self.begun = await self.beginning(raw)
                if self.begun.startswith(EVENT_STARTS):
                    return self.completion(completion_of(await self.chunks()), None)
                raw = await self.rest()
        except ProviderError as error:
            raise self.named(error) from None
        try:
            value, is_readable = read_json_and_check(raw)
        except BrokenJson:
            raise self.nonsense("did not answer with a completion") from None
        if is_readable and (usual := usual_completion(value, raw)) is not None:
            return usual
        return self.completion(value, raw if is_readable else None)

    async def chunks(self) -> list[dict[str, Any]]:
        """Return the chunks of a stream, which came where none was requested."""
        self.hide_usage = False
        found = []
        while pieces := await self.pieces():
            said = [data_of(piece.raw).strip() for piece in pieces]
            found += [read_json(data) for data in said if data and data != b"[DONE]"]
        return found

    async def rest(self) -> bytes:
        """Return the whole body that has begun. Raises ProviderNonsense if it is too large."""
        blocks: list[bytes] = []
        size = 0
        while block := await self.block():
            blocks.append(block)
            size += len(block)
            if size > LARGEST_REPLY:
                raise self.nonsense("sent a reply that is too large")
        return blocks[0] if len(blocks) == 1 else b"".join(blocks)

    def completion(self, value: Any, raw: bytes | None) -> Completion:
        """Return the answer; `raw` is None if the original bytes cannot be passed on."""
        if is_failure(value):
            raise self.failure(value)
        choices = as_list(value.get("choices")) if isinstance(value, dict) else []
        choices = [each for each in choices if isinstance(each, dict)]
        if not choices:
            raise self.nonsense("answered with no choices")
        for position, choice in enumerate(choices):
            self.ends.add(position)
            self.finish(choice.get("finish_reason"), position)
        if not self.ends.all:
            raise self.cut()
        usage = self.usage(value)
        if raw is None or self.left_out:
            raw = encode_any(value)
        message = choices[0].get("message") or choices[0].get("delta") or choices[0]
        text = message.get("content", message.get("text")) if isinstance(message, dict) else message
        finish = clean_text(str(choices[0]["finish_reason"]))
        return Completion(
            raw=raw, text=text_of(text), finish=finish, usage=usage, left_out=self.left_out
        )

    # A stream

    def push_usual(self, take: TakeUsual) -> None:
        """See ModelReply. While `pieces` waits, blocks of usual events go to `take` at once."""
        self.take = take
        self.reply.divert(self.pass_on)

    def pass_on(self, data: bytes) -> bool:
        """Pass on a block that holds usual events only. False leaves it to `pieces`."""
        take = self.take
        if take is None or self.waits_for_words or self.framer.has_rest or self.is_limited:
            return False
        if data[-2:] != b"\n\n" or b"\r" in data:
            return False
        if data.find(b"\n") == len(data) - 2:  # one event of one line
            text = self.usual(data)
            texts = [text] if text is not None else []
        else:
            texts = self.usual_texts(data)
        if not texts or not take(data, texts):
            return False
        self.quiet_since = time.monotonic()
        return True

    def usual_texts(self, data: bytes) -> list[str]:
        """Return the texts of a block of whole events; none if one of them is unusual, or if there
        are more of them than are read at a time.
        """
        events = data[:-2].split(b"\n\n")
        texts = [self.usual(event + b"\n\n") for event in events[:AT_A_TIME]]
        is_usual = len(texts) == len(events) and None not in texts
        return [text for text in texts if text is not None] if is_usual else []

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
            if not self.ended:
                await self.more()
            self.read_some(found)
        except ProviderError as error:
            self.broken = self.named(error)
            if not found:
                raise
        for piece in found:
            if piece.spoke or piece.finish:
                self.note_words()
                break
        return found

    def read_some(self, found: list[Piece]) -> None:
        """Read a few events and add their pieces, those before one that raises as well."""
        some, self.events = self.events[:AT_A_TIME], self.events[AT_A_TIME:]
        for event in some:
            if (text := self.usual(event)) is not None:
                found.append(Piece(raw=event, text=text, spoke=True))
            else:
                found.extend(self.read(event))
            if self.ended:
                break

    def note_words(self) -> None:
        """Words end the wait for the first ones, and any silence."""
        self.quiet_since = None
        if self.waits_for_words:
            self.waits_for_words = False
            self.reply.limit(self.ends_by)

    async def more(self) -> None:
        """Wait until there are whole events, or the stream has ended."""
        while not self.events:
            data = await self.block()
            if self.is_first_block:
                self.is_first_block = False
                data = await self.beginning(data)
                if data.startswith((b"{", b"[")):
                    self.events = await self.whole_as_events(data)
                    return
            if not data:
                self.events = [self.last_event()]
                return
            try:
                self.events = self.framer.feed(data)
            except ValueError:
                raise self.nonsense("sent an event that is too large") from None
            if self.events and len(self.events[0]) > LARGE_EVENT:
                await asyncio.sleep(0)  # reading and passing on a large event are two steps
            if not self.events and not self.framer.is_comment:
                self.quiet_since = None  # an event that arrives slowly is no silence

    async def beginning(self, data: bytes) -> bytes:
        """Return the first bytes, which begin with `data`: as many as are necessary to see whether
        they begin an event, without a byte order mark and white space before them.
        """
        while True:
            begun = data.lstrip().removeprefix(BOM).lstrip()
            if begun in POSSIBLE_STARTS and (more := await self.reply.chunk()):
                data = begun + more
            else:
                return begun

    async def block(self) -> bytes:
        """Return the next bytes. Raises ProviderSlow if only comments came for too long after the
        first words; then the connection itself is not silent.
        """
        if self.begun:
            begun, self.begun = self.begun, b""
            return begun
        if self.waits_for_words:
            return await self.reply.chunk()
        if self.quiet_since is None:  # the client notices a connection without any bytes
            self.quiet_since = time.monotonic()
            return await self.reply.chunk()
        until = self.quiet_since + self.silence_s
        self.reply.limit(min(until, self.ends_by))
        self.is_limited = True
        try:
            return await self.reply.chunk()
        except ProviderSlow:
            if self.ends_by <= until:
                raise
            what = f"sent no words for {self.silence_s:g} s in the middle of its answer"
            raise ProviderSlow(f"{self.error_reader.who} {what}.") from None
        finally:
            self.is_limited = False
            self.reply.limit(self.ends_by)  # while our own reader is slow, time does not count

    async def whole_as_events(self, begun: bytes) -> list[bytes]:
        """Return a completion, which came where a stream was requested, as a stream's events."""
        self.begun = begun
        try:
            value = read_json(await self.rest())
        except BrokenJson:
            raise self.nonsense("answered with neither a stream nor a completion") from None
        if is_failure(value):
            raise self.failure(value)
        if not isinstance(value, dict) or not as_list(value.get("choices")):
            raise self.nonsense("answered with no choices")
        return list(chunks_of(value))

    def last_event(self) -> bytes:
        """Return the event that a clean close ends the stream with: what is left in the framer if
        it is an event without its blank line, and `[DONE]` if nothing is.
        """
        rest = self.framer.rest
        if rest.strip() and is_whole(rest):
            self.framer = Framer()
            return rest + b"\n\n"
        if not self.ends.all:
            raise self.cut()
        return DONE

    def usual(self, event: bytes) -> str | None:
        """Return the text of an event as nearly all are: some text of the only choice. None for any
        other. This is the hot path; `read` understands these events too.
        """
        if self.half or event[:7] != b"data: {" or event.find(b"\n") != len(event) - 2:
            return None
        data = event[6:-2]
        try:
            choice = decode_usual(data).choices[0]
        except (ValueError, RecursionError):
            return None
        text = choice.delta.content
        if not text or choice.finish_reason is not None or not self.is_single:
            return None
        # a short one in ASCII needs no closer look
        if (len(data) > LONG_EVENT or not data.isascii()) and not is_clean(data):
            return None
        if self.waits_for_words:  # later, this choice is known to have begun
            self.ends.add(0)
        return text

    def read(self, event: bytes) -> Iterator[Piece]:
        """Yield the pieces of one event: as a rule one, with its original bytes."""
        data = data_of(event)
        if not data.strip():
            is_comment = is_clean(event) and not data_lines(event)
            yield Piece(raw=event if is_comment else b"", left_out=0 if is_comment else 1)
            return
        if data.strip() == b"[DONE]":
            yield self.done(event)
            return
        try:
            chunk = decode_chunk(data)
        except (ValueError, RecursionError):
            chunk = None
        if chunk is None or self.half or not is_clean(data) or is_odd(chunk):
            for each in datas_of(event):
                yield from self.read_leniently(each, event, None)
            return
        if chunk.error or not chunk.choices:
            yield from self.read_leniently(data, event, event)
            return
        yield self.said(event, chunk.choices, usage_in(chunk.usage))

    def read_leniently(self, data: bytes, event: bytes, raw: bytes | None) -> Iterator[Piece]:
        """Yield what an unusual event says. `raw` is None if its bytes cannot be passed on: then it
        is written again.
        """
        if data.strip() == b"[DONE]":
            yield self.done(DONE)
            return
        before = self.left_out
        value = self.value(data)
        if is_failure(value) or name_of(event) == b"error":
            raise self.failure(value)
        if not isinstance(value, dict):
            yield Piece(raw=b"", left_out=1)
            return
        self.mend(value)
        usage = self.usage(value)
        if raw is None or self.left_out > before:
            raw = event_of(value)
        choices = [wire_choice(each) for each in as_list(value.get("choices")) if each]
        if not choices:
            hidden = usage is not None and self.hide_usage
            yield Piece(raw=b"" if hidden else raw, usage=usage, left_out=self.left_out - before)
            return
        piece = self.said(raw, choices, usage)
        yield msgspec.structs.replace(piece, left_out=self.left_out - before)

    def value(self, data: bytes) -> Any:
        """Return the value of an event's data; None, and counted, for a word such as `ping`."""
        try:
            value = read_raw(data)
        except BrokenJson:
            if HEARTBEAT.fullmatch(data.strip()) is None:
                raise self.nonsense("sent an event that cannot be read") from None
            value = None
        if isinstance(value, dict):
            self.join_halves(value)
            try:
                return clean(value)
            except BrokenJson:
                raise self.nonsense("sent an event that cannot be read") from None
        self.left_out += 1
        return value if isinstance(value, list) else None

    def join_halves(self, value: dict[str, Any]) -> None:
        """Carry the first half of a surrogate pair over to the event with its second half."""
        for choice in as_list(value.get("choices"))[:1]:
            delta = choice.get("delta") if isinstance(choice, dict) else None
            if not isinstance(delta, dict) or not isinstance(delta.get("content"), str):
                return
            text, self.half = self.half + delta["content"], ""
            if text and HIGH_HALVES[0] <= text[-1] <= HIGH_HALVES[1]:
                text, self.half = text[:-1], text[-1]
            delta["content"] = text

    def mend(self, value: dict[str, Any]) -> None:
        """Replace finish reasons that are no end by null: many clients would stop at "null"."""
        for choice in as_list(value.get("choices")):
            if isinstance(choice, dict) and choice.get("finish_reason") is not None:
                reason = choice["finish_reason"]
                if not isinstance(reason, str) or reason.strip().lower() in NO_END:
                    choice["finish_reason"] = None

    def said(self, raw: bytes, choices: list[WireChunkChoice], usage: Usage | None) -> Piece:
        text, finish, spoke, plain = "", None, False, True
        for position, choice in enumerate(choices):
            index = self.index_of(choice.index, position)
            self.ends.add(index)
            if choice.finish_reason is not None:
                finish = self.finish(choice.finish_reason, index) or finish
            if (delta := choice.delta) is not None:
                text += text_of(delta.content) if delta.content else ""
                spoke = spoke or any(getattr(delta, name) for name in SAID)
                plain = plain and not any(getattr(delta, name) for name in NOT_TEXT)
        return Piece(raw=raw, text=text, spoke=spoke, finish=finish, usage=usage, is_plain=plain)

    def index_of(self, sent: Any, position: int) -> int:
        """Return which choice an event is about. If one was requested, all events are about it,
        whatever index the provider sends.
        """
        if self.is_single:
            return 0
        return sent if isinstance(sent, int) else position

    def finish(self, reason: Any, index: int) -> str | None:
        """Record a finish reason and return it; None if it is no end. Raises ProviderCut if it
        means a failure.
        """
        if not isinstance(reason, str) or reason.strip().lower() in NO_END:
            return None
        if reason.strip().lower() in BROKEN_OFF:
            raise self.named(
                ProviderCut(f"{self.error_reader.name} broke off its answer ({reason}).")
            )
        self.ends.end(index)
        return reason

    def done(self, event: bytes) -> Piece:
        if not self.ends.all:
            raise ProviderCut(f"{self.error_reader.name} ended its answer without saying why.")
        self.ended = True
        self.events = []
        return Piece(raw=event if event.endswith(b"[DONE]\n\n") else DONE)

    # Usage and failures

    def usage(self, value: dict[str, Any]) -> Usage | None:
        """Return the usage in a completion or chunk, and mend it there: counts become integers, and
        what cannot be read is left out.
        """
        sent = value.get("usage")
        if sent is None:
            return None
        if not isinstance(sent, dict):
            del value["usage"]
            self.left_out += 1
            return None
        for name in COUNTS:
            self.mend_count(sent, name)
        details = sent.get("prompt_tokens_details")
        if isinstance(details, dict):
            self.mend_count(details, "cached_tokens")
        elif details is not None:
            del sent["prompt_tokens_details"]
            self.left_out += 1
        return usage_in(sent)

    def mend_count(self, counts: dict[str, Any], name: str) -> None:
        sent = counts.get(name)
        if sent is None or (type(sent) is int and 0 <= sent <= LARGEST_INT):
            return
        self.left_out += 1
        count = count_of(sent)
        if count is None:
            del counts[name]
        else:
            counts[name] = count

    def cut(self) -> ProviderError:
        if self.is_compressed():
            return self.nonsense("sent something else than events")
        if self.framer.rest.strip() or self.ends.any:
            return ProviderCut(f"{self.error_reader.name} ended its answer before its end.")
        return ProviderCut(f"{self.error_reader.name} ended its answer without saying why.")

    def failure(self, value: Any) -> ProviderError:
        """Return the error of an object that is in the place of an answer."""
        return self.error_reader.error(encode_any(value))

    def is_compressed(self) -> bool:
        return self.reply.header(b"content-encoding") not in (None, b"", b"identity")

    def nonsense(self, what: str) -> ProviderError:
        if self.is_compressed():
            what = "sent a compressed reply, although uncompressed ones were requested"
        return ProviderNonsense(f"{self.error_reader.who} {what}.", model=self.error_reader.name)

    def named(self, error: ProviderError) -> ProviderError:
        error.model = self.error_reader.name
        return error

    def close(self) -> None:
        self.reply.close(nearly_done=self.ended)


def usual_completion(value: Any, raw: bytes) -> Completion | None:
    """Return a completion as nearly all are: the text of one choice, with whole counts. None for
    any other, which `OpenAIReply.completion` understands. This is the hot path.
    """
    if type(value) is not dict or "error" in value or value.get("object") == "error":
        return None
    choices, usage = value.get("choices"), value.get("usage")
    if type(choices) is not list or len(choices) != 1 or type(choices[0]) is not dict:
        return None
    message, finish = choices[0].get("message"), choices[0].get("finish_reason")
    text = message.get("content") if type(message) is dict else None
    if type(text) is not str or finish not in USUAL_ENDS or is_odd_usage(usage):
        return None
    return Completion(raw=raw, text=text, finish=finish, usage=usage_in(usage))


def is_whole(rest: bytes) -> bool:
    """Return whether the bytes are an event that lacks only its final blank line."""
    data = data_of(rest + b"\n\n")
    if data.strip() == b"[DONE]":
        return True
    try:
        return isinstance(read_raw(data), dict)
    except BrokenJson:
        return False


def datas_of(event: bytes) -> list[bytes]:
    """Return the event's data; each line by itself if only that is JSON."""
    lines = data_lines(event)
    if len(lines) < 2:
        return lines
    whole = b"\n".join(lines)
    try:
        read_raw(whole)
    except BrokenJson:
        return [line for line in lines if line.strip()]
    return [whole]
