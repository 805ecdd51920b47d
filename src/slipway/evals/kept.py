"""Keep the answers of a run, one line each in a file if one is named, so that nothing is paid for
twice.
"""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import msgspec

from slipway.errors import SettingsError
from slipway.evals.answers import ColumnAnswer
from slipway.evals.locking import lock
from slipway.evals.questions import GoldQuestion
from slipway.providers import encode_json
from slipway.types import Record

_BEGINS = b'{"column":"'  # each line of ours


class Todo(Record, frozen=True, kw_only=True):
    """One question for one column. `made` is a hash of the settings and documents."""

    column: str
    question: GoldQuestion
    without_gold: bool
    made: str


class Kept:
    """The answers of a run. The latest line for the same question counts.

    One run locks the file until it ends. Raises SettingsError, and leaves the file as it is, if
    another run has it or if it contains something else.
    """

    def __init__(self, file: Path | None) -> None:
        self.file = file
        self._answers: dict[str, ColumnAnswer] = {}
        self._out = None if file is None else self._opened(file)

    def _opened(self, file: Path) -> BinaryIO:
        with contextlib.ExitStack() as undo:
            try:
                out = undo.enter_context(file.open("a+b"))
            except OSError as error:
                raise self._unwritable(error) from None
            lock(out, file)
            out.seek(0)
            data = out.read()
            whole, part = data[: data.rfind(b"\n") + 1], data[data.rfind(b"\n") + 1 :]
            for number, line in enumerate(whole.splitlines(), 1):
                self._read(number, line)
            if part:
                self._cut(out, len(whole), part, whole.count(b"\n") + 1)
            undo.pop_all()
        return out

    def _read(self, number: int, line: bytes) -> None:
        try:
            answer = msgspec.json.decode(line, type=ColumnAnswer)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            raise self._alien(number) from None
        self._answers[_key(answer.column, answer.made, answer.without_gold)] = answer

    def _cut(self, out: BinaryIO, at: int, part: bytes, number: int) -> None:
        """Remove a line that was being written when the process ended."""
        if not (part.startswith(_BEGINS) or _BEGINS.startswith(part)):
            raise self._alien(number)
        out.truncate(at)

    def _alien(self, number: int) -> SettingsError:
        return SettingsError(
            [f"--save: {self.file}:{number}: this is not a saved answer; name another file"]
        )

    def _unwritable(self, error: OSError) -> SettingsError:
        return SettingsError(
            [f"--save: {self.file} cannot be written: {(error.strerror or str(error)).lower()}"]
        )

    def answer(self, todo: Todo, *, failed: bool = False) -> ColumnAnswer | None:
        """Return the kept answer, or None if it is to be asked; `failed` includes failed and
        degraded ones.
        """
        found = self._answers.get(_key(todo.column, todo.made, todo.without_gold))
        return (
            found if found is not None and (failed or not (found.error or found.degraded)) else None
        )

    def old(self, todo: Sequence[Todo]) -> int:
        """Count the answers to these questions that other settings or documents made."""
        wanted = {(each.column, each.question.id, each.without_gold): each.made for each in todo}
        made = [
            (wanted.get((each.column, each.question, each.without_gold)), each.made)
            for each in self._answers.values()
        ]
        return sum(now is not None and now != then for now, then in made)

    def keep(self, answer: ColumnAnswer) -> None:
        self._answers[_key(answer.column, answer.made, answer.without_gold)] = answer
        if self._out is not None:
            try:
                self._out.write(encode_json(answer) + b"\n")
                self._out.flush()
            except OSError as error:
                raise self._unwritable(error) from None

    def close(self) -> None:
        if self._out is not None:
            self._out.close()


def _key(column: str, made: str, without_gold: bool) -> str:
    return f"{made} {without_gold:d} {column}"
