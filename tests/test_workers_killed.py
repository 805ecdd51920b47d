"""Test workers that are killed, stopped or started again: nobody else notices, and nothing that was
counted is lost.
"""

import asyncio
import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import httpx
import pytest

import plain_http
from processes import mock_process, mocking, models
from several_workers import Workers, several, total
from slipway.providers.mock import MockServer
from waiting import PATIENCE_S, until, until_async

CHAT = json.dumps(
    {"model": "mock-model", "messages": [{"role": "user", "content": "Hello"}]}
).encode()
STREAM = CHAT[:-1] + b', "stream": true}'
TEA = "# Tea\n\n## Green tea\n\nGreen tea is brewed at 80 degrees for two minutes.\n"


TOKENS = 5  # of an answer
Kill = tuple[int, float]  # a worker, and when it was killed


@dataclass
class Failure:
    """A request that got no whole answer: its worker if known, and when that was."""

    worker: int | None
    opened_at: float
    failed_at: float
    what: str


@dataclass
class Load:
    """Clients that ask one question after another, each on a kept connection."""

    port: int
    answered: int = 0
    failures: list[Failure] = field(default_factory=list)
    stopped: bool = False

    async def client(self, body: bytes) -> None:
        while not self.stopped:
            worker, opened_at = None, time.monotonic()
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            except OSError as error:
                self.note(None, opened_at, error)
                continue
            try:
                head = await self.exchange(reader, writer, b"GET /healthz", b"")
                worker = json.loads(head)["workers"]["this"]
                while not self.stopped:
                    await self.exchange(reader, writer, b"POST /v1/chat/completions", body)
                    self.answered += 1
            except (OSError, asyncio.IncompleteReadError) as error:
                self.note(worker, opened_at, error)
            finally:
                writer.close()
                with suppress(OSError):
                    await writer.wait_closed()

    def has_answered(self, count: int) -> bool:
        return self.answered >= count

    def note(self, worker: int | None, opened_at: float, error: Exception) -> None:
        self.failures.append(Failure(worker, opened_at, time.monotonic(), repr(error)))

    async def exchange(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, what: bytes, body: bytes
    ) -> bytes:
        """Send a request and return the body of its response, which must be a whole 200."""
        writer.write(
            b"%b HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (what, len(body), body)
        )
        async with asyncio.timeout(PATIENCE_S):
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            if b"content-length: " in head:
                size = int(head.partition(b"content-length: ")[2].partition(b"\r")[0])
                found = await reader.readexactly(size)
            else:
                found = await reader.readuntil(b"\r\n0\r\n\r\n")
                assert b"data: [DONE]" in found
        assert b" 200 " in head.partition(b"\r\n")[0], head + found
        return found


async def kill_under_load(
    workers: Workers, bodies: list[bytes], kills: int, every_s: float
) -> tuple[Load, list[Kill]]:
    """Kill one worker after the other while clients ask; return the load, and who died when."""
    load, killed = Load(workers.server.port), list[Kill]()
    async with asyncio.TaskGroup() as clients:  # the first wrong answer ends it
        for body in bodies:
            clients.create_task(load.client(body))
        for worker in islice(cycle((2, 1)), kills):
            await until_async(partial(load.has_answered, load.answered + 50))
            await asyncio.sleep(every_s)
            restarts = (await asyncio.to_thread(workers.counts))["restarts"]
            os.kill(await asyncio.to_thread(workers.pid_of, worker), signal.SIGKILL)
            killed.append((worker, time.monotonic()))
            await asyncio.to_thread(until, partial(is_whole, workers, restarts + 1))
        await until_async(partial(load.has_answered, load.answered + 50))
        load.stopped = True
    return load, killed


def priced(url: str) -> dict[str, Any]:
    """Settings of the mock's model, which costs 1 USD per million tokens."""
    return models(url, "mock-model", price={"input": 1, "output": 1})


def is_whole(workers: Workers, restarts: int) -> bool:
    counts = workers.counts()
    return counts["restarts"] >= restarts and counts["running"] == counts["configured"]


