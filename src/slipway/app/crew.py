"""What a worker shares with the others: its counts, which the others can read, and what it asks
them.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from slipway.admission import InFlight
from slipway.cache import Selection
from slipway.settings import Limits, ModelSettings, Settings
from slipway.settings.loading import Loaded
from slipway.telemetry.definitions import Labels
from slipway.telemetry.gauges import GaugeRow
from slipway.telemetry.model_states import ModelState
from slipway.telemetry.rows import NumberedRow, Numbers
from slipway.workers import Board, Channel, ChannelError, Place

Edges = Mapping[str, Sequence[float]]
FLUSH_S = 6.0  # how long it waits for them to write their rows
ASK_S = 1.0  # how long a worker waits for what the others know


def pack(found: Loaded) -> Any:
    """Return settings as they are sent to other workers: JSON, keys and passwords included."""
    file = None if found.file is None else str(found.file)
    return [msgspec.to_builtins(found.settings), file, list(found.warnings)]


def unpack(body: Any) -> Loaded:
    settings, file, warnings = body
    return Loaded(
        settings=msgspec.convert(settings, Settings),
        file=None if file is None else Path(file),
        warnings=tuple(warnings),
    )


def notes(settings: Settings) -> Iterator[str]:
    """Say what is not shared among workers, or only in parts."""
    workers = settings.listen.workers
    for name, model in settings.models.items():
        if model.weights:
            yield f"model {name} runs here: only the first worker calls it"
        elif model.at_once is not None and model.at_once < workers:
            yield (
                f"models.{name}.at_once is {model.at_once}, less than the {workers} workers: only "
                "the first one calls it"
            )
        elif model.at_once is not None:
            yield f"models.{name}.at_once: {model.at_once} is divided among {workers} workers"
    if settings.limits.connections != Limits().connections:
        yield f"limits.connections: {settings.limits.connections} holds for each worker"
    if settings.shared is None and any(
        part.cache is not None
        for parts in (settings.models, settings.apps)
        for part in parts.values()
    ):
        yield "cache: each worker keeps its own answers; with `shared` they find each other's"


class SharedInFlight(InFlight):
    """The answers in progress in all workers, so that `limits.answers` holds for all together.

    Only `count += 1` and `count -= 1` are used, which change this worker's own number: what was
    read of the others just before is subtracted again.
    """

    def __init__(self, board: Board, number: int) -> None:
        self._all, self._own = board.all_in_flight(), number - 1
        self._others = 0
        self._began = board.all_began()

    @property
    def count(self) -> int:
        total = sum(self._all)
        self._others = total - self._all[self._own]
        return total

    @count.setter
    def count(self, value: int) -> None:
        self._all[self._own] = value - self._others

    @property
    def began(self) -> int:
        return self._began[self._own]

    @began.setter
    def began(self, value: int) -> None:
        self._began[self._own] = value


def unfinished(board: Board, number: int) -> int:
    """Return how many answers began in a worker that were never counted as finished.

    The difference of two counters, each of them changed by one store, is exact whenever a worker
    is killed.
    """
    finished = sum(
        int(numbers[0])
        for key, numbers in board.segment(number).rows()
        if metric_of(key)[0] == "answers"
    )
    return board.all_began()[number - 1] - finished


def metric_of(key: bytes) -> tuple[str, Labels]:
    """Return the metric and the labels of a row in shared memory."""
    metric, *labels = msgspec.json.decode(key, type=tuple[str, ...])
    return metric, tuple(labels)


class Crew:
    """A worker's place among the workers of a server."""

    def __init__(self, place: Place, board: Board, path: Path, secret: bytes, edges: Edges) -> None:
        """`path` is the Unix socket of the first worker, `secret` proves to it who sends. `edges`
        are those of the metrics' buckets in all workers, whenever one is started: rows in shared
        memory keep their size.
        """
        self.place, self.board, self.path, self.secret = place, board, path, secret
        self.edges = edges
        self.channel: Channel | None = None
        self._segment = board.segment(place.number)

    def in_flight(self) -> InFlight:
        return SharedInFlight(self.board, self.place.number)

    # metrics

    def new_row(self, metric: str, labels: Labels, size: int) -> Numbers:
        """Return this worker's row; one of an earlier process of this worker goes on."""
        return self._segment.row(msgspec.json.encode((metric, *labels)), size)

    def all_rows(self) -> Iterator[NumberedRow]:
        """Yield the rows of all workers, also of those that have ended."""
        for segment in self.board.segments:
            for key, numbers in segment.rows():
                yield *metric_of(key), numbers
        yield "worker_restarts", (), [self.board.restarts]
        yield "answers_lost", (), [self.board.lost]

    # what the others know

    def counts(self) -> dict[str, int]:
        """Return how many workers there are, how many take requests, how often one was started
        again, and which one says so.
        """
        board = self.board
        return {
            "configured": board.workers,
            "running": board.running,
            "restarts": board.restarts,
            "this": self.place.number,
        }

    async def model_states(self) -> Sequence[dict[str, ModelState]]:
        """Return what the others know of the models."""
        return msgspec.convert(await self._ask("models", None), list[dict[str, ModelState]])

    async def gauges(self) -> Sequence[Sequence[GaugeRow]]:
        """Return what the others know for the metrics, beside what they counted."""
        return msgspec.convert(await self._ask("gauges", None), list[list[GaugeRow]])

    async def flush_traces(self) -> None:
        """Let the others write their latest traces into the files that all of them read."""
        await self._ask("flush_traces", None)

    async def flush_rows(self) -> bool:
        """Return whether the store has all rows of the others."""
        try:
            if self.channel is None:
                return True
            return all(await self.channel.call("others", "flush_rows", within_s=FLUSH_S))
        except ChannelError:
            return False

    async def invalidate(self, selection: Selection) -> int:
        """Let the others remove kept answers; return how many they removed."""
        return sum(await self._ask("invalidate", msgspec.to_builtins(selection)))

    async def _ask(self, verb: str, body: Any) -> list[Any]:
        """Return the others' answers; those that do not answer in time are left out."""
        try:
            if self.channel is None:
                return []
            answers = await self.channel.call("others", verb, body, within_s=ASK_S)
        except ChannelError:
            return []
        return list(answers)

    # limits

    def split(self, settings: Settings) -> Settings:
        """Return the settings with this worker's share of the calls that a model takes at once.

        A model that takes fewer calls than there are workers is called by the first one alone.
        """
        models = {name: self._split(model) for name, model in settings.models.items()}
        return msgspec.structs.replace(settings, models=models)

    def _split(self, model: ModelSettings) -> ModelSettings:
        workers = self.board.workers
        if model.at_once is None or model.at_once < workers:
            return model
        each, rest = divmod(model.at_once, workers)
        share = each + (self.place.number <= rest)
        return msgspec.structs.replace(model, at_once=share)

    def is_split(self, model: ModelSettings) -> bool:
        """Return whether every worker may call this model."""
        few = model.at_once is not None and model.at_once < self.board.workers
        return not few and not model.weights
