"""What a person who waits in a terminal sees."""

import sys
from types import TracebackType
from typing import Any

import click


class Bar:
    """Progress on stderr: a bar with the time left in a terminal, a line for each tenth elsewhere.

    Nothing is written if it is not `shown`. Use it in a `with` statement: however the block ends,
    the cursor is visible again.
    """

    def __init__(self, label: str, shown: bool) -> None:
        self._bar: Any = None
        self._label, self._shown = label, shown
        self._tenths = 0  # already written as lines

    def __enter__(self) -> "Bar":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end()

    def update(self, done: int, total: int) -> None:
        """Show `done` of `total`; the first call with a total draws the bar."""
        if not self._shown or not total:
            return
        if not sys.stderr.isatty():
            self._write_line(done, total)
            return
        if self._bar is None:
            self._bar = click.progressbar(
                length=total, label=self._label, show_eta=True, show_pos=True, file=sys.stderr
            )
            self._bar.__enter__()
        self._bar.length = total
        self._bar.update(done - self._bar.pos)

    def _write_line(self, done: int, total: int) -> None:
        tenths = 10 * done // total
        if tenths > self._tenths:
            self._tenths = tenths
            click.echo(f"{self._label.strip()}: {done:,} of {total:,} ({10 * tenths} %)", err=True)

    def end(self) -> None:
        """Finish the line and show the cursor again; further calls change nothing."""
        bar, self._bar = self._bar, None
        if bar is not None:
            bar.__exit__(None, None, None)
