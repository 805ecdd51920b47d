"""Test `slipway check`: whether a deployment is ready, row by row."""

import json
import re
import shutil
import socket
import sqlite3
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from processes import mocking, run, serving
from redis_server import RedisServer
from slipway.providers.mock import MockServer
from waiting import until

SECRET = "sk-a-secret-that-nobody-shows"
CLIENT = "client-key-that-nobody-shows"


class Found:
    """The rows of `slipway check --json` by name, and how the command ended."""

    def __init__(
        self, folder: Path, settings: dict[str, Any], *args: str, env: dict[str, str] | None = None
    ) -> None:
        (folder / "slipway.yaml").write_text(json.dumps({"listen": {"port": 0}, **settings}))
        known = {"PROVIDER_KEY": SECRET, "CLIENT_KEY": CLIENT, **(env or {})}
        self.done = run("check", "--json", *args, cwd=folder, env=known)
        assert "Traceback" not in self.done.stderr
        assert SECRET not in self.done.stdout + self.done.stderr
        assert CLIENT not in self.done.stdout + self.done.stderr
        self.whole: dict[str, Any] = json.loads(self.done.stdout) if self.done.stdout else {}

    def all(self, name: str) -> list[dict[str, Any]]:
        return [row for row in self.whole["rows"] if row["name"] == name]

    def one(self, name: str) -> dict[str, Any]:
        (found,) = self.all(name)
        return found


@pytest.fixture(scope="module")
def mock() -> Iterator[MockServer]:
    with mocking() as server:
        yield server


def settings_of(mock: MockServer, **more: Any) -> dict[str, Any]:
    """Settings of a deployment that lacks nothing but a backup."""
    model = {
        "base_url": f"{mock.url}/v1",
        "name": "mock-model",
        "api_key": "${PROVIDER_KEY}",
        "price": {"input": 1, "output": 2},
    }
    return {
        "models": {"best": {**model, "zone": "a"}, "small": {**model, "zone": "b"}},
        "routes": {"main": ["best", {"model": "small", "role": "smaller"}]},
        "keys": [{"key": "${CLIENT_KEY}", "admin": True, "limits": {"usd_per_day": 5}}],
        **more,
    }


def test_a_deployment_is_looked_at_row_by_row(tmp_path: Path, mock: MockServer) -> None:
    found = Found(tmp_path, settings_of(mock))
    assert (found.done.returncode, found.whole["state"]) == (0, "amber")
    assert [row["state"] for row in found.all("model")] == ["green", "green"]
    for name in ("limits", "zones", "fallback", "prices", "disk", "open files", "memory", "cores"):
        assert found.one(name)["state"] == "green", found.one(name)
    assert found.one("settings")["says"].startswith("The settings are fine. 2 models, 1 route,")
    assert found.one("store")["state"] == "skipped"
    assert not mock.requests or all(r.path != "/v1/chat/completions" for r in mock.requests)


def test_what_a_deployment_lacks_is_named(tmp_path: Path, mock: MockServer) -> None:
    settings = settings_of(mock, apps={"docs": {"knowledge": ".", "route": "small"}})
    settings |= {
        "listen": {"port": 0, "workers": 64},
        "limits": {"connections": 2_000_000},
        "keys": ["${CLIENT_KEY}"],
        "cache": {"memory_mb": 1_000_000_000},
    }
    settings["models"]["small"] |= {"price": None, "name": "not-listed"}
    (tmp_path / "a.md").write_text("# A\n\nText.\n")
    (tmp_path / "slipway.yaml").touch()
    found = Found(tmp_path, settings, env={"SLIPWAY_CACHE": str(tmp_path / "cache")})
    for name, state, says, do in (
        ("keys", "amber", "No key may manage keys", "slipway keys create"),
        ("limits", "amber", "No limit is set", "usd_per_month"),
        ("prices", "amber", "The price of small is unknown", "price:"),
        ("weights", "amber", "words only", "slipway weights pull minilm"),
        ("open files", "red", "files may be open", "LimitNOFILE=4000200"),
        ("memory", "red", "may be needed", "cache.memory_mb"),
        ("cores", "amber", "64 workers", "workers:"),
        ("fallback", "amber", "asks the model `small` only", "Make a route"),
    ):
        row = found.all(name)[-1]
        assert (row["state"], says in row["says"]) == (state, True), row
        assert do in " ".join(row["do"])
    assert "does not list `not-listed`" in found.all("model")[1]["says"]
    assert found.done.returncode == 1


class SkewedEndpoint(BaseHTTPRequestHandler):
    """A models' endpoint whose clock is an hour slow, and that rejects every key."""

    def date_time_string(self, timestamp: float | None = None) -> str:
        return super().date_time_string(time.time() - 3600)

    def do_GET(self) -> None:
        self.send_error(401)

    def log_message(self, *_: object) -> None:
        """Write nothing."""


