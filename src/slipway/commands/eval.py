"""`slipway eval`."""

import json
import sys
from pathlib import Path
from typing import Any

import click

from slipway.commands.eval_answers import (
    Wanted,
    evaluate,
    how_to_continue,
    page_at,
    write_page,
)
from slipway.commands.eval_run import COMMANDS as SET_COMMANDS
from slipway.commands.ingest import read_knowledge
from slipway.commands.options import JSON, NonEmptyPath, settings_options
from slipway.evals import reports
from slipway.evals.questions import questions_in
from slipway.settings import Flags


@click.group("eval")
def command() -> None:
    """Measure how good search and answers are, with confidence intervals."""


for each in SET_COMMANDS:
    command.add_command(each)


@command.command("knowledge")
@click.option(
    "--docs",
    type=NonEmptyPath(),
    multiple=True,
    required=True,
    help="Folder or file to search in. Repeatable.",
)
@click.option(
    "--questions",
    type=NonEmptyPath(),
    required=True,
    help='JSONL: {"question": …, "gold": [{"page": …, "heading": …}]}.',
)
@JSON
def knowledge(docs: tuple[Path, ...], questions: Path, as_json: bool) -> None:
    """Measure whether search finds the places that answer, and notices if nothing does.

    \b
    slipway eval knowledge --docs ./docs --questions questions.jsonl
    """
    questions_in(questions)  # before the documents are read, which may take long
    report = reports.of_knowledge(read_knowledge(docs, shown=not as_json), questions)
    click.echo(
        json.dumps(reports.as_json(report), indent=2)
        if as_json
        else "\n".join(reports.as_text(report))
    )
    if len(report.measured) == 1:
        click.echo(f"\n{reports.KEYWORDS_ONLY}", err=True)


@command.command("answers")
@click.option(
    "--questions",
    type=NonEmptyPath(),
    required=True,
    help='JSONL: {"question": …, "gold": [{"page": …, "heading": …}], "answer": …}.',
)
@settings_options
@click.option("--app", "apps", multiple=True, help="App to ask [default: all]. Repeatable.")
@click.option(
    "--against",
    metavar="COLUMN",
    help="Column to compare the others with [default: the first].",
)
@click.option(
    "--without-gold",
    is_flag=True,
    help="Ask again without the pages that answer: is it noticed that nothing answers?",
)
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Ask the first N questions.")
@click.option(
    "--concurrency",
    type=click.IntRange(min=1),
    default=4,
    show_default=True,
    help="Questions asked at once.",
)
@click.option(
    "--save",
    type=NonEmptyPath(),
    help="Save each answer in this file, and ask only what it lacks.",
)
@click.option("--url", help="Ask a running server instead, such as http://127.0.0.1:8080.")
@click.option("--key", envvar="SLIPWAY_KEY", help="Key for --url; SLIPWAY_KEY is read too.")
@click.option(
    "--html",
    type=NonEmptyPath(),
    help="Also write a report with plots and every answer to this file.",
)
@JSON
def answers(
    config: Path | None,
    docs: tuple[Path, ...],
    models: tuple[str, ...],
    html: Path | None,
    as_json: bool,
    **wanted: Any,
) -> None:
    """Compare the answers of apps and models with answers that are known to be right.

    Each app and each model is a column of the report, and so are the documents quoted without a
    model. The exit code is 1 if an answer failed.

    \b
    slipway eval answers --docs ./docs --questions questions.jsonl
    slipway eval answers --docs ./docs --questions questions.jsonl \\
      --model dashscope/qwen-plus --save runs.jsonl --html report.html
    """
    asked = Wanted(flags=Flags(config=config, docs=docs, models=models), **wanted)
    out = page_at(html)
    try:
        report = evaluate(asked, lambda line: click.echo(line, err=True), shown=not as_json)
    except KeyboardInterrupt:
        click.echo(f"\nStopped. {how_to_continue(asked)}", err=True)
        sys.exit(130)
    click.echo(
        json.dumps(reports.answers_as_json(report), indent=2)
        if as_json
        else "\n".join(reports.answers_as_text(report))
    )
    if out is not None:
        click.echo(f"the report is in {write_page(out, report)}", err=True)
    sys.exit(int(any(total.failed for total in report.totals.values())))
