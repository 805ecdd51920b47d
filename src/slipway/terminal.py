"""What a person sees who waits in a terminal."""

import sys
from typing import Any

import click


class Bar:
    """A progress bar with the time left, where a person watches; otherwise nothing."""

    def __init__(self, label: str, shown: bool) -> None:
        self._bar: Any = None
        self._label, self._shown = label, shown

    def tell(self, done: int, total: int) -> None:
        if not self._shown or not total:
            return
        if self._bar is None:
            self._bar = click.progressbar(
                length=total, label=self._label, show_eta=True, show_pos=True, file=sys.stderr
            )
            self._bar.__enter__()
        self._bar.length = total
        self._bar.update(done - self._bar.pos)

    def end(self) -> None:
        if self._bar is not None:
            self._bar.__exit__(None, None, None)