def check_killed(workers: Workers, mock: str, load: Load, killed: list[Kill]) -> None:
    """Only requests in a killed worker may have failed, and every sum is exact up to those."""
    for failure in load.failures:
        assert any(
            failure.worker in (worker, None) and failure.opened_at <= at <= failure.failed_at
            for worker, at in killed
        ), (failure, killed)
    answers = workers.metric('slipway_answers_total{app="mock-model",error=""')
    lost = workers.metric("slipway_answers_lost_total")
    assert workers.metric("slipway_answers_total") == answers, workers.server.get("/metrics").text
    failed = len(load.failures)
    assert load.answered <= answers + lost <= load.answered + failed, (load.answered, failed)
    assert answers <= calls_of(mock) <= answers + lost
    assert answers <= workers.metric("slipway_attempts_total") <= answers + lost
    durations = workers.metric("gen_ai_server_request_duration_seconds_count")
    assert answers - len(killed) <= durations <= answers  # counted just after the answer
    check_calls(workers, answers, lost, len(killed))
    assert workers.metric("slipway_worker_restarts_total") == len(killed)


def check_calls(workers: Workers, answers: float, lost: float, kills: int) -> None:
    """What is counted of calls, tokens and money is exact up to the moment of each kill: a call is
    counted in several numbers, one after the other.
    """
    attempts = workers.metric("slipway_attempts_total")
    calls = workers.metric("gen_ai_client_operation_duration_seconds_count")
    assert attempts - kills <= calls <= attempts
    for kind, each in (("input", 2), ("output", TOKENS)):
        of = f'gen_ai_response_model="mock-model",gen_ai_token_type="{kind}"}}'
        lines = workers.server.get("/metrics").text.splitlines()
        tokens = sum(
            float(line.split()[-1])
            for line in lines
            if line.startswith("gen_ai_client_token_usage_sum{") and of in line
        )
        assert (answers - kills) * each <= tokens <= (answers + lost) * each
    usd = workers.metric("slipway_cost_usd_total")
    a_call = (2 + TOKENS) / 1_000_000
    assert (answers - kills) * a_call * 0.999 <= usd <= (answers + lost) * a_call * 1.001
    assert workers.metric("slipway_retries_total") == 0
    assert workers.metric("slipway_series_other_total") == 0


def calls_of(mock: str) -> int:
    """Return how many chat requests a mock has seen: it numbers its answers."""
    asked = plain_http.post(f"{mock}/chat/completions", json=json.loads(CHAT))
    return int(asked.json()["id"].removeprefix("chatcmpl-mock-")) - 1


def test_only_requests_in_a_killed_worker_fail(tmp_path: Path) -> None:
    with (
        mocking(tokens=TOKENS) as mock,
        several(tmp_path, settings=priced(mock.url)) as workers,
    ):
        bodies = [CHAT] * 4 + [STREAM] * 4
        load, killed = asyncio.run(kill_under_load(workers, bodies, 4, 0.0))
        check_killed(workers, mock.url, load, killed)
        assert workers.server.log.count("ended by SIGKILL") == 4


@pytest.mark.soak
def test_a_worker_is_killed_every_five_seconds_for_five_minutes(tmp_path: Path) -> None:
    with (
        mock_process("--ttft", "0", "--tpot", "0", "--tokens", str(TOKENS)) as mock,
        several(tmp_path, settings=priced(mock)) as workers,
    ):
        bodies = [CHAT] * 8 + [STREAM] * 8
        load, killed = asyncio.run(kill_under_load(workers, bodies, 60, 5.0))
        check_killed(workers, mock, load, killed)


# What the others notice


@dataclass
class Site:
    """Two workers, the mock behind them, and their settings file."""

    workers: Workers
    mock: MockServer
    file: Path

    def chat(self, worker: int, model: str = "mock-model") -> httpx.Response:
        body = {"model": model, "messages": [{"role": "user", "content": "Hello"}]}
        return self.workers.to(worker).post("/v1/chat/completions", json=body)

    def answers(self, worker: int, model: str) -> bool:
        return self.chat(worker, model).status_code == 200

    def ask(self, worker: int) -> httpx.Response:
        body = {"question": "How is green tea brewed?", "app": "tea"}
        return self.workers.to(worker).post("/v1/answers", json=body)

    def save(self, settings: Any) -> None:
        beside = self.file.with_suffix(".new")
        beside.write_text(settings if isinstance(settings, str) else json.dumps(settings))
        beside.replace(self.file)

    @property
    def log(self) -> str:
        return self.workers.server.log


