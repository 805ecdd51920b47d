"""The command line: a table of commands, each imported only when it is called."""

import logging
from importlib import import_module
from typing import Any

import click

import slipway
from slipway.errors import SettingsError, SlipwayError
from slipway.terminal import PrintableArguments

# name -> what it does, in one line; the command itself is `command` in slipway.commands.NAME
COMMANDS = {
    "serve": "Serve the OpenAI API, answers over documents, and the chat page.",
    "ask": "Ask a question in the terminal.",
    "check": "Say whether a deployment is ready, and what to change.",
    "ingest": "Read the documents now.",
    "store": "Look after the store: its schema, backups, and old rows.",
    "keys": "Make, list, replace and revoke API keys.",
    "weights": "Fetch and check the small models that Slipway runs itself.",
    "mock": "Run a provider to test against, with delays and faults on demand.",
    "prompt": "Show exactly what a model reads.",
    "trace": "Show what happened to an answer, or to the latest ones.",
    "rules": "Test and explain the rules that answer without a model.",
    "feedback": "List what people said of answers.",
    "cache": "Show what kept answers saved, explain and remove them.",
    "ledger": "Show what was spent, and compare it with an invoice.",
    "prices": "Show what models cost, and where the price is from.",
    "alerts": "Show alerts, write rules for Prometheus, test who is notified.",
    "eval": "Measure how good search and answers are.",
    "plan": "Choose a model and a deployment for what a business needs.",
    "models": "Look into the catalogue of models: tasks, prices, licences, zones.",
    "compress": "Make a model smaller and faster here, with proof and a way back.",
}


class LazyGroup(click.Group):
    """A group that imports a command's module when the command is called, not before.

    Errors of ours end a command with their sentence and an exit code: 2 for settings, 1 for others.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f"slipway.commands.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands from the table, so that `--help` imports none of them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except SettingsError as error:
            for problem in error.problems:
                click.echo(f"slipway: {problem}", err=True)
            ctx.exit(2)
        except SlipwayError as error:
            click.echo(f"slipway: {error.what} {error.next}".rstrip(), err=True)
            ctx.exit(1)


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(slipway.__version__, prog_name="slipway")
def main() -> None:
    """Put an LLM application into production: one process between its users and its models.

    `slipway COMMAND --help` explains a command.
    """
    logging.getLogger("slipway").addFilter(PrintableArguments())
