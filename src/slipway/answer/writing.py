"""Prompt and route: the sections' texts, written at once and shown in their order."""

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Any

import msgspec

from slipway.answer.abstention import Opening, abstention
from slipway.answer.draft import Draft, InOrder, Say, Section
from slipway.answer.pace import Writing
from slipway.answer.pipeline import App, Pipeline
from slipway.answer.planning import ASKED, QUOTED
from slipway.answer.progress import ProgressReporter
from slipway.answer.settlement import Tally
from slipway.errors import InternalError, ProviderError, SlipwayError
from slipway.knowledge.attribution import Attributor
from slipway.knowledge.citations import Marker
from slipway.knowledge.claims import Claims
from slipway.knowledge.quoting import quote
from slipway.ledger import Spent
from slipway.prompt import build
from slipway.providers import Call, encode_json
from slipway.routing import Answering, Asked, Route
from slipway.types import (
    Citation,
    Delta,
    Notice,
    Question,
    Record,
    SectionState,
    Source,
)

log = logging.getLogger("slipway")
CUT = {  # what a model may say of its end -> what the reader should know
    "length": "The text was cut where the model's longest length was reached.",
    "content_filter": "The model's provider held back a part of the text.",
}
PATIENCE_S = (
    2.0  # how long a model that failed is waited for, where the documents can be quoted instead
)
FLAGS_SHOWN = 12  # in a notice; the citations have them all


class WritingContext(Record, frozen=True, kw_only=True):
    """What all sections of an answer share while they are written."""

    pipeline: Pipeline
    app: App
    question: Question
    draft: Draft
    tally: Tally
    progress: ProgressReporter
    asked: dict[
        int, tuple[Call, Writing]
    ]  # what the model is asked, by the section's index, where it is

    def report(self) -> None:
        """How many sections are written."""
        sections = self.draft.sections
        written = sum(section.state == "done" for section in sections)
        label = (
            "Writing the answer…"
            if len(sections) == 1
            else f"Writing {len(sections)} sections… ({written}/{len(sections)})"
        )
        self.progress.report("write", label, written, len(sections), "sections")

    def notice(self, code: str, text: str, say: Say) -> None:
        """Said once, however many sections it is true of."""
        if code not in self.draft.notices:
            self.draft.notices.add(code)
            say(Notice(code=code, text=text))


async def write_all(
    pipeline: Pipeline,
    app: App,
    question: Question,
    draft: Draft,
    tally: Tally,
    progress: ProgressReporter,
    say: Say,
) -> None:
    """All sections that are missing, at once as far as the route goes, shown in their order. One
    that fails does not end the others.
    """
    missing = draft.missing
    progress.at_once = at_once = app.route.at_once if app.route is not None else len(missing)
    gate, order = asyncio.Semaphore(at_once), InOrder(say, [section.index for section in missing])
    asked = {
        section.index: call
        for section in missing
        if (call := asking(app, question, draft, section)) is not None
    }
    progress.writings = [
        writing for _, writing in asked.values()
    ]  # those that wait for the gate count for the time left, too
    context = WritingContext(
        pipeline=pipeline,
        app=app,
        question=question,
        draft=draft,
        tally=tally,
        progress=progress,
        asked=asked,
    )

    async def one(section: Section) -> None:
        lane = order.lane(section.index)
        try:
            async with gate:
                await write(context, section, lane)
            section.state = "done"
            lane(
                SectionState(
                    index=section.index,
                    title=section.title,
                    state="done",
                    served_by=section.served_by,
                    model=section.model,
                )
            )
        except SlipwayError as error:
            failed(section, error, lane)
        except Exception as error:  # a defect costs its own section only
            log.exception("a defect met by section %d of answer %s", section.index, question.id)
            failed(section, InternalError.of(error), lane)
        finally:
            order.end(section.index)
        context.report()

    if len(missing) == 1:
        await one(missing[0])
        return
    async with asyncio.TaskGroup() as group:
        for section in missing:
            group.create_task(one(section))


def failed(section: Section, error: SlipwayError, say: Say) -> None:
    section.state, section.error = "failed", error
    say(SectionState(index=section.index, title=section.title, state="failed"))


