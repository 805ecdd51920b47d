"""The road: what happens to a question, from top to bottom.

`answer()` serves apps: admit, plan, then for each section knowledge, prompt, route, and settle. `proxy()` serves bare models and routes: admit,
route, settle. Each room is visited once. Both raise SlipwayError; what they emit on leaving is one AnswerDone.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, get_args

import msgspec

from slipway import followups, ledger, sections
from slipway.abstention import Opening, abstention
from slipway.admission import Admission
from slipway.draft import Draft, InOrder, Part, Say, Section
from slipway.errors import InternalError, ProviderError, SlipwayError
from slipway.followups.rewriting import MAX_TOKENS
from slipway.knowledge import Knowledge
from slipway.knowledge.citations import Marker
from slipway.knowledge.claims import Claims
from slipway.ledger import Spent
from slipway.pace import Pace, Writing
from slipway.progress import Teller
from slipway.prompt import OURS, Prompt, build
from slipway.providers import Call, encode_json
from slipway.providers.quote import quote
from slipway.routing import Opened, Route, Thought, attempt_done, open_route, think
from slipway.types import (
    AnswerDone,
    Beside,
    Citation,
    Delta,
    Done,
    Emit,
    Event,
    Hit,
    Notice,
    Question,
    Record,
    Rung,
    SectionState,
    Source,
    SourceFound,
    Usage,
    UsageReport,
)

RUNGS = get_args(Rung)  # from the highest to the lowest
NOTHING = "Nothing in the documents matches."
QUOTED = 0.25  # how likely it must be that the sources answer, for them to be quoted; measured by bench/abstention.py ...
ASKED = 0.1  # ... and for a model to be asked, which reads them and may still say that they do not
FLAGS_SHOWN = 12  # in a notice; the citations have them all


class App(Record, frozen=True, kw_only=True):
    """A named profile, compiled at load time: a room that is None is not visited."""

    name: str
    knowledge: Knowledge | None = None
    route: Route | None = None
    small: Route | None = None
    prompt: Prompt = OURS
    defaults: Mapping[str, Any] = msgspec.field(default_factory=dict)
    passages: int = 5
    sections: int = 4


class Road(Record, frozen=True, kw_only=True):
    """One immutable snapshot of everything that questions meet. Apps and routes (a bare model is a route of one) by their names."""

    admission: Admission
    apps: dict[str, App]
    routes: dict[str, Route]
    emit: Emit
    pace: Pace = msgspec.field(default_factory=Pace)

    def app(self, name: str) -> App | None:
        """The app of that name; a route or model may be asked like an app without rooms."""
        if found := self.apps.get(name):
            return found
        return App(name=name, route=self.routes[name]) if name in self.routes else None

    @property
    def names(self) -> list[str]:
        return [*self.apps, *self.routes]


class Facts(Record, frozen=True, kw_only=True):
    """What is known of a proxied answer when its head goes out; `cost_usd` is None in streams, and where the price is not known."""

    rung: Rung
    model: str
    attempts: int
    cost_usd: str | None = None


class Outlet(Protocol):
    """Where a proxied answer goes: the door's side of `proxy()`."""

    async def whole(self, body: bytes, facts: Facts) -> None: ...

    async def begin(self, facts: Facts) -> None: ...

    async def write(self, events: bytes) -> None: ...

    async def end(self) -> None: ...


