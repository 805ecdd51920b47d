"""Evaluate alerts over `History`, without Prometheus: pending, firing, resolved.

The clock is a parameter of `step`, so that hours can be replayed in a test.
"""

import hashlib
import logging
from collections.abc import Iterable, Mapping
from typing import Literal

import msgspec

from slipway.telemetry.alerts.alert import AlertDefinition, AlertRule
from slipway.telemetry.alerts.expressions import (
    DAY,
    AllOf,
    Compared,
    ComparedTo,
    Expression,
    GaugeMaximum,
)
from slipway.telemetry.history import History

log = logging.getLogger("slipway")
KEEP_S = 60.0  # a condition must be over for so long until its alert is resolved
REMEMBERED_S = DAY  # how long a resolved alert is shown
Phase = Literal["pending", "firing", "resolved"]


class AlertState(msgspec.Struct, kw_only=True):
    """One alert with its labels, since its condition became true. Times are in seconds since the
    epoch. `sent` says what each notifier was sent last, and `sent_at` when.
    """

    id: str
    name: str
    labels: dict[str, str]
    phase: Phase = "pending"
    since: float
    fired_at: float | None = None
    true_at: float
    ended_at: float | None = None
    value: float | None = None
    threshold: float | None = None
    sent: dict[str, Literal["firing", "resolved"]] = {}
    sent_at: dict[str, float] = {}


class Evaluator:
    """The states of all alerts, moved on by `step`."""

    def __init__(self, keep_s: float = KEEP_S) -> None:
        self.keep_s = keep_s
        self.states: dict[str, AlertState] = {}
        self.rules: list[AlertRule] = []
        self.evaluated_at = 0.0
        self._failed: set[str] = set()

    @property
    def definitions(self) -> dict[str, AlertDefinition]:
        return {rule.name: rule.definition for rule in self.rules}

    def load(self, saved: Mapping[str, bytes]) -> None:
        """Go on from the states of before a restart; what cannot be read is left out."""
        for id_, content in saved.items():
            try:
                self.states.setdefault(id_, msgspec.json.decode(content, type=AlertState))
            except msgspec.MsgspecError:
                log.warning("the saved state of an alert cannot be read; it begins again")

    def saved(self) -> dict[str, bytes]:
        return {id_: msgspec.json.encode(state) for id_, state in self.states.items()}

    def step(self, rules: Iterable[AlertRule], history: History, now: float) -> bool:
        """Evaluate all rules; return whether a state changed its phase."""
        self.rules, self.evaluated_at = list(rules), now
        before = {id_: state.phase for id_, state in self.states.items()}
        true: set[str] = set()
        for rule in self.rules:
            if not rule.definition.only_prometheus:
                true |= {
                    self._note(rule, labels, value, now)
                    for labels, value in self._values(rule, history, now)
                }
        for state in list(self.states.values()):
            if state.id not in true:
                self._end(state, now)
        return before != {id_: state.phase for id_, state in self.states.items()}

    def _values(
        self, rule: AlertRule, history: History, now: float
    ) -> list[tuple[dict[str, str], float]]:
        """Return the labels and values for which a rule's condition holds."""
        when = rule.variant.when
        try:
            found = when.value(history, now)
        except Exception:
            if rule.name not in self._failed:  # the others must go on, and one line is enough
                log.exception("the alert %s cannot be evaluated", rule.name)
            self._failed.add(rule.name)
            return []
        names, own = label_names(when), dict(rule.variant.labels)
        return [
            ({**own, **dict(zip(names, labels, strict=True))}, value)
            for labels, value in found.items()
        ]

    def _note(self, rule: AlertRule, labels: dict[str, str], value: float, now: float) -> str:
        """Note that a condition holds, and return the id of its state."""
        id_ = fingerprint(rule.name, labels)
        state = self.states.get(id_)
        if state is None or (
            state.phase == "resolved" and "firing" not in state.sent.values()
        ):  # a new one; if a notifier still waits to hear of the end, the old one goes on
            state = AlertState(id=id_, name=rule.name, labels=labels, since=now, true_at=now)
            self.states[id_] = state
        if state.phase == "resolved":
            state.phase, state.ended_at = "firing", None
        state.value, state.threshold, state.true_at = value, rule.variant.threshold, now
        if state.phase == "pending" and now - state.since >= rule.definition.for_s:
            state.phase, state.fired_at = "firing", now
        return id_

    def _end(self, state: AlertState, now: float) -> None:
        """Move on a state whose condition does not hold now."""
        if state.phase == "pending":
            del self.states[state.id]
        elif state.phase == "firing" and now - state.true_at >= self.keep_s:
            state.phase, state.ended_at = "resolved", now
        elif state.phase == "resolved" and now - (state.ended_at or now) > REMEMBERED_S:
            del self.states[state.id]

    def inhibitor(self, state: AlertState) -> str | None:
        """Return the name of a firing alert that explains this one."""
        definition = self.definitions.get(state.name)
        for other in self.states.values():
            if (
                definition is not None
                and other.phase == "firing"
                and other.name in definition.inhibited_by
                and all(state.labels.get(n, value) == value for n, value in other.labels.items())
            ):
                return other.name
        return None


def label_names(when: Expression) -> tuple[str, ...]:
    """Return the names of the labels that the values of an expression have."""
    if isinstance(when, AllOf):
        return label_names(when.conditions[0])
    if isinstance(when, Compared | ComparedTo):
        return label_names(when.left)
    return when.by if isinstance(when, GaugeMaximum) else ()


def fingerprint(name: str, labels: Mapping[str, str]) -> str:
    """Return an id that is the same for the same alert and labels."""
    text = msgspec.json.encode([name, sorted(labels.items())])
    return hashlib.blake2b(text, digest_size=8).hexdigest()