@contextmanager
def https_server(files: tuple[Path, Path]) -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), SkewedEndpoint) as server:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*files)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def test_endpoints_show_certificates_that_end_and_a_wrong_clock(
    tmp_path: Path, certificate: tuple[Path, Path]
) -> None:
    with https_server(certificate) as port:
        model = {
            "base_url": f"https://localhost:{port}/v1",
            "connection": {"ca_file": str(certificate[0])},
        }
        found = Found(tmp_path, {"models": {"m": model}})
    assert "rejects our key (HTTP 401)" in found.one("model")["says"]
    assert found.one("certificates")["state"] == "red"
    assert found.one("certificates")["facts"]["days"] <= 2
    assert "differs" in found.one("clock")["says"]
    assert -3610 < found.one("clock")["facts"]["apart_s"] < -3590


def test_a_store_that_is_down_is_red_and_named_once(tmp_path: Path) -> None:
    pytest.importorskip("psycopg")
    found = Found(tmp_path, {"store": "postgresql://me:${CLIENT_KEY}@127.0.0.1:9/records"})
    assert (found.done.returncode, found.one("store")["state"]) == (1, "red")
    assert "cannot be used now" in found.one("store")["says"]
    assert found.one("keys")["state"] == "skipped"
    assert "bug" not in found.done.stdout


def test_endpoints_that_hang_are_waited_for_together(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/v1"
        models = {f"m{number}": {"base_url": url} for number in range(4)}
        found = Found(tmp_path, {"models": models})
    assert [row["state"] for row in found.all("model")] == ["red"] * 4
    assert "does not answer within 8 s" in found.all("model")[0]["says"]
    assert found.whole["took_s"] < 30


@pytest.mark.skipif(shutil.which("redis-server") is None, reason="needs redis-server")
def test_redis_is_reached_and_its_answer_measured(tmp_path: Path) -> None:
    server = RedisServer(tmp_path)
    server.start()
    try:
        row = Found(tmp_path, {"shared": server.url}).one("shared cache")
    finally:
        server.kill()
    assert row["facts"]["took_ms"] < 1000
    assert row["says"].startswith("Redis answers in")
    assert (
        "cannot be reached" in Found(tmp_path, {"shared": server.url}).one("shared cache")["says"]
    )


def test_a_key_that_nothing_limits_is_named(tmp_path: Path, mock: MockServer) -> None:
    keys = ["${CLIENT_KEY}", {"key": "${PROVIDER_KEY}", "limits": {"usd_per_day": 5}}]
    row = Found(tmp_path, settings_of(mock, keys=keys), "--offline").one("limits")
    assert (row["state"], "keys[0]" in row["says"]) == ("amber", True)
    tenants = {"default": {"limits": {"rpm": 60}}}
    found = Found(tmp_path, settings_of(mock, keys=keys, tenants=tenants), "--offline")
    assert found.one("limits")["state"] == "green"


def test_somebody_must_hear_of_what_goes_wrong(tmp_path: Path, mock: MockServer) -> None:
    alone = Found(tmp_path, settings_of(mock), "--offline")
    assert alone.one("objectives")["state"] == alone.one("alerts")["state"] == "amber"
    notify = {"kind": "webhook", "url": "https://hooks.example.com/a", "heartbeat": "5m"}
    heard = {"slo": {"availability": "99.9%"}, "alerts": {"notify": {"night": notify}}}
    found = Found(tmp_path, settings_of(mock, **heard), "--offline")
    assert found.one("objectives")["state"] == found.one("alerts")["state"] == "green"
    assert "night" in found.one("alerts")["says"]
    silent = {"alerts": {"notify": {"night": {**notify, "heartbeat": None}}}}
    assert (
        "dead man's switch"
        in Found(tmp_path, settings_of(mock, **silent), "--offline").one("alerts")["do"][0]
    )


def test_what_is_amber_fails_if_it_is_strict(tmp_path: Path, mock: MockServer) -> None:
    found = Found(tmp_path, settings_of(mock, keys=[]), "--strict")
    assert found.done.returncode == 1
    assert "There is no key" in found.one("keys")["says"]


def test_a_model_that_fails_is_red_unless_another_answers(tmp_path: Path, mock: MockServer) -> None:
    settings = settings_of(mock)
    settings["models"]["best"]["base_url"] = "http://127.0.0.1:9/v1"
    found = Found(tmp_path, settings)
    assert [row["state"] for row in found.all("model")] == ["amber", "green"]
    assert "nothing listens there" in found.all("model")[0]["says"]
    settings["routes"]["main"] = ["best"]
    alone = Found(tmp_path, settings)
    assert (alone.done.returncode, alone.all("model")[0]["state"]) == (1, "red")
    assert "Nothing answers in its place on `main`" in alone.all("model")[0]["says"]
    assert alone.one("fallback")["state"] == alone.one("zones")["state"] == "amber"
    offline = Found(tmp_path, settings, "--offline")
    assert (offline.done.returncode, offline.one("models")["state"]) == (0, "skipped")


def test_each_model_is_called_once_if_that_is_paid_for(tmp_path: Path, mock: MockServer) -> None:
    found = Found(tmp_path, settings_of(mock), "--paid")
    assert re.match(r"--paid: 2 calls, which cost at most 0\.000\d+ USD\.", found.done.stderr)
    for row in found.all("model"):
        assert row["state"] == "green"
        assert row["facts"]["ttft_s"] < 30
        assert float(row["facts"]["cost_usd"]) > 0


def test_paid_and_offline_exclude_each_other(tmp_path: Path, mock: MockServer) -> None:
    found = Found(tmp_path, settings_of(mock), "--paid", "--offline")
    assert found.done.returncode == 2
    assert "leave one out" in found.done.stderr


def test_documents_that_were_not_read_or_changed_are_named(
    tmp_path: Path, mock: MockServer
) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "a.md").write_text("# A\n\nText.\n")
    (docs / "b.pdf").write_bytes(b"%PDF-1.4 no document")
    settings = settings_of(mock, apps={"docs": {"knowledge": "docs"}}, embedding="none")
    before = Found(tmp_path, settings)
    assert "No document was read yet" in before.one("knowledge")["says"]
    run("ingest", cwd=tmp_path, env={"PROVIDER_KEY": SECRET, "CLIENT_KEY": CLIENT})
    row = Found(tmp_path, settings).one("knowledge")
    assert (row["state"], row["facts"]["failed"], row["facts"]["stale"]) == ("amber", 1, 0)
    assert "b.pdf" in row["says"]
    (docs / "b.pdf").unlink()
    (docs / "a.md").write_text("# A\n\nMore text.\n")
    row = Found(tmp_path, settings).one("knowledge")
    assert row["facts"]["stale"] == 2  # one changed, one is gone
    env = dict.fromkeys(("PROVIDER_KEY", "CLIENT_KEY"), SECRET)
    with serving(tmp_path, "--config", "slipway.yaml", env=env):  # it reads what has changed
        found = until(lambda: green(Found(tmp_path, settings).one("knowledge")))
    assert found is not None
    assert found["facts"]["documents"] == 1


