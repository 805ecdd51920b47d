"""`slipway eval run|compare|report|judge|sets`: which candidate answers a set best, at what price
and how fast, and how sure that is.
"""

import asyncio
import json
import logging
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from slipway.commands import eval_feedback, eval_judge
from slipway.commands.eval_candidates import AskedCandidates, asked
from slipway.commands.options import CONFIG, JSON, NonEmptyPath, settings_options
from slipway.errors import SettingsError
from slipway.evals import run_reports, sets, wording
from slipway.evals.items import EvalSet
from slipway.evals.run_pages import html
from slipway.evals.runlog import Cache, opened
from slipway.evals.running import EvalRunner, Plan
from slipway.evals.scoring import SCORERS
from slipway.evals.summary import Summary, summary_of
from slipway.settings import Flags
from slipway.terminal import Bar

RUNS = Path(".slipway") / "evals" / "runs"
CACHE = Path(".slipway") / "evals" / "cache.db"
_HTML = click.option(
    "--html", type=NonEmptyPath(), help="Write a report with plots into this file too."
)
_MARKDOWN = click.option(
    "--markdown", type=NonEmptyPath(), help="Write the report as Markdown into this file too."
)


@click.command("run")
@click.option(
    "--set",
    "set_name",
    required=True,
    metavar="SET",
    help="A packed set, one of your own, or a JSONL or CSV file: slipway eval sets list.",
)
@settings_options
@click.option("--app", "apps", multiple=True, help="App of the settings to ask. Repeatable.")
@click.option("--scorer", help="Scorer in place of the set's own: slipway eval sets list.")
@click.option(
    "--limit", type=click.IntRange(min=1), metavar="N", help="Ask N items, drawn by --seed."
)
@click.option(
    "--seed", type=int, default=0, show_default=True, help="Draws the order of the items."
)
@click.option(
    "--style",
    type=click.Choice(["direct", "reason"]),
    help="Ask for the answer at once, or for reasoning before it.",
)
@click.option("--examples", is_flag=True, help="Show worked examples first, if the set has some.")
@click.option(
    "--max-tokens",
    type=click.IntRange(min=1),
    help="Tokens of an answer at most; the set's own if left out.",
)
@click.option(
    "--parameter",
    "parameters",
    multiple=True,
    metavar="NAME=JSON",
    help="Parameter for every call; `temperature=null` sends none. Repeatable.",
)
@click.option(
    "--concurrency",
    type=click.IntRange(min=1),
    default=4,
    show_default=True,
    help="Items under way at once.",
)
@click.option(
    "--budget",
    "budget_usd",
    type=click.FloatRange(min=0),
    metavar="USD",
    help="Ask no more once the next answer might pass it.",
)
@click.option(
    "--stop",
    is_flag=True,
    help="Stop once a candidate has surely won, and ask beaten ones no more.",
)
@click.option("--judge", metavar="MODEL", help="Model that judges, for scorer `judge`.")
@click.option(
    "--save",
    type=NonEmptyPath(),
    help="The run's log; the same command goes on from it. One in .slipway/evals/runs if left out.",
)
@click.option("--no-cache", is_flag=True, help="Ask again what earlier runs have paid for.")
@_HTML
@_MARKDOWN
@JSON
def run(**o: Any) -> None:
    """Ask candidates the items of a set, side by side, and say who is better.

    Every raw output is kept in the run's log, and the report is made from it alone.

    \b
    slipway eval run --set gsm8k --limit 50 --model qwen2.5-coder-0.5b
    slipway eval run --set mmlu --model dashscope/qwen-plus --model dashscope/qwen-flash --stop --budget 2
    slipway eval run --set questions.csv --config slipway.yaml --app support --html report.html
    """
    check_numpy()
    found = sets.named(o["set_name"], o["scorer"])
    if o["scorer"] and found.name in sets.PACKED:
        raise SettingsError([f"--scorer: the packed set `{found.name}` has one of its own"])
    if found.scorer == "judge" and not o["judge"]:
        raise SettingsError(["--judge: scorer `judge` needs a model that judges; name one"])
    file = o["save"] or RUNS / f"{found.name}-{time.strftime('%Y%m%d-%H%M%S')}.jsonl"
    try:
        _run(found, file, o)
    except KeyboardInterrupt:
        click.echo(f"\nStopped. The same command with --save {file} goes on from there.", err=True)
        sys.exit(130)
    summary = _report([file], o, None)
    click.echo(f"The log is in {file}", err=True)
    sys.exit(int(any(each.failed for each in summary.candidates.values())))


def _run(found: EvalSet, file: Path, o: dict[str, Any]) -> None:
    flags = Flags(config=o["config"], docs=o["docs"], models=o["models"])
    with asked(flags, o["apps"], o["judge"], shown=not o["as_json"]) as whom, opened(file) as log:
        _check_candidates(whom, o["budget_usd"])
        plan = _plan(found, whom, o)
        cache = None if o["no_cache"] else Cache(CACHE)
        runner = EvalRunner(plan, log, cache)
        _announce(plan, log)
        logging.getLogger("slipway").setLevel(logging.ERROR)  # what failed is in the report
        try:
            ended = asyncio.run(_ask_all(runner, whom, shown=not o["as_json"]))
        finally:
            if cache is not None:
                cache.close()
        _say_end(ended, runner, plan)


