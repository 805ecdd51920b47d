"""Test that requests go on while the store is locked, full, frozen or killed, and that every
acknowledged row is in the store once afterwards.
"""

import json
import os
import resource
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from postgres import Postgres
from processes import Serving, mocking, models, serving
from slipway.providers.mock import MockServer
from slipway.settings import Settings
from slipway.store import FeedbackFilter, LedgerFilter, open_records
from steady_load import SteadyLoad, steady_load
from waiting import PATIENCE_S, until

HEALTHY_S = 3.0  # after the store is back
QUESTION = {"question": "Hello?", "app": "mock-model"}


class Deployment:
    """A server and its store."""

    def __init__(self, folder: Path, mock: MockServer, store: str) -> None:
        self.folder, self.store = folder, store
        settings = {**models(mock.url, "mock-model"), "store": store, "data": "./data"}
        self.config = folder / "slipway.yaml"
        self.config.write_text(json.dumps(settings))

    def serving(self) -> AbstractContextManager[Serving]:
        return serving(self.folder)

    @property
    def journal(self) -> Path:
        return self.folder / ("data/journal" if "postgres" in self.store else "journal")

    def rows(self) -> Counter[str]:
        """Count the rows of the ledger by answer."""
        with closing(open_records(Settings(store=self.store), patient=True)) as store:
            found, after = Counter[str](), ""
            while page := store.ledger.rows(LedgerFilter(), limit=5_000, after=after):
                found.update(row.answer for row in page)
                after = page[-1].id
            return found

    def votes(self) -> dict[str, Any]:
        with closing(open_records(Settings(store=self.store), patient=True)) as store:
            rows = store.records.list_feedback(FeedbackFilter(limit=1000))
            return {row["answer"]: row["helpful"] for row in rows if row["kind"] == "vote"}


def state(server: Serving) -> dict[str, Any]:
    found: dict[str, Any] = server.get("/readyz").raise_for_status().json()
    return found


def metric(server: Serving, name: str) -> float:
    lines = server.get("/metrics").text.splitlines()
    return next(float(line.split()[-1]) for line in lines if line.startswith(f"{name} "))


def is_healthy(server: Serving) -> bool:
    found = state(server)
    return bool(found["state"] == "ok" and found["store"]["waiting"] == 0)


@pytest.fixture(scope="module")
def mock() -> Iterator[MockServer]:
    with mocking(text="Hello to you.") as server:
        yield server


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory, mock: MockServer) -> Deployment:
    folder = tmp_path_factory.mktemp("sqlite")
    return Deployment(folder, mock, f"sqlite:///{folder}/slipway.db")


@pytest.fixture(scope="module")
def frozen(
    tmp_path_factory: pytest.TempPathFactory, mock: MockServer, postgres: Postgres
) -> Deployment:
    return Deployment(tmp_path_factory.mktemp("postgres"), mock, postgres.database())


@contextmanager
def lock(deployment: Deployment) -> Iterator[None]:
    """Hold the write lock of a SQLite store, as a program that hangs would."""
    with closing(sqlite3.connect(deployment.folder / "slipway.db", isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        yield


@contextmanager
def full(server: Serving) -> Iterator[None]:
    """Let no file of the server grow, as on a full disk."""
    before = resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (1, before[1]))
    try:
        yield
    finally:
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, before)


def vote(server: Serving, answer: str, *, helpful: bool) -> dict[str, Any]:
    sent = server.post("/v1/feedback", {"answer": answer, "helpful": helpful})
    assert sent.status_code == 200, sent.text
    receipt: dict[str, Any] = sent.json()
    return receipt