class Tally:
    """What is known of an answer by the time it is settled."""

    def __init__(self, answer_id: str, door: str, app: str, tenant: str, streamed: bool) -> None:
        self.id, self.door, self.app, self.tenant, self.streamed = answer_id, door, app, tenant, streamed
        self.started_at = time.monotonic()
        self.first_at: float | None = None
        self.rung: Rung | None = None
        self.model: str | None = None
        self.provider = "none"
        self.spent: list[Spent] = []
        self.beside: list[Beside] = []
        self.attempts = 0
        self.error: str | None = None
        self.cited, self.flagged, self.dangling = 0, 0, 0

    def since(self) -> float:
        return time.monotonic() - self.started_at

    def words(self) -> None:
        """The first words came."""
        if self.first_at is None:
            self.first_at = time.monotonic()

    def opened(self, opened: Opened) -> None:
        self.rung, self.model, self.provider = opened.rung, opened.model.name, opened.model.kind
        self.attempts += opened.attempts

    def book(self, opened: Opened, usage: Usage | None) -> Spent:
        spent = Spent(model=opened.model.name, price=opened.model.price, usage=usage)
        self.spent.append(spent)
        return spent

    def thought(self, thought: Thought) -> Spent:
        """A call that does not write."""
        if thought.usage is not None:
            self.beside.append(Beside(model=thought.model.name, provider=thought.model.kind, usage=thought.usage))
        return Spent(model=thought.model.name, price=thought.model.price, usage=thought.usage)

    @property
    def cost_usd(self) -> str | None:
        return ledger.plain(ledger.total_usd(self.spent))

    def facts(self) -> Facts:
        return Facts(rung=self.rung or "model", model=self.model or "", attempts=self.attempts, cost_usd=self.cost_usd)

    @property
    def ttft_s(self) -> float | None:
        return None if self.first_at is None else self.first_at - self.started_at

    def done(self) -> AnswerDone:
        return AnswerDone(
            id=self.id,
            door=self.door,
            app=self.app,
            model=self.model,
            provider=self.provider,
            rung=self.rung,
            streamed=self.streamed,
            error=self.error,
            duration_s=self.since(),
            ttft_s=self.ttft_s,
            usage=ledger.used(self.spent),
            tenant=self.tenant,
            citations_kept=self.cited - self.flagged,
            citations_flagged=self.flagged,
            citations_dropped=self.dangling,
            beside=tuple(self.beside),
        )


async def proxy(road: Road, route: Route, call: Call, answer_id: str, tenant: str, outlet: Outlet) -> None:
    """A bare model or a route: the model's own bytes, checked event by event, on their way to the client."""
    tally = Tally(answer_id, "chat", route.name, tenant, call.stream)
    try:
        with road.admission.enter():  # 1 admit
            opened = await open_route(route, call, answer_id, road.emit)  # 6 route
            tally.opened(opened)
            try:
                if opened.whole is not None:
                    tally.book(opened, opened.whole.usage)
                    await outlet.whole(opened.whole.raw, tally.facts())
                else:
                    await outlet.begin(tally.facts())
                    await relay(opened, tally, outlet)
            except ProviderError as error:
                road.emit(attempt_done(answer_id, opened.model, opened.started_at, error=error))
                raise
            else:
                road.emit(attempt_done(answer_id, opened.model, opened.started_at, ttft_s=tally.ttft_s))
            finally:
                opened.reply.close()
    except SlipwayError as error:
        tally.error = error.code
        raise
    except asyncio.CancelledError:
        tally.error = "client_gone"
        raise
    finally:
        road.emit(tally.done())  # settle


async def relay(opened: Opened, tally: Tally, outlet: Outlet) -> None:
    usage: Usage | None = None
    pieces = opened.first
    try:
        while pieces:
            for piece in pieces:
                if piece.spoke and tally.first_at is None:
                    tally.words()
                if piece.usage is not None:
                    usage = piece.usage
            await outlet.write(pieces[0].raw if len(pieces) == 1 else b"".join([p.raw for p in pieces]))
            pieces = await opened.reply.pieces()
        await outlet.end()
    finally:
        tally.book(opened, usage)


async def answer(road: Road, app: App, question: Question, draft: Draft, door: str, tell: Say) -> None:
    """An app's answer, as events: what the draft does not have yet. The last is `done`; where a section cannot be had, the others are written,
    a SlipwayError is raised, and `done` is not said.
    """
    tally = Tally(question.id, door, app.name, question.asker.tenant, True)

    def say(event: Event) -> None:
        if type(event) is Delta:
            tally.words()
        tell(event)

    progress = Teller(say, tally.started_at, road.pace)
    try:
        with road.admission.enter():  # 1 admit
            small = thinker(road, app.small, question, draft, tally) if app.small is not None else None
            await plan(app, question, draft, progress, say, small)  # 4 plan, knowledge
            await write_all(road, app, question, draft, tally, progress, say)  # 5 prompt, 6 route
            if draft.failed is not None and draft.failed.error is not None:
                raise draft.failed.error
            progress.ended()
            settle(draft, tally)
            if (usage := ledger.used(draft.spent)) is not None:
                say(
                    UsageReport(
                        model=tally.model or draft.spent[0].model, usage=usage, cost_usd=ledger.plain(ledger.total_usd(draft.spent))
                    )
                )
            say(done(question, draft, tally))
    except SlipwayError as error:
        tally.error = error.code
        raise
    except asyncio.CancelledError:
        tally.error = "cancelled"
        raise
    finally:
        progress.close()
        road.emit(tally.done())  # settle


