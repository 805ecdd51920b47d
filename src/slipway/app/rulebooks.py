"""The rules of apps, for the server and for the commands about rules."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from slipway.errors import SettingsError
from slipway.rules import RuleBook, failures_of, read_rules
from slipway.rules.suggesting import Suggestion, with_rules
from slipway.settings import AppSettings, Settings, share
from slipway.store import CollectedAnswer
from slipway.types import Answered


def rulebook(app: AppSettings, before: RuleBook | None = None) -> RuleBook | None:
    """Return the app's rules, none of them turned off; `before` again if nothing changed.

    Raises SettingsError.
    """
    if app.rules is None:
        return None
    read, precision = read_rules(Path(app.rules.file)), share(app.rules.precision)
    if before is not None and (before.read, before.precision) == (read, precision):
        return before
    return RuleBook(read, precision)


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


def add_rules(file: Path, accepted: Sequence[Suggestion]) -> None:
    """Add rules to a file, which keeps its other content; it is replaced in one step.

    Raises SettingsError if it would not be valid then.
    """
    new = file.with_name(f".{file.name}.new")
    try:
        new.write_text(with_rules(file.read_text("utf-8"), file, accepted), encoding="utf-8")
        read_rules(new)
        new.replace(file)
    except OSError as error:
        raise SettingsError([f"{file}: it cannot be written: {error.strerror}"]) from None
    finally:
        new.unlink(missing_ok=True)


def collected_from(answered: Answered, settings: Settings) -> CollectedAnswer | None:
    """Return what is kept of an answer to find rules; None if the app does not collect, or if the
    answer depends on more than the question's text.
    """
    app = settings.apps.get(answered.app)
    if app is None or app.rules is None or not app.rules.collect:
        return None
    if not answered.is_whole or answered.served_by == "rule" or not answered.text:
        return None
    return CollectedAnswer(
        answer=answered.id,
        at=answered.at,
        app=answered.app,
        tenant=answered.tenant,
        question=answered.question or "",
        text=answered.text,
        groups=answered.groups,
        sources=tuple(dict.fromkeys(str(source["path"]) for source in answered.sources)),
    )


def failing_tests(settings: Settings) -> Iterator[str]:
    """Yield a sentence for each test of a rule that fails."""
    for app in settings.apps.values():
        if (book := rulebook(app)) is not None:
            yield from (failure.sentence for failure in failures_of(book))
