"""Keep a collection up to date: a thread reads the files at the start and whenever they change."""

import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from stat import S_ISDIR
from typing import Any

import msgspec

from slipway.errors import StorageFull
from slipway.knowledge.collection import Collection, ScanProgress
from slipway.knowledge.dense import Dense
from slipway.knowledge.documents_state import DocumentsCount
from slipway.knowledge.freshness import stamp
from slipway.settings.environment import core_count

log = logging.getLogger("slipway")
_LOOK_AGAIN_S = 60.0  # finds changes that the system does not report, as on network drives
_FULL_S = 3.0  # how soon a full disk is tried again
_POLL_S = 0.5  # for single files, and if the system reports no changes


class Synchronizer:
    """Scan a collection in the background.

    `ready`: all files were read once, now or by an earlier process, so questions can be answered.
    `failed`: reading ended in an internal error and nothing is stored from earlier.
    """

    def __init__(self, collection: Collection, dense: Dense | None = None) -> None:
        self.collection, self.dense = collection, dense
        self.state = DocumentsCount(collection)
        self.ready = collection.scanned
        self.failed = False
        self.scanning = False
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._threads: list[threading.Thread] = []

    def build(self, report: Callable[[ScanProgress], None] = lambda done: None) -> ScanProgress:
        """Read new and changed files; block until done."""
        try:
            done = self.collection.scan(self._reporting(report), self._stop.is_set)
        except BaseException:  # whoever waits for `ready` must see that it failed
            self.failed = not self.ready
            raise
        finally:
            if not self._threads:
                self.collection.release()
        self.ready = self.ready or self.collection.scanned
        return done

    def _reporting(self, report: Callable[[ScanProgress], None]) -> Callable[[ScanProgress], None]:
        def report_progress(done: ScanProgress) -> None:
            self.ready = self.ready or self.collection.scanned
            report(done)

        return report_progress

    def dense_state(self, *, counted: bool = True) -> str:
        """Return how many passages have a vector, or why there are none; see `Dense.state`."""
        return (
            self.dense.state(counted=counted) if self.dense else "off: switched off in the settings"
        )

    def embed(self, report: Callable[[int, int], None] = lambda done, total: None) -> int:
        """Make the missing vectors on all processors; block until done. Return how many were made."""
        return (
            self.dense.embed(report, threads=core_count())
            if self.dense and self.dense.open()
            else 0
        )

    def load_vectors(self) -> None:
        """Load the stored vectors, without making new ones."""
        if self.dense and self.collection.document_store.models_before(""):
            self.dense.open()

    def status(self) -> dict[str, Any]:
        """Return the progress of the running or last scan, in counts of files."""
        return {
            "ready": self.ready,
            "scanning": self.scanning or self._wake.is_set(),
            "dense": self.dense_state(),
            "sources": [str(source.resolve()) for source in self.collection.sources],
            **msgspec.to_builtins(self.collection.progress),
        }

    def start(self) -> None:
        """Start the background threads: scan, watch, embed."""
        for work in (self._run, self._watch):
            thread = threading.Thread(target=work, name=f"slipway {work.__name__}", daemon=True)
            thread.start()
            self._threads.append(thread)
        if self.dense:
            self.dense.start()

    def scan_soon(self) -> None:
        """Have the background thread scan the files soon."""
        self._wake.set()

    def _run(self) -> None:
        first, full = True, False
        while not self._stop.is_set():
            self.scanning = True
            self._wake.clear()
            wait_s = _LOOK_AGAIN_S
            try:
                done = self.build()
            except Exception as error:  # keep the thread alive: it tries again at the next change
                if StorageFull.explains(error):
                    wait_s = _FULL_S
                    if not full:
                        log.warning(
                            "The disk is full: documents stay as they are until there is space"
                        )
                    full = True
                else:
                    log.exception(
                        "The documents could not be read; trying again at the next change"
                    )
            else:
                if full:
                    log.info("There is disk space again: documents are up to date")
                full = False
                self._report(done, first=first)
                first = False
            finally:
                self.scanning = False
            if not self._wake.wait(wait_s):
                self.collection.release()

    def _report(self, done: ScanProgress, *, first: bool) -> None:
        if self._stop.is_set() or not (first or done.read or done.failed or done.dropped):
            return
        documents = self.collection.documents.values()
        log.info(
            "Documents are ready: %d with %d passages (%d read, %d unchanged, %d deleted, %d failed)",
            sum(doc.state != "failed" for doc in documents),
            sum(doc.passages for doc in documents),
            done.read,
            done.unchanged,
            done.dropped,
            sum(doc.state == "failed" for doc in documents),
        )

    def _watch(self) -> None:
        """Start a scan at changes. The system reports changes below a folder; whether a source
        itself was replaced or came back is polled.
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
        """Stop the threads and the child processes; wait at most 5 s for each thread."""
        self._stop.set()
        self._wake.set()
        self.collection.reader.interrupt()
        for thread in self._threads:
            thread.join(5)
        if self.dense:
            self.dense.close()
        self.collection.release()


def _sources(paths: Sequence[Path]) -> list[Any]:
    """Return the identity of each source: the folder's device and inode, and a file's stamp."""
    return [_source(path) for path in paths]


def _source(path: Path) -> Any:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_dev, stat.st_ino, None if S_ISDIR(stat.st_mode) else stamp(stat)


def _changes(folders: list[Path], stop: threading.Event, wake: threading.Event) -> Iterator[None]:
    """Set `wake` when something changes in the folders, and yield every _POLL_S; end with `stop`."""
    from watchfiles import watch

    logging.getLogger("watchfiles").setLevel(logging.WARNING)  # it logs every change
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
    except (OSError, RuntimeError) as error:  # for example, too many watches
        log.warning(
            "The system reports no changes of the documents (%s); scanning every %g s instead",
            error,
            _LOOK_AGAIN_S,
        )
    while not stop.wait(_POLL_S):
        yield


def _is_hidden(path: str, tops: Sequence[str]) -> bool:
    """Return whether the path is below a name with a leading dot: nothing is read there, and our
    own store may be there.
    """
    inner = min((path.removeprefix(top) for top in tops), key=len)
    return f"{os.sep}." in inner
