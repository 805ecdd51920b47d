"""`slipway rules`: test, explain and report the rules that answer without a model."""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import click
import msgspec

from slipway.app.loading import load_settings
from slipway.app.rulebooks import rulebooks
from slipway.app.stores import saved_records
from slipway.commands.options import CONFIG, JSON, counted
from slipway.errors import SettingsError
from slipway.rules import RuleBook, RuleFailure, RuleQuestion, failures_of, turn_off_failing
from slipway.rules.intents import IntentMeasure
from slipway.rules.normalising import normal_form
from slipway.rules.suggesting import AT_LEAST, Suggestion, add_rules, suggestions
from slipway.settings import Flags, Settings
from slipway.settings.values import seconds
from slipway.store import RuleHits
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


@command.command("report")
@CONFIG
@APP
@click.option("--since", metavar="DURATION", help="Count only the last `7d`, `12h` …")
@JSON
def report(config: Path | None, app: str | None, since: str | None, as_json: bool) -> None:
    """List the rules with their version, their state, and how often each answered.

    Hits are kept for 30 days; a running server need not be stopped.

    \b
    slipway rules report --since 7d
    """
    try:
        earliest = time.time() - seconds(since) if since is not None else 0.0
    except ValueError as error:
        raise SettingsError([f"--since: {error}"]) from None
    settings = load_settings(Flags(config=config)).settings
    books = rulebooks(settings, app)
    with saved_records(settings) as store:
        hits = store.rules.hits(earliest) if store is not None else []
    counted_hits = {(hit.app, hit.rule): hit for hit in hits}
    rows = [row for name, book in books.items() for row in report_rows(name, book, counted_hits)]
    click.echo(
        json.dumps(rows, indent=2, ensure_ascii=False) if as_json else "\n".join(listed(rows))
    )


def report_rows(
    app: str, book: RuleBook, hits: Mapping[tuple[str, str], RuleHits]
) -> Iterator[dict[str, Any]]:
    """Yield what is known of each rule, as JSON."""
    turn_off_failing(book)
    for ready in book.rules:
        rule, measure = ready.rule, book.measure(ready.rule.name)
        hit = hits.get((app, rule.name))
        yield {
            "app": app,
            "rule": rule.name,
            "version": ready.version,
            "state": "off" if rule.name in book.off else "shadow" if rule.shadow else "live",
            "why_off": book.off.get(rule.name),
            "kinds": [
                kind
                for kind, texts in (
                    ("question", rule.questions),
                    ("pattern", rule.patterns),
                    ("intent", rule.examples),
                )
                if texts
            ],
            "tests": len(rule.tests),
            "groups": list(rule.groups),
            "served": hit.served if hit is not None else 0,
            "shadow": hit.shadow if hit is not None else 0,
            "unhelpful": hit.unhelpful if hit is not None else 0,
            "intent": None if measure is None else measured(measure),
        }


def measured(measure: IntentMeasure) -> dict[str, Any]:
    precision = measure.precision
    return {
        "examples": measure.examples,
        "held_out_served": measure.served,
        "wrong": measure.wrong,
        "precision": round(precision, 4) if precision is not None else None,
        "threshold": round(measure.threshold, 4) if measure.threshold < 1 else None,
        "why_not": measure.why_not or None,
    }


def listed(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Yield the lines that a person reads."""
    for row in rows:
        shadow = f", in shadow {row['shadow']:,}" if row["shadow"] else ""
        down = f", {row['unhelpful']} voted down" if row["unhelpful"] else ""
        yield (
            f"{row['app']}/{row['rule']} {row['version']}  {row['state']}, "
            f"{' + '.join(row['kinds'])}: answered {row['served']:,}{shadow}{down}; "
            f"{counted(row['tests'], 'test')}"
        )
        if row["why_off"]:
            yield f"    {row['why_off']}"
        intent = row["intent"]
        if intent is not None and intent["why_not"]:
            yield f"    similar questions are not answered: {intent['why_not']}"
        elif intent is not None:
            yield (
                f"    {intent['held_out_served']} of {intent['examples']} examples recognised when "
                f"held out, precision {intent['precision']:.1%}"
            )


@command.command("suggest")
@CONFIG
@APP
@click.option(
    "--at-least",
    type=click.IntRange(2),
    default=AT_LEAST,
    show_default=True,
    help="How often the same answer must have been given.",
)
@click.option(
    "--accept", "accepted", multiple=True, metavar="NAME", help="Write this rule into the file."
)
@JSON
def suggest(
    config: Path | None,
    app: str | None,
    at_least: int,
    accepted: tuple[str, ...],
    as_json: bool,
) -> None:
    """Propose rules from questions asked again and again with the same answer and no vote against.

    Needs `collect: true` under the app's `rules`. Nothing is changed without --accept.

    \b
    slipway rules suggest --accept opening-hours
    """
    settings = load_settings(Flags(config=config)).settings
    found = dict[str, list[Suggestion]]()
    with saved_records(settings) as store:
        for name, book in rulebooks(settings, app).items():
            rows = store.rules.collected(name) if store is not None else []
            found[name] = suggestions(rows, book, at_least)
    if accepted:
        accept(settings, found, accepted)
    elif as_json:
        click.echo(json.dumps(msgspec.to_builtins(found), indent=2, ensure_ascii=False))
    else:
        click.echo("\n".join(proposed(settings, found)))


def proposed(settings: Settings, found: Mapping[str, Sequence[Suggestion]]) -> Iterator[str]:
    """Yield the proposals as YAML, or what is missing to make some."""
    for app, each in found.items():
        rules = settings.apps[app].rules
        if each:
            yield f"# app {app}: add what you agree with, by hand or with --accept NAME"
            yield from (one.yaml().rstrip() for one in each)
        elif rules is not None and not rules.collect:
            yield (
                f"app {app} does not collect answers; write `rules: {{file: …, collect: true}}` in "
                "the settings"
            )
        else:
            yield f"app {app}: no question was asked often enough with the same answer yet"


def accept(
    settings: Settings, found: Mapping[str, Sequence[Suggestion]], names: Sequence[str]
) -> None:
    """Write the named proposals into their files. Raises SettingsError for an unknown name."""
    known = {one.name: app for app, each in found.items() for one in each}
    if unknown := [name for name in names if name not in known]:
        there = ", ".join(known) or "none"
        raise SettingsError([f"--accept: there is no proposal `{unknown[0]}`; known: {there}"])
    for app, each in found.items():
        chosen = [one for one in each if one.name in names]
        rules = settings.apps[app].rules
        if chosen and rules is not None:
            add_rules(Path(rules.file), chosen)
            for one in chosen:
                click.echo(f"{rules.file}: rule `{one.name}` added; a running server applies it")


def tests_data(count: int, failed: list[RuleFailure]) -> dict[str, Any]:
    return {
        "tests": count,
        "failed": [{"rule": f.rule, "place": f.place, "what": f.what} for f in failed],
    }