def settle(draft: Draft, tally: Tally) -> None:
    """The whole is called by the lowest rung of its sections, and by the first model that wrote one."""
    tally.rung = max((section.rung for section in draft.sections if section.rung is not None), key=RUNGS.index, default=None)
    tally.model = next((section.model for section in draft.sections if section.model is not None), None)
    if tally.model is None:
        tally.provider = "quote"


def done(question: Question, draft: Draft, tally: Tally) -> Done:
    return Done(
        id=question.id,
        rung=tally.rung,
        model=tally.model,
        attempts=tally.attempts,
        abstained=all(section.abstained for section in draft.sections),
        ttft_s=tally.ttft_s,
        duration_s=tally.since(),
        prompt=draft.prompt if tally.model is not None else None,
    )


# Plan and knowledge


async def plan(app: App, question: Question, draft: Draft, progress: Teller, say: Say, small: followups.Think | None = None) -> None:
    """Which sections there are, and the places that each may draw on, said as they are found. On trying again, what is missing."""
    if app.knowledge is None:
        if not draft.sections:
            draft.plan([Part(text=question.text)])
        for section in draft.missing:
            section.sources = []
    else:
        meant = question if draft.sections else await understand(question, progress, say, small)
        await readiness(app.knowledge, app, progress)
        if not draft.sections:
            draft.plan(await parts_of(app, app.knowledge, meant))
        await retrieve(app, app.knowledge, question, draft, progress, say)
    for section in draft.missing:
        section.state = "missing"
        say(SectionState(index=section.index, title=section.title, state="started"))


async def understand(question: Question, progress: Teller, say: Say, small: followups.Think | None) -> Question:
    """The question in full, where it leans on what was said before; what is searched for then is said."""
    if len(question.messages) < 2:
        return question
    if small is not None and followups.may_lean(question.text, question.messages):
        progress.tell("plan", "Understanding the question…", 0, 1, "questions")
        text = await followups.understood_by(small, question.text, question.messages)
    else:
        text = followups.understood(question.text, question.messages)
    if text == question.text:
        return question
    say(Notice(code="understood", text=f"Searched for: {text}"))
    return msgspec.structs.replace(question, text=text)


def thinker(road: Road, route: Route, question: Question, draft: Draft, tally: Tally) -> followups.Think:
    """A small model as rooms know it: a callable, whose calls are booked with the answer."""

    async def ask(messages: list[dict[str, Any]]) -> str | None:
        thought = await think(route, messages, question.id, road.emit, max_tokens=MAX_TOKENS)
        if thought is None:
            return None
        draft.spent.append(tally.thought(thought))
        return thought.text

    return ask


async def readiness(knowledge: Knowledge, app: App, progress: Teller) -> None:
    """Waits for the first reading."""
    progress.tell("retrieve", "Searching the documents…", 0, app.passages, "passages")
    while not knowledge.ready:
        if knowledge.failed:
            raise InternalError("The documents could not be read.", "Tell the operator: the server's log says why.")
        read = int(100 * knowledge.read_share)  # a share, since how many there are is not for everybody to know
        progress.tell("retrieve", f"Reading the documents… ({read} %)", read, 100, "percent")
        await asyncio.sleep(0.25)


async def parts_of(app: App, knowledge: Knowledge, question: Question) -> list[Part]:
    parts = sections.asked_for(question.text, app.sections)
    if len(parts) > 1 or app.sections == 1 or not sections.is_broad(question.text):
        return parts
    return await asyncio.to_thread(topics_of, app, knowledge, question, sections.subject(question.text))


def topics_of(app: App, knowledge: Knowledge, question: Question, text: str) -> list[Part]:
    """One part where it is unlikely that the documents answer. Blocks."""
    found = knowledge.find(text, question.asker, sections.DEPTH * app.passages, question.within)
    topics = sections.topics(text, found.hits, found.sureness, most=app.sections, passages=app.passages)
    if app.route is None:  # then it is known already which of them can be quoted from
        topics = [part for part in topics if quote(text, list(map(Draft().source, part.hits or ())))]
    likely = found.sureness >= (QUOTED if app.route is None else ASKED)
    return topics if likely and len(topics) > 1 else [Part(text=text)]


