"""One call to a model: from its slot to its record."""

import asyncio
import math
import re
import time
from collections.abc import Awaitable, Callable

import msgspec

from slipway.errors import LimitReached, ModelBusy, ProviderError, ProviderSlow
from slipway.providers import Call, Completion, ModelReply
from slipway.routing.blame import Origin
from slipway.routing.routes import Candidate
from slipway.routing.token_counts import RequestSize, size_of, tokens_in
from slipway.tracing import headers_for, new_span_id
from slipway.types import AttemptDone, AttemptKind, Emit, Piece, Record, TraceContext, Usage

CANCELLED = "cancelled"
ID = re.compile(rb'"id"\s*:\s*"([^"\\]{1,100})"')
ID_WITHIN = 400  # bytes of a reply: its id is in front
# A timeout is not held against a model that had less time than this left
FAIR_TIME_S = 5.0


class AttemptUsage(Record, frozen=True, kw_only=True):
    """What a call took, once it has ended. `usage` is an estimate if the provider reported none,
    and empty if the call failed in a way that is not charged (`is_charged` is false).
    """

    candidate: Candidate
    usage: Usage
    reserved: str = ""  # the id under which it was reserved
    kind: AttemptKind = "first"
    error: str | None = None
    upstream: str = ""
    is_charged: bool = True


# -> what the call cost, in picodollars; None if that is unknown
Charge = Callable[[AttemptUsage], int | None]
# (candidate, size of the request, seconds to wait at most) -> the id of what was reserved
Reserve = Callable[[Candidate, RequestSize, float], Awaitable[str]]


class CallContext(Record, frozen=True, kw_only=True):
    """Who asks, and how much time there is (event loop's clock): the answer ends by `until`, and no
    retry begins after `retry_until`.

    `charge` is called once for each call that ended. If the asker's use is limited, `reserve` is
    called before each call, and raises LimitReached; `release` takes back what was reserved for a
    call that was not made.
    """

    answer_id: str
    emit: Emit
    charge: Charge
    reserve: Reserve | None = None
    release: Callable[[str], None] = lambda reserved: None
    owner: str = ""
    until: float = math.inf
    retry_until: float = math.inf
    trace: TraceContext | None = None  # None if nobody follows the answer


Resend = Callable[[], bool]


