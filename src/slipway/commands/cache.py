"""`slipway cache`: what the cache does with a question."""

import click

from slipway.commands.cache_explain import command as explain


@click.group("cache")
def command() -> None:
    """Look into the cache of a running server."""


command.add_command(explain)