def asking(
    app: App, question: Question, draft: Draft, section: Section
) -> tuple[Call, Writing] | None:
    """What the model is asked for a section; None where it is not."""
    if app.route is None or not is_asked(app, section.sources or [], section.sureness):
        return None
    call = call_for(app, question, section, alone=len(draft.sections) == 1)
    return call, Writing(app.route.candidates[0].model.name, len(call.body))


async def write(context: WritingContext, section: Section, say: Say) -> None:
    """The text: by the route's model, else, where there are documents, quoted from them. Where they
    do not say, that is all that is said, with no citation.
    """
    app, sources = context.app, section.sources or []
    if app.route is not None and section.index in context.asked:
        try:
            answered = await write_by_model(context, app.route, section, say)
        except ModelFailed as failure:
            if not sources or failure.spoke:
                raise failure.error from None
            context.notice(
                "degraded",
                "The model cannot be reached, so this answer is quoted from the documents.",
                say,
            )
            answered = write_quote(context, section, say)
    else:
        answered = write_quote(context, section, say)
    section.abstained = not answered
    if not answered:
        say(Delta(section=section.index, text=abstention(section.part.text, sources)))


def is_asked(app: App, sources: Sequence[Source], sureness: float) -> bool:
    """Whether a model is asked, where there is one: not where the documents hardly answer."""
    return app.knowledge is None or (bool(sources) and sureness >= ASKED)


def write_quote(context: WritingContext, section: Section, say: Say) -> bool:
    """The last served_by: the sentences that answer, verbatim. False where there are none, and nothing
    was said.
    """
    found = quote(section.part.text, section.sources or ()) if section.sureness >= QUOTED else None
    section.served_by, section.model = "quote", None
    if found is not None:
        tell(context.tally, section, (found.text, list(found.citations)), say)
    return found is not None


class ModelFailed(Exception):
    """What a model's call ended with, and whether it had said anything by then."""

    def __init__(self, error: ProviderError, *, spoke: bool) -> None:
        super().__init__(error.what)
        self.error, self.spoke = error, spoke


def call_for(app: App, question: Question, section: Section, *, alone: bool) -> Call:
    body = {
        "model": "",
        **app.defaults,
        **question.options,
        "messages": messages_for(app, question, section, alone=alone),
        "stream": True,
    }
    return Call(body=encode_json(body), name_at=(9, 11), stream=True)


def messages_for(
    app: App, question: Question, section: Section, *, alone: bool
) -> list[dict[str, Any]]:
    """What a model reads for a section; `alone` where it is the only one. A topic that was found is
    known by its title.
    """
    part = section.part.text if section.part.hits is None else section.title
    return build(question, section.sources or [], app.prompt, "" if alone else part)


async def write_by_model(context: WritingContext, route: Route, section: Section, say: Say) -> bool:
    """False where the model says that the passages do not answer, and nothing else was said. Raises
    ModelFailed.
    """
    call, writing = begin(context, section)
    answering = Answering(route, call, asked(context, section))
    text, spent = Text.of(context, section), list[Spent]()
    try:
        with context.tally.booking(answering) as spent:
            await answering.open()
            writing.model = answering.candidate.model.name
            written_by(context, section, answering)
            await hear(answering, text, writing, context, say)
        text.end(say, whole=True)
    except ProviderError as error:
        if text.spoke:
            text.end(say, whole=False)
        if writing.first_at is None:
            context.progress.writings.remove(writing)
        raise ModelFailed(error, spoke=text.spoke) from None
    else:
        writing.ended_at = time.monotonic()
        if not answering.went_on:
            context.pipeline.pace.learn(writing)
    finally:
        writing.ended_at = writing.ended_at or time.monotonic()
        context.draft.spent += spent
        context.tally.dangling += text.marker.dropped
    written_by(context, section, answering)
    return not text.opening.abstained


def begin(context: WritingContext, section: Section) -> tuple[Call, Writing]:
    context.draft.prompt = context.app.prompt.version(passages=bool(section.sources))
    call, writing = context.asked[section.index]
    writing.began_at = time.monotonic()
    context.report()
    return call, writing


