"""`slipway prices`: what models cost."""

import click


@click.group("prices")
def command() -> None:
    """Show what models cost, and where the price is from."""
