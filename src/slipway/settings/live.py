"""Read the settings file again when it has changed while the server runs.

Access rules apply from the first question after the file was saved, so every question gets them
from here. For all other settings, `app/reloading.py` checks here a few times a second.
"""

import logging
import os
import time
from collections.abc import Callable, Sequence
from threading import Lock

import msgspec

from slipway.errors import SettingsError
from slipway.settings.apps import AccessRule, AppSettings
from slipway.settings.loading import Loaded
from slipway.settings.tree import Settings

log = logging.getLogger("slipway")
SETTLE_S = 0.05  # a file that changed this recently may still be incomplete
_MAX_WAITS = 20  # how often to wait SETTLE_S for it

Rules = Callable[[], Sequence[AccessRule]]
Stamp = tuple[int, int, int]


class ReadResult(msgspec.Struct, frozen=True):
    """The result of reading the file: valid settings, or the problems that make them invalid."""

    found: Loaded | None
    problems: tuple[str, ...] = ()


class LiveSettings:
    """The current settings of one file, safe to use from several threads.

    If the file becomes invalid, the problems are logged once and the previous settings stay active.
    """

    def __init__(self, found: Loaded, again: Callable[[Settings], Loaded] | None = None) -> None:
        """Begin with the settings `found` at the start.

        `again` reads and checks the file again; it is given the active settings and raises
        SettingsError. Without it, the settings never change.
        """
        self.found, self.last = found, ReadResult(found)
        self._again = again if found.file is not None else None
        self._rules = rules_of(found.settings)
        self._seen = self._stamps()
        self._lock = Lock()

    @property
    def watched(self) -> bool:
        """Return whether the file is read again when it changes."""
        return self._again is not None

    def of(self, name: str, app: AppSettings) -> Rules:
        """Return a function that returns the current access rules of an app.

        If the app was removed or has other folders now, the last rules for its old folders are
        returned: a question that began with the old folders must not be checked by rules that were
        written for the new ones.
        """

        def rules() -> Sequence[AccessRule]:
            self.current()
            return self._rules[name, app.knowledge]

        return rules

    def current(self, *, force: bool = False) -> ReadResult:
        """Return the latest result; read the file first if it has changed, or with `force`.

        Reading blocks the calling thread.
        """
        if self._again is None or (not force and self._stamps() == self._seen):
            return self.last
        with self._lock:
            self._settle()
            stamps = self._stamps()
            if force or stamps != self._seen:
                self.last = self._read(self._again)
                self._seen = {
                    path: stamps[path] if path in stamps else _stamp(path) for path in self._paths()
                }
            return self.last

    def retry(self) -> ReadResult:
        """Read an invalid file again, since a folder or file that it names may exist now.

        Return the same result if the problems are the same.
        """
        with self._lock:
            if self._again is not None and self.last.problems:
                self.last = self._read(self._again, before=self.last)
            return self.last

    def _read(
        self, again: Callable[[Settings], Loaded], before: ReadResult | None = None
    ) -> ReadResult:
        try:
            found = again(self.found.settings)
        # Any exception: questions call this too, and must not fail
        except Exception as error:  # noqa: BLE001
            problems = problems_of(error)
            if before is not None and before.problems == problems:
                return before
            count = f"{len(problems)} error{'s' if len(problems) != 1 else ''}"
            head = f"settings not applied ({count}); the previous ones stay active:"
            log.warning("\n  ".join(["%s", *("%s" for _ in problems)]), head, *problems)
            return ReadResult(None, problems)
        self.found = found
        self._rules |= rules_of(found.settings)
        return ReadResult(found)

    def _paths(self) -> list[str]:
        """Return the file and those it names whose text is part of the settings: prompts, rules."""
        return [
            str(self.found.file),
            *(app.prompt for app in self.found.settings.apps.values() if app.prompt is not None),
            *self.found.watched,
        ]

    def _stamps(self) -> dict[str, Stamp | None]:
        return {path: _stamp(path) for path in self._paths()} if self._again is not None else {}

    def _settle(self) -> None:
        for _ in range(_MAX_WAITS):
            changed_at = (
                max((stamp[0] for stamp in self._stamps().values() if stamp is not None), default=0)
                / 1e9
            )
            age_s = time.time() - changed_at
            if not 0 <= age_s < SETTLE_S:
                return
            time.sleep(SETTLE_S - age_s)


def rules_of(settings: Settings) -> dict[tuple[str, tuple[str, ...]], tuple[AccessRule, ...]]:
    """Return the access rules by app name and folders."""
    return {(name, app.knowledge): app.access for name, app in settings.apps.items()}


def problems_of(error: Exception) -> tuple[str, ...]:
    """Return the problems as sentences; for an unexpected exception, its type and text."""
    return (
        tuple(error.problems)
        if isinstance(error, SettingsError)
        else (f"{type(error).__name__}: {error}",)
    )


def _stamp(path: str) -> Stamp | None:
    """Return what changes whenever the file does, or None if there is no file. Takes about 2 µs."""
    try:
        stat = os.stat(path)  # noqa: PTH116
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size, stat.st_ino