async def retrieve(app: App, knowledge: Knowledge, question: Question, draft: Draft, progress: Teller, say: Say) -> None:
    """The places of all sections that are missing, searched for at once; what several draw on is said once."""
    missing = draft.missing
    found = await asyncio.gather(*(asyncio.to_thread(find, app, knowledge, question, section) for section in missing))
    for section, (hits, sureness) in zip(missing, found, strict=True):
        section.sources, section.sureness = [], sureness
        for hit in hits:
            known = len(draft.sources)
            section.sources.append(draft.source(hit))
            if len(draft.sources) > known:
                say(SourceFound(source=section.sources[-1]))
    count = len(draft.sources)
    progress.tell("retrieve", f"Searching the documents… ({count}/{count} passages found)" if count else NOTHING, count, count, "passages")


def find(app: App, knowledge: Knowledge, question: Question, section: Section) -> tuple[Sequence[Hit], float]:
    """What the plan found, where that still stands; else what a search finds now. Blocks."""
    part = section.part
    if part.hits is not None and (section.sources is None or all(knowledge.passage(hit.passage.id, question.asker) for hit in part.hits)):
        return part.hits, part.sureness
    found = knowledge.find(part.text, question.asker, app.passages, question.within)
    return found.hits, found.sureness


# Prompt and route


async def write_all(road: Road, app: App, question: Question, draft: Draft, tally: Tally, progress: Teller, say: Say) -> None:
    """All sections that are missing, at once as far as the route goes, shown in their order. One that fails does not end the others."""
    missing = draft.missing
    progress.at_once = at_once = app.route.at_once if app.route is not None else len(missing)
    gate, order = asyncio.Semaphore(at_once), InOrder(say, [section.index for section in missing])
    desk = Desk(road=road, app=app, question=question, draft=draft, tally=tally, progress=progress)

    async def one(section: Section) -> None:
        lane = order.lane(section.index)
        try:
            async with gate:
                await write(desk, section, lane)
            section.state = "done"
            lane(SectionState(index=section.index, title=section.title, state="done", rung=section.rung, model=section.model))
        except SlipwayError as error:
            section.state, section.error = "failed", error
            lane(SectionState(index=section.index, title=section.title, state="failed"))
        finally:
            order.end(section.index)
        desk.tell()

    if len(missing) == 1:
        await one(missing[0])
        return
    async with asyncio.TaskGroup() as group:
        for section in missing:
            group.create_task(one(section))


class Desk(Record, frozen=True, kw_only=True):
    """What all sections of an answer share while they are written."""

    road: Road
    app: App
    question: Question
    draft: Draft
    tally: Tally
    progress: Teller

    def tell(self) -> None:
        """How many sections are written."""
        sections = self.draft.sections
        written = sum(section.state == "done" for section in sections)
        label = "Writing the answer…" if len(sections) == 1 else f"Writing {len(sections)} sections… ({written}/{len(sections)})"
        self.progress.tell("write", label, written, len(sections), "sections")

    def notice(self, code: str, text: str, say: Say) -> None:
        """Said once, however many sections it is true of."""
        if code not in self.draft.notices:
            self.draft.notices.add(code)
            say(Notice(code=code, text=text))


async def write(desk: Desk, section: Section, say: Say) -> None:
    """The text: by the route's model, else, where there are documents, quoted from them. Where they do not say, that is all that is said, with
    no citation.
    """
    app, sources = desk.app, section.sources or []
    if app.route is not None and is_asked(app, sources, section.sureness):
        try:
            answered = await write_by_model(desk, app.route, section, say)
        except ModelFailed as failed:
            if not sources or failed.spoke:
                raise failed.error from None
            desk.notice("degraded", "The model cannot be reached, so this answer is quoted from the documents.", say)
            desk.tally.attempts += len(app.route.candidates) if failed.error.another_may_help else 1
            answered = write_quote(desk, section, say)
    else:
        answered = write_quote(desk, section, say)
    section.abstained = not answered
    if not answered:
        say(Delta(section=section.index, text=abstention(desk.question.text, sources)))


def is_asked(app: App, sources: Sequence[Source], sureness: float) -> bool:
    """Whether a model is asked, where there is one: not where the documents hardly answer."""
    return app.knowledge is None or (bool(sources) and sureness >= ASKED)


def write_quote(desk: Desk, section: Section, say: Say) -> bool:
    """The last rung: the sentences that answer, verbatim. False where there are none, and nothing was said."""
    found = quote(section.part.text, section.sources or ()) if section.sureness >= QUOTED else None
    section.rung, section.model = "quote", None
    if found is not None:
        tell(desk.tally, section, (found.text, list(found.citations)), say)
    return found is not None


class ModelFailed(Exception):
    """What a model's call ended with, and whether it had said anything by then."""

    def __init__(self, error: ProviderError, *, spoke: bool) -> None:
        super().__init__(error.what)
        self.error, self.spoke = error, spoke


