"""Define the command line of `slipway compress`; `compress_run.py` does the work."""

import json
import sys
from pathlib import Path
from typing import Any

import click

from slipway.commands.options import JSON, NonEmptyPath

RUN = "run"


class Group(click.Group):
    """`slipway compress MODEL` is `slipway compress run MODEL`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in (*self.commands, "-h", "--help"):
            args = [RUN, *args]
        return super().parse_args(ctx, args)


@click.group(cls=Group)
def command() -> None:
    """Make a model smaller and faster on this machine, and prove what that cost.

    \b
    slipway compress MODEL --target size=92MB                  8 bits if that is enough, else 4
    slipway compress MODEL --prune depth:3 --distil ./texts --quant q4_0
    slipway compress rollback NAME --config slipway.yaml       take the result back

    MODEL is a GGUF file, a folder in Hugging Face's layout, or a name of `slipway weights list`.
    """


@command.command(RUN)
@click.argument("model")
@click.option(
    "--target",
    multiple=True,
    metavar="WHAT=VALUE",
    help="size=92MB, speed=1.7x, quality=-2pp (points of answers) or perplexity=+8%. Repeatable.",
)
@click.option("--prune", metavar="HOW", help="depth:3 takes 3 layers out, width:1280 narrows each.")
@click.option(
    "--distil",
    type=NonEmptyPath(),
    metavar="TEXT",
    help="Text of yours to learn from: a file or folder.",
)
@click.option(
    "--calibrate", type=NonEmptyPath(), help="Text of yours to round by, if it is not distilled on."
)
@click.option("--quant", metavar="FORM", help="f16, q8_0, q4_k_m, q4_0_m or q4_0.")
@click.option(
    "--out", type=NonEmptyPath(), metavar="DIR", help="Folder for the run [default: NAME.compress]."
)
@click.option("--test", type=NonEmptyPath(), help="Text to test on; part of --distil if left out.")
@click.option(
    "--other", type=NonEmptyPath(), help="Text of another kind; general text if left out."
)
@click.option(
    "--questions",
    type=NonEmptyPath(),
    help="JSONL of questions with answers, as for `slipway eval`.",
)
@click.option(
    "--docs",
    type=NonEmptyPath(),
    multiple=True,
    help="Documents that --questions are about. Repeatable.",
)
@click.option(
    "--minutes", type=float, default=25.0, show_default=True, help="Processor time for distilling."
)
@click.option(
    "--rounds", type=click.IntRange(0, 25), default=7, show_default=True,
    help="Rounds of timing in turns, 5 or more; 0 leaves timing out.",
)  # fmt: skip
@click.option(
    "--price-hour", type=click.FloatRange(0), help="USD an hour of a machine, for the cost."
)
@click.option("--name", help="Name of the result [default: made from MODEL].")
@click.option(
    "--config", type=NonEmptyPath(), help="Settings file that the result is registered in."
)
@click.option("--route", help="Route of that file that gives the result a share.")
@click.option("--canary", default="5%", show_default=True, help="That share of the questions.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@click.option(
    "--recipe", help="awq, gptq, fp8 or w8a8: write what to run on a graphics card instead."
)
def run(as_json: bool, recipe: str | None, **asked: Any) -> None:
    """Compress MODEL: read, prune, distil, quantise, measure, register.

    A stopped run goes on if the same command is given again. The report is in the folder of --out.
    The exit code is 1 if a target is missed or cannot be decided.
    """
    from slipway.commands import compress_run as does

    if recipe:
        click.echo("\n".join(does.recipe(recipe, asked["model"], asked["out"])))
        return
    sys.exit(does.run(does.AskedColumns(**asked), as_json=as_json))


@command.command()
@click.argument("name")
@click.option("--config", type=NonEmptyPath(), help="Settings file to take it out of, too.")
@JSON
def rollback(name: str, config: Path | None, as_json: bool) -> None:
    """Take a registered result out of the routes, the models and the weights.

    A server that runs takes the changed settings up by itself. What it was made from stays.
    """
    from slipway.commands import compress_run as does

    done = does.rollback(name, config)
    click.echo(json.dumps({"done": done}) if as_json else "\n".join(done))


@command.command()
@click.argument("model")
@click.argument("out", type=NonEmptyPath())
def convert(model: str, out: Path) -> None:
    """Convert between GGUF and Hugging Face's layout, in float16.

    \b
    slipway compress convert model.gguf ./model      to config.json, model.safetensors, tokenizer.json
    slipway compress convert ./model model.gguf      and back
    """
    from slipway.commands import compress_run as does

    click.echo(does.convert(model, out, shown=sys.stderr.isatty()))
