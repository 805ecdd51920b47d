"""What is known of an answer by the time it is settled."""

import time
from collections.abc import Sequence
from typing import Protocol

import msgspec

from slipway import ledger, tracing
from slipway.admission import Grant, Hold, Need
from slipway.answer.stages import StageTimer
from slipway.ledger import CallUsage, HeldCall, LedgerRow
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
    CacheState,
    CallKind,
    Emit,
    OtherModelUsage,
    Record,
    Saved,
    ServedBy,
    Sourced,
    StageTaken,
    Usage,
    new_row_id,
)


class Bookkeeper(Protocol):
    """Where the calls of models are booked."""

    def add(self, row: LedgerRow) -> None:
        """Book a call that has ended."""
        ...

    def hold(self, call: HeldCall) -> None:
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

    def hold(self, call: HeldCall) -> None: ...

    def release(self, call_id: str) -> None: ...


NO_BOOKS = NoBooks()


class Facts(Record, frozen=True, kw_only=True, gc=False):
    """What the head of a proxied answer says; `cost_usd` is None in streams and if the price is
    unknown.
    """

    served_by: ServedBy
    model: str
    attempts: int
    cost_usd: str | None = None
    rate_limits: Sequence[tuple[bytes, bytes]] = ()  # of the provider, as headers
    own_limits: bytes = b""  # of the asker, as lines of the head
    cache: CacheFacts | None = None


