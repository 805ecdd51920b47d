"""`slipway store`: what outlives the process: its schema, backups, and old rows."""

import json
import time
from collections.abc import Mapping
from pathlib import Path

import click

from slipway.app.loading import load_settings
from slipway.app.stores import records_of, unopened
from slipway.commands.options import CONFIG, JSON, counted
from slipway.errors import SettingsError
from slipway.settings import Flags
from slipway.settings.values import duration
from slipway.store import migrate, prune, restore_backup, write_backup

_FILE = click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
_AGE = "DURATION"
LEDGER_S = 31 * 86_400  # budgets of a month must find its rows after a restart


@click.group("store")
def command() -> None:
    """Look after the store: its schema, backups, and old rows.

    The store holds keys, the ledger, facts of answers, feedback, and conversations; documents are
    read again where they are missing.
    """


@command.command("migrate")
@CONFIG
def migrate_store(config: Path | None) -> None:
    """Bring the schema up to date; a server does it at its start as well."""
    with unopened(load_settings(Flags(config=config)).settings) as database:
        steps = migrate(database)
    done = f"steps {steps[0]} to {steps[-1]} were run" if steps else "it is up to date"
    click.echo(f"the store's schema: {done}")


@command.command("backup")
@_FILE
@CONFIG
@JSON
def backup(file: Path, config: Path | None, as_json: bool) -> None:
    """Write all records into FILE; a running server need not be stopped."""
    with records_of(load_settings(Flags(config=config)).settings) as store:
        counts = write_backup(store.database, file)
        store.note_backup(time.time())  # `slipway check` says how old the last one is
    tell(counts, f"saved in {file}", as_json=as_json)


@command.command("restore")
@_FILE
@CONFIG
@click.option("--replace", is_flag=True, help="Delete what the store holds now.")
@JSON
def restore(file: Path, config: Path | None, replace: bool, as_json: bool) -> None:
    """Write the records of a backup into the store, of whichever kind. Stop the servers first."""
    with unopened(load_settings(Flags(config=config)).settings) as database:
        counts = restore_backup(database, file, replace=replace)
    tell(counts, f"restored from {file}", as_json=as_json)


@command.command("prune")
@CONFIG
@click.option("--answers", metavar=_AGE, default="30d", show_default=True, help="Facts of answers.")
@click.option("--shares", metavar=_AGE, default="30d", show_default=True, help="Shared links.")
@click.option("--keys", metavar=_AGE, default="90d", show_default=True, help="Keys that ended.")
@click.option("--feedback", metavar=_AGE, help="Votes and reports [default: kept].")
@click.option("--ledger", metavar=_AGE, help="Rows of the ledger, at least 31d [default: kept].")
@click.option("--dry-run", is_flag=True, help="Only count them.")
@JSON
def prune_store(config: Path | None, dry_run: bool, as_json: bool, **ages: str | None) -> None:
    """Delete what is older than this; a running server need not be stopped.

    \b
    slipway store prune --feedback 365d --ledger 730d
    """
    now = time.time()
    before = {what: now - age(what, text) for what, text in ages.items() if text is not None}
    with records_of(load_settings(Flags(config=config)).settings) as store:
        counts = {
            what: prune(store.database, what, at, dry_run=dry_run) for what, at in before.items()
        }
    tell(counts, "would be deleted" if dry_run else "deleted", as_json=as_json)


def age(what: str, text: str) -> float:
    """Return how old rows must be to be deleted. Raises SettingsError."""
    try:
        age_s = duration(text)
    except ValueError as error:
        raise SettingsError([f"--{what}: {error}"]) from None
    if what == "ledger" and age_s < LEDGER_S:
        why = "budgets begin with what the ledger has of this month; write `31d` or more"
        raise SettingsError([f"--ledger: `{text}` is less than 31 days: {why}"])
    return age_s


def tell(counts: Mapping[str, int], done: str, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(dict(counts), indent=2))
        return
    for name, rows in counts.items():
        if rows:
            click.echo(f"{name:14} {counted(rows, 'row')}")
    click.echo(f"{counted(sum(counts.values()), 'row')} {done}")