def call_for(app: App, question: Question, section: Section, *, alone: bool) -> Call:
    body = {"model": "", **app.defaults, **question.options, "messages": messages_for(app, question, section, alone=alone), "stream": True}
    return Call(body=encode_json(body), name_at=(9, 11), stream=True)


def messages_for(app: App, question: Question, section: Section, *, alone: bool) -> list[dict[str, Any]]:
    """What a model reads for a section; `alone` where it is the only one."""
    return build(question, section.sources or [], app.prompt, "" if alone else section.title)


async def write_by_model(desk: Desk, route: Route, section: Section, say: Say) -> bool:
    """False where the model says that the passages do not answer, and nothing else was said. Raises ModelFailed."""
    app, question, tally, sources = desk.app, desk.question, desk.tally, section.sources or []
    desk.draft.prompt = app.prompt.version(passages=bool(sources))
    call = call_for(app, question, section, alone=len(desk.draft.sections) == 1)
    writing = Writing(route.candidates[0].model.name, len(call.body))
    desk.progress.writings.append(writing)
    writing.began_at = time.monotonic()
    desk.tell()
    try:
        opened = await open_route(route, call, question.id, desk.road.emit)
    except ProviderError as error:
        desk.progress.writings.remove(writing)
        raise ModelFailed(error, spoke=False) from None
    tally.opened(opened)
    writing.model, section.rung, section.model = opened.model.name, opened.rung, opened.model.name
    text = Text(
        section,
        Marker({s.n for s in sources}, Claims(sources, f"{question.text}\n{section.part.text}").lacking),
        Opening(listens=bool(sources)),
    )
    usage: Usage | None = None
    try:
        pieces = opened.first
        while pieces:
            for piece in pieces:
                usage = piece.usage or usage
                if piece.text:
                    writing.wrote(len(piece.text))
                    text.feed(piece.text, tally, say)
            pieces = await opened.reply.pieces()
        text.end(tally, say, whole=True)
    except ProviderError as error:
        if text.spoke:
            text.end(tally, say, whole=False)
        desk.road.emit(attempt_done(question.id, opened.model, opened.started_at, error=error))
        raise ModelFailed(error, spoke=text.spoke) from None
    else:
        writing.ended_at = time.monotonic()
        desk.road.pace.learn(writing)
        first_s = None if writing.first_at is None else writing.first_at - opened.started_at
        desk.road.emit(attempt_done(question.id, opened.model, opened.started_at, ttft_s=first_s))
    finally:
        writing.ended_at = writing.ended_at or time.monotonic()
        desk.draft.spent.append(tally.book(opened, usage))
        tally.dangling += text.marker.dropped
        opened.reply.close()
    return not text.opening.abstained


class Text:
    """A section's text on its way from the model to the reader."""

    def __init__(self, section: Section, marker: Marker, opening: Opening) -> None:
        self.section, self.marker, self.opening = section, marker, opening
        self.spoke = False
        self.cited = 0

    def feed(self, text: str, tally: Tally, say: Say) -> None:
        if shown := self.opening.feed(text):
            self._tell(self.marker.feed(shown), tally, say)

    def _tell(self, found: tuple[str, list[Citation]], tally: Tally, say: Say) -> None:
        self.spoke = self.spoke or bool(found[0])
        self.cited += len(found[1])
        tell(tally, self.section, found, say)

    def end(self, tally: Tally, say: Say, *, whole: bool) -> None:
        """What was held back, and what the reader should know about the sources of the whole."""
        if text := self.opening.end():
            self._tell(self.marker.feed(text), tally, say)
        self._tell(self.marker.end(), tally, say)
        if words := list(self.marker.flags):
            more = f" and {len(words) - FLAGS_SHOWN} more" if len(words) > FLAGS_SHOWN else ""
            said = f"Not found in the cited source: {', '.join(words[:FLAGS_SHOWN])}{more}."
            say(Notice(code="unsupported", text=said, section=self.section.index))
        if whole and self.section.sources and self.spoke and not self.cited:
            say(Notice(code="uncited", text="No source is named for this answer.", section=self.section.index))


def tell(tally: Tally, section: Section, found: tuple[str, list[Citation]], say: Say) -> None:
    text, citations = found
    if text:
        say(Delta(section=section.index, text=text))
    for citation in citations:
        tally.cited += 1
        tally.flagged += bool(citation.flags)
        say(msgspec.structs.replace(citation, section=section.index) if section.index else citation)
