"""`slipway serve`."""

from pathlib import Path

import click

from slipway.app.serving import serve
from slipway.commands.options import PORT, WorkerCount, settings_options
from slipway.settings import Flags


@click.command("serve")
@settings_options
@click.option("--host", help="Address to listen on [default: 127.0.0.1].")
@click.option("--port", type=PORT, help="Port to listen on; 0 takes a free one [default: 8080].")
@click.option(
    "--workers",
    type=WorkerCount(),
    help="Worker processes that share the port, one core for each [default: 1].",
)
@click.option(
    "--log",
    type=click.Choice(["text", "json"]),
    help="`json` logs each request as a line of JSON, without content [default: text].",
)
@click.option("--quiet", is_flag=True, help="Show only warnings and errors.")
def command(
    config: Path | None,
    docs: tuple[Path, ...],
    models: tuple[str, ...],
    host: str | None,
    port: int | None,
    workers: int | None,
    log: str | None,
    quiet: bool,
) -> None:
    """Serve the OpenAI API, answers over documents, and the chat page.

    \b
    Answers quoted from the documents, no model needed:
      slipway serve --docs ./docs
    Answers written by a model, with sources:
      slipway serve --docs ./docs --model dashscope/qwen-plus
    A gateway in front of your own model server, on two cores:
      slipway serve --model http://127.0.0.1:8000/v1 --workers 2
    """
    flags = Flags(
        config=config,
        docs=docs,
        models=models,
        host=host,
        port=port,
        workers=workers,
        log=log,
    )
    serve(flags, quiet=quiet)
