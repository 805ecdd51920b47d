"""Alerts of a running server: evaluated after each sample of the metrics, kept over a restart."""

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from slipway.app.sampling import Sampling
from slipway.prices import PICO
from slipway.settings import Settings
from slipway.store import StoreError
from slipway.telemetry.alerts.definitions import rules_of
from slipway.telemetry.alerts.evaluator import Evaluator
from slipway.telemetry.alerts.expressions import DAY, HOUR
from slipway.telemetry.alerts.notifying import Notifying
from slipway.telemetry.alerts.reporting import report
from slipway.telemetry.gauges import GaugeRow

log = logging.getLogger("slipway")
SPENT_S = 60.0  # between two looks at what this month has cost
KNOWN_S = 6 * HOUR  # how long spending must be known before it says how it will go on
RECENT_S = 3 * DAY  # the days whose spending the forecast carries on


class Alerting:
    """Evaluates the alerts of the settings in force, and notifies people of them."""

    def __init__(self, sampling: Sampling, settings: Callable[[], Settings]) -> None:
        self.sampling, self.settings = sampling, settings
        self.history, self.records = sampling.history, sampling.records
        self.evaluator = Evaluator()
        telemetry = sampling.telemetry
        self.notifying = Notifying(
            self.evaluator, lambda name, how: telemetry.count("notifications", (name, how))
        )
        self.spent: tuple[float, float] | None = None  # USD of this month, and its forecast
        self._spent_at, self._is_loaded, self._saved = 0.0, False, dict[str, bytes]()
        sampling.also_read = self.gauges
        sampling.after.append(self.after_sample)

    def gauges(self) -> Iterator[GaugeRow]:
        if self.spent is not None:
            yield "spend_month", (), self.spent[0]
            yield "spend_forecast", (), self.spent[1]

    async def after_sample(self, now: float) -> None:
        """Look at the alerts, once what was before the start is loaded."""
        if now - self._spent_at >= SPENT_S:
            self._spent_at = now
            await self._look_at_spending(now)
        if not self.settings().alerts.evaluate or not self.sampling.is_loaded:
            return
        await self._load()
        changed = self.evaluator.step(rules_of(self.settings()), self.history, now)
        self.notifying.tick(self.settings().alerts, now)
        if changed or self.notifying.changed:
            self.notifying.changed = False
            await self._save()

    async def close(self) -> None:
        await self.notifying.close()
        await self._save()

    def report(self) -> dict[str, Any]:
        """Return all alerts with their states, as JSON values."""
        return report(self.settings(), self.evaluator, self.notifying)

    async def _look_at_spending(self, now: float) -> None:
        if not self.records.is_there:
            return
        begin, end = month_of(now)

        def spent() -> float:
            by_tenant = self.records().ledger.spent("tenant", begin)
            return sum(by_tenant.values()) / PICO

        with suppress(StoreError):  # the store says itself that it is down
            usd = await asyncio.to_thread(spent)
            self.spent = usd, usd + (end - now) * self._usd_per_s(now)

    def _usd_per_s(self, now: float) -> float:
        """Return what the last days cost a second; 0 while too little is known."""
        known_s = min(RECENT_S, now - self.history.began_at)
        if known_s < KNOWN_S:
            return 0.0
        return self.history.increase("cost", known_s, now=now).get((), 0.0) / known_s

    async def _load(self) -> None:
        """Load the states of before the start, once."""
        if self._is_loaded:
            return
        self._is_loaded = True
        if self.records.is_there:
            with suppress(StoreError):
                saved = await asyncio.to_thread(
                    lambda: self.records().history.load_alerts(self.sampling.source)
                )
                self.evaluator.load(saved)

    async def _save(self) -> None:
        states = self.evaluator.saved()
        if not self._is_loaded or not self.records.is_there:
            return
        with suppress(StoreError):
            await asyncio.to_thread(
                lambda: self.records().history.save_alerts(self.sampling.source, states)
            )


def month_of(now: float) -> tuple[float, float]:
    """Return when the month (UTC) of this time begins and ends."""
    at = datetime.fromtimestamp(now, UTC)
    begin = at.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    year, month = divmod(at.year * 12 + at.month, 12)
    return begin.timestamp(), begin.replace(year=year, month=month + 1).timestamp()
