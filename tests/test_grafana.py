"""The Grafana dashboards: a real Prometheus scrapes a server with mixed traffic, and every panel of
every file has data.
"""

import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from processes import ROOT, Serving, mocking, serving
from prometheus import Prometheus, needs_prometheus, scraping
from slipway.telemetry.definitions import METRICS
from waiting import PATIENCE_S, until

FOLDER = ROOT / "deploy" / "grafana"
FILES = sorted(FOLDER.glob("*.json"))
OPERATOR, USER = "sw-operator-of-tests", "sw-user-of-tests"
PRICE = {"input": 1, "output": 2}
RULES = """
rules:
  - name: hours
    questions: ["When are you open?"]
    answer: From nine to five.
"""
# Without a GPU here, these have no data; their queries are run all the same
OF_GPUS = ("Use of the GPUs", "Memory of the GPUs")
VARIABLES = {"$__rate_interval": "20s", "$__range": "5m", "$app": ".*", "$model": ".*"}
# Suffixes that Prometheus' formats add to the names of metrics
SUFFIX = re.compile(r"_(?:total|bucket|sum|count)$")
NAME = re.compile(r"\b(?:slipway|gen_ai_(?:server|client)|process)_\w+")


def panels() -> list[tuple[str, dict[str, Any]]]:
    found = []
    for file in FILES:
        dashboard = json.loads(file.read_text())
        found += [(file.stem, each) for each in dashboard["panels"] if each["type"] != "row"]
    return found


def queries(panel: dict[str, Any]) -> list[str]:
    """Return a panel's queries as Grafana sends them."""
    found = []
    for target in panel["targets"]:
        expression = target["expr"]
        for name, value in VARIABLES.items():
            expression = expression.replace(name, value)
        assert "$" not in expression
        found.append(expression)
    return found


ENGINE = """# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{model_name="m",engine="0"} 2.0
vllm:num_requests_waiting{model_name="m",engine="0"} 1.0
vllm:kv_cache_usage_perc{model_name="m",engine="0"} 0.25
vllm:num_preemptions_total{model_name="m",engine="0"} 3.0
vllm:prefix_cache_queries_total{model_name="m",engine="0"} QUERIED
vllm:prefix_cache_hits_total{model_name="m",engine="0"} HIT
vllm:prompt_tokens_total{model_name="m",engine="0"} 5000.0
vllm:generation_tokens_total{model_name="m",engine="0"} 700.0
"""


class EngineMetrics(BaseHTTPRequestHandler):
    """What a vLLM server says of itself."""

    def do_GET(self) -> None:
        seconds = int(time.monotonic())
        said = ENGINE.replace("QUERIED", str(10 * seconds)).replace("HIT", str(4 * seconds))
        self.send_response(200)
        self.send_header("content-length", str(len(said)))
        self.end_headers()
        self.wfile.write(said.encode())

    def log_message(self, *_: object) -> None:
        """Stay silent."""


@contextmanager
def engine() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), EngineMetrics)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/metrics"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(PATIENCE_S)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    folder = tmp_path_factory.mktemp("grafana")
    (folder / "docs").mkdir()
    (folder / "docs" / "manual.md").write_text("# Pumps\n\nThe pump needs oil every 30 days.\n")
    (folder / "rules.yaml").write_text(RULES)
    with (
        mocking(text="The pump needs oil every 30 days. [1]", tpot_s=0.001) as mock,
        engine() as address,
    ):
        one = {"base_url": mock.url, "price": PRICE}
        settings = {
            "models": {
                "m": {**one, "zone": "near", "at_once": 1, "wait": "20s", "metrics": address},
                "fault-status-503": {**one, "zone": "far"},
                "unpriced": {"base_url": mock.url, "name": "m"},
            },
            "routes": {"main": ["fault-status-503", "m"]},
            "keys": [
                {"key": OPERATOR, "admin": True, "documents": True},
                {"key": USER, "limits": {"usd_per_day": 100}},
            ],
            "apps": {
                "help": {
                    "knowledge": ["docs"],
                    "route": "m",
                    "rules": "rules.yaml",
                    "cache": {"exact": "1h"},
                },
                "quotes": {"knowledge": ["docs"]},
            },
        }
        with serving(folder, settings=settings) as server:
            until(lambda: documents_are_read(server))
            yield server


def documents_are_read(server: Serving) -> bool:
    known = server.get("/readyz", headers=bearer(OPERATOR)).json()["knowledge"]
    return all(each["ready"] for each in known.values())


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


