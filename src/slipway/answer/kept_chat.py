"""The cache in front of bare models and routes: kept answers, and calls that questions share."""

import asyncio
import re
from collections.abc import Iterable
from typing import Any, Literal, Protocol

import msgspec

from slipway import ledger
from slipway.answer.pipeline import Pipeline
from slipway.answer.proxying import ResponseWriter, proxy
from slipway.answer.settlement import Facts, Tally
from slipway.answer.skeleton import run_settled
from slipway.cache import AnswerCache, CachePolicy, Flight, KeptAnswer, digest
from slipway.cache.keys import parameters_of
from slipway.errors import LimitReached, NotCached, ProviderError
from slipway.providers import Call
from slipway.providers.fields import SAID
from slipway.providers.reshaping import DONE, chunks_of, completion_of, message_of
from slipway.providers.sse import Framer, data_of
from slipway.routing import Route, RoutedAnswer
from slipway.types import Asker, CacheFacts, CacheWish, Piece, Saved, new_answer_id

COMPLETE = frozenset({"stop", "tool_calls", "function_call"})  # finish reasons of answers to keep
REFUSED = re.compile(rb'"refusal"\s*:\s*"[^"]')
LARGE_BODY = 1024 * 1024  # bytes; the key of a larger request is made in a thread
NOTHING_KEPT = "No answer to this question is kept."


class TalliedFlight(Protocol):
    """A flight whose tally says who began it."""

    tally: Tally


class ChatFlight(Flight[Piece]):
    """A call to a route. `tally` books it, until one of those who wait takes that over."""

    def __init__(self, question: "KeptQuestion", tally: Tally) -> None:
        super().__init__(question.key, tally.app, question.asker.tenant, question.policy.tags)
        self.tally = tally
        self.answering: RoutedAnswer | None = None
        self.whole: bytes | None = None
        self.is_booked = False

    def facts(self, cache: CacheFacts, tally: Tally) -> Facts:
        """Return what the head of a reply says once the answer has begun; `tally` is that of the one
        who gets it.
        """
        assert self.answering is not None  # noqa: S101 - it has begun
        own_limits = tally.own_limits
        limits = () if own_limits else self.answering.rate_limits()
        facts = self.tally.facts(self.answering.attempts.count, limits, own_limits)
        cost_usd = "0" if cache.state == "flight" else facts.cost_usd
        return msgspec.structs.replace(facts, cache=cache, cost_usd=cost_usd)


class KeptQuestion:
    """One question to a model or route whose answers are kept."""

    def __init__(
        self, pipeline: Pipeline, route: Route, policy: CachePolicy, call: Call, asker: Asker
    ) -> None:
        self.pipeline, self.route, self.policy = pipeline, route, policy
        self.call, self.asker = call, asker
        self.cache: AnswerCache = pipeline.cache
        self.key = ""

    async def look(self) -> None:
        """Find out the key; empty if neither kept answers nor flights serve this question."""
        try:
            if len(self.call.body) > LARGE_BODY:
                self.key = await asyncio.to_thread(self._make_key)
            else:
                self.key = self._make_key()
        except (ValueError, OverflowError, RecursionError):  # numbers or text that we cannot write
            self.key = ""

    def _make_key(self) -> str:
        parameters = parameters_of(self.call.body)
        if self.policy.only_at_zero and parameters.get("temperature") != 0:
            return ""
        return digest(
            "chat",
            self.policy.identity,
            self.asker.tenant,
            parameters,
            self.call.stream_options,
        )