def settings_of(mock: MockServer, folder: Path, *names: str) -> dict[str, Any]:
    return {
        **models(mock.url, "mock-model", "say-1500", *names),
        "apps": {"tea": {"knowledge": str(folder / "tea.md"), "route": "mock-model"}},
        "embedding": "none",
        "slo": {"ttft_p95": "3s"},
    }


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("workers")
    (folder / "tea.md").write_text(TEA)
    file = folder / "own.yaml"
    with mocking(tokens=12, tpot_s=0.002) as mock:
        file.write_text(json.dumps(settings_of(mock, folder)))
        with several(folder, "--config", str(file)) as workers:
            until(lambda: workers.server.get("/readyz").json()["knowledge"]["tea"]["ready"])
            yield Site(workers, mock, file)


def test_what_a_killed_worker_counted_is_not_lost(site: Site) -> None:
    for worker in (1, 2):
        assert [site.chat(worker).status_code for _ in range(3)] == [200] * 3
        site.workers.kill(worker)
        assert [site.chat(worker).status_code for _ in range(2)] == [200] * 2
    calls = calls_of(site.mock.url)
    assert calls >= 10
    for worker in (1, 2):
        text = site.workers.to(worker).get("/metrics").text
        assert total(text, "slipway_attempts_total") == calls
        assert total(text, "slipway_answers_total") == calls
        assert total(text, "slipway_answers_lost_total") == 0


def test_questions_about_documents_wait_for_a_killed_first_worker(site: Site) -> None:
    answer = site.ask(2).json()
    client = site.workers.to(2)
    os.kill(site.workers.pid_of(1), signal.SIGKILL)
    again = client.post("/v1/answers", json={"question": "How is green tea brewed?", "app": "tea"})
    assert again.status_code == 200, again.text
    assert again.json()["sources"][0]["path"] == "tea.md"
    vote = client.post("/v1/feedback", json={"answer": answer["id"], "helpful": True})
    assert vote.status_code in (200, 404), vote.text  # notes are written once a second
    assert client.get(f"/v1/answers/{answer['id']}").status_code == 404
    until(lambda: site.workers.counts()["running"] == 2)


def test_a_stream_that_the_first_worker_wrote_ends_with_it_and_others_go_on(site: Site) -> None:
    body = {"model": "say-1500", "messages": [{"role": "user", "content": "Hi"}], "stream": True}
    here, lost = site.workers.fresh(2), site.workers.fresh(1)
    with (
        here.stream("POST", "/v1/chat/completions", json=body) as kept,
        lost.stream("POST", "/v1/chat/completions", json=body) as cut,
    ):
        kept_lines, cut_lines = kept.iter_lines(), cut.iter_lines()
        next(kept_lines), next(cut_lines)
        before = site.workers.metric("slipway_answers_lost_total")
        site.workers.kill(1)
        with pytest.raises(httpx.TransportError):
            list(cut_lines)
        assert site.workers.metric("slipway_answers_lost_total") == before + 1
        assert "data: [DONE]" in list(kept_lines)


def test_models_are_answered_while_the_first_worker_does_not_react(site: Site) -> None:
    client, first = site.workers.to(2), site.workers.pid_of(1)
    os.kill(first, signal.SIGSTOP)
    try:
        body = {"model": "mock-model", "messages": [{"role": "user", "content": "Hello"}]}
        assert client.post("/v1/chat/completions", json=body).status_code == 200
        assert "slipway_answers_total" in client.get("/metrics").text
    finally:
        os.kill(first, signal.SIGCONT)


