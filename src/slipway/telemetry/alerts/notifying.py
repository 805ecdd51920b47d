"""Notify people of alerts: each alert once to each notifier, and its end once.

Alerts that begin together come in one message. A message that cannot be delivered is tried again,
until it is delivered or the alert is over; that it failed is logged and counted.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Literal

from slipway.settings import AlertSettings, NotifierSettings
from slipway.telemetry.alerts.evaluator import AlertState, Evaluator
from slipway.telemetry.alerts.messages import AlertMessage, AlertNotice
from slipway.telemetry.alerts.notifiers import Send, sender
from slipway.telemetry.alerts.posting import NotifyError
from slipway.types import Record

log = logging.getLogger("slipway")
PAUSES_S = (1.0, 4.0)  # between the tries of one delivery
DELIVERY_S = 40.0  # the longest that all tries of one delivery may take
AGAIN_S = 60.0  # until a delivery that failed is tried again
RANKS = {"none": 0, "ticket": 1, "page": 2}
Outcome = Literal["sent", "failed"]


class NotifierState(Record, frozen=True, kw_only=True):
    """How a notifier does: what was sent and what failed since the start, and the last error."""

    sent: int = 0
    failed: int = 0
    error: str | None = None
    error_at: float | None = None


class Notifying:
    """Sends what the evaluator finds. `count` is called with the notifier and the outcome of each
    delivery.
    """

    def __init__(
        self,
        evaluator: Evaluator,
        count: Callable[[str, Outcome], None],
        find: Callable[[str], Send] = sender,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.evaluator, self.count, self.find, self.pause = evaluator, count, find, pause
        self.notifiers: dict[str, NotifierState] = {}
        self.changed = False  # whether a state was sent since this was last set to false
        self._due_since: dict[str, float] = {}
        self._not_before: dict[str, float] = {}
        self._beat_at: dict[str, float] = {}
        self._running: dict[str, asyncio.Task[None]] = {}

    def tick(self, settings: AlertSettings, now: float) -> None:
        """Begin to send what is due; the sending goes on in the background."""
        for name, notifier in settings.notify.items():
            if name in self._running or now < self._not_before.get(name, 0.0):
                continue
            due = self.due(name, notifier, settings.repeat, now)
            if due:
                waiting_since = self._due_since.setdefault(name, now)
                if now - waiting_since < settings.group_wait:
                    due = []
            else:
                self._due_since.pop(name, None)
            beat = self._is_beat_due(name, notifier, now)
            if due or beat:
                self._due_since.pop(name, None)
                self._begin(name, notifier, due, self._notices(due, beat, settings, now), now)

    def due(
        self, name: str, notifier: NotifierSettings, repeat_s: float | None, now: float
    ) -> list[AlertState]:
        """Return what this notifier has to hear."""
        return [
            state
            for state in self.evaluator.states.values()
            if self._is_due(state, name, notifier, repeat_s, now)
        ]

    def _is_due(
        self,
        state: AlertState,
        name: str,
        notifier: NotifierSettings,
        repeat_s: float | None,
        now: float,
    ) -> bool:
        sent = state.sent.get(name)
        if state.phase == "resolved":
            return sent == "firing"
        definition = self.evaluator.definitions.get(state.name)
        if state.phase != "firing" or definition is None:
            return False
        if RANKS[definition.severity] < RANKS[notifier.severity]:
            return False
        if sent == "firing":
            return repeat_s is not None and now - state.sent_at.get(name, now) >= repeat_s
        return self.evaluator.inhibitor(state) is None

    def _is_beat_due(self, name: str, notifier: NotifierSettings, now: float) -> bool:
        every_s = notifier.heartbeat
        return every_s is not None and now - self._beat_at.get(name, -every_s) >= every_s

    def _notices(
        self, due: list[AlertState], beat: bool, settings: AlertSettings, now: float
    ) -> tuple[AlertNotice, ...]:
        watchdog = [s for s in self.evaluator.states.values() if beat and s.name == "Watchdog"]
        return tuple(
            noticed(state, self.evaluator, settings.runbooks) for state in (*due, *watchdog)
        )

    def _begin(
        self,
        name: str,
        notifier: NotifierSettings,
        due: list[AlertState],
        notices: tuple[AlertNotice, ...],
        now: float,
    ) -> None:
        if not notices:
            return
        message = AlertMessage(alerts=notices, notifier=name)
        phases = {state.id: state.phase for state in due}

        async def deliver() -> None:
            try:
                if await self._deliver(name, notifier, message, now):
                    self._note_sent(name, due, phases, now)
                    self._beat_at[name] = now
            finally:
                del self._running[name]

        self._running[name] = asyncio.get_running_loop().create_task(deliver())

    async def _deliver(
        self, name: str, notifier: NotifierSettings, message: AlertMessage, now: float
    ) -> bool:
        known = self.notifiers.get(name, NotifierState())
        try:
            async with asyncio.timeout(DELIVERY_S):
                await send_patiently(self.find(notifier.kind), notifier, message, self.pause)
        except (NotifyError, TimeoutError) as error:
            why = str(error) or f"no answer within {DELIVERY_S:g} s"
            log.warning(
                "the notifier %s could not be reached (%s): it is tried again in %g s",
                name,
                why,
                AGAIN_S,
            )
            self.notifiers[name] = NotifierState(
                sent=known.sent, failed=known.failed + 1, error=why, error_at=now
            )
            self._not_before[name] = now + AGAIN_S
            self.count(name, "failed")
            return False
        self.notifiers[name] = NotifierState(sent=known.sent + 1, failed=known.failed)
        self.count(name, "sent")
        return True

    def _note_sent(
        self, name: str, due: list[AlertState], phases: Mapping[str, str], now: float
    ) -> None:
        for state in due:
            state.sent[name] = "resolved" if phases[state.id] == "resolved" else "firing"
            state.sent_at[name] = now
        self.changed = self.changed or bool(due)

    async def settle(self) -> None:
        """Wait until what is being sent has been sent, or has failed."""
        while self._running:
            await asyncio.gather(*self._running.values(), return_exceptions=True)

    async def close(self) -> None:
        """Stop sending; what was not sent is sent after the next start."""
        for task in list(self._running.values()):
            task.cancel()
        await self.settle()


async def send_patiently(
    send: Send,
    notifier: NotifierSettings,
    message: AlertMessage,
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Send a message, and try again if that may help. Raises NotifyError."""
    for pause_s in PAUSES_S:
        try:
            await send(notifier, message)
        except NotifyError as error:
            if not error.may_retry:
                raise
            await pause(pause_s)
        else:
            return
    await send(notifier, message)


def noticed(state: AlertState, evaluator: Evaluator, runbooks: str) -> AlertNotice:
    """Return what a message says of an alert. Its definition may be gone since the settings
    changed; then it can only end.
    """
    definition = evaluator.definitions.get(state.name)
    return AlertNotice(
        id=state.id,
        name=state.name,
        severity=definition.severity if definition else "ticket",
        status="resolved" if state.phase == "resolved" else "firing",
        labels=state.labels,
        summary=definition.summary if definition else "The settings do not have it any more.",
        action=definition.action if definition else "",
        runbook=f"{runbooks}/{definition.page}.md" if definition else "",
        since=state.since,
        ended_at=state.ended_at,
        value=state.value,
        threshold=state.threshold,
        unit=definition.unit if definition else "",
    )
