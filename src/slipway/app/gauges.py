"""What is read for the metrics beside what is counted: documents, budgets, GPUs, and the servers of
models.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping

from slipway.admission import Admission
from slipway.answer import Pipeline
from slipway.prices import PICO
from slipway.providers.engine_metrics import EngineReader, Numbers
from slipway.settings import MetricsSettings, ModelSettings, Settings
from slipway.telemetry.gauges import GaugeRow
from slipway.telemetry.gpus import Gpus

EVERY_S = 12.0  # between two reads of a model's server
MUCH = 0.8  # the share of a budget from which on it counts as `over_80`
log = logging.getLogger("slipway")
Count = Callable[[str, tuple[str, ...]], None]  # increases a counter


class MetricReader:
    """Reads values when the metrics are scraped, and the servers of models in the background."""

    def __init__(self, pipeline: Callable[[], Pipeline], settings: MetricsSettings) -> None:
        self._pipeline = pipeline
        self.gpus = Gpus(wanted=settings.gpu)
        self.engines = Engines()

    def rows(self) -> Iterator[GaugeRow]:
        """Yield what is known now; no GPU or server is asked."""
        pipeline = self._pipeline()
        yield from document_rows(pipeline)
        yield from limit_rows(pipeline.admission)
        yield from self.gpus.rows
        yield from self.engines.rows()

    async def refresh(self) -> None:
        """Ask the GPUs, unless that was just done."""
        if self.gpus.may_be_there:
            await asyncio.to_thread(self.gpus.sample)

    async def run(self, count: Count) -> None:
        """Ask the GPUs and the servers of models again and again."""
        while True:
            try:
                await self.refresh()
                await self.engines.read(count)
            except Exception:  # whatever another program does, the next try comes
                log.exception("GPUs or models' servers could not be asked for their metrics")
            await asyncio.sleep(EVERY_S)

    async def close(self) -> None:
        await self.engines.close()
        await asyncio.to_thread(self.gpus.close)


def document_rows(pipeline: Pipeline) -> Iterator[GaugeRow]:
    """Yield the counts and ages of each app's documents, the longest unchecked first."""
    states = {
        name: app.knowledge.state()
        for name, app in pipeline.apps.items()
        if app.knowledge is not None
    }
    for name, state in sorted(states.items(), key=lambda item: -item[1].checked_s):
        yield "documents", (name, "read"), state.read
        yield "documents", (name, "partly"), state.partly
        yield "documents", (name, "failed"), state.failed
        yield "passages", (name,), state.passages
        yield "checked_age", (name,), state.checked_s
        if state.changed_s is not None:
            yield "changed_age", (name,), state.changed_s


def limit_rows(admission: Admission) -> Iterator[GaugeRow]:
    """Yield whether limits hold for all servers, the share that is spent of each budget and what is
    left, and how many are spent or nearly so.
    """
    if admission.shared is not None and admission.shared.is_together is not None:
        yield "limits_shared", (), int(admission.shared.is_together)
    counts = Counter[tuple[str, str, str]]()
    for scope, name, period, share, left in admission.used_shares():
        yield "budget_used", (scope, name, period), share
        yield "budget_left", (scope, name, period), left / PICO
        used = "spent" if share >= 1 else "over_80" if share >= MUCH else "under_80"
        counts[scope, period, used] += 1
    for labels, count in counts.items():
        yield "budgets", labels, count


class EngineState:
    """What is known of the server of one model."""

    def __init__(self, settings: ModelSettings, now: float) -> None:
        self.settings, self.reader = settings, EngineReader(settings)
        self.numbers: Numbers = {}
        self.read_at = now  # until the first time, its age counts from the start


class Engines:
    """The servers of those models whose settings say that they publish metrics."""

    def __init__(self) -> None:
        self._engines: dict[str, EngineState] = {}
        self._left: list[EngineState] = []

    def use(self, settings: Settings) -> None:
        """Read the servers of these settings from now on; what is known of those that stay is
        kept.
        """
        wanted = {name: model for name, model in settings.models.items() if model.metrics}
        before, now = self._engines, time.monotonic()
        self._engines = {
            name: before[name]
            if name in before and before[name].settings == model
            else EngineState(model, now)
            for name, model in wanted.items()
        }
        self._left += [each for each in before.values() if each not in self._engines.values()]

    async def read(self, count: Count) -> None:
        """Read all servers at the same time; a dead one only stays as it was."""
        left, self._left = self._left, []
        await asyncio.gather(
            *(self._read(name, engine, count) for name, engine in self._engines.items()),
            *(each.reader.close() for each in left),
        )

    async def _read(self, name: str, engine: EngineState, count: Count) -> None:
        answer = await engine.reader.read()
        count("engine_scrapes", (name, answer.outcome))
        if answer.outcome == "ok":
            engine.numbers, engine.read_at = answer.numbers, time.monotonic()

    def rows(self) -> Iterator[GaugeRow]:
        """Yield what the servers said last, and how long ago that was."""
        now = time.monotonic()
        for name, engine in self._engines.items():
            yield "engine_age", (name,), now - engine.read_at
            for (metric, labels), value in engine.numbers.items():
                yield metric, (name, *labels), value

    async def close(self) -> None:
        for each in (*self._engines.values(), *self._left):
            await each.reader.close()


def edges_of(settings: Settings) -> Mapping[str, tuple[float, ...]]:
    """Return the edges that the buckets of metrics need beside the usual ones, so that the share of
    answers within an objective is exact. They are those of the start as long as the server runs:
    between two edges, a share is estimated.
    """
    return {metric: (limit,) for metric, limit in settings.slo.edges.items()}
