"""A real Prometheus that scrapes a server, for tests."""

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

import plain_http
from processes import Serving, free_port
from waiting import PATIENCE_S, until

needs_prometheus = pytest.mark.skipif(
    shutil.which("prometheus") is None,
    reason="Prometheus is not installed; `apt-get install prometheus` brings it",
)


class Prometheus:
    """A Prometheus that runs, and the questions that a dashboard asks it."""

    def __init__(self, url: str) -> None:
        self.url = url

    def get(self, path: str, **query: str) -> Any:
        response = plain_http.get(self.url + path, params=query, timeout=PATIENCE_S)
        body = response.json()
        assert body["status"] == "success", body
        return body["data"]

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the samples of an instant query."""
        found = self.get("/api/v1/query", query=expression)
        result: list[dict[str, Any]] = found["result"]
        return result

    def value(self, expression: str) -> float:
        """Return the one value of an instant query."""
        (sample,) = self.query(expression)
        return float(sample["value"][1])

    def scrapes(self) -> int:
        """Return how often the server was scraped with success."""
        found = self.query('count_over_time((up{job="slipway"} == 1)[1h:1s])')
        return int(found[0]["value"][1]) if found else 0

    def wait_for_scrapes(self, more: int) -> None:
        before = self.scrapes()

        def are_more() -> bool:
            time.sleep(0.25)  # between two questions; the scrapes come once a second
            return self.scrapes() >= before + more

        until(are_more)


def is_ready(url: str) -> bool:
    try:
        return plain_http.get(f"{url}/-/ready", timeout=PATIENCE_S).status_code == 200
    except httpx.TransportError:
        return False


@contextmanager
def scraping(folder: Path, server: Serving, key: str | None = None) -> Iterator[Prometheus]:
    """Run Prometheus on loopback; it scrapes the server each second."""
    port = free_port()
    job: dict[str, Any] = {
        "job_name": "slipway",
        "static_configs": [{"targets": [f"127.0.0.1:{server.port}"]}],
    }
    if key is not None:
        job["authorization"] = {"credentials": key}
    settings = {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s"},
        "scrape_configs": [job],
    }
    file = folder / "prometheus.yml"
    file.write_text(json.dumps(settings))  # JSON is YAML
    with (folder / "prometheus.log").open("w") as log:
        process = subprocess.Popen(
            [
                shutil.which("prometheus") or "prometheus",
                f"--config.file={file}",
                f"--storage.tsdb.path={folder / 'tsdb'}",
                f"--web.listen-address=127.0.0.1:{port}",
                "--log.level=warn",
            ],
            stdout=log,
            stderr=log,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        until(lambda: is_ready(url))
        yield Prometheus(url)
    finally:
        process.terminate()
        process.wait(PATIENCE_S)
