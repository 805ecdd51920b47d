"""`slipway rules`: test, explain and report the rules that answer without a model."""

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import click
import msgspec

from slipway.app.loading import load_settings
from slipway.app.rulebooks import rulebooks
from slipway.commands.options import CONFIG, JSON, counted
from slipway.rules import RuleBook, RuleFailure, RuleQuestion, failures_of, turn_off_failing
from slipway.rules.normalising import normal_form
from slipway.settings import Flags
from slipway.types import Asker

APP = click.option("--app", help="Only the rules of this app.")


@click.group("rules")
def command() -> None:
    """Test and explain the rules that answer without a model."""


@command.command("test")
@CONFIG
@APP
@JSON
@click.pass_context
def run_tests(ctx: click.Context, config: Path | None, app: str | None, as_json: bool) -> None:
    """Run the tests of the rules. The exit code is 1 if one fails.

    \b
    slipway rules test
    """
    books = rulebooks(load_settings(Flags(config=config)).settings, app)
    failed = [failure for book in books.values() for failure in failures_of(book)]
    count = sum(len(ready.rule.tests) for book in books.values() for ready in book.rules)
    if as_json:
        click.echo(json.dumps(tests_data(count, failed), indent=2, ensure_ascii=False))
    else:
        for failure in failed:
            click.echo(failure.sentence)
        click.echo(f"{counted(count, 'test')}, {len(failed)} failed")
    ctx.exit(bool(failed))


@command.command("explain")
@click.argument("question")
@CONFIG
@APP
@click.option("--group", "groups", multiple=True, help="Group of the asker. Repeatable.")
@click.option("--on", type=click.DateTime(["%Y-%m-%d"]), help="Take this date as today.")
@JSON
def explain(
    question: str,
    config: Path | None,
    app: str | None,
    groups: tuple[str, ...],
    on: datetime | None,
    as_json: bool,
) -> None:
    """Say which rule answers QUESTION, and why; also which rules nearly do.

    \b
    slipway rules explain "When are you open?"
    """
    asked = RuleQuestion(
        text=question,
        asker=Asker(owner="local", groups=frozenset(groups)),
        today=on.date() if on is not None else None,
    )
    books = rulebooks(load_settings(Flags(config=config)).settings, app)
    for book in books.values():
        turn_off_failing(book)
    found = {name: explanation(book, asked) for name, book in books.items()}
    if as_json:
        click.echo(json.dumps(found, indent=2, ensure_ascii=False))
        return
    for name, each in found.items():
        click.echo("\n".join(explained(name, each)))


def explanation(book: RuleBook, asked: RuleQuestion) -> dict[str, Any]:
    """Return how the rules see a question, as JSON."""
    recognised = list(book.recognised(asked))
    match = book.match(asked).match
    guess = book.guess(asked)
    measure = book.measure(book.rule_of(guess)) if guess is not None else None
    return {
        "read_as": normal_form(asked.text),
        "answered_by": match.rule if match is not None else None,
        "recognised": msgspec.to_builtins(recognised),
        "intent": None
        if guess is None
        else {
            "rule": book.rule_of(guess),
            "nearest": guess.example,
            "probability": round(guess.probability, 4),
            "needed": round(guess.threshold, 4) if guess.threshold < 1 else None,
            "objection": guess.objection
            or (measure.why_not if measure is not None else "")
            or None,
        },
    }


def explained(app: str, found: dict[str, Any]) -> Iterator[str]:
    """Yield the lines that a person reads."""
    yield f"app {app}: read as `{found['read_as']}`"
    for each in found["recognised"]:
        outcome = each["no_answer"] or (
            "in shadow, it does not answer" if each["shadow"] else f"answers: {each['text']}"
        )
        yield f"  {each['kind']:8} {each['rule']} {each['version']}: {each['reason']}"
        yield f"           {outcome}"
    intent = found["intent"]
    if intent is not None and not any(each["kind"] == "intent" for each in found["recognised"]):
        needed = f", needed {intent['needed']}" if intent["needed"] is not None else ""
        yield (
            f"  intent   {intent['rule']}: nearest is `{intent['nearest']}` "
            f"({intent['probability']}{needed})"
        )
        yield f"           not answered: {intent['objection'] or 'not sure enough'}"
    if found["answered_by"] is None:
        yield "  no rule answers this question"


def tests_data(count: int, failed: list[RuleFailure]) -> dict[str, Any]:
    return {
        "tests": count,
        "failed": [{"rule": f.rule, "place": f.place, "what": f.what} for f in failed],
    }
