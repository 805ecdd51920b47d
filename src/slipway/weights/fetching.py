"""Weights named by --model that are not here yet: a person asked for them, so they are fetched,
beside the server or before an answer.
"""

import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import click

from slipway import weights
from slipway.errors import WeightsError
from slipway.terminal import Bar

MB = 1_000_000
STEPS = 10  # lines of progress where nobody watches a bar


class Stopped(Exception):
    """The server ends; what is half fetched is given up."""


class Shown:
    """One fetch as a bar in a terminal, as lines elsewhere. `stop` ends it from another thread."""

    def __init__(self, name: str, shown: bool, stop: threading.Event | None = None) -> None:
        self.name, self.shown, self.stop = name, shown, stop
        self.bar = Bar(f"{name} (MB)", shown and sys.stderr.isatty())
        self.told = -1

    def tell(self, done: int, total: int) -> None:
        if self.stop is not None and self.stop.is_set():
            raise Stopped
        self.bar.tell(done // MB, total // MB)
        step = STEPS * done // total
        if self.shown and not sys.stderr.isatty() and step > self.told:
            self.told = step
            click.echo(f"{self.name}: {done // MB} of {total // MB} MB are here", err=True)


def missing(models: Iterable[str]) -> list[str]:
    """Those of these references that are names of weights, and are not here."""
    return [name for name in models if name in weights.table() and weights.found(name) is None]


def fetch(models: Iterable[str], *, shown: bool, stop: threading.Event | None = None) -> None:
    """Blocks until they are here. Raises WeightsError, or Stopped."""
    for name in missing(models):
        seen = Shown(name, shown, stop)
        try:
            weights.pull(name, seen.tell)
        finally:
            seen.bar.end()


@contextmanager
def beside(models: Iterable[str], *, shown: bool) -> Iterator[None]:
    """They are fetched while the body runs, and no longer. Where one cannot be had, that is told,
    and the body runs on.
    """
    stop = threading.Event()

    def work() -> None:
        try:
            fetch(models, shown=shown, stop=stop)
        except WeightsError as error:
            click.echo(f"slipway: {error.what} {error.next}", err=True)
        except Stopped:
            return

    thread = threading.Thread(target=work, daemon=True, name="slipway-fetching")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(2.0)  # a source that says nothing is not waited for
