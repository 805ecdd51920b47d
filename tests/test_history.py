"""Test what is kept of the metrics over time, with a clock that the test sets."""

import asyncio
import random
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from slipway.app.sampling import Sampling
from slipway.app.stores import LazyRecords
from slipway.settings import Settings
from slipway.store import HistoryRow, open_records
from slipway.telemetry.buckets import below, quantile_of
from slipway.telemetry.definitions import Labels
from slipway.telemetry.history import History
from slipway.telemetry.metrics import AT_ONCE, Telemetry
from slipway.telemetry.rows import NumberedRow, Numbers, own_row
from slipway.telemetry.tracks import STEPS
from slipway.types import AnswerDone, Usage

MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0
NOON = 1_790_000_000.0
ERRORS = {"error": "provider_down"}


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> float:
        return self.now


class Server:
    """Telemetry, and a history that samples it each ten seconds of the test's clock."""

    def __init__(self, clock: Clock | None = None) -> None:
        self.clock = clock or Clock()
        self.gauges: dict[tuple[str, Labels], float] = {}
        self.telemetry = Telemetry(lambda: 0)
        self.history = History(
            lambda: self.telemetry.all_rows(),
            lambda: [(name, labels, value) for (name, labels), value in self.gauges.items()],
            clock=self.clock,
        )

    def answer(self, *, error: str | None = None, ttft_s: float = 0.1, app: str = "docs") -> None:
        self.telemetry.emit(answered(error=error, ttft_s=ttft_s, app=app))

    def run(self, seconds: float) -> None:
        end = self.clock.now + seconds
        while self.clock.now < end:
            self.clock.now = min(end, self.clock.now + 10)
            self.history.sample(self.clock.now)


def answered(*, error: str | None = None, ttft_s: float = 0.1, app: str = "docs") -> AnswerDone:
    return AnswerDone(
        id="ans-1",
        tenant="acme",
        endpoint="answers",
        app=app,
        model="m",
        provider="openai",
        served_by="model",
        error=error,
        streamed=True,
        ttft_s=ttft_s,
        duration_s=ttft_s + 1,
        usage=Usage(input_tokens=10, output_tokens=5),
    )


@pytest.fixture
def server() -> Server:
    return Server()


def test_a_window_counts_what_came_in_it(server: Server) -> None:
    server.run(10)
    for _ in range(30):  # an answer a minute, then a failed one
        server.answer()
        server.run(MINUTE)
    server.answer(error="provider_down")
    server.run(10)
    increase = server.history.increase
    assert increase("answers", 5 * MINUTE) == {(): 5}
    assert increase("answers", HOUR) == {(): 31}
    assert increase("answers", HOUR, by=("error",)) == {("",): 30, ("provider_down",): 1}
    assert increase("answers", MINUTE, where=ERRORS) == {(): 1}
    assert increase("answers", MINUTE, now=NOON + 20 * MINUTE) == {(): 1}, "as of an earlier time"
    assert increase("duration", 5 * MINUTE) == {(): 5}, "a histogram's observations"
    assert increase("feedback", HOUR) == {}


def test_a_counter_that_falls_began_again(server: Server) -> None:
    for _ in range(5):
        server.answer()
    server.run(20)
    server.telemetry = Telemetry(lambda: 0)
    server.answer()
    server.answer()
    server.run(20)
    assert server.history.increase("answers", HOUR) == {(): 7}


def test_rows_of_all_workers_are_added() -> None:
    clock, workers = Clock(), [Telemetry(lambda: 0) for _ in range(2)]

    def rows() -> Iterator[NumberedRow]:
        for worker in workers:
            yield from worker.own_rows()

    history = History(rows, clock=clock)
    for worker in workers:
        worker.emit(answered())
    history.sample(clock.now)
    assert history.increase("answers", MINUTE) == {(): 2}
    again = History(rows, clock=clock, baseline=True)  # a first worker that was started again
    again.sample(clock.now)
    workers[0].emit(answered())
    again.sample(clock.now + 10)
    assert again.increase("answers", MINUTE, now=clock.now + 10) == {(): 1}


@pytest.mark.parametrize("count", [1, AT_ONCE, 3 * AT_ONCE - 1])
def test_whoever_reads_finds_every_record_counted(count: int) -> None:
    telemetry = Telemetry(lambda: 0)
    for _ in range(count):
        telemetry.emit(answered())
    (answers,) = telemetry.sums()["answers"].values()
    (durations,) = telemetry.sums()["duration"].values()
    assert answers == [count]
    assert sum(durations[:-1]) == count


