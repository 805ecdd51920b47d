"""The pipeline: what happens to a question, from top to bottom.

`answer()` serves apps: admit, plan, then for each section knowledge, prompt, route, and settle.
`proxy()` serves bare models and routes: admit, route, settle. Each room is visited once. Both raise
SlipwayError; what they emit on leaving is one AnswerDone.
"""

import asyncio
from typing import Any, get_args

from slipway import followups, ledger
from slipway.answer.draft import Draft, Say
from slipway.answer.pipeline import App, Pipeline
from slipway.answer.planning import plan
from slipway.answer.progress import Teller
from slipway.answer.proxying import ResponseWriter, proxy
from slipway.answer.settlement import Facts, Tally
from slipway.answer.writing import write_all
from slipway.errors import InternalError, SlipwayError
from slipway.followups.rewriting import MAX_TOKENS
from slipway.routing import Route, Thought, think
from slipway.types import Delta, Done, Event, Question, ServedBy, UsageReport

__all__ = ["App", "Facts", "Pipeline", "ResponseWriter", "answer", "proxy"]

SERVED_BY = get_args(ServedBy)  # from the highest to the lowest


async def answer(
    pipeline: Pipeline, app: App, question: Question, draft: Draft, guard: str, tell: Say
) -> None:
    """An app's answer, as events: what the draft does not have yet. The last is `done`; where a
    section cannot be had, the others are written, a SlipwayError is raised, and `done` is not said.
    """
    tally = Tally(question.id, guard, app.name, question.asker, True)

    def say(event: Event) -> None:
        if type(event) is Delta:
            tally.words()
        tell(event)

    progress = Teller(say, tally.started_at, pipeline.pace)
    try:
        with pipeline.admission.enter():  # 1 admit
            small = (
                thinker(pipeline, app.small, question, draft, tally)
                if app.small is not None
                else None
            )
            await plan(app, question, draft, progress, say, small)  # 4 plan, knowledge
            await write_all(
                pipeline, app, question, draft, tally, progress, say
            )  # 5 prompt, 6 route
            draft.check()
            progress.ended()
            settle(draft, tally)
            paid(draft, tally, say)
            say(done(question, draft, tally))
    except SlipwayError as error:
        tally.error = error.code
        paid(draft, tally, say)
        raise
    except asyncio.CancelledError:
        tally.error = "cancelled"
        paid(draft, tally, say)
        raise
    except Exception:  # a defect: whoever started this tells it, and it is no success
        tally.error = InternalError.code
        raise
    finally:
        progress.close()
        pipeline.emit(tally.done())  # settle


def thinker(
    pipeline: Pipeline, route: Route, question: Question, draft: Draft, tally: Tally
) -> followups.Think:
    """A small model as rooms know it: a callable, whose calls are booked with the answer."""

    async def ask(messages: list[dict[str, Any]]) -> str | None:
        try:
            thought = await think(
                route, messages, question.id, pipeline.emit, max_tokens=MAX_TOKENS
            )
        except asyncio.CancelledError:  # it was asked, and nobody tells what it took
            draft.spent.append(
                tally.thought(Thought(text=None, model=route.candidates[0].model, usage=None))
            )
            raise
        if thought is None:
            return None
        draft.spent.append(tally.thought(thought))
        return thought.text

    return ask


def paid(draft: Draft, tally: Tally, say: Say) -> None:
    """What all calls so far took, those of earlier tries too: also where the answer failed."""
    if (usage := ledger.used(draft.spent)) is not None:
        cost_usd = ledger.plain(ledger.total_usd(draft.spent))
        say(UsageReport(model=tally.model or draft.spent[0].model, usage=usage, cost_usd=cost_usd))


def settle(draft: Draft, tally: Tally) -> None:
    """The whole is called by the lowest served_by of its sections, and by the first model that wrote
    one; those that say nothing do not count beside others.
    """
    said = [section for section in draft.sections if not section.abstained] or draft.sections
    tally.served_by = max(
        (section.served_by for section in said if section.served_by is not None),
        key=SERVED_BY.index,
        default=None,
    )
    tally.model = next((section.model for section in said if section.model is not None), None)
    if tally.model is None:
        tally.provider = "quote"


def done(question: Question, draft: Draft, tally: Tally) -> Done:
    return Done(
        id=question.id,
        served_by=tally.served_by,
        model=tally.model,
        attempts=tally.attempts,
        abstained=all(section.abstained for section in draft.sections),
        ttft_s=tally.ttft_s,
        duration_s=tally.since(),
        prompt=draft.prompt if tally.model is not None else None,
    )
