"""The cache in front of apps: kept answers, and answers in progress that questions share.

A kept answer dies with what it was written from. It holds the version of the asker's documents. If
that is still the same, the answer is. If not, the question is searched again, without a model: if
the search finds the same passages in the same order, a model would read the same, and the answer
serves on; if a document changed, went away, may not be read any more, or a new one now ranks among
them, it is removed.
"""

import asyncio
from collections.abc import Iterable
from itertools import groupby

import msgspec

from slipway import ledger
from slipway.answer.answering import compose, done, is_ruled, report_usage, settle, sourced
from slipway.answer.draft import Draft, Say
from slipway.answer.kept_chat import NOTHING_KEPT, is_of_other, may_be_stale, note_kept
from slipway.answer.pipeline import App, Pipeline
from slipway.answer.planning import search_again, searched_sections
from slipway.answer.same_answer import SaidAnswer
from slipway.answer.settlement import Tally
from slipway.answer.similar import SimilarAnswer, learn, look
from slipway.answer.skeleton import run_settled
from slipway.cache import CachePolicy, Flight, KeptAnswer, digest
from slipway.cache.keys import plain
from slipway.errors import NotCached, ProviderError, SlipwayError
from slipway.knowledge import Knowledge
from slipway.types import (
    CacheFacts,
    CacheState,
    Citation,
    Delta,
    Done,
    Event,
    Notice,
    Progress,
    Question,
    Record,
    Saved,
    SectionState,
    SourceFound,
    UsageReport,
    new_answer_id,
)

# Notices of answers that are not as good as they should be: another question deserves a better one
LESSER = frozenset(
    {"degraded", "at_limit", "smaller", "failover", "continued", "length", "content_filter"}
)
KEPT_EVENTS: dict[str, type[Event]] = {
    each.__name__: each for each in (SourceFound, SectionState, Delta, Citation, Notice)
}
KEPT_TYPES = frozenset(KEPT_EVENTS.values())
AGES = ((86_400, "days"), (3600, "hours"), (60, "minutes"), (1, "seconds"))


class KeptBody(Record, frozen=True, kw_only=True):
    """The body of a kept answer: its events by name, and the fields of its end."""

    events: list[tuple[str, msgspec.Raw]]
    abstained: bool
    prompt: str | None


decode_body = msgspec.msgpack.Decoder(KeptBody).decode
encode_body = msgspec.msgpack.Encoder().encode


class AnswerFlight(Flight[Event]):
    """An answer in progress. `tally` books its calls, until one of those who wait takes that over."""

    def __init__(self, asked: "KeptAsk") -> None:
        question = asked.question
        super().__init__(asked.key, question.app, question.asker.tenant, asked.policy.tags)
        self.tally = Tally(
            question.id, asked.endpoint, question.app, question.asker, True, asked.pipeline.books
        )
        self.draft = Draft()
        self.is_booked = False

    def say(self, event: Event) -> None:
        """Bring an event."""
        self.add(event, len(event.text) if isinstance(event, Delta) else 100)