def test_rows_that_outlive_the_process_are_counted_in_at_once() -> None:
    rows = dict[str, Numbers]()

    def new_row(metric: str, labels: Labels, size: int) -> Numbers:
        return rows.setdefault(metric, own_row(metric, labels, size))

    Telemetry(lambda: 0, new_row=new_row).emit(answered())
    assert list(rows["answers"]) == [1]


def test_quantiles_are_those_of_prometheus(server: Server) -> None:
    bounds = server.history.metrics["ttft"].buckets
    server.run(10)
    for _ in range(90):
        server.answer(ttft_s=0.3)
    for _ in range(10):
        server.answer(ttft_s=0.7, app="chat")
    server.run(10)
    quantile = server.history.quantile
    assert quantile("ttft", 0.5, MINUTE)[()] == pytest.approx(0.25 + 0.25 * 50 / 90)
    assert quantile("ttft", 0.95, MINUTE)[()] == pytest.approx(0.5 + 0.25 * 5 / 10)
    by_app = quantile("ttft", 0.5, MINUTE, by=("gen_ai_request_model",))
    assert by_app == {("docs",): pytest.approx(0.375), ("chat",): pytest.approx(0.625)}
    assert quantile("ttft", 0.5, MINUTE, now=NOON) == {}, "nothing was observed then"
    assert server.history.below("ttft", 0.5, MINUTE) == {(): 90}
    assert quantile_of(bounds, [0.0] * len(bounds) + [3.0], 0.5) == bounds[-1], "past the last edge"
    assert below((1.0, 2.0), (10.0, 10.0, 5.0), 1.5) == 15


def test_gauges_keep_their_latest_value_and_end_with_their_model(server: Server) -> None:
    server.gauges = {
        ("model_state", ("a", "open")): 1,
        ("model_state", ("b", "open")): 0,
        ("in_flight", ()): 3,
    }
    server.run(MINUTE)
    del server.gauges["model_state", ("a", "open")]
    server.gauges["in_flight", ()] = 5
    server.run(MINUTE)
    gauge = server.history.gauge
    assert gauge("model_state") == {("b", "open"): 0}
    assert gauge("model_state", now=NOON + 30) == {("a", "open"): 1, ("b", "open"): 0}
    assert gauge("model_state", by=("state",), now=NOON + 30) == {("open",): 1}
    assert gauge("in_flight") == {(): 5}
    plotted = server.history.series("in_flight", 2 * MINUTE, 4)
    assert plotted.values == {(): [3, 3, 5, 5]}


def test_series_say_what_came_when(server: Server) -> None:
    for count in (1, 2, 0, 4):
        for _ in range(count):
            server.answer(ttft_s=0.3)
        server.run(MINUTE)
    plotted = server.history.series("answers", 4 * MINUTE, 4, by=("app",))
    assert plotted.step_s == MINUTE
    assert plotted.times == [NOON + n * MINUTE for n in (1, 2, 3, 4)]
    assert plotted.values == {("docs",): [1, 2, 0, 4]}
    median = server.history.series("ttft", 4 * MINUTE, 4, q=0.5).values[()]
    assert median == [0.375, 0.375, None, 0.375]


def test_every_window_is_right_over_days_and_memory_is_bounded() -> None:
    """Compare with a list of all events: an error is at most one step of the points it is from."""
    clock, chance = Clock(), random.Random(7)
    counts, events = [0.0], list[float]()
    history = History(lambda: [("answers", ("a", "m", "model", ""), counts)], clock=clock)
    history.sample(clock.now)
    while clock.now < NOON + 9 * DAY:
        clock.now += 10 if chance.random() < 0.1 else 120
        if chance.random() < 0.3:
            counts[0] += 1
            events.append(clock.now)
        history.sample(clock.now)
    for window_s in (60, 1800, 3600, 6 * HOUR, DAY, 3 * DAY, 7.9 * DAY):
        error_s = next(s.every_s for s in STEPS if s.keep_s >= window_s) + 120
        found = history.increase("answers", window_s).get((), 0.0)
        since = clock.now - window_s
        fewest = sum(at > since + error_s for at in events)
        most = sum(at > since - error_s for at in events)
        assert fewest <= found <= most, window_s
    track = history._tracks["answers"]["a", "m", "model", ""]
    for step, line in zip(STEPS, track.lines, strict=True):
        assert len(line.times) <= step.keep_s / step.every_s + 66


