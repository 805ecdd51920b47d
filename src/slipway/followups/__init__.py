"""Resolve follow-up questions ("and for the other plan?") into complete ones before anything is
searched.

Rules for English and Chinese decide. A question needs the history if it is a fragment ("and in
Canada?", "IPv6?"), if it has a pronoun without an antecedent in an earlier clause of its own (a
pronoun and its antecedent are never in the same clause: Chomsky 1981, principle B), or if it has no
content word ("why?"). A fragment replaces its counterpart in the question before, a pronoun is
replaced by that question's topic, and otherwise the topic is added. A complete question never
changes: mixing an old topic into a new one costs more than missing a follow-up. Measured by
bench/followups.py.

If the app has a small model, it rewrites the question instead. It is passed in as a callable, asked
only if the question may need the history, and its output is used only if it is a question
(`rewriting`).
"""

import re
from collections.abc import Awaitable, Callable, Sequence
from types import ModuleType
from typing import Any

from slipway.followups import chinese, english, rewriting
from slipway.types import Message

# OpenAI messages -> the model's text; None if it fails
SmallModel = Callable[[list[dict[str, Any]]], Awaitable[str | None]]

MAX_CHARACTERS = 240  # a longer question is complete
_TURN_CHARACTERS = 1_000  # of an earlier turn
_MAX_CHAIN = 4  # follow-ups of follow-ups
_HAN = re.compile(r"[\u4e00-\u9fff]")


def resolve(text: str, messages: Sequence[Message]) -> str:
    """Return the text to search for: `text` unchanged if it is complete or nothing was asked
    before. `messages` end with this question.
    """
    if len(messages) < 2 or not needs_history(text):
        return text
    before, answer = _before(messages[:-1])
    return _rules_for(text).combine(text.strip(), before, answer) if before else text


async def resolve_with_model(
    small_model: SmallModel, text: str, messages: Sequence[Message]
) -> str:
    """Resolve with a small model; fall back to the rules if it fails, is late, or returns something
    other than the question.
    """
    turns = [(message.role, plain) for message in messages[:-1] if (plain := _plain(message))]
    rewrite = await small_model(rewriting.messages_for(text, turns))
    found = rewriting.accept(rewrite, text, turns) if rewrite else None
    return found if found is not None else resolve(text, messages)


def needs_history(text: str) -> bool:
    """Tell whether the question cannot be understood without the conversation."""
    return (
        bool(text.strip())
        and len(text) <= MAX_CHARACTERS
        and bool(_rules_for(text).needs_history(text.strip()))
    )


def may_need_history(text: str, messages: Sequence[Message]) -> bool:
    """Tell whether a model is worth asking: something was asked before, and this question needs the
    history or has a word that could refer to it.
    """
    if not any(message.role == "user" for message in messages[:-1]):
        return False
    return needs_history(text) or (
        len(text) <= MAX_CHARACTERS and bool(_rules_for(text).may_refer_back(text.strip()))
    )


def _rules_for(text: str) -> ModuleType:
    return chinese if _HAN.search(text) else english


def _before(messages: Sequence[Message]) -> tuple[str, str]:
    """Return the last question as it was resolved then, following the chain back to a complete one,
    and the last answer.
    """
    answer = next(
        (_plain(message) for message in reversed(messages) if message.role == "assistant"), ""
    )
    chain = list[str]()
    for message in reversed(messages):
        text = _plain(message) if message.role == "user" else ""
        if text and not _rules_for(text).is_courtesy(text):
            chain.append(text)
            if len(chain) == _MAX_CHAIN or not needs_history(text):
                break
    before = chain.pop() if chain else ""
    while chain:
        text = chain.pop()
        before = _rules_for(text).combine(text, before, "")
    return before, answer


def _plain(message: Message) -> str:
    content = message.content
    if isinstance(content, list):
        content = "\n".join(
            str(part.get("text", "")) for part in content if part.get("type") == "text"
        )
    return (content or "").strip()[:_TURN_CHARACTERS]
