"""What a run has done so far: a folder with its files and `state.json`, so that it can go on.

A stage is done again if what it depends on has changed, or if a file that it left is not whole.
"""

import fcntl
import hashlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from slipway.compress.refusals import refused
from slipway.compress.runner import most_memory
from slipway.types import Record

_FILE = "state.json"
Found = TypeVar("Found")


class StageDone(Record, frozen=True, kw_only=True):
    """A stage that has ended: the `key` of what it depends on, its files' sizes, its result, and the
    most memory that its process or one of its children had by then, in bytes.
    """

    key: str
    seconds: float
    memory: int = 0
    files: dict[str, int]
    result: msgspec.Raw


class State:
    """Of one folder. Only one process may work in it at a time; see `held`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._path = folder / _FILE
        self._done: dict[str, StageDone] = {}
        self._key = ""
        if self._path.is_file():
            try:
                self._done = msgspec.json.decode(self._path.read_bytes(), type=dict[str, StageDone])
            except msgspec.MsgspecError as error:
                raise refused(
                    f"--out: {self._path} cannot be read ({error}); remove it to begin again"
                ) from None

    def stage(
        self, name: str, depends: Sequence[Any], files: Sequence[str],
        kind: type[Found], do: Callable[[], Found],
    ) -> Found:  # fmt: skip
        """The result of this stage: kept from before, or made now by `do`."""
        self._key = _digest([self._key, name, list(depends)])
        before = self._done.get(name)
        if before is not None and before.key == self._key and self._is_whole(before):
            with suppress(msgspec.MsgspecError):  # of another version: the stage is done again
                return msgspec.json.decode(before.result, type=kind)
        start = time.monotonic()
        result = do()
        sizes = {file: (self.folder / file).stat().st_size for file in files}
        raw = msgspec.Raw(msgspec.json.encode(result))
        seconds = time.monotonic() - start
        self._done[name] = StageDone(
            key=self._key, seconds=seconds, memory=most_memory(), files=sizes, result=raw
        )
        self._write()
        return result

    def kept(self, what: str, suffix: str) -> Path:
        """A file in which the running stage keeps what it has so far. It is not the file of an
        earlier run that depended on something else: such files are removed.
        """
        mine = self.folder / f"{what}.{self._key}{suffix}"
        for file in self.folder.glob(f"{what}*{suffix}"):
            if file != mine:
                file.unlink()
        return mine

    def is_done(self, name: str) -> bool:
        return name in self._done

    @property
    def seconds(self) -> dict[str, float]:
        return {name: round(done.seconds, 1) for name, done in self._done.items()}

    @property
    def memory(self) -> int:
        """Return the most memory of one process, also of one that was killed after a stage."""
        return max((done.memory for done in self._done.values()), default=0)

    def _is_whole(self, done: StageDone) -> bool:
        return all(
            (path := self.folder / file).is_file() and path.stat().st_size == size
            for file, size in done.files.items()
        )

    def _write(self) -> None:
        half = self.folder / f".{_FILE}.part"
        half.write_bytes(msgspec.json.format(msgspec.json.encode(self._done)))
        half.replace(self._path)


@contextmanager
def held(folder: Path) -> Iterator[State]:
    """The folder's state, for one process at a time. Raises SettingsError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT)
    except OSError as error:
        raise refused(f"--out: {folder} cannot be written: {error.strerror}") from None
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            what = f"--out: another `slipway compress` works in {folder}"
            raise refused(f"{what}; wait for it, or name another folder") from None
        yield State(folder)
    finally:
        os.close(lock)


def _digest(value: Any) -> str:
    return hashlib.blake2b(msgspec.json.encode(value), digest_size=12).hexdigest()