class KeptAsk:
    """One question to an app whose answers are kept."""

    def __init__(
        self, pipeline: Pipeline, app: App, policy: CachePolicy, question: Question, endpoint: str
    ) -> None:
        self.pipeline, self.app, self.policy = pipeline, app, policy
        self.question, self.endpoint = question, endpoint
        self.cache = pipeline.cache
        self.key = self.version = ""
        self.may_keep = False  # the documents must have been read before
        self.scope: list[str] = []  # the documents, and the groups that decide what is read
        self.similar: SimilarAnswer | None = None

    @property
    def knowledge(self) -> Knowledge | None:
        """Return the app's documents, once they have been read."""
        knowledge = self.app.knowledge
        return knowledge if knowledge is not None and knowledge.ready else None

    async def look(self) -> None:
        """Find out the key, and the version of the documents that this asker may read."""
        if self.app.knowledge is None:
            self.may_keep = True
        elif self.knowledge is None:  # which groups matter is not known yet
            asker = self.question.asker
            self.scope = ["unread", asker.owner, *sorted(asker.groups)]
        else:
            self.may_keep = True
            self.scope, self.version = await asyncio.to_thread(self._look_at, self.knowledge)
        self.key = self.key_for(self.scope)

    def _look_at(self, knowledge: Knowledge) -> tuple[list[str], str]:
        asker = self.question.asker
        scope = [knowledge.name, *knowledge.groups_that_matter(asker)]
        return scope, knowledge.version(asker)

    def key_for(self, scope: list[str]) -> str:
        """Return the key; `scope` names the documents and the groups that decide what is read."""
        question = self.question
        return digest(
            "answer",
            self.policy.identity,
            question.asker.tenant,
            scope,
            question.messages,
            plain(question.options),
            question.within,
        )

    async def find(self) -> KeptAnswer | None:
        """Return the kept answer if it is still true."""
        if self.policy.lifetime is None or self.question.cache == "refresh":
            return None
        entry = await self.cache.get(self.key)
        if entry is None or self.app.knowledge is None:
            return entry
        return await self.still_true(entry, self.knowledge) if self.knowledge else None

    async def still_true(self, entry: KeptAnswer, knowledge: Knowledge) -> KeptAnswer | None:
        """Return the entry if a model would still read the same; else remove it."""
        asker = self.question.asker
        is_current = await asyncio.to_thread(knowledge.are_current, entry.documents, asker)
        if is_current and entry.knowledge == self.version:
            return entry
        searched = await search_again(self.app, knowledge, self.question, entry.understood)
        if searched == entry.searched:
            entry = msgspec.structs.replace(entry, knowledge=self.version)
            self.cache.verified(entry)
            return entry
        self.cache.drop(entry.key, "outranked" if is_current else "document")
        # the search may have read a changed file again
        self.version = await asyncio.to_thread(knowledge.version, asker)
        return None

    async def kept_under(self, key: str) -> KeptAnswer | None:
        """Return the fresh answer kept under another question's key, if it is still true."""
        entry = await self.cache.get(key)
        if entry is None or entry.state(self.cache.now()) != "fresh":
            return None
        if self.app.knowledge is None:
            return entry
        return await self.still_true(entry, self.knowledge) if self.knowledge else None

    def said(self, entry: KeptAnswer, question: str) -> SaidAnswer:
        """Return what a kept answer says."""
        return said_in(decode_body(entry.body), question)


def said_in(body: KeptBody, question: str) -> SaidAnswer:
    """Return the text and the cited passages of an answer's events."""
    events = [msgspec.msgpack.decode(raw, type=KEPT_EVENTS[name]) for name, raw in body.events]
    ids = {event.source.n: event.source.id for event in events if isinstance(event, SourceFound)}
    cited = {event.n for event in events if isinstance(event, Citation)}
    return SaidAnswer(
        question=question,
        text="".join(event.text for event in events if isinstance(event, Delta)),
        passages=frozenset(ids[n] for n in cited if n in ids),
        abstained=body.abstained,
    )


async def answer_kept(
    pipeline: Pipeline,
    app: App,
    policy: CachePolicy,
    question: Question,
    draft: Draft,
    endpoint: str,
    say: Say,
) -> None:
    """Answer as `answer` does, from a kept answer or one in progress if there is one."""
    tally = Tally(question.id, endpoint, app.name, question.asker, True, pipeline.books)
    asked = KeptAsk(pipeline, app, policy, question, endpoint)

    async def stages() -> None:
        if is_ruled(pipeline, app, question, draft, tally, say):
            return
        with tally.stage("cache") as stage:
            await asked.look()
            asked.cache.note_answer(question.id, asked.key)
            entry = await asked.find()
            is_answered = is_replayed(asked, entry, tally, say)
            if not is_answered and question.cache == "only":
                raise NotCached(NOTHING_KEPT)
            is_answered = is_answered or await similar_answers(asked, tally, say)
            stage.note(found=tally.cache if is_answered else None)
        if is_answered:
            return
        try:
            await answer_by_flight(asked, draft, tally, say)
        except ProviderError as error:
            if entry is None or tally.first_at is not None or not may_be_stale(error):
                raise
            say(Notice(code="stale", text=stale_text(entry.age_s(asked.cache.now()))))
            replay(asked, entry, tally, say)

    try:
        await run_settled(pipeline, tally, stages, if_cancelled="cancelled")
    except (SlipwayError, asyncio.CancelledError):
        report_usage(draft, tally, say)
        raise


def stale_text(age_s: float) -> str:
    unit_s, unit = next((row for row in AGES if age_s >= 2 * row[0]), AGES[-1])
    return f"No model can answer now, so this is the answer of {int(age_s // unit_s)} {unit} ago."


# A kept answer


def is_replayed(asked: KeptAsk, entry: KeptAnswer | None, tally: Tally, say: Say) -> bool:
    """Send a kept answer that is not too old, and return whether there was one."""
    state = entry.state(asked.cache.now()) if entry is not None else None
    if entry is None or state not in ("fresh", "refresh"):
        return False
    if state == "refresh":
        refresh_soon(asked)
    replay(asked, entry, tally, say)
    return True


