"""Fetch weights that --model names and that are not here yet, while the server starts or before an
answer.
"""

import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import click

from slipway import weights
from slipway.errors import WeightsError
from slipway.terminal import ProgressBar

MB = 1_000_000
STEPS = 10  # lines of progress if there is no terminal


class FetchStopped(Exception):
    """The server ends, so an unfinished fetch is given up."""


class FetchProgress:
    """The progress of one fetch: a bar in a terminal, lines elsewhere. `stop` ends it from another
    thread.
    """

    def __init__(self, name: str, shown: bool, stop: threading.Event | None = None) -> None:
        self.name, self.shown, self.stop = name, shown, stop
        self.bar = ProgressBar(f"{name} (MB)", shown and sys.stderr.isatty())
        self.last_step = -1

    def update(self, done: int, total: int) -> None:
        """Show the progress in bytes. Raises FetchStopped once `stop` is set."""
        if self.stop is not None and self.stop.is_set():
            raise FetchStopped
        self.bar.update(done // MB, total // MB)
        step = STEPS * done // total
        if self.shown and not sys.stderr.isatty() and step > self.last_step:
            self.last_step = step
            click.echo(f"{self.name}: {done // MB} of {total // MB} MB fetched", err=True)


def missing(models: Iterable[str]) -> list[str]:
    """Return the references that are names of weights and are not here."""
    return [name for name in models if name in weights.table() and weights.found(name) is None]


def fetch(models: Iterable[str], *, shown: bool, stop: threading.Event | None = None) -> None:
    """Fetch the weights that are missing; block until they are here. Raises WeightsError or
    FetchStopped.
    """
    for name in missing(models):
        seen = FetchProgress(name, shown, stop)
        try:
            weights.pull(name, seen.update)
        finally:
            seen.bar.finish()


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
