"""THE ROOM of follow-ups: a question that leans on what was said before ("and for the other plan?")
is understood before anything is searched.

By rules, in English and Chinese. A question leans where it is a fragment ("and in Canada?",
"IPv6?"), where a pronoun has nothing to stand for in an earlier clause of its own (the two are
never in one clause: Chomsky 1981, principle B), or where it has no word of its own ("why?"). A
fragment takes the place of its like in the question before; a pronoun is replaced by that
question's topic; else the topic is added. A question that stands by itself never changes: old words
in a new topic cost more than a follow-up that is missed. Measured by bench/followups.py.

A small model does it better where there is one: it is handed in as a callable, asked only where a
question may lean, and believed only where it says a question (`rewriting`).
"""

import re
from collections.abc import Awaitable, Callable, Sequence
from types import ModuleType
from typing import Any

from slipway.followups import chinese, english, rewriting
from slipway.types import Message

Think = Callable[
    [list[dict[str, Any]]], Awaitable[str | None]
]  # OpenAI messages -> what a small model says; None where it fails

LONGEST = 240  # characters: what is longer says by itself what it is about
_READ = 1_000  # characters of an earlier turn
_BACK = 4  # questions that lean on one another, at most
_HAN = re.compile(r"[\u4e00-\u9fff]")


def understood(text: str, messages: Sequence[Message]) -> str:
    """The text to search with: `text` itself where it stands by itself, or where nothing was asked
    before. `messages` end with this question.
    """
    if len(messages) < 2 or not leans(text):
        return text
    before, answer = _before(messages[:-1])
    return _of(text).joined(text.strip(), before, answer) if before else text


async def understood_by(think: Think, text: str, messages: Sequence[Message]) -> str:
    """The same with a small model's help; by rules where it fails, is late, or says something else
    than the question.
    """
    turns = [(message.role, plain) for message in messages[:-1] if (plain := _plain(message))]
    said = await think(rewriting.told(text, turns))
    found = rewriting.accepted(said, text, turns) if said else None
    return found if found is not None else understood(text, messages)


def leans(text: str) -> bool:
    """Whether it cannot be understood without what was said before."""
    return bool(text.strip()) and len(text) <= LONGEST and bool(_of(text).leans(text.strip()))


def may_lean(text: str, messages: Sequence[Message]) -> bool:
    """Whether it is worth asking a model: something was asked before, and this leans, or has a word
    that would lean in another sentence.
    """
    if not any(message.role == "user" for message in messages[:-1]):
        return False
    return leans(text) or (len(text) <= LONGEST and bool(_of(text).points(text.strip())))


def _of(text: str) -> ModuleType:
    return chinese if _HAN.search(text) else english


def _before(messages: Sequence[Message]) -> tuple[str, str]:
    """The last question as it was understood then, back to the nearest one that stands by itself,
    and the last answer.
    """
    answer = next(
        (_plain(message) for message in reversed(messages) if message.role == "assistant"), ""
    )
    chain = list[str]()
    for message in reversed(messages):
        text = _plain(message) if message.role == "user" else ""
        if text and not _of(text).is_courtesy(text):
            chain.append(text)
            if len(chain) == _BACK or not leans(text):
                break
    before = chain.pop() if chain else ""
    while chain:
        text = chain.pop()
        before = _of(text).joined(text, before, "")
    return before, answer


def _plain(message: Message) -> str:
    content = message.content
    if isinstance(content, list):
        content = "\n".join(
            str(part.get("text", "")) for part in content if part.get("type") == "text"
        )
    return (content or "").strip()[:_READ]
