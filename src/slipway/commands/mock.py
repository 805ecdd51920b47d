"""`slipway mock`."""

import asyncio
from typing import Any

import click

from slipway.commands.options import PORT, NonEmptyPath
from slipway.errors import SettingsError
from slipway.providers import mock
from slipway.providers.mock.continuing import CONTINUES
from slipway.providers.mock.engine_metrics import ENGINES


@click.command("mock")
@click.option("--host", default="127.0.0.1", show_default=True, help="Loopback address to use.")
@click.option(
    "--port", type=PORT, default=9100, show_default=True, help="Port; 0 takes a free one."
)
@click.option(
    "--ttft",
    "ttft_s",
    type=click.FloatRange(0),
    default=0.05,
    show_default=True,
    help="Seconds to the first token.",
)
@click.option(
    "--tpot",
    "tpot_s",
    type=click.FloatRange(0),
    default=0.01,
    show_default=True,
    help="Seconds between tokens.",
)
@click.option(
    "--tokens",
    type=click.IntRange(1),
    default=48,
    show_default=True,
    help="Tokens of an answer.",
)
@click.option(
    "--spread",
    type=click.FloatRange(0),
    default=0.0,
    show_default=True,
    help="How much length and speed vary between answers: 0.2 is by a fifth.",
)
@click.option(
    "--prefill",
    type=click.FloatRange(0),
    default=0.0,
    show_default=True,
    help="Prompt tokens read in a second; 0 reads them in no time.",
)
@click.option(
    "--seed", default=0, show_default=True, help="The same seed gives the same answers and faults."
)
@click.option("--api-key", help="Key to require [default: any key is accepted].")
@click.option(
    "--bad-key", "bad_keys", multiple=True, metavar="KEY", help="Key to refuse. Repeatable."
)
@click.option("--text", help="Answer with exactly this text.")
@click.option(
    "--script",
    multiple=True,
    metavar="FAULT[%P][@WHEN][xM]",
    help="Fault, by call number, time and chance. Repeatable.",
)
@click.option(
    "--continues",
    type=click.Choice(list(CONTINUES)),
    default="exact",
    show_default=True,
    help="How it continues an answer that another model began.",
)
@click.option("--tls-cert", type=NonEmptyPath(), help="Certificate to serve TLS with, a PEM file.")
@click.option("--tls-key", type=NonEmptyPath(), help="Key of the certificate, a PEM file.")
@click.option(
    "--price",
    "prices",
    nargs=2,
    metavar="INPUT OUTPUT",
    help="USD per million tokens; GET /invoice then lists what each call costs.",
)
@click.option(
    "--metrics",
    type=click.Choice(list(ENGINES)),
    help="Publish metrics at /metrics as this server does.",
)
@click.option("--faults", is_flag=True, help="List the faults and exit.")
def command(faults: bool, **settings: Any) -> None:
    """Run a provider to test against: OpenAI's API with set delays, lengths and faults.

    \b
    slipway mock --port 9100 &
    slipway serve --model http://127.0.0.1:9100/v1#mock-model
    curl -N localhost:8080/v1/chat/completions -H 'Content-Type: application/json' \\
      -d '{"model": "mock-model", "stream": true,
           "messages": [{"role": "user", "content": "Hello"}]}'
    """
    if faults:
        for name, meaning in mock.FAULTS.items():
            click.echo(f"{name:12} {meaning}")
        return
    try:
        asyncio.run(
            mock.serve(
                mock.MockSettings(**settings),
                lambda server: click.echo(f"mock provider at {server.url}"),
            )
        )
    except ValueError as error:
        raise SettingsError([str(error)]) from None
    except OSError as error:
        raise SettingsError(
            [
                (
                    f"--port: {settings['port']} of {settings['host']} cannot be used "
                    f"({error.strerror}); choose another"
                )
            ]
        ) from None
