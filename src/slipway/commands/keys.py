"""`slipway keys`."""

import secrets

import click
import yaml

from slipway.admission import key_hash
from slipway.errors import SettingsError


@click.command("keys")
@click.option("--tenant", default="default", show_default=True, help="Tenant that the key is for.")
@click.option(
    "--app",
    "apps",
    multiple=True,
    help="App, route or model it may call [default: all]. Repeatable.",
)
def command(tenant: str, apps: tuple[str, ...]) -> None:
    """Create a key: the secret to hand out, and the line for the settings file.

    The settings hold only its hash. The secret is shown once.
    """
    for option, value in (("--tenant", tenant), *(("--app", app) for app in apps)):
        if not value.strip():
            raise SettingsError([f"{option}: it is empty; name one"])
    key = f"sw-{secrets.token_urlsafe(32)}"
    entry = {"key": f"sha256:{key_hash(key)}", "tenant": tenant}
    line = in_yaml(entry | ({"apps": list(apps)} if apps else {}))
    click.echo(f"key, to hand out (it is shown only now):\n  {key}\n")
    click.echo(f"line for the settings file, under `keys:`:\n  - {line}")


def in_yaml(entry: dict[str, object]) -> str:
    """Return one line of YAML that reads back as `entry`, whatever characters the names have."""
    return yaml.safe_dump(
        entry, default_flow_style=True, sort_keys=False, allow_unicode=True, width=10**6
    ).strip()
