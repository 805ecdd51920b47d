"""The SQLite file of the documents, used by one process at a time.

The folder of the file also holds what is derived from it, and the lock,
which names the process that uses it.
"""

import contextlib
import logging
import os
import secrets
import tempfile
import weakref
from collections.abc import Iterator
from pathlib import Path
from shutil import rmtree
from typing import TYPE_CHECKING

import msgspec

from slipway.errors import SettingsError
from slipway.settings.tree import SQLITE
from slipway.store.contract import StoreError
from slipway.store.migrations import migrate
from slipway.store.sqlite_database import SqliteDatabase, make_private
from slipway.types import Record

if TYPE_CHECKING:
    import sqlite3

try:
    import fcntl
except ImportError:  # Windows: the operator must not start two servers on one folder
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger("slipway")
_HOLDER_BYTES = 1024
_TEMPORARY = "slipway-store-"


class Holder(Record, frozen=True, kw_only=True):
    """The process that uses the store.

    `url` is where its server listens; `token` is a key that this server accepts: whoever may read
    the lock file is the operator.
    """

    pid: int
    url: str = ""
    token: str = ""


class InUse(Exception):
    """Another process uses the store; `holder` is None if it has not said who it is."""

    def __init__(self, holder: Holder | None) -> None:
        super().__init__(
            f"in use by process {holder.pid}" if holder else "in use by another process"
        )
        self.holder = holder


class Store(SqliteDatabase):
    """The open file of the documents: transactions on it, and its lock.

    Raises InUse if another process uses it, SettingsError if the file cannot be opened or is not
    a store.
    """

    lasting = True  # False for a store that ends with this process

    def __init__(self, file: Path) -> None:
        super().__init__(file)
        self.folder = file.parent
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            make_private(file)
            self._lock = _locked(self.folder / "lock")
            self._unlock = weakref.finalize(self, os.close, self._lock)
        except OSError as error:
            raise SettingsError(
                [
                    (
                        f"store: {self.folder} cannot be written ({error.strerror}); "
                        f"set `store: {SQLITE}PATH`"
                    )
                ]
            ) from None
        self.token = secrets.token_urlsafe(32)
        self.announce("")
        try:
            with self.sound():
                with self.writing() as db:
                    self.secret = _secret(db)
                migrate(self)
        except SettingsError:
            self.close()
            raise

    @contextlib.contextmanager
    def sound(self) -> Iterator[None]:
        """Raise SettingsError if SQLite finds the file broken inside the block."""
        import sqlite3  # 1 MB, and only needed if there is a store

        try:
            yield
        except (sqlite3.DatabaseError, StoreError) as error:
            raise SettingsError(
                [
                    (
                        f"store: {self.file} cannot be used ({error}); move it away, and the "
                        "documents are read again"
                    )
                ]
            ) from None

    @classmethod
    def temporary(cls, copied_from: Path | None = None) -> "Store":
        """Return a store that is deleted with its last user.

        `copied_from` is a store in use by another process: what it holds is copied, so that
        nothing is read or embedded again. If it cannot be copied, the new store is empty.
        """
        _remove_abandoned()
        folder = Path(tempfile.mkdtemp(prefix=f"{_TEMPORARY}{os.getpid()}-"))
        if copied_from is not None:
            _copy(copied_from, folder / "slipway.db")
        store = cls(folder / "slipway.db")
        store.lasting = False
        weakref.finalize(store, rmtree, folder, ignore_errors=True)
        return store

    def announce(self, url: str) -> None:
        """Write into the lock who holds it, and where its server listens."""
        holder = Holder(pid=os.getpid(), url=url, token=self.token if url else "")
        os.pwrite(self._lock, msgspec.json.encode(holder).ljust(_HOLDER_BYTES), 0)

    def close(self) -> None:
        super().close()
        self._unlock()


def _remove_abandoned() -> None:
    """Delete temporary stores whose process was killed before it could."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_TEMPORARY}*-*"):
        pid = folder.name.removeprefix(_TEMPORARY).partition("-")[0]
        if pid.isdigit() and not _is_alive(int(pid)):
            rmtree(folder, ignore_errors=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # a process of another user
    return True


def holder_of(file: Path) -> Holder | None:
    """Return who used the store last, and perhaps still does; None if that is unknown."""
    try:
        return _holder((file.parent / "lock").read_bytes())
    except OSError:
        return None


def _locked(path: Path) -> int:
    """Return the open lock file, which is held until it is closed or the process ends.

    Raises InUse.
    """
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        content = os.pread(file, _HOLDER_BYTES, 0)
        os.close(file)
        raise InUse(_holder(content)) from None
    return file


def _holder(content: bytes) -> Holder | None:
    try:
        return msgspec.json.decode(content, type=Holder)
    except msgspec.MsgspecError:
        return None


def _secret(db: "sqlite3.Connection") -> bytes:
    """Return the secret that ids are keyed with, so that nobody can compute them."""
    db.execute("CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value BLOB) WITHOUT ROWID")
    db.execute("INSERT OR IGNORE INTO meta VALUES ('secret', ?)", (secrets.token_bytes(32),))
    return bytes(db.execute("SELECT value FROM meta WHERE key = 'secret'").fetchone()[0])


def check_usable(file: Path) -> None:
    """Raise SettingsError if a store at this path could be neither opened nor created."""
    folder = file.parent
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise SettingsError(
            [f"store: {file.parent} cannot be written; set `store: {SQLITE}PATH` to another place"]
        )
    if file.exists() and (file.is_dir() or not os.access(file, os.R_OK | os.W_OK)):
        raise SettingsError([f"store: {file} cannot be read and written; set another `store:`"])


def _copy(source: Path, target: Path) -> None:
    """Copy a store that another process may be writing, as of one moment."""
    import sqlite3

    try:
        with (
            contextlib.closing(
                sqlite3.connect(f"{source.resolve().as_uri()}?mode=ro", uri=True, timeout=5)
            ) as old,
            contextlib.closing(sqlite3.connect(target)) as new,
        ):
            old.backup(new)
    except sqlite3.Error as error:
        log.warning(
            "the store %s could not be copied (%s): documents are read again", source, error
        )
        target.unlink(missing_ok=True)
