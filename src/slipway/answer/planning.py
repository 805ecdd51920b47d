"""Plan an answer: decide its sections, and find the places that each may use."""

import asyncio
from collections.abc import Sequence

import msgspec

from slipway import followups
from slipway.answer import sections
from slipway.answer.draft import Draft, Part, Say, Section
from slipway.answer.pipeline import App
from slipway.answer.progress import ProgressReporter
from slipway.answer.stages import Clock, StageTimer, untimed
from slipway.cache import SearchedSection
from slipway.errors import InternalError
from slipway.knowledge import Knowledge
from slipway.knowledge.attachments import best
from slipway.knowledge.quoting import quote
from slipway.types import (
    Hit,
    Notice,
    Question,
    SectionState,
    SourceFound,
)

NOTHING_FOUND = "Nothing in the documents matches."
# Parameters that limit the whole answer, not a part of it
WHOLE_ANSWER_OPTIONS = ("max_tokens", "max_completion_tokens", "stop")
# Least probabilities that the sources answer, to quote them, and to ask a model, which reads them
# and may still abstain; measured by bench/abstention.py
MIN_CONFIDENCE_TO_QUOTE = 0.25
MIN_CONFIDENCE_TO_ASK = 0.1


async def plan(
    app: App,
    question: Question,
    draft: Draft,
    progress: ProgressReporter,
    say: Say,
    small: followups.SmallModel | None = None,
    clock: Clock = untimed,
) -> None:
    """Decide the sections and find their places, and report them as they are found. On a retry,
    only for the missing sections. `clock` times the stages.
    """
    if app.knowledge is None:
        if not draft.sections:
            draft.plan([Part(text=question.text)])
        for section in draft.missing:
            section.sources = []
    else:
        with clock("planning") as stage:
            meant = question if draft.sections else await understand(question, progress, say, small)
            await readiness(app.knowledge, app, progress)
            if not draft.sections:
                draft.understood = meant.text
                draft.plan(await parts_of(app, app.knowledge, meant))
            stage.note(sections=len(draft.sections), completed=meant is not question)
        with clock("knowledge") as stage:
            await retrieve(app, app.knowledge, question, draft, progress, say)
            note_search(stage, question, draft)
    for section in draft.missing:
        section.state = "missing"
        say(SectionState(index=section.index, title=section.title, state="started"))


def note_search(stage: StageTimer, question: Question, draft: Draft) -> None:
    """Note how much was searched for, and what was found."""
    searched = draft.missing
    stage.note(
        searches=len(searched),
        characters=sum(len(section.part.text) for section in searched),
        filtered=question.within is not None,
        attached=len(question.attached),
        passages=len(draft.sources),
        confidence=round(max((each.confidence for each in searched), default=0.0), 3),
    )


async def understand(
    question: Question, progress: ProgressReporter, say: Say, small: followups.SmallModel | None
) -> Question:
    """Return the complete question if it needs the history, and report what is searched for."""
    if len(question.messages) < 2:
        return question
    if small is not None and followups.may_need_history(question.text, question.messages):
        progress.report("plan", "Understanding the question…", 0, 1, "questions")
        text = await followups.resolve_with_model(small, question.text, question.messages)
    else:
        text = followups.resolve(question.text, question.messages)
    if text == question.text:
        return question
    say(Notice(code="understood", text=f"Searched for: {text}"))
    return msgspec.structs.replace(question, text=text)


async def readiness(knowledge: Knowledge, app: App, progress: ProgressReporter) -> None:
    """Wait until the documents have been read once."""
    progress.report("retrieve", "Searching the documents…", 0, app.passages, "passages")
    while not knowledge.ready:
        if knowledge.failed:
            raise InternalError(
                "The documents could not be read.", "Tell the operator: the server's log says why."
            )
        read = int(
            100 * knowledge.read_share
        )  # a share, since how many there are is not for everybody to know
        progress.report("retrieve", f"Reading the documents… ({read} %)", read, 100, "percent")
        await asyncio.sleep(0.25)


async def parts_of(app: App, knowledge: Knowledge, question: Question) -> list[Part]:
    """Return the parts of the question, one for each section."""
    most = 1 if is_one_text(app, question) else app.sections
    parts = sections.split_questions(question.text, most)
    if len(parts) > 1 or most == 1 or not sections.is_broad(question.text):
        return parts
    return await asyncio.to_thread(
        topics_of, app, knowledge, question, sections.subject_of(question.text)
    )