@pytest.mark.parametrize("worker", [1, 2])
def test_a_worker_that_is_asked_to_end_is_replaced(site: Site, worker: int) -> None:
    body = {"model": "say-1500", "messages": [{"role": "user", "content": "Hi"}], "stream": True}
    before, pid = site.workers.counts()["restarts"], site.workers.pid_of(worker)
    with site.workers.fresh(worker).stream("POST", "/v1/chat/completions", json=body) as reply:
        lines = reply.iter_lines()
        next(lines)
        os.kill(pid, signal.SIGTERM)
        until(lambda: site.workers.counts()["running"] == 1)
        assert [site.chat(3 - worker).status_code for _ in range(20)] == [200] * 20
        assert "data: [DONE]" in list(lines)
    until(lambda: is_whole(site.workers, before + 1))
    assert site.chat(worker).status_code == 200


def test_a_worker_that_dies_again_and_again_is_started_less_often(site: Site) -> None:
    until(lambda: site.workers.counts()["running"] == 2)
    for _ in range(3):
        site.workers.kill(2)
    assert "it starts again in 0.5 s" in site.log
    assert site.chat(1).status_code == 200


def test_changed_settings_apply_in_all_workers_or_in_none(site: Site) -> None:
    folder = site.file.parent
    until(lambda: site.workers.counts()["running"] == 2)
    site.save(settings_of(site.mock, folder, "say-3"))
    until(lambda: "settings applied: model say-3 added" in site.log)
    for worker in (1, 2):
        assert site.chat(worker, "say-3").status_code == 200
    refused = site.log.count("not applied")
    site.save("models: {broken: {base_url: nothing}}")
    until(lambda: site.log.count("not applied") > refused)
    for worker in (1, 2):
        assert site.chat(worker, "say-3").status_code == 200
        ready = site.workers.to(worker).get("/readyz").json()["settings"]
        assert any("models.broken" in each for each in ready["refused"])
    assert site.log.count("not applied") == refused + 1
    site.workers.kill(2)
    assert site.chat(2, "say-3").status_code == 200  # with the settings in force
    site.save(settings_of(site.mock, folder, "say-4"))
    until(lambda: "settings applied: models say-4 added" in site.log.replace("model ", "models "))
    for worker in (1, 2):
        assert site.chat(worker, "say-4").status_code == 200
        assert site.chat(worker, "say-3").status_code == 404
        reloads = site.workers.to(worker).get("/metrics").text
        assert total(reloads, 'slipway_settings_reloads_total{outcome="applied"}') == 2
        assert total(reloads, 'slipway_settings_reloads_total{outcome="refused"}') == 1


def test_a_new_objective_leaves_the_buckets_of_all_workers_alike(site: Site) -> None:
    until(lambda: site.workers.counts()["running"] == 2)
    said, settings = site.log.count("an edge at 4 s"), settings_of(site.mock, site.file.parent)
    site.save({**settings, "slo": {"ttft_p95": "4s"}})
    until(lambda: site.log.count("an edge at 4 s") > said)
    site.workers.kill(2)
    body = {"model": "mock-model", "messages": [{"role": "user", "content": "Hi"}], "stream": True}
    for worker in (1, 2):
        reply = site.workers.to(worker).post("/v1/chat/completions", json=body)
        assert "data: [DONE]" in reply.text
    for worker in (1, 2):
        text = site.workers.to(worker).get("/metrics").text
        start = "gen_ai_server_time_to_first_token_seconds"
        assert 'le="3.0"' in text
        assert 'le="4.0"' not in text
        streamed = total(text, f"{start}_count")
        assert streamed >= 2
        inf = [each for each in text.splitlines() if start in each and 'le="+Inf"' in each]
        assert sum(float(each.split()[-1]) for each in inf) == streamed


def test_a_change_that_comes_while_the_first_worker_is_dead_is_applied(site: Site) -> None:
    until(lambda: site.workers.counts()["running"] == 2)
    os.kill(site.workers.pid_of(1), signal.SIGKILL)
    site.save(settings_of(site.mock, site.file.parent, "say-5"))
    for worker in (1, 2):
        until(partial(site.answers, worker, "say-5"))
    said = site.log.count("settings applied")
    os.kill(site.workers.server.process.pid, signal.SIGHUP)
    until(
        lambda: (
            site.log.count("settings applied: nothing changed")
            and site.log.count("settings applied") > said
        )
    )
    for worker in (1, 2):
        assert site.chat(worker, "say-5").status_code == 200
