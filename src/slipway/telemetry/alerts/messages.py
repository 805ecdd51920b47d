"""What a notifier sends: alerts that began or ended together, as text, Markdown or JSON."""

from datetime import UTC, datetime
from typing import Any, Literal

from slipway.telemetry.alerts.alert import Severity, Unit
from slipway.types import Record

MARKS = {"page": "[page]", "ticket": "[ticket]", "none": "[heartbeat]"}


class AlertNotice(Record, frozen=True, kw_only=True):
    """One alert of a message, with all that a reader needs to act."""

    id: str
    name: str
    severity: Severity
    status: Literal["firing", "resolved"]
    labels: dict[str, str]
    summary: str
    action: str
    runbook: str
    since: float
    ended_at: float | None = None
    value: float | None = None
    threshold: float | None = None
    unit: Unit = ""


class AlertMessage(Record, frozen=True, kw_only=True):
    """Alerts that are sent together."""

    alerts: tuple[AlertNotice, ...]
    notifier: str = ""

    @property
    def status(self) -> Literal["firing", "resolved"]:
        return "firing" if any(a.status == "firing" for a in self.alerts) else "resolved"

    @property
    def title(self) -> str:
        """Return one line that says it all."""
        firing = sum(alert.status == "firing" for alert in self.alerts)
        ended = len(self.alerts) - firing
        if len(self.alerts) == 1:
            return f"{self.status.upper()}: {named(self.alerts[0])}"
        counts = [f"{firing} firing"] * bool(firing) + [f"{ended} resolved"] * bool(ended)
        names = ", ".join(dict.fromkeys(alert.name for alert in self.alerts))
        return f"{' and '.join(counts)}: {names}"

    @property
    def text(self) -> str:
        """Return the message as plain text."""
        return "\n\n".join("\n".join(lines(alert)) for alert in self.alerts)

    @property
    def markdown(self) -> str:
        """Return the message as the Markdown that chat services share."""
        parts = []
        for alert in self.alerts:
            first, *rest = lines(alert)
            parts.append("\n".join([f"**{first}**", "", *(f"- {line}" for line in rest)]))
        return "\n\n".join(parts)


def named(alert: AlertNotice) -> str:
    labels = ", ".join(f"{name} {value}" for name, value in alert.labels.items())
    return f"{alert.name} ({labels})" if labels else alert.name


def lines(alert: AlertNotice) -> list[str]:
    """Return what there is to say of an alert, the most important first."""
    mark = MARKS[alert.severity] if alert.status == "firing" else "[resolved]"
    found = [f"{mark} {named(alert)}: {alert.summary}"]
    if alert.value is not None and alert.status == "firing":
        limit = f", the limit is {shown(alert.threshold, alert.unit)}"
        found.append(
            f"It is {shown(alert.value, alert.unit)} now"
            f"{limit if alert.threshold is not None else ''}."
        )
    began = f"Since {utc(alert.since)}"
    found.append(
        f"{began}." if alert.ended_at is None else f"{began}, until {utc(alert.ended_at)}."
    )
    if alert.status == "firing":
        found += [f"What to do: {alert.action}", f"Runbook: {alert.runbook}"]
    return found


def shown(value: float | None, unit: Unit) -> str:
    if value is None:
        return "?"
    if unit == "share":
        return f"{100 * value:.3g} %"
    if unit == "s":
        return shown_time(value)
    return f"{value:,.6g} {unit}".rstrip()


def shown_time(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"


def utc(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def iso(at: float | None) -> str:
    """Return a time as Alertmanager writes it; its zero time if there is none."""
    if at is None:
        return "0001-01-01T00:00:00Z"
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def as_json(message: AlertMessage) -> dict[str, Any]:
    """Return the message as Alertmanager's webhook sends it (version 4), so that what takes those
    takes ours.
    """
    alerts = [
        {
            "status": alert.status,
            "labels": {"alertname": alert.name, "severity": alert.severity, **alert.labels},
            "annotations": {
                "summary": alert.summary,
                "action": alert.action,
                "runbook_url": alert.runbook,
                **({} if alert.value is None else {"value": shown(alert.value, alert.unit)}),
            },
            "startsAt": iso(alert.since),
            "endsAt": iso(alert.ended_at),
            "generatorURL": "",
            "fingerprint": alert.id,
        }
        for alert in message.alerts
    ]
    return {
        "version": "4",
        "receiver": message.notifier,
        "status": message.status,
        "groupKey": "slipway",
        "groupLabels": {},
        "commonLabels": {},
        "commonAnnotations": {},
        "externalURL": "",
        "truncatedAlerts": 0,
        "alerts": alerts,
    }