async def similar_answers(asked: KeptAsk, tally: Tally, say: Say) -> bool:
    """Look for a similar question; send its answer and return true if it may be served."""
    if asked.question.cache != "use" or joinable(asked) is not None:
        return False
    asked.similar = similar = await look(asked)
    if similar is None or not similar.is_served:
        return False
    best, entry = similar.found.best, similar.entry
    assert best is not None and entry is not None  # noqa: S101, PT018 - only then it is served
    asked.cache.semantic.note(asked.question.id, similar.index, best.key, similar.found)
    similarity = round(best.similarity, 4)
    facts = CacheFacts(state="semantic", similarity=similarity, question=best.text)
    replay(asked, entry, tally, say, facts)
    return True


def replay(
    asked: KeptAsk, entry: KeptAnswer, tally: Tally, say: Say, facts: CacheFacts | None = None
) -> None:
    """Send the events of a kept answer, and what it saved. `facts` are those of a similar question,
    if its answer is sent.
    """
    body: KeptBody = decode_body(entry.body)
    facts = note_kept(entry, tally, asked.cache.now(), facts)
    if asked.app.knowledge is not None:
        has_citation = any(name == Citation.__name__ for name, _ in body.events)
        tally.sourced = sourced(has_citation=has_citation, is_abstained=body.abstained)
    for name, raw in body.events:
        if name == Delta.__name__:
            tally.mark_first_words()
        say(msgspec.msgpack.decode(raw, type=KEPT_EVENTS[name]))
    if entry.usage is not None:
        say(UsageReport(model=entry.model or "", usage=entry.usage, cost_usd="0"))
    say(
        Done(
            id=asked.question.id,
            served_by=tally.served_by,
            model=entry.model,
            attempts=0,
            abstained=body.abstained,
            ttft_s=tally.ttft_s,
            duration_s=tally.elapsed_s(),
            prompt=body.prompt,
            cache=facts,
        )
    )


def entry_of(asked: KeptAsk, flight: AnswerFlight, version: str) -> KeptAnswer | None:
    """Return the answer as it is kept; None if it is not complete, or not as good as it should be."""
    draft, tally, lifetime = flight.draft, flight.tally, asked.policy.lifetime
    notices = {event.code for event in flight.items if isinstance(event, Notice)}
    if lifetime is None or not (flight.keep and asked.may_keep) or notices & LESSER:
        return None
    if any(section.state != "done" for section in draft.sections):
        return None
    if not any(isinstance(event, Delta) for event in flight.items):
        return None
    body = KeptBody(
        events=[
            (type(event).__name__, msgspec.Raw(encode_body(event)))
            for event in joined(flight.items)
        ],
        abstained=all(section.abstained for section in draft.sections),
        prompt=draft.prompt,
    )
    return KeptAnswer(
        key=asked.key,
        app=asked.app.name,
        tenant=asked.question.asker.tenant,
        kept_at=asked.cache.now(),
        lifetime=lifetime,
        form="events",
        body=encode_body(body),
        model=tally.model,
        usage=ledger.total_usage(draft.spent),
        cost_usd=ledger.format_usd(ledger.total_usd(draft.spent)),
        tags=asked.policy.tags,
        documents=tuple(sorted({source.path for source in draft.sources.values()})),
        knowledge=version,
        understood=draft.understood,
        searched=searched_sections(asked.app, draft) if asked.app.knowledge is not None else (),
    )


def joined(events: Iterable[Event]) -> Iterable[Event]:
    """Yield the events to keep; text that follows text is joined, since nobody waits for it."""
    kept = (event for event in events if type(event) in KEPT_TYPES)
    for key, some in groupby(kept, lambda e: e.section if isinstance(e, Delta) else id(e)):
        first, *rest = some
        if isinstance(first, Delta):
            texts = [each.text for each in (first, *rest) if isinstance(each, Delta)]
            yield Delta(section=int(key), text="".join(texts))
        else:
            yield first


# An answer in progress


async def answer_by_flight(
    asked: KeptAsk, draft: Draft, tally: Tally, say: Say, *, again: bool = False
) -> None:
    """Answer by a call that identical questions share. `again` if such a call was refused before,
    since the limit of another key was reached.
    """
    flights = asked.cache.flights
    shares = asked.policy.flights and asked.question.cache != "refresh"
    found = joinable(asked) if shares else None
    is_mine = found is None
    flight = found or begin_flight(asked, tally)
    if not is_mine:
        nothing_learned(asked)
    tally.cache = how(asked) if is_mine else "flight"
    shown = set[int]()
    flights.enter(flight)
    try:
        await take(flight, tally, say, shown)
    except (SlipwayError, asyncio.CancelledError) as error:
        is_ours = again or bool(flight.draft.sources) or not is_of_other(flight, tally)
        if is_ours or not isinstance(error, SlipwayError):
            draft.adopt(flight.draft, shown)
            raise
        is_refused = True
    else:
        is_refused = False
    finally:
        await flights.leave(flight)
        book(flight, draft, tally)
    if is_refused:
        await answer_by_flight(asked, draft, tally, say, again=True)
        return
    end(asked, flight, draft, tally, say)