async def proxy_kept(
    pipeline: Pipeline,
    route: Route,
    policy: CachePolicy,
    call: Call,
    answer_id: str,
    asker: Asker,
    writer: ResponseWriter,
    wish: CacheWish,
) -> None:
    """Answer as `proxy` does, from a kept answer or a shared call if there is one.

    Raises SlipwayError if there is none and no model can answer.
    """
    question = KeptQuestion(pipeline, route, policy, call, asker)
    await question.look()
    if not question.key:
        if wish == "only":
            raise NotCached(NOTHING_KEPT)
        await proxy(pipeline, route, call, answer_id, asker, writer)
        return
    tally = Tally(answer_id, "chat", route.name, asker, call.stream, pipeline.books)

    async def stages() -> None:
        entry = None
        with tally.stage("cache") as stage:
            if policy.lifetime is not None and wish != "refresh":
                entry = await question.cache.get(question.key)
            state = entry.state(question.cache.now()) if entry is not None else None
            stage.note(found=state)
        if entry is not None and state in ("fresh", "refresh"):
            if state == "refresh":
                refresh_soon(question)
            await send_kept(question, entry, tally, writer)
            return
        if wish == "only":
            raise NotCached(NOTHING_KEPT)
        try:
            await answer_by_flight(question, tally, writer, fresh=wish == "refresh")
        except ProviderError as error:
            if entry is None or tally.first_at is not None or not may_be_stale(error):
                raise
            await send_kept(question, entry, tally, writer)

    await run_settled(pipeline, tally, stages, if_cancelled="client_gone")


def may_be_stale(error: ProviderError) -> bool:
    """Return whether an old answer is better than this error: not if the request is at fault, nor if
    a limit is reached that refuses questions.
    """
    if isinstance(error, LimitReached):
        return error.may_quote
    return error.another_may_help and not error.is_about_content


# A kept answer


async def send_kept(
    question: KeptQuestion, entry: KeptAnswer, tally: Tally, writer: ResponseWriter
) -> None:
    """Send a kept answer in the form that the client asked for."""
    cache = note_kept(entry, tally, question.cache.now())
    tally.mark_first_words()
    facts = Facts(
        served_by=tally.served_by or "cache",
        model=entry.model or "",
        attempts=0,
        cost_usd="0",
        own_limits=tally.own_limits,
        cache=cache,
    )
    if not question.call.stream:
        writer.whole(whole_of(entry), facts)
        return
    writer.begin(facts)
    await writer.write(stream_of(entry, usage_wanted=question.call.usage_wanted))
    writer.end()


def note_kept(
    entry: KeptAnswer, tally: Tally, now: float, similar: CacheFacts | None = None
) -> CacheFacts:
    """Record that a kept answer serves, and return what the reply says of it. It is served by
    `stale` if it is that old that only the failure of all models allows it. `similar` is set if it
    is the answer of a similar question.
    """
    age = entry.state(now)
    facts = similar or CacheFacts(state="hit" if age == "fresh" else "stale")
    by: Literal["cache", "semantic", "stale"] = "cache"
    if similar is not None:
        by = "semantic"
    elif age not in ("fresh", "refresh"):
        by = "stale"
    tally.served_by, tally.cache = by, facts.state
    tally.model, tally.provider = entry.model, "cache"
    tally.saved = Saved(by=by, usage=entry.usage, usd=entry.cost_usd)
    age_s = round(entry.age_s(now), 3)
    return msgspec.structs.replace(facts, key=entry.key, age_s=age_s, saved=tally.saved)


def stream_of(entry: KeptAnswer, *, usage_wanted: bool) -> bytes:
    """Return a kept answer as the events of a stream."""
    events, usage_event = entry.body, entry.usage_event
    if entry.form == "whole":
        events, usage_event = split_usage(chunks_of(msgspec.json.decode(entry.body)))
    return events + (usage_event if usage_wanted else b"") + DONE


def whole_of(entry: KeptAnswer) -> bytes:
    """Return a kept answer as a whole completion."""
    if entry.form == "whole":
        return entry.body
    return completion_from(entry.body + entry.usage_event)


def completion_from(events: bytes) -> bytes:
    """Return the completion that says what the events of a stream say."""
    datas = [data_of(event) for event in Framer().feed(events) if not is_end(event)]
    chunks = [msgspec.json.decode(data) for data in datas if data.strip()]
    return msgspec.json.encode(completion_of(each for each in chunks if isinstance(each, dict)))


def split_usage(events: Iterable[bytes]) -> tuple[bytes, bytes]:
    """Return (events without the one about usage and `[DONE]`, the event about usage)."""
    kept, usage = list[bytes](), b""
    for event in events:
        if is_end(event):
            continue
        if is_about_usage(event):
            usage = event
        else:
            kept.append(event)
    return b"".join(kept), usage


