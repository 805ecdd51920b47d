"""Prompt and routing: write the sections concurrently, and show them in order."""

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from slipway.answer.abstention import AbstentionDetector, abstention_text
from slipway.answer.draft import Draft, InOrder, Say, Section
from slipway.answer.pace import Writing
from slipway.answer.pipeline import App, Pipeline
from slipway.answer.planning import MIN_CONFIDENCE_TO_ASK, MIN_CONFIDENCE_TO_QUOTE
from slipway.answer.progress import ProgressReporter
from slipway.answer.settlement import Tally
from slipway.answer.stages import StageTimer
from slipway.errors import InternalError, LimitReached, ProviderError, SlipwayError
from slipway.knowledge.attribution import Attributor
from slipway.knowledge.citations import CitationParser
from slipway.knowledge.claims import Claims
from slipway.knowledge.quoting import quote
from slipway.ledger import CallUsage
from slipway.prompt import build
from slipway.providers import Call, encode_json
from slipway.routing import CallContext, Route, RoutedAnswer
from slipway.routing.token_counts import size_of
from slipway.types import (
    Citation,
    Delta,
    Notice,
    Question,
    Record,
    SectionState,
    Source,
)

AT_A_TIME = 500  # characters of a model's text that are parsed before other tasks may run
MAX_QUOTED_QUESTION = 4_000  # characters of a question that quoting compares
log = logging.getLogger("slipway")
CUT = {  # finish reason of the model -> what the reader should know
    "length": "The text ends here because the model reached its length limit.",
    "content_filter": "The model's provider withheld a part of the text.",
}
PATIENCE_S = (
    2.0  # how long a model that failed is waited for, where the documents can be quoted instead
)
FLAGS_SHOWN = 12  # in a notice; the citations have them all


class WritingContext(Record, frozen=True, kw_only=True):
    """What all sections of an answer share while they are written; `asked` holds the call of each
    section that a model writes, by its index.
    """

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
        """Report how many sections are written."""
        sections = self.draft.sections
        written = sum(section.state == "done" for section in sections)
        label = (
            "Writing the answer…"
            if len(sections) == 1
            else f"Writing {len(sections)} sections… ({written}/{len(sections)})"
        )
        self.progress.report("write", label, written, len(sections), "sections")

    def notice(self, code: str, text: str, say: Say) -> None:
        """Send a notice once, even if it is true of several sections."""
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
    """Write all missing sections, as many at once as the route allows; show them in order.

    A section that fails does not end the others.
    """
    missing = draft.missing
    progress.at_once = app.route.at_once if app.route is not None else len(missing)
    with tally.stage("prompt") as stage:
        asked = {
            section.index: call
            for section in missing
            if (call := asking(app, question, draft, section)) is not None
        }
        note_prompts(stage, app, asked)
    # sections that wait for their turn belong to the time left, too
    progress.writings = [writing for _, writing in asked.values()]
    context = WritingContext(
        pipeline=pipeline,
        app=app,
        question=question,
        draft=draft,
        tally=tally,
        progress=progress,
        asked=asked,
    )
    turns = asyncio.Semaphore(progress.at_once)
    order = InOrder(say, [section.index for section in missing])
    if len(missing) == 1:
        await write_section(context, missing[0], turns, order)
        return
    async with asyncio.TaskGroup() as group:
        for section in missing:
            group.create_task(write_section(context, section, turns, order))


def note_prompts(stage: StageTimer, app: App, asked: Mapping[int, tuple[Call, Writing]]) -> None:
    """Note how many prompts were built, and about how many tokens they have."""
    if app.route is None:
        stage.note(prompts=0)
        return
    counts = app.route.candidates[0].health.token_counts
    tokens = sum(counts.input_tokens(size_of(call.body).input) for call, _ in asked.values())
    stage.note(prompts=len(asked), tokens=tokens)


async def write_section(
    context: WritingContext, section: Section, turns: asyncio.Semaphore, order: InOrder
) -> None:
    """Write one section when it is its turn; a failure is noted in the section, not raised."""
    lane = order.lane(section.index)
    try:
        async with turns:
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
    except Exception as error:  # a defect fails its own section only
        log.exception(
            "section %d of answer %s failed by a defect", section.index, context.question.id
        )
        failed(section, InternalError.of(error), lane)
    finally:
        order.end(section.index)
    context.report()