def test_what_was_kept_goes_on_after_a_restart(tmp_path: Path) -> None:
    server = Server()
    server.gauges["in_flight", ()] = 2
    server.run(10)
    for number in range(int(30 * HOUR / 600)):
        server.answer(ttft_s=0.3 if number % 2 else 0.7)
        server.run(600)
    history, settings = server.history, Settings(store=f"sqlite:///{tmp_path}/s.db")
    history.close(server.clock.now)
    rows = history.take_unsaved()
    drop = {int(step.every_s): server.clock.now - step.keep_s for step in STEPS if step.is_saved}
    with closing(open_records(settings)) as records:
        records.history.save("a", rows, drop_before=drop)
        records.history.save("a", rows[-3:], drop_before={})  # again, after a failure
        records.history.save(
            "b", [HistoryRow(step_s=60, at=server.clock.now, counts=b"")], drop_before={}
        )
        saved = records.history.load("a", 0)
    assert len(saved) < len(rows)
    again = Server(server.clock)
    again.answer()  # before anything could be loaded
    again.run(20)
    again.history.load(saved)
    again.answer()
    again.run(10)
    for window_s in (600, HOUR, 6 * HOUR, 24 * HOUR, 29 * HOUR):
        before = history.increase("answers", window_s - 30, now=server.clock.now - 30).get((), 0)
        assert again.history.increase("answers", window_s)[()] == pytest.approx(before + 2, abs=1)
    assert again.history.increase("answers", 7 * DAY) == {(): 30 * 6 + 2}
    assert again.history.quantile("ttft", 0.95, 7 * DAY)[()] == pytest.approx(
        history.quantile("ttft", 0.95, 7 * DAY)[()], abs=0.01
    )
    assert again.history.gauge("in_flight", now=server.clock.now - HOUR) == {(): 2}
    assert again.history.began_at <= NOON + 600


def test_rows_that_could_not_be_saved_are_kept_in_order(server: Server) -> None:
    server.answer()
    server.run(3 * MINUTE)
    rows = server.history.take_unsaved()
    server.answer()
    server.run(MINUTE)
    server.history.put_back(rows)
    times = [row.at for row in server.history.take_unsaved()]
    assert times == sorted(times)
    assert len(times) == len(rows) + 1


def test_rows_of_another_version_are_left_out(server: Server) -> None:
    other = Server()
    other.answer()
    other.run(MINUTE)
    rows = other.history.take_unsaved()
    strange = History(list, clock=server.clock)
    strange.metrics = {"answers": strange.metrics["feedback"]}
    strange._tracks = {"answers": {}}
    strange.load(rows)
    assert strange.increase("answers", HOUR) == {}


def test_a_clock_that_is_set_back_takes_nothing_away(server: Server) -> None:
    server.answer()
    server.run(MINUTE)
    server.answer()
    server.history.sample(NOON - HOUR)
    server.run(2 * MINUTE)
    assert server.history.increase("answers", HOUR) == {(): 2}


# the background task


def test_a_server_keeps_its_history_over_a_restart_and_while_the_store_is_down(
    tmp_path: Path,
) -> None:
    """The folder of the store is missing at first, as nothing was saved; then it is no folder."""
    clock, settings = Clock(), Settings(store=f"sqlite:///{tmp_path}/data/s.db")

    async def serve(answers: int, *, can_load: bool = True) -> History:
        telemetry = Telemetry(lambda: 0)
        sampling = Sampling(telemetry, LazyRecords(settings), clock=clock)
        if can_load:
            await sampling._load()
        for _ in range(answers):
            telemetry.emit(answered())
        for _ in range(12):
            clock.now += 10
            await sampling.sample()
        await sampling.stop()
        return sampling.history

    assert asyncio.run(serve(3)).increase("answers", HOUR) == {(): 3}
    assert not (tmp_path / "data").exists(), "this alone makes no store"
    open_records(settings).close()
    assert asyncio.run(serve(4)).increase("answers", HOUR) == {(): 4}
    assert asyncio.run(serve(5)).increase("answers", HOUR) == {(): 9}
    database = tmp_path / "data" / "s.db"
    content = database.read_bytes()
    database.write_bytes(b"this is no database")
    broken = asyncio.run(serve(1, can_load=False))
    assert broken.increase("answers", HOUR) == {(): 1}
    assert broken.take_unsaved(), "what could not be saved waits"
    database.write_bytes(content)
    assert asyncio.run(serve(0)).increase("answers", HOUR) == {(): 9}
