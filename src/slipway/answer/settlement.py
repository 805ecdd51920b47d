"""What is known of an answer by the time it is settled."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from slipway import ledger
from slipway.ledger import CallUsage
from slipway.providers import Provider
from slipway.routing import QuickReply, RoutedAnswer
from slipway.types import (
    AnswerDone,
    Asker,
    CacheFacts,
    CacheState,
    OtherModelUsage,
    Record,
    Saved,
    ServedBy,
    Usage,
)


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

    `endpoint` is `chat` or `answers`; times are seconds of the monotonic clock.
    """

    def __init__(
        self, answer_id: str, endpoint: str, app: str, asker: Asker, streamed: bool
    ) -> None:
        self.id, self.endpoint, self.app = answer_id, endpoint, app
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
        self.cache: CacheState | None = None
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
            spent += [self.book(took.candidate.model, took.usage) for took in answering.usages]

    def book(self, model: Provider, usage: Usage | None) -> CallUsage:
        spent = CallUsage(model=model.name, price=model.price, usage=usage)
        self.spent.append(spent)
        self.kinds[model.name] = model.kind
        return spent

    def book_side_call(self, thought: QuickReply) -> CallUsage:
        """Book a call that writes none of the answer, such as one that rewrites the question."""
        if thought.usage is not None:
            self.other_usage.append(
                OtherModelUsage(
                    model=thought.model.name, provider=thought.model.kind, usage=thought.usage
                )
            )
        return CallUsage(model=thought.model.name, price=thought.model.price, usage=thought.usage)

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
            cache=self.cache,
        )

    def _other_writers(self) -> list[OtherModelUsage]:
        """Return the calls of models other than `model`: sections may be written by several."""
        return [
            OtherModelUsage(model=spent.model, provider=self.kinds[spent.model], usage=spent.usage)
            for spent in self.spent
            if spent.model != self.model and spent.usage is not None
        ]
