"""Weights named by --model that are not here yet: a person asked for them, so they are fetched,
beside the server or before an answer.
"""

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import click

from slipway import weights
from slipway.errors import WeightsError
from slipway.terminal import Bar

MB = 1_000_000


class Stopped(Exception):
    """The server ends; what is half fetched is given up."""


def missing(models: Iterable[str]) -> list[str]:
    """Those of these references that are names of weights, and are not here."""
    return [name for name in models if name in weights.table() and weights.found(name) is None]


def fetch(models: Iterable[str], *, shown: bool, stop: threading.Event | None = None) -> None:
    """Blocks until they are here. Raises WeightsError, or Stopped."""
    for name in missing(models):
        with Bar(f"{name} (MB)", shown) as bar:

            def update(done: int, total: int, bar: Bar = bar) -> None:
                if stop is not None and stop.is_set():
                    raise Stopped
                bar.update(done // MB, total // MB)

            weights.pull(name, update)


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
