"""`slipway prompt`: what the model reads for a question, and how much of it stays the same from one
question to the next.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

from slipway.answer import App, Pipeline
from slipway.answer.draft import Draft, Section
from slipway.answer.pace import Pace
from slipway.answer.planning import plan
from slipway.answer.progress import ProgressReporter
from slipway.answer.writing import is_asked, messages_for
from slipway.commands.ask import asked
from slipway.providers import encode_json
from slipway.types import Event, Question, Record

_SHOWN = 40  # bytes around a difference


class Shown(Record, frozen=True, kw_only=True):
    """What goes to the model: for the `section` of that title where the answer has several.
    `version` changes with the text that is the same for all questions. A model is `asked` only
    where the documents are at all likely to answer.
    """

    app: str
    section: str
    version: str | None
    asked: bool
    messages: Sequence[dict[str, Any]]

    @property
    def bytes(self) -> bytes:
        return encode_json(self.messages)


class Difference(Record, frozen=True, kw_only=True):
    """Where two prompts part: `alike` bytes are the same; `message` is the index of the first one
    that differs, `at` the place in its text.
    """

    alike: int
    message: int
    at: int
    one: str
    other: str


def show(pipeline: Pipeline, app_name: str | None, text: str) -> list[Shown]:
    """For each section of the answer. Raises SlipwayError."""
    app, question = asked(pipeline, app_name, text)
    draft = asyncio.run(planned(app, question))
    return [
        shown(app, question, section, alone=len(draft.sections) == 1) for section in draft.sections
    ]


async def planned(app: App, question: Question) -> Draft:
    draft, progress = Draft(), ProgressReporter(ignored, question.asked_at, Pace())
    try:
        await plan(app, question, draft, progress, ignored)
    finally:
        progress.close()
    return draft


def ignored(event: Event) -> None:
    """Nobody watches."""


def shown(app: App, question: Question, section: Section, *, alone: bool) -> Shown:
    sources = section.sources or []
    return Shown(
        app=app.name,
        section=section.title,
        version=app.prompt.version(passages=bool(sources)),
        asked=is_asked(app, sources, section.sureness),
        messages=messages_for(app, question, section, alone=alone),
    )


def difference(one: Shown, other: Shown) -> Difference | None:
    """The first byte that is not the same in both; None where none is. A provider's prefix cache
    holds what stands before it.
    """
    if one.bytes == other.bytes:
        return None
    alike = _alike(one.bytes, other.bytes)
    texts = [[f"{m['role']}: {m['content']}" for m in shown.messages] for shown in (one, other)]
    message = _alike(*texts)
    first, second = (text[message].encode() if message < len(text) else b"" for text in texts)
    at = _alike(first, second)
    return Difference(
        alike=alike, message=message, at=at, one=_around(first, at), other=_around(second, at)
    )


def _alike(one: Sequence[Any], other: Sequence[Any]) -> int:
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (left, right) in pairs if left != right), min(len(one), len(other)))


def _around(text: bytes, at: int) -> str:
    return text[max(at - _SHOWN, 0) : at + _SHOWN].decode("utf-8", "replace").replace("\n", "⏎")


def lines(shown: Shown) -> list[str]:
    version, plural = (
        shown.version or "without instructions",
        "" if len(shown.messages) == 1 else "s",
    )
    found = [f"--- section: {shown.section}"] if shown.section else []
    found += [
        f"app {shown.app}, prompt {version}: {len(shown.messages)} message{plural}, {len(shown.bytes):,} bytes"
    ]
    if not shown.asked:
        found.append("It is unlikely that the documents answer this, so no model would be asked.")
    for message in shown.messages:
        found += [f"--- {message['role']}", str(message["content"])]
    return found


def lint(prompts: Sequence[Shown]) -> tuple[list[str], bool]:
    """A line for each further question, and whether what never changes is the same for all."""
    found, right = list[str](), True
    first, *others = [shown for shown in prompts if shown.asked] or prompts[:1]
    if len(others) + 1 < len(prompts):
        found.append(
            f"{len(prompts) - len(others) - 1} of the questions would not be put to a model: the documents hardly answer them"
        )
    for other in others:
        apart = difference(first, other)
        if apart is None:
            found.append(f"alike to the last of {len(other.bytes):,} bytes")
            continue
        standing = apart.message > 0 or first.messages[0]["role"] != "system"
        right = right and standing
        share = f"{apart.alike:,} of {len(other.bytes):,} bytes alike"
        found.append(
            f"{share}; then message {apart.message} differs at byte {apart.at}:\n  {apart.one}\n  {apart.other}"
        )
        if not standing:
            found.append(
                "  the system message should be the same for all questions: no prefix cache can hold this"
            )
    return found, right