async def _ask_all(runner: EvalRunner, whom: AskedCandidates, *, shown: bool) -> str:
    with Bar("asking   ", shown) as bar:
        try:
            return await runner.run(bar.update)
        finally:
            await whom.close()


def _check_candidates(whom: AskedCandidates, budget_usd: float | None) -> None:
    unpriced = [each.name for each in whom.candidates if not each.priced]
    if not whom.candidates:
        raise SettingsError(
            ["there is nobody to ask but the judge; add --model MODEL or --app APP"]
        )
    if budget_usd is not None and unpriced:
        raise SettingsError(
            [
                (
                    f"--budget: what {', '.join(unpriced)} costs is not known, and is not 0; "
                    "give each model a `price` in the settings file"
                )
            ]
        )


def _plan(found: EvalSet, whom: AskedCandidates, o: dict[str, Any]) -> Plan:
    return Plan(
        found=found,
        candidates=whom.candidates,
        style=o["style"] or found.style,
        parameters=_parameters(o["parameters"], o["max_tokens"] or found.max_tokens),
        examples=o["examples"],
        limit=o["limit"],
        seed=o["seed"],
        concurrency=o["concurrency"],
        stop=o["stop"] and len(whom.candidates) > 1,  # one alone has nobody to beat
        budget_usd=o["budget_usd"],
        judge=whom.judge,
    )


def check_numpy() -> None:
    """Raise SettingsError if the library for resampling is not installed."""
    if find_spec("numpy") is None:
        raise SettingsError(["intervals need numpy: pip install 'slipway[evals]'"])


def run_set(
    found: EvalSet,
    file: Path,
    *,
    models: tuple[str, ...],
    config: Path | None,
    limit: int | None,
    budget_usd: float | None,
    stop: bool,
) -> None:
    """Asks these models a set, with what `slipway eval run` takes if nothing else is said."""
    asked: dict[str, Any] = {
        "docs": (),
        "apps": (),
        "judge": None,
        "style": None,
        "examples": False,
        "max_tokens": None,
        "parameters": (),
        "seed": 0,
        "concurrency": 4,
        "no_cache": False,
        "as_json": False,
    }
    given = {
        "models": models,
        "config": config,
        "limit": limit,
        "budget_usd": budget_usd,
        "stop": stop,
    }
    _run(found, file, {**asked, **given})


def _announce(plan: Plan, log: Any) -> None:
    items = plan.items
    known = {name for name, _ in log.answers}
    click.echo(
        f"{plan.found.name}: {len(items):,} items for {', '.join(c.name for c in plan.candidates)}",
        err=True,
    )
    if known:
        click.echo(
            f"{log.file} has {len(log.answers):,} answers already; those that were made in the "
            "same way are not asked again",
            err=True,
        )


def _say_end(ended: str, runner: EvalRunner, plan: Plan) -> None:
    if ended == "budget":
        click.echo(
            f"Stopped at the budget: ${runner.spent:f} of ${plan.budget_usd:g} is spent.", err=True
        )
    elif ended == "decided":
        click.echo(
            f"Stopped early: {runner.race.winner} has won after {runner.race.items:,} items.",
            err=True,
        )


def _parameters(written: tuple[str, ...], max_tokens: int) -> dict[str, Any]:
    found: dict[str, Any] = {"temperature": 0, "max_tokens": max_tokens}
    for each in written:
        name, sign, value = each.partition("=")
        if not sign or not name:
            raise SettingsError(
                [f"--parameter: `{each}` is not NAME=JSON, such as temperature=0.7"]
            )
        try:
            found[name] = json.loads(value)
        except json.JSONDecodeError:
            found[name] = value
    return {name: value for name, value in found.items() if value is not None}


# Reports


def _report(
    files: list[Path], o: dict[str, Any], tag: str | None, *, compare: bool = False
) -> Summary:
    check_numpy()
    summary = summary_of(files, tag)
    if compare and not summary.comparisons:
        raise SettingsError(
            [
                (
                    "LOG: there is one candidate only; name a log of another, or run both: "
                    "slipway eval run"
                )
            ]
        )
    if o["as_json"]:
        click.echo(json.dumps(run_reports.as_data(summary), indent=2, ensure_ascii=False))
    else:
        lines = run_reports.compared_text(summary) if compare else run_reports.as_text(summary)
        click.echo("\n".join(lines))
    if o.get("markdown"):
        _write(o["markdown"], "\n".join(run_reports.as_markdown(summary)) + "\n")
    if o.get("html"):
        _write(o["html"], html(summary))
    return summary


