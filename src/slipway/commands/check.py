"""`slipway check`."""

import json
from pathlib import Path

import click

from slipway.app.serving import check
from slipway.commands.options import PORT, settings_options
from slipway.settings import Flags, json_schema


@click.command("check")
@settings_options
@click.option("--host", help="Address that a server would listen on.")
@click.option("--port", type=PORT, help="Port that a server would listen on.")
@click.option("--schema", is_flag=True, help="Print the JSON Schema of the settings file.")
def command(
    config: Path | None,
    docs: tuple[Path, ...],
    models: tuple[str, ...],
    host: str | None,
    port: int | None,
    schema: bool,
) -> None:
    """Check the settings, the port and the store without starting.

    The exit code is 2 if a server could not start with them.
    """
    if schema:
        click.echo(json.dumps(json_schema(), indent=2))
        return
    for line in check(Flags(config=config, docs=docs, models=models, host=host, port=port)):
        click.echo(line)
