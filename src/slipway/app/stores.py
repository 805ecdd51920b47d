"""The store, and the documents that are kept in it."""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from threading import Lock

from slipway import knowledge
from slipway.app.reloading import Folders
from slipway.errors import SettingsError
from slipway.knowledge.sync import Synchronizer
from slipway.settings import Settings
from slipway.settings.tree import DEFAULT_STORE, SQLITE
from slipway.store import InUse, Store, file_of

log = logging.getLogger("slipway")


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
            "the store %s is %s%s: a temporary copy is used, and feedback is not saved",
            file,
            error,
            where,
        )
    except SettingsError as error:
        if not settings.store.endswith(DEFAULT_STORE.removeprefix(SQLITE)) or file.exists():
            raise
        log.warning(
            "%s; until then documents are read into a temporary store at each start, and feedback "
            "is not saved",
            error.problems[0],
        )
    return Store.temporary(copied_from=file if in_use else None)


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
