"""What is known of an answer by the time it is settled."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import msgspec

from slipway import ledger
from slipway.admission import Grant, Hold, Need
from slipway.ledger import CallUsage, LedgerRow
from slipway.routing import (
    AttemptUsage,
    CallContext,
    Candidate,
    Charge,
    RequestSize,
    RoutedAnswer,
)
from slipway.types import (
    AnswerDone,
    Asker,
    CacheFacts,
    CallKind,
    Emit,
    OtherModelUsage,
    Record,
    Saved,
    ServedBy,
    Usage,
    new_id,
)


class Bookkeeper(Protocol):
    """Where the calls of models are booked."""

    def add(self, row: LedgerRow) -> None:
        """Book a call that has ended."""
        ...

    def hold(self, row: LedgerRow) -> None:
        """Note a call that begins, with what it may cost at most: this is booked if the process is
        killed before the call has ended. A later `add` with the same id replaces it.
        """
        ...

    def release(self, call_id: str) -> None:
        """Forget a call that was held and not made."""
        ...


class NoBooks:
    """Books nothing: for tests, and for commands that measure."""

    def add(self, row: LedgerRow) -> None: ...

    def hold(self, row: LedgerRow) -> None: ...

    def release(self, call_id: str) -> None: ...


NO_BOOKS = NoBooks()


class Facts(Record, frozen=True, kw_only=True):
    """What the head of a proxied answer says; `cost_usd` is None in streams and if the price is
    unknown.
    """

    served_by: ServedBy
    model: str
    attempts: int
    cost_usd: str | None = None
    rate_limits: Sequence[tuple[bytes, bytes]] = ()  # of the provider, as headers
    cache: CacheFacts | None = None


class Tally:
    """Count what one answer took; `done()` turns it into the AnswerDone record.

    `endpoint` is `chat` or `answers`; times are seconds of the monotonic clock. Each call of a
    model is booked in `books` when it has ended.
    """

    def __init__(
        self,
        answer_id: str,
        endpoint: str,
        app: str,
        asker: Asker,
        streamed: bool,
        books: Bookkeeper,
    ) -> None:
        self.id, self.endpoint, self.app, self._books = answer_id, endpoint, app, books
        self.grant: Grant | None = None  # since the answer was let in
        self._holds: dict[str, Hold] = {}  # what running calls have reserved
        self.asker, self.streamed = asker, streamed
        self.started_at = time.monotonic()
        self.first_at: float | None = None
        self.served_by: ServedBy | None = None
        self.model: str | None = None
        self.provider = "none"
        self.spent: list[CallUsage] = []
        self.kinds: dict[str, str] = {}  # model name -> provider
        self.other_usage: list[OtherModelUsage] = []
        self.attempts = 0
        self.skipped: dict[str, str] = {}
        self.error: str | None = None
        self.saved: Saved | None = None
        self.cited, self.flagged, self.dangling = 0, 0, 0

    def elapsed_s(self) -> float:
        return time.monotonic() - self.started_at

    def mark_first_words(self) -> None:
        """Record when the first words came; later calls change nothing."""
        if self.first_at is None:
            self.first_at = time.monotonic()

    def note_writer(self, answering: RoutedAnswer) -> None:
        """Record which model writes now."""
        model = answering.candidate.model
        self.served_by, self.model = answering.candidate.served_by, model.name
        self.provider = model.kind

    @contextmanager
    def booking(self, answering: RoutedAnswer) -> Iterator[list[CallUsage]]:
        """Close the attempts on leaving, however they end, and book every call they made.

        The yielded list holds these calls after the block.
        """
        spent = list[CallUsage]()
        try:
            yield spent
        finally:
            answering.close()
            self.attempts += answering.attempts.count
            self.skipped |= answering.attempts.skipped
            taken = [self._usage(took) for took in answering.usages]
            spent += taken
            self.spent += taken

    def _usage(self, took: AttemptUsage) -> CallUsage:
        model = took.candidate.model
        self.kinds[model.name] = model.kind
        return CallUsage(
            model=model.name,
            usage=took.usage,
            cost=ledger.cost_of(took.candidate.rates, took.usage),
        )

    def context(
        self, emit: Emit, *, until: float, retry_until: float, charge: Charge | None = None
    ) -> CallContext:
        """Return what the calls of this answer share."""
        is_limited = self.grant is not None and self.grant.limits_calls
        return CallContext(
            answer_id=self.id,
            emit=emit,
            charge=charge or self.charge,
            reserve=self._reserve if is_limited else None,
            release=self._release,
            owner=self.asker.owner,
            until=until,
            retry_until=retry_until,
        )

    async def _reserve(self, candidate: Candidate, size: RequestSize, within_s: float) -> str:
        """Reserve what a call may take, and return the id of the call. Raises LimitReached."""
        if self.grant is None:
            return ""
        model, id_ = candidate.model, new_id("call")
        asked = candidate.health.token_counts.input_tokens(size.input)
        most = size.output
        if most is None:
            most = candidate.most_output(asked) * size.choices
        free = model.kind == "local"  # it runs here
        amount = 0 if free else ledger.most_cost(candidate.rates, asked, most)
        need = Need(model=model.name, tokens=asked + most, amount=amount)
        self._holds[id_] = await self.grant.hold(id_, need, within_s)
        if self.grant.limits_money and not free:
            usage = Usage(input_tokens=asked, output_tokens=most, estimated=True)
            lost = AttemptUsage(candidate=candidate, usage=usage, reserved=id_, error="lost")
            self._books.hold(msgspec.structs.replace(self._row(lost, None), cost=amount))
        return id_

    def _release(self, call_id: str) -> None:
        self._holds.pop(call_id).release()
        self._books.release(call_id)

    def charge(self, took: AttemptUsage, kind: CallKind | None = None) -> LedgerRow:
        """Book a call that has ended, and settle what was reserved for it."""
        row = self._row(took, kind)
        if took.reserved:
            usage = row.usage
            tokens = usage.input_tokens + usage.output_tokens
            self._holds.pop(took.reserved).settle(tokens, row.cost)
        self._books.add(row)
        return row

    def _row(self, took: AttemptUsage, kind: CallKind | None) -> LedgerRow:
        model, rates = took.candidate.model, took.candidate.rates
        return LedgerRow(
            id=took.reserved or new_id("call"),
            answer=self.id,
            at=time.time(),
            owner=self.asker.owner,
            tenant=self.asker.tenant,
            app=self.app,
            model=model.name,
            provider=model.kind,
            zone=model.zone,
            kind=kind or took.kind,
            upstream=took.upstream,
            error=took.error,
            usage=took.usage,
            cost=ledger.cost_of(rates, took.usage) if took.is_charged else 0,
            price_source=rates.source if rates is not None else "",
        )

    def charge_side_call(self, took: AttemptUsage) -> CallUsage:
        """Book a call that writes none of the answer, such as one that rewrites the question."""
        row = self.charge(took, "side")
        if took.is_charged:
            self.other_usage.append(
                OtherModelUsage(model=row.model, provider=row.provider, usage=row.usage)
            )
        return CallUsage(model=row.model, usage=row.usage, cost=row.cost)

    def take_over(self, other: "Tally") -> None:
        """Book what another tally holds as ours: it is that of a call that several answers shared."""
        self.spent += other.spent
        self.kinds |= other.kinds
        self.other_usage += other.other_usage
        self.attempts += other.attempts
        self.skipped |= other.skipped
        self.cited += other.cited
        self.flagged += other.flagged
        self.dangling += other.dangling

    @property
    def cost_usd(self) -> str | None:
        return ledger.format_usd(ledger.total_usd(self.spent))

    def facts(self, attempts: int, rate_limits: Sequence[tuple[bytes, bytes]] = ()) -> Facts:
        return Facts(
            rate_limits=rate_limits,
            served_by=self.served_by or "model",
            model=self.model or "",
            attempts=attempts,
            cost_usd=self.cost_usd,
        )

    @property
    def ttft_s(self) -> float | None:
        return None if self.first_at is None else self.first_at - self.started_at

    def done(self) -> AnswerDone:
        return AnswerDone(
            id=self.id,
            endpoint=self.endpoint,
            app=self.app,
            model=self.model,
            provider=self.provider,
            served_by=self.served_by,
            streamed=self.streamed,
            error=self.error,
            duration_s=self.elapsed_s(),
            ttft_s=self.ttft_s,
            usage=ledger.total_usage([spent for spent in self.spent if spent.model == self.model]),
            tenant=self.asker.tenant,
            owner=self.asker.owner,
            citations_kept=self.cited - self.flagged,
            citations_flagged=self.flagged,
            citations_dropped=self.dangling,
            other_usage=(*self.other_usage, *self._other_writers()),
            skipped=tuple(self.skipped.items()),
            saved=self.saved,
        )

    def _other_writers(self) -> list[OtherModelUsage]:
        """Return the calls of models other than `model`: sections may be written by several."""
        return [
            OtherModelUsage(model=spent.model, provider=self.kinds[spent.model], usage=spent.usage)
            for spent in self.spent
            if spent.model != self.model
        ]
