"""`slipway prompt`: what the model reads for a question, and how much of it never changes."""

import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import msgspec

from slipway.answer import App, Pipeline
from slipway.answer.draft import Draft, Section
from slipway.answer.pace import Pace
from slipway.answer.planning import plan
from slipway.answer.progress import ProgressReporter
from slipway.answer.writing import is_asked, messages_for
from slipway.app.offline import local_pipeline
from slipway.commands.ask import question_for
from slipway.commands.options import settings_options
from slipway.errors import SettingsError
from slipway.providers import encode_json
from slipway.settings import Flags
from slipway.types import Event, Question, Record

_SHOWN = 40  # bytes around a difference


@click.group("prompt")
def command() -> None:
    """Show exactly what a model reads, and how much of it a prefix cache can hold."""


@command.command("show")
@click.argument("question", nargs=-1, required=True)
@settings_options
@click.option("--app", "app_name", help="App to ask, if there are several.")
@click.option("--json", "as_json", is_flag=True, help="Print the messages as JSON.")
def show_command(
    question: tuple[str, ...],
    config: Path | None,
    docs: tuple[Path, ...],
    models: tuple[str, ...],
    app_name: str | None,
    as_json: bool,
) -> None:
    """Print exactly what the model reads for QUESTION; no model is called.

    \b
    slipway prompt show --docs ./docs "How do I add a model?"
    """
    pipeline = local_pipeline(Flags(config=config, docs=docs, models=models))
    prompts = show(pipeline, app_name, " ".join(question))
    click.echo(
        json.dumps(msgspec.to_builtins(prompts), indent=2, ensure_ascii=False)
        if as_json
        else "\n".join(line for each in prompts for line in lines(each))
    )


@command.command("lint")
@click.argument("questions", nargs=-1, required=True, metavar="QUESTION QUESTION...")
@settings_options
@click.option("--app", "app_name", help="App to ask, if there are several.")
def lint_command(
    questions: tuple[str, ...],
    config: Path | None,
    docs: tuple[Path, ...],
    models: tuple[str, ...],
    app_name: str | None,
) -> None:
    """Show the first byte in which the prompts of several questions differ.

    A provider's prefix cache can hold what comes before it. The exit code is 1 if the prompts
    differ in a part that should never change.

    \b
    slipway prompt lint --docs ./docs "How do I add a model?" "How do I add a key?"
    """
    if len(questions) < 2:
        raise SettingsError(["QUESTION: give at least two, each in quotes"])
    pipeline = local_pipeline(Flags(config=config, docs=docs, models=models))
    prompts = [prompt for text in questions for prompt in show(pipeline, app_name, text)]
    found, is_stable = lint(prompts)
    click.echo("\n".join(found))
    sys.exit(0 if is_stable else 1)


class PromptShown(Record, frozen=True, kw_only=True):
    """What goes to the model for one section; `section` is its title if there are several.

    `version` changes with the text that is the same for all questions. `asked` is False if the
    documents are so unlikely to answer that no model would be called.
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
    """Where two prompts first differ: after `alike` equal bytes, in message number `message`, at
    byte `at` of its text.
    """

    alike: int
    message: int
    at: int
    one: str
    other: str


def show(pipeline: Pipeline, app_name: str | None, text: str) -> list[PromptShown]:
    """Return what goes to the model for each section of the answer. Raises SlipwayError."""
    app, question = question_for(pipeline, app_name, text)
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
    """Drop the event: nobody watches."""


def shown(app: App, question: Question, section: Section, *, alone: bool) -> PromptShown:
    sources = section.sources or []
    return PromptShown(
        app=app.name,
        section=section.title,
        version=app.prompt.version(passages=bool(sources)),
        asked=is_asked(app, sources, section.confidence),
        messages=messages_for(app, question, section, alone=alone),
    )


def difference(one: PromptShown, other: PromptShown) -> Difference | None:
    """Return where the prompts first differ, or None if they are equal."""
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


def lines(shown: PromptShown) -> list[str]:
    """Return the prompt as a person reads it."""
    version, plural = (
        shown.version or "without instructions",
        "" if len(shown.messages) == 1 else "s",
    )
    found = [f"--- section: {shown.section}"] if shown.section else []
    found += [
        (
            f"app {shown.app}, prompt {version}: {len(shown.messages)} message{plural}, "
            f"{len(shown.bytes):,} bytes"
        )
    ]
    if not shown.asked:
        found.append("It is unlikely that the documents answer this, so no model would be asked.")
    for message in shown.messages:
        found += [f"--- {message['role']}", str(message["content"])]
    return found


def lint(prompts: Sequence[PromptShown]) -> tuple[list[str], bool]:
    """Return a line for each further question, and whether the fixed part is equal in all."""
    found, is_stable = list[str](), True
    first, *others = [shown for shown in prompts if shown.asked] or prompts[:1]
    if len(others) + 1 < len(prompts):
        found.append(
            f"{len(prompts) - len(others) - 1} of the questions would not be put to a model: "
            "the documents hardly answer them"
        )
    for other in others:
        apart = difference(first, other)
        if apart is None:
            found.append(f"all {len(other.bytes):,} bytes are equal")
            continue
        in_question = apart.message > 0 or first.messages[0]["role"] != "system"
        is_stable = is_stable and in_question
        share = f"{apart.alike:,} of {len(other.bytes):,} bytes are equal"
        found.append(
            f"{share}; then message {apart.message} differs at byte {apart.at}:\n"
            f"  {apart.one}\n  {apart.other}"
        )
        if not in_question:
            found.append(
                "  the system message should be equal for all questions: no prefix cache holds it"
            )
    return found, is_stable
