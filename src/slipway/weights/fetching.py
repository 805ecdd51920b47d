"""Fetch weights that --model names and that are not here yet, while the server starts or before an
answer.
"""

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import click

from slipway import weights
from slipway.errors import WeightsError
from slipway.terminal import Bar

MB = 1_000_000


class FetchStopped(Exception):
    """The server ends, so an unfinished fetch is given up."""


def missing(models: Iterable[str]) -> list[str]:
    """Return the references that are names of weights and are not here."""
    return [name for name in models if name in weights.table() and weights.found(name) is None]


def fetch(models: Iterable[str], *, shown: bool, stop: threading.Event | None = None) -> None:
    """Fetch the weights that are missing; block until they are here. Raises WeightsError or
    FetchStopped.
    """
    for name in missing(models):
        with Bar(f"{name} (MB)", shown) as bar:

            def update(done: int, total: int, bar: Bar = bar) -> None:
                if stop is not None and stop.is_set():
                    raise FetchStopped
                bar.update(done // MB, total // MB)

            weights.pull(name, update)


@contextmanager
def in_background(models: Iterable[str], *, shown: bool) -> Iterator[None]:
    """Fetch while the body runs, and no longer. If weights cannot be fetched, print why; the body
    continues.
    """
    stop = threading.Event()

    def work() -> None:
        try:
            fetch(models, shown=shown, stop=stop)
        except WeightsError as error:
            click.echo(f"slipway: {error.what} {error.next}", err=True)
        except FetchStopped:
            return

    thread = threading.Thread(target=work, daemon=True, name="slipway-fetching")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(2.0)  # do not wait for a source that is silent
