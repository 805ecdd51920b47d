"""The settings: one frozen tree, from a YAML file and the flags of `slipway serve`.

Only this package reads the environment. Every invalid value stops the start with a SettingsError
that names file, line, field and fix; all problems are reported at once.
"""

from slipway.settings.alerting import AlertSettings, NotifierSettings, Slo, SpendAlerts
from slipway.settings.apps import AccessRule, AppSettings, RulesSettings
from slipway.settings.caching import CacheSettings, CacheStorage
from slipway.settings.keys import Allowance, KeySettings, Login, Oidc, TenantSettings
from slipway.settings.known_names import Endpoint, KnownNames, Needs, is_loopback
from slipway.settings.loading import DEFAULT_FILE, Flags, load
from slipway.settings.models import (
    ConnectionSettings,
    ModelSettings,
    Price,
    PriceTier,
    Route,
    RouteEntry,
)
from slipway.settings.observing import LogSettings, MetricsSettings, OtlpSettings, TraceSettings
from slipway.settings.tree import Limits, Listen, Settings, json_schema
from slipway.settings.values import share

__all__ = [
    "DEFAULT_FILE",
    "AccessRule",
    "AlertSettings",
    "Allowance",
    "AppSettings",
    "CacheSettings",
    "CacheStorage",
    "ConnectionSettings",
    "Endpoint",
    "Flags",
    "KeySettings",
    "KnownNames",
    "Limits",
    "Listen",
    "LogSettings",
    "Login",
    "MetricsSettings",
    "ModelSettings",
    "Needs",
    "NotifierSettings",
    "Oidc",
    "OtlpSettings",
    "Price",
    "PriceTier",
    "Route",
    "RouteEntry",
    "RulesSettings",
    "Settings",
    "Slo",
    "SpendAlerts",
    "TenantSettings",
    "TraceSettings",
    "is_loopback",
    "json_schema",
    "load",
    "share",
]
