"""The rules of apps, for the server and for the commands about rules.

The package `rules` is imported here, by the first app that has some: others do not pay for it.
"""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from slipway.admission import OPERATOR
from slipway.errors import SettingsError
from slipway.settings import AppSettings, Settings, share
from slipway.store import CollectedAnswer
from slipway.types import Answered

if TYPE_CHECKING:
    from slipway.rules import RuleBook

log = logging.getLogger("slipway")


def rule_files(settings: Settings) -> tuple[str, ...]:
    """Return the files of all rules and their tables. Raises SettingsError for invalid rules."""
    problems, found = list[str](), list[str]()
    for app in settings.apps.values():
        if app.rules is not None:
            from slipway.rules import read_rules

            try:
                found += map(str, read_rules(Path(app.rules.file)).files)
            except SettingsError as error:
                problems += error.problems
    if problems:
        raise SettingsError(problems)
    return tuple(found)


def rulebook(app: AppSettings, before: "RuleBook | None" = None) -> "RuleBook | None":
    """Return the app's rules, none of them turned off; `before` again if nothing changed.

    Raises SettingsError.
    """
    if app.rules is None:
        return None
    from slipway.rules import RuleBook, read_rules

    read, precision = read_rules(Path(app.rules.file)), share(app.rules.precision)
    if before is not None and (before.read, before.precision) == (read, precision):
        return before
    return RuleBook(read, precision)


def ready_rulebook(name: str, app: AppSettings, kept: "dict[str, RuleBook]") -> "RuleBook | None":
    """Return the app's rules, without those whose tests fail; `kept` holds those of earlier
    settings, by app. Raises SettingsError.
    """
    before = kept.get(name)
    book = rulebook(app, before)
    if book is None:
        kept.pop(name, None)
    elif book is not before:
        from slipway.rules import turn_off_failing

        kept[name] = book
        for each in turn_off_failing(book):
            log.warning(
                "apps.%s.rules: %s; the rule is off until that is fixed", name, each.sentence
            )
    return book


def rulebooks(settings: Settings, only: str | None = None) -> "dict[str, RuleBook]":
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


def collected_from(answered: Answered, settings: Settings) -> CollectedAnswer | None:
    """Return what is kept of an answer to find rules; None if the app does not collect, or if the
    answer depends on more than the question's text, or the operator asked, who may read everything.
    """
    app = settings.apps.get(answered.app)
    if app is None or app.rules is None or not app.rules.collect:
        return None
    if not answered.is_whole or answered.served_by == "rule" or not answered.text:
        return None
    if answered.owner == OPERATOR.owner:
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
            from slipway.rules import failures_of

            yield from (failure.sentence for failure in failures_of(book))
