"""Report all alerts with their states, for the API, the operations page and the command line."""

from typing import Any

import msgspec

from slipway.settings import Settings
from slipway.telemetry.alerts.alert import AlertRule
from slipway.telemetry.alerts.definitions import rules_of
from slipway.telemetry.alerts.evaluator import AlertState, Evaluator
from slipway.telemetry.alerts.notifying import NotifierState, Notifying

ORDER = ("firing", "pending", "ok", "resolved")


def report(settings: Settings, evaluator: Evaluator, notifying: Notifying) -> dict[str, Any]:
    """Return the alerts, those that fire first; then the notifiers, without their addresses."""
    rules = rules_of(settings)
    states = [shown(state, rules, evaluator, settings) for state in evaluator.states.values()]
    seen = {state.name for state in evaluator.states.values() if state.phase != "resolved"}
    quiet = [
        fields(rule, settings) | {"state": "ok", "labels": dict(rule.variant.labels)}
        for rule in rules
        if rule.name not in seen and not rule.definition.only_prometheus
    ]
    alerts = [*states, *quiet]
    return {
        "object": "alerts",
        "evaluated": settings.alerts.evaluate,
        "evaluated_at": evaluator.evaluated_at or None,
        "data": sorted(alerts, key=lambda a: (ORDER.index(a["state"]), a["severity"] != "page")),
        "notifiers": [
            {
                "name": name,
                "kind": notifier.kind,
                "severity": notifier.severity,
                **msgspec.to_builtins(notifying.notifiers.get(name, NotifierState())),
            }
            for name, notifier in settings.alerts.notify.items()
        ],
    }


def fields(rule: AlertRule, settings: Settings) -> dict[str, Any]:
    """Return what the table says of an alert."""
    definition = rule.definition
    return {
        "name": rule.name,
        "severity": definition.severity,
        "summary": definition.summary,
        "action": definition.action,
        "runbook": f"{settings.alerts.runbooks}/{definition.page}.md",
        "for_s": definition.for_s,
        "unit": definition.unit,
        "threshold": rule.variant.threshold,
        "value": None,
        "since": None,
        "fired_at": None,
        "ended_at": None,
        "inhibited_by": None,
        "sent_to": [],
    }


def shown(
    state: AlertState, rules: list[AlertRule], evaluator: Evaluator, settings: Settings
) -> dict[str, Any]:
    rule = next((rule for rule in rules if rule.name == state.name), None)
    known = fields(rule, settings) if rule is not None else {"name": state.name, "severity": ""}
    return {
        **known,
        "state": state.phase,
        "labels": state.labels,
        "value": state.value,
        "threshold": state.threshold,
        "since": state.since,
        "fired_at": state.fired_at,
        "ended_at": state.ended_at,
        "inhibited_by": evaluator.inhibitor(state) if state.phase == "firing" else None,
        "sent_to": sorted(state.sent),
    }
