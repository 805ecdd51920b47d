"""Keeps a collection true to its files: reads them at the start, then whenever they change, in a
thread of its own.
"""

import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from stat import S_ISDIR
from typing import Any

import msgspec

from slipway.knowledge.collection import Collection, Done
from slipway.knowledge.dense import Dense
from slipway.knowledge.freshness import stamp

log = logging.getLogger("slipway")
_LOOK_AGAIN_S = 60.0  # for changes that the operating system did not tell, as with network drives
_POLL_S = 0.5  # for single files, and where nothing tells


class Synchronizer:
    """`ready` where questions can be answered: all files were read once, now or by an earlier
    process. `failed` where reading ended in an error of ours, and nothing is known from earlier.
    """

    def __init__(self, collection: Collection, dense: Dense | None = None) -> None:
        self.collection, self.dense = collection, dense
        self.ready = collection.scanned
        self.failed = False
        self.scanning = False
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._threads: list[threading.Thread] = []

    def build(self, tell: Callable[[Done], None] = lambda done: None) -> Done:
        """Reads what is new; blocks."""
        try:
            done = self.collection.scan(self._told(tell), self._stop.is_set)
        except BaseException:  # whatever ended it, who waits must know
            self.failed = not self.ready
            raise
        finally:
            if not self._threads:
                self.collection.rest()
        self.ready = self.ready or self.collection.scanned
        return done

    def _told(self, tell: Callable[[Done], None]) -> Callable[[Done], None]:
        def told(done: Done) -> None:
            self.ready = self.ready or self.collection.scanned
            tell(done)

        return told

    def dense_state(self, *, counted: bool = True) -> str:
        return (
            self.dense.state(counted=counted) if self.dense else "off: switched off in the settings"
        )

    def embed(self, tell: Callable[[int, int], None] = lambda done, total: None) -> int:
        """Makes the vectors that are missing, with all processors; blocks. How many."""
        return (
            self.dense.embed(tell, threads=os.cpu_count() or 1)
            if self.dense and self.dense.open()
            else 0
        )

    def remember(self) -> None:
        """Brings the vectors that there are into use, and makes none."""
        if self.dense and self.collection.document_store.models_before(""):
            self.dense.open()

    def status(self) -> dict[str, Any]:
        """How far the reading is, and what the last one did: counts of files."""
        return {
            "ready": self.ready,
            "scanning": self.scanning or self._wake.is_set(),
            "dense": self.dense_state(),
            "sources": [str(source.resolve()) for source in self.collection.sources],
            **msgspec.to_builtins(self.collection.progress),
        }

    def start(self) -> None:
        for work in (self._keep, self._watch):
            thread = threading.Thread(target=work, name=f"slipway {work.__name__}", daemon=True)
            thread.start()
            self._threads.append(thread)
        if self.dense:
            self.dense.start()

    def wake(self) -> None:
        """Has the files looked at, soon."""
        self._wake.set()

    def _keep(self) -> None:
        first = True
        while not self._stop.is_set():
            self.scanning = True
            self._wake.clear()
            try:
                done = self.build()
            except Exception:  # the thread must live: it tries again at the next change
                log.exception("the documents could not be read")
            else:
                self._report(done, first=first)
                first = False
            finally:
                self.scanning = False
            if not self._wake.wait(_LOOK_AGAIN_S):
                self.collection.rest()

    def _report(self, done: Done, *, first: bool) -> None:
        if self._stop.is_set() or not (first or done.read or done.failed or done.dropped):
            return
        documents = self.collection.documents.values()
        log.info(
            "the documents are ready: %d with %d passages (%d read, %d unchanged, %d gone, %d failed)",
            sum(doc.state == "done" for doc in documents),
            sum(doc.passages for doc in documents),
            done.read,
            done.unchanged,
            done.dropped,
            sum(doc.state == "failed" for doc in documents),
        )

    def _watch(self) -> None:
        """The system tells of changes below a folder; whether a source itself is another now, or
        there again, has to be looked for.
        """
        while not self._stop.is_set():
            before = _sources(self.collection.sources)
            for _ in _changes(
                [source for source in self.collection.sources if source.is_dir()],
                self._stop,
                self._wake,
            ):
                if _sources(self.collection.sources) != before:
                    break
            self._wake.set()

    def close(self) -> None:
        self._stop.set()
        self._wake.set()
        self.collection.reader.interrupt()
        for thread in self._threads:
            thread.join(5)
        if self.dense:
            self.dense.close()
        self.collection.rest()


def _sources(paths: Sequence[Path]) -> list[Any]:
    """What tells one state of the sources themselves from another: which folder it is, and of a
    file when it changed.
    """
    return [_source(path) for path in paths]


def _source(path: Path) -> Any:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_dev, stat.st_ino, None if S_ISDIR(stat.st_mode) else stamp(stat)


def _changes(folders: list[Path], stop: threading.Event, wake: threading.Event) -> Iterator[None]:
    """Ends never of itself, but with `stop`; sets `wake` when something changed in the folders, and
    gives a turn each _POLL_S besides.
    """
    from watchfiles import watch

    logging.getLogger("watchfiles").setLevel(logging.WARNING)  # it tells each change
    tops = [os.path.realpath(folder) for folder in folders]
    try:
        for changes in (
            watch(
                *tops,
                watch_filter=lambda _, path: not _is_hidden(path, tops),
                stop_event=stop,
                debounce=300,
                step=30,
                rust_timeout=int(_POLL_S * 1000),
                yield_on_timeout=True,
                raise_interrupt=False,
            )
            if tops
            else ()
        ):
            if changes:
                wake.set()
            yield
    except (OSError, RuntimeError) as error:  # too many watches, say
        log.warning(
            "changes of the documents are not told here (%s): they are looked for every %g s",
            error,
            _LOOK_AGAIN_S,
        )
    while not stop.wait(_POLL_S):
        yield


def _is_hidden(path: str, tops: Sequence[str]) -> bool:
    """Below a name with a leading dot nothing is read, so nothing there matters; our own store may
    lie there.
    """
    inner = min((path.removeprefix(top) for top in tops), key=len)
    return f"{os.sep}." in inner