def green(row: dict[str, Any]) -> dict[str, Any] | None:
    return row if row["state"] == "green" else None


def test_the_age_of_the_last_backup_is_known(tmp_path: Path, mock: MockServer) -> None:
    settings = settings_of(mock)
    env = {"PROVIDER_KEY": SECRET, "CLIENT_KEY": CLIENT}
    (tmp_path / "slipway.yaml").write_text(json.dumps(settings))
    run("keys", "create", "--name", "ci", "--expires", "90d", cwd=tmp_path, env=env)
    found = Found(tmp_path, settings)
    assert (found.one("store")["state"], found.one("backup")["state"]) == ("green", "amber")
    assert "No backup" in found.one("backup")["says"]
    assert run("store", "backup", "b.gz", cwd=tmp_path, env=env).returncode == 0
    assert Found(tmp_path, settings).one("backup")["state"] == "green"
    with sqlite3.connect(tmp_path / ".slipway" / "slipway.db") as db:
        long_ago = repr(time.time() - 20 * 86_400).encode()
        db.execute("UPDATE meta SET value = ? WHERE key = 'backup_at'", (long_ago,))
    db.close()
    old = Found(tmp_path, settings).one("backup")
    assert (old["state"], "20.0 days" in old["says"]) == ("red", True)
    assert run("store", "restore", "b.gz", "--replace", cwd=tmp_path, env=env).returncode == 0


def test_the_page_is_one_file_without_scripts(tmp_path: Path, mock: MockServer) -> None:
    found = Found(tmp_path, settings_of(mock), "--html", "ready.html")
    page = (tmp_path / "ready.html").read_text()
    assert page.count('class="card ') == len(found.whole["rows"])
    assert "<script" not in page
    assert "Ready, with reservations" in page
    assert SECRET not in page
    missing = Found(tmp_path, settings_of(mock), "--html", "nowhere/ready.html")
    assert (missing.done.returncode, "there is no folder" in missing.done.stderr) == (2, True)


def test_a_person_reads_what_to_do(tmp_path: Path, mock: MockServer) -> None:
    (tmp_path / "slipway.yaml").write_text(json.dumps(settings_of(mock, keys=[])))
    done = run("check", "--port", "0", cwd=tmp_path, env={"PROVIDER_KEY": SECRET})
    assert "Amber: know this, and change it if you can" in done.stdout
    assert "-> Set `key_required: true` and make keys" in done.stdout
    assert re.search(r"slipway\.yaml: ready, with what is amber above \(\d+ amber", done.stdout)
