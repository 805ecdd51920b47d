"""The settings file while the server runs: read again once it has changed.

Access rules count from the next question on after the file was saved, so they are asked for here
each time. For all other settings see `reloading`, which looks here a few times a second.
"""

import logging
import os
import time
from collections.abc import Callable, Sequence
from threading import Lock

import msgspec

from slipway.errors import SettingsError
from slipway.settings.loading import Loaded
from slipway.settings.tree import AccessRule, App, Settings

log = logging.getLogger("slipway")
SETTLE_S = 0.05  # a file that was written so lately may not be whole yet ...
_PATIENCE = 20  # ... which is waited for so often

Rules = Callable[[], Sequence[AccessRule]]
Stamp = tuple[int, int, int]


class Reading(msgspec.Struct, frozen=True):
    """What one reading of the file came to: settings that stand, or the problems why they do not."""

    found: Loaded | None
    problems: tuple[str, ...] = ()


class Live:
    """The settings of one file. One that does not stand is told once, and what was read before
    counts. Used by any threads.
    """

    def __init__(self, found: Loaded, again: Callable[[Settings], Loaded] | None = None) -> None:
        """`again` reads and checks the file again, given the settings that count; raises
        SettingsError. Without it, nothing changes.
        """
        self.found, self.last = found, Reading(found)
        self._again = again if found.file is not None else None
        self._rules = rules_of(found.settings)
        self._seen = self._stamps()
        self._lock = Lock()

    @property
    def watched(self) -> bool:
        return self._again is not None

    def of(self, name: str, app: App) -> Rules:
        """The access rules of an app, as the file has them whenever that is asked; the last ones
        for these folders, where the app is gone or has others now: a question that began with these
        may not search them by rules that were written for others.
        """

        def rules() -> Sequence[AccessRule]:
            self.look()
            return self._rules[name, app.knowledge]

        return rules

    def look(self, *, asked: bool = False) -> Reading:
        """The last reading, or a new one where the file has changed since, or somebody `asked` for
        it. Blocks where it is read.
        """
        if self._again is None or (not asked and self._stamps() == self._seen):
            return self.last
        with self._lock:
            self._settle()
            stamps = self._stamps()
            if asked or stamps != self._seen:
                self.last = self._read(self._again)
                self._seen = {
                    path: stamps[path] if path in stamps else _stamp(path) for path in self._paths()
                }
            return self.last

    def retry(self) -> Reading:
        """Reads a file again that did not stand: a folder or file that it names may be there now.
        The same reading where nothing is better.
        """
        with self._lock:
            if self._again is not None and self.last.problems:
                self.last = self._read(self._again, before=self.last)
            return self.last

    def _read(self, again: Callable[[Settings], Loaded], before: Reading | None = None) -> Reading:
        try:
            found = again(self.found.settings)
        # Whatever it is: questions look here too, and go on
        except Exception as error:  # noqa: BLE001
            problems = problems_of(error)
            if before is not None and before.problems == problems:
                return before
            told = "\n  ".join(
                ["the changed settings do not stand, and those from before count:", *problems]
            )
            log.warning("%s", told)
            return Reading(None, problems)
        self.found = found
        self._rules |= rules_of(found.settings)
        return Reading(found)

    def _paths(self) -> list[str]:
        """The file, and those that it names whose text is part of the settings."""
        return [
            str(self.found.file),
            *(app.prompt for app in self.found.settings.apps.values() if app.prompt is not None),
        ]

    def _stamps(self) -> dict[str, Stamp | None]:
        return {path: _stamp(path) for path in self._paths()} if self._again is not None else {}

    def _settle(self) -> None:
        for _ in range(_PATIENCE):
            changed_at = (
                max((stamp[0] for stamp in self._stamps().values() if stamp is not None), default=0)
                / 1e9
            )
            age_s = time.time() - changed_at
            if not 0 <= age_s < SETTLE_S:
                return
            time.sleep(SETTLE_S - age_s)


def rules_of(settings: Settings) -> dict[tuple[str, tuple[str, ...]], tuple[AccessRule, ...]]:
    """By an app's name and its folders."""
    return {(name, app.knowledge): app.access for name, app in settings.apps.items()}


def problems_of(error: Exception) -> tuple[str, ...]:
    """Why settings cannot be used; in Python's words where nobody has thought of that."""
    return (
        tuple(error.problems)
        if isinstance(error, SettingsError)
        else (f"{type(error).__name__}: {error}",)
    )


def _stamp(path: str) -> Stamp | None:
    """What changes when the file does; None where it is not there. Two microseconds."""
    try:
        stat = os.stat(path)  # noqa: PTH116
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size, stat.st_ino
