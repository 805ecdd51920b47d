"""Bare models and routes: the model's own bytes, passed on to the client."""

from typing import Protocol

from slipway.answer.pipeline import Pipeline
from slipway.answer.settlement import Facts, Tally
from slipway.answer.skeleton import Settled
from slipway.providers import Call
from slipway.routing import CallContext, Route, RoutedAnswer
from slipway.types import Asker


class ResponseWriter(Protocol):
    """Write a proxied answer to the client: either `whole`, or `begin`, `write`... and `end`."""

    def whole(self, body: bytes, facts: Facts) -> None: ...

    def begin(self, facts: Facts) -> None: ...

    async def write(self, events: bytes) -> None: ...

    def take(self, events: bytes) -> bool:
        """Write if the client reads fast enough; otherwise return False, for `write` to wait."""
        ...

    def end(self) -> None: ...


async def proxy(
    pipeline: Pipeline,
    route: Route,
    call: Call,
    answer_id: str,
    asker: Asker,
    writer: ResponseWriter,
) -> None:
    """Answer from a bare model or a route: the model's own bytes, each event checked.

    Raises SlipwayError if no model of the route can answer.
    """
    tally = Tally(answer_id, "chat", route.name, asker, call.stream, pipeline.book)
    asked = CallContext(
        answer_id=answer_id,
        emit=pipeline.emit,
        charge=tally.charge,
        owner=asker.owner,
        until=tally.started_at + pipeline.answer_s,
        retry_until=tally.started_at + pipeline.patience_s,
    )
    answering = RoutedAnswer(route, call, asked)

    with Settled(pipeline, tally, if_cancelled="client_gone"):
        try:
            await answering.open()
            tally.note_writer(answering)
            whole = answering.whole
            if whole is None:
                limits = answering.rate_limits()
                writer.begin(tally.facts(answering.attempts.count, limits))
                await relay(answering, tally, writer)
        finally:
            tally.settle(answering)
        if whole is not None:
            writer.whole(whole.raw, tally.facts(tally.attempts, answering.rate_limits()))


async def relay(answering: RoutedAnswer, tally: Tally, writer: ResponseWriter) -> None:
    """Pass the model's events on until its answer ends."""
    tally.mark_first_words()
    answering.push(writer.take)
    try:
        while pieces := await answering.pieces():
            await writer.write(
                pieces[0].raw if len(pieces) == 1 else b"".join([p.raw for p in pieces])
            )
    finally:
        tally.note_writer(answering)  # another model may have continued the answer
    writer.end()