def failed(section: Section, error: SlipwayError, say: Say) -> None:
    section.state, section.error = "failed", error
    say(SectionState(index=section.index, title=section.title, state="failed"))


def asking(
    app: App, question: Question, draft: Draft, section: Section
) -> tuple[Call, Writing] | None:
    """Return the call that asks the model for a section; None if no model is asked."""
    if app.route is None or not is_asked(app, section.sources or [], section.confidence):
        return None
    call = call_for(app, question, section, alone=len(draft.sections) == 1)
    model = app.route.candidates[0].model
    return call, Writing(model.name, len(call.body), local=model.kind == "local")


async def write(context: WritingContext, section: Section, say: Say) -> None:
    """Write a section by the route's model, or quote the documents if no model can.

    If the documents do not answer, say only that, without a citation.
    """
    app, sources = context.app, section.sources or []
    if app.route is not None and section.index in context.asked:
        try:
            answered = await write_by_model(context, app.route, section, say)
        except ModelFailed as failure:
            is_refused = isinstance(failure.error, LimitReached) and not failure.error.may_quote
            if not sources or failure.spoke or wants_json(context.question.options) or is_refused:
                raise failure.error from None
            context.notice(*quoted_since(failure.error), say)
            context.tally.degraded = not isinstance(failure.error, LimitReached)
            answered = write_quote(context, section, say)
    else:
        answered = write_quote(context, section, say)
    section.abstained = not answered
    if not answered:
        only_rules = app.knowledge is None
        text = abstention_text(section.part.text, sources, only_rules=only_rules)
        section.served_by = "rule" if only_rules else section.served_by
        say(Delta(section=section.index, text=text))


def quoted_since(error: ProviderError) -> tuple[str, str]:
    """Return the code and the text of the notice that says why the documents are quoted."""
    if isinstance(error, LimitReached):
        why = "The limit for models is reached, so this answer is quoted from the documents."
        return "at_limit", why
    return (
        "degraded",
        "The model cannot be reached, so this answer is quoted from the documents.",
    )


def wants_json(options: Mapping[str, Any]) -> bool:
    """Return whether a request asks for JSON instead of text, which a quote cannot be."""
    form = options.get("response_format")
    return isinstance(form, dict) and form.get("type") not in (None, "text")


def is_asked(app: App, sources: Sequence[Source], confidence: float) -> bool:
    """Return False if the documents are so unlikely to answer that no model need read them."""
    return app.knowledge is None or (bool(sources) and confidence >= MIN_CONFIDENCE_TO_ASK)


def write_quote(context: WritingContext, section: Section, say: Say) -> bool:
    """Quote the sentences that answer, verbatim. Return False if there are none."""
    found = (
        quote(
            section.part.text[:MAX_QUOTED_QUESTION],
            section.sources or (),
            confidence=section.confidence,
        )
        if section.confidence >= MIN_CONFIDENCE_TO_QUOTE
        else None
    )
    section.served_by, section.model = "quote", None
    if found is not None:
        show(context.tally, section, (found.text, list(found.citations)), say)
    return found is not None


class ModelFailed(Exception):
    """The error of a model's call; `spoke` if some of its text was shown before."""

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
    """Return the messages for a section; `alone` if it is the only one.

    A section about a topic found in the documents is named by its title.
    """
    part = section.part.text if section.part.hits is None else section.title
    return build(question, section.sources or [], app.prompt, "" if alone else part)


async def write_by_model(context: WritingContext, route: Route, section: Section, say: Say) -> bool:
    """Write a section by a model. Return False if it said only that the passages do not answer.

    Raises ModelFailed.
    """
    call, writing = begin(context, section)
    answering = RoutedAnswer(route, call, asked(context, section))
    text = Text.of(context, section)
    spent: list[CallUsage] = []
    try:
        try:
            await answering.open()
            writing.model = answering.candidate.model.name
            written_by(context, section, answering)
            await stream_text(answering, text, writing, context, say)
        finally:
            spent = context.tally.settle(answering)
        text.end(say, whole=True)
    except ProviderError as error:
        if text.spoke:
            text.end(say, whole=False)
        if writing.first_at is None:
            context.progress.writings.remove(writing)
        raise ModelFailed(error, spoke=text.spoke) from None
    else:
        writing.ended_at = time.monotonic()
        if not answering.was_continued:
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


