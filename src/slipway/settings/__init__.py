"""The settings: one frozen tree, from one YAML file and the flags of `slipway serve`. Nobody else
reads the environment.

Every wrong value stops the start with a SettingsError that names file, line, field and fix; all
problems are told at once.
"""

from slipway.settings.checks import Endpoint, Known, Needs, is_loopback
from slipway.settings.loading import DEFAULT_FILE, Flags, load
from slipway.settings.tree import (
    AccessRule,
    App,
    Connection,
    Key,
    Limits,
    Listen,
    Login,
    Model,
    Oidc,
    Price,
    Route,
    RouteEntry,
    Settings,
    json_schema,
)

__all__ = [
    "DEFAULT_FILE",
    "AccessRule",
    "App",
    "Connection",
    "Endpoint",
    "Flags",
    "Key",
    "Known",
    "Limits",
    "Listen",
    "Login",
    "Model",
    "Needs",
    "Oidc",
    "Price",
    "Route",
    "RouteEntry",
    "Settings",
    "is_loopback",
    "json_schema",
    "load",
]
