"""Bare models and routes: the model's own bytes, passed on to the client."""

from typing import Protocol

from slipway.answer.pipeline import Pipeline
from slipway.answer.settlement import Facts, Tally
from slipway.answer.skeleton import Settled
from slipway.providers import Call
from slipway.routing import Route, RoutedAnswer
from slipway.types import Asker

DONE = b"[DONE]\n\n"  # ends a stream


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
    tally = Tally(answer_id, "chat", route.name, asker, call.stream, pipeline.books)

    with Settled(pipeline, tally, if_cancelled="client_gone"):
        if tally.grant is not None and tally.grant.is_asked:
            await tally.grant.agree()
        asked = tally.context(
            pipeline.emit,
            until=tally.started_at + pipeline.answer_s,
            retry_until=tally.started_at + pipeline.patience_s,
        )
        answering = RoutedAnswer(route, call, asked)
        try:
            await answering.open()
            tally.note_writer(answering)
            whole = answering.whole
            own_limits = tally.own_limits
            limits = () if own_limits else answering.rate_limits()
            if whole is None:
                writer.begin(tally.facts(answering.attempts.count, limits, own_limits))
                await relay(answering, tally, writer)
        finally:
            tally.settle(answering)
        if whole is not None:
            writer.whole(whole.raw, tally.facts(tally.attempts, limits, own_limits))


async def relay(answering: RoutedAnswer, tally: Tally, writer: ResponseWriter) -> None:
    """Pass the model's events on until its answer ends."""
    tally.mark_first_words()
    answering.push(writer.take)
    last = b""
    try:
        while pieces := await answering.pieces():
            events = pieces[0].raw if len(pieces) == 1 else b"".join([p.raw for p in pieces])
            if events.endswith(DONE):
                last += events
            else:
                await writer.write(events)
    finally:
        tally.note_writer(answering)  # another model may have continued the answer
    answering.close()  # the call is booked before the client sees the end
    if last:
        await writer.write(last)
    writer.end()