def outlast(
    deployment: Deployment,
    server: Serving,
    outage: Callable[[], AbstractContextManager[Any]],
    *,
    seconds: float,
    votes: bool = True,
) -> SteadyLoad:
    """Put load on a server through an outage of its store, and check what must hold."""
    before = server.post("/v1/answers", QUESTION).raise_for_status().json()["id"]
    vote(server, before, helpful=False)
    with steady_load(server.url, "mock-model") as load:
        until(lambda: len(load.acknowledged) > 20)
        with outage():
            ends_at = time.monotonic() + seconds
            during = server.post("/v1/answers", QUESTION).raise_for_status().json()["id"]
            until(lambda: state(server)["state"] == "degraded")
            assert state(server)["store"]["reason"]
            if votes:
                vote(server, during, helpful=True)
                vote(server, before, helpful=True)
            until(lambda: metric(server, "slipway_store_waiting_rows") > 50)
            assert metric(server, "slipway_store_up") == 0
            until(lambda: time.monotonic() > ends_at, within_s=seconds + PATIENCE_S)
        began_at = time.monotonic()
        until(lambda: state(server)["state"] == "ok")
        healthy_s = time.monotonic() - began_at
    until(lambda: is_healthy(server))
    assert healthy_s < HEALTHY_S + server.at_once_s()
    assert load.failed == []
    rows = deployment.rows()
    assert [rows[answer] for answer in load.acknowledged] == [1] * len(load.acknowledged)
    assert metric(server, "slipway_store_lost_rows_total") == 0
    if votes:
        kept = deployment.votes()
        assert (kept[before], kept[during]) == (True, True)
    print(  # noqa: T201 - for the one who measures
        f"{load.sent} requests, {len(load.failed)} failed, longest {load.longest_s:.2f} s, "
        f"healthy after {healthy_s:.2f} s"
    )
    return load


@pytest.mark.parametrize("seconds", [3.0, pytest.param(60.0, marks=pytest.mark.soak)])
def test_a_locked_sqlite_fails_no_request_and_loses_no_row(
    locked: Deployment, seconds: float
) -> None:
    with locked.serving() as server:
        outlast(locked, server, lambda: lock(locked), seconds=seconds)


@pytest.mark.parametrize("seconds", [1.0, pytest.param(60.0, marks=pytest.mark.soak)])
def test_a_full_disk_fails_no_request_and_loses_no_row(locked: Deployment, seconds: float) -> None:
    """The journal has its space already, so even a vote can be acknowledged."""
    with locked.serving() as server:
        outlast(locked, server, lambda: full(server), seconds=seconds)


@pytest.mark.parametrize("seconds", [3.0, pytest.param(60.0, marks=pytest.mark.soak)])
def test_a_frozen_postgresql_fails_no_request_and_loses_no_row(
    frozen: Deployment, postgres: Postgres, seconds: float
) -> None:
    with frozen.serving() as server:
        outlast(frozen, server, postgres.frozen, seconds=seconds)


@pytest.mark.parametrize("seconds", [2.0, pytest.param(60.0, marks=pytest.mark.soak)])
def test_a_killed_postgresql_fails_no_request_and_loses_no_row(
    frozen: Deployment, postgres: Postgres, seconds: float
) -> None:
    @contextmanager
    def gone() -> Iterator[None]:
        postgres.kill()
        try:
            yield
        finally:
            postgres.start()

    with frozen.serving() as server:
        outlast(frozen, server, gone, seconds=seconds)


@pytest.mark.parametrize("times", [2, pytest.param(20, marks=pytest.mark.soak)])
def test_every_acknowledged_row_is_there_once_after_a_kill(locked: Deployment, times: int) -> None:
    acknowledged, requests = list[str](), 0
    for number in range(times):
        with locked.serving() as server, steady_load(server.url, "mock-model") as load:
            load.refused_is_fine = True
            until(lambda: len(load.acknowledged) > 30)
            with lock(locked) if number % 2 else nullcontext():  # rows wait, every second time
                until(lambda: len(load.acknowledged) > 60)
                server.process.kill()
                server.process.wait()
            load.stopping.set()
        assert load.failed == []
        acknowledged += load.acknowledged
        requests += load.sent
    with locked.serving() as server:
        until(lambda: is_healthy(server) and not list(locked.journal.glob("*-*.rows")))
    rows = locked.rows()
    assert [rows[answer] for answer in acknowledged] == [1] * len(acknowledged)
    print(f"{requests} requests, {len(acknowledged)} acknowledged, {times} kills")  # noqa: T201


