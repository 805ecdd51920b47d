"""Write the alerts as rules for Prometheus, and as inhibitions for Alertmanager."""

from collections.abc import Iterable
from typing import Any

import yaml

from slipway.settings import Settings
from slipway.telemetry.alerts.alert import AlertRule
from slipway.telemetry.alerts.definitions import rules_of
from slipway.telemetry.alerts.evaluator import KEEP_S
from slipway.telemetry.alerts.expressions import duration

INTERVAL_S = 15.0
HEAD = """\
# Alerts of Slipway, for the settings in {file}. Print them again after you change `slo` or `alerts`:
#   slipway alerts rules --out slipway-rules.yml
# Alertmanager notifies nobody of an alert that another one explains, with these lines in its file:
#
"""


class RulesDumper(yaml.SafeDumper):
    """Writes texts of several lines as blocks."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


RulesDumper.add_representer(str, _text)


def dumped(value: Any) -> str:
    text: str = yaml.dump(
        value, Dumper=RulesDumper, sort_keys=False, width=10_000, allow_unicode=True
    )
    return text


def rule_file(settings: Settings, file: str) -> str:
    """Return the file of rules for these settings; `file` names them in its head."""
    rules = rules_of(settings)
    inhibitions = "".join(f"# {line}\n" for line in dumped(inhibit_rules(rules)).splitlines())
    group = {
        "name": "slipway",
        "interval": duration(INTERVAL_S),
        "rules": [rule_fields(rule, settings) for rule in rules],
    }
    return f"{HEAD.format(file=file)}{inhibitions}\n{dumped({'groups': [group]})}"


def rule_fields(rule: AlertRule, settings: Settings) -> dict[str, Any]:
    definition = rule.definition
    fields: dict[str, Any] = {"alert": rule.name, "expr": rule.variant.when.promql()}
    if definition.for_s:
        fields["for"] = duration(definition.for_s)
    if definition.severity != "none":
        fields["keep_firing_for"] = duration(KEEP_S)
    value = "{{ $value | humanizePercentage }}" if definition.unit == "share" else "{{ $value }}"
    return {
        **fields,
        "labels": {"severity": definition.severity, **dict(rule.variant.labels)},
        "annotations": {
            "summary": definition.summary,
            "description": f"{definition.action} It is {value} now.",
            "runbook_url": f"{settings.alerts.runbooks}/{definition.page}.md",
        },
    }


def inhibit_rules(rules: Iterable[AlertRule]) -> dict[str, Any]:
    """Return which alert silences which, as Alertmanager's `inhibit_rules`."""
    rules = list(rules)
    there = {rule.name: rule for rule in rules}
    return {
        "inhibit_rules": [
            {
                "source_matchers": [f'alertname="{source}"'],
                "target_matchers": [f'alertname="{rule.name}"'],
                **equal_labels(there[source], rule),
            }
            for rule in there.values()
            for source in rule.definition.inhibited_by
            if source in there
        ]
    }


def equal_labels(source: AlertRule, target: AlertRule) -> dict[str, list[str]]:
    """Return the labels that must be equal, if any: those that both have."""
    names = {name for name, _ in source.variant.labels}
    both = [name for name, _ in target.variant.labels if name in names]
    return {"equal": both} if both else {}
