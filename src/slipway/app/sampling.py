"""Sample the metrics every ten seconds into `History`, and keep its rows in the store."""

import asyncio
import logging
import socket
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import suppress

import msgspec

from slipway.app.stores import LazyRecords
from slipway.settings import Settings
from slipway.store import HistoryRow, StoreError, is_local
from slipway.telemetry.definitions import METRICS, MetricDefinition
from slipway.telemetry.gauges import GaugeRow
from slipway.telemetry.history import GaugeValue, History
from slipway.telemetry.metrics import Telemetry
from slipway.telemetry.saved_history import SavedHistory
from slipway.telemetry.tracks import STEPS

log = logging.getLogger("slipway")
PATIENCE_S = 30.0  # how long alerts wait for what was saved
LOAD_S = 5.0  # between two tries to load what was saved, while the store is down
Gauges = Sequence[Sequence[GaugeRow]]


async def alone() -> Gauges:
    """Return the gauges of other workers: there is none."""
    return ()


def source_of(settings: Settings) -> str:
    """Return the name of this server in the store: several servers may share a PostgreSQL."""
    if is_local(settings):
        return ""
    return f"{socket.gethostname()}:{settings.listen.port}"


def gauges_of(telemetry: Telemetry, others: Gauges) -> Iterator[GaugeValue]:
    """Yield the values of the gauges now."""
    state = telemetry.store()
    yield "store_up", (), int(state.reason is None)
    yield "store_waiting", (), state.waiting
    for name, rows in telemetry.gauges(others).items():
        if METRICS[name].is_gauge and name not in ("store_up", "store_waiting"):
            for labels, value in rows.items():
                yield name, labels, value


def with_edges(telemetry: Telemetry) -> dict[str, MetricDefinition]:
    """Return the metrics with the edges of buckets that the settings add."""
    return {
        name: msgspec.structs.replace(metric, buckets=telemetry.edges[name])
        if metric.buckets
        else metric
        for name, metric in METRICS.items()
    }


class Sampling:
    """The background task of `History`. While the store is down, rows wait in memory."""

    def __init__(
        self,
        telemetry: Telemetry,
        records: LazyRecords,
        others: Callable[[], Awaitable[Gauges]] = alone,
        *,
        baseline: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`others` returns the gauges of the other workers; `baseline` is History's."""
        self.telemetry, self.records, self.others, self.clock = telemetry, records, others, clock
        self.source = source_of(records.settings)
        self.read = telemetry.read
        telemetry.read = self._also_read
        self.after: list[Callable[[float], Awaitable[None]]] = []  # called after each sample
        self.also_read: Callable[[], Iterable[GaugeRow]] = tuple
        self.is_loaded = False  # whether what was saved is there, or was waited for long enough
        self._others: Gauges = ()
        self.history = History(
            telemetry.all_rows,
            self.gauges,
            clock=clock,
            baseline=baseline,
            metrics=with_edges(telemetry),
        )
        self._tasks: list[asyncio.Task[None]] = []

    def _also_read(self) -> Iterator[GaugeRow]:
        yield from self.read()
        yield from self.also_read()
        if self.history.sampled_at:
            yield "sampled_at", (), self.history.sampled_at

    def gauges(self) -> Iterator[GaugeValue]:
        yield from gauges_of(self.telemetry, self._others)

    def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._load()), loop.create_task(self._run())]

    async def stop(self) -> None:
        """Sample once more, and save what is not saved yet."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.telemetry.note_store()
        self.history.close(self.clock())
        await self._save()

    async def sample(self) -> None:
        """Sample now, and save what became whole."""
        self._others = await self.others()
        self.telemetry.note_store()
        now = self.clock()
        self.history.sample(now)
        await self._save()
        for act in self.after:
            await act(now)

    async def _run(self) -> None:
        every_s = STEPS[0].every_s
        while True:
            await asyncio.sleep(every_s - time.time() % every_s)
            try:
                await self.sample()
            except Exception:  # the task must go on: the next sample may succeed
                log.exception("the metrics could not be sampled")

    async def _load(self) -> None:
        """Load what was saved, once the store can be read."""
        since = self.clock() - STEPS[-1].keep_s
        patience_s = PATIENCE_S
        while True:
            with suppress(StoreError):
                saved = await asyncio.to_thread(self._read, since)
                self.history.join(saved)
                self.is_loaded = True
                return
            patience_s -= LOAD_S
            self.is_loaded = self.is_loaded or patience_s <= 0
            await asyncio.sleep(LOAD_S)

    def _read(self, since: float) -> SavedHistory:
        rows: list[HistoryRow] = []
        if self.records.is_there:
            rows = self.records().history.load(self.source, since)
        return self.history.replayed(rows)

    async def _save(self) -> None:
        rows = self.history.take_unsaved()
        if not rows:
            return
        if not self.records.is_there:  # nothing else was saved, and this alone makes no store
            self.history.put_back(rows)
            return
        now = self.clock()
        drop_before = {int(step.every_s): now - step.keep_s for step in STEPS if step.is_saved}

        def save() -> None:
            self.records().history.save(self.source, rows, drop_before=drop_before)

        try:
            await asyncio.to_thread(save)
        except StoreError:  # the store says itself that it is down
            self.history.put_back(rows)
