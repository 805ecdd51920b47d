"""Access rules count from the next question on after the file was saved; all other settings when the server is started again."""

import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Lock

from slipway.errors import SettingsError
from slipway.settings.tree import AccessRule, Settings

log = logging.getLogger("slipway")

Rules = Callable[[], Sequence[AccessRule]]


class LiveAccess:
    """The access rules of each app, as the file has them now. A file that does not stand is told once, and what was read before counts."""

    def __init__(self, settings: Settings, file: Path | None = None, again: Callable[[], Settings] | None = None) -> None:
        """`again` reads the file anew; raises SettingsError."""
        self._rules = {name: app.access for name, app in settings.apps.items()}
        self._file, self._again = file, again
        self._seen = self._state()
        self._lock = Lock()

    def of(self, app: str) -> Rules:
        def rules() -> Sequence[AccessRule]:
            if self._file is not None and self._state() != self._seen:
                self._renew()
            return self._rules.get(app, ())

        return rules

    def _state(self) -> tuple[int, int, int] | None:
        """What changes when the file does; None where it is not there. Two microseconds."""
        try:
            stat = os.stat(self._file) if self._file is not None else None  # noqa: PTH116
        except OSError:
            return None
        return (stat.st_mtime_ns, stat.st_size, stat.st_ino) if stat else None

    def _renew(self) -> None:
        with self._lock:
            state = self._state()
            if state == self._seen or self._again is None:
                return
            try:
                settings = self._again()
            except SettingsError as error:
                log.warning("the changed settings do not stand, and the access rules from before count: %s", "; ".join(error.problems))
            else:
                self._rules = {name: settings.apps[name].access if name in settings.apps else rules for name, rules in self._rules.items()}
                log.info("the access rules were read again")
            self._seen = state