def asked(context: WritingContext, section: Section) -> Asked:
    """Where the documents can be quoted instead, a model that fails is not waited for long."""
    tally = context.tally
    until = tally.started_at + context.pipeline.answer_s
    patience_s = (
        min(PATIENCE_S, context.pipeline.patience_s)
        if section.sources
        else context.pipeline.patience_s
    )
    owner, answer_id = context.question.asker.owner, context.question.id
    return Asked(
        answer_id=answer_id,
        emit=context.pipeline.emit,
        owner=owner,
        until=until,
        patient_until=time.monotonic() + patience_s,
    )


async def hear(
    answering: Answering, text: "Text", writing: Writing, context: WritingContext, say: Say
) -> None:
    """What the model writes, as it comes; and what was done to have it."""
    told = 0
    while pieces := await answering.pieces():
        for notice in answering.notices[told:]:
            context.notice(notice.code, notice.text, say)
        told = len(answering.notices)
        for piece in pieces:
            text.finish = piece.finish or text.finish
            if piece.text:
                writing.wrote(len(piece.text))
                text.feed(piece.text, say)


def written_by(context: WritingContext, section: Section, answering: Answering) -> None:
    context.tally.note_writer(answering)
    section.served_by, section.model = answering.candidate.served_by, answering.candidate.model.name


class Text:
    """A section's text on its way from the model to the reader: what it says of the documents, its
    sources, and how it ended.
    """

    def __init__(
        self,
        context: WritingContext,
        section: Section,
        marker: Marker,
        attributor: Attributor | None,
    ) -> None:
        self.context, self.section, self.marker, self.attributor = (
            context,
            section,
            marker,
            attributor,
        )
        self.opening = Opening(listens=bool(section.sources))
        self.spoke = False
        self.cited = 0
        self.finish = ""  # why the model stopped, as it says

    @classmethod
    def of(cls, context: WritingContext, section: Section) -> "Text":
        sources = section.sources or []
        lacking = Claims(sources, f"{context.question.text}\n{section.part.text}").lacking
        attributor = Attributor(sources, lacking) if context.app.matches and sources else None
        return cls(context, section, Marker({s.n for s in sources}, lacking), attributor)

    def feed(self, text: str, say: Say) -> None:
        if shown := self._attributed(self.opening.feed(text)):
            self._tell(self.marker.feed(shown), say)

    def _attributed(self, text: str) -> str:
        return self.attributor.feed(text) if self.attributor is not None and text else text

    def _tell(self, found: tuple[str, list[Citation]], say: Say) -> None:
        self.spoke = self.spoke or bool(found[0])
        self.cited += len(found[1])
        tell(self.context.tally, self.section, found, say)

    def end(self, say: Say, *, whole: bool) -> None:
        """What was held back, and what the reader should know about the sources and the end; not
        `whole`, it broke off.
        """
        text = self._attributed(self.opening.end()) + (
            self.attributor.end() if self.attributor is not None else ""
        )
        if text:
            self._tell(self.marker.feed(text), say)
        self._tell(self.marker.end(), say)
        if words := list(self.marker.flags):
            more = f" and {len(words) - FLAGS_SHOWN} more" if len(words) > FLAGS_SHOWN else ""
            self._notice(
                "unsupported",
                f"Not found in the cited source: {', '.join(words[:FLAGS_SHOWN])}{more}.",
                say,
            )
        if whole and self.section.sources and self.spoke and not self.cited:
            self._notice("uncited", "No source is named for this answer.", say)
        if self.attributor is not None and self.attributor.marked:
            self.context.notice(
                "matched",
                "The model did not name its sources: they were matched to its sentences by their words.",
                say,
            )
        if whole and self.finish in CUT:
            self._notice(self.finish, CUT[self.finish], say)

    def _notice(self, code: str, text: str, say: Say) -> None:
        say(Notice(code=code, text=text, section=self.section.index))


def tell(tally: Tally, section: Section, found: tuple[str, list[Citation]], say: Say) -> None:
    text, citations = found
    if text:
        say(Delta(section=section.index, text=text))
    for citation in citations:
        tally.cited += 1
        tally.flagged += bool(citation.flags)
        say(msgspec.structs.replace(citation, section=section.index) if section.index else citation)