class Tally:
    """Count what one answer took; `done()` turns it into the AnswerDone record.

    `endpoint` is `chat` or `answers`; times are seconds of the monotonic clock. Each call of a
    model is booked in `books` when it has ended.
    """

    first_at: float | None = None
    served_by: ServedBy | None = None
    model: str | None = None
    provider = "none"
    attempts = 0
    error: str | None = None
    cited = flagged = dangling = 0
    saved: Saved | None = None
    cache: CacheState | None = None
    cost: int | None = 0  # of all calls, in picodollars; None if one of them is unknown
    entered_at: float | None = None  # when admission was over
    stages: tuple[StageTaken, ...] = ()
    sourced: Sourced | None = None
    degraded = False
    is_limited = False  # a model was not called, since a limit is reached

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
        self.trace = tracing.begun(answer_id)  # None if nobody follows it
        self.spent: list[CallUsage] = []
        self.kinds: dict[str, str] = {}  # model name -> provider
        self.other_usage: list[OtherModelUsage] = []
        self.skipped: dict[str, str] = {}

    def stage(self, name: str) -> StageTimer:
        """Return what times a stage of this answer."""
        return StageTimer(name, self.started_at, self._keep_stage)

    def _keep_stage(self, stage: StageTaken) -> None:
        self.stages = (*self.stages, stage)

    def elapsed_s(self) -> float:
        return time.monotonic() - self.started_at

    def mark_first_words(self) -> None:
        """Record when the first words came; later calls change nothing."""
        if self.first_at is None:
            self.first_at = time.monotonic()

    def note_writer(self, answering: RoutedAnswer) -> None:
        """Record which model writes now."""
        candidate = answering.candidate
        model = candidate.model
        self.served_by, self.model, self.provider = candidate.served_by, model.name, model.kind

    def settle(self, answering: RoutedAnswer) -> list[CallUsage]:
        """Close the attempts, however they ended, and book and return every call they made."""
        answering.close()
        self.attempts += answering.attempts.count
        if answering.attempts.skipped:
            self.skipped |= answering.attempts.skipped
            self.is_limited = self.is_limited or answering.is_limited
        taken = [self._usage(took) for took in answering.usages]
        self.spent += taken
        return taken

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
            trace=self.trace,
            until=until,
            retry_until=retry_until,
        )

    async def _reserve(self, candidate: Candidate, size: RequestSize, within_s: float) -> str:
        """Reserve what a call may take, and return the id of the call. Raises LimitReached."""
        grant, model = self.grant, candidate.model
        if grant is None:
            return ""
        asked = candidate.health.token_counts.input_tokens(size.input)
        if size.other:
            asked = candidate.most_input(asked + size.other)
        most = size.output
        if most is None:
            most = candidate.most_output(asked) * size.choices
        free = model.kind == "local"  # it runs here
        audio = min(size.audio, asked)
        amount = ledger.most_cost(candidate.rates, asked, most, audio=audio, makes=size.makes)
        amount = 0 if free else amount
        need = Need(model=model.name, tokens=asked + most, amount=amount)
        if amount is None and candidate.rates is not None:
            need = msgspec.structs.replace(
                need, part="images of " if size.makes == "images" else "audio of "
            )
        hold, id_ = grant.try_hold(need) or await grant.hold(need, within_s), new_row_id("call")
        self._holds[id_] = hold
        if grant.limits_money and not free:
            self._hold(id_, candidate, asked, most, amount)
        return id_

    def _hold(
        self, id_: str, candidate: Candidate, asked: int, most: int, amount: int | None
    ) -> None:
        model, rates, asker = candidate.model, candidate.rates, self.asker
        self._books.hold(
            HeldCall(
                id=id_,
                answer=self.id,
                at=time.time(),
                owner=asker.owner,
                tenant=asker.tenant,
                app=self.app,
                model=model.name,
                provider=model.kind,
                zone=model.zone,
                input_tokens=asked,
                output_tokens=most,
                cost=amount,
                price_source=rates.source if rates is not None else "",
            )
        )

    def _release(self, call_id: str) -> None:
        self._holds.pop(call_id).release()
        self._books.release(call_id)

    def charge(self, took: AttemptUsage, kind: CallKind | None = None) -> int | None:
        """Book a call that has ended, and settle what was reserved for it; return its cost."""
        return self._book(took, kind).cost

    def _book(self, took: AttemptUsage, kind: CallKind | None) -> LedgerRow:
        usage, candidate, asker = took.usage, took.candidate, self.asker
        model, rates = candidate.model, candidate.rates
        cost = ledger.cost_of(rates, usage) if took.is_charged else 0
        at = time.time()  # before it is counted: budgets that begin now read the ledger until now
        if took.reserved:
            hold = self._holds.pop(took.reserved)
            hold.settle(usage.input_tokens + usage.output_tokens, cost)
        if self.grant is not None and self.grant.has_late and cost:
            self.grant.spend_late(asker, self.app, cost, is_settled=bool(took.reserved))
        if self.cost is not None:
            self.cost = None if cost is None else self.cost + cost
        row = LedgerRow(
            id=took.reserved or new_row_id("call"),
            answer=self.id,
            at=at,
            owner=asker.owner,
            tenant=asker.tenant,
            app=self.app,
            model=model.name,
            provider=model.kind,
            zone=model.zone,
            kind=kind or took.kind,
            upstream=took.upstream,
            error=took.error,
            usage=usage,
            cost=cost,
            price_source=rates.source if rates is not None else "",
        )
        self._books.add(row)
        return row

    def charge_side_call(self, took: AttemptUsage) -> CallUsage:
        """Book a call that writes none of the answer, such as one that rewrites the question."""
        row = self._book(took, "side")
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
        later_s = other.started_at - self.started_at
        self.stages += tuple(
            msgspec.structs.replace(stage, began_s=stage.began_s + later_s)
            for stage in other.stages
        )
        if self.cost is not None:
            self.cost = None if other.cost is None else self.cost + other.cost
        self.cited += other.cited
        self.flagged += other.flagged
        self.dangling += other.dangling

    @property
    def own_limits(self) -> bytes:
        """The `x-ratelimit-*` lines of the asker; empty if no limit of them is set."""
        return self.grant.rate_lines() if self.grant is not None else b""

    @property
    def cost_usd(self) -> str | None:
        return ledger.in_usd(ledger.total_cost(self.spent))

    def facts(
        self,
        attempts: int,
        rate_limits: Sequence[tuple[bytes, bytes]] = (),
        own_limits: bytes = b"",
    ) -> Facts:
        return Facts(
            rate_limits=rate_limits,
            own_limits=own_limits,
            served_by=self.served_by or "model",
            model=self.model or "",
            attempts=attempts,
            cost_usd=self.cost_usd,
        )

    @property
    def ttft_s(self) -> float | None:
        return None if self.first_at is None else self.first_at - self.started_at

    def done(self) -> AnswerDone:
        spent = self.spent
        if len(spent) == 1 and spent[0].model == self.model and not self.other_usage:
            usage: Usage | None = spent[0].usage  # as nearly always
            others: tuple[OtherModelUsage, ...] = ()
        else:
            usage = ledger.total_usage([each for each in spent if each.model == self.model])
            others = (*self.other_usage, *self._other_writers())
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
            usage=usage,
            tenant=self.asker.tenant,
            owner=self.asker.owner,
            citations_kept=self.cited - self.flagged,
            citations_flagged=self.flagged,
            citations_dropped=self.dangling,
            other_usage=others,
            skipped=tuple(self.skipped.items()) if self.skipped else (),
            saved=self.saved,
            cache=self.cache,
            cost=self.cost,
            admission_s=(0.0 if self.entered_at is None else self.entered_at - self.started_at),
            stages=self.stages,
            trace=self.trace,
            sourced=self.sourced,
            degraded=self.degraded,
        )

    def _other_writers(self) -> list[OtherModelUsage]:
        """Return the calls of models other than `model`: sections may be written by several."""
        return [
            OtherModelUsage(model=spent.model, provider=self.kinds[spent.model], usage=spent.usage)
            for spent in self.spent
            if spent.model != self.model
        ]
