"""/openapi.json lists what the server answers to, and what comes back to random requests fits it.

The random requests are made by schemathesis, which `make clients` installs.
"""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from processes import ROOT, Serving, mocking, models
from several_workers import Workers, several
from slipway.app.building import build
from slipway.errors import all_errors
from slipway.settings import Settings
from slipway.web.openapi import PARAMETER

PYTHON = ROOT / ".venv-clients" / "bin" / "python"
KEY = "sw-operator-of-tests"
AS_OPERATOR = {"Authorization": f"Bearer {KEY}"}
MANUAL = "# Pumps\n\nThe pump needs oil every 30 days.\n\n# Belts\n\nA belt lasts two years.\n"


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workers]:
    """Two workers with every kind of thing that a route is about."""
    folder = tmp_path_factory.mktemp("openapi")
    (folder / "docs").mkdir()
    (folder / "docs" / "manual.md").write_text(MANUAL)
    with mocking(tokens=5) as mock:
        settings = {
            **models(mock.url, "m", "fault-status-500", price={"input": 1, "output": 2}),
            "keys": [{"key": KEY, "admin": True, "documents": True}],
            "apps": {"help": {"knowledge": ["docs"], "route": "m", "cache": {"exact": "1h"}}},
            "conversations": "server",
        }
        with several(folder, settings=settings) as workers:
            yield workers


def document(server: Serving) -> dict[str, Any]:
    found: dict[str, Any] = server.get("/openapi.json").json()
    return found


def served() -> set[tuple[str, str]]:
    """Return the methods and paths that the app has handlers for, without HEAD, which is GET's."""
    guard = build(Settings())
    routes = getattr(guard.rest, "routes")  # noqa: B009
    pairs = {(m, PARAMETER.sub(r"{\1}", each.path)) for each in routes for m in each.methods}
    return {("POST", path) for path in guard.fast} | {p for p in pairs if p[0] != "HEAD"}


def test_it_lists_the_paths_and_methods_that_are_served(workers: Workers) -> None:
    paths = document(workers.server)["paths"]
    assert {(m.upper(), path) for path, methods in paths.items() for m in methods} == served()


@pytest.mark.parametrize("worker", [1, 2])
def test_each_worker_serves_it_without_a_key(workers: Workers, worker: int) -> None:
    response = workers.to(worker).get("/openapi.json")
    assert response.status_code == 200
    assert response.json() == document(workers.server)


def test_every_path_names_its_methods_if_asked_with_another(workers: Workers) -> None:
    for path, methods in document(workers.server)["paths"].items():
        address = PARAMETER.sub("x", path)
        client = workers.to(1)
        other = next(each for each in ("PATCH", "PUT", "DELETE") if each.lower() not in methods)
        wrong = client.request(other, address, headers=AS_OPERATOR)
        assert wrong.status_code == 405, path
        allowed = {method.lower() for method in wrong.headers["allow"].split(", ")}
        assert allowed >= {*methods}


def test_a_path_asks_for_a_key_if_the_document_says_so(workers: Workers) -> None:
    for path, methods in document(workers.server)["paths"].items():
        for method, operation in methods.items():
            response = workers.to(1).request(method, PARAMETER.sub("x", path))
            needs_one = operation.get("security") != []
            assert (response.status_code == 401) == needs_one, path
            assert ("401" in operation["responses"]) == needs_one


def test_it_lists_only_codes_of_our_errors(workers: Workers) -> None:
    known = {(error.status, error.code) for error in all_errors()}
    listed = {
        (int(status), code)
        for methods in document(workers.server)["paths"].values()
        for operation in methods.values()
        for status, response in operation["responses"].items()
        for code in response.get("x-slipway-codes", ())
    }
    assert len(listed) > 25
    assert listed <= known


def known_values(server: Serving) -> dict[str, list[str]]:
    """Return values that exist, so that random requests reach what is behind a 404."""
    question = {"question": "How often does the pump need oil?", "app": "help"}
    answer = server.post("/v1/answers", question, headers=AS_OPERATOR).json()
    made = server.post("/v1/keys", {"name": "spare"}, headers=AS_OPERATOR).json()
    documents = server.get("/v1/documents", headers=AS_OPERATOR).json()["data"]
    return {
        "model": ["m", "help", "fault-status-500"],
        "name": ["m", "help", "index.html"],
        "app": ["help"],
        "answer": [answer["id"]],
        "id": [
            answer["id"],
            *(source["id"] for source in answer["sources"]),
            *(each["id"] for each in documents),
            made["id"],
        ],
    }


def random_requests(server: Serving, count: int, seed: int) -> dict[str, Any]:
    """Send random requests, and return what the client found."""
    if not PYTHON.exists():
        pytest.skip("the clients are not installed: make clients")
    script = str(ROOT / "tests" / "clients" / "random_requests.py")
    values = json.dumps(known_values(server))
    done = subprocess.run(
        [str(PYTHON), script, server.url, KEY, str(count), str(seed), values],
        capture_output=True,
        text=True,
        timeout=1700,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def check(found: dict[str, Any]) -> None:
    assert found["invalid"] == []
    assert found["unexplained"] == []
    assert found["mismatches"] == {}


def test_random_requests_get_what_the_document_says(workers: Workers) -> None:
    found = random_requests(workers.server, 300, 1)
    check(found)
    assert found["sent"] > 150
    assert found["statuses"]["200"] > 20
    assert found["statuses"]["400"] > 20


@pytest.mark.soak
def test_a_hundred_thousand_random_requests(workers: Workers) -> None:
    server, sent, sizes = workers.server, 0, list[float]()
    rounds = 0
    while sent < 100_000:
        rounds += 1
        found = random_requests(server, 25_000, 100 + rounds)
        check(found)
        sent += found["sent"]
        sizes.append(rss_mib_of(workers))
    assert sizes[-1] - sizes[0] < 30, sizes
    assert "Traceback" not in server.log


def rss_mib_of(workers: Workers) -> float:
    """Return the memory of both workers in MiB."""
    statuses = [Path(f"/proc/{workers.pid_of(n)}/status").read_text() for n in (1, 2)]
    lines = [line for each in statuses for line in each.splitlines() if line.startswith("VmRSS")]
    return sum(float(line.split()[1]) / 1024 for line in lines)