def asked(context: WritingContext, section: Section) -> CallContext:
    """Return who asks, and the time limits; a failing model is retried only briefly if the
    documents can be quoted instead.
    """
    tally = context.tally
    until = tally.started_at + context.pipeline.answer_s
    patience_s = (
        min(PATIENCE_S, context.pipeline.patience_s)
        if section.sources
        else context.pipeline.patience_s
    )
    return tally.context(
        context.pipeline.emit, until=until, retry_until=time.monotonic() + patience_s
    )


async def stream_text(
    answering: RoutedAnswer, text: "Text", writing: Writing, context: WritingContext, say: Say
) -> None:
    """Show the model's text as it arrives, and the notices of what was done to get it."""
    shown = 0
    while pieces := await answering.pieces():
        for notice in answering.notices[shown:]:
            context.notice(notice.code, notice.text, say)
        shown = len(answering.notices)
        for piece in pieces:
            text.finish = piece.finish or text.finish
            for start in range(0, len(piece.text), AT_A_TIME):
                if start:
                    await asyncio.sleep(0)  # a long piece does not hold up other questions
                part = piece.text[start : start + AT_A_TIME]
                writing.add_chars(len(part))
                text.feed(part, say)


def written_by(context: WritingContext, section: Section, answering: RoutedAnswer) -> None:
    context.tally.note_writer(answering)
    section.served_by, section.model = answering.candidate.served_by, answering.candidate.model.name


class Text:
    """A section's text on its way from the model to the reader: it detects abstention, turns
    markers into citations, and explains how the text ended.
    """

    def __init__(
        self,
        context: WritingContext,
        section: Section,
        marker: CitationParser,
        attributor: Attributor | None,
    ) -> None:
        self.context, self.section, self.marker, self.attributor = (
            context,
            section,
            marker,
            attributor,
        )
        self.opening = AbstentionDetector(listens=bool(section.sources))
        self.spoke = False
        self.cited = 0
        self.finish = ""  # why the model stopped, as it says

    @classmethod
    def of(cls, context: WritingContext, section: Section) -> "Text":
        sources = section.sources or []
        lacking = Claims(sources, f"{context.question.text}\n{section.part.text}").lacking
        attributor = Attributor(sources, lacking) if context.app.matches and sources else None
        return cls(context, section, CitationParser({s.n for s in sources}, lacking), attributor)

    def feed(self, text: str, say: Say) -> None:
        if shown := self._attributed(self.opening.feed(text)):
            self._show(self.marker.feed(shown), say)

    def _attributed(self, text: str) -> str:
        return self.attributor.feed(text) if self.attributor is not None and text else text

    def _show(self, found: tuple[str, list[Citation]], say: Say) -> None:
        self.spoke = self.spoke or bool(found[0])
        self.cited += len(found[1])
        show(self.context.tally, self.section, found, say)

    def end(self, say: Say, *, whole: bool) -> None:
        """Send what was held back, and notices about sources and the end.

        `whole` is False if the text broke off.
        """
        text = self._attributed(self.opening.end()) + (
            self.attributor.end() if self.attributor is not None else ""
        )
        if text:
            self._show(self.marker.feed(text), say)
        self._show(self.marker.end(), say)
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
                "The model did not name its sources: they were matched to its sentences by words.",
                say,
            )
        if whole and self.finish in CUT:
            self._notice(self.finish, CUT[self.finish], say)

    def _notice(self, code: str, text: str, say: Say) -> None:
        say(Notice(code=code, text=text, section=self.section.index))


def show(tally: Tally, section: Section, found: tuple[str, list[Citation]], say: Say) -> None:
    text, citations = found
    if text:
        say(Delta(section=section.index, text=text))
    for citation in citations:
        tally.cited += 1
        tally.flagged += bool(citation.flags)
        say(msgspec.structs.replace(citation, section=section.index) if section.index else citation)