class Traffic:
    """What users do, again and again until it is stopped."""

    def __init__(self, server: Serving) -> None:
        self.server, self.stopped, self.number = server, threading.Event(), 0
        self.threads = [threading.Thread(target=self.run, daemon=True) for _ in range(2)]

    def __enter__(self) -> None:
        for thread in self.threads:
            thread.start()

    def __exit__(self, *_: object) -> None:
        self.stopped.set()
        for thread in self.threads:
            thread.join(PATIENCE_S)

    def run(self) -> None:
        while not self.stopped.wait(0.1):
            self.number += 1
            self.chat("m", stream=True)
            self.chat("unpriced", OPERATOR)
            self.chat("fault-status-503")
            self.chat("main", stream=True)
            self.ask("When are you open?")
            self.ask("How often does the pump need oil?", app="quotes")
            answer = self.ask(f"How often does pump {self.number % 3} need oil?")
            self.ask(f"How often does pump {self.number % 3} need oil?")
            self.vote(answer)
            self.server.post("/v1/cache/invalidate", {"app": "help"}, headers=bearer(OPERATOR))

    def chat(self, model: str, key: str = USER, **more: Any) -> None:
        body = {"messages": [{"role": "user", "content": "Hello"}], "model": model, **more}
        self.server.post("/v1/chat/completions", body, headers=bearer(key))

    def ask(self, question: str, app: str = "help") -> str:
        body = {"question": question, "app": app}
        found = self.server.post("/v1/answers", body, headers=bearer(USER)).json()
        return str(found["id"])

    def vote(self, answer: str) -> None:
        for opinion in ({"helpful": self.number % 3 > 0}, {"kind": "report", "comment": "Old."}):
            self.server.post("/v1/feedback", {"answer": answer, **opinion}, headers=bearer(USER))


@pytest.fixture(scope="module")
def prometheus(server: Serving, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    folder = tmp_path_factory.mktemp("prometheus")
    with scraping(folder, server, OPERATOR) as prometheus, Traffic(server):
        prometheus.wait_for_scrapes(4)
        yield prometheus


def value_of(sample: dict[str, Any]) -> float:
    return float(sample["value"][1])


def has_data(prometheus: Prometheus, query: str) -> bool:
    """Return whether a query has a value that is a number."""
    return any(value_of(sample) == value_of(sample) for sample in prometheus.query(query))


@needs_prometheus
def test_every_panel_has_data(prometheus: Prometheus) -> None:
    wanted = {
        (file, panel["title"], query): query
        for file, panel in panels()
        if panel["title"] not in OF_GPUS
        for query in queries(panel)
    }

    for _ in range(int(PATIENCE_S)):
        wanted = {p: query for p, query in wanted.items() if not has_data(prometheus, query)}
        if not wanted:
            break
        prometheus.wait_for_scrapes(1)
    assert [f"{file}: {title}" for file, title, _ in wanted] == []


@needs_prometheus
def test_queries_about_gpus_are_valid(prometheus: Prometheus) -> None:
    for _, panel in panels():
        if panel["title"] in OF_GPUS:
            for query in queries(panel):
                prometheus.query(query)  # raises if Prometheus does not understand it


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.stem))
def test_only_metrics_that_exist_are_shown(file: Path) -> None:
    known = {metric.name for metric in METRICS.values()}
    used = set(NAME.findall(" ".join(queries_of(file))))
    assert used
    assert {name for name in used if not known & {name, SUFFIX.sub("", name)}} == set()


def queries_of(file: Path) -> list[str]:
    return [
        target["expr"]
        for name, panel in panels()
        if name == file.stem
        for target in panel["targets"]
    ]


def test_the_files_are_as_the_script_writes_them() -> None:
    done = subprocess.run(
        [sys.executable, FOLDER / "dashboards.py", "--check"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_panels_have_a_place_of_their_own() -> None:
    for file in FILES:
        taken = set[tuple[int, int]]()
        for panel in json.loads(file.read_text())["panels"]:
            grid = panel["gridPos"]
            cells = {
                (x, y)
                for x in range(grid["x"], grid["x"] + grid["w"])
                for y in range(grid["y"], grid["y"] + grid["h"])
            }
            assert not cells & taken, (file.name, panel["title"])
            assert max(x for x, _ in cells) < 24
            taken |= cells
