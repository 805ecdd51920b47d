"""What a person who waits in a terminal sees."""

import logging
import re
import sys
from types import TracebackType
from typing import Any

import click

# C0 and C1 control characters but tab and line feed, and those that change the reading direction
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def printable(text: str, *, one_line: bool = False) -> str:
    """Return the text with control characters escaped, so that it cannot steer a terminal or a log.

    With `one_line`, tabs and line ends are escaped too.
    """
    text = _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
    return text.replace("\n", "\\n").replace("\t", "\\t") if one_line else text


class PrintableArguments(logging.Filter):
    """Escapes control characters in the arguments of log records, such as names of documents."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Change the record's text arguments in place; every record passes."""
        if isinstance(record.args, tuple):
            record.args = tuple(
                printable(each, one_line=True) if isinstance(each, str) else each
                for each in record.args
            )
        return True


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
