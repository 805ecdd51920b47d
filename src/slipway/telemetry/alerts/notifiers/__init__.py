"""Notifiers: who gets alerts. Each kind is a file here, and a row of the table."""

from collections.abc import Awaitable, Callable
from importlib import import_module
from typing import cast

from slipway.settings import NotifierSettings
from slipway.telemetry.alerts.messages import AlertMessage
from slipway.types import Record


class NotifierKind(Record, frozen=True, kw_only=True):
    """Where a kind's `send` is (imported when it is used), and the fields of the settings that it
    has; those that end with `?` are optional.
    """

    module: str
    fields: tuple[str, ...]


Send = Callable[[NotifierSettings, AlertMessage], Awaitable[None]]

KINDS = {
    "webhook": NotifierKind(module=".webhook", fields=("url", "secret?")),
    "slack": NotifierKind(module=".slack", fields=("url",)),
    "dingtalk": NotifierKind(module=".dingtalk", fields=("url", "secret?")),
    "feishu": NotifierKind(module=".feishu", fields=("url", "secret?")),
    "email": NotifierKind(module=".email", fields=("server", "sender", "to", "user?", "password?")),
}
FIELDS = {name: kind.fields for name, kind in KINDS.items()}


def sender(kind: str) -> Send:
    """Return what sends a message to a notifier of this kind."""
    return cast("Send", import_module(KINDS[kind].module, __package__).send)
