"""`slipway rules`: test, explain and report the rules that answer without a model."""

import json
from pathlib import Path
from typing import Any

import click

from slipway.app.loading import load_settings
from slipway.app.rulebooks import rulebooks
from slipway.commands.options import CONFIG, JSON, counted
from slipway.rules import RuleFailure, failures_of
from slipway.settings import Flags

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


def tests_data(count: int, failed: list[RuleFailure]) -> dict[str, Any]:
    return {
        "tests": count,
        "failed": [{"rule": f.rule, "place": f.place, "what": f.what} for f in failed],
    }
