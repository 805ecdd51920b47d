"""What an alert is: its definition, its variants, and the rules that settings make of it."""

from collections.abc import Callable, Iterator
from typing import Literal

from slipway.settings import Settings
from slipway.telemetry.alerts.expressions import Expression
from slipway.types import Record

Severity = Literal["page", "ticket", "none"]
Unit = Literal["share", "s", "USD", ""]


class Variant(Record, frozen=True, kw_only=True):
    """One rule of an alert: its condition, the threshold to show, and labels that it adds."""

    when: Expression
    threshold: float | None = None
    labels: tuple[tuple[str, str], ...] = ()


class AlertDefinition(Record, frozen=True, kw_only=True):
    """An alert. `variants` yields none if the settings do not ask for it.

    `inhibited_by` names alerts that explain this one: while one of them fires with the same labels
    as far as both have them, nobody is notified of it. `where` says who can evaluate it.
    """

    name: str
    severity: Severity
    summary: str
    action: str
    variants: Callable[[Settings], Iterator[Variant]]
    for_s: float = 0.0
    unit: Unit = ""
    runbook: str = ""  # page in docs/runbooks; the name, if empty
    inhibited_by: tuple[str, ...] = ()
    only_prometheus: bool = False

    @property
    def page(self) -> str:
        return self.runbook or self.name


class AlertRule(Record, frozen=True, kw_only=True):
    """A variant of an alert for the settings in force."""

    definition: AlertDefinition
    variant: Variant

    @property
    def name(self) -> str:
        return self.definition.name
