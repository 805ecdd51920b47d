"""An app's answer: admission, rules, planning, knowledge, prompt, routing and settlement."""

import asyncio
from typing import Any, get_args

from slipway import followups, ledger
from slipway.answer.draft import Draft, Say
from slipway.answer.pipeline import App, Pipeline
from slipway.answer.planning import plan
from slipway.answer.progress import ProgressReporter
from slipway.answer.ruling import answer_by_rule
from slipway.answer.settlement import Tally
from slipway.answer.skeleton import run_settled
from slipway.answer.writing import write_all
from slipway.errors import SlipwayError
from slipway.followups.rewriting import MAX_TOKENS
from slipway.routing import AttemptUsage, Route, ask_briefly
from slipway.types import Delta, Done, Event, Question, Saved, ServedBy, Sourced, UsageReport

SERVED_BY = get_args(ServedBy)  # from the best to the last resort


async def answer(
    pipeline: Pipeline, app: App, question: Question, draft: Draft, endpoint: str, say: Say
) -> None:
    """Write what the draft still lacks, as events; the last one is `done`.

    If a section fails, the others are still written; then its SlipwayError is raised and no
    `done` is sent. Usage is reported in either case, since failed calls may be billed.
    """
    tally = Tally(question.id, endpoint, app.name, question.asker, True, pipeline.books)

    async def stages() -> None:
        if not is_ruled(pipeline, app, question, draft, tally, say):
            await compose(pipeline, app, question, draft, tally, say)
            finish(question, draft, tally, say)

    try:
        await run_settled(pipeline, tally, stages, if_cancelled="cancelled")
    except (SlipwayError, asyncio.CancelledError):
        report_usage(draft, tally, say)
        raise


def is_ruled(
    pipeline: Pipeline, app: App, question: Question, draft: Draft, tally: Tally, say: Say
) -> bool:
    """Answer by a rule of the app; return False if none matches."""
    if app.rules is None:
        return False
    send = timed(say, tally)
    with tally.stage("rules") as stage:
        is_answered = answer_by_rule(app, app.rules, question, draft, pipeline.emit, send)
        stage.note(answered=is_answered)
    if not is_answered:
        return False
    if app.route is not None:
        tally.saved = Saved(by="rule")
    finish(question, draft, tally, say)
    return True


def timed(say: Say, tally: Tally) -> Say:
    """Return `say`, with the time of the first words noted."""

    def send(event: Event) -> None:
        if type(event) is Delta:
            tally.mark_first_words()
        say(event)

    return send


def finish(question: Question, draft: Draft, tally: Tally, say: Say) -> None:
    """Say what the answer took, and that it is done."""
    settle(draft, tally)
    report_usage(draft, tally, say)
    say(done(question, draft, tally))


async def compose(
    pipeline: Pipeline, app: App, question: Question, draft: Draft, tally: Tally, say: Say
) -> None:
    """Plan the answer and write what the draft still lacks. Raises the error of a failed section
    after the others are written.
    """
    send = timed(say, tally)
    progress = ProgressReporter(send, tally.started_at, pipeline.pace)
    try:
        small = (
            small_model(pipeline, app.small, question, draft, tally)
            if app.small is not None
            else None
        )
        await plan(app, question, draft, progress, send, small, tally.stage)
        await write_all(pipeline, app, question, draft, tally, progress, send)
        draft.check()
        progress.judge_estimates()
        if app.knowledge is not None:
            is_abstained = all(section.abstained for section in draft.sections)
            tally.sourced = sourced(has_citation=tally.cited > 0, is_abstained=is_abstained)
    finally:
        progress.close()


def sourced(*, has_citation: bool, is_abstained: bool) -> Sourced:
    """Return whether an answer of an app with documents names a source."""
    if is_abstained:
        return "abstained"
    return "sourced" if has_citation else "unsourced"


def small_model(
    pipeline: Pipeline, route: Route, question: Question, draft: Draft, tally: Tally
) -> followups.SmallModel:
    """Return a callable that asks the small model; its calls are booked with the answer."""

    async def ask(messages: list[dict[str, Any]]) -> str | None:
        context = tally.context(pipeline.emit, until=0.0, retry_until=0.0, charge=charge)
        return await ask_briefly(route, messages, context, max_tokens=MAX_TOKENS)

    def charge(took: AttemptUsage) -> int | None:
        spent = tally.charge_side_call(took)
        draft.spent.append(spent)
        return spent.cost

    return ask


def report_usage(draft: Draft, tally: Tally, say: Say) -> None:
    """Emit total tokens and cost of all calls so far, those of earlier tries included."""
    if (usage := ledger.total_usage(draft.spent)) is not None:
        cost_usd = ledger.format_usd(ledger.total_usd(draft.spent))
        say(UsageReport(model=tally.model or draft.spent[0].model, usage=usage, cost_usd=cost_usd))


def settle(draft: Draft, tally: Tally) -> None:
    """Set `served_by` to that of the weakest section, and `model` to the first section's writer.

    Sections that abstained are left out, unless all of them did.
    """
    answered = [section for section in draft.sections if not section.abstained] or draft.sections
    tally.served_by = max(
        (section.served_by for section in answered if section.served_by is not None),
        key=SERVED_BY.index,
        default=None,
    )
    tally.model = next((section.model for section in answered if section.model is not None), None)
    if tally.model is None:
        tally.provider = "rule" if tally.served_by == "rule" else "quote"


def done(question: Question, draft: Draft, tally: Tally) -> Done:
    return Done(
        id=question.id,
        served_by=tally.served_by,
        model=tally.model,
        attempts=tally.attempts,
        abstained=all(section.abstained for section in draft.sections),
        ttft_s=tally.ttft_s,
        duration_s=tally.elapsed_s(),
        prompt=draft.prompt if tally.model is not None else None,
    )