def is_end(event: bytes) -> bool:
    """Return whether an event is `[DONE]`."""
    return event == DONE or (len(event) < 200 and data_of(event).strip() == b"[DONE]")


def is_about_usage(event: bytes) -> bool:
    """Return whether an event holds usage and nothing that a model said."""
    if b'"usage"' not in event:
        return False
    try:
        chunk = msgspec.json.decode(data_of(event))
    except msgspec.DecodeError:
        return False
    return isinstance(chunk, dict) and bool(chunk.get("usage")) and not chunk.get("choices")


# A shared call


async def answer_by_flight(
    question: KeptQuestion,
    tally: Tally,
    writer: ResponseWriter,
    *,
    fresh: bool,
    again: bool = False,
) -> None:
    """Answer by a call that identical questions share; `fresh`: by one that begins now. `again` if
    such a call was refused before, since the limit of another key was reached.
    """
    flights = question.cache.flights
    flight = None if fresh or not question.policy.flights else joinable(question)
    is_mine = flight is None
    if flight is None:
        flight = begin_flight(question, tally)
    flights.enter(flight)
    try:
        await take(question, flight, tally, writer, is_mine=is_mine, fresh=fresh)
    except ProviderError:
        if again or not is_of_other(flight, tally):
            raise
    else:
        return
    finally:
        await flights.leave(flight)
        book(flight, tally)
    await answer_by_flight(question, tally, writer, fresh=fresh, again=True)


def is_of_other(flight: TalliedFlight, tally: Tally) -> bool:
    """Return whether a flight may have failed because of a limit that is not ours: another key
    began it, and nothing of it was sent.
    """
    shared = flight.tally
    return shared.is_limited and shared.asker.owner != tally.asker.owner and tally.first_at is None


def joinable(question: KeptQuestion) -> ChatFlight | None:
    """Return the flight of an identical question. A whole answer may come from a stream; a stream
    does not wait for a whole answer.
    """
    flights = question.cache.flights
    found = flights.joinable((question.key, True))
    if found is None and not question.call.stream:
        found = flights.joinable((question.key, False))
    return found if isinstance(found, ChatFlight) else None


def begin_flight(question: KeptQuestion, tally: Tally) -> ChatFlight:
    """Begin a call; its records carry the id of the question that begins it."""
    is_streamed, books = question.call.stream, question.pipeline.books
    own = Tally(tally.id, "chat", tally.app, question.asker, is_streamed, books)
    own.grant = tally.grant
    flight = ChatFlight(question, own)
    key = (question.key, question.call.stream)
    question.cache.flights.start(key, flight, lambda: fly(question, flight))
    return flight


async def fly(question: KeptQuestion, flight: ChatFlight) -> None:
    """Call the route, bring what it answers, and keep it if it is complete."""
    pipeline, tally = question.pipeline, flight.tally
    context = tally.context(
        pipeline.emit,
        until=tally.started_at + pipeline.answer_s,
        retry_until=tally.started_at + pipeline.patience_s,
    )
    call = msgspec.structs.replace(question.call, keep_usage=True)
    answering = flight.answering = RoutedAnswer(question.route, call, context)
    try:
        await answering.open()
        tally.note_writer(answering)
        if answering.whole is not None:
            flight.whole = answering.whole.raw
        else:
            try:
                while pieces := await answering.pieces():
                    for piece in pieces:
                        await flight.bring(piece, len(piece.raw))
            finally:
                tally.note_writer(answering)  # another model may have continued the answer
    finally:
        tally.settle(answering)
    if question.policy.lifetime is not None and flight.keep and not answering.notices:
        entry = entry_of(question, flight)
        if entry is not None:
            question.cache.put(entry)


