"""The store, and the documents that are kept in it."""

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock

from slipway import knowledge
from slipway.app.reloading import Folders
from slipway.errors import SettingsError
from slipway.knowledge.sync import Synchronizer
from slipway.settings import Settings
from slipway.store import (
    Database,
    InUse,
    RecordStore,
    Store,
    StoreError,
    database_of,
    file_of,
    is_local,
    open_records,
    problem_in,
)

log = logging.getLogger("slipway")
RETRY_S = 0.5  # between two tries to open the records


def open_store(settings: Settings) -> Store:
    """Open the store of the settings.

    If another process uses it, or if the default store cannot be made, return a temporary one
    that ends with this process, and log a warning. Raises SettingsError for a store that was
    named in the settings or exists already, and cannot be opened.
    """
    file, in_use = file_of(settings), False
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
        if not is_default(settings) or file.exists():
            raise
        log.warning(
            "%s; until then documents are read into a temporary store at each start, and nothing "
            "else is saved",
            error.problems[0],
        )
    return Store.temporary(copied_from=file if in_use else None)


def is_default(settings: Settings) -> bool:
    """Return whether the settings name no place of their own for what stays on this machine."""
    return file_of(settings).parts[-2:] == file_of(Settings()).parts


class LazyRecords:
    """Open the records at the first call, from whichever thread; later calls return the same ones.

    A call raises StoreError while they cannot be opened; what was found is repeated for RETRY_S.
    """

    def __init__(self, settings: Settings, *, patient: bool = False) -> None:
        self._patient = patient
        self.settings, self.folder = settings, file_of(settings).parent
        self.opened: RecordStore | None = None
        self._failed: tuple[float, str] = (0.0, "")
        self._lock = Lock()
        self._secret: bytes | None = None
        self.ended: dict[str, float] = {}  # sessions that were signed out: see `Sealer`
        self._is_secret_read = False

    @property
    def is_there(self) -> bool:
        """Return False if nothing has been saved yet: the file of a SQLite store is missing."""
        return not is_local(self.settings) or file_of(self.settings).exists()

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
            return open_records(self.settings, patient=self._patient)
        except (SettingsError, StoreError) as error:
            why = error.problems[0] if isinstance(error, SettingsError) else str(error)
            self._failed = (time.monotonic() + RETRY_S, why)
            raise StoreError(why) from error

    def check(self) -> None:
        """Open the records now if there are any. Raises SettingsError for what a person must change;
        a store that is down is opened when it is back.
        """
        if not self.is_there:
            return
        try:
            self()
        except StoreError as error:
            if isinstance(error.__cause__, SettingsError):
                raise error.__cause__ from None
            log.warning("the store cannot be used now (%s); it is tried again", error)

    def secret(self) -> bytes | None:
        """Return the secret that cookies are signed with; None while the store has it on another
        machine and cannot be read. It waits for a local file only.
        """
        if self._secret is None and is_local(self.settings):
            with suppress(StoreError):
                self._secret = self._read_secret()
        return self._secret

    def _read_secret(self) -> bytes:
        """Return the secret, and read the sessions that have ended. Raises StoreError."""
        self.ended.update(self().ended_sessions())
        return self().secret()

    def read_secret(self) -> None:
        """Read the secret from a store on another machine, else the copy that is kept here, so that
        people stay signed in while the store is down.
        """
        if self._is_secret_read or is_local(self.settings):
            return
        copy = self.folder / "cookies.secret"
        try:
            self._secret = self._read_secret()
        except StoreError:
            with suppress(OSError):
                self._secret = copy.read_bytes()
            return
        self._is_secret_read = True
        write_private(copy, self._secret)

    def close(self) -> None:
        if self.opened is not None:
            self.opened.close()


@contextmanager
def records_of(settings: Settings) -> Iterator[RecordStore]:
    """Open the records for a command. Raises SettingsError if they cannot be used."""
    records = LazyRecords(settings, patient=True)
    try:
        yield records()
    except StoreError as error:
        if isinstance(error.__cause__, SettingsError):
            raise error.__cause__ from None
        raise SettingsError([f"store: it cannot be used ({error})"]) from None
    finally:
        records.close()


@contextmanager
def unopened(settings: Settings) -> Iterator[Database]:
    """Give a command the database of the settings, whatever its schema is. Raises SettingsError."""
    database = database_of(settings, patient=True)
    try:
        yield database
    except StoreError as error:
        problem = problem_in(error, settings) or f"store: it cannot be used ({error})"
        raise SettingsError([problem]) from None
    finally:
        database.close()


@contextmanager
def saved_records(settings: Settings) -> Iterator[RecordStore | None]:
    """Open the records for a command; None if nothing has been saved. Raises SettingsError."""
    if not LazyRecords(settings).is_there:
        yield None
        return
    with records_of(settings) as store:
        yield store


def write_private(path: Path, content: bytes) -> None:
    """Replace a file in one step; only its owner may read it. What cannot be written is left out:
    it is for a start without the store.
    """
    fresh = path.with_suffix(f".{os.getpid()}")
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(content)
        fresh.replace(path)


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
