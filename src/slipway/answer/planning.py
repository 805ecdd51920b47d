"""Plan and knowledge: which sections an answer has, and the places that each may draw on."""

import asyncio
from collections.abc import Sequence

import msgspec

from slipway import followups
from slipway.answer import sections
from slipway.answer.draft import Draft, Part, Say, Section
from slipway.answer.pipeline import App
from slipway.answer.progress import ProgressReporter
from slipway.errors import InternalError
from slipway.knowledge import Knowledge
from slipway.knowledge.quoting import quote
from slipway.types import (
    Hit,
    Notice,
    Question,
    SectionState,
    SourceFound,
)

NOTHING = "Nothing in the documents matches."
WHOLE = (
    "max_tokens",
    "max_completion_tokens",
    "stop",
)  # parameters that are meant for the answer, not for a part of it
# how likely it must be that the sources answer, for them to be quoted; measured by
# bench/abstention.py ...
QUOTED = 0.25
ASKED = 0.1  # ... and for a model to be asked, which reads them and may still say that they do not


async def plan(
    app: App,
    question: Question,
    draft: Draft,
    progress: ProgressReporter,
    say: Say,
    small: followups.Think | None = None,
) -> None:
    """Which sections there are, and the places that each may draw on, said as they are found. On
    trying again, what is missing.
    """
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


async def understand(
    question: Question, progress: ProgressReporter, say: Say, small: followups.Think | None
) -> Question:
    """The question in full, where it leans on what was said before; what is searched for then is
    said.
    """
    if len(question.messages) < 2:
        return question
    if small is not None and followups.may_lean(question.text, question.messages):
        progress.report("plan", "Understanding the question…", 0, 1, "questions")
        text = await followups.understood_by(small, question.text, question.messages)
    else:
        text = followups.understood(question.text, question.messages)
    if text == question.text:
        return question
    say(Notice(code="understood", text=f"Searched for: {text}"))
    return msgspec.structs.replace(question, text=text)


async def readiness(knowledge: Knowledge, app: App, progress: ProgressReporter) -> None:
    """Waits for the first reading."""
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
    most = 1 if is_one_text(app, question) else app.sections
    parts = sections.asked_for(question.text, most)
    if len(parts) > 1 or most == 1 or not sections.is_broad(question.text):
        return parts
    return await asyncio.to_thread(
        topics_of, app, knowledge, question, sections.subject(question.text)
    )


def is_one_text(app: App, question: Question) -> bool:
    """Whether the client wants JSON, which titles would break, or says where the text of the whole
    must end.
    """
    form = {**app.defaults, **question.options}.get("response_format")
    return (isinstance(form, dict) and form.get("type") != "text") or any(
        question.options.get(name) is not None for name in WHOLE
    )


def topics_of(app: App, knowledge: Knowledge, question: Question, text: str) -> list[Part]:
    """One part where it is unlikely that the documents answer. Blocks."""
    found = knowledge.find(text, question.asker, sections.DEPTH * app.passages, question.within)
    topics = sections.topics(
        text, found.hits, found.sureness, most=app.sections, passages=app.passages
    )
    if app.route is None:  # then it is known already which of them can be quoted from
        topics = [
            part for part in topics if quote(text, list(map(Draft().source, part.hits or ())))
        ]
    likely = found.sureness >= (QUOTED if app.route is None else ASKED)
    return topics if likely and len(topics) > 1 else [Part(text=text)]


async def retrieve(
    app: App,
    knowledge: Knowledge,
    question: Question,
    draft: Draft,
    progress: ProgressReporter,
    say: Say,
) -> None:
    """The places of all sections that are missing, searched for at once; what several draw on is
    said once.
    """
    missing = draft.missing
    found = await asyncio.gather(
        *(asyncio.to_thread(find, app, knowledge, question, section) for section in missing)
    )
    for section, (hits, sureness) in zip(missing, found, strict=True):
        section.sources, section.sureness = [], sureness
        for hit in hits:
            known = len(draft.sources)
            section.sources.append(draft.source(hit))
            if len(draft.sources) > known:
                say(SourceFound(source=section.sources[-1]))
    count = len(draft.sources)
    progress.report(
        "retrieve",
        f"Searching the documents… ({count}/{count} passages found)" if count else NOTHING,
        count,
        count,
        "passages",
    )


def find(
    app: App, knowledge: Knowledge, question: Question, section: Section
) -> tuple[Sequence[Hit], float]:
    """What the plan found, where that still stands; else what a search finds now. Blocks."""
    part = section.part
    if part.hits is not None and (
        section.sources is None
        or all(knowledge.passage(hit.passage.id, question.asker) for hit in part.hits)
    ):
        return part.hits, part.sureness
    found = knowledge.find(part.text, question.asker, app.passages, question.within)
    return found.hits, found.sureness
