"""The road: what happens to a question, from top to bottom.

`answer()` serves apps: admit, knowledge, prompt, route, settle. `proxy()` serves bare models and routes: admit, route, settle. Each room
is visited once. Both raise SlipwayError; what they emit on leaving is one AnswerDone.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from slipway import ledger
from slipway.abstention import Opening, abstention
from slipway.admission import Admission
from slipway.errors import InternalError, ProviderError, SlipwayError
from slipway.knowledge import Knowledge
from slipway.knowledge.citations import Marker
from slipway.knowledge.claims import Claims
from slipway.prompt import OURS, Prompt, build
from slipway.providers import Call, encode_json
from slipway.providers.quote import quote
from slipway.routing import Opened, Route, attempt_done, open_route
from slipway.settings import Price
from slipway.types import (
    AnswerDone,
    Citation,
    Delta,
    Done,
    Emit,
    Event,
    Notice,
    Progress,
    Question,
    Record,
    Rung,
    SectionState,
    Source,
    SourceFound,
    Usage,
    UsageReport,
)

Say = Callable[[Event], None]
NOTHING = "Nothing in the documents matches."
QUOTED = 0.25  # how likely it must be that the sources answer, for them to be quoted; measured by bench/abstention.py ...
ASKED = 0.1  # ... and for a model to be asked, which reads them and may still say that they do not
FLAGS_SHOWN = 12  # in a notice; the citations have them all


class App(Record, frozen=True, kw_only=True):
    """A named profile, compiled at load time: a room that is None is not visited."""

    name: str
    knowledge: Knowledge | None = None
    route: Route | None = None
    prompt: Prompt = OURS
    defaults: Mapping[str, Any] = msgspec.field(default_factory=dict)
    passages: int = 5


class Road(Record, frozen=True, kw_only=True):
    """One immutable snapshot of everything that questions meet. Apps and routes (a bare model is a route of one) by their names."""

    admission: Admission
    apps: dict[str, App]
    routes: dict[str, Route]
    emit: Emit

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
        self.usage: Usage | None = None
        self.price: Price | None = None
        self.attempts = 0
        self.prompt: str | None = None
        self.error: str | None = None
        self.cited, self.flagged, self.dangling = 0, 0, 0

    def since(self) -> float:
        return time.monotonic() - self.started_at

    def words(self) -> None:
        """The first words came."""
        if self.first_at is None:
            self.first_at = time.monotonic()

    def opened(self, opened: Opened) -> None:
        self.rung, self.model, self.provider, self.attempts = opened.rung, opened.model.name, opened.model.kind, opened.attempts
        self.price = opened.model.price

    @property
    def cost_usd(self) -> str | None:
        return ledger.plain(ledger.cost_usd(self.price, self.usage))

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
            usage=self.usage,
            tenant=self.tenant,
            citations_kept=self.cited - self.flagged,
            citations_flagged=self.flagged,
            citations_dropped=self.dangling,
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
                    tally.usage = opened.whole.usage
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
    pieces = opened.first
    while pieces:
        for piece in pieces:
            if piece.spoke and tally.first_at is None:
                tally.words()
            if piece.usage is not None:
                tally.usage = piece.usage
        await outlet.write(pieces[0].raw if len(pieces) == 1 else b"".join([p.raw for p in pieces]))
        pieces = await opened.reply.pieces()
    await outlet.end()


async def answer(road: Road, app: App, question: Question, door: str, say: Say) -> None:
    """An app's answer, as events. The last is `done`; where none can be had, a SlipwayError is raised and `done` is not said."""
    tally = Tally(question.id, door, app.name, question.asker.tenant, True)
    try:
        with road.admission.enter():  # 1 admit
            sources, sureness = await retrieve(app, question, tally, say)  # 4 knowledge
            abstained = await write(road, app, question, sources, tally, say, sureness=sureness)  # 5 prompt, 6 route
            if tally.usage is not None and tally.model is not None:
                say(UsageReport(model=tally.model, usage=tally.usage, cost_usd=tally.cost_usd))
            say(
                Done(
                    id=question.id,
                    rung=tally.rung,
                    model=tally.model,
                    attempts=tally.attempts,
                    abstained=abstained,
                    ttft_s=tally.ttft_s,
                    duration_s=tally.since(),
                    prompt=tally.prompt if tally.rung != "quote" else None,
                )
            )
    except SlipwayError as error:
        tally.error = error.code
        raise
    except asyncio.CancelledError:
        tally.error = "cancelled"
        raise
    finally:
        road.emit(tally.done())  # settle