def entry_of(question: KeptQuestion, flight: ChatFlight) -> KeptAnswer | None:
    """Return the answer as it is kept; None if it is not complete, or empty, or a refusal."""
    form: Literal["stream", "whole"] = "stream"
    if flight.whole is not None:
        body, usage_event, form = flight.whole, b"", "whole"
        finishes, has_words = end_of(body)
    elif flight.joinable:
        said = [piece for piece in flight.items if piece.raw and not piece.raw.startswith(b":")]
        body, usage_event = split_usage(piece.raw for piece in said)
        finishes = {piece.finish for piece in said if piece.finish is not None}
        has_words = any(piece.spoke for piece in said)
    else:  # it is so large that its beginning was dropped
        return None
    if not has_words or not finishes or not finishes <= COMPLETE or REFUSED.search(body):
        return None
    lifetime, tally = question.policy.lifetime, flight.tally
    assert lifetime is not None  # noqa: S101 - only then it is kept
    return KeptAnswer(
        key=question.key,
        app=tally.app,
        tenant=question.asker.tenant,
        kept_at=question.cache.now(),
        lifetime=lifetime,
        form=form,
        body=body,
        usage_event=usage_event,
        model=tally.model,
        usage=ledger.total_usage(tally.spent),
        cost_usd=tally.cost_usd,
        tags=question.policy.tags,
    )


def end_of(completion: bytes) -> tuple[set[str | None], bool]:
    """Return the finish reasons of all choices of a completion, and whether one of them has words."""
    choices: list[dict[str, Any]] = msgspec.json.decode(completion).get("choices") or []
    messages = [message_of(choice) for choice in choices]
    has_words = any(message.get(name) for message in messages for name in SAID)
    return {choice.get("finish_reason") for choice in choices}, has_words


async def take(
    question: KeptQuestion,
    flight: ChatFlight,
    tally: Tally,
    writer: ResponseWriter,
    *,
    is_mine: bool,
    fresh: bool,
) -> None:
    """Send what a flight brings, from its beginning, in the form that the client asked for."""
    how: Literal["miss", "refresh"] = "refresh" if fresh else "miss"
    cache = CacheFacts(state=how if is_mine else "flight", key=question.key)
    tally.cache = cache.state
    parts = list[bytes]()
    async for pieces in flight.follow():
        tally.mark_first_words()
        if question.call.stream:
            if not parts:
                parts.append(b"begun")
                writer.begin(flight.facts(cache, tally))
            await writer.write(written(pieces, usage_wanted=question.call.usage_wanted))
        else:
            parts += [piece.raw for piece in pieces if piece.raw]
    if question.call.stream:
        writer.end()
        return
    if not is_mine:
        cache = msgspec.structs.replace(cache, saved=saved_by(flight))
    body = flight.whole
    if body is None:
        body = completion_from(b"".join(parts))
    writer.whole(body, flight.facts(cache, tally))


def written(pieces: list[Piece], *, usage_wanted: bool) -> bytes:
    """Return the bytes of some pieces for one client."""
    return b"".join(
        piece.raw
        for piece in pieces
        if usage_wanted or piece.usage is None or not is_about_usage(piece.raw)
    )


def saved_by(flight: ChatFlight) -> Saved:
    """Return what a question saved that shared a call of another one."""
    shared = flight.tally
    return Saved(by="flight", usage=ledger.total_usage(shared.spent), usd=shared.cost_usd)


def book(flight: ChatFlight, tally: Tally) -> None:
    """Book a call that has ended with the first question that leaves it; the others saved it."""
    shared = flight.tally
    tally.served_by, tally.model, tally.provider = shared.served_by, shared.model, shared.provider
    if not flight.ended:
        return
    if not flight.is_booked:
        flight.is_booked = True
        tally.take_over(shared)
    elif flight.error is None:
        tally.saved = saved_by(flight)


# A refresh in the background


class NobodyWriter:
    """Takes an answer for nobody: it is only kept."""

    def whole(self, body: bytes, facts: Facts) -> None: ...

    def begin(self, facts: Facts) -> None: ...

    async def write(self, events: bytes) -> None: ...

    def take(self, events: bytes) -> bool:
        return True

    def end(self) -> None: ...


def refresh_soon(question: KeptQuestion) -> None:
    """Write the answer again in the background, unless that is already being done."""
    if joinable(question) is not None:
        return
    name, books = question.route.name, question.pipeline.books
    tally = Tally(new_answer_id(), "refresh", name, question.asker, False, books)

    async def refresh() -> None:
        await answer_by_flight(question, tally, NobodyWriter(), fresh=False)

    question.cache.work_in_background(
        run_settled(question.pipeline, tally, refresh, if_cancelled="cancelled")
    )
