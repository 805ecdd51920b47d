"""What is known of an answer by the time it is settled."""

import time
from collections.abc import Sequence

from slipway import ledger
from slipway.ledger import CallUsage
from slipway.providers import Provider
from slipway.routing import QuickReply, RoutedAnswer
from slipway.types import AnswerDone, Asker, OtherModelUsage, Record, ServedBy, Usage


class Facts(Record, frozen=True, kw_only=True):
    """What the head of a proxied answer says; `cost_usd` is None in streams and if the price is
    unknown.
    """

    served_by: ServedBy
    model: str
    attempts: int
    cost_usd: str | None = None
    rate_limits: Sequence[tuple[bytes, bytes]] = ()  # of the provider, as headers


class Tally:
    """Count what one answer took; `done()` turns it into the AnswerDone record.

    `endpoint` is `chat` or `answers`; times are seconds of the monotonic clock.
    """

    first_at: float | None = None
    served_by: ServedBy | None = None
    model: str | None = None
    provider = "none"
    attempts = 0
    error: str | None = None
    cited = flagged = dangling = 0

    def __init__(
        self, answer_id: str, endpoint: str, app: str, asker: Asker, streamed: bool
    ) -> None:
        self.id, self.endpoint, self.app = answer_id, endpoint, app
        self.asker, self.streamed = asker, streamed
        self.started_at = time.monotonic()
        self.spent: list[CallUsage] = []
        self.kinds: dict[str, str] = {}  # model name -> provider
        self.other_usage: list[OtherModelUsage] = []
        self.skipped: dict[str, str] = {}

    def elapsed_s(self) -> float:
        return time.monotonic() - self.started_at

    def mark_first_words(self) -> None:
        """Record when the first words came; later calls change nothing."""
        if self.first_at is None:
            self.first_at = time.monotonic()

    def note_writer(self, answering: RoutedAnswer) -> None:
        """Record which model writes now."""
        candidate = answering.candidate
        self.served_by, self.model = candidate.served_by, candidate.model.name
        self.provider = candidate.model.kind

    def settle(self, answering: RoutedAnswer) -> list[CallUsage]:
        """Close the attempts, however they ended, and book and return every call they made."""
        answering.close()
        self.attempts += answering.attempts.count
        if answering.attempts.skipped:
            self.skipped |= answering.attempts.skipped
        return [self.book(took.candidate.model, took.usage) for took in answering.usages]

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
            usage=self._own_usage(),
            tenant=self.asker.tenant,
            owner=self.asker.owner,
            citations_kept=self.cited - self.flagged,
            citations_flagged=self.flagged,
            citations_dropped=self.dangling,
            other_usage=(*self.other_usage, *self._other_writers()) if self._had_others() else (),
            skipped=tuple(self.skipped.items()) if self.skipped else (),
        )

    def _own_usage(self) -> Usage | None:
        """Return the usage of `model`."""
        spent = self.spent
        if len(spent) == 1 and spent[0].model == self.model:
            return spent[0].usage
        return ledger.total_usage([each for each in spent if each.model == self.model])

    def _had_others(self) -> bool:
        """Return whether other models may have been called as well."""
        spent = self.spent
        return (
            len(spent) > 1
            or bool(self.other_usage)
            or (len(spent) == 1 and spent[0].model != self.model)
        )

    def _other_writers(self) -> list[OtherModelUsage]:
        """Return the calls of models other than `model`: sections may be written by several."""
        return [
            OtherModelUsage(model=spent.model, provider=self.kinds[spent.model], usage=spent.usage)
            for spent in self.spent
            if spent.model != self.model and spent.usage is not None
        ]
