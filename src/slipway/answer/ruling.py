"""Rules: answer from a fixed text, without documents or a model."""

import time
from typing import TYPE_CHECKING

from slipway import followups
from slipway.answer.draft import Draft, Part, Say
from slipway.answer.pipeline import App
from slipway.answer.writing import wants_json
from slipway.types import Delta, Emit, Question, RuleUsed, SectionState

if TYPE_CHECKING:
    from slipway.rules import MatchedRules, RuleBook, RuleMatch


def answer_by_rule(
    app: App, rules: "RuleBook", question: Question, draft: Draft, emit: Emit, say: Say
) -> bool:
    """Write the answer of the first rule that matches; return False if none does.

    A question that needs more than its own text is not for rules.
    """
    if draft.sections or not is_complete(question):
        return False
    found = rules.ask(question.text, question.asker)
    report(found, app, question, emit)
    if found.match is None:
        return False
    write(found.match, question, draft, say)
    return True


def is_complete(question: Question) -> bool:
    """Return whether the text alone says what is asked: no earlier turn, file, filter or form."""
    return not (
        question.attached
        or question.within is not None
        or wants_json(question.options)
        or has_more_than_text(question)
        or followups.may_need_history(question.text, question.messages)
    )


def has_more_than_text(question: Question) -> bool:
    """Return whether the last turn has images or other parts that a rule cannot see."""
    content = question.messages[-1].content if question.messages else None
    return isinstance(content, list) and any(part.get("type") != "text" for part in content)


def report(found: "MatchedRules", app: App, question: Question, emit: Emit) -> None:
    for match in (*found.shadows, *([found.match] if found.match is not None else [])):
        emit(
            RuleUsed(
                answer_id=question.id,
                app=app.name,
                rule=match.rule,
                version=match.version,
                kind=match.kind,
                reason=match.reason,
                shadow=match.shadow,
                at=time.time(),
            )
        )


def write(match: "RuleMatch", question: Question, draft: Draft, say: Say) -> None:
    """Say the rule's text as the only section."""
    draft.plan([Part(text=question.text)])
    section = draft.sections[0]
    say(SectionState(index=0, title="", state="started"))
    say(Delta(text=match.text))
    section.sources, section.served_by, section.state = [], "rule", "done"
    say(SectionState(index=0, title="", state="done", served_by="rule"))