def _write(file: Path, text: str) -> None:
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise SettingsError(
            [f"{file} cannot be written: {(error.strerror or str(error)).lower()}"]
        ) from None
    click.echo(f"The report is in {file}", err=True)


_LOGS = click.argument("logs", nargs=-1, required=True, type=NonEmptyPath(), metavar="LOG...")
_TAG = click.option("--tag", help="Only items with this tag.")


@click.command("report")
@_LOGS
@_TAG
@_HTML
@_MARKDOWN
@JSON
def report(logs: tuple[Path, ...], tag: str | None, **o: Any) -> None:
    """Make the report of a run again, from its log: the same log gives the same bytes.

    \b
    slipway eval report .slipway/evals/runs/mmlu-20261128-101500.jsonl --html report.html
    """
    _report(list(logs), o, tag)


@click.command("compare")
@_LOGS
@_TAG
@JSON
def compare(logs: tuple[Path, ...], tag: str | None, **o: Any) -> None:
    """Say who is better, of the candidates of one log or of several of the same set.

    \b
    slipway eval compare monday.jsonl tuesday.jsonl
    """
    _report(list(logs), o, tag, compare=True)


# Judges


@click.command("judge")
@click.option(
    "--labels",
    type=NonEmptyPath(),
    required=True,
    help='JSONL or CSV with verdicts of people: {"question", "reference", "answer", "right"}.',
)
@click.option("--model", "judge", required=True, metavar="MODEL", help="Model that judges.")
@CONFIG
@click.option(
    "--concurrency",
    type=click.IntRange(min=1),
    default=4,
    show_default=True,
    help="Answers under way at once.",
)
@JSON
def judge(labels: Path, judge: str, config: Path | None, concurrency: int, as_json: bool) -> None:
    """Measure how often a model judges answers as people do, and as itself in another order.

    \b
    slipway eval judge --labels judged.csv --model dashscope/qwen-plus
    """
    found = eval_judge.measured(labels, judge, config, concurrency, shown=not as_json)
    click.echo(json.dumps(found.data, indent=2) if as_json else "\n".join(found.lines))


# Sets


@click.group("sets")
def sets_group() -> None:
    """List, show and add evaluation sets."""


@sets_group.command("list")
@JSON
def sets_list(as_json: bool) -> None:
    """List the sets and the scorers."""
    rows = [
        {
            "name": each.name,
            "items": len(each.items),
            "scorer": each.scorer,
            "licence": each.licence or None,
            "title": each.title,
            "source": each.source,
        }
        for each in sets.listed()
    ]
    if as_json:
        click.echo(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    for row in rows:
        click.echo(f"{row['name']:12} {row['items']:>6,}  {row['scorer']:10} {row['title']}")
    click.echo("\nscorers")
    for name, scorer in SCORERS.items():
        click.echo(f"  {name:10} {scorer.meaning}")


@sets_group.command("show")
@click.argument("name")
@click.option(
    "--limit", type=click.IntRange(min=1), default=3, show_default=True, help="So many items."
)
def sets_show(name: str, limit: int) -> None:
    """Print what a model reads of the first items of a set."""
    found = sets.named(name)
    click.echo(
        f"{found.name}: {found.title}, {len(found.items):,} items, scorer {found.scorer}, digest "
        f"{found.digest}"
    )
    for item in found.items[:limit]:
        click.echo(f"\n--- {item.id}")
        click.echo(wording.messages(found, item, found.style)[0]["content"])
        click.echo(f"--- right: {item.reference or [gold.page for gold in item.gold]}")


@sets_group.command("add")
@click.argument("file", type=NonEmptyPath())
@click.option("--name", required=True, help="The set's name from now on.")
@click.option("--scorer", help="How it is scored; what the items look like decides if left out.")
def sets_add(file: Path, name: str, scorer: str | None) -> None:
    """Keep a JSONL or CSV file as a set of your own; the published forms of AGIEval, MedQA, MedMCQA,
    PubMedQA and GSM8K are read too.

    \b
    slipway eval sets add questions.csv --name support
    slipway eval sets add agieval_lsat-lr.jsonl.gz --name lsat
    """
    found = sets.read(file, scorer=scorer)
    kept = sets.add(found, name)
    click.echo(f"{len(found.items):,} items, scorer {found.scorer}: {kept}")


@sets_group.command("from-feedback")
@CONFIG
@click.option("--app", help="Only of this app.")
@click.option("--since", metavar="DURATION", help="Only what came in the last `7d`, `12h` …")
@click.option("--name", required=True, help="The set's name from now on.")
def sets_from_feedback(config: Path | None, app: str | None, since: str | None, name: str) -> None:
    """Make a set of the answers that people called helpful: what was asked, with the answer as the
    reference and its sources as gold.

    \b
    slipway eval sets from-feedback --name liked
    slipway eval run --set liked --config slipway.yaml
    """
    click.echo("\n".join(eval_feedback.collected(config, app, since, name)))


COMMANDS = (run, report, compare, judge, sets_group)