def is_one_text(app: App, question: Question) -> bool:
    """Tell whether the client wants one text: JSON, which titles would break, or a limit on the
    whole answer.
    """
    form = {**app.defaults, **question.options}.get("response_format")
    return (isinstance(form, dict) and form.get("type") != "text") or any(
        question.options.get(name) is not None for name in WHOLE_ANSWER_OPTIONS
    )


def topics_of(app: App, knowledge: Knowledge, question: Question, text: str) -> list[Part]:
    """Return the topics of a broad question; one part if the documents are unlikely to answer.
    Blocks.
    """
    found = knowledge.find(text, question.asker, sections.DEPTH * app.passages, question.within)
    topics = sections.topics(
        text, found.hits, found.confidence, most=app.sections, passages=app.passages
    )
    if app.route is None:  # without a model, keep only topics that can be quoted
        topics = [
            part for part in topics if quote(text, list(map(Draft().source, part.hits or ())))
        ]
    likely = found.confidence >= (
        MIN_CONFIDENCE_TO_QUOTE if app.route is None else MIN_CONFIDENCE_TO_ASK
    )
    return topics if likely and len(topics) > 1 else [Part(text=text)]


async def retrieve(
    app: App,
    knowledge: Knowledge,
    question: Question,
    draft: Draft,
    progress: ProgressReporter,
    say: Say,
) -> None:
    """Search for all missing sections at once; report a source that several use only once."""
    missing = draft.missing
    found = await asyncio.gather(
        *(asyncio.to_thread(find, app, knowledge, question, section) for section in missing)
    )
    for section, (hits, confidence) in zip(missing, found, strict=True):
        section.sources, section.confidence = [], confidence
        for hit in hits:
            known = len(draft.sources)
            section.sources.append(draft.source(hit))
            if len(draft.sources) > known:
                say(SourceFound(source=section.sources[-1]))
    count = len(draft.sources)
    progress.report(
        "retrieve",
        f"Searching the documents… ({count}/{count} passages found)" if count else NOTHING_FOUND,
        count,
        count,
        "passages",
    )


def searched_sections(app: App, draft: Draft) -> tuple[SearchedSection, ...]:
    """Return what was searched for each section, and what was found."""
    least = MIN_CONFIDENCE_TO_QUOTE if app.route is None else MIN_CONFIDENCE_TO_ASK
    return tuple(
        SearchedSection(
            text=section.part.text,
            title=section.title,
            passages=tuple(source.id for source in section.sources or ()),
            is_asked=section.confidence >= least,
        )
        for section in draft.sections
    )


async def search_again(
    app: App, knowledge: Knowledge, question: Question, understood: str
) -> tuple[SearchedSection, ...]:
    """Return what a question would be answered from now; no model is asked."""
    draft = Draft()
    meant = msgspec.structs.replace(question, text=understood)
    draft.plan(await parts_of(app, knowledge, meant))
    found = await asyncio.gather(
        *(asyncio.to_thread(find, app, knowledge, question, each) for each in draft.sections)
    )
    for section, (hits, confidence) in zip(draft.sections, found, strict=True):
        section.sources, section.confidence = [draft.source(hit) for hit in hits], confidence
    return searched_sections(app, draft)


def find(
    app: App, knowledge: Knowledge, question: Question, section: Section
) -> tuple[Sequence[Hit], float]:
    """Return the passages for a section: of attached files first, then of the documents. Blocks."""
    hits, confidence = find_in_documents(app, knowledge, question, section)
    if not question.attached:
        return hits, confidence
    attached = best(question.attached, section.part.text, app.passages)
    return [*attached, *hits[: max(1, app.passages - len(attached))]], 1.0


def find_in_documents(
    app: App, knowledge: Knowledge, question: Question, section: Section
) -> tuple[Sequence[Hit], float]:
    """Return the plan's places if they are still valid, else search again. Blocks."""
    part = section.part
    if part.hits is not None and (
        section.sources is None
        or all(knowledge.passage(hit.passage.id, question.asker) for hit in part.hits)
    ):
        return part.hits, part.confidence
    found = knowledge.find(part.text, question.asker, app.passages, question.within)
    return found.hits, found.confidence
