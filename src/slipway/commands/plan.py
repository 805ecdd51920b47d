"""`slipway plan`: from requirements to a model and a deployment, with the reasons."""

import json
import sys
from pathlib import Path
from typing import Any

import click

from slipway.commands import plan_making
from slipway.commands.options import JSON, NonEmptyPath
from slipway.errors import SettingsError
from slipway.planner import decisions, interview
from slipway.planner.catalogue import load

_CATALOGUE = click.option(
    "--catalogue",
    "catalogues",
    type=NonEmptyPath(),
    multiple=True,
    help="Facts of your own about models and machines, which count before ours. Repeatable.",
)


class FileOrCommand(click.Group):
    """`slipway plan FILE` makes a plan; `slipway plan init` and others are commands."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        first = next((each for each in args if not each.startswith("-")), None)
        if first not in self.commands and not {"-h", "--help"} & set(args[:1]):
            args = ["make", *args]
        return super().parse_args(ctx, args)


@click.group("plan", cls=FileOrCommand)
def command() -> None:
    """Choose a model and a deployment for what a business needs, and say why.

    \b
    slipway plan init                      asks what you need, and writes requirements.yaml
    slipway plan requirements.yaml         makes the plan
    slipway plan replay plan/decision.json makes it again, and says what has changed
    """


@command.command("make", hidden=True)
@click.argument("file", type=NonEmptyPath(), required=False)
@_CATALOGUE
@click.option(
    "--evidence",
    "logs",
    type=NonEmptyPath(),
    multiple=True,
    metavar="LOG",
    help="Log of slipway eval run whose candidates are models of the catalogue. Repeatable.",
)
@click.option(
    "--evaluate",
    is_flag=True,
    help="Measure those who pass and are set up in the settings, on `quality.set`.",
)
@click.option(
    "--config",
    type=NonEmptyPath(),
    help="Settings file for --evaluate; `slipway.yaml` here if there is one.",
)
@click.option(
    "--limit", type=click.IntRange(min=1), metavar="N", help="Items for --evaluate, at most."
)
@click.option(
    "--budget",
    "budget_usd",
    type=click.FloatRange(min=0),
    metavar="USD",
    help="What --evaluate may cost.",
)
@click.option(
    "--out",
    type=NonEmptyPath(),
    default=Path("plan"),
    show_default=True,
    help="Folder for report.html, decision.json and slipway.yaml.",
)
@click.option(
    "--today",
    metavar="DATE",
    help="The day of the plan, such as 2026-11-28; models that end by then are not offered.",
)
@click.option("--why", metavar="MODEL", help="Say why this model passes or does not.")
@click.option("--fields", is_flag=True, help="List all fields of a requirements file, and stop.")
@JSON
def make(file: Path | None, as_json: bool, fields: bool, **o: Any) -> None:
    """Make the plan of a requirements file. The exit code is 1 while a condition is not met."""
    if fields:
        click.echo("\n".join(plan_making.field_lines()))
        return
    if file is None:
        raise SettingsError(["FILE: name a requirements file; slipway plan init writes one"])
    made = plan_making.make(file, o)
    if o["why"]:
        click.echo("\n".join(plan_making.why(made, o["why"])))
        return
    files = plan_making.write(made, o["out"])
    if as_json:
        click.echo(files["decision"].read_text(), nl=False)
    else:
        click.echo("\n".join(plan_making.lines(made)))
    for name, path in files.items():
        click.echo(f"{name:9} {path}", err=True)
    sys.exit(0 if made.decision.ready else 1)


@command.command("init")
@click.option(
    "--out",
    type=NonEmptyPath(),
    default=Path("requirements.yaml"),
    show_default=True,
    help="File to write.",
)
@click.option(
    "--page", is_flag=True, help="Ask on a page in the browser instead of in the terminal."
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8090,
    show_default=True,
    help="Port of the page; 0 takes a free one.",
)
@_CATALOGUE
def init(out: Path, page: bool, port: int, catalogues: tuple[Path, ...]) -> None:
    """Ask what you need, and write it as a requirements file.

    Press Enter to take the value in brackets.
    """
    if out.exists() and not page and not click.confirm(f"{out} is there already. Write over it?"):
        sys.exit(1)
    if page:
        from slipway.commands import plan_page

        plan_page.serve(out, port, catalogues)
        return

    def ask(asking: interview.Asking) -> str:
        hint = f" ({asking.hint})" if asking.hint else ""
        if len(asking.choices) > 4:
            click.echo(f"  {', '.join(asking.choices)}")
        choices = f" {'/'.join(asking.choices)}" if 0 < len(asking.choices) <= 4 else ""
        return str(
            click.prompt(
                f"{asking.question}{hint}{choices}",
                default=asking.default,
                show_default=bool(asking.default),
                err=True,
            )
        )

    raw = interview.asked(
        ask, lambda problem: click.echo(f"  That cannot be used: {problem}", err=True)
    )
    try:
        out.write_text(interview.written(raw), encoding="utf-8")
    except OSError as error:
        raise SettingsError(
            [f"--out: {out} cannot be written: {(error.strerror or str(error)).lower()}"]
        ) from None
    click.echo(f"\n{out} is written. Now make the plan:\n  slipway plan {out}")


@command.command("replay")
@click.argument("file", type=NonEmptyPath())
@_CATALOGUE
@JSON
def replay(file: Path, catalogues: tuple[Path, ...], as_json: bool) -> None:
    """Make a decision again from its file and print what changed; if anything did, exit with 1."""
    before = decisions.read(file)
    again, changed = decisions.replayed(before, load(catalogues))
    if as_json:
        click.echo(
            json.dumps(
                {"same": not changed, "changed": changed, "chosen": again.chosen},
                indent=2,
                ensure_ascii=False,
            )
        )
    else:
        click.echo(
            "\n".join(changed) if changed else f"The same decision: {again.chosen or 'no model'}."
        )
    sys.exit(int(bool(changed)))