def test_rows_of_a_killed_worker_are_written_by_another_one(
    tmp_path: Path, mock: MockServer, postgres: Postgres
) -> None:
    deployment = Deployment(tmp_path, mock, postgres.database())
    settings = json.loads(deployment.config.read_text())
    deployment.config.write_text(json.dumps({**settings, "listen": {"workers": 2}}))
    with deployment.serving() as server:
        pid = server.process.pid
        with steady_load(server.url, "mock-model") as load:
            load.refused_is_fine = True
            for _ in range(2):
                enough = len(load.acknowledged) + 40
                until(lambda: len(load.acknowledged) > enough)  # noqa: B023 - called at once
                with postgres.frozen():  # rows wait
                    until(lambda: len(load.acknowledged) > enough + 40)  # noqa: B023
                    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
                    os.kill(int(children[-1]), signal.SIGKILL)
        wanted = set(load.acknowledged)
        until(lambda: wanted <= deployment.rows().keys())  # also those that the killed one left
        rows = deployment.rows()
        assert [rows[answer] for answer in load.acknowledged] == [1] * len(load.acknowledged)
        assert load.failed == []


def test_rows_that_wait_at_the_end_of_a_server_are_written_by_the_next_one(
    locked: Deployment,
) -> None:
    with locked.serving() as server:
        with lock(locked):
            answer = server.post("/v1/answers", QUESTION).raise_for_status().json()["id"]
            vote(server, answer, helpful=True)
            server.terminate()
            assert server.process.wait(PATIENCE_S) == 0
        assert "rows wait in the journal" in server.log
        assert answer not in locked.votes()
    with locked.serving():
        until(lambda: answer in locked.votes() and locked.rows()[answer] == 1)


def test_damaged_lines_of_the_journal_are_set_aside_and_the_others_written(
    locked: Deployment,
) -> None:
    with locked.serving() as server, lock(locked):
        answer = server.post("/v1/answers", QUESTION).raise_for_status().json()["id"]
        server.process.kill()
        server.process.wait()
    (segment,) = locked.journal.glob("*.rows")
    with segment.open("ab") as file:
        file.write(b"0badc0de ledger {}\nno line\n" + segment.read_bytes()[:40])
    with locked.serving():
        until(lambda: locked.rows()[answer] == 1)
        (aside,) = until(lambda: list(locked.journal.glob("*.unreadable")))
    assert len(aside.read_text().splitlines()) == 3


def test_a_server_starts_without_its_postgresql_and_knows_the_keys_it_knew(
    tmp_path: Path, mock: MockServer, postgres: Postgres
) -> None:
    deployment = Deployment(tmp_path, mock, postgres.database())
    settings = json.loads(deployment.config.read_text())
    admin = {"authorization": "Bearer sw-admin-of-tests"}
    deployment.config.write_text(
        json.dumps({**settings, "keys": [{"key": "sw-admin-of-tests", "admin": True}]})
    )

    def asked(server: Serving, key: str) -> int:
        body = {"model": "mock-model", "messages": [{"role": "user", "content": "Hello"}]}
        headers = {"authorization": f"Bearer {key}"}
        return server.post("/v1/chat/completions", body, headers=headers).status_code

    with deployment.serving() as server:
        made = server.post("/v1/keys", {}, headers=admin).raise_for_status().json()
        assert asked(server, made["key"]) == 200
    postgres.kill()
    try:
        with deployment.serving() as server:
            assert server.get("/readyz").json()["state"] == "degraded"
            assert asked(server, made["key"]) == 200
            assert asked(server, "sw-nobody-has-this") == 401
            refused = server.post("/v1/keys", {}, headers=admin)
            assert refused.status_code == 503
            assert "The keys in the store cannot be used" in refused.text
            (tmp_path / "data" / "keys.json").unlink()
            with deployment.serving() as second:
                assert asked(second, made["key"]) == 503  # nobody can say whether it is a key
                assert asked(second, "sw-admin-of-tests") == 200
                postgres.start()
                until(lambda: asked(second, made["key"]) == 200)
                until(lambda: server.get("/readyz").json()["state"] == "ok")
    finally:
        if postgres.process is not None and postgres.process.poll() is not None:
            postgres.start()
