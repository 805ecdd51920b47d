"""`slipway keys`: make, list, limit, replace and revoke keys."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import msgspec
import yaml

from slipway.app.loading import load_settings
from slipway.app.stores import records_of
from slipway.commands.options import CONFIG, JSON
from slipway.errors import SettingsError
from slipway.key_limits import AT_LIMIT, FIELDS, changed_limits, described
from slipway.keys import GRACE, KeyDesk, MadeKey, NewKey, end_state, key_hash, new_secret
from slipway.settings import Allowance, Flags
from slipway.store import SavedKey
from slipway.terminal import printable

_ID = click.argument("key_id", metavar="ID")
_LIMITS = {
    "rpm": ("N", "Answers in any 60 seconds."),
    "tpm": ("N", "Tokens of models' calls in any 60 seconds."),
    "answers": ("N", "Answers in progress at a time."),
    "usd_per_day": ("USD", "Money for models' calls in a day (UTC)."),
    "usd_per_month": ("USD", "Money for models' calls in a calendar month (UTC)."),
    "at_limit": ("WHAT", f"What happens at the limit: {', '.join(AT_LIMIT)}."),
}


def with_limits(function: Callable[..., None]) -> Callable[..., None]:
    """Add an option for each limit."""
    for name, (metavar, says) in reversed(_LIMITS.items()):
        option = click.option(f"--{name.replace('_', '-')}", metavar=metavar, help=says)
        function = option(function)
    return function


@click.group("keys")
def command() -> None:
    """Make, list, limit, replace and revoke API keys.

    Keys are kept in the store, as hashes. A running server uses a change within a second.
    """


@command.command("create")
@CONFIG
@click.option("--name", default="", help="What the key is for; shown in lists.")
@click.option("--tenant", default="default", show_default=True, help="Tenant that the key is for.")
@click.option("--new-tenant", is_flag=True, help="Allow a tenant that no key has had so far.")
@click.option("--group", "groups", multiple=True, help="Group of the key. Repeatable.")
@click.option(
    "--app",
    "apps",
    multiple=True,
    help="App, route or model it may call [default: all]. Repeatable.",
)
@click.option("--model", "models", multiple=True, help="Model or route it may call. Repeatable.")
@click.option("--documents", is_flag=True, help="It may add and remove documents.")
@click.option("--admin", is_flag=True, help="It may manage keys through /v1/keys.")
@click.option("--expires", metavar="WHEN", help="After `90d`, or at the end of `2027-01-31` (UTC).")
@with_limits
@click.option("--line", is_flag=True, help="Save nothing: print a line for the settings file.")
@JSON
def create(config: Path | None, line: bool, as_json: bool, **asked: Any) -> None:
    """Make a key. It is shown once; only its hash is saved.

    \b
    slipway keys create --name ci --app support --expires 90d
    """
    for option in ("tenant", "groups", "apps", "models"):
        values = asked[option] if isinstance(asked[option], tuple) else (asked[option],)
        if not all(value.strip() for value in values):
            raise SettingsError([f"--{option.removesuffix('s')}: it is empty; name one"])
    names = {name: asked[name] or None for name in ("apps", "models")}
    limits = limits_asked(asked)
    new = NewKey(**{**asked, **names}, limits=limits or None)
    if line:
        if new.expires is not None:
            what = "--expires: keys of the settings file do not expire"
            raise SettingsError([f"{what}; leave out `--line` for a key that does"])
        if as_json:
            raise SettingsError(["--json: `--line` prints a line of YAML; leave out one of them"])
        click.echo(settings_line(new))
        return
    with desk(config) as keys:
        made = keys.create(new)
    click.echo(as_text(made) if not as_json else in_json(shown(made.key) | {"key": made.secret}))


@command.command("list")
@CONFIG
@click.option("--all", "with_ended", is_flag=True, help="Also those that are revoked or expired.")
@JSON
def list_keys(config: Path | None, with_ended: bool, as_json: bool) -> None:
    """List the keys in the store."""
    with desk(config) as keys:
        found = keys.list_keys()
    now = time.time()
    found = [key for key in found if with_ended or end_state(key, now) is None]
    click.echo(in_json([shown(key) for key in found]) if as_json else "\n".join(table(found)))


@command.command("show")
@_ID
@CONFIG
@JSON
def show(key_id: str, config: Path | None, as_json: bool) -> None:
    """Show what a key may do."""
    with desk(config) as keys:
        key = keys.find(key_id)
    click.echo(in_json(shown(key)) if as_json else "\n".join(lines(key)))


@command.command("limit")
@_ID
@CONFIG
@with_limits
@click.option("--no-limits", is_flag=True, help="Remove all limits of the key.")
@JSON
def limit(key_id: str, config: Path | None, no_limits: bool, as_json: bool, **asked: Any) -> None:
    """Change the limits of a key; `none` removes one. What is not named stays.

    \b
    slipway keys limit key-5a595b61fd41 --rpm 60 --usd-per-day 5
    """
    limits = limits_asked(asked)
    if bool(limits) == no_limits:
        raise SettingsError(["name at least one limit, such as `--rpm 60`, or `--no-limits` alone"])
    with desk(config) as keys:
        key = keys.limit(key_id, None if no_limits else limits)
    click.echo(in_json(shown(key)) if as_json else "\n".join(lines(key)))


def limits_asked(asked: dict[str, Any]) -> dict[str, Any]:
    """Return the limits among the options, and take them out."""
    found = {name: asked.pop(name) for name in FIELDS}
    return {name: value for name, value in found.items() if value is not None}


@command.command("rotate")
@_ID
@CONFIG
@click.option(
    "--grace",
    default=GRACE,
    show_default=True,
    metavar="DURATION",
    help="How long the old key is still accepted.",
)
@JSON
def rotate(key_id: str, config: Path | None, grace: str, as_json: bool) -> None:
    """Replace a key by another one with the same rights, tenant and history."""
    with desk(config) as keys:
        made = keys.rotate(key_id, grace)
    if as_json:
        more = {"key": made.secret, "old_ends_at": made.old_ends_at}
        click.echo(in_json(shown(made.key) | more))
        return
    click.echo(as_text(made))
    click.echo(f"the old key is accepted until {moment(made.old_ends_at)}")


@command.command("revoke")
@_ID
@CONFIG
@JSON
def revoke(key_id: str, config: Path | None, as_json: bool) -> None:
    """Revoke a key: requests with it are refused within a second; running answers are finished."""
    with desk(config) as keys:
        key = keys.revoke(key_id)
    click.echo(in_json(shown(key)) if as_json else f"{key.id} is revoked")


@contextmanager
def desk(config: Path | None) -> Iterator[KeyDesk]:
    """Give the keys in the store of these settings."""
    settings = load_settings(Flags(config=config)).settings
    with records_of(settings) as store:
        yield KeyDesk(lambda: store.keys, lambda: settings)


def settings_line(new: NewKey) -> str:
    """Return a key and the line for the settings file, which holds only its hash."""
    key = new_secret()
    entry: dict[str, object] = {"key": f"sha256:{key_hash(key)}", "tenant": new.tenant}
    entry |= {"groups": list(new.groups)} if new.groups else {}
    if apps := [*(new.apps or ()), *(new.models or ())]:
        entry["apps"] = apps
    if (limits := changed_limits(None, new.limits)) is not None:
        unset = msgspec.to_builtins(Allowance())
        plain = msgspec.to_builtins(limits)  # amounts as text
        entry["limits"] = {name: value for name, value in plain.items() if value != unset[name]}
    entry |= {name: True for name in ("documents", "admin") if getattr(new, name)}
    return (
        f"key, to hand out (it is shown only now):\n  {key}\n\n"
        f"line for the settings file, under `keys:`:\n  - {in_yaml(entry)}"
    )


def in_yaml(entry: dict[str, object]) -> str:
    """Return one line of YAML that reads back as `entry`, whatever characters the names have."""
    return yaml.safe_dump(
        entry, default_flow_style=True, sort_keys=False, allow_unicode=True, width=10**6
    ).strip()


def as_text(made: MadeKey) -> str:
    return f"key, to hand out (it is shown only now):\n  {made.secret}\n\n" + "\n".join(
        lines(made.key)
    )


def in_json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)


def shown(key: SavedKey) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.to_builtins(key)
    return found


def table(keys: list[SavedKey]) -> Iterator[str]:
    """Yield a line for each key, below the names of the columns."""
    if not keys:
        yield "There are no keys in the store; `slipway keys create` makes one."
        return
    rows = [("ID", "KEY", "NAME", "TENANT", "MAY CALL", "LIMITS", "ENDS")]
    rows += [
        (
            *(key.id, f"{key.hint}…", key.name, key.tenant, may_call(key)),
            *(", ".join(described(key.limits)), ends(key)),
        )
        for key in keys
    ]
    cells = [[printable(cell, one_line=True) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def lines(key: SavedKey) -> Iterator[str]:
    """Yield what a person wants to know of a key."""
    for name, value in (
        ("id", key.id),
        ("name", key.name),
        ("begins with", key.hint),
        ("tenant", key.tenant),
        ("groups", ", ".join(key.groups)),
        ("may call", may_call(key)),
        ("documents", "may add and remove them" if key.documents else ""),
        ("admin", "may manage keys" if key.admin else ""),
        ("limits", ", ".join(described(key.limits))),
        ("made", moment(key.created_at)),
        ("ends", ends(key)),
    ):
        if value:
            yield f"{name + ':':13} {printable(value, one_line=True)}"


def may_call(key: SavedKey) -> str:
    if key.apps is None and key.models is None:
        return "everything"
    return ", ".join([*(key.apps or ()), *(key.models or ())])


def ends(key: SavedKey) -> str:
    if key.revoked_at is not None:
        return f"revoked {moment(key.revoked_at)}"
    if key.expires_at is None:
        return "never"
    past = key.expires_at <= time.time()
    return f"{'expired' if past else 'expires'} {moment(key.expires_at)}"


def moment(at: float | None) -> str:
    return datetime.fromtimestamp(at or 0, UTC).strftime("%Y-%m-%d %H:%M UTC")