class Attempt:
    """One call to a model. It releases what it holds when it ends, and emits one AttemptDone."""

    first_at: float | None = None
    whole: Completion | None = None
    usage: Usage | None = None
    call_number: int | None = None
    _reply: ModelReply | None = None
    events = chars = 0  # events with output that arrived, and characters of text
    upstream = ""  # the provider's id of the call
    reserved = ""  # the id of what was reserved for this call
    _call: Call | None = None
    _size: RequestSize | None = None
    left_out = 0  # fields of the reply that could not be read
    span = ""  # the id of this call in the trace of its answer
    began = ended = finished = opened_breaker = _holds_slot = False
    waited_s: float | None = None  # for a slot
    took: AttemptUsage | None = None  # once it has ended

    def __init__(
        self,
        index: int,
        candidate: Candidate,
        kind: AttemptKind,
        context: CallContext,
        shown: int,
        prompt: int,
    ) -> None:
        """Prepare a call. `index` is the candidate's position in the route, `shown` the number of
        characters that the reader has already seen, `prompt` a hash of the client's request.
        """
        self.index, self.candidate, self.kind = index, candidate, kind
        self.context, self.shown = context, shown
        self.started_at = time.monotonic()
        self.first: list[Piece] = []
        self._usual = candidate.health.first_words
        self._origin = Origin(owner=context.owner, prompt=prompt)

    @property
    def reply(self) -> ModelReply:
        if self._reply is None:
            raise RuntimeError("this attempt has not begun")
        return self._reply

    async def open(self, call: Call, *, may_wait: bool, others: bool, may_resend: Resend) -> None:
        """Call the model and return when its first words are here, or the whole answer if it is not
        streamed.

        `others`: another candidate can be asked if this one is late. Raises ProviderError.
        """
        candidate, health = self.candidate, self.candidate.health
        self._call = call
        if health.slots is not None:
            entered_at = time.monotonic()
            await health.slots.enter(
                self.context.owner, self.context.until - entered_at if may_wait else 0.0
            )
            self._holds_slot = True
            self.waited_s = time.monotonic() - entered_at
        if self.context.reserve is not None:
            left_s = self.context.until - time.monotonic()
            self.reserved = await self.context.reserve(candidate, self.size(), left_s)
        # The call begins here: waiting for a slot or for money is not part of it
        self.began = True
        self.started_at = began_at = time.monotonic()
        health.running.count += 1
        self.call_number = health.began(is_retry=self.kind == "retry")
        self._usual = health.first_words if call.stream else health.whole_answers
        words_by, ends_by = candidate.deadlines(began_at, self.context.until, others=others)
        call = Call(
            body=call.body,
            name_at=call.name_at,
            stream=call.stream,
            usage_wanted=call.usage_wanted,
            keep_usage=call.keep_usage,
            is_single=call.is_single,
            stream_options=call.stream_options,
            patient=may_wait,
            may_resend=may_resend,
            words_by=words_by if call.stream else ends_by,
            ends_by=ends_by,
            trace=self._trace_headers() if self.context.trace is not None else b"",
        )
        self._reply = await candidate.model.chat(call)
        if call.stream:
            await self._read_first_words(self._reply)
        else:
            self.whole = await self._reply.whole()
            self.usage, self.left_out = self.whole.usage, self.whole.left_out
            self.upstream = id_in(self.whole.raw)
        self.first_at = time.monotonic()
        self._usual.add(self.first_at - self.started_at)
        health.succeeded(self.started_at, self._origin)

    def _trace_headers(self) -> bytes:
        """Return the headers by which the provider's work joins the trace of this answer."""
        trace = self.context.trace
        if trace is None:
            return b""
        if trace.is_exported:
            self.span = new_span_id()
        return headers_for(trace, self.span)

    async def _read_first_words(self, reply: ModelReply) -> None:
        """Buffer events until the first words, so that nothing is shown of a model that may still
        be replaced.
        """
        while not any(piece.spoke or piece.finish for piece in self.first):
            pieces = await reply.pieces()
            if not pieces:
                break
            for piece in pieces:
                self.note(piece)
            self.first += pieces
        self.upstream = id_in(self.first[0].raw) if self.first else ""

    def end(
        self, error: ProviderError | None = None, *, cancelled: bool = False, used: bool = True
    ) -> None:
        """Release the slot and the connection, update the model's health and emit the record. A
        second call does nothing.
        """
        if self.ended:
            return
        self.ended = True
        health, now = self.candidate.health, time.monotonic()
        if self.began:
            health.running.count -= 1
        if self._reply is not None:
            self._reply.close()
        if self._holds_slot and health.slots is not None:
            health.slots.leave(
                now - self.started_at if error is None and not cancelled and used else None
            )
        if error is not None and not self._is_no_evidence(error, now):
            number = self.call_number if self.first_at is None else None
            self.opened_breaker = health.failed(error, self.started_at, self._origin, number)
            if isinstance(error, ProviderSlow) and number is not None:
                self._usual.add(now - self.started_at)
        elif self.began and self.first_at is None:
            health.release_trial()
        if not self.began and self.reserved:
            self.context.release(self.reserved)
        if self.began and not isinstance(error, ModelBusy):
            # a provider's own code could be anything: records have that of the kind of error
            code = type(error).code if error is not None else CANCELLED if cancelled else None
            self.took = self._took(error, code)
            cost = self.context.charge(self.took)
            self.context.emit(self._record(self.took, error, cost, used=used))

    def _took(self, error: ProviderError | None, code: str | None) -> AttemptUsage:
        """Return what the call took: as reported, else as counted."""
        is_charged = error is None or self.may_be_billed(error)
        return AttemptUsage(
            candidate=self.candidate,
            usage=(self._reported() or self.estimated_usage()) if is_charged else Usage(),
            reserved=self.reserved,
            kind=self.kind,
            error=code,
            upstream=self.upstream,
            is_charged=is_charged,
        )

    def _reported(self) -> Usage | None:
        """Return the usage that the provider reported; None if that is nothing, or only zeros, or
        what it was before the end.
        """
        usage = self.usage
        if usage is None or not (self.finished or self.whole is not None):
            return None
        if usage.input_tokens == 0 and usage.output_tokens == 0:
            return None
        counts = self.candidate.health.token_counts
        if self.whole is None:
            counts.learn_events(self.events, usage.output_tokens)
        if counts.wants_prompt():
            size = self.size()
            if size.is_text:
                counts.learn_prompt(size.input, usage.input_tokens)
        return usage

    def estimated_usage(self) -> Usage:
        """Return what the call took until now: as counted here, and at least what the provider
        reported on the way.
        """
        counts, usage = self.candidate.health.token_counts, self.usage or Usage()
        size = self.size()
        asked = usage.input_tokens or counts.input_tokens(size.input)
        most = size.output
        if most is None:
            most = self.candidate.most_output(asked) * size.choices
        output = (
            tokens_in(self.whole.text)
            if self.whole is not None
            else counts.output_tokens(self.events, self.chars, most)
        )
        return msgspec.structs.replace(
            usage,
            input_tokens=asked,
            output_tokens=max(output, usage.output_tokens),
            estimated=True,
        )

    def size(self) -> RequestSize:
        """Return the size of the request, which is counted when it is needed first."""
        if self._size is None:
            self._size = size_of(self._call.body if self._call is not None else b"{}")
        return self._size

    def note(self, piece: Piece) -> None:
        """Count what arrived."""
        if piece.spoke:
            self.events += 1
            self.chars += len(piece.text)
        if piece.usage is not None:
            self.usage = piece.usage
        if piece.finish is not None:
            self.finished = True
        self.left_out += piece.left_out

    def _is_no_evidence(self, error: ProviderError, now: float) -> bool:
        """Return whether the failure says nothing about the model: it was not called, or the
        question left it too little time.
        """
        was_short = self.first_at is not None or now - self.started_at < FAIR_TIME_S
        return isinstance(error, ModelBusy | LimitReached) or (
            isinstance(error, ProviderSlow) and now >= self.context.until and was_short
        )

    def is_late(self) -> bool:
        """Return whether a non-streamed answer takes longer than this model usually does."""
        return time.monotonic() - self.started_at >= self.candidate.late_after_s

    def late_error(self) -> ProviderSlow:
        """Return the error of a model that was late, while another one answered."""
        name, late_s = self.candidate.model.name, self.candidate.late_after_s
        return ProviderSlow(f"{name} did not answer within {late_s:g} s.", model=name)

    def may_be_billed(self, error: ProviderError) -> bool:
        """Return whether the provider may charge for this failed call: it began to answer, or may
        still work on it. An answer with an error's status is free.
        """
        is_slow = isinstance(error, ProviderSlow) and error.upstream_status is None
        return self._reply is not None or is_slow

    def _record(
        self, took: AttemptUsage, error: ProviderError | None, cost: int | None, *, used: bool
    ) -> AttemptDone:
        model, now = self.candidate.model, time.monotonic()
        return AttemptDone(
            answer_id=self.context.answer_id,
            model=model.name,
            provider=model.kind,
            zone=model.zone,
            role=self.candidate.role,
            kind=self.kind,
            status=error.upstream_status if error is not None else None if took.error else 200,
            error=took.error,
            why=error.ours if error is not None else None,
            duration_s=now - self.started_at,
            ttft_s=None if self.first_at is None else self.first_at - self.started_at,
            shown_chars=self.shown,
            used=used,
            left_out=self.left_out,
            usage=took.usage if took.is_charged else None,
            cost=cost,
            upstream=took.upstream,
            trace=self.context.trace,
            span=self.span,
            place=self.index,
            waited_s=self.waited_s,
            opened_breaker=self.opened_breaker,
        )


async def finish_trial(task: "asyncio.Task[None]", trial: Attempt) -> None:
    """Wait for a trial's first words, then end it."""
    try:
        await task
    except ProviderError as error:
        trial.end(error, used=False)
    except BaseException:
        task.cancel()
        trial.end(cancelled=True, used=False)
        raise
    else:
        trial.end(used=False)


def id_in(raw: bytes) -> str:
    """Return the id that a reply begins with; empty if there is none."""
    found = ID.search(raw, 0, ID_WITHIN)
    return found[1].decode("latin-1") if found is not None else ""
