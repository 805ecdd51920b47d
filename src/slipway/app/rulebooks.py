"""The rules of apps, for the server and for the commands about rules."""

from collections.abc import Iterator
from pathlib import Path

from slipway.errors import SettingsError
from slipway.rules import RuleBook, failures_of, read_rules
from slipway.settings import AppSettings, Settings


def rulebook(app: AppSettings) -> RuleBook | None:
    """Return the app's rules, none of them turned off. Raises SettingsError."""
    return RuleBook(read_rules(Path(app.rules.file))) if app.rules is not None else None


def rulebooks(settings: Settings, only: str | None = None) -> dict[str, RuleBook]:
    """Return the rules of each app, or of one app. Raises SettingsError if there are none."""
    found = {
        name: book
        for name, app in settings.apps.items()
        if only in (None, name) and (book := rulebook(app)) is not None
    }
    if not found:
        whose = f"the app `{only}` has" if only is not None else "no app has"
        raise SettingsError([f"{whose} no rules; add `rules: ./rules.yaml` to an app"])
    return found


def failing_tests(settings: Settings) -> Iterator[str]:
    """Yield a sentence for each test of a rule that fails."""
    for app in settings.apps.values():
        if (book := rulebook(app)) is not None:
            yield from (failure.sentence for failure in failures_of(book))
