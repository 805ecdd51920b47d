"""The store, and the documents that are kept in it."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

from slipway import knowledge
from slipway.app.reloading import Folders
from slipway.errors import SettingsError
from slipway.knowledge.sync import Synchronizer
from slipway.settings import Settings
from slipway.settings.tree import DEFAULT_STORE, SQLITE
from slipway.store import InUse, RecordStore, Store, StoreError, file_of, open_records

log = logging.getLogger("slipway")
RETRY_S = 0.5  # between two tries to open the records


def open_store(settings: Settings) -> Store:
    """Open the store of the settings.

    If another process uses it, or if the default store cannot be made, return a temporary one
    that ends with this process, and log a warning. Raises SettingsError for a store that was
    named in the settings or exists already, and cannot be opened.
    """
    file, in_use = file_of(settings.store), False
    try:
        return Store(file)
    except InUse as error:
        where = f" at {error.holder.url}" if error.holder and error.holder.url else ""
        in_use = True
        log.warning(
            "the store %s is %s%s: a temporary copy is used for the documents",
            file,
            error,
            where,
        )
    except SettingsError as error:
        if not settings.store.endswith(DEFAULT_STORE.removeprefix(SQLITE)) or file.exists():
            raise
        log.warning(
            "%s; until then documents are read into a temporary store at each start, and nothing "
            "else is saved",
            error.problems[0],
        )
    return Store.temporary(copied_from=file if in_use else None)


class LazyRecords:
    """Open the records at the first call, from whichever thread; later calls return the same ones.

    A call raises StoreError while they cannot be opened; what was found is repeated for RETRY_S.
    """

    def __init__(self, settings: Settings) -> None:
        self.url, self.folder = settings.store, file_of(settings.store).parent
        self.opened: RecordStore | None = None
        self._failed: tuple[float, str] = (0.0, "")
        self._lock = Lock()

    @property
    def is_there(self) -> bool:
        """Return False if nothing has been saved yet: the file of a SQLite store is missing."""
        return not self.url.startswith(SQLITE) or file_of(self.url).exists()

    def __call__(self) -> RecordStore:
        if self.opened is not None:
            return self.opened
        with self._lock:
            if self.opened is None:
                self.opened = self._open()
            return self.opened

    def _open(self) -> RecordStore:
        until, why = self._failed
        if time.monotonic() < until:
            raise StoreError(why)
        try:
            return open_records(self.url)
        except (SettingsError, StoreError) as error:
            why = error.problems[0] if isinstance(error, SettingsError) else str(error)
            self._failed = (time.monotonic() + RETRY_S, why)
            raise StoreError(why) from error

    def close(self) -> None:
        if self.opened is not None:
            self.opened.close()


@contextmanager
def records_of(settings: Settings) -> Iterator[RecordStore]:
    """Open the records for a command. Raises SettingsError if they cannot be used."""
    records = LazyRecords(settings)
    try:
        yield records()
    except StoreError as error:
        if isinstance(error.__cause__, SettingsError):
            raise error.__cause__ from None
        raise SettingsError([f"store: it cannot be used ({error})"]) from None
    finally:
        records.close()


@contextmanager
def saved_records(settings: Settings) -> Iterator[RecordStore | None]:
    """Open the records for a command; None if nothing has been saved. Raises SettingsError."""
    if not LazyRecords(settings).is_there:
        yield None
        return
    with records_of(settings) as store:
        yield store


class LazyStore:
    """Open the store at the first call, from whichever thread; later calls return the same one."""

    def __init__(self, settings: Settings) -> None:
        self.store: Store | None = None
        self._settings, self._lock = settings, Lock()

    def __call__(self) -> Store:
        with self._lock:
            self.store = self.store or open_store(self._settings)
            return self.store


def has_knowledge(settings: Settings) -> bool:
    return any(app.knowledge for app in settings.apps.values())


def synchronizers_for(
    settings: Settings, store: Callable[[], Store], before: Mapping[Folders, Synchronizer]
) -> dict[str, Synchronizer]:
    """Return the synchronizer of each app with knowledge.

    Apps over the same folders share one; those in `before` are used again.
    """
    limits, by_folders = settings.limits, dict[Folders, Synchronizer]()
    wanted = {name: app.knowledge for name, app in settings.apps.items() if app.knowledge}
    for folders in wanted.values():  # checked before a store is created
        knowledge.check([Path(k) for k in folders], settings.embedding, ocr=settings.ocr)
    for folders in wanted.values():
        by_folders[folders] = (
            by_folders.get(folders)
            or before.get(folders)
            or knowledge.opened(
                store(),
                [Path(k) for k in folders],
                embedding=settings.embedding,
                ocr=settings.ocr,
                largest_mb=limits.document_mb,
                deadline_s=limits.document_time,
            )
        )
    return {name: by_folders[folders] for name, folders in wanted.items()}


def distinct(synchronizers: Mapping[str, Synchronizer]) -> list[Synchronizer]:
    return list(
        {id(synchronizer): synchronizer for synchronizer in synchronizers.values()}.values()
    )