def how(asked: KeptAsk) -> CacheState:
    """Return how an answer begins that nothing kept or in progress serves."""
    return "refresh" if asked.question.cache == "refresh" else "miss"


def joinable(asked: KeptAsk) -> AnswerFlight | None:
    """Return the answer to an identical question that is in progress."""
    found = asked.cache.flights.joinable((asked.key, asked.version))
    return found if isinstance(found, AnswerFlight) else None


def nothing_learned(asked: KeptAsk) -> None:
    """Take note that no answer came to compare with that of a similar question."""
    if asked.similar is not None:
        asked.similar.index.undecided(asked.similar.found.verdict)


def begin_flight(asked: KeptAsk, tally: Tally) -> AnswerFlight:
    """Begin an answer; its records carry the id of the question that begins it."""
    flight = AnswerFlight(asked)
    flight.tally.grant = tally.grant
    key = (asked.key, asked.version)
    asked.cache.flights.start(key, flight, lambda: fly(asked, flight))
    return flight


async def fly(asked: KeptAsk, flight: AnswerFlight) -> None:
    """Write the answer, and keep it if it is complete."""
    version = asked.version  # of before the search: if documents change now, it is searched again
    draft, tally = flight.draft, flight.tally
    try:
        await compose(asked.pipeline, asked.app, asked.question, draft, tally, flight.say)
    except BaseException:
        nothing_learned(asked)
        raise
    settle(draft, tally)
    entry = entry_of(asked, flight, version)
    if entry is not None:
        asked.cache.put(entry)
    if asked.similar is not None:
        asked.cache.work_in_background(learn(asked, asked.similar, entry))


async def take(flight: AnswerFlight, tally: Tally, say: Say, shown: set[int]) -> None:
    """Send what the answer in progress brings, from its beginning; only the latest of the progress
    that was made before. Add the sections that were sent to their end to `shown`.
    """
    async for events in flight.follow():
        last = len(events) - 1
        for number, event in enumerate(events):
            if type(event) is Delta:
                tally.mark_first_words()
            elif type(event) is SectionState and event.state == "done":
                shown.add(event.index)
            if type(event) is not Progress or number == last:
                say(event)


def book(flight: AnswerFlight, draft: Draft, tally: Tally) -> None:
    """Book an answer that has ended with the first question that leaves it; the others saved it."""
    shared = flight.tally
    tally.served_by, tally.model, tally.provider = shared.served_by, shared.model, shared.provider
    tally.sourced, tally.degraded = shared.sourced, shared.degraded
    if not flight.ended:
        return
    if not flight.is_booked:
        flight.is_booked = True
        tally.take_over(shared)
        draft.spent += flight.draft.spent
    elif flight.error is None:
        tally.saved = Saved(
            by="flight",
            usage=ledger.total_usage(flight.draft.spent),
            usd=ledger.format_usd(ledger.total_usd(flight.draft.spent)),
        )


def end(
    asked: KeptAsk,
    flight: AnswerFlight,
    draft: Draft,
    tally: Tally,
    say: Say,
) -> None:
    """Send the end of an answer: its usage and what the cache did."""
    question = asked.question
    if tally.saved is None:
        report_usage(draft, tally, say)
    elif tally.saved.usage is not None:
        say(UsageReport(model=tally.model or "", usage=tally.saved.usage, cost_usd="0"))
    facts = CacheFacts(state=tally.cache or "miss", key=asked.key, saved=tally.saved)
    say(msgspec.structs.replace(done(question, flight.draft, tally), cache=facts))


def refresh_soon(asked: KeptAsk) -> None:
    """Write the answer again in the background, unless that is already being done."""
    if joinable(asked) is not None:
        return
    question = msgspec.structs.replace(asked.question, id=new_answer_id())
    again = KeptAsk(asked.pipeline, asked.app, asked.policy, question, "refresh")
    again.key, again.version, again.may_keep = asked.key, asked.version, asked.may_keep
    books = asked.pipeline.books
    tally = Tally(question.id, "refresh", asked.app.name, question.asker, True, books)

    async def refresh() -> None:
        await answer_by_flight(again, Draft(), tally, lambda event: None)

    asked.cache.work_in_background(
        run_settled(asked.pipeline, tally, refresh, if_cancelled="cancelled")
    )