async def retrieve(app: App, question: Question, tally: Tally, say: Say) -> tuple[list[Source], float]:
    """The places to answer from, each said as soon as it is found, with true counts; and how sure it is that they answer, 0 to 1."""
    if app.knowledge is None:
        return [], 1.0

    def progress(label: str, done: int, total: int, unit: str) -> None:
        say(Progress(stage="retrieve", label=label, done=done, total=total, unit=unit, elapsed_s=tally.since()))

    progress("Searching the documents…", 0, app.passages, "passages")
    while not app.knowledge.ready:
        if app.knowledge.failed:
            raise InternalError("The documents could not be read.", "Tell the operator: the server's log says why.")
        read = int(100 * app.knowledge.read_share)  # a share, since how many there are is not for everybody to know
        progress(f"Reading the documents… ({read} %)", read, 100, "percent")
        await asyncio.sleep(0.25)
    found = await asyncio.to_thread(app.knowledge.find, question.text, question.asker, app.passages, question.within)
    sources = []
    for n, hit in enumerate(found.hits, 1):
        p = hit.passage
        source = Source(n=n, id=p.id, path=p.path, heading=p.heading, page=p.page, start=p.start, end=p.end, text=p.text, version=p.version)
        sources.append(source)
        say(SourceFound(source=source))
    count = len(sources)
    progress(f"Searching the documents… ({count}/{count} passages found)" if count else NOTHING, count, count, "passages")
    return sources, found.sureness


async def write(
    road: Road, app: App, question: Question, sources: Sequence[Source], tally: Tally, say: Say, *, sureness: float = 1.0
) -> bool:
    """The text: by the route's model, else, where there are documents, quoted from them. True where they do not say: then that is all
    that is said, with no citation. `sureness` is how likely it is that they do; where that is little, no model is asked.
    """
    say(SectionState(index=0, title="", state="started"))
    if app.route is not None and is_asked(app, sources, sureness):
        try:
            answered = await write_by_model(road, app, app.route, question, sources, tally, say)
        except ProviderError as error:
            if not sources or tally.first_at is not None:
                say(SectionState(index=0, title="", state="failed"))
                raise
            say(Notice(code="degraded", text="The model cannot be reached, so this answer is quoted from the documents."))
            tally.attempts = max(tally.attempts, len(app.route.candidates) if error.another_may_help else 1)
            answered = write_quote(question, sources if sureness >= QUOTED else (), tally, say)
    else:
        answered = write_quote(question, sources if sureness >= QUOTED else (), tally, say)
    if not answered:
        tally.words()
        say(Delta(text=abstention(question.text, sources)))
    say(SectionState(index=0, title="", state="done"))
    return not answered


def is_asked(app: App, sources: Sequence[Source], sureness: float) -> bool:
    """Whether a model is asked, where there is one: not where the documents hardly answer."""
    return app.knowledge is None or (bool(sources) and sureness >= ASKED)


def write_quote(question: Question, sources: Sequence[Source], tally: Tally, say: Say) -> bool:
    """The last rung: the sentences that answer, verbatim. False where there are none, and nothing was said."""
    found = quote(question.text, sources)
    tally.rung, tally.model, tally.provider = "quote", None, "quote"
    if found is not None:
        tally.words()
        tell((found.text, list(found.citations)), tally, say)
    return found is not None


async def write_by_model(road: Road, app: App, route: Route, question: Question, sources: Sequence[Source], tally: Tally, say: Say) -> bool:
    """False where the model says that the passages do not answer, and nothing else was said."""
    messages = build(question, sources, app.prompt)
    tally.prompt = app.prompt.version(passages=bool(sources))
    body = {"model": "", **app.defaults, **question.options, "messages": messages, "stream": True}
    call = Call(body=encode_json(body), name_at=(9, 11), stream=True)
    say(Progress(stage="write", label="Writing the answer…", done=0, total=1, unit="sections", elapsed_s=tally.since()))
    opened = await open_route(route, call, question.id, road.emit)
    tally.opened(opened)
    marker = Marker({s.n for s in sources}, Claims(sources, question.text).lacking)
    opening = Opening(listens=bool(sources))
    try:
        pieces = opened.first
        while pieces:
            for piece in pieces:
                tally.usage = piece.usage or tally.usage
                if piece.text and (text := opening.feed(piece.text)):
                    tally.words()
                    tell(marker.feed(text), tally, say)
            pieces = await opened.reply.pieces()
        finish(opening, marker, sources, tally, say)
    except ProviderError as error:
        if tally.first_at is not None:
            finish(opening, marker, (), tally, say)
        road.emit(attempt_done(question.id, opened.model, opened.started_at, error=error))
        raise
    else:
        road.emit(attempt_done(question.id, opened.model, opened.started_at, ttft_s=tally.ttft_s))
    finally:
        tally.dangling += marker.dropped
        opened.reply.close()
    return not opening.abstained


def finish(opening: Opening, marker: Marker, sources: Sequence[Source], tally: Tally, say: Say) -> None:
    """What was held back, and what the reader should know about the sources of the whole."""
    if text := opening.end():
        tally.words()
        tell(marker.feed(text), tally, say)
    tell(marker.end(), tally, say)
    if words := list(marker.flags):
        more = f" and {len(words) - FLAGS_SHOWN} more" if len(words) > FLAGS_SHOWN else ""
        say(Notice(code="unsupported", text=f"Not found in the cited source: {', '.join(words[:FLAGS_SHOWN])}{more}."))
    if sources and tally.first_at is not None and not tally.cited:
        say(Notice(code="uncited", text="No source is named for this answer."))


def tell(found: tuple[str, list[Citation]], tally: Tally, say: Say) -> None:
    text, citations = found
    if text:
        say(Delta(text=text))
    for citation in citations:
        tally.cited += 1
        tally.flagged += bool(citation.flags)
        say(citation)
